"""Which model each strategy of a running book asks, and since when.

Input: what operators say of models, what the loader found, and the clock. Output: swaps, each to be
one input of the journal between two batches; how the models stand. A model that is refused changes
nothing: the one before serves on. One that breaches its limits is left for the one before it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import pyarrow as pa

from sysquant.engine import Engine
from sysquant.errors import ControlError, nearest
from sysquant.journal import Journal
from sysquant.keys import check_number
from sysquant.models.loader import Look, ModelLoader, number_of
from sysquant.operation import Serve
from sysquant.rows import drifted, model_served

_TELL_ROWS = 100  # asked between two rows of drift
_PATIENCE_S = 30.0  # of a beginning, with a model that is on its way


@dataclass(frozen=True, slots=True)
class Serving:
    """How a book takes models, as configured by `conf/serving`.

    Parameters
    ----------
    holds : whether a strategy that has a model takes only one that is promoted, instead of every
        newer one.
    most_lost : since a new model serves, of the strategy's allocation; then the one before it
        serves again. None: never.
    most_drift : population stability index of what it says; likewise.

    Raises
    ------
    ConfigError
        If a limit cannot be meant.
    """

    holds: bool = False
    most_lost: float | None = None
    most_drift: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("most_lost", "most_drift"):
            if (limit := getattr(self, name)) is not None:
                check_number(f"serving.{name}", limit, above=0)


_NEWEST = Serving()


class Swap(NamedTuple):
    """A model for a strategy from now on, with what is recorded of it in the same commit.

    Parameters
    ----------
    kind : of the event: `went_back` of a model that breached its limits, else `swapped`.
    operation : to be carried out.
    text : for people.
    tables, notes : as of a journal's commit.
    """

    kind: str
    operation: Serve
    text: str
    tables: Mapping[str, pa.Table]
    notes: Mapping[str, str]


class _Served(msgspec.Struct, frozen=True):
    # Of a strategy: what serves, what it took the place of, and the P&L then; over restarts.
    model: str = ""
    before: str = ""
    pnl: float = 0.0
    greatest: int = 0  # number that has ever served


def served(journal: Journal, strategy: str) -> str:
    """The model that a strategy of a journal's book asked last; empty for none."""
    return _read(journal, strategy).model


def without(journal: Journal, strategy: str) -> dict[str, str]:
    """What a journal is to remember of a strategy whose model is dropped: notes of a commit.

    The newest is taken then, unless it was rolled back from.
    """
    was = _read(journal, strategy)
    was_newest = bool(was.model) and number_of(was.model) == was.greatest
    return {f"served/{strategy}": _written(_Served(greatest=0 if was_newest else was.greatest))}


def _read(journal: Journal, strategy: str) -> _Served:
    note = journal.meta(f"served/{strategy}")
    return msgspec.json.decode(note, type=_Served) if note else _Served()


def _written(served: _Served) -> str:
    return msgspec.json.encode(served).decode()


class _Left(NamedTuple):
    # A model that breached its limits, the number of the one before it, and why.
    model: str
    number: int
    why: str


class Swapper:
    """The models of one book.

    Parameters
    ----------
    engine, journal : of the book.
    loader : finds models; the engine's own.
    clock : ns UTC, which says what has expired; 0 as long as that is not known.
    serving : how it takes them.
    """

    def __init__(
        self, engine: Engine, journal: Journal, loader: ModelLoader, clock: Callable[[], int],
        serving: Serving = _NEWEST,
    ) -> None:  # fmt: skip
        self._engine, self._journal, self._loader, self._clock = engine, journal, loader, clock
        self._serving = serving
        self._said = dict.fromkeys(loader.strategies, "")
        self._known = {name: _read(journal, name) for name in loader.strategies}
        self._left = dict[str, _Left]()  # by strategy, while the model before it is looked for
        self._told = dict[str, int]()  # model -> rows asked when its drift was told
        self._drifted = dict[str, float]()  # model -> index of what it says, at that time

    def begin(self) -> None:
        """Look for the newest models, of which no ping may have told us while we were away."""
        for name in self._loader.strategies:
            known = self._known[name].model
            if not self._serving.holds:
                self._ask(name)
            elif not self._asked(name):  # at first; or it has adopted what it holds
                self._ask(name, number_of(known) if known else None)

    def ask(
        self, strategy: str, number: int | None = None, *, content: str = "",
        is_newer: bool = False,
    ) -> str:  # fmt: skip
        """Look for a strategy's newest model, or for one by its number; what to answer.

        Parameters
        ----------
        content : its id, as of `ModelLoader.ask`.
        is_newer : whether it must be one that has not served.

        Raises
        ------
        ControlError
            If the strategy uses no model, or the number is of none that `is_newer`.
        """
        if strategy not in self._engine.strategies:
            raise ControlError(
                f"the book has no {strategy!r}{nearest(strategy, self._engine.strategies)}"
            )
        if strategy not in self._loader.strategies:
            raise ControlError(f"{strategy!r} uses no model")
        serving = self._asked(strategy)
        if number is None and serving and self._serving.holds:
            self._said[strategy] = f"{strategy} holds {serving}: a newer one is to be promoted"
            return self._said[strategy]
        greatest = self._known[strategy].greatest
        if is_newer and number is not None and number <= greatest:
            raise ControlError(f"model {greatest} has served already: go back to {number} instead")
        self._ask(strategy, number, content)
        which = "its newest model" if number is None else f"model {number}"
        return f"{strategy} looks for {which}"

    def _ask(self, strategy: str, number: int | None = None, content: str = "") -> None:
        self._said[strategy] = ""
        self._loader.ask(
            strategy, self._asked(strategy), now=self._clock(),
            least=self._known[strategy].greatest, number=number, content=content,
        )  # fmt: skip

    def _asked(self, strategy: str) -> str:
        return self._engine.models.get(strategy, "")

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
            yield from self._taken(self._checked(look, market), market)
        for name, model in self._engine.models.items():
            if self._clock() >= self._loader.about(name, model)[1]:
                self._said[name] = f"{model} has expired: train it anew"
                yield self._swap(name, "", market, self._said[name])
            elif name not in self._left and (why := self._breached(name, model)):
                number = number_of(self._known[name].before)
                self._left[name] = _Left(model, number, why)
                self._ask(name, number)

    def _taken(self, look: Look, market: int) -> Iterator[Swap | Look]:
        name, serving, said = look.strategy, self._asked(look.strategy), look.said
        left = self._left.get(name)
        goes_back = left is not None and left.number == look.number
        if left and goes_back:
            del self._left[name]
            if left.model != serving:  # another has come meanwhile
                return
            said = f"{left.why}; {said}"
        self._said[name] = said
        if look.refused:
            yield look
        if goes_back or look.name not in ("", serving):
            kind = "went_back" if goes_back else "swapped"
            yield self._swap(name, look.name, market, said, kind)
            self._loader.keep(name, look.name)

    def _breached(self, strategy: str, model: str) -> str:
        # Why a model is left, of those that took another's place.
        served, limits = self._known[strategy], self._serving
        if not served.before:
            return ""
        account = self._engine.accounts()[strategy]
        lost = served.pnl - (account["equity"] - account["allocation"])
        most = (limits.most_lost or math.inf) * account["allocation"]
        if lost > most:
            return f"{lost:,.2f} were lost since {model} serves, most {most:,.2f}"
        psi = self._drifted.get(model, 0.0)
        if psi > (limits.most_drift or math.inf):
            return f"what {model} says has drifted by {psi:.2f}, most {limits.most_drift:g}"
        return ""

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

    def _swap(self, strategy: str, model: str, at: int, said: str, kind: str = "swapped") -> Swap:
        seq = self._journal.last_seq + 1
        row = model_served(self._journal.id, seq, at, strategy, model, said)
        was, number = self._known[strategy], number_of(model) if model else 0
        account = self._engine.accounts()[strategy]
        now = self._known[strategy] = _Served(
            model, self._asked(strategy) if number > was.greatest else "",
            account["equity"] - account["allocation"], max(was.greatest, number),
        )  # fmt: skip
        notes = {f"served/{strategy}": _written(now)}
        return Swap(
            kind, Serve(strategy, model), f"{strategy}: {said}", {"models_served": row}, notes
        )

    def status(self, strategy: str) -> dict[str, object]:
        """The model that serves, when it expires, and what the last look came to; empty for none.

        `said` is empty as long as a look goes on; `drift` is of what the model says, None as long
        as it was asked too little.
        """
        if strategy not in self._loader.strategies:
            return {}
        model = self._asked(strategy)
        expires = self._loader.about(strategy, model)[1] if model else 0
        return {
            "model": model, "expires": expires, "said": self._said[strategy],
            "drift": self._drifted.get(model),
        }  # fmt: skip

    def drift(self) -> dict[str, pa.Table]:
        """Rows of `drift`, of models that were asked much since the last time."""
        rows = list[dict[str, object]]()
        for strategy, model in self._engine.models.items():
            asked, moved = self._loader.moved(strategy, model)
            if moved and asked >= self._told.get(model, 0) + _TELL_ROWS:
                self._told[model] = asked
                says = [one.psi for one in moved if one.kind == "prediction"]
                self._drifted[model] = max(says, default=0.0)
                rows += [{"strategy": strategy, "model": model, **one._asdict()} for one in moved]
        return drifted(self._journal.id, self._engine.engine_ts, rows)

    def close(self) -> None:
        """Look no more."""
        self._loader.close()
