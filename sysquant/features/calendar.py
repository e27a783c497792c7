"""Calendar: every so many bars, every so much time, the time of the day, the day of the week.

Input: the closing time of bars. Output: an expression. All times are UTC. Nothing here sees a
clock: a bar has its time with it.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Bar, Expression, Operation
from sysquant.times import interval_ns
from sysquant.types import SECOND, Floats

_HOUR = 3600 * SECOND  # ns
_DAY = 24 * _HOUR
_THURSDAY = 3  # of 1970-01-01, counted from Monday


@kernel
def _every_bars(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: bars since the last one that counted.
    since = state[0]
    for i in range(out.shape[0]):
        since += 1.0
        out[i] = 1.0 if since == params[0] else 0.0
        if since == params[0]:
            since = 0.0
    state[0] = since


@kernel
def _every_time(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: multiples of the duration that had passed at the last close, NaN before the first.
    duration, last = np.int64(params[0]), state[0]
    for i in range(out.shape[0]):
        if not np.isfinite(inputs[0, i]):
            out[i] = np.nan
            continue
        ts = np.int64(inputs[0, i])
        passed = float(ts // duration)
        if last == last or ts % duration == 0:
            out[i] = 0.0 if passed == last else 1.0
        else:
            out[i] = np.nan
        last = passed
    state[0] = last


@kernel
def _hours(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    for i in range(out.shape[0]):
        ts = inputs[0, i]
        out[i] = float(np.int64(ts) % _DAY) / _HOUR if np.isfinite(ts) else np.nan


@kernel
def _weekday(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    for i in range(out.shape[0]):
        ts = inputs[0, i]
        out[i] = float((np.int64(ts) // _DAY + _THURSDAY) % 7) if np.isfinite(ts) else np.nan


_EVERY_BARS = Operation("every", _every_bars, lambda _: [0.0])
_EVERY_TIME = Operation("every", _every_time, lambda _: [math.nan])


def every(period: int | str) -> Expression:
    """1 on every so many bars, or on the first bar of every so much time; else 0.

    Parameters
    ----------
    period : bars, at least 1, counted from the first bar: on which ones it is 1 rests on where the
        history begins. Or a duration such as 5m, 1h, 1d: it is 1 on the first bar whose close has
        reached a new multiple of it since 1970-01-01 UTC, wherever the history begins. A duration
        that does not divide a day wanders through it.

    Returns
    -------
    Expression, 0 or 1; of a duration NaN on the first bar, unless that closes on a multiple:
    whether an earlier one had reached it is not known.

    Raises
    ------
    ConfigError
        If `period` is neither.

    Examples
    --------
    >>> every(5)
    every(5)
    """
    if isinstance(period, str):
        return Expression(_EVERY_TIME, [Bar().ts], [interval_ns(period, "period")])
    return Expression(_EVERY_BARS, (), [whole("period", period, 1)])


@indicator(_hours, first_state=list)
def time_of_day(bar: Bar) -> Parts:
    """Hours since midnight UTC at the bar's close.

    Parameters
    ----------
    bar : the bar; its ts is used.

    Returns
    -------
    Expression in [0, 24); a bar that closes at midnight has 0 and is the next day's. NaN where
    there is no time.
    """
    return (bar.ts,), ()


@indicator(_weekday, first_state=list)
def day_of_week(bar: Bar) -> Parts:
    """Day of the week in UTC at the bar's close: Monday is 0, Sunday 6.

    Parameters
    ----------
    bar : the bar; its ts is used.

    Returns
    -------
    Expression, a whole number; a bar that closes at midnight is the next day's. NaN where there is
    no time.
    """
    return (bar.ts,), ()
