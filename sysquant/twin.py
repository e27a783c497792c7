"""The live twin: live minus backtest P&L of a session, split into causes that sum exactly.

A chain of replays, each with one more input exchanged from the backtest's to the session's own:

0. the backtest: events as the store has them, in canonical order, no mark of the wall's clock, no
   command, the configured capital, the first model for good;
1. data: events and warm-up as they were journaled, in canonical order;
2. timing: their order and the marks of the wall's clock as they were journaled;
3. model version: models from where they were swapped on;
4. capital: commands, weights, holds, moves, adoptions, where they took effect;
5. decision: weights as recorded, not computed;
6. fees: fees and financing of the same orders at the recorded rates;
7. fill price: the same orders arrive and fill as recorded; and of those that still differ in their
   fills only, the difference itself;
8. risk: orders as recorded: what was sent, refused, and in which size.

A cause is the difference of two neighbours. What the session says it earned less what its recorded
fills and charges come to is *unexplained*. Fees and prices come before risk: they change what is
held, and so the size of all later orders, which are no decision of the chain. From there on P&L is
linear in fills, order by order. Nothing is read or written here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sysquant.differences import Linear, counted
from sysquant.inputs import until
from sysquant.keys import check_number
from sysquant.ladder import Book, replayed, retaken, steps_of

CAUSES = (
    "data", "timing", "model version", "capital", "decision", "fees", "fill price", "risk",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a twin may leave unexplained.

    Parameters
    ----------
    most_unexplained : of a strategy's P&L, as a fraction of its allocation.

    Raises
    ------
    ConfigError
        If it cannot be meant.
    """

    most_unexplained: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_number("twin.most_unexplained", self.most_unexplained, above=0)


class Cause(NamedTuple):
    """What one cause came to.

    Parameters
    ----------
    pnl : live minus backtest, the book's currency.
    differing : rows that are others, and `first` of them for people.
    """

    pnl: float
    differing: int
    first: str


@dataclass(frozen=True, slots=True)
class Twin:
    """A session and its backtest at one moment, ns UTC; mappings are by strategy.

    Parameters
    ----------
    run : of the session.
    ts : its last recorded snapshot.
    live, backtest : P&L after all costs, the book's currency.
    causes : cause -> what it came to, in the order of `CAUSES`.
    unexplained : live less backtest less all causes.
    capital : that was allocated at the start.
    wall_bars : bars that were decided on at a mark of the wall's clock.
    notes : what else people must know.
    """

    run: str
    ts: int
    live: Mapping[str, float]
    backtest: Mapping[str, float]
    causes: Mapping[str, Mapping[str, Cause]]
    unexplained: Mapping[str, float]
    capital: Mapping[str, float]
    wall_bars: int = 0
    notes: tuple[str, ...] = ()

    def failures(self, limits: Tolerance) -> list[str]:
        """What is unexplained beyond a limit, a sentence for each strategy."""
        found = list[str]()
        for name, amount in self.unexplained.items():
            most = limits.most_unexplained * self.capital[name]
            if not abs(amount) <= most:
                found.append(
                    f"{name}: {amount:+,.8g} of live minus backtest P&L is unexplained, at most "
                    f"{most:g} may be: what the session says it earned is not what its recorded "
                    "fills and charges come to"
                )
        return found

    def table(self) -> pa.Table:
        """Rows of the table `twin`."""
        rows = [
            {
                "strategy": name, "cause": cause, **one._asdict(), "live": self.live[name],
                "backtest": self.backtest[name], "unexplained": self.unexplained[name],
            }
            for name, causes in self.causes.items()
            for cause, one in causes.items()
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows)
        count = len(rows)
        whole = {"differing": pa.uint64()}
        for at, (name, values) in enumerate({
            "run": pa.array([self.run] * count),
            "ts": pa.array(np.full(count, self.ts, "M8[ns]"), pa.timestamp("ns", "UTC")),
        }.items()):  # fmt: skip
            table = table.add_column(at, name, values)
        for name, kind in whole.items():
            at = table.column_names.index(name)
            table = table.set_column(at, name, table[name].cast(kind))
        return table.append_column("wall_bars", pa.array([self.wall_bars] * count, pa.uint64()))


def compare(book: Book, run: str) -> Twin:
    """Split live minus backtest P&L of a session at its last recorded snapshot.

    Parameters
    ----------
    book : of the session.
    run : its name.

    Returns
    -------
    All causes of each strategy; those of data and timing are counted for the whole book.
    """
    engine, told, inputs = book.make(), book.told, book.inputs
    names, symbols = list(engine.strategies), engine.symbols
    capital = {name: each["allocation"] for name, each in engine.accounts().items()}
    place = until(inputs.events, engine.universe, engine.interval, told.ts)
    steps = steps_of(book, engine, place.place)
    done = replayed(book, steps)
    retakes = retaken(book, steps[-1])
    linear = Linear.of(engine, retakes[-1], told)
    pnls = [one.pnl for one in (*done, *retakes)]
    amounts = {
        cause: {name: round(pnls[at + 1][name] - pnls[at][name], 8) for name in names}
        for at, cause in enumerate(CAUSES[:7])
    }
    for name in names:
        amounts["fees"][name] += linear.charged[name]
        amounts["fill price"][name] += linear.filled[name]
    amounts["risk"] = dict(linear.risked)
    found = counted(book, steps, done[-1], retakes, linear, symbols)
    live = {name: round(told.pnl.get(name, 0.0), 8) for name in names}
    causes = {
        name: {
            cause: Cause(round(amounts[cause][name], 8), *found(name, cause)) for cause in CAUSES
        }
        for name in names
    }
    unexplained = {
        name: round(
            live[name] - pnls[0][name] - math.fsum(one.pnl for one in causes[name].values()), 8
        )
        for name in names
    }
    notes = list(dict.fromkeys(book.notes))
    if unasked := retakes[0].unasked:
        notes.append(f"{len(unasked)} recorded decisions lie on bars that do not close in a replay")
    return Twin(run, told.ts, live, pnls[0], causes, unexplained, capital, place.wall, tuple(notes))
