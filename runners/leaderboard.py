"""What a multirun came to: a table at the terminal, the best first, and its files.

Input: finished trials. Output: lines on stdout, `sweep.csv`, `sweep.parquet`, `report.html`. Values
of keys stand as they were said, so that no secret of the environment is written.
"""

import math
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from runners.jobs import Trial
from sysquant import intervals, page
from sysquant.errors import ConfigError
from sysquant.grid import Grid
from sysquant.scores import Row
from sysquant.screening import best_first
from sysquant.trials import Sweep, Verification, short

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # rows at the terminal
_WIDE = 160  # columns where nobody looks
_PAGE = 500  # rows of the report


class Leaderboard:
    """Trials in their order of merit.

    Parameters
    ----------
    trials : finished.
    rank : column by which they are the better the larger it is.
    verified : how far they were compared with single backtests.
    notes : to be told as well.
    """

    def __init__(
        self, trials: Sequence[Trial], rank: str, verified: Verification, notes: tuple[str, ...]
    ) -> None:
        self.trials = sorted(trials, key=lambda trial: trial.number)
        self._rank, self._verified, self._notes = str(rank), verified, notes
        rows = {at: t.row for at, t in enumerate(self.trials) if t.row is not None}
        self._best = [self.trials[at] for at in best_first(rows, self._rank)]

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """A row per trial, best first, failed ones last: job, varied keys, figures, error."""
        import pandas as pd

        rows = []
        for trial in [*self._best, *(t for t in self.trials if t.row is None)]:
            said = {"job": trial.number, **trial.varied}
            figures = {} if trial.row is None else trial.row | _limits(trial.row)
            rows.append(said | figures | {"error": trial.error})
        return pd.DataFrame(rows)

    @property
    def deflated(self) -> float:
        """Probability that the best is above what the best of so many shows by luck.

        It counts every trial that has a row, each command line once. NaN of a single one, without
        a Sharpe ratio, and where the time between snapshots was varied: periods differ then.
        """
        once = {trial.words: trial.row for trial in self._best if trial.row is not None}
        if len(once) < 2 or any("snapshots" in trial.varied for trial in self.trials):
            return math.nan
        found = np.array([float(row["sharpe_period"]) for row in once.values()])
        known = found[~np.isnan(found)]
        deviation = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        best = _row(self._best[0])
        return intervals.deflated_sharpe(*_shape(best), len(once), deviation)

    def show(self) -> None:
        """Print the table, and what to think of it."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)
        if self._best:
            console.print(self._table())
        for line in self.lines():
            print(f"  {line}")

    def lines(self) -> list[str]:
        """What is to be said of the whole."""
        failed = len(self.trials) - len(self._best)
        lines = [f"{len(self._best):,} of {len(self.trials):,} jobs done, {failed:,} failed"]
        if not math.isnan(self.deflated):
            lines.append(
                f"deflated Sharpe of the best {self.deflated:.1%}: how sure it is above what the "
                f"best of {len({t.words for t in self._best}):,} shows by luck"
            )
        if self._sweep is not None:
            lines.append(repr(self._sweep.plateau()))
        lines += [repr(self._verified), *self._verified.disagreements, *self._notes]
        if self._best:
            found = self._sweep.warnings if self._sweep is not None else short(self.frame)
            lines += [f"! {finding}" for finding in found]
            lines.append(f"the best alone: python runners/backtest.py {_again(self._best[0])}")
        return lines

    def write(self, directory: Path) -> None:
        """Write `sweep.csv`, `sweep.parquet` and `report.html`."""
        self.frame.to_csv(directory / "sweep.csv", index=False)
        self.frame.to_parquet(directory / "sweep.parquet", index=False)
        parts = [page.printed(self.lines())]
        if self._sweep is not None and (figure := _drawn(self._sweep)) is not None:
            parts.append(figure)
        if len(self.frame):
            rows = self.frame.drop(columns=["fills_hash"], errors="ignore").head(_PAGE)
            parts.append(f"<h2>Jobs, by {self._rank}</h2>{page.table(rows.to_dict('records'))}")
        said = page.document("Sweep", f"{len(self.trials):,} jobs, by {self._rank}", parts)
        (directory / "report.html").write_text(said, encoding="utf-8")

    def _table(self) -> Table:
        left = len(self._best) - _SHOWN
        table = Table(
            title=f"Best by {self._rank}", title_justify="left",
            caption=f"{left:,} more in sweep.csv" if left > 0 else None, caption_justify="left",
        )  # fmt: skip
        keys = list(self._best[0].varied)
        for name in (*keys, "return", "Sharpe", "95 %", "drawdown", "trades", "refused", "costs"):
            table.add_column(name, justify="right", overflow="fold")
        others = [self._rank] if self._rank not in _TOLD else []
        for name in others:
            table.add_column(name, justify="right")
        for trial in self._best[:_SHOWN]:
            row = _row(trial)
            limits = _limits(row)
            table.add_row(
                *(trial.varied[key] for key in keys), f"{row['return']:+.2%}",
                _number(row["sharpe"]),
                f"{_number(limits['sharpe_low'])} to {_number(limits['sharpe_high'])}",
                f"{row['drawdown']:.2%}", f"{row['fills']:,}", f"{row['refused']:,}",
                f"{row['costs']:,.2f}", *(_number(row[name]) for name in others),
            )  # fmt: skip
        return table

    @cached_property
    def _tried(self) -> dict[str, list[object]]:
        # Parameter -> values, in their order, where only parameters of one strategy were varied.
        tried: dict[str, list[object]] = {}
        for trial in self.trials:
            for key in trial.varied:
                above, _, name = key.partition(".")
                if trial.strategy is None or above != "strategy" or not name or "." in name:
                    return {}
                value = trial.strategy.parameters[name]
                if value not in tried.setdefault(name, []):
                    tried[name].append(value)
        return tried

    @cached_property
    def _sweep(self) -> Sweep | None:
        # The same as a notebook's, where every combination of these values has a row.
        import pandas as pd

        if not self._tried or len(self._best) < len(self.trials):
            return None
        try:
            grid = Grid(type(self.trials[0].strategy), self._tried)  # type: ignore[arg-type]
        except ConfigError:
            return None
        if len(grid) != len(self.trials):
            return None
        rows = [_row(trial) for trial in self.trials]
        if all(math.isnan(float(row[self._rank])) for row in rows):
            return None
        frame = pd.DataFrame([grid.parameters(at) | row for at, row in enumerate(rows)])
        return Sweep(grid, frame, self._rank, self._verified, self._notes)


_TOLD = ("return", "sharpe", "drawdown", "fills", "refused", "costs")


def _row(trial: Trial) -> Row:
    return trial.row or {}


def _shape(row: Row) -> tuple[float, int, float, float]:
    sharpe, skew, kurtosis = (float(row[name]) for name in ("sharpe_period", "skew", "kurtosis"))
    return sharpe, int(row["periods"]), skew, kurtosis


def _limits(row: Row) -> dict[str, float]:
    # Of the Sharpe ratio of a year, where returns are independent.
    shape, sharpe = _shape(row), float(row["sharpe"])
    if not shape[0]:
        return {"sharpe_low": math.nan, "sharpe_high": math.nan}
    error = intervals.sharpe_error(*shape) * sharpe / shape[0]
    _, low, high = intervals.around(sharpe, error)
    return {"sharpe_low": low, "sharpe_high": high}


def _number(value: float | int | str) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def _again(trial: Trial) -> str:
    # Its command line for a shell.
    return shlex.join(trial.words)


def _drawn(sweep: Sweep) -> str | None:
    # A heat map over the first two parameters that have several values.
    names = [name for name in sweep.grid.names if len(set(sweep.frame[name])) > 1]
    if len(names) < 2:
        return None
    figure = sweep.heat_map(names[-1], names[0])
    return figure.to_html(
        full_html=False, include_plotlyjs=True, include_mathjax=False, config={"displaylogo": False}
    )
