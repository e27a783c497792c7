"""Messages from an operator on this machine to a running book: a file beside its journal.

Input: bytes that somebody posted. Output: the same bytes, in order, to the one that trades. Answers
stand in the journal, committed with what they tell of. Nothing here knows what a message says.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

from sysquant.errors import ControlError

log = logging.getLogger(__name__)

_FILE = "control.db"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS letters "
    "(id INTEGER PRIMARY KEY AUTOINCREMENT, raw BLOB NOT NULL, at INTEGER NOT NULL) STRICT"
)
_KEPT_NS = 3600 * 1_000_000_000
MOST = 1000  # letters at a time: what trades goes on between


class Letter(NamedTuple):
    """A message as it came.

    Parameters
    ----------
    raw : its bytes.
    mark : how far the mailbox is read with it, for the journal.
    arrived : the broker's time of the record, ns UTC; None where it came locally.
    """

    raw: bytes
    mark: str
    arrived: int | None = None


class Mailbox(Protocol):
    """Where messages to a book arrive; `take` and `answer` never wait for anybody."""

    name: str

    def seek(self, mark: str | None) -> None:
        """Go on after the letter of a mark; None at the first start."""
        ...

    def take(self) -> list[Letter]:
        """What arrived since the last call, in order."""
        ...

    def answer(self, answers: Mapping[str, bytes]) -> None:
        """Send answers, by the request they are to, after the commit that they tell of."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class LocalMailbox:
    """The file `control.db` in a journal's directory, which only its owner may write.

    Parameters
    ----------
    directory : the journal's.
    """

    name = "local"

    def __init__(self, directory: Path) -> None:
        self._db = _opened(directory)
        self._last = 0

    def seek(self, mark: str | None) -> None:
        (newest,) = self._db.execute("SELECT ifnull(max(id), 0) FROM letters").fetchone()
        last = int(mark or 0)
        self._last = last if last <= newest else 0  # the file was made anew, its numbers, too

    def take(self) -> list[Letter]:
        try:
            rows = self._db.execute(
                "SELECT id, raw FROM letters WHERE id > ? ORDER BY id LIMIT ?", (self._last, MOST)
            ).fetchall()
        except sqlite3.DatabaseError as error:  # somebody writes: the next call reads it
            log.debug("mailbox reason=%s", error)
            return []
        if rows:
            self._last = rows[-1][0]
        return [Letter(bytes(raw), str(number)) for number, raw in rows]

    def answer(self, answers: Mapping[str, bytes]) -> None:
        """Nothing: who asked reads the journal."""

    def close(self) -> None:
        self._db.close()


def post(directory: Path, raw: bytes) -> None:
    """Put a message into the mailbox of a journal's directory.

    Raises
    ------
    ControlError
        If it cannot be written.
    """
    now = time.time_ns()
    try:
        with closing(_opened(directory, timeout_s=2.0)) as db:
            db.execute("DELETE FROM letters WHERE at < ?", [now - _KEPT_NS])
            db.execute("INSERT INTO letters (raw, at) VALUES (?, ?)", [raw, now])
    except sqlite3.Error as error:
        raise ControlError(f"the mailbox in {directory} cannot be written: {error}") from error


def _opened(directory: Path, *, timeout_s: float = 0.0) -> sqlite3.Connection:
    # Without waiting, on the side that trades: a writer that was stopped holds nobody up.
    path = directory / _FILE
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None, timeout=timeout_s)
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'letters'").fetchone():
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_SCHEMA)
    except (sqlite3.Error, OSError) as error:
        raise ControlError(f"the mailbox {path} cannot be used: {error}") from error
    return db
