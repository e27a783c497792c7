"""The strategies of a book asked together: what they want on closed bars, and who failed.

Input: bars that closed. Output: a weight for each strategy and bar, as `decider.py` gives them.
What a strategy raises reaches the caller, or is contained: told, and the others go on.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sysquant.bars import ClosedBars
from sysquant.errors import StrategyError
from sysquant.strategy import Strategy
from sysquant.types import Columns, Floats, Ints


class Opinions:
    """Those of the strategies of one book.

    Parameters
    ----------
    strategies : in their order.
    symbols : of the book.
    failed : (S,) live, 1 for a strategy that failed: it has no opinion until it is 0 again.
    contained : whether what a strategy raises is told by `faults`, and an infinite weight.

    Attributes
    ----------
    faults : in order: name, engine time, error.
    """

    def __init__(
        self, strategies: Mapping[str, Strategy], symbols: Sequence[str], failed: Ints, *,
        contained: bool,
    ) -> None:  # fmt: skip
        self._deciders = {name: one.decider(tuple(symbols)) for name, one in strategies.items()}
        used = {name for decider in self._deciders.values() for name in decider.fields}
        self._fields = tuple(sorted(used | {"close", "ts"}))
        self._failed, self._contained = failed, contained
        self.faults: list[tuple[str, int, StrategyError]] = []

    def warm(self, columns: Columns) -> list[str]:
        """Let all see history; who failed on it."""
        return [
            name
            for name, weights in zip(self._deciders, self._asked(columns), strict=True)
            if np.isinf(weights).any()
        ]

    def on(self, closed: ClosedBars, bars: int) -> Floats:
        """(S, bars) weights on the first so many bars; NaN for no opinion."""
        targets = np.empty((len(self._deciders), bars), np.float64)
        if bars:
            columns = {name: getattr(closed, name)[:bars] for name in self._fields}
            for strategy, weights in enumerate(self._asked(columns)):
                targets[strategy] = weights
        return targets

    def _asked(self, columns: Columns) -> Iterator[Floats]:
        for strategy, (name, decider) in enumerate(self._deciders.items()):
            if not self._contained:
                yield decider.run(columns)
            elif self._failed[strategy]:  # it sees bars go by, to be warm when it is started again
                yield decider.follow(columns)
            else:
                weights, error = decider.run_until_fault(columns)
                if error is not None:
                    at = int(columns["ts"][np.isinf(weights)][0])
                    self.faults.append((name, at, error))
                yield weights

    def state(self) -> dict[str, np.ndarray]:
        """A copy of what features and memories hold, by strategy and name."""
        return {
            f"features/{name}/{part}": array
            for name, decider in self._deciders.items()
            for part, array in decider.state().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned, among other things."""
        for name, decider in self._deciders.items():
            prefix = f"features/{name}/"
            decider.restore(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
