"""Binance spot: the combined trade streams, and `historicalTrades`.

Source: Binance, "WebSocket Streams" and "Market data endpoints" of the spot API. Trade ids of a
symbol have no gaps; a connection is cut after 24 hours.
"""

from collections.abc import Mapping, Sequence

import msgspec
import urllib3

from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.sequence import Missing, Trade
from sysquant.feeds.venues.venue import PAGE, Heard, asked, check_rest, names_of, number
from sysquant.types import Instrument


class _Trade(msgspec.Struct, gc=False):
    e: str = ""
    s: str = ""
    t: int = -1
    p: str = ""
    q: str = ""
    T: int = 0


class _Frame(msgspec.Struct, gc=False):
    data: _Trade | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


class _Past(msgspec.Struct, gc=False):
    id: int
    price: str
    qty: str
    time: int


class Binance:
    """Trades of `BINANCE:...` symbols.

    Parameters
    ----------
    url, rest : addresses; both are of endpoints that bring market data alone, without a key.
    """

    name = "binance"
    counts = True

    def __init__(
        self,
        *,
        url: str = "wss://data-stream.binance.vision",
        rest: str = "https://data-api.binance.vision",
    ) -> None:
        check_rest(rest)
        self.symbols: Mapping[str, int] = {}
        self._names: Mapping[int, str] = {}
        self.url, self._rest = url, rest
        self._frame = msgspec.json.Decoder(_Frame).decode
        self._page = msgspec.json.Decoder(list[_Past]).decode

    def want(self, universe: Sequence[Instrument]) -> None:
        """Want the trades of a universe; symbols with another prefix are left out."""
        self.symbols = names_of(universe, "BINANCE:")
        self._names = {index: name for name, index in self.symbols.items()}
        streams = "/".join(f"{name.lower()}@trade" for name in self.symbols)
        self.url = f"{self.url}/stream?streams={streams}"

    def greeting(self) -> Sequence[str]:
        """Nothing: the address says it all."""
        return ()

    def read(self, frame: str | bytes, received_at: int) -> Heard:
        """What a frame says; never raises."""
        try:
            found = self._frame(frame)
            if bytes(found.error):
                return Heard(complaint=bytes(found.error).decode())
            one = found.data
            if one is None or one.e != "trade" or one.s not in self.symbols:
                return Heard()
            at = self.symbols[one.s], one.t, one.T * MILLISECOND
            return Heard((Trade(*at, float(one.p), float(one.q), received_at),))
        except (msgspec.MsgspecError, ValueError) as error:
            return Heard(complaint=f"unreadable frame: {error}")

    def ask(self, http: urllib3.PoolManager, gap: Missing) -> tuple[list[Trade], Missing | None]:
        """Trades of a gap from its start, and what of it is still to be asked for."""
        fields = {
            "symbol": self._names[gap.symbol], "fromId": str(gap.first),
            "limit": str(min(PAGE, gap.size)),
        }  # fmt: skip
        page = asked(http, f"{self._rest}/api/v3/historicalTrades", fields, self._page)
        found = [
            Trade(gap.symbol, one.id, one.time * MILLISECOND, number(one.price), number(one.qty), 0)
            for one in page
            if gap.first <= one.id <= gap.last
        ]
        last = max((one.id for one in found), default=gap.last)
        return found, gap._replace(first=last + 1) if last < gap.last else None
