"""Batches in parts, so that whoever waits for the next one does not wait for long."""

import time
from collections.abc import Iterator
from typing import TypeVar

from sysquant.types import Bars, Ticks

Batch = TypeVar("Batch", bound=Ticks | Bars)
_EACH_S = 2e-5  # of the first batch's events, before any was measured
_KEEPS = 0.9  # of what was once slow, a part later: markets do not calm down for long


class Pace:
    """Cuts batches by how long an event of the parts before took.

    Parameters
    ----------
    longest_s : what a part should take at most.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._each_s = _EACH_S

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """Slices of a batch in its order; the time until the next is asked for is measured."""
        at = 0
        while at < len(batch):
            part = batch[at : at + max(1, int(self._longest_s / self._each_s))]
            began = time.monotonic()
            yield part
            took_s = (time.monotonic() - began) / len(part)
            self._each_s = max(took_s, _KEEPS * self._each_s)
            at += len(part)
