"""Whether a challenger's model earns more than the champion's, over the same ticks.

Input: what two books recorded while both models served, each in an account of its own. Output: how
they compare, and what is to be done next. The verdict is given once, when enough has been seen: to
look again and again until it happens to be good would promote by luck.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from sysquant.intervals import block_length, bootstrap
from sysquant.keys import check_number
from sysquant.models.loader import number_of
from sysquant.types import Floats, Ints

Verdict: TypeAlias = Literal["early", "kept", "better", "promoted", "refused"]
Todo: TypeAlias = Literal["wait", "challenge", "compare", "promote"]
_SINCE_SQL = """
SELECT toUnixTimestamp64Nano(argMax(ts, seq)), argMax(model, seq) FROM models_served
WHERE run = {run:String} AND strategy = {strategy:String}
"""
# Profit from the positions, so that cash which an operator moves is none.
_PNL_SQL = """
SELECT toUnixTimestamp64Nano(ts), anyIf(equity, symbol = ''),
    sumIf(realised_pnl + unrealised_pnl - fees, symbol != '') - sum(financing)
FROM (
    SELECT * FROM portfolio_history
    WHERE run = {run:String} AND strategy = {strategy:String}
        AND ts >= fromUnixTimestamp64Nano({since:Int64})
    ORDER BY version DESC LIMIT 1 BY ts, symbol
)
GROUP BY ts ORDER BY ts
"""
_JUDGED_SQL = """
SELECT argMax(verdict, ts) FROM challenges
WHERE lineage = {lineage:String} AND champion = {champion:String}
    AND challenger = {challenger:String}
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a challenger is better, as configured by `conf/challenge.yaml`.

    Parameters
    ----------
    snapshots : of both books that are compared; then the verdict is given.
    most_drawdown : of the challenger meanwhile, a fraction; None: not asked.

    Raises
    ------
    ConfigError
        If a value cannot be meant.
    """

    snapshots: int = 1440
    most_drawdown: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_number("rule.snapshots", self.snapshots, least=10, whole=True)
        if self.most_drawdown is not None:
            check_number("rule.most_drawdown", self.most_drawdown, above=0)


class Record(NamedTuple):
    """What a book recorded of a strategy since its model serves.

    Parameters
    ----------
    run : of the book.
    model : that serves, `number-id`.
    ts : (N,) of the snapshots, ns UTC, rising.
    pnl : (N,) of the account so far, book currency.
    equity : at the first of them.
    """

    run: str
    model: str
    ts: Ints
    pnl: Floats
    equity: float


class Comparison(NamedTuple):
    """Two models over the snapshots that both books have; returns are of each one's equity.

    Parameters
    ----------
    since, until : first and last snapshot, ns UTC; 0 when there is none.
    snapshots : after the first.
    returns, drawdowns : of champion and challenger; a drawdown is <= 0.
    edge, low, high : mean return per snapshot by which the challenger is better, and the limits of
        95 %; NaN below 10 snapshots.
    """

    since: int
    until: int
    snapshots: int
    returns: tuple[float, float]
    drawdowns: tuple[float, float]
    edge: float
    low: float
    high: float


def record(client: Client, run: str, strategy: str, since: int = 0) -> Record:
    """Read what a run recorded since its model serves, or since a later time, ns UTC.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    told = {"run": run, "strategy": strategy}
    ((began, model),) = client.query(_SINCE_SQL, told).result_rows
    found = client.query(_PNL_SQL, told | {"since": max(since, began)}).result_rows
    ts, equity, pnl = zip(*found, strict=True) if found else ((), (0.0,), ())
    return Record(run, model, np.array(ts, np.int64), np.array(pnl, float), equity[0])


def compare(champion: Record, challenger: Record) -> Comparison:
    """Hold two records against each other, at the snapshots of both."""
    both, *places = np.intersect1d(champion.ts, challenger.ts, return_indices=True)
    if not len(both):
        return Comparison(0, 0, 0, (0.0, 0.0), (0.0, 0.0), math.nan, math.nan, math.nan)
    paths = [
        1.0 + (side.pnl[place] - side.pnl[place[0]]) / side.equity
        for side, place in zip((champion, challenger), places, strict=True)
    ]
    ahead = np.diff(paths[1] - paths[0])
    limits = bootstrap(lambda rows: {"edge": ahead[rows].mean(1)}, len(ahead), block_length(ahead))
    first, second = ((float(path[-1]) - 1.0, _drawdown(path)) for path in paths)
    return Comparison(
        int(both[0]), int(both[-1]), len(ahead), (first[0], second[0]), (first[1], second[1]),
        float(ahead.mean()) if len(ahead) else math.nan, *limits["edge"][1:],
    )  # fmt: skip


def _drawdown(path: Floats) -> float:
    return float((path / np.maximum.accumulate(path)).min() - 1.0)


def judge(found: Comparison, rule: Rule) -> tuple[Verdict, str]:
    """The verdict of a comparison, and why."""
    if found.snapshots < rule.snapshots:
        return "early", f"{found.snapshots:,} of {rule.snapshots:,} snapshots"
    if rule.most_drawdown is not None and -found.drawdowns[1] > rule.most_drawdown:
        return "kept", f"its drawdown was {found.drawdowns[1]:.2%}"
    if found.low > 0.0:
        return "better", f"ahead by {found.edge:.3g} a snapshot, at least {found.low:.3g}"
    return "kept", f"not surely ahead: {found.low:.3g} to {found.high:.3g} a snapshot"


def verdict_of(client: Client, lineage: str, champion: str, challenger: str) -> str:
    """The last verdict of two models; empty for none.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    told = {"lineage": lineage, "champion": champion, "challenger": challenger}
    return str(client.query(_JUDGED_SQL, told).result_rows[0][0])


def todo(champion: str, challenger: str, newest: int, verdict: str) -> tuple[Todo, str]:
    """What is to be done with two books, and why.

    Parameters
    ----------
    champion, challenger : their models, `number-id`; empty for none.
    newest : number of the newest model; 0 for none.
    verdict : `verdict_of` the two.
    """
    if not champion:
        return "wait", "the champion has no model: it takes the next that is published"
    if challenger not in ("", champion) and verdict == "better":
        return "promote", f"{challenger} is better than {champion}"
    if challenger not in ("", champion) and verdict in ("", "early"):
        return "compare", ""
    if newest > max(number_of(name) for name in (champion, challenger) if name):
        return "challenge", f"model {newest} is the newest"
    return "wait", f"no model is newer than {max(champion, challenger)}"


def row_of(
    lineage: str, champion: Record, challenger: Record, found: Comparison, verdict: Verdict,
    why: str,
) -> pa.Table:  # fmt: skip
    """Row of `challenges`."""
    time = pa.timestamp("ns", "UTC")
    sides = {"champion": champion, "challenger": challenger}
    row = {"lineage": pa.array([lineage])}
    for place, (name, side) in enumerate(sides.items()):
        row |= {
            name: pa.array([side.model]), f"{name}_run": pa.array([side.run]),
            f"{name}_return": pa.array([found.returns[place]]),
            f"{name}_drawdown": pa.array([found.drawdowns[place]]),
        }  # fmt: skip
    return pa.table(row | {
        "since": pa.array([found.since], time), "until": pa.array([found.until], time),
        "snapshots": pa.array([found.snapshots], pa.uint64()), "edge": pa.array([found.edge]),
        "edge_low": pa.array([found.low]), "edge_high": pa.array([found.high]),
        "verdict": pa.array([verdict]), "why": pa.array([why]),
    })  # fmt: skip
