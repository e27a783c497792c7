"""The records that move between the rooms: instruments, batches of market events, bad records.

Batches are columns (numpy arrays of one length), in the order taken. Times are int64 nanoseconds
since 1970, UTC; prices and cash are in quote currency; quantities in units of the instrument.
Nothing here computes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sysquant.errors import ConfigError
from sysquant.keys import Spelled, check_choice, check_flag, check_number

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.generic]]  # name -> (n,)

SECOND = 1_000_000_000
CLOCK_MARK = -1  # in a `symbol` column: no trade, only the clock moves


def halt_mark(symbol: int, *, resume: bool = False) -> int:
    """What stands in a `symbol` column where trading of a symbol halts, or goes on."""
    return -2 - 2 * symbol - resume


ALWAYS = "24/7"  # the calendar of what trades around the clock
VOLUME_UNITS = ("base", "quote")


@dataclass(frozen=True, slots=True)
class Instrument(Spelled):
    """What can be traded, in which steps, and under which terms.

    Parameters
    ----------
    symbol : name on the topic, e.g. `BINANCE:BTCUSDT`.
    tick_size : smallest step of a price, quote currency.
    lot_size : smallest step of a quantity, units.
    min_notional : smallest value of an order, the book's currency.
    max_position : largest position, units; infinite for none.
    multiplier : value of one unit at a price of 1, quote currency; of a futures contract its size.
    volume_unit : of events: `base` (units) or `quote` (value).
    shortable : whether it may be sold short.
    perpetual : whether positions pay funding.
    restricted : whether positions may only be reduced.
    quality : score of its data, 0 to 1, which the check `data_quality` holds to; NaN: not measured.
    calendar : `24/7`, or the name of a calendar of `exchange_calendars`, e.g. `XNYS`.
    fee_tier : name of the broker's fee tier.
    currency : quote currency; empty for the book's.
    conversion : symbol whose last price is the value of one unit of `currency` in the book's
        currency; empty for none.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    symbol: str
    tick_size: float = 0.01
    lot_size: float = 1e-6
    min_notional: float = 10.0
    max_position: float = math.inf
    multiplier: float = 1.0
    volume_unit: str = "base"
    shortable: bool = True
    perpetual: bool = False
    restricted: bool = False
    quality: float = 1.0
    calendar: str = ALWAYS
    fee_tier: str = "default"
    currency: str = ""
    conversion: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("symbol", "calendar", "fee_tier"):
            if not getattr(self, name):
                raise ConfigError(f"{name} of {self.symbol or 'an instrument'} is empty; name it")
        for name in ("tick_size", "lot_size", "multiplier"):
            check_number(f"{name} of {self.symbol}", getattr(self, name), above=0)
        check_number(f"min_notional of {self.symbol}", self.min_notional, least=0)
        if self.max_position != math.inf:
            check_number(f"max_position of {self.symbol}", self.max_position, above=0)
        check_choice(f"volume_unit of {self.symbol}", self.volume_unit, VOLUME_UNITS)
        for name in ("shortable", "perpetual", "restricted"):
            check_flag(f"{name} of {self.symbol}", getattr(self, name))
        if not (isinstance(self.quality, float) and math.isnan(self.quality)):
            check_number(f"quality of {self.symbol}", self.quality, least=0, most=1)
        if self.conversion == self.symbol:
            raise ConfigError(f"conversion of {self.symbol} is itself; name another symbol, or ''")
        if self.conversion and not self.currency:
            raise ConfigError(
                f"conversion of {self.symbol} was {self.conversion!r} without a currency; set "
                "currency to what it converts"
            )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of one length: slicing and joining, shared by every batch."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        return type(self)(**{name: column[rows] for name, column in self.columns()})

    def columns(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Name and array of every column, in the order of definition."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    @classmethod
    def join(cls, batches: list[Self]) -> Self:
        """One batch from several, in their order."""
        if len(batches) == 1:
            return batches[0]
        names = [field.name for field in fields(cls)]
        return cls(**{n: np.concatenate([getattr(b, n) for b in batches]) for n in names})

    @classmethod
    def empty(cls) -> Self:
        """A batch of no rows."""
        return cls(**{name: np.empty(0, dtype) for name, dtype in cls.DTYPES.items()})  # pyright: ignore

    DTYPES: ClassVar[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Ticks(_Columns):
    """Trades, in the order taken.

    Parameters
    ----------
    ts : (T,) int64, when it happened, ns UTC (`timestamp_ms` of the topic).
    symbol : (T,) int32, index into the universe; `CLOCK_MARK` moves the clock alone.
    price : (T,) quote currency, finite and positive.
    volume : (T,) units, finite and not negative.
    received_at : (T,) int64, when the upstream stream saw it, ns UTC; only stored.
    partition, offset : (T,) int32 and int64, where it lies in the feed.
    """

    ts: Ints
    symbol: NDArray[np.int32]
    price: Floats
    volume: Floats
    received_at: Ints
    partition: NDArray[np.int32]
    offset: Ints

    DTYPES = {
        "ts": "i8", "symbol": "i4", "price": "f8", "volume": "f8",
        "received_at": "i8", "partition": "i4", "offset": "i8",
    }  # fmt: skip


def clock_mark(ts: int, lag_s: float = 0.0) -> Ticks:
    """A batch of one clock mark, which lies in no partition, and tells how far the feed is back."""
    values = {"ts": ts, "symbol": CLOCK_MARK, "volume": lag_s, "partition": -1}
    columns = {name: np.full(1, values.get(name, 0), t) for name, t in Ticks.DTYPES.items()}
    return Ticks(**columns)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Bars(_Columns):
    """Bars of one interval, ordered by (close, symbol).

    Parameters
    ----------
    ts : (T,) int64, the bar's *close*, ns UTC, right-labelled: it covers [ts - interval, ts).
    symbol : (T,) int32, index into the universe.
    open, high, low, close : (T,) quote currency.
    volume : (T,) units.
    partition, offset : (T,) int32 and int64, where it lies in the feed (its row in the history).
    """

    ts: Ints
    symbol: NDArray[np.int32]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    partition: NDArray[np.int32]
    offset: Ints

    DTYPES = {
        "ts": "i8", "symbol": "i4", "open": "f8", "high": "f8", "low": "f8", "close": "f8",
        "volume": "f8", "partition": "i4", "offset": "i8",
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rates(_Columns):
    """Funding rates of perpetuals, in the order taken.

    Parameters
    ----------
    ts : (T,) int64, the funding time, ns UTC.
    symbol : (T,) int32, index into the universe.
    rate : (T,) fraction of the position's value; > 0 is paid by who is long.
    """

    ts: Ints
    symbol: NDArray[np.int32]
    rate: Floats

    DTYPES = {"ts": "i8", "symbol": "i4", "rate": "f8"}


@dataclass(frozen=True, slots=True)
class Gaps(_Columns):
    """Runs of bars that do not exist, ordered by (symbol, start).

    Parameters
    ----------
    symbol : (T,) int32, index into the universe.
    start : (T,) int64, where the first missing bar would begin, ns UTC.
    end : (T,) int64, where the last one would close, ns UTC.
    missing : (T,) int64, how many bars: fewer than fit between, where the exchange was closed.
    """

    symbol: NDArray[np.int32]
    start: Ints
    end: Ints
    missing: Ints

    DTYPES = {"symbol": "i4", "start": "i8", "end": "i8", "missing": "i8"}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll of a feed brought.

    Parameters
    ----------
    events : the good records, in the order they lie in their partitions.
    dead : the others.
    next_offset : partition -> the offset after the last one read, good or not.
    behind : partitions that are known to hold records not read yet.
    ended : nothing will ever follow (end of a replay).
    lag : records that are known to lie in the feed and were not read yet.
    is_connected : whether what brings the records could be reached.
    """

    events: Ticks | Bars
    dead: tuple[DeadLetter, ...] = ()
    next_offset: Mapping[int, int] = ()  # pyright: ignore
    behind: frozenset[int] = frozenset()
    ended: bool = False
    lag: int = 0
    is_connected: bool = True


class Feed(Protocol):
    """A source of market events, seekable by position; not thread-safe."""

    kind: Literal["ticks", "bars"]
    interval: int  # of its bars, ns; 0 for ticks
    name: str  # topic, or what is replayed: part of a dead letter and of the journal

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Stand at these offsets; partitions not named stand at their configured start."""
        ...

    def poll(self, timeout_s: float) -> Poll:
        """Next records, waiting at most `timeout_s`; an empty poll when none came."""
        ...

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Tell lag tools how far we are; never blocks over a second, never raises."""
        ...

    def close(self) -> None:
        """Let go of every connection; never blocks over a second."""
        ...
