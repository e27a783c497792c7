"""What a model is worth by rows that it has not seen, and whether it may be published.

Input: predictions of `training.judged`. Output: scores with intervals, tables for a person, and a
verdict with its reasons. Every class counts the same, however often it comes: a model that only
knows how often has a skill of 0.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sysquant.errors import DataError
from sysquant.intervals import block_length, bootstrap
from sysquant.models.labels import CLASSES
from sysquant.models.training import TrainingSet, Unseen
from sysquant.times import interval_ns
from sysquant.types import Floats, Ints

_LEAST_CHANCE = 1e-12  # the loss of a certainty that was wrong is large, not infinite
_GUESS = float(np.log(len(CLASSES)))  # loss of who knows nothing, nats
_COIN = float(np.log(2))  # loss of who does not know which way
_SIDES = [CLASSES.index("down"), CLASSES.index("up")]
MOST_OF_ONE = 0.95  # share of predictions that one class may have


class Estimate(NamedTuple):
    """A score, and the limits between which 95 % of bootstrap samples have it."""

    value: float
    low: float
    high: float


def scores(found: Sequence[Unseen], training: TrainingSet) -> dict[str, Estimate]:
    """Scores out of sample.

    Parameters
    ----------
    found : one for each split, tests in the order of time.
    training : whose rows they are.

    Returns
    -------
    `skill`, nats a row by which the balanced log loss is below that of a guess (ln 3); `direction`,
    the same of up against down, in rows that were either, below that of a coin (ln 2): how much a
    market will move foretells what is flat, and earns nothing; `accuracy`, the mean share of each
    class that was foreseen; `one_sided`, the share of the class that is foreseen most. Limits by a
    stationary bootstrap, in blocks of at least a label's rows.

    Raises
    ------
    DataError
        If no row was judged, or a class never came.
    """
    chances, codes = _joined(found)
    best = chances.argmax(axis=1)
    own = np.maximum(chances[np.arange(len(codes)), codes], _LEAST_CHANCE)
    loss = -np.log(own)
    side_loss = np.log(np.maximum(chances[:, _SIDES].sum(axis=1), own)) - np.log(own)
    came = codes[:, None] == np.arange(len(CLASSES))
    foreseen = best[:, None] == np.arange(len(CLASSES))

    def estimate(rows: Ints) -> dict[str, Floats]:
        counts = came[rows].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            losses, sides = (
                (came[rows] * of[rows][..., None]).sum(axis=1) / counts for of in (loss, side_loss)
            )
            right = (came[rows] & foreseen[rows]).sum(axis=1) / counts
        return {
            "skill": _GUESS - losses.mean(axis=1),
            "direction": _COIN - sides[:, _SIDES].mean(axis=1),
            "accuracy": right.mean(axis=1),
            "one_sided": foreseen[rows].mean(axis=1).max(axis=1),
        }

    length = max(block_length(loss), _rows_of_a_label(found, training))
    limits = bootstrap(estimate, len(codes), min(length, len(codes) / 2))
    values = estimate(np.arange(len(codes))[None])
    return {
        name: Estimate(float(values[name][0]), low, high) for name, (_, low, high) in limits.items()
    }


def confusion(found: Sequence[Unseen]) -> Ints:
    """(3, 3) counts: what came, against what was foreseen; in the order of `CLASSES`."""
    chances, codes = _joined(found)
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(table, (codes, chances.argmax(axis=1)), 1)
    return table


def calibration(found: Sequence[Unseen], code: int, bins: int = 10) -> tuple[Floats, Floats, Ints]:
    """Mean chance of a class, the share in which it came, and rows, of bins of equally many rows.

    Parameters
    ----------
    found : of `judged`.
    code : place of the class in `CLASSES`.
    bins : how many; fewer where chances repeat.
    """
    chances, codes = _joined(found)
    chance, came = chances[:, code], codes == code
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, chance, side="right")
    rows = np.bincount(place, minlength=len(edges) + 1)
    kept = rows > 0
    means = [np.bincount(place, weights=of, minlength=len(rows))[kept] for of in (chance, came)]
    return means[0] / rows[kept], means[1] / rows[kept], rows[kept]


def importance(found: Sequence[Unseen], training: TrainingSet, seed: int = 0) -> dict[str, float]:
    """Feature -> skill that is lost, nats a row, when its values are shuffled among test rows.

    Parameters
    ----------
    found : of `judged`; each model is asked about its own test.
    training : whose rows they are.
    seed : of the shuffling.

    Returns
    -------
    The most important one first.

    References
    ----------
    L. Breiman, Random Forests, Machine Learning 45, 2001, section 10.
    """
    drawn, lost = np.random.default_rng(seed), np.zeros(len(training.features))
    whole = _skill(found)
    for column in range(len(lost)):
        shuffled = list[Unseen]()
        for one in found:
            x = training.x[one.rows].copy()
            x[:, column] = drawn.permutation(x[:, column])
            # At once: a forest takes fifteen times as long in blocks.
            shuffled.append(one._replace(chances=one.fitted.chances(x, len(x))))
        lost[column] = whole - _skill(shuffled)
    order = np.argsort(-lost, kind="stable")
    return {training.features[at]: float(lost[at]) for at in order}


class Verdict(NamedTuple):
    """Whether a model is to be published, and why not."""

    publish: bool
    reasons: tuple[str, ...]


def verdict(
    judged: Mapping[str, Estimate], *, pnl: float, pnl_before: float | None = None
) -> Verdict:
    """Publish what foresees more than a guess, and which way, says more than one thing, and earns.

    Parameters
    ----------
    judged : of `scores`.
    pnl : return of its signal after costs, out of sample, a fraction.
    pnl_before : that of the model which serves now, over the same time; None for none: 0 is beaten.
    """
    skill, way, side = judged["skill"], judged["direction"], judged["one_sided"]
    reasons = list[str]()
    if not skill.low > 0:
        reasons.append(
            f"it foresees no more than a guess: skill {skill.value:.4f}, limits {skill.low:.4f} to "
            f"{skill.high:.4f} nats"
        )
    elif not way.low > 0:
        reasons.append(
            f"it does not foresee which way: direction {way.value:.4f}, limits {way.low:.4f} to "
            f"{way.high:.4f} nats"
        )
    if not side.value <= MOST_OF_ONE:
        reasons.append(f"it says one thing only: {side.value:.1%} of its predictions are one class")
    if not pnl > (pnl_before or 0.0):
        than = "nothing" if pnl_before is None else f"the model before, {pnl_before:.2%}"
        reasons.append(f"after costs it earns {pnl:.2%}, no more than {than}")
    return Verdict(not reasons, tuple(reasons))


def _joined(found: Sequence[Unseen]) -> tuple[Floats, Ints]:
    if not sum(len(one.rows) for one in found):
        raise DataError("no row was judged: the history is shorter than one training and one test")
    chances = np.concatenate([one.chances for one in found])
    codes = np.concatenate([one.codes for one in found])
    counts = np.bincount(codes, minlength=len(CLASSES))
    if not counts.all():
        raise DataError(f"of {len(codes)} judged rows none is {CLASSES[int(np.argmin(counts))]!r}")
    return chances, codes


def _skill(found: Sequence[Unseen]) -> float:
    chances, codes = _joined(found)
    loss = -np.log(np.maximum(chances[np.arange(len(codes)), codes], _LEAST_CHANCE))
    return _GUESS - float(np.mean([loss[codes == code].mean() for code in range(len(CLASSES))]))


def _rows_of_a_label(found: Sequence[Unseen], training: TrainingSet) -> float:
    # How many rows follow within a label's horizon: their outcomes overlap.
    ts = training.ts[np.concatenate([one.rows for one in found])]
    ends = np.searchsorted(ts, ts + interval_ns(training.labels.horizon), side="right")
    return float(np.median(ends - np.arange(len(ts))))
