"""What others than its writer see of a journal: the sending thread, ingest's waiters, control.

Input: the file of a journal. Output: rows of sealed batches; what another process may ask. Nothing
is written but the file's own log moved into it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sysquant.errors import JournalError
from sysquant.journal import Batch, Input
from sysquant.packed import Table, join_tables, unpack_table


class JournalReader:
    """What the sending thread needs of a journal: rows of batches, and a small log file.

    Raises
    ------
    JournalError
        From `rows` and `checkpoint`, if the disk refuses; the same call may be repeated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)

    def _fetch(self, statement: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"the journal {self._path} cannot be used: {error}") from error

    def rows(self, batch: Batch) -> Table:
        """The rows of a sealed batch."""
        payloads = self._fetch("SELECT payload FROM outbox WHERE batch=? ORDER BY id", batch.id)
        return join_tables([unpack_table(payload) for (payload,) in payloads])

    def inputs_size(self, after: int, last: int) -> int:
        """Bytes of payload of the inputs after one, up to another."""
        return self._fetch(
            "SELECT ifnull(sum(length(payload)), 0) FROM inputs WHERE seq > ? AND seq <= ?",
            after, last,
        )[0][0]  # fmt: skip

    def inputs(self, after: int, last: int, *, most_bytes: int) -> list[Input]:
        """The inputs after one, up to another: as many as so many bytes of payload, at least one.

        Raises
        ------
        JournalError
            If there is none, or the disk refuses.
        """
        found, size = list[Input](), 0
        try:
            rows = self._db.execute(
                "SELECT seq, kind, payload, effects_hash FROM inputs WHERE seq > ? AND seq <= ? "
                "ORDER BY seq",
                (after, last),
            )
            for row in rows:
                found.append(Input(*row))
                size += len(found[-1].payload)
                if size >= most_bytes:
                    break
        except sqlite3.Error as error:
            raise JournalError(f"the journal {self._path} cannot be used: {error}") from error
        if not found or found[0].seq != after + 1:
            raise JournalError(f"the journal {self._path} lacks input {after + 1}")
        return found

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, as far as nobody reads it."""
        self._fetch("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def ask(directory: Path, question: str, *values: object) -> list[Any]:
    """Rows of a question to a journal that another process may be writing; empty without one."""
    try:
        db = sqlite3.connect(f"file:{quote(str(directory / 'journal.db'))}?mode=ro", uri=True)
        with closing(db):
            return db.execute(question, values).fetchall()
    except sqlite3.DatabaseError:  # not made yet, or none at all
        return []


def positions(directory: Path) -> dict[int, int]:
    """Partition -> next offset, of a journal that another process writes; empty for none."""
    return dict(ask(directory, "SELECT partition, next_offset FROM positions"))


def meta(directory: Path) -> dict[str, str]:
    """What the journal remembers, by key."""
    return dict(ask(directory, "SELECT key, value FROM meta"))


def answer(directory: Path, request: str) -> bytes | None:
    """The answer to a request; None as long as there is none."""
    found = ask(directory, "SELECT answer FROM answers WHERE request = ?", request)
    return found[0][0] if found else None
