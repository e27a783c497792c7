"""How many ticks a second the live runner trades: `bench_live.py [ticks] [rounds]`.

Starts a broker and a store, publishes ticks of three symbols, and lets `runners/live.py` trade them
from the topic as a process: consumer, every check of the full chain, journal, rows to ClickHouse.
A rate is taken between the journal's first and last input. Beside it, in turns on the same topic:
the plain loop over messages with `json.loads`, as a default install runs it (without the crc32c
package), bare polls (kafka-python's ceiling), and the runner with confluent-kafka. Medians over
the rounds.
"""

import gc
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners.kafka import start
from sysquant import journal_reader
from sysquant.feeds.publish import Publisher
from tests.benchmarks import bench_kafka, report

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE, ROUNDS = 400_000, 5
TOPIC = "price_ticks"
TIMES_NAIVE, OF_CEILING = 4.0, 0.65  # promised of kafka-python
TIMES_LIVE = 2.0  # of confluent-kafka, times kafka-python
NAIVE = """
import sys, time, json
sys.modules["crc32c"] = None  # as where the package is not installed
from kafka import KafkaConsumer
from tests.benchmarks.bench_kafka import plain_loop
print(plain_loop(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
SESSION = [
    "strategy=momentum", "risk=full", "universe=crypto", "feed=kafka", "ingest=none",
    "universe.instruments=[{symbol: BINANCE:BTCUSDT}, {symbol: BINANCE:ETHUSDT}, "
    "{symbol: BINANCE:SOLUSDT}]",
    "runtime.clock=event", "runtime.stop_after_idle_s=1", "runtime.warmup_bars=0",
    "journal=fresh",
]  # fmt: skip


def naive(bootstrap: str, count: int) -> float:
    """Seconds of the plain loop, in a process without crc32c."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", NAIVE, bootstrap, TOPIC, str(count)]
    return float(subprocess.check_output(command, env=environment).split()[-1])


def traded(bootstrap: str, count: int, home: Path, *more: str) -> float:
    """Seconds from the first to the last input of a session, scaled to all ticks."""
    command = [
        sys.executable, str(REPOSITORY / "runners" / "live.py"), *SESSION,
        f"feed.bootstrap={bootstrap}", *more,
    ]  # fmt: skip
    environment = os.environ | {"SYSQUANT_HOME": str(home)}
    journal = home / "data" / "journals" / "momentum-kafka"
    before = journal_reader.meta(journal).get("id")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as live:
        first = _watched(live, journal, before, lambda read: read > 0)
        last = _watched(live, journal, before, lambda read: read >= count)
        output, _ = live.communicate()
    assert live.returncode == 0, output
    assert f"events {count:,} " in output, output[-2000:]
    assert "every row is in the store" in output, output[-2000:]
    return (last[0] - first[0]) * count / (last[1] - first[1])


def _watched(
    live: Any, journal: Path, before: str | None, is_so: Callable[[int], bool]
) -> tuple[float, int]:
    # When the journal stood at what is wanted, and where that was.
    while live.poll() is None:
        if journal_reader.meta(journal).get("id") not in (before, None):
            read = sum(journal_reader.positions(journal).values())
            if is_so(read):
                return time.perf_counter(), read
        time.sleep(0.002)
    raise AssertionError(live.communicate()[0])


def measure(bootstrap: str, count: int, rounds: int, home: Path) -> list[report.Row]:
    """Ticks a second of the live runner, beside the naive loop and bare polls."""
    publisher = Publisher(bootstrap=bootstrap, topic=TOPIC)
    publisher.publish(bench_kafka.market(count), bench_kafka.UNIVERSE)
    publisher.flush()
    publisher.close()
    ways: dict[str, Callable[[], float]] = {
        "live": lambda: traded(bootstrap, count, home),
        "confluent": lambda: traded(bootstrap, count, home, "feed.client=confluent"),
        "naive": lambda: naive(bootstrap, count),
        "poll": lambda: bench_kafka.bare_poll(bootstrap, TOPIC, count),
    }
    traded(bootstrap, count, home)  # makes the tables, compiles
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            seconds[name].append(way())
    rate = {name: count / statistics.median(took) for name, took in seconds.items()}
    return [
        report.row("live_kafka_vs_naive", rate["live"], rate["naive"], "ticks/s"),
        report.row("live_kafka_vs_poll", rate["live"], rate["poll"], "ticks/s"),
        report.row("live_confluent_vs_live", rate["confluent"], rate["live"], "ticks/s"),
    ]


def judge(rows: list[report.Row]) -> Iterator[str]:
    """What falls short of what is promised."""
    promised = {
        "live_kafka_vs_naive": TIMES_NAIVE, "live_kafka_vs_poll": OF_CEILING,
        "live_confluent_vs_live": TIMES_LIVE,
    }  # fmt: skip
    for row in rows:
        if row["ratio"] < promised[row["name"]]:
            yield f"{row['name']}: {row['ratio']:.3g}, promised are {promised[row['name']]:g}"


@contextmanager
def broker_and_store() -> Iterator[tuple[str, Path]]:
    """A broker's address, and a home whose store is served."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        broker = start(0, Path(scratch, "kafka"))
        command = [sys.executable, str(REPOSITORY / "runners" / "store.py"), "--port", "0"]
        store = subprocess.Popen(
            command, env=os.environ | {"SYSQUANT_HOME": str(home)}, stdout=subprocess.DEVNULL
        )
        try:
            yield broker.bootstrap, home
        finally:
            store.terminate()
            store.wait(10)
            broker.stop()


def main() -> None:
    """Measure, and save."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    options = report.arguments(SIZE, ROUNDS, "ticks")
    with broker_and_store() as (bootstrap, home):
        rows = measure(bootstrap, options.size, options.rounds, home)
    report.save(rows)
    print(*judge(rows), sep="\n")


if __name__ == "__main__":
    main()
