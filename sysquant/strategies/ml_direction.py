"""Direction by a model: what a classifier says of the next hour, sized by how sure it is."""

import numpy as np

from sysquant.features import diff, ema, lag, macd, returns, rsi, sma, std, zscore
from sysquant.strategy import Strategy


class MlDirection(Strategy):
    """Long or short with the likeliest of three classes: in full, half or a quarter of its weight.

    Without a model, or where it has no opinion, neither has the strategy.

    Parameters
    ----------
    full, half : probabilities above which all or half of the weight is held; a quarter below.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 10 (bet sizing).
    """

    classes = ("down", "flat", "up")
    full: float = 0.7  # probability
    half: float = 0.55  # probability

    def features(self, bar):
        close, change = bar.close, returns(bar.close)
        trend, swing = macd(close), std(change, 30)
        return {
            "return": change,
            "sma_30": sma(close, 30), "sma_60": sma(close, 60),
            "sma_ratio": sma(close, 30) / sma(close, 60),
            "momentum_10": returns(close, 10), "momentum_30": returns(close, 30),
            "volatility_30": swing,
            "return_lag_1": lag(change, 1), "return_lag_2": lag(change, 2),
            "return_lag_5": lag(change, 5),
            "rsi_14": rsi(close, 14),
            "macd": trend.line, "macd_signal": trend.signal, "macd_diff": trend.histogram,
            "price_change": diff(close),
            "return_ema_10": ema(change, 10),
            "zscore_30": zscore(close, 30),
            "momentum_by_volatility": returns(close, 10) / swing,
        }  # fmt: skip

    def target(self, f):
        chance = self.model.proba(f)
        down, flat, up = (chance[name] for name in self.classes)
        best = np.maximum(np.maximum(down, flat), up)
        size = np.where(best > self.full, 1.0, np.where(best > self.half, 0.5, 0.25))
        side = np.where(best == flat, 0.0, np.where(best == up, 1.0, -1.0))
        return np.where(np.isnan(best), np.nan, side * size)
