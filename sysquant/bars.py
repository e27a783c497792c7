"""Bars from market events, closed at clock marks: one mark per bar end, for all symbols at once.

Input: events in the order taken. Output: closed bars with the position of the event they close
before. A tick is a bar of no length, so ticks and imported bars go through the same code. A late
event counts in a bar still open and in nothing else. No tick, no bar.
"""

from typing import NamedTuple

import numpy as np

from sysquant import records
from sysquant.compiled import kernel
from sysquant.records import Row, Rows
from sysquant.types import Bars, Floats, Ints, Ticks


class Events(NamedTuple):
    """A batch as the engine sees it: an event lies in [start, ts], and trades at open .. close."""

    start: Ints
    ts: Ints
    symbol: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


def events_of(batch: Ticks | Bars, interval: int) -> Events:
    """View ticks, or bars of `interval` ns, as events; of ticks only the symbols are copied.

    A bar's last instant is one nanosecond before its close: what it knows belongs before the mark.
    """
    symbol = batch.symbol.astype(np.int64)
    if isinstance(batch, Ticks):
        ts, p = batch.ts, batch.price
        return Events(ts, ts, symbol, p, p, p, p, batch.volume)
    return Events(
        batch.ts - interval, batch.ts - 1, symbol,
        batch.open, batch.high, batch.low, batch.close, batch.volume,
    )  # fmt: skip


@kernel
def _close_all(position: int, ends: Rows, bars: Rows, count: int, clock: Row) -> int:
    # Writes every open bar out, in symbol order.
    for symbol in range(len(bars)):
        bar = bars[symbol]
        if bar.ticks > 0:
            row = ends[count]
            row.position = position
            row.ts = clock.end
            row.symbol = symbol
            row.open = bar.open
            row.high = bar.high
            row.low = bar.low
            row.close = bar.close
            row.volume = bar.volume
            bar.ticks = 0
            clock.bars += 1
            count += 1
    return count


@kernel
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
def _close_bars(events: Events, clock_: Rows, bars: Rows, ends: Rows) -> int:
    clock = clock_[0]
    count = 0
    for i in range(len(events.ts)):
        ts = events.ts[i]
        if clock.end > 0 and ts >= clock.end:
            count = _close_all(i, ends, bars, count, clock)
            clock.end = 0
        if ts < clock.engine_ts:
            clock.late += 1
            if ts < clock.end - clock.interval or clock.end == 0:
                clock.corrections += 1
                continue
        else:
            clock.engine_ts = ts
        symbol = events.symbol[i]
        if symbol < 0:
            continue
        if clock.end == 0:
            clock.end = ts - ts % clock.interval + clock.interval
        _add(
            bars[symbol], ts, events.open[i], events.high[i], events.low[i], events.close[i],
            events.volume[i],
        )  # fmt: skip
    return count


class BarClock:
    """Closes time bars of one interval over batches of events.

    Parameters
    ----------
    symbols : how many there are.
    interval : ns, positive.
    """

    def __init__(self, symbols: int, interval: int) -> None:
        self.clock = np.zeros(1, records.CLOSING)
        self.clock["interval"] = interval
        self.open_bars = np.zeros(symbols, records.OPEN_BAR)

    def close(self, events: Events) -> np.ndarray:
        """Take a batch; (B,) `records.BAR` rows that closed, by (position, symbol)."""
        ends = np.zeros(len(events.ts) + len(self.open_bars), records.BAR)
        return ends[: _close_bars(events, self.clock, self.open_bars, ends)]
