"""Volatility target: another strategy, held smaller when the market moves more."""

import numpy as np

from sysquant.features import ema, lag, returns, sqrt
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy

YEAR = 365.25 * 86_400e9  # ns


class VolatilityTarget(Strategy):
    """Targets of another strategy, scaled to a volatility per year, never above their own size.

    The market's volatility is measured on the calendar, from the squares of returns and the time
    that they took, so bars may be of any length and may be missing.

    Parameters
    ----------
    of : the strategy; each symbol by itself.
    volatility : of the position, fraction per year, > 0.
    span : of the averages of squared returns and of their time, bars, at least 1.

    References
    ----------
    A. Moreira, T. Muir, Volatility-managed portfolios, Journal of Finance 72 (2017).
    """

    of: Strategy = Momentum()
    volatility: float = 0.4  # per year
    span: int = 240  # bars

    def features(self, bar):
        change, time = returns(bar.close), bar.ts - lag(bar.ts)
        variance = ema(change * change, self.span) / ema(time, self.span)
        return {**self.of.features(bar), "market_volatility": sqrt(variance * YEAR)}

    def target(self, f):
        scale = np.minimum(1.0, self.volatility / f["market_volatility"])
        return self.of.target(f) * scale
