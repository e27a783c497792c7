"""How many ticks a second get from Kafka into ClickHouse: `bench_ingest.py [ticks] [rounds]`.

Starts a broker and a store, publishes ticks of three symbols, and lets `runners/ingest.py` write
them, as a process. A rate is taken from its first commit until every row is in the store. Beside
it, in turns: bare polls of the same topic, and bare inserts of the same columns into the same
table, minute bars by its view included. What it is compared with is the slower of the two. Medians
over the rounds.
"""

import contextlib
import itertools
import logging
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clickhouse_connect.driver.client import Client

from sysquant import journal_reader
from sysquant.feeds.publish import Publisher
from sysquant.ingest import ingest_journal
from sysquant.serve import ensure_server
from sysquant.stop import end
from sysquant.store import DEFAULT_DSN, connect, insert, migrate
from sysquant.tables import tick_table
from tests.benchmarks import bench_kafka, report
from tests.benchmarks.bench_live import REPOSITORY, broker_and_store

SIZE, ROUNDS = 1_000_000, 3
TOPIC = "price_ticks"
OF_SLOWER = 0.6  # promised
BLOCK = 200_000
UNIVERSE = "universe.instruments=[{symbol: BINANCE:BTCUSDT}, {symbol: BINANCE:ETHUSDT}, "
UNIVERSE += "{symbol: BINANCE:SOLUSDT}]"
EPOCHS = (f"bench-{number}" for number in itertools.count())


def inserted(client: Client, count: int) -> float:
    """Seconds for the inserts alone, one after another."""
    ticks, epoch = bench_kafka.market(count), next(EPOCHS)
    names = [one.symbol for one in bench_kafka.UNIVERSE]
    blocks = [
        tick_table(ticks[start : start + BLOCK], names, epoch) for start in range(0, count, BLOCK)
    ]
    began = time.perf_counter()
    for number, block in enumerate(blocks):
        insert(client, "ticks", block, f"{epoch}-{number}")
    return time.perf_counter() - began


def ingested(client: Client, bootstrap: str, count: int, *more: str) -> float:
    """Seconds from the first commit of an ingest until the store has every row, for all ticks."""
    epoch, journal = next(EPOCHS), ingest_journal(TOPIC, DEFAULT_DSN)
    shutil.rmtree(journal, ignore_errors=True)
    command = [
        sys.executable, str(REPOSITORY / "runners" / "ingest.py"), UNIVERSE, f"epoch={epoch}",
        f"feed.bootstrap={bootstrap}", f"feed.topic={TOPIC}", *more,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            while not (first := sum(journal_reader.positions(journal).values())):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.001)
            began = time.perf_counter()
            while _rows(client, epoch) < count:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.02)
            took = time.perf_counter() - began
        finally:
            process.terminate()
    return took * count / (count - first)


def _rows(client: Client, epoch: str) -> int:
    sql = "SELECT count() FROM ticks WHERE epoch = {epoch:String}"
    return client.query(sql, {"epoch": epoch}).result_rows[0][0]


def measure(bootstrap: str, client: Client, count: int, rounds: int) -> list[report.Row]:
    """Ticks a second of the ingest, beside the slower of bare polls and bare inserts."""
    publisher = Publisher(bootstrap=bootstrap, topic=TOPIC)
    publisher.publish(bench_kafka.market(count), bench_kafka.UNIVERSE)
    publisher.flush()
    publisher.close()
    ways: dict[str, Callable[[], float]] = {
        "ingest": lambda: ingested(client, bootstrap, count),
        "confluent": lambda: ingested(client, bootstrap, count, "feed.client=confluent"),
        "poll": lambda: bench_kafka.bare_poll(bootstrap, TOPIC, count),
        "consume": lambda: bench_kafka.bare_consume(bootstrap, TOPIC, count),
        "insert": lambda: inserted(client, count),
    }
    ingested(client, bootstrap, count)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    rate = {name: count / statistics.median(took) for name, took in seconds.items()}
    print(*(f"{name}: {value:,.0f} ticks/s" for name, value in rate.items()), sep="\n")
    slower, slower_confluent = (min(rate[name], rate["insert"]) for name in ("poll", "consume"))
    return [
        report.row("ingest_vs_bare_insert", rate["ingest"], slower, "ticks/s"),
        report.row("ingest_confluent_vs_bare", rate["confluent"], slower_confluent, "ticks/s"),
    ]


def main() -> None:
    """Measure, and save."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    options = report.arguments(SIZE, ROUNDS, "ticks")
    before = os.environ.get("SYSQUANT_HOME")
    with broker_and_store() as (bootstrap, home):
        os.environ["SYSQUANT_HOME"] = str(home)
        dsn, server = ensure_server(DEFAULT_DSN)
        with contextlib.closing(connect(dsn)) as client:
            migrate(client)
            rows = measure(bootstrap, client, options.size, options.rounds)
        if server is not None:
            end(server)
        del os.environ["SYSQUANT_HOME"]
        if before is not None:
            os.environ["SYSQUANT_HOME"] = before
    report.save(rows)
    if rows[0]["ratio"] < OF_SLOWER:
        print(f"{rows[0]['name']}: {rows[0]['ratio']:.3g}, promised are {OF_SLOWER:g}")


if __name__ == "__main__":
    main()
