"""Compiled indicators with memory: each is the only implementation there is, live and in history.

A kernel is `(state, inputs, params, out)`: `state` (S,) float64 is read and written, `inputs`
(arity, n) holds n new values of each input, `params` (P,) the parameters as float64, `out` (n,)
is filled. n is 1 in a stream and a million in history, and how a history is cut never shows.

Windows use the two-block scheme of van Herk and Gil-Werman: the window is the suffix of the last
complete block and the prefix of the present one. Nothing is ever subtracted again, so rounding
cannot drift and a NaN leaves with its bar. A block starts filled with NaN: that is the warm-up.
"""

import math

import numpy as np

from sysquant.compiled import inlined, kernel
from sysquant.types import Floats


@inlined
def _averaged(x: float, weight: float, average: float, step: float) -> tuple[float, float]:
    # An average before its last step, and the step, moved on. A value's distance from the average
    # is told from those two: each bar waits for two operations of the last one, not for three.
    return average + step, weight * ((x - average) - step)


@kernel
def ema(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Average seeded with the mean; see `indicators.ema`."""
    # state: values seen (at most span); their sum while seeding, then as of `_averaged`.
    span = params[0]
    weight = 2.0 / (span + 1.0)
    seen, average, step = state
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(x):
            out[i] = np.nan
        elif seen == span:
            average, step = _averaged(x, weight, average, step)
            out[i] = average + step
        else:
            seen += 1.0
            average += x
            if seen == span:
                average /= span
            out[i] = average if seen == span else np.nan
    state[0], state[1], state[2] = seen, average, step


@kernel
def two_emas(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Two of them on one input: the one moves on while the other waits."""
    count = inputs.shape[1]
    if state[0] != params[0] or state[3] != params[1]:  # one of them is still being seeded
        ema(state[:3], inputs, params[:1], out[:count])
        ema(state[3:], inputs, params[1:], out[count:])
        return
    weight, other_weight = 2.0 / (params[0] + 1.0), 2.0 / (params[1] + 1.0)
    _, average, step, _, other, other_step = state
    for i in range(count):
        x = inputs[0, i]
        if np.isfinite(x):
            average, step = _averaged(x, weight, average, step)
            other, other_step = _averaged(x, other_weight, other, other_step)
            out[i], out[count + i] = average + step, other + other_step
        else:
            out[i] = out[count + i] = np.nan
    state[1], state[2], state[4], state[5] = average, step, other, other_step


@kernel
def sma(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Mean of a window."""
    # state: place in the block; sum of its prefix; suffix sums behind it, raw values before.
    span = int(params[0])
    place, prefix = int(state[0]), state[1]
    block = state[2:]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        block[place] = x
        prefix += x
        place += 1
        if place < span:
            out[i] = (block[place] + prefix) / span
        else:
            out[i], prefix = prefix / span, 0.0
            for j in range(span - 1, -1, -1):
                prefix += block[j]
                block[j] = prefix
            place, prefix = 0, 0.0
    state[0], state[1] = place, prefix


@kernel
def std(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Standard deviation of a window; params: span, ddof."""
    _deviations(state, inputs, params, out, False)


@kernel
def zscore(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Distance from the mean of a window in its deviations; params: span, ddof."""
    _deviations(state, inputs, params, out, True)


@kernel
def _deviations(state: Floats, inputs: Floats, params: Floats, out: Floats, is_score: bool) -> None:
    # state: place in the block; origin; mean and sum of squares about it (M2) of the prefix; the
    # same of the suffixes. All values are taken from an origin close to them, so that no digits
    # are lost to their level. Quotients off the chain from mean to mean, for speed.
    span = int(params[0])
    freedom, share = span - params[1], 1.0 / span
    place, origin, mean, squares = int(state[0]), state[1], state[2], state[3]
    means, sums = state[4 : 4 + span], state[4 + span :]
    for i in range(out.shape[0]):
        x = inputs[0, i]
        if not np.isfinite(origin):
            origin = x
        means[place] = x
        x -= origin
        place += 1
        step = x - mean
        mean += step * (1.0 / place)
        squares += step * (x - mean)
        centre, total = mean, squares
        if place < span:
            gap = means[place] - mean
            rest = (span - place) * share
            centre += gap * rest
            total += sums[place] + gap * gap * (place * rest)
        else:
            origin = _suffix_moments(means, sums, origin)
            place, mean, squares = 0, 0.0, 0.0
        deviation = np.sqrt(total / freedom)
        out[i] = (x - centre) / deviation if is_score else deviation
    state[0], state[1], state[2], state[3] = place, origin, mean, squares


@kernel
def _suffix_moments(means: Floats, sums: Floats, origin: float) -> float:
    # From the raw values of a complete block to mean and M2 of every suffix, right to left, about
    # the origin of the next block, which is returned.
    span = means.shape[0]
    if np.isfinite(means[span - 1]):
        origin = float(means[span - 1])
    mean, squares = 0.0, 0.0
    for j in range(span - 1, -1, -1):
        x = means[j] - origin
        step = x - mean
        mean += step * (1.0 / (span - j))
        squares += step * (x - mean)
        means[j], sums[j] = mean, squares
    return origin


@kernel
def rolling_max(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Largest of a window."""
    _extremes(state, inputs, params, out, 1.0)


@kernel
def rolling_min(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Smallest of a window."""
    _extremes(state, inputs, params, out, -1.0)


@kernel
def _extremes(state: Floats, inputs: Floats, params: Floats, out: Floats, sign: float) -> None:
    # state: place; values since the last NaN (at most span); largest of the prefix; of the
    # suffixes. Here a NaN is counted, not compared: a comparison would lose it.
    span = int(params[0])
    place, known, largest = int(state[0]), int(state[1]), state[2]
    block = state[3:]
    for i in range(out.shape[0]):
        x: float = sign * inputs[0, i]
        known += 1
        if x != x:
            x, known = -math.inf, 0
        block[place] = x
        largest = max(x, largest)
        place += 1
        if place < span:
            value = max(block[place], largest)
        else:
            value, largest = largest, -np.inf
            for j in range(span - 1, -1, -1):
                largest = max(block[j], largest)
                block[j] = largest
            place, largest = 0, -np.inf
        out[i] = sign * value if known >= span else np.nan
    state[0], state[1], state[2] = place, min(known, span), largest


@kernel
def lag(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Value of some bars ago."""
    # state: place in the ring; the last `bars` values.
    bars = int(params[0])
    place = int(state[0])
    ring = state[1:]
    for i in range(out.shape[0]):
        out[i] = ring[place]
        ring[place] = inputs[0, i]
        place += 1
        if place == bars:
            place = 0
    state[0] = place


@kernel
def rsi(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Share of gains in movement."""
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
def atr(state: Floats, inputs: Floats, params: Floats, out: Floats) -> None:
    """Average true range; inputs: high, low, close."""
    # state: bars seen (at most span + 1); the last close; average range (a sum at first).
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
