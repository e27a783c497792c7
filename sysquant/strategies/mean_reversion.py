"""Mean reversion: against what has gone far from its own mean, until it is back."""

from sysquant.features import hysteresis, zscore
from sysquant.strategy import Strategy


class MeanReversion(Strategy):
    """Short once the price stands far above its rolling mean, long once far below, until near it.

    Parameters
    ----------
    span : of the mean and the deviation, bars, at least 2.
    enter : distance that opens a position, in standard deviations.
    leave : distance that closes it again, below `enter`.

    References
    ----------
    E. P. Chan, Algorithmic Trading: Winning Strategies and Their Rationale, 2013, ch. 3 (Bollinger
    bands). A. W. Lo, A. C. MacKinlay, When are contrarian profits due to stock market
    overreaction?, Review of Financial Studies 3 (1990).
    """

    span: int = 60  # bars
    enter: float = 2.0  # standard deviations
    leave: float = 0.5  # standard deviations

    def features(self, bar):
        distance = zscore(bar.close, self.span)
        return {"side": hysteresis(distance, self.enter, self.leave, two_sided=True)}

    def target(self, f):
        return -f["side"]
