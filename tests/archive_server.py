"""A public archive on 127.0.0.1: files, their checksums beside them, ranges, disturbances."""

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ArchiveServer:
    """Serves files by their paths, each with `<path>.CHECKSUM`, as a context.

    Parameters
    ----------
    files : path -> content; may be changed while it serves.
    script : path -> what to do at its next requests, one after another: a status to answer with,
        `cut` (half of the content, then the connection is gone) or `stall` (half, then nothing
        until `go_on` is set). Other requests are answered.
    has_ranges : whether a file can be asked for from the middle.

    Attributes
    ----------
    checksums : path -> SHA-256 that is told, where it is not that of the content.
    sent : path -> bytes of content that were sent.
    ranges : path -> the `Range` headers that came.
    """

    def __init__(
        self, files: Mapping[str, bytes], script: Mapping[str, list] | None = None, *,
        has_ranges: bool = True,
    ) -> None:  # fmt: skip
        self.files, self.script, self.has_ranges = dict(files), dict(script or {}), has_ranges
        self.checksums, self.sent, self.ranges = {}, Counter(), defaultdict(list)
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda *_: None  # a client that was killed

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def content(self, path):
        """What lies at a path; None for nothing."""
        of = path.removesuffix(".CHECKSUM")
        if of == path or of not in self.files:
            return self.files.get(path)
        digest = self.checksums.get(of) or hashlib.sha256(self.files[of]).hexdigest()
        return f"{digest}  {of.rpartition('/')[2]}\n".encode()

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server._answer(self, self.path.lstrip("/"))

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        return Handler

    def _answer(self, request, path):
        script, content = self.script.get(path), self.content(path)
        does = script.pop(0) if script and request.command == "GET" else None
        if isinstance(does, int) or content is None:
            request.send_response(does or 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self._start(request, path, content)
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        request.end_headers()
        if request.command == "GET":
            self._send(request, path, content[start:], does)

    def _start(self, request, path, content):
        asked = request.headers.get("Range")
        if asked is not None:
            self.ranges[path].append(asked)
        if asked is None or not self.has_ranges:
            request.send_response(200)
            return 0
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            request.send_response(416)
            return len(content)
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        return start

    def _send(self, request, path, body, does):
        now = body[: len(body) // 2] if does else body
        request.wfile.write(now)
        request.wfile.flush()
        self.sent[path] += len(now)
        if does == "stall":
            self.stalled.set()
            self.go_on.wait(60)
        if does:
            request.close_connection = True
