"""Which orders flip under another risk chain, and what becomes of P&L and drawdown.

Input: the orders of two courses over the same targets, with what their chains said, and their
equity. Output: a `Difference`: each order that one refuses or cuts and the other does not, and the
check that decides. What follows from a flip, as an order of another size, is counted apart. Nothing
is replayed here.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from sysquant import performance
from sysquant.effects import PURPOSES
from sysquant.receipts import Reviews
from sysquant.types import Floats, Ints

Turn: TypeAlias = Literal["refused", "approved", "cut"]
_Key = tuple[int, int, int, int, bool, int]


class Flip(NamedTuple):
    """An order about which two chains differ.

    Parameters
    ----------
    turn : what becomes of it under the other chain: refused, approved, or cut otherwise.
    ts : of the decision, ns UTC.
    strategy, symbol, purpose : of the order; the numbers that the engine has.
    order_no : in the session.
    asked : units that the session asked for, > 0 buys; the other book may ask for others.
    was, would : units that were approved, and would be; 0 for none.
    checks : that decide: who refuses, or the one that leaves least room.
    value, limit : of the first of them, where it decides.
    """

    turn: Turn
    ts: int
    strategy: int
    symbol: int
    purpose: int
    order_no: int
    asked: float
    was: float
    would: float
    checks: tuple[str, ...]
    value: float
    limit: float


class Side(NamedTuple):
    """One of the two courses.

    Parameters
    ----------
    reviews : of its orders.
    ts, equity : of its book, from the beginning to the end, see `whatif.Course.equity`.
    """

    reviews: Reviews
    ts: Ints
    equity: Floats

    @property
    def pnl(self) -> float:
        """Of the book, its currency."""
        return float(self.equity[-1] - self.equity[0])

    @property
    def drawdown(self) -> float:
        """Lowest of equity against its highest so far, a fraction <= 0."""
        return float(performance.drawdown(self.equity).min(initial=0.0))

    @property
    def counts(self) -> dict[str, int]:
        """Orders, those refused, those cut."""
        of = self.reviews
        return {"orders": len(of), "refused": int(of.is_refused.sum()), "cut": int(of.is_cut.sum())}


class Difference(NamedTuple):
    """What another chain changes.

    Parameters
    ----------
    was, would : the session, and what it had been.
    flips : in order of time.
    same : orders that are equal in both.
    resized : approved in both without a cut, of another size, since the books differ by then.
    gone, new : orders that only the session makes, or only the other: what follows from flips.
    """

    was: Side
    would: Side
    flips: tuple[Flip, ...]
    same: int
    resized: int
    gone: int
    new: int

    @property
    def pnl(self) -> float:
        """By which the other one's P&L is larger, the book's currency."""
        return self.would.pnl - self.was.pnl

    @property
    def drawdown(self) -> float:
        """By which the other one's drawdown is less deep, a fraction; below 0 it is deeper."""
        return self.would.drawdown - self.was.drawdown

    @property
    def by_check(self) -> dict[tuple[str, str], int]:
        """(turn, check) -> flips, the most frequent first."""
        return dict(
            Counter((one.turn, name) for one in self.flips for name in one.checks).most_common()
        )


def compare(was: Side, would: Side) -> Difference:
    """Hold two courses against each other.

    Two orders are the same decision if strategy, symbol, time, purpose and side are, and as many
    like it came before at that time.
    """
    own, theirs = _keys(was.reviews.orders), _keys(would.reviews.orders)
    places = {key: place for place, key in enumerate(theirs)}
    both = [(place, places[key]) for place, key in enumerate(own) if key in places]
    flips, resized = list[Flip](), 0
    decide = _Decide(was.reviews, would.reviews)
    for place, other in both:
        found = decide(place, other)
        if found is not None:
            flips.append(found)
        else:
            resized += decide.is_resized(place, other)
    return Difference(
        was, would, tuple(flips), len(both) - len(flips) - resized, resized,
        len(own) - len(both), len(theirs) - len(both),
    )  # fmt: skip


def _keys(orders: np.ndarray) -> list[_Key]:
    return list(_numbered(orders))


def _numbered(orders: np.ndarray) -> Iterator[_Key]:
    seen = Counter[tuple[int, int, int, int, bool]]()
    columns = (orders[name].tolist() for name in ("strategy", "symbol", "ts", "purpose"))
    for *decision, buys in zip(*columns, (orders["asked"] > 0.0).tolist(), strict=True):
        key = (*decision, buys)
        yield *key, seen[key]  # pyright: ignore[reportReturnType]
        seen[key] += 1


class _Decide:
    # What becomes of one order of both courses.

    def __init__(self, was: Reviews, would: Reviews) -> None:
        self._was, self._would = was, would
        self._refused = was.is_refused, would.is_refused
        self._cut = was.is_cut, would.is_cut
        self._cutter = was.cutter, would.cutter

    def __call__(self, place: int, other: int) -> Flip | None:
        refused = bool(self._refused[0][place]), bool(self._refused[1][other])
        if refused == (False, True):
            return self._flip("refused", place, other, *_refusal(self._would, other))
        if refused == (True, False):
            return self._flip("approved", place, other, *_refusal(self._was, place))
        if refused[0] or not self.is_resized(place, other):
            return None
        if self._cut[1][other]:
            at = int(self._cutter[1][other])
            return self._flip("cut", place, other, *_said(self._would, other, [at], first=True))
        if self._cut[0][place]:
            at = int(self._cutter[0][place])
            return self._flip("cut", place, other, *_said(self._was, place, [at], first=True))
        return None

    def is_resized(self, place: int, other: int) -> bool:
        orders = self._was.orders[place], self._would.orders[other]
        return bool(orders[0]["quantity"] != orders[1]["quantity"])

    def _flip(
        self, turn: Turn, place: int, other: int, checks: tuple[str, ...], value: float,
        limit: float,
    ) -> Flip:  # fmt: skip
        order, instead = self._was.orders[place], self._would.orders[other]
        return Flip(
            turn, int(order["ts"]), int(order["strategy"]), int(order["symbol"]),
            int(order["purpose"]), int(order["order_no"]), float(order["asked"]),
            float(order["quantity"]) * int(order["approved"]),
            float(instead["quantity"]) * int(instead["approved"]), checks, value, limit,
        )  # fmt: skip


def _refusal(reviews: Reviews, place: int) -> tuple[tuple[str, ...], float, float]:
    # Who refused an order, and the first one's value and limit.
    bits = int(reviews.orders[place]["refused_by"])
    at = [n for n in range(len(reviews.risk.names)) if bits >> n & 1]
    return _said(reviews, place, at, first=False)


def _said(
    reviews: Reviews, place: int, at: list[int], *, first: bool
) -> tuple[tuple[str, ...], float, float]:  # fmt: skip
    receipt = (reviews.first if first else reviews.last)[place]
    names = tuple(reviews.risk.names[n] for n in at)
    return names, float(receipt["value"][at[0]]), float(reviews.risk.limits[at[0]])


def purpose_of(flip: Flip) -> str:
    """The purpose of an order by its name."""
    return PURPOSES[flip.purpose]
