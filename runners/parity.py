"""Parity: a window of recorded ticks through the backtest, and through the real live runner.

Input: a composed configuration, and its past. Output: a `Proof`: what both decided, table by table,
is the same to the byte, or where it differs first. The live runner is a process of its own, on a
broker, with a journal, a store and a home that are made for this and removed again.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from runners import compose, kafka, parts, promoted
from runners.past import Past, events_of
from runners.proofs import tell
from sysquant import archive, backtesting, journal_reader, promotions
from sysquant.errors import DataError, FeedError
from sysquant.feeds.publish import Publisher
from sysquant.home import cache, home
from sysquant.operation import Serve
from sysquant.parity import Window, compare
from sysquant.proof import Figure, Proof
from sysquant.serve import ensure_server
from sysquant.store import connect, insert, migrate
from sysquant.tables import bar_table
from sysquant.times import DAY
from sysquant.types import Bars, Ticks

LIVE = Path(__file__).with_name("live.py")
_TOPIC, _BOOK, _BACKTEST = "parity", "parity", "parity-backtest"
_MS = 1_000_000  # ns
_AT_ONCE = 20_000  # ticks published at a time
_OTHERS = promoted.ELSEWHERE | {"book.name"}


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
    ticks, notes = _told(cfg, past, window)
    with tempfile.TemporaryDirectory(prefix="sysquant-parity-") as scratch:
        root = Path(scratch)
        _furnish(root)
        with _broker(window, root) as bootstrap, _store(root) as dsn:
            trial = _Trial(cfg, past, root, dsn, bootstrap, window.timeout_s)
            found = trial.compared(ticks)
    figures: dict[str, Figure] = {"ticks": len(ticks)}
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
        notes.append(f"{rows:,} rows of {len(found)} tables are the same, byte for byte")
    took = time.monotonic() - began
    return Proof(
        name="parity", failures=tuple(failures), notes=tuple(notes), figures=figures, took_s=took
    )


def _told(cfg: DictConfig, past: Past, window: Window) -> tuple[Ticks, list[str]]:
    # The newest ticks of the window, as a topic can hold them.
    events, notes = events_of(past), list[str]()
    if isinstance(events, Bars):
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


def _later(cfg: DictConfig, ticks: Ticks) -> int:
    # Whole days by which a model would know what is still to come.
    with closing(parts.models_of(cfg)) as models:
        known = [models.newest(name) for name in models.strategies]
    latest = max((one.trained.known for one in known if one is not None), default=0)
    return max(0, -(-(latest - int(ticks.ts[0])) // DAY))


def _furnish(root: Path) -> None:
    # A home that has the models and the key that vouches for them, and nothing else.
    (root / "data" / "keys").mkdir(parents=True)
    models, key = home() / "data" / "models", home() / "data" / "keys" / "models.pub"
    if models.exists():
        (root / "data" / "models").symlink_to(models, target_is_directory=True)
    if key.exists():
        shutil.copy(key, root / "data" / "keys")


@contextmanager
def _broker(window: Window, root: Path) -> Iterator[str]:
    if window.bootstrap is not None:
        yield window.bootstrap
        return
    try:
        broker = kafka.start(0, root / "kafka")
    except FeedError as error:
        raise FeedError(
            f"parity is shown on a broker, and none can be started here: {error}; name one by "
            "promotion.parity.bootstrap=host:port"
        ) from error
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


@contextmanager
def _store(root: Path) -> Iterator[str]:
    dsn, server = ensure_server(f"chdb://{root}/data/store")
    try:
        yield dsn
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)


@dataclass(frozen=True, slots=True)
class _Trial:
    cfg: DictConfig
    past: Past
    root: Path
    dsn: str
    bootstrap: str
    timeout_s: float

    def compared(self, ticks: Ticks) -> list[Any]:
        with closing(connect(self.dsn)) as client, closing(parts.models_of(self.cfg)) as models:
            migrate(client)
            bare = self._engine(models, ())
            warm = self._warm(client, bare, ticks)
            record = promoted.record_of(bare, models)
            promotions.write(self.root / "data" / "promotions", record)
            run = self._lived(ticks, warm)
            engine = self._engine(models, [record.name])
            said = client.query(
                "SELECT strategy, model FROM models_served WHERE run = {run:String}", {"run": run}
            ).result_rows
            for strategy, model in said:
                engine.operate(Serve(strategy, model))
            result = backtesting.run(
                engine, [ticks], name=_BACKTEST, history=None if not warm else lambda *_: warm
            )
            result.store(client, _BOOK)
            return list(compare(client, run, _BACKTEST))

    def _engine(self, models: Any, names: Any) -> Any:
        return parts.engine_of(
            self.cfg, self.past.universe, self.past.funding, contained=True, models=models,
            promoted=names,
        )  # fmt: skip

    def _warm(self, client: Any, engine: Any, ticks: Ticks) -> Bars | None:
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
            insert(client, "bars_imported", bar_table(minutes, names, _BOOK), _BOOK)
        return archive.bars(client, self.past.universe, end - most * size, end, size)

    def _lived(self, ticks: Ticks, warm: Bars | None) -> str:
        # Publishes the ticks, lets the live runner trade them, and ends it; the run's name.
        topic = f"{_TOPIC}-{os.getpid()}-{time.time_ns()}"
        publisher = Publisher(bootstrap=self.bootstrap, topic=topic)
        for at in tqdm(range(0, len(ticks), _AT_ONCE), "publish", leave=False, disable=None):
            publisher.publish(ticks[at : at + _AT_ONCE], self.past.universe)
        publisher.close()
        bars = self.cfg.runtime.warmup_bars if warm is not None else 0
        command = [
            sys.executable, str(LIVE), *compose.words(without=_OTHERS), "feed=kafka", "ingest=none",
            f"feed.bootstrap={self.bootstrap}", f"feed.topic={topic}",
            f"book.name={_BOOK}", "runtime.clock=event", f"runtime.warmup_bars={bars}",
            "runtime.require_promotion=true",
        ]  # fmt: skip
        environment = os.environ | {"SYSQUANT_HOME": str(self.root), "SYSQUANT_CACHE": str(cache())}
        with (self.root / "live.log").open("w+") as log:
            live = subprocess.Popen(
                command, env=environment, cwd=self.root, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                self._wait(live, len(ticks))
                live.terminate()
                live.wait(30)
            finally:
                if live.poll() is None:
                    live.kill()
                    live.wait()
            log.seek(0)
            said = log.read()
        if live.returncode:
            raise DataError(f"the live session failed: {said.strip().splitlines()[-1]}")
        return journal_reader.meta(self._journal)["id"]

    @property
    def _journal(self) -> Path:
        return self.root / "data" / "journals" / _BOOK

    def _wait(self, live: "subprocess.Popen[bytes]", count: int) -> None:
        until = time.monotonic() + self.timeout_s
        with tqdm(total=count, desc="live", unit=" ticks", leave=False, disable=None) as bar:
            done = 0  # a bar that is not shown counts nothing
            while done < count and live.poll() is None:
                if time.monotonic() >= until:
                    raise DataError(
                        f"the live session had taken {done:,} of {count:,} ticks after "
                        f"{self.timeout_s:g} s: take fewer, promotion.parity.ticks=..., or give it "
                        "longer, promotion.parity.timeout_s=..."
                    )
                time.sleep(0.1)
                taken = journal_reader.positions(self._journal)
                bar.update(sum(taken.values()) - done)
                done = sum(taken.values())
