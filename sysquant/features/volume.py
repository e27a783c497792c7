"""Volume: prices weighted by it, on-balance volume, and the balance of buying and selling.

Input: the bar. Output: an expression; the value of a bar rests on it and on earlier ones.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.features.arguments import within
from sysquant.features.changes import diff
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Bar, Expression
from sysquant.features.functions import sign
from sysquant.features.windows import rolling_sum
from sysquant.types import SECOND, Floats

_HOUR = 3600.0 * SECOND  # ns
_DAY = 24.0 * _HOUR


@kernel
def _vwap(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # inputs: price, volume, ts. params: hour of the reset. state: when the session ends (NaN before
    # the first); its volume; its mean price. A bar that closes at the reset is its last one.
    reset = params[0] * _HOUR
    end, total, mean = state[0], state[1], state[2]
    for i in range(out.shape[0]):
        price, volume, ts = inputs[0, i], inputs[1, i], inputs[2, i]
        if not np.isfinite(price + volume + ts):
            out[i] = np.nan
            continue
        if not ts <= end:
            end, total, mean = reset + _DAY * math.ceil((ts - reset) / _DAY), 0.0, 0.0
        if volume > 0.0:
            total += volume
            mean += (price - mean) * (volume / total)
        out[i] = mean if total > 0.0 else np.nan
    state[0], state[1], state[2] = end, total, mean


@kernel
def _obv(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: the last price (NaN before the first); the sum.
    last, total = state[0], state[1]
    for i in range(out.shape[0]):
        price, volume = inputs[0, i], inputs[1, i]
        if not np.isfinite(price + volume):
            out[i] = np.nan
            continue
        if price > last or last != last:
            total += volume
        elif price < last:
            total -= volume
        last = price
        out[i] = total
    state[0], state[1] = last, total


@indicator(_vwap, first_state=lambda _: [math.nan, 0.0, 0.0])
def vwap(bar: Bar, reset_hour: float = 0.0) -> Parts:
    """Mean price of the session so far, weighted by volume.

    A bar counts with its typical price, (high + low + close) / 3. A session ends with the bar that
    closes at the reset, or with the last one before it.

    Parameters
    ----------
    bar : the bar; its high, low, close, volume and ts are used.
    reset_hour : of the day, UTC, from 0 to 24.

    Returns
    -------
    Expression in quote currency; NaN while the session has no volume. Bars with a value that is not
    finite are skipped. A history that begins within a session has that session's from there on.

    Raises
    ------
    ConfigError
        If `reset_hour` is outside.

    References
    ----------
    S. A. Berkowitz, D. E. Logue, E. A. Noser, The total cost of transactions on the NYSE, Journal
    of Finance 43 (1988).
    """
    reset = within("reset_hour", reset_hour, 0.0, 24.0)
    return (_typical(bar), bar.volume, bar.ts), (reset,)


def rolling_vwap(bar: Bar, span: int) -> Expression:
    """Mean price of the last `span` bars, weighted by volume.

    Parameters
    ----------
    bar : the bar; its high, low, close and volume are used, as by `vwap`.
    span : bars, at least 1.

    Returns
    -------
    Expression in quote currency; NaN in the first `span - 1` bars, while the window holds one, and
    where it has no volume.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    As of `vwap`.
    """
    return rolling_sum(_typical(bar) * bar.volume, span) / rolling_sum(bar.volume, span)


@indicator(_obv, first_state=lambda: [math.nan, 0.0])
def obv(bar: Bar) -> Parts:
    """On-balance volume: the sum of the volume of bars that closed higher, less that of lower ones.

    Its level rests on where the history begins: use its changes, or its `zscore`.

    Parameters
    ----------
    bar : the bar; its close and volume are used.

    Returns
    -------
    Expression in units, from the first bar on, which counts as higher. Bars with a value that is
    not finite are skipped.

    References
    ----------
    J. E. Granville, New Key to Stock Market Profits, 1963. TA-Lib, function OBV.
    """
    return (bar.close, bar.volume), ()


def volume_imbalance(bar: Bar, span: int) -> Expression:
    """Balance of buying and selling in the last `span` bars, by the aggregated tick rule.

    All volume of a bar counts as bought if it closed above the bar before, as sold if below, and as
    neither if at the same price.

    Parameters
    ----------
    bar : the bar; its close and volume are used.
    span : bars, at least 1.

    Returns
    -------
    Expression in [-1, 1]: bought less sold by all volume; NaN in the first `span` bars, while the
    window holds one, and where it has no volume.

    Raises
    ------
    ConfigError
        If `span` is below 1.

    References
    ----------
    D. Easley, M. López de Prado, M. O'Hara, Discerning information from trade data, Journal of
    Financial Economics 120 (2016), who compare it with the tick rule and with bulk classification.
    """
    signed = sign(diff(bar.close)) * bar.volume
    return rolling_sum(signed, span) / rolling_sum(bar.volume, span)


def _typical(bar: Bar) -> Expression:
    return (bar.high + bar.low + bar.close) / 3.0
