"""How a quantity is traded: kind of order, its prices, how long it lives, in how many slices.

Input: the keys of `conf/orders/`, and at a proposal the last price. Output: rules of a strategy,
and an order's kind, levels and end. How much is traded, and when, is not decided here.
"""

import math
from dataclasses import dataclass
from typing import Any

from sysquant.compiled import kernel
from sysquant.errors import ConfigError
from sysquant.keys import Spelled, check_choice, check_flag, check_number
from sysquant.records import NEVER, Row
from sysquant.steps import tick_beyond

KINDS = ("market", "limit", "stop", "stop_limit", "trailing_stop")
TIFS = ("gtc", "ioc", "fok", "gtd")
FOLLOW_UPS = ("none", "market")
MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP = range(5)
GTC, IOC, FOK, GTD = range(4)
_BPS = 1e-4
_MOST_S = 1e9  # three decades: ends stay far from the end of int64


@kernel
def place(
    order: Row, rules: Row, market: Row, instrument: Row, ts: int, reduces: bool, exits: int
) -> None:
    """Give an order of `order.quantity` units its kind, levels, time in force and end.

    Parameters
    ----------
    order : `records.ORDER`; written are `kind`, `limit`, `stop`, `trail` (NaN where it has none),
        `tif`, `end` (`NEVER`, or ts and the timeout), `then`, `post_only` and `carry`.
    rules, market, instrument : `records.RULES`, `MARKET` and `INSTRUMENT`.
    ts : time of the proposal, ns UTC.
    reduces : whether it only brings the position nearer to 0; a market order then, unless limit.
    exits : not 0 for an order that must get out: a market order, good till it is filled.
    """
    order.kind = rules.kind
    if exits != 0 or (reduces and rules.kind != LIMIT):
        order.kind = MARKET
    order.limit = math.nan
    order.stop = math.nan
    order.trail = math.nan
    price = market.price
    side = 1.0 if order.quantity > 0.0 else -1.0
    if order.kind == LIMIT:
        level = price * (1.0 - side * rules.offset)
        order.limit = tick_beyond(level, -side, instrument)
    elif order.kind == STOP or order.kind == STOP_LIMIT:
        level = price * (1.0 + side * rules.offset)
        order.stop = tick_beyond(level, side, instrument)
        if order.kind == STOP_LIMIT:
            level = order.stop * (1.0 + side * rules.limit_offset)
            order.limit = tick_beyond(level, side, instrument)
    elif order.kind == TRAILING_STOP:
        order.trail = rules.trail
    _terms_of_life(order, rules, ts, exits != 0)


@kernel
def _terms_of_life(order: Row, rules: Row, ts: int, exits: bool) -> None:
    # How long it lives and what of it works on; an exit lives until it is filled.
    order.post_only = rules.post_only if order.kind == LIMIT else 0
    order.tif = GTC if exits else rules.tif
    order.then = rules.then if order.tif == GTD else 0
    order.carry = 1 if exits else rules.carry
    order.end = NEVER
    if order.tif == GTD:
        order.end = ts + rules.timeout_ns


# -- configuration

_RANGES: dict[str, dict[str, Any]] = {
    "offset_bps": {"above": -10_000, "below": 10_000},
    "limit_offset_bps": {"least": 0, "below": 10_000},
    "trail_bps": {"least": 0, "below": 10_000},
    "slices": {"least": 1, "most": 1_000_000, "whole": True},
    "slice_s": {"least": 0, "most": _MOST_S},
}
# A key that is not at rest -> what it means something with, and the key that says so.
_MEANT_WITH = {
    "limit_offset_bps": ("kind", ("stop_limit",)),
    "trail_bps": ("kind", ("trailing_stop",)),
    "post_only": ("kind", ("limit",)),
    "offset_bps": ("kind", ("limit", "stop", "stop_limit")),
    "timeout_s": ("tif", ("gtd",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders(Spelled):
    """How the orders of a strategy are placed.

    Parameters
    ----------
    kind : `market`, `limit`, `stop`, `stop_limit` or `trailing_stop`, of orders that open or grow a
        position; those that reduce it are market orders unless kind is `limit`.
    offset_bps : of the last price, basis points: a limit stands so far behind it (negative: beyond
        it, to bound what a taker pays), a stop so far ahead.
    limit_offset_bps : of a stop-limit, how far its limit stands beyond its stop, basis points.
    trail_bps : of a trailing stop, its distance from the best price, basis points.
    tif : `gtc`, `ioc`, `fok` (these two: market and limit) or `gtd`.
    timeout_s : of `gtd`, from the proposal to the end, s.
    then : what follows an order that timed out with a remainder: `none` or `market`.
    post_only : a limit order that would take ends instead.
    slices : most orders that a change of position is divided into.
    slice_s : from one of them to the next, s.
    carry : whether the rest of a partial fill works on; if not, it ends after that event.

    Raises
    ------
    ConfigError
        If a value lies outside its range, or means nothing beside the others.
    """

    kind: str = "market"
    offset_bps: float = 0.0
    limit_offset_bps: float = 0.0
    trail_bps: float = 0.0
    tif: str = "gtc"
    timeout_s: float | None = None
    then: str = "none"
    post_only: bool = False
    slices: int = 1
    slice_s: float = 0.0
    carry: bool = True

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant, alone or together."""
        check_choice("orders.kind", self.kind, KINDS)
        check_choice("orders.tif", self.tif, TIFS)
        check_choice("orders.then", self.then, FOLLOW_UPS)
        check_flag("orders.post_only", self.post_only)
        check_flag("orders.carry", self.carry)
        for key, range_ in _RANGES.items():
            check_number(f"orders.{key}", getattr(self, key), **range_)
        if self.timeout_s is not None:
            check_number("orders.timeout_s", self.timeout_s, above=0, most=_MOST_S)
        for key, (other, choices) in _MEANT_WITH.items():
            if getattr(self, key) and getattr(self, other) not in choices:
                raise ConfigError(
                    f"orders.{key} was {getattr(self, key)}, and means nothing with orders.{other} "
                    f"{getattr(self, other)!r}, only with {' or '.join(choices)}"
                )
        self._check_kind()
        self._check_life()

    def _check_kind(self) -> None:
        if self.kind == "trailing_stop" and self.trail_bps == 0:
            raise ConfigError("orders.trail_bps must be > 0 with kind 'trailing_stop', was 0")
        if self.offset_bps < 0 and (self.kind != "limit" or self.post_only):
            raise ConfigError(
                f"orders.offset_bps must be >= 0, was {self.offset_bps}: below 0 is for a limit "
                "order that may take"
            )

    def _check_life(self) -> None:
        if self.tif in ("ioc", "fok"):
            if self.kind not in ("market", "limit"):
                raise ConfigError(
                    f"orders.tif {self.tif!r} is for market and limit orders, kind was "
                    f"{self.kind!r}; take gtc or gtd"
                )
            if self.post_only:
                raise ConfigError(
                    f"orders.post_only and tif {self.tif!r} leave nothing to fill; take gtc or gtd"
                )
        if self.tif == "gtd" and self.timeout_s is None:
            raise ConfigError("orders.timeout_s is missing: tif 'gtd' ends after it, s")
        if self.then != "none" and self.tif != "gtd":
            raise ConfigError(
                f"orders.then {self.then!r} follows a timeout: set tif to gtd, was {self.tif!r}"
            )
        if (self.slices > 1) != (self.slice_s > 0):
            raise ConfigError(
                "orders.slices above 1 and slice_s above 0 go together, were "
                f"{self.slices} and {self.slice_s}"
            )

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the order plan decides."""
        return {
            "kind": KINDS.index(self.kind),
            "offset": self.offset_bps * _BPS,
            "limit_offset": self.limit_offset_bps * _BPS,
            "trail": self.trail_bps * _BPS,
            "tif": TIFS.index(self.tif),
            "timeout_ns": NEVER if self.timeout_s is None else round(self.timeout_s * 1e9),
            "then": FOLLOW_UPS.index(self.then),
            "post_only": int(self.post_only),
            "slices": self.slices,
            "slice_ns": round(self.slice_s * 1e9),
            "carry": int(self.carry),
        }
