"""Measure after how many bars the decisions of a strategy no longer depend on the start date.

python runners/check.py warmup strategy=momentum
python runners/check.py warmup strategy=momentum feed.start=-5d runtime.warmup_bars=800

The strategy runs from many beginnings of the history. The figure `bars` is the least number of bars
after which every later target is the one of the whole history, to the last bit; it goes into the
promotion record. Exit codes: 0 shown, and runtime.warmup_bars is enough; 1 the history is too short
to show it, or runtime.warmup_bars is too small: the value it needs is told.
"""

import time

from omegaconf import DictConfig

from runners import compose
from runners.causality import market_of, model_of, strategy_of
from runners.past import Past
from runners.proofs import tell
from sysquant.activity import Activity
from sysquant.forms import bar_ends
from sysquant.proof import Proof
from sysquant.warming import Warmup, judged, measure


@compose.main("config")
def warmup(cfg: DictConfig) -> None:
    """After how many bars its decisions no longer depend on where the history began."""
    tell(cfg, warmup_proof)


def warmup_proof(cfg: DictConfig, past: Past) -> Proof:
    """The part `warmup` of the gate; its figure `bars` is what live must have seen.

    Raises
    ------
    ConfigError
        If the book has several strategies, or a limit cannot be meant.
    DataError
        If the history brings too little.
    """
    began = time.perf_counter()
    limits: Warmup = compose.build(cfg.promotion.warmup)
    configured = compose.value(cfg, "runtime.warmup_bars", int)
    name, strategy = strategy_of(cfg)
    market = market_of(cfg, past)
    asked = model_of(cfg, name, strategy, int(market.bars.ts.max(initial=0)))
    if asked.model is not None:
        strategy = strategy.with_model(asked.model)
    bars, ends = market.bars, bar_ends(market.bars)
    if len(bars) > limits.bars:
        bars = bars[int(ends[ends >= len(bars) - limits.bars][0]) :]
    length = None if isinstance(market.interval, Activity) else market.interval
    found = measure(strategy, bars, market.symbols, limits, length=length)
    forever = [name for name, count in found.features.items() if count is None]
    shown = found.bars(limits)
    notes = list(asked.notes)
    if shown is not None:
        same = "the same" if shown == found.exact else f"the same within {limits.within:g}"
        notes.append(f"after {shown:,} bars every target is {same}, wherever the history began")
    if forever:
        notes.append(
            f"{', '.join(forever)} never become the same to the last bit, which is no fault: "
            "decisions count"
        )
    return Proof(
        name="warmup", failures=tuple(judged(found, limits, configured)), notes=tuple(notes),
        figures={
            "bars": shown, "exact": shown == found.exact, "first": found.first,
            "shown": found.shown, "starts": found.starts,
            "latest": found.at or None, "features_never_equal": len(forever),
            "configured": configured,
        },
        took_s=time.perf_counter() - began,
    )  # fmt: skip
