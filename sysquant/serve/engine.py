"""The embedded engine behind the HTTP server: one request in, a stream of bytes out.

Every request gets a connection of its own (it costs 0.1 ms), so its database, settings and
parameters touch no other; a session keeps one, and with it the temporary tables. Results come in
blocks as the engine makes them, inserted rows go in as they arrive, so memory stays bounded. It
knows nothing of HTTP. References: ClickHouse documentation, "HTTP interface".
"""

import logging
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import chdb
from chdb.state.sqlitelike import Connection, StreamingResult

from sysquant.serve import lexer
from sysquant.serve.wire import join_arrow

log = logging.getLogger(__name__)

# The engine encodes each block of a stream by itself: that is one valid document only in formats
# without beginning and end. Other formats are made whole, in memory, up to a limit.
STREAMED = {
    "native", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "tskv", "rowbinary",
    "jsoneachrow", "jsonlines", "ndjson", "jsonstringseachrow", "jsoncompacteachrow",
    "jsoncompactstringseachrow", "msgpack", "lineasstring", "rawblob", "null",
}  # fmt: skip
JOINED = {"arrow", "arrowstream"}
WHOLE_RESULT_BYTES = 1 << 30
SESSION_S, MAX_SESSION_S = 60, 3600
IDLE = 16  # connections kept for the next request, 0.1 MB each
SYNTAX_ERROR, READONLY, NOT_IMPLEMENTED, BAD_ARGUMENTS = 62, 164, 48, 36
SESSION_NOT_FOUND, SESSION_IS_LOCKED = 372, 373
# Table functions that only compute, or read what the user may read anyhow.
SAFE_TABLE_FUNCTIONS = {
    "numbers", "numbers_mt", "zeros", "zeros_mt", "values", "view", "viewifpermitted", "null",
    "merge", "generateseries", "generate_series", "generaterandom", "primes", "format",
}  # fmt: skip
_CODE = re.compile(r"Code: (\d+)\. ")
_NAME = re.compile(r"[A-Za-z_]\w*")
_CANNOT_STREAM = "Streaming query is not supported"


class EngineError(Exception):
    """What the engine said, with ClickHouse's number for it."""

    def __init__(self, message: str, code: int = 0) -> None:
        at = message.find("Code: ")
        if code:
            message = f"Code: {code}. DB::Exception: {message}"
        elif at > 0:
            message = message[at:]
        super().__init__(message.strip())
        found = _CODE.match(str(self))
        self.code = int(found[1]) if found else 1002


@dataclass(slots=True)
class Query:
    """One request.

    Parameters
    ----------
    sql : the statement; of an INSERT with rows, what stands before them.
    insert_format : format of `rows`; empty when there are none.
    rows : the rows of an INSERT, as they arrive.
    default_format : of the result, where the statement names none.
    parameters, settings : by name, of this request alone.
    database : to begin in; empty for the default.
    read_only : statements that only read are let through.
    guarded : the user may neither reach files nor other hosts.
    session, session_s, session_check : name, life after its last use, whether it must exist.
    """

    sql: bytes
    insert_format: str = ""
    rows: Iterator[bytes] = field(default_factory=lambda: iter(()))
    default_format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    database: str = ""
    read_only: bool = False
    guarded: bool = False
    session: str = ""
    session_s: float = SESSION_S
    session_check: bool = False


@dataclass(slots=True)
class Answer:
    """A result on its way: `chunks` must be read to the end or left with the `with` block."""

    format: str = ""
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))
    summary: dict[str, int] = field(default_factory=dict)


# A connection and what a request has changed on it, so that a session can take that back.
@dataclass(slots=True)
class _Handle:
    connection: Connection
    database: str = "default"
    settings: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    unchanged: bool = False
    expires: float = 0.0
    life_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Engine:
    """The embedded engine of one directory, for any number of threads.

    Parameters
    ----------
    directory : where the data lies; made when missing.

    Raises
    ------
    EngineError
        If another process holds the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = str(directory)
        with _engine_errors():
            self._first = chdb.connect(self._path)  # keeps the engine running
            found = self._first.query(
                "SELECT lower(name) FROM system.table_functions UNION ALL SELECT 'file'", "TSV"
            )
            self.timezone = _one(self._first, "SELECT timezone()")
        self._forbidden = set(found.bytes().decode().split()) - SAFE_TABLE_FUNCTIONS | {"\\"}
        self._sessions: dict[str, _Handle] = {}
        self._idle: dict[object, _Handle] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the directory; requests under way are cut off."""
        with self._lock:
            for handle in [*self._sessions.values(), *self._idle.values()]:
                handle.connection.close()
            self._sessions.clear()
            self._idle.clear()
        self._first.close()

    @contextmanager
    def answer(self, query: Query) -> Generator[Answer]:
        """Run a statement.

        Parameters
        ----------
        query : the request.

        Returns
        -------
        A context whose value is the answer; leaving it ends the statement, read or not.

        Raises
        ------
        EngineError
            With ClickHouse's code; also from `Answer.chunks`, in mid-stream.
        """
        query.default_format = lexer.output_format(query.sql) or query.default_format
        if query.default_format.lower() not in STREAMED | JOINED:
            query.settings.setdefault("max_result_bytes", str(WHOLE_RESULT_BYTES))
        lend = self._from_session if query.session else self._fresh
        with _engine_errors(), lend(query) as handle:
            kind = self._check(handle.connection, query)
            if query.insert_format:
                yield _insert(handle.connection, query)
                return
            answer = Answer()
            chunks = _result(handle.connection, query, answer, kind)
            answer.chunks = chunks
            try:
                yield answer
            finally:
                chunks.close()
            handle.unchanged = kind == "READ_ONLY"

    # A connection that only read is as good as new for the next request of the same settings.
    @contextmanager
    def _fresh(self, query: Query) -> Generator[_Handle]:
        like = (query.guarded, query.database, frozenset(query.settings.items()))
        with self._lock:
            handle = self._idle.pop(like, None)
        if handle is None:
            handle = _Handle(chdb.connect(self._path))
        try:
            if not handle.unchanged:
                _enter(handle, query)
            handle.unchanged = False
            yield handle
        finally:
            self._keep(like, handle)

    def _keep(self, like: object, handle: _Handle) -> None:
        with self._lock:
            if handle.unchanged and like not in self._idle:
                self._idle[like] = handle
                if len(self._idle) <= IDLE:
                    return
                handle = self._idle.pop(next(iter(self._idle)))  # the one longest unused
        handle.connection.close()

    @contextmanager
    def _from_session(self, query: Query) -> Generator[_Handle]:
        handle = self._session(query)
        try:
            changes_it = lexer.first_word(query.sql) in ("SET", "USE")
            _enter_session(handle, query, changes_it)
            yield handle
            if changes_it:
                handle.database = _one(handle.connection, "SELECT currentDatabase()")
        finally:
            handle.expires = time.monotonic() + handle.life_s
            handle.lock.release()

    # Its lock is held on return.
    def _session(self, query: Query) -> _Handle:
        with self._lock:
            self._end_sessions(time.monotonic())
            handle = self._sessions.get(query.session)
            if handle is None:
                if query.session_check:
                    raise EngineError(f"Session {query.session} not found", SESSION_NOT_FOUND)
                handle = _Handle(chdb.connect(self._path))
                if query.guarded:
                    _set(handle.connection, {"readonly": "2"})
                self._sessions[query.session] = handle
            if not handle.lock.acquire(blocking=False):
                raise EngineError(f"Session {query.session} is locked", SESSION_IS_LOCKED)
            handle.life_s = min(query.session_s, MAX_SESSION_S)
            return handle

    def _end_sessions(self, now: float) -> None:
        for name, handle in list(self._sessions.items()):
            if handle.expires and handle.expires < now and handle.lock.acquire(blocking=False):
                del self._sessions[name]
                handle.connection.close()

    def _check(self, connection: Connection, query: Query) -> str:
        # The public connection has no way to the parser's own verdict.
        found = connection._conn.classify_query(query.sql)  # pyright: ignore
        if found["statement_count"] > 1:
            raise EngineError("Multi-statements are not allowed", SYNTAX_ERROR)
        kind: str = found["query_class"].name
        if (query.read_only or query.guarded) and kind != "READ_ONLY":
            raise EngineError("Cannot execute query in readonly mode. (READONLY)", READONLY)
        if query.guarded:
            used = set(lexer.names(query.sql)) | {v.lower() for v in query.parameters.values()}
            for name in used & self._forbidden:
                raise EngineError(
                    f"The dashboards' user may not use {name!r}. (READONLY)", READONLY
                )
        return kind


@contextmanager
def _engine_errors() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        raise EngineError(str(error)) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _one(connection: Connection, sql: str) -> str:
    return connection.query(sql, "TSVRaw").bytes().decode().rstrip("\n")


def _set(connection: Connection, settings: Mapping[str, str]) -> None:
    for name in settings:
        if not _NAME.fullmatch(name):
            raise EngineError(f"Unknown setting {name!r}. (UNKNOWN_SETTING)", 115)
    if settings:
        pairs = ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items())
        connection.query(f"SET {pairs}", "TSV")


def _use(connection: Connection, database: str) -> None:
    name = database.replace("\\", "\\\\").replace("`", "\\`")
    connection.query(f"USE `{name}`", "TSV")


def _enter(handle: _Handle, query: Query) -> None:
    if query.database:
        _use(handle.connection, query.database)
    settings = dict(query.settings)
    if query.guarded:
        settings["readonly"] = "2"  # last: nothing can be set after 1, nor this be taken back
    if query.insert_format:  # an insert takes no parameters any other way
        settings |= {f"param_{name}": value for name, value in query.parameters.items()}
    _set(handle.connection, settings)


# A request's database and settings hold for it alone, also in a session.
def _enter_session(handle: _Handle, query: Query, changes_it: bool) -> None:
    connection = handle.connection
    _use(connection, query.database or handle.database)
    wanted = {} if changes_it else {k: v for k, v in query.settings.items() if k != "readonly"}
    for name in wanted.keys() - handle.before.keys():
        sql = f"SELECT if(changed, value, '') FROM system.settings WHERE name = {_quoted(name)}"
        handle.before[name] = _one(connection, sql)
    for name in handle.settings.keys() - wanted.keys():
        value = handle.before.pop(name)
        connection.query(f"SET {name} = {_quoted(value) if value else 'DEFAULT'}", "TSV")
    _set(connection, {k: v for k, v in wanted.items() if handle.settings.get(k) != v})
    handle.settings = wanted
    if query.insert_format:
        _set(connection, {f"param_{name}": value for name, value in query.parameters.items()})


# The engine takes bytes as well, and a literal in a statement may be no text; it is only typed
# for text.
def _text(sql: bytes) -> str:
    return cast(str, sql)


def _insert(connection: Connection, query: Query) -> Answer:
    with connection.send_insert(_text(query.sql), query.insert_format) as rows:
        for chunk in query.rows:
            rows.append(chunk)
        done = rows.finish()
    return Answer(summary={"written_rows": done.rows_written, "written_bytes": done.bytes_written})


# Sets `answer.format` before its first chunk.
def _result(
    connection: Connection, query: Query, answer: Answer, kind: str
) -> Generator[bytes, None, None]:
    wanted, parameters = query.default_format, dict(query.parameters)
    with _engine_errors():
        if kind == "READ_ONLY" and wanted.lower() in STREAMED | JOINED:
            stream = _stream(connection, query, wanted)
            if stream:
                answer.format = wanted
                chunks = _blocks(stream, answer.summary)
                if wanted.lower() in STREAMED:
                    yield from chunks
                    return
                rows = yield from join_arrow(chunks, wanted)
                if rows:
                    return
        result = connection.query(_text(query.sql), wanted, params=parameters)
        answer.format = wanted if result.size() or kind == "READ_ONLY" else ""
        _count(answer.summary, result)
        yield result.bytes()


# None where the engine only gives whole results: SHOW, DESCRIBE, EXPLAIN, WITH TOTALS.
def _stream(connection: Connection, query: Query, wanted: str) -> StreamingResult | None:
    if lexer.has_totals(query.sql):
        return None
    try:
        return connection.send_query(_text(query.sql), wanted, params=dict(query.parameters))
    except RuntimeError as error:
        if _CANNOT_STREAM in str(error):
            return None
        raise


def _blocks(stream: StreamingResult, summary: dict[str, int]) -> Iterator[bytes]:
    with stream:
        for block in stream:
            _count(summary, block)
            yield block.bytes()


def _count(summary: dict[str, int], part: Any) -> None:
    for name, rows in (
        ("read_rows", part.storage_rows_read()),
        ("read_bytes", part.storage_bytes_read()),
        ("written_rows", part.rows_written()),
        ("written_bytes", part.bytes_written()),
        ("result_rows", part.rows_read()),
        ("result_bytes", part.size()),
    ):
        summary[name] = summary.get(name, 0) + rows
