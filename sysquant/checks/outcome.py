"""What a check says: its value, whether it passes, and the room it leaves.

Input: a value and its limit. Output: (value, passes, room). Room is the largest |quantity| of the
order's side that would pass: never negative, never NaN, infinite where size does not matter.
"""

import math
from typing import TypeAlias

from sysquant.compiled import inlined

Outcome: TypeAlias = tuple[float, bool, float]


@inlined
def at_most(value: float, limit: float) -> Outcome:
    """Passes up to the limit, whatever the size."""
    passes = value <= limit
    return value, passes, math.inf if passes else 0.0


@inlined
def at_least(value: float, limit: float) -> Outcome:
    """Passes from the limit on, whatever the size."""
    passes = value >= limit
    return value, passes, math.inf if passes else 0.0


@inlined
def up_to(value: float, limit: float, room: float) -> Outcome:
    """Passes up to the limit; a room below 0, or not known, is none."""
    return value, value <= limit, room if room > 0.0 else 0.0


@inlined
def up_to_position(
    value: float, limit: float, capital: float, others: float, unit: float, held: float
) -> Outcome:
    """Passes up to the limit, where value is (others + |position| x unit) / capital.

    Parameters
    ----------
    held : units of the position before the order, counted in the order's direction.
    """
    left = limit * capital - others
    room = left / unit - held
    has_room = capital > 0.0 and left >= 0.0 and room > 0.0
    return value, value <= limit, room if has_room else 0.0


@inlined
def share(amount: float, capital: float) -> float:
    """Fraction of capital; infinite where there is none."""
    return math.inf if capital <= 0.0 else amount / capital


@inlined
def loss(now: float, before: float) -> float:
    """Fraction of what was there before that is gone; infinite where nothing was there."""
    return math.inf if before <= 0.0 else 1.0 - now / before
