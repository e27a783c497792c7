"""A running book obeys an operator: in one process, and over restarts."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from sysquant import control, journal_reader
from sysquant.control import read_answer, request_id, write
from sysquant.errors import ConfigError, DataError, FeedError, JournalError
from sysquant.journal import Journal
from sysquant.mailbox import Letter, LocalMailbox, post
from sysquant.pace import Pace
from sysquant.types import Poll, Ticks
from tests.market import Flip, Hold, bars, engine, ticks
from tests.test_live import DECIDED, KEYS, MemoryFeed, expected, rows, session

BOOK = "test"


class MemoryMailbox:
    """Letters that arrive with the poll that reaches a record, written when it comes."""

    name = "memory"

    def __init__(self, *said, feed, journal):
        self.said, self.feed, self.journal = list(said), feed, journal
        self.taken, self.sent, self.answers = 0, [], {}

    def seek(self, mark):
        self.taken = int(mark or 0)

    def take(self):
        due = [one for at, one in self.said[self.taken :] if at <= self.feed.at]
        letters = [self._letter(one, str(self.taken + n)) for n, one in enumerate(due, 1)]
        self.taken += len(due)
        self.sent += letters
        return letters

    def _letter(self, one, mark):
        if isinstance(one, Letter | bytes):
            return Letter(getattr(one, "raw", one), mark)
        role = "rearm" if isinstance(one, control.Rearm) else "operate"
        raw = write(one, KEYS, book=BOOK, journal=self.journal, role=role, issuer="ann")
        return Letter(raw, mark)

    def answer(self, answers):
        self.answers |= answers

    def close(self):
        pass

    def told(self):
        """Answers in the order of the letters."""
        return [read_answer(self.answers[request_id(one.raw)], KEYS) for one in self.sent]


def commanded(tmp_path, *said, tables=None, feed=None, **more):
    """A session whose operator says something when these records are read."""
    tables, feed = {} if tables is None else tables, feed or MemoryFeed(ticks(1_500))
    journal = Journal(tmp_path)
    journal.close()
    mailbox = MemoryMailbox(*said, feed=feed, journal=journal.id)
    runner = session(tmp_path, feed, tables, mailboxes=[mailbox], **more)
    return runner, mailbox, tables


def events_of(tables, *kinds):
    return [row for row in rows(tables, "events") if row["kind"] in kinds]


def test_a_command_is_an_input_in_the_sequence_where_it_took_effect(tmp_path):
    runner, mailbox, tables = commanded(tmp_path, (485, control.Stop("flip")))
    runner.run()
    (answer,) = mailbox.told()
    assert answer.ok and answer.text == "flip leaves what it holds as it trades"
    inputs = [row for table in tables["inputs"].values() for row in table.to_pylist()]
    (at,) = [row for row in inputs if row["kind"] == "command" and row["seq"] == answer.seq]
    carried = json.loads(at["payload"])
    assert (carried["issuer"], json.loads(carried["said"])) == (
        "ann", {"type": "stop", "strategy": "flip", "symbol": None},
    )  # fmt: skip
    (event,) = events_of(tables, "stop")[:1]
    assert (event["strategy"], event["detail"]) == ("flip", f"ann: {answer.text}")
    assert runner.engine.positions() == {"flip": {}}
    assert rows(tables, "orders")[-1]["purpose"] == "off"


def test_cash_of_a_stopped_strategy_is_in_the_pool_once_it_is_flat_and_comes_back(tmp_path):
    runner, mailbox, tables = commanded(
        tmp_path, (485, control.Stop("flip")), (873, control.Status()),
        (970, control.Start("flip")), (1067, control.Status()),
    )  # fmt: skip
    runner.run()
    stopped, started = (answer.status for answer in mailbox.told() if answer.status)
    assert stopped["strategies"]["flip"]["state"] == "off"
    assert stopped["pool"] > 900_000 and stopped["strategies"]["flip"]["equity"] == 0
    assert started["pool"] == 0 and started["strategies"]["flip"]["state"] == "active"
    assert [row["detail"] for row in events_of(tables, "runner")] == [
        "flip is flat; its cash is in the pool"
    ]
    book = [row for row in rows(tables, "portfolio_history") if not row["symbol"]]
    assert len({row["ts"] for row in book}) > 5


def test_what_is_off_is_only_started_and_what_is_paused_only_resumed(tmp_path):
    book = engine(strategies={"flip": Flip(), "hold": Hold(weight=0.5)})
    runner, mailbox, _ = commanded(
        tmp_path, (97, control.Stop("flip")), (485, control.Pause()), (485, control.Status()),
        (485, control.Resume()), (485, control.Status()), (582, control.Drain("flip")),
        (679, control.Pause("hold")), (679, control.Start("hold")), (776, control.Start()),
        (873, control.Status()), (970, control.Resume()), (1067, control.Status()), book=book,
    )  # fmt: skip
    runner.run()
    told = mailbox.told()
    states = [
        {name: one["state"] for name, one in answer.status["strategies"].items()}
        for answer in told if answer.status
    ]  # fmt: skip
    assert states == [
        {"flip": "off", "hold": "paused"}, {"flip": "off", "hold": "active"},
        {"flip": "active", "hold": "paused"}, {"flip": "active", "hold": "active"},
    ]  # fmt: skip
    refused = [answer.text for answer in told if not answer.ok]
    assert refused == [
        "it is off: start it first", "nothing of it is off: what is paused or drained is resumed",
    ]  # fmt: skip


def test_a_start_says_that_entries_are_stopped(tmp_path):
    said = (97, control.Halt()), (97, control.Start())
    runner, mailbox, _ = commanded(tmp_path, *said)
    runner.run()
    assert mailbox.told()[-1].text == "every strategy trades again; entries stay stopped (halt)"


def test_a_feed_that_ends_over_what_was_to_be_flat_is_told(tmp_path, monkeypatch):
    said = []
    runner = session(tmp_path, MemoryFeed(ticks(500)), {}, flatten=["flip"])
    monkeypatch.setattr(runner, "_say", said.append)
    runner.run()
    held = runner.engine.positions()["flip"]
    assert held and runner.unflat == {"flip": held}
    assert any(line.startswith("not flat: flip keeps SIM:") for line in said)


@pytest.mark.parametrize("breaks_at", [300, 600, 900, 1200])
@pytest.mark.parametrize("snapshot_s", [0.0, 3600.0])
def test_a_session_with_commands_that_dies_anywhere_is_what_it_would_have_been(
    tmp_path, monkeypatch, breaks_at, snapshot_s
):
    said = (
        (194, control.Pause("flip")), (388, control.Resume("flip")),
        (485, control.Weight("flip", 0.5)), (582, control.Stop("flip")),
        (776, control.Start("flip")), (1067, control.Halt()), (1261, control.Rearm()),
    )  # fmt: skip
    # Where polls are cut, and cash is given back, depends on how fast the machine is.
    monkeypatch.setattr(Pace, "parts", lambda self, batch: iter([batch]))
    whole, _, expected = commanded(tmp_path / "whole", *said)
    whole.run()
    first, _, tables = commanded(tmp_path / "cut", *said, snapshot_s=snapshot_s)
    first.feed.breaks_at = breaks_at
    monkeypatch.setattr(first, "_finish", lambda **_: None)
    with pytest.raises(FeedError):
        first.run()
    second, _, _ = commanded(tmp_path / "cut", *said, tables=tables)
    second.run()
    for name in DECIDED:
        assert rows(tables, name) == rows(expected, name), name
    assert len(rows(tables, "executions")) > 20


@pytest.mark.parametrize("dies_after", [1, 2])
def test_letters_that_a_crash_left_unheard_are_heard_at_the_next_start(
    tmp_path, monkeypatch, dies_after
):
    said = [(97, control.Pause("flip")), (97, control.Resume("flip")), (97, control.Status())]
    runner, _, tables = commanded(tmp_path, *said)
    commits, commit = [], runner.journal.commit

    def dying(entry, *arguments, **more):
        if entry is not None and entry.kind == "command":
            if len(commits) == dies_after - 1:
                raise JournalError("the disk is full")
            commits.append(entry)
        return commit(entry, *arguments, **more)

    monkeypatch.setattr(runner.journal, "commit", dying)
    with pytest.raises(JournalError):
        runner.run()
    again, mailbox, _ = commanded(tmp_path, *said, tables=tables)
    again.run()
    kinds = [row["kind"] for row in events_of(tables, "pause", "resume")]
    assert kinds == ["pause", "resume"]
    assert mailbox.told()[-1].status is not None


def test_a_halt_is_latched_over_restarts_until_it_is_rearmed(tmp_path):
    events, tables = ticks(1_500), {}
    feed = MemoryFeed(events[:700])
    runner, *_ = commanded(tmp_path, (194, control.Halt()), feed=feed, tables=tables)
    runner.run()
    orders = len(rows(tables, "orders"))
    again, mailbox, _ = commanded(
        tmp_path, (0, None), (800, control.Status()), (1_000, control.Rearm()), tables=tables
    )
    again.run()
    assert mailbox.told()[0].status["holds"] == ["halt"]
    assert mailbox.told()[1].ok
    late = rows(tables, "orders")[orders:]
    assert late and min(row["ts"] for row in late) > max(
        row["ts"] for row in rows(tables, "orders")[:orders]
    )


def test_rearmed_says_what_else_stops_entries(tmp_path):
    records = ticks(1_500)
    kept = np.r_[:300, 400:1_500]
    runner, mailbox, _ = commanded(
        tmp_path, (194, control.Halt()), (582, control.Rearm()), feed=MemoryFeed(records[kept])
    )
    runner.run()
    assert mailbox.told()[1].text == "re-armed: entries stay stopped (gap)"


def test_what_does_not_count_is_refused_recorded_and_answered_and_changes_nothing(tmp_path):
    plain, tables = {}, {}
    session(tmp_path / "plain", MemoryFeed(ticks(1_500)), plain).run()
    runner, mailbox, _ = commanded(
        tmp_path / "told", (291, b"nonsense"), (388, control.Stop("flop")), (485, control.Resume()),
        (582, control.Weight("flip", 2.0)), (679, control.Refresh("flip")),
        (776, control.Rearm()), tables=tables,
    )  # fmt: skip
    runner.run()
    said = [answer.text for answer in mailbox.told()]
    assert not any(answer.ok for answer in mailbox.told())
    assert "by none of the book's keys" in said[0] and "did you mean 'flip'" in said[1]
    assert "weight must be >= 0 and <= 1" in said[3] and "no model" in said[4]
    assert "not halted" in said[5]
    assert [row["detail"] for row in events_of(tables, "refused_command")] == said
    for name in DECIDED:
        assert rows(tables, name) == rows(plain, name), name


def test_a_flood_of_refusals_is_told_by_its_number(tmp_path):
    flood = [(300, f"{n}".encode()) for n in range(250)]
    runner, mailbox, tables = commanded(tmp_path, *flood)
    runner.run()
    told = [row["detail"] for row in events_of(tables, "refused_command")]
    assert len(told) == 101 and told[-1] == "and 150 more messages"
    assert len(mailbox.answers) == 250


def test_a_message_that_was_used_is_refused_after_a_restart(tmp_path):
    runner, mailbox, tables = commanded(
        tmp_path, (194, control.Pause("flip")), feed=MemoryFeed(ticks(500))
    )
    runner.run()
    (used,) = mailbox.sent
    again, replayed, _ = commanded(tmp_path, (0, None), (600, used), (900, used), tables=tables)
    again.run()
    refused = events_of(tables, "refused_command")
    assert len(refused) == 2 and all("counts once" in row["detail"] for row in refused)
    assert [row["kind"] for row in events_of(tables, "pause")] == ["pause"], "it took effect once"
    assert {one.text for one in replayed.told()} == {"flip keeps what it holds"}, "as it was told"


@pytest.mark.parametrize("later", [False, True])
def test_a_message_that_comes_twice_is_carried_out_once_and_told_what_it_did(tmp_path, later):
    runner, mailbox, _ = commanded(tmp_path)
    raw = write(control.Pause("flip"), KEYS, book=BOOK, journal=mailbox.journal, role="operate")
    mailbox.said = [(97, raw), (970 if later else 97, raw)]
    runner.run()
    assert [answer.ok for answer in mailbox.told()] == [True, True]


def test_rows_that_are_sealed_while_letters_are_heard_are_sent(tmp_path):
    said = [(97 * n, control.Status()) for n in range(1, 15)]
    runner, _, tables = commanded(tmp_path, *said)
    runner.journal._seal_s, hear = 3600.0, runner.desk._hear

    def hearing(*given):  # rows that wait are old enough just then
        runner.journal._seal_s = 0.0
        hear(*given)
        runner.journal._seal_s = 3600.0

    runner.desk._hear = hearing
    runner.run()
    inputs = [row for table in tables["inputs"].values() for row in table.to_pylist()]
    assert len({row["seq"] for row in inputs}) == len(inputs) == max(row["seq"] for row in inputs)


class Errs(Flip):
    """Its code raises an error of a kind, from a time on."""

    since: float = 0.0

    def target(self, f):
        if f["close"].max() > self.since:
            raise KIND["of error"]("no such thing")
        return super().target(f)


KIND = {"of error": RuntimeError}


@pytest.mark.parametrize(
    "kind", [RuntimeError, AssertionError, OSError, StopIteration, ConfigError, DataError], ids=str
)
def test_whatever_a_strategy_raises_is_contained(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(KIND, "of error", kind)
    tables = {}
    runner = session(tmp_path, MemoryFeed(ticks(1_500)), tables, book=both(Errs()))
    runner.run()
    (fault,) = events_of(tables, "fault")
    assert fault["strategy"] == "broken" and kind.__name__ in fault["detail"]
    assert [row for row in rows(tables, "executions") if row["strategy"] == "flip"]


def test_a_strategy_that_raises_on_its_history_is_off_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(KIND, "of error", ValueError)
    tables, past = {}, bars([100.0 + n % 7 for n in range(50)])
    past.ts[:] -= 100 * 10**9
    runner = session(
        tmp_path, MemoryFeed(ticks(1_500)), tables, book=both(Errs()), history=lambda *_: past
    )
    runner.run()
    (fault,) = events_of(tables, "fault")
    assert fault["strategy"] == "broken"
    assert runner.engine.operator.states()["broken"] == {"SIM:A": "off", "SIM:B": "off"}
    assert {row["strategy"] for row in rows(tables, "orders")} == {"flip"}


def test_an_error_inside_a_step_leaves_no_half_taken_batch_behind(tmp_path, monkeypatch):
    events, tables = ticks(1_500), {}
    first = session(tmp_path, MemoryFeed(events), tables)
    step, steps = first.engine.step, []

    def failing(batch):
        effects = step(batch)
        steps.append(batch)
        if len(steps) == 8:
            raise ConfigError("in the middle of it")
        return effects

    monkeypatch.setattr(first.engine, "step", failing)
    with pytest.raises(ConfigError):
        first.run()
    session(tmp_path, MemoryFeed(events), tables).run()
    for name in DECIDED:
        assert rows(tables, name) == expected(events, name), name


def test_a_strategy_that_raises_is_an_event_with_its_traceback_and_others_go_on(tmp_path):
    class Broken(Flip):
        def target(self, f):
            if f["close"].max() > 0 and len(seen) > 5:
                raise ValueError("no such thing")
            seen.append(1)
            return super().target(f)

    seen, alone, tables = [], {}, {}
    session(tmp_path / "alone", MemoryFeed(ticks(1_500)), alone, book=both(Flip())).run()
    runner = session(tmp_path / "both", MemoryFeed(ticks(1_500)), tables, book=both(Broken()))
    runner.run()
    (fault,) = events_of(tables, "fault")
    assert fault["strategy"] == "broken"
    assert "Traceback" in fault["detail"] and "no such thing" in fault["detail"]
    assert runner.engine.positions()["broken"] == {}
    for name in ("signals", "orders", "executions"):
        own, others = (
            [row for row in rows(found, name) if row["strategy"] == "flip"]
            for found in (tables, alone)
        )
        assert own == others and own, name


def both(other):
    return engine(strategies={"flip": Flip(), "broken": other}, contained=True)


def test_a_gap_stops_entries_until_an_operator_resumes(tmp_path):
    class Gap(MemoryFeed):
        def poll(self, timeout_s):
            poll = super().poll(timeout_s)
            return replace(poll, next_offset={0: int(poll.events.offset[-1]) + 1})

    events = ticks(1_500)
    feed = Gap(events[(events.offset < 485) | (events.offset >= 585)])
    runner, mailbox, tables = commanded(
        tmp_path,
        (1164, control.Status()),
        (1261, control.Resume()),
        (1358, control.Status()),
        feed=feed,
    )
    runner.run()
    before, after = (answer.status["holds"] for answer in mailbox.told() if answer.status)
    assert (before, after) == (["gap"], [])
    assert len(events_of(tables, "gap")) == 1


def test_entries_stop_before_the_outbox_is_full_and_begin_again(tmp_path):
    runner, _, tables = commanded(tmp_path, outbox_rows=1_000)
    held, arrived = [], runner.outbox.arrived

    def slow():
        held.append("outbox" in runner.engine.operator.holds)
        return arrived() if runner.journal.outbox_rows > 850 else []

    runner.outbox.arrived = slow
    runner.run()
    assert {True, False} == set(held)
    details = [row["detail"] for row in events_of(tables, "runner")]
    assert details[0].startswith("entries stopped: ") and "begin again" in details[1]


def test_a_local_message_reaches_the_book_and_its_answer_stands_in_the_journal(tmp_path):
    events, tables = ticks(1_500), {}
    journal = Journal(tmp_path)
    raw = write(control.Pause("flip"), KEYS, book=BOOK, journal=journal.id, role="operate")
    journal.close()
    post(tmp_path, raw)
    post(tmp_path, b"nonsense")
    runner = session(tmp_path, MemoryFeed(events), tables, mailboxes=[LocalMailbox(tmp_path)])
    runner.run()
    found = journal_reader.answer(tmp_path, request_id(raw))
    assert found is not None and read_answer(found, KEYS).text == "flip keeps what it holds"
    assert (tmp_path / "control.db").stat().st_mode & 0o777 == 0o600
    again = session(tmp_path, MemoryFeed(events), tables, mailboxes=[LocalMailbox(tmp_path)])
    assert again.desk._mailboxes[0].take() == []
    again.journal.close()


class Stopping(MemoryFeed):
    """Asks for the end at an offset; then brings a few more polls, or none."""

    def __init__(self, events, *, at, more):
        super().__init__(events)
        self.stops_at, self.more, self.runner = at, more, None

    def poll(self, timeout_s):
        if self.at >= self.stops_at:
            self.runner.stop.ask("SIGTERM")
            self.more -= 1
            if self.more < 0:
                time.sleep(0.05)
                return Poll(Ticks.empty(), (), {0: self.at})
        return super().poll(timeout_s)


def stopped(tmp_path, tables, *, more, at=580, **runtime):
    feed = Stopping(ticks(1_500), at=at, more=more)
    said = []
    runner, *_ = commanded(tmp_path, feed=feed, tables=tables, flatten=["flip"], **runtime)
    runner._say, feed.runner = said.append, runner
    runner.run()
    return runner, said


def test_a_stop_that_flattens_is_flat_when_trades_come_in_time_and_trades_on_at_the_next_start(
    tmp_path,
):
    tables = {}
    runner, said = stopped(tmp_path, tables, more=5)
    assert runner.unflat == {} and runner.engine.positions() == {"flip": {}}
    assert said == [
        "stopping: SIGTERM", "entries are stopped, orders cancelled", "flat: flip",
        "the state is in the journal", "every row is in the store",
    ]  # fmt: skip
    orders = len(rows(tables, "orders"))
    again, *_ = commanded(tmp_path, tables=tables)
    again.run()
    assert again.engine.operator.holds == ()
    assert len(rows(tables, "orders")) > orders


def test_a_stop_that_cannot_flatten_says_what_is_kept_and_goes_on_so_at_the_next_start(tmp_path):
    tables = {}
    runner, said = stopped(tmp_path, tables, more=0, deadline_s=1.8)
    assert list(runner.unflat) == ["flip"] and runner.unflat["flip"]
    assert any(line.startswith("not flat: flip keeps ") for line in said)
    again, *_ = commanded(tmp_path, tables=tables)
    said = []
    again._say = said.append
    again.run()
    assert said[0].startswith("flip goes on flattening")
    assert again.engine.positions() == {"flip": {}}
    assert again.engine.operator.states()["flip"]["SIM:A"] == "off"


@pytest.mark.parametrize("command", [control.Pause, control.Drain])
def test_what_an_operator_set_stands_again_after_a_stop_that_flattened(tmp_path, command):
    tables, feed = {}, Stopping(ticks(1_500), at=580, more=5)
    said = (97, command("flip", "SIM:A"))
    runner, *_ = commanded(tmp_path, said, feed=feed, tables=tables, flatten=["flip"])
    feed.runner = runner
    before, leave = [], runner.desk.leave

    def leaving(*given):
        before.append(runner.engine.operator.states())
        leave(*given)

    runner.desk.leave = leaving
    runner.run()
    assert runner.unflat == {}
    again, *_ = commanded(tmp_path, said, tables=tables)
    again.run()
    assert again.engine.operator.states() == before[0]
    assert set(before[0]["flip"].values()) > {"active"}


def test_a_second_stop_while_something_is_still_to_be_flat_says_so_again(tmp_path):
    tables = {}
    stopped(tmp_path, tables, more=0, deadline_s=1.6)
    runner, said = stopped(tmp_path, tables, more=0, at=580, deadline_s=1.6)
    assert list(runner.unflat) == ["flip"]
    assert any(line.startswith("not flat: flip keeps ") for line in said)


def test_a_stop_keeps_positions_where_that_is_configured_and_cancels_on_a_live_market(tmp_path):
    feed = Stopping(ticks(1_500), at=580, more=0)
    runner, *_ = commanded(tmp_path, feed=feed, clock="wall", grace_ms=0)
    feed.runner = runner
    runner.run()
    assert runner.engine.positions()["flip"]
    assert not np.count_nonzero(runner.engine.state()["orders"]["order_no"][..., 0])
    assert runner.engine.operator.holds == ("stop",)
