"""Many histories out of one: what choosing among trials earns on the paths that splits make up.

Input: the returns of every trial, and combinatorial purged splits. Output: a Sharpe ratio for every
path, on which each return was earned by the trial that was best elsewhere, and the probability that
such a choice is overfitted. Nothing is run or drawn by chance here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sysquant import performance
from sysquant.errors import ConfigError
from sysquant.overfitting import Overfitting, overfitting
from sysquant.splits import CombinatorialPurged
from sysquant.types import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Paths:
    """What a choice by Sharpe ratio came to out of sample, on many paths through one history.

    All ratios are of the returns that were given: those of a sweep lie between snapshots, which is
    finer than the periods of its own ratios, and so these differ a little from them.

    Parameters
    ----------
    returns : (P, T) of every path, simple, fractions per row.
    sharpes : (P,) their Sharpe ratios, per year; NaN where returns do not vary.
    chosen : (S,) the trial that was best in each split's training, by its place.
    in_sample, out_of_sample : (S,) its Sharpe ratios there and in the split's test, per year.
    best : Sharpe ratio of the trial that is best on all of history, per year.
    overfitting : how often a choice on one half of history is below the median on the other.
    """

    returns: Floats
    sharpes: Floats
    chosen: Ints
    in_sample: Floats
    out_of_sample: Floats
    best: float
    overfitting: Overfitting

    @property
    def loss(self) -> float:
        """Share of the paths whose Sharpe ratio is not above 0."""
        return float(np.mean(~(self.sharpes > 0.0)))

    def __repr__(self) -> str:
        known = self.sharpes[~np.isnan(self.sharpes)]
        low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]) if len(known) else [np.nan] * 3
        return (
            f"{len(self.sharpes):,} paths of {len(self.chosen):,} splits, "
            f"{len(np.unique(self.chosen))} trials chosen\n"
            f"  Sharpe out of sample {middle:.2f} (5 % to 95 % of paths: {low:.2f} to {high:.2f}), "
            f"not above 0 on {self.loss:.0%}; the best of all of history has {self.best:.2f}\n"
            f"  {self.overfitting!r}"
        )


def paths(
    returns: "pd.DataFrame", splits: CombinatorialPurged | None = None, *, blocks: int = 10
) -> Paths:
    """What the best trial of each split's training earns in its test, joined to whole histories.

    A trial's return in a row rests on nothing after it, so each trial is run once, over all of
    history: `Sweep.returns`.

    Parameters
    ----------
    returns : (T, trials) of every trial that was made, simple, indexed by time: what
        `sweep(..., returns=True).returns` has.
    splits : by default ten groups of which three are tested at once: 120 splits, 36 paths.
    blocks : of `overfitting`.

    Returns
    -------
    The best trial is the one of the highest Sharpe ratio, the first of equals.

    Raises
    ------
    ConfigError
        If there are no returns, as of a sweep that did not keep them; or as of `overfitting`.
    DataError
        As of `overfitting`, or if there are fewer rows than groups.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 12.
    """
    if returns is None:
        raise ConfigError("there are no returns; ask for them by sweep(..., returns=True)")
    splits = splits or CombinatorialPurged(10, 3)
    judged = overfitting(returns, blocks)
    table = np.ascontiguousarray(returns.to_numpy(np.float64).T)
    index: Any = returns.index
    ts = index.as_unit("ns").asi8
    per_year = performance.YEAR * (len(ts) - 1) / (ts[-1] - ts[0])

    def sharpe(values: Floats) -> Floats:
        return performance.sharpe(values, per_year)

    chosen, parts, scores = list[int](), list[Floats](), list[tuple[float, float]]()
    for train, test in splits.split(returns):
        own = sharpe(table[:, train])
        best = 0 if np.isnan(own).all() else int(np.nanargmax(own))
        chosen.append(best)
        parts.append(table[best, test])
        scores.append((float(own[best]), float(sharpe(table[best, test]))))
    joined = splits.join(parts, returns)
    inside, outside = np.array(scores).T
    whole = sharpe(table)
    return Paths(
        joined, sharpe(joined), np.array(chosen), inside, outside,
        float(whole[int(np.nanargmax(whole))]) if not np.isnan(whole).all() else np.nan, judged,
    )  # fmt: skip
