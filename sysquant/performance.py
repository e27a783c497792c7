"""Statistics of returns: growth, risk, ratios, against a benchmark, by month.

Input: equity at any times, sampled once to `Returns`: simple returns per period of a calendar
grid. Output: numbers. A year is 365.25 days; nothing is scaled by a count of trading days. No rate
is taken off any return. Nothing here knows orders, or how sure a number is (`summary` does).

Functions of arrays work along the last axis, so that a bootstrap computes all its samples by the
code that computed the value. They are NaN below two returns, or where their divisor is 0.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sysquant.errors import ConfigError
from sysquant.times import interval_ns, length_name
from sysquant.types import SECOND, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

DAY = 86_400 * SECOND
YEAR = 365.25 * DAY  # ns
CONFIDENCE = 0.95  # of value at risk and expected shortfall
PERIODS = tuple(map(interval_ns, ("1d", "4h", "1h", "15m", "5m", "1m", "1s")))
ROUNDING = 1e-12  # of the largest return: a deviation that rounding alone leaves


@dataclass(frozen=True, slots=True)
class Returns:
    """Simple returns per period of a calendar grid.

    Parameters
    ----------
    ts : (N,) int64 ends of the periods, ns UTC; periods without an event are left out.
    values : (N,) fractions.
    every : length of a period, ns.
    start : time of the equity that the first return is of, ns UTC.
    end : of the last one, ns UTC.
    """

    ts: Ints
    values: Floats
    every: int
    start: int
    end: int

    @property
    def days(self) -> float:
        """Elapsed, by the calendar."""
        return (self.end - self.start) / DAY

    @property
    def per_year(self) -> float:
        """Returns in a year of 365.25 days, as often as they came in the time that elapsed.

        Around the clock this is 365.25 for days; of an exchange, what days it was open. A period
        cut short counts as one: its return is as much smaller.
        """
        elapsed = self.end - self.start
        return len(self.values) * YEAR / elapsed if elapsed > 0 else math.nan

    @property
    def period(self) -> str:
        """Length of a period as people write it."""
        return length_name(self.every)


def period_of(elapsed: int, finest: int) -> int:
    """Length of the periods that suit a backtest, ns.

    A day from thirty days on. Below, the longest of 4h, 1h, 15m, 5m, 1m and 1s that leaves thirty
    periods; never below `finest`.

    Parameters
    ----------
    elapsed : first to last equity, ns.
    finest : time between two values of equity, ns.
    """
    fits = [length for length in PERIODS if 30 * length <= elapsed]
    return max(fits[0] if fits else SECOND, finest)


def period(ts: Ints) -> int:
    """Length of the periods for equity at these times, ns; see `period_of`."""
    finest = int(np.median(np.diff(ts))) if len(ts) > 1 else 1
    return period_of(int(ts[-1] - ts[0]) if len(ts) else 0, finest)


def sample(ts: Ints, equity: Floats, every: int) -> Returns:
    """Returns of the last equity of every period; a period ends at a multiple of `every`, UTC.

    Equity at the very end of a period belongs to it. Periods without equity are left out: the next
    return is over all the time since. Equity of 0 or less ends the series there.

    Parameters
    ----------
    ts : (T,) int64, ns UTC, rising.
    equity : (T,) quote currency; the first is what was begun with.
    every : ns.

    Raises
    ------
    ConfigError
        If `every` is not above 0.
    """
    if every <= 0:
        raise ConfigError(f"every must be > 0 ns, was {every}")
    ruined = np.flatnonzero(equity <= 0.0)
    if len(ruined):
        ts, equity = ts[: ruined[0] + 1], equity[: ruined[0] + 1]
    if not len(ts):
        return Returns(np.empty(0, np.int64), np.empty(0), every, 0, 0)
    period = -(-ts // every)
    last = np.append(np.flatnonzero(np.diff(period)), len(ts) - 1)
    last = last[last > 0]
    values = equity[last]
    before = np.append(equity[:1], values[:-1])[: len(values)]
    return Returns(period[last] * every, values / before - 1.0, every, int(ts[0]), int(ts[-1]))


def growth(returns: Floats) -> Floats:
    """What 1 became, along the last axis; never below 0."""
    return np.maximum(np.prod(1.0 + returns, axis=-1), 0.0)


def cagr(returns: Floats, per_year: float) -> Floats:
    """Growth per year, a fraction, compounded by elapsed time."""
    with np.errstate(over="ignore"):
        return growth(returns) ** (per_year / returns.shape[-1]) - 1.0


def volatility(returns: Floats, per_year: float) -> Floats:
    """Standard deviation of returns (ddof 1), per year."""
    return deviation(returns) * math.sqrt(per_year)


def deviation(returns: Floats) -> Floats:
    """Standard deviation per period (ddof 1); 0 where only rounding differs."""
    if returns.shape[-1] < 2:
        return np.full(returns.shape[:-1], math.nan)
    found = returns.std(axis=-1, ddof=1)
    is_real = found > ROUNDING * np.abs(returns).max(axis=-1)
    return np.asarray(np.where(is_real, found, 0.0), np.float64)


def ratio(over: Floats, under: Floats) -> Floats:
    """`over / under`; NaN where `under` is not above 0."""
    over, under = np.asarray(over, float), np.asarray(under, float)
    return np.divide(over, under, out=np.full(under.shape, math.nan), where=under > 0.0)


def sharpe(returns: Floats, per_year: float) -> Floats:
    """Mean by standard deviation (ddof 1), per year; no rate is taken off.

    References
    ----------
    W. F. Sharpe, The Sharpe Ratio, Journal of Portfolio Management 21, 1994.
    """
    return ratio(returns.mean(axis=-1), deviation(returns)) * math.sqrt(per_year)


def sortino(returns: Floats, per_year: float) -> Floats:
    """Mean by the root of the mean of min(0, r)^2, per year.

    References
    ----------
    F. A. Sortino, L. N. Price, Performance Measurement in a Downside Risk Framework, Journal of
    Investing 3, 1994.
    """
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=-1))
    return ratio(returns.mean(axis=-1), downside) * math.sqrt(per_year)


def _wealth(returns: Floats) -> Floats:
    start = np.ones((*returns.shape[:-1], 1))
    return np.cumprod(np.concatenate([start, 1.0 + returns], axis=-1), axis=-1, dtype=np.float64)


def max_drawdown(returns: Floats) -> Floats:
    """Lowest of equity against its highest so far, the start included: a fraction <= 0."""
    wealth = _wealth(returns)
    return (wealth / np.maximum.accumulate(wealth, axis=-1)).min(axis=-1) - 1.0


def drawdown_length(returns: Floats) -> Floats:
    """Longest time from a peak to its recovery, or to the end, in periods."""
    wealth = _wealth(returns)
    place = np.arange(wealth.shape[-1])
    peak = np.maximum.accumulate(wealth, axis=-1)
    since = np.maximum.accumulate(np.where(wealth >= peak, place, 0), axis=-1)
    below = (place - since).max(axis=-1)
    # A recovery ends in the period after the last one below.
    back = (np.diff(since, axis=-1)).max(axis=-1, initial=0)
    return np.where(back > 1, np.maximum(below, back), below).astype(float)


def drawdown(equity: Floats) -> Floats:
    """Equity against its highest so far: fractions <= 0."""
    return equity / np.maximum.accumulate(equity) - 1.0


def longest_drawdown(ts: Ints, equity: Floats) -> int:
    """Longest time from a peak of `equity` to its recovery, or to the end, ns."""
    if not len(ts):
        return 0
    peaks = ts[equity >= np.maximum.accumulate(equity)]
    steps = np.diff(np.append(peaks, ts[-1]))
    # Peak after peak at neighbouring values is a rise, not a drawdown.
    places = np.append(np.searchsorted(ts, peaks), len(ts))
    return int(np.where(np.diff(places) > 1, steps, 0).max())


def value_at_risk(returns: Floats, confidence: float = CONFIDENCE) -> Floats:
    """Loss of one period that is exceeded with probability 1 - confidence; > 0 is a loss.

    Historical: minus the quantile of the returns, linear between two of them.

    References
    ----------
    J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed., 1996.
    """
    return -np.quantile(returns, 1.0 - confidence, axis=-1)


def expected_shortfall(returns: Floats, confidence: float = CONFIDENCE) -> Floats:
    """Mean loss of the worst 1 - confidence of the periods, at least one; > 0 is a loss.

    References
    ----------
    Acerbi, Tasche, On the coherence of expected shortfall, Journal of Banking and Finance 26, 2002.
    """
    last = int((returns.shape[-1] - 1) * (1.0 - confidence))
    return -np.partition(returns, last, axis=-1)[..., : last + 1].mean(axis=-1)


def moments(returns: Floats) -> tuple[Floats, Floats]:
    """Skewness and kurtosis (3 when normal), of all returns there are; NaN without deviation."""
    off = returns - returns.mean(axis=-1, keepdims=True)
    variance = np.where(deviation(returns) > 0.0, np.mean(off**2, axis=-1), 0.0)
    return ratio(np.mean(off**3, axis=-1), variance**1.5), ratio(
        np.mean(off**4, axis=-1), variance**2
    )


def beta(returns: Floats, benchmark: Floats) -> Floats:
    """Covariance with the benchmark's returns by their variance.

    References
    ----------
    W. F. Sharpe, Capital asset prices, Journal of Finance 19, 1964.
    """
    off = benchmark - benchmark.mean(axis=-1, keepdims=True)
    variance = np.where(deviation(benchmark) > 0.0, np.mean(off**2, axis=-1), 0.0)
    return ratio(np.mean(off * returns, axis=-1), variance)


def alpha(returns: Floats, benchmark: Floats, per_year: float) -> Floats:
    """Mean return that beta times the benchmark's leaves, compounded to a year: a fraction.

    References
    ----------
    M. C. Jensen, The performance of mutual funds, Journal of Finance 23, 1968.
    """
    left = returns.mean(axis=-1) - beta(returns, benchmark) * benchmark.mean(axis=-1)
    with np.errstate(over="ignore"):
        return np.maximum(1.0 + left, 0.0) ** per_year - 1.0


def tracking_error(returns: Floats, benchmark: Floats, per_year: float) -> Floats:
    """Standard deviation of returns less the benchmark's (ddof 1), per year.

    References
    ----------
    R. Roll, A mean/variance analysis of tracking error, Journal of Portfolio Management 18, 1992.
    """
    return volatility(returns - benchmark, per_year)


def information_ratio(returns: Floats, benchmark: Floats, per_year: float) -> Floats:
    """Sharpe ratio of returns less the benchmark's.

    References
    ----------
    T. H. Goodwin, The information ratio, Financial Analysts Journal 54, 1998.
    """
    return sharpe(returns - benchmark, per_year)


def rolling_sharpe(returns: Floats, window: int, per_year: float) -> Floats:
    """Sharpe ratio of the last `window` returns, at every one of them.

    Causal: row t uses returns up to and including t.

    Parameters
    ----------
    returns : (N,) fractions per period.
    window : periods, at least 2.
    per_year : periods in a year.

    Returns
    -------
    (N,) per year; NaN in the first `window - 1` rows, and where returns do not differ.

    Raises
    ------
    ConfigError
        If `window` is below 2.
    """
    if window < 2:
        raise ConfigError(f"window must be >= 2 periods, was {window}")
    found = np.full(len(returns), math.nan)
    if len(returns) >= window:
        stretches = np.lib.stride_tricks.sliding_window_view(returns, window)
        found[window - 1 :] = sharpe(stretches, per_year)
    return found


def monthly(equity: "pd.Series") -> "pd.DataFrame":
    """Return of every calendar month (UTC) and year that `equity` was in.

    Equity at the very end of a month belongs to it; the first and the last month may be cut short.

    Parameters
    ----------
    equity : quote currency by time, rising; the first is what was begun with.

    Returns
    -------
    One row a year: months 1 to 12 and `year`, fractions; NaN where there was no equity.
    """
    import pandas as pd

    inside = equity.iloc[1:]
    moment = pd.DatetimeIndex(inside.index) - pd.Timedelta(1, "ns")
    last = inside.groupby([moment.year, moment.month]).last()
    returns = last / last.shift(fill_value=equity.iloc[0] if len(equity) else 1.0) - 1.0
    table = returns.unstack().reindex(columns=range(1, 13)).rename_axis("year").astype(float)
    table["year"] = (1.0 + table).prod(axis=1) - 1.0
    return table.rename_axis(columns=None)
