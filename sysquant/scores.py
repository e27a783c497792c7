"""What a run caused, counted from the engine's buffers as they fill; no row is kept.

Input: rows of every table, a buffer at a time. Output: counts, costs, a hash of every fill, and
figures of the equity at its snapshots. The same run in other pieces gives the same row.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from sysquant import performance
from sysquant.compiled import kernel
from sysquant.records import Rows
from sysquant.risk import RiskChain
from sysquant.types import Floats, Ints

# Places in the counts, those of the checks come last; and in the sums.
_SIGNALS, _APPROVED, _FILLS, _SNAPSHOTS, _REFUSED = range(5)
_FEES, _SLIPPAGE, _FINANCING, _TRADED = range(4)
# Numbers of a row, but for refusals by check.
COLUMNS = (
    "signals", "approved", "refused", "fills", "equity", "return", "sharpe", "drawdown", "turnover",
    "costs", "fees", "slippage", "financing", "traded", "elapsed_days", "periods", "sharpe_period",
    "skew", "kurtosis",
)  # fmt: skip

Row = dict[str, float | int | str]


@kernel
def _count(
    orders: Rows, fills: Rows, financing: Rows, snapshots: Rows, end: int, checks: int,
    counts: Ints, sums: Floats, ts: Ints, equity: Floats,
) -> None:  # fmt: skip
    # Adds the rows up; `equity` gets the whole book's at each snapshot before `end`.
    for order in orders:
        if order.approved == 1:
            counts[_APPROVED] += 1
            continue
        counts[_REFUSED] += 1
        for check in range(checks):
            counts[_REFUSED + 1 + check] += order.refused_by >> check & 1
    for fill in fills:
        sums[_FEES] += fill.fee
        sums[_SLIPPAGE] += fill.slippage
        sums[_TRADED] += abs(fill.quantity * fill.price)
    for row in financing:
        sums[_FINANCING] += row.amount
    kept = counts[_SNAPSHOTS]
    for row in snapshots:
        if row.symbol >= 0 or row.ts >= end:
            continue
        if row.strategy < 0:  # the pool, which every snapshot begins with
            ts[kept] = row.ts
            equity[kept] = 0.0
            kept += 1
        equity[kept - 1] += row.equity
    counts[_SNAPSHOTS] = kept


@kernel
def _moments(ts: Ints, equity: Floats, every: int) -> tuple[int, int, float, float, float, float]:
    # Of the returns that `performance.sample` takes: how many, when the last ends, mean, standard
    # deviation (ddof 1), third and fourth moment. Compiled: threads do not wait for each other.
    returns, periods, before, end = np.empty(len(ts)), 0, equity[0], 0
    for i in range(1, len(ts)):
        is_ruined = equity[i] <= 0.0
        if is_ruined or i == len(ts) - 1 or -ts[i] // every != -ts[i + 1] // every:
            returns[periods] = equity[i] / before - 1.0
            periods, before, end = periods + 1, equity[i], i
        if is_ruined:
            break
    mean, second, third, fourth, largest = 0.0, 0.0, 0.0, 0.0, 0.0
    for value in returns[:periods]:
        mean += value / periods
        largest = max(largest, abs(value))
    for value in returns[:periods]:
        square = (value - mean) ** 2
        second += square
        third += square * (value - mean)
        fourth += square * square
    deviation = math.sqrt(second / max(1, periods - 1))
    if periods < 2 or not deviation > performance.ROUNDING * largest:
        return periods, ts[end], math.nan, math.nan, math.nan, math.nan
    variance = second / periods
    return (
        periods, ts[end], mean, deviation, third / periods / variance**1.5,
        fourth / periods / variance**2,
    )  # fmt: skip


def snapshots(rows: Mapping[str, np.ndarray], end: int, equity: float) -> tuple[Ints, Floats]:
    """Times (ns UTC) and equity of a book at its snapshots and at the end, from all of its rows.

    Parameters
    ----------
    rows : of every table.
    end : last event, ns UTC, with the equity of the book then.
    """
    of = rows["portfolio_history"]
    ts, found = np.zeros(len(of) + 1, np.int64), np.zeros(len(of) + 1)
    counts = np.zeros(_REFUSED + 1, np.int64)
    orders, fills, financing = (rows[n][:0] for n in ("orders", "executions", "financing"))
    _count(orders, fills, financing, of, end, 0, counts, np.zeros(4), ts, found)
    kept = counts[_SNAPSHOTS]
    ts[kept], found[kept] = end, equity
    return ts[: kept + 1], found[: kept + 1]


def figures(ts: Ints, equity: Floats, every: int) -> Row:
    """What an equity comes to, as a backtest's statistics say it.

    Parameters
    ----------
    ts : (T,) snapshots and the end, ns UTC, rising.
    equity : (T,) quote currency.
    every : length of the periods, ns, see `performance.period`.

    Returns
    -------
    sharpe (per year), and what it rests on: elapsed_days, periods, sharpe_period, skew, kurtosis;
    and drawdown (the worst, over all points; a fraction <= 0). NaN where there is none.
    """
    periods, end, mean, deviation, skew, kurtosis = _moments(ts, equity, every)
    elapsed = int(end - ts[0])
    sharpe = mean / deviation
    return {
        "sharpe": sharpe * math.sqrt(periods * performance.YEAR / elapsed) if elapsed else math.nan,
        "drawdown": float(performance.drawdown(equity).min()),
        "elapsed_days": elapsed / performance.DAY, "periods": periods, "sharpe_period": sharpe,
        "skew": skew, "kurtosis": kurtosis,
    }  # fmt: skip


class Score:
    """Counts of one run after another, in the same arrays; not thread-safe.

    Parameters
    ----------
    risk : chain of the runs: who refuses.
    start, end : times of the first and the last event, ns UTC.
    snapshot_ns : between two snapshots.
    """

    def __init__(self, risk: RiskChain, start: int, end: int, snapshot_ns: int) -> None:
        self._risk, self._end = risk, end
        most = max(0, end - start) // snapshot_ns + 4  # and the end
        self._every = 0
        self._counts = np.zeros(_REFUSED + 1 + len(risk.names), np.int64)
        self._sums = np.zeros(4)
        self._ts, self._equity = np.zeros(most, np.int64), np.zeros(most)
        self._hash = hashlib.sha256()

    def open(self) -> None:
        """Begin the next run."""
        self._counts[:] = 0
        self._sums[:] = 0.0
        self._hash = hashlib.sha256()

    def take(self, rows: Mapping[str, np.ndarray]) -> None:
        """Count some rows of every table; they may be written over afterwards."""
        fills = rows["executions"]
        self._counts[_SIGNALS] += len(rows["signals"])
        self._counts[_FILLS] += len(fills)
        self._hash.update(fills.view(np.uint64).data)
        _count(
            rows["orders"], fills, rows["financing"], rows["portfolio_history"], self._end,
            len(self._risk.names), self._counts, self._sums, self._ts, self._equity,
        )  # fmt: skip

    def snapshots(self) -> tuple[Ints, Floats]:
        """Times (ns UTC) of the run's snapshots, and the equity of the book then; copies."""
        kept = int(self._counts[_SNAPSHOTS])
        return self._ts[:kept].copy(), self._equity[:kept].copy()

    def close(self, equity: float, capital: float) -> Row:
        """The run in one row: what it ends with, what it did and what that cost.

        Parameters
        ----------
        equity : at the end, and `capital` at the start; quote currency.

        Returns
        -------
        signals, approved, refused, fills and refusals by check (`refused_<check>`); fees, slippage,
        financing, costs and traded in quote currency; equity (quote currency), return (a fraction),
        turnover (traded per mean equity, a year); those of `figures`; fills_hash
        (SHA-256 over every byte of every fill).
        """
        counts, sums = self._counts.tolist(), self._sums.tolist()
        kept = counts[_SNAPSHOTS]
        self._ts[kept], self._equity[kept] = self._end, equity
        ts = self._ts[: kept + 1]
        if not self._every:  # snapshots are taken at the same times in every run
            self._every = performance.period(ts)
        held = float(self._equity[:kept].mean()) if kept else capital
        refusals = zip(self._risk.names, counts[_REFUSED + 1 :], strict=True)
        found = figures(ts, self._equity[: kept + 1], self._every)
        years = float(found["elapsed_days"]) * performance.DAY / performance.YEAR
        return {
            "signals": counts[_SIGNALS], "approved": counts[_APPROVED],
            "refused": counts[_REFUSED], "fills": counts[_FILLS],
            "equity": equity, "return": equity / capital - 1.0,
            **found, "turnover": sums[_TRADED] / held / years if years else math.nan,
            "costs": sums[_FEES] + sums[_SLIPPAGE] + sums[_FINANCING],
            "fees": sums[_FEES], "slippage": sums[_SLIPPAGE], "financing": sums[_FINANCING],
            "traded": sums[_TRADED], "fills_hash": self._hash.hexdigest(),
        } | {f"refused_{name}": count for name, count in refusals}  # fmt: skip
