"""How sure a statistic is: block bootstrap, standard errors, and Sharpe ratios after many tries.

Input: arrays of returns, or moments of them. Output: standard errors and limits. Every random
number comes from a seed, so that the same data give the same interval. Nothing here knows prices.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from sysquant.types import Floats, Ints

SAMPLES = 1_000  # of a bootstrap
LEVEL = 0.95  # of every interval
LEAST = 10  # values below which nothing is drawn again
_ROOM = 1 << 20  # numbers drawn at once: bounds memory, changes nothing else
_NORMAL = NormalDist()
_EULER = 0.5772156649015329

Limits = tuple[float, float, float]  # standard error, low, high
UNKNOWN: Limits = (math.nan, math.nan, math.nan)


def block_length(values: Floats) -> float:
    """Mean length of the blocks that a stationary bootstrap of `values` should draw.

    Parameters
    ----------
    values : (N,) in their order, finite.

    Returns
    -------
    Values per block, from 1 to min(3 sqrt(N), N / 3); 1 where they never change or are below 10.

    References
    ----------
    Politis, White, Automatic block-length selection for the dependent bootstrap, Econometric
    Reviews 23, 2004; corrected by Patton, Politis, White, the same 28, 2009.
    """
    n = len(values)
    off = values - values.mean() if n else values
    if n < LEAST or not off @ off > 0.0:
        return 1.0
    quiet = max(5, math.ceil(math.log10(n)))  # lags in a row that must show nothing
    most = min(math.ceil(math.sqrt(n)) + quiet, n - 1)
    covariance = np.array([off[lag:] @ off[: n - lag] / n for lag in range(most + 1)])
    bound = 2.0 * math.sqrt(math.log10(n) / n) * covariance[0]
    loud = np.flatnonzero(np.abs(covariance[1:]) >= bound) + 1
    ends = [0, *loud.tolist(), most + 1]
    last = next(a for a, b in pairwise(ends) if b - a > quiet or b > most)
    width = min(2 * max(last, 1), most)
    lags = np.arange(1, width + 1)
    taper = np.clip(2.0 * (1.0 - lags / width), 0.0, 1.0) * covariance[1 : width + 1]
    slope, level = 2.0 * (lags @ taper), covariance[0] + 2.0 * taper.sum()
    longest = min(3.0 * math.sqrt(n), n / 3.0)
    length = (n * slope**2 / max(level**2, 1e-300)) ** (1.0 / 3.0)
    return float(min(max(length, 1.0), longest))


def block_rows(n: int, samples: int, length: float, rng: np.random.Generator) -> Ints:
    """Row numbers of a stationary bootstrap: blocks of random length, the end joined to the start.

    Parameters
    ----------
    n : rows to draw from.
    samples : how often all of them are drawn.
    length : mean length of a block, at least 1.
    rng : where the numbers come from.

    Returns
    -------
    (samples, n) row numbers.

    References
    ----------
    Politis, Romano, The stationary bootstrap, Journal of the American Statistical Association 89,
    1994.
    """
    begins = rng.random((samples, n)) < 1.0 / length
    begins[:, 0] = True
    places = np.arange(n)
    since = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    first = np.take_along_axis(rng.integers(0, n, (samples, n)), since, axis=1)
    return (first + places - since) % n


def bootstrap(
    estimate: Callable[[Ints], Mapping[str, Floats]],
    n: int,
    length: float,
    *,
    samples: int = SAMPLES,
    seed: int = 1,
) -> dict[str, Limits]:
    """Standard error and percentile interval of every statistic that `estimate` names.

    Parameters
    ----------
    estimate : from (S, n) row numbers to S values of each statistic.
    n : rows to draw from.
    length : mean length of a block, see `block_length`.
    samples, seed : how often, and from which random numbers.

    Returns
    -------
    Name -> standard error, low and high of `LEVEL`; NaN below `LEAST` rows. Samples in which a
    statistic is NaN are left out; it is NaN if they are more than half.
    """
    if n < LEAST:
        unknown: dict[str, Limits] = {}
        return unknown | dict.fromkeys(estimate(np.zeros((1, n), np.int64)), UNKNOWN)
    rng = np.random.default_rng(seed)
    at_once = max(1, _ROOM // n)
    parts = [
        estimate(block_rows(n, min(at_once, samples - done), length, rng))
        for done in range(0, samples, at_once)
    ]
    return {name: _limits(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _limits(drawn: Floats) -> Limits:
    known = drawn[np.isfinite(drawn)]
    if 2 * len(known) <= len(drawn):
        return UNKNOWN
    low, high = np.quantile(known, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(known.std(ddof=1)), float(low), float(high)


def around(value: float, error: float) -> Limits:
    """The error, and the limits where the estimate is normal."""
    reach = _NORMAL.inv_cdf(0.5 + LEVEL / 2) * error
    return error, value - reach, value + reach


def share(count: int, n: int) -> Limits:
    """Standard error and limits of a share `count / n`; NaN when n is 0.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
    American Statistical Association 22, 1927.
    """
    if not n:
        return UNKNOWN
    z, p = _NORMAL.inv_cdf(0.5 + LEVEL / 2), count / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return math.sqrt(p * (1 - p) / n), max(0.0, middle - reach), min(1.0, middle + reach)


def quantile(values: Floats, q: float) -> tuple[float, float, float]:
    """A quantile and its limits, by ranks, whatever the distribution; NaN without values.

    Returns
    -------
    Value, low, high: of the sorted values those at `q`, and at `q` less and more what the
    binomial count below it may be off.
    """
    if not len(values):
        return UNKNOWN
    reach = _NORMAL.inv_cdf(0.5 + LEVEL / 2) * math.sqrt(q * (1 - q) / len(values))
    found = np.quantile(values, [q, max(0.0, q - reach), min(1.0, q + reach)], method="lower")
    return float(found[0]), float(found[1]), float(found[2])


def sharpe_error(sharpe: float, n: int, skewness: float, kurtosis: float) -> float:
    """Standard error of a Sharpe ratio, both per period.

    Parameters
    ----------
    sharpe : mean / standard deviation of the returns of a period, not annualised.
    n : returns, at least 2 or NaN is returned.
    skewness, kurtosis : of the returns; 0 and 3 when they are normal.

    References
    ----------
    Mertens, Comments on variance of the IID estimator in Lo (2002), 2002, of which Lo, The
    statistics of Sharpe ratios, Financial Analysts Journal 58, 2002, is the normal case. Returns
    are taken as independent.
    """
    if n < 2:
        return math.nan
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    return math.sqrt(max(spread, 0.0) / (n - 1)) if not math.isnan(spread) else math.nan


def probabilistic_sharpe(
    sharpe: float, n: int, skewness: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Probability that the true Sharpe ratio is above `benchmark`, all per period.

    References
    ----------
    Bailey, Lopez de Prado, The Sharpe ratio efficient frontier, Journal of Risk 15, 2012.
    """
    error = sharpe_error(sharpe, n, skewness, kurtosis)
    if math.isnan(error):
        return math.nan
    if error == 0.0:
        return float(sharpe > benchmark)
    return _NORMAL.cdf((sharpe - benchmark) / error)


def highest_sharpe(trials: int, deviation: float) -> float:
    """Sharpe ratio that the best of `trials` without any skill is expected to show.

    Parameters
    ----------
    trials : how many were tried; 0 comes of fewer than 2.
    deviation : standard deviation of their Sharpe ratios.

    References
    ----------
    Bailey, Lopez de Prado, The deflated Sharpe ratio, Journal of Portfolio Management 40, 2014.
    """
    if trials < 2:
        return 0.0
    few = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    more = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return deviation * ((1.0 - _EULER) * few + _EULER * more)


def deflated_sharpe(
    sharpe: float, n: int, skewness: float, kurtosis: float, trials: int, deviation: float
) -> float:
    """Probability that the true Sharpe ratio is above what the best of `trials` shows by luck.

    Parameters
    ----------
    sharpe, n, skewness, kurtosis : see `sharpe_error`.
    trials, deviation : see `highest_sharpe`; per period as well.

    References
    ----------
    Bailey, Lopez de Prado, The deflated Sharpe ratio, Journal of Portfolio Management 40, 2014.
    """
    best = highest_sharpe(trials, deviation)
    return probabilistic_sharpe(sharpe, n, skewness, kurtosis, best)
