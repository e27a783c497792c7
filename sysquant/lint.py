"""What is wrong with a backtest before anybody believes it: findings, each with its number.

Input: plain numbers and arrays about trips, fills, returns and costs. Output: `Finding` records,
none where nothing was found. What is found is a reason to look, not a proof; nothing is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from sysquant.types import Floats

FEWEST_TRIPS = 30  # round trips below which a hit rate says nothing
LARGEST_SHARE = 0.5  # of the net P&L that one round trip may be
MOST_STALE = 0.01  # of the fills that may be against a price that stood still
LONGEST_FLAT = 0.33  # of the time that equity may not move at all in one stretch
FEWEST_RETURNS = 30
SHORTEST_DAYS = 90.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    Parameters
    ----------
    name : of the rule that found it.
    text : what was found, with its number.
    advice : what to do.
    """

    name: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}; {self.advice}"


def few_trips(trips: int) -> list[Finding]:
    """Fewer than `FEWEST_TRIPS` round trips, ended or open."""
    if trips >= FEWEST_TRIPS:
        return []
    return [
        Finding(
            "few_trips",
            f"{trips} round trips begun, fewer than {FEWEST_TRIPS}",
            "take a longer history or more symbols before comparing anything",
        )
    ]


def one_trip(pnl: Floats) -> list[Finding]:
    """One round trip is more than `LARGEST_SHARE` of what was earned in all, net.

    Parameters
    ----------
    pnl : (N,) net P&L of every round trip, open ones as they stand, quote currency.
    """
    total = float(pnl.sum())
    if len(pnl) < 2 or total <= 0.0 or pnl.max() <= LARGEST_SHARE * total:
        return []
    best = float(pnl.max())
    return [
        Finding(
            "one_trip",
            f"one of {len(pnl):,} round trips made {best:,.2f} of {total:,.2f}, "
            f"{best / total:.0%}; the others {total - best:,.2f}",
            "look at that trade alone, and at the result without it",
        )
    ]


def stale_fills(stale: NDArray[np.bool_]) -> list[Finding]:
    """More than `MOST_STALE` of the fills are against a price that stood still.

    Parameters
    ----------
    stale : (F,) whether a fill's bar had no volume, or a close that had not changed for long.
    """
    count = int(stale.sum())
    if count <= MOST_STALE * len(stale):
        return []
    return [
        Finding(
            "stale_fills",
            f"{count:,} of {len(stale):,} fills ({count / len(stale):.1%}) on stale prices: bars "
            "without volume, or whose close had stood still",
            "look for gaps that were filled forward, and drop those bars from the history",
        )
    ]


def no_orders(orders: int) -> list[Finding]:
    """Never an order, approved or refused."""
    if orders:
        return []
    return [
        Finding(
            "no_orders",
            "every target was NaN, 0, or worth less than a lot or min_notional",
            "hold strategy.warmup() against the bars there are, look at strategy.frame(bars), and "
            "hold capital against the instruments' steps",
        )
    ]


def flat_equity(returns: Floats) -> list[Finding]:
    """Equity that does not move at all for over `LONGEST_FLAT` of the time.

    Parameters
    ----------
    returns : (N,) per period, fractions.
    """
    moved = np.flatnonzero(np.concatenate([[True], returns != 0.0, [True]]))
    longest = int(np.diff(moved).max()) - 1
    if longest <= LONGEST_FLAT * len(returns):
        return []
    return [
        Finding(
            "flat_equity",
            f"equity stood still for {longest:,} of {len(returns):,} periods in a row",
            "see what was refused, whether a drawdown check stopped it, and what the warmup takes",
        )
    ]


def costs_above_edge(net: float, costs: float) -> list[Finding]:
    """Costs that are more than what trading earned before them.

    Parameters
    ----------
    net : P&L after all costs, quote currency.
    costs : fees, slippage and financing, quote currency, > 0 when paid.
    """
    gross = net + costs
    if costs <= 0.0 or costs <= gross:
        return []
    advice = "trade less often, or on longer bars, before looking for a better signal"
    if gross <= 0.0:
        advice = "it loses before costs, so cheaper trades would not save it"
    text = f"costs of {costs:,.2f} against {gross:,.2f} earned before them"
    return [Finding("costs_above_edge", text, advice)]


def short_history(days: float, returns: int) -> list[Finding]:
    """Less than `SHORTEST_DAYS` days, or fewer than `FEWEST_RETURNS` returns."""
    if days >= SHORTEST_DAYS and returns >= FEWEST_RETURNS:
        return []
    return [
        Finding(
            "short_history",
            f"{returns:,} returns in {days:.1f} days",
            "read figures per year as extrapolated, and their limits before their values",
        )
    ]


def grid_edge(grid: Mapping[str, Sequence[object]], chosen: Mapping[str, object]) -> list[Finding]:
    """Parameters that were chosen at the lowest or highest value that was tried.

    Parameters
    ----------
    grid : parameter -> the values tried, in any order. Parameters of fewer than three different
        values, or of values that are no numbers, have no edge.
    chosen : parameter -> the value taken; others than those of the grid are left alone.
    """
    found: list[Finding] = []
    for name, tried in grid.items():
        values = {float(v) for v in tried if isinstance(v, Real) and not isinstance(v, bool)}
        if name not in chosen or len(values) < 3 or not all(isinstance(v, Real) for v in tried):
            continue
        value = chosen[name]
        for edge, word in ((min(values), "lowest"), (max(values), "highest")):
            if value == edge:
                text = f"{name}={value} is the {word} of {len(values)} values tried"
                found.append(Finding("grid_edge", text, f"try values beyond {value}"))
    return found
