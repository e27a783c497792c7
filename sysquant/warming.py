"""After how many bars the decisions of a strategy no longer depend on where its history began.

Input: a strategy and a history. Output: the least number of bars of warm-up after which, from many
beginnings, every later target is the one of the whole history, byte for byte. It is measured, not
derived, and a history that is too short shows nothing. Features are told besides: an exponential
average never forgets to the last bit, and decisions alone count.
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
    bars : newest bars that are looked at, of all symbols.

    Raises
    ------
    ConfigError
        If one cannot be meant.
    """

    starts: int = 48
    seed: int = 1
    margin: float = 0.5
    bars: int = 100_000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, least in (("starts", 2), ("bars", 1)):
            value = getattr(self, name)
            check_number(f"warmup.{name}", value, least=least, below=2**31, whole=True)
        check_number("warmup.seed", self.seed, least=0, below=2**31, whole=True)
        check_number("warmup.margin", self.margin, least=0)


class Measured(NamedTuple):
    """What was measured, in lengths of a bar: those without a trade count.

    Parameters
    ----------
    bars : after which no target depends on the beginning.
    at : close of the latest bar whose target did, where most were needed, ns UTC; 0 for none.
    first : before the first target of the whole history; None if there is none.
    shown : that every beginning has after it.
    starts : beginnings that were tried.
    features : name -> bars after which it is the same to the last bit; None for never.
    """

    bars: int
    at: int
    first: int | None
    shown: int
    starts: int
    features: dict[str, int | None]


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
    needed, never, at = dict.fromkeys(whole.names, 0), set[str](), 0
    chosen = _beginnings(len(edges), limits)
    words = "warmup"
    for begin in tqdm(edges[chosen].tolist(), words, unit=" starts", leave=False, disable=None):
        found = in_one(strategy, bars[begin:], symbols)
        for name, row in _last_apart(whole, found, begin):
            count = int(place[row] - place[begin]) + 1
            if name == TARGET and count > needed[name]:
                at = int(bars.ts[row])
            needed[name] = max(needed[name], count)
            if bars.ts[row] == bars.ts[-1]:
                never.add(name)
    opinions = np.flatnonzero(~np.isnan(whole.values[:, -1]))
    return Measured(
        bars=needed[TARGET], at=at,
        first=int(place[opinions[0]] - place[0]) if opinions.size else None,
        shown=int(place[-1] - place[edges[chosen[-1]]]) + 1, starts=len(chosen),
        features={
            name: None if name in never else needed[name] for name in needed if name != TARGET
        },
    )  # fmt: skip


def _beginnings(ends: int, limits: Warmup) -> Ints:
    # Of bar ends in the first half: what comes after each is at least as long again.
    half = np.arange(1, ends // 2 + 1)
    count = min(limits.starts, len(half))
    chosen = np.random.default_rng(limits.seed).choice(half, count, replace=False)
    return np.unique(np.concatenate((chosen, half[:1])))


def _last_apart(whole: Answers, found: Answers, begin: int) -> Iterator[tuple[str, int]]:
    # Of each column that differs, the last row; any NaN is the same as any other.
    a, b = whole.values[begin:], found.values
    for column, name in enumerate(whole.names):
        one, other = a[:, column], b[:, column]
        same = (one == other) & (np.signbit(one) == np.signbit(other))
        rows = np.flatnonzero(~(same | (np.isnan(one) & np.isnan(other))))
        if rows.size:
            yield name, begin + int(rows[-1])


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
    wanted = round(found.bars * (1.0 + limits.margin))
    if found.shown < wanted or found.shown <= found.bars:
        return [
            f"this history is too short to show a warm-up: {found.bars:,} bars after a beginning a "
            f"target still depended on it, and only {found.shown:,} bars follow the last beginning "
            f"that was tried, {max(wanted, found.bars + 1):,} are wanted; take a history from an "
            "earlier feed.start, or let the signal forget (a shorter span, a rolling window)"
        ]
    if configured < found.bars:
        return [
            f"decisions depend on where the history begins for {found.bars:,} bars, and "
            f"runtime.warmup_bars is {configured:,}: set runtime.warmup_bars={found.bars}"
        ]
    return []
