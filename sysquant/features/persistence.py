"""Persistence: does a series trend, wander or return, and how soon.

Input: an expression (a log price, a spread) and a span in bars. Output: an expression, NaN until
the window is full and while it holds a NaN. Causal: a window ends at its bar. Both are made of
other expressions.
"""

import math

from sysquant.features.arguments import whole
from sysquant.features.averages import sma
from sysquant.features.changes import diff, lag
from sysquant.features.expression import Expression, as_expression
from sysquant.features.functions import log, where
from sysquant.features.pairs import rolling_beta


def hurst(x: Expression, span: int) -> Expression:
    """Hurst exponent: how fast the spread of a change grows with the time it is given.

    The generalised exponent of order 2: half the slope of the logarithm of the mean squared change
    on that of its lag, by least squares over lags of 1, 2, 4 ... up to an eighth of the span, from
    the changes within the window. 0.5 is a walk, what is above trends, what is below returns. It
    comes out a little low: of a walk 0.49 in windows of 256, with a standard deviation of 0.06, and
    0.68 of what is 0.7.

    Parameters
    ----------
    x : a log price, or what else may walk.
    span : values, at least 16; fewer than a hundred say little (of a walk, 0.48 with 0.1).

    Returns
    -------
    Expression, no unit; NaN in the first `span - 1` bars, while the window holds one, and where
    nothing has moved.

    Raises
    ------
    ConfigError
        If `span` is below 16.

    References
    ----------
    T. Di Matteo, T. Aste, M. M. Dacorogna, Scaling behaviors in differently developed markets,
    Physica A 324 (2003). J. Barunik, L. Kristoufek, On Hurst exponent estimation under heavy-tailed
    distributions, Physica A 389 (2010): of those compared the least bias and variance.
    """
    x, span = as_expression(x), whole("span", span, 16)
    lags = [2**k for k in range(int(math.log2(span // 8)) + 1)]
    times = [math.log(bars) for bars in lags]
    centre = sum(times) / len(times)
    square = sum((time - centre) ** 2 for time in times)
    slope = as_expression(0.0)
    for bars, time in zip(lags, times, strict=True):
        change = diff(x, bars)
        slope = slope + (time - centre) / square * log(sma(change * change, span - bars))
    return 0.5 * slope


def half_life(x: Expression, span: int) -> Expression:
    """Bars in which half of a distance from the mean is expected to be gone.

    The slope b of the change on the level before it, by least squares, is that of an autoregression
    of order 1; its half-life is -ln 2 / ln(1 + b). It comes out too short where the window is not
    many times as long: the slope of a walk is near -5 / `span` rather than 0.

    Parameters
    ----------
    x : a spread, or what else may return to a mean.
    span : values, at least 3.

    Returns
    -------
    Expression in bars; inf where nothing returns (b >= 0), 0 where more than all of it has returned
    within a bar (b <= -1); NaN in the first `span - 1` bars, while the window holds one, and where
    nothing has moved.

    Raises
    ------
    ConfigError
        If `span` is below 3.

    References
    ----------
    E. P. Chan, Algorithmic Trading, 2013, ch. 2, with the exact half-life of the autoregression for
    its approximation -ln 2 / b. D. A. Dickey, W. A. Fuller, Distribution of the estimators for
    autoregressive time series with a unit root, JASA 74 (1979).
    """
    slope = rolling_beta(diff(x), lag(x), whole("span", span, 3) - 1)
    falling = where(slope > -1.0, -math.log(2.0) / log(1.0 + slope), 0.0)
    return where(slope < 0.0, falling, math.inf)
