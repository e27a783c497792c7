"""Coinbase Exchange: the `matches` and `heartbeat` channels, and a product's `trades`.

Source: Coinbase, "Exchange WebSocket Channels", "Get product trades" and "REST pagination". Trade
ids of a product have no gaps; a heartbeat a second names the last one.
"""

from collections.abc import Mapping, Sequence

import msgspec
import urllib3

from sysquant.feeds.decode import MALFORMED, MILLISECOND, parse_iso
from sysquant.feeds.sequence import Missing, Trade
from sysquant.feeds.venues.venue import PAGE, Heard, asked, check_rest, names_of
from sysquant.types import Instrument


class _Frame(msgspec.Struct, gc=False):
    type: str = ""
    product_id: str = ""
    trade_id: int = -1
    last_trade_id: int = 0
    price: str = ""
    size: str = ""
    time: str = ""
    message: str = ""
    reason: str = ""


class _Past(msgspec.Struct, gc=False):
    trade_id: int
    price: str
    size: str
    time: str


class Coinbase:
    """Trades of `COINBASE:...` symbols, e.g. `COINBASE:BTC-USD`.

    Parameters
    ----------
    url, rest : addresses.
    """

    name = "coinbase"
    counts = True

    def __init__(
        self,
        *,
        url: str = "wss://ws-feed.exchange.coinbase.com",
        rest: str = "https://api.exchange.coinbase.com",
    ) -> None:
        check_rest(rest)
        self.symbols: Mapping[str, int] = {}
        self._names: Mapping[int, str] = {}
        self.url, self._rest = url, rest
        self._frame = msgspec.json.Decoder(_Frame).decode
        self._page = msgspec.json.Decoder(list[_Past]).decode

    def want(self, universe: Sequence[Instrument]) -> None:
        """Want the trades of a universe; symbols with another prefix are left out."""
        self.symbols = names_of(universe, "COINBASE:")
        self._names = {index: name for name, index in self.symbols.items()}

    def greeting(self) -> Sequence[str]:
        """The subscription."""
        said = {
            "type": "subscribe", "product_ids": list(self.symbols),
            "channels": ["matches", "heartbeat"],
        }  # fmt: skip
        return (msgspec.json.encode(said).decode(),)

    def read(self, frame: str | bytes, received_at: int) -> Heard:
        """What a frame says; never raises."""
        try:
            found = self._frame(frame)
            if found.type == "error":
                return Heard(complaint=f"{found.message} {found.reason}".strip())
            symbol = self.symbols.get(found.product_id)
            if symbol is None:
                return Heard()
            if found.type == "heartbeat":
                return Heard(last_ids={symbol: found.last_trade_id})
            if found.type not in ("match", "last_match"):
                return Heard()
            return Heard((_trade(symbol, found, received_at),))
        except (msgspec.MsgspecError, ValueError) as error:
            return Heard(complaint=f"unreadable frame: {error}")

    def ask(self, http: urllib3.PoolManager, gap: Missing) -> tuple[list[Trade], Missing | None]:
        """Trades of a gap from its end, and what of it is still to be asked for."""
        fields = {"after": str(gap.last + 1), "limit": str(min(PAGE, gap.size))}
        url = f"{self._rest}/products/{self._names[gap.symbol]}/trades"
        page = asked(http, url, fields, self._page)
        found = [
            _trade(gap.symbol, one, 0) for one in page if gap.first <= one.trade_id <= gap.last
        ]
        found.reverse()  # the newest came first
        first = min((one.id for one in found), default=gap.first)
        return found, gap._replace(last=first - 1) if first > gap.first else None


def _trade(symbol: int, said: "_Frame | _Past", received_at: int) -> Trade:
    ts = int(parse_iso([said.time])[0])
    if ts == MALFORMED:
        raise ValueError(f"time was {said.time[:80]!r}")
    ts = ts // MILLISECOND * MILLISECOND  # all the topic can hold
    return Trade(symbol, said.trade_id, ts, float(said.price), float(said.size), received_at)
