"""Statistics of an account over its last risk bars, as part of the compiled engine.

Input: returns of its equity per risk bar, one at a time. Output: fields of its record, which
snapshots show. They are for people and dashboards; no check reads them.
"""

import math

from sysquant.compiled import inlined, part
from sysquant.records import Row
from sysquant.tail import keep_lowest, worst_count
from sysquant.types import Floats

_LEFT = 1e-6  # of a sum of squares: with less than that left, what rounding left could show


@part
def _sum_up(account: Row, ring: Floats, n: int) -> None:
    # Mean and sums of squares, from the beginning.
    account.mean = 0.0
    account.squares = 0.0
    account.losses_squared = 0.0
    for i in range(n):
        _move_on(account, ring[i], i + 1)


@part
def _move_on(account: Row, value: float, n: int) -> None:
    # One return more, n with it.
    off = value - account.mean
    account.mean += off / n
    account.squares += off * (value - account.mean)
    account.losses_squared += min(0.0, value) ** 2


@part
def _exchange(account: Row, old: float, new: float, n: int) -> None:
    # One return in place of another.
    off = old - account.mean
    account.mean += (new - old) / n
    account.squares += (new - old) * (new - account.mean + off)
    account.losses_squared += min(0.0, new) ** 2 - min(0.0, old) ** 2


@inlined
def take_return(
    account: Row, ring: Floats, lowest: Floats, taken: int, value: float, terms: Row
) -> None:
    """Take an account's newest return: its volatility, ratios and value at risk are moved on.

    Parameters
    ----------
    account : ACCOUNT row; written are `mean`, `squares` (about it), `losses_squared`, and
        `volatility`, `sharpe`, `sortino` and `value_at_risk`.
    ring : (W,) returns of its equity per risk bar, fractions; `taken % W` is written.
    lowest : (K,) the lowest of them, see `tail.keep_lowest`.
    taken : returns before this one.
    value : the return.
    terms : TERMS row; `risk_bars_per_year` and `confidence` are read.

    Notes
    -----
    With mean m and standard deviation s (ddof 1) per risk bar, and b risk bars a year: volatility
    s sqrt(b), Sharpe m / s sqrt(b), Sortino m / d sqrt(b) with d the root of the mean of
    min(0, r)^2; no rate is taken off. Value at risk is historical, for one risk bar: minus the
    k-th worst return, k = max(1, ceil((1 - confidence) n)), never below 0, a fraction of equity.
    All are NaN below two returns, or where one is not finite; a ratio also where its divisor is 0.
    What leaves the window is taken out of mean and sums; they are made anew when the ring begins
    again, and when nearly nothing is left of a sum.

    References
    ----------
    W. F. Sharpe, The Sharpe Ratio, Journal of Portfolio Management 21, 1994.
    F. A. Sortino, L. N. Price, Performance Measurement in a Downside Risk Framework, Journal of
    Investing 3, 1994.
    """
    place = taken % len(ring)
    oldest = ring[place]
    ring[place] = value
    n = min(taken + 1, len(ring))
    squares, losses = account.squares, account.losses_squared
    keep_lowest(lowest, ring, place, 1.0, taken, oldest, terms.confidence)
    if taken < len(ring):
        _move_on(account, value, n)
    else:
        _exchange(account, oldest, value, n)
    is_precise = account.squares >= _LEFT * squares and account.losses_squared >= _LEFT * losses
    if place == 0 or not is_precise or not math.isfinite(account.squares):
        _sum_up(account, ring, n)
    _read(account, lowest, n, terms)


@part
def _read(account: Row, lowest: Floats, n: int, terms: Row) -> None:
    account.volatility = math.nan
    account.sharpe = math.nan
    account.sortino = math.nan
    account.value_at_risk = math.nan
    if n < 2 or not math.isfinite(account.squares):
        return
    deviation = math.sqrt(account.squares / (n - 1))
    downside = math.sqrt(account.losses_squared / n)
    year = math.sqrt(terms.risk_bars_per_year)
    account.volatility = deviation * year
    if deviation > 0.0:
        account.sharpe = account.mean / deviation * year
    if downside > 0.0:
        account.sortino = account.mean / downside * year
    account.value_at_risk = max(0.0, -lowest[worst_count(terms.confidence, n) - 1])
