"""Compiled arithmetic, comparison and logic: values of one bar in, one value out, no state.

Input: the number of an operation, its parameter, and where the values lie that it is done to.
Output: a row of values. Truth is 1.0 and falsehood 0.0; a comparison or a logical operation with a
NaN on either side is NaN, because nothing is known. They are cases of one function, for to call one
costs more than what it does. Built on no array functions: the same machine code sees one bar and a
million.
"""

import math

import numpy as np

from sysquant.compiled import inlined
from sysquant.types import Floats

CONSTANT, ADD, SUB, MUL, DIV, POWER = range(6)
ABS, EXP, LOG, SQRT, TANH, SIGN, ISNAN = range(6, 13)
GT, GE, EQ, NE, BOTH, EITHER, NOT = range(13, 20)
WHERE, MAXIMUM, MINIMUM = range(20, 23)


@inlined
def operate(
    code: int, cells: Floats, x: int, y: int, z: int, number: float, out: int, bars: int
) -> None:
    """One operation on every bar.

    Parameters
    ----------
    code : of the operation.
    cells : all values.
    x, y, z : places in `cells` where what it is done to begins; what it does not take is not read.
    number : its parameter.
    out : place where its values begin.
    bars : how many there are.
    """
    if code < ABS:
        _arithmetic(code, cells, x, y, number, out, bars)
    elif code < GT:
        _function(code, cells, x, out, bars)
    elif code < WHERE:
        _verdict(code, cells, x, y, out, bars)
    else:
        _choice(code, cells, x, y, z, out, bars)


@inlined
def _arithmetic(
    code: int, cells: Floats, x: int, y: int, number: float, out: int, bars: int
) -> None:
    # A quotient of zero is inf or NaN.
    for i in range(bars):
        left, right = cells[x + i], cells[y + i]
        if code == CONSTANT:
            value = number
        elif code == ADD:
            value = left + right
        elif code == SUB:
            value = left - right
        elif code == MUL:
            value = left * right
        elif code == DIV:
            value = left / right
        else:
            value = left**right
        cells[out + i] = value


@inlined
def _function(code: int, cells: Floats, x: int, out: int, bars: int) -> None:
    # The logarithm of zero is -inf; it and the root of what is negative are NaN.
    for i in range(bars):
        value = cells[x + i]
        if code == ABS:
            value = abs(value)
        elif code == EXP:
            value = math.exp(value)
        elif code == LOG:
            value = np.log(value)
        elif code == SQRT:
            value = np.sqrt(value)
        elif code == TANH:
            value = math.tanh(value)
        elif code == SIGN:
            value = np.sign(value)
        else:
            value = 1.0 if value != value else 0.0
        cells[out + i] = value


@inlined
def _verdict(code: int, cells: Floats, x: int, y: int, out: int, bars: int) -> None:
    # A verdict about an unknown is unknown.
    for i in range(bars):
        left, right = cells[x + i], cells[y + i]
        if code == GT:
            verdict = left > right
        elif code == GE:
            verdict = left >= right
        elif code == EQ:
            verdict = left == right
        elif code == NE:
            verdict = left != right
        elif code == BOTH:
            verdict = left != 0.0 and right != 0.0
        elif code == EITHER:
            verdict = left != 0.0 or right != 0.0
        else:
            verdict, right = left == 0.0, left
        known = 1.0 if verdict else 0.0
        cells[out + i] = np.nan if left != left or right != right else known


@inlined
def _choice(code: int, cells: Floats, x: int, y: int, z: int, out: int, bars: int) -> None:
    # Second where the first is not zero, else third, NaN where the first is; the larger, or the
    # smaller of two.
    for i in range(bars):
        one, other = cells[x + i], cells[y + i]
        if code == WHERE:
            chosen = other if one != 0.0 else cells[z + i]
            chosen = chosen if one == one else np.nan
        elif code == MAXIMUM:
            chosen = one if one > other or one != one else other
        else:
            chosen = one if one < other or one != one else other
        cells[out + i] = chosen
