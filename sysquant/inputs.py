"""The journaled inputs of a session laid apart: events, history, and operations at their places.

Input: inputs in their order. Output: one sequence of market events, what operators, models and
adoptions did before which of them, and the same events in the one order that history has. Nothing
is replayed here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sysquant.activity import BarSize, clock_of
from sysquant.errors import NotRecordedError
from sysquant.inspection import iso
from sysquant.journal import Input
from sysquant.operation import Operation, Serve
from sysquant.packed import unpack, unpack_batch
from sysquant.recovery import read_command
from sysquant.types import CLOCK_MARK, Bars, Instrument, Ticks

Events = Ticks | Bars
_PIECE = 65_536


class Wish(NamedTuple):
    """What was done to the book between two events.

    Parameters
    ----------
    place : how many events came before it.
    seq : of the input; 0 for none.
    operations : of operators, of the runner, or of models.
    state : of a book that was adopted; None for any other.
    """

    place: int
    seq: int
    operations: tuple[Operation, ...] = ()
    state: Mapping[str, np.ndarray] | None = None

    def only(self, *, serves: bool) -> "Wish":
        """Without what serves models, or with that alone."""
        kept = [one for one in self.operations if isinstance(one, Serve) == serves]
        return self._replace(operations=tuple(kept), state=None if serves else self.state)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A session's inputs.

    Parameters
    ----------
    events : as they were taken, with the marks of the wall's clock.
    wishes : in their order.
    history : that it warmed up on; None for none.
    """

    events: Events
    wishes: tuple[Wish, ...]
    history: Bars | None

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> "Inputs":
        """Lay inputs apart.

        Raises
        ------
        NotRecordedError
            If none of them is of the market.
        """
        parts, wishes, history, count = list[Any](), list[Wish](), None, 0
        for entry in inputs:
            if entry.kind == "history":
                bars: Any = unpack_batch("bars", entry.payload)
                history = bars if history is None else history
            elif entry.kind == "command":
                wishes.append(Wish(count, entry.seq, read_command(entry).operations))
            elif entry.kind == "adopted":
                wishes.append(Wish(count, entry.seq, state=unpack(entry.payload)))
            else:
                parts.append(unpack_batch(entry.kind, entry.payload))
                count += len(parts[-1])
        if not parts:
            raise NotRecordedError(
                "the session took no event of the market yet: nothing is compared"
            )
        return cls(type(parts[0]).join(parts), tuple(wishes), history)

    @property
    def first_offsets(self) -> dict[int, int]:
        """Partition -> offset of its first event."""
        own = self.events[self.events.partition >= 0]
        return {int(p): int(own.offset[own.partition == p].min()) for p in np.unique(own.partition)}

    @property
    def last_offsets(self) -> dict[int, int]:
        """Partition -> offset of its last event."""
        own = self.events[self.events.partition >= 0]
        return {int(p): int(own.offset[own.partition == p].max()) for p in np.unique(own.partition)}

    def first_models(self) -> tuple[Wish, ...]:
        """The first model of each strategy that ever had one, from the start."""
        found = dict[str, Serve]()
        for one in self._operations():
            if isinstance(one, Serve) and one.model:
                found.setdefault(one.strategy, one)
        return (Wish(0, 0, tuple(found.values())),) if found else ()

    def _operations(self) -> Iterator[Operation]:
        for wish in self.wishes:
            yield from wish.operations


def canonical(events: Events) -> Events:
    """Events by (running maximum of ts in their partition, partition, offset), without clock marks.

    Bars come from one partition: in its order.
    """
    if isinstance(events, Bars):
        return events
    kept = events[events.symbol != CLOCK_MARK]
    kept = kept[np.lexsort((kept.offset, kept.partition))]
    running = kept.ts.copy()
    for partition in np.unique(kept.partition):
        rows = kept.partition == partition
        running[rows] = np.maximum.accumulate(running[rows])
    return kept[np.lexsort((kept.offset, kept.partition, running))]


class Until(NamedTuple):
    """Where a sequence comes to a moment.

    Parameters
    ----------
    place : events before it.
    wall : bars that were closed before it by a mark of the wall's clock, not by an event.
    first : close of the first of them, ns UTC; 0 for none.
    """

    place: int
    wall: int
    first: int


def until(events: Events, universe: Sequence[Instrument], size: BarSize, ts: int) -> Until:
    """Where the first bar closes whose close is not before a time."""
    clock, done, wall, first = clock_of(universe, size), 0, 0, 0
    for taken, closed, bars in clock.passes(events, _PIECE):
        later = np.flatnonzero(closed.ts[:bars] >= ts)
        count = int(later[0]) if len(later) else bars
        at = np.minimum(closed.position[:count], len(taken.end) - 1)
        marks = taken.symbol[at] == CLOCK_MARK
        if marks.any() and not wall:
            first = int(closed.ts[:count][marks][0])
        wall += int(marks.sum())
        if len(later):
            return Until(done + int(closed.position[count]), wall, first)
        done += len(taken.end)
    return Until(len(events), wall, first)


# -- where two sequences differ


class Apart(NamedTuple):
    """In how many places two sequences differ, and where first, for people; empty for nowhere."""

    differing: int
    first: str = ""


_NOTHING = Apart(0)


def contents_apart(
    store: Events | None, session: Events | None, symbols: Sequence[str]
) -> Apart:  # fmt: skip
    """Events that only one of two sequences has, in whatever order."""
    kept, own = (_rows(each) for each in (store, session))
    same = _common(kept, own)
    kept, own = kept[same:], own[same:]
    if tail := _common(kept[::-1], own[::-1]):
        kept, own = kept[:-tail], own[:-tail]
    there, here = (Counter(map(tuple, rows.tolist())) for rows in (kept, own))
    only = sorted((there - here).elements()), sorted((here - there).elements())
    count = max(map(len, only))
    if not count:
        return _NOTHING
    place = min(row[:2] for rows in only for row in rows[:1])
    told = [_told(next((row for row in rows if row[:2] == place), None)) for rows in only]
    first = f"{symbols[int(place[1])]} at {iso(int(place[0]))}: {told[0]} in the store, "
    return Apart(count, f"{first}{told[1]} in the session")


def order_apart(session: Events, history: Events, symbols: Sequence[str]) -> Apart:
    """Events of a session that history has in another place; clock marks count as such."""
    marks = int(np.count_nonzero(session.symbol == CLOCK_MARK))
    own = session[session.symbol != CLOCK_MARK]
    count = min(len(own), len(history))
    moved = (own.partition[:count] != history.partition[:count]) | (
        own.offset[:count] != history.offset[:count]
    )
    total = int(moved.sum()) + abs(len(own) - len(history)) + marks
    if not total:
        return _NOTHING
    places = np.flatnonzero(moved)
    if len(places) or len(own) != len(history):
        longer = own if len(own) >= len(history) else history
        at = int(places[0]) if len(places) else count
        symbol = int(longer.symbol[at])
        name = symbols[symbol] if symbol >= 0 else "a halt"
        return Apart(total, f"{name} at {iso(int(longer.ts[at]))} was taken in another place")
    first = int(session.ts[session.symbol == CLOCK_MARK][0])
    return Apart(total, f"a mark of the wall's clock at {iso(first)}")


def _rows(events: Events | None) -> np.ndarray:
    # What an event is, whatever its place: (n, columns) of whole numbers, and floats by their bits.
    if events is None or not len(events):
        return np.empty((0, 4), np.int64)
    columns = [
        column.view(np.int64) if column.dtype.kind == "f" else column.astype(np.int64)
        for name, column in events.columns()
        if name not in ("received_at", "partition", "offset")
    ]
    return np.column_stack(columns)


def _common(one: np.ndarray, other: np.ndarray) -> int:
    # How many of the first rows are equal.
    count = min(len(one), len(other))
    if not count or one.shape[1] != other.shape[1]:
        return 0
    apart = np.flatnonzero((one[:count] != other[:count]).any(axis=1))
    return int(apart[0]) if len(apart) else count


def _told(row: tuple[int, ...] | None) -> str:
    if row is None:
        return "nothing"
    values = np.array(row[2:], np.int64).view(np.float64)
    return " ".join(f"{value:g}" for value in values.tolist())
