"""Changes: the value of some bars ago, differences, returns, drawdown.

Input: an expression. Output: an expression; the value of a bar rests on it and on earlier ones.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression, Operation, as_expression
from sysquant.features.functions import log
from sysquant.features.windows import block, rolling_max
from sysquant.types import Floats


@kernel
def _lag(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: place in the ring; the last `bars` values.
    bars = int(params[0])
    place = int(state[0])
    ring = state[1:]
    for i in range(out.shape[0]):
        out[i] = ring[place]
        ring[place] = inputs[0, i]
        place += 1
        if place == bars:
            place = 0
    state[0] = place


@kernel
def _drawdown(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: the largest value so far.
    peak = state[0]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if np.isfinite(x):
            peak = max(peak, x)
            out[i] = x / peak - 1.0
        else:
            out[i] = np.nan
    state[0] = peak


_DRAWDOWN = Operation("drawdown", _drawdown, lambda: [-math.inf])


@indicator(_lag, first_state=lambda bars: block([0.0], bars))
def lag(x: Expression, bars: int = 1) -> Parts:
    """The value of `bars` bars ago.

    Parameters
    ----------
    x : any expression.
    bars : at least 1; there is no looking ahead.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `bars` bars, and where `x` was NaN then.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return (x,), (whole("bars", bars, 1),)


def returns(x: Expression, bars: int = 1) -> Expression:
    """Simple return over `bars` bars.

    Parameters
    ----------
    x : a price.
    bars : at least 1.

    Returns
    -------
    Expression, fraction; NaN in the first `bars` bars and where either price is NaN.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return as_expression(x) / lag(x, bars) - 1.0


def log_returns(x: Expression, bars: int = 1) -> Expression:
    """Logarithm of the price by that of `bars` bars ago: returns that add up over time.

    Parameters
    ----------
    x : a price.
    bars : at least 1.

    Returns
    -------
    Expression, continuously compounded, as a fraction; NaN in the first `bars` bars and where
    either price is NaN.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return log(as_expression(x) / lag(x, bars))


def diff(x: Expression, bars: int = 1) -> Expression:
    """Change of the value over `bars` bars.

    Parameters
    ----------
    x : any expression.
    bars : at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `bars` bars and where either value is NaN.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return as_expression(x) - lag(x, bars)


def drawdown(x: Expression, span: int | None = None) -> Expression:
    """Distance from the highest value so far, or of the last `span` bars, by that value.

    Parameters
    ----------
    x : a price or an equity, positive.
    span : bars, at least 1; without one, since the first bar.

    Returns
    -------
    Expression, fraction, 0 at most. With a span NaN in its first `span - 1` bars and while the
    window holds one; without, values that are not finite are skipped, and NaN.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. Magdon-Ismail, A. F. Atiya, Maximum drawdown, Risk 17 (2004).
    """
    if span is None:
        return Expression(_DRAWDOWN, [as_expression(x)])
    return as_expression(x) / rolling_max(x, span) - 1.0
