"""Longer bars from the bars of one symbol: one minute to fifteen, complete ones only.

Input: columns of newly closed bars. Output: columns of the longer bars that they completed, and at
which of them. A longer bar ends at a multiple of its length; it is complete with the bar that ends
then, or with the next one after. What is not complete is memory, and never seen.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel
from sysquant.features.expression import BAR_FIELDS, Expression
from sysquant.features.graph import FeatureGraph
from sysquant.types import Floats, Ints


@kernel
def _lengthen(state: Floats, every: int, ts: Ints, bars: Floats, at: Ints, longer: Floats) -> int:
    # state: end of the bar at hand, 0 for none (a multiple of a second is exact in float64); then
    # its open, high, low, close, volume. Written: rows (open .. volume, ts) of complete bars.
    count, end = 0, int(state[0])
    for i in range(len(ts)):
        own = ts[i] + (-ts[i]) % every
        if 0 < end < own:
            at[count], count, end = i, _complete(state, longer, count, end), 0
        if end == 0:
            end = own
            state[1:] = bars[:, i]
        else:
            state[2] = max(state[2], bars[1, i])
            state[3] = min(state[3], bars[2, i])
            state[4] = bars[3, i]
            state[5] += bars[4, i]
        if ts[i] == end:
            at[count], count, end = i, _complete(state, longer, count, end), 0
    state[0] = end
    return count


@kernel
def _complete(state: Floats, longer: Floats, count: int, end: int) -> int:
    longer[:5, count] = state[1:]
    longer[5, count] = end
    return count + 1


class LongerBars:
    """Features of the longer bars of one symbol, held for each bar they are built from.

    Parameters
    ----------
    features : expressions of bars of one length, `every_ns`.
    """

    def __init__(self, features: list[Expression]) -> None:
        (self._every_ns,) = {int(x.every_ns or 0) for x in features}
        self._graph = FeatureGraph({x.name: x for x in features})
        self._fields = {
            name: BAR_FIELDS.index(x.operation.source.field)
            for name, x in self._graph.given.items()
            if x.operation.source
        }
        self._open = np.zeros(6)
        self._last = np.full(len(features), np.nan)

    def advance(self, columns: Mapping[str, NDArray[np.generic]]) -> Floats:
        """(features, n) for n bars: the values at the last longer bar that was complete by then.

        Parameters
        ----------
        columns : open, high, low, close, volume and ts (int64 ns) of the bars.
        """
        ts = np.ascontiguousarray(columns["ts"], np.int64)
        bars = np.array([columns[name] for name in BAR_FIELDS[:5]], np.float64)
        at, longer = np.empty(2 * len(ts), np.int64), np.empty((6, 2 * len(ts)))
        count = _lengthen(self._open, self._every_ns, ts, bars, at, longer)
        table, rows = self._graph.advance(
            {name: longer[field, :count] for name, field in self._fields.items()}
        )
        known = np.column_stack((self._last, table[rows]))
        self._last[:] = known[:, -1]
        return known[:, np.searchsorted(at[:count], np.arange(len(ts)), side="right")]

    def parts(self) -> Iterator[tuple[str, Floats]]:
        """Its memory by name, as views."""
        yield "open", self._open
        yield "last", self._last
        yield from self._graph.parts()
