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
from typing import Literal

import numpy as np
import urllib3
from tenacity import Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from sysquant.errors import FeedError
from sysquant.feeds.marks import Published
from sysquant.feeds.sequence import Missing, Order, Trade
from sysquant.feeds.venues.venue import Venue
from sysquant.types import Instrument, Poll, Ticks

log = logging.getLogger(__name__)

_LOST = (WebSocketException, OSError)  # and time-outs, which are of the latter
_TURN_S = 0.25
_MOST = 50_000  # frames of a poll
_ASK_AFTER_S = 0.2  # most that is missing is on its way


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
    symbol: int
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
        venue.want(universe)
        self.name, self.counts = venue.name, venue.counts
        self.counters = Counters()
        self.gaps: list[str] = []
        self._venue = venue
        self._silent_s, self._retry_s, self._most_filled = silent_s, retry_s, most_filled
        self._symbols = {index: name for name, index in venue.symbols.items()}
        self._sequences = {
            index: Order(index, hold_s=hold_s, give_up_s=give_up_s) for index in self._symbols
        }
        self._ask_at: dict[int, float] = {}  # symbol -> when to ask; infinite while it is asked
        self._http = urllib3.PoolManager()
        self._came: queue.SimpleQueue[_Frame | _Answer | str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._is_connected = False
        self._thread: threading.Thread | None = None

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Want trades from these ids on (symbol -> id); of others, from the first that comes."""
        for symbol, number in next_offset.items():
            if symbol in self._sequences:
                self._sequences[symbol].next_id = number

    def go_on(self, published: Mapping[int, Published]) -> None:
        """Go on where a topic stands, with what it lacks before."""
        self.seek({symbol: one.next_id for symbol, one in published.items()})
        for symbol, one in published.items():
            if symbol in self._sequences:
                self._sequences[symbol].want(one.missing, time.monotonic())

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
        self._ask_for_missing(now)
        good = [trade for trade in found if _is_meant(trade)]
        self.counters.bad += len(found) - len(good)
        self.counters.trades += len(good)
        self.counters.duplicates = sum(one.duplicates for one in self._sequences.values())
        return Poll(_ticks(good), next_offset=self._next(), is_connected=self._is_connected)

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
            if self.counts:
                found += self._sequences[trade.symbol].take((trade,), now)
            else:
                found.append(trade)
        for symbol, last in heard.last_ids.items():
            self._sequences[symbol].expect(last, now)
        return found

    def _answered(self, answer: _Answer) -> list[Trade]:
        sequence, now = self._sequences[answer.symbol], time.monotonic()
        before = sequence.duplicates
        found = sequence.take(answer.trades, now)
        self.counters.filled += len(answer.trades) - (sequence.duplicates - before)
        if answer.is_last:
            self._ask_at[answer.symbol] = now + self._retry_s
        return found

    def _next(self) -> dict[int, int]:
        known = self._sequences.items()
        return {symbol: one.next_id for symbol, one in known if one.next_id is not None}

    # -- what did not come

    def _ask_for_missing(self, now: float) -> None:
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
                    self._shorten(sequence, gap, now)
                threading.Thread(
                    target=self._ask, args=(symbol, sequence.missing()), daemon=True
                ).start()

    def _shorten(self, sequence: Order, gap: Missing, now: float) -> None:
        if gap.size > self._most_filled:
            too_old = gap._replace(last=gap.last - self._most_filled)
            self._lose(sequence.give_up(too_old, now)[1])

    def _ask(self, symbol: int, gaps: list[Missing]) -> None:
        try:
            for gap in gaps:
                rest: Missing | None = gap
                while rest is not None and not self._stop.is_set():
                    trades, rest = self._venue.ask(self._http, rest)
                    at = time.time_ns()
                    trades = [trade._replace(received_at=at) for trade in trades]
                    self._came.put(_Answer(symbol, trades, is_last=False))
        except FeedError as error:
            log.warning("missing trades of %s: %s", self._symbols[symbol], error)
        finally:
            self._came.put(_Answer(symbol, [], is_last=True))

    def _lose(self, lost: list[Missing]) -> None:
        for gap in lost:
            self.counters.lost += gap.size
            self._tell(f"{self._symbols[gap.symbol]}: trades {gap.first} to {gap.last} are lost")

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
        # Ends quietly when a connection that had brought something is over.
        has_heard, since = False, time.time_ns()
        try:
            with connect(self._venue.url, open_timeout=10, close_timeout=0.5) as socket:
                self.counters.connections += 1
                for word in self._venue.greeting():
                    socket.send(word)
                for frame in self._frames(socket):
                    self._came.put((frame, time.time_ns()))
                    has_heard = self._is_connected = True
        except _LOST as error:
            self._is_connected = False
            if not has_heard:
                raise
            log.warning("%s was lost (%s); connecting again", self.name, _plain(error))
        if not self.counts and not self._stop.is_set():
            self._came.put(f"{self.name}: unknown trades after a connection of "
                           f"{(time.time_ns() - since) / 1e9:.0f} s")  # fmt: skip

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


def _is_meant(trade: Trade) -> bool:
    return 0 < trade.price < math.inf and 0 <= trade.volume < math.inf and trade.ts > 0


def _ticks(trades: list[Trade]) -> Ticks:
    if not trades:
        return Ticks.empty()
    symbol, number, ts, price, volume, received_at = map(list, zip(*trades, strict=True))
    return Ticks(
        ts=np.array(ts, np.int64), symbol=np.array(symbol, np.int32), price=np.array(price),
        volume=np.array(volume), received_at=np.array(received_at, np.int64),
        partition=np.array(symbol, np.int32), offset=np.array(number, np.int64),
    )  # fmt: skip
