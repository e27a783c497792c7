"""`runners/check.py statistics`: what a strategy's returns prove, after all that was tried.

Input: a composed configuration and its past. Output: a `Proof`. Engines are those of `live.py` with
the same words; only their costs and latencies are changed, to see what is left of the edge.
"""

from contextlib import closing
from typing import Any

import msgspec
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.causality import strategy_of
from runners.past import Past, events_of
from runners.proofs import tell
from sysquant import candidate
from sysquant.candidate import Candidate, judged_from
from sysquant.engine import Engine
from sysquant.evidence import Limits
from sysquant.judgement import prove
from sysquant.lineage import lineage_of
from sysquant.proof import Proof
from sysquant.strategy import Strategy
from sysquant.sweeping import cores
from sysquant.times import interval_ns


@compose.main("config")
def statistics(cfg: DictConfig) -> None:
    """What a strategy's returns prove after costs, delays and all that was tried before."""
    tell(cfg, statistics_proof)


def statistics_proof(cfg: DictConfig, past: Past) -> Proof:
    """The part `statistics` of the promotion gate.

    Raises
    ------
    ConfigError
        If the book is one of several, or a limit cannot be meant.
    DataError
        If the feed brings nothing.
    """
    limits: Limits = compose.build(cfg.promotion.statistics)
    name, strategy = strategy_of(cfg)
    events, history = events_of(past), None
    first, last = int(events.ts.min()), int(events.ts.max())
    with closing(parts.models_of(cfg)) as models:

        def make(strategy: Strategy, costs: float, delay_ms: float) -> Engine:
            own = cfg if (costs, delay_ms) == (1.0, 0.0) else dearer(cfg, costs, delay_ms)
            return parts.engine_of(own, past.universe, past.funding, strategy, models=models)

        bare = make(strategy, 1.0, 0.0)
        if past.history is not None:
            history = past.history(bare.warmup_end(events), {})
        asked = lineage_of(models, name, last)
        events, history = judged_from(
            asked.since(first, last), events, history, past.universe, bare.interval
        )
        stands = Candidate(
            strategy, events, make, capital=parts.value(cfg, "book.capital", float),
            snapshot_ns=interval_ns(str(cfg.snapshots), "snapshots"), history=history,
            workers=cores(), wishes=asked.wishes,
        )  # fmt: skip
        proof = prove(stands, limits, past.client)
    return msgspec.structs.replace(proof, notes=(*proof.notes, *asked.notes))


def dearer(cfg: DictConfig, costs: float, delay_ms: float) -> DictConfig:
    """A copy of a configuration, its execution changed as `candidate.dearer` says."""
    own = cfg.copy()
    terms: Any = OmegaConf.to_container(cfg.execution, resolve=True)
    for key, value in candidate.dearer(terms, costs, delay_ms).items():
        OmegaConf.update(own, f"execution.{key}", value)
    return own
