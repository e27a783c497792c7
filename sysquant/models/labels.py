"""What a model is to foresee: outcomes of the bars that follow, and classes of them.

Input: bars of one symbol. Output: an outcome for each bar and when it is known; classes only once
thresholds were taken from training rows, and never from those that a model is judged on.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from sysquant.compiled import kernel
from sysquant.errors import DataError
from sysquant.keys import check_number
from sysquant.times import interval_ns
from sysquant.types import Floats, Ints

CLASSES = ("down", "flat", "up")


class Outcomes(NamedTuple):
    """Of the bars of one symbol.

    Parameters
    ----------
    value : (T,) what came of each; NaN where the history ends before that is known.
    known : (T,) ns UTC, from when on it is.
    """

    value: Floats
    known: Ints


class Labels(Protocol):
    """A way to label bars."""

    horizon: str

    def outcomes(self, ts: Ints, high: Floats, low: Floats, close: Floats) -> Outcomes:
        """What came of each bar; `ts` are closes, ns UTC, of one symbol, in order."""
        ...

    def thresholds(self, value: Floats) -> tuple[float, float]:
        """Edges of the middle class, from the outcomes of training rows."""
        ...


def classes_of(value: Floats, thresholds: tuple[float, float]) -> Ints:
    """0 below the thresholds, 1 between, 2 above them: places in `CLASSES`."""
    low, high = thresholds
    return (value >= low).astype(np.int64) + (value > high)


@dataclass(frozen=True, slots=True)
class QuantileLabels:
    """The return over a horizon, against quantiles of those that were trained on.

    Parameters
    ----------
    horizon : `60m`; the return runs to the last close at or before it.
    low, high : quantiles below which is down, and above which is up.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    horizon: str = "60m"
    low: float = 0.3
    high: float = 0.7

    def __post_init__(self) -> None:
        interval_ns(self.horizon, "horizon")
        check_number("high", self.high, above=0, below=1)
        check_number("low", self.low, above=0, below=self.high)

    def outcomes(self, ts: Ints, high: Floats, low: Floats, close: Floats) -> Outcomes:
        """Returns, fractions, known when the horizon is over."""
        known = ts + interval_ns(self.horizon)
        value = close[np.searchsorted(ts, known, side="right") - 1] / close - 1.0
        value[known > ts[-1:]] = np.nan
        return Outcomes(value, known)

    def thresholds(self, value: Floats) -> tuple[float, float]:
        """The quantiles.

        Raises
        ------
        DataError
            If they are one value: returns that do not vary cannot be told apart.
        """
        low, high = np.quantile(value, [self.low, self.high]).tolist()
        if low >= high:
            raise DataError(f"returns over {self.horizon} have the quantiles {low} and {high}")
        return low, high


@dataclass(frozen=True, slots=True)
class TripleBarrier:
    """Which is touched first: a barrier above, one below, or the end of the horizon.

    The barriers lie `above` and `below` times the volatility over the horizon away from the close.
    A bar that touches both tells nothing of their order, and counts as neither.

    Parameters
    ----------
    horizon : `60m`.
    above, below : multiples of the volatility.
    span : bars that volatility is taken over, up to and with the one that is labelled.

    Raises
    ------
    ConfigError
        If a value cannot be meant.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 3.
    """

    horizon: str = "60m"
    above: float = 1.0
    below: float = 1.0
    span: int = 60

    def __post_init__(self) -> None:
        interval_ns(self.horizon, "horizon")
        check_number("above", self.above, above=0)
        check_number("below", self.below, above=0)
        check_number("span", self.span, least=2, whole=True)

    def outcomes(self, ts: Ints, high: Floats, low: Floats, close: Floats) -> Outcomes:
        """1 above, -1 below, 0 neither; known when the bar of the touch has closed."""
        if len(ts) <= self.span:
            return Outcomes(np.full(len(ts), np.nan), ts + interval_ns(self.horizon))
        returns = np.full(len(ts), np.nan)
        returns[1:] = np.diff(np.log(close))
        spread = np.full(len(ts), np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(returns[1:], self.span)
        spread[self.span :] = windows.std(axis=1)
        horizon = interval_ns(self.horizon)
        reach = spread * np.sqrt(max(1.0, horizon / float(np.median(np.diff(ts)))))
        upper, lower = close * (1 + self.above * reach), close * (1 - self.below * reach)
        return Outcomes(*_touches(ts, high, low, upper, lower, horizon))

    def thresholds(self, value: Floats) -> tuple[float, float]:
        """Between -1, 0 and 1."""
        return -0.5, 0.5


@kernel
def _touches(
    ts: Ints, high: Floats, low: Floats, upper: Floats, lower: Floats, horizon: int
) -> tuple[Floats, Ints]:
    # For each bar the first one after it, within the horizon, that touches a barrier.
    value, known = np.full(len(ts), np.nan), ts + horizon
    for row in range(len(ts)):
        if np.isnan(upper[row]):
            continue
        for later in range(row + 1, len(ts)):
            if ts[later] > known[row]:
                value[row] = 0.0
                break
            is_above, is_below = high[later] >= upper[row], low[later] <= lower[row]
            if is_above or is_below:
                value[row] = (1.0 if is_above else 0.0) - (1.0 if is_below else 0.0)
                known[row] = ts[later]
                break
        else:
            if ts[-1] >= known[row]:
                value[row] = 0.0
    return value, known


LABELS = {"quantiles": QuantileLabels, "triple_barrier": TripleBarrier}
