"""The result of a backtest: the same however its input is cut, and equal to plain arithmetic."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.archive import MINUTE
from sysquant.backtesting import Result, backtest, run
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.parity import KEYS, decided, is_same
from sysquant.types import SECOND, Bars, clock_mark
from tests.compare import TABLES
from tests.market import START, UNIVERSE, Flip, Hold, bars, engine, ticks

pytest_plugins = ["tests.served"]

CAPITAL = 1_000_000.0
TICKS = ticks(3_000)


def result_of(*batches, **changes) -> Result:
    return run(engine(**changes), batches, name="test")


def last_price(result, symbol, ts):
    """Last close at or before `ts`, of a symbol."""
    prices = result.prices(symbol)
    return prices.iloc[prices.index.searchsorted(ts, side="right") - 1]


def assert_same(result, other):
    assert repr(result) == repr(other)
    assert result.effects.hash() == other.effects.hash()
    assert result.tally == other.tally
    assert (result.start, result.end) == (other.start, other.end)
    np.testing.assert_array_equal(result.closes, other.closes)
    pd.testing.assert_series_equal(result.equity, other.equity)


@settings(max_examples=15)
@given(st.lists(st.integers(0, len(TICKS)), max_size=40))
def test_any_cut_of_the_batches_gives_the_same_result(cuts):
    edges = [0, *sorted(cuts), len(TICKS)]
    pieces = [TICKS[a:b] for a, b in pairwise(edges)]
    assert_same(result_of(*pieces), result_of(TICKS))


def test_late_ticks_cut_anywhere_give_the_same_result():
    late = ticks(2_000, disorder=True)
    assert_same(result_of(*[late[i : i + 7] for i in range(0, 2_000, 7)]), result_of(late))


def test_prices_are_the_last_trade_of_every_second():
    result = result_of(TICKS)
    for number, instrument in enumerate(UNIVERSE):
        own = TICKS[TICKS.symbol == number]
        plain = pd.Series(own.price).groupby((own.ts // SECOND + 1) * SECOND).last()
        prices = result.prices(instrument.symbol)
        np.testing.assert_array_equal(prices.to_numpy(), plain.to_numpy())
        # The bar that was open when the ticks ended is cut short there.
        expected = np.minimum(plain.index.to_numpy(), TICKS.ts.max())
        np.testing.assert_array_equal(prices.index.asi8, expected)


def test_bars_of_the_engine_and_prices_of_the_result_are_as_many():
    result = result_of(TICKS, clock_mark((int(TICKS.ts[-1]) // SECOND + 1) * SECOND))
    assert len(result.closes) == result.engine.bars > 500


def test_equity_is_capital_and_what_fills_and_prices_made_of_it():
    result = result_of(TICKS)
    fills, equity = result.table("executions"), result.equity
    assert len(fills) > 50
    assert equity.index[-1] == pd.Timestamp(result.end, unit="ns", tz="UTC")
    assert equity.index.is_monotonic_increasing and equity.index.is_unique
    for ts, value in equity.items():
        # A mark comes before the trades of its instant; the end comes after them.
        done = fills[fills["ts"] < ts] if ts != equity.index[-1] else fills
        plain = CAPITAL - (done["quantity"] * done["price"]).sum() - done["fee"].sum()
        for symbol, quantity in done.groupby("symbol")["quantity"].sum().items():
            plain += quantity * last_price(result, symbol, ts)
        assert value == pytest.approx(plain, abs=1e-5)


def test_last_equity_is_what_the_accounts_and_the_pool_hold():
    book = {"strategies": {"a": Flip(), "b": Hold()}, "fractions": {"a": 0.5, "b": 0.25}}
    result = result_of(TICKS, **book)
    accounts = result.engine.accounts()
    assert result.equity.iloc[0] == pytest.approx(CAPITAL)
    assert result.equity.iloc[-1] == pytest.approx(
        0.25 * CAPITAL + accounts["a"]["equity"] + accounts["b"]["equity"]
    )


def test_drawdown_is_equity_below_its_highest_so_far():
    result = result_of(TICKS)
    highest = 0.0
    for value, drawdown in zip(result.equity, result.drawdown, strict=True):
        highest = max(highest, value)
        assert drawdown == pytest.approx(value / highest - 1.0)
    assert result.drawdown.min() < 0.0


def test_buy_and_hold_shares_the_capital_and_leaves_the_pool():
    result = result_of(TICKS, fractions={"flip": 0.6})
    hold = result.buy_and_hold
    assert hold.index.equals(result.equity.index)
    for ts, value in hold.items():
        plain = 0.4 * CAPITAL
        for symbol in result.symbols:
            prices = result.prices(symbol)
            bought = ts >= prices.index[0]
            plain += (
                0.3 * CAPITAL * (last_price(result, symbol, ts) / prices.iloc[0] if bought else 1)
            )
        assert value == pytest.approx(plain)


def test_holding_without_costs_is_buy_and_hold():
    prices = [100.0, 100.0, 104.0, 98.0, 110.0, 107.0]
    free = Execution(latency_ms=0.0, latency_sigma=0.0, slippage_bps=0.0, fee_bps=0.0)
    result = backtest(
        Hold(), bars(prices, interval=MINUTE), UNIVERSE[:1], execution=free, snapshot_ns=MINUTE
    )
    assert len(result.equity) == len(prices)
    # Sizing leaves room for a tick of the price, here a ten-thousandth, which stays in cash.
    np.testing.assert_allclose(result.equity, result.buy_and_hold, rtol=2e-5)
    assert result.buy_and_hold.iloc[-1] == pytest.approx(1.07 * CAPITAL)


def test_backtest_names_a_strategy_after_its_class():
    result = backtest(Flip(), bars([100.0, 101.0, 99.0], interval=MINUTE), UNIVERSE[:1])
    assert list(result.engine.strategies) == ["flip"]
    assert result.start == START + MINUTE and result.end == START + 3 * MINUTE


def test_result_says_what_was_traded_and_what_it_cost():
    result = result_of(TICKS)
    fills = result.table("executions")
    said = repr(result)
    assert f"fees {fills['fee'].sum():,.2f}, slippage {fills['slippage'].sum():,.2f}" in said
    assert f"traded {(fills['quantity'] * fills['price']).abs().sum():,.2f}" in said
    assert f"worst drawdown {result.drawdown.min():.2%}" in said
    assert f"fills {len(fills):,}" in said


def test_no_events_are_a_result_without_equity():
    result = result_of()
    assert repr(result).endswith("no events")
    assert result.equity.empty and result.buy_and_hold.empty and result.drawdown.empty
    assert result.prices("SIM:A").empty
    assert len(result.table("orders")) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"strategy": Hold}, "strategy must be an instance, like Momentum(fast=10), was <class"),
        ({"bars": pd.DataFrame({"close": [1.0]})}, "what history() returned, Bars or Ticks, was"),
        ({"universe": {"fast": [5]}}, "universe must be a list of Instrument, was 'fast'"),
        ({"execution": "free"}, "must be a sysquant.execution.Execution, was 'free'"),
        ({"risk": {"cash": 0}}, "risk must be a sysquant.risk.RiskChain, was {'cash': 0}"),
        ({"sizing": "weight"}, "sizing must be made by a class of sysquant.sizing, was 'weight'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_meant_is_refused_in_words(change, text):
    given = {"strategy": Hold(), "bars": bars([10.0] * 5), "universe": UNIVERSE, "interval": "1s"}
    with pytest.raises(ConfigError) as error:
        backtest(**given | change)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("close", np.nan, "close is no finite number"), ("volume", np.inf, "volume is no finite"),
        ("volume", -1.0, "volume is negative"), ("symbol", -1, "symbol is none of the universe"),
        ("low", -5.0, "low is not above 0"), ("low", 11.0, "low is above open or close"),
        ("high", 9.0, "high is below open or close"),
    ],
)  # fmt: skip
def test_bars_that_cannot_be_meant_are_refused_with_their_time(column, value, text):
    market = bars([10.0] * 20)
    getattr(market, column)[7] = value
    time = str(np.datetime64(int(market.ts[7]), "ns").astype("M8[s]"))
    with pytest.raises(DataError, match=rf"{text}.* at {time} UTC, row 7, and in 1 rows"):
        backtest(Hold(), market, UNIVERSE, interval="1s")


def test_bars_that_all_lie_farther_apart_than_said_or_end_early_are_refused():
    market = bars([10.0] * 20)
    with pytest.raises(DataError, match=r"close on a grid of 1s, interval was 0.25s: set"):
        backtest(Hold(), market, UNIVERSE, interval=SECOND // 4)
    short = Bars(**(dict(market.columns()) | {"close": market.close[:5]}))
    with pytest.raises(DataError, match="columns must be of one length"):
        backtest(Hold(), short, UNIVERSE, interval="1s")


def test_longer_bars_must_be_made_up_of_those_there_are():
    class Slow(Hold):
        def features(self, bar):
            return {"x": bar.every("3s").close}

        def target(self, f):
            return 0.0 * f["x"]

    backtest(Slow(), bars([10.0] * 20), UNIVERSE, interval="1s")
    market = bars([10.0] * 20, interval=2 * SECOND)
    with pytest.raises(ConfigError, match="looks at bars of 3s, which those of 2s do not make up"):
        backtest(Slow(), market, UNIVERSE, interval="2s")


def test_costs_that_are_given_to_the_wrong_one_are_told_where_they_go():
    market = bars([100.0, 101.0, 102.0], interval=MINUTE)
    with pytest.raises(ConfigError, match=r"has no 'fee_bps': it is execution=Execution\(fee_bps"):
        backtest(Hold(), market, UNIVERSE[:1], fee_bps=1.0)
    with pytest.raises(ConfigError, match=r"no .capitol.; did you mean .capital."):
        backtest(Hold(), market, UNIVERSE[:1], capitol=1.0)
    with pytest.raises(ConfigError, match=r"no .fees.; did you mean .fee_bps."):
        Execution(fees=1)
    with pytest.raises(ConfigError, match="or a symbol, was None"):
        backtest(Hold(), market, UNIVERSE[:1], benchmark=None)


def test_a_statistic_that_is_asked_for_by_its_name_is_told_where_it_is():
    result = result_of(ticks(600))
    with pytest.raises(AttributeError, match=r"it is result.statistics.loc\['sharpe'\]"):
        _ = result.sharpe
    with pytest.raises(AttributeError, match=r"a result has no 'nonsense'$"):
        _ = result.nonsense


def test_misspelt_symbol_and_table_are_answered_with_what_there_is():
    result = result_of(TICKS)
    with pytest.raises(ConfigError, match="did you mean 'SIM:A'"):
        result.prices("SIM:AA")
    with pytest.raises(ConfigError, match="did you mean 'executions'"):
        result.table("execution")


def test_what_is_stored_reads_back_as_the_result(client):
    result = result_of(TICKS)
    result.store(client, "book")
    for name in TABLES:
        stored = decided(client, name, "test").combine_chunks()
        own = result.arrow(name).select(stored.column_names)
        own = own.sort_by([(key, "ascending") for key in KEYS[name].split(", ")])
        assert own.num_rows > 50 or name == "financing", name
        assert is_same(own.cast(stored.schema), stored), name
    runs = client.query("SELECT run, mode, book FROM runs").result_rows
    assert runs == [("test", "backtest", "book")]


def test_storing_a_result_twice_changes_nothing(client):
    result = result_of(TICKS)
    for _ in range(2):
        result.store(client, "book")
    count = client.query("SELECT count() FROM executions").result_rows[0][0]
    assert count == len(result.table("executions"))
