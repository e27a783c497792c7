"""Old inputs leave the journal for sealed files, and nothing is lost, doubled or changed by it."""

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sysquant.errors import JournalError
from sysquant.journal import Input, Journal
from sysquant.recovery import replay
from sysquant.sealing import Sealer, sealed_inputs
from tests.market import engine, ticks
from tests.test_live import DECIDED, MemoryFeed, expected, rows, session


def until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def filled(tmp_path, count, *, snapshots=(), payload=100):
    """A journal of so many inputs, with snapshots after some of them."""
    journal = Journal(tmp_path)
    for seq in range(journal.last_seq + 1, count + 1):
        entry = Input(seq, "ticks", bytes([seq % 256]) * payload, b"h")
        snapshot = {} if seq in snapshots else None
        journal.commit(entry, {}, snapshot=snapshot)
    return journal


def seqs(journal):
    return [entry.seq for entry in journal.inputs()]


def test_inputs_that_two_snapshots_outlived_are_sealed_and_then_forgotten(tmp_path):
    journal = filled(tmp_path, 60, snapshots=(40, 50))
    assert journal.outlived() == 40
    sealer = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq, least=10)
    sealer.ask(journal.outlived())
    until(lambda: sealer.sealed == 40)
    assert seqs(journal) == list(range(1, 61)), "sealing alone forgets nothing"
    journal.commit(None, {}, sealed=sealer.sealed)
    assert seqs(journal) == list(range(41, 61))
    assert [(one.seq, one.payload) for one in sealed_inputs(tmp_path / "run")] == [
        (seq, bytes([seq]) * 100) for seq in range(1, 41)
    ]
    assert journal.last_seq == 60
    sealer.close()
    journal.close()
    again = Journal(tmp_path)
    assert (again.trimmed, again.last_seq) == (40, 60)
    again.close()


def test_few_large_inputs_are_worth_a_file_and_no_file_is_larger_than_one_needs(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sysquant.sealing._MOST_BYTES", 1_000)
    journal = filled(tmp_path, 30, snapshots=(29, 30))
    sealer = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq)
    sealer.ask(9)
    sealer.ask(29)
    until(lambda: sealer.sealed == 20)
    sealer.close()
    files = sorted((tmp_path / "run").iterdir())
    assert [path.name[7:-8].split("-")[1] for path in files] == ["000000000010", "000000000020"]
    journal.close()


def test_what_a_snapshot_may_need_is_never_forgotten(tmp_path):
    journal = filled(tmp_path, 60, snapshots=(20, 50))
    journal.commit(None, {}, sealed=60)
    assert seqs(journal) == list(range(21, 61))
    journal.close()


def test_many_inputs_are_forgotten_a_few_at_a_time(tmp_path):
    journal = filled(tmp_path, 1_300, snapshots=(1_250, 1_300), payload=1)
    left = []
    for _ in range(4):
        journal.commit(None, {}, sealed=1_250)
        left.append(len(seqs(journal)))
    assert left == [800, 300, 50, 50]
    journal.close()


def test_a_crash_between_sealing_and_forgetting_seals_nothing_twice(tmp_path):
    journal = filled(tmp_path, 30, snapshots=(20, 30))
    first = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq, least=10)
    first.ask(20)
    until(lambda: first.sealed == 20)
    first.close()
    journal.close()
    journal = filled(tmp_path, 60, snapshots=(45, 60))
    second = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq, least=10)
    assert second.sealed == 20
    second.ask(45)
    until(lambda: second.sealed == 45)
    assert [one.seq for one in sealed_inputs(tmp_path / "run")] == list(range(1, 46))
    second.close()
    journal.close()


@pytest.mark.parametrize("fault", ["changed", "missing", "cut", "swapped"])
def test_sealed_inputs_that_are_not_what_was_sealed_are_refused(tmp_path, fault):
    journal = filled(tmp_path, 30, snapshots=(20, 30))
    sealer = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq, least=5)
    for last in (10, 20):
        sealer.ask(last)
        until(lambda last=last: sealer.sealed == last)
    sealer.close()
    journal.close()
    first, second = sorted((tmp_path / "run").iterdir())
    if fault == "missing":
        first.unlink()
    elif fault == "cut":
        first.write_bytes(first.read_bytes()[:-20])
    elif fault == "swapped":
        first.write_bytes(second.read_bytes())
    else:
        table = pq.read_table(first)
        other = table.set_column(2, "payload", pa.array([b"x"] * 10, pa.binary()))
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), first)
    with pytest.raises(JournalError):
        list(sealed_inputs(tmp_path / "run"))


@pytest.mark.parametrize("fault", ["damaged", "ahead"])
def test_files_that_do_not_fit_the_journal_stop_sealing_and_nothing_else(tmp_path, fault):
    journal = filled(tmp_path, 30, snapshots=(20, 30))
    sealer = Sealer(journal.path, tmp_path / "run", newest=journal.last_seq, least=5)
    sealer.ask(20)
    until(lambda: sealer.sealed == 20)
    sealer.close()
    (file,) = (tmp_path / "run").iterdir()
    if fault == "damaged":
        file.write_bytes(b"nothing")
    newest = 10 if fault == "ahead" else 30  # as of a copy from before
    again = Sealer(journal.path, tmp_path / "run", newest=newest, least=5)
    again.ask(20)
    time.sleep(0.1)
    assert again.sealed == 0
    journal.commit(None, {}, sealed=again.sealed)
    assert seqs(journal) == list(range(1, 31)), "nothing is forgotten that lies nowhere else"
    again.close()
    journal.close()


def test_a_session_keeps_its_journal_small_and_its_sealed_inputs_replay_to_what_it_did(tmp_path):
    events, tables = ticks(3_000), {}
    feed = MemoryFeed(events, size=10)
    runner = session(tmp_path, feed, tables, least=20, snapshot_s=0.0)
    runner.run()
    journal = Journal(tmp_path)
    assert journal.trimmed > 200 and len(seqs(journal)) < 100
    book = engine()
    sealed = list(sealed_inputs(tmp_path / "sealed"))
    for entry in [*(one for one in sealed if one.seq <= journal.trimmed), *journal.inputs()]:
        replay(book, entry)  # compares what each of them does
    journal.close()
    assert book.positions() == runner.engine.positions()
    for name in DECIDED:
        assert rows(tables, name) == expected(events, name), name


def test_a_journal_whose_snapshots_are_both_damaged_is_refused_once_it_was_trimmed(tmp_path):
    runner = session(tmp_path, MemoryFeed(ticks(2_000), size=10), {}, least=20, snapshot_s=0.0)
    runner.run()
    journal = Journal(tmp_path)
    assert journal.trimmed
    journal._db.execute("UPDATE snapshots SET checksum = x'00'")
    journal.close()
    again = session(tmp_path, MemoryFeed(ticks(3_000), size=10), {})
    with pytest.raises(JournalError, match="both snapshots of the journal"):
        again.run()
