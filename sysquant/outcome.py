"""What a run decided and traded up to one of its snapshots: signals, orders, fills, charges, P&L.

Input: the rows of a recorded session in the store, or those that an engine caused. Output: the same
mappings of both, to be held against each other row by row. Nothing is compared here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sysquant.effects import FINANCING_KINDS, PURPOSES
from sysquant.errors import NotRecordedError
from sysquant.orders import KINDS
from sysquant.store import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Signal(NamedTuple):
    """A decision: strategy, symbol, and the bar's close, ns UTC."""

    strategy: str
    symbol: str
    ts: int


class OrderKey(NamedTuple):
    """An order of a strategy, by its number."""

    strategy: str
    order_no: int


class FillKey(NamedTuple):
    """A fill of an order, by its number."""

    strategy: str
    order_no: int
    fill_no: int

    @property
    def order(self) -> OrderKey:
        """Whose it is."""
        return OrderKey(self.strategy, self.order_no)


class ChargeKey(NamedTuple):
    """What was due when, of which strategy and symbol ("" for interest)."""

    ts: int
    strategy: str
    symbol: str
    kind: str


class Order(NamedTuple):
    """An order as it was decided on; quantity after the risk chain, units."""

    ts: int
    symbol: str
    kind: str
    purpose: str
    quantity: float
    asked: float
    is_approved: bool
    due: int

    def is_like(self, other: "Order") -> bool:
        """Whether it is the same wish, of whatever size, with the same verdict."""
        same = self.ts, self.symbol, self.kind, self.purpose, self.is_approved
        wish = other.ts, other.symbol, other.kind, other.purpose, other.is_approved
        return same == wish and self.quantity * other.quantity > 0

    def is_same(self, other: "Order") -> bool:
        """Whether it is the same wish, of the same size."""
        return self.is_like(other) and self.quantity == other.quantity


class Fill(NamedTuple):
    """A fill; fee and slippage in the book's currency, positive when paid."""

    ts: int
    symbol: str
    quantity: float
    price: float
    reference: float
    slippage: float
    fee: float


class Charge(NamedTuple):
    """A charge of financing, positive when paid: a rate of a base, both as recorded."""

    base: float
    rate: float
    amount: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did before one moment.

    Parameters
    ----------
    ts : the moment, ns UTC: decisions and fills before it, charges up to it.
    seq : the input in which it lies; 0 where that is not known.
    pnl : strategy -> realised and unrealised P&L less all costs, at that moment.
    signals : decision -> weight.
    orders, fills, charges : by their keys.
    faults : strategy and time of each decision on which it raised.
    """

    ts: int
    seq: int = 0
    pnl: dict[str, float] = field(default_factory=dict[str, float])
    signals: dict[Signal, float] = field(default_factory=dict[Signal, float])
    orders: dict[OrderKey, Order] = field(default_factory=dict[OrderKey, Order])
    fills: dict[FillKey, Fill] = field(default_factory=dict[FillKey, Fill])
    charges: dict[ChargeKey, Charge] = field(default_factory=dict[ChargeKey, Charge])
    faults: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def take(
        self, rows: Mapping[str, np.ndarray], names: Sequence[str], symbols: Sequence[str]
    ) -> None:
        """Add rows that an engine caused, as of `records.EFFECTS`.

        Parameters
        ----------
        rows : table -> records.
        names, symbols : what their numbers stand for.
        """
        known: list[str] = [*symbols, ""]
        for row in _before(rows["signals"], self.ts):
            self.signals[
                Signal(_of(names, row, "strategy"), _of(known, row, "symbol"), int(row["ts"]))
            ] = float(row["target"])
        for row in _before(rows["orders"], self.ts):
            key = OrderKey(_of(names, row, "strategy"), int(row["order_no"]))
            self.orders[key] = Order(
                int(row["ts"]), _of(known, row, "symbol"), _of(KINDS, row, "kind"),
                _of(PURPOSES, row, "purpose"), float(row["quantity"]), float(row["asked"]),
                bool(row["approved"]), int(row["due"]),
            )  # fmt: skip
        for row in _before(rows["executions"], self.ts):
            key = FillKey(_of(names, row, "strategy"), int(row["order_no"]), int(row["fill_no"]))
            self.fills[key] = Fill(
                int(row["ts"]), _of(known, row, "symbol"),
                *(float(row[name]) for name in Fill._fields[2:]),
            )  # fmt: skip
        for row in _before(rows["financing"], self.ts + 1):
            kind = FINANCING_KINDS[row["kind"]]
            key = ChargeKey(
                int(row["ts"]), _of(names, row, "strategy"), _of(known, row, "symbol"), kind
            )
            self.charges[key] = Charge(*(float(row[name]) for name in Charge._fields))


def _of(names: Sequence[str], row: Any, column: str) -> str:
    return names[int(row[column])]


def _before(rows: np.ndarray, ts: int) -> Any:
    return rows[rows["ts"] < ts]


# -- as it was recorded

_LAST = """
    SELECT toUnixTimestamp64Nano(max(ts)), argMax(seq, (ts, version)), count()
    FROM portfolio_history WHERE run = {run:String} AND seq <= {last:UInt64}
"""
_PNL = """
    SELECT strategy, sum(realised_pnl) + sum(unrealised_pnl) - sum(fees) - sum(financing)
    FROM portfolio_history
    WHERE run = {run:String} AND strategy != '' AND toUnixTimestamp64Nano(ts) = {ts:Int64}
        AND seq = {seq:UInt64}
    GROUP BY strategy
"""
_OF_RUN = """
    FROM {table} WHERE run = {{run:String}} AND seq <= {{seq:UInt64}}
        AND toUnixTimestamp64Nano({table}.ts) < {{ts:Int64}} ORDER BY {table}.ts
"""
_AT = "toUnixTimestamp64Nano({table}.ts)"
_ROWS = {
    "signals": f"SELECT strategy, symbol, {_AT}, target",
    "orders": f"SELECT strategy, order_no, {_AT}, symbol, kind, purpose, quantity, asked, "
    "status = 'approved', toUnixTimestamp64Nano(due)",
    "executions": f"SELECT strategy, order_no, fill_no, {_AT}, symbol, quantity, price, reference, "
    "slippage, fee",
    "financing": f"SELECT {_AT}, strategy, symbol, kind, base, rate, amount",
    "events": f"SELECT strategy, {_AT}, kind",
}


def recorded_outcome(client: "Client", run: str, last: int) -> Outcome:
    """What a session recorded, up to the last snapshot of its portfolio.

    Parameters
    ----------
    client : of the store.
    run : the session's.
    last : sequence number of the last input whose rows have all arrived.

    Raises
    ------
    NotRecordedError
        If the store has no snapshot of it.
    StoreError
        If it does not answer.
    """
    with store_errors():
        ts, seq, count = client.query(_LAST, {"run": run, "last": last}).result_rows[0]
        if not count:
            raise NotRecordedError(
                f"the store has no portfolio row of run {run}: one comes at the end of a bar, "
                "every snapshots=... of engine time; ask again later"
            )
        given = {"run": run, "ts": int(ts), "seq": int(seq)}
        found: list[Any] = [*client.query(_PNL, given).result_rows]
        pnl = {str(name): float(value) for name, value in found}

        def rows(table: str) -> list[Any]:
            more = {"ts": int(ts) + 1} if table == "financing" else {}
            sql = (_ROWS[table] + _OF_RUN).format(table=table)
            return [*client.query(sql, given | more).result_rows]

        return Outcome(
            int(ts), int(seq), pnl,
            signals={Signal(*row[:3]): float(row[3]) for row in rows("signals")},
            orders={
                OrderKey(*row[:2]): Order(*row[2:]) for row in rows("orders")
            },
            fills={FillKey(*row[:3]): Fill(*row[3:]) for row in rows("executions")},
            charges={ChargeKey(*row[:4]): Charge(*row[4:]) for row in rows("financing")},
            faults=[(row[0], int(row[1])) for row in rows("events") if row[2] == "fault"],
        )  # fmt: skip
