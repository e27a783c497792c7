"""The schedule: a training once, by the clock, by what is measured, or asked for; none is lost."""

import logging
import time
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from runners.schedule import Task, _task, measured, newest
from sysquant import control, scheduling
from sysquant.control import Keys, read_answer, request_id, write
from sysquant.errors import ConfigError, JournalError
from sysquant.journal import Journal
from sysquant.mailbox import Letter
from sysquant.rows import drifted, model_served, run_row
from sysquant.scheduling import BOOK, FAILED, Job, Outcome, Scheduler
from sysquant.store import connect, insert
from tests.minutes import UNIVERSE
from tests.sessions import forked
from tests.test_live import KEYS, MemoryOutbox, rows

pytest_plugins = ["tests.served"]
__all__ = ["forked"]  # fixtures

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


def test_a_training_that_fails_is_not_begun_again_at_every_look(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduling, "_BACK_OFF_S", (0.4, 3_600.0))
    asked, jobs = [], {"a": Job(words=(), bars=1)}

    def measure(name, since):
        asked.append(since)
        return "1 bars are new"

    failed = Outcome(1, "failed: no window")
    given = {"measure": measure, "look_s": 0.05}
    bench = Bench(tmp_path, jobs, outcome=failed, **given)
    began = time.monotonic()
    bench.until(ended(bench, 3))
    assert time.monotonic() - began > 0.4 + 0.8, "each time it waits twice as long"
    assert set(asked) == {0}
    again = Bench(tmp_path, jobs, outcome=failed, **given)  # also over a restart
    until = time.monotonic() + 1.0
    again.until(lambda: time.monotonic() > until)
    assert again.ran == []


@pytest.mark.parametrize("code", [0, 3, 1])
def test_what_is_new_is_newer_than_what_was_there_at_the_last_training(tmp_path, monkeypatch, code):
    monkeypatch.setattr(scheduling, "_BACK_OFF_S", (0.0, 0.0))
    asked, jobs = [], {"a": Job(words=(), bars=1)}

    def measure(name, since):
        asked.append(since)
        return "" if since else "1 bars are new"

    outcome = Outcome(code, "it ended", until=77)
    bench = Bench(tmp_path, jobs, outcome=outcome, measure=measure, look_s=0.05, fine=(0, 3))
    bench.until(lambda: len(asked) > 3)
    assert len(bench.ran) == 1 and asked[0] == 0 and asked[-1] == 77
    again = Bench(tmp_path, jobs, measure=measure, look_s=0.05)
    asked.clear()
    again.until(lambda: asked)
    assert set(asked) == {77}


TASK = Task("ml", ("SIM:A",))


def told_minutes(client, first, count):
    """Ticks of one a minute, of which the store makes bars."""
    ts = pa.array((np.arange(first, first + count) * 60 * SECOND).view("M8[ns]"), TIME)
    table = pa.table({
        "symbol": ["SIM:A"] * count, "ts": ts, "price": np.ones(count), "volume": np.ones(count),
        "received_at": ts, "epoch": ["e"] * count, "partition": np.zeros(count, np.int32),
        "offset": np.arange(first, first + count),
    })  # fmt: skip
    insert(client, "ticks", table, f"ticks {first}")


TIME = pa.timestamp("ns", "UTC")


def test_bars_are_counted_from_what_the_job_saw_and_not_the_lineage(dsn, client):
    opened, job = partial(connect, dsn), Job(words=(), bars=100)
    told_minutes(client, 1_000, 150)
    assert measured(opened, job, TASK, 0) == "150 bars are new"
    until = newest(opened, TASK)
    assert until == (1_000 + 150) * 60 * SECOND and newest(opened, Task("ml", ("SIM:B",))) == 0
    assert measured(opened, job, TASK, until) == ""
    told_minutes(client, 1_150, 100)
    # As another job of the same lineage would leave it behind, of a universe that is far ahead.
    client.command(
        "INSERT INTO model_runs (lineage, verdict, rows, last) VALUES ('ml', 'kept', 9, now64(9))"
    )
    assert measured(opened, job, TASK, until) == "100 bars are new"


def drift_of(client, run, ts, model, psi, mode="live", book="one"):
    """A session whose model says what it did not in training."""
    told = [
        {"strategy": "ml", "model": model, "kind": kind, "name": kind, "psi": psi, "rows": 200}
        for kind in ("feature", "prediction")
    ]
    insert(client, "runs", run_row(run, mode, book, "", ""), f"runs {run}")
    insert(client, "models_served", model_served(run, 1, ts, "ml", model, ""), f"served {run}")
    insert(client, "drift", drifted(run, ts, told)["drift"], f"drift {run} {ts}")


def test_drift_is_of_what_serves_in_live_books_since_the_last_training(dsn, client):
    opened, job = partial(connect, dsn), Job(words=(), drift=0.25)
    drift_of(client, "old", 5 * SECOND, "000001-a", 0.9)
    drift_of(client, "live", 10 * SECOND, "000001-a", 0.1)
    drift_of(client, "paper", 20 * SECOND, "000002-b", 0.9, mode="challenger", book="two")
    drift_of(client, "past", 30 * SECOND, "000003-c", 0.9, book="three")
    client.command("INSERT INTO feed_stats (run, feed) VALUES ('past', 'replay:ticks:1:2')")
    assert measured(opened, job, TASK, 0) == ""
    drift_of(client, "live", 40 * SECOND, "000001-a", 0.3)
    assert measured(opened, job, TASK, 0) == "the prediction drift is 0.30"
    assert measured(opened, job, TASK, 40 * SECOND) == "", "it is told again when it goes on"


def test_an_interval_that_passed_while_nobody_was_there_is_made_up_for(tmp_path, monkeypatch):
    at = partial(datetime, 2026, 11, 28, tzinfo=UTC)
    began = round(at(15, 50).timestamp() * 1e9)
    jobs = {"a": Job(words=(), every="4h"), "b": Job(words=(), cron="0 */4 * * *")}
    journal = Journal(tmp_path)
    journal.remember(**{f"job/{name}": f"{began} {began}" for name in jobs})
    journal.close()

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return at(19, 45)

    monkeypatch.setattr(scheduling, "datetime", Clock)
    bench = Bench(tmp_path, jobs)
    assert [name for name, why in bench.scheduler._wanted.items() if "missed" in why] == ["a", "b"]
    journal = bench.scheduler._journal
    ran = round(at(16, 0, 1).timestamp() * 1e9)
    journal.remember(**{f"job/{name}": f"{ran} {ran}" for name in jobs})
    bench.until(lambda: True)
    assert Bench(tmp_path, jobs).until(lambda: True).ran == []


def test_a_schedule_says_what_it_will_do_and_when(tmp_path, caplog):
    jobs = {"a": Job(words=("model=svm",), every="4h", bars=1_000), "b": Job(words=(), drift=0.25)}
    with caplog.at_level(logging.INFO, "sysquant.scheduling"):
        bench = Bench(tmp_path, jobs)
        at = bench.scheduler.status()["jobs"]["a"]["next"]
        bench.until(lambda: True)
    first, second = caplog.messages
    assert first.startswith("job=a words=model=svm next: 20")
    assert first.endswith("UTC, after 1,000 new bars")
    assert second == "job=b words= next: at a drift of 0.25"
    assert 0 < at - time.time_ns() <= 4 * 3600 * SECOND and at % (4 * 3600 * SECOND) == 0


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


@pytest.fixture
def resolvers():
    """What the entry point of a runner registers."""
    for name in ("home", "job", "about", "groups", "stamp"):
        OmegaConf.register_new_resolver(name, lambda name=name: name, replace=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=momentum"], "asks no model"),
        (["days=-1"], "days must be > 0"),
        (["lineage=../x"], "a lineage is named by small letters"),
        (["end=nonsense"], "end must be"),
        (["notebook=nope.ipynb"], "notebook=nope.ipynb is no file"),
        (["model=random_forest", "model.settings.trees=0"], "trees must be"),
        (["--help"], "'--help' is an option"),
        (["dayz=1"], "dayz"),
    ],
)
def test_words_that_must_fail_at_night_are_refused_at_the_start(home, resolvers, words, said):
    with pytest.raises(ConfigError, match=r"jobs\.a\.words: ") as error:
        _task("a", words)
    assert said in str(error.value)


def test_words_that_can_be_meant_tell_lineage_and_symbols(home, resolvers):
    ours = HydraConfig.instance().cfg
    words = ["strategy=ml_direction", "lineage=two", *UNIVERSE]
    assert _task("a", words) == Task("two", ("SIM:A",))
    assert HydraConfig.instance().cfg is ours


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("jobs.ml_direction.cron='every day'", "jobs.ml_direction.cron must be five fields"),
        ("jobs.ml_direction.bars=0", "jobs.ml_direction.bars must be"),
        ("look_s=0", "look_s must be"),
        ("jobs.ml_direction.every=null", "jobs.ml_direction would never run: say when"),
        ("jobs.ml_direction.words=['days=-1']", "jobs.ml_direction.words: days must be"),
    ],
)
def test_a_schedule_that_cannot_be_meant_ends_with_two(forked, home, word, said):
    process = forked("schedule", word)
    _, err = process.communicate(200)
    assert process.returncode == 2 and f"error: {said}" in err, err


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
