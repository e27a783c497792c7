"""The live driver: feed -> merge -> engine -> one journal transaction -> outbox -> store.

Input: a feed, an engine, a journal. Output: the engine's effects, once each, in the store, whatever
dies on the way. What happens, happens in the commit of `_take`; recovery is a replay of the journal
whose effects must have the recorded hashes. It decides nothing.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from sysquant.compiled import machine, source_hash
from sysquant.effects import Labels
from sysquant.engine import Engine
from sysquant.errors import FeedError, JournalError, SysquantError
from sysquant.feeds.merge import Merge
from sysquant.journal import Input, Journal, offsets_json
from sysquant.outbox import Outbox
from sysquant.packed import pack_batch, unpack_batch
from sysquant.rows import dead_letters, event, feed_stats, input_row
from sysquant.runtime import Runtime
from sysquant.stop import StopRequest
from sysquant.tally import Tally
from sysquant.types import Bars, DeadLetter, Feed, Poll, Ticks, clock_mark

log = logging.getLogger(__name__)

MAX_POLL_S = 0.25  # nothing wakes a poll, so this bounds the answer to a signal
PATIENCE_S = 600.0  # with a store that is away when the feed has ended


class LiveRunner:
    """One book, traded on one feed until it ends or is stopped.

    Parameters
    ----------
    engine, feed, journal, outbox : the parts; the runner closes feed, outbox and journal.
    labels : names of what the engine's indexes stand for; `labels.run` is the journal's id.
    history : bars before a time (ns UTC) that hold nothing of the feed from these offsets on
        (partition -> first), for warming up; asked once in a journal's life.
    report : called now and then, and at the end, with the runner.
    stop : made at the start of the process; by default here.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        feed: Feed,
        journal: Journal,
        outbox: Outbox,
        labels: Labels,
        runtime: Runtime,
        history: Callable[[int, Mapping[int, int]], Bars],
        report: Callable[["LiveRunner"], None],
        stop: StopRequest | None = None,
    ) -> None:
        self.engine = engine
        self.feed = feed
        self.journal = journal
        self.outbox = outbox
        self.labels = labels
        self.runtime = runtime
        self.tally = Tally.from_json(journal.meta("tally"))
        self.stop = stop or StopRequest()
        self.ended = False
        self._history = history
        self._report = report
        self._merge: Merge | None = None
        self._positions = journal.positions()
        self._read: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self._last_good: dict[int, int] = {}
        self._dead: list[DeadLetter] = []
        self._snapshot_at = self._report_at = self._commit_at = time.monotonic()

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
            self._recover()
            self.outbox.send(self.journal.sealed())
            self._note("start", f"epoch={self.journal.meta('epoch')} feed={self.feed.name}")
            try:
                self._loop()
            except JournalError:
                raise
            except SysquantError as error:
                self.stop.ask(f"error: {error}")
                self._finish()
                raise
            self._finish()
        finally:
            self.feed.close()
            self.outbox.close(0.5)
            self.journal.close()

    def _loop(self) -> None:
        idle_since = time.monotonic()
        while not self.stop.reason:
            if self._is_held_back():
                idle_since = time.monotonic()
                continue
            poll = self.feed.poll(self._poll_s())
            self._take(poll)
            if len(poll.events) or poll.dead:
                idle_since = time.monotonic()
            if poll.ended:
                self.ended = True
                self.stop.ask("end of feed")
            elif self._is_idle(idle_since):
                self.stop.ask("idle")
            self._tend()

    def _is_idle(self, since: float) -> bool:
        limit = self.runtime.stop_after_idle_s
        return limit is not None and time.monotonic() - since >= limit

    def _poll_s(self) -> float:
        waits = [MAX_POLL_S]
        if self._merge is not None:
            waits.append(self._merge.wait_s(time.monotonic_ns()))
        return max(0.0, min(waits))

    def _is_held_back(self) -> bool:
        # The outbox is full: nothing is read until the store has taken some of it.
        if self.journal.outbox_rows < self.runtime.outbox_rows:
            return False
        time.sleep(0.05)
        self._tend()
        return True

    # -- one batch

    def _take(self, poll: Poll) -> None:
        self._check_gaps(poll)
        self._first = self._first or _first_offsets(poll)
        self._read |= poll.next_offset
        self._dead += poll.dead
        self.tally.dead += len(poll.dead)
        if len(poll.events):
            for partition in np.unique(poll.events.partition):
                rows = poll.events.partition == partition
                self._last_good[int(partition)] = int(poll.events.offset[rows].max())
        if self._merge is None:
            self._merge = Merge(self._read, grace_ms=self.runtime.grace_ms)
        batch: Ticks | Bars = self._merge.take(poll, time.monotonic_ns())
        if poll.ended:
            rest = self._merge.flush()
            batch = Ticks.join([batch, rest]) if isinstance(batch, Ticks) else batch
        if self.runtime.clock == "wall":
            batch = self._with_wall_mark(batch)
        if len(batch):
            self._step(batch)
        elif self._dead:
            self._commit(None, {})

    def _check_gaps(self, poll: Poll) -> None:
        # A first offset above the expected one: retention overtook us. Never silence.
        for partition in np.unique(poll.events.partition) if len(poll.events) else ():
            expected = self._read.get(int(partition), self._positions.get(int(partition)))
            first = int(poll.events.offset[poll.events.partition == partition].min())
            dead = [d.offset for d in poll.dead if d.partition == partition]
            first = min([first, *dead])
            if expected is not None and first > expected:
                self._note("gap", f"partition={partition} expected={expected} first={first}")

    def _with_wall_mark(self, batch: Ticks | Bars) -> Ticks | Bars:
        end = self.engine.next_mark
        due = end and time.time_ns() >= end + self.runtime.grace_ms * 1_000_000
        if not due or not isinstance(batch, Ticks) or (len(batch) and batch.ts.max() >= end):
            return batch
        return Ticks.join([batch, clock_mark(end)])

    def _step(self, batch: Ticks | Bars) -> None:
        if self.journal.last_seq == 0:
            self._warm(self.engine.warmup_end(batch))
        effects = self.engine.step(batch)
        seq = self.journal.last_seq + 1
        entry = Input(seq, self.feed.kind, pack_batch(batch), effects.hash())
        records = int(np.count_nonzero(batch.symbol >= 0))  # a clock mark is none
        self.tally.add(effects, records, self.labels.risk)
        for partition in np.unique(batch.partition[batch.partition >= 0]):
            last = batch.offset[batch.partition == partition].max()
            self._positions[int(partition)] = int(last) + 1
        tables = self.labels.tables(effects, seq)
        offsets = offsets_json(batch.partition, batch.offset)
        self._commit(
            entry, tables | {"inputs": input_row(self.labels.run, entry, records, offsets)}
        )

    def _warm(self, end: int) -> None:
        if not self.runtime.warmup_bars:
            return
        bars = self._history(end, self._first)
        self.engine.warm(bars)
        entry = Input(1, "history", pack_batch(bars), b"")
        log.info("warmed up bars=%d", len(bars))
        self._commit(entry, {"inputs": input_row(self.labels.run, entry, len(bars), "{}")})

    def _commit(self, entry: Input | None, tables: Mapping[str, pa.Table]) -> None:
        # The one moment anything happens.
        now = time.monotonic()
        snapshot = None
        if entry is not None and now - self._snapshot_at >= self.runtime.snapshot_s:
            self._snapshot_at = now
            snapshot = self.engine.state()
        for partition, offset in self._read.items():
            if self._last_good.get(partition, -1) < self._positions.get(partition, 0):
                self._positions[partition] = offset  # nothing of it is held: bad records are passed
        dead, self._dead = self._dead, []
        extra = {"dead_letter": dead_letters(dead)} if dead else {}
        sealed = self.journal.commit(
            entry,
            {**tables, **extra},
            positions=self._positions,
            notes={"tally": self.tally.to_json()},
            snapshot=snapshot,
            sent=self.outbox.arrived(),
        )
        self.outbox.send(sealed)

    def _note(self, kind: str, detail: str) -> None:
        log.log(logging.WARNING if kind == "gap" else logging.INFO, "%s %s", kind, detail)
        row = event(self.labels.run, self.engine.engine_ts or time.time_ns(), kind, detail)
        self.outbox.send(self.journal.commit(None, {"events": row}))

    def _tend(self) -> None:
        # What goes on beside the ticks: sealing by age, offsets for lag tools, reports.
        self.outbox.check()
        now = time.monotonic()
        if now - self._report_at >= self.runtime.report_s:
            self._report_at = now
            self._report(self)
            self.outbox.send(self.journal.commit(None, {"feed_stats": self._stats()}))
        if self.journal.is_sealing_due():
            self.outbox.send(self.journal.commit(None, {}, sent=self.outbox.arrived()))
        if now - self._commit_at >= 1.0:
            self._commit_at = now
            self.feed.commit(self._positions)

    def _stats(self) -> pa.Table:
        return feed_stats(
            self.labels.run, self.feed.name, self.tally, self.engine, self.lag_ms(),
            self.journal.outbox_rows,
        )  # fmt: skip

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> next offset, of what was journaled."""
        return dict(self._positions)

    def lag_ms(self) -> float:
        """Wall clock minus engine time; NaN where events are replayed."""
        if self.runtime.clock == "event" or not self.engine.engine_ts:
            return float("nan")
        return (time.time_ns() - self.engine.engine_ts) / 1e6

    # -- start and end

    def _recover(self) -> None:
        journal = self.journal
        self._check_book()
        seq = 0
        found = journal.snapshot()
        if found is not None:
            seq, state = found
            self.engine.restore(state)
        replayed = 0
        for entry in journal.inputs(after=seq):
            self._replay(entry)
            replayed += 1
        if journal.last_seq:
            log.info("recovered snapshot=%d inputs_replayed=%d", seq, replayed)
        journal.remember(
            build=self._build(),
            epoch=str(int(journal.meta("epoch") or 0) + 1),
            feed=self.feed.name,
            fingerprint=json.dumps(self.engine.fingerprint()),
        )
        self.feed.seek(self._positions)

    def _replay(self, entry: Input) -> None:
        if entry.kind == "history":
            bars = unpack_batch("bars", entry.payload)
            self.engine.warm(bars)  # pyright: ignore[reportArgumentType]
            return
        effects = self.engine.step(unpack_batch(entry.kind, entry.payload))
        if effects.hash() != entry.effects_hash:
            raise JournalError(
                f"replaying input {entry.seq} of the journal gives other effects than it recorded; "
                "the state is not what it was: finish with the build that wrote it, or begin anew "
                "with journal=fresh (positions are given up, the old journal is kept)"
            )

    def _check_book(self) -> None:
        # Another configuration never continues this book's state; another build only when whole.
        journal = self.journal
        written = journal.meta("fingerprint")
        if written is None:
            return
        ways_out = (
            "go on with what it was, or begin anew with journal=fresh "
            "(positions are given up, the old journal is kept)"
        )
        if journal.meta("feed") != self.feed.name:
            raise FeedError(
                f"this journal was read from {journal.meta('feed')}, "
                f"the feed now is {self.feed.name}; {ways_out}"
            )
        was = json.loads(written)
        for name, value in self.engine.fingerprint().items():
            if was.get(name) != value:
                raise JournalError(
                    f"this journal's book differs: {name} was {was.get(name)}, is {value}; "
                    f"{ways_out}"
                )
        found = journal.snapshot()
        whole = found is not None and found[0] == journal.last_seq
        if journal.meta("build") != self._build() and not whole:
            raise JournalError(
                "this journal has inputs after its last snapshot and was written by another "
                f"build; finish with that build, or {ways_out}"
            )

    @staticmethod
    def _build() -> str:
        return json.dumps({"source": source_hash()[:16], **machine()})

    def _finish(self) -> None:
        # One way out, whatever the reason: state, then rows, then offsets, then goodbye.
        patience_s = PATIENCE_S if self.ended else self.runtime.deadline_s - 1.0
        until = time.monotonic() + patience_s
        self._note("stop", self.stop.reason)
        notes = {"ended": "1"} if self.ended else {}
        sealed = self.journal.commit(
            None,
            {"feed_stats": self._stats()},
            notes=notes,
            snapshot=self.engine.state() if self.journal.last_seq else None,
            sent=self.outbox.arrived(),
            seal_all=True,
        )
        self.outbox.send(sealed)
        while not self.outbox.flush(0.1) and time.monotonic() < until:
            self.outbox.check()
            if self.stop.is_asked:
                until = min(until, time.monotonic() + self.runtime.deadline_s - 1.0)
        self.feed.commit(self._positions)
        self.journal.commit(None, {}, sent=self.outbox.arrived())
        self._report(self)


def _first_offsets(poll: Poll) -> dict[int, int]:
    # Where a session begins in every partition, from its first poll.
    first = dict(poll.next_offset)
    for partition in first:
        good = poll.events.offset[poll.events.partition == partition].tolist()
        bad = [letter.offset for letter in poll.dead if letter.partition == partition]
        first[partition] = min([first[partition], *good, *bad])
    return first
