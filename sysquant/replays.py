"""Many strategies over one market, each through an engine of its own state, on all cores.

Input: a market and strategies of one class. Output: a row of figures for each. What they have in
common is done once: bars are closed, each distinct feature is computed, and an engine per thread
is put back to its first state. The results are those of single backtests, byte for byte.
"""

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sysquant.bars import ClosedBars, Events
from sysquant.decider import features_of, weigh
from sysquant.engine import Decided, Engine, Rows
from sysquant.errors import ConfigError
from sysquant.features import Expression, FeatureGraph
from sysquant.features.expression import BAR_FIELDS, Operation
from sysquant.scores import Row, Score
from sysquant.strategy import Strategy
from sysquant.types import Bars, Floats, Ints, Ticks

_KEPT = 256 << 20  # bytes of feature values at a time
_STEP = 65_536  # events of a whole engine at a time: its rows are counted and dropped


class _Pass(NamedTuple):
    # Events, what closes in them, and the rows of closed bars that each symbol has.
    taken: Events
    closed: ClosedBars
    bars: int
    rows: list[Any]


class _Runner(NamedTuple):
    # What a thread works with, and how it all began.
    engine: Engine
    rewind: Callable[[], None]
    score: Score


class Replays:
    """Runs strategies of one class over one market.

    Parameters
    ----------
    make : a fresh engine for a strategy; the engines differ in nothing else.
    market : bars or ticks, in order; not empty.
    strategies : (N,) of one class.
    capital : that an engine starts with, and `snapshot_ns` between two of its snapshots.
    workers : threads.
    history : bars before the market, for features and statistics to warm up on.
    keep : whether to keep the equity of each.

    Attributes
    ----------
    equity : place -> (ts, equity) at the snapshots, of those that were run; empty unless `keep`.
    """

    def __init__(
        self, make: Callable[[Strategy], Engine], market: Bars | Ticks,
        strategies: Sequence[Strategy], *, capital: float, snapshot_ns: int, workers: int,
        history: Bars | None = None, keep: bool = False,
    ) -> None:  # fmt: skip
        self._keep, self.equity = keep, dict[int, tuple[Ints, Floats]]()
        self._fresh, self._market, self._strategies = make, market, strategies
        self._capital, self._workers, self._history = capital, workers, history
        self._passes = _closed(make(strategies[0]), market)
        self._idle: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        start, end = int(market.ts.min()), int(market.ts.max())
        for _ in range(workers):
            engine = self._make(strategies[0])
            engine.drop_statistics()
            score = Score(engine.risk, start, end, snapshot_ns)
            self._idle.put(_Runner(engine, engine.rewinder(), score))

    def _make(self, strategy: Strategy) -> Engine:
        engine = self._fresh(strategy)
        if self._history is not None:
            engine.warm(self._history)
        return engine

    def run(self, chosen: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The row of each chosen strategy, as soon as it is finished.

        Parameters
        ----------
        chosen : places in `strategies`.

        Returns
        -------
        Place and row, in any order.

        Raises
        ------
        StrategyError
            If a `target` is no weight; what ran beside it is finished first.
        """
        with ThreadPoolExecutor(self._workers) as pool:
            for table in self._tables(chosen):
                yield from self._spread(pool, table)

    def _spread(self, pool: ThreadPoolExecutor, table: "_Table") -> Iterator[tuple[int, Row]]:
        # Each thread takes the next place as long as there is one; None is its last word.
        waiting = deque(table.places)
        found: queue.SimpleQueue[tuple[int, Row] | None] = queue.SimpleQueue()

        def work() -> None:
            runner = self._idle.get()
            try:
                for place in iter(partial(_next, waiting), None):
                    found.put((place, self._row(runner, table, place)))
            finally:
                waiting.clear()
                self._idle.put(runner)
                found.put(None)

        threads = [pool.submit(work) for _ in range(self._workers)]
        try:
            for _ in threads:
                yield from iter(found.get, None)
        finally:
            waiting.clear()
        for thread in threads:
            thread.result()

    def fills(self, place: int) -> np.ndarray:
        """Every fill of one strategy in the order they happened: records of `executions`."""
        runner, parts = self._idle.get(), list[np.ndarray]()
        try:
            for table in self._tables([place]):
                self._drive(runner, table, place, lambda r: parts.append(r["executions"].copy()))
        finally:
            self._idle.put(runner)
        return np.concatenate(parts)

    def weights(self, chosen: Iterable[int]) -> Iterator[tuple[int, Floats]]:
        """Place and (B,) weights on every closed bar of the only symbol, NaN for no opinion.

        Raises
        ------
        ConfigError
            If features of the strategies cannot be shared: only whole engines can run them.
        """
        for table in self._tables(chosen):
            if not table.is_shared:
                raise ConfigError(
                    f"the features of {self._strategies[table.places[0]]!r} cannot be computed for "
                    "many strategies at once; use screen='engine'"
                )
            for place in table.places:
                yield place, np.concatenate([targets[0] for *_, targets in table.decided(place)])

    def _row(self, runner: _Runner, table: "_Table", place: int) -> Row:
        runner.score.open()
        engine = self._drive(runner, table, place, runner.score.take)
        accounts = engine.accounts().values()
        pool = round(self._capital - sum(account["allocation"] for account in accounts), 8)
        equity = pool + sum(account["equity"] for account in accounts)
        row = runner.score.close(equity, self._capital)
        if self._keep:
            self.equity[place] = runner.score.snapshots()
        return row

    def _drive(
        self, runner: _Runner, table: "_Table", place: int, take: Callable[[Rows], None]
    ) -> Engine:
        # The whole run of one strategy, and the engine as it stands after it.
        engine = runner.engine
        if table.is_shared:
            runner.rewind()
            engine.replay(table.decided(place), take)
            return engine
        engine = self._make(self._strategies[place])
        for at in range(0, len(self._market), _STEP):
            take(engine.step(self._market[at : at + _STEP]).rows)
        return engine

    def _tables(self, chosen: Iterable[int]) -> Iterator["_Table"]:
        # As many strategies at a time as their features leave memory for.
        bars = sum(each.bars for each in self._passes)
        most = max(1, _KEPT // (8 * max(1, bars)))
        table = _Table(self._passes, self._history)
        for place in chosen:
            strategy = self._strategies[place]
            features = features_of(strategy)
            if table.places and table.size_with(features) > most:
                yield table.computed()
                table = _Table(self._passes, self._history)
            table.add(place, strategy, features)
        if table.places:
            yield table.computed()


class _Table:
    # Features of several strategies, each distinct one computed once, on every pass and symbol.

    def __init__(self, passes: Sequence[_Pass], history: Bars | None) -> None:
        self._passes, self._history = passes, history
        self._nodes: dict[str, Expression] = {}
        self._wanted: dict[int, tuple[Strategy, dict[str, Expression]]] = {}
        self._values: list[list[Floats]] = []
        self._operations: dict[str, Operation] = {}
        self._row_of: dict[str, int] = {}
        self.is_shared = True

    @property
    def places(self) -> list[int]:
        return list(self._wanted)

    def size_with(self, features: dict[str, Expression]) -> int:
        return len(self._nodes.keys() | {node.name for node in features.values()})

    def add(self, place: int, strategy: Strategy, features: dict[str, Expression]) -> None:
        self._wanted[place] = strategy, features
        self._nodes |= {node.name: node for node in features.values()}
        for name, operation in _operations(features.values()).items():
            # Made anew for each instance, it may be another one of the same name.
            self.is_shared &= self._operations.setdefault(name, operation) is operation

    def computed(self) -> "_Table":
        # Only what rests on the symbol's own bar can be shared: the rest is for whole engines.
        fields = {name for name, made in self._operations.items() if made.kernel is None}
        self.is_shared &= fields <= set(BAR_FIELDS)
        if not self.is_shared:
            return self
        graphs = [FeatureGraph(self._nodes) for _ in self._passes[0].rows]
        self._row_of = {name: row for row, name in enumerate(self._nodes)}
        fields = {*fields, "close"}  # at least one: its length is the table's
        if self._history is not None:
            for symbol, graph in enumerate(graphs):
                own = self._history[self._history.symbol == symbol]
                graph.advance({name: getattr(own, name) for name in fields})
        for each in self._passes:
            columns = {name: getattr(each.closed, name) for name in fields}
            self._values.append([
                _advanced(graph, {name: column[rows] for name, column in columns.items()})
                for graph, rows in zip(graphs, each.rows, strict=True)
            ])  # fmt: skip
        return self

    def decided(self, place: int) -> Iterator[Decided]:
        strategy, features = self._wanted[place]
        names = list(features)
        rows = np.array([self._row_of[features[name].name] for name in names], np.int64)
        # Of the first strategy in the middle of its run, where all features are known; what is
        # verified later is asked like any backtest.
        probed = self._passes[len(self._passes) // 2] if place == self.places[0] else None
        for each, values in zip(self._passes, self._values, strict=True):
            probe = each is probed
            if len(values) == 1:
                targets = weigh(strategy, names, values[0], rows, probe=probe)[np.newaxis]
            else:
                targets = np.empty((1, each.bars))
                for own, table in zip(each.rows, values, strict=True):
                    targets[0, own] = weigh(strategy, names, table, rows, probe=probe)
            yield each.taken, each.closed, each.bars, targets


def _operations(wanted: Iterable[Expression]) -> dict[str, Operation]:
    # Of every node, by its name; those of one strategy agree, or its graph is refused.
    found, pending = dict[str, Operation](), list(wanted)
    while pending:
        node = pending.pop()
        if node.name not in found:
            found[node.name] = node.operation
            pending.extend(node.inputs)
    return found


def _next(waiting: deque[int]) -> int | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _advanced(graph: FeatureGraph, columns: dict[str, np.ndarray]) -> Floats:
    table, rows = graph.advance(columns)
    return table[rows]


def _closed(engine: Engine, market: Bars | Ticks) -> list[_Pass]:
    # The passes of a market, each with bars of its own; all rows of one symbol are a view.
    passes = list[_Pass]()
    done = 0
    for taken, closed, bars in engine.passes(market):
        same = slice(done, done + bars)
        own = ClosedBars._make(
            _kept(column[:bars], getattr(market, name, None), same)
            for name, column in closed._asdict().items()
        )
        rows: list[Any] = [slice(None)]
        if len(engine.symbols) > 1:
            rows = [np.flatnonzero(own.symbol == at) for at in range(len(engine.symbols))]
        passes.append(_Pass(taken, own, bars, rows))
        done += bars
    return passes


def _kept(column: np.ndarray, market: np.ndarray | None, same: slice) -> np.ndarray:
    # A copy; or the market's own column where that is the same, which is then read once for both.
    if market is None or market.dtype != column.dtype or not market.flags.writeable:
        return column.copy()
    kept = market[same]
    is_same = kept.flags.c_contiguous and kept.tobytes() == column.tobytes()
    return kept if is_same else column.copy()
