"""Why one order of a recorded session was sent or refused: what it rested on, and what came of it.

Input: a session, its rows in the store, and an order. Output: the chain from ticks and bar over
features, model, weight, size and checks to fills and P&L; of a refused order what it would have
done. Nothing is written.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError
from sysquant.inspection import iso
from sysquant.outcome import OrderKey
from sysquant.packed import unpack, unpack_batch
from sysquant.recovery import read_command
from sysquant.session import Session, Standing
from sysquant.store import store_errors
from sysquant.types import Bars, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Section = dict[str, Any]
_BACK = 16  # inputs that are looked through first for the ticks of a bar
ASSUMED = (
    "the order, and whatever else was decided at that moment, passed the chain; it arrived, filled "
    "and was paid for as the configured execution does it; all later events and commands are the "
    "session's, and what was decided, sized, checked and filled later follows from the book as it "
    "would have been"
)
_ORDER = """
    SELECT seq, toUnixTimestamp64Nano(ts) AS at, symbol, kind, tif, purpose, quantity, asked,
        target, price, limit_price, stop_price, status, reason,
        toUnixTimestamp64Nano(due) AS due_at, model
    FROM orders WHERE run = {run:String} AND strategy = {strategy:String}
        AND order_no = {order_no:UInt64}
"""
_OF_ORDER = """
    FROM {table} WHERE run = {{run:String}} AND strategy = {{strategy:String}}
        AND order_no = {{order_no:UInt64}} ORDER BY {order}
"""
_RECEIPTS = "SELECT attempt, check, value, limit, room, verdict"
_FILLS = (
    "SELECT toUnixTimestamp64Nano(ts) AS at, liquidity, quantity, price, reference, slippage, fee, "
    "realised_pnl"
)
_ENDS = "SELECT toUnixTimestamp64Nano(ts) AS at, reason, filled, remainder"
_SIGNAL = """
    SELECT toUnixTimestamp64Nano(ts) AS at, target, price, model FROM signals
    WHERE run = {run:String} AND strategy = {strategy:String} AND symbol = {symbol:String}
        AND seq <= {seq:UInt64} AND toUnixTimestamp64Nano(ts) <= {at:Int64}
    ORDER BY signals.ts DESC LIMIT 1
"""


class Why(NamedTuple):
    """The chain of one order; each section maps names to values, times as ISO 8601.

    Parameters
    ----------
    order : as it was recorded.
    bar : the last closed bar of its symbol; `ticks` of it, where it was made of them.
    features : that the strategy was given on that bar.
    model : that it asked; empty for none.
    signal : the weight that stood, and since when.
    sizing : from the weight to what was asked for.
    checks : value, limit, room and verdict of each, in both reviews where the order was cut.
    fills : each with what it cost.
    end : how it ended; empty while it works, or where it was refused.
    pnl : what it came to at the last trades of the session.
    instead : of a refused order, what it would have done.
    """

    order: Section
    bar: Section
    features: Section
    model: str
    signal: Section
    sizing: Section
    checks: list[Section]
    fills: list[Section]
    end: Section
    pnl: Section
    instead: Section


def explain(session: Session, client: "Client", run: str, key: OrderKey) -> Why:
    """The chain of one order.

    Parameters
    ----------
    session : that sent or refused it.
    client : of the store.
    run : the session's.
    key : strategy and number of the order.

    Raises
    ------
    DataError
        If the session has no such order.
    JournalError
        If an input does not do again what was recorded.
    StoreError
        If the store does not answer.
    """
    given: dict[str, Any] = {"run": run, **key._asdict()}
    with store_errors():
        order = _one(client, _ORDER, given)
        if not order:
            raise DataError(
                f"the session has no order {key.order_no} of {key.strategy!r} in the store; orders "
                "of a strategy count from 1, refused ones too"
            )
        at, symbol = int(order["at"]), str(order["symbol"])
        signal = _one(client, _SIGNAL, given | {"symbol": symbol, "seq": order["seq"], "at": at})
        checks = _listed(client, _RECEIPTS, "risk_receipts", "attempt, check", given)
        fills = _listed(client, _FILLS, "executions", "fill_no", given)
        ends = _listed(client, _ENDS, "order_ends", "ts", given)
    before, decided = session.at(at - 1), session.at(at - 1)
    _decide(session, decided, key, at)
    instead = _instead(session, key, at) if order["status"] == "refused" else {}
    bar = dict(decided.bars.get(symbol, {}))
    if bar:
        bar |= _ticks(session, decided.engine, symbol, int(bar["ts"]), int(order["seq"]))
    features = decided.features.get(key.strategy, {})
    return Why(
        order=_timed({**key._asdict(), **order}), bar=_timed(bar),
        features=dict(features.get(symbol) or features.get("") or {}), model=str(order["model"]),
        signal=_timed(signal), sizing=_sized(before, key.strategy, order), checks=checks,
        fills=[_timed(one) for one in fills], end=_timed(ends[-1]) if ends else {},
        pnl=_came_to(session, symbol, fills), instead=instead,
    )  # fmt: skip


# -- rows


def _rows(client: "Client", sql: str, given: dict[str, Any]) -> list[Section]:
    found = client.query(sql, given)
    return [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]


def _one(client: "Client", sql: str, given: dict[str, Any]) -> Section:
    return next(iter(_rows(client, sql, given)), {})


def _listed(
    client: "Client", select: str, table: str, order: str, given: dict[str, Any]
) -> list[Section]:  # fmt: skip
    return _rows(client, select + _OF_ORDER.format(table=table, order=order), given)


def _timed(row: Section) -> Section:
    # Times as text, what is not there left out.
    named = {"at": "ts", "due_at": "due"}
    return {
        named.get(name, name): iso(int(value)) if name in ("ts", "at", "due_at") else value
        for name, value in row.items()
        if value is not None and not (name == "due_at" and not value)
    }


# -- what it rested on


def _ticks(session: Session, engine: Engine, symbol: str, close: int, seq: int) -> Section:
    # Of a bar of time: how many ticks the session had of it, the first and the last.
    if not isinstance(engine.interval, int):
        return {}
    number, start, back = engine.symbols.index(symbol), close - engine.interval, _BACK
    while True:
        after = max(0, seq - back)
        parts = [
            unpack_batch(one.kind, one.payload)
            for one in session.inputs(after, seq)
            if one.kind == "ticks"
        ]
        if not after or (parts and int(parts[0].ts.min()) < start):
            break
        back *= 8
    found = [Ticks.empty(), *(part for part in parts if isinstance(part, Ticks))]
    ticks = Ticks.join(found)
    own = ticks[(ticks.symbol == number) & (ticks.ts >= start) & (ticks.ts < close)]
    if not len(own):
        return {}
    told: Section = {"ticks": len(own)}
    for name, row in (("first_tick", 0), ("last_tick", -1)):
        place = f"partition {own.partition[row]}, offset {own.offset[row]}"
        told[name] = f"{own.price[row]:g} at {iso(int(own.ts[row]))} ({place})"
    return told


def _sized(before: Standing, strategy: str, order: Section) -> Section:
    account = before.engine.accounts()[strategy]
    held = before.engine.positions()[strategy].get(str(order["symbol"]), 0.0)
    return {
        "equity": account["equity"], "target": order["target"], "weight": account["scale"],
        "price": order["price"], "held": held, "asked": order["asked"],
        "after the chain": order["quantity"] if order["status"] == "approved" else 0.0,
    }  # fmt: skip


def _came_to(session: Session, symbol: str, fills: Sequence[Section]) -> Section:
    if not fills:
        return {}
    last = session.at()
    number = last.engine.symbols.index(symbol)
    amendment = last.engine.amendment()
    worth, unit = float(amendment.worth[number]), float(amendment.units[number])
    moved = sum(one["quantity"] * (worth - one["price"] * unit) for one in fills)
    fees = sum(one["fee"] for one in fills)
    return {
        "moved": moved, "fees": fees, "total": moved - fees,
        "slippage": sum(one["slippage"] for one in fills),
        "realised": sum(one["realised_pnl"] for one in fills), "until": iso(last.ts),
    }  # fmt: skip


# -- onward from a moment


def _onward(session: Session, at: Standing) -> Iterator[Any]:
    # What came after a moment: batches, operations, states.
    seq = at.seq
    if at.rest is not None:
        yield at.rest
        seq += 1
    for entry in session.inputs(seq):
        if entry.kind == "command":
            yield from read_command(entry).operations
        elif entry.kind == "adopted":
            yield unpack(entry.payload)
        elif entry.kind == "history":
            yield unpack_batch("bars", entry.payload), True
        else:
            yield unpack_batch(entry.kind, entry.payload)


def _take(engine: Engine, one: Any) -> Effects | None:
    # An operation that cannot be meant in a book that came to be another is left out.
    if isinstance(one, Ticks | Bars):
        return engine.step(one)
    if isinstance(one, tuple):
        engine.warm(one[0])
    elif isinstance(one, dict):
        engine.restore(one)
    else:
        try:
            return engine.operate(one)
        except ConfigError:
            return None
    return None


def _decide(session: Session, at: Standing, key: OrderKey, ts: int) -> Iterator[Any]:
    # Event by event up to the one at which the order is decided on; what comes after that.
    onward = _onward(session, at)
    strategy = list(at.engine.strategies).index(key.strategy)
    for one in onward:
        if not isinstance(one, Ticks | Bars):
            _take(at.engine, one)
            continue
        for row in range(len(one)):
            orders = at.engine.step(one[row : row + 1])["orders"]
            if ((orders["strategy"] == strategy) & (orders["order_no"] == key.order_no)).any():
                return _chained(one[row + 1 :], onward)
            if one.ts[row] > ts:
                raise DataError(_not_again(key))
    raise DataError(_not_again(key))


def _not_again(key: OrderKey) -> str:
    return f"order {key.order_no} of {key.strategy!r} is not decided on again in a replay"


def _chained(rest: Ticks | Bars, onward: Iterator[Any]) -> Iterator[Any]:
    if len(rest):
        yield rest
    yield from onward


def _instead(session: Session, key: OrderKey, ts: int) -> Section:
    # Two books from that moment to the end, in one of which the chain let the order pass.
    books = [session.at(ts - 1), session.at(ts - 1)]
    fills = list[np.ndarray]()
    with books[0].engine.amendment().unchecked():
        onward = _decide(session, books[0], key, ts)
    for one in onward:
        effects = _take(books[0].engine, one)
        if effects is not None:
            fills.append(effects["executions"])
    for one in _decide(session, books[1], key, ts):
        _take(books[1].engine, one)
    strategy = list(books[0].engine.strategies).index(key.strategy)
    own = [
        row for rows in fills for row in rows
        if row["strategy"] == strategy and row["order_no"] == key.order_no
    ]  # fmt: skip
    filled = float(sum(row["quantity"] for row in own))
    paid = float(sum(row["quantity"] * row["price"] for row in own))
    pnls = [
        {n: each["equity"] - each["allocation"] for n, each in book.engine.accounts().items()}
        for book in books
    ]
    return {
        "filled": filled, "average_price": paid / filled if filled else None,
        "pnl": pnls[0][key.strategy] - pnls[1][key.strategy],
        "pnl_of_book": sum(pnls[0].values()) - sum(pnls[1].values()),
        "until": iso(books[0].ts), "assumed": ASSUMED,
    }  # fmt: skip
