"""A seeded market that trades for ever: the same seed gives the same ticks, byte for byte.

Input: a universe and a seed. Output: ticks as a feed, seekable without making those before, and
minute bars of the same market for history.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.market import DAY_MINUTES, END, MINUTE, Market
from sysquant.feeds.tape import Tape
from sysquant.times import instant
from sysquant.types import Bars, Instrument, Poll, Ticks

# The market that an empty store is filled with, as in `conf/universe/sample.yaml`.
SAMPLE = (
    Instrument("SIM:OAK", 0.01, 0.001, 10.0), Instrument("SIM:ELM", 0.01, 0.001, 10.0),
    Instrument("SIM:ASH", 0.01, 0.001, 10.0), Instrument("SIM:FIR", 0.05, 0.001, 10.0),
    Instrument("SIM:YEW", 0.001, 0.01, 10.0),
)  # fmt: skip


def _whole_minute(name: str, value: int | str) -> int:
    ns = instant(value, name)
    if ns % MINUTE:
        raise ConfigError(f"{name} must be a whole minute, was {value}")
    return ns // MINUTE


def synthetic_ticks(
    universe: Sequence[Instrument],
    start: int | str,
    end: int | str,
    *,
    seed: int = 1,
    ticks_per_second: float = 10.0,
) -> Iterator[Ticks]:
    """Ticks of the market with `start <= ts < end`, a block for each minute.

    Parameters
    ----------
    universe : what trades; names, steps and number decide the market, beside the seed.
    start, end : whole minutes, ns or ISO 8601 UTC, within 2010 to 2049.
    seed : of the market.
    ticks_per_second : all symbols together, on average.

    Returns
    -------
    Blocks by (ts, symbol), some empty; partition 0, `offset` counts the ticks from `start`.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
    """
    market = Market(universe, seed, ticks_per_second)
    first, last = _whole_minute("start", start), _whole_minute("end", end)
    return _numbered(market, first, last, 0)


def _numbered(market: Market, first: int, last: int, offset: int) -> Iterator[Ticks]:
    for minute in range(first, last):
        block = market.ticks(minute)
        block.offset[:] += offset
        offset += len(block)
        yield block


def synthetic_bars(
    universe: Sequence[Instrument],
    start: int | str,
    end: int | str,
    *,
    seed: int = 1,
    ticks_per_second: float = 10.0,
) -> Bars:
    """Minute bars of the same market as `synthetic_ticks`, without making its ticks.

    Prices run through the same minutes; the extremes and the volume are drawn, not added up.

    Parameters
    ----------
    universe, seed, ticks_per_second : as for the ticks.
    start, end : whole minutes; bars with `start < ts <= end`.

    Returns
    -------
    (T,) bars by (ts, symbol); no tick, no bar.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
    """
    market = Market(universe, seed, ticks_per_second)
    first, last = _whole_minute("start", start), _whole_minute("end", end)
    days: list[Bars] = [Bars.empty()]
    for day in range(first // DAY_MINUTES, -(-last // DAY_MINUTES)):
        origin = day * DAY_MINUTES
        rows = slice(max(first - origin, 0), min(last - origin, DAY_MINUTES))
        days.append(market.bars(day, rows))
    bars = Bars.join(days)
    bars.offset[:] = np.arange(len(bars))
    return bars


class SyntheticFeed:
    """The seeded market as a feed of ticks: partition 0, offsets count from `start`.

    Parameters
    ----------
    universe : what trades.
    seed : of the market.
    start : first instant, a whole minute, ISO 8601 UTC, within 2010 to 2049.
    end : instant after the last, or None for no end.
    length_s : the same as a length, whole minutes; only one of both.
    speed : market seconds per wall second, or "max".
    ticks_per_second : all symbols together, on average.
    batch : ticks of a poll at most.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
    """

    kind: Literal["ticks", "bars"] = "ticks"
    interval = 0

    def __init__(
        self,
        universe: Sequence[Instrument],
        *,
        seed: int = 1,
        start: str = "2026-01-01T00:00:00Z",
        end: str | None = None,
        length_s: float | None = None,
        speed: float | str = 1.0,
        ticks_per_second: float = 10.0,
        batch: int = 50_000,
    ) -> None:
        if end is not None and length_s is not None:
            raise ConfigError(f"only one of end and length_s can be given, had {end}, {length_s}")
        self._market = Market(universe, seed, ticks_per_second)
        self._first = _whole_minute("start", start)
        self._last = END
        if end is not None:
            self._last = _whole_minute("end", end)
        elif length_s is not None:
            self._last = _whole_minute("start + length_s", instant(start) + round(length_s * 1e9))
        if self._last <= self._first:
            raise ConfigError(f"a synthetic feed must end after its start, {start}; ended before")
        self.name = f"synthetic:{seed}:{start}"
        self._tape = Tape(self._open_at, Ticks.empty(), speed=speed, batch=batch)

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Stand before tick `next_offset[0]`; without it, at the start."""
        self._tape.seek(next_offset.get(0, 0))

    def poll(self, timeout_s: float) -> Poll:
        """Ticks that are due, waiting at most `timeout_s` for the first."""
        return self._tape.poll(timeout_s)

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Nothing to tell anyone."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _open_at(self, row: int) -> Iterator[Ticks]:
        # Only the numbers of ticks are drawn on the way to `row`.
        offset, minute = 0, self._first
        while minute < self._last and offset + (count := self._market.counts(minute)) <= row:
            offset, minute = offset + count, minute + 1
        if minute == self._last and offset < row:
            raise FeedError(f"{self.name} has {offset} ticks, offset was {row}; seek within them")
        for block in _numbered(self._market, minute, self._last, offset):
            yield block[int(np.searchsorted(block.offset, row)) :]
