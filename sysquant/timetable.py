"""Retraining inside a backtest: the training that is used live, in simulated time.

Input: a strategy, bars, a recipe, and how often it is trained. Output: a `RetrainedWalk`. A
training sees what had closed by its time; its model serves once it is trained and found good, and
until the next one does. Trainings run side by side, are kept on disk, and are not done twice.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sysquant.backtesting import backtest, fresh_engine
from sysquant.compiled import machine, source_hash
from sysquant.errors import ConfigError, DataError, ModelError
from sysquant.keys import check_flag, check_kind, check_number
from sysquant.models.judging import Estimate, verdict
from sysquant.models.manifest import TrainedOn
from sysquant.models.registry import versions
from sysquant.models.training import TrainingSet, training_set
from sysquant.past import History
from sysquant.retraining import Alone, Recipe, earned, fitted_on, traded, train, window
from sysquant.shelf import Facts, Shelf, ShelfModel
from sysquant.strategy import Strategy
from sysquant.times import interval_ns, length_name
from sysquant.trainings import RetrainedWalk, Training
from sysquant.trial_file import code_of
from sysquant.types import Bars, Ints

_SEEN = ("ts", "symbol", "open", "high", "low", "close", "volume")  # of bars, by a training


class Timetable(NamedTuple):
    """When models are trained, and on what.

    Parameters
    ----------
    every : from training to training, ns.
    window : what each of them sees, ns.
    took : from a training to when its model may serve, ns.
    """

    every: int
    window: int
    took: int

    @classmethod
    def read(cls, retrain: int | str, window: int | str, took: int | str) -> "Timetable":
        """From lengths like `4h`.

        Raises
        ------
        ConfigError
            If one cannot be meant, or a training takes longer than it is until the next.
        """
        lasts = 0 if took in (0, "0s") else interval_ns(took, "took")
        found = cls(interval_ns(retrain, "retrain"), interval_ns(window, "window"), lasts)
        if found.took > found.every:
            raise ConfigError(
                f"took must be at most retrain={retrain!r}, was {took!r}: trainings do not overlap"
            )
        return found

    def times(self, bars: Bars, interval: int) -> Ints:
        """Multiples of `every` since 1970 that have a whole window of bars, and bars to serve on.

        Parameters
        ----------
        bars : in order.
        interval : of them, ns.

        Raises
        ------
        ConfigError
            If a bar is longer than the time between two trainings, or the window.
        DataError
            If there is no such time.
        """
        for name, length in (("retrain", self.every), ("window", self.window)):
            if length < interval:
                raise ConfigError(
                    f"{name} must be at least a bar of {length_name(interval)}, was "
                    f"{length_name(length)}"
                )
        if not len(bars):
            raise DataError("there are no bars; is the range of the history right?")
        full = int(bars.ts[0]) - interval + self.window
        first = -(-full // self.every) * self.every
        found = np.arange(first, int(bars.ts[-1]) - self.took, self.every)
        if not len(found):
            at, last = np.array([first, bars.ts[-1]], "M8[ns]").astype("M8[s]")
            raise DataError(
                f"the first training on a whole window of {length_name(self.window)} would be at "
                f"{at} UTC, and the last bar closes at {last}: take a longer history, or a shorter "
                "window"
            )
        return found


class _Done(NamedTuple):
    # A training by itself: its name on the shelf, and what came of it or why it failed.
    key: str
    facts: Facts | None
    failed: str = ""


class Trainer:
    """Trains a strategy at times of one history.

    Parameters
    ----------
    recipe, strategy, history : as of `retraining.train`.
    table : when and on what.
    judge : whether a model must be found good before it serves.
    backtested : options of the backtests by which it is judged.
    """

    def __init__(
        self, recipe: Recipe, strategy: Strategy, history: History, table: Timetable, *,
        judge: bool, backtested: dict[str, Any],
    ) -> None:  # fmt: skip
        self._recipe, self._strategy, self._history = recipe, strategy, history
        self._table, self._judge, self._backtested = table, judge, backtested
        self._labels, self._shelf = recipe.check(), Shelf()
        engine = fresh_engine(
            strategy, history.universe, interval=history.interval, **backtested
        ).fingerprint()  # fmt: skip
        rests_on = (
            msgspec.json.encode(recipe, order="sorted"), code_of(type(strategy)), judge,
            engine if judge else (repr(strategy), history.symbols, history.interval),
            source_hash(), versions(), machine(),
        )  # fmt: skip
        self._known = hashlib.sha256(repr(rests_on).encode())

    def alone(self, at: int) -> _Done:
        """Train at a time, unless that was done before; no other training is looked at."""
        key = ""
        try:
            seen = window(self._history, at, self._table.window)
            rows = training_set(self._strategy, seen, self._labels, weights=self._recipe.weights)
            key = self._key(seen, rows)
            return _Done(key, self._shelf.find(key) or self._trained(key, seen))
        except (DataError, ModelError) as error:
            return _Done(key, None, str(error))

    def _key(self, seen: History, rows: TrainingSet) -> str:
        # What features call outside of their class shows in their values.
        told = self._known.copy()
        told.update(rows.hash.encode())
        for name in _SEEN:
            told.update(np.ascontiguousarray(getattr(seen.bars, name)).tobytes())
        return told.hexdigest()

    def _trained(self, key: str, seen: History) -> Facts:
        scores, got, tests = dict[str, Estimate](), math.nan, (0, 0)
        if self._judge:
            found = train(self._recipe, self._strategy, seen, **self._backtested)
            own = Alone(found.training, found.fitted, found.id)
            scores, got, tests = dict(found.scores), earned(found.result), found.tests
        else:
            own = fitted_on(self._recipe, self._strategy, seen)
        rows = own.training
        facts = Facts(
            id=own.id, family=self._recipe.family, features=rows.features,
            classes=self._strategy.classes, scores=scores, earned=got, tests=tests,
            trained=TrainedOn(
                int(rows.ts[0]), int(rows.ts[-1]), int(rows.known.max()), len(rows), rows.hash
            ),
        )  # fmt: skip
        return self._shelf.put(key, facts, own.fitted.classifier, rows.x)

    def judged(self, at: int, done: _Done, before: ShelfModel | None) -> Training:
        """A training with its verdict, and with its model where it is published.

        Parameters
        ----------
        at : its time.
        done : of `alone`.
        before : the model that serves then.
        """
        facts = done.facts
        if facts is None:
            return Training(at, None, (done.failed,))
        reasons, was = (), None
        if self._judge:
            if before is not None:
                ask = partial(self._earned_by, before, at, facts.tests)
                was = self._shelf.compared(done.key, before.key, ask)
            reasons = verdict(facts.scores, pnl=facts.earned, pnl_before=was).reasons
        said = Training(at, facts, reasons, math.nan if was is None else was)
        if reasons:
            return said
        ts = self._history.bars.ts
        first = np.searchsorted(ts, at + self._table.took, side="right")
        return replace(said, serves=int(ts[first]), model=self._shelf.model(done.key))

    def _earned_by(self, model: ShelfModel, at: int, tests: tuple[int, int]) -> float:
        seen = window(self._history, at, self._table.window)
        return earned(
            traded(self._strategy, seen, [(tests[0], model)], tests, **self._backtested)
        )  # fmt: skip


def retrained_walk(
    strategy: Strategy, history: History, table: Timetable, recipe: Recipe, *,
    judge: bool, workers: int, progress: bool, benchmark: str, **backtested: Any,
) -> RetrainedWalk:  # fmt: skip
    """Train at every time of a timetable, and trade by what served.

    Parameters
    ----------
    strategy : one that names classes.
    history, recipe, judge, workers, progress, benchmark : as of `walk_forward`.
    table : when and on what.
    **backtested : capital, risk, execution, sizing, orders, exits, seed, snapshot_ns.

    Raises
    ------
    ConfigError, StrategyError
        As of `walk_forward`.
    DataError
        If the history is too short, or every training fails.
    ModelError
        If the strategy uses no model.
    """
    check_kind("recipe", recipe, Recipe, "a sysquant.retraining.Recipe")
    check_flag("judge", judge)
    check_number("workers", workers, least=1, whole=True)
    if not strategy.classes:
        raise ModelError(
            f"{strategy!r} names no classes, so there is no model to retrain: leave retrain= out, "
            "and give splits= and values to choose its parameters by"
        )
    times = table.times(history.bars, history.interval)
    trainer = Trainer(recipe, strategy, history, table, judge=judge, backtested=backtested)
    name = f"retrain {type(strategy).__name__}"
    with tqdm(total=len(times), desc=name, unit=" trainings", disable=not progress) as told:
        found = list[Training]()
        for one in _in_order(trainer, times.tolist(), workers):
            found.append(one)
            told.update()
    if all(one.facts is None for one in found):
        raise DataError(f"every training failed, the first one because: {found[0].reasons[0]}")
    begin = int(times[0]) + table.took
    models = [(one.serves, one.model) for one in found if one.model is not None]
    result = backtest(
        strategy, history, start=begin, benchmark=benchmark, models=models, **backtested
    )  # fmt: skip
    trainings = _ended(found, int(history.bars.ts[-1]))
    return RetrainedWalk(
        repr(strategy), table.every, table.window, judge, begin, trainings, result
    )  # fmt: skip


def _ended(found: Sequence[Training], end: int) -> tuple[Training, ...]:
    # Each that served, up to where the next one did.
    ended = list[Training]()
    for one in reversed(found):
        ended.append(one if one.model is None else replace(one, until=end))
        end = one.serves or end
    return tuple(reversed(ended))


def _in_order(trainer: Trainer, times: Sequence[int], workers: int) -> Iterator[Training]:
    # Trained side by side; compared with what serves one after the other, meanwhile.
    with (
        threadpool_limits(1),  # a thread that sets this for itself sets it back to this
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            serving: ShelfModel | None = None
            waiting = deque(pool.submit(trainer.alone, at) for at in times)
            for at in times:
                found = trainer.judged(at, waiting.popleft().result(), serving)
                serving = found.model or serving
                yield found
        finally:
            pool.shutdown(cancel_futures=True)
