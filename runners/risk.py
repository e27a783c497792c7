"""Whether a strategy's risk chain bounds it, and does not bend it: a part of the promotion gate.

python runners/check.py risk strategy=momentum
python runners/check.py risk strategy=momentum risk=strict feed.start=-30d
python runners/check.py risk strategy=momentum promotion.risk.drawdown=0.1

It is backtested over the past with the chain it is to trade with: what would have been refused and
cut, worst day, drawdown, time under water, and how near it came to each limit.
"""

import time
from contextlib import closing

import msgspec
from omegaconf import DictConfig

from runners import compose, parts
from runners.past import Past, events_of
from runners.proofs import tell
from sysquant import backtesting, headroom
from sysquant.lineage import lineage_of
from sysquant.proof import Proof


def risk_proof(cfg: DictConfig, past: Past) -> Proof:
    """What a strategy's chain would have done, and whether its limits are tight enough."""
    began = time.monotonic()
    bounds: headroom.Bounds = compose.build(cfg.promotion.risk)
    with closing(parts.models_of(cfg)) as models:
        engine = parts.engine_of(cfg, past.universe, past.funding, models=models)
        events = events_of(past)
        (name,) = engine.strategies
        asked = lineage_of(models, name, int(events.ts.max()))
        batches = backtesting.served(engine, [events], asked.wishes)
        result = backtesting.run(engine, batches, name="risk", history=past.history)
    seen = headroom.measure(result)
    proof = headroom.judge(seen, bounds, took_s=time.monotonic() - began)
    return msgspec.structs.replace(proof, notes=(*proof.notes, *asked.notes))


@compose.main("config")
def risk(cfg: DictConfig) -> None:
    """Whether the risk chain of a strategy bounds it: what it refuses, and how loose it is."""
    tell(cfg, risk_proof)
