"""The backtest driver: history -> engine -> a result. The engine is the one that trades live.

Input: a feed of the past, or bars in memory. Output: a `sysquant.result.Result` with every signal,
order, receipt, fill and snapshot, and the bars it all rested on. No journal: a backtest that dies
is repeated. Nothing is judged or drawn here.
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sysquant.activity import Activity, BarSize, bar_size, clock_of, closed_bars
from sysquant.effects import Effects, Labels
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution, refuse_costs
from sysquant.exits import Exits
from sysquant.keys import check_kind, refuse_words
from sysquant.operation import Operation, Serve
from sysquant.opinions import Models
from sysquant.orders import Orders
from sysquant.past import History
from sysquant.recording import Extent, record
from sysquant.result import BUY_AND_HOLD, Asked, Result
from sysquant.risk import RiskChain
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Model, Strategy
from sysquant.tally import Tally
from sysquant.times import Moment, check_moment, length_name, moment_ns
from sysquant.types import SECOND, Bars, Feed, Instrument, Ticks

__all__ = ["DESK_CHECKS", "Result", "backtest", "poll_all", "run"]

DESK_CHECKS: tuple[Mapping[str, object], ...] = (
    {"check": "order_size", "limit": 2.1},
    {"check": "cash", "limit": 0.0},
    {"check": "short_limit", "limit": 1.0},
    {"check": "drawdown", "limit": 0.5},
)


_ENOUGH_BARS = 10  # to tell their length from


class _Closes:
    # Closes the bars that the engine closes, by the same code, and keeps time, close and volume of
    # each: what statistics and plots need of millions of ticks.

    _FIELDS = np.dtype([("ts", "i8"), ("symbol", "i8"), ("close", "f8"), ("volume", "f8")])
    _CHUNK = 65_536  # events at once: bounds memory, changes nothing else

    def __init__(self, engine: Engine) -> None:
        self._clock = clock_of(engine.universe, engine.interval)
        self._parts = [np.empty(0, self._FIELDS)]

    def add(self, batch: Ticks | Bars) -> None:
        for _, closed, bars in self._clock.passes(batch, self._CHUNK):
            rows = np.empty(bars, self._FIELDS)
            for name in self._FIELDS.names or ():
                rows[name] = getattr(closed, name)[:bars]
            self._parts.append(rows)

    def all(self, end: int) -> np.ndarray:
        # With the bars that are still open, as far as they go.
        is_open = np.flatnonzero(self._clock.open_bars["ticks"])
        rest = np.empty(len(is_open), self._FIELDS)
        rest["ts"], rest["symbol"] = end, is_open
        for name in ("close", "volume"):
            rest[name] = self._clock.open_bars[name][is_open]
        return np.concatenate([*self._parts, rest])


def run(
    engine: Engine, batches: Iterable[Ticks | Bars | Operation], *, name: str,
    history: Callable[[int, Mapping[int, int]], Bars] | None = None,
    benchmark: str = BUY_AND_HOLD,
) -> Result:  # fmt: skip
    """Drive `engine` over batches of the past, in their order.

    Parameters
    ----------
    engine : fresh.
    batches : of market events, how they are cut changes nothing; between them what an operator
        does.
    name : of the run, in every row.
    history : bars before a time (ns UTC), for warming up before the first event.
    benchmark : what the statistics compare with: `buy and hold`, or a symbol.
    """
    tally = Tally()
    parts, asked = list[Effects](), list[Asked]()
    closes = _Closes(engine)
    start = end = 0
    for batch in batches:
        if isinstance(batch, Operation):
            parts.append(engine.operate(batch))
            tally.add(parts[-1], 0, engine.risk)
            continue
        if not len(batch):
            continue
        if not asked or asked[-1].models != engine.models:
            tables = parts[0].rows if parts else ()
            before = {name: sum(len(each[name]) for each in parts) for name in tables}
            asked.append(Asked(before, engine.models))
        if not start:
            start = int(batch.ts[0])
            if history is not None:
                engine.warm(history(engine.warmup_end(batch), {}))
        end = max(end, int(batch.ts.max()))
        effects = engine.step(batch)
        tally.add(effects, len(batch), engine.risk)
        parts.append(effects)
        closes.add(batch)
    labels = Labels(name, list(engine.strategies), engine.symbols, engine.risk)
    effects = Effects.join(parts)
    return Result(engine, labels, effects, tally, start, end, closes.all(end), benchmark, asked)


def poll_all(feed: Feed) -> Iterator[Ticks | Bars]:
    """Every batch of a feed that ends."""
    feed.seek({})
    while True:
        poll = feed.poll(0.0)
        yield poll.events
        if poll.ended:
            return


def fresh_engine(
    strategy: Strategy | Mapping[str, Strategy],
    universe: Sequence[Instrument],
    *,
    interval: BarSize = 60 * SECOND,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
    models: Models | None = None,
) -> Engine:
    """The engine of a backtest before its first event; parameters as of `backtest`."""
    strategies = strategy if isinstance(strategy, Mapping) else {_name(strategy): strategy}
    for each in strategies.values():
        check_kind("strategy", each, Strategy, "an instance, like Momentum(fast=10)")
    for value, kind in (risk, RiskChain), (execution, Execution), (orders, Orders), (exits, Exits):
        if value is not None:
            key = kind.__module__.removeprefix("sysquant.")
            check_kind(key, value, kind, f"a {kind.__module__}.{kind.__name__}")
    if sizing is not None:
        check_kind("sizing", sizing, Sizing, "made by a class of sysquant.sizing")
    return Engine(
        universe=universe,
        strategies=strategies,
        risk=risk or RiskChain(checks=DESK_CHECKS),
        execution=execution or Execution(),
        sizing=sizing or WeightSizing(),
        orders=orders or Orders(),
        exits=exits or Exits(),
        interval=interval,
        capital=capital,
        seed=seed,
        snapshot_ns=snapshot_ns,
        models=models,
    )


def backtest(
    strategy: Strategy | Mapping[str, Strategy],
    bars: Bars | Ticks | History,
    universe: Sequence[Instrument] | None = None,
    *,
    start: Moment = None,
    end: Moment = None,
    interval: int | str | Activity | None = None,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
    benchmark: str = BUY_AND_HOLD,
    models: Sequence[tuple[int, Model]] = (),
    **unknown: object,
) -> Result:
    """Backtest one strategy, or several by name, on bars or ticks in memory.

    It is counted in the research ledger, see `sysquant.research`.

    Parameters
    ----------
    strategy : an instance; its name in the result is its class's, in lower case.
    bars : what `sysquant.history` returned, which knows its universe and interval; or `Bars`; or
        `Ticks`, of which the bars are made that are decided on, while orders meet every tick.
    universe : the instruments that the symbol column of `Bars` or `Ticks` counts.
    start : bars that close by then are history: features and statistics warm up on them, nothing
        is decided. Like `2026-01-31` (UTC) or `-30d` (before the last bar); default: no history.
    end : bars that close later are not looked at; default: all are.
    interval : of the bars, `5m` or ns, a minute by default; of ticks also `500ticks`, `10volume`,
        `1e6value`, or an `Activity`.
    capital : quote currency, divided equally among the strategies.
    risk, execution, sizing : defaults are the desk's four checks, which cut an order that is
        too large, 50 ms latency, 1 bp slippage, 5 bp fee, and an equal share of equity per symbol.
        On bars an order with any latency fills at the next bar's close, and without, at its open.
    orders, exits : defaults are market orders, and no exits but the strategy's own.
    snapshot_ns : engine time between two values of equity, which returns cannot be finer than.
    benchmark : what the statistics compare with: `buy and hold`, or a symbol.
    models : of a single strategy: (ns UTC, model), from then on it asks that one.

    Raises
    ------
    ConfigError
        If a history comes with another universe or interval, or others without a universe, or a
        time cannot be meant.
    DataError
        If no bar closes after `start`, up to `end`, a price or volume cannot be meant, or `Bars` of
        a symbol close within one interval, the later one first, or all on a coarser grid.
    """
    refuse_costs("backtest", unknown)
    refuse_words("backtest", unknown, inspect.signature(backtest).parameters)
    bars, universe, interval = market_of(bars, universe, interval)
    before, bars = span_of(bars, universe, interval, start, end)
    engine = fresh_engine(
        strategy, universe, interval=interval, capital=capital, risk=risk, execution=execution,
        sizing=sizing, orders=orders, exits=exits, seed=seed, snapshot_ns=snapshot_ns,
        models=lambda _, number: models[int(number)][1],
    )  # fmt: skip
    history = None if before is None else lambda *_: before
    name = next(iter(engine.strategies))
    wishes = [(at, Serve(name, str(number))) for number, (at, _) in enumerate(models)]
    batches = served(engine, [bars], wishes)
    result = run(engine, batches, name="notebook", history=history, benchmark=benchmark)
    record(result, Extent(bars))
    return result


def served(
    engine: Engine, batches: Iterable[Ticks | Bars], wishes: Iterable[tuple[int, Serve]]
) -> Iterator[Ticks | Bars]:
    """The batches in parts, between which the engine that takes them is given its models.

    Parameters
    ----------
    engine : which steps over each part before it asks for the next.
    batches : of market events.
    wishes : ns UTC, and what is served from then on: bars that closed before have been decided.
    """
    left = deque(sorted(wishes, key=lambda wish: wish[0]))
    for batch in batches:
        clock, at = np.maximum.accumulate(batch.ts), 0
        while left and len(clock) and left[0][0] < clock[-1]:
            place = int(np.searchsorted(clock, left[0][0], side="right"))
            yield batch[at:place]
            engine.operate(left.popleft()[1])
            at = place
        yield batch[at:]


class Span(NamedTuple):
    """Bars that are history, if there are any, and the events that are decided on."""

    history: Bars | None
    market: Bars | Ticks


def span_of(
    market: Bars | Ticks,
    universe: Sequence[Instrument],
    size: BarSize,
    start: Moment,
    end: Moment,
) -> Span:
    """Bars that close by `start`, and what comes after it, up to `end`; as of `backtest`.

    Raises
    ------
    ConfigError
        If a time cannot be meant.
    DataError
        If a time is given and there are no bars to decide on.
    """
    check_moment("start", start)
    check_moment("end", end)
    if start is None and end is None:
        return Span(None, market)
    clock = np.maximum.accumulate(market.ts)  # a late tick belongs to when it came
    last = int(clock[-1]) if len(clock) else 0
    until = moment_ns(end, last, last)
    first, stop = 0, int(np.searchsorted(clock, until, side="right"))
    if start is not None:
        first = int(np.searchsorted(clock, moment_ns(start, 0, last), side="right"))
    if first >= stop:
        there = f"from {_iso(clock[0])} to {_iso(last)} UTC" if last else "none at all"
        raise DataError(f"no bar closes after start={start!r} up to end={end!r}; there is {there}")
    before = market[:first]
    history = closed_bars(before, universe, size) if isinstance(before, Ticks) else before
    return Span(history if first else None, market[first:stop])


def market_of(
    bars: Bars | Ticks | History,
    universe: Sequence[Instrument] | None,
    interval: int | str | Activity | None,
) -> tuple[Bars | Ticks, Sequence[Instrument], BarSize]:
    """Events, universe and interval of what is backtested, of whichever kind it came.

    Raises
    ------
    ConfigError, DataError
        As of `backtest`.
    """
    if isinstance(bars, History):
        if universe is not None or interval is not None:
            raise ConfigError(
                "a history has its own universe and interval: leave them out, or give history() "
                "the instruments and the interval that are meant"
            )
        return bars.bars, bars.universe, bars.interval
    if not isinstance(bars, Bars | Ticks):
        raise ConfigError(
            f"bars must be what history() returned, Bars or Ticks, was {type(bars).__name__}; a "
            "file goes into the store by runners/backfill.py, and comes back by history()"
        )
    if universe is None:
        raise ConfigError("bars need the universe that their symbol column counts, was None")
    for each in universe:
        check_kind("universe", each, Instrument, "a list of Instrument")
    size = 60 * SECOND if interval is None else bar_size(interval, "interval")
    _check_market(bars)
    if isinstance(bars, Bars) and not isinstance(size, Activity):
        _check_apart(bars, size)
    return bars, universe, size


def counted(
    bars: Bars | Ticks | History, universe: Sequence[Instrument] | None
) -> Sequence[Instrument] | None:
    """The universe; of bars or ticks without one, an instrument with the usual steps per number."""
    if universe is None and isinstance(bars, Bars | Ticks):
        return [Instrument(f"S{n}") for n in range(int(bars.symbol.max(initial=-1)) + 1)]
    return universe


def _check_market(market: Bars | Ticks) -> None:
    # The store refuses such rows when they come in; these come from anywhere.
    lengths = {name: len(column) for name, column in market.columns()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns must be of one length, were {lengths}")
    wrong = {
        f"{name} is no finite number": ~np.isfinite(column)
        for name, column in market.columns()
        if column.dtype.kind == "f"
    }
    wrong["volume is negative"] = market.volume < 0.0
    if isinstance(market, Bars):
        wrong["symbol is none of the universe's"] = market.symbol < 0
        wrong["low is not above 0"] = market.low <= 0.0
        wrong["low is above open or close"] = market.low > np.minimum(market.open, market.close)
        wrong["high is below open or close"] = market.high < np.maximum(market.open, market.close)
    else:
        wrong["price is not above 0"] = market.price <= 0.0
    for said, rows in wrong.items():
        if rows.any():
            first = int(np.argmax(rows))
            raise DataError(
                f"{said} at {_iso(int(market.ts[first]))} UTC, row {first}, and in "
                f"{int(rows.sum()):,} rows in all; leave out what did not trade: gaps are no error"
            )


def _check_apart(bars: Bars, interval: int) -> None:
    # The engine would make one bar of two, each taken to be as long as the interval.
    number = bars.symbol.astype(np.int16 if bars.symbol.max(initial=0) < 2**15 else np.int32)
    order = np.argsort(number, kind="stable")  # of sixteen bits in one pass
    ts, number = bars.ts[order], number[order]
    is_next = np.diff(number) == 0
    apart = np.diff(ts)[is_next]
    is_wide = len(apart) >= _ENOUGH_BARS and apart.min() >= 2 * interval
    if is_wide and (grid := int(np.gcd.reduce(apart))) >= 2 * interval:
        raise DataError(
            f"bars close on a grid of {length_name(grid)}, interval was {length_name(interval)}: "
            "set interval=... to their length"
        )
    wrong = np.flatnonzero(is_next & (np.diff((ts - 1) // interval) <= 0))
    if len(wrong):
        first, second = ts[wrong[0]], ts[wrong[0] + 1]
        raise DataError(
            f"bars of symbol number {number[wrong[0]]} close {(second - first) / SECOND:g} s apart "
            f"at {np.datetime64(int(second), 'ns')}Z, with an interval of {interval / SECOND:g} s: "
            "sort them, or set interval=... to their length; for bars of ticks, volume or value "
            "give their Ticks, and interval='500ticks' or the like"
        )


def _name(strategy: Strategy) -> str:
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(strategy).__name__)
    return words.lstrip("_")


def _iso(ns: int) -> str:
    return str(np.datetime64(int(ns), "ns").astype("M8[s]"))
