"""Volatility: average true range, exponentially weighted, realised, and from the bar's range.

Input: the bar, or returns, and a span in bars. Output: an expression, per bar and not annualised
unless said otherwise; the value of a bar rests on it and on earlier ones.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.features.arguments import whole
from sysquant.features.averages import ema, sma
from sysquant.features.changes import log_returns
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Bar, Expression, as_expression
from sysquant.features.functions import log, sqrt
from sysquant.features.windows import rolling_sum
from sysquant.types import Floats


@kernel
def _atr(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # inputs: high, low, close. state: bars seen (at most span + 1); the last close; average range
    # (a sum at first).
    span = params[0]
    weight, keep = 1.0 / span, (span - 1.0) / span
    seen, last, average = state[0], state[1], state[2]
    for i in range(out.shape[0]):
        high, low, close = inputs[0, i], inputs[1, i], inputs[2, i]
        if not np.isfinite(high + low + close):
            out[i] = np.nan
            continue
        true_range = max(high, last) - min(low, last) if seen > 0.0 else 0.0
        last = close
        if seen > span:
            average = keep * average + weight * true_range
        else:
            seen += 1.0
            average += weight * true_range
        out[i] = average if seen > span else np.nan
    state[0], state[1], state[2] = seen, last, average


@indicator(_atr, first_state=lambda span: [0.0, 0.0, 0.0])
def atr(bar: Bar, span: int = 14) -> Parts:
    """Average true range, Wilder's average.

    Parameters
    ----------
    bar : the bar; its high, low and close are used.
    span : bars, at least 1.

    Returns
    -------
    Expression in quote currency; NaN in the first `span` bars. Bars with a value that is not
    finite are skipped.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    J. W. Wilder, New Concepts in Technical Trading Systems, 1978, ch. III. TA-Lib, function ATR.
    """
    return (bar.high, bar.low, bar.close), (whole("span", span, 1),)


def ewm_volatility(x: Expression, span: int = 64) -> Expression:
    """Exponentially weighted volatility: root of the average of squares, weight 2 / (span + 1).

    The mean is taken as 0 and no degree of freedom is lost: no bias where returns have no drift.
    RiskMetrics' decay of 0.94 is a span of 32.

    Parameters
    ----------
    x : returns, fractions.
    span : decay span, in bars, at least 2.

    Returns
    -------
    Expression in the unit of `x`, standard deviation per bar; NaN in the first `span - 1` bars that
    have a return, then seeded with the mean of their squares. Values that are not finite are
    skipped.

    Raises
    ------
    ConfigError
        If `span` is below 2.

    References
    ----------
    J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed., 1996, ch. 5.
    """
    x = as_expression(x)
    return sqrt(ema(x * x, whole("span", span, 2)))


def realised_volatility(x: Expression, span: int) -> Expression:
    """Root of the sum of the last `span` squared log returns: volatility of the whole window.

    Parameters
    ----------
    x : a price.
    span : returns, at least 1.

    Returns
    -------
    Expression, fraction per `span` bars; NaN in the first `span` bars and while the window holds
    one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    T. G. Andersen, T. Bollerslev, Answering the skeptics, International Economic Review 39 (1998).
    """
    change = log_returns(x)
    return sqrt(rolling_sum(change * change, span))


def parkinson(bar: Bar, span: int) -> Expression:
    """Volatility from the bars' ranges: root of the mean of ln(high / low)² / (4 ln 2).

    A fifth of the bars that close-to-close returns need for the same precision. It takes prices as
    a walk without drift that is seen all the time: few trades in a bar make it too small.

    Parameters
    ----------
    bar : the bar; its high and low are used.
    span : bars, at least 1.

    Returns
    -------
    Expression, fraction per bar; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. Parkinson, The extreme value method for estimating the variance of the rate of return,
    Journal of Business 53 (1980).
    """
    width = log(bar.high / bar.low)
    return sqrt(sma(width * width, span) / (4.0 * math.log(2.0)))


def garman_klass(bar: Bar, span: int) -> Expression:
    """Volatility from the bars' ranges and bodies: root of the mean of
    ln(high / low)² / 2 - (2 ln 2 - 1) ln(close / open)².

    It takes prices as a walk without drift, and leaves out the gap between two bars.

    Parameters
    ----------
    bar : the bar; its open, high, low and close are used.
    span : bars, at least 1.

    Returns
    -------
    Expression, fraction per bar; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. B. Garman, M. J. Klass, On the estimation of security price volatilities from historical
    data, Journal of Business 53 (1980).
    """
    width, body = log(bar.high / bar.low), log(bar.close / bar.open)
    return sqrt(sma(0.5 * width * width - (2.0 * math.log(2.0) - 1.0) * body * body, span))
