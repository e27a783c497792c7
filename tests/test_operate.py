"""Running books and their operator as processes: over this machine, over Kafka, and at the end."""

import json
import signal
import time
from types import SimpleNamespace

import pytest

from runners import control, live
from sysquant.control import Answer, Keys, Status
from sysquant.control import Stop as StopCommand
from sysquant.control import write as write_command
from sysquant.locking import holder, lock
from sysquant.mailbox import post
from tests.sessions import ended, forked, journaled, run_of, server, store, until
from tests.sessions import run as started
from tests.test_session_kafka import ETHUSDT, eth_session, publish

__all__ = ["forked", "server", "started", "store"]  # fixtures

BOOK = ["book=[buy_and_hold,momentum]", "feed=synthetic", "feed.speed=60", "runtime.warmup_bars=0"]


def operator(started, *words):
    """Exit code and answer of one call of `control.py`."""
    process = started("control", "--json", *words)
    out, err = process.communicate(timeout=200)
    return process.returncode, json.loads(out) if out else err


def standing(started):
    code, answer = operator(started, "status")
    assert code == 0, answer
    return answer["status"]


def held(started, name):
    return standing(started)["strategies"][name]["positions"]


def test_a_book_is_operated_from_the_command_line(forked, started, store, home):
    live = forked("live", *BOOK)
    until(lambda: journaled(home, "buy_and_hold-momentum-synthetic") > 3)
    until(lambda: held(started, "buy_and_hold"))
    code, answer = operator(started, "stop", "buy_and_hold", "--wait", "20")
    assert code == 0 and answer["text"].endswith("flat"), answer
    until(lambda: standing(started)["pool"] > 490_000)
    assert operator(started, "start", "buy_and_hold")[0] == 0
    assert operator(started, "weight", "momentum", "0.25")[0] == 0
    assert operator(started, "halt")[0] == 0
    said = standing(started)
    assert said["holds"] == ["halt"] and said["strategies"]["momentum"]["weight"] == 0.25
    assert operator(started, "rearm")[0] == 0
    code, answer = operator(started, "stop", "momentun")
    assert code == 1 and "did you mean 'momentum'" in answer["text"]
    live.send_signal(signal.SIGTERM)
    output = ended(live, timeout=20)
    kinds = store.query(
        "SELECT kind, count() FROM events WHERE run = {run:String} GROUP BY kind",
        {"run": run_of(output)},
    ).result_rows
    assert dict(kinds) | {"stop": 2, "rearm": 1, "halt": 1, "weight": 1} == dict(kinds)
    commands = store.query("SELECT count() FROM inputs WHERE kind = 'command'").result_rows
    assert commands[0][0] >= 6
    code, said = operator(started, "status")
    assert code == 3 and "nobody trades now" in said


def test_of_two_books_one_is_named(forked, started, home):
    for name in ("one", "two"):
        forked("live", *BOOK, f"book.name={name}", "store.dsn=chdb:data/store")
        until(lambda name=name: journaled(home, name) > 0)
    code, said = operator(started, "status")
    assert code == 1 and "name one book with --book: one, two" in said
    assert operator(started, "--book", "two", "status")[0] == 0
    code, said = operator(started, "--book", "twoo", "status")
    assert code == 1 and "did you mean 'two'" in said


def test_the_schedule_is_asked_how_it_stands_and_told_nothing_that_is_for_books(
    forked, started, home
):
    code, said = operator(started, "status", "--book", "schedule")
    assert code == 3 and "no schedule runs: start it with runners/schedule.py" in said
    process = forked("schedule")
    until(lambda: holder(home / "data" / "schedule") is not None)
    until(lambda: operator(started, "status", "--book", "schedule")[0] == 0)
    shown = started("control", "status", "--book", "schedule").communicate(timeout=200)[0]
    assert "schedule, journal" in shown and "next by the clock" in shown
    assert "ml_direction" in shown and "not yet" in shown and ":00:00 UTC" in shown
    code, answer = operator(started, "stop", "momentum", "--book", "schedule")
    assert code == 1 and answer["text"] == "stop is for a book, this is the schedule"
    code, said = operator(started, "adopt", "--book", "schedule")
    assert code == 1 and said == "error: adopt is for a book, this is the schedule\n"
    process.terminate()
    ended(process, timeout=20)


def test_what_a_holding_book_answers_to_refresh_is_said_once(monkeypatch, capsys):
    text = "ml holds 000003-ab: a newer one is to be promoted"
    status = {"strategies": {"ml": {"model": {"model": "000003-ab", "said": text}}}}

    class Line:
        def ask(self, command):
            is_status = isinstance(command, Status)
            return Answer(
                "1", True, "" if is_status else text, status=status if is_status else None
            )

    monkeypatch.setattr(control, "_line", lambda said: Line())
    assert control.main(["refresh", "ml"]) == 1
    assert capsys.readouterr().out == f"refused: {text}\n"


def test_the_ingest_of_another_session_is_left_alone_until_that_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_INGEST_AGAIN_S", 0.0)
    monkeypatch.setattr("runners.compose.output_dir", lambda: tmp_path)
    monkeypatch.setattr("runners.compose.chosen", lambda *groups: [])
    started = []

    class Stop:
        def spawn(self, command, output):
            started.append(SimpleNamespace(returncode=None, poll=lambda: started[-1].returncode))
            return started[-1]

    with lock(tmp_path / "journal"):  # of the champion's, beside which a challenger is started
        ingest = live._Ingest(Stop(), tmp_path / "journal")
        for _ in range(3):
            ingest.look()
        assert started == []
    ingest.look()
    ingest.look()
    assert len(started) == 1
    started[0].returncode = 1
    with lock(tmp_path / "journal"):  # another was first: ours was refused
        ingest.look()
        assert len(started) == 1
    ingest.look()
    started[1].returncode = 1
    ingest.look()
    assert len(started) == 3, "one that fails by itself is started again"


def test_a_model_is_named_by_its_number_or_by_its_name(capsys):
    for word, meant in (("4", (4, "")), ("000004-deadbeef0000", (4, "deadbeef0000"))):
        assert control._parser().parse_args(["rollback", "ml", word]).number == meant
    for word in ("4-", "four", "4-xyz", "-4"):
        with pytest.raises(SystemExit):
            control._parser().parse_args(["rollback", "ml", word])
    assert "or its name, as 000007-" in capsys.readouterr().err


def test_a_second_runner_of_a_book_is_refused_with_the_pid_of_the_first(forked, home):
    first = forked("live", *BOOK)
    until(lambda: journaled(home, "buy_and_hold-momentum-synthetic") > 0)
    second = forked("live", *BOOK)
    _, err = second.communicate(timeout=200)
    assert second.returncode == 1
    assert f"in use by process {first.pid}" in err


def test_another_configuration_goes_on_with_what_it_adopts(forked, started, home, server, store):
    live = forked("live", *BOOK)
    name = "buy_and_hold-momentum-synthetic"
    until(lambda: journaled(home, name) > 3)
    until(lambda: held(started, "buy_and_hold"))
    code, said = operator(started, "adopt")
    assert code == 1 and f"in use by process {live.pid}" in said
    live.kill()
    live.communicate()
    other = forked("live", *BOOK, "book.strategies.momentum.fast=7")
    _, err = other.communicate(timeout=200)
    assert other.returncode == 1
    assert "strategies was" in err and "control.py adopt" in err and "journal=fresh" in err
    assert operator(started, "adopt", "--book", name)[0] == 0
    again = forked("live", *BOOK, "book.strategies.momentum.fast=7")
    before = journaled(home, name)
    until(lambda: again.poll() is not None or journaled(home, name) > before + 3)
    assert held(started, "buy_and_hold")
    again.send_signal(signal.SIGTERM)
    output = ended(again, timeout=20)
    assert "adopted by" in output
    kinds = store.query("SELECT count() FROM events WHERE kind = 'adopted'").result_rows
    assert kinds == [(1,)] and store.query("SELECT count() FROM runs").result_rows == [(2,)]


@pytest.mark.parametrize("how", ["flat", "kept"])
def test_flattening_at_the_end_says_by_its_exit_code_whether_it_did(forked, started, home, how):
    # Half an hour of trades a second, or none any more: the feed goes so slowly.
    live = forked("live", *BOOK, "book.at_stop={buy_and_hold: flatten}")
    until(lambda: journaled(home, "buy_and_hold-momentum-synthetic") > 3)
    until(lambda: held(started, "buy_and_hold"))
    if how == "kept":  # a halted book sends no order
        operator(started, "halt")
        code, answer = operator(started, "stop", "buy_and_hold", "--wait", "1")
        assert code == 4 and "it still holds buy_and_hold" in answer["text"]
    live.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    out, err = live.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert live.returncode == (4 if how == "kept" else 0), f"{out}\n{err}"
    assert ("not flat: buy_and_hold keeps" if how == "kept" else "flat: buy_and_hold") in out


def test_a_book_on_kafka_is_commanded_over_its_topic(
    forked, started, home, store, broker, topic, shared_data
):
    if broker.kind == "mock":
        pytest.skip("the mock broker has no topics made by others: not shown here")
    publish(forked, broker, topic, shared_data / ETHUSDT)
    session = [*eth_session(broker, topic), "runtime.stop_after_idle_s=60"]
    session += [f"runtime.control_topic=control_{topic}", "feed.max_records=2000"]
    live = forked("live", *session)
    until(lambda: journaled(home, "momentum-kafka") > 3)
    code, answer = operator(started, "pause", "momentum", "--timeout", "15")
    assert code == 0, answer
    assert standing(started)["strategies"]["momentum"]["state"] == "paused"
    forged = write_command(
        StopCommand(), Keys({"operate": b"x" * 32, "rearm": b"y" * 32}), book="momentum-kafka",
        journal=answer["request"], role="operate",
    )  # fmt: skip
    post(home / "data" / "journals" / "momentum-kafka", forged)
    refused = "SELECT count() FROM events WHERE kind = 'refused_command'"
    until(lambda: store.query(refused).result_rows[0][0] == 1)
    live.send_signal(signal.SIGTERM)
    ended(live, timeout=20)
