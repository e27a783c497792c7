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
from sysquant.engine import Engine
from sysquant.inspection import iso
from sysquant.models.loader import ModelLoader
from sysquant.operation import Serve
from sysquant.proof import Proof

_LOOKED_S = 120.0  # that a model may take to be read and checked


def risk_proof(cfg: DictConfig, past: Past) -> Proof:
    """What a strategy's chain would have done, and whether its limits are tight enough."""
    began = time.monotonic()
    bounds: headroom.Bounds = compose.build(cfg.promotion.risk)
    with closing(parts.models_of(cfg)) as models:
        engine = parts.engine_of(cfg, past.universe, past.funding, models=models)
        notes = _serve(engine, models)
        result = backtesting.run(engine, [events_of(past)], name="risk", history=past.history)
    seen = headroom.measure(result)
    proof = headroom.judge(seen, bounds, took_s=time.monotonic() - began)
    return msgspec.structs.replace(proof, notes=(*proof.notes, *notes))


def _serve(engine: Engine, models: ModelLoader) -> list[str]:
    # The newest model of each strategy that asks one, from the first event on.
    notes = list[str]()
    for name in models.strategies:
        models.ask(name, "", now=time.time_ns(), least=0)
        (look,) = models.found(wait_s=_LOOKED_S)
        if not look.name:
            notes.append(f"{name} asks no model: {look.said}")
            continue
        engine.operate(Serve(name, look.name))
        known, _ = models.about(name, look.name)
        notes.append(
            f"{name} asks model {look.name} all the while; what it was trained on was known by "
            f"{iso(known)}, and before that it trades on what it has seen"
        )
    return notes


@compose.main("config")
def risk(cfg: DictConfig) -> None:
    """Whether the risk chain of a strategy bounds it: what it refuses, and how loose it is."""
    tell(cfg, risk_proof)
