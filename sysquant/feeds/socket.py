"""Trades of an exchange, live over its WebSocket, as a feed; what was missed comes from REST.

Input: a venue. Output: each trade once, in the order of its id where that is possible; partition is
the symbol, offset the trade's id. A thread of its own reads the socket and connects again, with a
growing, random wait, whatever happens to it: the feed never ends by itself.
"""

import logging
import math
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import urllib3
from tenacity import Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from sysquant.errors import FeedError
from sysquant.feeds.marks import Published
from sysquant.feeds.sequence import Missing, Order, Trade, ticks_of
from sysquant.feeds.venues.venue import Venue, check_socket
from sysquant.keys import check_number
from sysquant.types import SECOND, Instrument, Poll, Ticks

log = logging.getLogger(__name__)

_LOST = (WebSocketException, OSError, ValueError)  # time-outs are of the second
_TURN_S = 0.25
_MOST = 50_000  # frames of a poll
_ASK_AFTER_S = 0.2  # most that is missing is on its way
_PAGE_S = 0.05  # between two askings
_FAR = 10_000_000  # between two ids of a symbol
_MOST_ID = 1 << 62
_ANEW_NS = 60 * SECOND
_REMEMBERED = 1_000  # gaps of a symbol
_SOUND = 10  # frames after which a connection counts as one, and the next comes without a wait


Ids = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(slots=True)
class Counters:
    """What happened so far."""

    trades: int = 0  # handed on
    filled: int = 0  # of them, from REST
    duplicates: int = 0  # trades that had come before
    lost: int = 0  # ids that nobody had
    bad: int = 0  # frames that could not be read, trades that cannot be meant
    connections: int = 0


_Frame = tuple[str | bytes, int]  # and when it came, ns UTC


@dataclass(frozen=True, slots=True)
class _Answer:
    # Of REST, about one symbol.
    order: Order
    trades: list[Trade]
    is_last: bool


class SocketFeed:
    """A venue's trades.

    Parameters
    ----------
    universe : of which the venue's trades are wanted.
    venue : which.
    silent_s : without a frame for so long, the socket is taken for dead.
    hold_s : how long trades wait for missing ones before them.
    give_up_s : after which missing ones are given up, and recorded.
    retry_s : between two askings for the same.
    most_filled : missing trades of a symbol that are asked for; of more, the last so many.

    Attributes
    ----------
    counters : what happened so far.
    gaps : what was given up since the last poll, a line each.
    given_up : venue's name of a symbol -> the last ids that were, first and last included.
    counts : whether trades have ids.
    """

    kind: Literal["ticks", "bars"] = "ticks"
    interval = 0

    def __init__(
        self,
        *,
        universe: Sequence[Instrument],
        venue: Venue,
        silent_s: float = 30.0,
        hold_s: float = 2.0,
        give_up_s: float = 120.0,
        retry_s: float = 5.0,
        most_filled: int = 100_000,
    ) -> None:
        check_number("most_filled", most_filled, least=1, whole=True)
        for name, value in (("silent_s", silent_s), ("hold_s", hold_s), ("retry_s", retry_s)):
            check_number(name, value, least=0, most=86_400)
        check_number("give_up_s", give_up_s, least=0, most=7 * 86_400)
        venue.want(universe)
        check_socket(venue.url)
        self.name, self.counts = venue.name, venue.counts
        self.counters = Counters()
        self.gaps: list[str] = []
        self.given_up: dict[str, list[tuple[int, int]]] = {}
        self._venue = venue
        self._silent_s, self._retry_s, self._most_filled = silent_s, retry_s, most_filled
        self._symbols = {index: name for name, index in venue.symbols.items()}
        self._order_of = partial(Order, hold_s=hold_s, give_up_s=give_up_s)
        self._sequences = {index: self._order_of(index) for index in self._symbols}
        self._far: dict[int, int] = {}  # symbol -> an id far beyond the others
        self._back: dict[int, int] = {}  # symbol -> a lower id of a newer trade
        self._newest: dict[int, int] = {}  # symbol -> time of its newest trade, ns
        self._heard_of = set[int]()
        self._ask_at: dict[int, float] = {}  # symbol -> when to ask; infinite while it is asked
        self._http = urllib3.PoolManager()
        self._came: queue.SimpleQueue[_Frame | _Answer | str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._is_connected = False
        self._thread: threading.Thread | None = None

    @property
    def symbols(self) -> list[int]:
        """Indexes of what the venue brings."""
        return list(self._symbols)

    @property
    def unheard(self) -> list[str]:
        """The venue's names of what brought no trade so far."""
        return [name for index, name in self._symbols.items() if index not in self._heard_of]

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Want trades from these ids on (symbol -> id); of others, from the first that comes."""
        for symbol, number in next_offset.items():
            if symbol in self._sequences:
                self._sequences[symbol].next_id = number

    def go_on(
        self, published: Mapping[int, Published], given_up: Ids, left: Ids = MappingProxyType({})
    ) -> None:
        """Go on where a topic stands, with what it lacks before and was not given up.

        Parameters
        ----------
        published : of the topic.
        given_up, left : venue's name of a symbol -> ids that were, and that were still missing at
            an orderly end, first and last included.
        """
        self.given_up = {name: list(given_up.get(name, ())) for name in self._symbols.values()}
        self.seek({symbol: one.next_id for symbol, one in published.items()})
        for symbol, one in published.items():
            if symbol in self._sequences:
                self._newest[symbol] = one.newest
                name = self._symbols[symbol]
                wanted = one.wanted(symbol, self.given_up[name], left.get(name, ()))
                self._sequences[symbol].want(wanted, time.monotonic())

    def poll(self, timeout_s: float) -> Poll:
        """Trades that came, waiting at most `timeout_s` for the first frame."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._receive, name="socket", daemon=True)
            self._thread.start()
        self.gaps.clear()
        found = self._drained(timeout_s)
        now = time.monotonic()
        for one in self._sequences.values():
            released, lost = one.tend(now)
            found += released
            self._lose(lost)
        found += self._ask_for_missing(now)
        good = [trade for trade in found if trade.is_meant]
        self.counters.bad += len(found) - len(good)
        self.counters.trades += len(good)
        self._heard_of.update(trade.symbol for trade in good)
        for trade in good:
            self._newest[trade.symbol] = max(self._newest.get(trade.symbol, 0), trade.ts)
        self.counters.duplicates = sum(one.duplicates for one in self._sequences.values())
        return Poll(ticks_of(good), next_offset=self._next(), is_connected=self._is_connected)

    def rest(self) -> tuple[Ticks, dict[str, list[tuple[int, int]]]]:
        """Trades that still wait for others before them, and ids that are missing, at the end."""
        found = [trade for one in self._sequences.values() for trade in one.let_go()]
        good = [trade for trade in found if trade.is_meant]
        self.counters.trades += len(good)
        missing = {
            self._symbols[symbol]: [(gap.first, gap.last) for gap in one.missing()]
            for symbol, one in self._sequences.items()
        }
        return ticks_of(good), {name: ids for name, ids in missing.items() if ids}

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Nothing to tell anyone."""

    def close(self) -> None:
        """Let go of the socket."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    # -- what came

    def _drained(self, timeout_s: float) -> list[Trade]:
        found, wait = list[Trade](), timeout_s
        for _ in range(_MOST):
            try:
                came = self._came.get(timeout=wait) if wait > 0 else self._came.get_nowait()
            except queue.Empty:
                break
            wait = 0.0
            if isinstance(came, _Answer):
                found += self._answered(came)
            elif isinstance(came, str):
                self.gaps.append(came)
            else:
                found += self._heard(*came)
        return found

    def _heard(self, frame: str | bytes, received_at: int) -> list[Trade]:
        heard, now, found = self._venue.read(frame, received_at), time.monotonic(), list[Trade]()
        if heard.complaint:
            self.counters.bad += 1
            log.warning("%s says: %s", self.name, heard.complaint[:300])
        for trade in heard.trades:
            if not self.counts:
                found.append(trade)
            elif self._is_near(trade.symbol, trade.id) and not self._has_gone_back(trade):
                found += self._sequences[trade.symbol].take((trade,), now)
            else:
                self.counters.bad += 1
        for symbol, last in heard.last_ids.items():
            if self._is_near(symbol, last):
                self._sequences[symbol].expect(last, now)
        return found

    def _is_near(self, symbol: int, number: int) -> bool:
        # One id that is far from all before it is an error; two of them are the venue's word.
        next_id, far = self._sequences[symbol].next_id, self._far.pop(symbol, None)
        if not 0 <= number < _MOST_ID:
            return False
        if next_id is None or number - next_id < _FAR or (far and abs(number - far) < _FAR):
            return True
        self._far[symbol] = number
        return False

    def _has_gone_back(self, trade: Trade) -> bool:
        # Newer trades of lower ids: the venue began to count anew, and so do we, with the second.
        order = self._sequences[trade.symbol]
        newest = self._newest.get(trade.symbol, 0)
        if trade.id >= (order.next_id or 0) or not 0 < newest < trade.ts - _ANEW_NS:
            self._back.pop(trade.symbol, None)
            return False
        before, self._back[trade.symbol] = self._back.get(trade.symbol), trade.id
        if before is None or not 0 < trade.id - before < _FAR:
            return True
        name = self._symbols[trade.symbol]
        self._tell(f"{name}: ids went back from {order.next_id} to {trade.id}; others are unknown")
        anew = self._sequences[trade.symbol] = self._order_of(trade.symbol)
        anew.duplicates = order.duplicates
        return False

    def _answered(self, answer: _Answer) -> list[Trade]:
        order, now, found = answer.order, time.monotonic(), list[Trade]()
        before = order.duplicates
        if order is self._sequences[order.symbol]:  # else its ids count no more
            found = order.take(answer.trades, now)
            self.counters.filled += len(answer.trades) - (order.duplicates - before)
        if answer.is_last:
            self._ask_at[order.symbol] = now + self._retry_s
        return found

    def _next(self) -> dict[int, int]:
        known = self._sequences.items()
        return {symbol: one.next_id for symbol, one in known if one.next_id is not None}

    # -- what did not come

    def _ask_for_missing(self, now: float) -> list[Trade]:
        # What is too long ago is not asked for: trades that waited for it alone go on.
        found = list[Trade]()
        for symbol, sequence in self._sequences.items():
            missing = sequence.missing()
            if not missing:
                if self._ask_at.get(symbol, 0.0) < math.inf:
                    self._ask_at.pop(symbol, None)
            elif symbol not in self._ask_at:
                self._ask_at[symbol] = now + _ASK_AFTER_S
            elif now >= self._ask_at[symbol]:
                self._ask_at[symbol] = math.inf
                for gap in missing:
                    found += self._shorten(sequence, gap)
                asked = sequence, sequence.missing()
                threading.Thread(target=self._ask, args=asked, daemon=True).start()
        return found

    def _shorten(self, sequence: Order, gap: Missing) -> list[Trade]:
        if gap.size <= self._most_filled:
            return []
        found, lost = sequence.give_up(gap._replace(last=gap.last - self._most_filled))
        self._lose(lost)
        return found

    def _ask(self, order: Order, gaps: list[Missing]) -> None:
        try:
            for gap in gaps:
                rest: Missing | None = gap
                while rest is not None and not self._stop.is_set():
                    trades, rest = self._venue.ask(self._http, rest)
                    at = time.time_ns()
                    trades = [trade._replace(received_at=at) for trade in trades]
                    self._came.put(_Answer(order, trades, is_last=False))
                    self._stop.wait(_PAGE_S)
        except (FeedError, ValueError) as error:
            log.warning("missing trades of %s: %s", self._symbols[order.symbol], error)
        finally:
            self._came.put(_Answer(order, [], is_last=True))

    def _lose(self, lost: list[Missing]) -> None:
        for gap in lost:
            name = self._symbols[gap.symbol]
            self.counters.lost += gap.size
            known = self.given_up.setdefault(name, [])
            self.given_up[name] = [*known, (gap.first, gap.last)][-_REMEMBERED:]
            self._tell(f"{name}: trades {gap.first} to {gap.last} are lost")

    def _tell(self, text: str) -> None:
        log.warning("gap %s", text)
        self.gaps.append(text)

    # -- the socket, in its own thread

    def _receive(self) -> None:
        while not self._stop.is_set():
            policy = Retrying(
                retry=retry_if_exception_type(_LOST),
                wait=wait_random_exponential(multiplier=0.5, max=30.0),
                sleep=sleep_using_event(self._stop),
                stop=stop_when_event_set(self._stop),
                before_sleep=self._tell_lost,
                retry_error_callback=lambda state: None,
            )
            policy(self._connect)
            self._stop.wait(random.uniform(0.0, 0.5))  # not all clients at once

    def _connect(self) -> None:
        # Ends quietly when a connection that had brought enough is over.
        frames, since = 0, time.time_ns()
        try:
            with connect(self._venue.url, open_timeout=10, close_timeout=0.5) as socket:
                self.counters.connections += 1
                for word in self._venue.greeting():
                    socket.send(word)
                for frame in self._frames(socket):
                    self._came.put((frame, time.time_ns()))
                    frames, self._is_connected = frames + 1, True
        except _LOST as error:
            self._is_connected = False
            if frames and not self.counts:
                lived_s = (time.time_ns() - since) / 1e9
                self._came.put(f"{self.name}: unknown trades after a connection of {lived_s:.0f} s")
            if frames < _SOUND:
                raise
            log.warning("%s was lost (%s); connecting again", self.name, _plain(error))

    def _frames(self, socket: ClientConnection) -> Iterator[str | bytes]:
        heard_at = time.monotonic()
        while not self._stop.is_set():
            try:
                yield socket.recv(timeout=_TURN_S)
                heard_at = time.monotonic()
            except TimeoutError:
                if time.monotonic() - heard_at >= self._silent_s:
                    raise TimeoutError(f"silent for {self._silent_s:.0f} s") from None

    def _tell_lost(self, state: object) -> None:
        error = state.outcome.exception()  # pyright: ignore
        log.warning("%s cannot be reached (%s)", self.name, _plain(error))


def _plain(error: BaseException) -> str:
    # Without the address, which may hold a token.
    return type(error).__name__ if isinstance(error, WebSocketException) else str(error)
