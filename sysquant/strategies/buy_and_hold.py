"""Buy and hold: the benchmark every other strategy has to beat."""

import numpy as np

from sysquant.strategy import Strategy


class BuyAndHold(Strategy):
    """Hold a constant weight from the first bar on.

    Parameters
    ----------
    weight : of the strategy's equity, in [-1, 1].

    References
    ----------
    W. F. Sharpe, The arithmetic of active management, Financial Analysts Journal 47 (1991): why
    holding the market, less costs, is the yardstick.
    """

    weight: float = 1.0  # of equity

    def features(self, bar):
        return {"close": bar.close}

    def target(self, f):
        return np.full_like(f["close"], self.weight)
