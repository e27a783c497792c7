"""Whole sessions that scenarios disturb: markets on topics, and books over many lives.

A `Source` publishes a market to a topic of a lab; a `Session` is one book that reads it, over as
many lives of `runners/live.py` as it takes.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sysquant import journal_reader
from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.publish import Publisher
from sysquant.feeds.synthetic import SAMPLE, synthetic_ticks
from sysquant.locking import holder
from sysquant.types import Ticks
from tests.chaos.lab import Lab
from tests.conftest import REPOSITORY
from tests.forked import Forked

Clock = Literal["event", "wall"]
START, END = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
TURN_S = 0.02
# Many decisions from few ticks; snapshots and polls so small that a kill meets each of them often.
STRATEGY = "strategy=momentum", "strategy.fast=3", "strategy.slow=9"
WORDS = (
    "universe=sample", "bars=1s",
    "snapshots=1s", "feed=kafka", "feed.max_records=200", "store=clickhouse", "ingest=none",
    "runtime.snapshot_s=0.2", "runtime.warmup_bars=0", "execution.latency_ms=20",
    "book.unpromoted=null",
)  # fmt: skip

NEWEST = """
    SELECT max(
        ifnull((SELECT max(seq) FROM inputs), 0), ifnull((SELECT max(seq) FROM snapshots), 0))
"""
STALE_S = 1.0
# No entry on a price that is older, or while the feed is as far behind.
WALL_WORDS = (
    "strategy.fast=2", "strategy.slow=3", "sizing.retry_after=1",
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
    words : of the command line, besides `WORDS`, and `STRATEGY` where they name no book.
    clock : of the runtime.
    name : of the book and its database; the topic's by default.
    """

    runner = "live"
    forked = True  # with the imports done; or as a person starts it

    def __init__(
        self, lab: Lab, topic: str, *words: str, clock: Clock = "event",
        name: str = "",
    ) -> None:  # fmt: skip
        self.lab, self.topic, self.name = lab, topic, name or topic
        feed = (f"feed.bootstrap={lab.broker.bootstrap}", f"feed.topic={topic}")
        feed += (f"runtime.control_topic=control_{self.name}",)
        traded = () if any(word.startswith("book=") for word in words) else STRATEGY
        feed += (f"runtime.clock={clock}", f"book.name={self.name}")
        self.words = [*WORDS, *traded, *feed, *words]
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

    def begin(self) -> None:
        """Begin a life, and wait until it trades."""
        self.start()
        until(lambda: self.inputs() or not self.is_alive())
        assert self.is_alive(), self.wait().said

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
            until(lambda: not self.is_alive() or self.is_there(wanted), timeout_s)
            ended = self.end()
            assert ended.code == 0, ended.said
            if not self.waiting():
                return ended

    def advance(self, inputs: int = 1, timeout_s: float = 60.0) -> float:
        """Seconds until it took so many more inputs, or ended."""
        least = self.inputs() + inputs
        return until(lambda: self.inputs() >= least or not self.is_alive(), timeout_s)

    def is_there(self, wanted: Mapping[int, int]) -> bool:
        """Whether a life holds the journal, and it stands at these offsets."""
        return holder(self.directory) is not None and self.has_read(wanted)

    def has_read(self, wanted: Mapping[int, int]) -> bool:
        """Whether its journal stands at these offsets."""
        return self.positions().items() >= wanted.items()

    def control(self, *words: str) -> tuple[int | None, dict[str, Any]]:
        """Exit code and answer of `runners/control.py` with these words, to this book."""
        said = ("--json", "--book", self.name, *words)
        call = Forked("control", said, self.lab.home, self.environment)
        out, err = call.communicate(timeout=60)
        return call.returncode, json.loads(out) if out else {"text": err}

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


def undisturbed(lab: Lab, topic: str) -> Session:
    """A session that reads a topic from its start to its end, and that nobody disturbs."""
    with Session(lab, topic, name=f"{topic}_undisturbed") as session:
        session.settle()
    return session
