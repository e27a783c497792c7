"""The file of the research ledger: written by every process at once, and never smaller than true.

Input: rows of runs, a handful at a time. Output: the same rows, numbered without a gap, and how
many could not be written. SQLite with a write-ahead log: a row that was added outlives a killed
process; the last ones before a power cut may be gone. It does not know what a strategy is.
"""

import fcntl
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sysquant.errors import DataError
from sysquant.home import under_home

log = logging.getLogger(__name__)

VARIABLE = "SYSQUANT_RESEARCH"  # another directory of the ledger
_WAIT_S = 10.0  # for another process's transaction, of milliseconds
_BLOCK = 4096  # bytes that are reserved for one number
_MOST_SENT = 100_000  # rows of a batch for the store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS studies (
    study INTEGER PRIMARY KEY, made INTEGER, kind TEXT, source TEXT, lineage TEXT, names TEXT,
    graph TEXT, code TEXT, first INTEGER, last INTEGER, symbols TEXT, interval TEXT, bars TEXT,
    terms TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER, parameters TEXT, trial BLOB,
    sharpe REAL, periods INTEGER
);
CREATE TABLE IF NOT EXISTS batches (first INTEGER PRIMARY KEY, last INTEGER, sent INTEGER);
CREATE TABLE IF NOT EXISTS holdouts (number INTEGER PRIMARY KEY, first INTEGER, last INTEGER);
"""
_ADD_STUDY = "INSERT INTO studies VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_RUN = (
    "INSERT INTO runs (study, parameters, trial, sharpe, periods) VALUES ({study}, ?, ?, ?, ?)"
)


class Study(NamedTuple):
    """What runs have in common: columns of the table `studies`."""

    made: int  # ns UTC
    kind: str  # backtest | cell | screened | gate
    source: str
    lineage: str
    names: str  # JSON: of the class and of the strategies that it derives from
    graph: str
    code: str
    first: int  # ns UTC, event of the data
    last: int
    symbols: str
    interval: str
    bars: str
    terms: str


class RunRow(NamedTuple):
    """One run: columns of the table `runs`."""

    parameters: str  # JSON
    trial: bytes  # equal for equal configurations on equal data
    sharpe: float | None  # per period; None where there is none
    periods: int


def here() -> "ResearchFile":
    """The ledger: below `SYSQUANT_RESEARCH`, or else in `data/research` below `home()`."""
    return _file((os.environ.get(VARIABLE), os.environ.get("SYSQUANT_HOME")))


@cache  # to resolve a path takes as long as to write a row
def _file(said: tuple[str | None, ...]) -> "ResearchFile":
    return _opened(under_home(said[0] or "data/research"))


@cache
def _opened(path: Path) -> "ResearchFile":
    return ResearchFile(path)


class ResearchFile:
    """Runs in a directory; any number of processes and threads add to it.

    Rows that cannot be written (a full disk, no permission) wait in this process for the next
    ones; meanwhile they are counted in a number whose place on disk was reserved before, or, where
    there is none, in one of the system's temporary directory.

    Parameters
    ----------
    path : of the directory; made when the first row comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "ledger.sqlite"
        name = f"sysquant-lost-{os.getuid()}-{str(path).replace(os.sep, '-')}"
        self._counters = (path / "lost", Path(os.environ.get("TMPDIR") or "/tmp") / name)
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode, self._pid = 0, os.getpid()
        self._waiting: list[tuple[Study, Sequence[RunRow]]] = []
        self._marked: list[tuple[Path, int]] = []
        self._parents: list[sqlite3.Connection | None] = []

    def add(self, study: Study, runs: Sequence[RunRow]) -> sqlite3.Error | OSError | None:
        """Append runs; never raises: what cannot be written is counted, kept, and logged once.

        Returns
        -------
        The error, where they are not on disk now.
        """
        with self._lock:
            self._leave_parent()
            self._waiting.append((study, runs))
            try:
                self._write()
            except (sqlite3.Error, OSError) as error:
                self._mark(len(runs), error)
                return error
            for path, count in self._marked:
                with suppress(OSError, ValueError):  # what stays marked is counted twice
                    _counted(path, -count)
            self._waiting, self._marked = [], []
            return None

    def _write(self) -> None:
        with _transaction(self._opened()) as db:
            for study, runs in self._waiting:
                number = db.execute(_ADD_STUDY, study).lastrowid
                db.executemany(_ADD_RUN.format(study=int(number or 0)), runs)

    def _opened(self) -> sqlite3.Connection:
        # Opened again where somebody has deleted or moved the file.
        if self._db is not None:
            try:
                if self.path.stat().st_ino == self._inode:
                    return self._db
            except FileNotFoundError:
                pass
            self._db.close()
            self._db = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _reserve(self._counters[0])
        db = _connect(self.path)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
        db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))
        self._db, self._inode = db, self.path.stat().st_ino
        return db

    def _leave_parent(self) -> None:
        # A connection is the process's that opened it, and so are the rows that wait there.
        if self._pid != os.getpid():
            self._parents.append(self._db)  # closing it would free the parent's locks
            self._db, self._pid, self._waiting, self._marked = None, os.getpid(), [], []

    def _mark(self, count: int, error: Exception) -> None:
        if not self._marked:
            log.warning(
                "research ledger=%s error=%s: runs are counted, and written when it goes again",
                self.path, error,
            )  # fmt: skip
        for path in self._counters:
            try:
                _counted(path, count)
            except (OSError, ValueError):
                continue
            self._marked.append((path, count))
            return
        log.warning("research ledger=%s runs=%s: not even their number is kept", self.path, count)

    @property
    def lost(self) -> int:
        """Runs that are counted, but not written: in this process or in others.

        Raises
        ------
        DataError
            If a file of their number cannot be read.
        """
        try:
            return sum(_counted(path, 0) for path in self._counters if path.exists())
        except (OSError, ValueError) as error:
            raise DataError(
                f"the number of lost runs, in one of {', '.join(map(str, self._counters))}, cannot "
                f"be read: {error}; write down a number that is not too small"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with.

        Raises
        ------
        DataError
            If the file cannot be read, is damaged, or rows are missing from it.
        """
        way_out = (
            "restore it from a copy, or move the directory away: what the store has of it counts on"
        )
        try:
            with self._lock:
                self._leave_parent()
                self._opened()
            with closing(_connect(self.path)) as db:
                (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
                rows, last = db.execute("SELECT count(*), max(number) FROM runs").fetchone()
                known = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
                if sound != "ok" or not (rows == (last or 0) == (known[0] if known else 0)):
                    said = sound if sound != "ok" else f"it has {rows:,} of {last or 0:,} rows"
                    raise DataError(
                        f"the research ledger {self.path} is damaged: {said}; {way_out}"
                    )
                yield db
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"the research ledger {self.path} cannot be read: {error}; {way_out}"
            ) from error

    def holdout(self) -> tuple[int, int] | None:
        """The holdout that was declared last, ns UTC; None where there is none."""
        try:
            found = self.changing().execute(
                "SELECT first, last FROM holdouts ORDER BY number DESC LIMIT 1"
            )
            return found.fetchone()
        except (sqlite3.Error, OSError):
            return None

    def changing(self) -> sqlite3.Connection:
        """The connection that this process writes with; its caller holds no transaction open."""
        with self._lock:
            self._leave_parent()
            return self._opened()

    def sealed(self) -> list[tuple[int, int]]:
        """Ranges of numbers for the store, the ends included, that it was not given yet.

        They are fixed before the first try, so that a repetition is the same rows.
        """
        with self._lock, _transaction(self.changing()) as db:
            (first,) = db.execute("SELECT coalesce(max(last), 0) + 1 FROM batches").fetchone()
            (last,) = db.execute("SELECT coalesce(max(number), 0) FROM runs").fetchone()
            ranges = [
                (at, min(at + _MOST_SENT - 1, last)) for at in range(first, last + 1, _MOST_SENT)
            ]
            db.executemany("INSERT INTO batches VALUES (?, ?, 0)", ranges)
        return db.execute(
            "SELECT first, last FROM batches WHERE sent = 0 ORDER BY first"
        ).fetchall()

    def sent(self, first: int) -> None:
        """Remember that the store has the batch that begins with this number."""
        self.changing().execute("UPDATE batches SET sent = 1 WHERE first = ?", (first,))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    # All of it, or nothing.
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, _WAIT_S, isolation_level=None, check_same_thread=False)


def _reserve(path: Path) -> None:
    # A full disk has room for a number that was written before.
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(b"0".ljust(_BLOCK))


def _counted(path: Path, more: int) -> int:
    # The number in a file, moved on by `more`.
    if more > 0:
        _reserve(path)
    with path.open("r+b" if more else "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if more else fcntl.LOCK_SH)
        found = max(0, int(file.read(_BLOCK).strip() or 0) + more)
        if more:
            os.pwrite(file.fileno(), str(found).encode().ljust(32), 0)
    return found
