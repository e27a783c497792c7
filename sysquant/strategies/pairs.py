"""Pairs: two symbols against each other when they have drifted apart, until they are back."""

import numpy as np

from sysquant.features import hysteresis, log, rolling_beta, zscore
from sysquant.strategy import Strategy


class Pairs(Strategy):
    """Short the dear one and long the cheap one, hedged by a rolling regression of logarithms.

    Both orders go together or not at all; it decides at bar ends at which both have a bar.

    Parameters
    ----------
    first, second : names of the two symbols.
    span : of the regression and of the spread's mean and deviation, bars, at least 2.
    enter, leave : distance of the spread from its mean that opens and closes the pair, in standard
        deviations.

    References
    ----------
    E. Gatev, W. N. Goetzmann, K. G. Rouwenhorst, Pairs trading: performance of a relative-value
    arbitrage rule, Review of Financial Studies 19 (2006).
    """

    first: str = "SIM:OAK"
    second: str = "SIM:ELM"
    span: int = 120  # bars
    enter: float = 2.0  # standard deviations
    leave: float = 0.5  # standard deviations

    def legs(self):
        return (self.first, self.second)

    def features(self, bar):
        one, other = (log(bar[leg].close) for leg in self.legs())
        beta = rolling_beta(one, other, self.span)
        distance = zscore(one - beta * other, self.span)
        return {"beta": beta, "side": hysteresis(distance, self.enter, self.leave, two_sided=True)}

    def target(self, f):
        scale = np.maximum(1.0, np.abs(f["beta"]))  # neither leg is larger than its share
        return {self.first: -f["side"] / scale, self.second: f["side"] * f["beta"] / scale}
