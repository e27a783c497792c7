"""An exchange on 127.0.0.1: a WebSocket server that tells a market's frames, and its REST past.

The market goes on whether or not somebody listens: what happens while nobody is connected is only
in the past. A script disturbs it at given frames.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


class VenueServer:
    """Tells `frames` in their order, as a context.

    Parameters
    ----------
    frames : texts.
    past : (path, query) -> the JSON answer of REST; None: 503.
    script : frame's place -> what to do instead of telling it: a word of `_DOES`, or seconds of
        silence.
    per_second : frames.
    """

    def __init__(
        self, frames: Sequence[str], past: Callable[[str, dict[str, str]], object] | None = None,
        *, script: dict[int, str | float] | None = None, per_second: float = 2_000.0,
    ) -> None:  # fmt: skip
        self.frames, self.script, self.per_second = frames, dict(script or {}), per_second
        self.past = past
        self.place, self.connections, self.asked, self.greetings = 0, 0, [], []
        self.is_rest_down, self.disturbed = False, 0
        self._turn = threading.Lock()
        self._open = threading.Event()
        self._sockets = serve(self._tell, "127.0.0.1", 0, ping_interval=1.0)
        self._rest = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def __enter__(self):
        for server in (self._sockets, self._rest):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._open.set()
        self._sockets.shutdown()
        self._rest.shutdown()
        self._rest.server_close()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self._sockets.socket.getsockname()[1]}"

    @property
    def rest(self):
        return f"http://127.0.0.1:{self._rest.server_address[1]}"

    @property
    def is_over(self):
        return self.place >= len(self.frames)

    def _tell(self, socket: ServerConnection) -> None:
        self.connections += 1
        with self._turn, contextlib.suppress(ConnectionClosed):  # one listener at a time
            self._go_on(socket)

    def _go_on(self, socket: ServerConnection) -> None:
        while not self._open.is_set():
            self._listen(socket)
            if self.is_over:
                time.sleep(0.02)
                continue
            frame, does = self.frames[self.place], self.script.pop(self.place, None)
            if does is None:
                socket.send(frame)
                self.place += 1
            elif isinstance(does, float):
                self.disturbed += 1
                time.sleep(does)
            elif self._disturb(socket, does, frame):
                return
            time.sleep(1.0 / self.per_second)

    def _listen(self, socket: ServerConnection) -> None:
        try:
            while True:
                self.greetings.append(socket.recv(timeout=0))
        except TimeoutError:
            pass

    def _disturb(self, socket: ServerConnection, does: str, frame: str) -> bool:
        # Whether the connection is over.
        self.disturbed += 1
        match does:
            case "close":  # and what comes meanwhile is missed
                self.place += 7
                socket.close()
                return True
            case "cut":  # in the middle of a frame
                socket.socket.sendall(b"\x81\x7e\x01\x00" + frame[:40].encode())
                socket.socket.close()
                self.place += 1
                return True
            case "half":  # half of the JSON, as a whole frame
                socket.send(frame[: len(frame) // 2])
                self.place += 1
            case "parts":  # one message in three frames
                third = len(frame) // 3
                socket.send([frame[:third], frame[third : 2 * third], frame[2 * third :]])
                self.place += 1
            case "greeted":  # nothing is told to who has not asked
                self.greetings.append(socket.recv(timeout=10))
            case "ping":
                socket.ping().wait(5)
            case "swap":
                socket.send(self.frames[self.place + 1])
                socket.send(frame)
                self.place += 2
            case "again":
                socket.send(frame)
            case "noise":
                socket.send('{"result":null,"id":1}')
                socket.send(b"\xff\x00")
        return False

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                server.asked.append((parts.path, query))
                code, body = 503, b"{}"
                if not server.is_rest_down and server.past is not None:
                    code, body = 200, json.dumps(server.past(parts.path, query)).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
