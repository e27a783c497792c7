"""A fitted classifier as strategies ask it, the same in notebook, backtest and live.

Input: features by name, as `target` has them. Output: a probability of each class. It is asked in
blocks of exactly 64 rows and on one thread: of other sizes, and on several threads, linear models,
neural networks and forests answer with other last bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from sysquant.errors import ModelError
from sysquant.models.drift import Drift
from sysquant.types import Floats, Ints

BLOCK = 64  # rows


class Classifier(Protocol):
    """What there is of a fitted scikit-learn classifier or pipeline for one who serves it."""

    classes_: Any

    def predict_proba(self, x: Floats) -> Floats:
        """(n, k) features -> (n, classes) probabilities."""
        ...


class ServedModel:
    """A classifier behind `Strategy.model`.

    Parameters
    ----------
    classifier : fitted; its scaler is inside, so that what is served is what was fitted.
    features : names of its columns, in their order.
    classes : of the strategy; the classifier knows each of them, and no other.

    Raises
    ------
    ModelError
        If the classifier knows other classes.
    """

    def __init__(
        self, classifier: Classifier, features: Sequence[str], classes: Sequence[str]
    ) -> None:
        known = [str(name) for name in classifier.classes_]
        if sorted(known) != sorted(classes):
            raise ModelError(
                f"a model must tell {', '.join(classes)} apart, this one was fitted on "
                f"{', '.join(known)}: train it on data in which each of them occurs"
            )
        self.classifier = classifier
        self.features = tuple(features)
        self.drift: Drift | None = None  # is shown what it is asked, and says
        self._columns = {name: known.index(name) for name in classes}

    def proba(self, f: Mapping[str, Floats]) -> dict[str, Floats]:
        """Class -> (n,) probability in [0, 1], NaN where a feature is NaN or infinite.

        Parameters
        ----------
        f : feature -> (n,); those of the model at least.
        """
        rows = np.column_stack([f[name] for name in self.features])
        known = np.isfinite(rows).all(axis=1)
        found = np.full((len(rows), len(self._columns)), np.nan)
        found[known] = predicted(self.classifier, rows[known])
        if self.drift is not None:
            self.drift.see(rows[known], found[known])
        return {name: np.ascontiguousarray(found[:, at]) for name, at in self._columns.items()}

    def likeliest(self, rows: Floats) -> Ints:
        """(n,) place of the likeliest class, of (n, features) finite rows."""
        found = self.proba(dict(zip(self.features, rows.T, strict=True)))
        return np.argmax(np.column_stack([found[name] for name in self._columns]), axis=1)


def predicted(classifier: Classifier, rows: Floats, block: int = BLOCK) -> Floats:
    """Probabilities of finite rows, each the same whatever rows it is asked with.

    Parameters
    ----------
    classifier : fitted.
    rows : (n, features).
    block : rows at once. Others than `BLOCK` have other last bits: for what nobody serves.

    Returns
    -------
    (n, classes), in the order of `classifier.classes_`.
    """
    found = np.empty((len(rows), len(classifier.classes_)))
    asked = np.empty((block, rows.shape[1]))
    with threadpool_limits(1):
        for first in range(0, len(rows), block):
            some = rows[first : first + block]
            asked[: len(some)] = some
            asked[len(some) :] = some[-1]
            found[first : first + block] = classifier.predict_proba(asked)[: len(some)]
    return found
