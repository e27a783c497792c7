"""Functions of expressions without memory: `where`, `minimum`, `exp` and the like.

Each is also what the numpy function of the same name does to an expression. NaN in, NaN out,
except where said otherwise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sysquant.features import elementwise
from sysquant.features.expression import Expression, Operand, Operation, as_expression

_WHERE = Operation("where", elementwise.WHERE)
_MINIMUM = Operation("minimum", elementwise.MINIMUM)
_MAXIMUM = Operation("maximum", elementwise.MAXIMUM)
_EXP = Operation("exp", elementwise.EXP)
_LOG = Operation("log", elementwise.LOG)
_SQRT = Operation("sqrt", elementwise.SQRT)
_TANH = Operation("tanh", elementwise.TANH)
_SIGN = Operation("sign", elementwise.SIGN)
_ISNAN = Operation("isnan", elementwise.ISNAN)


def where(condition: Operand, yes: Operand, no: Operand) -> Expression:
    """`yes` where the condition holds (is not zero), `no` where it does not, NaN where it is NaN.

    A NaN in the branch that is not taken does not matter.
    """
    return Expression(_WHERE, [as_expression(x) for x in (condition, yes, no)])


def minimum(left: Operand, right: Operand) -> Expression:
    """The smaller of two values of the same bar; NaN where either is."""
    return Expression(_MINIMUM, [as_expression(left), as_expression(right)])


def maximum(left: Operand, right: Operand) -> Expression:
    """The larger of two values of the same bar; NaN where either is."""
    return Expression(_MAXIMUM, [as_expression(left), as_expression(right)])


def clip(x: Operand, lowest: Operand, highest: Operand) -> Expression:
    """`x` kept between two bounds; NaN where any of them is."""
    return minimum(maximum(x, lowest), highest)


def exp(x: Operand) -> Expression:
    """Exponential of `x`."""
    return Expression(_EXP, [as_expression(x)])


def log(x: Operand) -> Expression:
    """Natural logarithm; -inf of zero, NaN of a negative value."""
    return Expression(_LOG, [as_expression(x)])


def sqrt(x: Operand) -> Expression:
    """Square root; NaN of a negative value."""
    return Expression(_SQRT, [as_expression(x)])


def tanh(x: Operand) -> Expression:
    """Hyperbolic tangent: a score squeezed into [-1, 1]."""
    return Expression(_TANH, [as_expression(x)])


def sign(x: Operand) -> Expression:
    """-1, 0 or 1."""
    return Expression(_SIGN, [as_expression(x)])


def isnan(x: Operand) -> Expression:
    """1 where `x` is NaN, else 0: the one way to see a NaN, as in `where(isnan(x), 0, x)`."""
    return Expression(_ISNAN, [as_expression(x)])


NUMPY: dict[Any, Callable[..., Expression]] = {
    np.add: lambda x, y: as_expression(x) + y,
    np.subtract: lambda x, y: as_expression(x) - y,
    np.multiply: lambda x, y: as_expression(x) * y,
    np.true_divide: lambda x, y: as_expression(x) / y,
    np.power: lambda x, y: as_expression(x) ** y,
    np.greater: lambda x, y: as_expression(x) > y,
    np.greater_equal: lambda x, y: as_expression(x) >= y,
    np.less: lambda x, y: as_expression(x) < y,
    np.less_equal: lambda x, y: as_expression(x) <= y,
    np.equal: lambda x, y: as_expression(x) == y,
    np.not_equal: lambda x, y: as_expression(x) != y,
    np.logical_and: lambda x, y: as_expression(x) & y,
    np.logical_or: lambda x, y: as_expression(x) | y,
    np.logical_not: lambda x: ~as_expression(x),
    np.negative: lambda x: -as_expression(x),
    np.absolute: lambda x: abs(as_expression(x)),
    np.exp: exp,
    np.log: log,
    np.sqrt: sqrt,
    np.tanh: tanh,
    np.sign: sign,
    np.isnan: isnan,
    np.minimum: minimum,
    np.maximum: maximum,
    np.where: where,
    np.clip: clip,
}
