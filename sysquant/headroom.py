"""What the chain of a strategy would have refused, and whether its limits are tight enough.

Input: the result of a backtest, and what the gate asks. Output: a `Proof` whose figures are orders
refused and cut by check, worst day, drawdown, time under water, exposure, and for each limit how
near the strategy came to it. A limit that nothing ever comes near protects nothing; one that
refuses much is no protection but another strategy. Nothing is traded here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sysquant import performance
from sysquant.checks import CHECKS
from sysquant.keys import check_choice, check_kind, check_number
from sysquant.ledger import participation
from sysquant.proof import Figure, Proof
from sysquant.receipts import Reviews
from sysquant.result import Result
from sysquant.times import DAY
from sysquant.types import Floats

LOSSES = ("drawdown", "book_drawdown", "daily_loss", "book_daily_loss")
Groups = Mapping[str, list[str]]
_NEEDED: Groups = MappingProxyType({
    "the size of an order": ["order_size", "order_notional", "order_quantity"],
    "positions or exposure": [
        "position_weight", "position_notional", "position_quantity", "gross_exposure", "leverage",
        "book_gross_exposure", "book_leverage", "cash",
    ],
})  # fmt: skip
_ADVISED: Groups = MappingProxyType({"stale prices": ["stale_price"]})
# Limits of what the market is like, or of what may be at all: they are not to be near.
_NO_SIZE = {
    "price_collar", "reference_collar", "stale_price", "feed_lag", "tick_jump", "restricted",
    "state", "self_match", "correlation", "concentration", "give_back",
    "not_promoted",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the gate asks of a strategy and of its chain, as configured by `promotion.risk`.

    Parameters
    ----------
    refused : largest share of the orders that the chain may refuse, and any check of it.
    cut : largest share that it may cut.
    worst_day : largest loss of a day (UTC), a fraction of the equity that it began with.
    drawdown : largest one, a positive fraction.
    under_water_days : longest time from a peak to its recovery, or to the end. By luck alone one in
        six with a true Sharpe ratio of 3 a year is 180 days under water within three years, and one
        in a hundred and sixty 365 days.
    loose : a limit that the strategy never came within this factor of is too loose.
    tight : what is told instead: so many times the largest value.
    loss_limit : largest limit of a check of losses that counts as one.
    losses : checks of losses; a chain without a limit of any of them fails.
    needed : what must be protected -> checks, any of which does; a chain without one fails.
    advised : likewise; a chain without one is told so.

    Raises
    ------
    ConfigError
        If a value cannot be meant, or there is no such check.
    """

    refused: float = 0.05
    cut: float = 0.5
    worst_day: float = 0.1
    drawdown: float = 0.3
    under_water_days: float = 365.0
    loose: float = 10.0
    tight: float = 2.0
    loss_limit: float = 0.5
    losses: tuple[str, ...] = LOSSES
    needed: Groups = field(default_factory=lambda: _NEEDED)
    advised: Groups = field(default_factory=lambda: _ADVISED)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("refused", "cut", "worst_day", "drawdown", "loss_limit"):
            check_number(f"Bounds.{name}", getattr(self, name), least=0, most=1)
        check_number("Bounds.under_water_days", self.under_water_days, least=0)
        check_number("Bounds.tight", self.tight, least=1)
        check_number("Bounds.loose", self.loose, above=self.tight)
        for check in self.losses:
            check_choice("Bounds.losses", check, LOSSES)
        for name, groups in (("needed", self.needed), ("advised", self.advised)):
            check_kind(f"Bounds.{name}", groups, Mapping, "what is protected, and by which checks")
            for checks in groups.values():
                for check in checks:
                    check_choice(f"Bounds.{name}", check, CHECKS)


class Use(NamedTuple):
    """How near a strategy came to one limit.

    Parameters
    ----------
    check, limit : of the chain.
    extreme : largest value that it came to, of a check with a least the smallest; NaN for none.
    used : of the limit, a fraction; above 1 it was refused or cut. NaN where a limit bounds no size
        of the strategy's: the market's, what may be at all, what must be there at least.
    refused, cut : orders.
    """

    check: str
    limit: float
    extreme: float
    used: float
    refused: int
    cut: int


class Seen(NamedTuple):
    """What a backtest showed of a strategy's risk; fractions, NaN where nothing was shown.

    Parameters
    ----------
    orders, refused, cut : counts.
    worst_day, worst_date : lowest return of a day (UTC), and which day.
    drawdown : lowest, <= 0.
    under_water_days : longest.
    exposure : largest gross exposure, of equity.
    of_volume : largest approved order by the volume of its bar.
    uses : of each check, in the order of the chain.
    """

    orders: int
    refused: int
    cut: int
    worst_day: float
    worst_date: str
    drawdown: float
    under_water_days: float
    exposure: float
    of_volume: float
    uses: tuple[Use, ...]


def measure(result: Result) -> Seen:
    """What a backtest showed of the risk of its book."""
    risk = result.engine.risk
    reviews = Reviews.of(result.effects, risk)
    ts, equity = result.ledger.equity
    days = performance.sample(ts, equity, DAY)
    worst = int(days.values.argmin()) if len(days.values) else -1
    day = float(days.values[worst]) if worst >= 0 else math.nan
    date = str(np.datetime64(int(days.ts[worst]) - 1, "ns").astype("M8[D]")) if worst >= 0 else ""
    lowest = float(performance.drawdown(equity).min(initial=0.0))
    placed = reviews.orders[~reviews.is_refused]
    gross = result.ledger.exposure[0]
    shares = participation(result.engine.universe, result.ledger.bars, placed)
    lost = {"drawdown": -lowest, "book_drawdown": -lowest}
    lost |= dict.fromkeys(("daily_loss", "book_daily_loss"), -min(day, 0.0))
    return Seen(
        orders=len(reviews), refused=int(reviews.is_refused.sum()), cut=int(reviews.is_cut.sum()),
        worst_day=day, worst_date=date, drawdown=lowest,
        under_water_days=performance.longest_drawdown(ts, equity) / DAY,
        exposure=_largest(gross), of_volume=_largest(shares), uses=tuple(_uses(reviews, lost)),
    )  # fmt: skip


def _largest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else math.nan


def _uses(reviews: Reviews, lost: Mapping[str, float]) -> Iterator[Use]:
    # A loss is what the run came to, which may lie between two orders.
    refusals, cutter = reviews.refusals.sum(axis=0), reviews.cutter
    for place, name in enumerate(reviews.risk.names):
        limit, values = float(reviews.risk.limits[place]), reviews.first["value"][:, place]
        most = CHECKS[name].most
        extreme = _largest(values) if most else -_largest(-values)
        if name in lost:
            extreme = float(np.fmax(lost[name], extreme))
        used = math.nan
        if most and name not in _NO_SIZE and limit > 0.0:
            used = extreme / limit
        cut = int((cutter == place).sum())
        yield Use(name, limit, extreme, used, int(refusals[place]), cut)


def judge(seen: Seen, bounds: Bounds, *, took_s: float = 0.0) -> Proof:
    """Whether a strategy's chain may be trusted with it."""
    limits = {use.check: use.limit for use in seen.uses}
    return Proof(
        name="risk",
        failures=(*_unprotected(limits, bounds), *_too_much(seen, bounds), *_too_bad(seen, bounds)),
        notes=tuple(_notes(seen, limits, bounds)),
        figures=figures_of(seen, bounds),
        took_s=took_s,
    )


def _unprotected(limits: Mapping[str, float], bounds: Bounds) -> Iterator[str]:
    if not any(limits.get(check, math.inf) <= bounds.loss_limit for check in bounds.losses):
        said = ", ".join(f"{n} {limits[n]:g}" for n in bounds.losses if n in limits) or "none"
        yield (
            f"no check of the chain stops losses by {bounds.loss_limit:g} (it has {said}): add one "
            f"of {', '.join(bounds.losses)} to risk.checks"
        )
    for said, checks in bounds.needed.items():
        if not limits.keys() & set(checks):
            yield f"no check of the chain bounds {said}: add one of {', '.join(checks)}"


def _too_much(seen: Seen, bounds: Bounds) -> Iterator[str]:
    if not seen.orders:
        yield (
            "the strategy made no order in the past, so nothing is shown of its risk: choose a "
            "longer one with feed.start; one that asks a model needs one, runners/retrain.py"
        )
        return
    for use in seen.uses:
        if use.refused > bounds.refused * seen.orders:
            yield (
                f"{use.check} refuses {use.refused:,} of {seen.orders:,} orders, more than "
                f"{bounds.refused:.1%}: its limit is {use.limit:g}, the strategy came to "
                f"{use.extreme:g}; what is left is another strategy than was researched"
            )
    if not any(use.refused > bounds.refused * seen.orders for use in seen.uses):
        yield from _beyond("the chain refuses", seen.refused, seen.orders, bounds.refused)
    most = max(seen.uses, key=lambda use: use.cut, default=None)
    by = (
        ""
        if most is None
        else f", {most.check} of {most.limit:g} most, it came to {most.extreme:g}"
    )
    yield from _beyond("the chain cuts", seen.cut, seen.orders, bounds.cut, by)


def _beyond(what: str, count: int, orders: int, most: float, by: str = "") -> Iterator[str]:
    if count > most * orders:
        yield (
            f"{what} {count:,} of {orders:,} orders, more than {most:.1%}{by}: make the strategy's "
            "targets smaller, or its limits larger (those of the allocation do not grow with it)"
        )


def _too_bad(seen: Seen, bounds: Bounds) -> Iterator[str]:
    if -seen.worst_day > bounds.worst_day:
        yield (
            f"the worst day, {seen.worst_date}, lost {-seen.worst_day:.2%}, more than "
            f"{bounds.worst_day:.2%}: give it less capital (strategy.weight, sizing), or a limit "
            "of daily_loss"
        )
    if -seen.drawdown > bounds.drawdown:
        yield (
            f"the drawdown was {-seen.drawdown:.2%}, more than {bounds.drawdown:.2%}: give it less "
            "capital, or a smaller limit of drawdown"
        )
    if seen.under_water_days > bounds.under_water_days:
        yield (
            f"it was under water for {seen.under_water_days:.1f} days, longer than "
            f"{bounds.under_water_days:g}: few wait for that; look at its signal again, or set "
            "promotion.risk.under_water_days"
        )


def tight_of(use: Use, bounds: Bounds) -> float:
    """The limit that would be tight, where one is too loose; NaN where it is not."""
    if math.isnan(use.used) or use.used * bounds.loose >= 1.0:
        return math.nan
    return use.extreme * bounds.tight


def _notes(seen: Seen, limits: Mapping[str, float], bounds: Bounds) -> Iterator[str]:
    yield (
        f"{seen.orders:,} orders: {seen.refused:,} refused, {seen.cut:,} cut; worst day "
        f"{_percent(seen.worst_day)} ({seen.worst_date or 'none'}), drawdown "
        f"{_percent(seen.drawdown)}, under water {seen.under_water_days:.1f} days, exposure up to "
        f"{_percent(seen.exposure)} of equity, an order up to {_percent(seen.of_volume)} of its bar"
    )
    for use in seen.uses:
        if use.refused or use.cut:
            yield (
                f"{use.check} refuses {use.refused:,} and cuts {use.cut:,} orders; limit "
                f"{use.limit:g}, it came to {use.extreme:g}"
            )
    for use in seen.uses:
        tight = tight_of(use, bounds)
        if not math.isnan(tight):
            yield (
                f"too loose: {use.check} {use.limit:g} protects nothing, the strategy came to "
                f"{use.extreme:g}; {tight:.4g} would be tight"
            )
    for said, checks in bounds.advised.items():
        if not limits.keys() & set(checks):
            yield f"nothing in the chain looks at {said}: {', '.join(checks)} would"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"


def figures_of(seen: Seen, bounds: Bounds) -> dict[str, Figure]:
    """All of it by name; of each check `limit`, `extreme`, `used`, `refused`, `cut` and `tight`."""
    share = max(seen.orders, 1)
    found: dict[str, Figure] = {
        "orders": seen.orders, "refused": seen.refused, "refused_share": seen.refused / share,
        "cut": seen.cut, "cut_share": seen.cut / share,
        "worst_day": _figure(seen.worst_day), "worst_date": seen.worst_date or None,
        "drawdown": seen.drawdown, "under_water_days": seen.under_water_days,
        "exposure": _figure(seen.exposure), "order_of_volume": _figure(seen.of_volume),
    }  # fmt: skip
    for use in seen.uses:
        tight = tight_of(use, bounds)
        said = {**use._asdict(), "tight": tight}
        del said["check"]
        found |= {f"{use.check}.{name}": _figure(value) for name, value in said.items()}
    return found


def _figure(value: float) -> float | None:
    return value if math.isfinite(value) else None
