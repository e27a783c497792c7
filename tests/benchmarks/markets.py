"""Seeded markets of any length: a log price that walks, and is pulled back so gently that it stays
a walk to anything that looks at a few hundred bars, but never leaves for zero.

An EMA 20/100 crossover on its bars trades as on every random walk: on 1.44 % of them.
"""

import numpy as np
from scipy.signal import lfilter

from sysquant.types import SECOND, Bars, Ints, Ticks

START = 1_700_000_040 * SECOND  # the start of a minute, ns UTC
MINUTE = 60 * SECOND
LEVEL = 100_000.0  # prices lie around it
TICK_SIZE, LOT_SIZE = 0.01, 1e-6
SIGMA = 1e-4  # of the log price per minute
PULL = 1e-6  # per minute: the log price stays within a few times 0.07 of its level


class Walk:
    """A market that goes on where its last batch ended.

    Parameters
    ----------
    seed : of every draw.
    """

    def __init__(self, seed: int = 1) -> None:
        self._draw = np.random.default_rng(seed)
        self._log = 0.0  # of the last price, to the level
        self._price = LEVEL
        self._ts = START

    def bars(self, count: int, interval: int = MINUTE) -> Bars:
        """The next bars of one symbol, one a minute."""
        close = self._prices(count, 1.0)
        open_ = np.concatenate(([self._price], close[:-1]))
        self._price = float(close[-1])
        beyond = np.abs(self._draw.normal(0.0, 0.3 * SIGMA * LEVEL, (2, count)))
        ts = self._ts + interval * np.arange(1, count + 1)
        self._ts = int(ts[-1])
        return Bars(
            ts=ts, symbol=np.zeros(count, np.int32), open=open_,
            high=np.round(np.maximum(open_, close) + beyond[0], 2),
            low=np.round(np.minimum(open_, close) - beyond[1], 2),
            close=close, volume=self._draw.exponential(10.0, count),
            partition=np.zeros(count, np.int32), offset=np.arange(count),
        )  # fmt: skip

    def ticks(self, count: int, symbols: int = 1, a_minute: int = 60) -> Ticks:
        """The next trades, symbols in turn, each with so many a minute; gaps are random."""
        gap = MINUTE // (a_minute * symbols)
        gaps: Ints = self._draw.integers(1, 2 * gap, count)
        gaps[0] = 1 if self._ts == START else gaps[0]
        ts = self._ts + np.cumsum(gaps)
        self._ts = int(ts[-1])
        return Ticks(
            ts=ts, symbol=(np.arange(count) % symbols).astype(np.int32),
            price=self._prices(count, 1 / (a_minute * symbols)),
            volume=self._draw.exponential(0.2, count), received_at=ts,
            partition=np.zeros(count, np.int32), offset=np.arange(count),
        )  # fmt: skip

    # `step`: minutes between two prices.
    def _prices(self, count: int, step: float) -> np.ndarray:
        keep = 1.0 - PULL * step
        noise = self._draw.normal(0.0, SIGMA * step**0.5, count)
        logs, _ = lfilter([1.0], [1.0, -keep], noise, zi=[keep * self._log])
        self._log = float(logs[-1])
        return np.round(LEVEL * np.exp(logs), 2)
