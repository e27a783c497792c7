"""Finished combinations of a sweep on disk, so that one that was interrupted goes on.

A file of JSON lines: what the rows rest on (hashes of data, engine, strategy, code, machine), then
one row per combination as it is finished. A half-written last line is cut off. Rows of a sweep of
anything else are set aside, never mixed.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from sysquant.errors import DataError
from sysquant.home import under_home
from sysquant.scores import Row
from sysquant.strategy import Strategy


class TrialFile:
    """Rows by the repr of their strategy; written by one thread.

    Parameters
    ----------
    path : of the file; below `home()` unless absolute.
    rests_on : name -> hash or text of everything that a row depends on.

    Attributes
    ----------
    rows : repr of a strategy -> its row, of those that were finished before.
    changed : names in `rests_on` that are not as in the file that was there; its rows are in a file
        `<path>.old` then, and `rows` is empty.

    Raises
    ------
    DataError
        If the file is no such file.
    """

    def __init__(self, path: str | Path, rests_on: Mapping[str, str]) -> None:
        self.path = under_home(path)
        self.rows: dict[str, Row] = {}
        self.changed: list[str] = []
        self._head = {"sweep": dict(rests_on)}
        if self.path.is_dir():
            raise DataError(f"resume must be a file, was the directory {self.path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._read() if self.path.exists() else 0
        if kept == 0:
            self._write([self._head], "w")
        elif kept < self.path.stat().st_size:
            os.truncate(self.path, kept)

    def _read(self) -> int:
        # Takes the rows that are there; bytes up to the end of the last whole line, 0 for none.
        text = self.path.read_bytes()
        kept = text.rfind(b"\n") + 1
        if not text or (kept == 0 and text.startswith(b'{"sweep"')):  # cut off in its first line
            return 0
        try:
            head, *rows = (json.loads(line) for line in text[:kept].splitlines())
            known: dict[str, str] = head["sweep"]
            self.rows = {row["strategy"]: row["row"] for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path} holds no sweep; give resume= another path") from error
        wanted = self._head["sweep"]
        self.changed = sorted(n for n in wanted | known if wanted.get(n) != known.get(n))
        if self.changed:
            self.set_aside()
        return 0 if self.changed else kept

    def set_aside(self) -> None:
        """Move what is there to `<path>.old`, and forget its rows."""
        self.path.replace(f"{self.path}.old")
        self.rows = {}

    def start(self) -> None:
        """Begin the file, after `set_aside`."""
        self._write([self._head], "w")

    def add(self, finished: Iterable[tuple[Strategy, Row]]) -> None:
        """Append rows; they are with the system when this returns."""
        self._write([{"strategy": repr(who), "row": row} for who, row in finished], "a")

    def _write(self, lines: Iterable[Any], mode: str) -> None:
        with self.path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def code_of(cls: type[Strategy]) -> str:
    """The compiled code of a strategy and its own bases, and its defaults, as text.

    What it calls outside the class is not in it: a helper function, a step function.
    """
    own = cls.__mro__[: cls.__mro__.index(Strategy)]
    parts = [f"{cls.__qualname__} {cls().parameters}"]
    for each in own:
        for name, value in sorted(vars(each).items()):
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if isinstance(code := getattr(function, "__code__", None), CodeType):
                parts.append(f"{name} {_text(code)}")
    return "\n".join(parts)


def _text(constant: object) -> str:
    # Of a constant of compiled code, the same in every process.
    if isinstance(constant, CodeType):
        inner = [_text(each) for each in constant.co_consts]
        return repr((constant.co_code, constant.co_names, inner))
    if isinstance(constant, frozenset):
        return repr(sorted(map(_text, constant)))
    return repr(constant)
