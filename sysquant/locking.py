"""One live process per book: the lock beside its journal, which ends with the process."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from sysquant.errors import JournalError


def lock(
    directory: Path, way_out: str = "or name another book with book.name=...", wait_s: float = 0.1
) -> IO[str]:
    """Lock a journal's directory, made when missing, for this process; closing the file frees it.

    Parameters
    ----------
    way_out : other than to stop who holds it, as the end of a sentence.
    wait_s : for who holds it to end; who only asks for the holder has it for an instant, too.

    Raises
    ------
    JournalError
        If another process holds it, or nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "journal.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise JournalError(f"the journal in {directory} cannot be opened: {error}") from error
    try:
        _take(file, wait_s)
    except BlockingIOError as error:
        file.seek(0)
        by = file.read().strip() or "unknown"
        file.close()
        raise JournalError(f"{directory} is in use by process {by}; stop it, {way_out}") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _take(file: IO[str], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(directory: Path) -> int | None:
    """Process that holds the journal in a directory; None when nobody does."""
    try:
        with (directory / "journal.lock").open(encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0)
    except OSError:
        pass
    return None
