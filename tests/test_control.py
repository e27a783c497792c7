"""Messages to a running book: only those of a holder of a key, for it, now and once, count."""

import random
import time

import msgspec
import pytest

from sysquant import control
from sysquant.control import Keys, Message, read_answer, write, write_answer
from sysquant.errors import ControlError
from sysquant.gate import Gate

KEYS = Keys({"operate": b"o" * 32, "rearm": b"r" * 32})
OTHERS = Keys({"operate": b"x" * 32, "rearm": b"y" * 32})
BOOK = {"book": "desk", "journal": "j1"}
SECOND = 1_000_000_000


def gate(**more):
    return Gate(KEYS, **BOOK, **more)


def said(command=None, *, keys=KEYS, role="operate", issued=None, nonce=None, **where):
    message = Message(
        **{**BOOK, **where}, role=role, issuer="ann", issued=issued or time.time_ns(),
        nonce=nonce or random.randbytes(16).hex(), command=command or control.Stop("momentum"),
    )  # fmt: skip
    return keys.sign(role, msgspec.json.encode(message))


def refused(raw, *, at=None, read=None, by=None):
    now = time.time_ns()
    with pytest.raises(ControlError) as error:
        (by or gate()).admit(raw, at or now, read or at or now)
    return str(error.value)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (control.Status(), "operate"), (control.Start("a"), "operate"),
        (control.Stop(None, "BTC"), "operate"), (control.Drain("a"), "operate"),
        (control.Pause("a"), "operate"), (control.Resume(), "operate"),
        (control.Weight("a", 0.5), "operate"), (control.MoveCash("a", "", 1.5), "operate"),
        (control.Refresh("a"), "operate"), (control.Halt(), "operate"),
        (control.Halt(), "rearm"), (control.Rearm(), "rearm"), (control.Rearm("a"), "rearm"),
    ],
    ids=str,
)  # fmt: skip
def test_every_command_is_heard_as_it_was_said(command, role):
    raw = write(command, KEYS, **BOOK, role=role, issuer="ann")
    now = time.time_ns()
    message = gate().admit(raw, now, now)
    assert (message.command, message.role, message.issuer) == (command, role, "ann")


@pytest.mark.parametrize(
    ("command", "role"),
    [(control.Rearm(), "operate"), (control.Stop("a"), "rearm"), (control.Resume(), "rearm")],
    ids=str,
)
def test_a_key_may_say_what_its_role_may_and_nothing_else(command, role):
    assert "is not for the key of role" in refused(said(command, role=role))


def test_a_role_that_is_only_claimed_counts_for_nothing():
    message = msgspec.json.decode(said(control.Rearm(), role="rearm").partition(b" ")[2])
    raw = KEYS.sign("operate", msgspec.json.encode(message))
    assert "is not for the key of role" in refused(raw)


def test_a_message_of_another_key_or_changed_by_a_byte_is_refused():
    assert "by none of the book's keys" in refused(said(keys=OTHERS))
    raw = said()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        assert "by none of the book's keys" in refused(bytes(changed))
    assert "by none of the book's keys" in refused(b"")


def test_a_message_to_another_book_or_journal_is_refused():
    assert "it is for book 'other'" in refused(said(book="other"))
    assert "journal 'j0'" in refused(said(journal="j0"))


@pytest.mark.parametrize("late_s", [-31, 31, 3600])
def test_a_message_that_arrives_long_after_it_was_issued_or_before_is_refused(late_s):
    issued = 1_700_000_000 * SECOND
    assert "it was issued" in refused(said(issued=issued), at=issued + late_s * SECOND)


def test_a_message_that_waited_to_be_read_is_refused():
    issued = 1_700_000_000 * SECOND
    raw = said(issued=issued)
    assert "it waited for 31.0 s" in refused(raw, at=issued, read=issued + 31 * SECOND)


def test_age_is_measured_by_the_broker_and_not_by_our_clock():
    issued = 1_700_000_000 * SECOND
    gate().admit(said(issued=issued), issued + 29 * SECOND, issued + 58 * SECOND)


def test_a_message_counts_once_also_after_a_restart_and_at_the_latest_moment():
    issued = 1_700_000_000 * SECOND
    raw, first = said(issued=issued), gate()
    first.admit(raw, issued - 29 * SECOND, issued - 29 * SECOND)  # from a clock that is ahead
    assert "every message counts once" in refused(raw, at=issued, by=first)
    latest = issued + 59 * SECOND
    again = gate(nonces=first.nonces(latest))
    assert "every message counts once" in refused(
        raw, at=issued + 30 * SECOND, read=latest, by=again
    )
    assert first.nonces(issued + 61 * SECOND) == {}


def test_what_is_no_message_is_refused_although_it_is_signed():
    for body in (b"", b"{}", b"[]", b"\xff", b'{"book": "desk"}', b"[" * 2000):
        assert "it cannot be read" in refused(KEYS.sign("operate", body))
    body = msgspec.json.decode(said().partition(b" ")[2])
    for change in ({"more": 1}, {"command": {"type": "sell"}}, {"issued": "now"}, {"role": "root"}):
        raw = KEYS.sign("operate", msgspec.json.encode(body | change))
        assert "it cannot be read" in refused(raw)
    assert "at most 4,096 are read" in refused(said(control.Stop("x" * 5000)))
    assert "every message counts once" in refused(said(nonce="short"))


def test_of_ten_thousand_forged_stale_replayed_and_misroled_messages_none_is_accepted():
    rng, now, accepted = random.Random(1), time.time_ns(), 0
    book, used = gate(), said()
    book.admit(used, now, now)
    makes = [
        lambda: rng.randbytes(rng.randrange(400)),
        lambda: said(keys=OTHERS),
        lambda: said(issued=now - rng.randrange(31, 10**6) * SECOND),
        lambda: used,
        lambda: said(control.Rearm()),
        lambda: said(role="rearm"),
        lambda: said(journal=str(rng.random())),
        lambda: used[: rng.randrange(len(used))],
        lambda: said().replace(b'"ann"', b'"bob"'),
    ]
    for _ in range(10_000):
        try:
            book.admit(rng.choice(makes)(), now, now)
            accepted += 1
        except ControlError:
            pass
    assert accepted == 0


def test_keys_are_made_once_for_their_owner_alone(tmp_path):
    assert Keys.load(tmp_path / "keys").of == {} and not (tmp_path / "keys").exists()
    first, again = Keys.load(tmp_path / "keys", make=True), Keys.load(tmp_path / "keys")
    assert first.of == again.of and len(set(first.of.values())) == 2
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    (tmp_path / "keys" / "rearm.key").chmod(0o640)
    with pytest.raises(ControlError, match="chmod 600"):
        Keys.load(tmp_path / "keys")


def test_keys_of_the_environment_count_before_files_and_must_be_long_and_two(tmp_path, monkeypatch):
    monkeypatch.setenv("SYSQUANT_OPERATE_KEY", "a" * 32)
    monkeypatch.setenv("SYSQUANT_REARM_KEY", "b" * 32)
    assert Keys.load(tmp_path, make=True).of == {"operate": b"a" * 32, "rearm": b"b" * 32}
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("SYSQUANT_REARM_KEY", "a" * 32)
    with pytest.raises(ControlError, match="the same key"):
        Keys.load(tmp_path)
    monkeypatch.setenv("SYSQUANT_REARM_KEY", "b")
    with pytest.raises(ControlError, match="at least 32 characters, had 1"):
        Keys.load(tmp_path)


def test_who_holds_one_key_says_what_it_may_and_reads_the_answer():
    rearms = Keys({"rearm": KEYS.of["rearm"]})
    kinds = control.Status, control.Halt, control.Rearm
    assert [rearms.role_for(kind) for kind in kinds] == ["rearm"] * 3
    assert [KEYS.role_for(kind) for kind in kinds] == ["operate", "operate", "rearm"]
    with pytest.raises(ControlError, match="no key for move-cash here: set SYSQUANT_OPERATE_KEY"):
        rearms.role_for(control.MoveCash)
    asked = write(control.Halt(), rearms, book="b", journal="j", role="rearm")
    answer = control.Answer(control.request_id(asked), True, "halted", 7)
    assert read_answer(write_answer(answer, KEYS, asked), rearms) == answer
    stranger = OTHERS.sign("operate", b"asked")
    assert read_answer(write_answer(answer, KEYS, stranger), OTHERS) is None


def test_a_key_is_shown_nowhere():
    assert "ooo" not in repr(KEYS) and "ooo" not in str(KEYS)


def test_an_answer_is_read_when_it_is_signed_and_whole():
    answer = control.Answer("id", True, "done", 7)
    raw = write_answer(answer, KEYS, KEYS.sign("operate", b"asked"))
    assert read_answer(raw, KEYS) == answer
    assert read_answer(raw, OTHERS) is None
    assert read_answer(raw[:-1], KEYS) is None
    assert read_answer(KEYS.sign("operate", b"{}"), KEYS) is None
