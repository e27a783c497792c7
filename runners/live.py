"""Trade one strategy live: feed -> engine -> journal -> store, until the feed ends or Ctrl-C.

python runners/live.py strategy=momentum                 # replay of the store's last hours
python runners/live.py strategy=momentum feed=kafka store=clickhouse
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import gc
import logging
import os
import subprocess
from datetime import UTC, datetime

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.screen import Screen
from sysquant import backfill
from sysquant.home import home
from sysquant.journal import Journal
from sysquant.live import LiveRunner, Runtime
from sysquant.outbox import Outbox
from sysquant.rows import run_row
from sysquant.serve import ensure_server, revive
from sysquant.store import connect, migrate

log = logging.getLogger("live")


@compose.main("config")
def main(cfg: DictConfig) -> None:
    """Compose the parts, run the session, end what was started beside it."""
    compose.start_log(quiet=sys.stdout.isatty())
    children: list[subprocess.Popen[bytes]] = []
    try:
        _trade(cfg, children)
    finally:
        for child in reversed(children):
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    # A child that is stuck is not waited for: what it holds is safe on disk.
    child.terminate()
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _trade(cfg: DictConfig, children: list[subprocess.Popen[bytes]]) -> None:
    universe = parts.universe_of(cfg)
    parts.compile_engine(cfg, universe)
    engine = parts.engine_of(cfg, universe)
    dsn, server = ensure_server(cfg.store.dsn)
    if server is not None:
        children.append(server)
    client = connect(dsn)
    migrate(client)
    if compose.choice("feed") == "replay" and compose.choice("universe") == "sample":
        backfill.sample(client, universe)
    client.close()

    def opened() -> Client:
        revive(cfg.store.dsn, children)
        return connect(dsn)

    book = cfg.book.name or compose.choice("strategy")
    journal = _journal(book, cfg.journal)
    feed = parts.feed_of(cfg, universe, opened)
    if compose.choice("feed") == "kafka" and cfg.ingest == "auto" and cfg.store.dsn != dsn:
        children.append(_start_ingest())
    runtime = _runtime(cfg)
    if journal.meta("announced") is None:
        config = OmegaConf.to_yaml(cfg)
        row = run_row(journal.id, "live", book, str(engine.fingerprint()), config)
        journal.commit(None, {"runs": row}, notes={"announced": "1"})
    screen = Screen(f"{book} on {feed.name}, run {journal.id}")

    def report(runner: LiveRunner) -> None:
        screen.show(
            engine, runner.tally, lag_ms=runner.lag_ms(), waiting=runner.journal.outbox_rows
        )

    runner = LiveRunner(
        engine=engine,
        feed=feed,
        journal=journal,
        outbox=Outbox(journal.path, opened),
        labels=parts.labels_of(engine, journal.id),
        runtime=runtime,
        history=parts.warmup_of(cfg, universe, opened),
        report=report,
    )
    compose.record(run=journal.id, book=book, feed=feed.name, **engine.fingerprint())
    gc.collect()
    gc.freeze()  # what start-up made is never looked at again: pauses of 10 ms become 0.5 ms
    runner.run()
    screen.close()
    _last_words(runner)


def _runtime(cfg: DictConfig) -> Runtime:
    if cfg.runtime.clock == "auto":
        cfg.runtime.clock = "wall" if compose.choice("feed") == "kafka" else "event"
    return compose.build(cfg.runtime)


def _journal(book: str, wish: str) -> Journal:
    # A replay that came to its end is over: the next start is another run.
    directory = home() / "data" / "journals" / book
    journal = Journal(directory)
    if wish != "fresh" and journal.meta("ended") is None:
        return journal
    if journal.meta("epoch") is None:
        return journal
    kept = f"{book}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{journal.id}"
    journal.close()
    directory.rename(directory.with_name(kept))
    log.info("the old journal is kept as %s", kept)
    return Journal(directory)


def _start_ingest() -> subprocess.Popen[bytes]:
    # It ends with this process, also when that is killed, and has a log of its own.
    ingest = Path(__file__).with_name("ingest.py")
    arguments = [*compose.overrides("feed", "universe", "store"), f"stop_with={os.getpid()}"]
    with (compose.output_dir() / "ingest.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, str(ingest), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _last_words(runner: LiveRunner) -> None:
    waiting = runner.journal.outbox_rows
    print(f"ended: {runner.stop.reason}; run {runner.labels.run}")
    if waiting:
        print(f"{waiting:,} rows wait in the journal for the store; the next start sends them")
    print(
        "next: the first notebook, notebooks/01_first_backtest.ipynb (make lab); the same on "
        f"history, python runners/backtest.py strategy={compose.choice('strategy')}; "
        f"every row, in the store ({compose.choice('store')}): orders, risk_receipts, executions"
    )


if __name__ == "__main__":
    main()
