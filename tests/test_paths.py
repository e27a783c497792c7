"""Paths through one history: by their definition, and on markets where the answer is known."""

import numpy as np
import pandas as pd
import pytest

from sysquant.errors import ConfigError, DataError
from sysquant.overfitting import overfitting
from sysquant.paths import paths
from sysquant.performance import YEAR
from sysquant.splits import CombinatorialPurged

HOUR = 3_600_000_000_000


def frame(values):
    index = pd.date_range("2024-01-01", periods=len(values), freq="h", tz="UTC")
    return pd.DataFrame(values, index)


def noise(rows=240, trials=8, seed=1):
    return np.random.default_rng(seed).normal(0, 0.01, (rows, trials))


def yearly(returns):
    return returns.mean() / returns.std(ddof=1) * np.sqrt(YEAR / HOUR)


def test_every_path_is_made_of_what_was_best_in_training():
    returns, splits = frame(noise()), CombinatorialPurged(5, 2, embargo=3)
    found = paths(returns, splits, blocks=6)
    values, joined = returns.to_numpy(), np.full((4, len(returns)), np.nan)
    seen = dict.fromkeys(range(5), 0)
    for number, (train, test) in enumerate(splits.split(returns)):
        best = int(np.argmax([yearly(values[train, trial]) for trial in range(8)]))
        assert found.chosen[number] == best
        assert found.in_sample[number] == pytest.approx(yearly(values[train, best]))
        assert found.out_of_sample[number] == pytest.approx(yearly(values[test, best]))
        for group in np.unique(test // 48):
            rows = test[test // 48 == group]
            joined[seen[group], rows] = values[rows, best]
            seen[group] += 1
    np.testing.assert_array_equal(found.returns, joined)
    np.testing.assert_allclose(found.sharpes, [yearly(path) for path in joined])
    assert found.best == pytest.approx(max(yearly(values[:, trial]) for trial in range(8)))
    assert found.overfitting.probability == overfitting(values, 6).probability


def test_a_trial_that_is_truly_better_earns_on_every_path():
    values = noise(600)
    values[:, 5] += 0.005
    found = paths(frame(values))
    assert set(found.chosen.tolist()) == {5} and found.loss == 0.0
    np.testing.assert_allclose(found.sharpes, found.best)
    assert found.sharpes.shape == (36,) and found.chosen.shape == (120,)


def test_of_noise_the_best_promises_more_than_its_paths_keep():
    found = [paths(frame(noise(600, 40, seed))) for seed in range(12)]
    kept = np.mean([np.median(each.sharpes) for each in found])
    promised = np.mean([each.best for each in found])
    assert promised > 6.0 and kept < promised / 2
    assert 0.2 < np.mean([each.loss for each in found]) < 0.8


def test_a_trial_that_never_moves_is_nobodys_best():
    values = noise(trials=3) - 0.02
    values[:, 0] = 0.0
    found = paths(frame(values), blocks=4)
    assert 0 not in found.chosen and found.loss == 1.0
    nothing = paths(frame(np.zeros((240, 2))), blocks=4)
    assert np.isnan(nothing.best) and nothing.loss == 1.0 and "nan" in repr(nothing)


def test_prints_the_distribution_and_the_probability():
    told = repr(paths(frame(noise()))).split("\n")
    assert told[0].startswith("36 paths of 120 splits, ")
    assert "Sharpe out of sample" in told[1] and "not above 0 on" in told[1]
    assert told[2].strip().startswith("Overfitting: probability")


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ConfigError, match=r"sweep\(..., returns=True\)"):
        paths(None)
    with pytest.raises(DataError, match="by 2 trials"):
        paths(frame(noise(trials=1)))
    with pytest.raises(DataError, match="10 groups need as many moments"):
        paths(frame(noise(rows=8)), blocks=2)
