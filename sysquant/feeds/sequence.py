"""Trades of an exchange in the order of their ids, each once, in whatever order they come in.

Input: trades as a socket and a REST endpoint bring them, again, late, in another order. Output:
each trade once; which ids are missing; which of them nobody has any more. It asks nobody and reads
no clock.
"""

from collections.abc import Iterable
from typing import NamedTuple

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


class Order:
    """Puts the trades of one symbol into their order.

    A trade whose predecessors are missing is held back for `hold_s`: most of them come soon, over
    the socket or from REST. Then it goes on without them, and they may follow, out of order, until
    `give_up_s` have passed.

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
        self._blocked_at: float | None = None  # since when ids after the next one are known
        self._passed: list[tuple[int, int, float]] = []  # first, last, since: gone on without them
        self._absent: list[Missing] = []  # at or after the next one, and nowhere
        self._last = -1  # is known to exist
        self._before = range(0)  # ids that may come, and that nobody misses

    def take(self, trades: Iterable[Trade], now: float) -> list[Trade]:
        """Those that may be published now, in order; `now` is monotonic, s."""
        late = [trade for trade in trades if self._is_late(trade)]
        return late + self._released(now)

    def expect(self, last: int, now: float) -> None:
        """Say that ids up to this one exist: a heartbeat tells so before the next trade does."""
        if self.next_id is not None:
            self._last = max(self._last, last)
            self._note_blocked(now)

    def want(self, gaps: Iterable[Missing], now: float) -> None:
        """Take ids that lie before the next one as missing, too."""
        self._passed += [(gap.first, gap.last, now) for gap in gaps]

    def tend(self, now: float) -> tuple[list[Trade], list[Missing]]:
        """Trades that waited long enough for those before them; ids that are given up now."""
        found, since = list[Trade](), self._blocked_at
        is_full = len(self._held) > self._most_held
        if since is not None and (is_full or now - since >= self._hold_s):
            self._passed += [(one.first, one.last, since) for one in self._gaps()]
            found = [self._held[number] for number in sorted(self._held)]
            self.next_id = self._last + 1
            self._held.clear()
            self._absent.clear()
            self._blocked_at = None
        lost = [one for one in self._passed if now - one[2] >= self._give_up_s]
        self._passed = [one for one in self._passed if now - one[2] < self._give_up_s]
        return found, [Missing(self.symbol, first, last) for first, last, _ in lost]

    def missing(self) -> list[Missing]:
        """Ids that are wanted and did not come."""
        passed = [Missing(self.symbol, first, last) for first, last, _ in self._passed]
        return passed + self._gaps()

    def give_up(self, gap: Missing, now: float) -> tuple[list[Trade], list[Missing]]:
        """Nobody has what is left of these ids: trades that waited for them, and those ids."""
        lost = [one for one in map(gap.within, self.missing()) if one]
        for one in lost:
            if self.next_id is not None and one.first >= self.next_id:
                self._absent.append(one)
            else:
                self._passed = [
                    (first, last, since)
                    for was in self._passed
                    for first, last, since in _without(was, one.first, one.last)
                ]
        return self._released(now), lost

    def _is_late(self, trade: Trade) -> bool:
        # Whether it is one that was gone on without; what is early is held.
        if self.next_id is None:
            self.next_id = trade.id
            self._before = range(trade.id - _BEFORE, trade.id)
        if self._is_early(trade.id):
            self._held[trade.id] = trade
            self._last = max(self._last, trade.id)
            return False
        for place, was in enumerate(self._passed):
            if was[0] <= trade.id <= was[1]:
                self._passed[place : place + 1] = _without(was, trade.id, trade.id)
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

    def _note_blocked(self, now: float) -> None:
        if self.next_id is None or self._last < self.next_id:
            self._blocked_at = None
        elif self._blocked_at is None:
            self._blocked_at = now

    def _released(self, now: float) -> list[Trade]:
        found = list[Trade]()
        while self.next_id is not None:
            if self.next_id in self._held:
                found.append(self._held.pop(self.next_id))
                self.next_id += 1
            elif past := [one.last for one in self._absent if one.first <= self.next_id]:
                self.next_id = max(self.next_id, max(past) + 1)
                self._absent = [one for one in self._absent if one.last >= self.next_id]
            else:
                break
        self._note_blocked(now)
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


def _without(was: tuple[int, int, float], first: int, last: int) -> list[tuple[int, int, float]]:
    # What is left of a range.
    parts = (was[0], min(was[1], first - 1), was[2]), (max(was[0], last + 1), was[1], was[2])
    return [part for part in parts if part[0] <= part[1]]
