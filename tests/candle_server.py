"""Binance's REST interface on 127.0.0.1: markets and minute candles, and what may disturb them."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

PRICES = ("open", "high", "low", "close", "volume")
MARKETS = (("BTCUSDT", "BTC", "USDT"), ("ETHUSDT", "ETH", "USDT"))


def candles_of(start: str, minutes: int, seed: int = 0) -> pd.DataFrame:
    """A market, minute by minute; `at` is the open, ms."""
    random = np.random.default_rng(seed)
    price = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, (minutes, 4)).ravel())).round(4)
    price = price.reshape(minutes, 4)
    columns = {"at": pd.Timestamp(start, tz="UTC").value // 10**6 + 60_000 * np.arange(minutes)}
    columns |= {"open": price[:, 0], "high": price.max(1), "low": price.min(1)}
    columns |= {"close": price[:, 3], "volume": random.integers(1, 10**6, minutes) / 1000}
    return pd.DataFrame(columns)


def rows_of(frame: pd.DataFrame) -> list[list]:
    """Candles as Binance sends them."""
    return [
        [at, *map(str, values), at + 59_999, "1.0", 5, "0.5", "0.5", "0"]
        for at, *values in frame[["at", *PRICES]].itertuples(index=False)
    ]


class CandleServer:
    """Serves candles, as a context.

    Parameters
    ----------
    frames : the exchange's own name -> candles; may be changed while it serves.
    script : what to do at the next requests for candles, one after another: a status to answer
        with, `cut` (the connection is gone), `stall` (nothing until `go_on` is set), None, or a
        function of the rows of an answer that makes what is sent.
    always : the same at every other request.

    Attributes
    ----------
    asked : (name, startTime, limit) of every request for candles.
    """

    def __init__(
        self, frames: dict[str, pd.DataFrame], script: list | None = None, *,
        always: int | Callable | None = None,
    ) -> None:  # fmt: skip
        self.frames, self.script, self.always = dict(frames), list(script or []), always
        self.asked: list[tuple[str, int, int]] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda *_: None  # a client that was killed

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/v3"

    @property
    def settings(self):
        """For ccxt."""
        spot = {"fetchMarkets": {"types": ["spot"]}}
        return {"urls": {"api": {"public": self.url}}, "options": spot, "rateLimit": 1}

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                url = urlsplit(self.path)
                if url.path == "/api/v3/exchangeInfo":
                    server._send(self, 200, {"symbols": [_market(*one) for one in MARKETS]})
                elif url.path == "/api/v3/klines":
                    server._answer(self, {k: v[0] for k, v in parse_qs(url.query).items()})
                else:
                    server._send(self, 404, {})

            def log_message(self, *_):
                pass

        return Handler

    def _answer(self, request, query):
        assert query["interval"] == "1m"
        name, since, limit = query["symbol"], int(query["startTime"]), int(query["limit"])
        self.asked.append((name, since, limit))
        does = self.script.pop(0) if self.script else self.always
        if isinstance(does, int):
            self._send(request, does, b"<html>scripted</html>")
            return
        if does == "stall":
            self.stalled.set()
            self.go_on.wait(60)
        if does in ("cut", "stall"):
            request.close_connection = True
            return
        frame = self.frames[name]
        rows = rows_of(frame[frame["at"] >= since].head(limit))
        self._send(request, 200, does(rows) if does else rows)

    def _send(self, request, status, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


def _market(name: str, base: str, quote: str) -> dict:
    return {
        "symbol": name, "status": "TRADING", "baseAsset": base, "quoteAsset": quote,
        "baseAssetPrecision": 8, "quotePrecision": 8, "isSpotTradingAllowed": True,
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}], "permissions": ["SPOT"],
    }  # fmt: skip
