"""Compiled arithmetic, comparison and logic: values of one bar in, one value out, no state.

Input: the number of an operation, a row of values for each of what it is done to, and its
parameter. Output: a row. Truth is 1.0 and falsehood 0.0; a comparison or a logical operation with a
NaN on either side is NaN, because nothing is known. They are cases of one function, for to call one
costs more than what it does. Built on no array functions: the same machine code sees one bar and a
million.
"""

import math

import numpy as np

from sysquant.compiled import inlined, part
from sysquant.types import Floats

CONSTANT, ADD, SUB, MUL, DIV, POWER = range(6)
ABS, EXP, LOG, SQRT, TANH, SIGN, ISNAN = range(6, 13)
GT, GE, EQ, NE, BOTH, EITHER, NOT = range(13, 20)
WHERE, MAXIMUM, MINIMUM = range(20, 23)


@part
def operate(code: int, x: Floats, y: Floats, z: Floats, number: float, out: Floats) -> None:
    """One operation on every bar.

    Parameters
    ----------
    code : of the operation.
    x, y, z : (n,) what it is done to; what it does not take is not read.
    number : its parameter.
    out : (n,), written.
    """
    if code < ABS:
        _arithmetic(code, x, y, number, out)
    elif code < GT:
        _function(code, x, out)
    elif code < WHERE:
        _verdict(code, x, y, out)
    else:
        _choice(code, x, y, z, out)


@inlined
def _arithmetic(code: int, x: Floats, y: Floats, number: float, out: Floats) -> None:
    # A quotient of zero is inf or NaN.
    if code == CONSTANT:
        for i in range(out.shape[0]):
            out[i] = number
    elif code == ADD:
        for i in range(out.shape[0]):
            out[i] = x[i] + y[i]
    elif code == SUB:
        for i in range(out.shape[0]):
            out[i] = x[i] - y[i]
    elif code == MUL:
        for i in range(out.shape[0]):
            out[i] = x[i] * y[i]
    elif code == DIV:
        for i in range(out.shape[0]):
            out[i] = x[i] / y[i]
    else:
        for i in range(out.shape[0]):
            out[i] = x[i] ** y[i]


@inlined
def _function(code: int, x: Floats, out: Floats) -> None:
    # The logarithm of zero is -inf; it and the root of what is negative are NaN.
    for i in range(out.shape[0]):
        value = x[i]
        if code == ABS:
            out[i] = abs(value)
        elif code == EXP:
            out[i] = math.exp(value)
        elif code == LOG:
            out[i] = np.log(value)
        elif code == SQRT:
            out[i] = np.sqrt(value)
        elif code == TANH:
            out[i] = math.tanh(value)
        elif code == SIGN:
            out[i] = np.sign(value)
        else:
            out[i] = 1.0 if value != value else 0.0


@inlined
def _verdict(code: int, x: Floats, y: Floats, out: Floats) -> None:
    # A verdict about an unknown is unknown.
    for i in range(out.shape[0]):
        left, right = x[i], y[i]
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
        out[i] = np.nan if left != left or right != right else known


@inlined
def _choice(code: int, x: Floats, y: Floats, z: Floats, out: Floats) -> None:
    # Second where the first is not zero, else third, NaN where the first is; the larger, or the
    # smaller of two.
    if code == WHERE:
        for i in range(out.shape[0]):
            chosen = y[i] if x[i] != 0.0 else z[i]
            out[i] = chosen if x[i] == x[i] else np.nan
    elif code == MAXIMUM:
        for i in range(out.shape[0]):
            out[i] = x[i] if x[i] > y[i] or x[i] != x[i] else y[i]
    else:
        for i in range(out.shape[0]):
            out[i] = x[i] if x[i] < y[i] or x[i] != x[i] else y[i]
