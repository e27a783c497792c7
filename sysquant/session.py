"""A recorded live session, at any moment of it: its journaled inputs, taken again.

Input: a book's journal, the files of its sealed inputs, and engines made as the session's. Output:
`Session.at`, an engine as the live one stood then, to look at and to step on from. Whatever is
taken again must have the effects, and the state, that were recorded. Nothing is written.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sysquant.engine import Engine
from sysquant.errors import DataError, JournalError
from sysquant.journal import Input
from sysquant.journal_reader import JournalReader, ask
from sysquant.packed import pack, unpack, unpack_batch
from sysquant.recovery import replay
from sysquant.sealing import sealed_inputs
from sysquant.strategy import Strategy
from sysquant.times import Moment, check_moment, moment_ns
from sysquant.types import Bars, Columns, Floats, Ticks

_BYTES = 16 << 20  # of inputs that are read at a time
_BAR = ("ts", "open", "high", "low", "close", "volume")
_EVERY = 32  # inputs between two restore points, at first
Values = dict[str, dict[str, float]]  # symbol -> name -> value
Features = dict[str, dict[str, dict[str, float]]]  # strategy -> symbol -> feature -> value


def newest(directory: Path) -> int:
    """Sequence number of a journal's last input; 0 for none."""
    found = ask(directory, "SELECT max(seq) FROM inputs")
    return int(found[0][0] or 0) if found else 0


def recorded(
    directory: Path, files: Path, after: int = 0, last: int | None = None
) -> Iterator[Input]:
    """Inputs of a journal in order; its runner may go on meanwhile.

    Parameters
    ----------
    directory : of the journal.
    files : where the inputs that it forgot are sealed.
    after : the input that they come after; 0 for all from the first on.
    last : of them; None for the journal's last.

    Raises
    ------
    JournalError
        If one is missing, or is not what was sealed.
    """
    until, done = newest(directory) if last is None else last, after
    reader = JournalReader(directory / "journal.db")
    try:
        while done < until:
            began = done
            for one in sealed_inputs(files, done):
                if one.seq <= until:  # the journal may have been restored from a copy
                    yield one
                    done = one.seq
            try:
                while done < until:
                    for one in reader.inputs(done, until, most_bytes=_BYTES):
                        yield one
                        done = one.seq
            except JournalError:  # or it was sealed meanwhile
                if done == began:
                    raise
    finally:
        reader.close()


def state_hash(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a state, hex: the checksum that a journal keeps with a snapshot of it."""
    return hashlib.sha256(pack(state)).hexdigest()


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as it stood at one moment.

    Parameters
    ----------
    seq : the last input that was taken whole.
    engine : the book then: accounts, positions, states, models; yours to step on.
    features : strategy -> symbol -> feature -> value on the symbol's last closed bar; of legs under
        the symbol "". A symbol is absent that had no bar since the snapshot it was taken up from.
    bars : symbol -> its last closed bar: ts (ns UTC), open, high, low, close, volume; likewise.
    rest : what was left of the input after it, where the moment lies in the middle of one.
    """

    seq: int
    engine: Engine
    features: Features
    bars: Values
    rest: Ticks | Bars | None = None

    @property
    def ts(self) -> int:
        """Engine time, ns UTC; 0 before the first event."""
        return self.engine.engine_ts

    @property
    def hash(self) -> str:
        """`state_hash` of the engine."""
        return state_hash(self.engine.state())

    @property
    def strategies(self) -> dict[str, Strategy]:
        """Strategies as they decide then, with the models that they ask."""
        return self.engine.deciding

    def __str__(self) -> str:
        lines = [f"input {self.seq}, {np.datetime64(self.ts, 'ns')} UTC"]
        for name, account in self.engine.accounts().items():
            pnl = account["equity"] - account["allocation"]
            held = self.engine.positions()[name] or "flat"
            lines.append(f"{name}: equity {account['equity']:,.2f}, P&L {pnl:+,.2f}, {held}")
        return "\n".join(lines)


class _Watch:
    # Sees what each strategy is given, and keeps what it was given last, symbol by symbol.

    def __init__(self, engine: Engine, point: "_Point") -> None:
        self.features, self.bars = _copied(point.features), dict(point.bars)
        self._symbols = engine.symbols
        self._legs = {name for name, one in engine.strategies.items() if one.legs()}
        engine.watch(self._see)

    def _see(self, name: str, columns: Columns, features: Mapping[str, Floats]) -> None:
        symbols, known = np.asarray(columns["symbol"]), self.features.setdefault(name, {})
        if not len(symbols):
            return
        rows = {int(n): int(np.flatnonzero(symbols == n)[-1]) for n in np.unique(symbols)}
        for number, row in rows.items():
            bar = {field: columns[field][row].item() for field in _BAR}
            self.bars[self._symbols[number]] = bar
        if name not in self._legs:
            for number, row in rows.items():
                known[self._symbols[number]] = {f: float(v[row]) for f, v in features.items()}
        elif len(next(iter(features.values()))):
            known[""] = {feature: float(values[-1]) for feature, values in features.items()}


def _copied(features: Features) -> Features:
    return {name: {s: dict(f) for s, f in of.items()} for name, of in features.items()}


class _Point(NamedTuple):
    # Where the session can be taken up: after an input; None for a fresh engine.
    seq: int
    ts: int
    state: Mapping[str, np.ndarray] | None
    features: Features
    bars: Values


@dataclass(slots=True)
class Session:
    """A recorded live session.

    Parameters
    ----------
    directory : of its journal, of which the runner may go on.
    files : where the inputs that the journal forgot are sealed.
    make : a fresh engine, configured as the session's.
    most : restore points that are kept in memory; between them inputs are taken again.

    Attributes
    ----------
    last : sequence number of its last input, when it was opened.

    Raises
    ------
    DataError
        If nothing was journaled, or the engine is configured otherwise than the session's.
    """

    directory: Path
    files: Path
    make: Callable[[], Engine]
    most: int = 128
    last: int = field(init=False)
    _points: list[_Point] = field(init=False, repr=False)
    _kept: dict[int, tuple[bytes, str]] = field(init=False, repr=False)
    _every: int = field(init=False, default=_EVERY, repr=False)

    def __post_init__(self) -> None:
        """Look at what there is."""
        self.last = newest(self.directory)
        if not self.last:
            raise DataError(f"there is no journaled session in {self.directory}")
        self._points = [_Point(0, 0, None, {}, {})]
        rows = ask(self.directory, "SELECT seq, payload, checksum FROM snapshots ORDER BY seq")
        self._kept = {
            seq: (payload, checksum.hex())
            for seq, payload, checksum in rows
            if hashlib.sha256(payload).digest() == checksum and seq <= self.last
        }
        for seq, (payload, _) in self._kept.items():
            state = unpack(payload)
            ts = int(state["bar_clock"]["engine_ts"][0]) if "bar_clock" in state else 0
            self._points.append(_Point(seq, ts, state, {}, {}))

    def at(self, moment: Moment = None) -> Standing:
        """The session as it stood at a time, everything up to it taken.

        Parameters
        ----------
        moment : ISO 8601 UTC, ns, a `datetime`, `-2h` before its last event; None: its end.

        Raises
        ------
        ConfigError
            If the time cannot be meant.
        JournalError
            If an input is missing, or does not do again what was recorded.
        """
        check_moment("moment", moment)
        if moment is None:
            return self.after(self.last)
        until = moment_ns(moment, 0, self._end() if str(moment).startswith("-") else 0)
        point = self._points[bisect_right(self._points, until, key=lambda each: each.ts) - 1]
        engine, watch = self._taken_up(point)
        seq, rest = point.seq, None
        for entry in self.inputs(point.seq):
            batch = _events(entry)
            if batch is not None and (count := _until(batch, until)) < len(batch):
                engine.step(batch[:count])
                rest = batch[count:] if count else None
                break
            self._take(engine, watch, entry)
            seq = entry.seq
        return Standing(seq, engine, watch.features, watch.bars, rest)

    def after(self, seq: int) -> Standing:
        """The session as it stood after an input, by its sequence number; 0: before the first.

        Raises
        ------
        DataError
            If there is none of that number.
        JournalError
            As of `at`.
        """
        if not 0 <= seq <= self.last:
            raise DataError(f"the session has inputs 1 to {self.last}, was asked for {seq}")
        point = self._points[bisect_right(self._points, seq, key=lambda each: each.seq) - 1]
        engine, watch = self._taken_up(point)
        for entry in self.inputs(point.seq, seq):
            self._take(engine, watch, entry)
        return Standing(seq, engine, watch.features, watch.bars)

    def inputs(self, after: int = 0, last: int | None = None) -> Iterator[Input]:
        """Its inputs after one, up to another; None: up to its last."""
        until = self.last if last is None else last
        return recorded(self.directory, self.files, after, until)

    def _taken_up(self, point: _Point) -> tuple[Engine, _Watch]:
        engine = self.make()
        if point.state is not None:
            engine.restore(point.state)
        return engine, _Watch(engine, point)

    def _take(self, engine: Engine, watch: _Watch, entry: Input) -> None:
        # One input, whose effects are compared, and its state where the session kept that.
        replay(engine, entry)
        if entry.seq in self._kept and state_hash(engine.state()) != self._kept[entry.seq][1]:
            raise JournalError(
                f"after input {entry.seq} the state is not that of the snapshot that the session "
                "kept: finish with the build that wrote it"
            )
        if entry.seq % self._every == 0:
            self._keep(engine, watch, entry.seq)

    def _keep(self, engine: Engine, watch: _Watch, seq: int) -> None:
        # Twice as far apart as soon as there are too many; those of the session stay.
        place = bisect_right(self._points, seq, key=lambda each: each.seq)
        if self._points[place - 1].seq == seq:
            return
        seen = _copied(watch.features), dict(watch.bars)
        self._points.insert(place, _Point(seq, engine.engine_ts, engine.state(), *seen))
        if len(self._points) > self.most:
            self._every *= 2
            self._points = [
                each for each in self._points
                if each.seq % self._every == 0 or each.seq in self._kept
            ]  # fmt: skip

    def _end(self) -> int:
        return self.after(self.last).ts


def _events(entry: Input) -> Ticks | Bars | None:
    # Of an input of the market; None for any other.
    return unpack_batch(entry.kind, entry.payload) if entry.kind in ("ticks", "bars") else None


def _until(batch: Any, until: int) -> int:
    # How many of its first events lie at or before a time: the first that is later ends it.
    later = np.flatnonzero(batch.ts > until)
    return int(later[0]) if len(later) else len(batch)
