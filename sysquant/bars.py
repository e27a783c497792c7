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
from sysquant.compiled import inlined, kernel, part
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
def _write(
    closed: ClosedBars, count: int, position: int, end: int, symbol: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> None:  # fmt: skip
    row = np.uint64(count)  # never counted from the end
    closed.position[row] = position
    closed.ts[row] = end
    closed.symbol[row] = symbol
    closed.open[row] = open_
    closed.high[row] = high
    closed.low[row] = low
    closed.close[row] = close
    closed.volume[row] = volume


@inlined
def _put_back(
    bar: Row, first_ts: int, last_ts: int, ticks: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> None:  # fmt: skip
    bar.first_ts, bar.last_ts, bar.ticks = first_ts, last_ts, ticks
    bar.open, bar.high, bar.low, bar.close, bar.volume = open_, high, low, close, volume


@part
def _close_all(position: int, end: int, bars: Rows, closed: ClosedBars, count: int) -> int:
    # Writes every open bar out, in symbol order.
    for symbol in range(len(bars)):
        bar = bars[symbol]
        if bar.ticks > 0:
            _write(
                closed, count, position, end, symbol, bar.open, bar.high, bar.low, bar.close,
                bar.volume,
            )  # fmt: skip
            _put_back(bar, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
            count += 1
    return count


@kernel
def _close_bars(events: Events, clock_: Rows, bars: Rows, closed: ClosedBars) -> int:
    # The bar of the symbol at hand is taken out of its row, into registers; a row without is 0.
    clock = clock_[0]
    end, engine_ts, count, last = clock.end, clock.engine_ts, 0, 0
    others = 0  # open bars that lie in their rows
    for bar in bars:
        others += 1 if bar.ticks > 0 else 0
    at_hand, first_ts, last_ts, ticks = -1, 0, 0, 0
    open_, high, low, close, volume = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(events.end)):
        ts = ts_of(events.end[i], events.length)
        if ts >= end > 0:
            if ticks > 0 and others == 0:
                _write(closed, count, i, end, at_hand, open_, high, low, close, volume)
                count += 1
            else:
                if ticks > 0:
                    _put_back(
                        bars[at_hand], first_ts, last_ts, ticks, open_, high, low, close, volume
                    )
                count = _close_all(i, end, bars, closed, count)
            last, end, ticks, others = end, 0, 0, 0
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
        if symbol != at_hand:
            if ticks > 0:
                _put_back(bars[at_hand], first_ts, last_ts, ticks, open_, high, low, close, volume)
                others += 1
            bar, at_hand = bars[symbol], symbol
            first_ts, last_ts, ticks = bar.first_ts, bar.last_ts, bar.ticks
            open_, high, low, close, volume = bar.open, bar.high, bar.low, bar.close, bar.volume
            if ticks > 0:
                _put_back(bar, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
                others -= 1
        # Open and close go by (ts, arrival), as the store's argMin and argMax do.
        if ticks == 0:
            first_ts, last_ts, volume = ts, ts, events.volume[i]
            open_, high, low, close = (
                events.open[i], events.high[i], events.low[i], events.close[i],
            )  # fmt: skip
        else:
            if ts < first_ts:
                first_ts, open_ = ts, events.open[i]
            if ts >= last_ts:
                last_ts, close = ts, events.close[i]
            high = max(high, events.high[i])
            low = min(low, events.low[i])
            volume += events.volume[i]
        ticks += 1
    if ticks > 0:
        _put_back(bars[at_hand], first_ts, last_ts, ticks, open_, high, low, close, volume)
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
