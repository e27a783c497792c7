"""Whether a strategy's risk chain bounds it, and does not bend it: a part of the promotion gate.

python runners/check.py risk strategy=momentum
python runners/check.py risk strategy=momentum risk=strict feed.start=-30d
python runners/check.py risk strategy=momentum promotion.risk.drawdown=0.1

It is backtested over the past with the chain it is to trade with: what would have been refused and
cut, worst day, drawdown, time under water, and how near it came to each limit.
"""

import time

from omegaconf import DictConfig

from runners import compose, parts
from runners.past import Past, closed, compile_first, events_of, past_of
from runners.proofs import told
from sysquant import backtesting, headroom
from sysquant.proof import Proof


def risk_proof(cfg: DictConfig, past: Past) -> Proof:
    """What a strategy's chain would have done, and whether its limits are tight enough."""
    began = time.monotonic()
    bounds: headroom.Bounds = compose.build(cfg.promotion.risk)
    engine = parts.engine_of(cfg, past.universe, past.funding)
    result = backtesting.run(engine, [events_of(past)], name="risk", history=past.history)
    seen = headroom.measure(result)
    return headroom.judge(seen, bounds, took_s=time.monotonic() - began)


@compose.main("config")
def risk(cfg: DictConfig) -> None:
    """Whether the risk chain of a strategy bounds it: what it refuses, and how loose it is."""
    compose.start_log(quiet=True)
    compile_first(cfg)
    past = past_of(cfg)
    with closed(past):
        told(risk_proof(cfg, past))
