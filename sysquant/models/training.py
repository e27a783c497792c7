"""Training sets from a strategy's own features, and models fitted and judged on them.

Input: a strategy, bars, a way to label them. Output: rows, outcomes and weights; classifiers fitted
on some rows; probabilities for others that they have not seen. The code that serves features is the
code that trains on them, thresholds come from training rows alone, and predictions from `serving`.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sysquant.decider import features_of
from sysquant.errors import DataError, ModelError
from sysquant.features.panel import needs_bar_ends
from sysquant.frames import columns_of
from sysquant.keys import check_choice, check_flag
from sysquant.models.labels import CLASSES, Labels, classes_of
from sysquant.models.serving import BLOCK, Classifier, ServedModel, predicted
from sysquant.past import History
from sysquant.strategy import Strategy
from sysquant.types import Bars, Columns, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

WEIGHTS = ("uniqueness", "equal")
_READ = ("ts", "high", "low", "close")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Rows that a model may be fitted on, by (ts, symbol).

    Parameters
    ----------
    features : names of the columns of `x`.
    x : (n, k) features, finite, C-ordered.
    value : (n,) what came of each row.
    ts, known : (n,) when it was decided on, and from when on `value` is known, ns UTC.
    symbol : (n,) its number.
    weight : (n,) mean 1.
    labels : how `value` was found.
    strategy : whose features these are.
    """

    features: tuple[str, ...]
    x: Floats
    value: Floats
    ts: Ints
    known: Ints
    symbol: Ints
    weight: Floats
    labels: Labels
    strategy: Strategy

    def __len__(self) -> int:
        return len(self.ts)

    def frame(self) -> "pd.DataFrame":
        """The features, indexed by `ts`; what `WalkForward(...).split` takes."""
        import pandas as pd

        index = pd.DatetimeIndex(self.ts, tz="UTC", name="ts")
        return pd.DataFrame(self.x, index=index, columns=list(self.features), copy=False)

    @property
    def hash(self) -> str:
        """SHA-256 of all that a fit depends on."""
        told = hashlib.sha256(repr((self.features, self.labels, self.strategy)).encode())
        for column in (self.x, self.value, self.ts, self.known, self.symbol, self.weight):
            told.update(np.ascontiguousarray(column).tobytes())
        return told.hexdigest()


def training_set(
    strategy: Strategy, bars: "History | Bars", labels: Labels, *, weights: str = "uniqueness"
) -> TrainingSet:
    """Rows of a history, each with the features that the strategy has on its bar.

    Parameters
    ----------
    strategy : one that names classes.
    bars : by (ts, symbol).
    labels : how bars are labelled.
    weights : `uniqueness`: a row counts by the share of its horizon that no other's covers;
        `equal`.

    Returns
    -------
    The rows whose features are all finite, and whose outcome is known.

    Raises
    ------
    ModelError
        If the strategy uses no model.
    DataError
        If no row is left.
    """
    check_choice("weights", weights, WEIGHTS)
    if not strategy.classes:
        raise ModelError(f"{strategy!r} names no classes: it uses no model")
    columns, names, x = feature_rows(strategy, bars)
    value, known, weight = _looked_ahead(columns, labels)
    usable = np.isfinite(x).all(axis=1) & np.isfinite(value)
    if not usable.any():
        raise DataError(
            f"of {len(value)} bars none has both features and an outcome: {strategy!r} needs some "
            f"before its first, and {labels!r} some after its last; take a longer window"
        )
    weight = weight[usable] / weight[usable].mean() if weights == "uniqueness" else None
    count = int(usable.sum())
    return TrainingSet(
        features=names,
        x=np.ascontiguousarray(x[usable]),
        value=value[usable],
        ts=columns["ts"][usable].astype(np.int64),
        known=known[usable],
        symbol=np.asarray(columns.get("symbol", np.zeros(len(usable), np.int64))[usable], np.int64),
        weight=np.ones(count) if weight is None else weight,
        labels=labels,
        strategy=strategy,
    )


def feature_rows(
    strategy: Strategy, bars: "History | Bars"
) -> tuple[Columns, tuple[str, ...], Floats]:
    """The features of every bar, before any is left out.

    Parameters
    ----------
    strategy, bars : as of `training_set`.

    Returns
    -------
    Columns of the bars, names of the features, and (T, features) their values: NaN where one is.
    """
    may_repeat = not needs_bar_ends(features_of(strategy), strategy.legs())
    columns, symbols = columns_of(bars, may_repeat=may_repeat)
    decider = strategy.decider(symbols)
    decider.run(columns)
    return columns, tuple(decider.features), np.column_stack(list(decider.features.values()))


def _looked_ahead(columns: Columns, labels: Labels) -> tuple[Floats, Ints, Floats]:
    # Outcome, when it is known, and uniqueness of each bar; symbol by symbol.
    count = len(columns["ts"])
    value, known = np.full(count, np.nan), np.zeros(count, np.int64)
    weight = np.ones(count)
    symbol = columns.get("symbol", np.zeros(count, np.int64))
    for number in np.unique(symbol):
        rows = np.flatnonzero(symbol == number)
        one: Any = {name: np.ascontiguousarray(columns[name][rows]) for name in _READ}
        value[rows], known[rows] = labels.outcomes(*(one[name] for name in _READ))
        weight[rows] = uniqueness(one["ts"], known[rows])
    return value, known, weight


def uniqueness(ts: Ints, known: Ints) -> Floats:
    """Mean over a label's bars of one through the number of labels that cover each of them.

    Parameters
    ----------
    ts : (T,) closes of one symbol's bars, ns.
    known : (T,) end of the label of each; it covers the bars in (ts, known].

    Returns
    -------
    (T,) in (0, 1]; 1 for one that covers no bar.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 4.
    """
    first = np.arange(1, len(ts) + 1)
    last = np.searchsorted(ts, known, side="right")
    steps = np.zeros(len(ts) + 1)
    np.add.at(steps, first, 1.0)
    np.add.at(steps, np.maximum(last, first), -1.0)
    covering = np.cumsum(steps)[: len(ts)]
    share = np.zeros(len(ts) + 1)
    share[1:] = np.cumsum(np.divide(1.0, covering, out=np.zeros(len(ts)), where=covering > 0))
    length = last - first
    total = share[np.maximum(last, first)] - share[first]
    return np.divide(total, length, out=np.ones(len(ts)), where=length > 0)


class Fitted(NamedTuple):
    """A classifier, and where its classes are told apart.

    Parameters
    ----------
    classifier : fitted.
    thresholds : of `classes_of`, from the rows it was fitted on.
    """

    classifier: Classifier
    thresholds: tuple[float, float]

    def chances(self, x: Floats, block: int = BLOCK) -> Floats:
        """(m, 3) probability of each of `CLASSES`, of (m, k) finite rows; see `predicted`."""
        order = [list(self.classifier.classes_).index(name) for name in CLASSES]
        return predicted(self.classifier, x, block)[:, order]

    def served(self, training: TrainingSet) -> ServedModel:
        """As the strategy asks it."""
        return ServedModel(self.classifier, training.features, training.strategy.classes)


def fit(
    pipeline: "Pipeline", training: TrainingSet, rows: Ints | None = None, *, balance: bool = True
) -> Fitted:
    """Fit a fresh copy of a pipeline.

    Parameters
    ----------
    pipeline : unfitted; its last step takes `sample_weight`.
    training : what there is.
    rows : of it; all by default.
    balance : whether each class counts the same, however often it comes.

    Raises
    ------
    ModelError
        If a class does not come in these rows.
    """
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    check_flag("balance", balance)
    rows = np.arange(len(training)) if rows is None else rows
    thresholds = training.labels.thresholds(training.value[rows])
    codes = classes_of(training.value[rows], thresholds)
    counts = np.bincount(codes, minlength=len(CLASSES))
    if not counts.all():
        none = CLASSES[int(np.argmin(counts))]
        raise ModelError(f"of {len(rows)} training rows none is {none!r}: take a longer window")
    weight = training.weight[rows]
    if balance:
        totals = np.bincount(codes, weights=weight, minlength=len(CLASSES))
        weight = weight * (weight.sum() / len(CLASSES) / totals)[codes]
    made: Any = clone(pipeline)
    last = pipeline.steps[-1][0]
    with threadpool_limits(1):
        made.fit(training.x[rows], np.array(CLASSES)[codes], **{f"{last}__sample_weight": weight})
    return Fitted(made, thresholds)


class Unseen(NamedTuple):
    """What a model said of rows that it was not fitted on.

    Parameters
    ----------
    fitted : the model.
    rows : (m,) of the training set.
    chances : (m, 3) probability of each of `CLASSES`.
    codes : (m,) what came, by the thresholds of the model's own training rows.
    """

    fitted: Fitted
    rows: Ints
    chances: Floats
    codes: Ints


def judged(
    pipeline: "Pipeline", training: TrainingSet, splits: Iterable[tuple[Ints, Ints]],
    *, balance: bool = True,
) -> Iterator[Unseen]:  # fmt: skip
    """Fit on the training rows of each split, and predict its test rows; on all cores.

    Each is fitted on one thread, and is the same on any number of cores.

    Parameters
    ----------
    pipeline, balance : as of `fit`.
    training : what there is.
    splits : rows of training and test, e.g. of `WalkForward(...).split(training.frame())`.
    """
    from threadpoolctl import threadpool_limits

    def one_of(split: tuple[Ints, Ints]) -> Unseen:
        train, test = split
        one = fit(pipeline, training, train, balance=balance)
        codes = classes_of(training.value[test], one.thresholds)
        return Unseen(one, test, one.chances(training.x[test]), codes)

    # Held around them all: the first that is done would lift the limit of the others. Threads share
    # the filters of warnings, and scikit-learn, which empties them meanwhile, then warns of that.
    with (
        threadpool_limits(1), warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool,
    ):  # fmt: skip
        warnings.filterwarnings("ignore", "`sklearn.utils.parallel.delayed` should be used")
        yield from pool.map(one_of, splits)
