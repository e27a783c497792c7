"""The simulated broker: when an order arrives, at which price it fills, what that costs.

Every random draw is a function of run seed, strategy and order number alone: a replay repeats it,
and another strategy in the book does not change it.
"""

import hashlib
import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.errors import ConfigError
from sysquant.records import Row

_MOST_SIGMA = 3.0
_MOST_LATENCY_MS = 86_400_000.0
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def uniform(seed: int, key: int, order_no: int, draw: int) -> float:
    """Draw number `draw` of one order, in (0, 1), from a counter and no state.

    References
    ----------
    Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64).
    """
    x = _mix(np.uint64(seed) + _GOLDEN)
    x = _mix((x ^ np.uint64(key)) + _GOLDEN)
    x = _mix((x ^ np.uint64(order_no)) + _GOLDEN)
    x = _mix((x ^ np.uint64(draw)) + _GOLDEN)
    return (np.float64(x >> np.uint64(11)) + 0.5) * 2.0**-53


@kernel
def latency(terms: Row, key: int, order_no: int) -> int:
    """Nanoseconds from decision to broker: lognormal about the median, or fixed."""
    if terms.latency_sigma == 0.0:
        return int(terms.latency_ns)
    radius = math.sqrt(-2.0 * math.log(uniform(terms.seed, key, order_no, 0)))
    z = radius * math.cos(2.0 * math.pi * uniform(terms.seed, key, order_no, 1))
    return int(min(terms.latency_ns * math.exp(terms.latency_sigma * z), _MOST_LATENCY_MS * 1e6))


@kernel
def cut(value: float, step: float) -> float:
    """Nearest multiple of `step`; exact in decimals for steps such as 0.01."""
    if step < 1.0:
        per_unit = round(1.0 / step)
        if abs(per_unit * step - 1.0) < 1e-9:
            return round(value * per_unit) / per_unit
    return round(value / step) * step


@kernel
def cut_down(value: float, step: float) -> float:
    """Largest multiple of `step` that is not further from zero than `value`."""
    lots = math.floor(abs(value) / step)
    return math.copysign(cut(lots * step, step), value)


@kernel
def fill_price(reference: float, quantity: float, slippage: float, tick_size: float) -> float:
    """Price of a market order: `slippage` (a fraction) against the trader, then the next tick."""
    side = math.copysign(1.0, quantity)
    ticks = reference * (1.0 + side * slippage) / tick_size * side
    return cut(side * math.ceil(ticks - 1e-9) * tick_size, tick_size)


@kernel
def worst_cash(price: float, quantity: float, terms: Row, tick_size: float) -> float:
    """Cash that an order at `price` moves at the worst, fee included; positive when paid."""
    side = math.copysign(1.0, quantity)
    worst = price * (1.0 + side * terms.slippage) + side * tick_size
    return quantity * worst + abs(quantity) * worst * terms.fee


def order_key(strategy: str) -> int:
    """The key of a strategy's random draws: a hash of its name, non-negative int64."""
    return int.from_bytes(hashlib.sha256(strategy.encode()).digest()[:8], "big") >> 1


class Execution:
    """Terms of the simulated broker for market orders.

    Parameters
    ----------
    latency_ms : from decision to broker, median.
    latency_sigma : standard deviation of its logarithm; 0 makes it fixed.
    slippage_bps : paid against the last trade, basis points.
    fee_bps : taker fee of the traded value, basis points.

    Raises
    ------
    ConfigError
        If one is negative or not finite.
    """

    def __init__(
        self,
        *,
        latency_ms: float = 50.0,
        latency_sigma: float = 0.0,
        slippage_bps: float = 1.0,
        fee_bps: float = 5.0,
    ) -> None:
        for name, value in [*locals().items()]:
            if name != "self" and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"execution.{name} must be >= 0 and finite, was {value}")
        if latency_sigma > _MOST_SIGMA or latency_ms > _MOST_LATENCY_MS:
            raise ConfigError(
                f"execution.latency_sigma must be <= {_MOST_SIGMA} and latency_ms at most a day, "
                f"were {latency_sigma} and {latency_ms}"
            )
        self.latency_ns = round(latency_ms * 1e6)
        self.latency_sigma = latency_sigma
        self.slippage = slippage_bps * 1e-4
        self.fee = fee_bps * 1e-4
