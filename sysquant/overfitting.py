"""The probability that a choice among trials was overfitted to the history it was made on.

Input: the returns of every trial that was made. Output: how often the best of one half of history
is below the median in the other, and what it earned there. Nothing is drawn by chance.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from sysquant.errors import ConfigError, DataError
from sysquant.keys import check_number
from sysquant.types import Floats, Ints


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Overfitting:
    """How often the best trial of one half of history is no better than the median of the other.

    Parameters
    ----------
    probability : of backtest overfitting: share of logits that are not positive.
    logits : (C,) ln(w / (1 - w)) of the relative rank w, in (0, 1), that the best trial in sample
        has out of sample; C ways to choose half of the blocks.
    chosen : (C,) the best trial in sample.
    in_sample, out_of_sample : (C,) its Sharpe ratios per row, not annualised.
    """

    probability: float
    logits: Floats
    chosen: Ints
    in_sample: Floats
    out_of_sample: Floats

    @property
    def loss(self) -> float:
        """Share of the ways in which the best trial in sample loses out of sample."""
        return float(np.mean(self.out_of_sample < 0))

    def __repr__(self) -> str:
        return (
            f"Overfitting: probability {self.probability:.1%}, over {len(self.logits):,} halves of "
            f"history; the best in sample loses out of sample in {self.loss:.1%}"
        )


def overfitting(returns: ArrayLike, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting, by combinatorially symmetric cross-validation.

    Parameters
    ----------
    returns : (T, trials) of every trial that was made, not of the good ones alone; simple returns,
        fractions, finite. The first T mod `blocks` rows are left out.
    blocks : S, even: history is cut into so many, and every half of them is compared with the
        other half. 16 give 12,870 ways.

    Returns
    -------
    The best trial is the one of the highest Sharpe ratio (0 where returns do not vary), the first
    of equals; a rank shared with others is their average.

    Raises
    ------
    ConfigError
        If `blocks` is not even, in [2, 20].
    DataError
        If there are fewer than 2 trials or 2 rows a block, or a return is not finite.

    References
    ----------
    D. H. Bailey, J. M. Borwein, M. Lopez de Prado and Q. J. Zhu, The Probability of Backtest
    Overfitting, Journal of Computational Finance 20(4), 2017, section 2 (definition 2.2).
    """
    check_number("blocks", blocks, least=2, most=20, whole=True)
    table = np.asarray(returns, np.float64)
    if blocks % 2:
        raise ConfigError(f"blocks must be even, was {blocks}")
    if table.ndim != 2 or table.shape[1] < 2 or len(table) < 2 * blocks:
        raise DataError(
            f"returns must be at least 2 rows a block by 2 trials, were {table.shape} in {blocks}"
        )
    if not np.isfinite(table).all():
        raise DataError("returns must be finite; fill or drop what is not, for all trials alike")
    rows = len(table) // blocks
    cut = table[len(table) - rows * blocks :].reshape(blocks, rows, -1)
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    halves = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for half, members in zip(halves, combinations(range(blocks), blocks // 2), strict=True):
        half[list(members)] = 1.0
    count = rows * blocks // 2
    inside = _sharpe(halves @ sums, halves @ squares, count)
    outside = _sharpe((1 - halves) @ sums, (1 - halves) @ squares, count)
    chosen = inside.argmax(axis=1)
    ways = np.arange(len(halves))
    best = outside[ways, chosen]
    below = (outside < best[:, None]).sum(axis=1)
    equal = (outside == best[:, None]).sum(axis=1)
    rank = (below + (equal + 1) / 2) / (table.shape[1] + 1)
    logits = np.log(rank / (1 - rank))
    return Overfitting(float(np.mean(logits <= 0)), logits, chosen, inside[ways, chosen], best)


def _sharpe(sums: Floats, squares: Floats, count: int) -> Floats:
    mean = sums / count
    variance = squares / count - mean**2
    steady = variance <= 1e-12 * squares / count  # nothing but rounding
    return np.where(steady, 0.0, mean / np.sqrt(np.where(steady, 1.0, variance)))
