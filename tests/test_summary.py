"""Estimates of what was traded: equal to examples worked by hand, and their limits cover."""

import math

import numpy as np
import pytest

from sysquant import performance, summary
from sysquant.performance import DAY, sample
from sysquant.types import SECOND

HOUR = 3600 * SECOND


def named(estimates):
    return {each.name: each for each in estimates}


def returns(n=400, seed=1, every=DAY, drift=0.001):
    values = np.random.default_rng(seed).normal(drift, 0.01, n)
    ts = 19_700 * DAY + np.arange(n + 1) * every
    return sample(ts, np.cumprod(np.append(1.0, 1.0 + values)), every)


def test_every_estimate_has_a_unit_and_a_source_and_lies_within_its_limits():
    own = returns()
    found = summary.of_returns(own, returns(seed=2).values, (-0.1, 12.0))
    assert [e.name for e in found][:4] == ["total_return", "cagr", "volatility", "sharpe"]
    assert all(e.source for e in found)
    sure = [e for e in found if not math.isnan(e.low)]
    assert {e.name for e in found} - {e.name for e in sure} == {"probabilistic_sharpe"}
    assert all(e.low < e.high and e.error > 0.0 for e in sure)
    inside = [e for e in sure if e.low <= e.value <= e.high]
    # Bootstrap samples have their own largest drawdown; ours is given.
    assert {e.name for e in sure} - {e.name for e in inside} <= {"drawdown_length", "calmar"}
    assert named(found)["value_at_risk"].unit == "fraction per 1d"


def test_values_are_those_of_the_functions():
    own, benchmark = returns(), returns(seed=2).values
    found = named(summary.of_returns(own, benchmark, (-0.1, 12.0), sure=False))
    for name in ("cagr", "volatility", "sharpe", "sortino"):
        assert found[name].value == getattr(performance, name)(own.values, own.per_year)
    assert found["beta"].value == performance.beta(own.values, benchmark)
    assert found["max_drawdown"].value == -0.1 and found["drawdown_length"].value == 12.0
    assert found["calmar"].value == pytest.approx(found["cagr"].value / 0.1)
    assert math.isnan(found["cagr"].low) and not math.isnan(found["sharpe"].low)


def test_without_a_benchmark_nothing_is_said_against_one():
    found = named(summary.of_returns(returns(), None, (-0.1, 12.0), sure=False))
    assert not {"alpha", "beta", "benchmark_return", "tracking_error"} & set(found)


def test_nothing_is_compounded_to_a_year_from_a_few_hours():
    found = named(summary.of_returns(returns(72, every=HOUR // 12), None, (-0.1, 0.1)))
    for name in ("cagr", "calmar"):
        assert math.isnan(found[name].value) and math.isnan(found[name].low)
    assert not math.isnan(found["sharpe"].value)
    assert summary.of_returns(returns(0), None, (0.0, 0.0)) == []


def test_limits_of_volatility_cover_the_true_one():
    hits = 0
    for seed in range(24):
        estimate = named(summary.of_returns(returns(250, seed), None, (0.0, 0.0)))["volatility"]
        hits += estimate.low <= 0.01 * math.sqrt(365.25) <= estimate.high
    assert hits >= 20  # of 24, at 95 %


def test_round_trips_are_counted_net_of_costs():
    pnl = np.array([30.0, 10.0, -5.0, -15.0, 0.0])
    found = named(summary.of_trips(pnl, np.array([1, 2, 3, 4, 5]) * HOUR))
    assert found["trips"].value == 5 and found["hit_rate"].value == 0.4
    assert found["payoff"].value == pytest.approx(20.0 / (20.0 / 3.0))
    assert found["holding_time"].value == 3.0 and found["holding_time"].unit == "hours"
    assert found["holding_time"].error == pytest.approx(math.sqrt(2.5 / 5))


@pytest.mark.parametrize("pnl", [[], [1.0], [-1.0], [1.0, 2.0], [0.0, 1.0]])
def test_payoff_needs_gains_and_losses(pnl):
    found = named(summary.of_trips(np.array(pnl), np.full(len(pnl), HOUR)))
    assert math.isnan(found["payoff"].value)
    assert math.isnan(found["hit_rate"].value) == (not pnl)


def test_limits_of_the_payoff_cover_the_true_one():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        gains, losses = rng.exponential(2.0, 60), rng.exponential(1.0, 60)
        estimate = named(summary.of_trips(np.append(gains, -losses), np.ones(120)))["payoff"]
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.91 <= hits / 300 <= 0.985


def test_cost_per_trade_is_by_value():
    cost, value = np.array([1.0, 6.0]), np.array([1_000.0, 9_000.0])
    found = named(summary.of_fills(cost, value, np.array([0.01, 0.01]), 1e6))
    assert found["cost_per_trade"].value == pytest.approx(7.0)
    # Residuals of 7 bp are +0.3 and -0.3: 0.424 by root 2 by 5,000.
    assert found["cost_per_trade"].error == pytest.approx(0.6)


def test_capacity_is_the_capital_at_which_most_fills_take_a_tenth_of_their_bar():
    taken = np.append(np.full(96, 0.02), np.full(4, 0.9))
    found = named(summary.of_fills(np.ones(100), np.ones(100), taken, 1e6))
    assert found["capacity"].value == pytest.approx(5e6)
    assert found["capacity"].low <= 5e6 <= found["capacity"].high
    without = named(summary.of_fills(np.ones(20), np.ones(20), np.full(20, np.inf), 1e6))
    assert without["capacity"].value == 0.0  # nothing was traded in their bars


def test_no_fill_costs_nothing_that_is_known():
    none = np.empty(0)
    assert all(math.isnan(e.value) for e in summary.of_fills(none, none, none, 1e6))
    assert summary.of_means({}) == []


def test_means_of_periods_have_limits_by_blocks():
    values = np.random.default_rng(1).random(200)
    (found,) = summary.of_means({"turnover": values})
    assert found.value == values.mean() and found.low < 0.5 < found.high


def test_lines_say_a_dash_for_what_is_not_known():
    own = returns(72, every=HOUR // 12)
    found = named(summary.of_returns(own, own.values, (-0.1, 0.1), sure=False))
    text = "\n".join(summary.lines(found, own, "SIM:A"))
    assert "CAGR -," in text and "SIM:A instead" in text and "nan" not in text
    assert f"Sharpe {found['sharpe'].value:.2f} +- {found['sharpe'].error:.2f}" in text
