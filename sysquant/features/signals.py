"""Signals with memory: bands that are entered and left, holding periods, pauses, what was last.

Input: expressions. Output: an expression. With these a strategy needs no memory of its own. All
skip bars with a value that is not finite: NaN there, memory unchanged. What they remember has no
end: it rests on where the history begins until a signal has come that makes it forget.
"""

import math

import numpy as np

from sysquant.compiled import kernel
from sysquant.errors import ConfigError
from sysquant.features.arguments import whole
from sysquant.features.definition import Parts, indicator
from sysquant.features.expression import Expression, Operand
from sysquant.types import Floats


@kernel
def _hysteresis(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # inputs: value, enter, leave. params: 1 if also below. state: the side.
    side = state[0]
    for i in range(out.shape[0]):
        x, enter, leave = inputs[0, i], inputs[1, i], inputs[2, i]
        if not np.isfinite(x) or enter != enter or leave != leave:
            out[i] = np.nan
            continue
        if x > enter:
            side = 1.0
        elif params[0] != 0.0 and x < -enter:
            side = -1.0
        elif side * x < leave:
            side = 0.0
        out[i] = side
    state[0] = side


@kernel
def _hold(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: the value held; bars that it has still to be held for.
    held, left = state[0], state[1]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
            continue
        if left > 0.0:
            left -= 1.0
        elif x != held:
            held, left = x, params[0] - 1.0 if x != 0.0 else 0.0
        out[i] = held
    state[0], state[1] = held, left


@kernel
def _cooldown(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: the last value; bars that it has still to be 0 for.
    last, left = state[0], state[1]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
            continue
        if left > 0.0:
            left -= 1.0
        else:
            left = params[0] - 1.0 if x == 0.0 and last != 0.0 else 0.0
            last = x
        out[i] = last
    state[0], state[1] = last, left


@kernel
def _latch(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: the value kept, NaN before the first.
    kept = state[0]
    for i in range(out.shape[0]):
        x, when = inputs[0, i], inputs[1, i]
        if not np.isfinite(x + when):
            out[i] = np.nan
            continue
        if when != 0.0:
            kept = x
        out[i] = kept
    state[0] = kept


@kernel
def _bars_since(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    # state: bars since, NaN before the first.
    since = state[0]
    for i in range(out.shape[0]):
        condition = inputs[0, i]
        if not np.isfinite(condition):
            out[i] = np.nan
            continue
        since = 0.0 if condition != 0.0 else since + 1.0
        out[i] = since
    state[0] = since


@indicator(_hysteresis, first_state=lambda _: [0.0])
def hysteresis(x: Expression, enter: Operand, leave: Operand, two_sided: bool = False) -> Parts:
    """A state that is entered at one threshold and left at another.

    Parameters
    ----------
    x : any expression, e.g. a z-score.
    enter : numbers or expressions in the unit of `x`: the state is 1 once `x` is above.
    leave : it is 0 again once `x` is below; not above `enter`.
    two_sided : whether there is also -1, once `x` is below `-enter`, until it is above `-leave`;
        `enter` is then not negative. From 1 to -1 it may go at once.

    Returns
    -------
    Expression, 0 or 1, or also -1; 0 at the start. Bars on which `x` is not finite, or a threshold
    NaN, are skipped.

    Raises
    ------
    ConfigError
        If both thresholds are numbers and `leave` is above `enter`, or `enter` is negative and
        `two_sided`.

    Examples
    --------
    A spread that is sold above 2 deviations, bought below -2, and given up within half a one:

    >>> spread = zscore(log(Bar().close), 100)
    >>> weight = -hysteresis(spread, enter=2, leave=0.5, two_sided=True)

    References
    ----------
    E. P. Chan, Algorithmic Trading, 2013, ch. 3, entry and exit of a mean-reverting pair.
    """
    if not isinstance(enter, Expression):
        if two_sided and not enter >= 0:
            raise ConfigError(f"enter must be >= 0 if two_sided, was {enter!r}")
        if not isinstance(leave, Expression) and not leave <= enter:
            raise ConfigError(f"leave must not be above enter, were {leave!r} and {enter!r}")
    return (x, enter, leave), (float(two_sided),)


@indicator(_hold, first_state=lambda _: [0.0, 0.0])
def hold(x: Expression, bars: int) -> Parts:
    """A signal that, once it is not 0, stays as it is for at least `bars` bars.

    Whatever `x` does meanwhile is not seen; after them `x` is followed again.

    Parameters
    ----------
    x : a signal, 0 where there is none.
    bars : at least 1, the one on which it came included.

    Returns
    -------
    Expression in the unit of `x`. Bars with a value that is not finite are skipped.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return (x,), (whole("bars", bars, 1),)


@indicator(_cooldown, first_state=lambda _: [0.0, 0.0])
def cooldown(x: Expression, bars: int) -> Parts:
    """A signal that, once it has gone back to 0, stays there for at least `bars` bars.

    From one value to another that is not 0 it goes without a pause.

    Parameters
    ----------
    x : a signal, 0 where there is none.
    bars : at least 1, the one on which it went back included.

    Returns
    -------
    Expression in the unit of `x`. Bars with a value that is not finite are skipped.

    Raises
    ------
    ConfigError
        If `bars` is below 1.
    """
    return (x,), (whole("bars", bars, 1),)


@indicator(_latch, first_state=lambda: [math.nan])
def latch(x: Expression, when: Expression) -> Parts:
    """The value of `x` on the last bar on which a condition held, this one included.

    Parameters
    ----------
    x : any expression, e.g. a price to remember.
    when : a condition; it holds where it is not 0.

    Returns
    -------
    Expression in the unit of `x`; NaN before the condition has held. Bars with a value that is not
    finite are skipped.
    """
    return (x, when), ()


@indicator(_bars_since, first_state=lambda: [math.nan])
def bars_since(condition: Expression) -> Parts:
    """Bars since a condition last held: 0 on the bar on which it does.

    Parameters
    ----------
    condition : it holds where it is not 0.

    Returns
    -------
    Expression in bars; NaN before the condition has held. Bars on which it is not finite are
    skipped, and not counted.
    """
    return (condition,), ()
