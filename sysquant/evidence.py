"""How much the returns of a strategy prove, after all that was tried: the gate's decision.

Input: returns after costs, the number of trials behind them, and how far those lie apart. Output:
the deflated Sharpe ratio, what was earned after a first third, and whether both are enough; of one
strategy or of thousands at once. No engine runs here, and no ledger is read.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sysquant import intervals, performance
from sysquant.errors import DataError
from sysquant.keys import check_kind, check_number
from sysquant.types import Floats

FIRST = 3  # the first third of the returns is only trained on
FOLDS = 4  # of the rest: a choice before each


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the `statistics` of a strategy must reach: `conf/promotion`, section `statistics`.

    `deflated`, `periods` and `walk_sharpe` decide by returns alone, see `judge`; the others need
    the engine. None: it is measured and told, and not asked for.

    Parameters
    ----------
    deflated : least probability that the true Sharpe ratio is above what the best of all trials
        shows by luck.
    periods : least number of returns.
    walk_sharpe : Sharpe ratio that what is earned out of sample must exceed.
    overfitting : most probability that the choice among its trials was overfitted.
    costs : multiple of all costs at which it must still earn.
    plateau : least median Sharpe ratio of its neighbours, a fraction of its own.
    capacity : least, in multiples of the book's capital.
    holdout : data that no choice may rest on: the last `30d`, or what begins at `2026-01-31`; None:
        as `research.hold_out` declared it, if it did.
    holdout_reads : most other configurations of its lineage that were run there.
    rerun : trials of the ledger that are run again, at most; of more, so many are drawn.

    Raises
    ------
    ConfigError
        If one cannot be meant.
    """

    deflated: float = 0.95
    periods: int = 60
    walk_sharpe: float | None = 0.0
    overfitting: float | None = 0.5
    costs: float | None = 2.0
    plateau: float | None = 0.5
    capacity: float | None = 1.0
    holdout: str | None = None
    holdout_reads: int | None = 0
    rerun: int = 200

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_number("deflated", self.deflated, least=0, below=1)
        check_number("periods", self.periods, least=2, whole=True)
        check_number("rerun", self.rerun, least=0, whole=True)
        check_kind("holdout", self.holdout, str | None, "like 30d or 2026-01-31")
        whole = {"holdout_reads": {"least": 0, "whole": True}}
        bounds = {"overfitting": {"least": 0, "most": 1}, "costs": {"least": 1}, **whole}
        for name in ("walk_sharpe", "overfitting", "costs", "plateau", "capacity", "holdout_reads"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, **bounds.get(name, {}))


class Judged(NamedTuple):
    """What `judge` found of N strategies.

    Parameters
    ----------
    passes : (N,) whether all that is asked of returns alone is reached.
    sharpe : (N,) per period; NaN where returns do not differ or are not finite.
    deflated : (N,) probability, see `deflated_sharpe`; NaN likewise.
    walk_sharpe : (N,) of what came after the first third, per period; NaN likewise.
    """

    passes: NDArray[np.bool_]
    sharpe: Floats
    deflated: Floats
    walk_sharpe: Floats


def deflated_sharpe(returns: ArrayLike, trials: ArrayLike, deviation: ArrayLike) -> Floats:
    """Probability that the true Sharpe ratio is above what the best of the trials shows by luck.

    With one trial it is the probabilistic Sharpe ratio against 0. Returns are taken as
    independent, and of any skewness and kurtosis.

    Parameters
    ----------
    returns : (T, N) simple returns after costs of N strategies.
    trials : (N,) or one number for all: how many each was chosen from, itself included.
    deviation : (N,) or one: standard deviation of those trials' Sharpe ratios, per period.

    Returns
    -------
    (N,) in [0, 1]; NaN with fewer than two returns, or where they do not differ or are not finite.

    References
    ----------
    D. H. Bailey, M. Lopez de Prado, The deflated Sharpe ratio, Journal of Portfolio Management 40,
    2014.
    """
    table = _table(returns)
    n = table.shape[1]
    if n < 2:
        return np.full(len(table), np.nan)
    sharpe = performance.sharpe(table, 1.0)
    skewness, kurtosis = performance.moments(table)
    counts, apart = np.broadcast_to(trials, len(table)), np.broadcast_to(deviation, len(table))
    shapes = zip(sharpe, skewness, kurtosis, counts, apart, strict=True)
    return np.array([
        intervals.deflated_sharpe(float(s), n, float(a), float(k), int(count), float(d))
        for s, a, k, count, d in shapes
    ])  # fmt: skip


def judge(
    returns: ArrayLike, trials: ArrayLike, deviation: ArrayLike, limits: Limits,
    per_year: float = 1.0,
) -> Judged:  # fmt: skip
    """Whether returns alone are enough for a promotion, of N strategies at once.

    Parameters
    ----------
    returns, trials, deviation : as of `deflated_sharpe`.
    limits : `deflated`, `periods` and `walk_sharpe` are held to. A strategy that is alone has
        nothing to choose from: what it earned after the first third is its walk.
    per_year : returns in a year.
    """
    table = _table(returns)
    sharpe, later = _sharpe(table), _sharpe(table[:, table.shape[1] // FIRST :])
    deflated = deflated_sharpe(returns, trials, deviation)
    passes = deflated >= limits.deflated
    if limits.walk_sharpe is not None:
        passes &= later * math.sqrt(per_year) > limits.walk_sharpe
    return Judged(passes & (table.shape[1] >= limits.periods), sharpe, deflated, later)


def walked(returns: ArrayLike) -> Floats:
    """Returns out of sample of who always takes what was best so far.

    The first third is trained on; before each of `FOLDS` equal parts of the rest the strategy with
    the highest Sharpe ratio over all rows until then is taken, the first of equals. Strategies go
    on as they stand: nothing is bought anew at a change.

    Causal: what is taken for a part rests on the rows before it.

    Parameters
    ----------
    returns : (T, N) simple returns of N candidates.

    Returns
    -------
    (T - T // 3,) of them; those of the first one where none has a Sharpe ratio.

    References
    ----------
    R. Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, ch. 11.
    """
    table = _table(returns)
    count = table.shape[1]
    edges = np.linspace(count // FIRST, count, FOLDS + 1).astype(int)
    parts = [np.empty(0)]
    for begin, end in pairwise(edges.tolist()):
        known = _sharpe(table[:, :begin])
        chosen = int(np.argmax(np.where(np.isnan(known), -np.inf, known)))
        parts.append(table[chosen, begin:end])
    return np.concatenate(parts)


def sharpe_limits(returns: Floats, per_year: float) -> tuple[float, float, float]:
    """Sharpe ratio per year and its limits at 95 %; NaN where there is none.

    Its error is that of Mertens 2002, see `intervals.sharpe_error`.
    """
    if len(returns) < 2:
        return intervals.UNKNOWN
    sharpe = float(performance.sharpe(returns, 1.0))
    skewness, kurtosis = (float(each) for each in performance.moments(returns))
    error = intervals.sharpe_error(sharpe, len(returns), skewness, kurtosis)
    year = math.sqrt(per_year)
    _, low, high = intervals.around(sharpe * year, error * year)
    return sharpe * year, low, high


def _sharpe(table: Floats) -> Floats:
    # Per period, of each row.
    if table.shape[1] < 2:
        return np.full(len(table), np.nan)
    return performance.sharpe(table, 1.0)


def _table(returns: ArrayLike) -> Floats:
    # (N, T), a strategy a row in memory: what is summed lies side by side.
    table = np.asarray(returns, np.float64)
    if table.ndim != 2:
        raise DataError(f"returns must be (T, N), of strategies side by side, were {table.shape}")
    table = np.ascontiguousarray(table.T)
    return np.where(np.isfinite(table), table, np.nan)
