"""Defects in what only a live session has, each put into its process alone.

A `Defect` changes one function of the live runner before it starts. `caught` holds a rehearsal with
it: parity must refuse it, and the twin of what the session recorded must name its cause: rows that
an undisturbed session has not. Code, configuration and store of the backtest are as they are.
"""

import atexit
import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from runners import compose, kafka, promoted
from runners.command_line import CONF
from runners.kafka import Broker
from runners.parity import Trial, told
from runners.past import Past, closed, past_of
from runners.rehearsal import place
from sysquant import live, promotions
from sysquant.decider import features_of
from sysquant.desk import Desk
from sysquant.effects import Labels
from sysquant.engine import Engine
from sysquant.errors import DataError
from sysquant.execution import Execution
from sysquant.feeds import decode
from sysquant.feeds.kafka import KafkaFeed
from sysquant.feeds.merge import Merge
from sysquant.journal import Journal
from sysquant.live import LiveRunner
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import signing_key
from sysquant.models.registry import Registry
from sysquant.operation import Hold
from sysquant.opinions import Opinions
from sysquant.risk import RiskChain
from sysquant.store import connect, insert
from sysquant.strategies.ml_direction import MlDirection
from sysquant.strategies.momentum import Momentum
from sysquant.swapping import Swapper
from sysquant.tables import tick_table
from sysquant.types import SECOND, Ticks, clock_mark
from tests.defects import Caught, NotShownError
from tests.forked import Forked
from tests.published import publish

NOTHING = "no session"  # is recorded: it ends by itself
_MOMENTUM = ("strategy=momentum", "strategy.fast=3", "strategy.slow=9")
_MODEL = ("strategy=ml_direction",)


class Defect(NamedTuple):
    """A defect.

    Parameters
    ----------
    where : in a session.
    cause : that the twin must name.
    put : puts it into this process.
    words : of the session, beside those of all.
    """

    name: str
    where: str
    cause: str
    put: Callable[[], None]
    words: tuple[str, ...] = _MOMENTUM


def _changed(owner: Any, name: str, new: Callable[..., Any]) -> None:
    # A function gives way to one that is given it.
    before = getattr(owner, name)

    @functools.wraps(before)
    def instead(*given: Any, **named: Any) -> Any:
        return new(before, *given, **named)

    setattr(owner, name, instead)


# -- what comes from the broker


def _columns_with(change: Callable[[Ticks], Ticks]) -> Callable[[], None]:
    def put() -> None:
        _changed(decode, "_columns", lambda before, *given: change(before(*given)))

    return put


def _replaced(**columns: Callable[[Ticks], np.ndarray]) -> Callable[[], None]:
    return _columns_with(
        lambda ticks: replace(ticks, **{name: of(ticks) for name, of in columns.items()})
    )


def _symbols_exchanged(ticks: Ticks) -> np.ndarray:
    return np.where(ticks.symbol < 2, 1 - ticks.symbol, ticks.symbol).astype(np.int32)


def _read_again() -> None:
    def seek(before: Any, feed: KafkaFeed, at: Mapping[int, int]) -> None:
        before(feed, {partition: max(0, offset - 40) for partition, offset in at.items()})

    _changed(KafkaFeed, "seek", seek)


def _equal_prices_once(ticks: Ticks) -> Ticks:
    same = np.zeros(len(ticks), bool)
    for symbol in np.unique(ticks.symbol):
        rows = np.flatnonzero(ticks.symbol == symbol)
        same[rows[1:]] = np.diff(ticks.price[rows]) == 0
    return ticks[~same]


def _batches(change: Callable[[Any], Any]) -> Callable[[], None]:
    def take(before: Any, *given: Any) -> Any:
        batch = before(*given)
        return change(batch) if len(batch) > 1 else batch

    return lambda: _changed(Merge, "take", take)


def _closed_early() -> None:
    count = itertools.count(1)

    def step(before: Any, runner: LiveRunner, batch: Any) -> None:
        before(runner, batch)
        due = runner.engine.next_mark
        if due and next(count) % 3 == 0:
            before(runner, clock_mark(due))

    _changed(LiveRunner, "_step", step)


# -- journal and recovery


def _positions_too_far() -> None:
    def commit(before: Any, *given: Any, positions: Any = None, **named: Any) -> Any:
        further = positions and {p: offset + 25 for p, offset in positions.items()}
        return before(*given, positions=further, **named)

    _changed(Journal, "commit", commit)


def _prices_journaled_rounded() -> None:
    def pack(before: Any, batch: Any) -> bytes:
        if not isinstance(batch, Ticks):
            return before(batch)
        return before(replace(batch, price=np.round(batch.price, 1)))

    _changed(live, "pack_batch", pack)


def _features_forgotten() -> None:
    Opinions.restore = lambda *_: None


# -- models


def _first_model_first() -> None:
    def begin(before: Any, swapper: Swapper) -> None:
        if swapper._journal.last_seq:
            before(swapper)
        else:
            swapper._ask("ml_direction", 1)

    _changed(Swapper, "begin", begin)


def _another_model_asked() -> None:
    def served(before: Any, loader: ModelLoader, strategy: str, name: str) -> Any:
        first = loader._registry.numbers(strategy)[1].name
        return before(loader, strategy, first)

    _changed(ModelLoader, "__call__", served)


# -- what operators say


def _resume_forgotten() -> None:
    _changed(Desk, "_resumed", lambda before, *given: ((), before(*given)[1]))


def _held_for_nothing() -> None:
    count = itertools.count(1)

    def settle(before: Any, desk: Desk, record: Any) -> None:
        before(desk, record)
        if next(count) == 3:
            desk.operate(record, "held", Hold("gap", True))

    _changed(Desk, "settle", settle)


# -- rows for the store


def _rows(table: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    def changed(before: Any, labels: Labels, name: str, rows: np.ndarray, *given: Any) -> Any:
        return before(labels, name, change(rows.copy()) if name == table else rows, *given)

    return lambda: _changed(Labels, "table", changed)


def _rounded_fee(rows: np.ndarray) -> np.ndarray:
    rows["fee"] = np.round(rows["fee"], 2)
    return rows


# -- configuration, code and processor


def _unchecked(put: Callable[[], None]) -> Callable[[], None]:
    # Past the start's own look at what was promoted, so that it trades.
    def both() -> None:
        promoted.refuse_others = lambda *_: None
        put()

    return both


def _execution(name: str, change: Callable[[Any], Any]) -> Callable[[], None]:
    return _unchecked(
        lambda: _changed(Execution, name, lambda before, *given: change(before(*given)))
    )


def _engine(name: str, change: Callable[[Any], Any]) -> Callable[[], None]:
    def make(before: Any, engine: Engine, **given: Any) -> None:
        before(engine, **{**given, name: change(given[name])})

    return _unchecked(lambda: _changed(Engine, "__init__", make))


def _other_parameter(strategies: Mapping[str, Any]) -> dict[str, Any]:
    return {name: type(one)(**{**one.parameters, "fast": 5}) for name, one in strategies.items()}


def _half_the_limits(chain: RiskChain) -> RiskChain:
    chain.limits = chain.limits / 2
    return chain


def _code_of_another_day() -> None:
    _changed(Momentum, "target", lambda before, *given: before(*given) * 0.5)


def _another_processor() -> None:
    _changed(promotions, "environment", lambda before: {**before(), "cpu": "another"})


DEFECTS = (
    Defect("price_in_single_precision", "decode", "data", _replaced(
        price=lambda ticks: ticks.price.astype(np.float32).astype(np.float64))),
    Defect("time_in_seconds", "decode", "data", _replaced(
        ts=lambda ticks: ticks.ts // SECOND * SECOND)),
    Defect("symbols_exchanged", "decode", "data", _replaced(symbol=_symbols_exchanged)),
    Defect("small_volume_lost", "decode", "data", _columns_with(
        lambda ticks: ticks[ticks.volume > np.quantile(ticks.volume, 0.1)])),
    Defect("read_again_after_a_restart", "deduplication", "data", _read_again),
    Defect("equal_prices_taken_once", "deduplication", "data", _columns_with(_equal_prices_once)),
    Defect("first_of_a_batch_lost", "batch cut", "data", _batches(lambda batch: batch[1:])),
    Defect("batch_by_price", "batch cut", "timing", _batches(
        lambda batch: batch[np.argsort(batch.price, kind="stable")])),
    Defect("bar_closed_early", "bar clock", "timing", _closed_early),
    Defect("positions_too_far", "journal", "data", _positions_too_far),
    Defect("price_journaled_rounded", "journal", NOTHING, _prices_journaled_rounded),
    Defect("features_forgotten", "recovery", "decision", _features_forgotten),
    Defect("first_model_first", "model swap", "model version", _first_model_first, _MODEL),
    Defect("another_model_asked", "model swap", "decision", _another_model_asked, _MODEL),
    Defect("resume_forgotten", "control", "capital", _resume_forgotten),
    Defect("held_for_nothing", "control", "capital", _held_for_nothing),
    Defect("signals_lost", "store writer", "decision", _rows(
        "signals", lambda rows: rows[np.arange(len(rows)) % 3 != 0])),
    Defect("refusals_lost", "store writer", "risk", _rows(
        "orders", lambda rows: rows[rows["approved"] == 1])),
    Defect("fee_in_cents", "store writer", "fees", _rows("executions", _rounded_fee)),
    Defect("fees_doubled", "configuration", "fees", _execution(
        "rates", lambda rates: (2 * rates[0], 2 * rates[1]))),
    Defect("latency_of_a_second", "configuration", "fill price", _execution(
        "terms", lambda terms: {**terms, "latency_ns": SECOND})),
    Defect("slippage_left_out", "configuration", "fill price", _execution(
        "terms", lambda terms: {**terms, "fixed_slippage": 0.0})),
    Defect("half_the_limits", "configuration", "risk", _engine("risk", _half_the_limits)),
    Defect("other_parameter", "configuration", "decision", _engine(
        "strategies", _other_parameter)),
    Defect("code_of_another_day", "other code", "decision", _unchecked(_code_of_another_day)),
    Defect("another_processor", "other CPU", NOTHING, _another_processor),
)  # fmt: skip


# -- what catches it


WORDS = (
    "feed=synthetic", "feed.length_s=1800", "bars=5s", "snapshots=5s", "runtime.warmup_bars=0",
    "runtime.snapshot_s=1e-9",
    "risk.checks=[{check: order_size, limit: 0.5}, {check: open_positions, limit: 3}, "
    "{check: cash, limit: 0.0}]",
    "promotion.parity.ticks=6000",
)  # fmt: skip


class Seeded(Forked):
    """The live runner with a defect in it; what it said is in the log at its end."""

    def __init__(
        self, defect: str, words: list[str], root: Path, log: IO[str], own: Mapping[str, str],
    ) -> None:  # fmt: skip
        super().__init__("live", tuple(words), root, own, functools.partial(_put, defect))
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


def _put(name: str) -> None:
    for defect in DEFECTS:
        if defect.name == name:
            defect.put()


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
    if words == _MODEL:
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
