"""The journal: all of a commit or nothing; batches keep their bytes and tokens over restarts."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import DataError, JournalError
from sysquant.journal import Input, Journal
from sysquant.journal_reader import JournalReader
from sysquant.packed import pack, pack_batch, unpack, unpack_batch
from tests.market import bars, ticks


def entry(seq: int) -> Input:
    return Input(seq, "ticks", b"payload %d" % seq, b"hash")


def rows(*values: int) -> pa.Table:
    return pa.table({"x": list(values)})


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "book", seal_s=3600)
    yield opened
    opened.close()


def reopen(journal: Journal, **options) -> Journal:
    journal.close()
    return Journal(journal.directory, **options)


def test_rows_gather_while_a_batch_of_their_table_waits(tmp_path):
    journal = Journal(tmp_path, seal_rows=5, seal_s=0.0)
    (first,) = journal.commit(entry(1), {"orders": rows(1)})
    assert journal.commit(entry(2), {"orders": rows(2)}) == []
    assert not journal.is_sealing_due()
    (other,) = journal.commit(entry(3), {"signals": rows(1)})
    assert other.table == "signals"
    journal = reopen(journal, seal_rows=5, seal_s=0.0)
    assert journal.commit(entry(4), {"orders": rows(3)}) == []
    (full,) = journal.commit(entry(5), {"orders": rows(4, 5, 6)})
    assert full.rows == 5
    assert journal.commit(entry(6), {"orders": rows(7)}) == []
    (last,) = journal.commit(None, {}, sent=[first, full])
    assert (last.table, last.rows) == ("orders", 1)
    journal.close()


def test_what_was_committed_is_there_after_a_restart(journal):
    state = {"a": np.arange(3.0)}
    journal.commit(
        entry(1), {"orders": rows(1, 2)}, positions={0: 7}, snapshot=state, notes={"k": "v"}
    )
    journal.commit(entry(2), {"orders": rows(3)}, positions={0: 9, 1: 4})
    again = reopen(journal)
    assert again.id == journal.id
    assert [i.seq for i in again.inputs()] == [1, 2]
    assert [i.payload for i in again.inputs(after=1)] == [b"payload 2"]
    assert again.positions() == {0: 9, 1: 4}
    assert again.meta("k") == "v"
    assert again.outbox_rows == 3
    snapshot = again.snapshot()
    assert snapshot is not None
    seq, found = snapshot
    assert seq == 1
    assert found["a"].tolist() == [0.0, 1.0, 2.0]
    again.close()


def test_a_batch_keeps_rows_and_token_over_a_restart_until_it_arrived(journal):
    journal.commit(entry(1), {"orders": rows(1, 2), "signals": rows(9)})
    sealed = journal.commit(entry(2), {"orders": rows(3)}, seal_all=True)
    journal.commit(entry(3), {"orders": rows(4)})
    again = reopen(journal, seal_s=3600)
    assert again.sealed() == sealed
    assert {batch.table: batch.rows for batch in sealed} == {"orders": 3, "signals": 1}
    assert len({batch.token for batch in sealed}) == 2
    reader = JournalReader(again.path)
    orders = next(batch for batch in sealed if batch.table == "orders")
    assert reader.rows(orders)["x"].to_pylist() == [1, 2, 3]
    again.commit(None, {}, sent=sealed)
    assert again.sealed() == []
    assert again.outbox_rows == 1
    (rest,) = again.commit(None, {}, seal_all=True)
    assert reader.rows(rest)["x"].to_pylist() == [4]
    assert rest.token not in {batch.token for batch in sealed}
    reader.close()
    again.close()


def test_what_the_disk_is_not_waited_for_is_told_to_nobody_before_what_it_is(tmp_path):
    journal = Journal(tmp_path, seal_rows=1, seal_s=0.0)

    def levels():
        return journal._db.execute("PRAGMA synchronous").fetchone()[0]

    assert journal.commit(entry(1), {"events": rows(1)}, waits=False) == []
    assert levels() == 1  # of SQLite: a commit does not wait for the disk
    (batch,) = journal.commit(entry(2), {"events": rows(2)})
    assert levels() == 2
    assert batch.rows == 2
    journal.commit(entry(3), {"events": rows(3)}, waits=False)
    again = reopen(journal, seal_rows=1, seal_s=0.0)
    assert [one.seq for one in again.inputs()] == [1, 2, 3]
    (rest,) = again.commit(None, {}, sent=[batch])
    assert rest.rows == 1
    again.close()


def test_rows_become_a_batch_at_their_number(tmp_path):
    journal = Journal(tmp_path, seal_rows=3, seal_s=3600)
    assert journal.commit(entry(1), {"orders": rows(1, 2)}) == []
    (batch,) = journal.commit(entry(2), {"orders": rows(3)})
    assert batch.rows == 3
    journal.close()


def test_rows_become_a_batch_at_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr("sysquant.journal._SEAL_BYTES", 5_000)
    large = pa.table({"x": [b"x" * 3_000]})
    journal = Journal(tmp_path, seal_s=3600)
    assert journal.commit(entry(1), {"inputs": large, "orders": rows(1)}) == []
    journal = reopen(journal, seal_s=3600)
    (batch,) = journal.commit(entry(2), {"inputs": large, "orders": rows(2)})
    assert (batch.table, batch.rows) == ("inputs", 2)
    journal.close()


def test_a_failed_commit_leaves_nothing(journal):
    journal.commit(entry(1), {"orders": rows(1)}, positions={0: 1})
    with pytest.raises(JournalError, match="cannot be written"):
        journal.commit(entry(1), {"orders": rows(2)}, positions={0: 2})
    assert journal.positions() == {0: 1}
    assert [i.seq for i in journal.inputs()] == [1]
    again = reopen(journal)
    assert again.outbox_rows == 1
    again.close()


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(journal):
    journal.commit(entry(1), {}, snapshot={"a": np.array([1])})
    journal.commit(entry(2), {}, snapshot={"a": np.array([2])})
    journal.commit(entry(3), {}, snapshot={"a": np.array([3])})
    with sqlite3.connect(journal.path) as other:
        seqs = [row[0] for row in other.execute("SELECT seq FROM snapshots ORDER BY seq")]
        other.execute("UPDATE snapshots SET payload = zeroblob(9) WHERE seq = 3")
    other.close()
    assert seqs == [2, 3]
    found = journal.snapshot()
    assert found is not None
    assert found[0] == 2


def test_a_second_process_is_refused_and_told_who_holds_it(journal):
    program = f"""
        from pathlib import Path
        from sysquant.errors import JournalError
        from sysquant.journal import Journal
        try:
            Journal(Path({str(journal.directory)!r}))
        except JournalError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert f"in use by process {os.getpid()}" in done.stdout


def test_the_lock_goes_with_its_process(tmp_path):
    program = f"""
        import os, signal
        from pathlib import Path
        from sysquant.journal import Journal
        journal = Journal(Path({str(tmp_path)!r}))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    Journal(tmp_path).close()


def test_a_full_disk_is_one_sentence_and_nothing_of_the_batch_happened(tmp_path):
    program = f"""
        import resource, signal
        from pathlib import Path
        from sysquant.errors import JournalError
        from sysquant.journal import Input, Journal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal(Path({str(tmp_path)!r}))
        journal.commit(Input(1, "ticks", b"x", b""), {{}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            for seq in range(2, 1000):
                journal.commit(Input(seq, "ticks", b"x" * 20_000, b""), {{}}, positions={{0: seq}})
        except JournalError as error:
            print(seq, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    failed_at, sentence = done.stdout.strip().split(" ", 1)
    assert "cannot be written" in sentence
    assert "free space" in sentence
    journal = Journal(tmp_path)
    assert journal.last_seq == int(failed_at) - 1
    assert journal.positions() == {0: int(failed_at) - 1}
    journal.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_batches_of_events_survive_packing():
    for kind, batch in (("ticks", ticks(50)), ("bars", bars([1.0, 2.0]))):
        again = unpack_batch(kind, pack_batch(batch))
        for (name, left), (_, right) in zip(batch.columns(), again.columns(), strict=True):
            assert left.dtype == right.dtype, name
            assert left.tobytes() == right.tobytes(), name


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_bytes_are_an_error_and_never_something_else(data):
    packed = bytearray(pack({"a": np.arange(4.0), "b": np.zeros(2, [("x", "i8"), ("y", "f8")])}))
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(DataError, match="damaged"):
        unpack(bytes(packed[:cut]))
