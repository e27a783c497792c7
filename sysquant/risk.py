"""The risk chain: an ordered list of checks; all run on every order, all are recorded.

A check sees the order's facts and its limit, and returns a value and whether it passes. Fail
closed: what is NaN, or has no limit, refuses. An order that only reduces a position is exempt
from checks that fail, and the receipt says so; a refusal is a value with reasons, never an error.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sysquant.compiled import kernel
from sysquant.errors import ConfigError, nearest
from sysquant.records import Row, Rows
from sysquant.types import Floats, Ints

REFUSE, PASS, EXEMPT = 0, 1, 2
VERDICTS = ("refuse", "pass", "exempt")


@kernel
def order_size(order: Row, limit: float) -> tuple[float, bool]:
    """Notional of the order as a fraction of the capital allocated to the strategy; at most."""
    value = order.notional / order.allocation
    return value, value <= limit


@kernel
def cash(order: Row, limit: float) -> tuple[float, bool]:
    """Cash left when this order and all working ones are filled, quote currency; at least."""
    return order.cash_after, order.cash_after >= limit


@kernel
def short_limit(order: Row, limit: float) -> tuple[float, bool]:
    """Short exposure with this and all working orders filled, a fraction of equity; at most."""
    value = order.short_after / order.equity
    return value, value <= limit


@kernel
def drawdown(order: Row, limit: float) -> tuple[float, bool]:
    """Drawdown of the strategy from its peak, a positive fraction; at most."""
    value = -order.drawdown
    return value, value <= limit


CHECKS = ("order_size", "cash", "short_limit", "drawdown")


@kernel
def _run_check(check: int, order: Row, limit: float) -> tuple[float, bool]:
    # One switch over numbers, so that every chain is the same compiled function.
    if check == 0:
        return order_size(order, limit)
    if check == 1:
        return cash(order, limit)
    if check == 2:
        return short_limit(order, limit)
    return drawdown(order, limit)


@kernel
def review(order: Row, checks: Ints, limits: Floats, receipts: Rows) -> int:
    """Run every check on an order's facts; fill check, value, limit and verdict of `receipts`.

    Returns
    -------
    0 when approved, otherwise a bit set of the checks (by place in the chain) that refused.
    """
    refused_by = 0
    for place in range(len(checks)):
        limit = limits[place]
        value, passes = _run_check(checks[place], order, limit)
        verdict = REFUSE
        if passes:
            verdict = PASS
        elif order.reduces == 1 and not math.isnan(value) and not math.isnan(limit):
            verdict = EXEMPT
        receipts[place].check = place
        receipts[place].value = value
        receipts[place].limit = limit
        receipts[place].verdict = verdict
        if verdict == REFUSE:
            refused_by |= 1 << place
    return refused_by


class RiskChain:
    """An ordered list of checks with their limits.

    Parameters
    ----------
    checks : mappings with `check` (a name) and `limit` (in the unit of that check).

    Raises
    ------
    ConfigError
        If a check is unknown, named twice, or its limit is missing or not finite.
    """

    def __init__(self, *, checks: Sequence[Mapping[str, object]]) -> None:
        self.names = tuple(str(check.get("check")) for check in checks)
        for name, check in zip(self.names, checks, strict=True):
            if name not in CHECKS:
                raise ConfigError(f"risk check {name!r} is unknown{nearest(name, CHECKS)}")
            for key in set(check) - {"check", "limit"}:
                hint = nearest(key, ("check", "limit"))
                raise ConfigError(f"risk check {name!r} has no key {key!r}{hint}")
            limit = check.get("limit")
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise ConfigError(f"risk check {name!r} needs a number as limit, was {limit!r}")
            if not math.isfinite(limit):
                raise ConfigError(f"risk check {name!r} needs a finite limit, was {limit!r}")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"a risk check is named twice: {', '.join(self.names)}")
        self.checks = np.array([CHECKS.index(name) for name in self.names], np.int64)
        self.limits = np.array([check["limit"] for check in checks], np.float64)

    def refusals(self, refused_by: int) -> list[str]:
        """Names of the checks in a bit set that `review` returned."""
        return [name for place, name in enumerate(self.names) if refused_by >> place & 1]
