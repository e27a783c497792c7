"""The result of a backtest: what was decided, what came of it, and what to think of that.

Input: the engine after the last event, all it caused, and the bars it rested on. Output: tables,
series by time, statistics with their limits, round trips, findings, figures. Nothing is computed
before it is asked for, and nothing twice; it can be written to the store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from sysquant import intervals, lint, performance, summary
from sysquant.effects import Effects, Labels
from sysquant.engine import Engine
from sysquant.errors import ConfigError, nearest
from sysquant.keys import check_kind
from sysquant.ledger import Ledger, until
from sysquant.lint import Finding
from sysquant.performance import DAY
from sysquant.rows import run_row
from sysquant.summary import Estimate
from sysquant.tally import Tally
from sysquant.types import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

BUY_AND_HOLD = "buy and hold"


class Asked(NamedTuple):
    """Which models strategies asked from a row of each table on.

    Parameters
    ----------
    rows : table -> rows before it.
    models : strategy -> model.
    """

    rows: Mapping[str, int]
    models: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """What a backtest decided and what came of it.

    Parameters
    ----------
    engine : as it stood after the last event.
    labels : names of what the effects' indexes stand for.
    effects : everything it caused, in order.
    tally : counts.
    start, end : first and last event, ns UTC; 0 when there was none.
    closes : (B,) records of ts, symbol (its index), close and volume of every bar, by (ts, symbol);
        the last of a symbol may be of a bar cut short at `end`.
    benchmark : what statistics compare with: `buy and hold`, or a symbol.
    asked : which models strategies asked, from which row of each table on; empty for none.

    Raises
    ------
    ConfigError
        If the universe has no such symbol.
    """

    engine: Engine
    labels: Labels
    effects: Effects
    tally: Tally
    start: int
    end: int
    closes: np.ndarray
    benchmark: str = BUY_AND_HOLD
    asked: Sequence[Asked] = ()
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse a benchmark that there is not."""
        check_kind("benchmark", self.benchmark, str, f"{BUY_AND_HOLD!r} or a symbol")
        if self.benchmark != BUY_AND_HOLD:
            self._place(self.benchmark)

    def __getattr__(self, name: str) -> NoReturn:
        # Only what there is not comes here: a statistic is looked for by its name.
        said = f"a result has no {name!r}"
        known = name.startswith("_") or not self.end
        if not known and name in {each.name for each in self.estimates(sure=False)}:
            said += f": it is result.statistics.loc[{name!r}]"
        raise AttributeError(said)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    # -- what was decided

    def table(self, name: str) -> "pd.DataFrame":
        """One of signals, orders, risk_receipts, executions, portfolio_history as a frame."""
        if name not in self.effects.rows:
            raise ConfigError(f"a result has no table {name!r}{nearest(name, self.effects.rows)}")
        return self.arrow(name).to_pandas()

    def arrow(self, name: str) -> pa.Table:
        """The same as Arrow, without copies where possible."""
        return self._once(f"table {name}", lambda: self._arrow(name))

    def _arrow(self, name: str) -> pa.Table:
        # In pieces, each with the models that were asked.
        rows, asked = self.effects[name], self.asked or [Asked({}, {})]
        ends = [*(one.rows[name] for one in asked[1:]), len(rows)]
        starts = [0, *ends[:-1]]
        return pa.concat_tables(
            self.labels.table(name, rows[start:end], 0, one.models)
            for one, start, end in zip(asked, starts, ends, strict=True)
        )

    def store(self, client: Any, book: str, config: str = "{}") -> None:
        """Write every row, and the run itself, to the store under `labels.run`.

        Parameters
        ----------
        client : from `sysquant.store.connect`, migrated.
        book : its name.
        config : what the run was composed of, secrets unresolved.
        """
        from sysquant.store import insert

        build = str(self.engine.fingerprint())
        tables = {"runs": run_row(self.labels.run, "backtest", book, build, config)}
        for name in self.effects.rows:
            tables[name] = self.arrow(name)
        for name, table in tables.items():
            if table.num_rows:
                insert(client, name, table, f"{self.labels.run} {name}")

    # -- series by time

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of the universe, in its order."""
        return self.engine.symbols

    def prices(self, symbol: str) -> "pd.Series":
        """Close of every bar of `symbol`, quote currency, indexed by time (UTC).

        Raises
        ------
        ConfigError
            If the universe has no such symbol.
        """
        rows = self.ledger.bars[self._place(symbol)]
        return _series(rows["ts"], rows["close"], symbol)

    @property
    def equity(self) -> "pd.Series":
        """Equity of the whole book, with its pool, at every snapshot and at the end.

        Returns
        -------
        Quote currency, indexed by time (UTC), rising; empty when there was no event.
        """
        return _series(*self.ledger.equity, "equity")

    @property
    def drawdown(self) -> "pd.Series":
        """Equity against its highest so far: fractions <= 0 at the times of `equity`."""
        return _series(self._times, performance.drawdown(self.ledger.equity[1]), "drawdown")

    @property
    def buy_and_hold(self) -> "pd.Series":
        """What the strategies' capital had become, held in equal shares of every symbol.

        Bought at the first close of each symbol that traded (cash until then), without costs; the
        pool stays as it is. Quote currency, at the times of `equity`.
        """
        return _series(self._times, self._held(BUY_AND_HOLD), BUY_AND_HOLD)

    @property
    def benchmark_equity(self) -> "pd.Series":
        """`buy_and_hold`, or likewise all of the capital in the symbol that is the benchmark."""
        return _series(self._times, self._held(self.benchmark), self.benchmark)

    @property
    def returns(self) -> "pd.Series":
        """Simple returns of the book per period (`period`), indexed by the period's end (UTC).

        Periods end at multiples of their length (UTC), the first and the last may be cut short;
        those without an event are left out.
        """
        return _series(self.ledger.returns.ts, self.ledger.returns.values, "return")

    @property
    def period(self) -> str:
        """Length of the periods of `returns`: a day, or less when there are fewer than thirty."""
        return self.ledger.returns.period

    @property
    def monthly(self) -> "pd.DataFrame":
        """Return of every month and year: fractions, see `performance.monthly`."""
        return performance.monthly(self.equity)

    def rolling_sharpe(self, window: int | None = None) -> "pd.Series":
        """Sharpe ratio of the last `window` returns, per year, at the end of every period.

        Parameters
        ----------
        window : periods, at least 2; by default a quarter of them, from 10 to 90.
        """
        own = self.ledger.returns
        width = window if window is not None else min(max(len(own.values) // 4, 10), 90)
        found = performance.rolling_sharpe(own.values, width, own.per_year)
        return _series(own.ts, found, f"Sharpe of {width} periods of {own.period}")

    @property
    def exposure(self) -> "pd.DataFrame":
        """Gross and net exposure, fractions of equity, at the times of `equity`.

        Gross is the sum of |value| of each strategy's positions, net that of value.
        """
        gross, net = self.ledger.exposure
        return _frame(self._times, {"gross": gross, "net": net})

    @property
    def costs(self) -> "pd.DataFrame":
        """Fees, slippage and financing paid so far, quote currency, at the times of `equity`."""
        fills, financing = self.effects["executions"], self.effects["financing"]
        paid = {
            "fees": (fills["ts"], fills["fee"]),
            "slippage": (fills["ts"], fills["slippage"]),
            "financing": (financing["ts"], financing["amount"]),
        }
        return _frame(self._times, {n: until(*of, self._times) for n, of in paid.items()})

    # -- what to think of it

    @property
    def trips(self) -> "pd.DataFrame":
        """Round trips, see `trips.round_trips`; with names, times and how long each was held."""
        import pandas as pd

        rows = self.ledger.trips
        found = pd.DataFrame({name: rows[name] for name in rows.dtype.names or ()})
        for name, names in (("strategy", self.labels.strategies), ("symbol", self.symbols)):
            found[name] = pd.Series(np.array(list(names), object)[rows[name]], dtype="str")
        for name in ("entry_ts", "exit_ts"):
            found[name] = pd.DatetimeIndex(rows[name].view("M8[ns]"), tz="UTC")
        found["is_open"] = rows["is_open"] == 1
        found.insert(4, "held", found["exit_ts"] - found["entry_ts"])
        return found

    @property
    def statistics(self) -> "pd.DataFrame":
        """Every statistic with its limits: see `summary`, whose records they are.

        Returns
        -------
        By name: value, error (standard error), low and high (at 95 %), unit, source.
        """
        return table_of(self.estimates())

    def estimates(self, *, sure: bool = True) -> list[Estimate]:
        """The same as records; without the limits that take a bootstrap unless `sure`."""
        held = self._held(self.benchmark)
        return self._once(f"estimates {sure}", lambda: self.ledger.run.estimates(held, sure=sure))

    def deflated_sharpe(self, trials: int, deviation: float) -> float:
        """Probability that its Sharpe ratio is better than luck, the best of `trials`.

        Parameters
        ----------
        trials : backtests that this one was chosen from, itself included.
        deviation : standard deviation of their Sharpe ratios, per year as in `statistics`.

        Returns
        -------
        From 0 to 1; NaN without returns. See `intervals.deflated_sharpe`.
        """
        own = self.ledger.returns
        if len(own.values) < 2:
            return float("nan")
        known = {e.name: e.value for e in self.estimates(sure=False)}
        year = np.sqrt(own.per_year)
        return intervals.deflated_sharpe(
            known["sharpe"] / year, len(own.values), known["skewness"], known["kurtosis"],
            trials, deviation / year,
        )  # fmt: skip

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is wrong with this backtest at first sight, see `lint`; empty when nothing is."""

        def found() -> tuple[Finding, ...]:
            orders = self.tally.approved + self.tally.refused
            nothing = lint.no_orders(orders) if self.end else []
            return tuple(nothing or self.ledger.run.findings())

        return self._once("warnings", found)

    @property
    def figures(self) -> "dict[str, go.Figure]":
        """Plotly figures by name, see `plot.figures`."""
        from sysquant import plot

        return plot.figures(self)

    def tear_sheet(self, path: str | Path) -> Path:
        """Write all of it as one HTML page that needs no network; returns where, see `plot`."""
        from sysquant import plot

        return plot.report(self, path)

    def __repr__(self) -> str:
        said = list[str]()
        if self.end:
            values = {each.name: each for each in self.estimates(sure=False)}
            said = summary.lines(values, self.ledger.returns, self.benchmark)
        return "\n  ".join([*_head(self), *said, *_tail(self)])

    def _repr_html_(self) -> str:
        # The same, for a notebook.
        from sysquant import page

        title, *accounts = _head(self)
        tables = [page.pairs(self.estimates(sure=False))] if self.end else []
        return page.card(title, tables, [*accounts, *_tail(self)])

    # -- once

    def _place(self, symbol: str) -> int:
        if symbol not in self.symbols:
            raise ConfigError(
                f"the universe has no symbol {symbol!r}{nearest(symbol, self.symbols)}"
            )
        return self.symbols.index(symbol)

    @property
    def ledger(self) -> Ledger:
        """The same as arrays."""
        return self._once("", lambda: Ledger(self.engine, self.effects, self.closes, self.end))

    @property
    def _times(self) -> Ints:
        return self.ledger.equity[0]

    def _held(self, benchmark: str) -> Floats:
        whole = range(len(self.symbols))
        held = whole if benchmark == BUY_AND_HOLD else [self._place(benchmark)]
        return self._once(f"held {benchmark}", lambda: self.ledger.held(held))


def table_of(estimates: Sequence[Estimate]) -> "pd.DataFrame":
    """Estimates as a frame, by name."""
    import pandas as pd

    columns = [name for name in Estimate.__slots__ if name != "name"]
    rows = [[getattr(each, name) for name in columns] for each in estimates]
    return pd.DataFrame(rows, [each.name for each in estimates], columns)


def _head(result: Result) -> list[str]:
    # What was run, when, and what the strategies have: the first of about a dozen lines.
    names = ", ".join(f"{n}={s!r}" for n, s in result.engine.strategies.items())
    first = f"Backtest of {names} on {', '.join(result.symbols)}"
    if not result.end:
        return [first, "no events"]
    day = np.array([result.start, result.end], "M8[ns]").astype("M8[s]")
    days = (result.end - result.start) / DAY
    lines = [first, f"{day[0]} to {day[1]} UTC, {days:,.1f} days, {result.engine.bars:,} bars"]
    for name, account in result.engine.accounts().items():
        gain = account["equity"] / account["allocation"] - 1
        lines.append(f"{name}: equity {account['equity']:,.2f} ({gain:+.2%})")
    return lines


def _tail(result: Result) -> list[str]:
    # What was ordered, traded and paid, and a line for each finding.
    if not result.end:
        return []
    t, fills = result.tally, result.effects["executions"]
    return [
        f"signals {t.signals:,}, orders approved {t.approved:,}, refused {t.refused:,} "
        f"({t.top_reasons()}), fills {t.fills:,}",
        f"traded {result.ledger.values.sum():,.2f}, "
        f"fees {fills['fee'].sum():,.2f}, slippage {fills['slippage'].sum():,.2f}",
        *(f"! {finding}" for finding in result.warnings),
    ]


def _series(ts: np.ndarray, values: np.ndarray, name: str) -> "pd.Series":
    import pandas as pd

    return pd.Series(values, _index(ts), name=name)


def _frame(ts: np.ndarray, columns: Mapping[str, np.ndarray]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(dict(columns), _index(ts))


def _index(ts: np.ndarray) -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(np.ascontiguousarray(ts).view("M8[ns]"), tz="UTC", name="ts")
