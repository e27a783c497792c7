"""Train models anew by a timetable, until Ctrl-C: by the clock, new bars, drift, or as one asks.

Each training is `runners/retrain.py` in a process of its own, one at a time; what it publishes is
taken by the books that run here. What was missed while this did not run is made up for once.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

import hydra
from clickhouse_connect.driver.client import Client
from hydra.core.global_hydra import GlobalHydra
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
_NEW_SQL = """
SELECT count() FROM bars WHERE symbol IN {symbols:Array(String)} AND ts > greatest(
    fromUnixTimestamp64Nano({since:Int64}),
    (SELECT max(last) FROM model_runs WHERE lineage = {lineage:String} AND rows > 0))
"""
_DRIFT_SQL = """
SELECT kind, argMax(psi, ts) FROM drift
WHERE strategy = {lineage:String} AND model = (
    SELECT argMax(model, ts) FROM models_served WHERE strategy = {lineage:String})
GROUP BY kind, name
"""


class _Task(NamedTuple):
    # What the words of a job come to.
    lineage: str
    symbols: list[str]


@compose.main("schedule")
def main(cfg: DictConfig) -> None:
    """Compose the jobs, run them, end what was started."""
    compose.start_log()
    stop = STOP or StopRequest()
    try:
        with couriers_of(cfg) as tell:
            _scheduler(cfg, stop, tell).run(stop)
    finally:
        stop.end_children()


def _scheduler(cfg: DictConfig, stop: StopRequest, tell: Callable[[Alert], None]) -> Scheduler:
    jobs = {str(name): _job(cfg, str(name)) for name in cfg.jobs}
    tasks = {name: _task(name, job.words) for name, job in jobs.items()}
    look_s = compose.value(cfg, "look_s", float)
    check_number("look_s", look_s, above=0)
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
    return Scheduler(
        jobs=jobs, journal=journal, outbox=Outbox(journal.path, opened), mailboxes=mailboxes,
        keys=Keys.load(home() / "data" / "keys", make=True), tell=tell, look_s=look_s,
        run=lambda name, own: _trained(stop, name, [*words, *own]),
        measure=lambda name, since: _measured(opened, jobs[name], tasks[name], since),
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
    return job


def _task(name: str, words: Sequence[str]) -> _Task:
    # A word that cannot be meant is said now, and not at night.
    GlobalHydra.instance().clear()  # of this runner, whose configuration is composed
    try:
        check_command_line("retrain", list(words))
    except ConfigError as error:
        raise ConfigError(f"jobs.{name}.words: {error}") from error
    with hydra.initialize_config_dir(str(compose.CONF), version_base="1.3"):
        cfg = hydra.compose("retrain", list(words), return_hydra_config=True)
    lineage = cfg.lineage or cfg.hydra.runtime.choices["strategy"]
    return _Task(str(lineage), [str(one.symbol) for one in cfg.universe.instruments])


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


def _measured(opened: Callable[[], Client], job: Job, task: _Task, since: int) -> str:
    # Why a job is due by what the store holds; a store that is away is asked again later.
    if job.bars is None and job.drift is None:
        return ""
    told: Mapping[str, Any] = {"lineage": task.lineage, "symbols": task.symbols, "since": 0}
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
    by_kind = {
        kind: [psi for one, psi in rows if one == kind] for kind in ("prediction", "feature")
    }
    for kind, of in (("prediction", max), ("feature", statistics.median)):
        found = of(by_kind[kind]) if by_kind[kind] else 0.0
        if found >= limit:
            return f"the {kind} drift is {found:.2f}"
    return ""


if __name__ == "__main__":
    main()
