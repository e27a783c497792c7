"""Sweeps: every combination of parameters through the full engine, on all cores, and verified.

Input: a strategy class, bars, and values by parameter. Output: a `Sweep`. The best combinations and
a random sample are run again as single backtests, and every trade is compared: a sweep that
disagrees says so. `screen="vectorbt"` looks at all of them quickly, and the engine at the best.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from sysquant.activity import Activity
from sysquant.backtesting import Result, counted, fresh_engine, market_of, run, span_of
from sysquant.compiled import machine, source_hash
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution, refuse_costs
from sysquant.exits import Exits
from sysquant.grid import Grid, Values, described
from sysquant.keys import check_choice, check_number
from sysquant.orders import Orders
from sysquant.past import History
from sysquant.performance import drawdown
from sysquant.recording import Extent, Recorder
from sysquant.replays import Replays
from sysquant.risk import RiskChain
from sysquant.scores import COLUMNS, Row
from sysquant.screening import FIGURES, Screen, best_first, disagreements
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Parameter, Strategy
from sysquant.times import Moment
from sysquant.trial_file import TrialFile, code_of
from sysquant.trials import Sweep, Verification, first_apart
from sysquant.types import SECOND, Bars, Instrument, Ticks

if TYPE_CHECKING:
    import pandas as pd

SCREENS = ("engine", "vectorbt")
_EXACT = ("signals", "approved", "refused", "fills", "fills_hash", "equity", "drawdown")


def sweep(
    strategy: type[Strategy],
    bars: Bars | Ticks | History,
    universe: Sequence[Instrument] | None = None,
    *,
    where: Callable[..., bool] | None = None,
    rank: str = "sharpe",
    screen: Literal["engine", "vectorbt"] = "engine",
    keep: int = 20,
    verify_best: int = 5,
    verify_sample: int = 10,
    resume: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    returns: bool = False,
    start: Moment = None,
    end: Moment = None,
    interval: int | str | Activity | None = None,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
    **grid: Values,
) -> Sweep:
    """Try every combination of parameters, each in the engine that a backtest runs in.

    Each is counted in the research ledger, see `sysquant.research`; those run again are not.

    Causal as a backtest is. Each combination starts with all of the capital; a row is what
    `backtest` would have found with these parameters, its fills byte for byte.

    Parameters
    ----------
    strategy : class whose parameters are swept.
    bars : what `sysquant.history` returned, `Bars` or `Ticks`, as of `backtest`.
    universe : instruments that their symbol column counts; default: one with the usual steps for
        each number in it.
    where : predicate over swept parameters, by their names; where it is false, a combination is
        left out: `where=lambda fast, slow: fast < slow`.
    rank : column of the result by which combinations are the better the larger it is.
    screen : `engine` runs all of them in the engine; `vectorbt` screens all of them with it and
        runs the best `keep` in the engine. What both say is compared, and the engine's word counts.
    verify_best, verify_sample : combinations to run again as single backtests, the best and a
        random draw of the others (by `seed`).
    resume : file of finished combinations; a sweep goes on from there if data, engine, strategy and
        code are what they were, and starts anew, and says so, if not.
    workers : threads; default all cores there are for this process.
    progress : whether to draw a progress bar (to stderr).
    returns : whether to keep those of every combination, for `paths` and `overfitting`:
        8 bytes a snapshot. They are on no file: what was resumed is run again.
    start, end, interval, capital, risk, execution, sizing, orders, exits, seed, snapshot_ns : as of
        `backtest`.
    grid : parameter -> values to try, or the one it shall have in all of them.

    Raises
    ------
    ConfigError
        If parameters, values or predicate cannot be meant; the message names the combination.
    DataError
        If there are no bars, or `resume` is no file of a sweep.
    StrategyError
        If a strategy breaks its contract on these bars.

    Examples
    --------
    >>> found = sweep(Momentum, bars, fast=range(5, 60, 5), slow=range(20, 200, 10))
    >>> found.best(3)
    >>> found.heat_map("fast", "slow")
    """
    threads = cores() if workers is None else workers
    check_choice("screen", screen, SCREENS)
    check_choice("rank", rank, COLUMNS if screen == "engine" else FIGURES)
    for name, least, value in (
        ("keep", 1, keep), ("verify_best", 0, verify_best), ("verify_sample", 0, verify_sample),
        ("workers", 1, threads),
    ):  # fmt: skip
        check_number(name, value, least=least, whole=True)
    if not len(bars):
        raise DataError("there are no bars to sweep over; is the range of the history right?")
    market, universe, size = market_of(bars, counted(bars, universe), interval)
    history, market = span_of(market, universe, size, start, end)
    options: dict[str, Any] = {
        "universe": universe,
        "interval": size, "capital": capital, "risk": risk, "execution": execution,
        "sizing": sizing, "orders": orders, "exits": exits, "seed": seed,
        "snapshot_ns": snapshot_ns,
    }  # fmt: skip
    refuse_costs("sweep", [name for name in grid if not hasattr(strategy, name)])
    tried = Grid(strategy, grid, where, taken=[*COLUMNS, "fills_hash"])
    study = Study(
        tried, market, partial(fresh_engine, **options),
        capital=capital, snapshot_ns=snapshot_ns, workers=threads, history=history, keep=returns,
    )  # fmt: skip
    bar = partial(_bar, strategy.__name__, progress)
    chosen = list(range(len(tried)))
    screened: dict[int, dict[str, float]] = {}
    if screen == "vectorbt":
        if isinstance(market, Ticks):
            raise ConfigError("screen='vectorbt' is for bars, was for ticks; take screen='engine'")
        with bar("screening", len(tried)) as shown:
            screened = dict(_counted(_screened(study, market, options), shown))
        chosen = best_first(screened, rank)[:keep]
        with study.recorder("screened") as recorder:
            for place in sorted(screened.keys() - set(chosen)):
                recorder.add_yearly(tried.strategies[place].parameters, screened[place]["sharpe"])
    with bar("sweep", len(chosen)) as shown:
        rows = dict(sorted(_counted(study.rows(sorted(chosen), resume), shown)))
    frame = _frame(tried, rows, screened)
    verified = study.verify(rows, rank, verify_best, verify_sample, seed)
    if screened:
        names = {place: described(tried.parameters(place)) for place in rows}
        study.notes += disagreements(rows, screened, rank, names)
    kept = study.returns(rows) if returns else None
    return Sweep(tried, frame, rank, verified, tuple(study.notes), kept)


def _screened(
    study: "Study", bars: Bars, options: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, float]]]:
    screen = Screen(
        bars, options["universe"][0], options["execution"] or Execution(),
        options["sizing"] or WeightSizing(), capital=options["capital"],
        interval=options["interval"], snapshot_ns=options["snapshot_ns"],
    )  # fmt: skip
    return screen.run(study.replays.weights(range(len(study.grid.strategies))))


class Combinations(Protocol):
    """What a study tries."""

    @property
    def strategies(self) -> Sequence[Strategy]:
        """(N,) instances of one class."""
        ...

    def parameters(self, at: int) -> Mapping[str, Parameter]:
        """What tells one of them from the others, by name."""
        ...


class Study:
    """Combinations over one market, through engines that differ in the strategy alone.

    Parameters
    ----------
    grid : what is tried.
    market : bars or ticks, in order.
    make : a fresh engine for a strategy.
    capital, snapshot_ns : of these engines.
    workers : threads.
    history : bars before the market, for features and statistics to warm up on.
    keep : whether to keep what `returns` needs.

    Attributes
    ----------
    notes : what a reader must know, a sentence each.

    Raises
    ------
    DataError
        If the market is empty.
    """

    def __init__(
        self, grid: Combinations, market: Bars | Ticks, make: Callable[[Strategy], Engine], *,
        capital: float, snapshot_ns: int, workers: int, history: Bars | None = None,
        keep: bool = False,
    ) -> None:  # fmt: skip
        if not len(market):
            raise DataError("the market holds no event; is the range of the feed right?")
        self.grid, self.notes = grid, list[str]()
        self._market, self._make, self._history = market, make, history
        self._workers = workers
        self.replays = Replays(
            make, market, grid.strategies, capital=capital, snapshot_ns=snapshot_ns,
            workers=workers, history=history, keep=keep,
        )  # fmt: skip

    def rows(
        self, chosen: Sequence[int], resume: str | Path | None = None
    ) -> Iterator[tuple[int, Row]]:
        """Place and row of the chosen combinations, each as soon as it is finished.

        Parameters
        ----------
        chosen : places in the grid.
        resume : file of finished combinations; those come first, and what is new is added to it.
        """
        file = None if resume is None else self._file(resume)
        on_file = dict[int, Row]()
        if file is not None:
            known = {place: file.rows.get(repr(self.grid.strategies[place])) for place in chosen}
            on_file = {place: row for place, row in known.items() if row is not None}
            if on_file:
                self.notes.append(
                    f"{len(on_file):,} combinations were finished before: {file.path}"
                )
        new = self.replays.run([p for p in chosen if p not in on_file])
        with self.recorder("cell") as recorder:
            for place, row in chain(on_file.items(), new):
                strategy = self.grid.strategies[place]
                recorder.add_row(strategy.parameters, row)
                if file is not None and place not in on_file:
                    file.add([(strategy, row)])
                yield place, row

    def recorder(self, kind: str) -> Recorder:
        """What adds its combinations to the research ledger."""
        first = self.grid.strategies[0]
        return Recorder(first, self._make(first).fingerprint(), Extent(self._market), kind)

    def returns(self, places: Iterable[int]) -> "pd.DataFrame":
        """Simple returns of combinations between their snapshots, as `Sweep.returns`."""
        import pandas as pd

        chosen, known = list(places), self.replays.equity
        for _ in self.replays.run([place for place in chosen if place not in known]):
            pass
        ts = known[chosen[0]][0][1:]
        values = {place: known[place][1][1:] / known[place][1][:-1] - 1.0 for place in chosen}
        return pd.DataFrame(values, pd.DatetimeIndex(ts.view("M8[ns]"), tz="UTC", name="ts"))

    def verify(
        self, rows: Mapping[int, Row], rank: str, best: int, sample: int, seed: int
    ) -> Verification:
        """The best rows, and some of the others, against single backtests."""
        top = best_first(rows, rank)[:best]
        others = [place for place in rows if place not in set(top)]
        drawn = random.Random(seed).sample(others, min(sample, len(others)))
        compare = partial(self._compare, rows)
        with ThreadPoolExecutor(self._workers) as pool:
            compared = list(pool.map(compare, [*top, *drawn]))
        said = [words for _, words in compared if words]
        return Verification(len(top), len(drawn), sum(n for n, _ in compared), tuple(said))

    def _compare(self, rows: Mapping[int, Row], place: int) -> tuple[int, str]:
        # Fills that were compared, and what differed, if anything.
        row = rows[place]
        single, fills = self._single(place)
        differ = [name for name in _EXACT if row[name] != single[name]]
        if not differ:
            return len(fills), ""
        told = ", ".join(f"{n} {row[n]} and {single[n]}" for n in differ if n != "fills_hash")
        where = first_apart(self.replays.fills(place), fills)
        return len(fills), (
            f"{described(self.grid.parameters(place))}: the sweep and a backtest differ"
            f"{': ' if told else ''}{told}; {where}"
        )

    def _single(self, place: int) -> tuple[Row, np.ndarray]:
        # Figures and fills of a backtest of one combination alone.
        engine, history = self._make(self.grid.strategies[place]), self._history
        before = None if history is None else lambda *_: history
        result = run(engine, [self._market], name="sweep", history=before)
        return figures_of(result), result.effects["executions"]

    def _file(self, path: str | Path) -> TrialFile:
        # Opened, and one of its rows tried: code that no hash covers may have changed.
        file = TrialFile(path, self._rests_on())
        changed = ", ".join(file.changed)
        for place, strategy in enumerate(self.grid.strategies):
            saved = file.rows.get(repr(strategy))
            if saved is None:
                continue
            ((_, row),) = self.replays.run([place])
            if json.dumps(row) != json.dumps(saved):
                changed = f"what {described(self.grid.parameters(place))} comes to"
                file.set_aside()
                file.start()
            break
        if changed:
            self.notes.append(
                f"started anew: changed since {file.path} was written: {changed}; what was there "
                f"is in {file.path}.old"
            )
        return file

    def _rests_on(self) -> dict[str, str]:
        first = self.grid.strategies[0]
        engine = self._make(first).fingerprint()
        parts = {"engine": str({n: v for n, v in engine.items() if n != "strategies"})}
        parts |= {"strategy": code_of(type(first)), "machine": str(machine())}
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in parts.items()}
        data = hashlib.sha256()
        for name, column in self._events():
            data.update(f"{name} {column.dtype} {len(column)}\n".encode() + column.tobytes())
        return hashes | {"data": data.hexdigest(), "code": source_hash()}

    def _events(self) -> Iterator[tuple[str, np.ndarray]]:
        for batch in (self._market, self._history):
            yield from () if batch is None else batch.columns()


def figures_of(result: Result) -> Row:
    """What a row of a sweep must be equal to, of a single backtest."""
    tally, fills = result.tally, result.effects["executions"]
    equity = result.equity.to_numpy(np.float64)
    return {
        "signals": tally.signals, "approved": tally.approved, "refused": tally.refused,
        "fills": tally.fills, "fills_hash": hashlib.sha256(fills.tobytes()).hexdigest(),
        "equity": float(equity[-1]), "drawdown": float(drawdown(equity).min()),
    }  # fmt: skip


def _frame(
    grid: Grid, rows: Mapping[int, Row], screened: Mapping[int, Mapping[str, float]]
) -> "pd.DataFrame":
    import pandas as pd

    lines = [
        {
            **grid.parameters(place), **rows.get(place, {}),
            **{f"screen_{name}": value for name, value in screened.get(place, {}).items()},
        }
        for place in range(len(grid))
    ]  # fmt: skip
    return pd.DataFrame(lines)


def _bar(name: str, progress: bool, what: str, total: int) -> "tqdm[Any]":
    return tqdm(total=total, desc=f"{what} {name}", unit=" combinations", disable=not progress)


def _counted(found: Iterator[tuple[int, Any]], bar: "tqdm[Any]") -> Iterator[tuple[int, Any]]:
    for each in found:
        yield each
        bar.update()


def cores() -> int:
    """Cores there are for this process."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
