"""Defects in what only a live session has: each changes one function of the live runner.

`put` puts one into this process, before the runner starts; `live` catches them. A cause is that of
the twin: whose rows differ first, in the ladder's order, from those of an undisturbed session.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from runners import promoted
from sysquant import live, promotions
from sysquant.desk import Desk
from sysquant.effects import Labels
from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.feeds import decode
from sysquant.feeds.kafka import KafkaFeed
from sysquant.feeds.merge import Merge
from sysquant.journal import Journal
from sysquant.live import LiveRunner
from sysquant.models.loader import ModelLoader
from sysquant.operation import Hold
from sysquant.opinions import Opinions
from sysquant.risk import RiskChain
from sysquant.strategies.momentum import Momentum
from sysquant.swapping import Swapper
from sysquant.types import SECOND, Ticks, clock_mark

NOTHING = "no session"  # is recorded: it ends by itself
MOMENTUM = ("strategy=momentum", "strategy.fast=3", "strategy.slow=9")
MODEL = ("strategy=ml_direction",)


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
    words: tuple[str, ...] = MOMENTUM


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


def _features_cold() -> None:
    def recover(before: Any, journal: Journal, engine: Engine, feed: Any) -> None:
        cold = engine.state()
        before(journal, engine, feed)
        engine._opinions.restore(cold)

    _changed(live, "recover", recover)


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
            desk.operate(record, "held", Hold("halt", True))  # no resume ends that

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
    Defect("features_forgotten", "recovery", NOTHING, _features_forgotten),
    Defect("features_cold_after_it", "recovery", "decision", _features_cold),
    Defect("first_model_first", "model swap", "model version", _first_model_first, MODEL),
    Defect("another_model_asked", "model swap", "decision", _another_model_asked, MODEL),
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


def put(name: str) -> None:
    """Put the defect of a name into this process; none of no name."""
    for defect in DEFECTS:
        if defect.name == name:
            defect.put()
