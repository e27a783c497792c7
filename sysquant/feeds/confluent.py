"""confluent-kafka (librdkafka, C) behind the feed: `feed.client=confluent`, the fast client.

Input: offsets to read from. Output: raw records. Fetches run in threads of librdkafka, into a queue
of bounded size; metadata and the state of brokers come from its statistics, once a second, so that
nothing here waits for a broker that stalls. Needs the extra `confluent`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.client import (
    NOTHING,
    ClientSettings,
    Offsets,
    OutOfRange,
    Records,
    Unanswered,
    made_anew,
)
from sysquant.feeds.connection import (
    check_security,
    does_not_answer,
    refuses_settings,
    server_addresses,
)
from sysquant.keys import check_number

log = logging.getLogger(__name__)
library_log = logging.getLogger("kafka.librdkafka")  # silenced where kafka-python is

FETCH_MIB = 32
MOST_FETCH_MIB = 256
CHUNK = 500  # messages at once: their objects stay in the processor's cache
LOOK_MS = 1000
ASK_S = 1.0
CLOSE_LIMIT_S = 0.6
# kafka-python's words for what librdkafka calls otherwise.
SECURITY = {
    "security_protocol": "security.protocol",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_password": "ssl.key.password",
    "ssl_ciphers": "ssl.cipher.suites",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
}
CHECK_HOST = "ssl_check_hostname"


class _Broker(msgspec.Struct):
    nodeid: int  # negative: not of the cluster, only a first address or a role
    state: str


class _Topic(msgspec.Struct):
    partitions: dict[int, msgspec.Raw]  # -1: librdkafka's own, for what has no partition yet


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]
    topics: dict[str, _Topic]


class ConfluentClient:
    """See `Client`.

    Raises
    ------
    ConfigError
        If confluent-kafka is not installed, or a setting cannot be meant.
    FeedError
        If no broker answers.
    """

    def __init__(self, given: ClientSettings) -> None:
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise ConfigError(
                "feed.client=confluent needs confluent-kafka, which is not installed; "
                "pip install 'sysquant[confluent]' (-e '.[confluent]' in the repository), or use "
                "feed.client=kafka_python"
            ) from error
        self._kafka = confluent_kafka
        self._kind = confluent_kafka.Message
        self.committed: Offsets = {}
        self._topic = given.topic
        self._most = given.max_records
        self._linger_s = given.linger_ms / 1000
        self._timeout_s = given.connect_timeout_s
        self._assigned: dict[int, Any] = {}
        self._statistics = msgspec.json.Decoder(_Statistics)
        self._heard = _Statistics({}, {})
        self._last_error = ""
        self._fatal = ""
        connection = _connection(given)
        callbacks = {
            "error_cb": self._note_error,
            "stats_cb": self._note_statistics,
            "on_commit": self._answered,
        }
        try:
            self._consumer = confluent_kafka.Consumer(
                connection | _reading(given) | callbacks, logger=library_log
            )
        except confluent_kafka.KafkaException as error:
            raise refuses_settings(error.args[0].str()) from error
        try:
            self._found = self.partitions()
        except Unanswered as error:
            self.close({})
            raise does_not_answer(given.bootstrap, self._last_error or str(error)) from error
        self._admin = confluent_kafka.admin.AdminClient(connection, logger=library_log)
        self._described = self._describe()
        self._topic_id = ""

    def partitions(self) -> set[int]:
        found = self._ask(lambda: self._consumer.list_topics(self._topic, self._timeout_s))
        return set(found.topics[self._topic].partitions)

    def topics(self) -> set[str]:
        return set(self._ask(lambda: self._consumer.list_topics(timeout=self._timeout_s)).topics)

    def bounds(self, partitions: Sequence[int], timeout_s: float) -> tuple[Offsets, Offsets]:
        found = {
            partition: self._ask(
                lambda at=at: self._consumer.get_watermark_offsets(at, timeout=timeout_s)
            )
            for partition, at in zip(partitions, self._named(partitions), strict=True)
        }
        if None in found.values():
            raise Unanswered("bounds were not told in time")
        return {p: low for p, (low, _) in found.items()}, {
            p: high for p, (_, high) in found.items()
        }

    def stored(self, partitions: Sequence[int]) -> Offsets:
        named = self._named(partitions)
        found = self._ask(lambda: self._consumer.committed(named, timeout=self._timeout_s))
        return {at.partition: at.offset for at in found if at.offset >= 0}

    def stand(self, offsets: Offsets) -> None:
        # Not `seek`: it refuses partitions whose fetching has not begun yet.
        make = self._kafka.TopicPartition
        self._assigned = {p: make(self._topic, p, at) for p, at in sorted(offsets.items())}
        self._consumer.assign(list(self._assigned.values()))

    def poll(self, timeout_s: float) -> Records:
        first = self._consumer.poll(timeout_s)
        if self._fatal:
            raise FeedError(f"topic {self._topic!r} cannot be read on: {self._fatal}")
        if first is None:
            return NOTHING
        until = time.monotonic() + self._linger_s
        values, partitions, offsets = list[bytes | None](), list[int](), list[int]()
        messages, taken = [first], 1
        partition_of: Any = self._kind.partition  # of a message without an error, it has one
        offset_of: Any = self._kind.offset
        while messages:
            if any(map(self._kind.error, messages)):
                messages = [one for one in messages if self._is_record(one.error())]
            values.extend(map(self._kind.value, messages))
            partitions.extend(map(partition_of, messages))
            offsets.extend(map(offset_of, messages))
            wanted = min(CHUNK, self._most - taken)
            if not wanted:
                break
            messages = self._consumer.consume(wanted, max(0.0, until - time.monotonic()))
            taken += len(messages)
        return _records(values, partitions, offsets)

    def ends(self) -> Offsets:
        known = {
            partition: self._consumer.get_watermark_offsets(at, cached=True)[1]
            for partition, at in self._assigned.items()
        }
        return {partition: end for partition, end in known.items() if end >= 0}

    def look(self) -> tuple[bool, set[int]]:
        self._compare_id()
        if not self._heard.brokers:  # it has just been found
            return True, self._found
        up = any(one.nodeid >= 0 and one.state == "UP" for one in self._heard.brokers.values())
        topic = self._heard.topics.get(self._topic)
        return up, {p for p in topic.partitions if p >= 0} if topic else set()

    def commit(self, offsets: Offsets) -> None:
        try:
            self._consumer.commit(offsets=self._with(offsets), asynchronous=True)
        except self._kafka.KafkaException as error:
            log.debug("commit topic=%s error=%s", self._topic, error)

    def close(self, offsets: Offsets) -> None:
        # librdkafka waits for brokers that have stalled: a thread that nobody need wait for.
        consumer, last = self._consumer, self._with(offsets) if offsets != self.committed else []
        errors = (self._kafka.KafkaException, RuntimeError)  # the latter when closed already

        def end() -> None:
            try:
                if last:
                    consumer.commit(offsets=last, asynchronous=False)
                consumer.close()
            except errors as error:
                log.debug("close topic=%s error=%s", self._topic, error)

        ending = threading.Thread(target=end, name="close-kafka", daemon=True)
        ending.start()
        ending.join(CLOSE_LIMIT_S)

    def _describe(self) -> Any:
        # A future: the only way to the topic's identity.
        named = self._kafka.TopicCollection([self._topic])
        return self._admin.describe_topics(named, request_timeout=ASK_S)[self._topic]

    def _compare_id(self) -> None:
        self._admin.poll(0)
        if not self._described.done():
            return
        done, self._described = self._described, self._describe()
        if done.exception() is not None:
            return
        topic_id = str(done.result().topic_id)
        self._topic_id = self._topic_id or topic_id
        if topic_id != self._topic_id:
            raise made_anew(self._topic, "is another one than was read before")

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._kafka.KafkaException as error:
            raise Unanswered(error.args[0].str()) from error

    def _named(self, partitions: Sequence[int]) -> list[Any]:
        return [self._kafka.TopicPartition(self._topic, partition) for partition in partitions]

    def _with(self, offsets: Offsets) -> list[Any]:
        return [self._kafka.TopicPartition(self._topic, p, at) for p, at in offsets.items()]

    def _is_record(self, error: Any) -> bool:
        if error is None:
            return True
        codes = self._kafka.KafkaError
        if error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE):
            raise OutOfRange(error.str())
        if error.fatal() or error.code() == codes.TOPIC_AUTHORIZATION_FAILED:
            raise FeedError(f"topic {self._topic!r} cannot be read on: {error.str()}")
        log.warning("poll topic=%s error=%s", self._topic, error.str())
        return False

    def _note_error(self, error: Any) -> None:
        # "All brokers are down" says less than the reason that came before it.
        if error.code() != self._kafka.KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error.str()
        if error.fatal():
            self._fatal = error.str()

    def _note_statistics(self, text: str) -> None:
        self._heard = self._statistics.decode(text)

    def _answered(self, error: Any, offsets: Sequence[Any]) -> None:
        if error is not None:
            log.debug("commit topic=%s error=%s", self._topic, error)
        else:
            self.committed = {at.partition: at.offset for at in offsets}


def _records(values: list[bytes | None], partitions: list[int], offsets: list[int]) -> Records:
    # Messages of several partitions come mixed, those of each in order.
    found = Records(values, np.array(partitions, np.int64), np.array(offsets, np.int64))
    if not (found.partitions[1:] < found.partitions[:-1]).any():
        return found
    order = np.argsort(found.partitions, kind="stable")
    ordered = [values[row] for row in order.tolist()]
    return Records(ordered, found.partitions[order], found.offsets[order])


def _connection(given: ClientSettings) -> dict[str, Any]:
    return {
        "bootstrap.servers": ",".join(server_addresses(given.bootstrap)),
        "reconnect.backoff.max.ms": 1000,
        "socket.timeout.ms": 10_000,  # a broker that stalls is left and tried again
    } | _security(given.security)


def _reading(given: ClientSettings) -> dict[str, Any]:
    fetch_mib = FETCH_MIB if given.fetch_mib is None else given.fetch_mib
    check_number("fetch_mib of confluent-kafka", fetch_mib, least=1, most=MOST_FETCH_MIB)
    look_ms = int(given.new_partitions_s * 1000)
    return {
        "group.id": given.group,  # for commits: partitions that are assigned join no group
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "auto.offset.reset": "error",  # a gap is the feed's to see
        "check.crcs": True,
        "statistics.interval.ms": LOOK_MS,
        "topic.metadata.refresh.interval.ms": look_ms,
        "metadata.max.age.ms": max(3 * look_ms, 1000),
        # Together five times as fast as the defaults; the queue's bound is what holds fetches back.
        "queued.min.messages": 1_000_000,
        "queued.max.messages.kbytes": given.queue_mib << 10,
        "fetch.queue.backoff.ms": 2,
        "max.partition.fetch.bytes": fetch_mib << 20,
        "fetch.max.bytes": 2 * fetch_mib << 20,
        "receive.message.max.bytes": (2 * fetch_mib << 20) + (1 << 20),
    }


def _security(given: Mapping[str, Any] | None) -> dict[str, Any]:
    check_security(given)
    settings = dict[str, Any]()
    for key, value in (given or {}).items():
        if key == CHECK_HOST:
            settings["ssl.endpoint.identification.algorithm"] = "https" if value else "none"
        elif key in SECURITY:
            if value is not None:
                settings[SECURITY[key]] = value
        else:
            raise ConfigError(
                f"security.{key} has no counterpart in confluent-kafka; leave it out, or use "
                "feed.client=kafka_python"
            )
    return settings
