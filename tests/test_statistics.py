"""Statistics of a symbol: by hand, over bars, and against a market whose spread is known."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records
from sysquant.statistics import CORWIN_SCHULTZ, ROLL, VOLATILITY, corwin_schultz, update

ALL = VOLATILITY | ROLL | CORWIN_SCHULTZ
UNKNOWN_AT_FIRST = ("change", "variance", "spread", "roll_covariance", "roll")


@numba.njit
def take(market, high, low, close, volume, weight, uses):
    update(market[0], high, low, close, volume, weight, uses)


def run(bars, weight):
    """The record after each of the bars (high, low, close, volume)."""
    market = np.zeros(1, records.MARKET)
    seen = []
    for values in bars:
        take(market, *map(float, values), weight, ALL)
        seen.append(market[0].copy())
    return seen


def test_first_bar_gives_volume_and_reference_and_nothing_else():
    (seen,) = run([(101, 99, 100, 7)], 0.25)
    assert (seen["bars"], seen["volume"], seen["reference"]) == (1, 7, 100)
    assert all(math.isnan(seen[name]) for name in UNKNOWN_AT_FIRST)


def test_second_bar_gives_variance_and_spread_and_the_third_the_covariance_of_roll():
    _, second, third = run([(101, 99, 100, 7), (102, 100, 101, 3), (102, 99, 100, 3)], 0.25)
    assert second["variance"] == pytest.approx(math.log(1.01) ** 2)
    assert second["spread"] == corwin_schultz(102.0, 100.0, 101.0, 99.0)
    assert second["change"] == 1.0
    assert math.isnan(second["roll_covariance"]) and math.isnan(second["roll"])
    assert third["roll_covariance"] == -1.0
    assert third["roll"] == pytest.approx(0.02)


def test_averages_take_the_first_value_as_it_is_and_then_a_part_of_the_difference():
    first, second, third = run([(1, 1, 8, 8), (1, 1, 4, 4), (1, 1, 2, 0)], 0.25)
    assert [seen["reference"] for seen in (first, second, third)] == [8.0, 7.0, 5.75]
    assert [seen["volume"] for seen in (first, second, third)] == [8.0, 7.0, 5.25]
    assert third["variance"] == pytest.approx(math.log(2) ** 2)


def test_changes_in_one_direction_show_no_spread_of_roll():
    assert run([(9, 1, close, 1) for close in (1, 2, 3, 4)], 0.5)[-1]["roll"] == 0.0


def test_corwin_and_schultz_by_hand():
    # Two bars of the same range: b = 2 x^2, g = x^2, and alpha reduces to x.
    x = math.log(102 / 98)
    k = 3 - 2 * math.sqrt(2)
    alpha = (math.sqrt(4 * x * x) - math.sqrt(2 * x * x)) / k - math.sqrt(x * x / k)
    spread = 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))
    assert corwin_schultz(102.0, 98.0, 102.0, 98.0) == pytest.approx(spread)
    assert alpha == pytest.approx(x)
    assert spread == pytest.approx(0.04, rel=1e-3)


def test_bars_far_apart_or_without_a_range_show_no_spread_of_corwin_and_schultz():
    assert corwin_schultz(111.0, 109.0, 101.0, 99.0) == 0.0
    assert corwin_schultz(100.0, 100.0, 100.0, 100.0) == 0.0


prices = st.floats(1.0, 1e5)


@given(prices, st.floats(0, 0.1), st.floats(0, 0.1), prices)
def test_spread_is_never_negative_and_below_two(low, up, up_before, low_before):
    found = corwin_schultz(low * (1 + up), low, low_before * (1 + up_before), low_before)
    assert 0.0 <= found < 2.0


def simulated(spread, sigma, *, bars=6_000, trades=100, seed=1):
    """Bars of a random walk, traded at either side of its spread (fraction) by chance."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, sigma / math.sqrt(trades), (bars, trades))
    middle = 100 * np.exp(np.cumsum(moves).reshape(bars, trades))
    price = middle * (1 + 0.5 * spread * rng.choice([-1.0, 1.0], (bars, trades)))
    return np.column_stack([price.max(1), price.min(1), price[:, -1], np.ones(bars)])


@pytest.mark.parametrize("spread", [0.002, 0.01])
def test_both_estimates_find_the_spread_of_a_simulated_market(spread):
    last = run(simulated(spread, 0.001), 2 / (3_000 + 1))[-1]
    assert last["roll"] == pytest.approx(spread, rel=0.10)
    assert last["spread"] == pytest.approx(spread, rel=0.15)


def test_volatility_and_volume_of_a_simulated_market_are_found():
    last = run(simulated(0.0, 0.001), 2 / (3_000 + 1))[-1]
    assert math.sqrt(last["variance"]) == pytest.approx(0.001, rel=0.05)
    assert last["volume"] == 1.0
