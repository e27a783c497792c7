"""The probability of backtest overfitting: by its definition, and on markets where it is known."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.errors import ConfigError, DataError
from sysquant.overfitting import overfitting


def sharpe(x):
    deviation = x.std(axis=0)
    return np.where(deviation > 0, x.mean(axis=0) / np.where(deviation > 0, deviation, 1), 0.0)


def by_definition(returns, blocks):
    """Section 2.2 of the paper, a way at a time."""
    returns = returns[len(returns) % blocks :]
    cut = np.split(returns, blocks)
    logits = []
    for half in combinations(range(blocks), blocks // 2):
        inside = sharpe(np.concatenate([cut[b] for b in half]))
        outside = sharpe(np.concatenate([cut[b] for b in range(blocks) if b not in half]))
        best = int(np.argmax(inside))
        rank = np.sum(outside < outside[best]) + (np.sum(outside == outside[best]) + 1) / 2
        omega = rank / (returns.shape[1] + 1)
        logits.append(np.log(omega / (1 - omega)))
    return np.array(logits)


@given(st.integers(0, 99), st.sampled_from([2, 4, 6]), st.integers(2, 7), st.integers(24, 50))
def test_logits_are_those_of_the_definition(seed, blocks, trials, rows):
    returns = np.random.default_rng(seed).normal(0, 0.01, (rows, trials))
    found = overfitting(returns, blocks)
    want = by_definition(returns, blocks)
    np.testing.assert_allclose(found.logits, want, atol=1e-12)
    assert found.probability == np.mean(want <= 0)


def test_two_trials_in_two_blocks_by_hand():
    # In sample the first block picks trial 0, the second trial 1; each is the worse one afterwards.
    returns = np.array([[3.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 3.0]])
    found = overfitting(returns, 2)
    assert found.chosen.tolist() == [0, 1]
    np.testing.assert_allclose(found.logits, np.log(0.5) * np.ones(2))  # w = 1/3
    np.testing.assert_allclose(found.in_sample, [2.0, 2.0])
    np.testing.assert_allclose(found.out_of_sample, [0.0, 0.0])
    assert (found.probability, found.loss) == (1.0, 0.0)


def test_of_noise_the_best_is_as_often_below_the_median_as_above():
    found = [
        overfitting(np.random.default_rng(seed).normal(0, 0.01, (800, 40)), 10).probability
        for seed in range(60)
    ]
    # The mean of sixty markets has a standard error of about 0.03.
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    assert np.std(found) > 0.05


def test_one_trial_that_is_truly_better_is_found_again():
    for seed in range(10):
        returns = np.random.default_rng(seed).normal(0, 0.01, (1000, 40))
        returns[:, 17] += 0.003
        found = overfitting(returns)
        assert found.probability < 0.01
        assert np.mean(found.chosen == 17) > 0.99
        assert found.loss < 0.01


def test_trials_that_are_only_lucky_in_one_half_are_seen_through():
    # Each trial earns in one sixteenth of history and pays for it in all others.
    returns = np.random.default_rng(1).normal(0, 1e-4, (160, 16))
    for trial in range(16):
        returns[:, trial] -= 0.001
        returns[10 * trial : 10 * trial + 10, trial] += 0.02
    assert overfitting(returns).probability > 0.95


def test_equal_trials_are_no_better_than_the_median():
    returns = np.tile(np.random.default_rng(1).normal(0, 0.01, (80, 1)), 5)
    found = overfitting(returns, 4)
    np.testing.assert_allclose(found.logits, 0.0, atol=1e-12)
    assert found.probability == 1.0


def test_a_trial_that_never_trades_has_no_sharpe_ratio_to_divide_by():
    returns = np.random.default_rng(1).normal(0, 0.01, (80, 3))
    returns[:, 1] = 0.0
    found = overfitting(returns, 4)
    np.testing.assert_allclose(found.logits, by_definition(returns, 4), atol=1e-12)


def test_the_oldest_rows_that_fill_no_block_are_left_out():
    returns = np.random.default_rng(1).normal(0, 0.01, (83, 5))
    np.testing.assert_array_equal(
        overfitting(returns, 8).logits, overfitting(returns[3:], 8).logits
    )


def test_it_prints_what_was_found():
    returns = np.random.default_rng(1).normal(0, 0.01, (320, 5))
    found = overfitting(returns)
    assert str(found) == (
        f"Overfitting: probability {found.probability:.1%}, over 12,870 halves of history; the "
        f"best in sample loses out of sample in {found.loss:.1%}"
    )


@pytest.mark.parametrize(
    ("shape", "blocks", "error", "said"),
    [
        ((90, 5), 5, ConfigError, "blocks must be even, was 5"),
        ((90, 5), 22, ConfigError, "blocks must be a whole number"),
        ((90, 1), 4, DataError, "by 2 trials"),
        ((7, 5), 4, DataError, "2 rows a block"),
        ((90,), 4, DataError, "by 2 trials"),
    ],
)
def test_what_cannot_be_meant_is_refused(shape, blocks, error, said):
    with pytest.raises(error, match=said):
        overfitting(np.zeros(shape), blocks)


def test_returns_that_are_not_known_are_refused():
    returns = np.zeros((40, 3))
    returns[7, 1] = np.nan
    with pytest.raises(DataError, match="must be finite"):
        overfitting(returns, 4)
