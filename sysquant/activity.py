"""Bars by activity instead of time: so many ticks, so much volume, or so much value.

Input: ticks in the order taken. Output: closed bars, as those of `bars`. A bar is complete with the
tick that reaches its size, whole ticks only, and closes before the next event; its `ts` is engine
time at that tick. Each symbol has bars of its own; ticks that come late count in the open one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sysquant import records
from sysquant.bars import (
    BarClock,
    ClosedBars,
    Events,
    check_symbols,
    put_back,
    room,
    taken_out,
    ts_of,
    with_event,
    write,
)  # fmt: skip
from sysquant.compiled import kernel, wide
from sysquant.errors import ConfigError
from sysquant.keys import check_choice, check_number
from sysquant.records import Rows
from sysquant.times import interval_ns
from sysquant.types import Floats

MEASURES = ("ticks", "volume", "value")
_SIZE = re.compile(r"([0-9][0-9_.e+]*)\s*(ticks|volume|value)")


@dataclass(frozen=True, slots=True)
class Activity:
    """What a bar holds.

    Parameters
    ----------
    measure : `ticks`, `volume` (as the instrument counts it) or `value` (price x volume, quote
        currency).
    size : of a bar, > 0; the tick that reaches it is the last.

    Raises
    ------
    ConfigError
        If there is no such measure, or the size is not above 0.
    """

    measure: str
    size: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_choice("measure of bars", self.measure, MEASURES)
        check_number("size of bars", self.size, above=0, whole=self.measure == "ticks")

    def __str__(self) -> str:
        return f"{self.size:g} {self.measure}"


def bar_size(text: int | str, key: str = "bars") -> int | Activity:
    """Nanoseconds of `1m`, or the activity of `500ticks`, `10volume`, `1e6value`.

    Parameters
    ----------
    text : the size (or ns as they are).
    key : its name in an error.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        return Activity(found[2], float(found[1])) if found else interval_ns(text, key)
    except ValueError:
        pass
    except ConfigError as error:
        if found:
            raise ConfigError(f"{key}: {error}") from error
    like = "1s, 5m, 1h or 1d, or like 500ticks, 10volume or 1e6value"
    raise ConfigError(f"{key} must be like {like}, was {text!r}")


@kernel
def _close_bars(
    events: Events, clock_: Rows, bars: Rows, done: Floats, measure: int, size: float,
    closed: ClosedBars,
) -> int:  # fmt: skip
    # `pending` is one more than the symbol whose bar is complete and waits for the next event.
    clock = clock_[0]
    count = 0
    for i in range(len(events.end)):
        if clock.pending > 0:
            symbol = clock.pending - 1
            write(closed, count, i, clock.engine_ts, symbol, taken_out(bars[symbol]))
            done[symbol] = 0.0
            clock.pending = 0
            count += 1
        ts = ts_of(events.end[i], events.length)
        clock.late += int(ts < clock.engine_ts)
        clock.engine_ts = max(clock.engine_ts, ts)
        symbol = wide(events.symbol[i])
        if symbol < 0:
            continue
        put_back(bars[symbol], with_event(taken_out(bars[symbol]), events, i, ts))
        worth = 1.0
        if measure > 0:
            worth = events.volume[i] * (events.close[i] if measure == 2 else 1.0)
        done[symbol] += worth
        if done[symbol] >= size:
            clock.pending = symbol + 1
    clock.bars += count
    return count


class ActivityClock:
    """Closes bars of one activity over batches of ticks; as `BarClock`.

    Parameters
    ----------
    symbols : how many there are.
    activity : what a bar holds.
    """

    def __init__(self, symbols: int, activity: Activity) -> None:
        self.clock = np.zeros(1, records.CLOSING)
        self.open_bars = np.zeros(symbols, records.OPEN_BAR)
        self.done = np.zeros(symbols)
        self._activity = activity
        self._closed = room(0)

    def passes(self, events: Events, most: int) -> Iterator[tuple[Events, ClosedBars, int]]:
        """Take events, `most` at a time: each time with what closed, and how many bars that are.

        What closed is good until the next pass.

        Raises
        ------
        ConfigError
            If the events are bars: these do not say which tick came when.
        DataError
            If a symbol is not in the universe; nothing has been taken then.
        """
        if events.length:
            raise ConfigError(f"bars of {self._activity} are made of ticks; set feed.kind=ticks")
        check_symbols(events.symbol, len(self.open_bars))
        measure = MEASURES.index(self._activity.measure)
        for start in range(0, len(events.end), most):
            rows = slice(start, start + most)
            taken = Events._make([*(column[rows] for column in events[:-1]), events.length])
            if len(taken.end) >= len(self._closed.ts):
                self._closed = room(2 * len(taken.end) + 2)
            count = _close_bars(
                taken, self.clock, self.open_bars, self.done, measure,
                float(self._activity.size), self._closed,
            )  # fmt: skip
            yield taken, self._closed, count

    def arrays(self) -> dict[str, np.ndarray]:
        """What the next pass depends on, by name."""
        return {"bar_clock": self.clock, "open_bars": self.open_bars, "activity": self.done}


def clock_of(symbols: int, size: int | Activity) -> BarClock | ActivityClock:
    """What closes bars of a size."""
    return ActivityClock(symbols, size) if isinstance(size, Activity) else BarClock(symbols, size)
