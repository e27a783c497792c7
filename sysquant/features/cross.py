"""Features across the universe: what a symbol is among all that have a bar at the same bar end.

Input: any expression. Output: expressions again, one value for each symbol and bar. A symbol
without a bar at that bar end, or whose value is NaN there, is left out, and its own is NaN.
"""

import numpy as np

from sysquant.compiled import inlined, kernel
from sysquant.features.expression import Expression, Operand, Operation, as_expression
from sysquant.types import Floats, Ints


@inlined
def _ranked(values: Floats, out: Floats) -> None:
    count, seen = 0, np.empty(len(values), np.int64)
    for i in np.argsort(values):  # NaN comes last
        if values[i] == values[i]:
            seen[count] = i
            count += 1
    first = 0
    for k in range(1, count + 1):
        if k == count or values[seen[k]] != values[seen[first]]:
            for j in range(first, k):
                out[seen[j]] = (first + 1 + k) / (2.0 * count)
            first = k


@inlined
def _summed(values: Floats, out: Floats, origin: float, is_mean: bool) -> None:
    # Of the distances from an origin close to the values, no digits are lost to their level.
    total, count = 0.0, 0.0
    for value in values:
        if value == value:
            total += value - origin
            count += 1.0
    for i in range(len(values)):
        if values[i] == values[i]:
            out[i] = (values[i] - origin) - total / count if is_mean else total


@inlined
def _first_known(values: Floats) -> float:
    for value in values:
        if value == value:
            return value
    return np.nan


@kernel
def _rank(values: Floats, starts: Ints, out: Floats) -> None:
    for k in range(len(starts) - 1):
        start, end = starts[k], starts[k + 1]
        _ranked(values[start:end], out[start:end])


@kernel
def _total(values: Floats, starts: Ints, out: Floats) -> None:
    for k in range(len(starts) - 1):
        start, end = starts[k], starts[k + 1]
        _summed(values[start:end], out[start:end], 0.0, False)


@kernel
def _demean(values: Floats, starts: Ints, out: Floats) -> None:
    for k in range(len(starts) - 1):
        start, end = starts[k], starts[k + 1]
        mark = values[start:end]
        _summed(mark, out[start:end], _first_known(mark), True)


@kernel
def _count_valid(values: Floats, starts: Ints, out: Floats) -> None:
    for k in range(len(starts) - 1):
        start, end = starts[k], starts[k + 1]
        out[start:end] = np.sum(values[start:end] == values[start:end])


_RANK = Operation("rank", across=_rank)
_DEMEAN = Operation("demean", across=_demean)
_TOTAL = Operation("total", across=_total)
_COUNT_VALID = Operation("count_valid", across=_count_valid)


def rank(x: Operand) -> Expression:
    """Place of the symbol's value among those of the universe at one bar end.

    Parameters
    ----------
    x : any expression.

    Returns
    -------
    Expression in (0, 1], a fraction of those that have a value: 1 for the largest; equal values
    share the mean of their places (pandas, `rank(pct=True)`). NaN where `x` is.
    """
    return Expression(_RANK, [as_expression(x)])


def demean(x: Operand) -> Expression:
    """Value less the mean over the universe at one bar end; in the unit of `x`, NaN where it is."""
    return Expression(_DEMEAN, [as_expression(x)])


def total(x: Operand) -> Expression:
    """Sum over the universe at one bar end; in the unit of `x`, NaN where the symbol's own is.

    `w / total(abs(w))` are weights whose sizes sum to 1.
    """
    return Expression(_TOTAL, [as_expression(x)])


def count_valid(x: Operand) -> Expression:
    """How many symbols have a value at one bar end; never NaN."""
    return Expression(_COUNT_VALID, [as_expression(x)])
