"""Live ticks to a topic over an outage of Kafka: a bounded buffer, whose oldest are dropped.

Input: batches from a source that cannot wait. Output: the publisher's topic; how many were dropped.
"""

from collections import deque
from collections.abc import Sequence

from sysquant.feeds.publish import Publisher
from sysquant.keys import check_number
from sysquant.types import Instrument, Ticks


class Pump:
    """Stands before a publisher and never holds its caller up.

    Parameters
    ----------
    publisher : of a long `patience_s`, so that it neither refuses nor doubles a record itself.
    universe : of the ticks.
    most_waiting : ticks kept while Kafka is away.
    window : records that the publisher has at a time; below the publisher's own most.

    Raises
    ------
    ConfigError
        If one is no positive whole number.

    Attributes
    ----------
    dropped : ticks so far, the oldest first.
    """

    def __init__(
        self,
        publisher: Publisher,
        universe: Sequence[Instrument],
        *,
        most_waiting: int = 500_000,
        window: int = 20_000,
    ) -> None:
        check_number("most_waiting", most_waiting, least=1, whole=True)
        check_number("window", window, least=1, whole=True)
        self.dropped = 0
        self._publisher, self._universe = publisher, universe
        self._most_waiting, self._window = most_waiting, window
        self._batches: deque[Ticks] = deque()
        self._rows = 0

    @property
    def held(self) -> int:
        """Ticks that the publisher does not have yet."""
        return self._rows

    @property
    def waiting(self) -> int:
        """Ticks that are not acknowledged."""
        return self._rows + self._publisher.waiting

    def send(self, ticks: Ticks) -> None:
        """Take a batch, and hand on what the publisher has room for.

        Raises
        ------
        FeedError
            If the broker refused a record.
        """
        self._publisher.check()
        if len(ticks):
            self._batches.append(ticks)
            self._rows += len(ticks)
        while self._rows and (room := self._window - self._publisher.waiting) > 0:
            self._publisher.publish(self._take(room), self._universe)
        while self._rows > self._most_waiting:
            self.dropped += len(self._take(self._rows - self._most_waiting))

    def _take(self, most: int) -> Ticks:
        batch = self._batches.popleft()
        if len(batch) > most:
            self._batches.appendleft(batch[most:])
            batch = batch[:most]
        self._rows -= len(batch)
        return batch
