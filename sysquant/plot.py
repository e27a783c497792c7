"""Figures of a result (plotly), and the report of a run as one HTML page that needs no network.

Input: a result with equity, prices and tables, as `sysquant.backtest` returns it. Output: plotly
figures, at most `MOST_POINTS` points a trace with the extremes kept. Nothing is computed here that
a result does not say; the live runner never imports this.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import plotly.graph_objects as go

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 5_000  # of a trace
_MOST_PRICES = 12  # figures of a report
_MOST_ORDERS = 50  # rows of a report's table
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
_STYLE = """body { font-family: sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
pre { white-space: pre-wrap; background: #f4f4f4; padding: 1rem }
table { border-collapse: collapse; font-size: 0.85rem } td, th { padding: 0.15rem 0.6rem }
td { text-align: right; border-top: 1px solid #ddd }"""


class Outcome(Protocol):
    """What is drawn: the part of `sysquant.backtest.Result` that figures need."""

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
    figure = _figure("Equity", "quote currency")
    for name, series in {"equity": result.equity, "buy and hold": result.buy_and_hold}.items():
        figure.add_trace(_line(series, name))
    for name, series in also.items():
        figure.add_trace(_line(series, name))
    return figure


def drawdown(result: Outcome) -> go.Figure:
    """Drawdown of the book, fractions <= 0, one filled line."""
    figure = _figure("Drawdown", "fraction of the highest equity")
    figure.add_trace(_line(result.drawdown, "drawdown").update(fill="tozeroy"))
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
    figure = _figure(symbol, "quote currency")
    figure.add_trace(_line(result.prices(symbol), "close"))
    fills = result.table("executions").query("symbol == @symbol")
    refused = result.table("orders").query("symbol == @symbol and status == 'refused'")
    figure.add_trace(_marks(fills.query("quantity > 0"), "bought", _BOUGHT))
    figure.add_trace(_marks(fills.query("quantity < 0"), "sold", _SOLD))
    figure.add_trace(_marks(refused, "refused", _REFUSED))
    return figure


def report(result: Outcome, path: str | Path) -> Path:
    """Write one HTML page that needs nothing else: figures, the printed result, orders, refusals.

    Parameters
    ----------
    result : of a backtest.
    path : of the page, about 5 MB; directories are made.

    Returns
    -------
    `path`, as it was written.
    """
    orders = result.table("orders")
    symbols, left_out = _most_traded(result, orders)
    figures = [equity(result), drawdown(result), *(price(result, symbol) for symbol in symbols)]
    drawn = [
        # The first brings plotly.js along for all of them.
        figure.to_html(full_html=False, include_plotlyjs=place == 0, include_mathjax=False)
        for place, figure in enumerate(figures)
    ]
    if left_out:
        drawn.append(f"<p>Not drawn: {left_out} symbols that were traded less.</p>")
    said = html.escape(repr(result))
    title = said.splitlines()[0]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Backtest</h1><pre>{said}</pre>",
        *drawn,
        f"<h2>Refusals</h2>{_refusals(orders)}",
        f"<h2>Last orders</h2>{_last_orders(orders)}",
        "</body></html>\n",
    ]
    page = Path(path)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


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


def _figure(title: str, unit: str) -> go.Figure:
    return go.Figure(layout={"title": title, "yaxis": {"title": unit}, **_LOOK})


def _times(times: "pd.Series | pd.Index") -> np.ndarray:
    # Plotly takes times without a zone as they are: UTC.
    return times.to_numpy("M8[us]")


def _line(series: "pd.Series", name: str) -> go.Scatter:
    rows = thin(series.to_numpy())
    kept = series.iloc[rows]
    return go.Scatter(x=_times(kept.index), y=kept.to_numpy(), name=name, mode="lines")


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


def _refusals(orders: "pd.DataFrame") -> str:
    reasons = orders.loc[orders["status"] == "refused", "reason"]
    if reasons.empty:
        return "<p>No order was refused.</p>"
    counts = reasons.value_counts().rename_axis("refused by").rename("orders")
    return counts.to_frame().to_html(border=0)


def _last_orders(orders: "pd.DataFrame") -> str:
    if orders.empty:
        return "<p>There was none.</p>"
    columns = [
        "ts", "strategy", "order_no", "symbol", "quantity", "target", "price", "status", "reason",
    ]  # fmt: skip
    last = orders[columns].tail(_MOST_ORDERS).iloc[::-1]
    return last.to_html(index=False, border=0, float_format="{:,.10g}".format)
