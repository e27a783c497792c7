"""Trades of an exchange in the order of their ids, each once, in whatever order they come in.

Input: trades as a socket and a REST endpoint bring them, again, late, in another order. Output:
each trade once; which ids are missing; which of them nobody has any more. It asks nobody and reads
no clock.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sysquant.feeds.decode import LAST_MS, MILLISECOND
from sysquant.types import Ticks

_BEFORE = 1_000  # ids below the first one seen that may still be new: the first two may be swapped


class Trade(NamedTuple):
    """One trade as its exchange tells it.

    Parameters
    ----------
    symbol : index into the universe.
    id : counts the trades of the symbol; -1 where the exchange does not.
    ts : when it happened, ns UTC.
    price, volume : quote currency, units.
    received_at : when we saw it, ns UTC.
    """

    symbol: int
    id: int
    ts: int
    price: float
    volume: float
    received_at: int

    @property
    def is_meant(self) -> bool:
        """Whether it can be a trade: a positive price, a volume, a time."""
        is_tick = 0 < self.price < math.inf and 0 <= self.volume < math.inf
        return is_tick and 0 < self.ts <= LAST_MS * MILLISECOND


def ticks_of(trades: Sequence[Trade]) -> Ticks:
    """Columns of trades, in their order; partition is the symbol, offset the id."""
    if not trades:
        return Ticks.empty()
    symbol, number, ts, price, volume, received_at = map(list, zip(*trades, strict=True))
    return Ticks(
        ts=np.array(ts, np.int64), symbol=np.array(symbol, np.int32), price=np.array(price),
        volume=np.array(volume), received_at=np.array(received_at, np.int64),
        partition=np.array(symbol, np.int32), offset=np.array(number, np.int64),
    )  # fmt: skip


class Missing(NamedTuple):
    """Ids of one symbol that did not come, first and last included."""

    symbol: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """How many."""
        return self.last - self.first + 1

    def within(self, other: "Missing") -> "Missing | None":
        """What both name; None for nothing."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Missing(self.symbol, first, last) if first <= last else None

    def without(self, first: int, last: int) -> "list[Missing]":
        """What is left of it without these ids, both included: none, one or two parts."""
        before = self._replace(last=min(self.last, first - 1))
        after = self._replace(first=max(self.first, last + 1))
        return [part for part in (before, after) if part.first <= part.last]


class Order:
    """Puts the trades of one symbol into their order.

    A trade whose predecessors are missing is held back until each of them was missed for `hold_s`:
    most come soon, over the socket or from REST. Then it goes on without them, and they may follow,
    out of order, until `give_up_s` have passed.

    Parameters
    ----------
    symbol : index into the universe.
    next_id : the first id that is wanted; None: whatever comes first.
    hold_s, give_up_s : since the gap was seen.
    most_held : trades held back; with more of them it goes on, whatever is missing.
    """

    def __init__(
        self, symbol: int, next_id: int | None = None, *, hold_s: float = 2.0,
        give_up_s: float = 120.0, most_held: int = 100_000,
    ) -> None:  # fmt: skip
        self.symbol, self.next_id = symbol, next_id
        self.duplicates = 0
        self._hold_s, self._give_up_s, self._most_held = hold_s, give_up_s, most_held
        self._held: dict[int, Trade] = {}
        self._known: dict[int, float] = {}  # id after the next one -> since when it is known
        self._passed: list[tuple[Missing, float]] = []  # gone on without, and since when missed
        self._absent: list[Missing] = []  # at or after the next one, and nowhere
        self._last = -1  # is known to exist
        self._before = range(0)  # ids that may come, and that nobody misses

    def take(self, trades: Iterable[Trade], now: float) -> list[Trade]:
        """Those that may be published now, in order; `now` is monotonic, s."""
        late = [trade for trade in trades if self._is_late(trade, now)]
        return late + self._released()

    def expect(self, last: int, now: float) -> None:
        """Say that ids up to this one exist: a heartbeat tells so before the next trade does."""
        if self.next_id is not None and last > self._last:
            self._last = self._know(last, now)

    def want(self, gaps: Iterable[Missing], now: float) -> None:
        """Take ids that lie before the next one as missing, too."""
        self._passed += [(gap, now) for gap in gaps]

    def tend(self, now: float) -> tuple[list[Trade], list[Missing]]:
        """Trades that waited long enough for those before them; ids that are given up now."""
        is_full = len(self._held) > self._most_held
        found = self._gone_on(math.inf if is_full else now - self._hold_s)
        lost = [gap for gap, since in self._passed if now - since >= self._give_up_s]
        self._passed = [one for one in self._passed if now - one[1] < self._give_up_s]
        return found, lost

    def let_go(self) -> list[Trade]:
        """Trades that still waited, at the end."""
        return self._gone_on(math.inf)

    def _gone_on(self, until: float) -> list[Trade]:
        # Without what is missed since then, or longer.
        found = list[Trade]()
        for gap in self._gaps() if self._known else ():
            since = self._since(gap)
            if since > until:
                break
            self._passed.append((gap, since))
            self.next_id = gap.last + 1
            found += self._released()
        return found

    def missing(self) -> list[Missing]:
        """Ids that are wanted and did not come."""
        return [gap for gap, _ in self._passed] + self._gaps()

    def give_up(self, gap: Missing) -> tuple[list[Trade], list[Missing]]:
        """Nobody has what is left of these ids: trades that waited for them, and those ids."""
        lost = [one for one in map(gap.within, self.missing()) if one]
        for one in lost:
            if self.next_id is not None and one.first >= self.next_id:
                self._absent.append(one)
            else:
                self._passed = [
                    (part, since)
                    for was, since in self._passed
                    for part in was.without(one.first, one.last)
                ]
        return self._released(), lost

    def _is_late(self, trade: Trade, now: float) -> bool:
        # Whether it is one that was gone on without; what is early is held.
        if self.next_id is None:
            self.next_id = trade.id
            self._before = range(trade.id - _BEFORE, trade.id)
        if self._is_early(trade.id):
            self._held[trade.id] = trade
            self._last = max(self._last, self._know(trade.id, now))
            return False
        for place, (gap, since) in enumerate(self._passed):
            if gap.first <= trade.id <= gap.last:
                rest = gap.without(trade.id, trade.id)
                self._passed[place : place + 1] = [(part, since) for part in rest]
                return True
        if trade.id in self._before:
            self._before = range(trade.id + 1, self._before.stop)
            return True
        self.duplicates += 1
        return False

    def _is_early(self, number: int) -> bool:
        if self.next_id is None or number < self.next_id or number in self._held:
            return False
        return not any(one.first <= number <= one.last for one in self._absent)

    def _know(self, number: int, now: float) -> int:
        self._known.setdefault(number, now)
        return number

    def _since(self, gap: Missing) -> float:
        # It is missed since something at or after its start was known; they are in order of time.
        return next(at for number, at in self._known.items() if number >= gap.first)

    def _released(self) -> list[Trade]:
        found = list[Trade]()
        while self.next_id is not None:
            if self.next_id in self._held:
                found.append(self._held.pop(self.next_id))
                self._known.pop(self.next_id, None)
                self.next_id += 1
            elif past := [one.last for one in self._absent if one.first <= self.next_id]:
                self.next_id = max(self.next_id, max(past) + 1)
                self._absent = [one for one in self._absent if one.last >= self.next_id]
            else:
                break
        if self.next_id is not None and self._last < self.next_id:
            self._known.clear()
        return found

    def _gaps(self) -> list[Missing]:
        # Between the next one and the last, without what was given up.
        gaps, wanted = list[Missing](), self.next_id or 0
        there = [(number, number) for number in self._held]
        there += [(one.first, one.last) for one in self._absent]
        for first, end in sorted([*there, (self._last + 1, self._last + 1)]):
            if first > wanted:
                gaps.append(Missing(self.symbol, wanted, first - 1))
            wanted = max(wanted, end + 1)
        return gaps
