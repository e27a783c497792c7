"""A study of ticks, after a history and with a pool: every row is what a single run finds."""

import numpy as np
import pytest

from sysquant.backtesting import DESK_CHECKS, run
from sysquant.engine import Engine
from sysquant.errors import DataError
from sysquant.execution import Execution
from sysquant.features import demean, ema
from sysquant.risk import RiskChain
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.sweeping import Study, figures_of
from sysquant.types import SECOND, Bars, Ticks
from tests.market import START, UNIVERSE, ticks

MARKET = ticks(20_000, seed=4, disorder=True)
EXECUTION = Execution(latency_ms=50, latency_sigma=0.5, slippage_bps=1, fee_bps=1)


class Relative(Strategy):
    """Looks across the universe, so that no two of them can share a feature."""

    fast: int = 3
    slow: int = 9

    def features(self, bar):
        return {"apart": demean(ema(bar.close, self.fast) / ema(bar.close, self.slow))}

    def target(self, f):
        return np.where(f["apart"] > 0, 0.5, 0.0)


class Listed:
    """Combinations that are no product."""

    def __init__(self, *strategies):
        self.strategies = strategies

    def parameters(self, at):
        return self.strategies[at].parameters


def history(count=400):
    """Bars of a second of both symbols that end before the market begins."""
    rng = np.random.default_rng(7)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, 2 * count))), 2)
    end = START // SECOND * SECOND - 10 * SECOND
    return Bars(
        ts=np.repeat(end + np.arange(-count, 0) * SECOND, 2),
        symbol=np.tile(np.arange(2, dtype=np.int32), count),
        open=close, high=close * 1.001, low=close * 0.999, close=close,
        volume=np.full(2 * count, 5.0),
        partition=np.zeros(2 * count, np.int32), offset=np.arange(2 * count),
    )  # fmt: skip


def make(strategy):
    return Engine(
        universe=UNIVERSE, strategies={"one": strategy}, risk=RiskChain(checks=DESK_CHECKS),
        execution=EXECUTION, interval=SECOND, fractions={"one": 0.3}, snapshot_ns=SECOND,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Momentum, Relative])
def test_every_row_after_a_history_is_what_a_single_run_finds(kind):
    strategies = [kind(fast=3, slow=9), kind(fast=5, slow=30), kind(fast=2, slow=200)]
    study = Study(
        Listed(*strategies), MARKET, make,
        capital=1e6, snapshot_ns=SECOND, workers=2, history=history(),
    )  # fmt: skip
    rows = dict(study.rows(range(3)))
    for place, strategy in enumerate(strategies):
        single = run(make(strategy), [MARKET], name="x", history=lambda *_: history())
        assert figures_of(single).items() <= rows[place].items()
    cold = run(make(strategies[2]), [MARKET], name="x")
    assert figures_of(cold)["fills_hash"] != rows[2]["fills_hash"]
    assert min(row["fills"] for row in rows.values()) > 3
    assert study.verify(rows, "sharpe", 1, 2, 1).disagreements == ()


def test_a_market_without_events_is_refused():
    with pytest.raises(DataError, match="holds no event"):
        Study(Listed(Momentum()), Ticks.empty(), make, capital=1e6, snapshot_ns=SECOND, workers=1)
