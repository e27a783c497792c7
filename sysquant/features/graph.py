"""Evaluation of expressions for one symbol, any number of bars at a time.

Input: columns of newly closed bars. Output: the named features, one value per bar. Nodes are
computed in one compiled call, each once however often it is used; their memory is one flat array
that can be taken out and put back by the nodes' names. It knows nothing of strategies.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sysquant.errors import DataError, StrategyError
from sysquant.features import evaluate
from sysquant.features.expression import Expression, Kernel
from sysquant.types import Columns, Floats, Ints

_TABLE = 65_536  # node values computed at a time (half a MiB): they stay in the CPU's cache


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
        self._params, param_ends = _flat([node.parameters for node in nodes])
        self._params = np.append(self._params, 0.0)
        first = [node.operation.first_state(*node.parameters) for node in nodes]
        self._state, self._state_ends = _flat(first)
        self._kernels = [_kernel_of(call) for call in calls]  # kept: their addresses are called
        self._program = _program(calls, self._kernels, row_of, self._state_ends, param_ends)
        self._height = len(row_of)
        self._take_width(0)

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
        values = {name: table[row] for name, row in zip(self.names, rows, strict=True)}
        if table is self._values:
            values = {name: row.copy() for name, row in values.items()}
        return values

    def advance(self, columns: Columns) -> tuple[Floats, Ints]:
        """The same as `run`: a table (rows, n), and the row of each feature.

        The table may be one that the next call writes over.
        """
        if self._taken_singly(columns):
            evaluate.evaluate(self._program, self._state, self._params, self._values)
            return self._values, self._outputs
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

    def _taken_singly(self, columns: Columns) -> bool:
        # Whether one bar has been put into the table, as nearly always in a stream: without all
        # that a batch costs. What is odd about a batch is for the others to say.
        if self._values.shape[1] != 1 or not self.fields:
            return False
        cells = self._cells
        try:
            for row, field in enumerate(self.fields):
                cells[row] = columns[field].item()
        except (AttributeError, KeyError, TypeError, ValueError):
            return False
        return True

    def _take(self, columns: Columns, rows: slice) -> None:
        width = rows.stop - rows.start
        if self._values.shape[1] != width:
            self._take_width(width)
        for row, field in enumerate(self.fields):
            self._values[row] = columns[field][rows]
        evaluate.evaluate(self._program, self._state, self._params, self._values)

    def _take_width(self, width: int) -> None:
        self._values = np.zeros((self._height + evaluate.MOST_INPUTS, width))
        cells: Any = self._values.reshape(-1)
        self._cells = memoryview(cells)


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
    # Without recursion, for formulas can be deep. Also a node whose name is known is looked into:
    # what it rests on may be another indicator of the same name.
    order: dict[str, Expression] = {}
    done = set[int]()
    pending = list(reversed(wanted))
    while pending:
        node = pending[-1]
        if order.get(node.name, node).operation is not node.operation:
            raise StrategyError(f"two different indicators are called {node.operation.name!r}")
        is_given = node.operation.kernel is None
        later = [i for i in reversed(node.inputs) if id(i) not in done and not is_given]
        if later and id(node) not in done:
            pending.extend(later)
        else:
            done.add(id(pending.pop()))
            order.setdefault(node.name, node)
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


def _kernel_of(call: Sequence[Expression]) -> Kernel | int | None:
    # That computes all nodes of a call; of elementwise operations the number.
    operation = call[0].operation
    return operation.kernel if len(call) == 1 else operation.twin


def _program(
    calls: Sequence[Sequence[Expression]], kernels: Sequence[Kernel | int | None],
    row_of: Mapping[str, int], state_ends: Ints, param_ends: Ints,
) -> Ints:  # fmt: skip
    # As `evaluate` takes it; rows, state and parameters lie in the order of the nodes.
    program = np.zeros((len(calls), evaluate.WIDTH), np.int64)
    state = param = done = 0
    for call, words, kernel in zip(calls, program, kernels, strict=True):
        node, name = call[0], call[0].operation.name
        done += len(call)
        inputs = [row_of[each.name] for each in node.inputs]
        is_spread = inputs != list(range(inputs[0], inputs[0] + len(inputs))) if inputs else False
        code, address = evaluate.KERNEL, 0
        if isinstance(kernel, int):
            code = kernel
        else:
            address = evaluate.address_of(name, kernel)
        words[: evaluate.INPUT] = (
            code, address, row_of[node.name], len(call), state, state_ends[done - 1],
            param, param_ends[done - 1], len(inputs), is_spread,
        )  # fmt: skip
        words[evaluate.INPUT : evaluate.INPUT + len(inputs)] = inputs
        state, param = words[evaluate.STATE_END], words[evaluate.PARAM_END]
    return program


def _flat(parts: Sequence[Sequence[float]]) -> tuple[Floats, Ints]:
    # Several arrays in one, and where each ends.
    ends = np.cumsum([len(p) for p in parts], dtype=np.int64)
    return np.array([x for part in parts for x in part], dtype=np.float64), ends
