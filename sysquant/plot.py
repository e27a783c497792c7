"""Figures of a result (plotly), and the report of a run as one HTML page that needs no network.

Input: a result with its series, tables and statistics, as `backtest` returns it. Output:
plotly figures, at most `MOST_POINTS` points a trace with the extremes kept. Nothing is computed
here that a result does not say; the live runner never imports this.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import plotly.graph_objects as go

from sysquant import page
from sysquant.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from sysquant.lint import Finding
    from sysquant.summary import Estimate

MOST_POINTS = 5_000  # of a trace
_MOST_PRICES = 12  # figures of a report
_MOST_ORDERS = 50  # rows of a report's table
_MOST_TRIPS = 5  # best and worst
_NO_SERIES: Mapping[str, "pd.Series"] = {}
_LOOK = {
    "template": "plotly_white",
    "hovermode": "x",
    "height": 380,
    "margin": {"l": 70, "r": 20, "t": 60, "b": 40},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
}
# Told apart by shape, and by colours that the colour-blind see as two.
_BOUGHT = {"symbol": "triangle-up", "size": 9, "color": "#0072b2"}
_SOLD = {"symbol": "triangle-down", "size": 9, "color": "#d55e00"}
_REFUSED = {"symbol": "x-thin-open", "size": 9, "color": "#7f7f7f", "line": {"width": 2}}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Outcome(Protocol):
    """What is drawn: the part of `sysquant.result.Result` that figures and the report need."""

    @property
    def symbols(self) -> Sequence[str]:
        """Of the universe."""
        ...

    @property
    def equity(self) -> "pd.Series":
        """Of the book, quote currency, by time."""
        ...

    @property
    def buy_and_hold(self) -> "pd.Series":
        """The same capital, held; at the times of `equity`."""
        ...

    @property
    def drawdown(self) -> "pd.Series":
        """Fractions <= 0, at the times of `equity`."""
        ...

    @property
    def exposure(self) -> "pd.DataFrame":
        """Columns gross and net, fractions of equity, by time."""
        ...

    @property
    def costs(self) -> "pd.DataFrame":
        """Paid so far, a column of each kind, quote currency, by time."""
        ...

    @property
    def monthly(self) -> "pd.DataFrame":
        """Return by year (rows) and month (columns 1 to 12, and year), fractions."""
        ...

    @property
    def trips(self) -> "pd.DataFrame":
        """Round trips, a row each."""
        ...

    def estimates(self) -> Sequence["Estimate"]:
        """The statistics, with their limits."""
        ...

    @property
    def warnings(self) -> Sequence["Finding"]:
        """What to look at first."""
        ...

    def rolling_sharpe(self, window: int | None = None) -> "pd.Series":
        """Of the last `window` returns, per year, by time; its name says the window."""
        ...

    def prices(self, symbol: str) -> "pd.Series":
        """Quote currency, by time."""
        ...

    def table(self, name: str) -> "pd.DataFrame":
        """Rows of `orders` or `executions`, with the columns of the store."""
        ...


def equity(result: Outcome, *, also: Mapping[str, "pd.Series"] = _NO_SERIES) -> go.Figure:
    """Equity of the book against buy and hold.

    Parameters
    ----------
    result : of a backtest.
    also : name -> equity of another run, quote currency by time, drawn with them.

    Returns
    -------
    One line each: equity, buy and hold, then `also` in its order.
    """
    if not isinstance(also, Mapping):
        raise ConfigError('also must be a mapping: {"name": other.equity}')
    figure = blank("Equity", "quote currency")
    for name, series in {"equity": result.equity, "buy and hold": result.buy_and_hold}.items():
        figure.add_trace(line(series, name))
    for name, series in also.items():
        figure.add_trace(line(series, name))
    return figure


def drawdown(result: Outcome) -> go.Figure:
    """Drawdown of the book, fractions <= 0, one filled line."""
    figure = blank("Drawdown", "fraction of the highest equity")
    figure.add_trace(line(result.drawdown, "drawdown").update(fill="tozeroy"))
    return figure.update_yaxes(tickformat=".1%")


def price(result: Outcome, symbol: str) -> go.Figure:
    """Close of every bar of `symbol`, with what was bought, sold and refused.

    Parameters
    ----------
    result : of a backtest.
    symbol : of its universe.

    Returns
    -------
    Four traces: the price, fills that bought, fills that sold (at their own price), and refused
    orders (at the price they saw, with the reasons). Each name says how many there are.

    Raises
    ------
    ConfigError
        If the universe has no such symbol.
    """
    figure = blank(symbol, "quote currency")
    figure.add_trace(line(result.prices(symbol), "close"))
    fills = result.table("executions").query("symbol == @symbol")
    refused = result.table("orders").query("symbol == @symbol and status == 'refused'")
    figure.add_trace(_marks(fills.query("quantity > 0"), "bought", _BOUGHT))
    figure.add_trace(_marks(fills.query("quantity < 0"), "sold", _SOLD))
    figure.add_trace(_marks(refused, "refused", _REFUSED))
    return figure


def rolling_sharpe(result: Outcome, *, window: int | None = None) -> go.Figure:
    """Sharpe ratio per year of the last `window` returns, one line; see `Result.rolling_sharpe`."""
    series = result.rolling_sharpe(window)
    figure = blank(f"Rolling {series.name}", "per year")
    figure.add_hline(0.0, line={"width": 1, "color": "#7f7f7f"})
    return figure.add_trace(line(series.dropna(), "Sharpe"))


def exposure(result: Outcome) -> go.Figure:
    """Gross and net exposure, fractions of equity, a line each."""
    return _lines(result.exposure, "Exposure", "of equity").update_yaxes(tickformat=".0%")


def costs(result: Outcome) -> go.Figure:
    """Fees, slippage and financing paid so far, quote currency, a line each."""
    return _lines(result.costs, "Costs so far", "quote currency")


def monthly(result: Outcome) -> go.Figure:
    """Return of every month and year: a table in colours, losses red, gains blue."""
    table = result.monthly
    values = table.to_numpy()
    most = float(np.nanmax(np.abs(values[:, :12]), initial=0.0)) or 1.0
    texts = [["" if np.isnan(value) else f"{value:+.1%}" for value in row] for row in values]
    drawn = go.Heatmap(
        z=values, x=[*_MONTHS, "year"], y=[str(year) for year in table.index], text=texts,
        texttemplate="%{text}", colorscale="RdBu", zmid=0.0, zmin=-most, zmax=most,
        showscale=False, xgap=2, ygap=2, name="return", hoverongaps=False,
    )  # fmt: skip
    figure = blank("Return by month", "").add_trace(drawn)
    figure.update_layout(height=150 + 34 * len(table), hovermode="closest")
    return figure.update_yaxes(autorange="reversed", type="category")


def figures(result: Outcome) -> dict[str, go.Figure]:
    """Every figure by name: those of the book, then the price of each symbol that was traded most.

    Parameters
    ----------
    result : of a backtest.
    """
    orders = result.table("orders")
    drawn = {
        "equity": equity(result),
        "drawdown": drawdown(result),
        "rolling_sharpe": rolling_sharpe(result),
        "monthly": monthly(result),
        "exposure": exposure(result),
        "costs": costs(result),
    }
    return drawn | {symbol: price(result, symbol) for symbol in _most_traded(result, orders)[0]}


def report(result: Outcome, path: str | Path) -> Path:
    """Write one HTML page that needs nothing else: the tear sheet of a backtest.

    At the top what to look at first and the headline figures, then every statistic with its limits
    and source, the figures, the best and worst round trips, refusals, and the last orders.

    Parameters
    ----------
    result : of a backtest.
    path : of the page, 5 to 8 MB; directories are made.

    Returns
    -------
    `path`, as it was written.

    Raises
    ------
    ConfigError
        If it is a directory, or named as something else than a page.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the tear sheet is a page: name it .html, was {str(path)!r}")
    orders, said = result.table("orders"), repr(result).splitlines()
    drawn = [
        # The first brings plotly.js along for all of them.
        figure.to_html(
            full_html=False, include_plotlyjs=place == 0, include_mathjax=False,
            config={"displaylogo": False},
        )
        for place, figure in enumerate(figures(result).values())
    ]  # fmt: skip
    left_out = _most_traded(result, orders)[1]
    if left_out:
        drawn.append(f"<p>Not drawn: {left_out} symbols that were traded less.</p>")
    estimates = result.estimates()
    parts = [
        page.findings(result.warnings),
        page.headline(estimates),
        f"<h2>Statistics</h2>{page.statistics(estimates)}",
        "<h2>Figures</h2>",
        *drawn,
        f"<h2>Round trips</h2>{_extreme_trips(result.trips)}",
        f"<h2>Refusals</h2>{_refusals(orders)}",
        f"<h2>Last orders</h2>{_last_orders(orders)}",
        f"<h2>As printed</h2>{page.printed(said)}",
    ]
    written = Path(path)
    if written.is_dir():
        raise ConfigError(f"path must be a file, like {written / 'report.html'}, was a directory")
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(page.document(said[0], "".join(said[1:2]).strip(), parts), encoding="utf-8")
    return written


def thin(values: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Rows that stand for all of `values` in a plot.

    Parameters
    ----------
    values : (T,) in the order drawn.
    most : rows to keep, at least 4.

    Returns
    -------
    (R,) rising row numbers, R <= most: all when they are few, else the first, the last, and the
    lowest and highest of every stretch of equal length. NaN counts as lowest and highest.
    """
    rows = len(values)
    if rows <= most:
        return np.arange(rows)
    width = -(-rows // (most // 2 - 1))
    stretches = np.pad(values, (0, -rows % width), mode="edge").reshape(-1, width)
    first = np.arange(0, rows, width)
    kept = [first + stretches.argmin(axis=1), first + stretches.argmax(axis=1), [0, rows - 1]]
    return np.unique(np.minimum(np.concatenate(kept), rows - 1))


def blank(title: str, unit: str) -> go.Figure:
    """A figure of the package's look, with nothing drawn in it yet; `unit` is that of y."""
    return go.Figure(layout={"title": title, "yaxis": {"title": unit}, **_LOOK})


def _times(times: "pd.Series | pd.Index") -> np.ndarray:
    # Plotly takes times without a zone as they are: UTC.
    return times.to_numpy("M8[us]")


def line(series: "pd.Series", name: str) -> go.Scatter:
    """A series by time (UTC) as a trace of at most `MOST_POINTS` points."""
    rows = thin(series.to_numpy())
    kept = series.iloc[rows]
    return go.Scatter(x=_times(kept.index), y=kept.to_numpy(), name=name, mode="lines")


def _lines(table: "pd.DataFrame", title: str, unit: str) -> go.Figure:
    # A line for each column.
    figure = blank(title, unit)
    for name, series in table.items():
        figure.add_trace(line(series, str(name)))
    return figure


def _marks(rows: "pd.DataFrame", what: str, marker: Mapping[str, object]) -> go.Scatter:
    # Fills, or refused orders, which alone have a reason.
    kept = rows.iloc[thin(rows["price"].to_numpy())]
    shown = f", {len(kept):,} drawn" if len(kept) < len(rows) else ""
    reasons = kept["reason"] if "reason" in kept else [""] * len(kept)
    texts = [
        f"{strategy} order {number}: {quantity:+,.10g} {reason}".rstrip()
        for strategy, number, quantity, reason in zip(
            kept["strategy"], kept["order_no"], kept["quantity"], reasons, strict=True
        )
    ]
    return go.Scatter(
        x=_times(kept["ts"]), y=kept["price"].to_numpy(), text=texts, mode="markers",
        marker=dict(marker), name=f"{what} ({len(rows):,}{shown})",
    )  # fmt: skip


def _most_traded(result: Outcome, orders: "pd.DataFrame") -> tuple[list[str], int]:
    # Symbols to draw, those with most orders first, and how many with orders are left out.
    ranked = [str(symbol) for symbol in orders["symbol"].value_counts().index]
    ranked = ranked or list(result.symbols[:1])
    return ranked[:_MOST_PRICES], len(ranked[_MOST_PRICES:])


def _extreme_trips(trips: "pd.DataFrame") -> str:
    if trips.empty:
        return "<p>There was none.</p>"
    rows = [
        {
            "strategy": trip["strategy"], "symbol": trip["symbol"],
            "entry": trip["entry_ts"].floor("s"), "held": trip["held"].floor("s"),
            "quantity": trip["quantity"], "entry price": trip["entry_price"],
            "exit price": trip["exit_price"], "P&L": round(trip["pnl"], 2),
            "return": f"{trip['return']:+.2%}", "worst": f"{trip['mae']:+.2%}",
            "best": f"{trip['mfe']:+.2%}", "": "open" if trip["is_open"] else "",
        }
        for trip in _ranked(trips).to_dict("records")
    ]  # fmt: skip
    return page.table(rows)


def _ranked(trips: "pd.DataFrame") -> "pd.DataFrame":
    ranked = trips.sort_values("pnl", ascending=False)
    few = len(ranked) <= 2 * _MOST_TRIPS
    rows = np.arange(len(ranked))
    return ranked if few else ranked.iloc[np.append(rows[:_MOST_TRIPS], rows[-_MOST_TRIPS:])]


def _refusals(orders: "pd.DataFrame") -> str:
    reasons = orders.loc[orders["status"] == "refused", "reason"]
    if reasons.empty:
        return "<p>No order was refused.</p>"
    counts = reasons.value_counts()
    return page.table([{"refused by": by, "orders": count} for by, count in counts.items()])


def _last_orders(orders: "pd.DataFrame") -> str:
    if orders.empty:
        return "<p>There was none.</p>"
    columns = [
        "ts", "strategy", "order_no", "symbol", "quantity", "target", "price", "status", "reason",
    ]  # fmt: skip
    return page.table(orders[columns].tail(_MOST_ORDERS).iloc[::-1].to_dict("records"))
