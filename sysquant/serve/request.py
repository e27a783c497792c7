"""A request of the ClickHouse HTTP interface, taken apart: who asks, and for what.

Input: head and body as they came. Output: a `Query` for the engine, or a refusal. Web pages are
refused: any page in a browser on this machine could otherwise send SQL to the store.
"""

import base64
import hmac
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import h11

from sysquant.serve import lexer, wire
from sysquant.serve.engine import EngineError, Query

HEAD_BYTES = 1 << 18  # the text before the rows of an INSERT; ClickHouse's max_query_size
STATEMENT_BYTES = 1 << 26
HOSTS = ("127.0.0.1", "localhost", "::1")
READER = "dashboard"
# Parameters of the interface; every other one is a setting of the engine.
NOT_SETTINGS = {
    "query", "database", "user", "password", "quota_key", "query_id", "session_id",
    "session_timeout", "session_check", "default_format", "compress", "decompress",
    "buffer_size", "wait_end_of_query", "client_protocol_version", "role", "stacktrace",
}  # fmt: skip
NOT_IMPLEMENTED, CANNOT_PARSE_NUMBER, QUERY_IS_TOO_LARGE = 48, 72, 416
REQUIRED_PASSWORD, AUTHENTICATION_FAILED = 194, 516


class Refused(Exception):
    """A request that is not let in: HTTP status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """Head of a request.

    Parameters
    ----------
    method, path : as they came.
    options : the URL's parameters; of one given twice, the last.
    headers : by name in small letters.
    query_id : the client's, or a fresh one.
    """

    method: str
    path: str
    options: dict[str, str]
    headers: dict[str, str]
    query_id: str

    @classmethod
    def of(cls, event: h11.Request) -> "Request":
        """Take the head of a request apart."""
        target = urlsplit(event.target.decode("latin-1"))
        options = dict(parse_qsl(target.query, keep_blank_values=True))
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in event.headers}
        query_id = options.get("query_id") or str(uuid.uuid4())
        return cls(event.method.decode(), target.path, options, headers, query_id)

    def flag(self, name: str) -> bool:
        """Whether an option is switched on."""
        return self.options.get(name, "0") not in ("", "0", "false")

    def number(self, name: str, default: int) -> int:
        """A whole number among the options."""
        text = self.options.get(name) or str(default)
        if not text.isdecimal():
            raise EngineError(
                f"{name} must be a whole number, was {text!r}. (CANNOT_PARSE_NUMBER)",
                CANNOT_PARSE_NUMBER,
            )
        return int(text)


def refuse_browsers(request: Request) -> None:
    """Let no web page in; one that rebinds its own name to 127.0.0.1 is told by its Host.

    Raises
    ------
    Refused
        With status 403.
    """
    headers = request.headers
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        raise Refused(403, "requests of web pages are refused")
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname
    except ValueError:
        host = None
    if host not in HOSTS:
        raise Refused(403, f"requests are served for the hosts {', '.join(HOSTS)} only")


def authenticate(request: Request, users: Mapping[str, str]) -> str:
    """Name of the user who asks.

    Parameters
    ----------
    request : with Basic authorization, X-ClickHouse headers, or options.
    users : name -> password.

    Raises
    ------
    EngineError
        If there is no such user, or another password.
    """
    user, password = _credentials(request)
    if not user:
        raise EngineError("user and password are required. (REQUIRED_PASSWORD)", REQUIRED_PASSWORD)
    known = users.get(user, "")
    if not hmac.compare_digest(known.encode(), password.encode()) or not known:
        raise EngineError(
            f"{user}: Authentication failed: password is incorrect, or there is no user with "
            "such name. (AUTHENTICATION_FAILED)",
            AUTHENTICATION_FAILED,
        )
    return user


def _credentials(request: Request) -> tuple[str, str]:
    headers, options = request.headers, request.options
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError as error:
            raise Refused(400, "the Authorization header cannot be read") from error
        return user, password
    if "x-clickhouse-user" in headers:
        return headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    return options.get("user", ""), options.get("password", "")


def query_of(request: Request, body: Iterator[bytes], user: str) -> Query:
    """What a request asks of the engine.

    Parameters
    ----------
    request : its head.
    body : its body, as it came; the rows of an INSERT are left to be read by the engine.
    user : who asks.

    Raises
    ------
    EngineError
        If an option cannot be meant, or the statement is too long.
    WireError
        If the body is not of the encoding it names.
    """
    options, headers = request.options, request.headers
    if headers.get("content-type", "").startswith("multipart/form-data"):
        raise EngineError("external tables are not served. (NOT_IMPLEMENTED)", NOT_IMPLEMENTED)
    chunks = wire.decode(body, headers.get("content-encoding", "").lower())
    if request.flag("decompress"):
        chunks = wire.unframe(chunks)
    text, rows = _statement(options.get("query", "").encode(), chunks)
    settings = {
        name: value
        for name, value in options.items()
        if name not in NOT_SETTINGS and not name.startswith("param_")
    }
    default_format = options.get("default_format") or headers.get("x-clickhouse-format", "")
    query = Query(
        text,
        rows=rows,
        default_format=default_format or "TabSeparated",
        parameters={k[6:]: v for k, v in options.items() if k.startswith("param_")},
        settings=settings,
        database=options.get("database") or headers.get("x-clickhouse-database", ""),
        read_only=request.method != "POST" or settings.get("readonly", "0") != "0",
        guarded=user == READER,
        session=f"{user}/{options['session_id']}" if options.get("session_id") else "",
        session_s=request.number("session_timeout", 60),
        session_check=request.flag("session_check"),
    )
    _separate_rows(query, default_format or "Values")
    return query


# Statement and what follows it in the body. Of an INSERT only the beginning is read here.
def _statement(url_part: bytes, chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    head = bytearray()
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    if lexer.first_word(url_part or bytes(head)) == "INSERT":
        return url_part or bytes(head), _chain(bytes(head) if url_part else b"", chunks)
    for chunk in chunks:
        head += chunk
        if len(head) > STATEMENT_BYTES:
            raise EngineError("Query is too large. (QUERY_IS_TOO_LARGE)", QUERY_IS_TOO_LARGE)
    return url_part + (b"\n" if url_part and head else b"") + bytes(head), iter(())


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _separate_rows(query: Query, default_format: str) -> None:
    if lexer.first_word(query.sql) != "INSERT":
        return
    found = lexer.split_insert(query.sql)
    if found is None:
        query.sql += b"".join(query.rows)
        return
    query.rows = _chain(query.sql[found.data_start :], query.rows)
    query.sql = found.statement
    query.insert_format = found.format or default_format
