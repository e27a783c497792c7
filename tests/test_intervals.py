"""Intervals hold what they promise: coverage on seeded series, and published formulas."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import intervals

NORMAL = NormalDist()


def autoregressive(phi, n, rows, seed=1):
    """Rows of an AR(1) with mean 0."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(rows, n + 50))
    values = np.zeros_like(noise)
    for t in range(1, n + 50):
        values[:, t] = phi * values[:, t - 1] + noise[:, t]
    return values[:, 50:]


def covered(series, length_of):
    """Share of the rows whose interval of the mean holds 0."""
    hits = 0
    for seed, row in enumerate(series):
        found = intervals.bootstrap(
            lambda at, row=row: {"mean": row[at].mean(axis=1)}, len(row), length_of(row),
            samples=200, seed=seed,
        )  # fmt: skip
        _, low, high = found["mean"]
        hits += low <= 0.0 <= high
    return hits / len(series)


def test_interval_of_independent_values_covers_as_it_says():
    assert 0.90 <= covered(autoregressive(0.0, 250, 200), intervals.block_length) <= 0.98


def test_interval_of_dependent_values_covers_by_blocks_and_not_without():
    series = autoregressive(0.6, 250, 200)
    assert covered(series, lambda row: 1.0) < 0.75
    assert covered(series, intervals.block_length) > 0.84


def test_error_of_the_bootstrap_is_that_of_the_mean():
    values = np.random.default_rng(5).normal(size=400)
    found = intervals.bootstrap(lambda at: {"mean": values[at].mean(axis=1)}, 400, 1.0)
    assert found["mean"][0] == pytest.approx(values.std() / 20, rel=0.1)


def test_same_data_give_the_same_interval_however_many_are_drawn_at_once(monkeypatch):
    values = np.random.default_rng(5).normal(size=40)

    def interval():
        return intervals.bootstrap(lambda at: {"mean": values[at].mean(axis=1)}, 40, 3.0)

    assert interval() == interval()
    many = interval()["mean"]
    monkeypatch.setattr(intervals, "_ROOM", 4_000)
    few = interval()["mean"]
    assert few == pytest.approx(many, abs=0.05)


def test_few_values_have_no_interval():
    found = intervals.bootstrap(lambda at: {"a": np.zeros(len(at))}, intervals.LEAST - 1, 1.0)
    assert np.isnan(found["a"]).all()


def test_statistic_that_most_samples_do_not_have_has_no_interval():
    found = intervals.bootstrap(lambda at: {"a": np.full(len(at), math.nan)}, 20, 1.0)
    assert np.isnan(found["a"]).all()


@settings(max_examples=30)
@given(st.integers(1, 60), st.floats(1.0, 20.0), st.integers(0, 99))
def test_blocks_go_on_by_one_and_begin_as_often_as_their_length_says(n, length, seed):
    rows = intervals.block_rows(n, 50, length, np.random.default_rng(seed))
    assert rows.shape == (50, n) and rows.min() >= 0 and rows.max() < n
    if n > 20:
        begins = (rows[:, 1:] != (rows[:, :-1] + 1) % n).mean()
        assert begins == pytest.approx((1.0 / length) * (1.0 - 1.0 / n), abs=0.06)


def test_blocks_are_longer_the_longer_the_memory():
    lengths = [
        np.median([intervals.block_length(row) for row in autoregressive(phi, 1000, 9)])
        for phi in (0.0, 0.3, 0.6, 0.9)
    ]
    assert lengths == sorted(lengths) and lengths[0] < 3
    # Politis, White: (2 g^2 / d)^(1/3) n^(1/3), whose limit for an AR(1) is
    # (4 phi^2 / (1 - phi^2)^2 n)^(1/3): 15.2 for phi of 0.6.
    assert lengths[2] == pytest.approx((4 * 0.36 / 0.64**2 * 1000) ** (1 / 3), rel=0.35)


@pytest.mark.parametrize("values", [np.zeros(50), np.arange(5.0), np.empty(0)])
def test_blocks_of_what_never_changes_are_single_values(values):
    assert intervals.block_length(values) == 1.0


def test_share_is_that_of_wilson():
    # Newcombe 1998, table I: 81 of 263.
    error, low, high = intervals.share(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert error == pytest.approx(math.sqrt(81 / 263 * 182 / 263 / 263))
    assert intervals.share(0, 20)[1] == 0.0 and intervals.share(20, 20)[2] == 1.0
    assert np.isnan(intervals.share(0, 0)).all()


def test_limits_of_a_quantile_cover_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        _, low, high = intervals.quantile(rng.random(200), 0.9)
        hits += low <= 0.9 <= high
    assert 0.90 <= hits / 400 <= 0.985
    assert np.isnan(intervals.quantile(np.empty(0), 0.5)).all()
    assert intervals.quantile(np.array([1.0, math.inf]), 1.0)[0] == math.inf


def test_error_of_a_sharpe_ratio_is_what_many_samples_show():
    rng = np.random.default_rng(1)
    samples = rng.normal(0.1, 1.0, (4_000, 250))
    ratios = samples.mean(axis=1) / samples.std(axis=1, ddof=1)
    assert intervals.sharpe_error(0.1, 250, 0.0, 3.0) == pytest.approx(ratios.std(), rel=0.05)
    skewed = rng.exponential(1.0, (4_000, 250)) - 0.5
    ratios = skewed.mean(axis=1) / skewed.std(axis=1, ddof=1)
    # An exponential has skewness 2 and kurtosis 9.
    assert intervals.sharpe_error(0.5, 250, 2.0, 9.0) == pytest.approx(ratios.std(), rel=0.08)


def test_error_of_a_sharpe_ratio_of_normal_returns_is_that_of_lo():
    assert intervals.sharpe_error(0.3, 101, 0.0, 3.0) == pytest.approx(
        math.sqrt((1 + 0.3**2 / 2) / 100)
    )
    assert math.isnan(intervals.sharpe_error(0.3, 1, 0.0, 3.0))
    assert math.isnan(intervals.sharpe_error(math.nan, 100, 0.0, 3.0))


def test_deflated_sharpe_is_that_of_the_paper():
    # Bailey, Lopez de Prado 2014, the numerical example: annual Sharpe 2.5 of 1250 days of 250 a
    # year, skewness -3, kurtosis 10, a hundred trials whose annual ratios have variance 1/2.
    deviation = math.sqrt(0.5 / 250)
    assert intervals.highest_sharpe(100, deviation) == pytest.approx(0.1132, abs=5e-5)
    found = intervals.deflated_sharpe(2.5 / math.sqrt(250), 1250, -3.0, 10.0, 100, deviation)
    assert found == pytest.approx(0.9004, abs=5e-5)


def test_one_trial_deflates_nothing():
    shape = (0.1, 250, -0.5, 5.0)
    assert intervals.deflated_sharpe(*shape, 1, 0.3) == intervals.probabilistic_sharpe(*shape)
    assert intervals.highest_sharpe(1, 0.3) == 0.0


def test_expected_best_of_many_is_what_is_drawn():
    drawn = np.random.default_rng(1).normal(size=(20_000, 50)).max(axis=1).mean()
    assert intervals.highest_sharpe(50, 1.0) == pytest.approx(drawn, rel=0.02)


@given(st.floats(-1.0, 1.0), st.integers(2, 3_000))
def test_probability_of_skill_is_a_half_at_the_benchmark(sharpe, n):
    assert intervals.probabilistic_sharpe(sharpe, n, 0.0, 3.0, sharpe) == pytest.approx(0.5)
    opposite = intervals.probabilistic_sharpe(-sharpe, n, 0.0, 3.0)
    assert intervals.probabilistic_sharpe(sharpe, n, 0.0, 3.0) == pytest.approx(1 - opposite)


def test_limits_of_a_normal_estimate_hold_95_per_cent():
    error, low, high = intervals.around(1.0, 0.5)
    assert NORMAL.cdf((high - 1.0) / error) - NORMAL.cdf((low - 1.0) / error) == pytest.approx(0.95)
