"""Statistics of an account: equal to numpy, pandas and vectorbt over the same returns."""

import math

import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import metrics, records

NAMES = ("volatility", "sharpe", "sortino", "value_at_risk")
HOURS = 24.0 * 365.0
RETURNS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60)


@numba.njit
def take_all(account, ring, lowest, returns, terms):
    for taken in range(len(returns)):
        metrics.take_return(account[0], ring, lowest, taken, returns[taken], terms[0])


def statistics(returns, *, confidence=0.975, per_year=HOURS, window=60):
    """The four statistics of the last `window` of `returns`, taken one after the other."""
    ring, lowest = np.zeros((2, window))
    terms = np.zeros(1, records.TERMS)
    terms["risk_bars_per_year"], terms["confidence"] = per_year, confidence
    account = np.zeros(1, records.ACCOUNT)
    for name in NAMES:
        account[name] = math.nan
    take_all(account, ring, lowest, np.array(returns, float), terms)
    return {name: float(account[name][0]) for name in NAMES}


def random_returns(n=250, seed=3):
    return np.random.default_rng(seed).normal(0.0002, 0.004, n)


@given(RETURNS)
def test_volatility_and_sharpe_are_those_of_pandas(returns):
    found, plain = statistics(returns), pd.Series(returns)
    assert found["volatility"] == pytest.approx(plain.std() * math.sqrt(HOURS), abs=1e-12)
    if plain.std() > 1e-9:
        assert found["sharpe"] == pytest.approx(plain.mean() / plain.std() * math.sqrt(HOURS))


@given(RETURNS)
def test_sortino_divides_by_the_root_of_the_mean_of_squared_losses(returns):
    losses = np.minimum(0.0, returns)
    downside = math.sqrt(np.mean(losses**2))
    if downside > 1e-9:
        expected = np.mean(returns) / downside * math.sqrt(HOURS)
        assert statistics(returns)["sortino"] == pytest.approx(expected)


@given(RETURNS, st.sampled_from([0.5, 0.9, 0.95, 0.975, 0.99]))
def test_value_at_risk_is_the_kth_worst_return(returns, confidence):
    worst = max(1, math.ceil(round((1.0 - confidence) * len(returns), 6)))
    expected = max(0.0, -sorted(returns)[worst - 1])
    assert statistics(returns, confidence=confidence)["value_at_risk"] == expected


def test_ratios_are_those_of_vectorbt():
    from vectorbt.returns import nb

    returns = random_returns()
    found = statistics(returns, window=250)
    assert found["volatility"] == pytest.approx(nb.annualized_volatility_1d_nb(returns, HOURS))
    assert found["sharpe"] == pytest.approx(nb.sharpe_ratio_1d_nb(returns, HOURS))
    assert found["sortino"] == pytest.approx(nb.sortino_ratio_1d_nb(returns, HOURS))


def test_one_return_of_forty_is_the_worst_at_975_permille():
    returns = -np.arange(1.0, 41.0) / 100.0
    assert statistics(returns)["value_at_risk"] == 0.40
    assert statistics([*returns, -0.41], window=60)["value_at_risk"] == 0.40


def test_gains_alone_have_no_value_at_risk_and_no_sortino():
    found = statistics([0.01, 0.02, 0.03])
    assert found["value_at_risk"] == 0.0
    assert math.isnan(found["sortino"])
    assert found["sharpe"] > 0.0


def test_account_that_never_moved_has_no_ratio():
    found = statistics([0.0] * 10)
    assert (found["volatility"], found["value_at_risk"]) == (0.0, 0.0)
    assert math.isnan(found["sharpe"]) and math.isnan(found["sortino"])


@pytest.mark.parametrize("returns", [[], [0.01], [0.01, math.nan, 0.02], [-1.0, math.inf, 0.0]])
def test_nothing_is_known_below_two_returns_or_with_one_that_is_not_finite(returns):
    assert all(math.isnan(value) for value in statistics(returns).values())


@pytest.mark.parametrize("window", [2, 7, 60])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -0.9])
def test_what_left_the_window_leaves_no_trace(window, odd):
    rest = random_returns(2 * window + 3).tolist()
    found = statistics([0.1, odd, *rest], window=window, confidence=0.8)
    assert found == pytest.approx(statistics(rest[-window:], window=window, confidence=0.8))


@given(st.lists(st.floats(-0.5, 0.5), min_size=9, max_size=60))
def test_running_statistics_are_those_of_the_window(returns):
    found, plain = statistics(returns, window=8, confidence=0.7), pd.Series(returns[-8:])
    assert found["volatility"] == pytest.approx(plain.std() * math.sqrt(HOURS), abs=1e-6)
    assert found["value_at_risk"] == max(0.0, -sorted(plain)[2])


@given(st.permutations(random_returns(20).tolist()))
def test_place_in_the_ring_does_not_matter(returns):
    found, expected = statistics(returns), statistics(sorted(returns))
    assert found == pytest.approx(expected)
