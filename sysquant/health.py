"""Whether a session is well: its heartbeat, what is wrong by it, and both over HTTP.

Input: what the loop of a session knows, about once a second. Output: `heartbeat.json` beside its
journal, which the loop itself writes, so that one that hangs shows; and, when asked for, `/healthz`
and `/metrics` on 127.0.0.1. `judge` says what is wrong, to this process and to the watchdog alike.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from sysquant.errors import ConfigError, DataError
from sysquant.journal import Journal
from sysquant.runtime import Runtime
from sysquant.vitals import Measures, Vitals

log = logging.getLogger(__name__)

State = Literal["starting", "running", "held", "stopping", "ended", "failed"]
Kind = Literal["missing", "dead", "hung", "lost", "held", "silent"]

FILE = "heartbeat.json"
HOST = "127.0.0.1"
_EVERY_S = 1.0
_SAME_START_S = 2.0  # between what two looks at one process say of its start


class Limits(msgspec.Struct, frozen=True):
    """How long a session may be without what it should have; the keys of `Runtime` of their names.

    A session says its own: a slow market is no fault.
    """

    start_s: float
    hung_s: float
    lost_s: float
    silent_s: float | None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a session says of itself; times are of the wall clock, ns, unless said otherwise.

    Parameters
    ----------
    pid, started : its process, and when that began, s; numbers of processes are used again.
    book, run : the book's name, and the id of its journal.
    state : `held` while the feed waits for the store; `ended` by a plan, `failed` by an error.
    reason : of the end; empty before.
    ts : of this beat.
    engine_ts : engine time.
    connected_ts, record_ts, commit_ts : when the feed was last connected, when the last record
        came, and when the last input was journaled; the start where there was none.
    outbox_rows : rows that the store has not confirmed.
    limits : by which it is judged.
    """

    pid: int
    started: float
    book: str
    run: str
    state: State
    reason: str
    ts: int
    engine_ts: int
    connected_ts: int
    record_ts: int
    commit_ts: int
    outbox_rows: int
    limits: Limits


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a session, in a word and in a sentence."""

    kind: Kind
    detail: str


def judge(beat: Heartbeat, now: int, *, is_alive: bool) -> Problem | None:
    """What is wrong with a session, or None.

    Parameters
    ----------
    beat : its newest heartbeat.
    now : wall clock, ns.
    is_alive : whether its process runs.
    """
    is_cut = beat.state == "stopping" and not is_alive  # by its deadline, or a second signal
    if beat.state == "failed" or (is_cut and beat.reason.startswith("error:")):
        return Problem("dead", f"it ended: {beat.reason}")
    if beat.state == "ended" or is_cut:
        return None
    age_s = (now - beat.ts) / 1e9
    if not is_alive:
        return Problem("dead", f"process {beat.pid} is gone, {age_s:.0f} s after its last beat")
    limits = beat.limits
    if age_s > (limits.start_s if beat.state == "starting" else limits.hung_s):
        return Problem("hung", f"process {beat.pid} runs, without a beat for {age_s:.0f} s")
    if beat.state in ("starting", "stopping"):
        return None
    if beat.state == "held":  # it does not ask the feed
        return Problem("held", f"the feed is held back: {beat.outbox_rows:,} rows wait")
    if (away_s := (now - beat.connected_ts) / 1e9) > limits.lost_s:
        return Problem("lost", f"the feed is not connected, for {away_s:.0f} s")
    quiet_s = (now - beat.record_ts) / 1e9
    if limits.silent_s is not None and quiet_s > limits.silent_s:
        return Problem("silent", f"the feed is connected, without a record for {quiet_s:.0f} s")
    return None


def is_alive(beat: Heartbeat) -> bool:
    """Whether the process of a heartbeat of this machine runs; one that is only not yet reaped
    does not.
    """
    try:
        process = psutil.Process(beat.pid)
        is_same = abs(process.create_time() - beat.started) < _SAME_START_S
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of another user
        return True


def read_heartbeat(directory: Path) -> Heartbeat | None:
    """The heartbeat in a journal's directory, None before the first.

    Raises
    ------
    DataError
        If it is no heartbeat.
    """
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Heartbeat)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; another version may have written it, and the next "
            "start writes it anew"
        ) from error


class _Engine(Protocol):
    @property
    def engine_ts(self) -> int: ...


class Beacon:
    """Writes the heartbeat of one session; called by its loop, from where else it proves nothing.

    Parameters
    ----------
    journal : the heartbeat lies beside it; the name of its directory is the book's.
    engine : of the session.
    runtime : it names the limits.

    Attributes
    ----------
    vitals : fed by the loop; they know of records, commits and the connection.
    last : the newest heartbeat.
    """

    def __init__(self, journal: Journal, engine: _Engine, runtime: Runtime) -> None:
        self.vitals = Vitals(is_now=runtime.clock == "wall")
        self._journal, self._engine, self._most = journal, engine, runtime.outbox_rows
        self._path = journal.directory / FILE
        self._next = 0.0
        self.last = Heartbeat(
            pid=os.getpid(), started=psutil.Process().create_time(),
            book=journal.directory.name, run=journal.id, state="starting", reason="",
            ts=time.time_ns(), engine_ts=0, outbox_rows=0,
            limits=Limits(runtime.start_s, runtime.hung_s, runtime.lost_s, runtime.silent_s),
            **self._times(),
        )  # fmt: skip

    def begin(self) -> None:
        """The session starts, and is measured from now on."""
        self.vitals.open()
        self.beat("starting")

    def beat(self, state: State, reason: str = "") -> None:
        """Write a heartbeat when the state changed, or the last is a second old.

        Who runs with a full outbox is `held`, who ended with `error: ...` has `failed`.
        """
        waiting = self._journal.outbox_rows
        if state == "running" and waiting >= self._most:
            state = "held"
        if state == "ended" and reason.startswith("error:"):
            state = "failed"
        now = time.monotonic()
        if now < self._next and state == self.last.state:
            return
        self._next = now + _EVERY_S
        self.last = msgspec.structs.replace(
            self.last, state=state, reason=reason, ts=time.time_ns(),
            engine_ts=self._engine.engine_ts, outbox_rows=waiting, **self._times(),
        )  # fmt: skip
        beside = self._path.with_suffix(".tmp")
        try:
            beside.write_bytes(msgspec.json.encode(self.last))
            beside.replace(self._path)
        except OSError as error:  # trading goes on; the watchdog will tell
            log.warning("no heartbeat reason=%s", error)

    def measure(self, lag_ms: float, outbox_age_s: float, *, snapshot_age_s: float) -> Measures:
        """See `Vitals.measure`."""
        return self.vitals.measure(
            lag_ms=lag_ms, outbox_rows=self._journal.outbox_rows, outbox_age_s=outbox_age_s,
            snapshot_age_s=snapshot_age_s,
        )  # fmt: skip

    def _times(self) -> dict[str, int]:
        vitals = self.vitals
        return {n: getattr(vitals, n) for n in ("connected_ts", "record_ts", "commit_ts")}


@contextmanager
def served(port: int | None, beacon: Beacon) -> Iterator[None]:
    """Answer `/healthz` and `/metrics` on 127.0.0.1 meanwhile, in a thread of their own.

    Parameters
    ----------
    port : 0 for a free one, which the log names; None for not at all.
    beacon : what is told.

    Raises
    ------
    ConfigError
        If the port cannot be had.
    """
    if port is None:
        yield
        return
    try:
        server = _Server((HOST, port), _pages(beacon))
    except OSError as error:
        raise ConfigError(
            f"runtime.health_port must be free on {HOST}, was {port}: {error}; name another, or 0"
        ) from error
    log.info("health url=http://%s:%d", HOST, server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=[0.1], name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("health lost client=%s", client_address)  # who went away before its answer


def _pages(beacon: Beacon) -> type[BaseHTTPRequestHandler]:
    registry = CollectorRegistry()
    registry.register(_Gauges(beacon))

    class Pages(BaseHTTPRequestHandler):
        server_version, sys_version = "sysquant", ""
        timeout = 5.0  # of a client that connects and says nothing

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/healthz":
                problem = judge(beacon.last, time.time_ns(), is_alive=True)
                body = msgspec.json.encode({"problem": problem, "heartbeat": beacon.last})
                self._answer(503 if problem else 200, "application/json", body)
            elif path == "/metrics":
                self._answer(200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))
            else:
                self._answer(404, "text/plain", b"there is: /healthz, /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  likewise
            log.debug("health said=%s", format % args)

    return Pages


class _Gauges(Collector):
    # The columns of `runtime_metrics` under their own names, and how the session does.

    def __init__(self, beacon: Beacon) -> None:
        self._beacon = beacon

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # not collected before it is asked for

    def collect(self) -> Iterator[GaugeMetricFamily]:
        beat, now = self._beacon.last, time.time_ns()
        problem = judge(beat, now, is_alive=True)
        yield self._gauge("is_well", "1 when /healthz answers 200", float(problem is None))
        yield self._gauge("beat_age_s", "since the last beat of the loop", (now - beat.ts) / 1e9)
        if (measures := self._beacon.vitals.last) is not None:
            for name, value in asdict(measures).items():
                if name != "ts":
                    yield self._gauge(name, f"column {name} of runtime_metrics", value)

    def _gauge(self, name: str, meaning: str, value: float) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"sysquant_{name}", meaning, labels=["book"])
        gauge.add_metric([self._beacon.last.book], value)
        return gauge
