"""Momentum: follow the trend as two moving averages see it."""

from sysquant.features import ema
from sysquant.strategy import Strategy


class Momentum(Strategy):
    """Long while the fast average is above the slow one, flat otherwise.

    Parameters
    ----------
    fast : span of the fast exponential average, bars, at least 1.
    slow : span of the slow one, bars; the first opinion comes with its first value.

    References
    ----------
    W. Brock, J. Lakonishok, B. LeBaron, Simple technical trading rules and the stochastic
    properties of stock returns, Journal of Finance 47 (1992).
    """

    fast: int = 20  # bars
    slow: int = 100  # bars

    def features(self, bar):
        return {"fast": ema(bar.close, self.fast), "slow": ema(bar.close, self.slow)}

    def target(self, f):
        return (f["fast"] > f["slow"]).astype(float)
