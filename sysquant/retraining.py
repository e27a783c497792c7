"""One training from bars to verdict: the same in a notebook, on a timetable, and inside a backtest.

Input: a recipe, a strategy, its history, and the model that serves now. Output: the training set,
what was said of rows that were not seen, scores, P&L after costs through the engine, a verdict, and
the model that was fitted on all rows. Nothing is published here, and nothing written.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from sysquant.backtesting import backtest
from sysquant.errors import DataError
from sysquant.keys import check_choice, check_flag, refuse_words
from sysquant.models.families import pipeline_of
from sysquant.models.judging import Estimate, Verdict, scores, verdict
from sysquant.models.labels import LABELS, Labels
from sysquant.models.registry import content_id
from sysquant.models.training import (
    WEIGHTS,
    Fitted,
    TrainingSet,
    Unseen,
    fit,
    judged,
    training_set,
)
from sysquant.past import History
from sysquant.recording import aside
from sysquant.result import Result
from sysquant.splits import WalkForward
from sysquant.strategy import Model, Strategy
from sysquant.times import interval_ns
from sysquant.types import Gaps


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is trained; plain values, so that a notebook takes them as its parameters.

    Parameters
    ----------
    family, settings : of `models.families.pipeline_of`.
    labels : `quantiles` or `triple_barrier`, see `models.labels`.
    label_settings : of it, e.g. `horizon`.
    weights, balance : of `training_set` and `fit`.
    train, test : lengths of the windows of the walk-forward that judges it, like `10d`.
    embargo : kept free between the last label and a test, like `60m`.
    """

    family: str = "random_forest"
    settings: dict[str, Any] = {}
    labels: str = "quantiles"
    label_settings: dict[str, Any] = {}
    weights: str = "uniqueness"
    balance: bool = True
    train: str = "10d"
    test: str = "2d"
    embargo: str = "60m"

    def check(self) -> Labels:
        """How bars are labelled.

        Raises
        ------
        ConfigError
            If a value cannot be meant.
        """
        pipeline_of(self.family, self.settings)
        check_choice("labels", self.labels, LABELS)
        check_choice("weights", self.weights, WEIGHTS)
        check_flag("balance", self.balance)
        for key in ("train", "test", "embargo"):
            interval_ns(getattr(self, key), key)
        made: Any = LABELS[self.labels]
        refuse_words(f"label_settings of {self.labels}", self.label_settings, made.__slots__)
        return made(**self.label_settings)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a training came to.

    Parameters
    ----------
    recipe : how.
    training : its rows.
    tests : begin and end of all tests, ns UTC: what closes in (begin, end].
    found : what models of the walk-forward said of their tests, in the order of time.
    scores : of `found`.
    result : of a backtest over all tests, each decided by its own model, after costs.
    before : the same by the model that serves now; None for none.
    fitted : the model, on all rows.
    verdict : whether it is to be published.
    id : of its content.
    """

    recipe: Recipe
    training: TrainingSet
    tests: tuple[int, int]
    found: tuple[Unseen, ...]
    scores: Mapping[str, Estimate]
    result: Result
    before: Result | None
    fitted: Fitted
    verdict: Verdict
    id: str

    @property
    def pnl(self) -> float:
        """Return of `result`, a fraction."""
        return earned(self.result)

    @property
    def pnl_before(self) -> float | None:
        """Return of `before`, a fraction; None for none."""
        return None if self.before is None else earned(self.before)


def train(
    recipe: Recipe, strategy: Strategy, history: History, before: Model | None = None,
    **backtested: Any,
) -> Trained:  # fmt: skip
    """Train and judge a model.

    Causal: a test is decided by a model whose newest training row, with its label and the embargo,
    was known before the test began.

    Parameters
    ----------
    recipe : how.
    strategy : whose features it takes, and by which it is traded.
    history : to train and to test on.
    before : the model that serves now.
    **backtested : of `backtest`: capital, risk, execution, sizing, orders, exits.

    Raises
    ------
    ConfigError
        If a value of the recipe cannot be meant.
    DataError
        If the history is shorter than one training and one test window.
    ModelError
        If a window lacks a class.
    """
    labels, pipeline = recipe.check(), pipeline_of(recipe.family, recipe.settings)
    training = training_set(strategy, history, labels, weights=recipe.weights)
    walk = WalkForward(recipe.train, recipe.test, horizon=labels.horizon, embargo=recipe.embargo)
    splits = list(walk.split(training.frame()))
    if not splits:
        days = (training.ts[-1] - training.ts[0]) / 86_400e9
        raise DataError(
            f"{days:.1f} days of rows hold no training of {recipe.train}, label of "
            f"{labels.horizon}, embargo of {recipe.embargo} and test of {recipe.test}: take a "
            "longer history, or shorter windows"
        )
    # Held around both: the first that is done would lift the limit of the other.
    with threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        whole = beside.submit(_fitted, recipe, training)
        found = tuple(judged(pipeline, training, splits, balance=recipe.balance))
        own = whole.result()
    begins = [int(training.ts[one.rows[0]]) - history.interval for one in found]
    tests = begins[0], int(training.ts[found[-1].rows[-1]])
    models = [(at, one.fitted.served(training)) for at, one in zip(begins, found, strict=True)]
    result = traded(strategy, history, models, tests, **backtested)
    was = None
    if before is not None:
        was = traded(strategy, history, [(tests[0], before)], tests, **backtested)
    said = scores(found, training)
    earned_before = None if was is None else earned(was)
    return Trained(
        recipe, training, tests, found, said, result, was, own.fitted,
        verdict(said, pnl=earned(result), pnl_before=earned_before), own.id,
    )  # fmt: skip


class Alone(NamedTuple):
    """A model that nobody has judged.

    Parameters
    ----------
    training : its rows.
    fitted : the model, on all of them.
    id : of its content.
    """

    training: TrainingSet
    fitted: Fitted
    id: str


def fitted_on(recipe: Recipe, strategy: Strategy, history: History) -> Alone:
    """The model that `train` would make of a history, without judging it.

    Raises
    ------
    ConfigError, ModelError
        As of `train`.
    DataError
        If no bar has both features and an outcome.
    """
    labels = recipe.check()
    return _fitted(recipe, training_set(strategy, history, labels, weights=recipe.weights))


def _fitted(recipe: Recipe, training: TrainingSet) -> Alone:
    pipeline = pipeline_of(recipe.family, recipe.settings)
    made = fit(pipeline, training, balance=recipe.balance)
    named = content_id(made.classifier, training.features, made.thresholds, training.x)
    return Alone(training, made, named)


def window(history: History, end: int, length: int | str) -> History:
    """What a training at a time sees: the bars that lie wholly in the window that ends then.

    Parameters
    ----------
    history : of any length.
    end : when it is trained, ns UTC; nothing that closes later is in the window.
    length : of the window, like `30d`.

    Returns
    -------
    The bars as they are, without copies.

    Raises
    ------
    ConfigError
        If the length cannot be meant.
    DataError
        If there is no bar.
    """
    start = end - interval_ns(length, "window")
    first, last = np.searchsorted(
        history.bars.ts, [start + history.interval, end + 1], side="left"
    ).tolist()
    if first >= last:
        ends = np.array([start, end], "M8[ns]").astype("M8[s]")
        raise DataError(
            f"no bar lies between {ends[0]} and {ends[1]} UTC: take a longer history, or train "
            "where there is one"
        )
    kept = history.gaps[(history.gaps.start < end) & (history.gaps.end > start)]
    edges = np.maximum(kept.start, start), np.minimum(kept.end, end)
    missing = np.minimum(kept.missing, (edges[1] - edges[0]) // history.interval)
    return replace(
        history, bars=history.bars[first:last], start=start, end=end,
        gaps=Gaps(kept.symbol, *edges, missing),
    )  # fmt: skip


def traded(
    strategy: Strategy, history: History, models: Sequence[tuple[int, Model]],
    tests: tuple[int, int], **backtested: Any,
) -> Result:  # fmt: skip
    """A backtest over the tests of a training, each bar decided by the model of its time.

    Parameters
    ----------
    strategy, history, **backtested : as of `train`.
    models : (ns UTC, model), from then on it is asked.
    tests : as of `Trained`.
    """
    with aside():  # a training is judged by it, no configuration is chosen
        return backtest(
            strategy, history, models=models, start=tests[0], end=tests[1], **backtested
        )  # fmt: skip


def earned(result: Result) -> float:
    """Return after costs of a backtest, a fraction: what a verdict compares."""
    equity = np.asarray(result.equity)
    return float(equity[-1] / result.ledger.capital - 1.0)
