"""What a session had done through another risk chain: the targets it recorded, over its market.

Input: the steps of a session (history, events, operations) and the targets that it recorded, an
engine of its own chain and one of another. Output: two `Course`s over the same targets, of which
the first must be what was recorded; and by `compare` which orders flip, by which check, and what
becomes of P&L and drawdown. No strategy is asked, no model is loaded, nothing is written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sysquant.bars import ClosedBars
from sysquant.effects import Effects
from sysquant.engine import Engine, Rows
from sysquant.errors import ConfigError, DataError, JournalError
from sysquant.journal import Input
from sysquant.operation import Operation, Serve
from sysquant.packed import unpack_batch
from sysquant.receipts import Reviews
from sysquant.recovery import read_command
from sysquant.types import Bars, Floats, Ints, Ticks

# What rests on the market alone and on the chain's own keys: it is not taken over.
_OWN: Mapping[str, tuple[str, ...]] = {
    "clock": ("returns", "next_risk_bar", "covariance_weight"),
    "market": ("returns", "risk_price"),
}
_PATH = ("clock", "market", "active", "accounts", "cells", "orders")
_RINGS = ("own_returns", "own_lowest")  # of a length that the chain says
_OF_RINGS = ("mean", "squares", "losses_squared")  # of an account


class Step(NamedTuple):
    """One thing that a session took, in its order.

    Parameters
    ----------
    what : bars of history (the first step alone), events, or operations.
    kind : history, events or operations.
    seq : of the input; 0 where there was no journal.
    caused : hash of its effects as recorded; empty where none was.
    """

    what: Any
    kind: str
    seq: int = 0
    caused: bytes = b""


def steps_of(inputs: Iterable[Input]) -> Iterator[Step]:
    """The inputs of a journal as steps; models that were served are left out.

    Raises
    ------
    DataError
        If the session began with what another had held.
    """
    for entry in inputs:
        match entry.kind:
            case "adopted":
                raise DataError(
                    f"input {entry.seq} adopts another session's book: its positions were made "
                    "under another chain; ask about a session that began with journal=fresh"
                )
            case "history":
                yield Step(unpack_batch("bars", entry.payload), "history", entry.seq)
            case "command":
                done = read_command(entry).operations
                yield Step(done, "operations", entry.seq, entry.effects_hash)
            case kind:
                batch = unpack_batch(kind, entry.payload)
                yield Step(batch, "events", entry.seq, entry.effects_hash)


class Targets:
    """The targets that a session recorded, given again bar by bar.

    Parameters
    ----------
    engine : whose strategies and symbols they are of.
    signals : rows of the table `signals`, in the order they were made: ts, strategy, symbol and
        target at least. Between two of them there was no other opinion.
    faults : of strategies that raised: name, and the end of the bar, ns UTC.

    Raises
    ------
    DataError
        If they name what the engine has not.
    """

    def __init__(
        self, engine: Engine, signals: pa.Table, faults: Iterable[tuple[str, int]] = ()
    ) -> None:  # fmt: skip
        names, symbols = tuple(engine.strategies), engine.symbols
        strategy = _places(signals["strategy"].to_pylist(), names, "strategy")
        symbol = _places(signals["symbol"].to_pylist(), symbols, "symbol")
        ts = signals["ts"].to_numpy().astype(np.int64)
        target = signals["target"].to_numpy().astype(float)
        self._shape = len(names), len(symbols)
        self._of = dict[tuple[int, int], tuple[Ints, Floats]]()
        for place in np.unique(np.column_stack([strategy, symbol]), axis=0).tolist():
            own = np.flatnonzero((strategy == place[0]) & (symbol == place[1]))
            own = own[np.argsort(ts[own], kind="stable")]
            self._of[place[0], place[1]] = ts[own], target[own]
        self._faults = dict[int, list[int]]()
        raised = list(faults)
        places = _places([name for name, _ in raised], names, "strategy")
        for place, (_, at) in zip(places.tolist(), raised, strict=True):
            self._faults.setdefault(place, []).append(at)

    def on(self, closed: ClosedBars, bars: int) -> Floats:
        """(S, bars) weights of the first so many bars; NaN where nothing new was wanted."""
        found = np.full((self._shape[0], bars), np.nan)
        ts, number = closed.ts[:bars], closed.symbol[:bars]
        for (strategy, symbol), (known, wanted) in self._of.items():
            rows = np.flatnonzero(number == symbol)
            # Bars of an activity may end together: the first of them has the first target.
            place = np.searchsorted(known, ts[rows]) + _nth(ts[rows])
            place = np.minimum(place, len(known) - 1)
            is_new = known[place] == ts[rows]
            found[strategy, rows[is_new]] = wanted[place[is_new]]
        for strategy, ends in self._faults.items():
            found[strategy, np.isin(ts, ends) & np.isnan(found[strategy])] = np.inf
        return found


def _nth(values: Ints) -> Ints:
    # How many equal ones stand before each of rising values.
    at = np.arange(len(values))
    starts = np.diff(values, prepend=-1) != 0
    return at - np.maximum.accumulate(np.where(starts, at, 0))


def _places(names: Sequence[str], known: Sequence[str], what: str) -> Ints:
    at = {name: place for place, name in enumerate(known)}
    strangers = sorted(set(names) - at.keys())
    if strangers:
        raise DataError(f"the session has a {what} {strangers[0]!r}, the book has {list(known)}")
    return np.array([at[name] for name in names], np.int64)


class Course:
    """What becomes of one engine over the recorded targets.

    Parameters
    ----------
    engine : fresh.
    targets : that it is given.

    Attributes
    ----------
    left_out : operations that its book could not do, a sentence each.
    """

    def __init__(self, engine: Engine, targets: Targets) -> None:
        self.engine, self.left_out = engine, list[str]()
        self._targets = targets
        self._parts = list[Effects]()
        self._begun, self._first = 0, equity_of(engine)

    def take(self, step: Step) -> Effects:
        """Do what the session did; what it caused."""
        if step.kind == "history":
            self.engine.warm(step.what)
            return self._nothing
        caused = self._operated(step) if step.kind == "operations" else self._stepped(step.what)
        self._parts.append(caused)
        return caused

    def _operated(self, step: Step) -> Effects:
        done: Sequence[Operation] = step.what
        parts = [self._nothing]
        for one in done:
            try:
                if not isinstance(one, Serve):  # the targets are known
                    parts.append(self.engine.operate(one))
            except ConfigError as error:
                self.left_out.append(f"{one} of input {step.seq} is left out: {error}")
        return Effects.join(parts)

    @property
    def _nothing(self) -> Effects:
        return Effects.empty(len(self.engine.risk.names))

    def _stepped(self, batch: Ticks | Bars) -> Effects:
        parts = list[Effects]()

        def keep(rows: Rows) -> None:
            parts.append(Effects({name: table.copy() for name, table in rows.items()}))

        passes = self.engine.passes(batch)
        self.engine.replay(((*one, self._targets.on(*one[1:])) for one in passes), keep)
        return Effects.join(parts)

    def begin(self) -> None:
        """Count from here: what was before is no part of what is compared."""
        self._parts.clear()
        self.left_out.clear()
        self._begun, self._first = self.engine.engine_ts, equity_of(self.engine)

    def take_over(self, other: Engine) -> None:
        """Hold what another engine of the same book holds, and go on under the own chain."""
        own, theirs = self.engine.state(), other.state()
        state = own | {name: theirs[name] for name in _PATH}
        for name, fields in _OWN.items():
            for field in fields:
                state[name][field] = own[name][field]
        chains = self.engine.risk, other.risk
        if len({(one.window, one.confidence, one.risk_bar) for one in chains}) == 1:
            state |= {name: theirs[name] for name in _RINGS}
        else:
            for field in _OF_RINGS:
                state["accounts"][field] = own["accounts"][field]
        state["rates"] = _remembered(theirs["rates"], own["rates"], state["accounts"])
        self.engine.restore(state)

    @property
    def effects(self) -> Effects:
        """All that it caused since it was begun."""
        return Effects.join(self._parts or [self._nothing])

    @property
    def equity(self) -> tuple[Ints, Floats]:
        """Times, and equity of the book with its pool: at the beginning, snapshots and the end."""
        rows = self.effects["portfolio_history"]
        rows = rows[(rows["symbol"] < 0) & (rows["ts"] < self.engine.engine_ts)]
        ts, at = np.unique(rows["ts"], return_inverse=True)
        total = np.bincount(at, weights=rows["equity"], minlength=len(ts)).astype(float)
        begun = self._begun or (int(ts[0]) if len(ts) else self.engine.engine_ts)
        ends = [self._first, equity_of(self.engine)]
        return (
            np.concatenate([[begun], ts, [self.engine.engine_ts]]).astype(np.int64),
            np.concatenate([ends[:1], total, ends[1:]]),
        )

    @property
    def reviews(self) -> Reviews:
        """Its orders with what the chain said of them."""
        return Reviews.of(self.effects, self.engine.risk)


def _remembered(known: np.ndarray, own: np.ndarray, accounts: np.ndarray) -> np.ndarray:
    # The ring of times of the last orders in another length; counts say what of it is alive.
    found, length = own.copy(), own.shape[1]
    for row, account in enumerate(accounts):
        head = int(account["rate_head"])
        least = max(head - length, head - known.shape[1], int(account["rate_minute"]))
        for count in range(least, head):
            found[row, count % length] = known[row, count % known.shape[1]]
        account["rate_minute"] = least
        account["rate_second"] = max(least, int(account["rate_second"]))
    return found


def equity_of(engine: Engine) -> float:
    """What a book is worth with its pool, at the last trades."""
    return engine.operator.pool + sum(one["equity"] for one in engine.accounts().values())


def replay(
    session: Engine, other: Engine, steps: Iterable[Step], signals: pa.Table,
    faults: Iterable[tuple[str, int]] = (), *, since: int = 0,
) -> tuple[Course, Course]:  # fmt: skip
    """Give the targets of a session to its own chain and to another.

    Parameters
    ----------
    session, other : fresh engines that differ in their chains alone.
    steps : of the session, from the first on.
    signals, faults : that it recorded, see `Targets`.
    since : ns UTC; until then both trade as the session did, and nothing of it is counted. 0: from
        the beginning.

    Returns
    -------
    The course of each. What the other book cannot do, as to give back cash of a strategy that is
    not flat in it, is left out and told.

    Raises
    ------
    JournalError
        If the session's own chain does not do what was recorded.
    DataError
        As of `steps_of` and `Targets`; or nothing was decided after `since`.
    """
    known = list(faults)
    was, would = (Course(one, Targets(one, signals, known)) for one in (session, other))
    is_begun = not since
    for step in steps:
        parts = list[Effects]()
        for part, begins in [(step, False)] if is_begun else _cut(step, since):
            if begins:
                is_begun = True
                _begin(was, would)
            parts.append(was.take(part))
            would.take(part)
        if step.caused and Effects.join(parts).hash() != step.caused:
            raise JournalError(
                f"the recorded targets do not lead to what input {step.seq} recorded: another "
                "build wrote it, or rows of the table signals are missing in the store"
            )
    if not is_begun:
        raise DataError("the session ended before: give more days, or none for all of it")
    return was, would


def _begin(was: Course, would: Course) -> None:
    # From here on the other chain is in force.
    would.take_over(was.engine)
    was.begin()
    would.begin()


def _cut(step: Step, since: int) -> Iterator[tuple[Step, bool]]:
    # Parts of a step before a time and from it on, and which begins there; cuts change nothing.
    if step.kind != "events":
        yield step, False
        return
    place = int(np.searchsorted(np.maximum.accumulate(step.what.ts), since))
    for part, begins in ((step.what[:place], False), (step.what[place:], True)):
        if len(part):
            yield step._replace(what=part), begins
