"""Expressions: what a strategy writes in `features`, as nodes of a graph.

Input: fields of a `Bar` and numbers. Output: `Expression` nodes that know their operation, inputs
and parameters, and are named by their own text, so that equal formulas are one node wherever they
were written. Nothing here computes; `graph` does.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from sysquant.errors import StrategyError, nearest
from sysquant.features import elementwise
from sysquant.times import interval_ns
from sysquant.types import SECOND

BAR_FIELDS = ("open", "high", "low", "close", "volume", "ts")
_LONGEST_NAME = 160  # a longer formula is named by its digest

Kernel: TypeAlias = Callable[..., None]  # compiled: (state, inputs, params, out)


def stateless(*_: float) -> Sequence[float]:
    """First state of an operation without memory: none."""
    return ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field's values come from.

    Parameters
    ----------
    field : of the bar.
    symbol : whose bar; empty for the symbol that is decided on.
    every_ns : length of the longer bars it is a field of, ns; 0 for the bars that are decided on.
    """

    field: str
    symbol: str = ""
    every_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One kind of node.

    Parameters
    ----------
    name : of the operation, as it stands in formulas.
    kernel : compiled `(state, inputs, params, out)`; see `indicator`. The number of an elementwise
        operation. None for what a graph of one symbol's bars is given: a field, and the two below.
    first_state : parameters -> state before the first bar, (S,) float64.
    twin : kernel of two nodes on the same inputs, if computing them together is faster: state,
        parameters and values of one are followed by those of the other.
    source : of a field.
    across : compiled `(values, starts, out)`: values of the symbols that have a bar at one bar
        end lie side by side, and `starts` says where each bar end begins; `out` is NaN before.
    """

    name: str
    kernel: Kernel | int | None = None
    first_state: Callable[..., Sequence[float]] = stateless
    twin: Kernel | None = None
    source: Source | None = None
    across: Kernel | None = None


class Expression:
    """A node: an operation on other nodes, in float64, one value per bar.

    Arithmetic (`+ - * / **`, `abs`), comparison (`> >= < <= == !=`) and logic (`& | ~`) give new
    nodes, and so do `np.log`, `np.where` and the like. A comparison gives 1.0 or 0.0, and NaN
    where either side is NaN. An expression has no truth value of its own: it is not a number yet.

    Parameters
    ----------
    operation : what is done.
    inputs : nodes it is done to.
    parameters : numbers that belong to it, e.g. a span in bars.

    Attributes
    ----------
    name : the formula, e.g. `ema(close, 20)`; equal names mean equal nodes. Of a very long
        formula, its operation and digest.
    every_ns : length of the bars that it has one value for, ns; 0 for the bars that are decided
        on, None for a constant. What mixes two lengths has a value for each bar that is decided
        on, and sees of longer ones the last that is complete.
    """

    __slots__ = ("every_ns", "inputs", "name", "operation", "parameters")

    def __init__(
        self,
        operation: Operation,
        inputs: Sequence["Expression"] = (),
        parameters: Sequence[float] = (),
    ) -> None:
        lengths = {i.every_ns for i in inputs} - {None}
        if len(lengths) > 1 or operation.across:
            inputs, lengths = [held(i) for i in inputs], {0}
        if operation.source or operation is HELD:
            lengths = {operation.source.every_ns if operation.source else 0}
        self.every_ns = lengths.pop() if lengths else None
        self.operation = operation
        self.inputs = tuple(inputs)
        self.parameters = tuple(float(p) for p in parameters)
        words = [i.name for i in self.inputs] + [_text(p) for p in self.parameters]
        name = f"{operation.name}({', '.join(words)})" if words else operation.name
        if operation.name == "constant":
            name = words[0]
        if len(name) > _LONGEST_NAME:
            name = f"{operation.name}#{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __getitem__(self, place: object) -> NoReturn:
        raise StrategyError(
            f"an expression has no places, was {self.name}[{place!r}]; n bars ago is lag(x, n)"
        )

    def __bool__(self) -> NoReturn:
        raise StrategyError(
            f"an expression has no truth value, was {self.name}; "
            "write where(condition, a, b) for `if`, and & | ~ for `and or not`"
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or name in self.__slots__:
            raise AttributeError(name)
        hint = _INSTEAD.get(name)
        way = f"write {hint}" if hint else "it is built with the functions of sysquant.features"
        if name in BAR_FIELDS:
            way = "what needs several fields takes the bar itself, like atr(bar, 20)"
        raise AttributeError(f"an expression has no {name!r}, was {self.name}.{name}; {way}")

    # numpy scalars and functions: np.float64(2) * bar.close, np.log(bar.close), np.where(...)
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return _numpy_call(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        return _numpy_call(function, "__call__", inputs, options)

    def __add__(self, other: "Operand") -> "Expression":
        return Expression(ADD, (self, as_expression(other)))

    def __radd__(self, other: float) -> "Expression":
        return Expression(ADD, (as_expression(other), self))

    def __sub__(self, other: "Operand") -> "Expression":
        return Expression(SUB, (self, as_expression(other)))

    def __rsub__(self, other: float) -> "Expression":
        return Expression(SUB, (as_expression(other), self))

    def __mul__(self, other: "Operand") -> "Expression":
        return Expression(MUL, (self, as_expression(other)))

    def __rmul__(self, other: float) -> "Expression":
        return Expression(MUL, (as_expression(other), self))

    def __truediv__(self, other: "Operand") -> "Expression":
        return Expression(DIV, (self, as_expression(other)))

    def __rtruediv__(self, other: float) -> "Expression":
        return Expression(DIV, (as_expression(other), self))

    def __pow__(self, other: "Operand") -> "Expression":
        return Expression(POWER, (self, as_expression(other)))

    def __rpow__(self, other: float) -> "Expression":
        return Expression(POWER, (as_expression(other), self))

    def __neg__(self) -> "Expression":
        return Expression(MUL, (self, as_expression(-1.0)))

    def __pos__(self) -> "Expression":
        return self

    def __abs__(self) -> "Expression":
        return Expression(ABS, (self,))

    def __gt__(self, other: "Operand") -> "Expression":
        return Expression(GT, (self, as_expression(other)))

    def __lt__(self, other: "Operand") -> "Expression":
        return Expression(GT, (as_expression(other), self))

    def __ge__(self, other: "Operand") -> "Expression":
        return Expression(GE, (self, as_expression(other)))

    def __le__(self, other: "Operand") -> "Expression":
        return Expression(GE, (as_expression(other), self))

    def __eq__(self, other: "Operand") -> "Expression":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Expression(EQ, (self, as_expression(other)))

    def __ne__(self, other: "Operand") -> "Expression":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Expression(NE, (self, as_expression(other)))

    def __and__(self, other: "Operand") -> "Expression":
        return Expression(BOTH, (self, as_expression(other)))

    def __or__(self, other: "Operand") -> "Expression":
        return Expression(EITHER, (self, as_expression(other)))

    def __rand__(self, other: float) -> "Expression":
        return Expression(BOTH, (as_expression(other), self))

    def __ror__(self, other: float) -> "Expression":
        return Expression(EITHER, (as_expression(other), self))

    def __invert__(self) -> "Expression":
        return Expression(NOT, (self,))


Operand: TypeAlias = Expression | float

HELD = Operation("held")
CONSTANT = Operation("constant", elementwise.CONSTANT)
ADD = Operation("add", elementwise.ADD)
SUB = Operation("sub", elementwise.SUB)
MUL = Operation("mul", elementwise.MUL)
DIV = Operation("div", elementwise.DIV)
POWER = Operation("power", elementwise.POWER)
ABS = Operation("abs", elementwise.ABS)
GT = Operation("gt", elementwise.GT)
GE = Operation("ge", elementwise.GE)
EQ = Operation("eq", elementwise.EQ)
NE = Operation("ne", elementwise.NE)
BOTH = Operation("both", elementwise.BOTH)
EITHER = Operation("either", elementwise.EITHER)
NOT = Operation("not", elementwise.NOT)

# What people look for who know pandas.
_INSTEAD = {
    "shift": "lag(x, 1)", "diff": "diff(x)", "pct_change": "returns(x)", "mean": "sma(x, 20)",
    "std": "std(x, 20)", "min": "rolling_min(x, 20)", "max": "rolling_max(x, 20)",
    "sum": "rolling_sum(x, 20)", "rank": "rolling_rank(x, 20)", "ewm": "ema(x, 20)",
    "rolling": "sma(x, 20), rolling_max(x, 20) and the like", "clip": "clip(x, -1, 1)",
    "cumsum": "rolling_sum(x, 20)", "roll": "lag(x, 1)", "median": "rolling_median(x, 20)",
}  # fmt: skip


def as_expression(value: Operand) -> Expression:
    """A node as it is, a number as a constant node.

    Raises
    ------
    StrategyError
        If it is neither: an array, a pandas column, a text.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return Expression(CONSTANT, (), (float(value),))
    way = "arrays appear only in `target`"
    if isinstance(value, Bar):
        way = "name a field of the bar, like bar.close"
    elif fields := getattr(value, "_fields", ()):
        way = f"name one of its values: .{', .'.join(fields)}"
    raise StrategyError(
        f"a feature is built from bar.close and the like and numbers, was {type(value).__name__}; "
        f"{way}"
    )


def held(x: Expression) -> Expression:
    """One value per bar that is decided on: of longer bars, that of the last complete one."""
    return Expression(HELD, (x,)) if x.every_ns else x


@functools.cache
def _field(source: Source) -> Expression:
    name = f"{source.symbol}.{source.field}" if source.symbol else source.field
    if source.every_ns:
        name += f"@{source.every_ns // SECOND}s"
    return Expression(Operation(name, source=source))


class Bar:
    """Fields of the bar a strategy decides on, as expressions.

    `bar["BINANCE:BTCUSDT"]` is the latest closed bar of another symbol, and `bar.every("15m")` the
    latest complete bar of a longer interval, of this symbol: each of its bars counts once in an
    indicator of it, when it is complete.

    Attributes
    ----------
    open, high, low, close : quote currency.
    volume : units.
    ts : its close, ns since 1970 UTC, in float64: exact for whole seconds, else to 128 ns.
    """

    __slots__ = ("_every_ns", "_symbol")
    open: Expression
    high: Expression
    low: Expression
    close: Expression
    volume: Expression
    ts: Expression

    def __init__(self, symbol: str = "", every_ns: int = 0) -> None:
        self._symbol = symbol
        self._every_ns = every_ns

    def __getitem__(self, symbol: str) -> "Bar":
        if not isinstance(symbol, str) or not symbol:
            raise StrategyError(f'another symbol is bar["NAME"], was bar[{symbol!r}]')
        if self._every_ns:
            raise StrategyError(
                f'longer bars are of the symbol itself, was .every(...)["{symbol}"]'
            )
        return Bar(symbol)

    def every(self, length: str | int) -> "Bar":
        """Bars of a longer interval, built from the bars that are decided on.

        A bar is complete with the bar that ends when it does, or, if there is none, with the next
        one. There is no value before the first is complete; the first may lack its beginning.

        Parameters
        ----------
        length : `15m`, `4h` or ns; whole seconds, and a multiple of the bars'.

        Raises
        ------
        StrategyError
            If it is of another symbol or of longer bars already.
        ConfigError
            If it is no length.
        """
        every_ns = interval_ns(length, "the length of longer bars")
        if self._symbol or self._every_ns:
            raise StrategyError(f"longer bars are built from those of the symbol itself: {self!r}")
        if every_ns % SECOND:
            raise StrategyError(f"longer bars last whole seconds, was {every_ns} ns")
        return Bar(every_ns=every_ns)

    def __getattr__(self, name: str) -> Expression:
        if name in BAR_FIELDS:
            return _field(Source(name, self._symbol, self._every_ns))
        raise AttributeError(f"a bar has no field {name!r}{nearest(name, BAR_FIELDS)}")

    def __repr__(self) -> str:
        other = f"[{self._symbol!r}]" if self._symbol else ""
        return f"bar{other}" + (f".every({self._every_ns})" if self._every_ns else "")


def _text(number: float) -> str:
    # Whole numbers without their point, as they were written; repr of a float is exact.
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _numpy_call(function: Any, method: str, inputs: Sequence[Any], options: Any) -> Expression:
    # Functions live in `functions`, which imports this module.
    from sysquant.features.functions import NUMPY

    if method != "__call__" or options or function not in NUMPY:
        hint = _INSTEAD.get(function.__name__)
        known = ", ".join(sorted(f"np.{f.__name__}" for f in NUMPY))
        way = f"write {hint}" if hint else f"there is: {known}"
        raise StrategyError(f"np.{function.__name__} cannot be used on expressions; {way}")
    return NUMPY[function](*inputs)
