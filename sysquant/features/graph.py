"""Evaluation of expressions for one symbol, any number of bars at a time.

Input: columns of newly closed bars. Output: the named features, one value per bar. Nodes are
computed in one compiled call, each once however often it is used; their memory is one flat array
that can be taken out and put back by the nodes' names. It knows nothing of strategies.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.typed import List

from sysquant.compiled import kernel
from sysquant.errors import DataError, StrategyError
from sysquant.features.expression import Expression, Kernel
from sysquant.types import Columns, Floats, Ints

_TABLE = 65_536  # node values computed at a time (half a MiB): they stay in the CPU's cache
_MOST_INPUTS = 4

_f8 = types.float64
SIGNATURE = types.void(_f8[::1], _f8[:, ::1], _f8[::1], _f8[::1])
_KERNEL_TYPE = types.FunctionType(SIGNATURE)


@kernel
def _no_kernels() -> Any:
    # Compiled, for a typed list made in Python would be compiled anew in every process.
    return List.empty_list(_KERNEL_TYPE)


@kernel
def _append(kernels: Any, function: Any) -> None:
    kernels.append(function)


def _appender() -> Any:
    # For functions of the one signature, not for each function anew.
    append: Any = _append
    with global_compiler_lock:  # of two threads that come first, one compiles
        if not append.signatures:
            append.compile((types.ListType(_KERNEL_TYPE), _KERNEL_TYPE))
            append.disable_compile()
    return append


@kernel
def _evaluate(
    kernels: Any,
    counts: Ints,
    rows: Ints,
    state: Floats,
    state_ends: Ints,
    params: Floats,
    param_ends: Ints,
    values: Floats,
    gathered: Floats,
) -> None:
    # Call k reads the rows `rows[k]` of `values` (as far as they are not -1), and writes those of
    # its nodes, `counts[k]` of them; the first follows those of the bar's fields.
    first = values.shape[0] - counts.sum()
    state_start, param_start = 0, 0
    for k in range(len(kernels)):
        row = max(rows[k, 0], 0)
        inputs = values[row : row + 1]
        if rows[k, 1] >= 0:
            inputs = gathered
            for j in range(rows.shape[1]):
                for i in range(values.shape[1] if rows[k, j] >= 0 else 0):
                    gathered[j, i] = values[rows[k, j], i]
        kernels[k](
            state[state_start : state_ends[k]],
            inputs,
            params[param_start : param_ends[k]],
            values[first : first + counts[k]].reshape(-1),
        )
        first += counts[k]
        state_start, param_start = state_ends[k], param_ends[k]


class FeatureGraph:
    """Named expressions, evaluated for one symbol; not thread-safe.

    However its bars are cut into batches, the results are the same bit for bit: a batch is the
    same compiled loop, started where the last one stopped.

    Parameters
    ----------
    features : name -> expression (or number).

    Attributes
    ----------
    names : of the features, in order.
    given : name -> node of what is not computed here: fields of the bar, and what `Panel` knows.
    fields : their names, the columns that are needed.
    nodes : names of all distinct nodes but the fields, in the order of evaluation.

    Raises
    ------
    StrategyError
        If two different user indicators of one name are used together.
    """

    def __init__(self, features: Mapping[str, Expression]) -> None:
        order = nodes_of(list(features.values()))
        calls = _calls([node for node in order.values() if node.operation.kernel is not None])
        nodes = [node for call in calls for node in call]
        self.names = tuple(features)
        self.given = {n: node for n, node in order.items() if node.operation.kernel is None}
        self.fields = tuple(self.given)
        self.nodes = tuple(node.name for node in nodes)
        row_of = {name: row for row, name in enumerate((*self.fields, *self.nodes))}
        self._outputs = np.array([row_of[e.name] for e in features.values()], dtype=np.intp)
        self._inputs = np.full((len(calls), _MOST_INPUTS), -1)
        self._kernels = _no_kernels()
        for k, (node, *twins) in enumerate(calls):
            self._inputs[k, : len(node.inputs)] = [row_of[i.name] for i in node.inputs]
            operation = node.operation
            kernel = operation.twin if twins else operation.kernel
            _appender()(self._kernels, _compiled(operation.name, kernel))
        self._params, param_ends = _flat([node.parameters for node in nodes])
        first = [node.operation.first_state(*node.parameters) for node in nodes]
        self._state, self._state_ends = _flat(first)
        self._counts = np.array([len(call) for call in calls], np.int64)
        last = np.cumsum(self._counts) - 1  # node of each call
        self._call_ends = self._state_ends[last], param_ends[last]
        self._height = len(row_of)
        self._values = np.empty((self._height, 0))
        self._gathered = np.empty((_MOST_INPUTS, 0))

    def run(self, columns: Columns) -> dict[str, Floats]:
        """Take n new bars, oldest first, and return every feature.

        Parameters
        ----------
        columns : field -> (n,) of any numeric type; those in `fields` are read, others may be
            there. n may be 0, 1 or millions.

        Returns
        -------
        name -> (n,) float64; row t rests on bars up to and including t; NaN while a window fills.

        Raises
        ------
        DataError
            If a column is missing or of another length; nothing has been taken then.
        """
        table, rows = self.advance(columns)
        return {name: table[row].copy() for name, row in zip(self.names, rows, strict=True)}

    def advance(self, columns: Columns) -> tuple[Floats, Ints]:
        """The same as `run`: a table (rows, n), and the row of each feature.

        The table may be one that the next call writes over.
        """
        check_columns(self.fields, columns)  # a bad batch must not leave half its trace
        length = len(columns[next(iter(self.fields or columns))]) if columns else 0
        most = max(_TABLE // self._height, 256)
        if length <= most:
            self._take(columns, slice(0, length))
            return self._values, self._outputs
        table = np.empty((len(self.names), length))
        for start in range(0, length, most):
            rows = slice(start, min(start + most, length))
            self._take(columns, rows)
            for feature, row in zip(table, self._outputs, strict=True):
                feature[rows] = self._values[row]
        return table, np.arange(len(table))

    def state(self) -> dict[str, Floats]:
        """Memory of every node that has some, by its name; copies."""
        return {name: part.copy() for name, part in self.parts()}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Put back what `state` returned; goes on exactly from there.

        Raises
        ------
        DataError
            If nodes or sizes differ: it is the state of other features. Nothing has changed then.
        """
        put_back(dict(self.parts()), state)

    def parts(self) -> Iterator[tuple[str, Floats]]:
        """Nodes with memory, and the views of it."""
        starts = np.concatenate(([0], self._state_ends))
        for k, name in enumerate(self.nodes):
            if starts[k] < starts[k + 1]:
                yield name, self._state[starts[k] : starts[k + 1]]

    def _take(self, columns: Columns, rows: slice) -> None:
        width = rows.stop - rows.start
        if self._values.shape[1] != width:
            self._values = np.empty((self._height, width))
            self._gathered = np.empty((_MOST_INPUTS, width))
        for row, field in enumerate(self.fields):
            self._values[row] = columns[field][rows]
        state_ends, param_ends = self._call_ends
        _evaluate(
            self._kernels,
            self._counts,
            self._inputs,
            self._state,
            state_ends,
            self._params,
            param_ends,
            self._values,
            self._gathered,
        )


def check_columns(fields: Sequence[str], columns: Columns) -> None:
    """Refuse bars that lack a column, or whose columns differ in length.

    Raises
    ------
    DataError
        With the names, or the lengths.
    """
    missing = [name for name in fields if name not in columns]
    if missing:
        there = ", ".join(columns) or "none"
        raise DataError(f"bars need the columns {', '.join(missing)}; there: {there}")
    lengths = {len(columns[name]) for name in fields or list(columns)[:1]}
    if len(lengths) > 1:
        raise DataError(f"columns of bars differ in length, were {sorted(lengths)}")


def put_back(parts: Mapping[str, Floats], state: Mapping[str, Floats]) -> None:
    """Write a saved state into the views it was copied from.

    Raises
    ------
    DataError
        If names or sizes differ: it is the state of other features. Nothing has changed then.
    """
    found = {name: np.asarray(part).shape for name, part in state.items()}
    wanted = {name: part.shape for name, part in parts.items()}
    if found != wanted:
        odd = min(set(found.items()) ^ set(wanted.items()))[0]
        raise DataError(
            f"the saved state is of other features: {odd!r} was {found.get(odd, 'absent')}, "
            f"needed {wanted.get(odd, 'not at all')}; restore it where it came from"
        )
    for name, part in parts.items():
        part[:] = state[name]


def nodes_of(wanted: Sequence[Expression]) -> dict[str, Expression]:
    """Every distinct node by name, inputs before users; what is given is not looked into.

    Raises
    ------
    StrategyError
        If two different user indicators of one name are used together.
    """
    # Without recursion, for formulas can be deep.
    order: dict[str, Expression] = {}
    pending = list(reversed(wanted))
    while pending:
        node = pending[-1]
        known = order.get(node.name)
        if known is not None:
            if known.operation is not node.operation:
                raise StrategyError(f"two different indicators are called {node.operation.name!r}")
            pending.pop()
            continue
        is_given = node.operation.kernel is None
        later = [i for i in reversed(node.inputs) if i.name not in order and not is_given]
        if later:
            pending.extend(later)
        else:
            order[node.name] = pending.pop()
    return order


def _calls(nodes: Sequence[Expression]) -> list[list[Expression]]:
    # What is computed by one call each: a node, or two that one kernel can compute together.
    calls = []
    waiting = {node.name: node for node in nodes}
    while waiting:
        node = waiting.pop(next(iter(waiting)))
        twins = [name for name, other in waiting.items() if _are_twins(node, other)]
        calls.append([node, *(waiting.pop(name) for name in twins[:1])])
    return calls


def _are_twins(node: Expression, other: Expression) -> bool:
    if node.operation.twin is None or other.operation is not node.operation:
        return False
    return [i.name for i in node.inputs] == [i.name for i in other.inputs]


def _compiled(name: str, function: Kernel | None) -> Dispatcher:
    # For the one signature there is; from the disk cache when it has been compiled before.
    if not isinstance(function, Dispatcher):
        raise StrategyError(f"{name}: a kernel must be compiled, was {function!r}")
    try:
        function.compile(SIGNATURE)
    except NumbaError as error:
        raise StrategyError(f"{name} does not compile: {error}") from error
    return function


def _flat(parts: Sequence[Sequence[float]]) -> tuple[Floats, Ints]:
    # Several arrays in one, and where each ends.
    ends = np.cumsum([len(p) for p in parts], dtype=np.int64)
    return np.array([x for part in parts for x in part], dtype=np.float64), ends
