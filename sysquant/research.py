"""The research ledger: how often a strategy was tried, on which data, in any notebook or runner.

Input: what `recording` wrote of every backtest, sweep and walk, here and, through the store, on
other machines. Output: counts and Sharpe ratios of a lineage's trials for the gate, a frame for a
notebook; rows carried to the table `research_runs`. Nothing is run or judged here.

A **run** is one backtest, one cell of a sweep, one of a walk's. Runs of the same code, parameters,
costs and limits, symbols, bars and data are one **trial**. A **lineage** is what a class says
(`lineage = "Momentum"`), or else its name, whatever module it lies in; one that was renamed or
copied belongs to it as long as it derives from it, or has its code, or its features but for
numbers.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from sysquant.answers import ask
from sysquant.errors import ConfigError, DataError, nearest
from sysquant.recording import Origin, origin_of
from sysquant.research_file import RunRow, Study, here
from sysquant.store import insert
from sysquant.strategy import Strategy
from sysquant.times import Moment, check_moment, moment_ns
from sysquant.types import Floats

if TYPE_CHECKING:
    import pandas as pd
    from clickhouse_connect.driver.client import Client

FEW = 20  # trials, below which their own variance says little
_ALWAYS = (-(1 << 62), 1 << 62)  # ns UTC: any data
_NS = pa.timestamp("ns", "UTC")

_STUDIES_SQL = "SELECT DISTINCT lineage, names, graph, code FROM studies"
_RUNS_SQL = """
SELECT r.trial, s.code, r.parameters, max(r.sharpe), max(r.periods), count(*)
FROM runs r JOIN studies s USING (study)
WHERE s.lineage IN (SELECT value FROM json_each(?)) AND s.first < ? AND s.last > ?
GROUP BY r.trial, s.code, r.parameters
"""
_FRAME_SQL = """
SELECT s.made, s.kind, s.source, s.lineage, r.parameters, s.first, s.last, s.symbols, s.interval,
  r.sharpe, r.periods, lower(hex(r.trial)) AS trial
FROM runs r JOIN studies s USING (study)
WHERE s.lineage IN (SELECT value FROM json_each(?)) ORDER BY r.number
"""
_OTHERS_SQL = """
SELECT DISTINCT toString(lineage) AS lineage, toJSONString(names) AS names,
  toString(graph) AS graph, toString(code) AS code
FROM research_runs WHERE ledger != {own:String}
"""
_OTHER_RUNS_SQL = """
SELECT toString(trial) AS trial, toString(code) AS code, parameters, max(sharpe) AS sharpe,
  max(periods) AS periods, count() AS runs
FROM research_runs
WHERE ledger != {own:String} AND lineage IN {lineages:Array(String)}
  AND toUnixTimestamp64Nano(first) < {last:Int64} AND toUnixTimestamp64Nano(last) > {first:Int64}
GROUP BY trial, code, parameters
"""
_CARRIED_SQL = f"""
SELECT r.number, {", ".join(f"s.{name}" for name in Study._fields)},
  {", ".join(f"r.{name}" for name in RunRow._fields)}
FROM runs r JOIN studies s USING (study) WHERE r.number BETWEEN ? AND ? ORDER BY r.number
"""


class _Trial(NamedTuple):
    trial: str
    code: str
    parameters: str
    sharpe: float | None
    periods: int
    runs: int


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """What was tried of a lineage on some data.

    Parameters
    ----------
    lineages : that belong together, by name.
    runs : all, also those that repeat another.
    lost : runs of any strategy that are known by their number alone; each counts as a trial.
    scores : trial -> its Sharpe ratio per period times the root of its periods, its distance from
        0 in standard errors; NaN where it has none.
    configurations : code and parameters, on whatever data and terms.
    """

    lineages: tuple[str, ...]
    runs: int
    lost: int
    scores: Mapping[str, float]
    configurations: frozenset[tuple[str, str]]

    def trials(self, own: str = "") -> int:
        """How many there are, with what was lost, and with `own`, at least 1."""
        return max(1, len(self.scores.keys() | ({own} if own else set())) + self.lost)

    def deviation(self, periods: int) -> float:
        """Standard deviation of the trials' Sharpe ratios per period, over so many periods.

        Trials may rest on data of other lengths: what is compared is their distance from 0 in
        standard errors. See `spread`.
        """
        return spread(np.array(list(self.scores.values()), np.float64)) / math.sqrt(periods)


def spread(scores: Floats) -> float:
    """Standard deviation of the scores of trials, as far as it lets the best of them look good.

    Of 20 and more: that of those above the middle, or above 0 where the middle loses, about it.
    Of trials without skill, in the middle 0, it is the standard deviation; those that lose by their
    costs alone would make it large, and lift no maximum. Below 20: the standard deviation (ddof
    1), at most 1. Where too few are known, or above: 1, that of independent trials without skill.

    Parameters
    ----------
    scores : (N,) Sharpe ratios in standard errors; NaN are left out.

    References
    ----------
    Bailey, Lopez de Prado, The deflated Sharpe ratio, Journal of Portfolio Management 40, 2014,
    which takes the variance over all trials.
    """
    known = scores[np.isfinite(scores)]
    if len(known) < 2:
        return 1.0
    if len(known) < FEW:
        return min(1.0, float(known.std(ddof=1)))
    centre = max(0.0, float(np.median(known)))
    above = known[known > centre] - centre
    return math.sqrt(float(np.mean(above**2))) if 2 * len(above) >= FEW else 1.0


def tried(strategy: Strategy, first: int, last: int, client: "Client | None" = None) -> Tried:
    """What was tried of a strategy's lineage on data that overlap a range.

    Parameters
    ----------
    first, last : ns UTC.
    client : of the store, migrated; also what other ledgers have brought there counts then.

    Raises
    ------
    DataError
        If the ledger cannot be read, or is damaged: a count without it would be too small.
    StoreError
        If the store does not answer.
    """
    file = here()
    with file.reading() as db:
        (own,) = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
        known = [_origin(*row) for row in db.execute(_STUDIES_SQL)]
        others: list[dict[str, Any]] = []
        if client is not None:
            others = ask(client, _OTHERS_SQL, {"own": own}).to_pylist()
        known += [_origin(**each) for each in others]
        lineages = family(origin_of(strategy), known)
        found = [_Trial(row[0].hex(), *row[1:]) for row in _rows(db, lineages, first, last)]
    if client is not None:
        asked = {"own": own, "lineages": list(lineages), "first": first, "last": last}
        found += [_Trial(**each) for each in ask(client, _OTHER_RUNS_SQL, asked).to_pylist()]
    return Tried(
        lineages, sum(each.runs for each in found), file.lost,
        {each.trial: _score(each) for each in found},
        frozenset((each.code, each.parameters) for each in found),
    )  # fmt: skip


def _rows(db: sqlite3.Connection, lineages: Iterable[str], first: int, last: int) -> Any:
    return db.execute(_RUNS_SQL, (json.dumps(list(lineages)), last, first))


def _score(each: _Trial) -> float:
    return math.nan if each.sharpe is None else each.sharpe * math.sqrt(each.periods)


def _origin(lineage: str, names: str, graph: str, code: str) -> Origin:
    return Origin(lineage, tuple(json.loads(names)), graph, code)


def family(own: Origin, known: Iterable[Origin]) -> tuple[str, ...]:
    """Lineages that belong together with `own`, itself the first: linked by a chain of equals.

    Two are linked by a name of either, by their code, or by their features.
    """
    left = list(known)
    marks, found = _marks(own), {own.lineage: None}
    while linked := [each for each in left if marks & _marks(each)]:
        left = [each for each in left if not marks & _marks(each)]
        for each in linked:
            marks |= _marks(each)
            found[each.lineage] = None
    return tuple(found)


def _marks(origin: Origin) -> set[tuple[str, str]]:
    marks = {("name", name) for name in (origin.lineage, *origin.names)}
    return marks | {(k, v) for k, v in (("graph", origin.graph), ("code", origin.code)) if v}


def trials(lineage: "str | Strategy | type[Strategy]") -> "pd.DataFrame":
    """Every run of a lineage in this home's ledger, in the order they were written.

    Parameters
    ----------
    lineage : its name, or a strategy.

    Returns
    -------
    made (UTC), kind, source, lineage, parameters (JSON), first and last event (UTC), symbols,
    interval, Sharpe ratio per period (NaN where there is none), periods, trial: equal in runs that
    are one.

    Raises
    ------
    ConfigError
        If the ledger has no such lineage.
    DataError
        If it cannot be read.
    """
    import pandas as pd

    with here().reading() as db:
        known = [_origin(*row) for row in db.execute(_STUDIES_SQL)]
        if isinstance(lineage, str):
            named = [each for each in known if lineage in (each.lineage, *each.names)]
            if not named:
                hint = nearest(lineage, {each.lineage for each in known})
                raise ConfigError(f"the research ledger has no lineage {lineage!r}{hint}")
            own = named[0]
        else:
            own = origin_of(lineage if isinstance(lineage, Strategy) else lineage())
        asked = [json.dumps(list(family(own, known)))]
        frame = pd.read_sql_query(_FRAME_SQL, db, params=asked)
    for name in ("made", "first", "last"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame.astype({"sharpe": np.float64})


def hold_out(start: Moment, end: Moment = None) -> None:
    """Declare data that no choice may rest on: from `start` on, or up to `end`.

    From then on a backtest that reaches into them says so in the log. The gate asks how many
    configurations were run there, also those from before this was said: the ledger has the data of
    every run. The last declaration counts; `promotion.statistics.holdout` comes before it.

    Raises
    ------
    ConfigError
        If a time cannot be meant, or has no date: `-30d` would move with every new bar.
    """
    for name, value in (("start", start), ("end", end)):
        check_moment(name, value)
        if isinstance(value, str) and value.startswith("-"):
            raise ConfigError(f"{name} must be a date, like 2026-01-31, was {value!r}")
    if start is None:
        raise ConfigError("start must be a date, like 2026-01-31, was None")
    first, last = moment_ns(start, 0, 0), moment_ns(end, _ALWAYS[1], 0)
    if first >= last:
        raise ConfigError(f"start must be before end, was {start!r} and {end!r}")
    try:
        here().changing().execute("INSERT INTO holdouts VALUES (NULL, ?, ?)", (first, last))
    except (sqlite3.Error, OSError) as error:
        raise DataError(
            f"the holdout cannot be written to {here().path}: {error}; make room, and say it again"
        ) from error


def holdout() -> tuple[int, int] | None:
    """First and last ns UTC of the holdout that was declared last; None where there is none."""
    return here().holdout()


def carry(client: "Client") -> int:
    """Bring runs that the store does not have to its table `research_runs`; how many.

    Any number of processes may do so at once, and be killed: a row arrives once.

    Raises
    ------
    DataError
        If the ledger cannot be read.
    StoreError
        If the store does not take them; they are brought the next time.
    """
    file, count = here(), 0
    with file.reading() as db:
        (own,) = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
        for first, last in file.sealed():
            rows = db.execute(_CARRIED_SQL, (first, last)).fetchall()
            insert(client, "research_runs", _table(own, rows), f"research {own} {first}-{last}")
            file.sent(first)
            count += len(rows)
    return count


def _table(ledger: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    names = ("number", *Study._fields, *RunRow._fields)
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["trial"] = [each.hex() for each in columns["trial"]]
    columns["names"] = [json.loads(each) for each in columns["names"]]
    columns["sharpe"] = [math.nan if each is None else each for each in columns["sharpe"]]
    for name in ("made", "first", "last"):
        columns[name] = pa.array(np.array(columns[name], "M8[ns]"), _NS)
    for name in ("number", "periods"):
        columns[name] = pa.array(columns[name], pa.uint64())
    return pa.table({"ledger": [ledger] * len(rows), **columns})
