"""The live driver in one process: the same effects as a backtest, over restarts and bad input."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sysquant import backtesting, recovery
from sysquant.control import Keys
from sysquant.desk import Desk
from sysquant.effects import Effects, Labels
from sysquant.errors import FeedError, JournalError, StoreError
from sysquant.exits import Exits
from sysquant.journal import Journal
from sysquant.journal_reader import JournalReader
from sysquant.live import LiveRunner
from sysquant.models.loader import ModelLoader
from sysquant.models.registry import Registry
from sysquant.outbox import Outbox
from sysquant.packed import unpack_batch
from sysquant.risk import RiskChain
from sysquant.runtime import Runtime
from sysquant.sealing import Sealer
from sysquant.swapping import Serving, Swapper
from sysquant.types import CLOCK_MARK, SECOND, Bars, DeadLetter, Poll, Ticks
from tests.market import CHECKS, Flip, engine, ticks


class MemoryFeed:
    """A feed of one partition that ends, from ticks in memory; records 7 and 8 are bad."""

    kind = "ticks"
    interval = 0
    name = "memory"

    def __init__(self, events: Ticks, *, size: int = 97, bad: tuple[int, ...] = ()) -> None:
        self.events, self.size, self.bad = events, size, bad
        self.at = 0
        self.committed = {}
        self.breaks_at = None

    def seek(self, next_offset):
        self.at = next_offset.get(0, 0)

    def poll(self, timeout_s):
        if self.breaks_at is not None and self.at >= self.breaks_at:
            raise FeedError("the broker refuses for good")
        batch = self.events[self.at : self.at + self.size]
        self.at += len(batch)
        good = ~np.isin(batch.offset, self.bad)
        dead = tuple(
            DeadLetter(self.name, 0, int(offset), "price was NaN", b"{}")
            for offset in batch.offset[~good]
        )
        return Poll(batch[good], dead, {0: self.at}, frozenset(), self.at >= len(self.events))

    def commit(self, next_offset):
        self.committed = dict(next_offset)

    def close(self):
        pass


class MemoryOutbox:
    """Takes every sealed batch at once; a stand-in for a store that always answers."""

    def __init__(self, journal: Journal, tables: dict) -> None:
        self.reader, self.tables, self.done = JournalReader(journal.path), tables, []

    age_s = 0.0

    def send(self, batches):
        for batch in batches:
            self.tables.setdefault(batch.table, {})[batch.token] = self.reader.rows(batch)
            self.done.append(batch)

    def arrived(self):
        done, self.done = self.done, []
        return done

    @property
    def has_arrived(self):
        return bool(self.done)

    def flush(self, timeout_s):
        return True

    def check(self):
        pass

    def close(self, timeout_s=1.0):
        self.reader.close()


def no_history(_before, _first):
    return Bars.empty()


ORDER = [one["check"] for one in CHECKS]
KEYS = Keys({"operate": b"o" * 32, "rearm": b"r" * 32})


def no_models() -> ModelLoader:
    return ModelLoader(Registry(Path()), lambda: pytest.fail("nobody asks for a model"), {})


def session(
    directory: Path, feed: Any, tables: dict[str, Any], *, book: Any = None,
    history: Any = no_history, mailboxes: Any = (), flatten: Any = (), outbox: Any = None,
    least: int = 5_000, loader: Any = None, serving: Any = None, **runtime: Any,
) -> Any:  # fmt: skip
    journal = Journal(directory)
    book = book or engine()
    outbox = outbox(journal.path) if outbox else MemoryOutbox(journal, tables)
    return LiveRunner(
        engine=book,
        feed=feed,
        journal=journal,
        outbox=outbox,
        desk=Desk(
            book="test",
            engine=book,
            journal=journal,
            keys=KEYS,
            mailboxes=mailboxes,
            send=outbox.send,
            models=Swapper(
                book, journal, loader or no_models(), lambda: book.engine_ts, serving or Serving()
            ),
        ),
        sealer=Sealer(journal.path, directory / "sealed", newest=journal.last_seq, least=least),
        flatten=flatten,
        labels=Labels(journal.id, list(book.strategies), book.symbols, book.risk),
        runtime=Runtime(**{"snapshot_s": 0.0, **runtime}),
        history=history,
        report=lambda runner: None,
    )


def rows(tables, name):
    """Decided rows of a table: all but run and seq."""
    found = [row for table in tables.get(name, {}).values() for row in table.to_pylist()]
    return [{k: v for k, v in row.items() if k not in ("run", "seq")} for row in found]


def expected(events, name):
    result = backtesting.run(engine(), [events], name="expected")
    return [
        {k: v for k, v in row.items() if k not in ("run", "seq")}
        for row in result.arrow(name).to_pylist()
    ]


DECIDED = ("signals", "orders", "risk_receipts", "executions", "portfolio_history")


def test_a_session_has_the_rows_of_a_backtest(tmp_path):
    events, tables = ticks(1_500), {}
    runner = session(tmp_path, MemoryFeed(events), tables)
    runner.run()
    assert runner.ended
    for name in DECIDED:
        assert rows(tables, name) == expected(events, name), name
    assert len(rows(tables, "executions")) > 50
    inputs = [row for table in tables["inputs"].values() for row in table.to_pylist()]
    assert sum(row["rows"] for row in inputs if row["kind"] == "ticks") == len(events)


def test_bad_records_are_counted_and_stored_and_stop_nothing(tmp_path):
    events, tables = ticks(500), {}
    runner = session(tmp_path, MemoryFeed(events, bad=(7, 8, 499)), tables)
    runner.run()
    assert runner.tally.events + runner.tally.dead == 500
    assert [row["offset"] for row in rows(tables, "dead_letter")] == [7, 8, 499]
    good = events[~np.isin(events.offset, (7, 8, 499))]
    assert rows(tables, "executions") == expected(good, "executions")


@pytest.mark.parametrize("snapshot_s", [0.0, 3600.0])
@pytest.mark.parametrize("breaks_at", [1, 300, 900])
def test_a_session_that_dies_anywhere_goes_on_where_it_was(
    tmp_path, monkeypatch, snapshot_s, breaks_at
):
    events, tables = ticks(1_500), {}
    first = session(tmp_path, MemoryFeed(events, bad=(8,)), tables, snapshot_s=snapshot_s)
    first.feed.breaks_at = breaks_at
    # As after SIGKILL: nothing of the orderly end happens.
    monkeypatch.setattr(first, "_finish", lambda **_: None)
    with pytest.raises(FeedError):
        first.run()
    second = session(tmp_path, MemoryFeed(events, size=41, bad=(8,)), tables)
    second.run()
    good = events[events.offset != 8]
    for name in DECIDED:
        assert rows(tables, name) == expected(good, name), name
    assert second.tally.events == len(good)
    assert second.tally.dead == len(rows(tables, "dead_letter")) == 1


def test_history_warms_features_once_in_a_journals_life(tmp_path):
    events, tables, asked = ticks(800), {}, []
    closes = engine().step(events)["portfolio_history"]
    assert len(closes)

    def history(before, _first):
        asked.append(before)
        return Bars.empty()

    first = session(tmp_path, MemoryFeed(events[:400]), tables, history=history)
    first.run()
    assert asked == [int(events.ts[0]) // 10**9 * 10**9]
    session(tmp_path, MemoryFeed(events), tables, history=history).run()
    assert len(asked) == 1


def test_another_configuration_is_refused_and_names_what_differs(tmp_path):
    session(tmp_path, MemoryFeed(ticks(200)), {}).run()
    runner = session(tmp_path, MemoryFeed(ticks(200)), {}, book=engine(Flip(weight=0.5)))
    with pytest.raises(JournalError, match=r"strategies was flip=Flip\(weight=1.0\)") as error:
        runner.run()
    assert "journal=fresh" in str(error.value)


def test_an_error_that_nobody_foresaw_ends_a_session_in_order(tmp_path, monkeypatch):
    feed, said = MemoryFeed(ticks(900)), []
    runner = session(tmp_path, feed, {}, snapshot_s=3600.0)
    monkeypatch.setattr(runner, "_say", said.append)
    poll = feed.poll

    def broken(timeout_s):
        if feed.at > 400:
            raise RuntimeError("a fault of a client")
        return poll(timeout_s)

    feed.poll = broken
    with pytest.raises(RuntimeError, match="a fault of a client"):
        runner.run()
    assert said[0] == "stopping: error: a fault of a client" and "in the store" in said[-1]
    journal = Journal(tmp_path)
    assert journal.snapshot()[0] == journal.last_seq
    journal.close()


def test_of_other_limits_those_are_named_that_differ(tmp_path):
    session(tmp_path, MemoryFeed(ticks(200)), {}).run()
    limits = [{"check": "cash", "limit": 5.0}, *(one for one in CHECKS if one["check"] != "cash")]
    book = engine(risk=RiskChain(checks=sorted(limits, key=lambda one: ORDER.index(one["check"]))))
    runner = session(tmp_path, MemoryFeed(ticks(200)), {}, book=book)
    with pytest.raises(JournalError, match=r"risk was {'cash': 0.0}, is {'cash': 5.0}; go on"):
        runner.run()


def test_of_long_rules_only_what_differs_is_told(tmp_path):
    session(tmp_path, MemoryFeed(ticks(200)), {}).run()
    runner = session(tmp_path, MemoryFeed(ticks(200)), {}, book=engine(exits=Exits(stop_loss=0.01)))
    with pytest.raises(JournalError, match=r"rules was {'") as error:
        runner.run()
    said = str(error.value)
    assert len(said) < 700 and f"adopt --book {tmp_path.name}" in said


def test_another_feed_is_refused(tmp_path):
    session(tmp_path, MemoryFeed(ticks(200)), {}).run()
    feed = MemoryFeed(ticks(200))
    feed.name = "elsewhere"
    with pytest.raises(FeedError, match="was read from memory"):
        session(tmp_path, feed, {}).run()


def test_another_build_goes_on_from_a_whole_snapshot_only(tmp_path, monkeypatch):
    events = ticks(900)
    session(tmp_path, MemoryFeed(events[:300]), {}).run()
    monkeypatch.setattr(recovery, "_build", lambda _: "another")
    again = session(tmp_path, MemoryFeed(events[:600]), {}, snapshot_s=3600.0)
    monkeypatch.setattr(again, "_finish", lambda **_: None)
    again.run()
    monkeypatch.undo()
    with pytest.raises(JournalError, match="another build"):
        session(tmp_path, MemoryFeed(events), {}).run()


def test_effects_that_differ_on_replay_halt_with_the_input_that_differs(tmp_path, monkeypatch):
    events = ticks(900)
    first = session(tmp_path, MemoryFeed(events), {}, snapshot_s=3600.0)
    first.feed.breaks_at = 500
    monkeypatch.setattr(first, "_finish", lambda **_: None)
    with pytest.raises(FeedError):
        first.run()
    monkeypatch.setattr(Effects, "hash", lambda self: b"other")
    with pytest.raises(JournalError, match="replaying input 2 "):
        session(tmp_path, MemoryFeed(events), {}).run()


def test_a_gap_is_an_event(tmp_path):
    events, tables = ticks(300), {}
    session(tmp_path, MemoryFeed(events[:100]), tables).run()
    feed = MemoryFeed(events)
    feed.seek = lambda next_offset: setattr(feed, "at", next_offset[0] + 20)
    session(tmp_path, feed, tables).run()
    gaps = [row for row in rows(tables, "events") if row["kind"] == "gap"]
    assert [row["detail"] for row in gaps] == ["partition=0 expected=100 first=120"]


def test_a_full_outbox_holds_the_feed_back(tmp_path):
    events = ticks(300)
    runner = session(tmp_path, MemoryFeed(events), {}, outbox_rows=3)
    rows = pa.table({"x": [1, 2, 3]})
    runner.journal.commit(None, {"orders": rows})
    monitor = time.monotonic()
    assert runner._is_held_back()
    assert time.monotonic() - monitor < 1
    assert runner.feed.at == 0
    runner.outbox.close()
    runner.journal.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("size", [50, 1_000])
def test_a_session_whose_writer_died_does_not_wait_for_it(tmp_path, size):
    def connect():
        raise RuntimeError("an error of the program")

    runner = session(tmp_path, MemoryFeed(ticks(300), size=size), {})
    runner.outbox.close()
    runner.outbox = Outbox(runner.journal.path, connect)
    started = time.monotonic()
    with pytest.raises(StoreError, match="the next start sends them"):
        runner.run()
    assert time.monotonic() - started < 10
    tables = {}
    session(tmp_path, MemoryFeed(ticks(300)), tables).run()
    assert rows(tables, "executions") == expected(ticks(300), "executions")


def test_the_journal_tells_of_the_feeds_positions(tmp_path):
    feed = MemoryFeed(ticks(250), bad=(249,))
    runner = session(tmp_path, feed, {})
    runner.run()
    assert feed.committed == {0: 250}
    journal = Journal(tmp_path)
    assert journal.positions() == {0: 250}
    assert json.loads(journal.meta("fingerprint") or "")["symbols"] == "SIM:A, SIM:B"
    assert journal.meta("ended") == "1"
    journal.close()


class SilentFeed(MemoryFeed):
    """Brings its ticks once, then nothing, and never ends."""

    def poll(self, timeout_s):
        poll = super().poll(timeout_s)
        time.sleep(0.01)
        return Poll(poll.events, poll.dead, poll.next_offset)


def test_the_wall_closes_a_bar_that_no_tick_closes_and_recovery_repeats_it(tmp_path):
    events, tables = ticks(40, symbols=1), {}
    events.ts[:] = time.time_ns() - np.arange(40)[::-1] * 1_000_000
    wall = {"clock": "wall", "grace_ms": 50, "stop_after_idle_s": 1.5, "snapshot_s": 3600.0}
    first = session(tmp_path, SilentFeed(events), tables, **wall)
    first._finish = lambda **_: None
    first.run()
    assert first.engine.next_mark == 0
    assert first.engine.bars in (1, 2)
    assert first.tally.events == 40
    inputs = [row for table in tables["inputs"].values() for row in table.to_pylist()]
    batches = [unpack_batch("ticks", row["payload"]) for row in inputs if row["kind"] == "ticks"]
    symbols = np.concatenate([batch.symbol for batch in batches])
    marks = np.concatenate([batch.ts for batch in batches])[symbols == CLOCK_MARK]
    assert (marks % SECOND == 0).sum() == 1, "the others only tell of the feed's lag"
    again = session(tmp_path, SilentFeed(events), {}, **wall)
    again.run()
    assert again.engine.bars == first.engine.bars
    places = [book.engine.state()["cells"][["quantity", "target"]] for book in (again, first)]
    assert places[0].tobytes() == places[1].tobytes()
