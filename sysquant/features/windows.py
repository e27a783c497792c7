"""Windows: sums, deviations and extremes of the last `span` values.

Input: an expression and a span in bars. Output: an expression, NaN until the window is full and
while it holds a NaN. Causal: a window ends at its bar.

Windows use the two-block scheme of van Herk and Gil-Werman: the window is the suffix of the last
complete block and the prefix of the present one. Nothing is ever subtracted again, so rounding
cannot drift and a NaN leaves with its bar. A block starts filled with NaN: that is the warm-up.
"""

import math
from collections.abc import Sequence

import numpy as np

from sysquant.compiled import inlined, kernel, part
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression
from sysquant.types import Floats


def block(head: Sequence[float], cells: float, cell: float = math.nan) -> list[float]:
    """First state of a window: some numbers, then a block (or several) that is not complete yet."""
    return [*head, *[cell] * int(cells)]


@inlined
def sums(state: Floats, inputs: Floats, span: int, divisor: float, out: Floats) -> None:
    """Sum of a window, divided; its state is a `block` after two numbers."""
    # state: place in the block; sum of its prefix; suffix sums behind it, raw values before.
    place, prefix = int(state[0]), state[1]
    cells = state[2:]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        cells[place] = x
        prefix += x
        place += 1
        if place < span:
            out[i] = (cells[place] + prefix) / divisor
        else:
            out[i], prefix = prefix / divisor, 0.0
            for j in range(span - 1, -1, -1):
                prefix += cells[j]
                cells[j] = prefix
            place, prefix = 0, 0.0
    state[0], state[1] = place, prefix


@kernel
def _sum(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    sums(state, inputs, int(params[0]), 1.0, out)


@kernel
def _std(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _deviations(state, inputs, params, out, False)


@kernel
def _zscore(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _deviations(state, inputs, params, out, True)


@part
def _deviations(state: Floats, inputs: Floats, params: Floats, out: Floats, is_score: bool) -> None:
    # state: place in the block; origin; mean and sum of squares about it (M2) of the prefix; the
    # same of the suffixes. All values are taken from an origin close to them, so that no digits
    # are lost to their level. Quotients off the chain from mean to mean, for speed.
    span = int(params[0])
    freedom, share = span - params[1], 1.0 / span
    place, origin, mean, squares = int(state[0]), state[1], state[2], state[3]
    means, squared = state[4 : 4 + span], state[4 + span :]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(origin):
            origin = x
        means[place] = x
        x -= origin
        place += 1
        step = x - mean
        mean += step * (1.0 / place)
        squares += step * (x - mean)
        centre, total = mean, squares
        if place < span:
            gap = means[place] - mean
            rest = (span - place) * share
            centre += gap * rest
            total += squared[place] + gap * gap * (place * rest)
        else:
            origin = _suffix_moments(means, squared, origin)
            place, mean, squares = 0, 0.0, 0.0
        deviation = np.sqrt(total / freedom)
        out[i] = (x - centre) / deviation if is_score else deviation
    state[0], state[1], state[2], state[3] = place, origin, mean, squares


@part
def _suffix_moments(means: Floats, squared: Floats, origin: float) -> float:
    # From the raw values of a complete block to mean and M2 of every suffix, right to left, about
    # the origin of the next block, which is returned.
    span = means.shape[0]
    if np.isfinite(means[span - 1]):
        origin = float(means[span - 1])
    mean, squares = 0.0, 0.0
    for j in range(span - 1, -1, -1):
        x = means[j] - origin
        step = x - mean
        mean += step * (1.0 / (span - j))
        squares += step * (x - mean)
        means[j], squared[j] = mean, squares
    return origin


@kernel
def _max(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _extremes(state, inputs, params, out, 1.0)


@kernel
def _min(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _extremes(state, inputs, params, out, -1.0)


@part
def _extremes(state: Floats, inputs: Floats, params: Floats, out: Floats, sign: float) -> None:
    # state: place; values since the last NaN (at most span); largest of the prefix; of the
    # suffixes, and a cell for what is behind them. Here a NaN is counted, not compared: a
    # comparison would lose it. Block by block: within one, nothing is asked but what is largest.
    span, count = int(params[0]), out.shape[0]
    place, known, largest = int(state[0]), int(state[1]), state[2]
    cells = state[3:]
    done = 0
    while done < count:
        bars = min(span - place, count - done)
        given, values = inputs[0, done : done + bars], out[done : done + bars]
        prefix, suffix = cells[place : place + bars], cells[place + 1 : place + 1 + bars]
        for i in range(bars):
            x: float = sign * given[i]
            known += 1
            if x != x:
                x, known = -math.inf, 0
            prefix[i] = x
            largest = max(x, largest)
            values[i] = sign * max(suffix[i], largest) if known >= span else np.nan
        place, done = place + bars, done + bars
        if place == span:
            largest = -np.inf
            for j in range(span - 1, -1, -1):
                largest = max(cells[j], largest)
                cells[j] = largest
            place, largest = 0, -np.inf
    state[0], state[1], state[2] = place, min(known, span), largest


def _extreme_state(span: float) -> list[float]:
    return block([0.0, 0.0, -math.inf], span + 1, -math.inf)


def _moment_state(span: float, _ddof: float) -> list[float]:
    return block([0.0, math.nan, 0.0, 0.0], 2 * span)


@indicator(_sum, first_state=lambda span: block([0.0, 0.0], span))
def rolling_sum(x: Expression, span: int) -> Parts:
    """Sum of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    TA-Lib, function SUM; the window is that of `rolling_max`, with sums.
    """
    return (x,), (whole("span", span, 1),)


@indicator(_std, first_state=_moment_state)
def std(x: Expression, span: int, ddof: int = 1) -> Parts:
    """Standard deviation of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, more than `ddof`.
    ddof : subtracted from `span` in the divisor: 1 for the estimate from a sample (pandas), 0 for
        the population (TA-Lib, function STDDEV).

    Returns
    -------
    Expression in the unit of `x`, per bar, not annualised; NaN in the first `span - 1` bars and
    while the window holds one. Exactly 0 on equal values.

    Raises
    ------
    ConfigError
        If `ddof` is negative or `span` does not exceed it.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for
    computing sample variances, Stanford STAN-CS-79-773, 1979.
    """
    ddof = whole("ddof", ddof, 0)
    return (x,), (whole("span", span, ddof + 1), ddof)


@indicator(_zscore, first_state=_moment_state)
def zscore(x: Expression, span: int, ddof: int = 1) -> Parts:
    """Distance of the value from the mean of its last `span`, in their standard deviations.

    Parameters
    ----------
    x : any expression.
    span : bars, more than `ddof`.
    ddof : see `std`.

    Returns
    -------
    Expression, no unit; NaN in the first `span - 1` bars, while the window holds one, and where
    all its values are equal.

    Raises
    ------
    ConfigError
        If `ddof` is negative or `span` does not exceed it.
    """
    ddof = whole("ddof", ddof, 0)
    return (x,), (whole("span", span, ddof + 1), ddof)


@indicator(_max, first_state=_extreme_state)
def rolling_max(x: Expression, span: int) -> Parts:
    """Largest of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. van Herk, Pattern Recognition Letters 13 (1992); J. Gil, M. Werman, Computing 2-D min,
    median, and max filters, IEEE PAMI 15 (1993).
    """
    return (x,), (whole("span", span, 1),)


@indicator(_min, first_state=_extreme_state)
def rolling_min(x: Expression, span: int) -> Parts:
    """Smallest of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    As of `rolling_max`.
    """
    return (x,), (whole("span", span, 1),)
