"""Messages between operators and running books over a Kafka topic; answers come back on it.

Input: signed bytes. Output: the same bytes, with the broker's time of each record. A thread of its
own does all of it: no broker that stalls holds up what trades. It knows nothing of what is said.
"""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.structs import TopicPartition

from sysquant.errors import ControlError, FeedError
from sysquant.feeds.connection import client_settings, connect
from sysquant.mailbox import MOST, Letter

log = logging.getLogger(__name__)

TOPIC = "sysquant.control"
_POLL_MS = 100
_TIMEOUT_MS = 2000
_BROKER_TIME = 1  # of Kafka's `timestamp_type`: when the broker wrote it, not when it was made


def _key(kind: str, book: str) -> bytes:
    return f"{kind}:{book}".encode()


class _Line:
    # A consumer and a producer on the topic's one partition.

    def __init__(self, topic: str, settings: Mapping[str, Any]) -> None:
        self._partition = TopicPartition(topic, 0)
        _make_topic(topic, settings)
        self._consumer: Any = connect(KafkaConsumer, {**settings, "enable_auto_commit": False})[0]
        self._producer: Any = connect(
            KafkaProducer, {**settings, "max_block_ms": _TIMEOUT_MS, "linger_ms": 0}
        )[0]
        self._consumer.assign([self._partition])

    def stand(self, offset: int | None) -> None:
        # At an offset, or at the end.
        (end,) = self._consumer.end_offsets([self._partition], timeout_ms=_TIMEOUT_MS).values()
        self._consumer.seek(self._partition, end if offset is None else min(offset, end))

    def poll(self, key: bytes) -> tuple[list[Any], int]:
        # Records under a key, and the next offset.
        found = self._consumer.poll(_POLL_MS).get(self._partition, [])
        at = self._consumer.position(self._partition, timeout_ms=_TIMEOUT_MS)
        return [record for record in found if record.key == key and record.value], int(at)

    def send(self, key: bytes, value: bytes) -> Any:
        return self._producer.send(self._partition.topic, value, key=key, partition=0)

    def close(self) -> None:
        for one in (self._consumer, self._producer):
            try:
                one.close(timeout=0.3) if one is self._producer else one.close(
                    autocommit=False, timeout_ms=300
                )
            except KafkaError as error:
                log.debug("close error=%r", error)


def _make_topic(topic: str, settings: Mapping[str, Any]) -> None:
    # The broker's own time of arrival is what a message's age is measured against.
    try:
        admin: Any = connect(KafkaAdminClient, dict(settings))[0]
        configs = {"message.timestamp.type": "LogAppendTime", "retention.ms": "604800000"}
        try:
            admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)], timeout_ms=2000)
        except TopicAlreadyExistsError:
            pass
        finally:
            admin.close()
    except (KafkaError, FeedError, ValueError) as error:
        log.debug("topic=%s not made: %r", topic, error)


class TopicMailbox:
    """A book's side of the topic; see `mailbox.Mailbox`.

    Parameters
    ----------
    book : its name, which messages to it are keyed by.
    bootstrap, topic, api_version, security : as of `KafkaFeed`.

    Raises
    ------
    ConfigError
        If an address or a security key cannot be meant.
    """

    name = "topic"

    def __init__(
        self,
        *,
        book: str,
        bootstrap: str,
        topic: str = TOPIC,
        api_version: Sequence[int] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self._book, self._topic = book, topic
        self._settings = client_settings(bootstrap, 2.0, api_version, security)
        self._letters: queue.Queue[Letter] = queue.Queue(MOST)
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._mark = ""
        self._thread: threading.Thread | None = None

    def seek(self, mark: str | None) -> None:
        self._mark = mark or ""
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def take(self) -> list[Letter]:
        letters = list[Letter]()
        while len(letters) < MOST and not self._letters.empty():
            letters.append(self._letters.get())
        return letters

    def answer(self, answers: Mapping[str, bytes]) -> None:
        for raw in answers.values():
            self._answers.put(raw)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        at = int(self._mark) if self._mark else None
        while not self._stop.is_set():
            try:
                line = _Line(self._topic, self._settings)
                try:
                    line.stand(at)
                    while not self._stop.is_set():
                        at = self._turn(line)
                    self._turn(line)  # the last answers
                finally:
                    line.close()
            except (KafkaError, FeedError, ControlError, OSError) as error:
                log.warning("control topic=%s error=%s; trying again", self._topic, error)
                self._stop.wait(1.0)

    def _turn(self, line: _Line) -> int:
        while not self._answers.empty():
            line.send(_key("answer", self._book), self._answers.get())
        records, at = line.poll(_key("request", self._book))
        for record in records:
            is_dated = record.timestamp_type == _BROKER_TIME
            arrived = record.timestamp * 1_000_000 if is_dated else None
            self._put(Letter(record.value, str(record.offset + 1), arrived))
        return at

    def _put(self, letter: Letter) -> None:
        # What trades takes them at its own pace; a flood waits at the broker.
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._letters.put(letter, timeout=0.1)
                return


class TopicPost:
    """An operator's side of the topic: sends messages and looks for answers.

    Raises
    ------
    FeedError
        If no broker answers.
    """

    def __init__(
        self,
        *,
        book: str,
        bootstrap: str,
        topic: str = TOPIC,
        api_version: Sequence[int] | None = None,
        security: Mapping[str, Any] | None = None,
        patience_s: float = 2.0,
    ) -> None:
        self._book = book
        self._line = _Line(topic, client_settings(bootstrap, patience_s, api_version, security))
        self._line.stand(None)

    def send(self, raw: bytes) -> None:
        """Send a message; it has arrived when this returns.

        Raises
        ------
        ControlError
            If the broker does not take it.
        """
        try:
            self._line.send(_key("request", self._book), raw).get(timeout=_TIMEOUT_MS / 1000)
        except KafkaError as error:
            raise ControlError(f"the broker does not take the message: {error!r}") from error

    def answers(self, timeout_s: float) -> list[bytes]:
        """Answers of the book to anybody that came within a time."""
        until, found = time.monotonic() + timeout_s, list[bytes]()
        while not found and time.monotonic() < until:
            try:
                records, _ = self._line.poll(_key("answer", self._book))
            except KafkaError as error:
                raise ControlError(f"the broker does not give the answer: {error!r}") from error
            found = [record.value for record in records]
        return found

    def close(self) -> None:
        """Let go of the broker."""
        self._line.close()
