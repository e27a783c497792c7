"""Scores of a model are those of rows it has not seen, and only a good one is published."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.metrics import confusion_matrix as confusion_of

from sysquant.errors import DataError
from sysquant.models.families import pipeline_of
from sysquant.models.judging import (
    Estimate,
    calibration,
    confusion,
    importance,
    scores,
    verdict,
)  # fmt: skip
from sysquant.models.labels import CLASSES
from sysquant.models.training import judged, training_set
from sysquant.splits import WalkForward
from tests.test_training import LABELS, Two, bars

GOOD = {
    "skill": Estimate(0.1, 0.05, 0.2), "direction": Estimate(0.1, 0.05, 0.2),
    "one_sided": Estimate(0.5, 0.4, 0.6),
}  # fmt: skip


def found(signal, *, seed=0, count=6_000, family="logistic_regression"):
    training = training_set(Two(), bars(count, symbols=1, seed=seed, signal=signal), LABELS)
    walk = WalkForward("2000m", "1000m", horizon=LABELS.horizon)
    return training, list(judged(pipeline_of(family), training, walk.split(training.frame())))


@pytest.fixture(scope="module")
def planted():
    return found(3.0)


def test_scores_are_those_of_scikit_learn(planted):
    training, some = planted
    chances = np.concatenate([one.chances for one in some])
    codes = np.concatenate([one.codes for one in some])
    counts = np.bincount(codes)
    said = scores(some, training)
    loss = log_loss(codes, chances, sample_weight=(1 / counts)[codes])
    assert said["skill"].value == pytest.approx(np.log(3) - loss)
    moved = codes != CLASSES.index("flat")
    side = chances[moved][:, [0, 2]] / chances[moved][:, [0, 2]].sum(axis=1, keepdims=True)
    loss = log_loss(codes[moved], side, sample_weight=(1 / counts)[codes[moved]])
    assert said["direction"].value == pytest.approx(np.log(2) - loss)
    best = chances.argmax(axis=1)
    assert said["accuracy"].value == pytest.approx(balanced_accuracy_score(codes, best))
    assert said["one_sided"].value == np.bincount(best).max() / len(best)
    np.testing.assert_array_equal(confusion(some), confusion_of(codes, best))
    for one in said.values():
        assert one.low < one.value < one.high


def test_a_planted_signal_has_skill_and_its_feature_counts(planted):
    training, some = planted
    assert scores(some, training)["skill"].low > 0
    counts = importance(some, training)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert max(counts.values()) > 0.01
    assert importance(some, training) == counts, "the shuffling is seeded"


def test_who_knows_how_much_it_will_move_knows_not_which_way(planted):
    training, some = planted
    drawn = np.random.default_rng(1)
    knowing = []
    for one in some:
        is_flat = (one.codes == CLASSES.index("flat"))[:, None]
        up = 1 / 3 + drawn.uniform(-0.01, 0.01, (len(one.codes), 1))
        chances = np.where(
            is_flat, [[0.25, 0.5, 0.25]], np.hstack([2 / 3 - up, is_flat + 1 / 3, up])
        )
        knowing.append(one._replace(chances=chances / chances.sum(axis=1, keepdims=True)))
    said = scores(knowing, training)
    assert said["skill"].low > 0 >= said["direction"].low
    assert scores(some, training)["direction"].low > 0


def test_noise_is_rarely_taken_for_skill():
    taken = [
        scores(some, training)["skill"].low > 0
        for training, some in (found(0.0, seed=seed, count=4_000) for seed in range(1, 13))
    ]
    assert sum(taken) <= 1


def test_chances_that_are_said_come_as_often(planted):
    _, some = planted
    said, came, rows = calibration(some, CLASSES.index("up"))
    assert rows.sum() == sum(len(one.rows) for one in some) and len(rows) == 10
    assert (np.diff(said) > 0).all()
    assert np.corrcoef(said, came)[0, 1] > 0.8
    one = [some[0]._replace(chances=np.full_like(some[0].chances, 1 / 3))]
    assert [len(part) for part in calibration(one, 0)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changed", "pnl", "before", "said"),
    [
        ({}, 0.02, None, ""),
        ({}, 0.02, 0.01, ""),
        ({"skill": Estimate(0.01, -0.01, 0.03)}, 0.02, None, "no more than a guess"),
        ({"skill": Estimate(0.01, float("nan"), 0.03)}, 0.02, None, "no more than a guess"),
        ({"direction": Estimate(0.01, -0.01, 0.03)}, 0.02, None, "not foresee which way"),
        ({"direction": Estimate(0.01, float("nan"), 0.03)}, 0.02, None, "not foresee which way"),
        ({"one_sided": Estimate(0.97, 0.9, 1.0)}, 0.02, None, "one thing only: 97.0%"),
        ({}, 0.0, None, "earns 0.00%, no more than nothing"),
        ({}, float("nan"), None, "no more than nothing"),
        ({}, 0.01, 0.02, "no more than the model before, 2.00%"),
    ],
)
def test_a_model_is_published_when_nothing_speaks_against_it(changed, pnl, before, said):
    answer = verdict(GOOD | changed, pnl=pnl, pnl_before=before)
    assert answer.publish == (not said)
    assert len(answer.reasons) == bool(said) and said in "".join(answer.reasons)


def test_what_was_not_judged_has_no_score(planted):
    training, some = planted
    with pytest.raises(DataError, match="no row was judged"):
        scores([], training)
    flat = some[0]._replace(codes=np.ones_like(some[0].codes))
    with pytest.raises(DataError, match="none is 'down'"):
        scores([flat], training)
