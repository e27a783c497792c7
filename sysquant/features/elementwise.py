"""Compiled arithmetic, comparison and logic: one value in, one value out, no state.

Input and output as of every kernel, see `indicator`. Truth is 1.0 and falsehood 0.0; a comparison
or a logical operation with a NaN on either side is NaN, because nothing is known. Built on no array
functions: the same machine code sees one bar and a million.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.types import Floats


@kernel
def constant(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """The parameter, in every bar."""
    out[:] = params[0]


@kernel
def add(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Sum."""
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] + inputs[1, i]


@kernel
def sub(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Difference."""
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] - inputs[1, i]


@kernel
def mul(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Product."""
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] * inputs[1, i]


@kernel
def div(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Quotient; of zero inf or NaN."""
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] / inputs[1, i]


@kernel
def power(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """First to the power of the second."""
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] ** inputs[1, i]


@kernel
def absolute(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Absolute value."""
    for i in range(out.shape[0]):
        out[i] = abs(inputs[0, i])


@kernel
def exp(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Exponential."""
    for i in range(out.shape[0]):
        out[i] = math.exp(inputs[0, i])


@kernel
def log(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Natural logarithm; of zero -inf, of a negative NaN."""
    for i in range(out.shape[0]):
        out[i] = np.log(inputs[0, i])


@kernel
def sqrt(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Square root; of a negative NaN."""
    for i in range(out.shape[0]):
        out[i] = np.sqrt(inputs[0, i])


@kernel
def tanh(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Hyperbolic tangent."""
    for i in range(out.shape[0]):
        out[i] = math.tanh(inputs[0, i])


@kernel
def sign(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """-1, 0 or 1."""
    for i in range(out.shape[0]):
        out[i] = np.sign(inputs[0, i])


@kernel
def _truth(left: float, right: float, verdict: bool) -> float:
    # A verdict about an unknown is unknown.
    if left != left or right != right:
        return np.nan
    return 1.0 if verdict else 0.0


@kernel
def gt(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """First greater than second."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left > right)


@kernel
def ge(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """First greater than second, or equal."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left >= right)


@kernel
def eq(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Equal."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left == right)


@kernel
def ne(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Not equal."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left != right)


@kernel
def both(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Both are not zero."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left != 0.0 and right != 0.0)


@kernel
def either(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """One at least is not zero."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = _truth(left, right, left != 0.0 or right != 0.0)


@kernel
def negate(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Is zero."""
    for i in range(out.shape[0]):
        out[i] = _truth(inputs[0, i], 0.0, inputs[0, i] == 0.0)


@kernel
def isnan(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Is NaN: never NaN itself."""
    for i in range(out.shape[0]):
        out[i] = 1.0 if inputs[0, i] != inputs[0, i] else 0.0


@kernel
def where(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Second where the first is not zero, else third; NaN where the first is."""
    for i in range(out.shape[0]):
        condition = inputs[0, i]
        if condition != condition:
            out[i] = condition
        else:
            out[i] = inputs[1, i] if condition != 0.0 else inputs[2, i]


@kernel
def maximum(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Larger of two."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = left if left > right or left != left else right


@kernel
def minimum(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Smaller of two."""
    for i in range(out.shape[0]):
        left, right = inputs[0, i], inputs[1, i]
        out[i] = left if left < right or left != left else right
