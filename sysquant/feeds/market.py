"""The synthetic market itself: days, then minutes as bridges between days, then ticks.

Input: a universe and a seed. Output: the ticks and the minute bars of any minute since 2010, each
drawn from its own counter of one random stream, so that none depends on what was asked before.
It is no model of any real market; it has the features that break strategies and engines: regimes
of volatility, a busy hour, jumps, bursts, correlation, fat tails.
"""

import math
import zlib
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysquant.errors import ConfigError
from sysquant.types import SECOND, Bars, Floats, Instrument, Ints, Ticks

MINUTE = 60 * SECOND
DAY_MINUTES = 1440
_FIRST_DAY = 14_610  # 2010-01-01, in days since 1970
_DAYS = 14_610  # 40 years
END = (_FIRST_DAY + _DAYS) * DAY_MINUTES  # the first minute that is none of its
_REVERSION_DAYS = 180  # keeps prices of decades within a factor of a few
_REGIME_HOURS = 12  # mean life of a volatility regime
_REGIMES = ((0.35, 0.6), (0.50, 1.0), (0.15, 1.8))  # probability, volatility
_JUMP_RATE = 0.3  # per symbol and day
_CLUSTERED = 0.6  # share of ticks that come in a burst behind another
_NOTIONAL = 1_500.0  # median value of a trade, quote currency
_SIZE_SIGMA = 1.3  # of a trade's logarithm
_LEVEL = 10_000  # price in steps, roughly


class _Day(NamedTuple):
    # One day of the market, by minute and symbol.
    path: Floats  # (1441, S) log price at the minute's start
    sigma: Floats  # (1440, S) of a minute's return
    jump_minute: Ints  # (S,), -1 for none
    jump: Floats  # (S,) log
    counts: Ints  # (1440, S) ticks


def _season() -> Floats:
    # (1440,) activity over the day, mean 1: busiest about 15:00 UTC, quietest before 05:00.
    hour = 2 * np.pi * np.arange(DAY_MINUTES) / DAY_MINUTES
    return 1 + 0.40 * np.cos(hour - 2 * np.pi * 15 / 24) + 0.15 * np.cos(2 * hour - 2.2)


def _digits(step: float) -> int:
    # Decimals of a step, so that a price in steps prints as its exchange would print it.
    return max(0, -int(Decimal(repr(step)).normalize().as_tuple().exponent))


class Market:
    """The synthetic market of one universe and seed.

    Parameters
    ----------
    universe : what trades; names, steps and number decide the market, beside the seed.
    seed : of every random draw.
    ticks_per_second : all symbols together, on average.

    Raises
    ------
    ConfigError
        If a parameter, or later a time, cannot be meant.
    """

    def __init__(self, universe: Sequence[Instrument], seed: int, ticks_per_second: float) -> None:
        if not universe:
            raise ConfigError("universe must name at least 1 instrument, was empty")
        if not 0 < ticks_per_second < 1e6:
            raise ConfigError(f"ticks_per_second must be in (0, 1e6), was {ticks_per_second}")
        if not 0 <= seed < 2**63:
            raise ConfigError(f"seed must be in [0, 2**63), was {seed}")
        self.seed, self.symbols = seed, len(universe)
        self.tick = np.array([i.tick_size for i in universe])
        self.lot = np.array([i.lot_size for i in universe])
        self.price_digits = [_digits(i.tick_size) for i in universe]
        self.lot_digits = [_digits(i.lot_size) for i in universe]
        # What a symbol is like follows from its name alone.
        u = np.array([_character(i.symbol) for i in universe])
        self.level = self.tick * _LEVEL * (0.5 + 3.5 * u[:, 0])
        self.volatility = (0.35 + 0.5 * u[:, 1]) / math.sqrt(365)
        self.beta = 0.5 + 0.4 * u[:, 2]
        share = 0.5 + u[:, 3]
        self.rate = 60 * ticks_per_second * share / share.sum()
        self.season = _season()
        self.turbulence = self._regimes()
        self.jump_minute, self.jump, self.opens = self._opens()
        self.day = lru_cache(maxsize=4)(self._day)

    # All randomness: a purpose and a block name a stream of their own.
    def _random(self, purpose: int, block: int) -> np.random.Generator:
        key = np.array([self.seed, purpose], np.uint64)
        counter = np.array([0, 0, 0, block], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def _correlated(self, random: np.random.Generator, rows: int) -> Floats:
        # (rows, S) standard normal, one common factor.
        z = random.standard_normal((rows, self.symbols + 1))
        return self.beta * z[:, :1] + np.sqrt(1 - self.beta**2) * z[:, 1:]

    def _regimes(self) -> Floats:
        # (days, 24) volatility: a fresh draw now and then, kept until the next.
        hours = _DAYS * 24
        switch, draw = self._random(0, 0).random((2, hours))
        share, level = np.array(_REGIMES).T
        fresh = np.searchsorted(np.cumsum(share)[:-1], draw, side="right")
        since = np.maximum.accumulate(np.where(switch * _REGIME_HOURS < 1, np.arange(hours), 0))
        return level[fresh[since]].reshape(_DAYS, 24)

    def _opens(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        # Jumps (days, S), and the log price at each day's start (days + 1, S).
        random = self._random(1, 0)
        season = self.season.reshape(24, 60).mean(axis=1)
        spread = np.sqrt((self.turbulence**2 * season).mean(axis=1))[:, None]
        change = self.volatility * spread * self._correlated(random, _DAYS)
        shape = (_DAYS, self.symbols)
        jumps = random.random(shape) < _JUMP_RATE
        jump = np.where(jumps, self.volatility * random.standard_normal(shape) * 0.7, 0.0)
        minute = np.where(jumps, random.integers(0, DAY_MINUTES, shape), -1)
        change += jump
        opens = np.zeros((_DAYS + 1, self.symbols))
        keep = math.exp(-1 / _REVERSION_DAYS)
        for day in range(_DAYS):
            opens[day + 1] = keep * opens[day] + change[day]
        return minute, jump, opens

    def _day(self, day: int) -> _Day:
        if not 0 <= day < _DAYS:
            raise ConfigError("synthetic time must lie in 2010 to 2049; give another start or end")
        random = self._random(2, day)
        turbulence = np.repeat(self.turbulence[day], 60)
        relative = np.sqrt(self.season / DAY_MINUTES) * turbulence
        sigma = relative[:, None] * self.volatility
        change = sigma * self._correlated(random, DAY_MINUTES)
        # A bridge: the day's end is known already.
        ends = self.opens[day + 1] - self.opens[day] - self.jump[day]
        weight = (relative**2 / np.sum(relative**2))[:, None]
        change += weight * (ends - change.sum(axis=0))
        jumpers = np.flatnonzero(self.jump_minute[day] >= 0)
        change[self.jump_minute[day][jumpers], jumpers] += self.jump[day][jumpers]
        path = np.empty((DAY_MINUTES + 1, self.symbols))
        path[0] = self.opens[day]
        path[1:] = self.opens[day] + np.cumsum(change, axis=0)
        path[-1] = self.opens[day + 1]
        burst = random.gamma(4.0, 0.25, (DAY_MINUTES, self.symbols))
        counts = random.poisson(self.rate * (self.season * turbulence)[:, None] * burst)
        return _Day(path, sigma, self.jump_minute[day], self.jump[day], counts)

    def counts(self, minute: int) -> int:
        """Ticks of all symbols in a minute (since 1970)."""
        day, row = divmod(minute, DAY_MINUTES)
        return int(self.day(day - _FIRST_DAY).counts[row].sum())

    def ticks(self, minute: int) -> Ticks:
        """Ticks of one minute (since 1970) by (ts, symbol); offsets count from 0."""
        number, row = divmod(minute, DAY_MINUTES)
        day = self.day(number - _FIRST_DAY)
        count = day.counts[row]
        rows = int(count.sum())
        random = self._random(3, minute)
        symbol, ms = _arrivals(random, count)
        log = self._bridge(random, day, row, symbol, ms / 60_000)
        bounce = random.integers(0, 2, rows) - 0.5  # bought at the ask, or sold at the bid
        price = _steps(
            self.level[symbol] * np.exp(log) + bounce * self.tick[symbol],
            symbol, self.tick, self.price_digits,
        )  # fmt: skip
        size = np.exp(_SIZE_SIGMA * random.standard_normal(rows)) * _NOTIONAL / price
        volume = _steps(size, symbol, self.lot, self.lot_digits)
        ts = minute * MINUTE + ms * (SECOND // 1000)
        delay_ms = np.ceil(random.lognormal(3.0, 0.5, rows)).astype(np.int64)
        order = np.argsort(ms, kind="stable")
        return Ticks(
            ts[order], symbol[order].astype(np.int32), price[order], volume[order],
            (ts + delay_ms * (SECOND // 1000))[order],
            np.zeros(rows, np.int32), np.arange(rows),
        )  # fmt: skip

    def _bridge(
        self, random: np.random.Generator, day: _Day, row: int, symbol: Ints, at: Floats
    ) -> Floats:
        # Log price at the fractions `at` of a minute, rows sorted by (symbol, at).
        first = np.searchsorted(symbol, np.arange(self.symbols))
        last = np.searchsorted(symbol, np.arange(self.symbols), side="right") - 1
        begins = np.zeros(len(symbol), bool)
        begins[first[last >= first]] = True
        step = np.diff(at, prepend=0.0)
        step[begins] = at[begins]
        walk = np.cumsum(np.sqrt(step) * random.standard_normal(len(at)))
        before = np.concatenate([[0.0], walk])[first]
        ends = np.concatenate([[0.0], walk])[last + 1] - before
        rest = 1 - np.where(last >= first, np.concatenate([[0.0], at])[last + 1], 0.0)
        ends += np.sqrt(rest) * random.standard_normal(self.symbols)
        noise = day.sigma[row][symbol] * (walk - before[symbol] - at * ends[symbol])
        jump = np.where(day.jump_minute == row, day.jump, 0.0)
        moment = random.random(self.symbols)
        trend = day.path[row + 1] - day.path[row] - jump
        log = day.path[row][symbol] + at * trend[symbol] + noise
        return log + np.where(at >= moment[symbol], jump[symbol], 0.0)

    def bars(self, number: int, rows: slice) -> Bars:
        """Minute bars of one day (since 1970), by (ts, symbol); those of no tick left out."""
        day = self.day(number - _FIRST_DAY)
        random = self._random(4, number)
        start, end = day.path[:-1], day.path[1:]
        reach = (end - start) ** 2 - 2 * day.sigma**2 * np.log(1 - random.random((2, *start.shape)))
        middle = (start + end) / 2
        high, low = middle + np.sqrt(reach[0]) / 2, middle - np.sqrt(reach[1]) / 2
        noise = random.standard_normal(start.shape) * 1.5 / np.sqrt(np.maximum(day.counts, 1))
        units = np.exp(_SIZE_SIGMA**2 / 2 + noise - noise.var() / 2) * _NOTIONAL * day.counts
        minute, symbol = np.nonzero(day.counts[rows])
        minute += rows.start
        logs = {"open": start, "high": high, "low": low, "close": end}
        prices = {
            name: _steps(
                (self.level * np.exp(log))[minute, symbol], symbol, self.tick, self.price_digits
            )
            for name, log in logs.items()
        }
        volume = units[minute, symbol] / prices["close"]
        return Bars(
            ts=(number * DAY_MINUTES + minute + 1) * MINUTE,
            symbol=symbol.astype(np.int32),
            **prices,
            volume=_steps(volume, symbol, self.lot, self.lot_digits),
            partition=np.zeros(len(minute), np.int32),
            offset=np.arange(len(minute)),
        )


def _character(symbol: str) -> Floats:
    return np.random.Generator(np.random.Philox(key=zlib.crc32(symbol.encode()))).random(4)


def _arrivals(random: np.random.Generator, count: Ints) -> tuple[Ints, Ints]:
    # Symbol and millisecond of a minute's ticks, sorted by both; many share a millisecond.
    rows = int(count.sum())
    symbol = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    at = random.random(rows) * 60_000
    behind = first[symbol] + (random.random(rows) * count[symbol]).astype(np.int64)
    delay = random.exponential(1.0, rows)
    clustered = random.random(rows) < _CLUSTERED
    at = np.where(clustered, (at[behind] + delay) % 60_000, at)
    key = np.sort(symbol * 60_000 + at.astype(np.int64))
    return key // 60_000, key % 60_000


def _steps(value: Floats, symbol: Ints, step: Floats, digits: list[int]) -> Floats:
    # The nearest whole number of steps, at least one, with the decimals of the step.
    steps = np.maximum(np.round(value / step[symbol]), 1) * step[symbol]
    for index, places in enumerate(digits):
        rows = symbol == index
        steps[rows] = np.round(steps[rows], places)
    return steps
