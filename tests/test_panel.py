"""Features beyond one symbol's own bars: other symbols, longer bars, across the universe, legs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import features
from sysquant.errors import ConfigError, DataError, StrategyError
from sysquant.features import Bar, count_valid, cross, demean, ema, rank, returns, sma, total, where
from sysquant.features.legs import Legs
from sysquant.features.panel import Panel
from sysquant.strategy import Strategy
from tests.panels import LENGTH, NAMES, market, pieces, same

quick = settings(max_examples=8, deadline=None)
bar = Bar()

EVERYTHING = {
    "other": bar["C"].close,
    "spread": ema(bar.close - bar["A"].close, 5),
    "trend": ema(bar.every("15m").close, 3),
    "mixed": bar.close / sma(bar.every("5m").high, 2) - bar.every("1h").open,
    "rank": rank(returns(bar.close, 3)),
    "twice": demean(rank(bar.volume) * bar.close),
    "weight": demean(bar.close) / total(abs(demean(bar.close))),
    "slow": ema(rank(bar.every("5m").close), 4),
    "count": count_valid(where(bar.close > bar.open, 1.0, np.nan)),
}


def values(panel, columns):
    table, rows = panel.advance(columns)
    return {name: table[row].copy() for name, row in zip(panel.names, rows, strict=True)}


def of(expression, columns, names=NAMES):
    return values(Panel({"x": expression}, names), columns)["x"]


def frame_of(columns):
    return pd.DataFrame(columns).set_index(["ts", "symbol"])


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# -- any cut, any future


def test_everything_across_the_universe_is_among_what_is_held_to_the_contract():
    names = {n for n in features.__all__ if getattr(features, n).__module__ == cross.__name__}
    panel = Panel(EVERYTHING, NAMES)
    assert names == {x.operation.name for stage in panel.across for x in stage} != set()


@quick
@given(st.integers(0, 9), st.lists(st.integers(1, LENGTH), max_size=12))
def test_any_cut_between_bar_ends_gives_the_same_bits(seed, cuts):
    columns = market(seed)
    whole, cut, single = (Panel(EVERYTHING, NAMES) for _ in range(3))
    expected = values(whole, columns)
    assert same(expected, joined([values(cut, part) for part in pieces(columns, cuts)]))
    every = pieces(columns, range(1, LENGTH + 1))
    assert same(expected, joined([values(single, part) for part in every]))
    assert same(whole.state(), single.state())


@quick
@given(st.integers(0, 9), st.integers(1, LENGTH))
def test_restored_state_goes_on_as_if_nothing_had_happened(seed, cut):
    first, second = pieces(market(seed), [cut])
    undisturbed, restored = Panel(EVERYTHING, NAMES), Panel(EVERYTHING, NAMES)
    values(undisturbed, first)
    values(restored, market(seed + 1))
    restored.restore(undisturbed.state())
    assert same(values(undisturbed, second), values(restored, second))


def test_the_future_does_not_reach_back():
    columns, noise = market(1, missing=0.0), market(2, missing=0.0)
    expected = values(Panel(EVERYTHING, NAMES), columns)
    for cut in np.random.default_rng(0).integers(0, len(columns["ts"]) // 4, 200) * 4:
        mixed = {k: np.concatenate((v[:cut], noise[k][cut:])) for k, v in columns.items()}
        found = values(Panel(EVERYTHING, NAMES), mixed)
        assert same(
            {k: v[:cut] for k, v in expected.items()}, {k: v[:cut] for k, v in found.items()}
        )


# -- another symbol


def test_another_symbol_is_seen_at_its_latest_bar_that_closed_by_then():
    columns = market(3)
    close = frame_of(columns)["close"].unstack()
    latest = close["C" if "C" in close else 2].ffill()
    expected = latest.reindex(columns["ts"]).to_numpy()
    np.testing.assert_array_equal(of(bar["C"].close, columns), expected)
    assert np.isnan(
        of(bar["C"].close, {k: v[columns["symbol"] != 2] for k, v in columns.items()})
    ).all()


def test_an_indicator_of_another_symbol_steps_with_the_bars_that_are_decided_on():
    columns = market(4)
    own = columns["symbol"] == 0
    there = of(bar["B"].close, columns)[own]
    expected = values(Panel({"x": sma(bar.close, 4)}, ("",)), {"close": there})["x"]
    np.testing.assert_array_equal(of(sma(bar["B"].close, 4), columns)[own], expected)


def test_a_symbol_that_the_universe_has_not_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'BINANCE:BTCUSD'.*did you mean 'BINANCE:BTCUSDT'"):
        Panel({"x": bar["BINANCE:BTCUSD"].close}, ("BINANCE:BTCUSDT",))
    with pytest.raises(StrategyError, match='another symbol is bar\\["NAME"\\]'):
        bar[0]


# -- longer bars


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9])
def test_longer_bars_are_those_of_pandas_and_are_seen_when_complete(missing):
    columns = market(5, names=("A",), missing=missing)
    frame = pd.DataFrame(columns).set_index("ts")
    frame.index = pd.to_datetime(frame.index, utc=True)
    longer = (
        frame.resample("15min", label="right", closed="right")
        .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
        .dropna()
    )
    long_bar = bar.every("15m")
    for field in ("open", "high", "low", "close", "volume"):
        found = of(getattr(long_bar, field), columns, ("A",))
        expected = longer[field].reindex(frame.index, method="ffill")
        np.testing.assert_allclose(found, expected, rtol=1e-15)
    mean = longer["close"].rolling(3).mean().reindex(frame.index, method="ffill")
    np.testing.assert_allclose(of(sma(long_bar.close, 3), columns, ("A",)), mean, rtol=1e-12)
    ends = of(long_bar.ts, columns, ("A",))
    assert (ends[~np.isnan(ends)] <= columns["ts"][~np.isnan(ends)]).all()


def test_what_mixes_two_lengths_has_a_value_for_every_bar():
    columns = market(6, names=("A",), missing=0.0)
    mixed = of(bar.close - bar.every("15m").close, columns, ("A",))
    held = of(bar.every("15m").close, columns, ("A",))
    np.testing.assert_array_equal(mixed, columns["close"] - held)
    # An average of the mixture steps every minute, one of the longer bars every fifteen.
    average = of(sma(bar.every("15m").close + 0 * bar.close, 15), columns, ("A",))
    np.testing.assert_allclose(average[29::15], held[29::15] * 1 / 15 + held[28::15] * 14 / 15)


def test_longer_bars_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="the length of longer bars must be like 1s, 5m"):
        bar.every("15 minutes")
    with pytest.raises(StrategyError, match="of the symbol itself"):
        bar["A"].every("15m")
    with pytest.raises(StrategyError, match="of the symbol itself"):
        bar.every("15m")["A"]
    with pytest.raises(StrategyError, match="whole seconds, was 1500000000 ns"):
        bar.every(1_500_000_000)


# -- across the universe


def test_functions_across_the_universe_are_those_of_pandas_by_bar_end():
    columns = market(7)
    columns["close"][::7] = np.nan
    columns["volume"][::5] = 2.0
    groups = {n: pd.Series(columns[n]).groupby(columns["ts"]) for n in ("close", "volume")}
    for expression, expected in (
        (rank(bar.close), groups["close"].rank(pct=True)),
        (rank(bar.volume), groups["volume"].rank(pct=True)),
        (demean(bar.close), pd.Series(columns["close"]) - groups["close"].transform("mean")),
        (count_valid(bar.close), groups["close"].transform("count").astype(float)),
        (total(bar.close), groups["close"].transform("sum").where(~np.isnan(columns["close"]))),
    ):
        np.testing.assert_allclose(of(expression, columns), expected, rtol=1e-12, atol=1e-11)


def test_the_order_of_symbols_is_of_no_matter_across_the_universe():
    columns = market(8, missing=0.0)
    shuffled = {k: v.reshape(-1, 4)[:, [2, 0, 3, 1]].ravel() for k, v in columns.items()}
    shuffled["symbol"] = columns["symbol"]
    found = of(rank(bar.close), columns).reshape(-1, 4)[:, [2, 0, 3, 1]].ravel()
    np.testing.assert_array_equal(of(rank(bar.close), shuffled), found)


def test_one_symbol_alone_is_first_and_has_no_distance():
    columns = market(9, names=("A",))
    assert (of(rank(bar.close), columns, ("A",)) == 1.0).all()
    assert (of(demean(bar.close), columns, ("A",)) == 0.0).all()


# -- legs


class Spread(Strategy):
    first: str = "A"
    second: str = "C"

    def legs(self):
        return (self.first, self.second)

    def features(self, bar):
        return {"gap": sma(bar[self.first].close - bar[self.second].close, 3)}

    def target(self, f):
        side = np.sign(f["gap"]) / 2
        return {self.first: -side, self.second: side}


def test_legs_decide_at_the_bar_ends_they_share_and_together():
    columns = market(10)
    weights = Spread().decider(NAMES).run(columns)
    table = pd.DataFrame({"w": weights, "ts": columns["ts"], "symbol": columns["symbol"]})
    wide = table.pivot_table(index="ts", columns="symbol", values="w", dropna=False)
    close = frame_of(columns)["close"].unstack()
    shared = close[[0, 2]].dropna()
    gap = (shared[0] - shared[2]).rolling(3).mean().dropna()
    expected = -np.sign(gap) / 2
    found = wide[[0, 2]].dropna()
    pd.testing.assert_series_equal(found[0], expected, check_names=False)
    pd.testing.assert_series_equal(found[2], -expected, check_names=False)
    assert wide[[1, 3]].isna().all().all()


@quick
@given(st.integers(0, 9), st.lists(st.integers(1, LENGTH), max_size=9))
def test_legs_decide_alike_however_a_history_is_cut(seed, cuts):
    columns = market(seed)
    whole, cut = Spread().decider(NAMES), Spread().decider(NAMES)
    parts = [cut.run(part) for part in pieces(columns, cuts)]
    assert whole.run(columns).tobytes() == np.concatenate(parts).tobytes()
    assert same(whole.state(), cut.state())


def test_a_frame_of_legs_has_a_target_for_each():
    columns = market(11, names=("A", "C"))
    bars = pd.DataFrame(columns)
    bars["symbol"] = np.array(["A", "C"])[columns["symbol"]]
    frame = Spread().frame(bars)
    assert list(frame) == ["gap", "target A", "target C"]
    known = frame.dropna()
    assert (known["target A"] == -known["target C"]).all()
    assert (known["target A"] == -np.sign(known["gap"]) / 2).all()


def test_a_frame_of_several_symbols_has_a_row_for_each_bar():
    columns = market(12)
    bars = pd.DataFrame(columns)
    bars["symbol"] = np.array(NAMES)[columns["symbol"]]

    class Ranked(Strategy):
        def features(self, bar):
            return {"rank": rank(returns(bar.close))}

        def target(self, f):
            return f["rank"]

    frame = Ranked().frame(bars)
    assert frame.index.names == ["ts", "symbol"]
    assert len(frame) == len(bars)
    np.testing.assert_array_equal(
        frame["rank"].xs("B", level="symbol").to_numpy(),
        of(rank(returns(bar.close)), columns)[columns["symbol"] == 1],
    )


@pytest.mark.parametrize(
    ("features", "target", "text"),
    [
        ({"x": bar.close}, None, 'as bar\\["A"\\].close, was close'),
        ({"x": rank(bar["A"].close)}, None, "was rank"),
        ({"x": bar["B"].close}, None, "was B.close"),
        (
            {"x": bar["A"].close},
            lambda f: f["x"] * 0,
            "a dict of weights of its legs A, C, was n",
        ),
        ({"x": bar["A"].close}, lambda f: {"A": f["x"] * 0}, "was \\['A'\\]"),
    ],
)
def test_legs_that_break_the_contract_are_refused(features, target, text):
    class Broken(Spread):
        def features(self, bar):
            return features

        def target(self, f):
            return target(f)

    with pytest.raises(StrategyError, match=text):
        Broken().decider(NAMES).run(market(13, missing=0.0))


def test_a_leg_outside_the_universe_is_refused():
    with pytest.raises(ConfigError, match="'C', the universe has none"):
        Legs(Spread().features(bar), ("A", "B"), ("A", "C"))


def test_a_missing_column_is_named():
    columns = {k: v for k, v in market(14).items() if k != "volume"}
    with pytest.raises(DataError, match="need the columns volume"):
        Panel(EVERYTHING, NAMES).advance(columns)


def test_warmup_counts_bars_of_the_longest_history():
    class Slow(Strategy):
        def features(self, bar):
            return {"x": rank(sma(bar.every("15m").close, 4)), "o": bar["Z"].close}

        def target(self, f):
            return f["x"] * (f["o"] > 0)

    assert Slow().warmup() == 59  # the sixtieth bar ends the fourth of fifteen minutes
    assert Spread().warmup() == 2
