"""Bars by activity instead of time: so many ticks, so much volume, or so much value.

Input: ticks in the order taken. Output: closed bars, as those of `bars`. The tick that brings a bar
to its size is its last, whole, and the bar closes right after it, at engine time. Each symbol has
bars of its own, and a late tick counts in the open one. Rules: `docs/engine.md`, section 1.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sysquant import records
from sysquant.bars import (
    BarClock,
    ClosedBars,
    Events,
    check_symbols,
    events_of,
    pieces,
    put_back,
    room,
    taken_out,
    ts_of,
    with_event,
    write,
)  # fmt: skip
from sysquant.compiled import inlined, kernel, numbers, wide
from sysquant.errors import ConfigError
from sysquant.keys import check_choice, check_number
from sysquant.records import Rows
from sysquant.times import interval_ns
from sysquant.types import Bars, Instrument, Ticks

MEASURES = ("ticks", "volume", "value")
_ONE, _VOLUME, _VOLUME_BY_PRICE, _VOLUME_TIMES_PRICE = numbers(4)  # what a tick counts for
_SIZE = re.compile(rf"([0-9][0-9_.e+]*)\s*({'|'.join(MEASURES)})")
_ROUNDING = 1e-9  # of a size: ten times 0.1 make 1, though their sum in floating point is less
_CHUNK = 65_536  # events at once: bounds memory, changes nothing else


@dataclass(frozen=True, slots=True)
class Activity:
    """What a bar holds.

    Parameters
    ----------
    measure : `ticks`, `volume` (units) or `value` (quote currency).
    size : of a bar, > 0, of ticks a whole number; the tick that reaches it is the last.

    Raises
    ------
    ConfigError
        If there is no such measure, or the size is not above 0.

    Examples
    --------
    >>> print(Activity("value", 1e6))
    1000000value
    """

    measure: str
    size: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_choice("measure of bars", self.measure, MEASURES)
        check_number(f"{self.measure} of a bar", self.size, above=0, whole=self.measure == "ticks")

    def __str__(self) -> str:
        return f"{self.size!r}".removesuffix(".0") + self.measure


BarSize = int | Activity  # ns, or what a bar holds


def bar_size(text: int | str | Activity, key: str = "bars") -> BarSize:
    """What is written `1m`, `500ticks`, `10volume` or `1e6value`: nanoseconds, or an activity.

    Parameters
    ----------
    text : the size; ns and activities stay as they are.
    key : its name in an error.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if isinstance(text, Activity):
        return text
    parts = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        if parts is None:
            return interval_ns(text, key)
        size = float(parts[1])
        return Activity(parts[2], int(size) if size.is_integer() else size)
    except (ConfigError, ValueError, OverflowError) as error:
        why = f": {error}" if parts and isinstance(error, ConfigError) else ""
        raise ConfigError(
            f"{key} must be like 1s, 5m, 1h or 1d, or like 500ticks, 10volume or 1e6value, was "
            f"{text!r}{why}"
        ) from None


@inlined
def _amount(counts: int, multiplier: float, price: float, volume: float) -> float:
    if counts == _ONE:
        return 1.0
    if counts == _VOLUME_BY_PRICE:
        return volume / price
    return price * volume * multiplier if counts == _VOLUME_TIMES_PRICE else volume


@kernel
def _close_bars(
    events: Events, clock_: Rows, bars: Rows, activity: Rows, closed: ClosedBars
) -> int:
    clock = clock_[0]
    count = 0
    for i in range(len(events.end)):
        ts = ts_of(events.end[i], events.length)
        clock.late += int(ts < clock.engine_ts)
        clock.engine_ts = max(clock.engine_ts, ts)
        symbol = wide(events.symbol[i])
        if symbol < 0:
            continue
        put_back(bars[symbol], with_event(taken_out(bars[symbol]), events, i, ts))
        own = activity[symbol]
        own.done += _amount(own.counts, own.multiplier, events.close[i], events.volume[i])
        if own.done >= own.size:
            write(closed, count, i + 1, clock.engine_ts, symbol, taken_out(bars[symbol]))
            own.done = 0.0
            count += 1
    clock.bars += count
    return count


class ActivityClock:
    """Closes bars of one activity over batches of ticks; as `BarClock`.

    Parameters
    ----------
    universe : the instruments that symbol columns count.
    activity : what a bar holds.
    """

    def __init__(self, universe: Sequence[Instrument], activity: Activity) -> None:
        self.clock = np.zeros(1, records.CLOSING)
        self.open_bars = np.zeros(len(universe), records.OPEN_BAR)
        self._name = str(activity)
        self._activity = np.zeros(len(universe), records.ACTIVITY)
        self._activity["counts"] = [_counts(activity.measure, i) for i in universe]
        self._activity["multiplier"] = [i.multiplier for i in universe]
        self._activity["size"] = activity.size * (1.0 - _ROUNDING)
        self._closed = room(0)

    def passes(self, batch: Ticks | Bars, most: int) -> Iterator[tuple[Events, ClosedBars, int]]:
        """Take events, `most` at a time: each time with what closed, and how many bars that are.

        What closed is good until the next pass.

        Raises
        ------
        ConfigError
            If it is of bars, which do not say what came when.
        DataError
            If a symbol is not in the universe; nothing has been taken then.
        """
        if not isinstance(batch, Ticks):
            raise ConfigError(
                f"bars of {self._name} are made of ticks, what came was "
                f"{type(batch).__name__}: give Ticks (feed.kind=ticks), or bars a length of time"
            )
        check_symbols(batch.symbol, len(self.open_bars))
        for _, taken in pieces(events_of(batch, 0), most):
            if len(taken.end) > len(self._closed.ts):
                self._closed = room(2 * len(taken.end))
            count = _close_bars(taken, self.clock, self.open_bars, self._activity, self._closed)
            yield taken, self._closed, count

    def arrays(self) -> dict[str, np.ndarray]:
        """What the next pass depends on, by name."""
        return {"bar_clock": self.clock, "open_bars": self.open_bars, "activity": self._activity}


def _counts(measure: str, instrument: Instrument) -> int:
    # Of an instrument whose volume is a value: units are that by the price, value is the volume.
    if measure == "ticks":
        return _ONE
    is_value = instrument.volume_unit == "quote"
    if measure == "volume":
        return _VOLUME_BY_PRICE if is_value else _VOLUME
    return _VOLUME if is_value else _VOLUME_TIMES_PRICE


def clock_of(universe: Sequence[Instrument], size: BarSize) -> BarClock | ActivityClock:
    """What closes bars of a size."""
    if isinstance(size, Activity):
        return ActivityClock(universe, size)
    return BarClock(len(universe), size)


def closed_bars(
    ticks: Ticks | Iterable[Ticks], universe: Sequence[Instrument], size: int | str | Activity
) -> Bars:
    """The bars that ticks complete, closed by the step function that closes them live.

    Causal: a bar rests on ticks up to its close.

    Parameters
    ----------
    ticks : in the order taken, as one batch or several; from `sysquant.archive.ticks`, say.
    universe : the instruments that their symbol column counts.
    size : `1m` or ns, or `500ticks`, `10volume`, `1e6value`, or an `Activity`.

    Returns
    -------
    (T,) bars by (close, symbol), those of a symbol in the order in which they close; `partition` 0
    and `offset` the row number. Bars that the last tick leaves open are no rows.

    Raises
    ------
    ConfigError
        If the size cannot be meant.
    DataError
        If a symbol is not in the universe.

    Examples
    --------
    >>> bars = closed_bars(ticks, universe, "500ticks")
    >>> Momentum().frame(bars)
    """
    clock = clock_of(universe, bar_size(size, "size"))
    parts = [Bars.empty()]
    for batch in [ticks] if isinstance(ticks, Ticks | Bars) else ticks:
        for _, closed, count in clock.passes(batch, _CHUNK):
            columns = {name: getattr(closed, name)[:count].copy() for name in closed._fields[1:]}
            place = {name: np.zeros(count, Bars.DTYPES[name]) for name in ("partition", "offset")}
            parts.append(Bars(**columns, **place))
    bars = Bars.join(parts)
    bars = bars[np.lexsort((bars.symbol, bars.ts))]
    bars.offset[:] = np.arange(len(bars))
    return bars
