"""One strategy on one symbol: features of new bars, then weights, batch by batch or bar by bar.

Input: columns of closed bars. Output: a weight for each, NaN where there is no opinion. However a
history is cut, the weights are the same bits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel
from sysquant.errors import StrategyError, nearest
from sysquant.features import Bar, Expression, FeatureGraph
from sysquant.features.expression import BAR_FIELDS, as_expression
from sysquant.frames import Columns
from sysquant.types import Floats, Ints


class Decides(Protocol):
    """What there is of a strategy for one who evaluates it."""

    def features(self, bar: Bar) -> Mapping[str, Expression]:
        """Expressions over a bar, by name."""
        ...

    def target(self, f: Mapping[str, Floats]) -> NDArray[np.generic]:
        """Weights, from the features' values."""
        ...


class FeatureValues(Mapping[str, Floats]):
    """Features as `target` gets them; remembers which of them were read."""

    def __init__(self, names: Sequence[str], table: Floats, rows: Ints) -> None:
        self._row = dict(zip(names, rows.tolist(), strict=True))
        self._table = table.view()
        self._table.flags.writeable = False
        self.read: set[int] = set()

    def __getitem__(self, name: str) -> Floats:
        row = self._row.get(name)
        if row is None:
            raise StrategyError(f"there is no feature {name!r}{nearest(str(name), self._row)}")
        self.read.add(row)
        return self._table[row]

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


class Decider:
    """One strategy on one symbol: new bars in, target weights out; not thread-safe.

    Attributes
    ----------
    strategy : as given.
    fields : columns of a bar that its features need.
    names : of its features.
    """

    def __init__(self, strategy: Decides) -> None:
        self.strategy = strategy
        self._graph = FeatureGraph(features_of(strategy))
        self.fields = self._graph.fields
        self.names = self._graph.names
        self._table, self._rows = np.empty((0, 0)), np.empty(0, np.int64)

    def run(self, columns: Columns) -> Floats:
        """Take n newly closed bars, oldest first, and decide on each.

        Parameters
        ----------
        columns : field -> (n,), those in `fields` at least; n may be 0, 1 or millions, and how a
            history is cut never shows in the result.

        Returns
        -------
        (n,) weights in [-1, 1]; NaN where there is no opinion.

        Raises
        ------
        DataError
            If a column is missing or of another length.
        StrategyError
            If `target` returns what is no weight.
        """
        self._table, self._rows = self._graph.advance(columns)
        return weigh(self.strategy, self.names, self._table, self._rows)

    @property
    def features(self) -> dict[str, Floats]:
        """Features of the last run: name -> (n,), until the next one."""
        return {name: self._table[row] for name, row in zip(self.names, self._rows, strict=True)}

    def state(self) -> dict[str, Floats]:
        """Memory of its nodes by name; copies."""
        return self._graph.state()

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Put back what `state` returned.

        Raises
        ------
        DataError
            If it is the state of other features.
        """
        self._graph.restore(state)


class Stream:
    """One strategy on one symbol, bar by bar; the same nodes as in an array."""

    def __init__(self, strategy: Decides) -> None:
        self.decider = Decider(strategy)

    def update(self, bar: Any) -> float:
        """Take the next closed bar.

        Parameters
        ----------
        bar : mapping or object with the fields that are needed, e.g. `{"close": 101.5}`.

        Returns
        -------
        Weight in [-1, 1], or NaN: no opinion.
        """
        fields = self.decider.fields or BAR_FIELDS[3:4]
        read = bar.__getitem__ if isinstance(bar, Mapping) else lambda name: getattr(bar, name)
        return float(self.decider.run({f: np.array([read(f)], np.float64) for f in fields})[0])

    @property
    def features(self) -> dict[str, float]:
        """Features at the last bar."""
        return {name: float(values[-1]) for name, values in self.decider.features.items()}


def features_of(strategy: Decides) -> dict[str, Expression]:
    """Features as a strategy states them, numbers turned into nodes.

    Raises
    ------
    StrategyError
        If they are no mapping of names to expressions.
    """
    stated = strategy.features(Bar())
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise StrategyError(f"{strategy!r}: features must return a dict of name -> expression")
    if "target" in stated:
        raise StrategyError(f"{strategy!r}: a feature cannot be called 'target'; rename it")
    return {name: as_expression(value) for name, value in stated.items()}


def weigh(strategy: Decides, names: Sequence[str], table: Floats, rows: Ints) -> Floats:
    """Weights of a strategy on n bars, from features that were computed before.

    Parameters
    ----------
    names : of its features.
    table : (R, n) values; it may hold features of others, too.
    rows : of each feature in the table.

    Returns
    -------
    (n,) weights in [-1, 1]; NaN where there is no opinion, or a feature that was read is NaN.

    Raises
    ------
    StrategyError
        If `target` returns what is no weight.
    """
    if table.shape[1] == 0:
        return np.empty(0)
    values = FeatureValues(names, table, rows)
    with np.errstate(all="ignore"):
        answer = strategy.target(values)
    return _weights(strategy, answer, table, values.read)


def _weights(strategy: Decides, answer: Any, table: Floats, read: set[int]) -> Floats:
    # What `target` returned, NaN where it could not know, refused where it is no weight.
    shape = (table.shape[1],)
    is_array = isinstance(answer, np.ndarray) and answer.dtype.kind in "bif"
    if not is_array or answer.shape != shape:
        was = f"{type(answer).__name__} of shape {np.shape(answer)}"
        raise StrategyError(
            f"{strategy!r}: target must return an array of numbers of shape {shape}, was {was}; "
            "write np.where(condition, a, b) or np.full_like(f[...], weight)"
        )
    weights = np.empty(shape)
    answer = np.require(answer, np.float64, ["C", "W"])
    wrong = _weigh(answer, table, np.array(sorted(read), np.int64), weights)
    if wrong >= 0:
        raise StrategyError(
            f"{strategy!r}: target must lie in [-1, 1], was {answer[wrong]!r}; "
            "scale it, or keep it there with np.clip"
        )
    return weights


@kernel
def _weigh(answer: Floats, table: Floats, read: Ints, weights: Floats) -> int:
    # Fills weights: NaN where a feature that was read is; the first that is no weight, or -1.
    # Loops of one kind of step each: the processor takes four rows at a time.
    for i in range(len(weights)):
        weights[i] = answer[i]
    for row in read:
        feature = table[row]
        for i in range(len(weights)):
            weights[i] = weights[i] if feature[i] == feature[i] else math.nan
    wrong = 0
    for i in range(len(weights)):
        wrong += 1 if abs(weights[i]) > 1.0 else 0
    return -1 if wrong == 0 else int(np.argmax(np.abs(weights) > 1.0))
