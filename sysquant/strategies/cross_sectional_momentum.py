"""Cross-sectional momentum: winners of the universe long, losers short."""

from sysquant.features import lag, rank, returns
from sysquant.strategy import Strategy


class CrossSectionalMomentum(Strategy):
    """Long the symbols with the highest past returns, short those with the lowest.

    Each symbol's weight is of its own share of the strategy's equity. What changes hands changes
    when a longer bar is complete.

    Parameters
    ----------
    every : length of the bars that returns are counted in, e.g. `1h`.
    span : bars of that length that the return goes over, at least 1.
    skip : newest bars left out of it, at least 1: short-term reversal works the other way.
    share : of the universe on each side, in (0, 0.5].
    long_only : whether losers are left alone.

    References
    ----------
    N. Jegadeesh, S. Titman, Returns to buying winners and selling losers: implications for stock
    market efficiency, Journal of Finance 48 (1993).
    """

    every: str = "15m"
    span: int = 12  # bars of `every`
    skip: int = 1  # bars of `every`
    share: float = 0.25
    long_only: bool = False

    def features(self, bar):
        close = bar.every(self.every).close
        return {"rank": rank(returns(lag(close, self.skip), self.span))}

    def target(self, f):
        winners = f["rank"] > 1.0 - self.share
        losers = (f["rank"] <= self.share) & (not self.long_only)
        return winners.astype(float) - losers
