"""A quick look at many combinations with vectorbt, before the engine judges the best of them.

Input: weights on the closed bars of one symbol. Output: fills, return, Sharpe ratio and drawdown of
each, as vectorbt sees them: no risk chain, no lots, no latency but whole bars, one fee and one
slippage. The engine's verdict may differ: `disagreements` says where.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.performance import period
from sysquant.scores import figures
from sysquant.sizing import Sizing, WeightSizing
from sysquant.types import Bars, Floats, Instrument, Ints

FIGURES = ("fills", "return", "sharpe", "drawdown")
APART = 0.05  # fills of vectorbt and the engine, a fraction
_CHUNK = 16  # combinations at a time: with 10 to 20 vectorbt is fastest and smallest
_MOST_NAMED = 3


class Screen:
    """One market, as vectorbt sees it.

    Parameters
    ----------
    bars : of one symbol.
    instrument : its terms, for the fee tier.
    execution : its fee, fixed slippage, half spread and latency count, the last in whole bars:
        without latency a fill is at the next open, else at the close of the bar an order arrives
        in. Everything else is the engine's alone.
    sizing : weights of the equity, the only sizing there is here.
    capital : quote currency.
    interval : of the bars, ns.
    snapshot_ns : between two points of the equity that the Sharpe ratio rests on.

    Raises
    ------
    ConfigError
        If there are several symbols, or the sizing is another.
    """

    def __init__(
        self, bars: Bars, instrument: Instrument, execution: Execution, sizing: Sizing, *,
        capital: float, interval: int, snapshot_ns: int,
    ) -> None:  # fmt: skip
        if bars.symbol.any():
            raise ConfigError("vectorbt screens one symbol, the bars have several; use the engine")
        if not isinstance(sizing, WeightSizing):
            raise ConfigError(f"vectorbt screens weights of equity, sizing was {sizing!r}")
        latency_ns = round(execution.latency_ms * 1e6)
        self._later = 1 + latency_ns // interval  # bars between a decision and its fill
        self._close, self._capital = bars.close[:, None], capital  # a column for every combination
        self._price = self._close if latency_ns else bars.open[:, None]
        bps = execution.slippage_bps + execution.half_spread_bps
        self._costs = {"fees": execution.rates(instrument)[1], "slippage": bps * 1e-4}
        first = np.flatnonzero(np.diff(bars.ts // snapshot_ns, prepend=-1) > 0)
        self._points = np.unique(np.append(first, len(bars) - 1))  # the snapshots, and the end
        self._ts = bars.ts[self._points]
        self._every = period(self._ts)

    def run(self, weights: Iterable[tuple[int, Floats]]) -> Iterator[tuple[int, dict[str, float]]]:
        """Figures of each combination: place -> `FIGURES`.

        Parameters
        ----------
        weights : place and (B,) weights on closed bars, NaN for no opinion.
        """
        chunk: list[tuple[int, Floats]] = []
        for one in weights:
            chunk.append(one)
            if len(chunk) == _CHUNK:
                yield from self._figures(chunk)
                chunk = []
        if chunk:
            yield from self._figures(chunk)

    def _figures(
        self, chunk: Sequence[tuple[int, Floats]]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        wanted = np.full((len(self._close), len(chunk)), np.nan)
        for column, (_, weights) in enumerate(chunk):
            kept = weights[: max(0, len(wanted) - self._later)]
            wanted[self._later : self._later + len(kept), column] = kept
        portfolio = self._portfolio(wanted)
        fills = np.asarray(portfolio.orders.count()).reshape(-1)
        values: Floats = portfolio.value().to_numpy().reshape(len(wanted), -1)
        for column, (place, _) in enumerate(chunk):
            yield place, self._row(int(fills[column]), np.ascontiguousarray(values[:, column]))

    def _portfolio(self, wanted: Floats) -> Any:
        # Signals where weights are 0 or 1, which is faster; else orders to a share of the equity.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vectorbt's own, of what it is built on
            import vectorbt as vbt

            common: dict[str, Any] = {"init_cash": self._capital, "price": self._price}
            common |= self._costs
            if np.isin(wanted[~np.isnan(wanted)], (0.0, 1.0)).all():
                return vbt.Portfolio.from_signals(
                    self._close, wanted == 1.0, wanted == 0.0, **common
                )
            return vbt.Portfolio.from_orders(
                self._close, _changes(wanted), size_type="targetpercent", **common
            )

    def _row(self, fills: int, value: Floats) -> dict[str, float]:
        row = figures(self._ts, value[self._points], self._every)
        row |= {"fills": fills, "return": float(value[-1]) / self._capital - 1.0}
        return {name: float(row[name]) for name in FIGURES}


def _changes(wanted: Floats) -> Floats:
    # A weight where it differs from the last one that was wanted, NaN elsewhere.
    rows: Ints = np.where(np.isnan(wanted), 0, np.arange(len(wanted))[:, None])
    standing = np.take_along_axis(wanted, np.maximum.accumulate(rows, axis=0), axis=0)
    before = np.vstack([np.zeros((1, wanted.shape[1])), np.nan_to_num(standing[:-1])])
    return np.where(standing != before, standing, np.nan)


def disagreements(
    rows: Mapping[int, Mapping[str, Any]], screened: Mapping[int, Mapping[str, float]],
    rank: str, names: Mapping[int, str],
) -> list[str]:  # fmt: skip
    """Where vectorbt and the engine judged differently, a sentence each.

    Parameters
    ----------
    rows : place -> figures of the engine, of those that it judged.
    screened : place -> figures of vectorbt.
    rank : figure that both are ordered by.
    names : place -> the combination, for people.
    """
    said, apart = list[str](), list[int]()
    for place, row in rows.items():
        theirs = screened[place]["fills"]
        if abs(row["fills"] - theirs) > APART * theirs:
            apart.append(place)
    for place in apart[:_MOST_NAMED]:
        said.append(
            f"{names[place]}: {rows[place]['fills']:,} fills by the engine, "
            f"{screened[place]['fills']:,} by vectorbt, more than {APART:.0%} apart"
        )
    if len(apart) > _MOST_NAMED:
        said.append(f"... and {len(apart) - _MOST_NAMED} more of {len(rows)} that both judged")
    own, theirs = (best_first({p: each[p] for p in rows}, rank) for each in (rows, screened))
    moved = sum(mine != other for mine, other in zip(own, theirs, strict=True))
    if moved:
        best = "the best is the same"
        if own[0] != theirs[0]:
            best = f"the engine's best is {names[own[0]]}, vectorbt's {names[theirs[0]]}"
        said.append(f"by {rank}, {moved} of {len(rows)} stand in another place; {best}")
    return said


def best_first(rows: Mapping[int, Mapping[str, Any]], rank: str) -> list[int]:
    """Places by their figure, the largest first, NaN last; ties in the order of the places."""
    values = {place: float(row[rank]) for place, row in rows.items()}
    return sorted(values, key=lambda place: (math.isnan(values[place]), -values[place], place))
