"""After how many bars the decisions of a strategy no longer depend on where its history began.

Input: a strategy and a history. Output: the least number of bars of warm-up after which, from many
beginnings, every later target is the one of the whole history, byte for byte. It is measured, not
derived, and a history that is too short shows nothing. A weight that is a number of its own at each
bar is never the same to the last bit: then less than `within` counts as the same. Features are told
besides: decisions alone count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sysquant.errors import DataError
from sysquant.forms import TARGET, Answers, bar_ends, in_one
from sysquant.keys import check_number
from sysquant.strategy import Strategy
from sysquant.types import Bars, Ints

_FEWEST = 4  # bar ends


@dataclass(frozen=True, slots=True)
class Warmup:
    """How a warm-up is measured, as configured by `conf/promotion`.

    Parameters
    ----------
    starts : beginnings of the history that are tried.
    seed : of their choice.
    margin : of the measured bars that must be seen to hold after them; 1 asks for as many again.
    within : weight of equity by which targets may differ that never become the same to the last
        bit.
    bars : newest bars that are looked at, of all symbols.

    Raises
    ------
    ConfigError
        If one cannot be meant.
    """

    starts: int = 200
    seed: int = 1
    margin: float = 0.5
    within: float = 1e-9
    bars: int = 100_000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, least in (("starts", 2), ("bars", 1)):
            value = getattr(self, name)
            check_number(f"warmup.{name}", value, least=least, below=2**31, whole=True)
        check_number("warmup.seed", self.seed, least=0, below=2**31, whole=True)
        check_number("warmup.margin", self.margin, least=0)
        check_number("warmup.within", self.within, least=0, below=1)


class Measured(NamedTuple):
    """What was measured, in lengths of a bar: those without a trade count.

    Parameters
    ----------
    exact : after which no target depends on the beginning, to the last bit.
    near : after which none does by more than `within`.
    at : close of the latest bar whose target did so, where most were needed, ns UTC; 0 for none.
    first : before the first target of the whole history; None if there is none.
    shown : that every beginning has after it.
    starts : beginnings that were tried.
    features : name -> bars after which it is the same to the last bit; None for never.
    """

    exact: int
    near: int
    at: int
    first: int | None
    shown: int
    starts: int
    features: dict[str, int | None]

    def bars(self, limits: Warmup) -> int | None:
        """The warm-up that this history shows, to the last bit or else nearly; None for none."""
        for needed in (self.exact, self.near):
            if self.shown > needed and self.shown >= needed * (1.0 + limits.margin):
                return needed
        return None


def measure(
    strategy: Strategy, bars: Bars, symbols: Sequence[str], limits: Warmup, *, length: int | None
) -> Measured:  # fmt: skip
    """Run a strategy from many beginnings.

    Parameters
    ----------
    strategy : with its model, where it asks one.
    bars : by (close, symbol), at least two bar ends.
    symbols : that they count.
    limits : how many beginnings.
    length : of a bar, ns; None where bars are not of time: then each bar end counts.

    Raises
    ------
    DataError
        If there are too few bars.
    StrategyError
        If the strategy breaks its contract.
    """
    edges = np.concatenate(([0], bar_ends(bars)))
    if len(bars) == 0 or len(edges) < _FEWEST:
        raise DataError(
            f"{len(edges) if len(bars) else 0} bar ends are too few to measure a warm-up on: take "
            "a longer history (feed.start)"
        )
    place = np.searchsorted(edges, np.arange(len(bars)), side="right") if length is None else (
        bars.ts // length
    )  # fmt: skip
    whole = in_one(strategy, bars, symbols)
    needed, never, at, near = dict.fromkeys(whole.names, 0), set[str](), 0, 0
    chosen = _beginnings(len(edges), limits)
    words = "warmup"
    for begin in tqdm(edges[chosen].tolist(), words, unit=" starts", leave=False, disable=None):
        found = in_one(strategy, bars[begin:], symbols)
        row = _last_beyond(whole, found, begin, limits.within)
        if row is not None and (count := int(place[row] - place[begin]) + 1) > near:
            near, at = count, int(bars.ts[row])
        for name, row in _last_apart(whole, found, begin):
            count = int(place[row] - place[begin]) + 1
            needed[name] = max(needed[name], count)
            if bars.ts[row] == bars.ts[-1]:
                never.add(name)
    opinions = np.flatnonzero(~np.isnan(whole.values[:, -1]))
    return Measured(
        exact=needed[TARGET], near=near, at=at,
        first=int(place[opinions[0]] - place[0]) if opinions.size else None,
        shown=int(place[-1] - place[edges[chosen[-1]]]) + 1, starts=len(chosen),
        features={
            name: None if name in never else needed[name] for name in needed if name != TARGET
        },
    )  # fmt: skip


def _beginnings(ends: int, limits: Warmup) -> Ints:
    # Of bar ends in the first quarter: what comes after each is three times as long.
    early = np.arange(1, ends // 4 + 1)
    count = min(limits.starts, len(early))
    chosen = np.random.default_rng(limits.seed).choice(early, count, replace=False)
    return np.unique(np.concatenate((chosen, early[:1])))


def _last_apart(whole: Answers, found: Answers, begin: int) -> Iterator[tuple[str, int]]:
    # Of each column that differs, the last row; any NaN is the same as any other.
    a, b = whole.values[begin:], found.values
    for column, name in enumerate(whole.names):
        one, other = a[:, column], b[:, column]
        same = (one == other) & (np.signbit(one) == np.signbit(other))
        rows = np.flatnonzero(~(same | (np.isnan(one) & np.isnan(other))))
        if rows.size:
            yield name, begin + int(rows[-1])


def _last_beyond(whole: Answers, found: Answers, begin: int, within: float) -> int | None:
    # The last row whose target is another by more.
    one, other = whole.values[begin:, -1], found.values[:, -1]
    rows = np.flatnonzero(~(np.abs(one - other) <= within) & ~(np.isnan(one) & np.isnan(other)))
    return begin + int(rows[-1]) if rows.size else None


def judged(found: Measured, limits: Warmup, configured: int) -> list[str]:
    """What is wrong with what was measured, or with what is configured.

    Parameters
    ----------
    found : of `measure`.
    limits : with the margin.
    configured : `runtime.warmup_bars`.
    """
    if found.first is None:
        return ["it had no opinion on any bar of this history: take a longer one (feed.start)"]
    bars = found.bars(limits)
    if bars is None:
        wanted = max(round(found.near * (1.0 + limits.margin)), found.near + 1)
        return [
            f"this history is too short to show a warm-up: {found.near:,} bars after a beginning a "
            f"target still differed by more than {limits.within:g}, and only {found.shown:,} bars "
            f"follow the last beginning that was tried, {wanted:,} are wanted; take a history from "
            "an earlier feed.start, or let the signal forget (a shorter span, a rolling window)"
        ]
    if configured < bars:
        return [
            f"decisions depend on where the history begins for {bars:,} bars, and "
            f"runtime.warmup_bars is {configured:,}: set runtime.warmup_bars={bars}"
        ]
    return []
