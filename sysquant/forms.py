"""What a strategy answers in each of its forms: an array, bar by bar, `frame`, and the engine.

Input: a strategy and a market. Output: `Answers`, a feature or target for each bar, or the effects
of the engine; and where two of them differ first. Nothing is judged here.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysquant.activity import Activity, BarSize
from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.frames import columns_of
from sysquant.strategy import Strategy
from sysquant.types import Bars, Floats, Instrument, Ints, Ticks

TARGET = "target"
_TICKS = 50  # a step of an engine whose bars are not of time


class Market(NamedTuple):
    """What a strategy is tried on.

    Parameters
    ----------
    universe : the instruments that symbol columns count.
    interval : of the bars that it decides on.
    history : bars before the first event, which the engine is warmed on.
    bars : those, and the bars that the events complete; by (close, symbol).
    events : what the engine is given.
    engine : a fresh engine of the strategy; nothing of one is left in the next.
    """

    universe: Sequence[Instrument]
    interval: BarSize
    history: Bars
    bars: Bars
    events: Ticks | Bars
    engine: Callable[[Strategy], Engine]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of the universe, in its order."""
        return tuple(one.symbol for one in self.universe)

    @property
    def length(self) -> int:
        """Of a bar, ns; a minute where they are not of time."""
        return 60_000_000_000 if isinstance(self.interval, Activity) else self.interval


class StandIn:
    """A model of no training: its answers follow from each bar's features alone.

    Parameters
    ----------
    classes : that it tells apart.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def proba(self, f: Mapping[str, Floats]) -> dict[str, Floats]:
        """Class -> (n,) probability, as random as the last digits of the features."""
        parts = list[Floats]()
        for number in range(len(self._classes)):
            mixed = np.zeros(len(next(iter(f.values()))))
            for place, name in enumerate(f):
                mixed = mixed + np.abs(f[name]) * (997.0 + 31.0 * place + 7.0 * number)
            parts.append(0.05 + (mixed - np.floor(mixed)))
        total = sum(parts[1:], parts[0])
        return {name: part / total for name, part in zip(self._classes, parts, strict=True)}


class Answers(NamedTuple):
    """Features and targets, a row for each bar.

    Parameters
    ----------
    names : of the columns; the last is `target`.
    values : (n, columns); NaN where there is none.
    """

    names: tuple[str, ...]
    values: Floats

    def digest(self) -> str:
        """SHA-256 over names and values; any NaN is the same."""
        values = np.where(np.isnan(self.values), np.nan, self.values)
        return hashlib.sha256(repr(self.names).encode() + values.tobytes()).hexdigest()


def in_one(strategy: Strategy, bars: Bars, symbols: Sequence[str]) -> Answers:
    """The array form: every bar at once."""
    return in_pieces(strategy, bars, symbols, [0, len(bars)])


def bar_by_bar(strategy: Strategy, bars: Bars, symbols: Sequence[str]) -> Answers:
    """The stream form: one bar end at a time, with nothing after it in reach."""
    return in_pieces(strategy, bars, symbols, [0, *bar_ends(bars).tolist(), len(bars)])


def in_pieces(
    strategy: Strategy, bars: Bars, symbols: Sequence[str], edges: Sequence[int]
) -> Answers:  # fmt: skip
    """The same, cut at these rows."""
    is_stream = len(edges) > 2
    decider = strategy.stream(symbols).decider if is_stream else strategy.decider(symbols)
    names = (*decider.names, TARGET)
    columns = dict(bars.columns())
    values = np.full((len(bars), len(names)), np.nan)
    for first, last in itertools.pairwise(edges):
        weights = decider.run({name: column[first:last] for name, column in columns.items()})
        own = values[first:last]
        own[:, -1] = weights
        rows = decider.places
        for column, found in enumerate(decider.features.values()):
            own[rows, column] = found
    return Answers(names, values)


def in_frame(strategy: Strategy, bars: Bars, symbols: Sequence[str]) -> Answers:
    """What `Strategy.frame` shows in a notebook, on the rows of the bars."""
    frame = strategy.frame(bars, symbols)
    legs = [f"target {leg}" for leg in strategy.legs()]
    names = [name for name in frame.columns if name not in (*legs, TARGET)]
    values = np.full((len(bars), len(names) + 1), np.nan)
    columns, known = columns_of(bars, symbols, may_repeat=True)
    decider = strategy.decider(known)
    decider.run(columns)
    places = decider.places
    for column, name in enumerate(names):
        values[places, column] = frame[name].to_numpy(float)
    for rows, name in zip(places, legs or [TARGET], strict=True):
        values[rows, -1] = frame[name].to_numpy(float)
    return Answers((*map(str, names), TARGET), values)


def by_engine(
    strategy: Strategy, market: Market, events: Ticks | Bars, edges: Sequence[int] = ()
) -> Effects:  # fmt: skip
    """What an engine does with events, cut at these places."""
    engine = market.engine(strategy)
    if len(market.history):
        engine.warm(market.history)
    places = [0, *edges, len(events)]
    parts = [engine.step(events[a:b]) for a, b in itertools.pairwise(places) if a < b]
    return Effects.join(parts)


def bar_ends(bars: Bars) -> Ints:
    """Rows at which another bar end begins, the first one left out."""
    return np.flatnonzero(np.diff(bars.ts)) + 1


def step_ends(market: Market) -> Ints:
    """Events before which a bar may close: between them nothing can be foreseen."""
    events = market.events
    if isinstance(events, Bars):
        return bar_ends(events)
    if isinstance(market.interval, Activity):
        return np.arange(_TICKS, len(events), _TICKS)
    clock = np.maximum.accumulate(events.ts) // market.interval
    return np.flatnonzero(np.diff(clock)) + 1


def moments(market: Market) -> Ints:
    """Events at which time moves on, where its past can be told from what comes after."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(market.events.ts))) + 1


# -- where two differ


class Apart(NamedTuple):
    """Where answers differ.

    Parameters
    ----------
    row : the first of them.
    name : feature, `target`, or table of effects.
    one, other : what is there.
    rows : how many differ.
    """

    row: int
    name: str
    one: str
    other: str
    rows: int


def apart(one: Answers, other: Answers, rows: int) -> list[Apart]:
    """What differs within so many rows, by column; any NaN is the same as any other."""
    if one.names != other.names:
        return [Apart(0, "names", str(one.names), str(other.names), 1)]
    a, b = one.values[:rows], other.values[:rows]
    differ: NDArray[np.bool_] = (a.view(np.uint64) != b.view(np.uint64)) & ~(
        np.isnan(a) & np.isnan(b)
    )
    found = list[Apart]()
    for column in np.flatnonzero(differ.any(axis=0)):
        at = np.flatnonzero(differ[:, column])
        row = int(at[0])
        said = f"{a[row, column]:.6g}", f"{b[row, column]:.6g}"
        if said[0] == said[1]:
            said = repr(float(a[row, column])), repr(float(b[row, column]))
        found.append(Apart(row, one.names[column], *said, len(at)))
    return found


def up_to(effects: Effects, market: Market, cut: int) -> Effects:
    """Rows that follow from the first `cut` events, whatever came after them.

    A bar that is an event is over one nanosecond before its close, at which alone what is decided
    on it stands: fills at that time may be at the next one's open.
    """
    clock = int(market.events.ts[:cut].max())
    is_bar = int(isinstance(market.events, Bars))
    return Effects(
        {
            name: rows[rows["ts"] <= clock - (0 if name == "signals" else is_bar)]
            for name, rows in effects.rows.items()
        }
    )


def effects_apart(one: Effects, other: Effects, *, but: Sequence[str] = ()) -> list[Apart]:
    """Tables whose rows are not the same bytes.

    Parameters
    ----------
    but : tables that are not looked at.
    """
    found = list[Apart]()
    for name, rows in one.rows.items():
        others = other.rows[name]
        if name in but or rows.tobytes() == others.tobytes():
            continue
        row = next(
            (
                n
                for n, (a, b) in enumerate(zip(rows, others, strict=False))
                if a.tobytes() != b.tobytes()
            ),
            min(len(rows), len(others)),
        )
        said = _row(rows, row), _row(others, row)
        found.append(Apart(row, name, *said, max(1, abs(len(rows) - len(others)))))
    return found


def _row(rows: np.ndarray, row: int) -> str:
    # What tells a row from another, as far as it stands in every table.
    if row >= len(rows):
        return "no row"
    known = rows.dtype.names or ()
    names = [name for name in ("target", "quantity", "price", "filled") if name in known]
    return ", ".join(f"{name} {rows[row][name]:g}" for name in names) or f"row {row}"


def moment_of(effects: Effects, found: Apart) -> int:
    """When a row of effects was, ns UTC; 0 where there is none."""
    rows = effects[found.name]
    return int(rows["ts"][found.row]) if found.row < len(rows) else 0
