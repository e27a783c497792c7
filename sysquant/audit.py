"""Has a running session held against its backtest now and then, by a process beside it.

Input: what starts the process, a period, and `look`, called by the loop that trades. Output: an
event and a line of the log for each process that failed; what it found is its own to tell. One at a
time, nothing is waited for, and no failure of it ends the session. What it does is not known here.
"""

import logging
import math
import time
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

KIND = "twin"  # of the events
NOTHING = 3  # exit code of a process that finds nothing to compare the session with
_TAIL = 4096  # bytes of what was said in which the last line is looked for
_LONGEST = 500  # characters of it that are told

Note = Callable[[str, str, int], None]


class Process(Protocol):
    """As much of `subprocess.Popen` as is asked here."""

    def poll(self) -> int | None:
        """Exit code, negative for the signal that ended it; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...


class Audit:
    """Starts the process that compares, again and again, and tells how it ended.

    Parameters
    ----------
    start : starts it, with the file for all that it says; must return at once.
    path : of that file, which is appended to.
    every_s : from the first look to the first start, and from start to start; None: never.
    clock : seconds that never go back.
    """

    def __init__(
        self,
        start: Callable[[BufferedWriter], Process],
        path: Path,
        every_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._path, self._clock = start, path, clock
        self._every_s = math.inf if every_s is None else every_s
        self._due = math.nan  # until the first look
        self._process: Process | None = None
        self._begin = 0  # of what the process says, in the file
        self._is_late = self._has_nothing = False  # said already

    def look(self, note: Note) -> None:
        """See how the last one ended, and start the next one when it is time.

        Parameters
        ----------
        note : keeps an event and says it: its kind, what happened, the level in the log.
        """
        now = self._clock()
        self._due = now + self._every_s if math.isnan(self._due) else self._due
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process, self._is_late = None, False
            self._tell(code, note)
        if now < self._due:
            return
        self._due = now + self._every_s
        if self._process is None:
            self._begin_one(note)
        elif not self._is_late:
            self._is_late = True
            log.info("the last comparison still runs: the next one begins when it is done")

    def close(self) -> None:
        """End the one that runs, and start no more."""
        self._every_s = self._due = math.inf
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._process = None

    def _begin_one(self, note: Note) -> None:
        try:
            with self._path.open("ab") as output:
                self._begin = output.tell()
                self._process = self._start(output)
        except OSError as error:  # no memory, no process, no room: the session goes on
            note(KIND, f"not compared, it cannot be started: {error}", logging.WARNING)

    def _tell(self, code: int, note: Note) -> None:
        if code == NOTHING:
            if not self._has_nothing:
                note(KIND, f"not compared so far: {self._last_line()}", logging.INFO)
        elif code < 0:
            note(KIND, f"not compared, it was ended by signal {-code}", logging.WARNING)
        elif code:
            note(KIND, f"exit code {code}: {self._last_line()}", logging.WARNING)
        self._has_nothing = code == NOTHING

    def _last_line(self) -> str:
        # Of what this one said: the reason, if it gave one.
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(self._begin, size - _TAIL))
                said = file.read().decode(errors="replace").strip()
        except OSError as error:
            return f"{self._path} cannot be read: {error}"
        lines = said.splitlines() or [f"nothing was said, see {self._path}"]
        reasons = [line for line in lines if line.startswith(("failed: ", "error: "))]
        return (reasons or lines)[-1][:_LONGEST]
