"""Plays ordered blocks of history as a feed: by row number, at a chosen speed.

Input: a function that opens the blocks at a row. Output: polls whose partition is 0 and whose
offset is the row number. What a row is, and where it comes from, is its owner's business.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from sysquant.errors import ConfigError
from sysquant.types import SECOND, Bars, Poll, Ticks

Batch = Ticks | Bars


class Tape:
    """Blocks of rows, cut into polls.

    Parameters
    ----------
    open_at : row number -> the blocks from that row on, in order, their `offset` the row number.
    nothing : a batch of no rows.
    speed : "max", or market seconds per wall second, positive; 1 is wall clock.
    batch : rows of a poll at most.

    Raises
    ------
    ConfigError
        If `speed` or `batch` cannot be meant.
    """

    def __init__(
        self,
        open_at: Callable[[int], Iterator[Batch]],
        nothing: Batch,
        *,
        speed: float | str = "max",
        batch: int = 50_000,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be >= 1 row, was {batch}")
        self.speed = _speed(speed)
        self._open_at, self._nothing, self._batch = open_at, nothing, batch
        self._blocks: Iterator[Batch] | None = None
        self._block = nothing
        self._origin: tuple[float, int] | None = None  # wall second and the row's time then
        self.row = 0

    def seek(self, row: int) -> None:
        """Stand before `row`; the pace starts anew at its time."""
        self.row = row
        self._blocks, self._block, self._origin = None, self._nothing, None

    def poll(self, timeout_s: float) -> Poll:
        """Rows that are due, at most `batch`, waiting at most `timeout_s` for the first."""
        rows, ended = self._due()
        if not rows and not ended and timeout_s > 0:
            time.sleep(min(timeout_s, self._wait_s()))
            rows, ended = self._due()
        events = type(self._nothing).join(rows) if rows else self._nothing  # pyright: ignore
        full = len(events) == self._batch
        return Poll(
            events=events,
            next_offset={0: self.row},
            behind=frozenset({0}) if full else frozenset(),
            ended=ended,
        )

    def _due(self) -> tuple[list[Batch], bool]:
        # The rows that may go out now, and whether the tape is at its end.
        rows: list[Batch] = []
        left = self._batch
        while left:
            if not len(self._block) and not self._next_block():
                return rows, True
            count = min(left, self._due_rows())
            if not count:
                break
            rows.append(self._block[:count])
            self._block = self._block[count:]
            self.row += count
            left -= count
        return rows, False

    def _next_block(self) -> bool:
        if self._blocks is None:
            self._blocks = self._open_at(self.row)
        while not len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._block = block
        return True

    def _due_rows(self) -> int:
        if self.speed == np.inf:
            return len(self._block)
        now = time.monotonic()
        if self._origin is None:
            self._origin = now, int(self._block.ts[0])
        wall, ts = self._origin
        limit = ts + round((now - wall) * self.speed * SECOND)
        # A late row waits for nothing, so the running maximum decides.
        running = np.maximum.accumulate(self._block.ts)
        return int(np.searchsorted(running, limit, side="right"))

    def _wait_s(self) -> float:
        if self._origin is None or not len(self._block):
            return 0.0
        wall, ts = self._origin
        due = wall + (int(self._block.ts[0]) - ts) / SECOND / self.speed
        return max(0.0, due - time.monotonic())


def _speed(speed: float | str) -> float:
    if speed == "max":
        return np.inf
    try:
        value = float(speed)
    except ValueError:
        value = np.nan
    if not value > 0:
        raise ConfigError(f"speed must be 'max' or a positive number, was {speed!r}")
    return value
