"""Averages: simple, weighted, exponential, Wilder's, Kaufman's.

Input: an expression and a span in bars. Output: an expression in its unit; the value of a bar rests
on it and on earlier ones. `sma` and `wma` are windows (see `windows`); the others are recursive and
skip what is not finite: NaN there, memory unchanged.
"""

import math

import numpy as np

from sysquant.compiled import inlined, kernel
from sysquant.errors import ConfigError
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression
from sysquant.features.windows import block, sums
from sysquant.types import Floats


@inlined
def _moved(x: float, weight: float, average: float, step: float) -> tuple[float, float]:
    # An average before its last step, and the step, moved on. A value's distance from the average
    # is told from those two: each bar waits for two operations of the last one, not for three.
    return average + step, weight * ((x - average) - step)


@inlined
def _exponential(state: Floats, inputs: Floats, span: float, weight: float, out: Floats) -> None:
    # state: values seen (at most span); their sum while seeding, then as of `_moved`.
    seen, average, step = state
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
        elif seen == span:
            average, step = _moved(x, weight, average, step)
            out[i] = average + step
        else:
            seen += 1.0
            average += x
            if seen == span:
                average /= span
            out[i] = average if seen == span else np.nan
    state[0], state[1], state[2] = seen, average, step


@kernel
def _ema(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _exponential(state, inputs, params[0], 2.0 / (params[0] + 1.0), out)


@kernel
def _wilder(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    _exponential(state, inputs, params[0], 1.0 / params[0], out)


@kernel
def _two_emas(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # Two of them on one input: the one moves on while the other waits.
    count = inputs.shape[1]
    if state[0] != params[0] or state[3] != params[1]:  # one of them is still being seeded
        _ema(state[:3], inputs, params[:1], out[:count])
        _ema(state[3:], inputs, params[1:], out[count:])
        return
    weight, other_weight = 2.0 / (params[0] + 1.0), 2.0 / (params[1] + 1.0)
    _, average, step, _, other, other_step = state
    for i in range(count):
        x = inputs[0, i]
        if np.isfinite(x):
            average, step = _moved(x, weight, average, step)
            other, other_step = _moved(x, other_weight, other, other_step)
            out[i], out[count + i] = average + step, other + other_step
        else:
            out[i] = out[count + i] = np.nan
    state[1], state[2], state[4], state[5] = average, step, other, other_step


@kernel
def _sma(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    sums(state, inputs, int(params[0]), params[0], out)


@kernel
def _wma(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: place in the block; sum of its prefix; the same, weighted 1, 2, ...; weighted suffix
    # sums behind it, raw values before. The prefix follows the suffix, so its weights are higher
    # by the length of that.
    span = int(params[0])
    weights = 0.5 * span * (span + 1)
    place, plain, weighted = int(state[0]), state[1], state[2]
    cells = state[3:]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        cells[place] = x
        place += 1
        plain += x
        weighted += place * x
        if place < span:
            out[i] = (cells[place] + weighted + (span - place) * plain) / weights
        else:
            out[i] = weighted / weights
            plain, weighted = 0.0, 0.0
            for j in range(span - 1, -1, -1):
                plain += cells[j]
                weighted += plain
                cells[j] = weighted
            place, plain, weighted = 0, 0.0, 0.0
    state[0], state[1], state[2] = place, plain, weighted


@kernel
def _kama(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: values seen (at most span + 1); the last one; the average; place in the block; sum of
    # the moves of its prefix; the sums of its suffixes, raw moves before; the last `span` values.
    span = int(params[0])
    fast, slow = 2.0 / (params[1] + 1.0), 2.0 / (params[2] + 1.0)
    seen, last, average, place, prefix = int(state[0]), state[1], state[2], int(state[3]), state[4]
    moves, ring = state[5 : 5 + span], state[5 + span :]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
            continue
        distance, path = 0.0, 0.0
        if seen > 0:
            moves[place] = abs(x - last)
            ring[place] = last
            prefix += moves[place]
            place += 1
            path = prefix
            if place < span:
                path += moves[place]
            else:
                prefix = 0.0
                for j in range(span - 1, -1, -1):
                    prefix += moves[j]
                    moves[j] = prefix
                place, prefix = 0, 0.0
            distance = abs(x - ring[place])
        last = x
        if seen < span:
            seen, average, out[i] = seen + 1, x, np.nan
            continue
        seen = span + 1
        ratio = distance / path if path > distance else 1.0
        average += (ratio * (fast - slow) + slow) ** 2 * (x - average)
        out[i] = average
    state[0], state[1], state[2], state[3], state[4] = seen, last, average, place, prefix


@indicator(_ema, first_state=lambda span: [0.0, 0.0, 0.0], twin=_two_emas)
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
    return (x,), (whole("span", span, 1),)


@indicator(_wilder, first_state=lambda span: [0.0, 0.0, 0.0])
def wilder(x: Expression, span: int) -> Parts:
    """Wilder's moving average: exponential, weight 1 / span on the newest value.

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
    J. W. Wilder, New Concepts in Technical Trading Systems, 1978.
    """
    return (x,), (whole("span", span, 1),)


@indicator(_sma, first_state=lambda span: block([0.0, 0.0], span))
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
    TA-Lib, function SMA; the window is that of `rolling_max`, with sums.
    """
    return (x,), (whole("span", span, 1),)


@indicator(_wma, first_state=lambda span: block([0.0, 0.0, 0.0], span))
def wma(x: Expression, span: int) -> Parts:
    """Mean of the last `span` values, weighted 1 for the oldest up to `span` for the newest.

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
    TA-Lib, function WMA.
    """
    return (x,), (whole("span", span, 1),)


@indicator(_kama, first_state=lambda span, *_: block([0.0, math.nan, 0.0, 0.0, 0.0], 2 * span))
def kama(x: Expression, span: int = 10, fast: int = 2, slow: int = 30) -> Parts:
    """Kaufman's adaptive average: quick where `x` moves straight, slow where it moves to and fro.

    The efficiency ratio E is the distance of `span` bars by the path walked; the weight of the
    newest value is the square of E * (f - s) + s, f and s being the weights of exponential averages
    over `fast` and `slow` bars. Where nothing has moved, E is 1.

    Parameters
    ----------
    x : a price.
    span : bars of the efficiency ratio, at least 1.
    fast, slow : spans in bars, at least 1, `fast` not above `slow`.

    Returns
    -------
    Expression in the unit of `x`; NaN in the first `span` bars, starting from the value of the last
    of those. Values that are not finite are skipped.

    Raises
    ------
    ConfigError
        If a span is below 1, or `fast` above `slow`.

    References
    ----------
    P. J. Kaufman, Smarter Trading, 1995. TA-Lib, function KAMA, which has 2 and 30.
    """
    spans = whole("span", span, 1), whole("fast", fast, 1), whole("slow", slow, 1)
    if fast > slow:
        raise ConfigError(f"fast must not be above slow, were {fast} and {slow} bars")
    return (x,), spans
