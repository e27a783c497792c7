"""Bands around a price: Bollinger's, Donchian's, Keltner's.

Input: an expression or the bar, and spans in bars. Output: several expressions by name, each in the
unit of the price unless said otherwise; the value of a bar rests on it and on earlier ones.
"""

from typing import NamedTuple

from sysquant.features.arguments import within
from sysquant.features.averages import ema, sma
from sysquant.features.expression import Bar, Expression, as_expression
from sysquant.features.volatility import atr
from sysquant.features.windows import rolling_max, rolling_min, std


class Bands(NamedTuple):
    """Three lines, in the unit of the price."""

    lower: Expression
    middle: Expression
    upper: Expression


class Bollinger(NamedTuple):
    """Three lines in the unit of the price, and two shares."""

    lower: Expression
    middle: Expression
    upper: Expression
    width: Expression
    percent_b: Expression


def bollinger(x: Expression, span: int = 20, width: float = 2.0) -> Bollinger:
    """Bollinger bands: the mean of a window, and `width` of its standard deviations about it.

    Parameters
    ----------
    x : a price.
    span : bars, at least 1.
    width : standard deviations of the population (`std` with `ddof` 0), at least 0.

    Returns
    -------
    `lower`, `middle` and `upper`, expressions in the unit of `x`; `width`, that between the bands
    by the middle; `percent_b`, where `x` stands: 0 on the lower band, 1 on the upper one, NaN where
    they are one. All NaN in the first `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1, or `width` negative.

    References
    ----------
    J. Bollinger, Bollinger on Bollinger Bands, 2001, ch. 7 and 8. TA-Lib, function BBANDS.
    """
    x, middle = as_expression(x), sma(x, span)
    reach = within("width", width, 0.0) * std(x, span, ddof=0)
    lower, upper = middle - reach, middle + reach
    percent_b = (x - lower) / (upper - lower)
    return Bollinger(lower, middle, upper, (upper - lower) / middle, percent_b)


def donchian(bar: Bar, span: int = 20) -> Bands:
    """Donchian channel: highest high and lowest low of the last `span` bars, this one included.

    No close is above the channel of its own bar: a break-out is
    `bar.close > lag(donchian(bar, 20).upper)`.

    Parameters
    ----------
    bar : the bar; its high and low are used.
    span : bars, at least 1.

    Returns
    -------
    `lower`, `middle` (half way) and `upper`, expressions in quote currency; NaN in the first
    `span - 1` bars and while the window holds one.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    R. D. Donchian, Trend-following methods in commodity price analysis, Commodity Year Book, 1957.
    """
    lower, upper = rolling_min(bar.low, span), rolling_max(bar.high, span)
    return Bands(lower, 0.5 * (lower + upper), upper)


def keltner(bar: Bar, span: int = 20, atr_span: int = 10, width: float = 2.0) -> Bands:
    """Keltner channel: an exponential average of the close, and `width` average true ranges.

    This is the form of L. Bradford Raschke; Keltner's own took simple averages over ten days of the
    typical price and of the day's range.

    Parameters
    ----------
    bar : the bar; its high, low and close are used.
    span : bars of the average (`ema`), at least 1.
    atr_span : bars of the true range (`atr`), at least 1.
    width : true ranges on either side, at least 0.

    Returns
    -------
    `lower`, `middle` and `upper`, expressions in quote currency; the middle is NaN in the first
    `span - 1` bars, the others also in the first `atr_span`. Values that are not finite are
    skipped.

    Raises
    ------
    ConfigError
        If a span is below 1, or `width` negative.

    References
    ----------
    C. W. Keltner, How to Make Money in Commodities, 1960. L. A. Connors, L. B. Raschke, Street
    Smarts, 1995.
    """
    middle = ema(bar.close, span)
    reach = within("width", width, 0.0) * atr(bar, atr_span)
    return Bands(middle - reach, middle, middle + reach)
