"""The risk chain: an ordered list of checks; all run on every order, all are recorded.

A check sees the order's facts and its limit, and returns a value, whether it passes, and its room:
the largest size it would pass. Fail closed: what is NaN refuses. An order that truly reduces a
position is exempt from most checks that fail, and its receipt says so; a refusal is a value with
reasons, never an error. Rules: `docs/engine.md`, section 4.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from sysquant.checks import CHECKS
from sysquant.errors import ConfigError, nearest
from sysquant.keys import check_choice, check_flag, check_kind, check_number
from sysquant.times import interval_ns
from sysquant.types import SECOND, Floats, Ints

VERDICTS = ("refuse", "pass", "exempt")
MOST_CHECKS = 62  # a bit each in the signed integer that says who refused
HISTORY = ("refuse", "allow")

_YEAR_NS = 365 * 86_400 * SECOND


class RiskChain:
    """An ordered list of checks with their limits, and how the tail of the book is measured.

    Parameters
    ----------
    checks : mappings with `check` (a name) and `limit` (in the unit of that check).
    cut : make an order that is too large smaller until every check passes it, where that can be,
        and review it anew; else it is refused whole. (Positions that grew past their share leave
        the next one a little short of cash: of a basket's orders a quarter.)
    risk_bar : between two returns of the book's history, like `1h`, or in ns; a bar's length where
        bars are longer.
    window : returns that are kept, in risk bars.
    confidence : of value at risk and expected shortfall, above 0.5 and below 1.
    decay : weight of the covariance before each new return.
    min_history : `refuse` orders while fewer than `least_history` returns are known, or `allow`
        them: the tail is then read from those there are, and is 0 without any.
    least_history : that number, in risk bars.

    Raises
    ------
    ConfigError
        If a key cannot be meant, or a check is unknown, named twice, or has no finite limit.
    """

    def __init__(
        self,
        *,
        checks: Sequence[Mapping[str, object]],
        cut: bool = True,
        risk_bar: int | str = "1h",
        window: int = 250,
        confidence: float = 0.975,
        decay: float = 0.97,
        min_history: str = "refuse",
        least_history: int = 50,
    ) -> None:
        self.names = _names(checks)
        self.places: Ints = np.full(len(CHECKS), -1, np.int64)
        self.places[[CHECKS[name].number for name in self.names]] = np.arange(len(checks))
        self.limits: Floats = np.array([check["limit"] for check in checks], np.float64)
        check_flag("risk.cut", cut)
        check_number("risk.window", window, least=2, most=100_000, whole=True)
        check_number("risk.confidence", confidence, above=0.5, below=1)
        check_number("risk.decay", decay, above=0, below=1)
        check_choice("risk.min_history", min_history, HISTORY)
        check_number("risk.least_history", least_history, least=1, most=window, whole=True)
        self.cut = cut
        self.risk_bar = interval_ns(risk_bar, "risk.risk_bar")
        self.window = window
        self.confidence = confidence
        self.decay = decay
        self.min_history = min_history
        self.least_history = least_history

    def terms(self, interval: int) -> dict[str, Any]:
        """Fields of `records.TERMS` that the chain decides, on bars of `interval` ns."""
        normal = NormalDist()
        z = normal.inv_cdf(self.confidence)
        risk_bar = max(self.risk_bar, interval)
        return {
            "cut": int(self.cut),
            "risk_bar_ns": risk_bar,
            "risk_bars_per_year": _YEAR_NS / risk_bar,
            "window": self.window,
            "min_history": self.least_history,
            "allow_short_history": int(self.min_history == "allow"),
            "confidence": self.confidence,
            "decay": self.decay,
            "z_var": z,
            "z_es": normal.pdf(z) / (1.0 - self.confidence),
        }

    def refusals(self, refused_by: int) -> list[str]:
        """Names of the checks in a bit set that `review` returned."""
        return [name for place, name in enumerate(self.names) if refused_by >> place & 1]


def _names(checks: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    # Names of the checks, in order; refuses a list that cannot be meant.
    check_kind("risk.checks", checks, Sequence, "a list of check and limit")
    if not 1 <= len(checks) <= MOST_CHECKS:
        raise ConfigError(f"risk.checks must hold 1 to {MOST_CHECKS} checks, was {len(checks)}")
    names = list[str]()
    for check in checks:
        if not hasattr(check, "keys") or "check" not in check:
            raise ConfigError(f"risk.checks must hold pairs of check and limit, was {check!r}")
        name = str(check["check"])
        check_choice("risk.checks", name, CHECKS)
        if name in names:
            raise ConfigError(f"risk.checks: {name!r} is named twice")
        for key in sorted(set(check) - {"check", "limit"}):
            hint = nearest(key, ("check", "limit"))
            raise ConfigError(f"risk.checks: {name!r} has no key {key!r}{hint}")
        if "limit" not in check:
            raise ConfigError(f"risk.checks: {name!r} has no limit")
        check_number(f"risk.checks: limit of {name!r}", check["limit"])
        names.append(name)
    return tuple(names)
