"""What catches defects in what only live has: parity refuses them, the twin names their cause.

Input: a defect. Output: what parity said of a rehearsal whose live runner alone has it, and what
the twin of that session named: rows that an undisturbed session has not. Code, configuration and
store of the backtest are as they are.
"""

import atexit
import functools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from runners import compose, kafka
from runners.command_line import CONF
from runners.kafka import Broker
from runners.parity import Trial, told
from runners.past import Past, closed, past_of
from runners.rehearsal import place
from sysquant.decider import features_of
from sysquant.errors import DataError
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.manifest import signing_key
from sysquant.models.registry import Registry
from sysquant.store import connect, insert
from sysquant.strategies.ml_direction import MlDirection
from sysquant.tables import tick_table
from tests.defects import Caught, NotShownError
from tests.defects.seeds import DEFECTS, MODEL, NOTHING, Defect, put
from tests.forked import Forked
from tests.published import publish

__all__ = ["DEFECTS", "caught", "undisturbed"]

WORDS = (
    "feed=synthetic", "feed.length_s=1800", "bars=5s", "snapshots=5s", "runtime.warmup_bars=0",
    "risk.checks=[{check: order_size, limit: 0.5}, {check: open_positions, limit: 3}, "
    "{check: cash, limit: 0.0}]",
    "promotion.parity.ticks=6000",
)  # fmt: skip


class Seeded(Forked):
    """The live runner with a defect in it; what it said is in the log at its end."""

    def __init__(
        self, defect: str, words: list[str], root: Path, log: IO[str], own: Mapping[str, str],
    ) -> None:  # fmt: skip
        super().__init__("live", tuple(words), root, own, functools.partial(put, defect))
        self._log: IO[str] | None = log

    def poll(self) -> int | None:
        """As of `Popen`."""
        return self.returncode if self.returncode is None else self.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """As of `Popen`."""
        said = self.communicate(timeout)
        if self._log is not None:
            self._log.write("".join(said))
            self._log.flush()
            self._log = None
        return self.returncode


class Held(NamedTuple):
    """What came of a rehearsal.

    Parameters
    ----------
    said : the first difference that parity told; empty for none.
    differing : cause -> rows that the twin tells of; empty where there was no session to explain.
    unexplained : a fraction of capital.
    """

    said: str
    differing: Mapping[str, int]
    unexplained: float


def held(directory: Path, words: Sequence[str], defect: str = "") -> Held:
    """Hold a rehearsal with a defect, or an undisturbed one, and explain it."""
    given = list[str]()

    def start(words: list[str], *more: Any) -> Seeded:
        given[:] = words
        return Seeded(defect, words, *more)

    with _configured(directory, words) as (cfg, past), place(_broker().bootstrap) as where:
        ticks, _ = told(cfg, past, compose.build(cfg.promotion.parity))
        try:
            found = list(Trial(cfg, past, where, start).compared(ticks, 60.0))
        except DataError as error:
            return Held(str(error), {}, 0.0)
        said = next((f"{one.table}: {one.difference}" for one in found if one.difference), "")
        (topic,) = (word.partition("=")[2] for word in given if word.startswith("feed.topic="))
        with closing(connect(where.dsn)) as client:
            names = [one.symbol for one in past.universe]
            insert(client, "ticks", tick_table(ticks, names, topic), "truth")
        explained = _twin(where.root, given)
    (one,) = explained["strategies"].values()
    differing = {cause: each["differing"] for cause, each in one["causes"].items()}
    return Held(said, differing, abs(one["unexplained"]) / cfg.book.capital)


@contextmanager
def _configured(directory: Path, words: Sequence[str]) -> Iterator[tuple[DictConfig, Past]]:
    # As the command line of the gate would.
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["SYSQUANT_HOME"] = str(directory)
    if words == MODEL:
        _publish(directory)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", [*words, *WORDS], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        OmegaConf.resolve(cfg.store)
    past = past_of(cfg)
    with closed(past):
        yield cfg, past


def _publish(directory: Path) -> None:
    # Two models of the strategy, of which one says the contrary of the other.
    strategy, rng = MlDirection(), np.random.default_rng(1)
    key = signing_key(directory / "data" / "keys")
    features = features_of(strategy)
    x = rng.normal(size=(600, len(features)))
    for slope in (1.0, -1.0):
        score = slope * x[:, 0] + 0.5 * rng.normal(size=len(x))
        model = pipeline_of("logistic_regression").fit(
            x, np.array(CLASSES)[np.digitize(score, [-0.3, 0.3])]
        )
        publish(
            Registry(directory / "data" / "models"), key, model, x, lineage="ml_direction",
            strategy=repr(strategy), features=tuple(features),
        )  # fmt: skip


@functools.cache
def _broker() -> Broker:
    # One for all defects of this process.
    broker = kafka.start(0, Path(tempfile.mkdtemp(prefix="sysquant-defects-")))
    atexit.register(broker.stop)
    return broker


def _twin(root: Path, words: Sequence[str]) -> Any:
    own = {"SYSQUANT_HOME": str(root)}
    process = Forked("check", ("twin", "json=true", *words), root, {**os.environ, **own})
    try:
        out, err = process.communicate(100)
    finally:
        process.kill()
    if not out:
        raise NotShownError(f"there is no twin: {err}")
    return json.loads(out)


_UNDISTURBED = dict[Sequence[str], Held]()
MOST_UNEXPLAINED = 1e-6  # of capital


def undisturbed(directory: Path, words: Sequence[str]) -> Held:
    """What an undisturbed session of words comes to: held once a process.

    Raises
    ------
    NotShownError
        If parity refuses that, or its twin names what nobody did.
    """
    if words not in _UNDISTURBED:
        found = held(directory, words)
        others = {c: n for c, n in found.differing.items() if n and c != "capital"}
        if found.said or others or found.unexplained > MOST_UNEXPLAINED:
            raise NotShownError(f"an undisturbed session is not one: {found}")
        _UNDISTURBED[words] = found
    return _UNDISTURBED[words]


def caught(defect: Defect, directory: Path) -> Caught | None:
    """What catches a defect; None where nothing does.

    The first cause in the ladder's order counts: what comes after it may follow from it.

    Raises
    ------
    NotShownError
        As of `undisturbed`; or if the twin names another cause, or leaves something unexplained.
    """
    usual = undisturbed(directory / "undisturbed", defect.words)
    began = time.monotonic()
    found = held(directory / defect.name, defect.words, defect.name)
    if not found.said:
        return None
    named = [c for c, n in found.differing.items() if n != usual.differing[c]] or [NOTHING]
    if named[0] != defect.cause or found.unexplained > MOST_UNEXPLAINED:
        raise NotShownError(
            f"{defect.name} is of {defect.cause}; the twin named {', '.join(named)}, and "
            f"left {found.unexplained:g} of capital unexplained; parity said: {found.said}"
        )
    took_s = time.monotonic() - began
    return Caught(defect.name, defect.where, "check.py parity", defect.cause, found.said, took_s)
