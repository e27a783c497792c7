"""Oscillators: relative strength, moving average convergence, stochastic, directional movement.

Input: an expression or the bar, and spans in bars. Output: an expression, or several by name; the
value of a bar rests on it and on earlier ones. All but `stochastic` are recursive and skip bars
with a value that is not finite: NaN there, memory unchanged.
"""

from typing import NamedTuple

import numpy as np

from sysquant.compiled import kernel
from sysquant.errors import ConfigError
from sysquant.features.arguments import whole
from sysquant.features.averages import ema, sma, wilder
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Bar, Expression, Operation
from sysquant.features.functions import where
from sysquant.features.windows import rolling_max, rolling_min
from sysquant.types import Floats


class Macd(NamedTuple):
    """Moving average convergence and divergence, in the unit of what they are of."""

    line: Expression
    signal: Expression
    histogram: Expression


class Stochastic(NamedTuple):
    """Place of the close in the range, and its average, in [0, 100]."""

    k: Expression
    d: Expression


class Adx(NamedTuple):
    """Strength of a trend, and of its two directions, in [0, 100]."""

    adx: Expression
    plus_di: Expression
    minus_di: Expression


@kernel
def _rsi(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: values seen (at most span + 1); the last one; average gain and loss (sums at first).
    span = params[0]
    weight, keep = 1.0 / span, (span - 1.0) / span
    seen, last, gain, loss = state[0], state[1], state[2], state[3]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
            continue
        change = x - last if seen > 0.0 else 0.0
        last = x
        up = max(change, 0.0)
        down = up - change
        if seen > span:
            gain = keep * gain + weight * up
            loss = keep * loss + weight * down
        else:
            seen += 1.0
            gain += weight * up
            loss += weight * down
        moved = gain + loss
        value = 100.0 * gain / moved if moved > 0.0 else 50.0
        out[i] = value if seen > span else np.nan
    state[0], state[1], state[2], state[3] = seen, last, gain, loss


@kernel
def _directional(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # inputs: high, low, close. params: span; 1 for up, -1 for down. state: bars seen (at most
    # span + 1); the last high, low and close; sums of movement and of true range, decaying.
    span, side = params[0], params[1]
    keep = 1.0 - 1.0 / span
    seen, last_high, last_low, last = state[0], state[1], state[2], state[3]
    moved, ranged = state[4], state[5]
    for i in range(out.shape[0]):
        high, low, close = inputs[0, i], inputs[1, i], inputs[2, i]
        if not np.isfinite(high + low + close):
            out[i] = np.nan
            continue
        move, true_range = 0.0, 0.0
        if seen > 0.0:
            up, down = high - last_high, last_low - low
            one, other = (up, down) if side > 0.0 else (down, up)
            move = one if one > max(other, 0.0) else 0.0
            true_range = max(high, last) - min(low, last)
        last_high, last_low, last = high, low, close
        if seen >= span:  # the last of the first `span` changes already lets the others decay
            moved *= keep
            ranged *= keep
        moved += move
        ranged += true_range
        seen = min(seen + 1.0, span + 1.0)
        share = 100.0 * moved / ranged if ranged > 0.0 else 0.0
        out[i] = share if seen > span else np.nan
    state[0], state[1], state[2], state[3] = seen, last_high, last_low, last
    state[4], state[5] = moved, ranged


_DIRECTIONAL = Operation("directional_index", _directional, lambda *_: [0.0] * 6)


@indicator(_rsi, first_state=lambda span: [0.0, 0.0, 0.0, 0.0])
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
    return (x,), (whole("span", span, 1),)


def macd(x: Expression, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """Moving average convergence and divergence: a fast average less a slow one, and its average.

    Parameters
    ----------
    x : a price.
    fast, slow : spans of the two averages (`ema`) in bars, at least 1, `fast` below `slow`.
    signal : span of the line's average in bars, at least 1.

    Returns
    -------
    `line`, `signal` and `histogram` (line less signal), expressions in the unit of `x`; NaN in the
    first `slow - 1` bars, signal and histogram in `signal - 1` more. Values that are not finite are
    skipped. Both averages begin with the history, as `ema` does; TA-Lib seeds the fast one
    `slow - fast` bars later, which is forgotten at the pace of the averages.

    Raises
    ------
    ConfigError
        If a span is below 1, or `fast` not below `slow`.

    Examples
    --------
    >>> macd(Bar().close, 2, 4, 3).line
    sub(ema(close, 2), ema(close, 4))

    References
    ----------
    G. Appel, Technical Analysis: Power Tools for Active Investors, 2005, ch. 8. TA-Lib, function
    MACD.
    """
    if whole("fast", fast, 1) >= whole("slow", slow, 1):
        raise ConfigError(f"fast must be below slow, were {fast} and {slow} bars")
    line = ema(x, fast) - ema(x, slow)
    average = ema(line, whole("signal", signal, 1))
    return Macd(line, average, line - average)


def stochastic(bar: Bar, span: int = 14, smooth: int = 3, signal: int = 3) -> Stochastic:
    """Place of the close between the lowest low and the highest high of `span` bars, smoothed.

    Parameters
    ----------
    bar : the bar; its high, low and close are used.
    span : bars of the range, at least 1.
    smooth : bars over which it is averaged (`sma`) to k, at least 1; 1 is the fast form.
    signal : bars over which k is averaged (`sma`) to d, at least 1.

    Returns
    -------
    `k` and `d`, expressions in [0, 100]; k is NaN in the first `span + smooth - 2` bars, d in
    `signal - 1` more, both while a window holds a NaN. Where the range is 0 the place is 50 (TA-Lib
    gives 0, which would read as oversold).

    Raises
    ------
    ConfigError
        If a span is below 1.

    References
    ----------
    G. C. Lane, Lane's stochastics, Technical Analysis of Stocks and Commodities 2 (1984). TA-Lib,
    function STOCH, whose arguments are these in this order.
    """
    lowest = rolling_min(bar.low, span)
    width = rolling_max(bar.high, span) - lowest
    place = where(width > 0.0, 100.0 * (bar.close - lowest) / width, 50.0)
    k = sma(place, whole("smooth", smooth, 1))
    return Stochastic(k, sma(k, whole("signal", signal, 1)))


def adx(bar: Bar, span: int = 14) -> Adx:
    """Average directional index: how much of all movement goes one way, either way.

    Parameters
    ----------
    bar : the bar; its high, low and close are used.
    span : bars, at least 2.

    Returns
    -------
    `adx`, `plus_di` and `minus_di`, expressions in [0, 100]; the two are NaN in the first `span`
    bars, adx in the first `2 * span - 1`. Bars with a value that is not finite are skipped. Where
    neither way was gone the movement to be averaged is 0 (TA-Lib keeps the last one).

    Raises
    ------
    ConfigError
        If `span` is below 2.

    References
    ----------
    J. W. Wilder, New Concepts in Technical Trading Systems, 1978, ch. IV. TA-Lib, functions ADX,
    PLUS_DI, MINUS_DI.
    """
    span = whole("span", span, 2)
    inputs = bar.high, bar.low, bar.close
    plus, minus = (Expression(_DIRECTIONAL, inputs, (span, side)) for side in (1, -1))
    both = plus + minus
    movement = where(both > 0.0, 100.0 * abs(plus - minus) / both, 0.0)
    return Adx(wilder(movement, span), plus, minus)
