"""Checks of what indicators are given: spans in bars, numbers in a range.

Input: a parameter and its name. Output: the same as a number, or a ConfigError with the value it
was.
"""

import math
from numbers import Real

from sysquant.errors import ConfigError


def whole(name: str, value: int, least: int) -> int:
    """A whole number of bars.

    Parameters
    ----------
    name : of the parameter, for the error.
    value : what was given.
    least : smallest that can be meant.

    Raises
    ------
    ConfigError
        If it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise ConfigError(f"{name} must be a whole number of bars >= {least}, was {value!r}")
    return int(value)


def within(name: str, value: float, lowest: float, highest: float = math.inf) -> float:
    """A number between two bounds, both included; never infinite.

    Parameters
    ----------
    name : of the parameter, for the error.
    value : what was given.
    lowest, highest : bounds.

    Raises
    ------
    ConfigError
        If it is no number, or outside.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= highest or math.isinf(value):
        bounds = f">= {lowest:g}" if math.isinf(highest) else f"from {lowest:g} to {highest:g}"
        raise ConfigError(f"{name} must be a number {bounds}, was {value!r}")
    return float(value)
