"""ClickHouse, reached through clickhouse-connect alone: connecting, migrating, inserting.

A DSN chooses the engine: `chdb:data/store` is the embedded one (a directory below `home()`),
`http://user:password@host:8123/db` a server. Both give the same client for the same SQL. The
embedded directory admits one process; whoever comes second is led to the `runners/store.py` that
serves it, or told who holds it. This module never loads the embedded engine unless it opens one.
"""

# clickhouse-connect is typed in part, pyarrow not at all.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
import psutil
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from sysquant.errors import ConfigError, StoreAwayError, StoreError
from sysquant.home import PACKAGE, under_home
from sysquant.keys import check_kind

log = logging.getLogger(__name__)
# What it would warn of is raised here, in one sentence.
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)

DEFAULT_DSN = "chdb:data/store"
SCHEMA = PACKAGE / "schema"
CONNECT_TIMEOUT_S = 2
ANSWER_TIMEOUT_S = 60
_HELD_LOOK_S = 0.2
_MEANT = "chdb:<directory> or http(s)://user:password@host:port/database"  # as a DSN
# One insert is one block of the engine up to this many rows, and only a block can be recognised
# as a repetition; longer tables go as several inserts, cut at the same rows every time.
BLOCK_ROWS = 1_000_000

TABLE_EXISTS, BAD_LOGIN = 57, {192, 193, 194, 516}
_QUOTED = r"'(?:[^'\\]|\\.|'')*'"
_COMMENT = re.compile(rf"({_QUOTED})|--[^\n]*")
_STATEMENT = re.compile(rf"(?:{_QUOTED}|[^';])+")


@dataclass(frozen=True, slots=True)
class Dsn:
    """A DSN taken apart.

    Parameters
    ----------
    directory : of the embedded engine, absolute; None for a server.
    url : `http(s)://host:port` of a server; empty for the embedded engine.
    user, password : of a server.
    database : where the tables are.
    """

    directory: Path | None
    url: str
    user: str
    password: str
    database: str

    @classmethod
    def parse(cls, dsn: str) -> "Dsn":
        """Take a DSN apart.

        Parameters
        ----------
        dsn : `chdb:path[?database=name]` or `http(s)://[user[:password]@]host[:port][/database]`.

        Raises
        ------
        ConfigError
            If it is neither.
        """
        check_kind("store.dsn", dsn, str, _MEANT)
        try:
            parts = urlsplit(dsn)
            port = parts.port
        except ValueError as error:
            raise ConfigError(_bad_dsn(dsn)) from error
        if parts.scheme == "chdb" and parts.path and not parts.netloc:
            database = parse_qs(parts.query).get("database", ["default"])[0]
            return cls(under_home(unquote(parts.path)).resolve(), "", "", "", database)
        if parts.scheme in ("http", "https") and parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            url = f"{parts.scheme}://{host}:{port or (8443 if parts.scheme == 'https' else 8123)}"
            user, password = unquote(parts.username or "default"), unquote(parts.password or "")
            return cls(None, url, user, password, unquote(parts.path.strip("/")) or "default")
        raise ConfigError(_bad_dsn(dsn))


@dataclass(frozen=True, slots=True)
class Server:
    """A `runners/store.py` that serves an embedded directory."""

    url: str
    pid: int
    users: dict[str, str]  # name -> password: `default` may do all, `dashboard` reads


# What was given may hold a password: only its scheme is repeated.
def _bad_dsn(dsn: str) -> str:
    scheme = dsn.split(":", 1)[0]
    return f"store.dsn must be {_MEANT}, this one begins with {scheme!r}"


def find_server(directory: Path) -> Server | None:
    """The server of an embedded directory, if one runs and answers.

    Parameters
    ----------
    directory : of the embedded engine.

    Returns
    -------
    None when there is no `server.json`, its process is gone, or was killed and not waited for.
    """
    try:
        server = Server(**json.loads((directory / "server.json").read_text()))
        if not _is_running(server.pid):
            return None
        asked = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=CONNECT_TIMEOUT_S)
        with closing(asked):
            asked.request("GET", "/ping")
            return server if asked.getresponse().status == 200 else None
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return None


def lock_holder(directory: Path) -> int | None:
    """Process that holds an embedded directory, this one included; None when it is free."""
    try:
        with (directory / "status").open() as status:
            found = re.search(r"PID:\s*(\d+)", status.read())
            # Where nobody lives the lock is not even asked for: that could turn away a starter.
            if found and _is_running(int(found[1])) and not _is_free(status):
                return int(found[1])
    except FileNotFoundError:
        pass
    return None


# A killed process keeps its id until it is waited for; what is started in its place has another.
def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error as error:
        return isinstance(error, psutil.AccessDenied)


def _is_free(status: IO[str]) -> bool:
    try:
        fcntl.flock(status, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _HeldError(StoreError):
    # Another process has the embedded directory.
    pass


def connect(dsn: str = DEFAULT_DSN, *, read_only: bool = False, wait_s: float = 0.0) -> Client:
    """A client of the store, ready to use; one per thread, `close()` it.

    Parameters
    ----------
    dsn : `chdb:path[?database=name]`, the path below `home()` unless absolute, or
        `http(s)://user:password@host:port/database`. A database that is missing is made.
    read_only : nothing can be written or defined through this client.
    wait_s : for another process that holds the directory to let it go, or to serve it.

    Returns
    -------
    A clickhouse-connect client whose database is set.

    Raises
    ------
    ConfigError
        If the DSN cannot be meant.
    StoreError
        If the server refuses the user, or another process holds the directory; a `StoreAwayError`
        if it does not answer.
    """
    place, until = Dsn.parse(dsn), time.monotonic() + wait_s
    while True:
        try:
            return _connect(place, read_only)
        except _HeldError:
            if time.monotonic() >= until:
                raise
        time.sleep(_HELD_LOOK_S)


def _connect(place: Dsn, read_only: bool) -> Client:
    if place.directory is None:
        return _connect_server(place, read_only)
    server = find_server(place.directory)
    if server:
        user = "dashboard" if read_only else "default"
        at = Dsn(None, server.url, user, server.users[user], place.database)
        return _connect_server(at, read_only)
    return _open_embedded(place.directory, place.database, read_only)


def _open_embedded(directory: Path, database: str, read_only: bool) -> Client:
    holder = lock_holder(directory)
    if holder not in (None, os.getpid()):
        raise _HeldError(
            f"store {directory} is held by process {holder}: end that process, or let everyone "
            "share the store by starting `python runners/store.py` first"
        )
    directory.mkdir(parents=True, exist_ok=True)
    try:
        client = clickhouse_connect.get_client(interface="chdb", path=str(directory))
    except ClickHouseError as error:
        is_held = lock_holder(directory) not in (None, os.getpid())  # by one that opened it, too
        raise (_HeldError if is_held else StoreError)(
            f"cannot open store {directory}: {_first_line(error)}; a process can open one "
            "directory only, and needs the right to write to it"
        ) from error
    return _enter(client, database, read_only)


def _connect_server(place: Dsn, read_only: bool) -> Client:
    parts = urlsplit(place.url)
    try:
        client = clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or 0,
            interface=parts.scheme,
            username=place.user,
            password=place.password,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=ANSWER_TIMEOUT_S,
            autogenerate_session_id=False,  # sessions allow one query at a time
        )
    except ClickHouseError as error:
        raise _why_not(place, error) from error
    return _enter(client, place.database, read_only)


def _why_not(place: Dsn, error: ClickHouseError) -> StoreError:
    if getattr(error, "code", None) in BAD_LOGIN:
        return StoreError(
            f"ClickHouse at {place.url} refused user {place.user!r}: check the dsn's password"
        )
    return StoreAwayError(
        f"ClickHouse at {place.url} does not answer ({_first_line(error)}): start it, correct "
        "the dsn, or use the embedded store (store=embedded)"
    )


# The database is made here, not by `migrate`, since a client cannot enter one that is missing.
def _enter(client: Client, database: str, read_only: bool) -> Client:
    with store_errors():
        if not read_only and database != "default":
            client.command(
                "CREATE DATABASE IF NOT EXISTS {database:Identifier}", {"database": database}
            )
        client.database = database
        if read_only and client.command("SELECT getSetting('readonly')") == 0:
            client.set_client_setting("readonly", "2")
    return client


@contextmanager
def store_errors() -> Generator[None]:
    """Turn the client's errors into `StoreError` with one line, the cause kept."""
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(_first_line(error)) from error


def _first_line(error: ClickHouseError) -> str:
    text = str(error)
    if "Max retries exceeded" in text or "Connection" in text:
        return "no connection"
    return next(iter(text.strip().splitlines()), type(error).__name__)


def migrate(client: Client) -> list[int]:
    """Bring the schema up to date with `sysquant/schema/*.sql`; safe to call at every start.

    Parameters
    ----------
    client : from `connect`, not read-only.

    Returns
    -------
    Numbers of the migrations that were run now.

    Raises
    ------
    StoreError
        If the store holds a newer migration than this package, or one whose text differs from
        what was run, or a statement fails.
    """
    known = {int(path.name[:4]): path for path in sorted(SCHEMA.glob("[0-9]*.sql"))}
    with store_errors():
        client.command(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, "
            "checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
            "ENGINE = ReplacingMergeTree ORDER BY number"
        )
        rows = client.query("SELECT number, checksum FROM schema_migrations FINAL").result_rows
        done: dict[int, str] = dict(rows)  # pyright: ignore
        _refuse_foreign(done, known)
        fresh = [number for number in known if number not in done]
        for number in fresh:
            _run_migration(client, number, known[number])
    return fresh


def _refuse_foreign(done: dict[int, str], known: dict[int, Path]) -> None:
    for number, checksum in sorted(done.items()):
        if number not in known:
            raise StoreError(
                f"the store's schema has migration {number}, this version knows "
                f"{max(known)} at most: update sysquant, or use another database"
            )
        if checksum != _checksum(known[number]):
            raise StoreError(
                f"migration {known[number].name} was changed after it was run here: restore "
                "the file and put the change into a new migration, or use another database"
            )


def _run_migration(client: Client, number: int, path: Path) -> None:
    for statement in statements(path.read_text()):
        try:
            client.command(statement)
        except ClickHouseError as error:
            # An earlier run was cut off after this statement, or another process runs it too.
            if getattr(error, "code", None) != TABLE_EXISTS:
                raise
    client.insert(
        "schema_migrations",
        [[number, path.name, _checksum(path)]],
        column_names=["number", "name", "checksum"],
    )
    log.info("migrated number=%d name=%s", number, path.name)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def statements(sql: str) -> list[str]:
    """Statements of a migration: `--` comments cut out, split at semicolons outside quotes."""
    bare = _COMMENT.sub(lambda match: match[1] or "", sql)
    return [part.strip() for part in _STATEMENT.findall(bare) if part.strip()]


def insert(client: Client, table: str, rows: pa.Table, token: str) -> None:
    """Insert rows once, however often this is called with the same rows and token.

    Parameters
    ----------
    client : from `connect`.
    table : its name; views that feed on it are deduplicated too.
    rows : columns named as in the table; those with a default may be missing.
    token : names these rows for ever. The store drops a known token, also with other rows.

    Raises
    ------
    StoreError
        If the store does not answer or refuses the rows; the same call may be repeated.

    References
    ----------
    ClickHouse documentation, "Deduplicating inserts on retries".
    """
    with store_errors():
        for start in range(0, rows.num_rows, BLOCK_ROWS):
            client.insert_arrow(
                table,
                rows.slice(start, BLOCK_ROWS),
                settings={
                    "insert_deduplication_token": f"{token}-{start}" if start else token,
                    "deduplicate_blocks_in_dependent_materialized_views": 1,
                },
            )


def decided_columns(client: Client, table: str) -> list[str]:
    """Columns that a decision fixes, in the table's order.

    Those whose comment begins with "not decided" (run, receive and write times, latencies) are
    left out: two runs over the same inputs agree in all others.

    Raises
    ------
    StoreError
        If there is no such table.
    """
    with store_errors():
        rows = client.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() "
            "AND table = {table:String} AND NOT startsWith(comment, 'not decided') "
            "ORDER BY position",
            {"table": table},
        ).result_rows
    if not rows:
        raise StoreError(f"the store has no table {table!r}: run `migrate` first")
    return [str(row[0]) for row in rows]
