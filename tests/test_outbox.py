"""The sending thread: no failure of the store or the disk ends it, and none is hidden."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from urllib3.exceptions import ProtocolError

from sysquant.errors import JournalError, StoreError
from sysquant.journal import Batch, Journal
from sysquant.journal_reader import JournalReader
from sysquant.outbox import Outbox

ROWS = pa.table({"x": [1, 2, 3]})


class MemoryClient:
    """Keeps what is inserted, by token."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def insert_arrow(self, table: str, rows: pa.Table, settings: dict[str, Any]) -> None:
        assert (table, rows) == ("orders", ROWS)
        self.tokens.append(settings["insert_deduplication_token"])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal of its own."""
    with closing(Journal(tmp_path / "book")) as opened:
        yield opened


def sealed(journal: Journal) -> list[Batch]:
    return journal.commit(None, {"orders": ROWS}, seal_all=True)


def test_writer_outlives_every_failure_of_the_store(journal: Journal):
    client = MemoryClient()
    failures: list[Exception] = [
        StoreError("it does not answer"),
        OperationalError("no connection"),
        ProtocolError("the answer was cut short"),
        ConnectionResetError("it is gone"),
    ]

    def connect() -> MemoryClient:
        if failures:
            raise failures.pop()
        return client

    with closing(Outbox(journal.path, connect)) as outbox:
        batches = sealed(journal)
        outbox.send(batches)
        assert outbox.flush(20)
        outbox.check()
        assert outbox.arrived() == batches
        assert client.tokens == [batch.token for batch in batches]


def test_writer_outlives_a_disk_that_refuses(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    read, refusals = JournalReader.rows, [JournalError("disk I/O error")]

    def rows(reader: JournalReader, batch: Batch) -> pa.Table:
        if refusals:
            raise refusals.pop()
        return read(reader, batch)

    def checkpoint(_reader: JournalReader) -> None:
        raise JournalError("database or disk is full")

    monkeypatch.setattr(JournalReader, "rows", rows)
    monkeypatch.setattr(JournalReader, "checkpoint", checkpoint)
    client = MemoryClient()
    with closing(Outbox(journal.path, lambda: client)) as outbox:
        for count in (1, 2):
            outbox.send(sealed(journal))
            assert outbox.flush(20)
            assert len(client.tokens) == count
        outbox.check()


def test_age_is_that_of_the_oldest_batch_that_has_not_arrived(journal: Journal):
    client, is_away = MemoryClient(), [True]

    def connect() -> MemoryClient:
        if is_away[0]:
            raise StoreError("it does not answer")
        return client

    with closing(Outbox(journal.path, connect)) as outbox:
        assert outbox.age_s == 0.0
        outbox.send(sealed(journal))
        time.sleep(0.2)
        outbox.send(sealed(journal))
        assert 0.2 <= outbox.age_s < 5
        is_away[0] = False
        assert outbox.flush(20)
        assert outbox.age_s == 0.0


def test_reader_says_what_the_disk_refused(journal: Journal):
    (batch,) = sealed(journal)
    with closing(JournalReader(journal.path)) as reader:
        with closing(sqlite3.connect(journal.path)) as other:
            other.execute("DROP TABLE outbox")
        with pytest.raises(JournalError, match=r"journal\.db cannot be used: no such table"):
            reader.rows(batch)


def watch(outbox: Outbox, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        outbox.check()
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_writer_that_died_is_told_of(journal: Journal):
    def connect() -> MemoryClient:
        raise RuntimeError("an error of the program")

    with closing(Outbox(journal.path, connect)) as outbox:
        outbox.check()
        outbox.send(sealed(journal))
        with pytest.raises(StoreError, match="the rows wait in the journal"):
            watch(outbox, 10)
    assert journal.outbox_rows == 3
