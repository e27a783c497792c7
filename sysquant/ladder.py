"""The replays between a session's backtest and the session, each with one input more of its own.

Input: a session's inputs and outcome, and what its backtest takes. Output: P&L and rows of each of
the replays 0 to 7 of `twin.py`, at the same moment of the market. Nothing is judged here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sysquant.engine import Engine
from sysquant.errors import ConfigError
from sysquant.inputs import Events, Inputs, Wish, canonical, until
from sysquant.operation import Operation, Serve
from sysquant.outcome import FillKey, Outcome
from sysquant.retake import Amended, Retake
from sysquant.types import Bars, Floats, clock_mark

Pnl = dict[str, float]
_CHUNK = 65_536  # events of a whole engine at a time: its rows are read and dropped


@dataclass(slots=True)
class Book:
    """What a session's book is compared with.

    Parameters
    ----------
    make : a fresh engine, as configured.
    inputs : of the session.
    told : what it recorded.
    stored : the events that the backtest takes, in canonical order.
    history : bars that the backtest warms up on; None for none.
    notes : operations that could not be repeated, so far.
    """

    make: Callable[[], Engine]
    inputs: Inputs
    told: Outcome
    stored: Events
    history: Bars | None = None
    notes: list[str] = field(default_factory=list[str])


class Step(NamedTuple):
    """Inputs of one replay."""

    events: Events
    history: Bars | None
    wishes: tuple[Wish, ...]

    def is_same(self, other: "Step") -> bool:
        """Whether another one has the same inputs."""
        if self.wishes != other.wishes or (self.history is None) != (other.history is None):
            return False
        pairs: list[Any] = [(self.events, other.events)]
        if self.history is not None:
            pairs.append((self.history, other.history))
        return all(
            len(one) == len(two)
            and all(
                np.array_equal(column, getattr(two, name))
                for name, column in one.columns()
                if name not in ("partition", "offset", "received_at")
            )
            for one, two in pairs
        )


class Done(NamedTuple):
    """What a replay came to."""

    pnl: Pnl
    outcome: Outcome


def steps_of(book: Book, engine: Engine, place: int) -> list[Step]:
    """Inputs of replays 0 to 4; `place` is how many events of the session came to the moment."""
    inputs, told = book.inputs, book.told
    shape = engine.universe, engine.interval
    history = canonical(inputs.events)
    ordered = history[: until(history, *shape, told.ts).place]
    stored = book.stored[: until(book.stored, *shape, told.ts).place]
    own = inputs.events[:place]
    wishes = tuple(one for one in inputs.wishes if not told.seq or one.seq < told.seq)
    first = inputs.first_models()
    served = _merged(one.only(serves=True) for one in wishes)
    return [
        Step(stored, book.history, first),
        Step(ordered, inputs.history, first),
        Step(own, inputs.history, first),
        Step(own, inputs.history, served),
        Step(own, inputs.history, _merged(wishes)),
    ]


def _merged(wishes: Any) -> tuple[Wish, ...]:
    # Without those that do nothing; several at one place as one, as long as no state comes between.
    found = list[Wish]()
    for wish in wishes:
        if not wish.operations and wish.state is None:
            continue
        last = found[-1] if found else None
        if last and last.place == wish.place and last.state is None is wish.state:
            found[-1] = last._replace(operations=last.operations + wish.operations, seq=0)
        else:
            found.append(wish._replace(seq=0))
    return tuple(found)


def replayed(book: Book, steps: Sequence[Step]) -> list[Done]:
    """What replays 0 to 4 come to; one whose input is that of the one before is not run twice."""
    done = list[Done]()
    for number, step in enumerate(steps):
        if number and step.is_same(steps[number - 1]):
            done.append(done[-1])
        else:
            done.append(_computed(book, step))
    return done


def _computed(book: Book, step: Step) -> Done:
    engine, outcome = book.make(), Outcome(book.told.ts)
    names, symbols = list(engine.strategies), engine.symbols

    def advance(events: Events) -> None:
        for at in range(0, len(events), _CHUNK):
            outcome.take(engine.step(events[at : at + _CHUNK]).rows, names, symbols)

    def adopt(state: Mapping[str, np.ndarray]) -> None:
        engine.restore(state)

    _drive(book, engine, step, advance, adopt, serves=True)
    engine.faults.clear()
    return Done(_pnl_of(engine), outcome)


def _drive(
    book: Book, engine: Engine, step: Step, advance: Callable[[Any], None],
    adopt: Callable[[Mapping[str, np.ndarray]], None], *, serves: bool,
) -> None:  # fmt: skip
    # Events, with what is done between them, up to the moment that is compared.
    at, is_warm = 0, step.history is None
    for wish in (*step.wishes, Wish(len(step.events), 0)):
        if wish.place > at:
            if not is_warm:
                engine.warm(step.history)  # pyright: ignore[reportArgumentType]
                is_warm = True
            advance(step.events[at : wish.place])
            at = wish.place
        for one in wish.operations:
            if serves or not isinstance(one, Serve):
                _operate(book, engine, one)
        if wish.state is not None:
            adopt(wish.state)
    advance(clock_mark(book.told.ts))


def _operate(book: Book, engine: Engine, wish: Operation) -> None:
    try:
        engine.operate(wish)
    except ConfigError as error:
        book.notes.append(f"{type(wish).__name__.lower()} cannot be repeated in a replay: {error}")


def _pnl_of(engine: Engine) -> Pnl:
    accounts = engine.accounts().items()
    return {name: round(each["equity"] - each["allocation"], 8) for name, each in accounts}


# -- with recorded decisions


class Retaken(NamedTuple):
    """What a replay with recorded decisions came to: as of `Retake`, and `worth` of a unit then."""

    pnl: Pnl
    outcome: Outcome
    units: Mapping[FillKey, float]
    amended: list[Amended]
    costs: dict[str, float]
    unasked: set[Any]
    worth: Floats


def retaken(book: Book, step: Step) -> list[Retaken]:
    """What replays 5 to 7 come to, of the inputs of the last one before.

    Where costs were recorded otherwise, a second time, with the sizes of orders that reserve them.
    """
    found, costs = [_once(book, step)], dict[str, float]()
    for prices in (False, True):
        taken = _once(book, step, fees=True, prices=prices, costs=costs)
        if any(most > costs.get(name, 0.0) for name, most in taken.costs.items()):
            costs = taken.costs
            taken = _once(book, step, fees=True, prices=prices, costs=costs)
        found.append(taken)
    return found


def _once(book: Book, step: Step, **exchanged: Any) -> Retaken:
    engine = book.make()
    retake = Retake(engine, book.told, **exchanged)
    _drive(book, engine, step, retake.step, retake.adopt, serves=False)
    return Retaken(
        _pnl_of(engine), retake.outcome, retake.units, retake.amended, retake.costs, retake.unasked,
        engine.amendment().worth,
    )  # fmt: skip
