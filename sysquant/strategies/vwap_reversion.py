"""Reversion to the session's mean price: for bars of any kind, by time or by activity."""

import numpy as np

from sysquant.features import vwap, zscore
from sysquant.strategy import Strategy


class VwapReversion(Strategy):
    """The further the price is from the session's volume-weighted mean, the more against it.

    Parameters
    ----------
    span : bars that the usual distance from the mean price is measured over, at least 2.
    full : distance at which the whole weight is held, in standard deviations, > 0.
    reset_hour : of the day at which a session begins, UTC.

    References
    ----------
    S. A. Berkowitz, D. E. Logue, E. A. Noser, The total cost of transactions on the NYSE, Journal
    of Finance 43 (1988): the mean price. Its use here is the desks' own.
    """

    span: int = 120  # bars
    full: float = 3.0  # standard deviations
    reset_hour: float = 0.0  # of the day, UTC

    def features(self, bar):
        return {"distance": zscore(bar.close / vwap(bar, self.reset_hour) - 1.0, self.span)}

    def target(self, f):
        return np.clip(-f["distance"] / self.full, -1.0, 1.0)
