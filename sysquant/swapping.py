"""Which model each strategy of a running book asks, and since when.

Input: what operators say of models, what the loader found, and the clock. Output: swaps, each to be
one input of the journal between two batches; how the models stand. A model that is refused changes
nothing: the one before serves on.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa

from sysquant.engine import Engine
from sysquant.errors import ControlError, nearest
from sysquant.journal import Journal
from sysquant.models.loader import Look, ModelLoader, number_of
from sysquant.operation import Serve
from sysquant.rows import drifted, model_served

_TELL_ROWS = 100  # asked between two rows of drift
_PATIENCE_S = 30.0  # of a beginning, with a model that is on its way


class Swap(NamedTuple):
    """A model for a strategy from now on, with what is recorded of it in the same commit."""

    operation: Serve
    text: str
    tables: Mapping[str, pa.Table]
    notes: Mapping[str, str]


class Swapper:
    """The models of one book.

    Parameters
    ----------
    engine, journal : of the book.
    loader : finds models; the engine's own.
    clock : ns UTC, which says what has expired; 0 as long as that is not known.
    """

    def __init__(
        self, engine: Engine, journal: Journal, loader: ModelLoader, clock: Callable[[], int]
    ) -> None:
        self._engine, self._journal, self._loader, self._clock = engine, journal, loader, clock
        self._said = dict.fromkeys(loader.strategies, "")
        self._told = dict[str, int]()  # model -> rows asked when its drift was told

    def begin(self) -> None:
        """Look for the newest models, of which no ping may have told us while we were away."""
        for name in self._loader.strategies:
            self._ask(name)

    def ask(self, strategy: str, number: int | None = None) -> str:
        """Look for a strategy's newest model, or for one by its number; what to answer.

        Raises
        ------
        ControlError
            If the strategy uses no model.
        """
        if strategy not in self._engine.strategies:
            raise ControlError(
                f"the book has no {strategy!r}{nearest(strategy, self._engine.strategies)}"
            )
        if strategy not in self._loader.strategies:
            raise ControlError(f"{strategy!r} uses no model")
        self._ask(strategy, number)
        which = "its newest model" if number is None else f"model {number}"
        return f"{strategy} looks for {which}"

    def _ask(self, strategy: str, number: int | None = None) -> None:
        self._said[strategy] = ""
        self._loader.ask(
            strategy, self._serving(strategy), now=self._clock(),
            least=self._greatest(strategy), number=number,
        )  # fmt: skip

    def _serving(self, strategy: str) -> str:
        return self._engine.models.get(strategy, "")

    def _greatest(self, strategy: str) -> int:
        return int(self._journal.meta(f"served/{strategy}") or 0)

    def due(self, at: int = 0) -> Iterator[Swap | Look]:
        """What is to be swapped now, and what was refused; each is taken before the next comes.

        Parameters
        ----------
        at : ns UTC of the first event, given once, before it is taken: a strategy without a model
            waits for what is on its way.
        """
        market = at or self._engine.engine_ts
        if not market:
            return
        is_waited_for = at and set(self._loader.strategies) - set(self._engine.models)
        for look in self._loader.found(_PATIENCE_S if is_waited_for else 0.0):
            look = self._checked(look, market)
            self._said[look.strategy] = look.said
            if look.refused:
                yield look
            elif look.name and look.name != self._serving(look.strategy):
                yield self._swap(look.strategy, look.name, market, look.said)
                self._loader.keep(look.strategy, look.name)
        for name, model in self._engine.models.items():
            if self._clock() >= self._loader.about(name, model)[1]:
                self._said[name] = f"{model} has expired: train it anew"
                yield self._swap(name, "", market, self._said[name])

    def _checked(self, look: Look, at: int) -> Look:
        # In a replay a model may know what is still to come, and have expired by the time it is at.
        if not look.name:
            return look
        known, expires = self._loader.about(look.strategy, look.name)
        why = ""
        if expires <= (self._clock() or at):
            why = "it has expired: train it anew"
        elif known > at:
            why = (
                f"outcomes it was trained on were known {(known - at) / 3600e9:.1f} hours after "
                "the market's time; train with end= before what is replayed"
            )
        if not why:
            return look
        return look._replace(name="", said=f"{look.name} is refused: {why}", refused=True)

    def _swap(self, strategy: str, model: str, at: int, said: str) -> Swap:
        seq = self._journal.last_seq + 1
        row = model_served(self._journal.id, seq, at, strategy, model, said)
        greatest = max(self._greatest(strategy), number_of(model) if model else 0)
        notes = {f"served/{strategy}": str(greatest)}
        return Swap(Serve(strategy, model), f"{strategy}: {said}", {"models_served": row}, notes)

    def status(self, strategy: str) -> dict[str, object]:
        """The model that serves, when it expires, and what the last look came to; empty for none.

        `said` is empty as long as a look goes on.
        """
        if strategy not in self._loader.strategies:
            return {}
        model = self._serving(strategy)
        expires = self._loader.about(strategy, model)[1] if model else 0
        return {"model": model, "expires": expires, "said": self._said[strategy]}

    def drift(self) -> dict[str, pa.Table]:
        """Rows of `drift`, of models that were asked much since the last time."""
        rows = list[dict[str, object]]()
        for strategy, model in self._engine.models.items():
            asked, moved = self._loader.moved(strategy, model)
            if moved and asked >= self._told.get(model, 0) + _TELL_ROWS:
                self._told[model] = asked
                rows += [{"strategy": strategy, "model": model, **one._asdict()} for one in moved]
        return drifted(self._journal.id, self._engine.engine_ts, rows)

    def close(self) -> None:
        """Look no more."""
        self._loader.close()
