"""The statistics of a backtest as a list of estimates: value, how sure it is, unit, source.

Input: sampled returns, those of a benchmark, and arrays about trips and fills. Output: `Estimate`
records. Limits are at 95 %: by formula where there is one, else from a block bootstrap of the
periods, which keeps returns, benchmark and exposure of a period together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sysquant import intervals, performance
from sysquant.intervals import UNKNOWN, Limits
from sysquant.performance import CONFIDENCE, Returns
from sysquant.types import Floats, Ints

LEAST_DAYS = 30  # below which nothing is compounded to a year
PARTICIPATION = 0.1  # of a bar's volume: what capacity lets a fill take
FILLS_WITHIN = 0.95  # of the fills keep to it

# name -> unit, and where it comes from.
_TERMS: Mapping[str, tuple[str, str]] = {
    "total_return": ("fraction", "last equity / first - 1"),
    "cagr": ("fraction a year", "compounded by elapsed time"),
    "volatility": ("fraction a year", "standard deviation of returns, ddof 1"),
    "sharpe": ("a year", "Sharpe 1994, no rate taken off; error by Mertens 2002"),
    "probabilistic_sharpe": ("probability", "that Sharpe > 0: Bailey, Lopez de Prado 2012"),
    "sortino": ("a year", "Sortino, Price 1994, target 0"),
    "calmar": ("a year", "Young 1991: cagr / -max_drawdown"),
    "max_drawdown": ("fraction", "lowest of equity / highest so far - 1, at every snapshot"),
    "drawdown_length": ("days", "longest from a peak to recovery or the end, of snapshots"),
    "value_at_risk": ("fraction per {}", f"historical, {CONFIDENCE:.0%}, a loss is > 0"),
    "expected_shortfall": ("fraction per {}", f"mean loss of the worst {1 - CONFIDENCE:.0%}"),
    "skewness": ("", "third standardised moment of returns; normal 0"),
    "kurtosis": ("", "fourth standardised moment of returns; normal 3"),
    "benchmark_return": ("fraction", "of the benchmark over the same time"),
    "alpha": ("fraction a year", "Jensen 1968, compounded"),
    "beta": ("", "Sharpe 1964: covariance / variance of the benchmark"),
    "information_ratio": ("a year", "Goodwin 1998: active return / tracking error"),
    "tracking_error": ("fraction a year", "Roll 1992: volatility of the active return"),
    "gross_exposure": ("fraction", "sum of |value| / equity, mean over the periods of their means"),
    "net_exposure": ("fraction", "sum of value / equity, mean over the periods of their means"),
    "time_in_market": ("fraction", "snapshots with a position"),
    "turnover": ("a year", "value bought and sold / equity"),
    "trips": ("count", "round trips that ended, flat to flat"),
    "hit_rate": ("fraction", "of them with net P&L > 0; limits by Wilson 1927"),
    "payoff": ("", "mean gain / mean loss of them, net"),
    "holding_time": ("hours", "mean of them"),
    "cost_per_trade": ("bp of value", "fee and slippage of a fill"),
    "capacity": (
        "quote currency",
        f"capital at which {FILLS_WITHIN:.0%} of fills take <= {PARTICIPATION:.0%} of their bar",
    ),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic, and how sure it is.

    Parameters
    ----------
    name : of it.
    value : NaN when it is not defined.
    error : standard error; NaN when it is not known.
    low, high : limits at 95 %; NaN likewise.
    unit : "" for a plain number.
    source : its definition, or who it is by.
    """

    name: str
    value: float
    error: float
    low: float
    high: float
    unit: str
    source: str


def of_returns(
    own: Returns, benchmark: Floats | None, drawdown: tuple[float, float], *, sure: bool = True
) -> list[Estimate]:
    """Statistics of returns, and against a benchmark.

    Parameters
    ----------
    own : of the book.
    benchmark : (N,) returns of it, in the same periods; None leaves out what needs it.
    drawdown : largest (a fraction <= 0) and longest (days), as finely as they are known.
    sure : whether limits are computed as well, which takes a bootstrap; else they are NaN.

    Returns
    -------
    In the order they are read. What is compounded to a year is NaN below `LEAST_DAYS` days.
    """
    if not len(own.values):
        return []
    against = own.values if benchmark is None else benchmark
    found = _ratios(own, own.values[None], against[None])
    values = {name: float(value[0]) for name, value in found.items()}
    values["max_drawdown"], values["drawdown_length"] = drawdown
    values["calmar"] = float(performance.ratio(np.array(values["cagr"]), np.array(-drawdown[0])))
    limits: dict[str, Limits] = {}
    if sure:
        limits = intervals.bootstrap(
            lambda rows: _ratios(own, own.values[rows], against[rows]),
            len(own.values), memory(own.values),
        )  # fmt: skip
    n = len(own.values)
    per_period = values["sharpe"] / math.sqrt(own.per_year)
    shape = (per_period, n, values["skewness"], values["kurtosis"])
    values["probabilistic_sharpe"] = intervals.probabilistic_sharpe(*shape)
    error = intervals.sharpe_error(*shape) * math.sqrt(own.per_year)
    limits["sharpe"] = intervals.around(values["sharpe"], error)
    beside = ("benchmark_return", "alpha", "beta", "information_ratio", "tracking_error")
    skipped = beside if benchmark is None else ()
    return [
        estimate(name, values[name], limits.get(name, UNKNOWN), own.period)
        for name in _TERMS
        if name in values and name not in skipped
    ]


def _ratios(own: Returns, returns: Floats, benchmark: Floats) -> dict[str, Floats]:
    # Of every row of (S, N) returns.
    year, p = own.per_year, performance
    lowest, (skewness, kurtosis) = p.max_drawdown(returns), p.moments(returns)
    growth = alpha = np.full(len(returns), math.nan)
    if own.days >= LEAST_DAYS:
        growth, alpha = p.cagr(returns, year), p.alpha(returns, benchmark, year)
    return {
        "total_return": p.growth(returns) - 1.0,
        "cagr": growth,
        "volatility": p.volatility(returns, year),
        "sharpe": p.sharpe(returns, year),
        "sortino": p.sortino(returns, year),
        "calmar": p.ratio(growth, -lowest),
        "max_drawdown": lowest,
        "drawdown_length": p.drawdown_length(returns) * own.days / returns.shape[-1],
        "value_at_risk": p.value_at_risk(returns),
        "expected_shortfall": p.expected_shortfall(returns),
        "skewness": skewness,
        "kurtosis": kurtosis,
        "benchmark_return": p.growth(benchmark) - 1.0,
        "alpha": alpha,
        "beta": p.beta(returns, benchmark),
        "information_ratio": p.information_ratio(returns, benchmark, year),
        "tracking_error": p.tracking_error(returns, benchmark, year),
    }


def memory(returns: Floats) -> float:
    """Mean block length for a bootstrap of returns: of themselves or of their size, the longer."""
    return max(intervals.block_length(returns), intervals.block_length(np.abs(returns)))


def of_means(series: Mapping[str, Floats], *, sure: bool = True) -> list[Estimate]:
    """Means per period, with the limits that a block bootstrap of the periods gives.

    Parameters
    ----------
    series : name -> (N,) value in every period, all of the same periods.
    sure : whether limits are computed as well.
    """
    limits: dict[str, Limits] = {}
    rows = min((len(values) for values in series.values()), default=0)
    if sure and rows:
        length = max(intervals.block_length(values) for values in series.values())
        limits = intervals.bootstrap(
            lambda at: {name: values[at].mean(axis=1) for name, values in series.items()},
            rows, length,
        )  # fmt: skip
    return [
        estimate(name, float(values.mean()) if rows else math.nan, limits.get(name, UNKNOWN))
        for name, values in series.items()
    ]


def of_trips(pnl: Floats, held: Ints) -> list[Estimate]:
    """Statistics of round trips that ended.

    Parameters
    ----------
    pnl : (N,) net of all costs, quote currency.
    held : (N,) ns from entry to exit.
    """
    n = len(pnl)
    gains, losses = pnl[pnl > 0.0], -pnl[pnl <= 0.0]
    hits = len(gains)
    hours = held / 3600e9
    return [
        estimate("trips", float(n), UNKNOWN),
        estimate("hit_rate", hits / n if n else math.nan, intervals.share(hits, n)),
        estimate("payoff", *_payoff(gains, losses)),
        estimate("holding_time", *_mean(hours)),
    ]


def of_fills(cost: Floats, value: Floats, participation: Floats, capital: float) -> list[Estimate]:
    """What trading cost, and how much capital it could carry.

    Parameters
    ----------
    cost : (F,) fee and slippage of every fill, quote currency, > 0 when paid.
    value : (F,) what was bought or sold, quote currency, > 0.
    participation : (F,) quantity by the volume of the bar it was filled in; infinite where that
        was 0.
    capital : what was traded with, quote currency.
    """
    n, total = len(value), float(value.sum())
    paid, limits = math.nan, UNKNOWN
    if total > 0.0:
        rate = cost.sum() / total
        paid = 1e4 * float(rate)
        if n > 1:  # of a ratio of two means
            error = (cost - rate * value).std(ddof=1) / math.sqrt(n) / value.mean()
            limits = intervals.around(paid, 1e4 * float(error))
    most, low, high = intervals.quantile(participation, FILLS_WITHIN)
    room = [PARTICIPATION * capital / x if x > 0.0 else math.nan for x in (most, high, low)]
    return [
        estimate("cost_per_trade", paid, limits),
        estimate("capacity", room[0], (math.nan, room[1], room[2])),
    ]


def _mean(values: Floats) -> tuple[float, Limits]:
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), UNKNOWN
    mean = float(values.mean())
    return mean, intervals.around(mean, float(values.std(ddof=1)) / math.sqrt(len(values)))


def _payoff(gains: Floats, losses: Floats) -> tuple[float, Limits]:
    # A ratio of two means of independent values: limits are those of its logarithm.
    if not len(gains) or not len(losses) or not losses.mean() > 0.0:
        return math.nan, UNKNOWN
    found = float(gains.mean() / losses.mean())
    if min(len(gains), len(losses)) < 2:
        return found, UNKNOWN
    relative = math.hypot(*(x.std(ddof=1) / math.sqrt(len(x)) / x.mean() for x in (gains, losses)))
    _, low, high = intervals.around(math.log(found), relative)
    return found, (found * relative, math.exp(low), math.exp(high))


def estimate(name: str, value: float, limits: Limits, period: str = "") -> Estimate:
    """A statistic by its name, with its unit and source."""
    unit, source = _TERMS[name]
    return Estimate(name, value, *limits, unit.format(period), source)


def lines(found: Mapping[str, Estimate], own: Returns, benchmark: str) -> list[str]:
    """The main statistics in words, five lines; a dash for what is not known.

    Parameters
    ----------
    found : name -> estimate.
    own : the returns they are of.
    benchmark : its name.
    """

    def say(name: str, form: str = "+.2%") -> str:
        value = found[name].value if name in found else math.nan
        signed = form.replace("+", "+z") if "+" in form else f"z{form}"  # never -0.00
        return f"{value:{signed}}" if math.isfinite(value) else "-"

    error = found["sharpe"].error if "sharpe" in found else math.nan
    doubt = f" +- {error:.2f}" if math.isfinite(error) else ""
    return [
        f"return {say('total_return')} ({benchmark} instead {say('benchmark_return')}), "
        f"CAGR {say('cagr')}, volatility {say('volatility', '.2%')}",
        f"worst drawdown {say('max_drawdown', '.2%')}, longest {say('drawdown_length', ',.1f')} "
        f"days; of {own.period} at {CONFIDENCE:.0%}: value at risk {say('value_at_risk', '.2%')}, "
        f"shortfall {say('expected_shortfall', '.2%')}",
        f"Sharpe {say('sharpe', '.2f')}{doubt} (above 0: {say('probabilistic_sharpe', '.1%')}), "
        f"Sortino {say('sortino', '.2f')}, Calmar {say('calmar', '.2f')}, "
        f"alpha {say('alpha')}, beta {say('beta', '.2f')}, "
        f"information ratio {say('information_ratio', '.2f')}",
        f"{say('trips', ',.0f')} round trips ended: hit rate {say('hit_rate', '.1%')}, "
        f"payoff {say('payoff', '.2f')}, held {say('holding_time', ',.1f')} h; "
        f"exposure gross {say('gross_exposure', '.1%')}, net {say('net_exposure', '.1%')}",
        f"turnover {say('turnover', ',.0f')} a year, {say('cost_per_trade', '.2f')} bp a fill, "
        f"capacity {say('capacity', ',.0f')}",
    ]
