"""Sweeps: every combination of parameters through the full engine, on all cores, and verified.

Input: a strategy class, bars, and values by parameter. Output: a `Sweep`. The best combinations and
a random sample are run again as single backtests, and every trade is compared: a sweep that
disagrees says so. `screen="vectorbt"` looks at all of them quickly, and the engine at the best.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from sysquant.backtest import Result, backtest, fresh_engine, market_of
from sysquant.compiled import machine, source_hash
from sysquant.errors import DataError
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.grid import Grid, Values, described
from sysquant.keys import check_choice, check_number
from sysquant.orders import Orders
from sysquant.past import History
from sysquant.replays import Replays
from sysquant.risk import RiskChain
from sysquant.scores import COLUMNS, Row
from sysquant.screening import FIGURES, Screen, best_first, disagreements
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Strategy
from sysquant.trial_file import TrialFile, code_of
from sysquant.trials import Sweep, Verification
from sysquant.types import SECOND, Bars, Instrument

if TYPE_CHECKING:
    import pandas as pd

SCREENS = ("engine", "vectorbt")
_EXACT = ("signals", "approved", "refused", "fills", "fills_hash", "equity", "drawdown")


def sweep(
    strategy: type[Strategy],
    bars: Bars | History,
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
    interval: int | None = None,
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

    Causal as a backtest is. Each combination starts with all of the capital; a row is what
    `backtest` would have found with these parameters, its fills byte for byte.

    Parameters
    ----------
    strategy : class whose parameters are swept.
    bars : what `sysquant.history` returned, or `Bars` of `interval` ns, as of `backtest`.
    universe : instruments that the symbol column of `Bars` counts; default: one with the usual
        steps for each number in it.
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
    interval, capital, risk, execution, sizing, orders, exits, seed, snapshot_ns : as of `backtest`.
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
    threads = _cores() if workers is None else workers
    check_choice("screen", screen, SCREENS)
    check_choice("rank", rank, COLUMNS if screen == "engine" else FIGURES)
    for name, least, value in (
        ("keep", 1, keep), ("verify_best", 0, verify_best), ("verify_sample", 0, verify_sample),
        ("workers", 1, threads),
    ):  # fmt: skip
        check_number(name, value, least=least, whole=True)
    if not len(bars):
        raise DataError("there are no bars to sweep over; is the range of the history right?")
    if isinstance(bars, Bars) and universe is None:
        universe = [Instrument(f"S{n}") for n in range(int(bars.symbol.max()) + 1)]
    bars, universe, interval = market_of(bars, universe, interval)
    options: dict[str, Any] = {
        "universe": universe,
        "interval": interval, "capital": capital, "risk": risk, "execution": execution,
        "sizing": sizing, "orders": orders, "exits": exits, "seed": seed,
        "snapshot_ns": snapshot_ns,
    }  # fmt: skip
    tried = Grid(strategy, grid, where, taken=[*COLUMNS, "fills_hash"])
    study = _Study(tried, bars, options, threads, progress)
    chosen = list(range(len(study.grid)))
    screened: dict[int, dict[str, float]] = {}
    if screen == "vectorbt":
        screened = study.screen()
        chosen = best_first(screened, rank)[:keep]
    rows = study.run(sorted(chosen), resume)
    frame = _frame(study.grid, rows, screened)
    verified = study.verify(rows, rank, verify_best, verify_sample, seed)
    if screened:
        names = {place: described(study.grid.parameters(place)) for place in rows}
        study.notes += disagreements(rows, screened, rank, names)
    return Sweep(study.grid, frame, rank, verified, tuple(study.notes))


class _Study:
    # One sweep while it is made: its grid, market and options, and what is to be said of it.

    def __init__(
        self, grid: Grid, bars: Bars, options: Mapping[str, Any], workers: int, progress: bool
    ) -> None:
        self.grid, self.notes = grid, list[str]()
        self._bars, self._options = bars, options
        self._workers, self._progress = workers, progress
        self._make = partial(fresh_engine, **options)
        self._replays = Replays(
            self._make, bars, grid.strategies,
            capital=options["capital"], snapshot_ns=options["snapshot_ns"], workers=workers,
        )  # fmt: skip

    def screen(self) -> dict[int, dict[str, float]]:
        options = self._options
        screen = Screen(
            self._bars, options["universe"][0], options["execution"] or Execution(),
            options["sizing"] or WeightSizing(), capital=options["capital"],
            interval=options["interval"], snapshot_ns=options["snapshot_ns"],
        )  # fmt: skip
        weights = self._replays.weights(range(len(self.grid)))
        with self._bar("screening", len(self.grid)) as bar:
            found = dict[int, dict[str, float]]()
            for place, figures in screen.run(weights):
                found[place] = figures
                bar.update()
        return found

    def run(self, chosen: Sequence[int], resume: str | Path | None) -> dict[int, Row]:
        """Rows of the chosen combinations, those on file taken from there."""
        file = None if resume is None else self._file(resume)
        rows = dict[int, Row]()
        if file is not None:
            on_file = {place: file.rows.get(repr(self.grid.strategies[place])) for place in chosen}
            rows = {place: row for place, row in on_file.items() if row is not None}
            if rows:
                self.notes.append(f"{len(rows):,} combinations were finished before: {file.path}")
        missing = [place for place in chosen if place not in rows]
        with self._bar("sweep", len(chosen), len(rows)) as bar:
            for place, row in self._replays.run(missing):
                rows[place] = row
                if file is not None:
                    file.add([(self.grid.strategies[place], row)])
                bar.update()
        return dict(sorted(rows.items()))

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
        strategy, row = self.grid.strategies[place], rows[place]
        options = {name: value for name, value in self._options.items() if name != "universe"}
        result = backtest(strategy, self._bars, self._options["universe"], **options)
        single = figures_of(result)
        fills = result.effects["executions"]
        differ = [name for name in _EXACT if row[name] != single[name]]
        if not differ:
            return len(fills), ""
        told = ", ".join(f"{n} {row[n]} and {single[n]}" for n in differ if n != "fills_hash")
        where = _first_apart(self._replays.fills(place), fills)
        return len(fills), (
            f"{described(self.grid.parameters(place))}: the sweep and a backtest differ"
            f"{': ' if told else ''}{told}; {where}"
        )

    def _file(self, path: str | Path) -> TrialFile:
        # Opened, and one of its rows tried: code that no hash covers may have changed.
        file = TrialFile(path, self._rests_on())
        changed = ", ".join(file.changed)
        for place, strategy in enumerate(self.grid.strategies):
            saved = file.rows.get(repr(strategy))
            if saved is None:
                continue
            ((_, row),) = self._replays.run([place])
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
        for name, column in self._bars.columns():
            data.update(f"{name} {column.dtype} {len(column)}\n".encode() + column.tobytes())
        return hashes | {"data": data.hexdigest(), "code": source_hash()}

    def _bar(self, what: str, total: int, initial: int = 0) -> "tqdm[Any]":
        name = type(self.grid.strategies[0]).__name__
        return tqdm(
            total=total, initial=initial, desc=f"{what} {name}", unit=" combinations",
            disable=not self._progress,
        )  # fmt: skip


def figures_of(result: Result) -> Row:
    """What a row of a sweep must be equal to, of a single backtest."""
    tally, fills = result.tally, result.effects["executions"]
    equity = result.equity.to_numpy(np.float64)
    drawdown = float((equity / np.maximum.accumulate(equity) - 1.0).min())
    return {
        "signals": tally.signals, "approved": tally.approved, "refused": tally.refused,
        "fills": tally.fills, "fills_hash": hashlib.sha256(fills.tobytes()).hexdigest(),
        "equity": float(equity[-1]), "drawdown": drawdown,
    }  # fmt: skip


def _first_apart(own: np.ndarray, single: np.ndarray) -> str:
    # The first trade that differs, for people.
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


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
