"""The watchdog: throttled on a clock by hand, and over real sessions, killed, stopped, silent."""

import json
import os
import re
import signal
import time

import msgspec
import pytest

from sysquant import watchdog
from sysquant.health import FILE
from sysquant.watchdog import Watchdog
from tests.conftest import REPOSITORY
from tests.receivers import Mailbox, hook, mail_server
from tests.sessions import ended, server, store, synthetic, until
from tests.sessions import forked as run
from tests.test_health import NOW, beat

__all__ = ["hook", "run", "server", "store", "synthetic"]  # fixtures

MINUTE = 60 * 10**9


class Book:
    """A book whose heartbeats are written by hand, and what a watchdog says of it."""

    def __init__(self, journals, name="a", **options) -> None:
        self.path = journals / name
        self.path.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.dog = Watchdog(journals, None, repeat_s=900.0, **options)

    def at(self, minute, *, state="running", **ago):
        """Kinds of what is told at a minute, of two beats unless it hangs; seconds as in `beat`."""
        now = NOW + minute * MINUTE
        found = beat(state, book=self.name, **ago)
        told = []
        for later in (0, 0 if "age_s" in ago else 1):
            times = ("ts", "connected_ts", "record_ts")
            moved = {name: getattr(found, name) + minute * MINUTE for name in times}
            moved["ts"] += later
            written = msgspec.structs.replace(found, **moved)
            (self.path / FILE).write_bytes(msgspec.json.encode(written))
            told += [alert.kind for alert in self.dog.look(now)]
        return told


@pytest.fixture
def book(tmp_path):
    """A book, and a watchdog of all books."""
    return Book(tmp_path)


def test_what_is_well_is_not_told(book):
    assert [book.at(minute) for minute in range(5)] == [[]] * 5


def test_the_same_alert_comes_once_in_a_quarter_of_an_hour(book):
    told = {minute: book.at(minute, quiet_s=100) for minute in range(35)}
    assert {minute for minute, kinds in told.items() if kinds} == {0, 15, 30}
    assert told[15] == ["silent"]


def test_another_alert_of_the_book_does_not_wait_and_recovery_is_told_once(book):
    assert book.at(0, quiet_s=100) == ["silent"]
    assert book.at(1, away_s=9, quiet_s=160) == ["lost"]
    assert book.at(2, age_s=20) == ["hung"]
    assert book.at(3) == ["recovered"]
    assert book.at(4) == []


def test_what_comes_and_goes_is_told_once_with_its_recovery(book):
    told = [book.at(minute, quiet_s=100 * (minute % 2 == 0)) for minute in range(14)]
    assert told == [["silent"], ["recovered"], *[[]] * 12]
    assert book.at(16, quiet_s=100) == ["silent"]
    assert book.at(17) == ["recovered"]


def test_what_comes_again_and_stays_and_another_death_are_told_anew(book, monkeypatch):
    assert (book.at(0, quiet_s=100), book.at(1)) == (["silent"], ["recovered"])
    assert [book.at(minute, quiet_s=100) for minute in (2, 3, 4)] == [[], ["silent"], []]
    assert book.at(5) == ["recovered"]
    for minute in (6, 8):
        monkeypatch.setattr(watchdog, "is_alive", lambda beat: False)
        assert book.at(minute, age_s=5) == ["dead"]
        monkeypatch.setattr(watchdog, "is_alive", lambda beat: True)
        assert book.at(minute + 1) == ["recovered"]


def test_a_clock_that_is_set_back_does_not_silence_it(book):
    assert book.at(600, quiet_s=100) == ["silent"]
    assert book.at(0, quiet_s=100) == ["silent"]


def test_a_machine_that_slept_is_no_alert_and_a_loop_that_hangs_is(book):
    book.at(0)
    slept = NOW + 60 * MINUTE
    assert book.dog.look(slept) == []
    assert book.at(60) == []
    later = NOW + 61 * MINUTE
    assert book.dog.look(later) == []
    assert [alert.kind for alert in book.dog.look(later)] == ["hung"]


def test_a_loop_that_comes_back_is_not_silent_by_its_first_beat(book):
    """What hung has heard nothing meanwhile, and may say so before its next poll."""
    assert book.at(0, age_s=90, quiet_s=90) == ["hung"]
    (book.path / FILE).write_bytes(msgspec.json.encode(beat(book="a", quiet_s=91)))
    assert book.dog.look(NOW) + book.dog.look(NOW) == []
    assert book.at(1) == ["recovered"]


def test_an_end_that_was_asked_for_is_no_alert_and_one_that_was_not_is(book, monkeypatch):
    monkeypatch.setattr(watchdog, "is_alive", lambda beat: False)
    assert book.at(0, state="ended") == []
    assert book.at(1, state="stopping") == []
    assert book.at(2) == ["dead"]
    assert book.at(3, state="ended") == ["recovered"]


def test_books_are_told_apart_and_a_journal_that_was_set_aside_is_nobody_s(tmp_path, monkeypatch):
    one, other = Book(tmp_path, "a"), Book(tmp_path, "b")
    one.at(0)
    other.at(0)
    (tmp_path / "a").rename(tmp_path / "a-20260101T000000-ff")
    one.path.mkdir()
    monkeypatch.setattr(watchdog, "is_alive", lambda beat: False)
    alerts = Watchdog(tmp_path, None).look(NOW)
    assert [(alert.book, alert.kind) for alert in alerts] == [("b", "dead")]
    one.at(0)
    alerts = Watchdog(tmp_path, None).look(NOW)
    assert [(alert.book, alert.kind) for alert in alerts] == [("a", "dead"), ("b", "dead")]


def test_a_book_that_was_named_and_has_no_heartbeat_is_missing(tmp_path):
    dog = Watchdog(tmp_path, ["a"])
    assert dog.look(NOW) == []  # a journal that is begun anew has none for a moment
    (alert,) = dog.look(NOW)
    assert (alert.book, alert.kind) == ("a", "missing")
    assert "never started here" in alert.detail
    book = Book(tmp_path)
    book.dog = dog
    assert book.at(1) == ["recovered"]
    (tmp_path / "a" / FILE).write_text("{}")
    told = dog.look(NOW + MINUTE) + dog.look(NOW + MINUTE)
    assert told == []  # the same within a quarter of an hour
    (alert,) = dog.look(NOW + 20 * MINUTE)
    assert "cannot be read" in alert.detail


def test_a_text_says_which_book_what_and_when(book):
    (book.path / FILE).write_bytes(msgspec.json.encode(beat("failed", reason="error: the disk")))
    (alert,) = book.dog.look(NOW)
    assert alert.text == "a dead: it ended: error: the disk (2023-11-14T22:13:20Z)"


# -- real sessions

BOOK = "buy_and_hold-synthetic"
QUICK = ["runtime.hung_s=3", "runtime.silent_s=3", "runtime.report_s=0.2"]


def state(home):
    path = home / "data" / "journals" / BOOK / FILE
    return json.loads(path.read_bytes())["state"] if path.exists() else ""


@pytest.fixture
def watched(run, home, hook, monkeypatch):
    """A watchdog process that posts to `hook`."""
    monkeypatch.setenv("SYSQUANT_WEBHOOK_URL", hook.url)
    process = run("watchdog", "every_s=0.2")
    yield process
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "secret" not in out + err


def told_within(hook, kinds, seconds):
    """Wait for these alerts; the time it took."""
    began = time.monotonic()
    until(lambda: len(hook.posted) >= len(kinds), timeout=seconds)
    assert hook.kinds() == kinds, hook.posted
    return time.monotonic() - began


def test_a_session_that_is_killed_is_dead_and_one_that_is_asked_to_end_is_not(
    run, home, store, synthetic, watched, hook
):
    asked = run("live", *synthetic, *QUICK)
    until(lambda: state(home) == "running")
    asked.send_signal(signal.SIGTERM)
    ended(asked)
    assert state(home) == "ended"
    killed = run("live", *synthetic, *QUICK)
    until(lambda: state(home) == "running")
    assert hook.posted == []
    killed.kill()
    assert told_within(hook, ["dead"], 5) < 3
    assert hook.posted[0]["book"] == BOOK
    assert re.search(rf"process {killed.pid} is gone", hook.posted[0]["detail"])
    again = run("live", *synthetic, *QUICK)
    told_within(hook, ["dead", "recovered"], 20)
    again.send_signal(signal.SIGTERM)
    ended(again)


def test_a_session_that_is_stopped_is_hung_until_it_goes_on(
    run, home, store, synthetic, watched, hook
):
    live = run("live", *synthetic, *QUICK)
    until(lambda: state(home) == "running")
    os.kill(live.pid, signal.SIGSTOP)
    try:
        assert told_within(hook, ["hung"], 10) < 6  # the limit, and two looks
    finally:
        os.kill(live.pid, signal.SIGCONT)
    assert told_within(hook, ["hung", "recovered"], 5) < 4
    live.send_signal(signal.SIGTERM)
    ended(live)


def test_a_feed_that_goes_silent_is_told_by_mail(run, home, store):
    box = Mailbox()
    feed = ["feed=synthetic", "feed.speed=1", "feed.ticks_per_second=0.1", "runtime.warmup_bars=0"]
    with mail_server(box) as port:
        mail = [f"email.port={port}", "email.sender=desk@example.org", "email.starttls=false"]
        mail += ["email.host=127.0.0.1", "email.recipients=[me@example.org]"]
        dog = run("watchdog", "every_s=0.2", f"books=[{BOOK}]", *mail)
        live = run("live", "strategy=buy_and_hold", *feed, *QUICK)
        until(lambda: state(home) == "running")
        until(lambda: any("silent" in letter["Subject"] for letter in box.letters), timeout=30)
        live.send_signal(signal.SIGTERM)
        ended(live)
        dog.send_signal(signal.SIGINT)
        ended(dog)
    (letter,) = [letter for letter in box.letters if "silent" in letter["Subject"]][:1]
    assert letter["Subject"] == f"[sysquant] {BOOK} silent"
    said = letter.get_payload(decode=True).decode()
    assert re.search("connected, without a record for [345] s", said)


def test_a_session_serves_its_pages_where_it_is_told(run, home, store, synthetic):
    from runners.kafka import free_ports
    from tests.test_health import fetched

    (port,) = free_ports(1)
    live = run("live", *synthetic, *QUICK, f"runtime.health_port={port}")
    until(lambda: state(home) == "running")
    status, text = fetched(f"http://127.0.0.1:{port}/healthz")
    assert (status, json.loads(text)["heartbeat"]["pid"]) == (200, live.pid)
    until(lambda: "sysquant_ticks_per_s" in fetched(f"http://127.0.0.1:{port}/metrics")[1])
    live.send_signal(signal.SIGTERM)
    ended(live)
    (rate,) = store.query("SELECT max(ticks_per_s) FROM runtime_metrics").result_rows[0]
    assert rate > 100


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("every_s=0", "every_s must be > 0 and finite, was 0.0"),
        ("repeat_s=abc", "repeat_s must be a number, was 'abc'"),
        ("books=5", "books must be [text, ...] or 'all', was 5"),
        ("email.host=h", "email.sender must be an address when there is a host, was None"),
        ("email.port=0", "email.port must be a whole number >= 1"),
        ("webhook.url=ftp://x", "webhook.url must begin with https:// or http://"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(run, word, said):
    out, err = (process := run("watchdog", word)).communicate(timeout=200)
    assert process.returncode == 1, out
    assert f"error: {said}" in err
    assert "Traceback" not in err


def test_a_secret_stands_in_no_file_of_a_run(run, home, hook, monkeypatch):
    secrets = {"SYSQUANT_WEBHOOK_URL": hook.url, "SYSQUANT_SMTP_PASSWORD": "swordfish"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    process = run("watchdog", "every_s=0.1", "books=[nobody]")
    until(lambda: hook.kinds() == ["missing"])
    process.terminate()
    said = "".join(process.communicate(timeout=10))
    written = {path: path.read_text() for path in home.rglob("*") if path.is_file()}
    assert any(path.name == "config.yaml" for path in written)
    for text in (said, *written.values()):
        assert "secret-of-the-hook" not in text
        assert "swordfish" not in text
    assert "missing book=nobody" in said


def test_help_names_every_word_that_it_tells_a_person(run, home):
    source = (REPOSITORY / "runners" / "watchdog.py").read_text()
    for kind in ("dead", "hung", "lost", "silent", "held", "missing", "recovered"):
        assert re.search(rf"\b{kind}\b", source.split('"""')[1])
