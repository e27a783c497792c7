"""The live driver: feed -> merge -> engine -> one journal transaction -> outbox -> store.

Input: a feed, an engine, a journal. Output: the engine's effects, once each, in the store, whatever
dies on the way. What happens, happens in the commit of `_take`; recovery is a replay of the journal
whose effects must have the recorded hashes. It decides nothing.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from sysquant.desk import Desk
from sysquant.effects import Effects, Labels
from sysquant.engine import Engine
from sysquant.errors import FeedError, JournalError
from sysquant.failpoints import Point, reached
from sysquant.feeds.merge import Merge
from sysquant.health import Beacon
from sysquant.journal import Input, Journal
from sysquant.operation import Hold
from sysquant.outbox import Outbox, tend
from sysquant.pace import Pace
from sysquant.packed import pack_batch
from sysquant.places import Places
from sysquant.recovery import check_book, recover
from sysquant.rows import dead_letters, event, faults, input_row, offsets_json, stats
from sysquant.runtime import Runtime
from sysquant.sealing import Sealer
from sysquant.stop import StopRequest
from sysquant.tally import Tally
from sysquant.types import Bars, DeadLetter, Feed, Poll, Ticks
from sysquant.wall import with_marks

log = logging.getLogger(__name__)

MAX_POLL_S = 0.25  # nothing wakes a poll, so this bounds the answer to a signal
_STEP_S = 0.1  # for the same reason a step takes no longer, whatever a poll brings
_GAP = "entries stopped: records are missing; control.py resume goes on"
PATIENCE_S = 600.0  # with a store that is away when the feed has ended
_LAST_S = 1.5  # of the deadline, for state and rows after the market is left


class LiveRunner:
    """One book, traded on one feed until it ends or is stopped.

    Parameters
    ----------
    engine, feed, journal, outbox, desk, sealer : the parts; the runner closes all but the engine.
    labels : names of what the engine's indexes stand for; `labels.run` is the journal's id.
    history : bars before a time (ns UTC) that hold nothing of the feed from these offsets on
        (partition -> first), for warming up; asked once in a journal's life.
    report : called now and then, and at the end, with the runner.
    say : called with a line for each stage of the end.
    flatten : strategies that leave everything when the session is stopped; others keep it.
    stop : made at the start of the process; by default here.

    Attributes
    ----------
    unflat : strategy -> what it holds, of those that should have become flat at the end.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        feed: Feed,
        journal: Journal,
        outbox: Outbox,
        desk: Desk,
        sealer: Sealer,
        labels: Labels,
        runtime: Runtime,
        history: Callable[[int, Mapping[int, int]], Bars],
        report: Callable[["LiveRunner"], None],
        say: Callable[[str], None] = log.info,
        flatten: Collection[str] = (),
        stop: StopRequest | None = None,
    ) -> None:
        self.engine, self.feed, self.desk = engine, feed, desk
        self.journal, self.outbox = journal, outbox
        self.labels, self.runtime = labels, runtime
        self.tally = Tally.from_json(journal.meta("tally"))
        self.stop = stop or StopRequest()
        self.ended = False
        self._sealer = sealer
        self.beacon = Beacon(journal, engine, runtime)
        self._history, self._report, self._say = history, report, say
        self._flatten, self.unflat = tuple(flatten), dict[str, dict[str, float]]()
        self._has_begun = False
        self._is_whole = True  # not while the engine is ahead of the journal
        self._merge: Merge | None = None
        self._pace = Pace(_STEP_S)
        self._places = Places(journal.positions())
        self._dead: list[DeadLetter] = []
        self._report_at = self._commit_at = time.monotonic()
        # The first input has one, too: who adopts a book begins with its capital.
        self._snapshot_at = self._report_at if journal.last_seq else -math.inf

    # -- the session

    def run(self) -> None:
        """Recover, then trade until the feed ends, it is idle for too long, or a signal comes.

        Raises
        ------
        JournalError
            If the journal was written by another book or cannot be written.
        FeedError
            If the feed cannot stand at the journal's position.
        StoreError
            If nobody sends rows to the store any more; one that is away is waited for.
        """
        try:
            check_book(self.journal, self.engine, self.feed)
            self.beacon.begin()
            recover(self.journal, self.engine, self.feed)
            self.outbox.send(self.journal.sealed())
            self.note("start", f"epoch={self.journal.meta('epoch')} feed={self.feed.name}")
            try:
                self.desk.enter(self._record, self._say)
                self._loop()
            finally:  # one way out, whatever it was
                self._leave(sys.exc_info()[1])
        finally:
            self.beacon.vitals.close()
            self.feed.close()
            self.desk.close()
            self._sealer.close(0.5)
            self.outbox.close(0.5)
            self.journal.close()

    def _loop(self) -> None:
        idle_since, limit = time.monotonic(), self.runtime.stop_after_idle_s
        longest_idle = math.inf if limit is None else limit
        while not self.stop.reason:
            if self._is_held_back():
                idle_since = time.monotonic()
                continue
            poll = self.feed.poll(self._poll_s())
            reached(Point.POLLED)
            self.beacon.vitals.polled(poll)
            self.desk.attend(self._record)
            self._take(poll)
            if len(poll.events) or poll.dead:
                idle_since = time.monotonic()
            if poll.ended:
                self.ended = True
                self.stop.ask("end of feed")
            elif time.monotonic() - idle_since >= longest_idle:
                self.stop.ask("idle")
            self._tend()

    def _poll_s(self) -> float:
        wait_s = math.inf if self._merge is None else self._merge.wait_s(time.monotonic_ns())
        return max(0.0, min(MAX_POLL_S, wait_s))

    def _is_held_back(self) -> bool:
        # The outbox is full: nothing is read until the store has taken some of it.
        if self.journal.outbox_rows < self.runtime.outbox_rows:
            return False
        time.sleep(0.05)
        self.desk.attend(self._record)
        self._tend()
        return True

    # -- one batch

    def _take(self, poll: Poll) -> None:
        for gap in self._places.take(poll):  # retention overtook us: never silence
            self.note("gap", gap, logging.WARNING)
            self.desk.operate(self._record, _GAP, Hold("gap", True))
        self._dead += poll.dead
        self.tally.dead += len(poll.dead)
        if self._merge is None:
            self._merge = Merge(self._places.read, grace_ms=self.runtime.grace_ms)
        batch: Ticks | Bars = self._merge.take(poll, time.monotonic_ns())
        if poll.ended:
            rest = self._merge.flush()
            batch = Ticks.join([batch, rest]) if isinstance(batch, Ticks) else batch
        if self.runtime.clock == "wall":
            seen, due = self.engine.engine_ts, self.engine.next_mark
            batch = with_marks(
                batch, time.time_ns(), engine_ts=seen, next_mark=due, grace_ms=self.runtime.grace_ms
            )
        for number, part in enumerate(self._pace.parts(batch)):
            if number:
                self.desk.attend(self._record)
            self._step(part)
        if self._dead:
            self._commit(None, {})

    def _step(self, batch: Ticks | Bars) -> None:
        if not self._has_begun:
            self._begin(batch)
        self._is_whole = False
        effects = self.engine.step(batch)
        reached(Point.STEPPED)
        records = int(np.count_nonzero(batch.symbol >= 0))  # a clock mark is none
        self._places.journal(batch)
        offsets = offsets_json(batch.partition, batch.offset)
        self._record(
            self.feed.kind, pack_batch(batch), effects, rows=records, offsets=offsets,
            tables=self._faults(),
        )  # fmt: skip
        self.beacon.vitals.taken(batch)
        self._is_whole = True
        self.desk.settle(self._record)

    def _begin(self, batch: Ticks | Bars) -> None:
        # Models and history, before the first batch; a history once in a journal's life.
        self._has_begun = True
        self.desk.swap(self._record, int(batch.ts[0]))
        is_warm = self.engine.engine_ts or self.journal.meta("warmed") is not None
        if is_warm or not self.runtime.warmup_bars:
            return
        bars = self._history(self.engine.warmup_end(batch), self._places.first)
        self._is_whole = False
        self.engine.warm(bars)
        log.info("warmed up bars=%d", len(bars))
        self._record(
            "history", pack_batch(bars), None, rows=len(bars),
            tables=self._faults(), notes={"warmed": str(len(bars))},
        )  # fmt: skip

    def _faults(self) -> dict[str, pa.Table]:
        # Events of strategies that raised; they are off, and leave what they hold.
        for name, _, error in self.engine.faults:
            log.error("fault strategy=%s: %s; it is off and leaves what it holds", name, error)
        rows = faults(self.labels.run, self.journal.last_seq + 1, self.engine.faults)
        self.engine.faults.clear()
        return rows

    def _record(
        self,
        kind: str,
        payload: bytes,
        effects: Effects | None,
        *,
        rows: int = 0,
        offsets: str = "{}",
        tables: Mapping[str, pa.Table] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
        answers: Mapping[str, bytes] = MappingProxyType({}),
        waits: bool = True,
    ) -> int:
        # One input, and what came of it: none for a history.
        seq = self.journal.last_seq + 1
        entry = Input(seq, kind, payload, effects.hash() if effects else b"")
        caused = dict[str, pa.Table]()
        if effects:
            caused = self.labels.tables(effects, seq, self.engine.models)
            self.tally.add(effects, rows, self.labels.risk)
        caused["inputs"] = input_row(self.labels.run, entry, rows, offsets)
        self._commit(entry, {**caused, **tables}, notes, answers, waits)
        return seq

    def _commit(
        self, entry: Input | None, tables: Mapping[str, pa.Table],
        notes: Mapping[str, str] = MappingProxyType({}),
        answers: Mapping[str, bytes] = MappingProxyType({}),
        waits: bool = True,
    ) -> None:  # fmt: skip
        # The one moment anything happens; one that does not wait does nothing else beside.
        now = time.monotonic()
        snapshot = None
        if entry is not None and waits and now - self._snapshot_at >= self.runtime.snapshot_s:
            self._snapshot_at = now
            snapshot = self.engine.state()
        dead, self._dead = self._dead, []
        extra = {"dead_letter": dead_letters(dead)} if dead else {}
        reached(Point.COMMITTING)
        sealed = self.journal.commit(
            entry, {**tables, **extra},
            positions=self._places.next(),
            notes={"tally": self.tally.to_json(), **notes},
            answers=answers,
            snapshot=snapshot,
            sent=self.outbox.arrived() if waits else (),
            sealed=self._sealer.sealed if waits else 0,
            waits=waits,
        )  # fmt: skip
        reached(Point.COMMITTED)
        self.outbox.send(sealed)
        if snapshot is not None:
            self._sealer.ask(self.journal.outlived())

    def note(self, kind: str, detail: str, level: int = logging.INFO) -> None:
        """Say what happened, and keep it as a row of `events`."""
        log.log(level, "%s %s", kind, detail)
        row = event(self.labels.run, self.engine.engine_ts or time.time_ns(), kind, detail)
        self.outbox.send(self.journal.commit(None, {"events": row}))

    def _tend(self) -> None:
        # What goes on beside the ticks: sealing by age, offsets for lag tools, reports.
        self.outbox.check()
        self.beacon.beat("running")
        self.desk.watch_outbox(self._record, self.runtime.outbox_rows)
        now = time.monotonic()
        if now - self._report_at >= self.runtime.report_s:
            self._report_at = now
            self._report(self)
            self.outbox.send(self.journal.commit(None, self._stats()))
        tend(self.journal, self.outbox)
        if now - self._commit_at >= 1.0:
            self._commit_at = now
            self.feed.commit(self.positions)

    def _stats(self) -> dict[str, pa.Table]:
        age_s = time.monotonic() - self._snapshot_at
        measures = self.beacon.measure(self.lag_ms(), self.outbox.age_s, snapshot_age_s=age_s)
        told = stats(self.labels.run, self.feed.name, self.tally, self.engine, measures)
        return told | self.desk.drift()

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> next offset, of what was journaled."""
        return self._places.next()

    def lag_ms(self) -> float:
        """Wall clock minus engine time; NaN where events are replayed."""
        if self.runtime.clock == "event" or not self.engine.engine_ts:
            return float("nan")
        return (time.time_ns() - self.engine.engine_ts) / 1e6

    # -- start and end

    def _leave_market(self, *, reads: bool) -> None:
        # A replay does not go on without us: it is left as it stands, unless it is to be flat.
        if self.ended or (self.runtime.clock == "event" and not self._flatten):
            self._tell_unflat()
            return
        self.desk.leave(self._record, self._flatten)
        self._say("entries are stopped, orders cancelled")
        until = time.monotonic() + max(0.0, self.runtime.deadline_s - _LAST_S) * reads
        while self.desk.unflat(self._flatten) and time.monotonic() < until:
            try:
                poll = self.feed.poll(min(0.1, self._poll_s()))
            except FeedError as error:
                self._say(f"no more trades: {error}")
                break
            self.beacon.beat("stopping", self.stop.reason)
            self.desk.attend(self._record)
            self._take(poll)
        self._tell_unflat()

    def _tell_unflat(self) -> None:
        self.unflat = self.desk.unflat(self._flatten)
        if self._flatten and not self.unflat:
            self._say(f"flat: {', '.join(self._flatten)}")
        for name, positions in self.unflat.items():
            told = ", ".join(f"{symbol} {quantity:g}" for symbol, quantity in positions.items())
            self._say(f"not flat: {name} keeps {told or 'working orders'}, no trade came in time")

    def _leave(self, error: BaseException | None) -> None:
        # Not over a journal that cannot be written, or an engine that is ahead of it.
        if error is not None:
            self.stop.ask(f"error: {error}")
        if self._is_whole and not isinstance(error, JournalError):
            self._finish(reads=error is None)

    def _finish(self, *, reads: bool) -> None:
        # One way out, whatever the reason: the market, state, rows, offsets, goodbye.
        until = time.monotonic() + self.runtime.deadline_s - 1.0
        reached(Point.FINISHING)
        self._say(f"stopping: {self.stop.reason}")
        self.beacon.beat("stopping", self.stop.reason)
        self._leave_market(reads=reads)
        if self.ended:
            until = time.monotonic() + PATIENCE_S
        self.note("stop", self.stop.reason)
        sealed = self.journal.commit(
            None,
            self._stats(),
            notes={"ended": "1"} if self.ended else {},
            snapshot=self.engine.state() if self.journal.last_seq else None,
            sent=self.outbox.arrived(),
            seal_all=True,
        )
        reached(Point.FINISHED)
        self.outbox.send(sealed)
        self._say("the state is in the journal")
        while not self.outbox.flush(0.1) and time.monotonic() < until:
            self.outbox.check()
            self.beacon.beat("stopping", self.stop.reason)
            if self.stop.is_asked:
                until = min(until, time.monotonic() + self.runtime.deadline_s - 1.0)
        self.feed.commit(self.positions)
        self.journal.commit(None, {}, sent=self.outbox.arrived())
        waiting = self.journal.outbox_rows
        self._say(
            f"{waiting:,} rows wait for the store" if waiting else "every row is in the store"
        )
        self._report(self)
        self.beacon.beat("ended", self.stop.reason)
