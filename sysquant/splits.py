"""Splits of history into training and test, purged of what the one could learn of the other.

Input: samples in the order of time, by rows or with times. Output: row numbers, as scikit-learn's
splitters give them, and the backtest paths that the tests make up. Nothing is fitted here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sysquant.errors import ConfigError, DataError
from sysquant.keys import check_flag, check_number
from sysquant.past import History
from sysquant.times import interval_ns
from sysquant.types import Bars, Ints

Length = int | str  # bars, or a duration like `5d`
Split = tuple[Ints, Ints]

_MOST_SPLITS = 100_000


@dataclass(frozen=True, slots=True)
class _Axis:
    # Distinct moments, in order, and the rows of each: what is at one time is never parted.
    times: Ints | None  # ns; None where rows have no time
    edges: Ints  # first row of each moment, and the number of rows

    def __len__(self) -> int:
        return len(self.edges) - 1

    def rows(self, places: Ints) -> Ints:
        if self.edges[-1] == len(self):
            return places
        counts = self.edges[places + 1] - self.edges[places]
        before = np.cumsum(counts) - counts
        return np.repeat(self.edges[places] - before, counts) + np.arange(counts.sum())


class WalkForward:
    """Train on the past, test on what follows, move on.

    A test window is as long as all others; a last one that is cut short is left out. Training takes
    samples whose label, and the embargo after it, ended before the test began.

    Parameters
    ----------
    train : length of the training window; of the first one where it expands.
    test : length of each test window.
    step : between the starts of two test windows; `test` by default, so that none overlap.
    expanding : whether training always begins with the first sample.
    horizon : how far into the future a sample's label looks, or that of each moment, (T,) bars.
    embargo : kept free between the end of the last label and the test.

    Lengths are whole numbers of bars, or durations like `90d`, for which `X` must have times.
    Train, test and step are all one or all the other. A training window of a duration holds the
    closes in (last - duration, last].

    Raises
    ------
    ConfigError
        If a length cannot be meant.

    Examples
    --------
    >>> for train, test in WalkForward("60d", "10d", horizon=5).split(bars):
    ...     model.fit(x[train], y[train]).score(x[test], y[test])

    References
    ----------
    R. Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, ch. 11.
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 7 (purging, embargo).
    """

    def __init__(
        self,
        train: Length,
        test: Length,
        *,
        step: Length | None = None,
        expanding: bool = False,
        horizon: Length | Sequence[int] | Ints = 0,
        embargo: Length = 0,
    ) -> None:
        self.train, self.test = _length("train", train, 1), _length("test", test, 1)
        self.step = self.test if step is None else _length("step", step, 1)
        if len({isinstance(length, str) for length in (self.train, self.test, self.step)}) > 1:
            raise ConfigError(
                "train, test and step must all be bars or all be durations, were "
                f"{self.train!r}, {self.test!r} and {self.step!r}"
            )
        check_flag("expanding", expanding)
        self.expanding, self.horizon = expanding, _horizon(horizon)
        self.embargo = _length("embargo", embargo)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:  # noqa: N803
        """Rows of training and of test, split after split, each in the order of time.

        Parameters
        ----------
        X : samples, oldest first: an array, a frame indexed by time, `Bars` or a `History`. Rows of
            one time (several symbols) are never parted.
        y, groups : not looked at.

        Raises
        ------
        DataError
            If times go back, or a duration is asked of rows without times.
        """
        axis = _axis(X)
        reach = _reach(axis, self.horizon, self.embargo)
        for begin, end in self._windows(axis, reach):
            train = np.flatnonzero(reach[:begin] < begin)
            if not self.expanding:
                train = train[self._first(axis, train) :]
            yield axis.rows(train), axis.rows(np.arange(begin, end))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: N803
        """Number of splits of `X`, which must be given."""
        if X is None:
            raise ConfigError("the number of splits depends on X, was None; give it")
        axis = _axis(X)
        return sum(1 for _ in self._windows(axis, _reach(axis, self.horizon, self.embargo)))

    # Where the training window begins in what may be trained on.
    def _first(self, axis: _Axis, train: Ints) -> int:
        if isinstance(self.train, int):
            return max(0, len(train) - self.train)
        times = _times(axis)[train]
        return int(np.searchsorted(times, times[-1] - interval_ns(self.train), side="right"))

    # Test windows, [begin, end) of moments, that have a whole training window before them.
    def _windows(self, axis: _Axis, reach: Ints) -> Iterator[tuple[int, int]]:
        if not len(axis):
            return
        if isinstance(self.train, int) and isinstance(self.test, int):
            free = np.sort(reach)
            if len(free) >= self.train:
                first = int(free[self.train - 1]) + 1
                for begin in range(first, len(axis) - self.test + 1, int(self.step)):
                    yield begin, begin + self.test
            return
        times = _times(axis)
        bar = int(np.diff(times).min()) if len(times) > 1 else 0
        train, test, step = (interval_ns(length) for length in (self.train, self.test, self.step))
        last = int(np.searchsorted(times, times[0] + train - bar))
        if last >= len(axis) or reach[last] + 1 >= len(axis):
            return
        for at in range(int(times[reach[last] + 1]), int(times[-1]) + bar - test + 1, step):
            begin, end = np.searchsorted(times, [at, at + test]).tolist()
            if begin < end:  # the market may have been closed throughout
                yield begin, end

    def __repr__(self) -> str:
        return _told(self, "train", "test", "step", "expanding", "horizon", "embargo")


class CombinatorialPurged:
    """Combinatorial purged cross-validation: every choice of test groups, and the paths they make.

    The samples are cut into groups of equal length (the last takes what is left over). Each split
    tests some of them and trains on the others, less the samples whose label overlaps a tested one,
    and less the embargo behind each tested group. With one tested group it is the purged k-fold.

    Parameters
    ----------
    groups : N, at least 2.
    tested : k, groups tested at once, fewer than N.
    horizon : how far into the future a sample's label looks, or that of each moment, (T,) bars.
    embargo : kept free of training behind the last label of each tested group.

    Attributes
    ----------
    paths : (P, N) the split that tests group n on path p: each path tests every group once, and
        P = C(N, k) k / N.

    Raises
    ------
    ConfigError
        If a number cannot be meant, or there would be more than 100,000 splits.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 7 and 12.
    """

    def __init__(
        self,
        groups: int = 6,
        tested: int = 2,
        *,
        horizon: Length | Sequence[int] | Ints = 0,
        embargo: Length = 0,
    ) -> None:
        check_number("groups", groups, least=2, whole=True)
        check_number("tested", tested, least=1, most=groups - 1, whole=True)
        if math.comb(groups, tested) > _MOST_SPLITS:
            raise ConfigError(
                f"groups={groups} and tested={tested} make {math.comb(groups, tested):,} splits, "
                f"more than {_MOST_SPLITS:,}; take fewer groups"
            )
        self.groups, self.tested = groups, tested
        self.horizon, self.embargo = _horizon(horizon), _length("embargo", embargo)
        self._choices = np.array(list(combinations(range(groups), tested)))
        tests = [np.flatnonzero((self._choices == group).any(axis=1)) for group in range(groups)]
        self.paths = np.column_stack(tests)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:  # noqa: N803
        """Rows of training and of test, split after split, each in the order of time.

        Parameters
        ----------
        X, y, groups : as for `WalkForward.split`.

        Raises
        ------
        DataError
            If there are fewer moments than groups, times go back, or a duration is asked of rows
            without times.
        """
        axis = _axis(X)
        edges = self._edges(axis)
        ends, reach = _reach(axis, self.horizon, 0), _reach(axis, self.horizon, self.embargo)
        place = np.arange(len(axis))
        free = np.empty((self.groups, len(axis)), bool)  # of what a tested group forbids
        for group, (a, b) in enumerate(pairwise(edges)):
            free[group] = (ends < a) & (place < a) | (place > reach[a:b].max()) & (place >= b)
        for choice in self._choices:
            test = np.concatenate([place[edges[g] : edges[g + 1]] for g in choice])
            yield axis.rows(np.flatnonzero(free[choice].all(axis=0))), axis.rows(test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: N803
        """Number of splits, C(N, k)."""
        return len(self._choices)

    def join(self, parts: Sequence[ArrayLike], X: Any) -> np.ndarray:  # noqa: N803
        """Backtest paths, made of what was computed on the test rows of every split.

        Parameters
        ----------
        parts : one a split, in their order: (rows of its test,) values.
        X : the samples that were split.

        Returns
        -------
        (P, T) each row a whole history, every part of it out of sample.

        Raises
        ------
        DataError
            If the parts are not those of the splits.
        """
        axis = _axis(X)
        rows = axis.edges[self._edges(axis)]
        sizes = np.diff(rows)
        values = [np.asarray(part) for part in parts]
        if [len(part) for part in values] != sizes[self._choices].sum(axis=1).tolist():
            raise DataError("parts must be one a split, with a value for each row of its test")
        joined = np.empty((len(self.paths), rows[-1]), np.result_type(*values))
        for split, choice in enumerate(self._choices):
            cut = np.split(values[split], np.cumsum(sizes[choice])[:-1])
            for group, part in zip(choice, cut, strict=True):
                path = np.flatnonzero(self.paths[:, group] == split)[0]
                joined[path, rows[group] : rows[group + 1]] = part
        return joined

    def _edges(self, axis: _Axis) -> Ints:
        if len(axis) < self.groups:
            raise DataError(f"{self.groups} groups need as many moments, were {len(axis)}")
        return np.append(np.arange(self.groups) * (len(axis) // self.groups), len(axis))

    def __repr__(self) -> str:
        return _told(self, "groups", "tested", "horizon", "embargo")


def _length(key: str, length: Length, least: int = 0) -> Length:
    if isinstance(length, str):
        interval_ns(length, key)
        return length
    check_number(key, length, least=least, whole=True)
    return int(length)


def _horizon(horizon: Length | Sequence[int] | Ints) -> Length | Ints:
    if isinstance(horizon, str | Integral):
        return _length("horizon", horizon)  # pyright: ignore[reportArgumentType]
    bars = np.asarray(horizon)
    if bars.ndim != 1 or not np.issubdtype(bars.dtype, np.integer) or np.any(bars < 0):
        raise ConfigError("horizon must be bars, a duration like 5d, or whole bars of each moment")
    return bars.astype(np.int64)


def _axis(samples: Any) -> _Axis:
    if isinstance(samples, History):
        samples = samples.bars
    times: Any = samples.ts if isinstance(samples, Bars) else None
    index: Any = getattr(samples, "index", None)
    if hasattr(index, "asi8"):  # of a frame or a series, by time; nothing else needs pandas here
        times = index.as_unit("ns").asi8
    if times is None:
        return _Axis(None, np.arange(len(samples) + 1))
    change = np.diff(times)
    if np.any(change < 0):
        row = int(np.flatnonzero(change < 0)[0]) + 1
        raise DataError(f"times of samples must not go back, row {row} did; sort them")
    first = np.concatenate([[0], np.flatnonzero(change) + 1]) if len(times) else np.empty(0, int)
    return _Axis(np.asarray(times)[first], np.append(first, len(times)))


def _times(axis: _Axis) -> Ints:
    if axis.times is None:
        raise DataError(
            "a duration needs samples with times: a frame indexed by time, Bars or a History; or "
            "give the length in bars"
        )
    return axis.times


def _reach(axis: _Axis, horizon: Length | Ints, embargo: Length) -> Ints:
    # The last moment that each one's label, and the embargo behind it, cover.
    place = np.arange(len(axis))
    if isinstance(horizon, str):
        over = _times(axis) + interval_ns(horizon)
        ends = np.searchsorted(_times(axis), over, side="right") - 1
    else:
        if not isinstance(horizon, int) and len(horizon) != len(axis):
            raise DataError(f"horizon has {len(horizon)} moments, the samples have {len(axis)}")
        ends = place + horizon
        over = ends
    if not isinstance(embargo, str):
        return ends + embargo
    if not isinstance(horizon, str):
        over = _times(axis)[np.minimum(ends, len(axis) - 1)]
    until = np.searchsorted(_times(axis), over + interval_ns(embargo), side="right") - 1
    return np.maximum(ends, until)


def _told(splitter: object, *names: str) -> str:
    values = ", ".join(f"{name}={getattr(splitter, name)!r}" for name in names)
    return f"{type(splitter).__name__}({values})"
