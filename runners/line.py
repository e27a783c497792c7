"""A line to one running book: says a signed command, and waits for the answer.

Input: which book, and a command. Output: the answer that its process signed. It goes over the
broker where the book has one, else, or when that is down, to the mailbox beside its journal.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sysquant import control, journal_reader
from sysquant.control import Answer, Command, Keys
from sysquant.errors import ControlError, FeedError, SysquantError, nearest
from sysquant.home import home
from sysquant.locking import holder
from sysquant.mailbox import post

SHADOW = "-challenger"  # after the name of a champion's book
_LOOK_S = 0.02
_NEARBY_S = 0.5  # for the broker of a book that has a mailbox here


class NoAnswerError(SysquantError):
    """Nobody answers: whether a command was heard is not known."""


class Line:
    """To one book.

    Parameters
    ----------
    meta : `book` and `id`, of its journal.
    timeout_s : to wait for an answer.
    directory : of its journal, where that is on this machine.
    topic : what `TopicPost` is told of its broker; empty for none.
    keys : to sign with, those of this home by default.
    """

    def __init__(
        self, meta: Mapping[str, str], timeout_s: float, *, directory: Path | None = None,
        topic: Mapping[str, Any], keys: Keys | None = None,
    ) -> None:  # fmt: skip
        self._keys = keys or Keys.load(home() / "data" / "keys")
        self._meta, self._timeout_s = meta, timeout_s
        self._directory, self._topic = directory, dict(topic)
        self._post: Any = None

    @classmethod
    def to(cls, directory: Path, timeout_s: float) -> "Line":
        """To the book whose journal lies here."""
        meta = journal_reader.meta(directory)
        topic = msgspec.json.decode(meta.get("line") or "{}")
        return cls(meta, timeout_s, directory=directory, topic=topic)

    def ask(self, command: Command) -> Answer:
        """Say a command; its answer.

        Raises
        ------
        NoAnswerError
            If none comes in time.
        ControlError
            If the keys here are not those of the book's process.
        """
        role = self._keys.role_for(type(command))
        raw = control.write(
            command, self._keys, book=self._meta["book"], journal=self._meta["id"], role=role
        )
        look = self._send(raw)
        request, until = control.request_id(raw), time.monotonic() + self._timeout_s
        strangers = 0  # a forged one must not hide the book's
        while time.monotonic() < until:
            for found in look(request):
                answer = control.read_answer(found, self._keys)
                if answer is not None and answer.request == request:
                    return answer
                strangers += answer is None and request.encode() in found
        if strangers:
            raise ControlError(
                "an answer came that none of the keys here signed: set "
                f"{control.ENVIRONMENT[role]} to the key of the book's process"
            )
        raise NoAnswerError(
            f"book {self._meta['book']!r} does not answer within {self._timeout_s:g} s; whether it "
            "heard is not known: ask for its status, or look at its log"
        )

    def _send(self, raw: bytes) -> Callable[[str], list[bytes]]:
        # How to look for the answer.
        if self._topic:
            try:
                return self._send_to_topic(raw)
            except (NoAnswerError, ControlError) as error:
                if self._directory is None:
                    raise
                print(f"over this machine instead: {error}", file=sys.stderr)
                self._topic = {}
        directory = self._directory
        assert directory is not None
        post(directory, raw)

        def look(request: str) -> list[bytes]:
            time.sleep(_LOOK_S)
            found = journal_reader.answer(directory, request)
            return [] if found is None else [found]

        return look

    def _send_to_topic(self, raw: bytes) -> Callable[[str], list[bytes]]:
        from sysquant.feeds.control_topic import TopicPost

        if self._post is None:
            try:
                patience_s = 2.0 if self._directory is None else _NEARBY_S
                self._post = TopicPost(
                    book=self._meta["book"], patience_s=patience_s, **self._topic
                )
            except FeedError as error:
                raise NoAnswerError(
                    f"no Kafka answers at {self._topic['bootstrap']}: {error.__cause__}"
                ) from error
        self._post.send(raw)
        return lambda _request: self._post.answers(0.5)


def books(book: str | None = None) -> dict[str, Path]:
    """The journals' directories of books that a process has traded, by name.

    Raises
    ------
    ControlError
        If the one that is named has none.
    """
    journals = home() / "data" / "journals"
    found = {path.parent.name: path.parent for path in journals.glob("*/journal.db")}
    found = {  # not one that was set aside under another name
        name: path for name, path in found.items() if journal_reader.meta(path).get("book") == name
    }
    if book is not None:
        if book not in found:
            hint = nearest(book, found) if found else "; none has run yet"
            raise ControlError(f"there is no book {book!r} below {journals}{hint}")
        found = {book: found[book]}
    return found


def running(book: str | None = None) -> dict[str, Path]:
    """Those of `books` that a process trades now."""
    return {name: path for name, path in books(book).items() if holder(path) is not None}


def refresh(strategy: str, timeout_s: float = 10.0) -> list[str]:
    """Tell every book that trades a strategy here of its newest model; what each answers."""
    told = list[str]()
    for name, directory in running().items():
        line = Line.to(directory, timeout_s)
        try:
            status: Any = line.ask(control.Status()).status or {"strategies": ()}
            if strategy in status["strategies"]:
                told.append(f"{name}: {line.ask(control.Refresh(strategy)).text}")
        except SysquantError as error:
            told.append(f"{name}: {error}")
    return told
