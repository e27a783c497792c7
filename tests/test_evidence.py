"""The deflated Sharpe ratio and the decision on it: by other computations, simulated, at edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sysquant.errors import ConfigError, DataError
from sysquant.evidence import (
    FIRST,
    FOLDS,
    Limits,
    deflated_sharpe,
    judge,
    sharpe_limits,
    walked,
)
from sysquant.research import FEW, spread

LIMITS = Limits()


def noise(rows, columns=1, seed=1, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 0.01, (rows, columns))


def by_scipy(returns, trials, deviation):
    """Equations 1 and 2 of Bailey and Lopez de Prado 2014, by scipy's moments and normal law."""
    n, best = len(returns), 0.0
    if trials > 1:
        inverse = stats.norm.ppf
        best = deviation * (
            (1 - np.euler_gamma) * inverse(1 - 1 / trials)
            + np.euler_gamma * inverse(1 - 1 / (trials * math.e))
        )
    ratio = returns.mean() / returns.std(ddof=1)
    skew, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    error = math.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / (n - 1))
    return stats.norm.cdf((ratio - best) / error)


@pytest.mark.parametrize("trials", [1, 2, 100, 10_000])
@pytest.mark.parametrize("tails", [3.5, 30.0])
def test_deflated_ratio_is_that_of_the_paper_by_scipy(trials, tails):
    rng = np.random.default_rng(trials)
    returns = 0.001 + 0.01 * rng.standard_t(tails, (300, 4))
    found = deflated_sharpe(returns, trials, 0.05)
    wanted = [by_scipy(returns[:, at], trials, 0.05) for at in range(4)]
    assert found == pytest.approx(wanted, abs=1e-9)


def test_numbers_of_the_paper_s_example_are_found():
    # Section "A numerical example": 5 years of days, Sharpe ratio 2.5 a year, skewness -3,
    # kurtosis 10, 100 trials whose annual ratios have variance 1/2: 0.9004.
    from sysquant.intervals import deflated_sharpe as of_moments

    year = math.sqrt(250)
    assert of_moments(2.5 / year, 1250, -3.0, 10.0, 100, math.sqrt(0.5) / year) == pytest.approx(
        0.9004, abs=5e-5
    )


def test_each_strategy_is_judged_as_if_it_were_alone():
    returns = noise(200, 7, mean=0.001)
    trials, apart = np.arange(1, 8), np.linspace(0.01, 0.2, 7)
    together = judge(returns, trials, apart, LIMITS)
    for at in range(7):
        alone = judge(returns[:, [at]], int(trials[at]), float(apart[at]), LIMITS)
        for name in ("passes", "sharpe", "deflated", "walk_sharpe"):
            assert getattr(alone, name)[0] == getattr(together, name)[at], name


@given(
    st.integers(0, 500), st.integers(2, 300), st.integers(1, 10**6), st.integers(1, 10**6),
    st.floats(0.0, 0.5),
)  # fmt: skip
def test_more_trials_never_raise_the_deflated_ratio(seed, rows, some, more, deviation):
    returns = noise(rows, seed=seed, mean=0.002)
    few, many = sorted((some, more))
    found = [deflated_sharpe(returns, trials, deviation)[0] for trials in (few, many)]
    assert found[1] <= found[0]


@given(st.integers(0, 500), st.integers(2, 10**5), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_trials_farther_apart_never_raise_it(seed, trials, one, other):
    returns = noise(100, seed=seed)
    found = [deflated_sharpe(returns, trials, apart)[0] for apart in sorted((one, other))]
    assert found[1] <= found[0]


@given(st.integers(0, 500), st.floats(1e-3, 1e3))
def test_leverage_changes_nothing(seed, times):
    returns = noise(120, seed=seed, mean=0.001)
    assert deflated_sharpe(times * returns, 10, 0.1) == pytest.approx(
        deflated_sharpe(returns, 10, 0.1), rel=1e-9
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_returns_prove_nothing(rows):
    judged = judge(noise(rows, 3), 1, 0.0, LIMITS)
    assert np.isnan(judged.deflated).all() and not judged.passes.any()


@pytest.mark.parametrize("value", [0.0, 0.01, np.nan, np.inf, -np.inf])
def test_returns_that_never_differ_or_are_no_numbers_do_not_pass(value):
    returns = noise(100, 2, mean=0.02)
    returns[:, 0] = value
    judged = judge(returns, 1, 0.0, LIMITS)
    assert np.isnan(judged.deflated[0]) and judged.passes.tolist() == [False, True]
    returns = noise(100, 2, mean=0.02)
    if not math.isfinite(value):
        returns[50, 0] = value
        assert judge(returns, 1, 0.0, LIMITS).passes.tolist() == [False, True]


def test_each_limit_of_returns_alone_is_held_to():
    good = noise(100, mean=0.02)
    assert judge(good, 1, 0.0, LIMITS).passes[0]
    assert not judge(good, 1, 0.0, Limits(periods=101)).passes[0]
    assert not judge(good, 10**6, 0.5, LIMITS).passes[0]
    assert judge(good, 10**6, 0.5, Limits(deflated=0.0)).passes[0]
    early = np.concatenate([good[: 100 // FIRST] + 0.1, noise(100 - 100 // FIRST, mean=-0.001)])
    assert judge(early, 1, 0.0, LIMITS).deflated[0] > 0.95
    assert not judge(early, 1, 0.0, LIMITS).passes[0]
    assert judge(early, 1, 0.0, Limits(walk_sharpe=None)).passes[0]


def test_returns_must_lie_side_by_side():
    with pytest.raises(DataError, match=r"returns must be \(T, N\)"):
        judge(np.zeros(10), 1, 0.0, LIMITS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deflated": 1.0}, {"deflated": -0.1}, {"periods": 1}, {"rerun": -1}, {"overfitting": 1.1},
        {"costs": 0.5}, {"holdout_reads": -1}, {"holdout_reads": 0.5}, {"holdout": 30},
        {"walk_sharpe": math.nan},
    ],
    ids=str,
)  # fmt: skip
def test_limit_that_cannot_be_meant_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        Limits(**wrong)


# -- the spread of trials


@pytest.mark.parametrize("middle", [0.0, 2.0])
def test_spread_of_many_trials_is_their_standard_deviation(middle):
    scores = np.random.default_rng(1).normal(middle, 1.3, 20_000)
    assert spread(scores) == pytest.approx(scores.std(ddof=1), rel=0.02)


def test_trials_that_lose_by_their_costs_do_not_lift_the_bar():
    rng = np.random.default_rng(1)
    fair = rng.normal(0.0, 1.0, 2_000)
    lost = rng.uniform(-60.0, -5.0, 8_000)
    assert np.concatenate([fair, lost]).std() > 15
    assert spread(np.concatenate([fair, lost])) == pytest.approx(1.0, abs=0.05)


def test_few_trials_are_as_far_apart_as_they_are_but_no_farther_than_chance():
    scores = np.array([0.1, 0.3, 0.2, np.nan])
    assert spread(scores) == pytest.approx(np.array([0.1, 0.3, 0.2]).std(ddof=1))
    assert spread(np.array([-30.0, 5.0, 2.0])) == 1.0
    assert spread(np.array([])) == spread(np.array([2.0])) == spread(np.full(3, np.nan)) == 1.0
    assert spread(np.full(FEW, -5.0)) == 1.0


# -- the walk


def test_walk_takes_what_was_best_until_then():
    rows = 120
    returns = noise(rows, 2) * 0.1
    half = rows // FIRST + (rows - rows // FIRST) // 2
    returns[:half, 0] += 0.01
    returns[half:, 0] -= 0.03
    returns[:, 1] += 0.001
    found = walked(returns)
    assert len(found) == rows - rows // FIRST
    edges = np.linspace(rows // FIRST, rows, FOLDS + 1).astype(int)
    taken = [0, 0, 0, 1]  # the third part falls, and is seen to by the fourth
    wanted = [
        returns[a:b, at] for a, b, at in zip(edges[:-1], edges[1:], taken, strict=True)
    ]  # fmt: skip
    assert (found == np.concatenate(wanted)).all()


@given(st.integers(0, 99), st.integers(2, 60), st.integers(1, 5))
def test_walk_is_causal(seed, rows, columns):
    returns = noise(rows, columns, seed=seed)
    cut = rows // FIRST + (rows - rows // FIRST) // 2
    other = returns.copy()
    other[cut:] = noise(rows - cut, columns, seed=seed + 1000)
    first = cut - rows // FIRST
    assert (walked(returns)[:first] == walked(other)[:first]).all()


def test_walk_of_one_is_what_it_earned_later():
    returns = noise(50)
    assert (walked(returns) == returns[50 // FIRST :, 0]).all()
    assert len(walked(np.empty((0, 2)))) == 0


def test_limits_of_the_sharpe_ratio_hold_the_true_one_as_often_as_they_say():
    inside = 0
    for seed in range(400):
        returns = noise(250, seed=seed, mean=0.001)[:, 0]
        _, low, high = sharpe_limits(returns, 250.0)
        inside += low <= 0.1 * math.sqrt(250) <= high
    assert 0.92 <= inside / 400 <= 0.98
    assert all(map(math.isnan, sharpe_limits(np.zeros(1), 250.0)))
    assert all(map(math.isnan, sharpe_limits(np.zeros(9), 250.0)))
