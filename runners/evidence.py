"""`runners/check.py statistics`: what a strategy's returns prove, after all that was tried.

Input: a composed configuration and its past. Output: a `Proof`. Engines are those of `live.py` with
the same words; only their costs and latencies are changed, to see what is left of the edge.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from runners.past import Past, closed, compile_first, events_of, past_of
from runners.proofs import told
from sysquant.candidate import Candidate
from sysquant.engine import Engine
from sysquant.errors import ConfigError
from sysquant.evidence import Limits
from sysquant.judgement import prove
from sysquant.proof import Proof
from sysquant.strategy import Strategy
from sysquant.sweeping import cores
from sysquant.times import interval_ns

# Keys of `execution` that are paid; each may be null.
_COSTS = (
    "slippage_bps", "half_spread_bps", "impact", "volatility_scale", "fee_bps", "maker_fee_bps",
    "fee_fixed", "fee_minimum", "borrow_rate", "interest_rate",
)  # fmt: skip
_TIER_COSTS = ("fee_bps", "maker_fee_bps")


@compose.main("config")
def statistics(cfg: DictConfig) -> None:
    """What a strategy's returns prove after costs, delays and all that was tried before."""
    compose.start_log(quiet=True)
    compile_first(cfg)
    past = past_of(cfg)
    with closed(past):
        told(statistics_proof(cfg, past))


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
    strategies = parts.strategies_of(cfg)
    if len(strategies) != 1:
        raise ConfigError(f"the gate is for one strategy, book has {len(strategies)}: book=single")
    (strategy,) = strategies.values()
    events = events_of(past)

    def make(strategy: Strategy, costs: float, delay_ms: float) -> Engine:
        own = cfg if (costs, delay_ms) == (1.0, 0.0) else dearer(cfg, costs, delay_ms)
        return parts.engine_of(own, past.universe, past.funding, strategy)

    history = None
    if past.history is not None:
        history = past.history(make(strategy, 1.0, 0.0).warmup_end(events), {})
    candidate = Candidate(
        strategy, events, make, capital=parts.value(cfg, "book.capital", float),
        snapshot_ns=interval_ns(str(cfg.snapshots), "snapshots"), history=history,
        workers=cores(),
    )  # fmt: skip
    return prove(candidate, limits, past.client)


def dearer(cfg: DictConfig, costs: float, delay_ms: float) -> DictConfig:
    """A configuration whose fees, slippage and interest are multiplied, and whose orders are later.

    A spread that is estimated from bars, and funding, are what the market makes them: they stay.

    Parameters
    ----------
    cfg : composed; it is not changed.
    costs : multiple.
    delay_ms : added to what an order takes to the broker.
    """
    own = cfg.copy()
    execution: Any = own.execution
    for key in _COSTS:
        if execution.get(key) is not None:
            execution[key] = float(execution[key]) * costs
    for tier in (execution.get("tiers") or {}).values():
        for key in _TIER_COSTS:
            if tier.get(key) is not None:
                tier[key] = float(tier[key]) * costs
    if delay_ms:
        execution.latency_ms = float(execution.latency_ms) + delay_ms
        samples = execution.get("latency_sample_ms")
        if samples is not None:
            later = [float(each) + delay_ms for each in samples]
            OmegaConf.update(own, "execution.latency_sample_ms", later)
    return own
