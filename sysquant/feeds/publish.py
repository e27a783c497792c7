"""Ticks to a Kafka topic, as the JSON of the `price_ticks` contract.

Input: batches of `Ticks`. Output: one record a tick, keyed by symbol, so that the ticks of a symbol
keep their order; the idempotent producer neither doubles nor reorders them when it retries.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.connection import client_settings, connect
from sysquant.feeds.decode import encode
from sysquant.keys import check_number
from sysquant.types import Instrument, Ticks


class Publisher:
    """Writes ticks to one topic.

    Parameters
    ----------
    bootstrap : `host:port`, several separated by commas.
    topic : its name; made by the broker where it may.
    linger_ms : how long a record may wait for others to share its batch.
    batch_kib : most of one batch, KiB.
    most_waiting : records sent and not acknowledged; above it, publishing waits.
    timeout_s : for finding a broker, and for its acknowledgement.
    patience_s : how long records wait for a broker that went away; `timeout_s` by default.
    mark : name of a header that holds each tick's offset in its source; empty for none.
    api_version : of the broker, where it cannot be asked (librdkafka's mock); None asks.
    security : arguments of kafka-python's client, e.g. `security_protocol`, `sasl_mechanism`.

    Raises
    ------
    ConfigError
        If an address, a number, a security key or the topic's name cannot be meant.
    FeedError
        If no broker answers.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        topic: str = "price_ticks",
        linger_ms: int = 5,
        batch_kib: int = 256,
        most_waiting: int = 100_000,
        timeout_s: float = 10.0,
        patience_s: float | None = None,
        mark: str = "",
        api_version: Sequence[int] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        check_number("publisher.linger_ms", linger_ms, least=0, most=60_000, whole=True)
        check_number("publisher.batch_kib", batch_kib, least=1, most=1 << 20, whole=True)
        check_number("publisher.most_waiting", most_waiting, least=1, whole=True)
        check_number("publisher.timeout_s", timeout_s, above=0, most=3_600)
        if patience_s is not None:
            check_number("patience_s", patience_s, least=0, most=7 * 86_400)
        self.topic = topic
        self._mark = mark
        self.acknowledged = 0  # records
        self._sent = 0
        self._failure: BaseException | None = None
        self._bootstrap = bootstrap
        self._most_waiting = most_waiting
        timeout_ms = int(timeout_s * 1000)
        patience_ms = timeout_ms if patience_s is None else int(patience_s * 1000)
        delivery_ms = max(timeout_ms, patience_ms) + linger_ms + 1
        # Above the delivery's own: a producer closed with records waiting cannot end its thread.
        self._give_up_s = (timeout_ms + linger_ms) / 1000 + 2.0
        settings = client_settings(bootstrap, min(timeout_s, 5.0), api_version, security)
        settings |= {
            "max_block_ms": timeout_ms,
            "request_timeout_ms": timeout_ms,
            "delivery_timeout_ms": delivery_ms,
            "enable_idempotence": True,
            "linger_ms": linger_ms,
            "batch_size": batch_kib << 10,
        }
        self._producer, _ = connect(KafkaProducer, settings)

    def publish(self, ticks: Ticks, universe: Sequence[Instrument]) -> None:
        """Send a batch; its acknowledgement is waited for by `flush`.

        Raises
        ------
        FeedError
            If the broker refused a record, of this batch or of one before.
        """
        keys = [one.symbol.encode() for one in universe]
        values = zip(
            ticks.symbol.tolist(), encode(ticks, universe), self._headers(ticks), strict=True
        )
        try:
            for symbol, value, headers in values:
                answer = self._producer.send(self.topic, value, key=keys[symbol], headers=headers)
                answer.add_callback(self._acknowledge).add_errback(self._refuse)
                self._sent += 1
        except KafkaError as error:
            raise self._lost(error) from error
        except ValueError as error:
            raise ConfigError(f"topic cannot be {self.topic!r}: {error}") from error
        self.check()
        if self.waiting > self._most_waiting:
            self.flush()

    def check(self) -> None:
        """Make sure that no record was refused, or waited longer than `patience_s`.

        Raises
        ------
        FeedError
            If one was.
        """
        if self._failure is not None:
            raise self._lost(self._failure)

    def find_topic(self) -> None:
        """Learn the topic's partitions now, so that no later outage is in the way of that.

        Raises
        ------
        FeedError
            If the broker does not tell them.
        """
        try:
            self._producer.partitions_for(self.topic)
        except KafkaError as error:
            raise self._lost(error) from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"topic cannot be {self.topic!r}: {error}") from error

    @property
    def waiting(self) -> int:
        """Records that are sent and not acknowledged."""
        return self._sent - self.acknowledged

    def _headers(self, ticks: Ticks) -> Sequence[list[tuple[str, bytes]] | None]:
        if not self._mark:
            return [None] * len(ticks)
        return [[(self._mark, b"%d" % offset)] for offset in ticks.offset.tolist()]

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every record is acknowledged, `timeout_s` of the broker by default.

        Raises
        ------
        FeedError
            If that is not so within the time-out.
        """
        try:
            self._producer.flush(self._give_up_s if timeout_s is None else timeout_s)
        except KafkaError as error:
            raise self._lost(error) from error
        until = time.monotonic() + 1.0  # callbacks of the last batch may still be running
        while self.acknowledged < self._sent and not self._failure and time.monotonic() < until:
            time.sleep(0.001)
        if self._failure is not None or self.acknowledged < self._sent:
            raise self._lost(self._failure)

    def close(self, timeout_s: float | None = None) -> None:
        """Let go of the broker, at the latest when no record can be acknowledged any more."""
        try:
            self._producer.close(timeout=self._give_up_s if timeout_s is None else timeout_s)
        except KafkaError as error:
            raise self._lost(error) from error

    def _acknowledge(self, _answer: object) -> None:
        self.acknowledged += 1

    def _refuse(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _lost(self, error: BaseException | None) -> FeedError:
        return FeedError(
            f"Kafka at {self._bootstrap} acknowledged {self.acknowledged} of {self._sent} records "
            f"of {self.topic!r} ({error!r}); see that it runs and takes records, then publish again"
        )
