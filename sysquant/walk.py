"""Walk-forward: choose parameters, or train models, on the past, run them on what follows, move on.

Input: a strategy class, bars, and splits with values by parameter, or how often models are trained.
Output: a `Walk`: what was chosen, fold by fold, and one equity out of sample; or a `RetrainedWalk`.
Nothing that follows is seen before it is decided on; all runs through the engine that trades live.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from sysquant.activity import Activity
from sysquant.backtesting import backtest, counted, market_of
from sysquant.errors import ConfigError, DataError, SysquantError
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.folds import Fold, Walk
from sysquant.grid import Grid, Values
from sysquant.keys import check_choice
from sysquant.orders import Orders
from sysquant.past import History
from sysquant.result import BUY_AND_HOLD, Result
from sysquant.retraining import Recipe
from sysquant.risk import RiskChain
from sysquant.scores import COLUMNS, Score
from sysquant.sizing import Sizing
from sysquant.strategy import Strategy
from sysquant.sweeping import cores, sweep
from sysquant.timetable import Timetable, retrained_walk
from sysquant.trainings import RetrainedWalk
from sysquant.types import SECOND, Bars, Gaps, Instrument, Ints, Ticks

WINDOW = "30d"  # that a training sees


class Splitter(Protocol):
    """What says which rows are trained on, and which are tested: `splits.WalkForward`."""

    def split(self, X: Any) -> Iterator[tuple[Ints, Ints]]:  # noqa: N803
        """Rows of training and of test, split after split."""
        ...


class _Window(NamedTuple):
    # Rows [begin, end) of the bars.
    begin: int
    end: int

    def start(self, bars: Bars) -> int | None:
        # All that closed before is history.
        return int(bars.ts[self.begin - 1]) if self.begin else None

    def times(self, bars: Bars, interval: int) -> tuple[int, int]:
        begin = self.start(bars)
        return int(bars.ts[0]) - interval if begin is None else begin, int(bars.ts[self.end - 1])


def walk_forward(
    strategy: type[Strategy],
    bars: Bars | History,
    universe: Sequence[Instrument] | None = None,
    *,
    splits: Splitter | None = None,
    where: Callable[..., bool] | None = None,
    rank: str = "sharpe",
    retrain: int | str | None = None,
    recipe: Recipe | None = None,
    window: int | str = WINDOW,
    took: int | str = 0,
    judge: bool = True,
    workers: int | None = None,
    progress: bool = True,
    interval: int | None = None,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
    benchmark: str = BUY_AND_HOLD,
    **grid: Values,
) -> Walk | RetrainedWalk:
    """Choose the best parameters in each training window, and backtest them in the test after it.

    With `retrain`, models instead of parameters: `retraining.train`, which trains live, is run at
    the times at which it would be, on what had closed by then, and its model serves if it is found
    good. One backtest is decided by the model that served at each bar; before the first one there
    is no decision. Trainings are kept below `home.cache()`: a walk that was interrupted goes on,
    and the same one is not trained twice.

    Without it, each window begins flat and with all of the capital. Features and statistics warm up
    on all bars before it, also on those that purging and embargo keep out of training: these are in
    the past by then. Nothing is decided on them.

    Parameters
    ----------
    strategy, bars, universe, where, rank, workers, progress, grid : as of `sweep`; `rank` is what
        is chosen by, ties by the order of the grid.
    splits : `WalkForward`, or what else splits into one stretch of training and one of test after
        it, tests in the order of time.
    retrain : from training to training, like `4h`: at multiples of it since 1970 (UTC), from the
        first that has a whole window behind it. Excludes splits, where and rank; values of
        parameters are single ones then.
    recipe : how models are trained and judged; `Recipe()` by default.
    window : what each training sees.
    took : from a training to when its model may serve.
    judge : whether a model must be found good before it serves, as it is live; without, models are
        fitted only, which is several times as fast.
    interval, capital, risk, execution, sizing, orders, exits, seed, snapshot_ns, benchmark : as of
        `backtest`.

    Raises
    ------
    ConfigError
        As of `sweep`; or if training or test are no stretches, training is not before the test, or
        tests overlap; or if arguments of the one kind of walk are given to the other.
    DataError
        If there is no split, or in a training window no combination has a score; if there is no
        whole window, or every training fails.
    ModelError
        If models of a strategy that uses none are to be trained.
    StrategyError
        If a strategy breaks its contract on these bars.

    Examples
    --------
    >>> splits = WalkForward("30d", "10d")
    >>> walk_forward(Momentum, bars, splits=splits, fast=range(5, 60, 5), slow=range(60, 200, 20))
    >>> walk_forward(MlDirection, bars, retrain="4h", recipe=Recipe(family="gradient_boosting"))

    References
    ----------
    R. Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, ch. 11.
    """
    _refuse_mixed(
        retrain is not None,
        trains={"recipe": recipe, "window": window != WINDOW, "took": took, "judge": not judge},
        chooses={"splits": splits, "where": where, "rank": rank != "sharpe"},
    )
    market, universe, size = market_of(bars, counted(bars, universe), interval)
    if isinstance(market, Ticks) or isinstance(size, Activity):
        raise ConfigError("a walk is over bars of time, was over ticks; make them by closed_bars()")
    options: dict[str, Any] = {
        "capital": capital, "risk": risk, "execution": execution, "sizing": sizing,
        "orders": orders, "exits": exits, "seed": seed, "snapshot_ns": snapshot_ns,
    }  # fmt: skip
    if retrain is not None:
        threads = cores() if workers is None else workers
        return retrained_walk(
            _one(strategy, grid), _history(bars, market, universe, size),
            Timetable.read(retrain, window, took), recipe or Recipe(), judge=judge,
            workers=threads, progress=progress, benchmark=benchmark, **options,
        )  # fmt: skip
    check_choice("rank", rank, COLUMNS)
    if splits is None or not hasattr(splits, "split"):
        raise ConfigError(
            f"splits must be like WalkForward('30d', '10d'), was {splits!r}; with retrain='4h' "
            "models are trained instead"
        )
    tried = Grid(strategy, grid, where, taken=COLUMNS)
    options |= {"universe": universe, "interval": size}
    swept = {**grid, "where": where, "rank": rank, "workers": workers}
    folds, notes = list[Fold](), list[str]()
    windows = _windows(splits, market)
    told = tqdm(windows, f"walk {strategy.__name__}", unit=" folds", disable=not progress)
    for number, (train, test) in enumerate(told, 1):
        try:
            fold, said = _fold(strategy, market, train, test, swept, options, benchmark)
        except SysquantError as error:
            error.add_note(f"in fold {number} of {len(windows)}")
            raise
        folds.append(fold)
        notes += [f"fold {number}: {each}" for each in said]
    values = {name: _tried(tried, name) for name in tried.names}
    return Walk(strategy.__name__, tuple(folds), values, rank, capital, tuple(notes))


def _refuse_mixed(
    is_retrained: bool, *, trains: Mapping[str, object], chooses: Mapping[str, object]
) -> None:
    # What was given, and belongs to the other kind of walk.
    said = "chooses parameters: leave it out, or retrain=" if is_retrained else (
        "is for models: give retrain='4h' as well, or leave it out"
    )  # fmt: skip
    for name, given in (chooses if is_retrained else trains).items():
        if given is not None and given is not False and given != 0:
            raise ConfigError(f"{name} {said}")


def _one(strategy: type[Strategy], grid: Mapping[str, Values]) -> Strategy:
    for name, value in grid.items():
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ConfigError(
                f"{name} must be one value with retrain=, was {value!r}: walk once for each"
            )
    return strategy(**grid)  # pyright: ignore[reportArgumentType]


def _history(
    bars: Bars | History, market: Bars, universe: Sequence[Instrument], interval: int
) -> History:
    # What trainings take; of bars without a range it is their own.
    if isinstance(bars, History):
        return bars
    ends = (int(market.ts[0]) - interval, int(market.ts[-1])) if len(market) else (0, 0)
    return History(market, tuple(universe), interval, *ends, Gaps.empty())


def _fold(
    strategy: type[Strategy], market: Bars, train: _Window, test: _Window,
    swept: Mapping[str, Any], options: Mapping[str, Any], benchmark: str,
) -> tuple[Fold, Sequence[str]]:  # fmt: skip
    # The best in training and what came of it in the test; and where the sweep disagreed.
    rank, interval = swept["rank"], options["interval"]
    found = sweep(
        strategy, market[: train.end], start=train.start(market), verify_best=1,
        verify_sample=0, progress=False, **options, **swept,
    )  # fmt: skip
    best = found.best(1)
    if best.empty:
        raise DataError(
            f"no combination has a {rank} in training: none traded, or none moved; train "
            "longer, widen the grid or choose by another rank"
        )
    at = int(best.index[0])
    result = backtest(
        found.strategy(at), market[: test.end], start=test.start(market), benchmark=benchmark,
        **options,
    )  # fmt: skip
    fold = Fold(
        train.times(market, interval), test.times(market, interval), found.grid.parameters(at),
        float(best[rank].iloc[0]), _score(result, options["snapshot_ns"], rank), len(found.grid),
        result,
    )  # fmt: skip
    return fold, found.verified.disagreements


def _windows(splits: Splitter, bars: Bars) -> list[tuple[_Window, _Window]]:
    # Of every split; refused unless each is one stretch, and in the order of time.
    found = list[tuple[_Window, _Window]]()
    for number, (train, test) in enumerate(splits.split(bars), 1):
        for name, rows in (("training", train), ("test", test)):
            if not len(rows) or np.any(np.diff(rows) != 1):
                raise ConfigError(
                    f"{name} of split {number} is no single stretch of bars, splits was "
                    f"{splits!r}; give WalkForward with one horizon for all, or use paths() for "
                    "combinatorial splits"
                )
        own = _Window(int(train[0]), int(train[-1]) + 1), _Window(int(test[0]), int(test[-1]) + 1)
        if own[0].end > own[1].begin:
            raise ConfigError(
                f"split {number} trains on what comes after its test, splits was {splits!r}; give "
                "WalkForward, or use paths() for combinatorial splits"
            )
        if found and found[-1][1].end > own[1].begin:
            raise ConfigError(
                f"the test of split {number} overlaps the one before, splits was {splits!r}; give "
                "a step of at least the length of the test"
            )
        found.append(own)
    if not found:
        raise DataError(
            f"{splits!r} finds no split in {len(bars):,} bars; shorten train and test, or take "
            "more bars"
        )
    return found


def _score(result: Result, snapshot_ns: int, rank: str) -> float:
    # What a sweep of the same window would say of it.
    score = Score(result.engine.risk, result.start, result.end, snapshot_ns)
    score.open()
    score.take(result.effects.rows)
    row = score.close(float(result.ledger.equity[1][-1]), result.ledger.capital)
    return float(row[rank])


def _tried(grid: Grid, name: str) -> list[Any]:
    # Values of a parameter in any combination: numbers by size, others in the order they came.
    values = list(dict.fromkeys(strategy.parameters[name] for strategy in grid.strategies))
    is_number = all(isinstance(value, int | float) for value in values)
    return sorted(values) if is_number else values  # pyright: ignore[reportArgumentType]
