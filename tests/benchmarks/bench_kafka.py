"""How fast ticks come from Kafka: `python tests/benchmarks/bench_kafka.py [ticks] [rounds]`.

Starts a broker, publishes that many ticks of three symbols, and reads them back in turns: bare
polls of each client (its ceiling, nothing decoded), our feed with each (polled, decoded to
columns), and a plain loop over messages with `json.loads`: with the `crc32c` package, and as a
default install of kafka-python runs it, without (`naive`, in a process of its own). Medians over
the rounds; saved is our rate beside each of the others.
"""

import gc
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


import numpy as np
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from runners.kafka import start
from sysquant.feeds.kafka import KafkaFeed
from sysquant.feeds.publish import Publisher
from sysquant.types import Instrument, Ticks
from tests.benchmarks import report

UNIVERSE = [Instrument(f"BINANCE:{name}USDT") for name in ("BTC", "ETH", "SOL")]
FETCH_BYTES = 8 << 20
ROOT = Path(__file__).resolve().parents[2]


def market(count: int) -> Ticks:
    """Seeded ticks, three milliseconds apart, with the digits that real ones have."""
    draw = np.random.default_rng(1)
    ts = 1_747_608_972_480 * 1_000_000 + np.arange(count) * 3_000_000
    return Ticks(
        ts=ts,
        symbol=draw.integers(0, len(UNIVERSE), count).astype(np.int32),
        price=np.round(2400 + np.cumsum(draw.normal(0, 0.05, count)), 2),
        volume=np.round(draw.exponential(0.2, count), 4),
        received_at=ts - draw.integers(0, 10**6, count) * 1000,
        partition=np.zeros(count, np.int32),
        offset=np.arange(count),
    )


# What each of our rates is compared with.
ROWS = {
    "kafka_feed_vs_bare_poll": ("kafka_feed", "bare_poll"),
    "kafka_feed_vs_plain_loop": ("kafka_feed", "plain_loop"),
    "kafka_feed_vs_naive": ("kafka_feed", "naive"),
    "confluent_feed_vs_bare_consume": ("confluent_feed", "bare_consume"),
    "confluent_feed_vs_kafka_feed": ("confluent_feed", "kafka_feed"),
    "confluent_feed_vs_naive": ("confluent_feed", "naive"),
}


def bare_poll(bootstrap: str, topic: str, count: int) -> float:
    """Seconds for polls alone."""
    consumer = _consumer(bootstrap, topic)
    began, read = time.perf_counter(), 0
    while read < count:
        found = consumer.poll(timeout_ms=250, max_records=5000)
        read += sum(map(len, found.values()))
    took = time.perf_counter() - began
    consumer.close()
    return took


def bare_consume(bootstrap: str, topic: str, count: int) -> float:
    """The same for confluent-kafka, with the feed's settings."""
    feed = KafkaFeed(bootstrap=bootstrap, universe=UNIVERSE, topic=topic, client="confluent")
    feed.seek({})
    consumer = feed._client._consumer  # pyright: ignore
    began, read = time.perf_counter(), 0
    while read < count:
        read += len(consumer.consume(500, 0.25))
    took = time.perf_counter() - began
    feed.close()
    return took


def kafka_feed(bootstrap: str, topic: str, count: int, client: str = "kafka_python") -> float:
    """Seconds for polls to columns."""
    feed = KafkaFeed(bootstrap=bootstrap, universe=UNIVERSE, topic=topic, client=client)
    feed.seek({})
    began, read = time.perf_counter(), 0
    while read < count:
        read += len(feed.poll(0.25).events)
    took = time.perf_counter() - began
    feed.close()
    return took


def confluent_feed(bootstrap: str, topic: str, count: int) -> float:
    """The same through confluent-kafka."""
    return kafka_feed(bootstrap, topic, count, "confluent")


def plain_loop(bootstrap: str, topic: str, count: int) -> float:
    """Seconds for one message after another, each decoded to a dict."""
    consumer = _consumer(bootstrap, topic)
    began, read = time.perf_counter(), 0
    for message in consumer:
        if json.loads(message.value)["price"] > 0:
            read += 1
        if read == count:
            break
    took = time.perf_counter() - began
    consumer.close()
    return took


def naive(bootstrap: str, topic: str, count: int) -> float:
    """The plain loop without `crc32c`, which is chosen when kafka-python is imported."""
    code = (
        "import sys; sys.modules['crc32c'] = None\n"
        "from tests.benchmarks.bench_kafka import plain_loop\n"
        "from kafka.record import util\n"
        "assert util.crc32c_c is None\n"
        "print(plain_loop(sys.argv[1], sys.argv[2], int(sys.argv[3])))"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, bootstrap, topic, str(count)]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _consumer(bootstrap: str, topic: str) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


def measure(bootstrap: str, topic: str, count: int, rounds: int) -> list[report.Row]:
    """Ticks a second of our feed with each client, beside `ROWS`, from an empty topic."""
    publisher = Publisher(bootstrap=bootstrap, topic=topic)
    began = time.perf_counter()
    publisher.publish(market(count), UNIVERSE)
    publisher.flush()
    print(f"published {count / (time.perf_counter() - began):,.0f} ticks/s")
    publisher.close()
    ways = [bare_poll, kafka_feed, plain_loop, naive]
    if report.is_installed("confluent_kafka"):
        ways += [bare_consume, confluent_feed]
    seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            gc.collect()
            seconds[way.__name__].append(way(bootstrap, topic, count))
    rates = {name: count / statistics.median(took) for name, took in seconds.items()}
    return [
        report.row(name, rates[ours], rates[other], "ticks/s")
        for name, (ours, other) in ROWS.items()
        if ours in rates
    ]


def main() -> None:
    """Measure, and save the rows."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    options = report.arguments(200_000, 5, "ticks")
    with tempfile.TemporaryDirectory() as scratch:
        broker = start(0, scratch)
        try:
            rows = measure(broker.bootstrap, "price_ticks", options.size, options.rounds)
        finally:
            broker.stop()
    report.save(rows)


if __name__ == "__main__":
    main()
