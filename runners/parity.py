"""Parity: a window of recorded ticks through the backtest, and through the real live runner.

Input: a composed configuration, and its past. Output: a `Proof`: what both decided, table by table,
is the same to the byte, or where it differs first. The live runner is held as in `rehearsal`, and
the backtest is given the same ticks, and what an operator did between the same two of them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig

from runners import compose, parts, promoted
from runners.past import Past, events_of
from runners.proofs import tell
from runners.rehearsal import BOOK, Done, Place, Rehearsal, Start, place, spawned
from sysquant import archive, backtesting, promotions
from sysquant.activity import Activity, bar_size
from sysquant.engine import Engine
from sysquant.errors import DataError
from sysquant.inputs import Inputs
from sysquant.models.loader import ModelLoader
from sysquant.operation import Operation, Serve
from sysquant.parity import Compared, Window, compare, taken
from sysquant.proof import Figure, Proof
from sysquant.session import recorded
from sysquant.store import connect, insert, migrate
from sysquant.tables import bar_table
from sysquant.times import DAY
from sysquant.types import Bars, Ticks

_BACKTEST = "parity-backtest"
_MS = 1_000_000  # ns
_LEAST_BARS = 100  # that ticks must be of, to be told where the window has bars


@compose.main("config")
def parity(cfg: DictConfig) -> None:
    """Whether the live runner decides what the backtest does; renews what a promotion rests on."""
    tell(cfg, _renewing)


def _renewing(cfg: DictConfig, past: Past) -> Proof:
    proof = parity_proof(cfg, past)
    if proof.passes:
        _renew(cfg, past, proof)
    return proof


def _renew(cfg: DictConfig, past: Past, proof: Proof) -> None:
    # Of a strategy that is as it was promoted: it may trade on this engine and machine.
    for record in promoted.records_of(parts.strategies_of(cfg)).values():
        with closing(parts.models_of(cfg)) as models:
            engine = parts.engine_of(cfg, past.universe, past.funding, models=models)
            others = list(promoted.differences(record, engine, models))
        if others:
            print(f"{record.name} is not what was promoted, {others[0]}: nothing is renewed")
            continue
        promotions.renew(promoted.directory(), record, proof)
        print(f"parity of promotion {record.id} is shown on this engine and machine")


def parity_proof(cfg: DictConfig, past: Past) -> Proof:
    """Whether the live runner decides what the backtest does.

    Raises
    ------
    FeedError
        If there is no broker, and none can be started.
    ConfigError, DataError
        If the window holds nothing to show it on.
    """
    began = time.monotonic()
    window: Window = compose.build(cfg.promotion.parity)
    ticks, notes = told(cfg, past, window)
    with place(window.bootstrap) as where:
        found = list(Trial(cfg, past, where).compared(ticks, window.timeout_s))
    figures = dict[str, Figure]()
    failures = list[str]()
    for one in found:
        figures |= {one.table: one.rows[1], f"{one.table}_sha256": one.hashes[1][:16]}
        if one.difference:
            failures.append(f"live and backtest differ in {one.table}: {one.difference}")
    if not figures["signals"]:
        failures.append("nothing was decided in the window: take a longer one, feed.start=...")
    elif not figures["orders"]:
        notes.append("no order came of what was decided: a longer window shows more")
    if not failures:
        rows = sum(one.rows[1] for one in found)
        notes.append(
            f"{rows:,} rows of {len(found)} tables are the same, byte for byte; the session was "
            "paused, killed and started again"
        )
    took = time.monotonic() - began
    return Proof(
        name="parity", failures=tuple(failures), notes=tuple(notes), figures=figures, took_s=took
    )


def told(cfg: DictConfig, past: Past, window: Window) -> tuple[Ticks, list[str]]:
    """The newest ticks of the window, as a topic can hold them, and what was changed for that."""
    events, notes = events_of(past), list[str]()
    if isinstance(events, Bars) and (found := _recorded(cfg, past, window, int(events.ts.max()))):
        notes.append("ticks of the store were told, of which there are fewer than bars")
        events = found
    elif isinstance(events, Bars):
        notes.append("the window has bars alone: each close was told as one trade")
        empty = Ticks.empty()
        columns: dict[str, Any] = {n: np.zeros(len(events), c.dtype) for n, c in empty.columns()}
        columns |= {"ts": events.ts, "received_at": events.ts, "price": events.close}
        columns |= {"volume": events.volume, "symbol": events.symbol}
        events = Ticks(**columns)
    ticks = events[-window.ticks :]
    later = _later(cfg, ticks)
    if later:
        notes.append(f"ticks are dated {later} days later: the model knows what came before")
    whole = ticks.ts // _MS * _MS + later * DAY
    count = len(ticks)
    return replace(
        ticks, ts=whole, received_at=whole, partition=np.zeros(count, ticks.partition.dtype),
        offset=np.arange(count, dtype=ticks.offset.dtype),
    ), notes  # fmt: skip


def _recorded(cfg: DictConfig, past: Past, window: Window, last: int) -> Ticks | None:
    # The newest ticks up to a moment; none where they say too little of the bars.
    size = bar_size(str(cfg.bars))
    try:
        first, end = archive.span(past.client, past.universe)
    except DataError:
        return None
    end = min(end, last)
    if isinstance(size, Activity) or end - first < _LEAST_BARS * size:
        return None
    back = _LEAST_BARS * size
    while True:
        ticks = archive.ticks(past.client, past.universe, max(first, end - back), end)
        if len(ticks) >= window.ticks or end - back <= first:
            break
        back *= 2
    ticks = ticks[-window.ticks :]
    enough = len(ticks) and ticks.ts.max() - ticks.ts.min() >= _LEAST_BARS * size
    return ticks if enough else None


def _later(cfg: DictConfig, ticks: Ticks) -> int:
    # Whole days by which a model would know what is still to come.
    with closing(parts.models_of(cfg)) as models:
        known = [models.newest(name) for name in models.strategies]
    latest = max((one.trained.known for one in known if one is not None), default=0)
    return max(0, -(-(latest - int(ticks.ts[0])) // DAY))


@dataclass(frozen=True, slots=True)
class Trial:
    """One strategy, backtested and traded live at one place.

    Parameters
    ----------
    cfg, past : of its backtest.
    where : it is held.
    start : starts the live runner.
    """

    cfg: DictConfig
    past: Past
    where: Place
    start: Start = spawned

    def compared(self, ticks: Ticks, timeout_s: float) -> Iterator[Compared]:
        """What both decided of ticks, table by table.

        Raises
        ------
        DataError
            If the live session fails, or takes longer.
        """
        cfg, universe = self.cfg, self.past.universe
        with closing(connect(self.where.dsn)) as client, closing(parts.models_of(cfg)) as models:
            migrate(client)
            bare = self._engine(models, ())
            warm = self._warm(client, bare, ticks)
            record = promoted.record_of(bare, models)
            promotions.write(self.where.root / "data" / "promotions", record)
            warmup_bars = 0 if warm is None else cfg.runtime.warmup_bars
            rehearsal = Rehearsal(self.where, universe, warmup_bars, timeout_s, self.start)
            done = rehearsal.hold(ticks)
            served = [Serve(record.name, record.model)] if record.model else []
            result = backtesting.run(
                self._engine(models, [record.name]), [*served, *_parts(ticks, done)],
                name=_BACKTEST, history=self._history(warm),
            )  # fmt: skip
            result.store(client, BOOK)
            inputs = Inputs.of(recorded(rehearsal.journal, self.where.root / "runs" / done.run))
            yield taken(inputs.events, ticks, [one.symbol for one in universe])  # pyright: ignore[reportArgumentType]
            yield from compare(client, done.run, _BACKTEST)

    def _engine(self, models: ModelLoader, names: Any) -> Engine:
        return parts.engine_of(
            self.cfg, self.past.universe, self.past.funding, contained=True, models=models,
            promoted=names,
        )  # fmt: skip

    @staticmethod
    def _history(warm: Bars | None) -> Callable[..., Bars] | None:
        return None if warm is None else lambda *_: warm

    def _warm(self, client: Any, engine: Engine, ticks: Ticks) -> Bars | None:
        # What a session of that time would have warmed up on, for both.
        size, most = engine.interval, self.cfg.runtime.warmup_bars
        if not isinstance(size, int) or size % archive.MINUTE or not most:
            return None
        end = engine.warmup_end(ticks)
        minutes = archive.bars(
            self.past.client, self.past.universe, end - most * size, end, archive.MINUTE
        )
        names = [one.symbol for one in self.past.universe]
        if len(minutes):
            insert(client, "bars_imported", bar_table(minutes, names, BOOK), BOOK)
        return archive.bars(client, self.past.universe, end - most * size, end, size)


def _parts(ticks: Ticks, done: Done) -> Iterator[Ticks | Operation]:
    # Ticks, and between them what was done to the session.
    at = 0
    for after, operation in done.operations:
        yield ticks[at:after]
        yield operation
        at = after
    yield ticks[at:]
