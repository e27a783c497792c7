"""Indicators with memory: functions of expressions (or of the bar) and a span in bars.

All are causal: the value of a bar rests on it and on earlier ones. Windows give NaN until they
are full and while a NaN is inside; recursive indicators (ema, rsi, atr) skip what is not finite:
NaN there, memory unchanged. Checked against TA-Lib to 1e-9.
"""

import math
from collections.abc import Sequence

from sysquant.errors import ConfigError
from sysquant.features import kernels
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Bar, Expression, as_expression


def _at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise ConfigError(f"{name} must be a whole number of bars >= {least}, was {value!r}")
    return int(value)


def _window(head: Sequence[float], cells: float, cell: float = math.nan) -> list[float]:
    # A block filled with NaN is one that is not complete yet.
    return [*head, *[cell] * int(cells)]


def _extremes(span: float) -> list[float]:
    return _window([0.0, 0.0, -math.inf], span, -math.inf)


def _moments(span: float, _ddof: float) -> list[float]:
    return _window([0.0, math.nan, 0.0, 0.0], 2 * span)


@indicator(kernels.ema, first_state=lambda span: [0.0, 0.0, 0.0], twin=kernels.two_emas)
def ema(x: Expression, span: int) -> Parts:
    """Exponential moving average, weight 2 / (span + 1) on the newest value.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars, then seeded with their mean.
    Values that are not finite are skipped.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    TA-Lib, function EMA. R. G. Brown, Smoothing, Forecasting and Prediction of Discrete Time
    Series, 1963.
    """
    return (x,), (_at_least("span", span, 1),)


@indicator(kernels.sma, first_state=lambda span: _window([0.0, 0.0], span))
def sma(x: Expression, span: int) -> Parts:
    """Mean of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. van Herk, A fast algorithm for local minimum and maximum filters on rectangular and
    octagonal kernels, Pattern Recognition Letters 13 (1992): the two-block window, here for sums.
    """
    return (x,), (_at_least("span", span, 1),)


@indicator(kernels.std, first_state=_moments)
def std(x: Expression, span: int, ddof: int = 1) -> Parts:
    """Standard deviation of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, more than `ddof`.
    ddof : subtracted from `span` in the divisor: 1 for the estimate from a sample (pandas), 0 for
        the population (TA-Lib, function STDDEV).

    Returns
    -------
    Expression in the unit of `x`, per bar, not annualised; NaN in the first `span - 1` bars and
    while the window holds one. Exactly 0 on equal values.

    Raises
    ------
    ConfigError
        If `ddof` is negative or `span` does not exceed it.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for
    computing sample variances, Stanford STAN-CS-79-773, 1979.
    """
    ddof = _at_least("ddof", ddof, 0)
    return (x,), (_at_least("span", span, ddof + 1), ddof)


@indicator(kernels.lag, first_state=lambda bars: _window([0.0], bars))
def lag(x: Expression, bars: int = 1) -> Parts:
    """The value of `bars` bars ago.

    Parameters
    ----------
    x : any expression.
    bars : at least 1; there is no looking ahead.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `bars` bars, and where `x` was NaN then.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return (x,), (_at_least("bars", bars, 1),)


def returns(x: Expression, bars: int = 1) -> Expression:
    """Simple return over `bars` bars.

    Parameters
    ----------
    x : a price.
    bars : at least 1.

    Returns
    -------
    Expression, fraction; NaN in the first `bars` bars and where either price is NaN.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return as_expression(x) / lag(x, bars) - 1.0


@indicator(kernels.rolling_max, first_state=_extremes)
def rolling_max(x: Expression, span: int) -> Parts:
    """Largest of the last `span` values.

    Parameters
    ----------
    x : any expression.
    span : bars, at least 1.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    M. van Herk, Pattern Recognition Letters 13 (1992); J. Gil, M. Werman, Computing 2-D min,
    median, and max filters, IEEE PAMI 15 (1993).
    """
    return (x,), (_at_least("span", span, 1),)


@indicator(kernels.rolling_min, first_state=_extremes)
def rolling_min(x: Expression, span: int) -> Parts:
    """Smallest of the last `span` values; otherwise as `rolling_max`."""
    return (x,), (_at_least("span", span, 1),)


@indicator(kernels.zscore, first_state=_moments)
def zscore(x: Expression, span: int, ddof: int = 1) -> Parts:
    """Distance of the value from the mean of its last `span`, in their standard deviations.

    Parameters
    ----------
    x : any expression.
    span : bars, more than `ddof`.
    ddof : see `std`.

    Returns
    -------
    Expression, no unit; NaN in the first `span - 1` bars, while the window holds one, and where
    all its values are equal.

    Raises
    ------
    ConfigError
        If `ddof` is negative or `span` does not exceed it.
    """
    ddof = _at_least("ddof", ddof, 0)
    return (x,), (_at_least("span", span, ddof + 1), ddof)


@indicator(kernels.rsi, first_state=lambda span: [0.0, 0.0, 0.0, 0.0])
def rsi(x: Expression, span: int = 14) -> Parts:
    """Relative strength index: the share of gains in all movement, Wilder's average.

    Parameters
    ----------
    x : a price.
    span : bars, at least 1.

    Returns
    -------
    Expression in [0, 100]; NaN in the first `span` bars. Values that are not finite are skipped.
    Where nothing has moved it is 50 (TA-Lib gives 0, which would read as oversold).

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    J. W. Wilder, New Concepts in Technical Trading Systems, 1978, ch. VI. TA-Lib, function RSI.
    """
    return (x,), (_at_least("span", span, 1),)


@indicator(kernels.atr, first_state=lambda span: [0.0, 0.0, 0.0])
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
    return (bar.high, bar.low, bar.close), (_at_least("span", span, 1),)
