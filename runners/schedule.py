"""Train models anew by a timetable, until Ctrl-C: by the clock, new bars, drift, or as one asks.

Each training is `runners/retrain.py` in a process of its own, one at a time; what it publishes is
taken by the books that run here. What was missed while this did not run is made up for once.

Exit codes: 0 stopped; 1 another schedule runs, or the store is away; 2 the command line, a job or
the words of one are not understood.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from sysquant.stop import StopRequest

STOP = StopRequest(4.5) if __name__ == "__main__" else None  # before what is slow to import

import json
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

import hydra
from clickhouse_connect.driver.client import Client
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.command_line import check_command_line
from runners.couriers import couriers_of
from sysquant.alerts import Alert
from sysquant.control import Keys
from sysquant.errors import ConfigError, SysquantError
from sysquant.home import home
from sysquant.journal import Journal
from sysquant.keys import check_number
from sysquant.mailbox import LocalMailbox, Mailbox
from sysquant.outbox import Outbox
from sysquant.scheduling import BOOK, Job, Outcome, Scheduler

log = logging.getLogger("schedule")

_TURN_S = 0.2
_VERDICTS = ("published", "kept", "refused", "failed")  # its last words begin with one
_KEPT = 3  # exit code of retrain.py for a model that was kept back: no failure
_NEWEST_SQL = """
SELECT toUnixTimestamp64Nano(max(bars.ts)) FROM bars WHERE symbol IN {symbols:Array(String)}
"""
# A job that has not run yet goes on behind what was trained on by hand.
_NEW_SQL = """
SELECT count() FROM bars WHERE symbol IN {symbols:Array(String)} AND ts > if(
    {since:Int64} > 0, fromUnixTimestamp64Nano({since:Int64}),
    (SELECT max(last) FROM model_runs WHERE lineage = {lineage:String} AND rows > 0))
"""
# Of the session that each live book is in now, and the model that serves there: a challenger's is
# not meant, nor a replay's.
_DRIFT_SQL = """
SELECT run, kind, argMax(psi, ts) FROM drift
WHERE strategy = {lineage:String} AND ts > fromUnixTimestamp64Nano({since:Int64})
    AND (run, model) IN (
        SELECT run, argMax(model, seq) FROM models_served
        WHERE strategy = {lineage:String} AND run IN (
            SELECT argMax(run, started_at) FROM runs WHERE mode = 'live' GROUP BY book)
        AND run NOT IN (SELECT run FROM feed_stats WHERE startsWith(feed, 'replay:'))
        GROUP BY run)
GROUP BY run, kind, name
"""


class Task(NamedTuple):
    """What the words of a job come to: whose model, and the symbols whose bars it is made of."""

    lineage: str
    symbols: tuple[str, ...]


@compose.main("schedule")
def main(cfg: DictConfig) -> None:
    """Compose the jobs, run them, end what was started."""
    compose.start_log()
    logging.getLogger("apscheduler").setLevel(logging.WARNING)  # the jobs are told by name
    stop = STOP or StopRequest()
    try:
        look_s = compose.value(cfg, "look_s", float)
        check_number("look_s", look_s, above=0)
        jobs = {str(name): _job(cfg, str(name)) for name in cfg.jobs}
        tasks = {name: _task(name, job.words) for name, job in jobs.items()}
    except ConfigError as error:
        print(f"error: {compose.sentence(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    try:
        with couriers_of(cfg) as tell:
            _scheduler(cfg, stop, jobs, tasks, tell=tell, look_s=look_s).run(stop)
    finally:
        stop.end_children()


def _scheduler(
    cfg: DictConfig, stop: StopRequest, jobs: Mapping[str, Job], tasks: Mapping[str, Task], *,
    tell: Callable[[Alert], None], look_s: float,
) -> Scheduler:  # fmt: skip
    _, opened = parts.store_of(cfg, stop)
    opened().close()
    journal = Journal(home() / "data" / BOOK, way_out="one schedule trains at a time")
    mailboxes: list[Mailbox] = [LocalMailbox(journal.directory)]
    line = ""
    if cfg.control.bootstrap:
        from sysquant.feeds.control_topic import TopicMailbox

        settings: Any = OmegaConf.to_container(cfg.control, resolve=True)
        mailboxes.append(TopicMailbox(book=BOOK, **settings))
        keys = ("topic", "bootstrap", "api_version")
        line = "" if settings["security"] else json.dumps({key: settings[key] for key in keys})
    journal.remember(book=BOOK, line=line)

    words = compose.chosen("store")

    def run(name: str, own: Sequence[str]) -> Outcome:
        # What is new afterwards is newer than what there was before, however it ends.
        until = newest(opened, tasks[name])
        return _trained(stop, name, [*words, *own])._replace(until=until)

    return Scheduler(
        jobs=jobs, journal=journal, outbox=Outbox(journal.path, opened), mailboxes=mailboxes,
        keys=Keys.load(home() / "data" / "keys", make=True), tell=tell, look_s=look_s, run=run,
        measure=lambda name, since: measured(opened, jobs[name], tasks[name], since),
        fine=(0, _KEPT),
    )  # fmt: skip


def _job(cfg: DictConfig, name: str) -> Job:
    given: Any = OmegaConf.to_container(cfg.jobs[name], resolve=True)
    compose.check_types(Job, given, f"jobs.{name}")
    try:
        job = Job(**given)
        job.triggers()
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"jobs.{name}.{error}") from error
    if (job.every, job.cron, job.bars, job.drift) == (None,) * 4:
        raise ConfigError(f"jobs.{name} would never run: say when by every, cron, bars or drift")
    return job


def _task(name: str, words: Sequence[str]) -> Task:
    # A word that cannot be meant is said now, and not at night.
    from runners.retrain import order_of  # of scikit-learn, which `--help` need not wait for

    GlobalHydra.instance().clear()  # of this runner, whose configuration is composed
    hydras = HydraConfig.instance()
    ours = hydras.cfg
    try:
        for word in words:
            if word.startswith("-"):
                raise ConfigError(f"{word!r} is an option: words are key=value")
        check_command_line("retrain", list(words))
        with hydra.initialize_config_dir(str(compose.CONF), version_base="1.3"):
            cfg = hydra.compose("retrain", list(words), return_hydra_config=True)
        hydras.set_config(cfg)
        order = order_of(cfg)
    except compose.FAULTS as error:
        raise ConfigError(f"jobs.{name}.words: {compose.sentence(error)}") from error
    finally:
        hydras.cfg = ours
    return Task(order.lineage, tuple(one.symbol for one in order.universe))


def _trained(stop: StopRequest, name: str, words: Sequence[str]) -> Outcome:
    # One training; its last words tell what it came to.
    said = compose.output_dir() / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    command = [sys.executable, str(Path(__file__).with_name("retrain.py")), *words]
    with said.open("wb") as output:
        training = stop.spawn(command, output)
        while training.poll() is None:
            time.sleep(_TURN_S)
    lines = said.read_text(errors="replace").strip().splitlines()
    first = [n for n, one in enumerate(lines) if one.split(" ")[0] in _VERDICTS]
    told = lines[first[-1] :] if first else lines[-1:]
    return Outcome(training.returncode, " ".join(one.strip() for one in told))


def newest(opened: Callable[[], Client], task: Task) -> int:
    """When the newest bar of a job's symbols closed, ns UTC; 0 for none, or when none can tell."""
    try:
        with closing(opened()) as client:
            told = {"symbols": list(task.symbols)}
            return int(client.query(_NEWEST_SQL, told).result_rows[0][0])
    except SysquantError as error:
        log.warning("the newest bar is not known: %s", error)
        return 0


def measured(opened: Callable[[], Client], job: Job, task: Task, since: int) -> str:
    """Why a job is due by what the store holds; empty for not, or for a store that is away.

    Parameters
    ----------
    opened : opens the store.
    since : `newest` when the job ran last, ns UTC; 0 for never.
    """
    if job.bars is None and job.drift is None:
        return ""
    told: Mapping[str, Any] = {
        "lineage": task.lineage,
        "symbols": list(task.symbols),
        "since": since,
    }
    try:
        with closing(opened()) as client:
            if job.bars is not None:
                count = client.query(_NEW_SQL, told).result_rows[0][0]
                if count >= job.bars:
                    return f"{count:,} bars are new"
            if job.drift is not None:
                return _drifted(client.query(_DRIFT_SQL, told).result_rows, job.drift)
    except SysquantError as error:
        log.warning("not measured: %s", error)
    return ""


def _drifted(rows: Sequence[Sequence[Any]], limit: float) -> str:
    found = defaultdict[tuple[str, str], list[float]](list)
    for run, kind, psi in rows:
        found[run, kind].append(psi)
    for kind, of in (("prediction", max), ("feature", statistics.median)):
        each = [float(of(psi)) for (_, one), psi in found.items() if one == kind]
        if (worst := max(each, default=0.0)) >= limit:
            return f"the {kind} drift is {worst:.2f}"
    return ""


if __name__ == "__main__":
    main()
