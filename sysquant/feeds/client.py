"""What the feed asks of a Kafka client, so that it need not know which one it is.

Input: offsets to read from. Output: raw records and where they lie, the bounds of the topic as last
heard, and three kinds of failure. A client decodes nothing, remembers no position for the feed, and
joins no consumer group. `kafka_python` and `confluent` are the two there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from sysquant.errors import FeedError
from sysquant.types import Ints

Offsets = Mapping[int, int]  # partition -> offset


class Unanswered(FeedError):
    """The broker does not answer now, and may later."""


class OutOfRange(FeedError):
    """A position lies outside what the topic holds; nothing of this poll was handed over."""


def made_anew(topic: str, why: str) -> FeedError:
    """What to say of a topic that is no longer the one that was read."""
    return FeedError(
        f"topic {topic!r} {why}; it was cut or made anew: use a new journal, or the topic's old "
        "name"
    )


class Records(NamedTuple):
    """Records of one poll, a partition after another, each in its order.

    Parameters
    ----------
    values : (T,) payloads; None for a record that has none.
    partitions : (T,) int64.
    offsets : (T,) int64.
    """

    values: Sequence[bytes | None]
    partitions: Ints
    offsets: Ints


NOTHING = Records((), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client needs to know; parameters as of `KafkaFeed`."""

    bootstrap: str
    topic: str
    group: str
    max_records: int
    linger_ms: float
    fetch_mib: int | None
    queue_mib: int
    connect_timeout_s: float
    new_partitions_s: float
    api_version: Sequence[int] | None
    security: Mapping[str, Any] | None


class Client(Protocol):
    """A reader of one topic; made, it has found its broker. Not thread-safe."""

    committed: Offsets  # what the broker has acknowledged

    def partitions(self) -> set[int]:
        """Of the topic, none where there is no such topic.

        Raises
        ------
        Unanswered
            If the broker does not answer.
        """
        ...

    def topics(self) -> set[str]:
        """Names of all topics; raises as `partitions`."""
        ...

    def bounds(self, partitions: Sequence[int], timeout_s: float) -> tuple[Offsets, Offsets]:
        """The first offset kept and the one after the last; raises as `partitions`."""
        ...

    def stored(self, partitions: Sequence[int]) -> Offsets:
        """Offsets that were committed, where some were; raises as `partitions`."""
        ...

    def stand(self, offsets: Offsets) -> None:
        """Read these partitions from these offsets, and no others; what was fetched is dropped."""
        ...

    def poll(self, timeout_s: float) -> Records:
        """Next records, waiting at most `timeout_s` for the first.

        Raises
        ------
        Unanswered
            If the broker fails in a way that passes.
        OutOfRange
            If a partition does not hold the offset to be read next.
        FeedError
            If the broker refuses for good, or the topic was made anew.
        """
        ...

    def ends(self) -> Offsets:
        """Offsets after the last record, as fetches told of them; asks nobody."""
        ...

    def look(self) -> tuple[bool, set[int]]:
        """Whether any broker is connected, and the topic's partitions as last heard.

        Raises
        ------
        FeedError
            If the topic was made anew.
        """
        ...

    def commit(self, offsets: Offsets) -> None:
        """Send offsets for lag tools, waiting for no answer; never raises."""
        ...

    def close(self, offsets: Offsets) -> None:
        """Commit these, if the broker answers at once, and let go of it; never over a second."""
        ...
