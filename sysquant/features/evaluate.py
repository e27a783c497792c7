"""The compiled loop over the nodes of a graph: elementwise operations, and calls of kernels.

Input: a program, one row for each call, with the memory, the parameters and the values it speaks
of. Output: values. A kernel is called by the address of its machine code, so that one loop serves
all graphs, whatever kernels they are made of.
"""

from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.extending import intrinsic

from sysquant.bundle import lent
from sysquant.compiled import kernel
from sysquant.errors import StrategyError
from sysquant.features.elementwise import operate
from sysquant.types import Floats, Ints

MOST_INPUTS = 4
KERNEL = -1  # the code of a call that is no elementwise operation
# A row of a program: what is called; the first of its rows of values, and how many; where its
# state and its parameters lie; how many inputs, whether they must be laid side by side, their rows.
CODE, ADDRESS, ROW, COUNT, STATE, STATE_END, PARAM, PARAM_END, ARITY, IS_SPREAD, INPUT = range(11)
WIDTH = INPUT + MOST_INPUTS

_f8 = types.float64
SIGNATURE = types.void(_f8[::1], _f8[:, ::1], _f8[::1], _f8[::1])


def address_of(name: str, function: Any) -> int:
    """Address of a kernel's machine code, which is compiled if it was not before.

    Parameters
    ----------
    name : of the operation, for the error.
    function : the kernel; its code stays where it is as long as somebody keeps it.

    Raises
    ------
    StrategyError
        If it is no compiled function, or cannot be compiled.
    """
    if not isinstance(function, Dispatcher):
        raise StrategyError(f"{name}: a kernel must be compiled, was {function!r}")
    try:
        function.compile(SIGNATURE)
    except NumbaError as error:
        raise StrategyError(f"{name} does not compile: {error}") from error
    made = function.get_compile_result(SIGNATURE)
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


@intrinsic
def _jump(_context: Any, address: Any, state: Any, inputs: Any, params: Any, out: Any) -> Any:
    taken = (state, inputs, params, out)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(types.none, taken)
        function = builder.inttoptr(args[0], kind.as_pointer())
        status, _ = convention.call_function(builder, function, types.none, taken, args[1:])
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(address, *taken), build


_call: Any = _jump


@kernel
def evaluate(program: Ints, state: Floats, params: Floats, values: Floats) -> None:
    """Compute every node, in the order of the program.

    Parameters
    ----------
    program : (calls, `WIDTH`).
    state, params : of all nodes, one after the other; a parameter more is there than is used.
    values : (rows, n), what is given and what is computed; the last `MOST_INPUTS` rows are for
        inputs that do not lie side by side.
    """
    program, state, params, values = lent(program), lent(state), lent(params), lent(values)
    bars = values.shape[1]
    cells = values.reshape(-1)
    spare = values.shape[0] - MOST_INPUTS
    for k in range(program.shape[0]):
        row, count, first = program[k, ROW], program[k, COUNT], program[k, INPUT]
        if program[k, CODE] != KERNEL:
            operate(
                program[k, CODE], cells, first * bars, program[k, INPUT + 1] * bars,
                program[k, INPUT + 2] * bars, float(params[program[k, PARAM]]), row * bars, bars,
            )  # fmt: skip
            continue
        if program[k, IS_SPREAD] != 0:
            for j in range(program[k, ARITY]):
                for i in range(bars):
                    values[spare + j, i] = values[program[k, INPUT + j], i]
            first = spare
        _call(
            program[k, ADDRESS], state[program[k, STATE] : program[k, STATE_END]],
            values[first : first + program[k, ARITY]],
            params[program[k, PARAM] : program[k, PARAM_END]],
            cells[row * bars : (row + count) * bars],
        )  # fmt: skip
