"""Live ticks from a Kafka topic, as a `Feed`.

Input: the JSON records of `price_ticks`. Output: batches of `Ticks` and dead letters with their
partitions and offsets. Positions belong to the caller (the journal): partitions are assigned by
hand, no consumer group decides anything, and offsets are committed only for tools that show lag.
A broker that goes away is waited for: polls come back empty until it returns. Which client talks to
the broker is a setting; what is here holds for each.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from sysquant.errors import FeedError, nearest
from sysquant.feeds.client import (
    Client,
    ClientSettings,
    Offsets,
    OutOfRange,
    Records,
    Unanswered,
    made_anew,
)
from sysquant.feeds.decode import TickDecoder
from sysquant.keys import check_choice, check_number
from sysquant.types import DeadLetter, Instrument, Poll, Ticks

log = logging.getLogger("sysquant.feeds.kafka")

POLL_LIMIT_S = 0.25  # a poll cannot be woken; a stop signal waits for its end
GAP_LIMIT_S = 1.0
COMMIT_INTERVAL_S = 1.0
LOOK_INTERVAL_S = 1.0
STARTS = ("earliest", "latest", "stored")


def _kafka_python(settings: ClientSettings) -> Client:
    from sysquant.feeds.kafka_python import KafkaPythonClient

    return KafkaPythonClient(settings)


def _confluent(settings: ClientSettings) -> Client:
    from sysquant.feeds.confluent import ConfluentClient

    return ConfluentClient(settings)


CLIENTS: Mapping[str, Callable[[ClientSettings], Client]] = {
    "kafka_python": _kafka_python,
    "confluent": _confluent,
}


class KafkaFeed:
    """Ticks of one topic, every partition, from where the caller stands.

    Parameters
    ----------
    bootstrap : `host:port`, several separated by commas.
    universe : the instruments that may appear; a record of another symbol is a dead letter.
    topic : its name; it must exist.
    client : `kafka_python`, or `confluent`: several times as fast, of the extra of this name.
    start : where a partition begins that `seek` does not name: `earliest`, `latest`, or `stored`
        (the offset committed for `group`, else the earliest).
    group : the name under which offsets are committed; nothing joins it.
    max_records : most records of one poll.
    linger_ms : how long a record may wait for others to share its poll; 0 costs the most CPU.
    fetch_mib : most to fetch of one partition at once, MiB; None for what suits the client. It is
        also what kafka-python fetches ahead, which stalls at 32.
    queue_mib : most that `confluent` fetches ahead of all partitions, MiB.
    connect_timeout_s : how long to wait for a broker at the start.
    new_partitions_s : how often to look for partitions added to the topic.
    api_version : of the broker, where kafka-python cannot ask it (librdkafka's mock); None asks.
    security : kafka-python's arguments, e.g. `security_protocol`, `sasl_mechanism`, whichever the
        client.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant, or the client is not installed.
    FeedError
        If no broker answers or the topic does not exist.
    """

    kind: Literal["ticks", "bars"] = "ticks"
    interval = 0

    def __init__(
        self,
        *,
        bootstrap: str,
        universe: Sequence[Instrument],
        topic: str = "price_ticks",
        client: Literal["kafka_python", "confluent"] = "kafka_python",
        start: Literal["earliest", "latest", "stored"] = "earliest",
        group: str = "sysquant",
        max_records: int = 10_000,
        linger_ms: float = 10.0,
        fetch_mib: int | None = None,
        queue_mib: int = 64,
        connect_timeout_s: float = 5.0,
        new_partitions_s: float = 10.0,
        api_version: Sequence[int] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("client of the Kafka feed", client, tuple(CLIENTS))
        check_choice("start of the Kafka feed", start, STARTS)
        check_number("max_records", max_records, least=1, whole=True)
        check_number("linger_ms", linger_ms, least=0, most=100)
        check_number("queue_mib", queue_mib, least=1, most=1024, whole=True)
        self.name = topic
        self._bootstrap = bootstrap
        self._start = start
        self._timeout_s = connect_timeout_s
        self._decoder = TickDecoder(universe, topic)
        self._positions: dict[int, int] = {}  # partition -> offset to be fetched next
        self._read: dict[int, int] = {}  # the same, but before a gap: after the last one read
        self._ends: dict[int, int] = {}  # partition -> offset after its last record, as last known
        self._noted: dict[int, int] = {}  # offsets to be committed
        self._next_commit = 0.0
        self._next_look = 0.0
        self._lost_at: float | None = None  # when the broker was found to be gone
        self._client = CLIENTS[client](
            ClientSettings(
                bootstrap=bootstrap,
                topic=topic,
                group=group,
                max_records=max_records,
                linger_ms=linger_ms,
                fetch_mib=fetch_mib,
                queue_mib=queue_mib,
                connect_timeout_s=connect_timeout_s,
                new_partitions_s=new_partitions_s,
                api_version=api_version,
                security=security,
            )
        )
        try:
            self._require_topic()
        except FeedError:
            self.close()
            raise

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Stand at these offsets; partitions not named stand at the configured start.

        An offset below the first one kept becomes that one: the caller sees it by comparing.

        Raises
        ------
        FeedError
            If the broker does not answer, or an offset lies beyond what the topic holds.
        """
        partitions = self._require_topic()
        if strange := sorted(set(next_offset) - partitions):
            raise made_anew(self.name, f"has no partition {strange[0]}, which was read before")
        try:
            firsts, ends = self._client.bounds(sorted(partitions), self._timeout_s)
            starts = self._configured_starts(partitions - set(next_offset), firsts, ends)
        except Unanswered as error:
            raise self._unanswered(error) from error
        self._ends = dict(ends)
        self._read = starts | dict(next_offset)
        self._stand(self._read, firsts, ends)

    def poll(self, timeout_s: float) -> Poll:
        """Next records of every partition, waiting at most `timeout_s` and never over 250 ms.

        `next_offset` names every partition. Records whose first offset lies above the one that was
        expected tell of a gap: the broker deleted what lay between before it was read.

        Raises
        ------
        FeedError
            If the broker refuses for good, or the topic was cut below what was read.
        """
        if not self._positions:
            self.seek({})
        self._look_around()
        self._send_commit()
        try:
            found = self._client.poll(min(timeout_s, POLL_LIMIT_S))
        except OutOfRange:
            self._step_over_gap()
            return self._poll_of(None)
        except Unanswered as error:
            log.warning("poll topic=%s error=%s", self.name, error)
            self._client.stand(self._positions)  # it may have read what it did not hand over
            time.sleep(min(timeout_s, 0.05))
            return self._poll_of(None)
        return self._poll_of(found if len(found.values) else None)

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Tell lag tools how far we are: at most once a second, without waiting for an answer."""
        self._noted |= next_offset
        self._send_commit()

    def close(self) -> None:
        """Commit what was noted, if the broker answers at once, and let go of it."""
        self._client.close(self._noted)

    def _poll_of(self, found: Records | None) -> Poll:
        ticks, dead = Ticks.empty(), ()
        if found is not None:
            self._found()
            ticks, dead = self._taken(found)
        behind, lag = self._behind()
        return Poll(
            ticks, dead, dict(self._read), behind, lag=lag, is_connected=self._lost_at is None
        )

    def _taken(self, found: Records) -> tuple[Ticks, tuple[DeadLetter, ...]]:
        # Decoded, but for what was delivered before: kafka-python may bring it once more.
        read = np.zeros(max(self._read) + 1, np.int64)
        read[list(self._read)] = list(self._read.values())
        fresh = np.flatnonzero(found.offsets >= read[found.partitions])
        if len(fresh) < len(found.values):
            values = [found.values[row] for row in fresh.tolist()]
            found = Records(values, found.partitions[fresh], found.offsets[fresh])
        ticks, dead = self._decoder.decode(*found)
        lasts = np.flatnonzero(np.diff(found.partitions, append=-1))
        for row in lasts.tolist():
            partition = int(found.partitions[row])
            self._positions[partition] = self._read[partition] = int(found.offsets[row]) + 1
        return ticks, dead

    def _behind(self) -> tuple[frozenset[int], int]:
        self._ends |= self._client.ends()
        ahead = {p: self._ends.get(p, 0) - at for p, at in self._positions.items()}
        behind = {p: count for p, count in ahead.items() if count > 0}
        return frozenset(behind), sum(behind.values())

    def _stand(self, wanted: Offsets, firsts: Offsets, ends: Offsets) -> None:
        for partition, offset in wanted.items():
            if offset > ends[partition]:
                end = f"ends at offset {ends[partition]} of partition {partition}"
                raise made_anew(self.name, f"{end}, but {offset} is to be read next")
            if offset < firsts[partition]:
                log.warning(
                    "gap topic=%s partition=%d expected=%d first=%d",
                    *(self.name, partition, offset, firsts[partition]),
                )
        self._positions = {p: max(offset, firsts[p]) for p, offset in wanted.items()}
        self._client.stand(self._positions)

    def _step_over_gap(self) -> None:
        # Not left to the client: it would also rewind past what was read, in silence.
        try:
            firsts, ends = self._client.bounds(sorted(self._positions), GAP_LIMIT_S)
        except Unanswered as error:
            log.warning("gap topic=%s error=%s", self.name, error)
            self._client.stand(self._positions)
        else:
            self._stand(self._positions, firsts, ends)

    def _configured_starts(
        self, unnamed: set[int], firsts: Offsets, ends: Offsets
    ) -> dict[int, int]:
        if self._start == "stored" and unnamed:
            stored = self._client.stored(sorted(unnamed))
            return {p: min(stored.get(p, firsts[p]), ends[p]) for p in unnamed}
        begin = ends if self._start == "latest" else firsts
        return {p: begin[p] for p in unnamed}

    def _send_commit(self) -> None:
        now = time.monotonic()
        if self._noted != self._client.committed and now >= self._next_commit:
            self._next_commit = now + COMMIT_INTERVAL_S
            self._client.commit(dict(self._noted))

    def _look_around(self) -> None:
        # The client reconnects and learns of partitions by itself; here both are only noticed.
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_INTERVAL_S
        is_found, known = self._client.look()
        if not is_found and self._lost_at is None:
            self._lost_at = now
            log.warning("lost broker=%s; trying again until it returns", self._bootstrap)
        elif is_found:
            self._found()
        if added := sorted(known - set(self._positions)):
            # Whatever the configured start: they were made after it, so they are read whole.
            log.info("new partitions topic=%s partitions=%s", self.name, added)
            self._read |= dict.fromkeys(added, 0)
            self._positions |= dict.fromkeys(added, 0)
            self._client.stand(self._positions)

    def _found(self) -> None:
        if self._lost_at is not None:
            away_s = time.monotonic() - self._lost_at
            log.warning("found broker=%s away_s=%.0f", self._bootstrap, away_s)
            self._lost_at = None

    def _require_topic(self) -> set[int]:
        try:
            partitions = self._client.partitions()
            if not partitions:
                there = nearest(self.name, self._client.topics())
                raise FeedError(
                    f"Kafka at {self._bootstrap} has no topic {self.name!r}{there} (publish to "
                    "it first, python runners/stream.py, or set feed.topic)"
                )
        except Unanswered as error:
            raise self._unanswered(error) from error
        return partitions

    def _unanswered(self, error: Unanswered) -> FeedError:
        return FeedError(
            f"Kafka at {self._bootstrap} stopped answering ({error}); start it again (make kafka)"
        )
