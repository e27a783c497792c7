"""How an indicator is defined: from a compiled kernel, or from a step function of one's own.

`indicator` is for kernels that live in the package; `step` takes a plain function of one bar and
compiles the loop around it, also in a notebook. Both return functions that make expressions.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias

import numba

from sysquant.errors import StrategyError
from sysquant.features.expression import Expression, Kernel, Operand, Operation, as_expression

Parts: TypeAlias = tuple[Sequence[Operand], Sequence[float]]  # inputs, parameters of a node
P = ParamSpec("P")


def indicator(
    kernel: Kernel, *, first_state: Callable[..., Sequence[float]], twin: Kernel | None = None
) -> Callable[[Callable[P, Parts]], Callable[P, Expression]]:
    """Make an indicator from a compiled kernel `(state, inputs, params, out)`.

    The decorated function takes what a user writes, checks it, and returns the inputs and the
    parameters of the node; its name is the indicator's.

    A kernel is the only implementation there is, live and in history: `state` (S,) float64 is read
    and written, `inputs` (arity, n) holds n new values of each input, `params` (P,) the parameters
    as float64, `out` (n,) is filled. n is 1 in a stream and a million in history, and how a history
    is cut never shows.

    Parameters
    ----------
    kernel : compiled by `sysquant.compiled.kernel`, or by numba without fast-math.
    first_state : parameters -> state before the first bar.
    twin : kernel of two nodes at once; see `Operation`.
    """

    def define(function: Callable[P, Parts]) -> Callable[P, Expression]:
        operation = Operation(function.__name__, kernel, first_state, twin)

        @functools.wraps(function)
        def build(*args: P.args, **kwargs: P.kwargs) -> Expression:
            inputs, params = function(*args, **kwargs)
            return Expression(operation, [as_expression(i) for i in inputs], params)

        build.__annotations__["return"] = Expression
        return build

    return define


def step(
    *, state: int | Callable[..., Sequence[float]]
) -> Callable[[Callable[..., float]], Callable[..., Expression]]:
    """Make an indicator from a function of one bar: `(state, inputs..., parameters...) -> value`.

    Arguments annotated `int` or `float` are parameters, all others (but the first) are inputs, at
    most four. The function is compiled by numba, without fast-math and without a disk cache. It may
    read and write `state` and nothing else.

    Parameters
    ----------
    state : floats it remembers, all 0 at first; or a function of the parameters that returns them.

    Raises
    ------
    StrategyError
        If the function has no input, or a parameter stands before an input.

    Examples
    --------
    >>> @step(state=1)
    ... def peak(state, x, keep: float):
    ...     state[0] = max(x, keep * state[0])
    ...     return state[0]
    >>> peak(Bar().close, keep=0.99)
    peak(close, 0.99)
    """

    def define(function: Callable[..., float]) -> Callable[..., Expression]:
        inputs, params = _arguments(function)
        loop = _loop(function, len(inputs), params)
        operation = Operation(function.__name__, loop, _first_state(state))
        signature = inspect.signature(function)
        public = signature.replace(parameters=list(signature.parameters.values())[1:])

        @functools.wraps(function)
        def build(*args: Any, **kwargs: Any) -> Expression:
            given = public.bind(*args, **kwargs)
            given.apply_defaults()
            nodes = [as_expression(given.arguments[name]) for name in inputs]
            numbers = [kind(given.arguments[name]) for name, kind in params.items()]
            return Expression(operation, nodes, numbers)

        build.__signature__ = public  # pyright: ignore[reportAttributeAccessIssue]
        return build

    return define


def _first_state(state: int | Callable[..., Sequence[float]]) -> Callable[..., Sequence[float]]:
    if isinstance(state, int):
        zeros = [0.0] * state
        return lambda *_: zeros
    return state


def _arguments(function: Callable[..., float]) -> tuple[list[str], dict[str, type]]:
    # Names of the inputs; names and types of the parameters.
    hints = inspect.get_annotations(function, eval_str=True)
    names = list(inspect.signature(function).parameters)[1:]
    params = {name: hints[name] for name in names if hints.get(name) in (int, float)}
    inputs = [name for name in names if name not in params]
    if not 1 <= len(inputs) <= 4 or names != [*inputs, *params]:
        raise StrategyError(
            f"{function.__name__} must take (state, 1 to 4 inputs, then parameters annotated int "
            f"or float), was {inspect.signature(function)}"
        )
    return inputs, params


def _loop(function: Callable[..., float], inputs: int, params: dict[str, type]) -> Kernel:
    # The loop is written out for the number of arguments: numba has no other way to spread them.
    # It is not cached: numba would not see an edit of the step inside it.
    jit = numba.njit(nogil=True, error_model="numpy")
    words = [f"inputs[{j}, i]" for j in range(inputs)]
    words += [f"{kind.__name__}(params[{j}])" for j, kind in enumerate(params.values())]
    source = (
        "def loop(state, inputs, params, out):\n"
        "    for i in range(out.shape[0]):\n"
        f"        out[i] = step(state, {', '.join(words)})\n"
    )
    scope: dict[str, Any] = {"step": jit(function)}
    exec(source, scope)
    return jit(scope["loop"])
