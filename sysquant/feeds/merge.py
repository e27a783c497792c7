"""One sequence from what several partitions deliver: by (running maximum of ts, partition, offset).

Input: polls, one after another, and the wall time of each. Output: the ticks that may go on. A
partition that is known to hold more (`behind`) holds the others back; one that is at its end does
so for `grace_ms` of wall time. What comes later than that is late and goes out at once.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sysquant.errors import ConfigError
from sysquant.types import Bars, Ints, Poll, Ticks

_NEVER = np.iinfo(np.int64).min
_ALWAYS = np.iinfo(np.int64).max


class _Held(NamedTuple):
    # Ticks in order, the running maximum of each in its partition, and when it came.
    ticks: Ticks
    running: Ints
    taken: Ints

    def rows(self, rows: slice | Ints) -> "_Held":
        return _Held(self.ticks[rows], self.running[rows], self.taken[rows])


class Merge:
    """Merges the partitions of a feed as their polls come in.

    Nothing is lost or doubled, and each partition's order is kept. As long as every partition's
    ticks come within the grace, the result does not depend on where the polls were cut.

    Parameters
    ----------
    partitions : all partitions of the feed, also those that bring nothing.
    grace_ms : wall time a tick waits for the partitions that are at their end.

    Raises
    ------
    ConfigError
        If there is no partition, or the grace is negative.
    """

    def __init__(self, partitions: Iterable[int], *, grace_ms: float = 100) -> None:
        self._watermark = dict.fromkeys(sorted(partitions), _NEVER)
        if not self._watermark:
            raise ConfigError("a feed needs at least 1 partition, had 0; is the topic empty?")
        if not grace_ms >= 0:
            raise ConfigError(f"grace_ms must be >= 0, was {grace_ms}")
        self._grace_ns = round(grace_ms * 1e6)
        self._held = _Held(Ticks.empty(), np.empty(0, np.int64), np.empty(0, np.int64))

    @property
    def held(self) -> int:
        """Ticks that wait."""
        return len(self._held.ticks)

    def take(self, poll: Poll, wall_ns: int) -> Ticks | Bars:
        """What may go on now.

        Parameters
        ----------
        poll : the next one, an empty one too; its ticks in each partition's order.
        wall_ns : a clock that never goes back, ns.

        Returns
        -------
        Ticks in order, possibly none; those of a single partition, and bars, as they came.

        Raises
        ------
        ConfigError
            If a tick comes from a partition that was not named.
        """
        if len(self._watermark) == 1:
            return poll.events
        if not isinstance(poll.events, Ticks):
            raise ConfigError("a feed of bars must have 1 partition, had several")
        self._hold(poll.events, wall_ns)
        if not self.held or poll.ended:
            return self.flush()
        return self._release(self._ready(poll.behind, wall_ns))

    def wait_s(self, wall_ns: int) -> float:
        """Seconds until the first held tick has waited long enough; infinite when none is held."""
        if not self.held:
            return float("inf")
        return max(0, int(self._held.taken.min()) + self._grace_ns - wall_ns) / 1e9

    def flush(self) -> Ticks:
        """Everything held, in order: the feed has ended."""
        return self._release(self.held)

    def _hold(self, ticks: Ticks, wall_ns: int) -> None:
        # Adds ticks and keeps the whole in order; the running maximum outlives what went on.
        if not len(ticks):
            return
        running = ticks.ts.copy()
        for partition in np.unique(ticks.partition).tolist():
            if partition not in self._watermark:
                raise ConfigError(
                    f"partition must be one of {list(self._watermark)}, was {partition};"
                    " start again when a topic has grown"
                )
            rows = np.flatnonzero(ticks.partition == partition)
            running[rows] = np.maximum.accumulate(
                np.maximum(running[rows], self._watermark[partition])
            )
            self._watermark[partition] = int(running[rows[-1]])
        taken = np.full(len(ticks), wall_ns, np.int64)
        every = _Held(
            Ticks.join([self._held.ticks, ticks]),
            np.concatenate([self._held.running, running]),
            np.concatenate([self._held.taken, taken]),
        )
        # Stable, and a partition's ticks come in offset order: no need to compare offsets.
        self._held = every.rows(np.lexsort((every.ticks.partition, every.running)))

    def _ready(self, behind: frozenset[int], wall_ns: int) -> int:
        # How many of the held may go on: up to the last that has waited long enough for the
        # partitions at their end, or that none of those can precede; never past one behind.
        hard = self._before(p for p in self._watermark if p in behind)
        soft = self._before(p for p in self._watermark if p not in behind)
        waited = np.flatnonzero(self._held.taken <= wall_ns - self._grace_ns)
        if len(waited):
            soft = max(soft, int(waited[-1]) + 1)
        return min(hard, soft)

    def _before(self, partitions: Iterable[int]) -> int:
        # How many of the held lie before anything that these partitions can still bring. The next
        # of (w, q) comes after what q brought so far, so a held tick at (w, q) itself may go.
        level = min(((self._watermark[p], p) for p in partitions), default=(_ALWAYS, 0))
        first = int(np.searchsorted(self._held.running, level[0], side="left"))
        last = int(np.searchsorted(self._held.running, level[0], side="right"))
        same = self._held.ticks.partition[first:last]
        return first + int(np.searchsorted(same, level[1], side="right"))

    def _release(self, count: int) -> Ticks:
        ready = self._held.ticks[:count]
        self._held = self._held.rows(slice(count, None))
        return ready
