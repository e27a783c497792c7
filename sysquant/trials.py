"""What a sweep found: a row per combination, how it was verified, its best, and its plateaus.

Input: the rows of a sweep. Output: a frame, a heat map (plotly), the centre of the region whose
neighbours do as well, and what a correction for the number of trials needs. Nothing is run here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sysquant import lint, page
from sysquant.errors import ConfigError, nearest
from sysquant.grid import Grid, described
from sysquant.keys import check_number
from sysquant.lint import Finding
from sysquant.strategy import Parameter, Strategy
from sysquant.types import Floats

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHOWN = ("fills", "refused", "return", "sharpe", "drawdown", "turnover", "costs")
_SHOWN_ROWS = 5
_LEAST_BLOCK = 0.6  # of the neighbours that a place away from the edges has: a corner has 4 of 9


@dataclass(frozen=True, slots=True)
class Plateau:
    """The best region of a sweep against its best single combination.

    Parameters
    ----------
    value : column of the frame that was smoothed.
    centre, peak : parameters of the combination with the best median over itself and its
        neighbours, and of the one that is best alone.
    centre_alone, peak_alone : their own values.
    centre_median, peak_median : medians over each and its neighbours.
    combinations : in the median of the centre.
    """

    value: str
    centre: Mapping[str, Parameter]
    peak: Mapping[str, Parameter]
    centre_alone: float
    peak_alone: float
    centre_median: float
    peak_median: float
    combinations: int

    def __repr__(self) -> str:
        return (
            f"plateau around {described(self.centre)}: {self.value} {self.centre_alone:.3g}, with "
            f"its neighbours {self.centre_median:.3g}; peak at {described(self.peak)}: "
            f"{self.peak_alone:.3g}, with its neighbours {self.peak_median:.3g}"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """How far a sweep was compared with single backtests.

    Parameters
    ----------
    best, sampled : combinations that were run again: the best, and drawn at random.
    trades : fills that were compared, byte by byte.
    disagreements : what differed, a sentence each; empty when all agree.
    """

    best: int
    sampled: int
    trades: int
    disagreements: Sequence[str] = ()

    def __repr__(self) -> str:
        if not self.best + self.sampled:
            return "not verified: nothing was run again"
        asked = (
            f"the best {self.best} and {self.sampled} drawn at random were run again as backtests"
        )
        if self.disagreements:
            return f"DISAGREES in {len(self.disagreements)} of them: {asked}"
        return f"verified: {asked}, all {self.trades:,} trades are the same bytes"


@dataclass(frozen=True, slots=True, repr=False)
class Sweep:
    """Every combination that was tried, and what came of it.

    Parameters
    ----------
    grid : the combinations.
    frame : one row per combination: its parameters, then the columns of `scores.Score.close`. Of a
        screened sweep also `screen_*` by vectorbt, and NaN where the engine did not run.
    rank : column by which combinations are the better the larger it is.
    verified : how it was compared with single backtests.
    notes : what a reader must know: what was started anew, what disagrees.
    returns : (T, N) simple returns of each combination that the engine ran (columns: rows of the
        frame) between its snapshots, indexed by their ends (UTC); None unless they were asked for.
    """

    grid: Grid
    frame: "pd.DataFrame"
    rank: str
    verified: Verification
    notes: tuple[str, ...] = ()
    returns: "pd.DataFrame | None" = None

    @property
    def agrees(self) -> bool:
        """Whether nothing that was compared differed."""
        return not self.verified.disagreements

    def best(self, k: int = 10, by: str = "") -> "pd.DataFrame":
        """The k combinations with the largest `by` (default: the sweep's rank), best first.

        NaN is nobody's best. Ties keep the order of the grid.
        """
        values = self._values(by or self.rank)
        order = np.argsort(-values, kind="stable")  # NaN goes to the end
        return self.frame.iloc[order[: min(k, np.count_nonzero(~np.isnan(values)))]]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is wrong at first sight, see `lint`: no trade, an edge, a short history."""
        edges = list[Finding]()
        if not np.isnan(self._values(self.rank)).all():
            tried = {name: self.frame[name].tolist() for name in self.grid.names}
            edges = lint.grid_edge(tried, self.plateau().peak)
        orders = self.frame[["approved", "refused"]].sum().sum()
        return (*lint.no_orders(int(orders)), *edges, *short(self.frame))

    def strategy(self, at: int) -> Strategy:
        """The instance of a row of the frame, by its index.

        Raises
        ------
        ConfigError
            If there is no such row.
        """
        check_number("the index of a row", at, least=0, most=len(self.grid) - 1, whole=True)
        return self.grid.strategies[at]

    def plateau(self, value: str = "") -> Plateau:
        """The region whose neighbours do as well, against the best single combination.

        The middle of what a combination and its neighbours in the grid do is what it can be
        expected to do when the parameters are a little off; `Grid.smooth` says who is a neighbour.
        The median, for one lucky neighbour makes no plateau. A centre has at least 60 % of the
        neighbours that a place in the middle of the grid has, where there is one.

        Raises
        ------
        ConfigError
            If no combination has a value.

        References
        ----------
        S. Tsutsui, A. Ghosh, Genetic algorithms with a robust solution searching scheme, IEEE
        Transactions on Evolutionary Computation 1, 1997: the fitness of perturbed
        parameters (there its mean).
        """
        column = value or self.rank
        alone = self._values(column)
        if np.isnan(alone).all():
            raise ConfigError(f"no combination has a {column}; choose another column")
        medians, found = self.grid.smooth(alone)
        enough = (found >= _LEAST_BLOCK * self.grid.most_neighbours) & ~np.isnan(alone)
        if not enough.any():
            enough = ~np.isnan(alone)
        centre = int(np.nanargmax(np.where(enough, medians, -np.inf)))
        peak = int(np.nanargmax(alone))
        return Plateau(
            column, self.grid.parameters(centre), self.grid.parameters(peak), float(alone[centre]),
            float(alone[peak]), float(medians[centre]), float(medians[peak]), int(found[centre]),
        )  # fmt: skip

    def heat_map(self, x: str, y: str, value: str = "") -> "go.Figure":
        """A column over two parameters, with the peak and the centre of the plateau marked.

        Parameters
        ----------
        x, y : parameters that were swept.
        value : column; default the sweep's rank. Over all other parameters it is the mean.

        Raises
        ------
        ConfigError
            If a name is not one of those.
        """
        import plotly.graph_objects as go

        column = value or self.rank
        values = self._values(column)
        for name in (x, y):
            if name not in self.grid.names:
                raise ConfigError(f"{name!r} was not swept{nearest(name, self.grid.names)}")
        if x == y:
            raise ConfigError(f"a heat map needs two parameters, was {x!r} twice")
        table = self.frame.pivot_table(index=y, columns=x, values=column, aggfunc="mean")
        figure = go.Figure(
            go.Heatmap(
                x=list(table.columns), y=list(table.index), z=table.to_numpy(),
                colorbar={"title": column}, colorscale="Cividis",
            ),
            layout={
                "template": "plotly_white",
                "title": f"{column} of {len(self.frame):,} combinations",
                "xaxis": {"title": x}, "yaxis": {"title": y},
            },
        )  # fmt: skip
        if not np.isnan(values).all():
            plateau = self.plateau(column)
            for name, chosen, symbol in (
                ("peak", plateau.peak, "x"), ("plateau", plateau.centre, "circle-open"),
            ):  # fmt: skip
                figure.add_scatter(
                    x=[chosen[x]], y=[chosen[y]], name=name, mode="markers",
                    marker={"symbol": symbol, "size": 14, "color": "#d55e00", "line": {"width": 3}},
                )  # fmt: skip
        return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})

    def trials(self) -> dict[str, float]:
        """What a deflated Sharpe ratio of the best combination needs.

        Returns
        -------
        trials (all combinations), variance of their Sharpe ratios per period (ddof 1; of those
        that have one), and of the best one `sharpe` per period, `periods`, `skew` and `kurtosis`
        (3 if normal). NaN where there is none.

        References
        ----------
        D. H. Bailey, M. Lopez de Prado, The deflated Sharpe ratio, Journal of Portfolio Management
        40, 2014.
        """
        sharpe = self._values("sharpe_period")
        known = sharpe[~np.isnan(sharpe)]
        variance = float(known.var(ddof=1)) if len(known) > 1 else math.nan
        names = {"sharpe": "sharpe_period", "periods": "", "skew": "", "kurtosis": ""}
        best = int(np.nanargmax(sharpe)) if len(known) else -1
        return {"trials": float(len(sharpe)), "variance": variance} | {
            name: float(self._values(column or name)[best]) if len(known) else math.nan
            for name, column in names.items()
        }

    def _values(self, name: str) -> Floats:
        numbers = [str(column) for column in self.frame.select_dtypes("number").columns]
        if name not in numbers:
            raise ConfigError(f"a sweep has no column {name!r}{nearest(name, numbers)}")
        return self.frame[name].to_numpy(np.float64)

    def __repr__(self) -> str:
        best = [] if self._shown.empty else self._shown.to_string().split("\n")
        return "\n  ".join([self._title, *best, *self._said()])

    def _repr_html_(self) -> str:
        # The same, for a notebook.
        rows = [{"": at, **row} for at, row in self._shown.to_dict("index").items()]
        return page.card(self._title, [page.table(rows)] if rows else [], self._said())

    @property
    def _title(self) -> str:
        cls = type(self.grid.strategies[0]).__name__
        left = f", {self.grid.left_out:,} left out" if self.grid.left_out else ""
        return f"Sweep of {cls} over {len(self.grid):,} combinations{left}, by {self.rank}"

    @property
    def _shown(self) -> "pd.DataFrame":
        columns = list(dict.fromkeys([*self.grid.names, *_SHOWN, self.rank]))
        return self.best(_SHOWN_ROWS).reindex(columns=columns).map(_rounded)

    def _said(self) -> list[str]:
        lines = [] if np.isnan(self._values(self.rank)).all() else [repr(self.plateau())]
        refused = int(np.count_nonzero(self._values("refused") > 0))
        if refused:
            lines.append(f"in {refused:,} combinations an order was refused: see refused_<check>")
        said = [repr(self.verified), *self.verified.disagreements, *self.notes]
        return [*lines, *said, *(f"! {finding}" for finding in self.warnings)]


def short(rows: "pd.DataFrame") -> list[Finding]:
    """What is to be said of the time that rows of `scores.Score.close` rest on, if any does."""
    most = rows[["elapsed_days", "periods"]].max()
    return [] if most.isna().any() else lint.short_history(most.iloc[0], int(most.iloc[1]))


def first_apart(own: np.ndarray, single: np.ndarray) -> str:
    """The first trade in which fills of a sweep and of a single backtest differ, for people.

    Parameters
    ----------
    rows, single : records of `executions`, which are not the same bytes.
    """
    both = min(len(own), len(single))
    words = [rows[:both].view(np.uint64).reshape(both, -1) for rows in (own, single)]
    apart = np.flatnonzero((words[0] != words[1]).any(axis=1))
    place = int(apart[0]) if apart.size else both
    if place == len(own) == len(single):
        return "asked again, it trades alike: the strategy is no pure function of its features"
    told = [_trade(rows, place) for rows in (own, single)]
    return f"trade {place + 1} is {told[0]}, and {told[1]}"


def _trade(fills: np.ndarray, place: int) -> str:
    if place >= len(fills):
        return "missing"
    fill = fills[place]
    ts = np.datetime64(int(fill["ts"]), "ns").astype("M8[ms]")
    return f"{fill['quantity']:+.10g} at {fill['price']:.10g} on {ts} UTC"


def _rounded(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
