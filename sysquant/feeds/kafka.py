"""Live ticks from a Kafka topic, as a `Feed`.

Input: the JSON records of `price_ticks`. Output: batches of `Ticks` and dead letters with their
partitions and offsets. Positions belong to the caller (the journal): partitions are assigned by
hand, no consumer group decides anything, and offsets are committed only for tools that show lag.
A broker that goes away is waited for: polls come back empty until it returns.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from kafka import KafkaConsumer
from kafka.errors import KafkaError, OffsetOutOfRangeError, RetriableError  # pyright: ignore
from kafka.structs import OffsetAndMetadata, TopicPartition

from sysquant.errors import ConfigError, FeedError, nearest
from sysquant.feeds.connection import client_settings, connect
from sysquant.feeds.decode import TickDecoder
from sysquant.types import DeadLetter, Instrument, Poll, Ticks

log = logging.getLogger("sysquant.feeds.kafka")

POLL_LIMIT_S = 0.25  # a poll cannot be woken; a stop signal waits for its end
COMMIT_INTERVAL_S = 1.0
CLOSE_LIMIT_MS = 300
LOOK_INTERVAL_S = 1.0
STARTS = ("earliest", "latest", "stored")


class KafkaFeed:
    """Ticks of one topic, every partition, from where the caller stands.

    Parameters
    ----------
    bootstrap : `host:port`, several separated by commas.
    universe : the instruments that may appear; a record of another symbol is a dead letter.
    topic : its name; it must exist.
    start : where a partition begins that `seek` does not name: `earliest`, `latest`, or `stored`
        (the offset committed for `group`, else the earliest).
    group : the name under which offsets are committed; nothing joins it.
    max_records : most records of one poll.
    fetch_mib : most to fetch of one partition at once, MiB; kafka-python stalls at 32.
    connect_timeout_s : how long to wait for a broker at the start.
    new_partitions_s : how often to look for partitions added to the topic.
    api_version : of the broker, where it cannot be asked (librdkafka's mock); None asks.
    security : arguments of kafka-python's client, e.g. `security_protocol`, `sasl_mechanism`.

    Raises
    ------
    ConfigError
        If a parameter cannot be meant.
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
        start: Literal["earliest", "latest", "stored"] = "earliest",
        group: str = "sysquant",
        max_records: int = 5000,
        fetch_mib: int = 8,
        connect_timeout_s: float = 5.0,
        new_partitions_s: float = 10.0,
        api_version: Sequence[int] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        if start not in STARTS:
            raise ConfigError(f"start of the Kafka feed was {start!r}{nearest(start, STARTS)}")
        if not 1 <= fetch_mib <= 16:
            raise ConfigError(f"fetch_mib must lie in 1 to 16, was {fetch_mib}")
        self.name = topic
        self._bootstrap = bootstrap
        self._start = start
        self._max_records = max_records
        self._timeout_ms = int(connect_timeout_s * 1000)
        self._decoder = TickDecoder(universe, topic)
        self._positions: dict[int, int] = {}  # partition -> offset to be fetched next
        self._read: dict[int, int] = {}  # the same, but before a gap: after the last one read
        self._ends: dict[int, int] = {}  # partition -> offset after its last record, as last known
        self._next_look = 0.0
        self._lost_at: float | None = None  # when the broker was found to be gone
        settings = client_settings(bootstrap, connect_timeout_s, api_version, security)
        settings |= {
            "enable_auto_commit": False,
            "allow_auto_create_topics": False,
            "metadata_max_age_ms": int(new_partitions_s * 1000),
            "request_timeout_ms": 10_000,  # a broker that stalls is left and tried again
        }
        fetching = {
            "auto_offset_reset": "none",  # a gap is ours to see; see `_step_over_gap`
            "max_partition_fetch_bytes": fetch_mib << 20,
            "fetch_max_wait_ms": int(POLL_LIMIT_S * 1000),
        }
        self._consumer: Any  # pyright's stubs of kafka-python are years old
        self._consumer, self._client = connect(KafkaConsumer, settings | fetching)
        # Asked once: the committer must not have to wait for a broker when it is made.
        settings["api_version"] = self._consumer.config["api_version"]
        self._commits = _Commits(topic, settings | {"group_id": group})
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
            raise FeedError(
                f"topic {self.name!r} has no partition {strange[0]}, which was read before; it was "
                "made anew: use a new journal, or the topic's old name"
            )
        named = [TopicPartition(self.name, partition) for partition in sorted(partitions)]
        self._consumer.assign(named)
        try:
            firsts = self._consumer.beginning_offsets(named, timeout_ms=self._timeout_ms)
            ends = self._consumer.end_offsets(named, timeout_ms=self._timeout_ms)
            unnamed = [one for one in named if one.partition not in next_offset]
            starts = self._configured_starts(unnamed, firsts, ends)
        except KafkaError as error:
            raise self._unanswered(error) from error
        self._ends = {one.partition: ends[one] for one in named}
        for one in named:
            wanted = next_offset.get(one.partition, starts.get(one, 0))
            self._stand(one, wanted, firsts[one], ends[one])
            self._read[one.partition] = wanted

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
        self._commits.send()
        try:
            found = self._consumer.poll(
                int(min(timeout_s, POLL_LIMIT_S) * 1000), max_records=self._max_records
            )
        except OffsetOutOfRangeError:
            self._step_over_gap()
            found = {}
        except RetriableError as error:
            log.warning("poll topic=%s error=%r", self.name, error)
            time.sleep(min(timeout_s, 0.05))
            found = {}
        except KafkaError as error:
            raise FeedError(f"topic {self.name!r} cannot be read on: {error!r}") from error
        return self._decode(found)

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Tell lag tools how far we are: at most once a second, without waiting for an answer."""
        self._commits.note(next_offset)
        self._commits.send()

    def close(self) -> None:
        """Commit what was noted, if the broker answers at once, and let go of it."""
        self._commits.close()
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_LIMIT_MS)

    def _decode(self, found: Mapping[TopicPartition, list[Any]]) -> Poll:
        batches, dead = list[Ticks](), list[DeadLetter]()
        for one, records in sorted(found.items()):
            offsets = np.fromiter([r.offset for r in records], np.int64, len(records))
            if offsets[0] < self._read[one.partition]:  # delivered before
                fresh = int(np.searchsorted(offsets, self._read[one.partition]))
                records, offsets = records[fresh:], offsets[fresh:]
                if not records:
                    continue
            ticks, letters = self._decoder.decode(
                [r.value for r in records], one.partition, offsets
            )
            batches.append(ticks)
            dead.extend(letters)
            self._positions[one.partition] = self._read[one.partition] = int(offsets[-1]) + 1
        events = Ticks.join(batches) if batches else Ticks.empty()
        return Poll(
            events, tuple(dead), dict(self._read), self._behind(),
            lag=sum(max(0, self._ends.get(p, 0) - at) for p, at in self._positions.items()),
            is_connected=self._lost_at is None,
        )  # fmt: skip

    def _behind(self) -> frozenset[int]:
        for partition in self._positions:
            known = self._consumer.highwater(TopicPartition(self.name, partition))
            if known is not None:
                self._ends[partition] = known
        return frozenset(p for p, at in self._positions.items() if at < self._ends.get(p, 0))

    def _stand(self, one: TopicPartition, wanted: int, first: int, end: int) -> None:
        if wanted > end:
            raise FeedError(
                f"topic {self.name!r} ends at offset {end} of partition {one.partition}, but "
                f"{wanted} is to be read next; it was cut or made anew: use a new journal, or the "
                "topic's old name"
            )
        if wanted < first:
            log.warning(
                "gap topic=%s partition=%d expected=%d first=%d",
                *(self.name, one.partition, wanted, first),
            )
        self._positions[one.partition] = max(wanted, first)
        self._consumer.seek(one, max(wanted, first))

    def _step_over_gap(self) -> None:
        # Not left to `auto_offset_reset`: it would also rewind past what was read, in silence.
        named = [TopicPartition(self.name, partition) for partition in sorted(self._positions)]
        try:
            firsts = self._consumer.beginning_offsets(named, timeout_ms=1000)
            ends = self._consumer.end_offsets(named, timeout_ms=1000)
        except KafkaError as error:
            log.warning("gap topic=%s error=%r", self.name, error)
            return
        for one in named:
            at = self._positions[one.partition]
            if not firsts[one] <= at <= ends[one]:
                self._stand(one, at, firsts[one], ends[one])

    def _configured_starts(
        self,
        unnamed: list[TopicPartition],
        firsts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> Mapping[TopicPartition, int]:
        if self._start == "latest":
            return {one: ends[one] for one in unnamed}
        if self._start == "earliest":
            return {one: firsts[one] for one in unnamed}
        stored = self._commits.stored(unnamed, self._timeout_ms)
        return {one: min(stored.get(one, firsts[one]), ends[one]) for one in unnamed}

    def _look_around(self) -> None:
        # The client reconnects and learns of partitions by itself; here both are only noticed.
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_INTERVAL_S
        nodes = [node.node_id for node in self._client.cluster.brokers()]
        is_lost = not any(self._client.connected(node) for node in nodes)
        if is_lost and self._lost_at is None:
            self._lost_at = now
            log.warning("lost broker=%s; trying again until it returns", self._bootstrap)
        elif not is_lost and self._lost_at is not None:
            log.warning("found broker=%s away_s=%.0f", self._bootstrap, now - self._lost_at)
            self._lost_at = None
        known = self._consumer.partitions_for_topic(self.name)
        if added := sorted(known - set(self._positions)):
            self._add_partitions(known, added)

    def _add_partitions(self, known: set[int], added: list[int]) -> None:
        # Whatever the configured start: they were made after it, so they are read whole.
        log.info("new partitions topic=%s partitions=%s", self.name, added)
        everyone = sorted(known | set(self._positions))
        self._consumer.assign([TopicPartition(self.name, partition) for partition in everyone])
        for partition in added:
            self._positions[partition] = self._read[partition] = 0
            self._consumer.seek(TopicPartition(self.name, partition), 0)

    def _require_topic(self) -> set[int]:
        try:
            partitions = self._consumer.partitions_for_topic(self.name)
            if not partitions:
                there = nearest(self.name, self._consumer.topics())
                raise FeedError(
                    f"Kafka at {self._bootstrap} has no topic {self.name!r}{there} (publish to "
                    "it first, python runners/stream.py, or set feed.topic)"
                )
        except KafkaError as error:
            raise self._unanswered(error) from error
        return partitions

    def _unanswered(self, error: KafkaError) -> FeedError:
        return FeedError(
            f"Kafka at {self._bootstrap} stopped answering ({error!r}); start it again (make kafka)"
        )


class _Commits:
    # Offsets for lag tools, over a connection of their own: a group coordinator that is slow or
    # missing would otherwise hold up the records.

    def __init__(self, topic: str, settings: Mapping[str, Any]) -> None:
        self._topic = topic
        self._settings = settings
        self._client: Any = None
        self._noted: dict[int, int] = {}
        self._stored: dict[int, int] = {}  # what the broker has acknowledged
        self._next_send = 0.0

    def note(self, next_offset: Mapping[int, int]) -> None:
        self._noted.update(next_offset)

    def send(self) -> None:
        now = time.monotonic()
        if self._noted == self._stored or now < self._next_send:
            return
        self._next_send = now + COMMIT_INTERVAL_S
        try:
            # The answer is seen by the next call, so the last offsets are sent twice.
            self._connection().commit_async(self._offsets(), callback=self._answered)
        except KafkaError as error:
            self._answered({}, error)

    def stored(
        self, partitions: list[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        found = {
            one: self._connection().committed(one, timeout_ms=timeout_ms) for one in partitions
        }
        return {one: offset for one, offset in found.items() if offset is not None}

    def close(self) -> None:
        if self._client is None:
            return
        try:
            if self._noted != self._stored:
                self._client.commit(self._offsets(), timeout_ms=CLOSE_LIMIT_MS)
        except KafkaError as error:
            self._answered({}, error)
        self._client.close(autocommit=False, timeout_ms=CLOSE_LIMIT_MS)
        self._client = None

    def _connection(self) -> Any:
        if self._client is None:
            self._client = KafkaConsumer(**self._settings)
        return self._client

    def _offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in self._noted.items()
        }

    def _answered(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object
    ) -> None:
        if isinstance(answer, Exception):
            log.debug("commit topic=%s error=%r", self._topic, answer)
        else:
            self._stored = {one.partition: offset.offset for one, offset in offsets.items()}
