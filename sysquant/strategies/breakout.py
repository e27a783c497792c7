"""Breakout: with what leaves the range of its past, until it falls back."""

from sysquant.features import donchian, hysteresis, lag
from sysquant.strategy import Strategy


class Breakout(Strategy):
    """Long above the channel of the last bars until below a shorter one; short the other way round.

    Parameters
    ----------
    span : bars of the channel that is broken, not counting the bar that breaks it.
    exit_span : bars of the channel that ends the position, at most `span`.
    long_only : whether a break downwards is left alone.

    References
    ----------
    R. Donchian's rule as told by C. Faith, Way of the Turtle, 2007, ch. 10.
    """

    span: int = 60  # bars
    exit_span: int = 20  # bars
    long_only: bool = False

    def features(self, bar):
        entry, way_out = donchian(bar, self.span), donchian(bar, self.exit_span)
        return {
            "long": hysteresis(bar.close, lag(entry.upper), lag(way_out.lower)),
            "short": hysteresis(-bar.close, -lag(entry.lower), -lag(way_out.upper)),
        }

    def target(self, f):
        return f["long"] - f["short"] * (not self.long_only)
