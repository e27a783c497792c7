"""The schedule: a training once, by the clock, by what is measured, or asked for; none is lost."""

import time

import pytest

from sysquant import control
from sysquant.control import Keys, read_answer, request_id, write
from sysquant.errors import ConfigError, JournalError
from sysquant.journal import Journal
from sysquant.mailbox import Letter
from sysquant.scheduling import BOOK, FAILED, Job, Outcome, Scheduler
from tests.test_live import KEYS, MemoryOutbox, rows

SECOND = 1_000_000_000
PUBLISHED = Outcome(0, "published 000001")


class Mailbox:
    """Letters of an operator, one a turn."""

    name = "memory"

    def __init__(self, journal, *said):
        self.said, self.journal, self.sent, self.answers = list(said), journal, [], {}

    def seek(self, mark):
        pass

    def take(self):
        if not self.said:
            return []
        one = self.said.pop(0)
        raw = write(one, KEYS, book=BOOK, journal=self.journal, role="operate", issuer="ann")
        self.sent.append(raw)
        return [Letter(raw, "1")]

    def answer(self, answers):
        self.answers |= answers

    def close(self):
        pass

    def told(self):
        return [read_answer(self.answers[request_id(raw)], KEYS) for raw in self.sent]


class Until:
    """A stop that comes when something is so."""

    def __init__(self, is_so, timeout_s=10.0):
        self.is_so, self.at = is_so, time.monotonic() + timeout_s

    @property
    def reason(self):
        assert time.monotonic() < self.at, "it did not come to that"
        return self.is_so()


class Bench:
    """A schedule over a directory; what it ran, told and wrote."""

    def __init__(self, directory, jobs, *said, outcome=PUBLISHED, takes_s=0.0,
                 **more):  # fmt: skip
        self.ran, self.alerts, self.tables = [], [], {}
        journal = Journal(directory)
        self.mailbox = Mailbox(journal.id, *said)
        self.outcome, self.takes_s = outcome, takes_s
        given = {"measure": lambda name, since: "", "look_s": 0.1} | more
        self.scheduler = Scheduler(
            jobs=jobs, journal=journal, outbox=MemoryOutbox(journal, self.tables), keys=KEYS,
            mailboxes=[self.mailbox], run=self.run, tell=self.alerts.append, **given,
        )  # fmt: skip

    def run(self, name, words):
        self.ran.append((name, words))
        time.sleep(self.takes_s)
        return self.outcome

    def until(self, is_so):
        self.scheduler.run(Until(is_so))
        return self

    def events(self):
        return [(row["kind"], row["detail"]) for row in rows(self.tables, "events")]


def ended(bench, times=1):
    return lambda: len([kind for kind, _ in bench.events() if kind in ("trained", FAILED)]) >= times


def test_an_interval_runs_again_and_again_and_is_told(tmp_path):
    bench = Bench(tmp_path, {"a": Job(words=("model=svm",), every="1s")})
    bench.until(lambda: len(bench.ran) >= 2)
    assert bench.ran[0] == ("a", ("model=svm",))
    assert [kind for kind, _ in bench.events()][:2] == ["training", "trained"]
    assert "published 000001" in bench.events()[1][1]
    assert "interval" in bench.events()[0][1] and bench.alerts == []


def test_a_failure_is_a_row_and_an_alert_and_the_schedule_goes_on(tmp_path):
    jobs = {"a": Job(words=(), every="1s")}
    bench = Bench(tmp_path, jobs, outcome=Outcome(1, "refused: the store is away"))
    bench.until(lambda: len(bench.alerts) >= 2)
    assert (FAILED, "a: refused: the store is away") in bench.events()
    assert (bench.alerts[0].kind, bench.alerts[0].book) == (FAILED, BOOK)


def test_what_is_asked_for_runs_once_however_often_it_is_asked(tmp_path):
    asked = [control.Retrain("a")] * 3 + [control.Retrain("b"), control.Status()]
    jobs = {"a": Job(words=("x",)), "aa": Job(words=())}
    slow = Bench(tmp_path, jobs, *asked, takes_s=1.5)
    slow.until(lambda: not slow.mailbox.said and ended(slow, 2)())
    first, second, third, unknown, status = slow.mailbox.told()
    assert (first.text, second.text) == ("a is trained now", "a is trained next") and third.ok
    assert not unknown.ok and "the schedule has no 'b'" in unknown.text
    assert status.status["jobs"]["a"]["running"] is True
    assert slow.ran == [("a", ("x",))] * 2


def test_what_is_measured_starts_a_training(tmp_path):
    seen = []

    def measure(name, since):
        seen.append((name, since))
        return "1,000 bars are new" if len(seen) == 2 else ""

    bench = Bench(tmp_path, {"a": Job(words=(), bars=1_000)}, measure=measure)
    bench.until(lambda: ended(bench)())
    assert bench.events()[0] == ("training", "a: 1,000 bars are new")
    assert seen[0][1] <= time.time_ns()


def test_what_was_missed_is_made_up_for_once_and_what_was_cut_off_runs_again(tmp_path):
    jobs = {"a": Job(words=(), every="1h"), "b": Job(words=()), "c": Job(words=(), every="1h")}
    now = time.time_ns()
    journal = Journal(tmp_path)
    old, recent = now - 5 * 3600 * SECOND, now - SECOND // 1_000
    journal.remember(**{"job/a": f"{old} {old}", "job/b": f"{recent} 0"})
    journal.close()
    bench = Bench(tmp_path, jobs)
    bench.until(lambda: ended(bench, 2)())
    told = [detail for kind, detail in bench.events() if kind == "training"]
    assert len(told) == 2 and "a: missed while nobody was there" in told[0]
    assert told[1] == "b: the training before was cut off"
    again = Bench(tmp_path, jobs)
    again.until(lambda: True)
    assert again.ran == []


def test_one_schedule_at_a_time(tmp_path):
    first = Bench(tmp_path, {})
    with pytest.raises(JournalError):
        Bench(tmp_path, {})
    first.until(lambda: True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": "soon"}, "every must be"),
        ({"cron": "every day"}, "cron must be five fields"),
        ({"bars": 0}, "bars must be"),
        ({"drift": -1.0}, "drift must be"),
    ],
)
def test_a_job_that_cannot_be_meant_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        Job(words=(), **given).triggers()


def test_messages_of_strangers_and_for_books_are_refused(tmp_path):
    bench = Bench(tmp_path, {"a": Job(words=())}, control.Halt(), control.Retrain("a"))
    strange = Keys({"operate": b"x" * 32})
    journal = bench.mailbox.journal
    raw = write(control.Retrain("a"), strange, book=BOOK, journal=journal, role="operate")
    answer = bench.scheduler._answered(Letter(raw, "0"), time.time_ns())
    assert not answer.ok and "by none of the book's keys" in answer.text
    bench.until(lambda: ended(bench)())
    halt, retrain = bench.mailbox.told()
    assert not halt.ok and "is for a book" in halt.text and retrain.ok
