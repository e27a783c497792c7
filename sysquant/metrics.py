"""Statistics of an account over its last risk bars, as part of the compiled engine.

Input: returns of its equity per risk bar. Output: fields of its record, which snapshots show. They
are for people and dashboards; no check reads them.
"""

import math

import numpy as np

from sysquant.compiled import kernel, part
from sysquant.records import Row
from sysquant.types import Floats


@part
def _kth_worst(values: Floats, n: int, k: int) -> float:
    # The k-th smallest of the first n, in one pass: a value above the k-th so far costs a compare.
    worst = np.full(k, math.inf)
    for i in range(n):
        place = k - 1
        if not values[i] < worst[place]:
            continue
        while place > 0 and values[i] < worst[place - 1]:
            worst[place] = worst[place - 1]
            place -= 1
        worst[place] = values[i]
    return worst[k - 1]


@kernel
def account_statistics(account: Row, ring: Floats, n: int, terms: Row) -> None:
    """Set volatility, Sharpe and Sortino ratio and value at risk of an account.

    Parameters
    ----------
    account : ACCOUNT row; `volatility`, `sharpe`, `sortino` and `value_at_risk` are written.
    ring : (W,) returns of its equity per risk bar, fractions, in any order; the first `n` count.
    n : how many are known, at most W.
    terms : TERMS row; `risk_bars_per_year` and `confidence` are read.

    Notes
    -----
    With mean m and standard deviation s (ddof 1) per risk bar, and b risk bars a year: volatility
    s sqrt(b), Sharpe m / s sqrt(b), Sortino m / d sqrt(b) with d the root of the mean of
    min(0, r)^2; no rate is taken off. Value at risk is historical, for one risk bar: minus the
    k-th worst return, k = max(1, ceil((1 - confidence) n)), never below 0, a fraction of equity.
    All are NaN below two returns, or where one is not finite; a ratio also where its divisor is 0.

    References
    ----------
    W. F. Sharpe, The Sharpe Ratio, Journal of Portfolio Management 21, 1994.
    F. A. Sortino, L. N. Price, Performance Measurement in a Downside Risk Framework, Journal of
    Investing 3, 1994.
    """
    account.volatility = math.nan
    account.sharpe = math.nan
    account.sortino = math.nan
    account.value_at_risk = math.nan
    total = 0.0
    for i in range(n):
        total += ring[i]
    if n < 2 or not math.isfinite(total):
        return
    mean = total / n
    squares = 0.0
    below = 0.0
    for i in range(n):
        squares += (ring[i] - mean) ** 2
        below += min(0.0, ring[i]) ** 2
    deviation = math.sqrt(squares / (n - 1))
    downside = math.sqrt(below / n)
    year = math.sqrt(terms.risk_bars_per_year)
    account.volatility = deviation * year
    if deviation > 0.0:
        account.sharpe = mean / deviation * year
    if downside > 0.0:
        account.sortino = mean / downside * year
    # (1 - 0.975) x 40 is a little over 1 in binary.
    worst = max(1, math.ceil((1.0 - terms.confidence) * n - 1e-9))
    account.value_at_risk = max(0.0, -_kth_worst(ring, n, worst))
