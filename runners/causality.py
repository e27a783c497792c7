"""Check that a strategy decides by nothing but the bars that had closed.

python runners/check.py causality strategy=momentum
python runners/check.py causality strategy=momentum feed.start=-2d promotion.causality.cuts=200

After many moments of the history all prices, volumes, times and whether there is a bar at all are
replaced by noise: what came before must stay the same bytes, in an array, bar by bar, and in the
engine with its orders and fills. Its source is read; files, clocks, connections and the environment
are watched while it runs, in a process of its own; its models may not have been trained on all of
these bars; and its universe may not be of survivors alone. Exit codes: 0 it is causal, 1 it is not.
"""

import multiprocessing
import time
from collections.abc import Mapping
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.past import Past, events_of
from runners.proofs import tell
from sysquant import forms, survival
from sysquant.activity import bar_size, closed_bars
from sysquant.causality import Causality, Examined, examine, newest, trained_past
from sysquant.errors import ConfigError, StrategyError, SysquantError
from sysquant.forms import Market, StandIn
from sysquant.lineage import lineage_of
from sysquant.noise import another_future
from sysquant.proof import Proof
from sysquant.strategy import Strategy
from sysquant.times import DAY
from sysquant.types import Bars, Instrument, Ticks

_ENGINE = (  # what an engine of one strategy is made of
    "strategy", "book", "risk", "execution", "sizing", "orders", "exits", "bars", "seed",
    "snapshots", "quality", "universe",
)  # fmt: skip


@compose.main("config")
def causality(cfg: DictConfig) -> None:
    """Whether a strategy decides by nothing but the bars that had closed."""
    tell(cfg, causality_proof)


def causality_proof(cfg: DictConfig, past: Past) -> Proof:
    """The part `causality` of the gate.

    Raises
    ------
    ConfigError
        If the book has several strategies, or a limit cannot be meant.
    DataError
        If the history brings nothing.
    """
    began = time.perf_counter()
    limits: Causality = compose.build(cfg.promotion.causality)
    name, strategy = strategy_of(cfg)
    market = newest(market_of(cfg, past), limits)
    start, end = int(market.bars.ts.min()), int(market.bars.ts.max())
    asked = model_of(cfg, name, strategy, end)
    warm = len(market.history)
    first = int(market.bars.ts[min(warm, len(market.bars) - 1)])
    failures = trained_past(asked.name, asked.known, first) if asked.known >= end else []
    failures += survival.survivors_only(
        survival.lives(past.client), past.universe, start, end,
        quiet_ns=round(limits.quiet_days * DAY), left_out=limits.left_out,
    )  # fmt: skip
    found = _apart(cfg, past, market, limits, strategy, asked.name)
    failures = [*found.failures, *failures, *_used(strategy, market, limits, asked, found.digest)]
    return Proof(
        name="causality", failures=tuple(failures), notes=(*asked.notes, *found.notes),
        figures=found.figures | {"model": asked.name or None, "first": first},
        took_s=time.perf_counter() - began,
    )  # fmt: skip


def strategy_of(cfg: DictConfig) -> tuple[str, Strategy]:
    """The one strategy that a gate looks at, and its name.

    Raises
    ------
    ConfigError
        If the book has several.
    """
    strategies = parts.strategies_of(cfg)
    if len(strategies) != 1:
        raise ConfigError(
            f"the gate looks at one strategy at a time, the book has {', '.join(strategies)}: "
            "say book=single strategy=..."
        )
    return next(iter(strategies.items()))


class Asked(NamedTuple):
    """The model that a strategy asks in a proof.

    Parameters
    ----------
    name : of a published one; empty for none.
    known : when the newest outcome was known that the first model was trained on, ns UTC: before,
        none is asked; 0 for none.
    model : it, or what stands in for one; None for a strategy that asks none.
    notes : what people must know of it.
    """

    name: str
    known: int
    model: Any
    notes: tuple[str, ...] = ()


def model_of(cfg: DictConfig, name: str, strategy: Strategy, end: int) -> Asked:
    """The newest model of a strategy, or what stands in for it, to look at all bars up to `end`."""
    if not strategy.classes:
        return Asked("", 0, None)
    with closing(parts.models_of(cfg)) as loader:
        asked = lineage_of(loader, name, end)
        if asked.newest:
            known = next(at for at, wish in asked.wishes if wish.model)
            notes = (*asked.notes, f"model {asked.newest} is looked at on all bars")
            return Asked(asked.newest, known, loader(name, asked.newest), notes)
        notes = (*asked.notes, "a stand-in for its model is looked at")
        return Asked("", 0, StandIn(strategy.classes), notes)


def market_of(cfg: DictConfig, past: Past) -> Market:
    """What a proof runs a strategy on: the events of the past, and the bars that they complete."""
    events, size = events_of(past), bar_size(str(cfg.bars))
    history = Bars.empty()
    if past.history is not None:
        until = parts.engine_of(cfg, past.universe, past.funding).warmup_end(events)
        history = past.history(until, {})
    closing = events if isinstance(events, Bars) else closed_bars(events, past.universe, size)
    bars = Bars.join([history, closing]) if len(history) else closing
    return Market(past.universe, size, history, bars, events, _engines(cfg, past))


def _engines(cfg: DictConfig, past: Past) -> Any:
    return lambda strategy: parts.engine_of(cfg, past.universe, past.funding, strategy)


# -- in a process of its own


class _Task(NamedTuple):
    # All that the other process needs, as it travels.
    cfg: dict[str, Any]
    hydra: dict[str, Any]
    universe: list[Instrument]
    funding: Mapping[str, Any] | None
    size: Any
    history: Bars
    bars: Bars
    events: Ticks | Bars
    limits: Causality
    strategy: Strategy
    model: str


def _apart(
    cfg: DictConfig, past: Past, market: Market, limits: Causality, strategy: Strategy, model: str
) -> Examined:  # fmt: skip
    composed: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(_ENGINE)), resolve=True)
    known = HydraConfig.get()
    hydra = {
        "runtime": {"choices": dict(known.runtime.choices)},
        "overrides": {"task": list(known.overrides.task)},
    }
    task = _Task(
        composed, hydra, past.universe, past.funding, market.interval, market.history, market.bars,
        market.events, limits, strategy, model,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_examined, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise StrategyError(
            f"the process that examined {strategy!r} ended with {process.exitcode}, and said "
            "nothing: its code ended it"
        ) from None
    finally:
        ours.close()
        process.join()


def _examined(task: _Task, answer: Connection) -> None:
    # Of a fresh process: nothing of this one is known to the strategy.
    cfg = OmegaConf.create(task.cfg)
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": task.hydra})  # pyright: ignore
    name = compose.choice("strategy")
    model: Any = None
    if task.model:
        loader = parts.models_of(cfg)
        model = loader(name, task.model)
        loader.close()
    market = Market(
        task.universe, task.size, task.history, task.bars, task.events,
        lambda strategy: parts.engine_of(cfg, task.universe, task.funding, strategy),
    )  # fmt: skip
    answer.send(examine(task.strategy, market, task.limits, model=model))
    answer.close()


def _used(
    strategy: Strategy, market: Market, limits: Causality, asked: Asked, digest: str
) -> list[str]:  # fmt: skip
    # What a process that has been used before says, held against the fresh one.
    if not digest:
        return []
    one = strategy.with_model(asked.model) if asked.model is not None else strategy
    noise: Any = another_future(
        market.bars, 0, limits.seed, symbols=len(market.universe), interval=market.length
    )
    try:
        forms.in_one(one, noise, market.symbols)
        same = forms.in_one(one, market.bars, market.symbols).digest() == digest
    except SysquantError:
        return []  # the other process has told of it
    return [] if same else [
        "a process that was used before and a fresh one give other features or targets for the "
        "same bars: the strategy rests on what its process has seen; memory is a step function "
        "(features.step)"
    ]  # fmt: skip
