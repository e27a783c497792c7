"""Statistics of returns: equal to empyrical where both define them, else to plain arithmetic."""

import math

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sysquant import performance
from sysquant.errors import ConfigError
from sysquant.performance import DAY, PERIODS, YEAR, sample
from sysquant.times import length_name
from sysquant.types import SECOND

NOON = 19_700 * DAY + DAY // 2
YEARLY = 365.25
SERIES = st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=80).map(np.array)
SEEDS = range(6)


def random_returns(seed, n=500):
    """Fat-tailed, with a drift."""
    return np.random.default_rng(seed).standard_t(4, n) * 0.01 + 0.0004


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("per_year", [YEARLY, 252.0, 8766.0])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ("cagr", "cagr"),
        ("volatility", "annual_volatility"),
        ("sharpe", "sharpe_ratio"),
        ("sortino", "sortino_ratio"),
    ],
)
def test_statistic_of_a_year_is_that_of_empyrical(own, theirs, seed, per_year):
    returns = random_returns(seed)
    found = getattr(performance, own)(returns, per_year)
    assert found == exactly(getattr(empyrical, theirs)(returns, annualization=per_year))


@pytest.mark.parametrize("seed", SEEDS)
def test_tail_and_drawdown_are_those_of_empyrical(seed):
    returns = random_returns(seed)
    assert performance.max_drawdown(returns) == exactly(empyrical.max_drawdown(returns))
    assert performance.growth(returns) - 1.0 == exactly(empyrical.cum_returns_final(returns))
    assert performance.value_at_risk(returns) == exactly(-empyrical.value_at_risk(returns, 0.05))
    shortfall = -empyrical.conditional_value_at_risk(returns, 0.05)
    assert performance.expected_shortfall(returns) == exactly(shortfall)


@pytest.mark.parametrize("n", [2, 19, 20, 21, 41, 500])
def test_worst_returns_are_counted_as_empyrical_counts_them(n):
    returns = random_returns(1, n)
    shortfall = -empyrical.conditional_value_at_risk(returns, 0.05)
    assert performance.expected_shortfall(returns) == exactly(shortfall)


@pytest.mark.parametrize("seed", SEEDS)
def test_statistics_against_a_benchmark_are_those_of_empyrical(seed):
    benchmark = random_returns(seed + 100)
    returns = 0.6 * benchmark + random_returns(seed)
    alpha, beta = empyrical.alpha_beta_aligned(returns, benchmark, annualization=YEARLY)
    assert performance.beta(returns, benchmark) == exactly(beta)
    assert performance.alpha(returns, benchmark, YEARLY) == exactly(alpha)
    ratio = performance.information_ratio(returns, benchmark, YEARLY) / math.sqrt(YEARLY)
    assert ratio == exactly(empyrical.excess_sharpe(returns, benchmark))
    error = empyrical.annual_volatility(returns - benchmark, annualization=YEARLY)
    assert performance.tracking_error(returns, benchmark, YEARLY) == exactly(error)


@pytest.mark.parametrize("window", [2, 30, 500])
def test_rolling_sharpe_is_that_of_empyrical(window):
    returns = random_returns(3)
    found = performance.rolling_sharpe(returns, window, YEARLY)
    theirs = empyrical.roll_sharpe_ratio(returns, window, annualization=YEARLY)
    assert np.isnan(found[: window - 1]).all()
    np.testing.assert_allclose(found[window - 1 :], theirs, rtol=1e-9)


def test_rolling_sharpe_needs_two_periods():
    with pytest.raises(ConfigError, match="window must be >= 2 periods, was 1"):
        performance.rolling_sharpe(random_returns(1), 1, YEARLY)
    assert np.isnan(performance.rolling_sharpe(random_returns(1, 5), 9, YEARLY)).all()


def test_months_and_years_are_those_of_empyrical():
    days = pd.date_range("2022-11-20", "2024-03-10", tz="UTC")
    returns = pd.Series(random_returns(4, len(days)), days)
    # Equity at the end of each day, with what was begun with before.
    ends = days.append(days[-1:] + pd.Timedelta(1, "D"))
    equity = pd.Series(np.append(1.0, (1.0 + returns).cumprod()), ends)
    table = performance.monthly(equity)
    months = empyrical.aggregate_returns(returns, "monthly")
    for (year, month), value in months.items():
        assert table.loc[year, month] == exactly(value)
    assert table.drop(columns="year").count().sum() == len(months) == 17
    for year, value in empyrical.aggregate_returns(returns, "yearly").items():
        assert table.loc[year, "year"] == exactly(value)


@given(SERIES)
def test_moments_are_those_of_scipy(returns):
    from scipy import stats

    assume(returns.std() > 1e-6)
    skewness, kurtosis = performance.moments(returns)
    assert skewness == pytest.approx(stats.skew(returns), abs=1e-6)
    assert kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False), rel=1e-6)


def test_drawdown_lasts_from_the_peak_to_its_recovery():
    #        1.0   1.1  0.99  1.05  1.10  1.2   1.1
    equity = np.array([1.0, 1.1, 0.99, 1.05, 1.10, 1.2, 1.1])
    returns = equity[1:] / equity[:-1] - 1.0
    ts = NOON + np.arange(7) * DAY
    assert performance.longest_drawdown(ts, equity) == 3 * DAY
    assert performance.longest_drawdown(ts[:4], equity[:4]) == 2 * DAY  # it never recovered
    assert performance.longest_drawdown(ts[:2], equity[:2]) == 0
    assert performance.longest_drawdown(ts[:0], equity[:0]) == 0
    assert performance.drawdown_length(returns[:3]) == 2
    assert performance.drawdown_length(returns[:1]) == 0
    assert performance.drawdown_length(np.array([0.5, -0.5, 1.0, -0.1])) == 2


@given(st.lists(st.integers(1, 9), min_size=2, max_size=40))
def test_length_in_periods_and_by_time_agree(levels):
    equity = np.array(levels, float)
    found = performance.longest_drawdown(NOON + np.arange(len(levels)) * DAY, equity)
    longest = since = 0
    for i in range(len(equity)):
        if equity[i] >= equity[: i + 1].max():
            longest = max(longest, i - since if i - since > 1 else 0)
            since = i
    assert found == max(longest, len(equity) - 1 - since) * DAY


@given(SERIES, st.floats(0.1, 50.0))
def test_scaling_equity_changes_no_statistic(returns, scale):
    equity = np.cumprod(np.append(100.0, 1.0 + returns))
    ts = NOON + np.arange(len(equity)) * DAY
    own, other = sample(ts, equity, DAY), sample(ts, scale * equity, DAY)
    np.testing.assert_allclose(own.values, other.values, atol=1e-12)
    np.testing.assert_allclose(own.values, returns, atol=1e-12)
    assert own.per_year == other.per_year


@given(SERIES, st.floats(0.1, 5.0))
def test_scaling_returns_scales_risk_and_leaves_ratios(returns, scale):
    assume(returns.std() > 1e-6 and (returns < -1e-6).any())
    p = performance
    assert p.volatility(scale * returns, 9.0) == pytest.approx(scale * p.volatility(returns, 9.0))
    assert p.value_at_risk(scale * returns) == pytest.approx(
        scale * p.value_at_risk(returns), abs=1e-12
    )
    for ratio in (p.sharpe, p.sortino):
        assert ratio(scale * returns, 9.0) == pytest.approx(ratio(returns, 9.0), abs=1e-9)
    assert p.beta(scale * returns, returns) == pytest.approx(scale)


@given(SERIES)
def test_rows_are_computed_as_each_alone(returns):
    rows = np.stack([returns, returns[::-1], 0.5 * returns])
    for name in ("growth", "max_drawdown", "value_at_risk", "expected_shortfall", "deviation"):
        function = getattr(performance, name)
        alone = [function(row) for row in rows]
        np.testing.assert_allclose(function(rows), alone, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("constant", [0.0, 0.001, -0.01])
def test_returns_that_do_not_differ_have_no_ratio(constant):
    returns = np.full(50, constant)
    assert math.isnan(performance.sharpe(returns, YEARLY))
    assert performance.volatility(returns, YEARLY) == 0.0
    assert math.isnan(performance.beta(random_returns(1, 50), returns))
    assert np.isnan(performance.moments(returns)).all()


def test_one_return_has_no_deviation():
    assert math.isnan(performance.volatility(np.array([0.1]), YEARLY))
    assert math.isnan(performance.sharpe(np.array([0.1]), YEARLY))


def test_period_holds_its_end_and_not_its_beginning():
    # Equity at noon, at midnight, a second after it, and at the end of the second day.
    midnight = NOON + DAY // 2
    ts = np.array([NOON, midnight, midnight + SECOND, midnight + DAY])
    own = sample(ts, np.array([100.0, 110.0, 99.0, 121.0]), DAY)
    np.testing.assert_allclose(own.values, [0.10, 0.10])
    assert own.ts.tolist() == [midnight, midnight + DAY]
    assert own.days == 1.5 and own.per_year == pytest.approx(2 * 365.25 / 1.5)


def test_start_at_midnight_is_no_period_of_its_own():
    ts = NOON // DAY * DAY + np.arange(4) * DAY
    own = sample(ts, np.array([1.0, 1.1, 1.21, 1.331]), DAY)
    np.testing.assert_allclose(own.values, 0.1)
    assert own.per_year == pytest.approx(365.25)


def test_days_without_events_are_left_out_and_a_year_has_as_many_as_came():
    # Five days a week for four weeks and a day, at 16:00.
    days = [7 * week + day for week in range(4) for day in range(5)] + [28]
    ts = NOON // DAY * DAY + np.array(days) * DAY + 16 * 3600 * SECOND
    equity = 1.01 ** np.arange(len(days))
    own = sample(ts, equity, DAY)
    np.testing.assert_allclose(own.values, 0.01)
    assert len(own.values) == 20 and own.days == 28
    assert own.per_year == pytest.approx(20 / 28 * 365.25)  # about 261 weekdays
    growth = performance.cagr(own.values, own.per_year)
    assert growth == pytest.approx(equity[-1] ** (365.25 / 28) - 1)


def test_equity_that_is_lost_ends_the_series():
    ts = NOON + np.arange(5) * DAY
    own = sample(ts, np.array([100.0, 50.0, -10.0, 20.0, 30.0]), DAY)
    np.testing.assert_allclose(own.values, [-0.5, -1.2])
    assert performance.growth(own.values) == 0.0
    assert performance.cagr(own.values, own.per_year) == -1.0


def test_no_equity_is_no_return():
    none = sample(np.empty(0, np.int64), np.empty(0), DAY)
    assert len(none.values) == 0 and none.days == 0 and math.isnan(none.per_year)
    one = sample(np.array([NOON]), np.array([1.0]), DAY)
    assert len(one.values) == 0 and math.isnan(one.per_year)
    with pytest.raises(ConfigError, match="every must be > 0 ns, was 0"):
        sample(np.array([NOON]), np.array([1.0]), 0)


@pytest.mark.parametrize(
    ("elapsed", "finest", "period"),
    [
        (400 * DAY, SECOND, "1d"), (30 * DAY, SECOND, "1d"), (29 * DAY, SECOND, "4h"),
        (4 * DAY, SECOND, "1h"), (DAY // 4, SECOND, "5m"), (DAY // 4, 3600 * SECOND, "1h"),
        (40 * SECOND, SECOND, "1s"), (SECOND, SECOND, "1s"), (400 * DAY, 7 * DAY, "7d"),
    ],
)  # fmt: skip
def test_periods_are_days_or_as_short_as_a_short_run_needs(elapsed, finest, period):
    assert length_name(performance.period_of(elapsed, finest)) == period


@settings(max_examples=30)
@given(st.integers(31, 600), st.sampled_from(PERIODS))
def test_a_whole_number_of_periods_counts_as_the_calendar_does(n, every):
    ts = NOON // DAY * DAY + np.arange(n) * every
    assert sample(ts, np.ones(n), every).per_year == pytest.approx(YEAR / every)
