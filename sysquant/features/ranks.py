"""Order in a window: median, quantile, and the rank of the newest value.

Input: an expression and a span in bars. Output: an expression, NaN until the window is full and
while it holds a NaN. Causal: a window ends at its bar. Values are moved and compared, nothing is
added up, so nothing can drift.
"""

import numpy as np

from sysquant.compiled import inlined, kernel
from sysquant.features.arguments import whole, within
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression
from sysquant.features.windows import block
from sysquant.types import Floats


@inlined
def _place(ordered: Floats, low: int, high: int, value: float) -> int:
    # The first cell from `low` on, and before `high`, that is not below a value; else `high`.
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _replaced(ordered: Floats, size: int, old: float, new: float) -> int:
    # One value of a sorted window replaced by another; NaN is in none. Its new size.
    hole = size
    if old == old:
        hole = _place(ordered, 0, size, old)
        size -= 1
    place = size
    if new == new and hole < size and ordered[hole + 1] < new:
        place = _place(ordered, hole + 1, size + 1, new) - 1
    elif new == new:
        place = _place(ordered, 0, hole, new)
    between = ordered[hole : place + 1]
    for j in range(between.shape[0] - 1):  # none, if the hole is behind
        between[j] = between[j + 1]
    if new != new:
        return size
    for j in range(place, max(hole, place) + 1):
        ordered[j], new = new, ordered[j]
    return size + 1


@kernel
def _quantile(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: place in the ring; values in the window that are no NaN; the ring; the same, sorted.
    span = int(params[0])
    rank = params[1] * (span - 1)
    low, share = int(rank), rank - int(rank)
    place, size = int(state[0]), int(state[1])
    ring, ordered = state[2 : 2 + span], state[2 + span :]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        size = _replaced(ordered, size, ring[place], x)
        ring[place] = x
        place = place + 1 if place + 1 < span else 0
        if size < span:
            out[i] = np.nan
        elif share > 0.0:
            out[i] = ordered[low] + (ordered[low + 1] - ordered[low]) * share
        else:
            out[i] = ordered[low]
    state[0], state[1] = place, size


@kernel
def _rank(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: place in the ring; values since the last NaN (at most span); the ring.
    span = int(params[0])
    place, known = int(state[0]), int(state[1])
    ring = state[2:]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        ring[place] = x
        place = place + 1 if place + 1 < span else 0
        known = min(known + 1, span) if x == x else 0
        below, equal = 0, 0
        for j in range(span):
            below += ring[j] < x
            equal += ring[j] == x
        out[i] = (below + 0.5 * (equal + 1)) / span if known == span else np.nan
    state[0], state[1] = place, known


@indicator(_quantile, first_state=lambda span, _: block([0.0, 0.0], 2 * span))
def rolling_quantile(x: Expression, span: int, q: float) -> Parts:
    """Quantile of the last `span` values, linear between the two that are nearest.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1. A bar costs time in proportion to it where values jump.
    q : share of the values below, from 0 to 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1, or `q` outside.

    References
    ----------
    R. J. Hyndman, Y. Fan, Sample quantiles in statistical packages, The American Statistician 50
    (1996), definition 7. pandas, rolling.quantile.
    """
    return (x,), (whole("span", span, 1), within("q", q, 0.0, 1.0))


def rolling_median(x: Expression, span: int) -> Expression:
    """Median of the last `span` values, of an even number the mean of the two in the middle.

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
    pandas, rolling.median; it is `rolling_quantile` of 0.5.
    """
    return rolling_quantile(x, span, 0.5)


@indicator(_rank, first_state=lambda span: block([0.0, 0.0], span))
def rolling_rank(x: Expression, span: int) -> Parts:
    """Rank of the value among the last `span`, itself included, by their number.

    The smallest has 1 / span, the largest 1; equal values share the mean of their ranks.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1. A bar costs time in proportion to it.

    Returns
    -------
    Expression, fraction above 0; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    pandas, rolling.rank(method="average", pct=True).
    """
    return (x,), (whole("span", span, 1),)
