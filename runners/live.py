"""Trade a book live: feed -> engine -> journal -> store, until the feed ends or Ctrl-C.

python runners/live.py strategy=momentum                 # replay of the store's last hours
python runners/live.py book=all                          # every strategy, one pool of cash
python runners/live.py strategy=momentum feed=kafka store=clickhouse
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from sysquant.stop import StopRequest, stand_back

STOP = StopRequest(4.5) if __name__ == "__main__" else None  # before what is slow to import

import functools
import gc
import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from io import BufferedWriter
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runners import chain, compose, parts, promoted
from runners.screen import Screen
from sysquant import backfill, journal_reader
from sysquant.adoption import adopt, unserved
from sysquant.audit import Audit
from sysquant.control import Keys
from sysquant.desk import Desk
from sysquant.engine import Engine
from sysquant.errors import StoreAwayError
from sysquant.health import served
from sysquant.home import home
from sysquant.ingest import ingest_journal
from sysquant.journal import Journal
from sysquant.live import LiveRunner
from sysquant.locking import holder
from sysquant.mailbox import LocalMailbox, Mailbox
from sysquant.models.loader import ModelLoader
from sysquant.outbox import Outbox
from sysquant.recovery import check_feed, is_ours
from sysquant.rows import run_row
from sysquant.runtime import Runtime
from sysquant.sealing import Sealer
from sysquant.swapping import Swapper

log = logging.getLogger("live")

_SWITCH_S = 0.0005  # that the thread that trades waits for another to let go, not Python's 5 ms
_INGEST_AGAIN_S = 10.0  # between two starts
NOT_FLAT = 4  # exit code: positions were to be left and could not


@compose.main("config")
def main(cfg: DictConfig) -> None:
    """Compose the parts, run the session, end what was started beside it."""
    compose.start_log(quiet=sys.stdout.isatty())
    stop = STOP or StopRequest()
    try:
        _trade(cfg, stop)
    finally:
        stop.end_children()


def _trade(cfg: DictConfig, stop: StopRequest) -> None:
    book, wish, ingest = _wishes(cfg)
    runtime = parts.runtime_of(cfg)
    stop.deadline_s = runtime.deadline_s + 1.5
    universe = parts.universe_of(cfg)
    parts.compile_engine(cfg, universe)
    dsn, opened = parts.store_of(cfg, stop)
    try:
        with closing(opened()) as client:
            if compose.choice("feed") == "replay" and compose.choice("universe") == "sample":
                backfill.sample(client, universe)
    except StoreAwayError as error:
        known = journal_reader.meta(_directory(book)) if wish != "fresh" else {}
        needs_history = runtime.warmup_bars and "warmed" not in known
        if compose.choice("feed") == "replay" or needs_history:
            raise
        log.warning("rows wait in the journal: %s", error)

    feed = parts.feed_of(cfg, universe, opened)
    known_quality = _known_quality(book, wish)
    quality = chain.rate(cfg, opened, feed, known_quality)
    universe = parts.universe_of(cfg)
    records = promoted.records_of(parts.strategies_of(cfg))
    models = parts.models_of(cfg, records)
    engine = parts.engine_of(
        cfg, universe, parts.funding_of(cfg, universe, opened, feed), contained=True,
        models=models, promoted=records,
    )  # fmt: skip
    promoted.refuse_others(records, engine, models, runtime)
    promoted.announce(records, engine)
    flatten = parts.flattened(cfg, list(engine.strategies))
    journal = _journal(book, wish)
    ingests = compose.choice("feed") == "kafka" and ingest == "auto" and cfg.store.dsn != dsn
    beside = _Ingest(stop, ingest_journal(feed.name, cfg.store.dsn)) if ingests else None
    outbox = Outbox(journal.path, opened)
    labels = parts.labels_of(engine, journal.id, {n: one.id for n, one in records.items()})
    history = promoted.warmed(
        parts.warmup_of(cfg, universe, opened, feed), records, engine.symbols
    )  # fmt: skip
    check_feed(journal, feed)
    journal.remember(quality=known_quality or quality)  # a start that is refused changes nothing
    gone = unserved(journal, models) if journal.meta("adopt") else {}
    is_adopted = bool(journal.meta("adopt")) and (bool(gone) or not is_ours(journal, engine))
    if is_adopted:
        print(adopt(journal, engine, outbox, opened, history, labels, gone), flush=True)
    _announce(cfg, journal, engine, book, anew=is_adopted)
    screen = Screen(f"{book} on {feed.name}, run {journal.id}")
    audit = _audit(stop, dsn, runtime.twin_s)

    def report(runner: LiveRunner) -> None:
        if not runner.stop.reason:
            audit.look(runner.note)
            if beside is not None:
                beside.look()
        screen.show(
            engine, runner.tally, lag_ms=runner.lag_ms(), waiting=runner.journal.outbox_rows
        )

    runner = LiveRunner(
        engine=engine,
        feed=feed,
        journal=journal,
        outbox=outbox,
        desk=_desk(cfg, book, engine, journal, runtime, outbox, models),
        sealer=Sealer(journal.path, home() / "runs" / journal.id, newest=journal.last_seq),
        labels=labels,
        runtime=runtime,
        history=history,
        report=report,
        say=functools.partial(print, flush=True),
        flatten=flatten,
        stop=stop,
    )
    compose.record(run=journal.id, book=book, feed=feed.name, **engine.fingerprint())
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()  # what start-up made is never looked at again: pauses of 10 ms become 0.5 ms
    with served(runtime.health_port, runner.beacon), closing(audit):
        runner.run()
    screen.close()
    _last_words(runner)
    if ingests:
        _say_behind(stop, ingest_journal(feed.name, cfg.store.dsn), runner.positions)
    if runner.unflat:
        raise SystemExit(NOT_FLAT)


def _announce(
    cfg: DictConfig, journal: Journal, engine: Engine, book: str, *, anew: bool
) -> None:  # fmt: skip
    # In `runs`: once in a journal's life, and for what goes on with it otherwise.
    if anew or journal.meta("announced") is None:
        config = OmegaConf.to_yaml(cfg)
        mode = "challenger" if compose.is_shadow() else "live"
        row = run_row(journal.id, mode, book, str(engine.fingerprint()), config)
        journal.commit(None, {"runs": row}, notes={"announced": "1"})


def _desk(
    cfg: DictConfig, book: str, engine: Engine, journal: Journal, runtime: Runtime, outbox: Outbox,
    models: ModelLoader,
) -> Desk:  # fmt: skip
    # Messages come from this machine, and over the broker where the feed does.
    mailboxes: list[Mailbox] = [LocalMailbox(journal.directory)]
    where = {"book": book}
    if compose.choice("feed") == "kafka":
        from sysquant.feeds.control_topic import TopicMailbox

        settings: Any = OmegaConf.to_container(cfg.feed, resolve=True)
        wanted = {key: settings[key] for key in ("bootstrap", "api_version", "security")}
        mailboxes.append(TopicMailbox(book=book, topic=runtime.control_topic, **wanted))
        line = {"topic": runtime.control_topic} | {
            k: wanted[k] for k in ("bootstrap", "api_version")
        }
        where["line"] = "" if wanted["security"] else json.dumps(line)  # no secret stays on disk
    journal.remember(**where)
    clock = time.time_ns if runtime.clock == "wall" else lambda: engine.engine_ts
    return Desk(
        book=book, engine=engine, journal=journal, mailboxes=mailboxes, send=outbox.send,
        models=Swapper(engine, journal, models, clock, compose.build(cfg.serving)),
        keys=Keys.load(home() / "data" / "keys", make=True), age_s=runtime.control_age_s,
    )  # fmt: skip


def _wishes(cfg: DictConfig) -> tuple[str, str, str]:
    # Name of the book, and what is wanted of journal and ingest; nothing that is meant otherwise.
    return compose.book_of(cfg), *parts.wishes_of(cfg)


def _directory(book: str) -> Path:
    return home() / "data" / "journals" / book


def _journal(book: str, wish: str) -> Journal:
    # A replay that came to its end is over: the next start is another run.
    directory = _directory(book)
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


def _known_quality(book: str, wish: str) -> str:
    # The scores that a session began with, for its restart; none for one that begins now.
    known = journal_reader.meta(_directory(book)) if wish != "fresh" else {}
    begins = "fingerprint" not in known or "ended" in known or known.get("adopt")
    return "" if begins else known.get("quality", "")


class _Ingest:
    # Ends with this process, also when that is killed; one that ends before is started again, but
    # not while another process, as a second session on the topic, has one.

    def __init__(self, stop: StopRequest, journal: Path) -> None:
        self._stop, self._journal = stop, journal
        self._log = compose.output_dir() / "ingest.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._again_at, self._known = 0.0, 0
        self.look()

    def look(self) -> None:
        is_up = self._child is not None and self._child.poll() is None
        if is_up or time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + _INGEST_AGAIN_S
        other = holder(self._journal)
        if other is None:
            self._start()
        elif other != self._known:  # what we started meanwhile was refused
            log.info("the topic is written into the store by the ingest of process %d", other)
            self._child = None
        self._known = other or 0

    def _start(self) -> None:
        if self._child is not None:
            code = self._child.returncode
            log.warning("the ingest ended with code %s, see %s; starting it again", code, self._log)
        ingest = Path(__file__).with_name("ingest.py")
        arguments = [*compose.chosen("feed", "universe", "store"), f"stop_with={os.getpid()}"]
        with self._log.open("ab") as output:
            self._child = self._stop.spawn([sys.executable, ingest, *arguments], output)


def _audit(stop: StopRequest, dsn: str, every_s: float | None) -> Audit:
    # The twin of this very session: by its own words, and at the address of its store, so that it
    # never opens the files in the place of a server that died. The address may hold a password,
    # which no command line shows.
    words = [*compose.words(without={"store"}), "store=clickhouse"]
    command = [sys.executable, Path(__file__).with_name("check.py"), "twin", *words]

    def start(output: BufferedWriter) -> "subprocess.Popen[bytes]":
        child = stop.spawn(command, output, environment={"CLICKHOUSE_DSN": dsn})
        stand_back(child)
        return child

    return Audit(start, compose.output_dir() / "twin.log", every_s)


def _say_behind(stop: StopRequest, journal: Path, read: Mapping[int, int]) -> None:
    # Ticks that were traded are to be in the store: ingest is waited for, unless a signal hurries.
    patience = time.monotonic() + (0.0 if stop.is_asked else 30.0)
    while True:
        written = journal_reader.positions(journal)
        behind = sum(offset - written.get(partition, 0) for partition, offset in read.items())
        if behind <= 0:
            return
        if time.monotonic() >= patience or stop.is_asked:
            break
        time.sleep(0.1)
    print(f"ingest is {behind:,} ticks behind; the next start, or runners/ingest.py, goes on there")


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
