"""Bars from market events, closed at clock marks: one mark per bar end, for all symbols at once.

Input: events in the order taken. Output: closed bars with the position of the event they close
before. A tick is a bar of no length, so ticks and imported bars go through the same code. A late
event counts in a bar still open and in nothing else. No tick, no bar.
"""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sysquant import records
from sysquant.bundle import Bundle
from sysquant.compiled import inlined, kernel
from sysquant.records import Row, Rows
from sysquant.types import Bars, Floats, Ints, Ticks

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


class ClosedBars(Bundle):
    """Bars that closed, by (position, symbol): the mark stands before the event at `position`."""

    position: Ints
    ts: Ints
    symbol: Ints
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
        price = _usable(batch.price)
        prices, length = (price, price, price, price), 0
    else:
        prices = (
            _usable(batch.open),
            _usable(batch.high),
            _usable(batch.low),
            _usable(batch.close),
        )
        length = interval
    return Events(
        _usable(batch.ts), _usable(batch.symbol), *prices, _usable(batch.volume), length
    )  # fmt: skip


def _usable(column: NDArray[T]) -> NDArray[T]:
    # Of the one kind that functions are compiled for; copied only if it is of another.
    return np.require(column, requirements=["C", "W"])


@inlined
def start_of(end: int, length: int) -> int:
    """First instant of an event, ns UTC."""
    return end - length


@inlined
def ts_of(end: int, length: int) -> int:
    """Last instant of an event, ns UTC: what engine time is after it."""
    return end - 1 if length > 0 else end


@inlined
def _close_all(position: int, end: int, bars: Rows, closed: ClosedBars, count: int) -> int:
    # Writes every open bar out, in symbol order.
    for symbol in range(len(bars)):
        bar = bars[symbol]
        if bar.ticks > 0:
            closed.position[count] = position
            closed.ts[count] = end
            closed.symbol[count] = symbol
            closed.open[count] = bar.open
            closed.high[count] = bar.high
            closed.low[count] = bar.low
            closed.close[count] = bar.close
            closed.volume[count] = bar.volume
            bar.ticks = 0
            count += 1
    return count


@inlined
def _add(
    bar: Row, ts: int, open_: float, high: float, low: float, close: float, volume: float
) -> None:
    # Open and close go by (ts, arrival), as the store's argMin and argMax do.
    if bar.ticks == 0:
        bar.first_ts = ts
        bar.last_ts = ts
        bar.open = open_
        bar.high = high
        bar.low = low
        bar.close = close
        bar.volume = volume
    else:
        if ts < bar.first_ts:
            bar.first_ts = ts
            bar.open = open_
        if ts >= bar.last_ts:
            bar.last_ts = ts
            bar.close = close
        bar.high = max(bar.high, high)
        bar.low = min(bar.low, low)
        bar.volume += volume
    bar.ticks += 1


@kernel
def _close_bars(events: Events, clock_: Rows, bars: Rows, closed: ClosedBars) -> int:
    clock = clock_[0]
    end, engine_ts, count = clock.end, clock.engine_ts, 0
    last = 0
    for i in range(len(events.end)):
        ts = ts_of(events.end[i], events.length)
        if ts >= end > 0:
            count = _close_all(i, end, bars, closed, count)
            last, end = end, 0
        if ts < engine_ts:
            clock.late += 1
            if ts < end - clock.interval or end == 0:
                clock.corrections += 1
                continue
        else:
            engine_ts = ts
        symbol = events.symbol[i]
        if symbol < 0:
            continue
        if end == 0:
            start = last if last <= ts < last + clock.interval else ts - ts % clock.interval
            end = start + clock.interval
        _add(
            bars[symbol], ts, events.open[i], events.high[i], events.low[i], events.close[i],
            events.volume[i],
        )  # fmt: skip
    clock.end = end
    clock.engine_ts = engine_ts
    clock.bars += count
    return count


class BarClock:
    """Closes time bars of one interval over batches of events.

    Parameters
    ----------
    symbols : how many there are.
    interval : ns, positive.

    Attributes
    ----------
    closed : bars of the last batch, as many as `close` said; the next batch writes over them.
    """

    def __init__(self, symbols: int, interval: int) -> None:
        self.clock = np.zeros(1, records.CLOSING)
        self.clock["interval"] = interval
        self.open_bars = np.zeros(symbols, records.OPEN_BAR)
        self.closed = _room(symbols)

    def close(self, events: Events) -> int:
        """Take a batch; how many bars of it are in `closed`."""
        most = len(events.end) + len(self.open_bars)
        if most > len(self.closed.ts):
            self.closed = _room(2 * most)
        return _close_bars(events, self.clock, self.open_bars, self.closed)


def _room(bars: int) -> ClosedBars:
    kinds = ClosedBars.__annotations__.items()
    return ClosedBars(
        **{n: np.empty(bars, np.int64 if k is Ints else np.float64) for n, k in kinds}
    )
