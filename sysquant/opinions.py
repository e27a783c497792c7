"""The strategies of a book asked together: what they want on closed bars, and who failed.

Input: bars that closed. Output: a weight for each strategy and bar, as `decider.py` gives them.
What a strategy raises reaches the caller, or is contained: told, and the others go on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from sysquant.bars import ClosedBars
from sysquant.errors import ConfigError, StrategyError, nearest
from sysquant.strategy import Model, Strategy
from sysquant.types import Columns, Floats, Ints

Models = Callable[[str, str], Model]
Seen = Callable[[str, Columns, Mapping[str, Floats]], None]  # strategy, bars, features


class Opinions:
    """Those of the strategies of one book.

    Parameters
    ----------
    strategies : in their order.
    symbols : of the book.
    failed : (S,) live, 1 for a strategy that failed: it has no opinion until it is 0 again.
    contained : whether what a strategy raises is told by `faults`, and an infinite weight.
    models : gives the model of a strategy by its id.

    Attributes
    ----------
    faults : in order: name, engine time, error.
    models : strategy -> id of the model that it asks, of those that have one.
    """

    def __init__(
        self, strategies: Mapping[str, Strategy], symbols: Sequence[str], failed: Ints, *,
        contained: bool, models: Models | None = None,
    ) -> None:  # fmt: skip
        self._deciders = {name: one.decider(tuple(symbols)) for name, one in strategies.items()}
        used = {name for decider in self._deciders.values() for name in decider.fields}
        self._fields = tuple(sorted(used | {"close", "ts"}))
        self._failed, self._contained = failed, contained
        self._strategies, self._model_of = strategies, models
        self.models: dict[str, str] = {}
        self.faults: list[tuple[str, int, StrategyError]] = []
        self._seen: Seen | None = None

    @property
    def deciding(self) -> dict[str, Strategy]:
        """Strategies with the models that they ask."""
        return {n: cast("Strategy", one.strategy) for n, one in self._deciders.items()}

    def watch(self, seen: Seen) -> None:
        """Show what each strategy was given, after each time that it was asked.

        Parameters
        ----------
        seen : is given its name, all columns of the bars and the features; good until it returns.
        """
        self._seen = seen
        self._fields = tuple(name for name in ClosedBars._fields if name != "position")

    def serve(self, name: str, model: str) -> None:
        """Let a strategy ask a model from the next bar on; "" for none.

        Raises
        ------
        ConfigError
            If there is no such strategy, or none of the book's can have a model.
        StrategyError
            If it uses no model.
        """
        if name not in self._strategies:
            raise ConfigError(f"the book has no strategy {name!r}{nearest(name, self._strategies)}")
        strategy = self._strategies[name]
        if model:
            if self._model_of is None:
                raise ConfigError(f"{name} cannot ask a model: this book was given none")
            strategy = strategy.with_model(self._model_of(name, model))
        self._deciders[name].strategy = strategy
        self.models = {n: m for n, m in (self.models | {name: model}).items() if m}

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
                weights = decider.run(columns)
            elif self._failed[strategy]:  # it sees bars go by, to be warm when it is started again
                weights = decider.follow(columns)
            else:
                weights, error = decider.run_until_fault(columns)
                if error is not None:
                    at = int(columns["ts"][np.isinf(weights)][0])
                    self.faults.append((name, at, error))
            if self._seen is not None:
                self._seen(name, columns, decider.features)
            yield weights

    def state(self) -> dict[str, np.ndarray]:
        """A copy of what features and memories hold, by strategy and name, and who has a model."""
        features = {
            f"features/{name}/{part}": array
            for name, decider in self._deciders.items()
            for part, array in decider.state().items()
        }
        served = self.models.items()
        return features | {f"models/{name}": np.array([model]) for name, model in served}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned, among other things."""
        for name, decider in self._deciders.items():
            prefix = f"features/{name}/"
            decider.restore(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
            model = str(state.get(f"models/{name}", [""])[0])
            if model != self.models.get(name, ""):
                self.serve(name, model)
