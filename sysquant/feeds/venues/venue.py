"""What every venue is to `SocketFeed`, and what venues share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import urllib3
from urllib3.util import Retry

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.sequence import Missing, Trade
from sysquant.types import Instrument

PAGE = 1_000  # trades of one answer
_ASKING_S = 5.0
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
        If there is none.
    """
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
    return found


def asked(
    http: urllib3.PoolManager, url: str, fields: Mapping[str, str], answer: Callable[[bytes], Any]
) -> Any:
    """The decoded answer of a REST endpoint; a busy server is asked again.

    Raises
    ------
    FeedError
        If there is none, or it is another than was expected.
    """
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=BUSY)
    try:
        found = http.request("GET", url, fields=dict(fields), retries=retry, timeout=_ASKING_S)
        if found.status != 200:
            raise FeedError(f"{url} answered {found.status}: {found.data[:200]!r}")
        return answer(found.data)
    except (urllib3.exceptions.HTTPError, msgspec.MsgspecError) as error:
        raise FeedError(f"{url} does not answer as expected: {error}") from error
