"""The engine and its oracle on one case: run both, find the first row in which they differ.

Rows are matched by their natural key, not by their place in a table. Quantities, prices, times,
numbers and verdicts must be equal; money within 1e-6; values of checks within 1e-9 of themselves.
A verdict whose value lies within 1e-9 of its limit is a tie: rounding decides it, and with it the
rest of the stream, which is then not compared and counted.
"""

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sysquant.activity import Activity
from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.operation import Operation
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.sizing import FixedNotional, RiskPerTrade, VolatilityTarget, WeightSizing
from sysquant.strategy import Strategy
from sysquant.types import Bars, Instrument, Ticks, halt_mark
from tests.oracle import Oracle
from tests.streams import WEIGHTS, Switches, case_of, code_of

MONEY = 1e-6
VALUE = 1e-9
ROOM = 1e-6
SIZINGS = {
    "weight": WeightSizing, "volatility_target": VolatilityTarget,
    "fixed_notional": FixedNotional, "risk_per_trade": RiskPerTrade,
}  # fmt: skip
KEYS = {
    "financing": ("ts", "kind", "strategy", "symbol"),
    "executions": ("strategy", "order_no", "fill_no"),
    "order_ends": ("strategy", "order_no"),
    "portfolio_history": ("ts", "strategy", "symbol"),
    "signals": ("ts", "strategy", "symbol"),
    "risk_receipts": ("strategy", "order_no", "attempt"),
    "orders": ("strategy", "order_no"),
}  # in the order in which things happen at one time
IS_MONEY = {
    "fee", "slippage", "realised_pnl", "base", "amount", "cash", "value", "unrealised_pnl", "fees",
    "financing", "equity", "peak",
}  # fmt: skip
IS_RATIO = {"drawdown"}
STATISTICS = {"volatility", "sharpe", "sortino", "value_at_risk"}  # of returns of equity
LEAST_VOLATILITY = 0.01  # per year: below, ratios to it are made of the 1e-8 that cash is cut to


class Scripted(Strategy):
    """Wants what `streams.weight_of` says: arithmetic of a bar's time and close."""

    salt: int = 0
    hold_s: float = 1.0
    style: int = 0
    fails_at: float = 0.0

    def features(self, bar):
        return {"ts": bar.ts, "close": bar.close}

    def target(self, f):
        if 0 < self.fails_at <= f["ts"].max():
            raise ValueError("it is late")
        weights = np.array(WEIGHTS[self.style])
        code = code_of(f["ts"], f["close"], self.salt, self.hold_s)
        return weights[code.astype(np.int64) % len(weights)]


class ScriptedLegs(Scripted):
    """The same, of two symbols that are decided on together."""

    first: str = ""
    second: str = ""

    def legs(self):
        return (self.first, self.second)

    def features(self, bar):
        return {"ts": bar.ts, **{leg: bar[leg].close for leg in self.legs()}}

    def target(self, f):
        return {
            leg: super(ScriptedLegs, self).target({**f, "close": f[leg]}) for leg in self.legs()
        }


class Difference(NamedTuple):
    """The first row in which engine and oracle differ; what it is."""

    ts: int
    table: str
    key: tuple
    field: str
    engine: Any
    oracle: Any
    what: str  # accepted breach, false refusal, fill, or the table

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.table} {self.key} at {self.ts}: {self.field} "
            f"engine {self.engine!r}, oracle {self.oracle!r}"
        )


class Outcome(NamedTuple):
    """Of one stream: what was counted, whether a tie ended it, and the first difference."""

    counts: Counter
    tie: bool
    difference: Difference | None


# -- the engine's side
def _scripted(case: SimpleNamespace, script: dict) -> Scripted:
    if not case.legs:
        return Scripted(**script)
    first, second = (case.universe[place]["symbol"] for place in case.legs)
    return ScriptedLegs(**script, first=first, second=second)


def engine_of(case: SimpleNamespace) -> Engine:
    """The same book, through the constructors that a configuration goes through."""
    names = list(case.scripts)
    sizing = {}
    for name, some in case.sizing.items():
        sizing[name] = SIZINGS[some["kind"]](**{k: v for k, v in some.items() if k != "kind"})
    universe = [
        Instrument(**(one | {"max_position": one.get("max_position") or math.inf}))
        for one in case.universe
    ]
    return Engine(
        universe=universe,
        strategies={name: _scripted(case, case.scripts[name]) for name in names},
        risk=RiskChain(**case.risk),
        execution=Execution(**case.execution),
        sizing=sizing,
        orders={name: Orders(**case.orders[name]) for name in names},
        exits={name: Exits(**case.exits[name]) for name in names},
        interval=Activity(*case.activity) if case.activity else case.interval,
        capital=case.capital,
        currency="USD",
        fractions=case.fractions,
        promoted=case.promoted,
        seed=case.seed,
        snapshot_ns=case.snapshot_ns,
        contained=True,
    )


def symbol_of(event: tuple) -> int:
    """What stands in the symbol column for an event."""
    marks = ("halt", "resume")
    return halt_mark(event[2], resume=event[0] == "resume") if event[0] in marks else event[2]


def batch_of(events: list[tuple]) -> Ticks | Bars:
    """Columns of a stretch of a stream."""
    n = len(events)
    place = {"partition": np.zeros(n, np.int32), "offset": np.arange(n, dtype=np.int64)}
    ts = np.array([row[1] for row in events], np.int64)
    symbol = np.array([symbol_of(row) for row in events], np.int32)
    if any(row[0] == "bar" for row in events):
        columns = [np.array(c, float) for c in zip(*(row[3:] for row in events), strict=True)]
        names = ("open", "high", "low", "close", "volume")
        return Bars(ts=ts, symbol=symbol, **dict(zip(names, columns, strict=True)), **place)
    price = np.array([row[3] if len(row) > 3 else 0.0 for row in events])
    volume = np.array([row[4] if len(row) > 3 else 0.0 for row in events])
    return Ticks(ts=ts, symbol=symbol, price=price, volume=volume, received_at=ts, **place)


def run_engine(case: SimpleNamespace) -> tuple[dict[str, list[dict]], Engine]:
    """Rows of the engine, as dicts, and the engine afterwards."""
    engine = engine_of(case)
    rows = {table: [] for table in KEYS}
    calls = list(case.calls)
    kinds = [row[0] == "bar" for row in case.events]
    turns = [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    edges = {0, len(case.events), *(call[0] for call in calls), *case.cuts, *turns}
    for a, b in pairwise(sorted(edges)):
        caused = list[Effects]()
        while calls and calls[0][0] == a:
            caused.append(engine.operate(msgspec.convert(calls.pop(0)[1], Operation)))
        caused.append(engine.step(batch_of(case.events[a:b])))
        effects = Effects.join(caused)
        for table in KEYS:
            found = effects[table]
            names = found.dtype.names
            rows[table] += [dict(zip(names, row, strict=True)) for row in found.tolist()]
    return rows, engine


# -- what is compared
def close(left: float, right: float, tolerance: float) -> bool:
    """Equal, both NaN, or within a tolerance that grows with what is compared."""
    if left == right or (left != left and right != right):
        return True
    return abs(left - right) <= tolerance * max(1.0, abs(left), abs(right))


def is_tie(values: tuple[float, float], limit: float, slack: float) -> bool:
    """Whether rounding alone decides on which side of the limit both values lie."""
    near = VALUE * max(abs(limit), VALUE)
    return all(abs(value - limit) <= near + slack * max(1.0, abs(value)) for value in values)


def sane(ratio: float) -> float:
    """A ratio to a deviation that is zero but for rounding means nothing."""
    return ratio if abs(ratio) < 1e9 else math.nan


def same(name: str, left: float, right: float) -> bool:
    if name in IS_MONEY:
        return left == right or (left != left and right != right) or abs(left - right) <= MONEY
    if name in IS_RATIO:
        return close(left, right, VALUE)
    if name in STATISTICS:
        return close(sane(left), sane(right), 10 * MONEY)
    if name == "average_price":  # cost is cut to 1e-8, and a lot may be as small; P&L tells more
        return close(left, right, 1e-3)
    return left == right or (left != left and right != right)


def skipped(table: str, row: dict) -> bool:
    """Rows that mean nothing: no payment, a cell without position or past."""
    if table == "financing":
        return row["amount"] == 0
    return table == "portfolio_history" and row["symbol"] >= 0 and not row["quantity"]


def first_differences(
    ours: dict[str, list[dict]], theirs: dict[str, list[dict]], names: list[str]
) -> tuple[list[Difference], bool]:
    """All in which engine (`ours`) and oracle differ first; whether a tie comes before."""
    found: list[tuple[int, int, Difference | None]] = []
    for place, (table, key) in enumerate(KEYS.items()):
        left, right = (by_key(rows[table], key) for rows in (ours, theirs))
        for at in left.keys() | right.keys():
            one, other = left.get(at), right.get(at)
            row = one or other
            if (one is None or other is None) and skipped(table, row):
                continue
            ts = min(r["ts"] for r in (one, other) if r)
            if one is None or other is None:
                what = Difference(ts, table, at, "row", one, other, table)
                found.append((ts, place, what))
            elif table == "risk_receipts":
                found += [(ts, place, d) for d in receipt_differences(at, one, other, names)]
            else:
                found += [(ts, place, d) for d in row_differences(table, at, one, other)]
    ties = [ts for ts, _, what in found if what is None]
    found = sorted((one for one in found if one[2]), key=lambda one: one[:2])
    if ties and (not found or min(ties) <= found[0][0]):
        return [], True
    return [what for ts, _, what in found if what and ts == found[0][0]], False


def by_key(rows: list[dict], key: tuple[str, ...]) -> dict[tuple, dict]:
    """Rows by their key and how often it came before: bars of a symbol may close at one time."""
    found, seen = {}, Counter()
    for row in rows:
        at = tuple(row[name] for name in key)
        found[*at, seen[at]] = row
        seen[at] += 1
    return found


def row_differences(table: str, key: tuple, one: dict, other: dict) -> list[Difference]:
    for name in other:
        if (
            name in one
            and not compared_differently(table, name, one)
            and not same(name, one[name], other[name])
        ):
            ts = min(one["ts"], other["ts"])
            return [Difference(ts, table, key, name, one[name], other[name], table)]
    return []


def compared_differently(table: str, name: str, row: dict) -> bool:
    """Fields whose value means nothing in this row."""
    if table == "orders" and name in ("due", "expires"):
        return not row["approved"]
    if table == "orders" and name == "limit_price":
        return row["kind"] not in (1, 3)
    if name in ("sharpe", "sortino"):
        return not row["volatility"] > LEAST_VOLATILITY
    return table == "orders" and name == "stop_price" and row["kind"] not in (2, 3)


def receipt_differences(
    key: tuple, one: dict, other: dict, names: list[str]
) -> list[Difference | None]:
    """None stands for a tie."""
    for place, (name, value, limit, verdict, room, slack) in enumerate(other["receipts"]):
        assert names[place] == name
        got = (float(one["value"][place]), one["verdict"][place], one["room"][place])
        if got[1] != verdict:
            if math.isinf(slack) or is_tie((value, got[0]), limit, slack):
                return [None]
            what = "accepted breach" if verdict == 0 else "false refusal"
            what = "verdict" if got[1] and verdict else what
            seen = (name, f"limit {limit}", f"value {value}")
            return [Difference(one["ts"], "risk_receipts", (*key, *seen), name, got, verdict, what)]
        if math.isinf(slack):
            continue
        exact = ROOM if name == "cash" else VALUE
        for field, left, right, tolerance in (
            ("value", got[0], value, exact + slack), ("room", got[2], room, ROOM),
        ):  # fmt: skip
            if not close(left, right, tolerance):
                at = (*key, name)
                return [Difference(one["ts"], "risk_receipts", at, field, left, right, "receipt")]
    return []


def compare(switches: Switches) -> Outcome:
    """Both sides on the case of these switches."""
    case = case_of(switches)
    oracle = Oracle(case)
    theirs = oracle.run()
    ours, engine = run_engine(case)
    names = [check["check"] for check in case.risk["checks"]]
    differences, tie = first_differences(ours, theirs, names)
    led = leading(differences, ours["orders"] + theirs["orders"])
    if any(is_close_call(oracle, ours, difference) for difference in led):
        led, tie = [], True
    difference = led[0] if led else None
    if difference is None and not tie:
        difference = account_difference(oracle, engine)
    return Outcome(counted(case, theirs), tie, difference)


def leading(differences: list[Difference], orders: list[dict]) -> list[Difference]:
    """Those of the order that was decided on first, or all that no order led to.

    One order at an instant may lead to what differs in the next ones; never the other way round.
    """
    decided: dict[tuple, int] = {}
    for place, row in enumerate(orders):
        decided.setdefault((row["strategy"], row["order_no"]), place)

    def place_of(difference: Difference) -> float:
        if difference.table in ("financing", "signals"):
            return -1.0  # before any order
        return decided.get(difference.key[:2], math.inf)

    first = min(map(place_of, differences), default=0.0)
    return [difference for difference in differences if place_of(difference) == first]


def is_close_call(oracle: Oracle, ours: dict[str, list[dict]], difference: Difference) -> bool:
    """Whether rounding alone decided on an exit, or between two lots in the order that differs."""
    if difference.table not in ("orders", "risk_receipts", "executions", "order_ends"):
        return False
    strategy, number = difference.key[:2]
    if (difference.ts, strategy) in oracle.level_calls:
        return True
    rows = [
        next(
            (r for r in rows["orders"] if (r["strategy"], r["order_no"]) == (strategy, number)),
            None,
        )
        for rows in (ours, oracle.rows)
    ]
    if None in rows or (rows[1]["ts"], strategy) not in oracle.close_calls:
        return False
    lot = oracle.markets[rows[1]["symbol"]].rules.lot_size
    apart = [abs(rows[0][name] - rows[1][name]) for name in ("asked", "quantity")]
    return 0 < max(apart) < 1.5 * lot


def account_difference(oracle: Oracle, engine: Engine) -> Difference | None:
    """Accounts and positions after the last event."""
    for account in oracle.accounts:
        got, held = engine.accounts()[account.name], engine.positions()[account.name]
        expected = {
            "allocation": account.allocation, "cash": account.cash,
            "equity": oracle.equity(account), "peak": account.peak,
        }  # fmt: skip
        for name, value in expected.items():
            if abs(got[name] - value) > MONEY:
                key = (account.name,)
                return Difference(oracle.now, "accounts", key, name, got[name], value, "accounts")
        holds = {oracle.names[c.symbol]: c.held for c in account.cells if c.held}
        if holds != held:
            key = (account.name,)
            return Difference(oracle.now, "accounts", key, "positions", held, holds, "accounts")
    return None


def counted(case: SimpleNamespace, rows: dict[str, list[dict]]) -> Counter:
    """What a stream exercised, by the oracle's account."""
    counts = Counter(streams=1, events=len(case.events), fills=len(rows["executions"]))
    for row in rows["orders"]:
        counts["orders"] += 1
        counts["refusals"] += not row["approved"]
        counts[f"kind {row['kind'].name.lower()}"] += 1
        counts[f"purpose {row['purpose'].name.lower()}"] += 1
    for row in rows["order_ends"]:
        counts[f"end {row['reason'].name.lower()}"] += 1
    for row in rows["risk_receipts"]:
        for name, _, _, verdict, *_ in row["receipts"]:
            counts[f"check {name} {('refused', 'passed', 'exempt')[verdict]}"] += 1
    return counts
