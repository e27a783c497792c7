"""A TCP proxy on 127.0.0.1 that treats what goes through it as badly as it is told to.

Input: the port of a server. Output: a port of its own. It knows one thing of HTTP: that the request
was an insert, whose reply it may drop when the server has done it.
"""

import contextlib
import random
import socket
import struct
import threading
import time
from typing import Literal

Mode = Literal["pass", "refuse", "stall", "reset"]
CHUNK, TURN_S = 1 << 16, 0.05
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class Proxy:
    """Forwards connections to `port` of 127.0.0.1.

    Parameters
    ----------
    port : of the server; it may be away.
    seed : of the choice which replies are dropped.

    Attributes
    ----------
    mode : `pass`; `refuse` new connections and reset the others; `stall`: nothing moves, nothing
        is closed; `reset` whatever is moved.
    delay_s : before anything is moved.
    drop_share : of the replies to inserts that are dropped, the connection reset; a fraction.
    dropped : so many were.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        self.drop_share = 0.0
        self.dropped = 0
        self._target = port
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(TURN_S)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no connections any more, and reset those there are."""
        self._ended.set()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._ended.is_set()

    def _accept(self) -> None:
        with self._server:
            while not self._ended.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = self._server.accept()
                    _Connection(self, client)

    def connected(self, client: socket.socket) -> socket.socket | None:
        """A connection to the server for one of a client; None when there shall be none."""
        self._wait()
        if self.mode in ("refuse", "reset") or self._ended.is_set():
            return None
        try:
            return socket.create_connection(("127.0.0.1", self._target), timeout=2)
        except OSError:
            return None

    def may_move(self, reply_to_insert: bool) -> bool:
        """Wait for as long as it is told; whether the bytes may then go on."""
        self._wait()
        if reply_to_insert and self._random.random() < self.drop_share:
            self.dropped += 1
            return False
        return self.mode == "pass" and not self._ended.is_set()

    def _wait(self) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
        while self.mode == "stall" and not self._ended.is_set():
            time.sleep(TURN_S)


class _Connection:
    # Two directions, a thread each; whatever ends one ends both.

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy, self._client = proxy, client
        self._is_insert = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        server = self._proxy.connected(self._client)
        if server is None:
            _reset(self._client)
            return
        for end in (self._client, server):
            end.settimeout(TURN_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._move, args=(server, self._client, True), daemon=True)
        back.start()
        self._move(self._client, server, False)

    def _move(self, source: socket.socket, target: socket.socket, is_reply: bool) -> None:
        proxy = self._proxy
        try:
            while proxy.mode != "refuse" and target.fileno() >= 0:
                try:
                    data = source.recv(CHUNK)
                except TimeoutError:
                    if proxy.mode == "reset" or proxy.is_closed:
                        break
                    continue
                if not is_reply:
                    self._is_insert |= b"INSERT" in data[:4096]
                if not data or not proxy.may_move(is_reply and self._is_insert):
                    break
                if is_reply:
                    self._is_insert = False
                _send(target, data)
        except OSError:
            pass
        for end in (source, target):
            _reset(end)


def _send(target: socket.socket, data: bytes) -> None:
    # A receiver that is stalled is waited for: a time-out is for reading.
    left = memoryview(data)
    while left:
        with contextlib.suppress(TimeoutError):
            left = left[target.send(left) :]


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    end.close()
