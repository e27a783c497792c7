"""What a walk with retraining found: a training after the other, and what their models traded.

Input: the trainings, each with its verdict, and one backtest in which every bar was decided by the
model of its time. Output: a table, notes, a figure with the moments of the swaps. Nothing is run
here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sysquant import page, summary
from sysquant.errors import DataError
from sysquant.performance import DAY
from sysquant.result import Result
from sysquant.shelf import Facts, ShelfModel
from sysquant.strategy import Model
from sysquant.times import length_name

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHOWN = 8  # trainings
_COLUMNS = ("at", "rows", "skill", "earned", "earned_before", "serves", "verdict")
_WIDE = 60  # characters of a verdict in a table
_FORMAT = "{:,.4g}".format


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a walk.

    Parameters
    ----------
    at : when it took place, ns UTC; it saw what had closed by then.
    facts : what came of it; None for one that failed.
    reasons : why it was kept back, or failed; empty for one that was published.
    earned_before : by the model that served at that time, over the same tests; NaN for none.
    serves, until : closes of the first bar that its model decided on, the first after it was
        trained, and of the first that it did not any more, or the last of all; ns UTC, both 0 for
        one that was not published.
    model : as the strategy asked it; None for one that was not published.

    Raises
    ------
    DataError
        If an outcome that it was trained on was not known yet.
    """

    at: int
    facts: Facts | None
    reasons: tuple[str, ...] = ()
    earned_before: float = math.nan
    serves: int = 0
    until: int = 0
    model: ShelfModel | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse one that looked ahead."""
        if self.facts is None:
            return
        newest = max(self.facts.trained.last, self.facts.trained.known)
        if newest > self.at:
            raise DataError(
                f"the training at {_iso(self.at)} UTC saw what was known at {_iso(newest)}: its "
                "labels look ahead; give an outcome the time of the last bar that it rests on"
            )

    @property
    def verdict(self) -> str:
        """`published`, `kept back` or `failed`, and why."""
        said = "; ".join(self.reasons)
        if not said:
            return "published"
        return f"{'failed' if self.facts is None else 'kept back'}: {said}"


@dataclass(frozen=True, repr=False, eq=False)
class RetrainedWalk:
    """Trainings in the order of time, and what their models traded.

    Parameters
    ----------
    name : of the strategy, with its parameters.
    every, window : from training to training, and what each of them sees, ns.
    is_judged : whether a model had to be found good before it served.
    begin : when the first model could serve, ns UTC; nothing is decided before.
    trainings : at least one.
    result : one backtest, from then to the end.
    """

    name: str
    every: int
    window: int
    is_judged: bool
    begin: int
    trainings: tuple[Training, ...]
    result: Result

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row per training.

        Returns
        -------
        at (UTC); rows, first, last (ts of the oldest and the newest row) and known (when the newest
        outcome was); of one that was judged skill (nats) with its lower limit, what it earned and
        what the model before it earned over its tests (fractions after costs); verdict, serves and
        until (UTC, NaT where it never did), id of the model.
        """
        import pandas as pd

        rows = [_row(one) for one in self.trainings]
        frame = pd.DataFrame(rows, pd.RangeIndex(1, len(rows) + 1, name="training"))
        for name in ("at", "first", "last", "known", "serves", "until"):
            frame[name] = pd.to_datetime(frame[name].where(frame[name] > 0), utc=True)
        return frame

    @property
    def models(self) -> list[tuple[int, Model]]:
        """What `backtest` takes: (ns UTC, model) of those that were published."""
        return [(one.serves, one.model) for one in self.trainings if one.model is not None]

    @property
    def equity(self) -> "pd.Series":
        """Equity of the result, quote currency, by time (UTC)."""
        return self.result.equity

    @property
    def statistics(self) -> "pd.DataFrame":
        """Every statistic of the result."""
        return self.result.statistics

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        said = list[str]()
        if self.trainings[0].model is None:
            idle = (self.models[0][0] if self.models else self.result.end) - self.begin
            said.append(f"no model served in the first {idle / DAY:,.1f} days: nothing was decided")
        if not self.is_judged:
            said.append("no model was judged: live, some of them may be kept back")
        return tuple(said)

    @property
    def figure(self) -> "go.Figure":
        """Equity with the moments of the swaps; below, what each training earned in its tests."""
        import pandas as pd
        from plotly.subplots import make_subplots

        from sysquant import plot

        rows = 2 if self.is_judged else 1
        figure = make_subplots(rows, shared_xaxes=True, row_heights=[3.0, 1.0][:rows])
        drawn = {"equity": self.equity, self.result.benchmark: self.result.benchmark_equity}
        for name, series in drawn.items():
            figure.add_trace(plot.line(series, name), row=1, col=1)
        if self.is_judged:
            for name, is_taken in (("published", True), ("kept back", False)):
                some = [one for one in self.trainings if (one.model is not None) == is_taken]
                figure.add_scatter(
                    x=[pd.Timestamp(one.at).to_pydatetime() for one in some],
                    y=[math.nan if one.facts is None else one.facts.earned for one in some],
                    text=[one.verdict for one in some], name=name, mode="markers", row=2, col=1,
                )  # fmt: skip
            figure.update_yaxes(title="earned in tests", tickformat=".1%", row=2, col=1)
        for at, _ in self.models:
            figure.add_vline(
                pd.Timestamp(at).to_pydatetime(),
                line={"width": 1, "dash": "dot", "color": "#7f7f7f"},
            )
        figure.update_layout(
            template="plotly_white", title=self._title, height=380 + 120 * (rows - 1),
            yaxis_title="quote currency",
        )  # fmt: skip
        return figure

    def __repr__(self) -> str:
        told = self._shown.to_string(max_rows=_SHOWN, float_format=_FORMAT).split("\n")
        table = [line for line in told if not line.startswith("training ")]
        return "\n  ".join([self._title, *table, *self._said])

    def _repr_html_(self) -> str:
        # The same, for a notebook; with every training.
        rows = self._shown.map(lambda x: _FORMAT(x) if isinstance(x, float) else x)
        trainings = [{"training": at, **row} for at, row in rows.to_dict("index").items()]
        tables = [page.table(trainings), page.pairs(self.result.estimates(sure=False))]
        return page.card(self._title, tables, self._noted)

    @property
    def _title(self) -> str:
        count = len(self.trainings)
        failed = sum(one.facts is None for one in self.trainings)
        taken = len(self.models)
        parts = {"published": taken, "kept back": count - taken - failed, "failed": failed}
        told = ", ".join(f"{many:,} {name}" for name, many in parts.items() if many)
        return (
            f"{self.name} trained every {length_name(self.every)} on {length_name(self.window)}: "
            f"{count:,} training{'s' if count > 1 else ''}, {told}"
        )

    @property
    def _shown(self) -> "pd.DataFrame":
        unjudged = () if self.is_judged else ("skill", "earned", "earned_before")
        hidden = [n for n in self.frame if n not in _COLUMNS or n in unjudged]
        shown = self.frame.drop(columns=hidden)
        for name in ("at", "serves"):
            shown[name] = shown[name].dt.strftime("%Y-%m-%d %H:%M").fillna("-")
        shown["verdict"] = [_cut(said) for said in shown["verdict"]]
        return shown

    @property
    def _said(self) -> list[str]:
        values = {each.name: each for each in self.result.estimates(sure=False)}
        own = self.result.ledger.returns
        return [*summary.lines(values, own, self.result.benchmark), *self._noted]

    @property
    def _noted(self) -> Sequence[str]:
        return [*self.notes, *(f"! {finding}" for finding in self.result.warnings)]


def _row(one: Training) -> dict[str, Any]:
    facts = one.facts
    row: dict[str, Any] = {"at": one.at, "rows": 0, "first": 0, "last": 0, "known": 0}
    row |= {"skill": math.nan, "skill_low": math.nan, "earned": math.nan}
    if facts is not None:
        row |= {name: getattr(facts.trained, name) for name in ("rows", "first", "last", "known")}
        row["earned"] = facts.earned
        if (skill := facts.scores.get("skill")) is not None:
            row |= {"skill": skill.value, "skill_low": skill.low}
    row |= {"earned_before": one.earned_before, "verdict": one.verdict}
    row |= {"serves": one.serves, "until": one.until}
    return row | {"id": "" if facts is None else facts.id}


def _cut(said: str) -> str:
    return said if len(said) <= _WIDE else f"{said[: _WIDE - 3]}..."


def _iso(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("M8[s]"))
