"""Bars from market events, closed at clock marks: one mark per bar end, for all symbols at once.

Input: events in the order taken. Output: closed bars with the position of the event they close
before. A tick is a bar of no length, so ticks and imported bars go through the same code. A late
event counts in a bar still open and in nothing else. No tick, no bar.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sysquant import records
from sysquant.compiled import inlined, kernel, part, wide
from sysquant.errors import DataError
from sysquant.records import Row, Rows
from sysquant.types import Bars, Floats, Ints, Ticks, halt_mark

T = TypeVar("T", bound=np.generic)


class Events(NamedTuple):
    """A batch as the engine sees it: an event trades at open .. close, in [start_of, ts_of]."""

    end: Ints  # of a tick its time, of a bar its close
    symbol: NDArray[np.int32]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    length: int  # ns that each lasts; 0 for ticks


class ClosedBars(NamedTuple):
    """Bars that closed, by (position, symbol): the mark stands before the event at `position`."""

    position: Ints
    ts: Ints
    symbol: NDArray[np.int32]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


def events_of(batch: Ticks | Bars, interval: int) -> Events:
    """View ticks, or bars of `interval` ns, as events; nothing that can be written is copied.

    A bar's last instant is one nanosecond before its close: what it knows belongs before the mark.
    """
    if isinstance(batch, Ticks):
        columns, length = (batch.price,), 0
    else:
        columns, length = (batch.open, batch.high, batch.low, batch.close), interval
    prices = [_usable(column, np.float64) for column in columns]
    prices *= 4 // len(prices)
    ts, symbol = _usable(batch.ts, np.int64), _usable(batch.symbol, np.int32)
    return Events._make([ts, symbol, *prices, _usable(batch.volume, np.float64), length])


def _usable(column: NDArray[np.generic], kind: type[T]) -> NDArray[T]:
    # Of the one kind that functions are compiled for; copied only if it is of another.
    return np.require(column, kind, ["C", "W"])


@inlined
def start_of(end: int, length: int) -> int:
    """First instant of an event, ns UTC."""
    return end - length


@inlined
def ts_of(end: int, length: int) -> int:
    """Last instant of an event, ns UTC: what engine time is after it."""
    return end - 1 if length > 0 else end


# A bar that is being built: first and last time, ticks; open, high, low, close, volume.
_Open = tuple[int, int, int, float, float, float, float, float]
_TICKS = 2


@inlined
def _no_bar() -> _Open:
    return 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0


@inlined
def put_back(bar: Row, held: _Open) -> None:
    """Write a bar that is being built into its row."""
    bar.first_ts, bar.last_ts, bar.ticks, bar.open, bar.high, bar.low, bar.close, bar.volume = held


@inlined
def taken_out(bar: Row) -> _Open:
    """What a row holds, which then holds nothing."""
    held = (
        bar.first_ts, bar.last_ts, bar.ticks, bar.open, bar.high, bar.low, bar.close, bar.volume,
    )  # fmt: skip
    if bar.ticks > 0:
        put_back(bar, _no_bar())
    return held


@inlined
def with_event(held: _Open, events: Events, i: int, ts: int) -> _Open:
    """A bar with one event more: open and close go by (ts, arrival), as the store's argMin does."""
    first_ts, last_ts, ticks, open_, high, low, close, volume = held
    if ticks == 0:
        return (
            ts, ts, 1, events.open[i], events.high[i], events.low[i], events.close[i],
            events.volume[i],
        )  # fmt: skip
    if ts < first_ts:
        first_ts, open_ = ts, events.open[i]
    if ts >= last_ts:
        last_ts, close = ts, events.close[i]
    high, low = max(high, events.high[i]), min(low, events.low[i])
    return first_ts, last_ts, ticks + 1, open_, high, low, close, volume + events.volume[i]


@inlined
def write(
    closed: ClosedBars, count: int, position: int, end: int, symbol: int, held: _Open
) -> None:
    """Make a bar the closed one of this number."""
    row = np.uint64(count)  # never counted from the end
    closed.position[row] = position
    closed.ts[row] = end
    closed.symbol[row] = symbol
    _, _, _, closed.open[row], closed.high[row], closed.low[row], closed.close[row], volume = held
    closed.volume[row] = volume


@part
def _close_all(position: int, end: int, bars: Rows, closed: ClosedBars, count: int) -> int:
    # Writes every open bar out, in symbol order.
    for symbol in range(len(bars)):
        if bars[symbol].ticks > 0:
            write(closed, count, position, end, symbol, taken_out(bars[symbol]))
            count += 1
    return count


@inlined
def _end_after(ts: int, last: int, interval: int) -> int:
    # Of the bar that an event opens, told without a division where it follows the last one.
    start = last if last <= ts < last + interval else ts - ts % interval
    return start + interval


@kernel
def _close_bars(events: Events, clock_: Rows, bars: Rows, closed: ClosedBars) -> int:
    # The bar of the symbol at hand is taken out of its row, into registers.
    clock = clock_[0]
    end, engine_ts, count, last = clock.end, clock.engine_ts, 0, 0
    at_hand, held = 0, taken_out(bars[0])
    others = 0  # open bars that lie in their rows
    for bar in bars:
        others += int(bar.ticks > 0)
    for i in range(len(events.end)):
        ts = ts_of(events.end[i], events.length)
        if ts >= end > 0:
            if others == 0:
                write(closed, count, i, end, at_hand, held)
                count += 1
            else:
                put_back(bars[at_hand], held)
                count = _close_all(i, end, bars, closed, count)
            last, end, held, others = end, 0, _no_bar(), 0
        if ts < engine_ts:
            clock.late += 1
            if ts < end - clock.interval or end == 0:
                clock.corrections += 1
                continue
        engine_ts = max(engine_ts, ts)
        symbol = wide(events.symbol[i])
        if symbol < 0:
            continue
        if end == 0:
            end = _end_after(ts, last, clock.interval)
        if symbol != at_hand:
            put_back(bars[at_hand], held)
            others += int(held[_TICKS] > 0)
            at_hand, held = symbol, taken_out(bars[symbol])
            others -= int(held[_TICKS] > 0)
        held = with_event(held, events, i, ts)
    put_back(bars[at_hand], held)
    clock.end = end
    clock.engine_ts = engine_ts
    clock.bars += count
    return count


@kernel
def _are_bars(events: Events, clock_: Rows) -> bool:
    # Whether each event is a bar of its own: of this interval, and later than all before it.
    clock = clock_[0]
    ends, symbols, interval = events.end, events.symbol, clock.interval
    last = clock.end if clock.end > 0 else clock.engine_ts
    if events.length != interval or ends[0] <= last or ends[0] % interval != 0:
        return False
    others, gaps = 0, 0
    for i in range(len(ends)):
        others |= symbols[i]
    for i in range(1, len(ends)):
        gaps += 1 if ends[i] - ends[i - 1] != interval else 0
    if gaps > 0:
        for i in range(1, len(ends)):
            if ends[i] <= ends[i - 1] or ends[i] % interval != 0:
                return False
    return others == 0


def check_symbols(numbers: NDArray[np.int32], count: int) -> None:
    """Refuse numbers of symbols that are not among so many; compiled code looks at no bounds.

    Raises
    ------
    DataError
        With the first one.
    """
    least = halt_mark(count - 1, resume=True)
    if len(numbers) and not (least <= numbers.min() and numbers.max() < count):
        wrong = numbers[(numbers < least) | (numbers >= count)][0]
        raise DataError(
            f"the data have symbol number {wrong}, the universe holds {count} symbols, from "
            "number 0 on; give the universe that the data were read with"
        )


def pieces(events: Events, most: int) -> Iterator[tuple[int, Events]]:
    """Views of at most so many events, and where each begins."""
    for start in range(0, len(events.end), most):
        rows = slice(start, start + most)
        yield start, Events._make([*(column[rows] for column in events[:-1]), events.length])


class BarClock:
    """Closes time bars of one interval over batches of events.

    Parameters
    ----------
    symbols : how many there are.
    interval : ns, positive.
    """

    def __init__(self, symbols: int, interval: int) -> None:
        self.clock = np.zeros(1, records.CLOSING)
        self.clock["interval"] = self.interval = interval
        self.open_bars = np.zeros(symbols, records.OPEN_BAR)
        self._closed = room(0)

    def passes(self, batch: Ticks | Bars, most: int) -> Iterator[tuple[Events, ClosedBars, int]]:
        """Take events, `most` at a time: each time with what closed, and how many bars that are.

        What closed is good until the next pass. Bars of this interval in one symbol are their own
        closed bars, each of them when the next one comes: then nothing is copied.

        Raises
        ------
        DataError
            If a symbol is not in the universe; nothing has been taken then.
        """
        check_symbols(batch.symbol, len(self.open_bars))
        events = events_of(batch, self.interval)
        were_bars = False
        for start, taken in pieces(events, most):
            are_bars = len(self.open_bars) == 1 and _are_bars(taken, self.clock)
            if are_bars and were_bars:
                yield taken, *self._pass_on(events, start, len(taken.end))
            else:
                yield taken, *self._close(taken)
            were_bars = are_bars

    def arrays(self) -> dict[str, np.ndarray]:
        """What the next pass depends on, by name."""
        return {"bar_clock": self.clock, "open_bars": self.open_bars}

    def _close(self, events: Events) -> tuple[ClosedBars, int]:
        most = len(events.end) + len(self.open_bars)
        if most > len(self._closed.ts):
            self._closed = room(2 * most)
        return self._closed, _close_bars(events, self.clock, self.open_bars, self._closed)

    def _pass_on(self, events: Events, start: int, count: int) -> tuple[ClosedBars, int]:
        # The one before is open, and every one closes it: as `_close_bars`, by the same rules.
        before = slice(start - 1, start - 1 + count)
        end, *columns = events[:-1]
        last = start + count - 1
        ts = end[last] - 1  # as `ts_of`
        self.clock["end"], self.clock["engine_ts"] = end[last], ts
        self.clock["bars"] += count
        self.open_bars[0] = (1, ts, ts, *(column[last] for column in columns[1:]))
        position = _counted(len(self._closed.ts))[:count]
        closed = [position, end[before], *(column[before] for column in columns)]
        return ClosedBars._make(closed), count


@functools.cache
def _counted(most: int) -> Ints:
    return np.arange(most)


def room(bars: int) -> ClosedBars:
    """For so many closed bars."""
    integers = {"position": np.int64, "ts": np.int64, "symbol": np.int32}
    return ClosedBars._make(np.empty(bars, integers.get(n, np.float64)) for n in ClosedBars._fields)
