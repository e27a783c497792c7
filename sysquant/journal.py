"""The journal of one book: its inputs in order, its snapshots, and the rows not yet in the store.

One SQLite file; one transaction per batch is the only moment anything happens: a crash before it
means the batch never was. All writing is done by the thread that opened it. What the rows mean,
and sending them, is the business of others (`live.py`, `outbox.py`).
"""

import hashlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sysquant.errors import JournalError
from sysquant.failpoints import Point, reached
from sysquant.locking import lock
from sysquant.packed import Table, pack, pack_table, unpack

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS positions (
    partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS inputs (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload BLOB NOT NULL, effects_hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS snapshots (
    seq INTEGER PRIMARY KEY, payload BLOB NOT NULL, checksum BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, rows INTEGER NOT NULL,
    payload BLOB NOT NULL, batch INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_by_batch ON outbox (batch);
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, rows INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    request TEXT PRIMARY KEY, answer BLOB NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (at);
"""
_KEPT_SNAPSHOTS = 2
_SEAL_BYTES = 8 << 20  # what the sending thread has in memory at a time
_TRIMMED = 500  # inputs that are forgotten at a time
_KEPT_ANSWERS_NS = 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Input:
    """One journaled input: `payload` of `kind`, and the hash of what it caused."""

    seq: int
    kind: str
    payload: bytes
    effects_hash: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one table that are sent together, again and again unchanged, until they arrive."""

    id: int
    table: str
    rows: int
    token: str


@dataclass(slots=True)
class _Pending:
    # Rows of one table that wait for their batch to be sealed.
    rows: int = 0
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class Journal:
    """The journal in `directory`, locked for this process.

    Parameters
    ----------
    directory : made when missing; for `journal.db` and `journal.lock`.
    way_out : for who finds it in use, besides to stop the other.
    seal_rows, seal_s : a table's rows become a batch at this many (or at 8 MB), or at this age when
        none of its batches is on its way: what waits for a store that is away waits in large ones.

    Attributes
    ----------
    id : random, made with the file.
    last_seq : of the newest input, 0 before the first.
    outbox_rows : rows that the store has not confirmed.
    trimmed : the last input that was forgotten, since it is sealed elsewhere; 0 for none.

    Raises
    ------
    JournalError
        If another process holds it, or the file is damaged or cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seal_rows: int = 20_000,
        seal_s: float = 0.5,
        way_out: str = "or name another book with book.name=...",
    ) -> None:
        self.directory = directory
        self._seal_rows = seal_rows
        self._seal_s = seal_s
        self._lock = lock(directory, way_out)
        self.path = directory / "journal.db"
        fresh = not self.path.exists()
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None)
            self._prepare(fresh)
            self.id: str = self.meta("id") or ""
            pending = self._db.execute(
                "SELECT tbl, sum(rows), sum(length(payload)) FROM outbox WHERE batch IS NULL"
                " GROUP BY tbl"
            )
            self._pending = {table: _Pending(rows, size) for table, rows, size in pending}
            self._unsent = Counter(batch.table for batch in self.sealed())
            self.outbox_rows: int = self._db.execute(
                "SELECT ifnull(sum(rows), 0) FROM outbox"
            ).fetchone()[0]
            self.trimmed: int = self._db.execute(  # input that was trimmed last
                "SELECT ifnull(min(seq) - 1, 0) FROM inputs"
            ).fetchone()[0]
            self.last_seq: int = self._db.execute(
                "SELECT max(ifnull((SELECT max(seq) FROM inputs), 0),"
                " ifnull((SELECT max(seq) FROM snapshots), 0))"
            ).fetchone()[0]
        except sqlite3.Error as error:
            self._lock.close()
            raise JournalError(
                f"the journal {self.path} cannot be used: {error}; "
                "free space or repair the disk, or move the file away to begin anew"
            ) from error

    def _prepare(self, fresh: bool) -> None:
        db = self._db
        if fresh:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        with self._transaction():
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", [secrets.token_hex(8)])

    @contextmanager
    def _transaction(self, waits: bool = True) -> Generator[None]:
        db = self._db
        try:
            db.execute(f"PRAGMA synchronous={'FULL' if waits else 'NORMAL'}")
            reached(Point.BEFORE_BEGIN)
            db.execute("BEGIN IMMEDIATE")
            reached(Point.BEGUN)
            yield
            reached(Point.BEFORE_COMMIT)
            db.execute("COMMIT")
            reached(Point.AFTER_COMMIT)
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise JournalError(
                f"the journal {self.path} cannot be written: {error}; nothing of this batch "
                "happened; free space on its disk and start again"
            ) from error

    # -- what is in it

    def meta(self, key: str) -> str | None:
        """A remembered value, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", [key]).fetchone()
        return row[0] if row else None

    def remember(self, **values: str) -> None:
        """Keep values under their names."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [*values.items()])

    def begin_topic(self, epoch: str) -> bool:
        """Remember which life of its topic the positions are of; whether others were dropped."""
        known = self.meta("topic")
        if known == epoch:
            return False
        with self._transaction():
            if known is not None:
                self._db.execute("DELETE FROM positions")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('topic', ?)", [epoch])
        return known is not None

    def positions(self) -> dict[int, int]:
        """Partition -> next offset to read."""
        return dict(self._db.execute("SELECT partition, next_offset FROM positions"))

    def inputs(self, after: int = 0) -> Iterator[Input]:
        """Inputs with a greater sequence number, in order."""
        rows = self._db.execute(
            "SELECT seq, kind, payload, effects_hash FROM inputs WHERE seq > ? ORDER BY seq",
            [after],
        )
        for row in rows:
            yield Input(*row)

    def snapshot(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Sequence number and arrays of the newest snapshot whose checksum holds."""
        rows = self._db.execute("SELECT seq, payload, checksum FROM snapshots ORDER BY seq DESC")
        for seq, payload, checksum in rows:
            if hashlib.sha256(payload).digest() == checksum:
                return seq, unpack(payload)
        return None

    # -- what happens

    def commit(
        self,
        entry: Input | None,
        tables: Mapping[str, Table],
        *,
        positions: Mapping[int, int] | None = None,
        notes: Mapping[str, str] | None = None,
        snapshot: Mapping[str, np.ndarray] | None = None,
        answers: Mapping[str, bytes] | None = None,
        sent: Sequence[Batch] = (),
        seal_all: bool = False,
        sealed: int = 0,
        waits: bool = True,
    ) -> list[Batch]:
        """One transaction: an input, its rows, positions, notes (as `remember`), a snapshot after
        it, answers by the request they are to; batches that arrived, and inputs up to `sealed`
        that lie elsewhere, are forgotten. One that does not wait for the disk is there after a
        power cut only if a later one is; it seals nothing, so that nobody is told of it before.

        Returns
        -------
        Batches that were sealed by it, to be sent in order.

        Raises
        ------
        JournalError
            If it cannot be written; then nothing of it happened.
        """
        with self._transaction(waits):
            db = self._db
            if entry is not None:
                db.execute(
                    "INSERT INTO inputs VALUES (?, ?, ?, ?)",
                    [entry.seq, entry.kind, entry.payload, entry.effects_hash],
                )
                self.last_seq = entry.seq
            self._put(tables)
            db.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?)", [*(positions or {}).items()]
            )
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [*(notes or {}).items()])
            if answers:
                self._keep_answers(answers)
            if snapshot is not None:
                self._keep_snapshot(pack(snapshot))
            for batch in sent:
                self._forget(batch)
            if sealed > self.trimmed:
                self._trim(sealed)
            batches = self._seal(seal_all) if waits else []
        if snapshot is not None:
            reached(Point.AFTER_SNAPSHOT)
            self._db.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return batches

    def waiting(self) -> tuple[int, int]:
        """Numbers of the first rows that wait for the store, and of the next that will.

        They are equal when nothing waits. What was committed while the second was n has arrived as
        soon as the first is n.
        """
        first, last = self._db.execute(
            "SELECT min(id), (SELECT seq FROM sqlite_sequence WHERE name='outbox') FROM outbox"
        ).fetchone()
        after = (last or 0) + 1
        return first or after, after

    def answer(self, request: str) -> bytes | None:
        """The answer that a request was given; None for none."""
        row = self._db.execute("SELECT answer FROM answers WHERE request=?", [request]).fetchone()
        return row[0] if row else None

    def outlived(self) -> int:
        """The last input that both kept snapshots include; 0 while there are not two."""
        found = self._db.execute("SELECT count(*), min(seq) FROM snapshots").fetchone()
        return found[1] if found[0] == _KEPT_SNAPSHOTS else 0

    def is_sealing_due(self) -> bool:
        """Whether some table's rows are old enough to become a batch."""
        return any(map(self._is_due, self._pending))

    def _is_due(self, table: str) -> bool:
        pending = self._pending[table]
        if pending.rows >= self._seal_rows or pending.size >= _SEAL_BYTES:
            return True
        return not self._unsent[table] and time.monotonic() - pending.since >= self._seal_s

    def _put(self, tables: Mapping[str, Table]) -> None:
        for name, table in tables.items():
            payload = pack_table(table)
            self._db.execute(
                "INSERT INTO outbox (tbl, rows, payload) VALUES (?, ?, ?)",
                [name, table.num_rows, payload],
            )
            pending = self._pending.setdefault(name, _Pending())
            pending.rows += table.num_rows
            pending.size += len(payload)
            self.outbox_rows += table.num_rows

    def _forget(self, batch: Batch) -> None:
        self._db.execute("DELETE FROM outbox WHERE batch=?", [batch.id])
        self._db.execute("DELETE FROM batches WHERE id=?", [batch.id])
        self.outbox_rows -= batch.rows
        self._unsent[batch.table] -= 1

    def _trim(self, sealed: int) -> None:
        # A few at a time, so that no commit waits for long; never what a snapshot may need.
        db = self._db
        kept = db.execute("SELECT ifnull(min(seq), 0) FROM snapshots").fetchone()[0]
        last = min(sealed, kept, self.trimmed + _TRIMMED)
        db.execute("DELETE FROM inputs WHERE seq <= ?", [last])
        self.trimmed = max(self.trimmed, last)

    def _keep_answers(self, answers: Mapping[str, bytes]) -> None:
        now = time.time_ns()
        rows = [(request, answer, now) for request, answer in answers.items()]
        self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        self._db.execute("DELETE FROM answers WHERE at < ?", [now - _KEPT_ANSWERS_NS])

    def _keep_snapshot(self, payload: bytes) -> None:
        db = self._db
        checksum = hashlib.sha256(payload).digest()
        db.execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", [self.last_seq, payload, checksum]
        )
        reached(Point.SNAPSHOT)
        seqs = [row[0] for row in db.execute("SELECT seq FROM snapshots ORDER BY seq DESC")]
        if len(seqs) > _KEPT_SNAPSHOTS:
            db.execute("DELETE FROM snapshots WHERE seq < ?", [seqs[_KEPT_SNAPSHOTS - 1]])

    def _seal(self, everything: bool) -> list[Batch]:
        sealed = [
            self._seal_table(table) for table in self._pending if everything or self._is_due(table)
        ]
        for batch in sealed:
            del self._pending[batch.table]
            self._unsent[batch.table] += 1
        return sealed

    def _seal_table(self, table: str) -> Batch:
        # The token is fixed here, before the first try, from what the batch holds and never else.
        db = self._db
        first, last, rows = db.execute(
            "SELECT min(id), max(id), sum(rows) FROM outbox WHERE batch IS NULL AND tbl=?", [table]
        ).fetchone()
        cursor = db.execute(
            "INSERT INTO batches (tbl, first, last, rows) VALUES (?, ?, ?, ?)",
            [table, first, last, rows],
        )
        reached(Point.BATCH)
        db.execute(
            "UPDATE outbox SET batch=? WHERE batch IS NULL AND tbl=?", [cursor.lastrowid, table]
        )
        return Batch(cursor.lastrowid or 0, table, rows, self._token(table, first, last))

    def _token(self, table: str, first: int, last: int) -> str:
        return hashlib.sha256(f"{self.id} {table} {first} {last}".encode()).hexdigest()

    def sealed(self) -> list[Batch]:
        """Batches that were sealed and not confirmed, in order."""
        rows = self._db.execute("SELECT id, tbl, first, last, rows FROM batches ORDER BY id")
        return [
            Batch(id_, table, count, self._token(table, first, last))
            for id_, table, first, last, count in rows
        ]

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._db.close()
        self._lock.close()
