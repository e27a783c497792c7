"""From target weight to target quantity, and whether the difference is worth an order."""

import math

from sysquant.compiled import kernel
from sysquant.errors import ConfigError
from sysquant.execution import cut_down, worst_cash
from sysquant.records import Row


@kernel
def target_quantity(
    weight: float, equity: float, price: float, terms: Row, instrument: Row
) -> float:
    """Units to hold: the weight's share of equity, at a price that costs leave affordable."""
    if weight == 0.0 or not equity > 0.0:
        return 0.0
    unit = worst_cash(price, 1.0, terms, instrument.tick_size)
    return cut_down(weight * terms.share * equity / unit, instrument.lot_size)


@kernel
def is_worth_it(
    changed: bool, quantity: float, wanted: float, price: float, terms: Row, min_notional: float
) -> bool:
    """Whether the way from what is held to what is wanted is worth an order.

    A changed target is, from `min_notional` on; an unchanged one only outside the no-trade band
    (a fraction of the target's notional). Closing is worth it at any size.
    """
    notional = abs(wanted - quantity) * price
    if wanted == 0.0:
        return quantity != 0.0
    if not changed and notional <= terms.band * abs(wanted) * price:
        return False
    return notional >= min_notional


class WeightSizing:
    """Weights of a strategy's equity, an equal share of it for each of its symbols.

    Parameters
    ----------
    band : no-trade band around an unchanged target, a fraction of the target's notional.
    retry_after : bars before a refused order is proposed again.
    split : whether a weight of 1 means an equal share of equity (so that a strategy at weight 1
        in each of its symbols is fully invested) or all of it.

    Raises
    ------
    ConfigError
        If `band` or `retry_after` is negative or not finite.
    """

    def __init__(self, *, band: float = 0.05, retry_after: int = 60, split: bool = True) -> None:
        for name, value in {"band": band, "retry_after": retry_after}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"sizing.{name} must be >= 0 and finite, was {value}")
        self.band = band
        self.retry_after = retry_after
        self.split = split
