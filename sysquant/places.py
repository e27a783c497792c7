"""Where a session stands in the partitions of its feed: what was read, and what was journaled.

Input: polls as they are read, and batches as they are journaled. Output: the offset that each
partition is to be read from next, and records that are missing.
"""

from collections.abc import Mapping

import numpy as np

from sysquant.types import Bars, Poll, Ticks


class Places:
    """Offsets of every partition, from what a journal holds.

    Parameters
    ----------
    journaled : partition -> next offset to read.

    Attributes
    ----------
    read : partition -> the offset after the last record read, of this session.
    first : partition -> where this session began.
    """

    def __init__(self, journaled: Mapping[int, int]) -> None:
        self.read: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self._journaled = dict(journaled)
        self._last_good: dict[int, int] = {}

    def take(self, poll: Poll) -> list[str]:
        """Note what a poll brought; for each gap before it, where it lies."""
        gaps = list[str]()
        seen = _first_offsets(poll)
        for partition in np.unique(poll.events.partition).tolist():
            expected = self.read.get(partition, self._journaled.get(partition))
            if expected is not None and seen[partition] > expected:
                gaps.append(f"partition={partition} expected={expected} first={seen[partition]}")
            rows = poll.events.partition == partition
            self._last_good[partition] = int(poll.events.offset[rows].max())
        self.first = self.first or seen
        self.read |= poll.next_offset
        return gaps

    def journal(self, batch: Ticks | Bars) -> None:
        """Note a batch that is being journaled; clock marks lie in no partition."""
        for partition in np.unique(batch.partition[batch.partition >= 0]).tolist():
            last = batch.offset[batch.partition == partition].max()
            self._journaled[partition] = int(last) + 1

    def next(self) -> dict[int, int]:
        """Partition -> next offset to read after what is journaled, bad records passed."""
        for partition, offset in self.read.items():
            if self._last_good.get(partition, -1) < self._journaled.get(partition, 0):
                self._journaled[partition] = offset  # nothing of it is held
        return dict(self._journaled)


def _first_offsets(poll: Poll) -> dict[int, int]:
    # The first record of a poll in every partition, good or not; else what comes next.
    first = dict(poll.next_offset)
    for partition in first:
        good = poll.events.offset[poll.events.partition == partition].tolist()
        bad = [letter.offset for letter in poll.dead if letter.partition == partition]
        first[partition] = min([first[partition], *good, *bad])
    return first
