"""What a researcher reads: statistics, exposure, costs and findings, against plain arithmetic."""

import html
import math
import subprocess
import sys

import empyrical
import numpy as np
import pandas as pd
import pytest

from sysquant import ledger, page
from sysquant.backtesting import backtest, run
from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.performance import DAY, YEAR
from sysquant.types import SECOND, Bars, Instrument
from tests.conftest import REPOSITORY
from tests.market import START, UNIVERSE, Flip, Hold, bars, engine, ticks

HOUR = 3600 * SECOND
MIDNIGHT = START // DAY * DAY
CLOSES = np.round(100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.004, 60 * 24))), 2)


def hours(closes=CLOSES, volume=1e6):
    """Hourly bars of one symbol, whole days from a midnight on."""
    own = bars(closes.tolist(), interval=HOUR)
    columns = dict(own.columns())
    columns["ts"] = MIDNIGHT + np.arange(1, len(closes) + 1) * HOUR
    columns["volume"] = np.full(len(closes), float(volume))
    return Bars(**columns)


def hourly(strategy=None, own=None, universe=UNIVERSE[:1], **changes):
    return backtest(strategy or Flip(), own or hours(), universe, interval=HOUR, **changes)


@pytest.fixture(scope="module")
def result():
    """Sixty days of hours, long and short, at a thousandth of the volume of a bar."""
    return hourly()


@pytest.fixture(scope="module")
def fast():
    """A quarter of an hour of ticks on two symbols, a snapshot a second."""
    return run(engine(), [ticks(3_000)], name="test")


def value(result, name):
    return result.statistics.loc[name, "value"]


def test_statistics_are_those_of_empyrical_over_the_returns(result):
    returns, year = result.returns, 365.25
    assert len(returns) == 60 and result.period == "1d"
    # The first equity is that of the first close, an hour after midnight.
    year = len(returns) * YEAR / (60 * DAY - HOUR)
    assert value(result, "sharpe") == pytest.approx(
        empyrical.sharpe_ratio(returns, annualization=year), rel=1e-9
    )
    assert value(result, "cagr") == pytest.approx(
        empyrical.cagr(returns, annualization=year), rel=1e-9
    )
    hold = result.benchmark_equity
    daily = hold[hold.index.hour == 0]
    benchmark = np.append(daily.iloc[0] / hold.iloc[0], daily[1:].to_numpy() / daily[:-1]) - 1
    alpha, beta = empyrical.alpha_beta_aligned(returns.to_numpy(), benchmark, annualization=year)
    assert value(result, "beta") == pytest.approx(beta, rel=1e-9)
    assert value(result, "alpha") == pytest.approx(alpha, rel=1e-9)


def test_returns_compound_to_what_became_of_the_equity(result, fast):
    for each in (result, fast):
        gained = each.equity.iloc[-1] / each.equity.iloc[0]
        assert (1 + each.returns).prod() == pytest.approx(gained)
        assert value(each, "total_return") == pytest.approx(gained - 1)
        assert each.monthly["year"].add(1).prod() == pytest.approx(gained)


def test_largest_drawdown_is_that_of_every_snapshot(result):
    assert value(result, "max_drawdown") == result.drawdown.min()
    assert result.drawdown.min() < empyrical.max_drawdown(result.returns)


def test_statistics_hold_value_error_limits_unit_and_source(result):
    table = result.statistics
    assert list(table.columns) == ["value", "error", "low", "high", "unit", "source"]
    assert table.index.is_unique and len(table) == 28
    assert result.statistics.equals(table)


def test_exposure_is_what_was_held_by_what_it_was_worth(fast):
    rows = fast.table("portfolio_history")
    held = rows[rows["symbol"] != ""]
    exposure, equity = fast.exposure, fast.equity
    for ts in exposure.index[5:-1:100]:
        own = held[held["ts"] == ts]["value"]
        assert exposure.loc[ts, "gross"] == pytest.approx(own.abs().sum() / equity[ts])
        assert exposure.loc[ts, "net"] == pytest.approx(own.sum() / equity[ts])
    at_end = sum(
        quantity * fast.prices(symbol).iloc[-1]
        for symbol, quantity in fast.engine.positions()["flip"].items()
    )
    assert exposure["net"].iloc[-1] == pytest.approx(at_end / equity.iloc[-1])
    assert exposure["net"].min() < 0 < exposure["gross"].min() + 1


def test_costs_grow_to_what_was_paid(fast):
    costs, fills = fast.costs, fast.table("executions")
    for ts in costs.index[:-1:100]:
        assert costs.loc[ts, "fees"] == pytest.approx(fills[fills["ts"] < ts]["fee"].sum())
    assert costs["slippage"].iloc[-1] == pytest.approx(fills["slippage"].sum())
    assert costs.iloc[0].sum() == 0.0


def test_turnover_is_what_was_traded_by_equity_in_every_period(result):
    fills, equity = result.table("executions"), result.equity
    traded = (fills["quantity"].abs() * fills["price"]).groupby(fills["ts"].dt.floor("D")).sum()
    before = [equity.iloc[0], *equity[equity.index.hour == 0].iloc[:-1]]
    days = pd.date_range(equity.index[0].floor("D"), periods=60, tz=None)
    plain = (traded.reindex(days, fill_value=0.0).to_numpy() / before).sum() / 60
    year = 60 * YEAR / (60 * DAY - HOUR)
    assert value(result, "turnover") == pytest.approx(plain * year)


def test_cost_per_trade_is_the_fee_and_the_slippage(result):
    # 5 bp fee, 1 bp slippage, and what rounding to the tick adds.
    assert value(result, "cost_per_trade") == pytest.approx(6.0, abs=0.6)


def test_capacity_scales_with_what_the_market_traded(result):
    half = hourly(own=hours(volume=5e5))
    assert value(half, "capacity") == pytest.approx(value(result, "capacity") / 2)
    fills = result.table("executions")["quantity"].abs()
    assert value(result, "capacity") == pytest.approx(
        0.1 * 1e6 / (np.quantile(fills, 0.95, method="lower") / 1e6)
    )


def test_volume_in_the_quote_currency_is_counted_in_units():
    quoted = [Instrument("SIM:A", 0.01, 1e-6, 10.0, volume_unit="quote")]
    result = hourly(own=hours(volume=1e8), universe=quoted)
    taken = ledger.participation(quoted, [result.closes], result.effects["executions"])
    fills = result.table("executions")
    bar = result.prices("SIM:A")
    close = bar.iloc[bar.index.searchsorted(fills["ts"], side="right").clip(max=len(bar) - 1)]
    np.testing.assert_allclose(taken, fills["quantity"].abs() / (1e8 / close.to_numpy()))


def test_value_of_a_fill_has_the_multiplier_and_the_conversion():
    universe = [
        Instrument("SIM:F", multiplier=50.0, currency="EUR", conversion="SIM:EURUSD"),
        Instrument("SIM:EURUSD"),
    ]
    rates = np.zeros(2, [("ts", "i8"), ("close", "f8")])
    rates["ts"], rates["close"] = [10, 20], [1.1, 1.2]
    closes = [rates[:0], rates]
    symbol, ts = np.array([0, 0, 0, 1]), np.array([5, 10, 25, 25])
    found = ledger.units(universe, closes, symbol, ts)
    np.testing.assert_allclose(found, [55.0, 55.0, 60.0, 1.0])


def test_a_benchmark_is_buy_and_hold_or_a_symbol():
    both = {"strategies": {"flip": Flip()}, "fractions": {"flip": 0.6}}
    own = run(engine(**both), [ticks(3_000)], name="test", benchmark="SIM:B")
    price = own.prices("SIM:B")
    last = 400_000 + 600_000 * price.iloc[-1] / price.iloc[0]
    assert own.benchmark_equity.iloc[-1] == pytest.approx(last)
    assert own.benchmark_equity.name == "SIM:B"
    assert value(own, "benchmark_return") == pytest.approx(last / 1e6 - 1)
    assert "SIM:B instead" in repr(own)
    plain = run(engine(**both), [ticks(3_000)], name="test")
    pd.testing.assert_series_equal(plain.benchmark_equity, plain.buy_and_hold)


def test_a_benchmark_that_there_is_not_is_answered_with_what_there_is():
    with pytest.raises(ConfigError, match="did you mean 'SIM:A'"):
        hourly(benchmark="SIM:AA")


def test_holding_the_benchmark_has_a_beta_of_one_and_nothing_else():
    free = Execution(latency_ms=0.0, latency_sigma=0.0, slippage_bps=0.0, fee_bps=0.0)
    held = hourly(Hold(), execution=free, benchmark="SIM:A")
    assert value(held, "beta") == pytest.approx(1.0, abs=1e-3)
    assert value(held, "tracking_error") < 1e-3
    assert value(held, "gross_exposure") == pytest.approx(1.0, abs=0.02)
    assert value(held, "trips") == 0 and held.trips["is_open"].tolist() == [True]


def test_deflated_sharpe_of_one_try_is_the_probabilistic_one(result):
    assert result.deflated_sharpe(1, 1.0) == pytest.approx(value(result, "probabilistic_sharpe"))
    assert result.deflated_sharpe(50, 1.0) < result.deflated_sharpe(5, 1.0)
    assert math.isnan(run(engine(), [], name="empty").deflated_sharpe(5, 1.0))


def test_rolling_sharpe_ends_with_that_of_the_last_returns(result):
    rolling = result.rolling_sharpe(20)
    year = 60 * YEAR / (60 * DAY - HOUR)
    last = empyrical.sharpe_ratio(result.returns.iloc[-20:], annualization=year)
    assert rolling.iloc[-1] == pytest.approx(last)
    assert rolling.name == "Sharpe of 20 periods of 1d"
    assert result.rolling_sharpe().isna().sum() == 14  # a quarter of sixty


def test_what_is_wrong_is_found_with_its_number(result):
    assert [finding.name for finding in result.warnings] == ["short_history", "costs_above_edge"]
    dear = hourly(execution=Execution(fee_bps=200.0))
    found = {finding.name: finding for finding in dear.warnings}
    fills = dear.table("executions")
    paid = fills["fee"].sum() + fills["slippage"].sum()
    gross = dear.equity.iloc[-1] - dear.equity.iloc[0] + paid
    text = f"costs of {paid:,.2f} against {gross:,.2f} earned before them"
    assert found["costs_above_edge"].text == text
    for each in (result, dear):
        assert all(str(finding) in repr(each) for finding in each.warnings)


def test_fills_on_prices_that_stood_still_are_found():
    filled = CLOSES.copy()
    filled[1 : 20 * 24 : 2] = filled[: 20 * 24 : 2]  # every second bar repeats the one before
    quiet = hours(filled)
    quiet.volume[1 : 20 * 24 : 2] = 0.0
    names = [finding.name for finding in hourly(own=quiet).warnings]
    assert "stale_fills" in names and "stale_fills" not in [f.name for f in hourly().warnings]
    # Without any volume in the history there is nothing to tell from it.
    names = [finding.name for finding in hourly(own=hours(volume=0.0)).warnings]
    assert "stale_fills" not in names


def test_a_close_that_stood_for_ten_bars_is_stale():
    closes = np.zeros(14, [("ts", "i8"), ("close", "f8"), ("volume", "f8")])
    closes["ts"], closes["close"], closes["volume"] = np.arange(1, 15) * 10, 5.0, 1.0
    closes["close"][:2] = 4.0, 5.0
    fills = np.zeros(3, [("ts", "i8"), ("symbol", "i8")])
    fills["ts"] = 105, 115, 140  # in the bars that close at 110, 120, and at the end
    assert ledger.stale([closes], fills).tolist() == [False, True, True]


def test_a_strategy_that_never_orders_is_told_that_alone():
    idle = hourly(Hold(weight=0.0))
    assert [finding.name for finding in idle.warnings] == ["no_orders"]
    assert "Sharpe -" in repr(idle) and "nan" not in repr(idle)
    assert math.isnan(value(idle, "sharpe")) and value(idle, "turnover") == 0.0


def test_a_result_prints_in_about_a_dozen_lines(result, fast):
    for each in (result, fast):
        lines = repr(each).splitlines()
        assert len(lines) - len(each.warnings) == 10
        assert max(map(len, lines[:10])) < 160


def test_no_events_have_no_statistics_and_no_findings():
    empty = run(engine(), [], name="empty")
    assert empty.returns.empty and empty.trips.empty and empty.warnings == ()
    assert empty.exposure.empty and empty.costs.empty and empty.monthly.empty
    assert empty.statistics["value"].drop("trips").isna().all()
    one = run(engine(), [ticks(1)], name="one")
    assert "1 of" not in repr(one) and one.returns.empty


def test_a_run_that_lost_everything_says_so():
    falling = np.append(np.full(30, 100.0), np.linspace(100.0, 400.0, 24 * 40))
    lost = hourly(Hold(weight=-1.0), hours(falling), risk=None)
    assert np.isfinite(lost.returns).all()
    assert "nan" not in repr(lost)


def test_importing_the_backtest_loads_nothing_that_only_people_need():
    program = "import sys, sysquant.backtesting; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert not {"pandas", "plotly", "sklearn", "statsmodels"} & loaded  # numba brings scipy


def test_a_notebook_shows_a_result_as_a_table_of_what_is_printed(result, fast):
    for each in (result, fast):
        shown = each._repr_html_()
        assert html.escape(repr(each).splitlines()[0]) in shown
        assert all(html.escape(f"! {finding}") in shown for finding in each.warnings)
        for name in ("total_return", "max_drawdown", "turnover"):
            estimate = next(e for e in each.estimates(sure=False) if e.name == name)
            assert f"<td>{page.number(estimate.value, estimate.unit)}</td>" in shown
        assert f"<td>{page.number(value(each, 'sharpe'), 'a year')} &plusmn; " in shown
        assert shown.count("<tr>") == 6 and shown.count("<th") == shown.count("<td>") == 24
    nothing = run(engine(), [], name="nothing")
    assert "no events" in nothing._repr_html_() and "<table" not in nothing._repr_html_()
