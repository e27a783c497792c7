"""What the research ledger keeps of a backtest: whose it is, on which data, and what it came to.

Input: a strategy, the terms of its engine, its data, its Sharpe ratio. Output: rows in the file of
the ledger, which `research` reads. It never breaks a backtest: what cannot be written is counted
there, and said once in the log. Nothing is judged here.
"""

import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import msgspec
import numpy as np

from sysquant import scores
from sysquant.decider import features_of
from sysquant.errors import SysquantError
from sysquant.features import Expression
from sysquant.performance import YEAR, period, period_of
from sysquant.research_file import ResearchFile, RunRow, Study, here
from sysquant.strategy import Parameter, Strategy
from sysquant.trial_file import code_of
from sysquant.types import Bars, Floats, Ints, Ticks

log = logging.getLogger(__name__)

_AT_ONCE = 2_000  # cells of a sweep, at most, that a killed process takes with it
_EVERY_S = 1.0  # likewise, their age
_PLACES = ("partition", "offset", "received_at")  # columns that say where a row came from
_is_aside: ContextVar[bool] = ContextVar("is_aside", default=False)
_told: set[tuple[str, str]] = set()  # files and lineages whose reading of a holdout was said


class Extent:
    """Which data a run was decided on: first and last event, how many, and what they hold.

    What lies between them is not looked at: that would cost more than a fast backtest.

    Parameters
    ----------
    *batches : of market events, in order.
    """

    def __init__(self, *batches: Bars | Ticks) -> None:
        self.first = self.last = self.events = 0
        self._edges = [b"", b""]
        for batch in batches:
            self.add(batch)

    def add(self, batch: Bars | Ticks) -> None:
        """Take the next events."""
        if not len(batch):
            return
        if not self.events:
            self.first, self._edges[0] = int(batch.ts[0]), _bytes(batch, 0)
        self.last = max(self.last, int(batch.ts[-1]))
        self._edges[1] = _bytes(batch, -1)
        self.events += len(batch)

    def seen(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, each taken as it passes."""
        for batch in batches:
            self.add(batch)
            yield batch

    @property
    def hash(self) -> str:
        """Of all of it, 16 hex digits."""
        return _digest(str(self.events).encode(), *self._edges)


def _bytes(batch: Bars | Ticks, row: int) -> bytes:
    columns = batch.columns()
    return b"".join(column[row].tobytes() for name, column in columns if name not in _PLACES)


class Origin(NamedTuple):
    """By what a strategy is known again, under whatever name.

    Parameters
    ----------
    lineage : what the class says, or else its name, without its module.
    names : lineage and name of the class, and of the whole strategies that it derives from.
    graph : hash of its features: their names and operations, without any number; empty where
        nothing is computed.
    code : hash of its compiled code, without its name and defaults.
    """

    lineage: str
    names: tuple[str, ...]
    graph: str
    code: str


def origin_of(strategy: Strategy) -> Origin:
    """Of a strategy that runs."""
    lineage, names, code = _class_of(type(strategy))
    return Origin(lineage, names, _graph(strategy), code)


@lru_cache(64)
def _class_of(cls: type[Strategy]) -> tuple[str, tuple[str, ...], str]:
    own = cls.__mro__[: cls.__mro__.index(Strategy)]
    whole = [each for each in own if each.features is not Strategy.features]
    named = [name for each in (cls, *whole) for name in (each.lineage, each.__name__) if name]
    _, _, code = code_of(cls).partition("\n")  # its first line has name and defaults
    return cls.lineage or cls.__name__, tuple(dict.fromkeys(named)), _digest(code.encode())


def _graph(strategy: Strategy) -> str:
    try:
        stated = features_of(strategy)
    except SysquantError:
        return ""
    shapes = dict[str, str]()
    for node in _inside_out(stated.values()):
        inner = ",".join(shapes[each.name] for each in node.inputs)
        shapes[node.name] = _digest(f"{node.operation.name}({inner})".encode())
    if not any(node.inputs for node in stated.values()):
        return ""
    said = sorted(f"{name}={shapes[node.name]}" for name, node in stated.items())
    return _digest(" ".join(said).encode())


def _inside_out(nodes: Any) -> Iterator[Expression]:
    # Each once, behind all that it rests on; without recursion, for formulas of any depth.
    done, pending = set[str](), list(nodes)
    while pending:
        node = pending[-1]
        left = [each for each in node.inputs if each.name not in done]
        if left:
            pending += left
            continue
        pending.pop()
        if node.name not in done:
            done.add(node.name)
            yield node


class Recorder:
    """Adds runs of one strategy on one market to the ledger, some at a time.

    Parameters
    ----------
    strategy : one of those that run, which differ in parameters alone.
    terms : `Engine.fingerprint`: what else an outcome follows from.
    extent : the data.
    kind : `backtest`, `cell` of a sweep, `screened` by a sweep, `gate`.
    """

    def __init__(
        self, strategy: Strategy, terms: Mapping[str, str], extent: Extent, kind: str
    ) -> None:
        own = origin_of(strategy)
        rest = {name: said for name, said in terms.items() if name not in _SAID}
        self._study = Study(
            time.time_ns(), kind, source(), own.lineage, json.dumps(own.names), own.graph,
            own.code, extent.first, extent.last, terms["symbols"], terms["bars"], extent.hash,
            _digest(repr(sorted(rest.items())).encode()),
        )  # fmt: skip
        self._ground = hashlib.blake2b("\0".join(map(str, self._study[6:])).encode(), digest_size=8)
        self._rows: list[RunRow] = []
        self._file: ResearchFile = here()
        self._since = time.monotonic()
        self.error: Exception | None = None

    def add(self, parameters: Mapping[str, Parameter], sharpe: float, periods: int) -> None:
        """One more run: its Sharpe ratio per period (NaN where there is none), of so many."""
        written = _ENCODER.encode(parameters)
        trial = self._ground.copy()
        trial.update(written)
        known = sharpe if sharpe - sharpe == 0.0 else None
        self._rows.append(RunRow(written.decode(), trial.digest(), known, periods))
        if len(self._rows) >= _AT_ONCE or time.monotonic() - self._since > _EVERY_S:
            self.flush()

    def add_row(self, parameters: Mapping[str, Parameter], row: scores.Row) -> None:
        """One more run, by its row of a sweep."""
        self.add(parameters, float(row["sharpe_period"]), int(row["periods"]))

    def add_yearly(self, parameters: Mapping[str, Parameter], sharpe: float) -> None:
        """One more run, of whose Sharpe ratio only that per year is known."""
        elapsed = self._study.last - self._study.first
        periods = max(1, elapsed // period_of(elapsed, 1))
        self.add(parameters, sharpe * math.sqrt(elapsed / YEAR / periods), periods)

    def flush(self) -> None:
        """Write what was added."""
        self._since = time.monotonic()
        if not self._rows or _is_aside.get():
            return
        rows, self._rows = self._rows, []
        self.error = self._file.add(self._study, rows)
        if self.error is None:
            _tell_holdout(self._file, self._study)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.flush()


_SAID = ("strategies", "symbols", "bars")  # of the terms, columns of their own
_ENCODER = msgspec.json.Encoder(enc_hook=repr)  # a strategy as a parameter; order is the class's


def _tell_holdout(file: ResearchFile, study: Study) -> None:
    # Once for a lineage: its research can still be kept off the rest.
    where = str(file.path), study.lineage
    if where in _told:
        return
    held = file.holdout()
    if held is not None and study.first < held[1] and study.last > held[0]:
        _told.add(where)
        log.warning(
            "research lineage=%s: the data reach into the holdout from %s on; every configuration "
            "that is run there is counted, and the gate asks how many were",
            study.lineage, np.datetime64(held[0], "ns").astype("M8[s]"),
        )  # fmt: skip


@contextmanager
def aside() -> Iterator[None]:
    """Runs inside are no trials: a check runs them again, or a training is judged by them."""
    token = _is_aside.set(True)
    try:
        yield
    finally:
        _is_aside.reset(token)


class Finished(Protocol):
    """A backtest: `sysquant.result.Result`."""

    @property
    def engine(self) -> Any:
        """With its strategies, and what it was configured as."""
        ...

    @property
    def effects(self) -> Any:
        """Its rows."""
        ...

    @property
    def ledger(self) -> Any:
        """With its accounts at the end."""
        ...

    @property
    def end(self) -> int:
        """Last event, ns UTC."""
        ...


def record(result: Finished, extent: Extent, kind: str = "backtest") -> list[Recorder]:
    """Add a finished backtest to the ledger, once for each of its strategies.

    Parameters
    ----------
    result : of a book of several the Sharpe ratio is none of theirs, and is left out.
    extent, kind : as of `Recorder`.
    """
    if not extent.events or _is_aside.get():
        return []
    engine = result.engine
    strategies: Sequence[Strategy] = tuple(engine.strategies.values())
    sharpe, periods = np.nan, 0
    if len(strategies) == 1:
        ledger = result.ledger
        worth = ledger.pool + sum(account["equity"] for account in ledger.accounts.values())
        sharpe, periods = outcome(*scores.snapshots(result.effects.rows, result.end, worth))
    recorders, terms = list[Recorder](), engine.fingerprint()
    for strategy in strategies:
        recorder = Recorder(strategy, terms, extent, kind)
        recorder.add(strategy.parameters, sharpe, periods)
        recorder.flush()
        recorders.append(recorder)
    return recorders


def outcome(ts: Ints, equity: Floats) -> tuple[float, int]:
    """Sharpe ratio per period of an equity, and of how many periods; as a sweep's row has it."""
    found = scores.figures(ts, equity, period(ts))
    return float(found["sharpe_period"]), int(found["periods"])


def said(parameters: Mapping[str, Parameter]) -> str:
    """Parameters as the ledger has them, JSON."""
    return _ENCODER.encode(parameters).decode()


@cache  # it is asked for at every backtest
def source() -> str:
    """Notebook or script that runs, as far as it is known."""
    main = sys.modules.get("__main__")
    known = getattr(main, "__vsc_ipynb_file__", "") or os.environ.get("JPY_SESSION_NAME", "")
    if "ipykernel" in sys.modules:
        return Path(known).name if known else "notebook"
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()
