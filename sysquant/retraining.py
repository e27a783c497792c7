"""One training from bars to verdict: the same in a notebook, on a timetable, and inside a backtest.

Input: a recipe, a strategy, its history, and the model that serves now. Output: the training set,
what was said of rows that were not seen, scores, P&L after costs through the engine, a verdict, and
the model that was fitted on all rows. Nothing is published here, and nothing written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

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
from sysquant.result import Result
from sysquant.splits import WalkForward
from sysquant.strategy import Model, Strategy
from sysquant.times import interval_ns


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
    found: tuple[Unseen, ...]
    scores: Mapping[str, Estimate]
    result: Result
    before: Result | None
    fitted: Fitted
    verdict: Verdict
    id: str


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
    splits = walk.split(training.frame())
    found = tuple(judged(pipeline, training, splits, balance=recipe.balance))
    if not found:
        days = (training.ts[-1] - training.ts[0]) / 86_400e9
        raise DataError(
            f"{days:.1f} days of rows hold no training of {recipe.train}, label of "
            f"{labels.horizon}, embargo of {recipe.embargo} and test of {recipe.test}: take a "
            "longer history, or shorter windows"
        )
    begins = [int(training.ts[one.rows[0]]) - history.interval for one in found]
    end = int(training.ts[found[-1].rows[-1]])
    span: dict[str, Any] = {"start": begins[0], "end": end, **backtested}
    models = [(at, one.fitted.served(training)) for at, one in zip(begins, found, strict=True)]
    result = backtest(strategy, history, models=models, **span)
    was = None
    if before is not None:
        was = backtest(strategy, history, models=[(begins[0], before)], **span)
    said, fitted = scores(found, training), fit(pipeline, training, balance=recipe.balance)
    return Trained(
        recipe, training, found, said, result, was, fitted,
        verdict(said, pnl=_earned(result), pnl_before=None if was is None else _earned(was)),
        content_id(fitted.classifier, training.features, fitted.thresholds, training.x),
    )  # fmt: skip


def _earned(result: Result) -> float:
    equity = np.asarray(result.equity)
    return float(equity[-1] / result.ledger.capital - 1.0)
