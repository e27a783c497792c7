"""Whole lots and whole ticks: numbers cut to multiples of a step.

Input: a number, and a step or the instrument whose lots or ticks are meant. Output: the multiple.
How many steps make one is known beforehand: an order is cut some twenty times, and to divide is
most of it.
"""

import math

import numpy as np

from sysquant.compiled import inlined, kernel
from sysquant.records import Row


@kernel
def per_unit(step: float) -> float:
    """How many steps make one, where that is a whole number of several; else 0."""
    if step >= 1.0:
        return 0.0
    count = np.rint(1.0 / step)
    return count if abs(count * step - 1.0) < 1e-9 else 0.0


@inlined
def _cut(value: float, step: float, per_unit_: float) -> float:
    if per_unit_ > 0.0:
        return np.rint(value * per_unit_) / per_unit_
    return np.rint(value / step) * step


@inlined
def _cut_down(value: float, step: float, per_unit_: float) -> float:
    size = abs(value)
    nearest = _cut(size, step, per_unit_)
    if nearest > size:
        nearest = _cut(nearest - step, step, per_unit_)
    return math.copysign(nearest, value)


@inlined
def _steps(price: float, tick: float, side: float) -> float:
    # Whole ticks not below (side 1) or not above (-1) a price. What a product of floats misses a
    # tick by is no reason for another one.
    ticks = side * price / tick
    return side * np.ceil(ticks - (1e-9 + 1e-15 * abs(ticks)))


@inlined
def _round(price: float, tick: float, per_unit_: float, side: float) -> float:
    ticks = _steps(price, tick, side)
    return tick if ticks < 1.0 else _cut(ticks * tick, tick, per_unit_)


# -- of any step


@kernel
def cut(value: float, step: float) -> float:
    """Nearest multiple of `step`, half to even; exact in decimals for steps such as 0.01."""
    return _cut(value, step, per_unit(step))


@kernel
def cut_down(value: float, step: float) -> float:
    """Largest multiple of `step` that is not further from zero than `value`."""
    return _cut_down(value, step, per_unit(step))


@kernel
def round_up(price: float, tick: float) -> float:
    """Lowest multiple of `tick` that is not below `price`, at least one tick."""
    return _round(price, tick, per_unit(tick), 1.0)


@kernel
def round_down(price: float, tick: float) -> float:
    """Highest multiple of `tick` that is not above `price`, at least one tick."""
    return _round(price, tick, per_unit(tick), -1.0)


# -- of cash and of an instrument


@inlined
def cut_cash(amount: float) -> float:
    """`cut` to 1e-8, the step of cash."""
    return np.rint(amount * 1e8) / 1e8


def steps_of(tick_size: float, lot_size: float) -> dict[str, float]:
    """Fields of `records.INSTRUMENT` that the functions below read."""
    return {
        "tick_size": tick_size, "ticks_per_unit": per_unit(tick_size),
        "lot_size": lot_size, "lots_per_unit": per_unit(lot_size),
    }  # fmt: skip


@inlined
def cut_lots(quantity: float, instrument: Row) -> float:
    """`cut` to the instrument's lots."""
    return _cut(quantity, instrument.lot_size, instrument.lots_per_unit)


@inlined
def cut_lots_down(quantity: float, instrument: Row) -> float:
    """`cut_down` to the instrument's lots."""
    return _cut_down(quantity, instrument.lot_size, instrument.lots_per_unit)


@inlined
def tick_beyond(price: float, side: float, instrument: Row) -> float:
    """The tick at or beyond a price: not below it for a side of 1, not above it for -1."""
    return _round(price, instrument.tick_size, instrument.ticks_per_unit, side)
