"""Two expressions in one window: covariance, correlation, slope.

Input: two expressions and a span in bars. Output: an expression, NaN until the window is full and
while it holds a NaN. Causal: a window ends at its bar. The windows are those of `windows`, with
moments of both, each about an origin close to its values, so that no digits are lost to their
level.
"""

import math

import numpy as np

from sysquant.compiled import inlined, kernel, part
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression
from sysquant.features.windows import block
from sysquant.types import Floats


@inlined
def _added(
    count: float, x: float, y: float, mx: float, my: float, xx: float, yy: float, xy: float
) -> tuple[float, float, float, float, float]:
    # Means, and sums of squares and products about them, with one more pair, the `count`th.
    dx, dy, share = x - mx, y - my, 1.0 / count
    mx += dx * share
    my += dy * share
    return mx, my, xx + dx * (x - mx), yy + dy * (y - my), xy + dx * (y - my)


@part
def _moments(state: Floats, inputs: Floats, span: int, out: Floats, kind: int, ddof: float) -> None:
    # state: place in the block; origins; means, squares and product of the prefix; (5, span): the
    # same of the suffixes, raw values before. kind: 0 covariance, 1 correlation, 2 slope of x on y.
    place, ox, oy = int(state[0]), state[1], state[2]
    mx, my, xx, yy, xy = state[3], state[4], state[5], state[6], state[7]
    cells = state[8:].reshape(5, span)
    for i in range(out.shape[0]):
        x, y = inputs[0, i], inputs[1, i]
        ox = ox if np.isfinite(ox) else x
        oy = oy if np.isfinite(oy) else y
        cells[0, place], cells[1, place] = x, y
        place += 1
        mx, my, xx, yy, xy = _added(place, x - ox, y - oy, mx, my, xx, yy, xy)
        sxx, syy, sxy = xx, yy, xy
        if place < span:
            gx, gy = cells[0, place] - mx, cells[1, place] - my
            weight = place * ((span - place) / span)
            sxx += cells[2, place] + gx * gx * weight
            syy += cells[3, place] + gy * gy * weight
            sxy += cells[4, place] + gx * gy * weight
        else:
            ox, oy = _suffixes(cells, ox, oy)
            place, mx, my, xx, yy, xy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
        if kind == 0:
            out[i] = sxy / (span - ddof)
        elif kind == 1:
            out[i] = min(max(sxy / (np.sqrt(sxx) * np.sqrt(syy)), -1.0), 1.0)
        else:
            out[i] = sxy / syy
    state[0], state[1], state[2] = place, ox, oy
    state[3], state[4], state[5], state[6], state[7] = mx, my, xx, yy, xy


@part
def _suffixes(cells: Floats, ox: float, oy: float) -> tuple[float, float]:
    # From the raw values of a complete block to the moments of every suffix, right to left, about
    # the origins of the next block, which are returned.
    span = cells.shape[1]
    ox = cells[0, span - 1] if np.isfinite(cells[0, span - 1]) else ox
    oy = cells[1, span - 1] if np.isfinite(cells[1, span - 1]) else oy
    mx, my, xx, yy, xy = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(span - 1, -1, -1):
        x, y = cells[0, j] - ox, cells[1, j] - oy
        mx, my, xx, yy, xy = _added(span - j, x, y, mx, my, xx, yy, xy)
        cells[0, j], cells[1, j], cells[2, j], cells[3, j], cells[4, j] = mx, my, xx, yy, xy
    return ox, oy


@kernel
def _covariance(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _moments(state, inputs, int(params[0]), out, 0, params[1])


@kernel
def _correlation(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _moments(state, inputs, int(params[0]), out, 1, 0.0)


@kernel
def _slope(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _moments(state, inputs, int(params[0]), out, 2, 0.0)


def _first_state(span: float, *_: float) -> list[float]:
    return block([0.0, math.nan, math.nan, 0.0, 0.0, 0.0, 0.0, 0.0], 5 * span)


@indicator(_covariance, first_state=_first_state)
def rolling_covariance(x: Expression, y: Expression, span: int, ddof: int = 1) -> Parts:
    """Covariance of the last `span` pairs of values.

    Parameters
    ----------
    x, y : any expressions.
    span : bars, more than `ddof`.
    ddof : subtracted from `span` in the divisor: 1 for the estimate from a sample, 0 for the
        population.

    Returns
    -------
    Expression in the unit of `x` times that of `y`, per bar; NaN in the first `span - 1` bars and
    while the window holds one.

    Raises
    ------
    ConfigError
        If `ddof` is negative or `span` does not exceed it.

    References
    ----------
    As of `std`. pandas, rolling.cov.
    """
    ddof = whole("ddof", ddof, 0)
    return (x, y), (whole("span", span, ddof + 1), ddof)


@indicator(_correlation, first_state=_first_state)
def rolling_correlation(x: Expression, y: Expression, span: int) -> Parts:
    """Correlation (Pearson's) of the last `span` pairs of values.

    Parameters
    ----------
    x, y : any expressions; returns rather than prices, for two walks correlate by chance.
    span : bars, at least 2.

    Returns
    -------
    Expression in [-1, 1]; NaN in the first `span - 1` bars, while the window holds one, and where
    all values of either are equal.

    Raises
    ------
    ConfigError
        If `span` is below 2.

    References
    ----------
    As of `std`. pandas, rolling.corr; TA-Lib, function CORREL.
    """
    return (x, y), (whole("span", span, 2),)


@indicator(_slope, first_state=_first_state)
def rolling_beta(y: Expression, x: Expression, span: int) -> Parts:
    """Slope of `y` on `x` over the last `span` pairs of values, by least squares.

    Parameters
    ----------
    y : what is explained, e.g. returns of the symbol.
    x : what explains it, e.g. returns of the market.
    span : bars, at least 2.

    Returns
    -------
    Expression in the unit of `y` by that of `x`; NaN in the first `span - 1` bars, while the window
    holds one, and where all values of `x` are equal.

    Raises
    ------
    ConfigError
        If `span` is below 2.

    References
    ----------
    As of `std`. W. F. Sharpe, A simplified model for portfolio analysis, Management Science 9
    (1963). TA-Lib's BETA is one of returns, which it takes itself.
    """
    return (y, x), (whole("span", span, 2),)
