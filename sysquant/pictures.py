"""Figures (plotly) of a training: what it was trained on, what it foresees, and what that earns.

Input: what `retraining.train` returned, and its history. Output: a figure each, whose title says
what is seen. Nothing is fitted or judged here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sysquant import plot
from sysquant.models.judging import calibration, confusion
from sysquant.models.labels import CLASSES, classes_of
from sysquant.past import History
from sysquant.plot import blank
from sysquant.retraining import Trained
from sysquant.types import Floats, Ints

_COLOURS = dict(zip(CLASSES, ("#d55e00", "#7f7f7f", "#0072b2"), strict=True))
_SCORES = {  # of a guess
    "skill": 0.0, "direction": 0.0, "accuracy": 1 / len(CLASSES), "one_sided": 1 / len(CLASSES),
}  # fmt: skip


def window(trained: Trained, history: History) -> go.Figure:
    """Close of the first symbol, with a stripe for each test of the walk-forward."""
    symbol, ts = history.symbols[0], trained.training.ts
    count, tests = len(trained.training), len(trained.found)
    figure = blank(f"{symbol}: {count:,} rows, {tests} tests (stripes)", "quote currency")
    close: Any = history.frame(symbol)["close"]
    figure.add_trace(plot.line(close, "close"))
    for number, one in enumerate(trained.found):
        first, last = (_time(int(ts[one.rows[row]])) for row in (0, -1))
        figure.add_vrect(first, last, opacity=0.1 + 0.1 * (number % 2), line_width=0)
    return figure


def labels(trained: Trained) -> go.Figure:
    """Share of each class in all training rows, as they come and as they weigh."""
    training, codes = trained.training, _codes(trained)
    figure = blank(f"Labels: {training.labels!r}", "share of the rows")
    _bars(figure, "rows", _shares(codes))
    weighed = np.bincount(codes, weights=training.weight, minlength=len(CLASSES))
    _bars(figure, "weight", weighed / weighed.sum())
    return figure.update_yaxes(tickformat=".0%")


def walk(trained: Trained) -> go.Figure:
    """Each score with the limits of 95 %, as a distance from that of a guess."""
    names = list(trained.scores)
    value, low, high = np.array([trained.scores[name] for name in names]).T
    guess = np.array([_SCORES[name] for name in names])
    skill = trained.scores["skill"]
    title = f"Out of sample: skill {skill.value:.4f}, {skill.low:.4f} to {skill.high:.4f} nats"
    figure = blank(title, "above a guess")
    figure.add_hline(0.0, line={"width": 1, "color": "#7f7f7f"})
    drawn = go.Scatter(
        x=names, y=value - guess, mode="markers", name="score",
        error_y={"array": high - value, "arrayminus": value - low},
    )  # fmt: skip
    return figure.add_trace(drawn)


def confused(trained: Trained) -> go.Figure:
    """What came against what was foreseen, counts; shares of what came in colours."""
    counts = confusion(trained.found)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = float(np.mean(np.diag(share)))
    figure = blank(f"Confusion: {right:.1%} of each class foreseen, a guess 33.3%", "came")
    figure.add_heatmap(
        z=share, x=list(CLASSES), y=list(CLASSES), text=counts, texttemplate="%{text:,}",
        zmin=0, zmax=1, colorscale="Blues", name="rows",
    )  # fmt: skip
    return figure.update_xaxes(title="foreseen").update_yaxes(autorange="reversed")


def calibrated(trained: Trained) -> go.Figure:
    """Share in which each class came, against the chance it was given; honest is the diagonal."""
    figure = blank("Calibration", "share that came")
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="honest", line={"dash": "dot"})
    for code, name in enumerate(CLASSES):
        chance, came, rows = calibration(trained.found, code)
        figure.add_scatter(
            x=chance, y=came, mode="lines+markers", name=name, text=[f"{n:,} rows" for n in rows],
            line={"color": _COLOURS[name]},
        )  # fmt: skip
    return figure.update_xaxes(title="chance")


def importances(found: Mapping[str, float]) -> go.Figure:
    """Skill that is lost without each feature, as `judging.importance` has it."""
    first = next(iter(found))
    figure = blank(f"Importance: most by {first}", "")
    figure.add_bar(x=list(found.values()), y=list(found), orientation="h", name="skill lost")
    figure.update_layout(height=120 + 22 * len(found)).update_xaxes(title="nats a row")
    return figure.update_yaxes(autorange="reversed")


def earned(trained: Trained) -> go.Figure:
    """Equity of the signal after costs, over all tests, against the model that serves now."""
    before = trained.before
    also = {} if before is None else {"model that serves": before.equity}
    against = "" if before is None else f", the model that serves {trained.pnl_before:+.2%}"
    figure = plot.equity(trained.result, also=also)
    return figure.update_layout(title=f"P&L after costs: {trained.pnl:+.2%}{against}")


def balance(trained: Trained) -> go.Figure:
    """Share of each class among what came and what was foreseen, and foreseen in each test."""
    found = trained.found
    side = trained.scores["one_sided"].value
    figure = blank(f"Predictions: {side:.1%} are of one class", "share of the rows")
    _bars(figure, "came", _shares(np.concatenate([one.codes for one in found])))
    foreseen = [one.chances.argmax(axis=1) for one in found]
    _bars(figure, "foreseen", _shares(np.concatenate(foreseen)))
    for name, share in zip(CLASSES, np.array([_shares(one) for one in foreseen]).T, strict=True):
        figure.add_scatter(
            x=[name] * len(share), y=share, mode="markers", marker={"color": "#7f7f7f"},
            name=f"{name}, each test", showlegend=False,
        )  # fmt: skip
    return figure.update_yaxes(tickformat=".0%")


def _codes(trained: Trained) -> Ints:
    return classes_of(trained.training.value, trained.fitted.thresholds)


def _shares(codes: Ints) -> Floats:
    return np.bincount(codes, minlength=len(CLASSES)) / len(codes)


def _bars(figure: go.Figure, name: str, shares: Floats) -> None:
    figure.add_bar(x=list(CLASSES), y=shares, name=name)


def _time(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("M8[s]"))
