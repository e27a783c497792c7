"""Whether models are asked, live, the very rows that they are trained on.

Input: the journaled inputs of a session, replayed as they were taken, and the store's bars. Output:
a `Skew` of each strategy that asks a model: which rows training makes otherwise, by column; and
apart from that which bars are not in the store as they were in the session. Both begin at the
session's first bar: `ema`, `macd`, `rsi` rest on where a series begins, and in the window of a
training, which begins elsewhere, they differ at first. Nothing is written.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysquant.engine import Engine
from sysquant.errors import DataError
from sysquant.journal import Input
from sysquant.models.serving import BLOCK, Classifier, ServedModel
from sysquant.models.training import feature_rows
from sysquant.past import History
from sysquant.recovery import replay
from sysquant.strategy import Model, Strategy
from sysquant.types import Bars, Columns, Floats, Gaps, Ints

_READ = ("open", "high", "low", "close", "volume")
_COLUMNS = ("ts", "symbol", *_READ)


@dataclass(frozen=True, slots=True)
class Served:
    """What a strategy was given in a session, bar by bar.

    Parameters
    ----------
    strategy : whose features.
    past : the bars of the session as they were closed, its warm-up before them.
    warm : how many of them are warm-up, on which nothing was decided.
    rows : (T, features) what it was given on each of the bars: what the model got where one was
        asked, else what `target` got. NaN where a feature is, or the model was not asked of it.
    asked : (T,) whether a model was.
    """

    strategy: Strategy
    past: History
    warm: int
    rows: Floats
    asked: NDArray[np.bool_]


class _Asked:
    # A classifier that remembers what it is asked.

    def __init__(self, classifier: Classifier, blocks: list[Floats]) -> None:
        self.classes_ = classifier.classes_
        self._classifier, self._blocks = classifier, blocks

    def predict_proba(self, x: Floats) -> Floats:
        self._blocks.append(x.copy())
        return self._classifier.predict_proba(x)


class _Part(NamedTuple):
    bars: dict[str, np.ndarray]
    rows: Floats
    asked: NDArray[np.bool_]


class Witness:
    """Sees what the strategies of a book are given; an engine's `models`.

    Parameters
    ----------
    models : gives a strategy's model, by name and id.
    """

    def __init__(self, models: Callable[[str, str], ServedModel]) -> None:
        self._models = models
        self._blocks = dict[str, list[Floats]]()
        self._parts = dict[str, list[_Part]]()

    def __call__(self, strategy: str, name: str) -> Model:
        """The model, which is watched from then on."""
        served = self._models(strategy, name)
        watched = _Asked(served.classifier, self._blocks.setdefault(strategy, []))
        return ServedModel(watched, served.features, [str(one) for one in watched.classes_])

    def replay(self, engine: Engine, inputs: Iterable[Input]) -> dict[str, Served]:
        """Take the inputs of a session again.

        Parameters
        ----------
        engine : fresh, configured as the session's, and with this as its `models`.
        inputs : from the first on.

        Returns
        -------
        Strategy -> what it was given, of those that ask a model and decide symbol by symbol.

        Raises
        ------
        JournalError
            If one does not do what was recorded: other code serves now than did then.
        DataError
            If the bars are not of time, or the session began with what another had held: what its
            features had seen is not recorded then.
        ModelError
            If a model that served may not be loaded.
        """
        interval = engine.interval
        if not isinstance(interval, int):
            raise DataError(f"bars of {interval} are not kept in the store: nothing is compared")
        wanted = {n: s for n, s in engine.strategies.items() if s.classes and not s.legs()}
        self._parts = {name: [] for name in wanted}
        engine.watch(self._see)
        warm = dict.fromkeys(wanted, 0)
        for entry in inputs:
            if entry.kind == "adopted":
                raise DataError(
                    f"input {entry.seq} adopts another session's book, and what its features had "
                    "seen by then is not recorded: compare a session that began with journal=fresh"
                )
            replay(engine, entry)
            if entry.kind == "history":
                warm = {name: _length(parts) for name, parts in self._parts.items()}
        return {
            name: _served(strategy, engine, interval, self._parts[name], warm[name])
            for name, strategy in wanted.items()
        }

    def _see(self, name: str, columns: Columns, features: Mapping[str, Floats]) -> None:
        if name not in self._parts:
            return
        rows = np.column_stack(list(features.values()))
        known, blocks = np.isfinite(rows).all(axis=1), self._blocks.get(name, [])
        asked = np.zeros(len(rows), bool)
        if blocks:  # the first are of all bars; what is asked again after them is a check
            count = int(known.sum())
            got = np.concatenate(blocks[: -(-count // BLOCK)] or [rows[:0]])[:count]
            asked[known] = True
            rows[known] = np.nan
            rows[np.flatnonzero(known)[: len(got)]] = got
            blocks.clear()
        bars = {n: np.array(columns[n]) for n in _COLUMNS if n in columns}
        self._parts[name].append(_Part(bars, rows, asked))


def _length(parts: Iterable[_Part]) -> int:
    return sum(len(part.rows) for part in parts)


def _served(
    strategy: Strategy, engine: Engine, interval: int, parts: list[_Part], warm: int
) -> Served:  # fmt: skip
    count = _length(parts)
    columns: dict[str, Any] = {n: np.zeros(count, of.dtype) for n, of in Bars.empty().columns()}
    for name in _COLUMNS if parts else ():
        columns[name] = np.concatenate([part.bars[name] for part in parts])
    columns["offset"] = np.arange(count)
    bars = Bars(**columns)
    ends = (int(bars.ts[0]) - interval, int(bars.ts[-1])) if count else (0, 0)
    past = History(bars, engine.universe, interval, *ends, Gaps.empty())
    wide = len(strategy.decider(engine.symbols).names)
    rows = np.concatenate([np.empty((0, wide)), *(part.rows for part in parts)])
    asked = np.concatenate([np.empty(0, bool), *(part.asked for part in parts)])
    return Served(strategy, past, warm, rows, asked)


class Place(NamedTuple):
    """A value that is another one in two places.

    Parameters
    ----------
    symbol, ts : of the bar; ns UTC.
    column : of the features, or of the bar; empty where there is no such bar.
    session : in the session; NaN for no bar.
    other : in training, or in the store; NaN for no bar.
    """

    symbol: str
    ts: int
    column: str
    session: float
    other: float


@dataclass(frozen=True, slots=True)
class Skew:
    """What came of a comparison.

    Parameters
    ----------
    rows : decisions that were compared.
    asked : those of them on which a model was asked.
    equal : those that training makes byte for byte.
    columns : feature -> in how many rows it is another one, and the first of them; empty for none.
    data : bars that the store has otherwise, has not, or has besides; the first column of each.
    moved : decisions for which training on the store's bars has another row, by those alone.
    """

    rows: int
    asked: int
    equal: int
    columns: Mapping[str, tuple[int, Place]]
    data: tuple[Place, ...]
    moved: int


def compare(served: Served, stored: Bars) -> Skew:
    """Hold what was served against what training makes of the same bars.

    Parameters
    ----------
    served : of `Witness.replay`.
    stored : the store's bars from the first of the session to its last, by (close, symbol).

    Returns
    -------
    A NaN equals any NaN; all else is compared byte for byte. Rows are trained on the store's bars
    where these are the session's, else on the session's: a bar that was corrected since is told by
    `data`, and what it moves by `moved`.
    """
    past, warm = served.past, served.warm
    decider = served.strategy.decider(past.symbols)
    features, names = decider.names, [name for name in decider.fields if name in _READ]
    data, own, theirs = _apart(past, stored, names)
    elsewhere = History(stored, past.universe, past.interval, past.start, past.end, past.gaps)
    trained = _trained(served.strategy, elsewhere, len(features))
    moved = 0
    if data:
        again = _trained(served.strategy, past, len(features))
        other = _differ(again[own], trained[theirs]).any(axis=1)
        moved, trained = int(np.count_nonzero(other & (own >= warm))), again
    apart = _differ(served.rows, trained)[warm:]
    columns = dict[str, tuple[int, Place]]()
    for number, name in enumerate(features):
        at = np.flatnonzero(apart[:, number]) + warm
        if len(at):
            first = int(at[0])
            values = float(served.rows[first, number]), float(trained[first, number])
            columns[name] = len(at), _place(past, past.bars, first, name, *values)
    return Skew(
        rows=len(apart), asked=int(served.asked[warm:].sum()),
        equal=int((~apart.any(axis=1)).sum()), columns=columns, data=tuple(data), moved=moved,
    )  # fmt: skip


def _trained(strategy: Strategy, past: History, wide: int) -> Floats:
    return feature_rows(strategy, past)[2] if len(past) else np.empty((0, wide))


def _differ(one: Floats, other: Floats) -> NDArray[np.bool_]:
    # Of (n, k) values, which are not the same bytes; any NaN is the same.
    same = one.view(np.uint64) == np.ascontiguousarray(other).view(np.uint64)
    return ~(same | (np.isnan(one) & np.isnan(other)))


def _apart(past: History, stored: Bars, names: list[str]) -> tuple[list[Place], Ints, Ints]:
    # Bars that differ, in the order of time; places of those that both have.
    count = len(past.universe)
    keys = [bars.ts // past.interval * count + bars.symbol for bars in (past.bars, stored)]
    _, own, theirs = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    found = list[Place]()
    told = set[int]()
    for name in names:
        values = getattr(past.bars, name)[own], getattr(stored, name)[theirs]
        new = set(np.flatnonzero(values[0] != values[1]).tolist()) - told
        told |= new
        found += [
            _place(past, past.bars, int(own[at]), name, float(values[0][at]), float(values[1][at]))
            for at in new
        ]
    for bars, mine in ((past.bars, own), (stored, theirs)):
        found += [
            _place(past, bars, at, "", np.nan, np.nan)._replace(
                **{"session" if bars is past.bars else "other": float(bars.close[at])}
            )
            for at in np.setdiff1d(np.arange(len(bars)), mine).tolist()
        ]
    return sorted(found, key=lambda one: (one.ts, one.symbol)), own, theirs


def _place(
    past: History, bars: Bars, at: int, column: str, session: float, other: float
) -> Place:  # fmt: skip
    return Place(past.symbols[bars.symbol[at]], int(bars.ts[at]), column, session, other)
