"""Markets and books for tests: random ticks, bars, and an engine over them."""

from typing import Any

import numpy as np

from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.features import lag
from sysquant.risk import RiskChain
from sysquant.sizing import WeightSizing
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars, Floats, Instrument, Ticks

START = 1_700_000_000 * SECOND
UNIVERSE = [Instrument("SIM:A", 0.01, 1e-6, 10.0), Instrument("SIM:B", 0.05, 0.001, 10.0)]
CHECKS = [
    {"check": "order_size", "limit": 2.1},
    {"check": "cash", "limit": 0.0},
    {"check": "short_limit", "limit": 1.0},
    {"check": "drawdown", "limit": 0.5},
]


class Flip(Strategy):
    """Long after an up bar, short after a down bar: many orders, both signs."""

    weight: float = 1.0

    def features(self, bar):
        return {"close": bar.close, "before": lag(bar.close, 1)}

    def target(self, f):
        return self.weight * np.sign(f["close"] - f["before"])


class Hold(Strategy):
    """Always the same weight."""

    weight: float = 1.0

    def features(self, bar):
        return {"close": bar.close}

    def target(self, f):
        return np.full(len(f["close"]), self.weight)


class Seldom(Strategy):
    """Long or flat by thirds of a minute, with no opinion in every third of them."""

    def features(self, bar):
        return {"third": bar.ts / (20 * SECOND)}

    def target(self, f):
        third = np.floor(f["third"])
        return np.where(third % 3 == 0, np.nan, np.where(third % 2 == 0, 0.6, 0.0))


def ticks(n: int = 2_000, *, seed: int = 1, symbols: int = 2, disorder: bool = False) -> Ticks:
    """Random ticks, some at the same time, at will some of them late."""
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(0, 400_000_000, n) * rng.integers(0, 2, n))
    if disorder:
        late = rng.random(n) < 0.1
        ts = ts - np.where(late, rng.integers(0, 3 * SECOND, n), 0)
    price: Floats = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.001, n))), 2).astype(float)
    return Ticks(
        ts=ts,
        symbol=rng.integers(0, symbols, n).astype(np.int32),
        price=price,
        volume=rng.lognormal(0, 1, n),
        received_at=ts,
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
    )


def bars(closes: list[float], *, opens: list[float] | None = None, interval: int = SECOND) -> Bars:
    """Bars of one symbol from closes; open is the close before unless given."""
    close = np.array(closes, float)
    open_ = np.array(opens, float) if opens else np.concatenate([close[:1], close[:-1]])
    n = len(close)
    return Bars(
        ts=START + np.arange(1, n + 1) * interval,
        symbol=np.zeros(n, np.int32),
        open=open_,
        high=np.maximum(open_, close),
        low=np.minimum(open_, close),
        close=close,
        volume=np.ones(n),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
    )


def engine(strategy: Strategy | None = None, **changes: Any) -> Engine:
    """A book of one strategy on one-second bars."""
    arguments: dict[str, Any] = {
        "universe": UNIVERSE,
        "strategies": {"flip": strategy or Flip()},
        "risk": RiskChain(checks=CHECKS),
        "execution": Execution(latency_ms=50, latency_sigma=0.5),
        "sizing": WeightSizing(),
        "interval": SECOND,
        "snapshot_ns": SECOND,
    }
    return Engine(**(arguments | changes))
