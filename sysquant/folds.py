"""What a walk-forward found: a fold after the other, and what they come to when stitched together.

Input: the folds, each with its choice and the backtest of what followed. Output: a table, equity
and statistics out of sample, how much of the score in sample was left, how steady the choice was, a
figure. Nothing is run here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sysquant import lint, page, summary
from sysquant.ledger import Ledger, Run, sampled
from sysquant.lint import Finding
from sysquant.performance import DAY, ratio
from sysquant.result import Result, table_of
from sysquant.strategy import Parameter
from sysquant.summary import Estimate
from sysquant.types import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_PER_TIME = ("sharpe", "sharpe_period")  # scores that do not grow with the length of a window
_SHOWN_FOLDS = 8
_FORMAT = "{:,.4g}".format


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of a walk-forward: chosen on the one window, run on the next.

    Parameters
    ----------
    train, test : begin and end of the windows, ns UTC; what closes in (begin, end].
    chosen : the parameters that were best in training.
    in_sample, out_of_sample : their score in the two windows; NaN where it is not defined.
    trials : combinations that were tried.
    result : backtest of the test window, which begins flat, with all of the capital.
    """

    train: tuple[int, int]
    test: tuple[int, int]
    chosen: Mapping[str, Parameter]
    in_sample: float
    out_of_sample: float
    trials: int
    result: Result = field(repr=False)


@dataclass(frozen=True, repr=False, eq=False)
class Walk:
    """Folds in the order of time, and what they are together.

    Stitched, each test window goes on with what the one before it left: its returns are chained. A
    position at the end of a window is valued at the last price, not sold; the next window opens its
    own, and pays for that. Between windows that do not touch nothing is held.

    Parameters
    ----------
    name : of the strategy.
    folds : at least one.
    grid : parameter -> the values that were tried.
    rank : score that was chosen by.
    capital : that every fold began with, quote currency.
    notes : what a reader must know.
    """

    name: str
    folds: tuple[Fold, ...]
    grid: Mapping[str, Sequence[Parameter]]
    rank: str
    capital: float
    notes: tuple[str, ...] = ()

    # -- the folds

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row per fold.

        Returns
        -------
        train, train_end, test, test_end (UTC), the chosen parameters, the score in_sample and
        out_of_sample, return (a fraction) and fills of the test window.
        """
        import pandas as pd

        windows = ("train", "train_end", "test", "test_end")
        times = np.array([[*fold.train, *fold.test] for fold in self.folds], "M8[ns]").T
        columns: dict[str, Any] = {
            name: pd.DatetimeIndex(own, tz="UTC") for name, own in zip(windows, times, strict=True)
        }
        columns |= {name: [fold.chosen[name] for fold in self.folds] for name in self.grid}
        columns["in_sample"] = [fold.in_sample for fold in self.folds]
        columns["out_of_sample"] = [fold.out_of_sample for fold in self.folds]
        columns["return"] = [_end(fold) / self.capital - 1.0 for fold in self.folds]
        columns["fills"] = [fold.result.tally.fills for fold in self.folds]
        return pd.DataFrame(columns, pd.RangeIndex(1, len(self.folds) + 1, name="fold"))

    @property
    def efficiency(self) -> float:
        """Mean score out of sample by the mean in sample, over the folds that have both.

        `return` is taken per day of its window. NaN for scores that grow with a window's length, or
        where the mean in sample is not above 0. Above a half is what Pardo asks for.

        References
        ----------
        R. Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, ch. 11.
        """
        scores = np.array([[fold.out_of_sample, fold.in_sample] for fold in self.folds])
        if self.rank == "return":
            scores /= [[np.ptp(fold.test) / DAY, np.ptp(fold.train) / DAY] for fold in self.folds]
        elif self.rank not in _PER_TIME:
            return math.nan
        both = scores[~np.isnan(scores).any(axis=1)]
        return float(ratio(*both.mean(axis=0))) if len(both) else math.nan

    @property
    def stability(self) -> "pd.DataFrame":
        """How steady the choice was, a row per parameter with several values.

        Returns
        -------
        lowest, highest and different values chosen; moved (share of the steps from fold to fold
        that changed it, NaN with one fold), and step (mean size of these steps, in places of the
        values tried, by their number less one: 0 never moves, 1 from end to end each time).
        """
        import pandas as pd

        rows = dict[str, dict[str, Any]]()
        for name, tried in self.grid.items():
            if len(tried) < 2:
                continue
            chosen = [fold.chosen[name] for fold in self.folds]
            places = np.abs(np.diff([tried.index(value) for value in chosen]))
            ordered = sorted(set(chosen), key=tried.index)
            rows[name] = {
                "lowest": ordered[0], "highest": ordered[-1], "different": len(ordered),
                "moved": float((places > 0).mean()) if len(places) else math.nan,
                "step": float(places.mean()) / (len(tried) - 1) if len(places) else math.nan,
            }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index")

    # -- stitched

    @property
    def equity(self) -> "pd.Series":
        """Equity out of sample, quote currency, by time (UTC)."""
        return _series(self._run.ts, self._run.equity, "equity")

    @property
    def benchmark(self) -> str:
        """What statistics compare with."""
        return self.folds[0].result.benchmark

    @property
    def benchmark_equity(self) -> "pd.Series":
        """The benchmark, bought anew at the first close of every window; at the same times."""
        return _series(self._run.ts, self._held, self.benchmark)

    @property
    def returns(self) -> "pd.Series":
        """Simple returns out of sample, as those of a `Result`."""
        own = self._run.returns
        return _series(own.ts, own.values, "return")

    @cached_property
    def statistics(self) -> "pd.DataFrame":
        """Every statistic of a `Result`, of the stitched equity and the trades in it.

        Round trips that a window's end cut are not among them.
        """
        return table_of(self.estimates())

    def estimates(self, *, sure: bool = True) -> list[Estimate]:
        """The same as records; without the limits that take a bootstrap unless `sure`."""
        return self._run.estimates(self._held, sure=sure)

    @cached_property
    def warnings(self) -> tuple[Finding, ...]:
        """What is wrong at first sight, see `lint`: stitched, and of what was chosen last."""
        tried = {name: values for name, values in self.grid.items() if len(values) > 1}
        edges = lint.grid_edge(tried, self.folds[-1].chosen)
        return (*self._run.findings(), *edges)

    @cached_property
    def _run(self) -> Run:
        return stitched([fold.result.ledger for fold in self.folds], self.capital)

    @cached_property
    def _held(self) -> Floats:
        held = [fold.result.benchmark_equity.to_numpy() for fold in self.folds]
        return chained([fold.result.ledger.equity[0] for fold in self.folds], held, self.capital)[1]

    # -- shown

    @property
    def figure(self) -> "go.Figure":
        """Stitched equity and benchmark with the folds' boundaries, and below what was chosen."""
        from plotly.subplots import make_subplots

        from sysquant import plot

        names = list(self.stability.index)
        heights = [3.0, *[1.0] * len(names)]
        figure = make_subplots(len(heights), shared_xaxes=True, row_heights=heights)
        drawn = {"out of sample": self.equity, self.benchmark: self.benchmark_equity}
        for name, series in drawn.items():
            figure.add_trace(plot.line(series, name), row=1, col=1)
        ends = np.array([fold.test for fold in self.folds], "M8[ns]").astype("M8[us]")
        for row, name in enumerate(names, 2):
            chosen = [fold.chosen[name] for fold in self.folds]
            figure.add_scatter(
                x=[*ends[:, 0], ends[-1, 1]], y=[*chosen, chosen[-1]], name=name, mode="lines",
                line={"shape": "hv"}, row=row, col=1,
            )  # fmt: skip
            figure.update_yaxes(title=name, row=row, col=1)
        for at in ends[:, 0]:
            figure.add_vline(at.item(), line={"width": 1, "dash": "dot", "color": "#7f7f7f"})
        figure.update_layout(
            template="plotly_white", title=f"Walk-forward of {self.name}, by {self.rank}",
            height=380 + 90 * len(names), yaxis_title="quote currency",
        )  # fmt: skip
        return figure

    def __repr__(self) -> str:
        told = self._shown.to_string(max_rows=_SHOWN_FOLDS, float_format=_FORMAT).split("\n")
        values = {each.name: each for each in self.estimates(sure=False)}
        lines = [self._title, *(line for line in told if not line.startswith("fold ")), *self._said]
        lines += summary.lines(values, self._run.returns, self.benchmark)
        return "\n  ".join([*lines, *self._noted])

    def _repr_html_(self) -> str:
        # The same, for a notebook; with every fold.
        rows = self._shown.map(lambda x: _FORMAT(x) if isinstance(x, float) else x)
        folds = [{"fold": at, **row} for at, row in rows.to_dict("index").items()]
        tables = [page.table(folds), page.pairs(self.estimates(sure=False))]
        return page.card(self._title, tables, [*self._said, *self._noted])

    @property
    def _title(self) -> str:
        trials, several = self.folds[-1].trials, "s" if len(self.folds) > 1 else ""
        return (
            f"Walk-forward of {self.name}: {len(self.folds)} fold{several}, the best of {trials:,} "
            f"combinations in training, by {self.rank}"
        )

    @property
    def _shown(self) -> "pd.DataFrame":
        shown = self.frame.drop(columns=["train", "train_end"])
        for name in ("test", "test_end"):
            shown[name] = shown[name].dt.strftime("%Y-%m-%d %H:%M")
        return shown

    @property
    def _said(self) -> list[str]:
        moved = self.stability.to_dict("index").items()
        return [self._left(), *(f"{name} {_steady(row)}" for name, row in moved)]

    @property
    def _noted(self) -> list[str]:
        return [*self.notes, *(f"! {finding}" for finding in self.warnings)]

    def _left(self) -> str:
        # How much of the score in sample was left.
        means = self.frame[["in_sample", "out_of_sample"]].dropna().mean()  # as in `efficiency`
        won = np.count_nonzero(self.frame["return"] > 0.0)
        efficiency = f"{self.efficiency:.0%}" if math.isfinite(self.efficiency) else "-"
        return (
            f"{self.rank} in sample {means['in_sample']:.2f}, out of sample "
            f"{means['out_of_sample']:.2f} (means): efficiency {efficiency}; "
            f"{won} of {len(self.folds)} folds earned"
        )


def chained(
    times: Sequence[Ints], equities: Sequence[Floats], capital: float
) -> tuple[Ints, Floats]:
    """Equities one after the other, each going on with what the one before left.

    Parameters
    ----------
    times : ns UTC of each, rising; what is not after the end of the one before is left out.
    equities : at these times, quote currency.
    capital : at the first of all.

    Returns
    -------
    Times, rising, and equity.
    """
    ts, found, level = [np.empty(0, np.int64)], [np.empty(0)], capital
    for own, equity in zip(times, equities, strict=True):
        new = _new(own, ts[-1])
        ts.append(own[new])
        found.append(level / equity[0] * equity[new])
        level *= equity[-1] / equity[0]
    return np.concatenate(ts), np.concatenate(found)


def stitched(parts: Sequence[Ledger], capital: float) -> Run:
    """Runs one after the other as one: amounts as if each had begun with what the last one left.

    Parameters
    ----------
    parts : in the order of time, none within another.
    capital : at the beginning.
    """
    times = [part.equity[0] for part in parts]
    ts, equity = chained(times, [part.equity[1] for part in parts], capital)
    grown = np.cumprod([1.0, *(part.equity[1][-1] / part.equity[1][0] for part in parts[:-1])])
    scales = [capital / part.equity[1][0] * times for part, times in zip(parts, grown, strict=True)]
    kept = [_new(own, before) for own, before in zip(times, [ts[:0], *times[:-1]], strict=True)]
    runs = [part.run for part in parts]

    def joined(name: str, scale: Sequence[float] | None = None) -> Any:
        values = [getattr(run, name) for run in runs]
        if scale is not None:
            values = [value * by for value, by in zip(values, scale, strict=True)]
        return np.concatenate(values)

    def at_times(name: str) -> Floats:
        return np.concatenate([getattr(r, name)[new] for r, new in zip(runs, kept, strict=True)])

    trips = joined("trips")
    trips["pnl"] *= np.repeat(scales, [len(run.trips) for run in runs])
    return Run(
        ts, equity, at_times("gross"), at_times("net"), sampled(ts, equity), trips,
        joined("traded_at"), joined("values", scales), joined("costs", scales),
        joined("participation"), joined("is_stale"),
        sum(run.financed * by for run, by in zip(runs, scales, strict=True)), capital,
    )  # fmt: skip


def _new(ts: Ints, before: Ints) -> Any:
    # What comes after the end of the run before.
    return ts > before[-1] if len(before) else np.ones(len(ts), bool)


def _end(fold: Fold) -> float:
    return float(fold.result.ledger.equity[1][-1])


def _steady(row: Mapping[str, Any]) -> str:
    if row["different"] == 1:
        return f"was always {row['lowest']!r}"
    return (
        f"from {row['lowest']} to {row['highest']}, moved in {row['moved']:.0%} of the steps, by "
        f"{row['step']:.0%} of its range on average"
    )


def _series(ts: Ints, values: Floats, name: str) -> "pd.Series":
    import pandas as pd

    return pd.Series(values, pd.DatetimeIndex(ts.view("M8[ns]"), tz="UTC", name="ts"), name=name)
