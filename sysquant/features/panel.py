"""Evaluation of expressions for a universe: each symbol's own graph, and what lies between them.

Input: columns of newly closed bars of all symbols, ordered by (ts, symbol), a bar end never cut in
two. Output: the named features, one value per bar. It adds to the graphs of one symbol what these
are given: the latest bars of another symbol, longer bars, and functions across the universe.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysquant.errors import ConfigError, nearest
from sysquant.features.expression import BAR_FIELDS, HELD, Expression, held
from sysquant.features.graph import FeatureGraph, check_columns, nodes_of, put_back
from sysquant.features.longer import LongerBars
from sysquant.types import SECOND, Columns, Floats, Ints


class Panel:
    """Named expressions, evaluated for every symbol of a universe; not thread-safe.

    However bars are cut into batches, the results are the same bit for bit.

    Parameters
    ----------
    features : name -> expression.
    symbols : of the universe, as the column `symbol` counts them.

    Attributes
    ----------
    names : of the features, in order.
    fields : columns that are needed.
    across : nodes that look across the universe, those that rest on others after them.

    Raises
    ------
    ConfigError
        If a symbol is named that is not in the universe.
    """

    def __init__(self, features: Mapping[str, Expression], symbols: Sequence[str]) -> None:
        features = {name: held(x) for name, x in features.items()}
        self.names = tuple(features)
        self._symbols = tuple(symbols)
        nodes = _given(list(features.values()))
        self._others = [x for x in nodes.values() if x.operation.source and _symbol(x)]
        for x in self._others:
            check_symbol(_symbol(x), symbols)
        longer: dict[int, list[Expression]] = {}
        for x in nodes.values():
            if x.operation is HELD:
                longer.setdefault(int(x.inputs[0].every_ns or 0), []).append(x)
        self._longer = [
            (held_, [LongerBars([x.inputs[0] for x in held_]) for _ in symbols])
            for held_ in longer.values()
        ]
        self.across = _stages(nodes)
        self._graphs = [
            [FeatureGraph(wanted) for _ in symbols]
            for wanted in [*({x.name: x for x in _inputs(s)} for s in self.across), features]
        ]
        self._latest = np.full(len(self._others), np.nan)
        self._is_plain = len(symbols) == 1 and not (self._others or self._longer or self.across)
        plain = {x.operation.source for x in nodes.values() if x.operation.source}
        used = set(BAR_FIELDS) if longer else {source.field for source in plain}
        if not self._is_plain:
            used |= {"ts"}
        if len(symbols) > 1:
            used |= {"symbol"}
        self.fields = tuple(name for name in (*BAR_FIELDS, "symbol") if name in used)

    def advance(self, columns: Columns) -> tuple[Floats, Ints]:
        """A table (rows, n) for n new bars, and the row of each feature.

        The table may be one that the next call writes over.

        Raises
        ------
        DataError
            If a column is missing or of another length.
        """
        if self._is_plain:
            return self._graphs[0][0].advance(columns)
        check_columns(self.fields, columns)
        ts = columns["ts"]
        own = self._rows(columns, len(ts))
        known = dict(columns)
        for k, x in enumerate(self._others):
            known[x.name] = self._latest_of(k, x, columns, own)
        for held_, bars in self._longer:
            values = np.empty((len(held_), len(ts)))
            for each, rows in zip(bars, own, strict=True):
                values[:, rows] = each.advance(_taken(columns, BAR_FIELDS, rows))
            known |= {x.name: row for x, row in zip(held_, values, strict=True)}
        starts = np.flatnonzero(np.diff(ts, prepend=-1, append=-1))
        for stage, graphs in zip(self.across, self._graphs[:-1], strict=True):
            table = dict(zip(graphs[0].names, _spread(graphs, known, own), strict=True))
            for x in stage:
                known[x.name] = np.full(len(ts), np.nan)
                across: Any = x.operation.across
                across(table[x.inputs[0].name], starts, known[x.name])
        return _spread(self._graphs[-1], known, own), np.arange(len(self.names))

    def state(self) -> dict[str, Floats]:
        """Memory of every node that has some, by symbol and name; copies."""
        return {name: part.copy() for name, part in self._parts()}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Put back what `state` returned; goes on exactly from there.

        Raises
        ------
        DataError
            If it is the state of other features. Nothing has changed then.
        """
        put_back(dict(self._parts()), state)

    def _parts(self) -> Iterator[tuple[str, Floats]]:
        if self._others:
            yield "latest", self._latest
        for held_, bars in self._longer:
            for symbol, each in zip(self._symbols, bars, strict=True):
                for name, part in each.parts():
                    yield f"{symbol}/{held_[0].inputs[0].every_ns}/{name}", part
        for stage, graphs in enumerate(self._graphs):
            for symbol, graph in zip(self._symbols, graphs, strict=True):
                for name, part in graph.parts():
                    yield f"{symbol}/{stage - len(self.across)}/{name}", part

    def _rows(self, columns: Columns, count: int) -> list[Ints]:
        # Of each symbol.
        if len(self._symbols) == 1:
            return [np.arange(count)]
        order = np.argsort(columns["symbol"], kind="stable")
        edges = np.searchsorted(columns["symbol"][order], np.arange(len(self._symbols) + 1))
        return [order[a:b] for a, b in itertools.pairwise(edges.tolist())]

    def _latest_of(self, k: int, x: Expression, columns: Columns, own: Sequence[Ints]) -> Floats:
        # Of another symbol: the value at its last bar that closed by the bar end of each row.
        source: Any = x.operation.source
        rows = own[self._symbols.index(source.symbol)]
        values = np.append(self._latest[k], columns[source.field][rows].astype(np.float64))
        self._latest[k] = values[-1]
        return values[np.searchsorted(columns["ts"][rows], columns["ts"], side="right")]


def check_symbol(symbol: str, symbols: Sequence[str]) -> None:
    """Refuse a symbol that the universe does not hold.

    Raises
    ------
    ConfigError
        With the nearest ones.
    """
    if symbol not in symbols:
        raise ConfigError(
            f"features name the symbol {symbol!r}, the universe has none{nearest(symbol, symbols)}"
        )


def symbols_named(features: Mapping[str, Expression]) -> list[str]:
    """Symbols whose bars are named in expressions, in order."""
    nodes = _given(list(features.values())).values()
    return list(dict.fromkeys(_symbol(x) for x in nodes if _symbol(x)))


def is_across(features: Mapping[str, Expression]) -> bool:
    """Whether any expression looks across the universe."""
    return any(x.operation.across for x in _given(list(features.values())).values())


def needs_bar_ends(features: Mapping[str, Expression], legs: Sequence[str] = ()) -> str:
    """What of a strategy needs bars that end at common times; empty if nothing does."""
    if legs:
        return f"legs {', '.join(legs)}"
    if named := symbols_named(features):
        return f'bar["{named[0]}"]'
    for x in _given(list(features.values())).values():
        if x.operation.across:
            return f"{x.operation.name} across the universe"
        if x.operation.source and x.operation.source.every_ns:
            return f"bar.every of {x.operation.source.every_ns / SECOND:g} s"
    return ""


def lengths_of(features: Mapping[str, Expression]) -> list[int]:
    """Lengths of the longer bars that features look at, ns."""
    sources = [x.operation.source for x in _given(list(features.values())).values()]
    return sorted({source.every_ns for source in sources if source and source.every_ns})


def _symbol(x: Expression) -> str:
    return x.operation.source.symbol if x.operation.source else ""


def _given(wanted: Sequence[Expression]) -> dict[str, Expression]:
    # All nodes that a graph of one symbol cannot compute, also those that others rest on.
    found: dict[str, Expression] = {}
    pending = list(wanted)
    while pending:
        new = [
            x for n, x in nodes_of(pending).items() if x.operation.kernel is None and n not in found
        ]
        found |= {x.name: x for x in new}
        pending = [i for x in new for i in x.inputs]
    return found


def _inputs(stage: Sequence[Expression]) -> list[Expression]:
    return [x.inputs[0] for x in stage]


def _stages(nodes: Mapping[str, Expression]) -> list[list[Expression]]:
    # Functions across the universe, those that rest on others after them.
    waiting = {name: x for name, x in nodes.items() if x.operation.across}
    stages = []
    while waiting:
        ready = [x for x in waiting.values() if not waiting.keys() & _given(x.inputs).keys()]
        stages.append(ready)
        for x in ready:
            del waiting[x.name]
    return stages


def _taken(columns: Columns, names: Sequence[str], rows: Ints) -> dict[str, NDArray[np.generic]]:
    return {name: columns[name][rows] for name in names}


def _spread(graphs: Sequence[FeatureGraph], known: Columns, own: Sequence[Ints]) -> Floats:
    # What each symbol's graph says of its rows, side by side.
    table = np.empty((len(graphs[0].names), sum(map(len, own))))
    for graph, rows in zip(graphs, own, strict=True):
        if len(rows):
            values, at = graph.advance(_taken(known, graph.fields or ("ts",), rows))
            table[:, rows] = values[at]
    return table
