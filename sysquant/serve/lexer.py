"""Just enough of ClickHouse's grammar to serve it: where data begins, which format, what is asked.

Input: the text of a statement. Output: its top-level words, the split of an INSERT into statement
and data, the output format, and names a reader may not use. The engine parses everything again;
nothing here decides what a statement means.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
      (?P<skip> \s+ | --[^\n]* | \#[ !][^\n]* | /\*.*?\*/ )
    | (?P<text> '(?:[^'\\]|\\.|'')*' | (\$\w*\$).*?\3 )
    | (?P<name> [`"](?:[^`"\\]|\\.)*[`"] )
    | (?P<word> [^\W\d]\w* )
    | (?P<other> \d\w* | . )
    """,
    re.S | re.X,
)
_DATA_START = re.compile(rb"[ \t\f]*\r?\n?")


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT whose rows follow its text."""

    statement: bytes  # without FORMAT and what follows
    format: str  # empty: the request's default
    data_start: int


# (word in capitals, its start, its end) outside brackets, strings, quoted names and comments.
def _top_words(sql: bytes) -> Iterator[tuple[str, int, int]]:
    depth = 0
    for token in _TOKEN.finditer(sql):
        if token["word"]:
            if depth == 0:
                yield token["word"].decode().upper(), token.start(), token.end()
        elif token["other"] in (b"(", b"[", b"{"):
            depth += 1
        elif token["other"] in (b")", b"]", b"}"):
            depth -= 1


def first_word(sql: bytes) -> str:
    """The word a statement begins with, in capitals; its beginning is enough."""
    return next(_top_words(sql), ("",))[0]


def split_insert(sql: bytes) -> Insert | None:
    """Split an INSERT into its statement and where its rows begin.

    Parameters
    ----------
    sql : the statement and at least the beginning of its rows.

    Returns
    -------
    None when the rows come from elsewhere (INSERT ... SELECT, FROM INFILE).
    """
    words = _top_words(sql)
    for word, start, end in words:
        if word in ("SELECT", "WITH", "FROM", "WATCH"):
            return None
        if word == "VALUES":
            return Insert(sql[:start], "Values", end)
        if word == "FORMAT":
            _, start_of_name, end_of_name = next(words, ("", end, end))
            start_of_data = _DATA_START.match(sql, end_of_name)
            name = sql[start_of_name:end_of_name].decode()
            return Insert(sql[:start], name, start_of_data.end() if start_of_data else end)
    return Insert(sql, "", len(sql))


def output_format(sql: bytes) -> str:
    """Name after the last top-level FORMAT of a query; empty when there is none."""
    words = list(_top_words(sql))
    for (word, _, _), (_, start, end) in zip(
        reversed(words[:-1]), reversed(words[1:]), strict=True
    ):
        if word == "FORMAT":
            return sql[start:end].decode()
    return ""


def has_totals(sql: bytes) -> bool:
    """Whether a query asks for WITH TOTALS, which the engine leaves out of a stream."""
    return any(word == "TOTALS" for word, _, _ in _top_words(sql))


def names(sql: bytes) -> Iterator[str]:
    """Everything in a statement that can name a function or table, in small letters.

    Quoted names come without their quotes; one with an escape in it comes as a backslash.
    """
    for token in _TOKEN.finditer(sql):
        if token["word"]:
            yield token["word"].decode().lower()
        elif token["name"]:
            inner = token["name"][1:-1]
            yield "\\" if b"\\" in inner else inner.decode(errors="replace").lower()
