"""The ClickHouse HTTP interface over the embedded engine: connections and answers.

h11 reads and writes the protocol (chunked bodies, keep-alive, limits: nothing of that is ours), a
thread per connection runs it, since the engine's calls block and let other threads run. Results
are sent as they are made; a failure after the first byte is told inside the body, as ClickHouse
does, and the connection is cut. References: ClickHouse documentation, "HTTP interface".
"""

import contextlib
import json
import logging
import secrets
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO

import h11

from sysquant.serve import native, wire
from sysquant.serve.engine import Answer, Engine, EngineError, Query
from sysquant.serve.request import Refused, Request, authenticate, query_of, refuse_browsers
from sysquant.serve.wire import WireError

log = logging.getLogger(__name__)

RECEIVE_BYTES, SEND_BYTES = 1 << 18, 1 << 20
# Up to here a result waits for its end, so that a failure still has its own HTTP status; with
# wait_end_of_query it waits for as long as it takes, on disk beyond the second size.
HELD_BYTES, HELD_IN_MEMORY_BYTES = 1 << 20, 1 << 28
IDLE_S = 600
HEADER_BYTES = 1 << 20
CONTENT_TYPES = {
    "json": "application/json; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
} | dict.fromkeys(("native", "rowbinary", "arrow", "parquet"), "application/octet-stream")
# ClickHouse's numbers by what they mean over HTTP; every other is a 500.
BAD_REQUEST = [6, 8, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 167, 168, 223, 321, 376]
BAD_REQUEST += [427, 441, 675, 676]
NOT_FOUND = [46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 139, 336, 372]
FORBIDDEN, UNAVAILABLE = [192, 193, 512, 516], [76, 209, 439]
STATUS = {194: 401, 159: 408, 416: 413, 48: 501}
for _status, _codes in (400, BAD_REQUEST), (403, FORBIDDEN), (404, NOT_FOUND), (503, UNAVAILABLE):
    STATUS |= dict.fromkeys(_codes, _status)


class StoreServer(socketserver.ThreadingTCPServer):
    """Serves one engine on 127.0.0.1.

    Parameters
    ----------
    engine : what runs the statements.
    users : name -> password; `dashboard` only reads.
    port : to listen on; 0 takes a free one, then found in `server_address`.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, engine: Engine, users: dict[str, str], *, port: int = 0) -> None:
        self.engine = engine
        self.users = users
        self.name = socket.gethostname()
        self.connections: set[Connection] = set()
        super().__init__(("127.0.0.1", port), Connection)

    def drain(self, timeout_s: float) -> bool:
        """End idle connections, and wait for those at work; False if some still are."""
        deadline = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < deadline:
            for connection in list(self.connections):
                if not connection.busy:
                    connection.end()
            time.sleep(0.01)
        return not self.connections


class Connection(socketserver.BaseRequestHandler):
    """One client's connection: requests one after the other until it closes."""

    request: socket.socket
    server: StoreServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        """Prepare the socket and the protocol's state."""
        self.busy = False
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(IDLE_S)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        self._unsent: list[bytes] = []
        self.server.connections.add(self)

    def handle(self) -> None:
        """Serve requests until the client goes or leaves the protocol's rules."""
        try:
            while self._serve_one():
                self._h11.start_next_cycle()
        except (OSError, h11.ProtocolError) as gone:
            log.debug("connection ended reason=%s", gone)

    def finish(self) -> None:
        """Forget the connection."""
        self.server.connections.discard(self)

    def end(self) -> None:
        """Let the client see the end of the connection; from another thread."""
        try:
            self.request.shutdown(socket.SHUT_RDWR)
        except OSError as gone:
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
        self.busy = True
        try:
            self._route(request)
        except Refused as refusal:
            self._send_text(refusal.status, f"{refusal}\n", {})
        for _ in self._body():  # what an early answer left unread
            pass
        self.busy = False
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
        while self._h11.their_state is h11.SEND_BODY:
            event = self._next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    # Heads are short: they wait for what follows, one packet instead of two.
    def _send(self, event: h11.Event) -> None:
        self._unsent += self._h11.send_with_data_passthrough(event) or ()
        if not isinstance(event, h11.Response):
            one = len(self._unsent) == 1
            self.request.sendall(self._unsent[0] if one else b"".join(self._unsent))
            self._unsent.clear()

    def _route(self, request: Request) -> None:
        refuse_browsers(request)
        if request.method not in ("GET", "POST"):
            raise Refused(405, f"method {request.method} is not served, GET and POST are")
        greets = request.path == "/" and request.method == "GET" and "query" not in request.options
        if greets or request.path in ("/ping", "/replicas_status"):
            self._send_text(200, "Ok.\n", {})
        elif request.path not in ("/", "/query"):
            raise Refused(404, f"there is nothing at {request.path}")
        else:
            self._run(request)

    def _run(self, request: Request) -> None:
        try:
            user = authenticate(request, self.server.users)
            query = query_of(request, self._body(), user)
            with contextlib.closing(_Held()) as held:
                with self.server.engine.answer(query) as answer:
                    whole = self._send_beginning(request, query, answer, held)
                # Only now: with the end of the answer in hand a client may use its session again.
                if whole:
                    self._send_head(whole | {"Content-Length": str(held.size)})
                    self._send_data(held.pieces())
            if self._h11.our_state is not h11.ERROR:
                self._send(h11.EndOfMessage())
        except WireError as error:
            self._send_error(request, EngineError(str(error), error.code))
        except EngineError as error:
            self._send_error(request, error)

    # Gives the head of an answer that is all held; a longer one is sent here, but for its end.
    def _send_beginning(
        self, request: Request, query: Query, answer: Answer, held: "_Held"
    ) -> dict[str, str]:
        chunks = answer.chunks
        revision = request.number("client_protocol_version", 0)
        if revision >= native.FIRST_FRAMED and query.default_format == "Native":
            chunks = native.frame_native(chunks, revision)
        encoder, encoding = _encoder(request)
        outgoing = _encoded(chunks, encoder)
        waits = request.flag("wait_end_of_query")
        whole = held.take(outgoing, None if waits else HELD_BYTES)
        headers = self._headers(request, answer)
        if encoding and held.size:
            headers["Content-Encoding"] = encoding
        if whole:
            return headers
        tag = secrets.token_hex(8)
        chunked = {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag}
        self._send_head(headers | chunked)
        self._send_data(held.pieces())
        try:
            self._send_data(outgoing)
        except EngineError as error:
            self._send_note(error, encoder, tag)
        return {}

    # A failure in mid-stream, in the form that clients look for at the end of the body.
    def _send_note(self, error: EngineError, encoder: wire.Encoder | None, tag: str) -> None:
        text = f"{error}\n".encode()
        mark = b"\r\n__exception__\r\n"
        note = mark + tag.encode() + b"\r\n" + text + f"{len(text)} {tag}".encode() + mark
        if encoder is not None and not isinstance(encoder, wire.Frames):
            note = encoder.compress(note) + encoder.flush()
        self._send(h11.Data(data=note))
        # No last chunk: whoever does not look for the note sees a body cut short.
        self._h11.send_failed()

    def _send_head(self, headers: dict[str, str], status: int = 200) -> None:
        self._send(h11.Response(status_code=status, headers=list(headers.items())))

    def _send_data(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            if chunk:
                self._send(h11.Data(data=chunk))

    def _headers(self, request: Request, answer: Answer) -> dict[str, str]:
        summary = {name: str(number) for name, number in answer.summary.items()}
        headers = {
            "X-ClickHouse-Server-Display-Name": self.server.name,
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
            "Content-Type": CONTENT_TYPES.get(answer.format.lower(), "text/plain; charset=UTF-8"),
        }
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        return headers

    def _send_error(self, request: Request, error: EngineError) -> None:
        if self._h11.our_state is not h11.SEND_RESPONSE:
            raise ConnectionError(str(error)) from error
        headers = {
            "X-ClickHouse-Server-Display-Name": self.server.name,
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Exception-Code": str(error.code),
        }
        self._send_text(STATUS.get(error.code, 500), f"{error}\n", headers)

    def _send_text(self, status: int, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        headers["Content-Type"] = "text/plain; charset=UTF-8"
        headers["Content-Length"] = str(len(body))
        self._send_head(headers, status)
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())


def _encoder(request: Request) -> tuple[wire.Encoder | None, str]:
    if request.flag("compress"):
        return wire.Frames(request.options.get("network_compression_method", "LZ4")), ""
    if not request.flag("enable_http_compression"):
        return None, ""
    encoding = wire.choose_encoding(request.headers.get("accept-encoding", ""))
    return (wire.ENCODERS[encoding]() if encoding else None), encoding


def _encoded(chunks: Iterator[bytes], encoder: wire.Encoder | None) -> Iterator[bytes]:
    if encoder is None:
        yield from chunks
        return
    empty = True
    for chunk in chunks:
        empty = empty and not chunk
        yield encoder.compress(chunk)
    if not empty:
        yield encoder.flush()


# The beginning of an answer, or all of it: in memory, and on disk what is too long for that.
class _Held:
    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None

    def take(self, chunks: Iterator[bytes], limit: int | None) -> bool:
        for chunk in chunks:
            self.size += len(chunk)
            if self.size <= HELD_IN_MEMORY_BYTES:
                self._parts.append(chunk)
            else:
                self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - close() is below
                self._file.write(chunk)
            if limit is not None and self.size >= limit:
                return False
        return True

    def pieces(self) -> Iterator[bytes]:
        yield from self._parts
        if self._file:
            self._file.seek(0)
            while piece := self._file.read(SEND_BYTES):
                yield piece

    def close(self) -> None:
        if self._file:
            self._file.close()


def start(server: StoreServer) -> threading.Thread:
    """Serve in a thread of its own, until `server.shutdown()`."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    return thread
