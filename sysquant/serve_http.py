"""The ClickHouse HTTP interface over the embedded engine: protocol, users, answers.

h11 reads and writes the protocol (chunked bodies, keep-alive, limits: nothing of that is ours), a
thread per connection runs it, since the engine's calls block and let other threads run. Results
are sent as they are made; a failure after the first byte is told inside the body, as ClickHouse
does, and the connection is cut. References: ClickHouse documentation, "HTTP interface".
"""

import base64
import hmac
import json
import logging
import secrets
import socket
import socketserver
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, cast
from urllib.parse import parse_qsl, urlsplit

import h11

from sysquant import serve_sql, serve_wire
from sysquant.serve_engine import Answer, Engine, EngineError, Query
from sysquant.serve_wire import WireError

log = logging.getLogger(__name__)

RECEIVE_BYTES = 1 << 18
HEAD_BYTES = 1 << 18  # the text before the rows of an INSERT; ClickHouse's max_query_size
STATEMENT_BYTES = 1 << 26
# Up to here a result waits for its end, so that a failure still has its own HTTP status; with
# wait_end_of_query it waits for as long as it takes, on disk beyond this size.
HELD_BYTES = 1 << 20
HELD_IN_MEMORY_BYTES = 1 << 25
IDLE_S = 600
HEADER_BYTES = 1 << 20
# Parameters of the interface; every other one is a setting of the engine.
NOT_SETTINGS = {
    "query", "database", "user", "password", "quota_key", "query_id", "session_id",
    "session_timeout", "session_check", "default_format", "compress", "decompress",
    "buffer_size", "wait_end_of_query", "client_protocol_version", "role", "stacktrace",
}  # fmt: skip
CONTENT_TYPES = {
    "json": "application/json; charset=UTF-8", "csv": "text/csv; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "native": "application/octet-stream", "rowbinary": "application/octet-stream",
    "arrow": "application/octet-stream", "arrowstream": "application/octet-stream",
    "parquet": "application/octet-stream",
}  # fmt: skip
REQUIRED_PASSWORD, AUTHENTICATION_FAILED, INCORRECT_DATA = 194, 516, 117
BAD_REQUEST_CODES = {
    6, 8, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 167, 168, 223, 321, 376, 427, 441,
    675, 676,
}  # fmt: skip
NOT_FOUND_CODES = {46, 47, 50, 54, 56, 60, 63, 73, 78, 81, 115, 139, 336, 372}
STATUS = dict.fromkeys(BAD_REQUEST_CODES, 400) | dict.fromkeys(NOT_FOUND_CODES, 404) | {
    194: 401, 192: 403, 193: 403, 512: 403, 516: 403, 48: 501, 159: 408, 76: 503, 209: 503,
    439: 503, 416: 413,
}  # fmt: skip


class Refused(Exception):
    """A request that is not let in: HTTP status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """Head of a request, taken apart."""

    method: str
    path: str
    options: dict[str, str]
    headers: dict[str, str]
    query_id: str

    @classmethod
    def of(cls, event: h11.Request) -> "Request":
        target = urlsplit(event.target.decode("latin-1"))
        options = dict(parse_qsl(target.query, keep_blank_values=True))
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in event.headers}
        query_id = options.get("query_id") or str(uuid.uuid4())
        return cls(event.method.decode(), target.path, options, headers, query_id)

    def flag(self, name: str) -> bool:
        """Whether an option is switched on."""
        return self.options.get(name, "0") not in ("", "0", "false")


class StoreServer(socketserver.ThreadingTCPServer):
    """Serves one engine on 127.0.0.1.

    Parameters
    ----------
    engine : what runs the statements.
    users : name -> password; `dashboard` only reads.
    port : to listen on; 0 takes a free one, then found in `server_address`.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, engine: Engine, users: dict[str, str], *, port: int = 0) -> None:
        self.engine = engine
        self.users = users
        self.name = socket.gethostname()
        super().__init__(("127.0.0.1", port), Connection)


class Connection(socketserver.BaseRequestHandler):
    """One client's connection: requests one after the other until it closes."""

    request: socket.socket
    server: StoreServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        """Serve requests until the client goes or leaves the protocol's rules."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(IDLE_S)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        try:
            while self._serve_one():
                self._h11.start_next_cycle()
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError) as gone:
            log.debug("connection ended reason=%s", gone)

    def _serve_one(self) -> bool:
        try:
            event = self._next_event()
        except h11.RemoteProtocolError as error:
            if self._h11.our_state is h11.IDLE:
                self._send_text(error.error_status_hint, f"{error}\n", {})
            return False
        if not isinstance(event, h11.Request):
            return False
        request = Request.of(event)
        try:
            self._route(request)
        except Refused as refusal:
            self._send_text(refusal.status, f"{refusal}\n", {})
        if self._h11.their_state is h11.SEND_BODY:  # an answer before the whole body came
            for _ in self._body():
                pass
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def _next_event(self) -> object:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(self.request.recv(RECEIVE_BYTES))

    def _body(self) -> Iterator[bytes]:
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    def _send(self, event: h11.Event) -> None:
        for part in self._h11.send_with_data_passthrough(event) or ():
            self.request.sendall(part)

    def _route(self, request: Request) -> None:
        _refuse_browsers(request)
        if request.method not in ("GET", "POST", "HEAD"):
            raise Refused(405, f"method {request.method} is not served, GET and POST are")
        if request.path in ("/ping", "/replicas_status") or (
            request.path == "/" and request.method != "POST" and "query" not in request.options
        ):
            self._send_text(200, "Ok.\n", {})
        elif request.path not in ("/", "/query"):
            raise Refused(404, f"there is nothing at {request.path}")
        else:
            self._run(request)

    def _run(self, request: Request) -> None:
        try:
            user = self._user(request)
            query = self._query(request, user)
            with self.server.engine.answer(query) as answer:
                self._send_answer(request, query, answer)
        except WireError as error:
            self._send_error(request, EngineError(str(error), INCORRECT_DATA))
        except EngineError as error:
            self._send_error(request, error)

    def _user(self, request: Request) -> str:
        user, password = _credentials(request)
        if not user:
            raise EngineError("user and password are required", REQUIRED_PASSWORD)
        known = self.server.users.get(user, "")
        if not hmac.compare_digest(known.encode(), password.encode()) or not known:
            raise EngineError(
                f"{user}: Authentication failed: password is incorrect, or there is no user "
                "with such name. (AUTHENTICATION_FAILED)",
                AUTHENTICATION_FAILED,
            )
        return user

    def _query(self, request: Request, user: str) -> Query:
        options = request.options
        chunks = serve_wire.decode(self._body(), request.headers.get("content-encoding", ""))
        if request.flag("decompress"):
            chunks = serve_wire.unframe(chunks)
        text, rows = _statement(options.get("query", "").encode(), chunks)
        settings = {
            name: value
            for name, value in options.items()
            if name not in NOT_SETTINGS and not name.startswith("param_")
        }
        query = Query(
            text,
            rows=rows,
            default_format=options.get("default_format")
            or request.headers.get("x-clickhouse-format")
            or "TabSeparated",
            parameters={k[6:]: v for k, v in options.items() if k.startswith("param_")},
            settings=settings,
            database=options.get("database") or request.headers.get("x-clickhouse-database", ""),
            read_only=request.method != "POST" or settings.get("readonly", "0") != "0",
            guarded=user == "dashboard",
            session=f"{user}/{options['session_id']}" if options.get("session_id") else "",
            session_s=_seconds(options.get("session_timeout", "60")),
            session_check=request.flag("session_check"),
        )
        _separate_rows(query, options)
        return query

    def _send_answer(self, request: Request, query: Query, answer: Answer) -> None:
        chunks = answer.chunks
        revision = int(request.options.get("client_protocol_version", "0") or 0)
        if revision >= serve_wire.FIRST_FRAMED_REVISION and query.default_format == "Native":
            chunks = serve_wire.frame_native(chunks, revision)
        encoder, encoding = _encoder(request)
        outgoing = _encoded(chunks, encoder)
        limit = HELD_IN_MEMORY_BYTES if request.flag("wait_end_of_query") else HELD_BYTES
        with tempfile.SpooledTemporaryFile(limit) as held:
            ended = _hold(outgoing, held, None if limit > HELD_BYTES else limit)
            size = held.tell()
            held.seek(0)
            headers = self._headers(request, answer) | ({"Content-Encoding": encoding} if encoding and size else {})
            if ended:
                headers["Content-Length"] = str(size)
                self._send_head(200, headers)
                self._send_data(request, iter(lambda: held.read(RECEIVE_BYTES), b""))
                self._send(h11.EndOfMessage())
                return
            tag = secrets.token_hex(8)
            headers |= {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag}
            self._send_head(200, headers)
            self._send_data(request, iter(lambda: held.read(RECEIVE_BYTES), b""))
        self._send_rest(request, outgoing, encoder, tag)

    def _send_rest(
        self, request: Request, outgoing: Iterator[bytes], encoder: serve_wire.Encoder | None, tag: str
    ) -> None:
        try:
            self._send_data(request, outgoing)
        except EngineError as error:
            text = f"{error}\n"
            note = (
                f"\r\n__exception__\r\n{tag}\r\n{text}{len(text)} {tag}\r\n__exception__\r\n"
            ).encode()
            if encoder is not None and not isinstance(encoder, serve_wire.Frames):
                note = encoder.compress(note) + encoder.flush()
            self._send(h11.Data(data=note))
            # No last chunk: whoever does not look for the note sees a body cut short.
            self._h11.send_failed()
            return
        self._send(h11.EndOfMessage())

    def _send_data(self, request: Request, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            if chunk and request.method != "HEAD":
                self._send(h11.Data(data=chunk))

    def _headers(self, request: Request, answer: Answer) -> dict[str, str]:
        summary = {name: str(number) for name, number in answer.summary.items()}
        headers = {
            "X-ClickHouse-Server-Display-Name": self.server.name,
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Timezone": time.tzname[0],
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
            "Content-Type": CONTENT_TYPES.get(answer.format.lower(), "text/plain; charset=UTF-8"),
        }
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        return headers

    def _send_error(self, request: Request, error: EngineError) -> None:
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise ConnectionError(str(error)) from error
        headers = {
            "X-ClickHouse-Server-Display-Name": self.server.name,
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Exception-Code": str(error.code),
        }
        self._send_text(STATUS.get(error.code, 500), f"{error}\n", headers)

    def _send_text(self, status: int, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        length = {"Content-Type": "text/plain; charset=UTF-8", "Content-Length": str(len(body))}
        self._send_head(status, headers | length)
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self._send(h11.Response(status_code=status, headers=list(headers.items())))


# Any page in a browser could otherwise send SQL to a server on this machine; a page that rebinds
# its own name to 127.0.0.1 is told by its Host.
def _refuse_browsers(request: Request) -> None:
    headers = request.headers
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        raise Refused(403, "requests of web pages are refused")
    host = urlsplit("//" + headers.get("host", "")).hostname
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise Refused(403, "requests are served for 127.0.0.1 and localhost only")


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


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise EngineError(f"Invalid session timeout: {text!r}. (INVALID_SESSION_TIMEOUT)", 374)
    return float(text)


# Statement and what follows it in the body. Of an INSERT only the beginning is read here.
def _statement(url_part: bytes, chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    head = bytearray()
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    if serve_sql.first_word(url_part or bytes(head)) == "INSERT":
        return url_part or bytes(head), _chain(head if url_part else b"", chunks)
    for chunk in chunks:
        head += chunk
        if len(head) > STATEMENT_BYTES:
            raise EngineError("Query is too large. (QUERY_IS_TOO_LARGE)", 416)
    return url_part + (b"\n" if url_part and head else b"") + bytes(head), iter(())


def _chain(first: bytes | bytearray, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield bytes(first)
    yield from rest


def _separate_rows(query: Query, options: dict[str, str]) -> None:
    if serve_sql.first_word(query.sql) != "INSERT":
        return
    found = serve_sql.split_insert(query.sql)
    if found is None:
        query.sql += b"".join(query.rows)
        return
    query.rows = _chain(query.sql[found.data_start :], query.rows)
    query.sql = found.statement
    query.insert_format = found.format or options.get("default_format", "Values")


def _encoder(request: Request) -> tuple[serve_wire.Encoder | None, str]:
    if request.flag("compress"):
        method = request.options.get("network_compression_method", "LZ4")
        return serve_wire.Frames(method), ""
    if not request.flag("enable_http_compression"):
        return None, ""
    encoding = serve_wire.choose_encoding(request.headers.get("accept-encoding", ""))
    return (serve_wire.ENCODERS[encoding]() if encoding else None), encoding


def _encoded(chunks: Iterator[bytes], encoder: serve_wire.Encoder | None) -> Iterator[bytes]:
    if encoder is None:
        yield from chunks
        return
    empty = True
    for chunk in chunks:
        empty = empty and not chunk
        yield encoder.compress(chunk)
    if not empty:
        yield encoder.flush()


# True when all of it was held.
def _hold(chunks: Iterator[bytes], held: IO[bytes], limit: int | None) -> bool:
    size = 0
    for chunk in chunks:
        size += held.write(chunk)
        if limit is not None and size >= limit:
            return False
    return True
