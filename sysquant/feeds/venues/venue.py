"""What every venue is to `SocketFeed`, and what venues share."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import urllib3
from urllib3.util import Retry
from websockets.exceptions import WebSocketException
from websockets.uri import parse_uri

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.sequence import Missing, Trade
from sysquant.types import Instrument

PAGE = 1_000  # trades of one answer
_ASKING_S = 5.0
_MOST_WAIT_S = 30  # that a server may ask for
_MOST_BYTES = 4 << 20  # of an answer
_FORMS = {
    "BINANCE:": (re.compile(r"[^a-z\W_]+"), "BTCUSDT"),
    "COINBASE:": (re.compile(r"[^a-z\W_]+-[^a-z\W_]+"), "BTC-USD"),
}
BUSY = (418, 429, 500, 502, 503, 504)  # answers of a server that may be asked again


@dataclass(frozen=True, slots=True)
class Heard:
    """What a frame said.

    Parameters
    ----------
    trades : in their order.
    last_ids : symbol -> id of its last trade, as a heartbeat tells it.
    complaint : the venue's, or what could not be read; empty for none.
    """

    trades: Sequence[Trade] = ()
    last_ids: Mapping[int, int] = field(default_factory=dict)
    complaint: str = ""


class Venue(Protocol):
    """One exchange."""

    name: str
    url: str  # of the socket; may hold a token: never shown
    counts: bool  # whether its trades have ids without gaps
    symbols: Mapping[str, int]  # its own name -> index into the universe

    def want(self, universe: Sequence[Instrument]) -> None:
        """Want the trades of a universe; said once, before anything else.

        Raises
        ------
        ConfigError
            If it knows none of them.
        """
        ...

    def greeting(self) -> Sequence[str]:
        """What to say once connected."""
        ...

    def read(self, frame: str | bytes, received_at: int) -> Heard:
        """What a frame says; never raises."""
        ...

    def ask(self, http: urllib3.PoolManager, gap: Missing) -> tuple[list[Trade], Missing | None]:
        """Trades of a gap, at most a page, and what of it is still to be asked for.

        Raises
        ------
        FeedError
            If it does not answer.
        """
        ...


def names_of(universe: Sequence[Instrument], prefix: str) -> dict[str, int]:
    """Venue's name -> index, of the instruments that begin with its prefix.

    Raises
    ------
    ConfigError
        If there is none, or one is not spelt as the venue does: it would stay silent.
    """
    form, like = _FORMS[prefix]
    found = {
        one.symbol.removeprefix(prefix): index
        for index, one in enumerate(universe)
        if one.symbol.startswith(prefix)
    }
    if not found:
        raise ConfigError(
            f"the universe has no symbol that begins with {prefix!r}; name one, as universe=crypto "
            "does for Binance"
        )
    for name in found:
        if not form.fullmatch(name):
            raise ConfigError(f"{prefix}{name} is no name of this venue; one is {prefix}{like}")
    return found


def check_socket(url: str) -> None:
    """Refuse what is no address of a WebSocket; it is not shown: it may hold a token.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        parse_uri(url)
    except (WebSocketException, ValueError):  # a port that is none
        raise ConfigError(
            "source.venue.url is no address of a WebSocket, like wss://stream.example.com"
        ) from None


def check_rest(url: str) -> None:
    """Refuse what is no address that can be asked.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", url):
        raise ConfigError(f"source.venue.rest must be like https://api.example.com, was {url!r}")


def number(said: str) -> float:
    """A price or volume of a page; NaN for what is none, which costs that trade alone."""
    try:
        return float(said)
    except ValueError:
        return math.nan


def asked(
    http: urllib3.PoolManager, url: str, fields: Mapping[str, str], answer: Callable[[bytes], Any]
) -> Any:
    """The decoded answer of a REST endpoint; a busy server is asked again.

    Raises
    ------
    FeedError
        If there is none, or it is another than was expected.
    """
    retry = Retry(
        total=3, backoff_factor=0.5, status_forcelist=BUSY, retry_after_max=_MOST_WAIT_S
    )  # fmt: skip
    try:
        found = http.request(
            "GET", url, fields=dict(fields), retries=retry, timeout=_ASKING_S,
            preload_content=False,
        )  # fmt: skip
        try:
            said = found.read(_MOST_BYTES + 1)
        finally:
            found.close()
        if found.status != 200 or len(said) > _MOST_BYTES:
            raise FeedError(f"{url} answered {found.status}, {len(said)} bytes: {said[:200]!r}")
        return answer(said)
    except (urllib3.exceptions.HTTPError, msgspec.MsgspecError) as error:
        raise FeedError(f"{url} does not answer as expected: {error}") from error
