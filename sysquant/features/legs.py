"""Evaluation of expressions over a few named symbols, at the bar ends at which each has a bar.

Input: columns of newly closed bars of the universe, a bar end never cut in two. Output: the named
features, one value per common bar end, and where the legs' bars lie. A leg without a bar at a bar
end leaves all of them without a decision there: a spread of a new price and an old one is none.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from sysquant.errors import StrategyError
from sysquant.features.expression import Expression
from sysquant.features.graph import FeatureGraph, check_columns
from sysquant.features.panel import check_symbol
from sysquant.types import Columns, Floats, Ints


class Legs:
    """Named expressions over the bars of a few symbols; not thread-safe.

    Parameters
    ----------
    features : name -> expression of `bar["NAME"]`, the legs' bars.
    symbols : of the universe, as the column `symbol` counts them.
    legs : the symbols that are decided on together.

    Attributes
    ----------
    symbols : the legs, in order.
    names : of the features, in order.
    fields : columns that are needed.
    rows : (legs, marks) of the last `advance`, where each leg's bar lies.

    Raises
    ------
    ConfigError
        If a leg is not in the universe.
    StrategyError
        If a feature is of anything but the legs' bars.
    """

    def __init__(
        self, features: Mapping[str, Expression], symbols: Sequence[str], legs: Sequence[str]
    ) -> None:
        for leg in legs:
            check_symbol(leg, symbols)
        self.symbols = tuple(legs)
        self._legs = {leg: symbols.index(leg) for leg in legs}
        self._graph = FeatureGraph(features)
        self._sources = {n: _source(x, legs) for n, x in self._graph.given.items()}
        self.names = self._graph.names
        used = dict.fromkeys(field for _, field in self._sources.values())
        self.fields = tuple(used | dict.fromkeys(("ts", "symbol")))
        self.rows = np.empty((len(legs), 0), np.int64)
        self.state, self.restore = self._graph.state, self._graph.restore

    def advance(self, columns: Columns) -> tuple[Floats, Ints]:
        """A table (rows, marks) for the bar ends that all legs share, and each feature's row."""
        check_columns(self.fields, columns)
        ts, symbol = columns["ts"], columns["symbol"]
        rows = [np.flatnonzero(symbol == number) for number in self._legs.values()]
        common = functools.reduce(np.intersect1d, [ts[own] for own in rows])
        self.rows = np.array(
            [own[np.searchsorted(ts[own], common)] for own in rows], np.int64
        ).reshape(len(rows), len(common))
        places = dict(zip(self._legs, self.rows, strict=True))
        own = {n: columns[field][places[leg]] for n, (leg, field) in self._sources.items()}
        return self._graph.advance(own or {"ts": common})


def _source(x: Expression, legs: Sequence[str]) -> tuple[str, str]:
    # Leg and field of what the graph is given; the time of a bar end is that of any leg.
    source = x.operation.source
    if source and source.symbol in legs:
        return source.symbol, source.field
    if source and source.field == "ts" and not source.every_ns:
        return legs[0], "ts"
    raise StrategyError(
        f'a strategy with legs sees their bars alone, as bar["{legs[0]}"].close, was {x.name}'
    )
