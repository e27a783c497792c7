"""Finnhub: its trade stream. Trades have no ids, and what was missed cannot be asked for.

Source: Finnhub, "Trades - Last Price Updates". The token comes from the environment.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec
import urllib3

from sysquant.errors import ConfigError
from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.sequence import Missing, Trade
from sysquant.feeds.venues.venue import Heard
from sysquant.types import Instrument


class _Trade(msgspec.Struct, gc=False):
    s: str
    p: float
    t: int
    v: float


class _Frame(msgspec.Struct, gc=False):
    type: str = ""
    data: list[msgspec.Raw] = []
    msg: str = ""


class Finnhub:
    """Trades of every symbol of the universe, under its own name.

    Parameters
    ----------
    token : of the account.
    url : address.

    Raises
    ------
    ConfigError
        If there is no token.
    """

    name = "finnhub"
    counts = False

    def __init__(self, *, token: str, url: str = "wss://ws.finnhub.io") -> None:
        if not token:
            raise ConfigError("source=finnhub needs a token: set FINNHUB_TOKEN in the environment")
        self.symbols: Mapping[str, int] = {}
        self.url = f"{url}?token={quote(token, safe='')}"
        self._frame = msgspec.json.Decoder(_Frame).decode
        self._trade = msgspec.json.Decoder(_Trade).decode

    def want(self, universe: Sequence[Instrument]) -> None:
        """Want the trades of a universe, e.g. of `BINANCE:BTCUSDT`, `AAPL`."""
        self.symbols = {one.symbol: index for index, one in enumerate(universe)}

    def greeting(self) -> Sequence[str]:
        """A subscription for each symbol."""
        return [
            msgspec.json.encode({"type": "subscribe", "symbol": symbol}).decode()
            for symbol in self.symbols
        ]

    def read(self, frame: str | bytes, received_at: int) -> Heard:
        """What a frame says; never raises."""
        trades, complaint = list[Trade](), ""
        try:
            found = self._frame(frame)
            if found.type == "error":
                complaint = found.msg
            for raw in found.data:
                try:
                    one = self._trade(raw)
                except msgspec.MsgspecError as error:  # the others of the frame are trades
                    complaint = f"unreadable trade: {error}"
                    continue
                if one.s in self.symbols:
                    at = self.symbols[one.s], -1, one.t * MILLISECOND
                    trades.append(Trade(*at, one.p, one.v, received_at))
        except msgspec.MsgspecError as error:
            complaint = f"unreadable frame: {error}"
        return Heard(trades, complaint=complaint)

    def ask(self, http: urllib3.PoolManager, gap: Missing) -> tuple[list[Trade], Missing | None]:
        """Nothing: it has no past."""
        return [], None
