"""kafka-python behind the feed: pure Python, the default, and the slower of the two clients.

Input: offsets to read from. Output: raw records. Offsets for lag tools go over a connection of
their own, made at the first commit: a group coordinator that is slow or missing would otherwise
hold up the records.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kafka import KafkaConsumer
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError, RetriableError  # pyright: ignore
from kafka.structs import OffsetAndMetadata, TopicPartition

from sysquant.errors import FeedError
from sysquant.feeds.client import (
    NOTHING,
    ClientSettings,
    Offsets,
    OutOfRange,
    Records,
    Unanswered,
    made_anew,
)
from sysquant.feeds.connection import client_settings, connect
from sysquant.keys import check_number

log = logging.getLogger(__name__)

FETCH_MIB = 2  # about a poll: it asks for more once one is used up, and that is while we decide
MOST_FETCH_MIB = 16  # it delivers nothing at 32
GATHERED = 1 << 20  # bytes that need not linger
WAIT_MS = 250  # that the broker may hold a fetch back when there is nothing
CLOSE_LIMIT_MS = 300


class KafkaPythonClient:
    """See `Client`.

    Raises
    ------
    ConfigError
        If a setting cannot be meant.
    FeedError
        If no broker answers.
    """

    def __init__(self, given: ClientSettings) -> None:
        fetch_mib = FETCH_MIB if given.fetch_mib is None else given.fetch_mib
        check_number("fetch_mib of kafka-python", fetch_mib, least=1, most=MOST_FETCH_MIB)
        linger_ms = math.ceil(given.linger_ms)
        self.committed: Offsets = {}
        self._topic = given.topic
        self._most = given.max_records
        self._timeout_ms = int(given.connect_timeout_s * 1000)
        self._assigned = list[TopicPartition]()
        self._topic_id: Any = None
        settings = client_settings(
            given.bootstrap, given.connect_timeout_s, given.api_version, given.security
        )
        settings |= {
            "enable_auto_commit": False,
            "allow_auto_create_topics": False,
            "metadata_max_age_ms": int(given.new_partitions_s * 1000),
            "request_timeout_ms": 10_000,  # a broker that stalls is left and tried again
        }
        fetching = {
            "auto_offset_reset": "none",  # a gap is the feed's to see
            "max_partition_fetch_bytes": fetch_mib << 20,
            # The broker gathers what shares a poll: a sleep here would find one record of a fetch
            # that was answered at once, and the others an interval later.
            "fetch_min_bytes": GATHERED if linger_ms else 1,
            "fetch_max_wait_ms": linger_ms or WAIT_MS,
        }
        self._consumer: Any  # pyright's stubs of kafka-python are years old
        self._consumer, self._network = connect(KafkaConsumer, settings | fetching)
        # Asked once: the committer must not have to wait for a broker when it is made.
        settings["api_version"] = self._consumer.config["api_version"]
        self._commit_settings: dict[str, Any] = settings | {"group_id": given.group}
        self._committer: Any = None

    def partitions(self) -> set[int]:
        try:
            return set(self._consumer.partitions_for_topic(self._topic) or ())
        except KafkaError as error:
            raise Unanswered(repr(error)) from error

    def topics(self) -> set[str]:
        try:
            return self._consumer.topics()
        except KafkaError as error:
            raise Unanswered(repr(error)) from error

    def bounds(self, partitions: Sequence[int], timeout_s: float) -> tuple[Offsets, Offsets]:
        named, limit = self._named(partitions), int(timeout_s * 1000)
        try:
            firsts = self._consumer.beginning_offsets(named, timeout_ms=limit)
            ends = self._consumer.end_offsets(named, timeout_ms=limit)
        except KafkaError as error:
            raise Unanswered(repr(error)) from error
        first, end = ({at.partition: n for at, n in found.items()} for found in (firsts, ends))
        return first, end

    def stored(self, partitions: Sequence[int]) -> Offsets:
        try:
            found = {
                at.partition: self._connection().committed(at, timeout_ms=self._timeout_ms)
                for at in self._named(partitions)
            }
        except KafkaError as error:
            raise Unanswered(repr(error)) from error
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def stand(self, offsets: Offsets) -> None:
        self._topic_id = self._topic_id or self._network.cluster.topic_id(self._topic)
        self._assigned = self._named(sorted(offsets))
        self._consumer.assign(self._assigned)
        for at in self._assigned:
            self._consumer.seek(at, offsets[at.partition])

    def poll(self, timeout_s: float) -> Records:
        try:
            found = self._consumer.poll(int(timeout_s * 1000), max_records=self._most)
        except LogTruncationError as error:
            raise made_anew(self._topic, "holds less than was read of it") from error
        except OffsetOutOfRangeError as error:
            raise OutOfRange(repr(error)) from error
        except RetriableError as error:
            raise Unanswered(repr(error)) from error
        except KafkaError as error:
            raise FeedError(f"topic {self._topic!r} cannot be read on: {error!r}") from error
        topic_id = self._network.cluster.topic_id(self._topic)  # None while there is no such topic
        if topic_id is not None and topic_id != self._topic_id:
            raise made_anew(self._topic, "is another one than was read before")
        return _records(found)

    def ends(self) -> Offsets:
        known = {at.partition: self._consumer.highwater(at) for at in self._assigned}
        return {partition: end for partition, end in known.items() if end is not None}

    def look(self) -> tuple[bool, set[int]]:
        nodes = [node.node_id for node in self._network.cluster.brokers()]
        return any(self._network.connected(node) for node in nodes), self.partitions()

    def commit(self, offsets: Offsets) -> None:
        try:
            # The answer is seen by the next call, so the last offsets are sent twice.
            self._connection().commit_async(self._metadata(offsets), callback=self._answered)
        except KafkaError as error:
            self._answered({}, error)

    def close(self, offsets: Offsets) -> None:
        if self._committer is not None:
            try:
                if offsets != self.committed:
                    self._committer.commit(self._metadata(offsets), timeout_ms=CLOSE_LIMIT_MS)
            except KafkaError as error:
                self._answered({}, error)
            self._committer.close(autocommit=False, timeout_ms=CLOSE_LIMIT_MS)
            self._committer = None
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_LIMIT_MS)

    def _named(self, partitions: Sequence[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

    def _connection(self) -> Any:
        if self._committer is None:
            self._committer = KafkaConsumer(**self._commit_settings)
        return self._committer

    def _metadata(self, offsets: Offsets) -> dict[TopicPartition, OffsetAndMetadata]:
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }

    def _answered(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object
    ) -> None:
        if isinstance(answer, Exception):
            log.debug("commit topic=%s error=%r", self._topic, answer)
        else:
            self.committed = {at.partition: kept.offset for at, kept in offsets.items()}


def _records(found: Mapping[TopicPartition, Sequence[Any]]) -> Records:
    if not found:
        return NOTHING
    ordered = sorted(found.items())
    records = [record for _, batch in ordered for record in batch]
    return Records(
        [record.value for record in records],
        np.concatenate([np.full(len(batch), at.partition) for at, batch in ordered]),
        np.fromiter([record.offset for record in records], np.int64, len(records)),
    )
