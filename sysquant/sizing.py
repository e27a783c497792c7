"""From target weight to target quantity, and whether the difference is worth an order.

Input: a strategy's rules, its equity and the market. Output: units to hold. Four sizings read a
weight in four ways; each is the object of one file in `conf/sizing/`. No order is made here.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from sysquant.compiled import inlined, kernel
from sysquant.execution import slippage
from sysquant.keys import Spelled, check_flag, check_number
from sysquant.records import Row
from sysquant.steps import cut_lots, cut_lots_down

WEIGHT, VOLATILITY_TARGET, FIXED_NOTIONAL, RISK_PER_TRADE = range(4)


@inlined
def notional(rules: Row, terms: Row, market: Row, weight: float, equity: float) -> float:
    """Value to hold, the book's currency, with the sign of `weight`; NaN if not known yet.

    Parameters
    ----------
    rules, terms, market : `records.RULES`, `TERMS` and `MARKET`.
    weight : target of the strategy.
    equity : of the strategy, the book's currency.
    """
    if rules.sizing == WEIGHT:
        return weight * rules.share * equity
    if rules.sizing == VOLATILITY_TARGET:
        if market.bars < 2 or math.isnan(market.variance):
            return math.nan
        sigma = math.sqrt(market.variance) * math.sqrt(terms.bars_per_year)
        return weight * rules.share * equity * min(rules.most, rules.amount / sigma)
    if rules.sizing == FIXED_NOTIONAL:
        return weight * rules.amount
    return weight * rules.amount * equity / rules.most


@inlined
def unit_cost(price: float, slip: float, unit: float, instrument: Row) -> float:
    """What buying one unit costs at most: slipped, a tick above, and with a taker's fee."""
    worst = price * (1.0 + slip) + instrument.tick_size
    return worst * unit * (1.0 + instrument.taker)


@inlined
def worst_unit_cost(terms: Row, instrument: Row, market: Row, value: float) -> float:
    """The same of a unit among those that are worth `value`, the book's currency."""
    slip = slippage(terms, market, abs(value) / (market.price * market.unit))
    return unit_cost(market.price, slip, market.unit, instrument)


@inlined
def is_surely_in_band(value: float, held: float, cost: float, rules: Row, instrument: Row) -> bool:
    """Whether what is held is so near to what is wanted that no order can be worth it.

    Told without cutting to lots, a lot to each side: where this says no, `is_worth_it` decides.

    Parameters
    ----------
    value : wanted, the book's currency.
    held : units.
    cost : of a unit, the book's currency.
    """
    lot = 1.001 * instrument.lot_size * cost
    return abs(value - held * cost) + lot <= (1.0 - 1e-9) * rules.band * (abs(value) - lot)


@kernel
def wanted_quantity(
    rules: Row, terms: Row, instrument: Row, market: Row, weight: float, equity: float
) -> float:
    """Units to hold, whole lots, at a price that costs leave affordable; NaN if not known yet.

    0 for a weight of 0 and for an equity that is not above 0.
    """
    if weight == 0.0 or not equity > 0.0:
        return 0.0
    value = notional(rules, terms, market, weight, equity)
    if math.isnan(value):
        return math.nan
    return cut_lots_down(value / worst_unit_cost(terms, instrument, market, value), instrument)


@kernel
def is_worth_it(
    changed: bool, held: float, wanted: float, unit_price: float, rules: Row, instrument: Row
) -> bool:
    """Whether the way from what is held to what is wanted is worth an order.

    A changed target is, from the instrument's `min_notional` on; an unchanged one only outside the
    no-trade band (a fraction of the target's notional). Closing is worth it at any size.

    Parameters
    ----------
    changed : whether the target is new.
    held, wanted : units, whole lots.
    unit_price : value of one unit, the book's currency.
    rules, instrument : `records.RULES` and `INSTRUMENT`.
    """
    if wanted == 0.0:
        return held != 0.0
    difference = abs(cut_lots(wanted - held, instrument)) * unit_price
    if not changed and difference <= rules.band * abs(wanted) * unit_price:
        return False
    return difference > 0.0 and difference >= instrument.min_notional


# -- configuration


def _check_common(band: float, retry_after: int) -> None:
    check_number("sizing.band", band, least=0)
    check_number("sizing.retry_after", retry_after, least=0, most=10**12, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSizing(Spelled):
    """A weight is a fraction of the strategy's equity.

    Parameters
    ----------
    band : no-trade band around an unchanged target, a fraction of the target's notional.
    retry_after : bars before a refused order is proposed again.
    split : whether a weight of 1 means an equal share of equity (so that a strategy at weight 1
        in each of its symbols is fully invested) or all of it.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    band: float = 0.05
    retry_after: int = 60
    split: bool = True

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant."""
        _check_common(self.band, self.retry_after)
        check_flag("sizing.split", self.split)

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the sizing decides; `share` is the engine's."""
        return {"sizing": WEIGHT, "band": self.band, "retry_after": self.retry_after}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolatilityTarget(Spelled):
    """A weight of 1 is as much of an equal share of equity as moves with a target volatility.

    Parameters
    ----------
    volatility : target, a fraction per year.
    most : largest multiple of the share, where a symbol hardly moves.
    band, retry_after, split : as of `WeightSizing`.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    volatility: float
    most: float = 1.0
    band: float = 0.05
    retry_after: int = 60
    split: bool = True

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant."""
        check_number("sizing.volatility", self.volatility, above=0)
        check_number("sizing.most", self.most, above=0)
        _check_common(self.band, self.retry_after)
        check_flag("sizing.split", self.split)

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the sizing decides; `share` is the engine's."""
        return {
            "sizing": VOLATILITY_TARGET, "amount": self.volatility, "most": self.most,
            "band": self.band, "retry_after": self.retry_after,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedNotional(Spelled):
    """A weight of 1 is a fixed value, whatever the equity.

    Parameters
    ----------
    notional : value of a weight of 1, the book's currency.
    band, retry_after : as of `WeightSizing`.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    notional: float
    band: float = 0.05
    retry_after: int = 60
    split: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant."""
        check_number("sizing.notional", self.notional, above=0)
        _check_common(self.band, self.retry_after)

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the sizing decides; `share` is the engine's."""
        return {
            "sizing": FIXED_NOTIONAL, "amount": self.notional,
            "band": self.band, "retry_after": self.retry_after,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPerTrade(Spelled):
    """A weight of 1 is the position that loses a fraction of equity when its stop is reached.

    Parameters
    ----------
    risk : what is lost then, a fraction of the strategy's equity.
    stop : distance of the stop from the entry, a fraction of the price.
    band, retry_after : as of `WeightSizing`.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    risk: float
    stop: float
    band: float = 0.05
    retry_after: int = 60
    split: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse keys that cannot be meant."""
        check_number("sizing.risk", self.risk, above=0, most=1)
        check_number("sizing.stop", self.stop, above=0, most=1)
        _check_common(self.band, self.retry_after)

    def rules(self) -> dict[str, float]:
        """Fields of `records.RULES` that the sizing decides, `most` the stop's distance."""
        return {
            "sizing": RISK_PER_TRADE, "amount": self.risk, "most": self.stop,
            "band": self.band, "retry_after": self.retry_after,
        }  # fmt: skip


Sizing = WeightSizing | VolatilityTarget | FixedNotional | RiskPerTrade
