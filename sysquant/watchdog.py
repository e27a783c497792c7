"""Looks at the heartbeats of books from outside, and says what a person should know.

Input: the directory of the journals, and a time. Output: alerts, throttled: the same one of a book
once in so many seconds, and one when it is well again; another death after that is told anew, and
what stays. It sends nothing; it takes no lock and opens no journal, so it never stands in the way
of a session.
"""

from collections.abc import Sequence
from pathlib import Path

from sysquant.alerts import Alert
from sysquant.errors import DataError
from sysquant.health import FILE, Heartbeat, Problem, is_alive, judge, read_heartbeat

_STAYS_NS = 30_000_000_000


class Watchdog:
    """Watches books of one machine.

    Parameters
    ----------
    journals : the directory whose directories are the books' journals.
    books : their names; None for all that are there.
    repeat_s : how long the same alert of a book is not repeated.
    """

    def __init__(
        self, journals: Path, books: Sequence[str] | None, *, repeat_s: float = 900.0
    ) -> None:
        self._journals = journals
        self._books = books
        self._repeat_ns = round(repeat_s * 1e9)
        self._first: dict[str, tuple[str, int]] = {}  # book -> what is seen, since which beat
        self._told: dict[tuple[str, str], int] = {}  # book and kind -> when, last
        self._open: dict[str, str] = {}  # book -> kind that was told and is not over
        self._since: dict[str, tuple[str, int]] = {}  # book -> what is wrong, and since when

    def look(self, now: int) -> list[Alert]:
        """What is to be told at `now`, wall clock, ns."""
        books = self._books if self._books is not None else self._found()
        alerts: list[Alert] = []
        for book in books:
            beat = self._beat(book)
            problem = _problem(beat, now)
            if not self._is_doubtful(book, problem, beat):
                alerts += self._tell(book, problem, now)
        return alerts

    def _beat(self, book: str) -> Heartbeat | str:
        # Or why there is none.
        try:
            return read_heartbeat(self._journals / book) or "it was never started here"
        except DataError as error:
            return str(error)

    def _is_doubtful(self, book: str, problem: Problem | None, beat: Heartbeat | str) -> bool:
        # What is seen for the first time may be over with the next beat: a machine that slept, or a
        # clock that was set, makes every beat old until then; a loop that comes back has heard
        # nothing meanwhile; a journal that is begun anew has no beat for a moment.
        kind, ts = problem.kind if problem else "", beat.ts if isinstance(beat, Heartbeat) else 0
        first = self._first.get(book)
        if first is None or first[0] != kind or (kind == "hung" and first[1] != ts):
            self._first[book] = kind, ts
            return kind not in ("", "dead")
        return kind in ("lost", "held", "silent") and first[1] == ts

    def _found(self) -> list[str]:
        # A journal that was set aside has another name than its book, and is nobody's.
        there = sorted(path.parent.name for path in self._journals.glob(f"*/{FILE}"))
        beats = {book: self._beat(book) for book in there}
        return [b for b, beat in beats.items() if isinstance(beat, str) or beat.book == b]

    def _tell(self, book: str, problem: Problem | None, now: int) -> list[Alert]:
        if problem is None:
            self._since.pop(book, None)
            if (was := self._open.pop(book, None)) is None:
                return []
            return [Alert(book, "recovered", f"it was {was}, and is not any more", now)]
        last, since = self._told.get((book, problem.kind)), self._since.get(book)
        if since is None or since[0] != problem.kind:
            since = self._since[book] = problem.kind, now
        # After a word that all is well again, another death is news, and so is what stays.
        is_news = book not in self._open and (problem.kind == "dead" or now - since[1] >= _STAYS_NS)
        if last is not None and abs(now - last) < self._repeat_ns and not is_news:
            return []
        self._told[book, problem.kind] = now
        self._open[book] = problem.kind
        return [Alert(book, problem.kind, problem.detail, now)]


def _problem(beat: Heartbeat | str, now: int) -> Problem | None:
    if isinstance(beat, str):
        return Problem("missing", f"it has no heartbeat: {beat}")
    return judge(beat, now, is_alive=is_alive(beat))
