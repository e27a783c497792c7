"""What the scenarios disturb: a real broker, the store's server behind a proxy, live runners.

Everything lies below one scratch directory and ends with the `Lab`. A `Source` publishes a market
to a topic, a `Session` is one book over as many lives of `runners/live.py` as it takes.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import kafka
from clickhouse_connect.driver.client import Client
from kafka.structs import TopicPartition

from runners.kafka import Broker
from runners.kafka import start as start_broker
from sysquant import journal_reader
from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.publish import Publisher
from sysquant.feeds.synthetic import SAMPLE, synthetic_ticks
from sysquant.serve import ensure_server
from sysquant.store import connect, find_server
from sysquant.types import Ticks
from tests.chaos.proxy import Proxy
from tests.conftest import REPOSITORY
from tests.forked import Forked

START, END = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
TURN_S = 0.02
# Many decisions from few ticks; snapshots and polls so small that a kill meets each of them often.
WORDS = (
    "strategy=momentum", "strategy.fast=3", "strategy.slow=9", "universe=sample", "bars=1s",
    "snapshots=1s", "feed=kafka", "feed.max_records=200", "store=clickhouse", "ingest=none",
    "runtime.snapshot_s=0.2", "runtime.warmup_bars=0", "execution.latency_ms=20",
)  # fmt: skip

NEWEST = """
    SELECT max(
        ifnull((SELECT max(seq) FROM inputs), 0), ifnull((SELECT max(seq) FROM snapshots), 0))
"""
STALE_S = 1.0
# No entry on a price that is older, or while the feed is as far behind.
WALL_WORDS = (
    "strategy.fast=2", "strategy.slow=3",
    f"risk.checks=[{{check: stale_price, limit: {STALE_S}}}, "
    f"{{check: feed_lag, limit: {STALE_S}}}, {{check: cash, limit: 0.0}}]",
)  # fmt: skip


def market(seconds: float | None = None, *, per_second: float = 50.0) -> Iterator[Ticks]:
    """Ticks of the synthetic market, `per_second` of its own time, the first `seconds` of it."""
    left = None if seconds is None else round(seconds * per_second)
    for block in synthetic_ticks(SAMPLE, START, END, ticks_per_second=per_second):
        ticks = block if left is None else block[:left]
        yield ticks
        if left is not None and (left := left - len(ticks)) <= 0:
            return


def until(is_so: Callable[[], Any], timeout_s: float = 60.0, turn_s: float = TURN_S) -> float:
    """Seconds until it is so; `TimeoutError` when it does not come to that."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"it did not come to that within {timeout_s:.0f} s")
        time.sleep(turn_s)
    return time.monotonic() - began


class Lab:
    """Broker, store and proxy of one run of scenarios, in a scratch directory of its own."""

    broker: Broker

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="chaos-"))
        self._environ = dict(os.environ)
        os.environ["SYSQUANT_HOME"] = str(self.home)
        self._names = itertools.count(1)
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.home, ignore_errors=True)
        self._store = self.home / "data" / "store"
        self.server: subprocess.Popen[bytes] | None = None
        try:
            self.broker = start_broker(0, self.home / "kafka")
            self._ends.callback(lambda: self.broker.stop())
            self.revive_store()
            self._ends.callback(self.end_store, signal.SIGTERM)
            found = find_server(self._store)
            assert found is not None
            self._port = int(found.url.rpartition(":")[2])
            self._login = f"default:{found.users['default']}"
            self.proxy = Proxy(self._port)
            self._ends.callback(lambda: self.proxy.close())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything that was started."""
        self._ends.close()
        os.environ.clear()
        os.environ.update(self._environ)

    # -- the store

    def revive_store(self) -> None:
        """Start the store's server where none runs; it keeps its port."""
        _, process = ensure_server(f"chdb:{self._store}")
        self.server = process or self.server

    def end_store(self, number: signal.Signals) -> None:
        """Send its server a signal that ends it, and wait for that."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGCONT)
            self.server.send_signal(number)
            self.server.wait(20)

    @contextlib.contextmanager
    def stalled_store(self) -> Iterator[None]:
        """SIGSTOP to its server: connections are taken, nothing is answered."""
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """The proxy drops this share of the replies to inserts."""
        self.proxy.drop_share = share
        try:
            yield
        finally:
            self.proxy.drop_share = 0.0

    def dsn(self, database: str, *, direct: bool = False) -> str:
        """Of a database of the store: through the proxy, or around it."""
        port = self._port if direct else self.proxy.port
        return f"http://{self._login}@127.0.0.1:{port}/{database}"

    def client(self, database: str) -> Client:
        """A client of a database, around the proxy."""
        return connect(self.dsn(database, direct=True))

    # -- the broker

    def name(self) -> str:
        """One that nothing has yet."""
        return f"ticks_{next(self._names)}"

    @contextlib.contextmanager
    def state(self, state: str) -> Iterator[None]:
        """`broker` or `store`, and whether it is `down` or `stalled`; any other changes nothing."""
        match state:
            case "store stalled":
                with self.stalled_store():
                    yield
            case "store down":
                self.end_store(signal.SIGKILL)
                yield
                self.revive_store()
            case "broker stalled":
                self.broker.pause()
                yield
                self.broker.resume()
            case "broker down":
                self.broker.kill()
                yield
                self.broker.restart()
            case _:
                yield

    def topic(self, partitions: int = 1) -> str:
        """A new, empty topic."""
        name = self.name()
        self.broker.create_topic(name, partitions)
        return name

    def undisturbed(self, topic: str) -> "Session":
        """A session of its own that reads a topic to its end, and that nobody disturbs."""
        with Session(self, topic, name=f"{topic}_undisturbed") as session:
            session.settle()
        return session

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition -> offset after its last record."""
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.broker.bootstrap)
        try:
            partitions = consumer.partitions_for_topic(topic) or ()
            ends = consumer.end_offsets([TopicPartition(topic, p) for p in partitions])
            return {one.partition: end for one, end in ends.items() if end}
        finally:
            consumer.close()


class Source:
    """Publishes ticks to a topic from a thread of its own, as a context, until they end.

    Parameters
    ----------
    lab, topic : where.
    ticks : in batches; see `market`.
    per_second : of the wall's; None: at once.
    clock : `past`: with the times they have; `now`: with the wall's, when they are sent.
    """

    def __init__(
        self, lab: Lab, topic: str, ticks: Iterator[Ticks], per_second: float | None = None,
        clock: Literal["past", "now"] = "past",
    ) -> None:  # fmt: skip
        self.topic = topic
        self._ticks, self._per_second, self._clock = ticks, per_second, clock
        self.publisher = Publisher(
            bootstrap=lab.broker.bootstrap, topic=topic, timeout_s=120.0, linger_ms=1
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Source":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(at_once=True)

    def wait(self) -> None:
        """Wait for the end of what is published."""
        self._thread.join()

    def finish(self, *, at_once: bool = False) -> int:
        """Wait for its end, or end it; how many the broker has acknowledged."""
        if at_once:
            self._stop.set()
        self._thread.join()
        self.publisher.flush()
        self.publisher.close()
        return self.publisher.acknowledged

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        for block in self._ticks:
            at = 0
            while at < len(block):
                if self._stop.is_set():
                    return
                due = len(block)
                if self._per_second is not None:
                    due = at + int((time.monotonic() - began) * self._per_second) - sent
                due = min(due, len(block))
                if due > at:
                    self._publish(block[at:due])
                    at, sent = due, sent + due - at
                else:
                    time.sleep(TURN_S / 4)

    def _publish(self, ticks: Ticks) -> None:
        if self._clock == "now":
            ticks.ts[:] = time.time_ns() // MILLISECOND * MILLISECOND
            ticks.received_at[:] = ticks.ts
        self.publisher.publish(ticks, SAMPLE)


class Ended(NamedTuple):
    """How a life of a session ended: its exit code, what it said, seconds since it was asked."""

    code: int | None
    said: str
    seconds: float


class Session:
    """One book on one topic.

    Parameters
    ----------
    lab, topic : where, and what it reads.
    words : of the command line, besides `WORDS`.
    clock : of the runtime.
    name : of the book and its database; the topic's by default.
    """

    runner = "live"
    forked = True  # with the imports done; or as a person starts it

    def __init__(
        self, lab: Lab, topic: str, *words: str, clock: Literal["event", "wall"] = "event",
        name: str = "",
    ) -> None:  # fmt: skip
        self.lab, self.topic, self.name = lab, topic, name or topic
        feed = (f"feed.bootstrap={lab.broker.bootstrap}", f"feed.topic={topic}")
        self.words = [*WORDS, *feed, f"runtime.clock={clock}", f"book.name={self.name}", *words]
        self.environment = {"CLICKHOUSE_DSN": lab.dsn(self.name), "SYSQUANT_HOME": str(lab.home)}
        self.process: Forked | subprocess.Popen[str] | None = None
        self.lives = 0
        self.directory = lab.home / "data" / "journals" / self.name

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=20)

    # -- its lives

    def start(self, *, kill_at: str = "") -> None:
        """Begin a life; with `kill_at` it ends itself at that failpoint."""
        given = self.environment | {"SYSQUANT_KILL_AT": kill_at}
        if self.forked:
            self.process = Forked(self.runner, tuple(self.words), self.lab.home, given)
        else:
            self.process = subprocess.Popen(
                [sys.executable, REPOSITORY / "runners" / f"{self.runner}.py", *self.words],
                cwd=self.lab.home, env=os.environ | given, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        self.lives += 1

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60.0) -> Ended:
        """Send a signal and wait for the end."""
        assert self.process is not None
        asked = time.monotonic()
        self.process.send_signal(number)
        return self.wait(timeout_s, asked)

    def wait(self, timeout_s: float = 60.0, since: float | None = None) -> Ended:
        """Wait for an end that comes by itself."""
        assert self.process is not None
        since = since or time.monotonic()
        out, err = self.process.communicate(timeout=timeout_s)
        return Ended(self.process.returncode, f"{out}\n{err}", time.monotonic() - since)

    def is_alive(self) -> bool:
        """Whether a life goes on."""
        return self.process is not None and self.process.poll() is None

    def settle(self, timeout_s: float = 60.0) -> Ended:
        """Go on until all that is on the topic was traded, and every row arrived."""
        wanted = self.lab.end_offsets(self.topic)
        while True:
            if not self.is_alive():
                self.start()
            until(lambda: not self.is_alive() or self.has_read(wanted), timeout_s)
            ended = self.end()
            assert ended.code == 0, ended.said
            if not self.waiting():
                return ended

    def advance(self, inputs: int = 1, timeout_s: float = 60.0) -> float:
        """Seconds until it took so many more inputs, or ended."""
        least = self.inputs() + inputs
        return until(lambda: self.inputs() >= least or not self.is_alive(), timeout_s)

    def has_read(self, wanted: Mapping[int, int]) -> bool:
        """Whether its journal stands at these offsets."""
        return self.positions().items() >= wanted.items()

    # -- its journal, while it writes it

    def ask(self, sql: str) -> Any:
        """The first value of a query's first row; None before there is a journal."""
        rows = journal_reader.ask(self.directory, sql)
        return rows[0][0] if rows else None

    def inputs(self) -> int:
        """Inputs so far."""
        return self.ask(NEWEST) or 0

    def waiting(self) -> int:
        """Rows that the store has not confirmed."""
        return self.ask("SELECT sum(rows) FROM outbox") or 0

    def positions(self) -> dict[int, int]:
        """Partition -> next offset."""
        return journal_reader.positions(self.directory)

    @property
    def run(self) -> str:
        """The journal's id, which is the run of its rows."""
        return self.ask("SELECT value FROM meta WHERE key = 'id'") or ""
