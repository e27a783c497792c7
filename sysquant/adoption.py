"""Going on under another build or configuration: money from recorded fills, features from history.

Input: a journal that others wrote, the rows of its run in the store, and a new engine. Output: the
engine with the cash, positions and switches of the book; one input `adopted` that holds its whole
state, so that whoever replays the journal goes on from there; orders that worked are ended.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from sysquant.effects import END_REASONS, Effects, Labels
from sysquant.engine import Engine
from sysquant.errors import ConfigError, JournalError, ModelError, StoreAwayError
from sysquant.journal import Input, Journal
from sysquant.models.loader import ModelLoader
from sysquant.operation import Charge, Fill, Hold, Serve
from sysquant.outbox import Outbox
from sysquant.packed import pack, unpack_batch
from sysquant.recovery import FRESH, carry_out, changed, marks, newest, read_command
from sysquant.rows import event, input_row
from sysquant.store import store_errors
from sysquant.swapping import served, without
from sysquant.types import Bars, clock_mark

History = Callable[[int, Mapping[int, int]], Bars]
State = dict[str, np.ndarray]
_PATIENCE_S = 30.0  # with a store that is to take the last rows
_FEEDS = ("ticks", "bars")
_CONFIGURED = {"promoted"}  # in accounts
_OF_BARS = ("bar_clock", "open_bars", "activity")
_PER_BAR = {  # in market: what is measured per bar of the history
    "bars", "close", "high", "low", "variance", "volume", "reference", "change", "roll_covariance",
    "roll", "spread",
}  # fmt: skip
_OTHERS = (
    "adopting goes on with the same strategies and symbols, and these are others: go on with what "
    f"they were, or {FRESH}"
)
_FILLS = """
    SELECT seq, strategy, symbol, quantity, price, fee, slippage, toUnixTimestamp64Nano(ts)
    FROM executions WHERE run = {run:String} AND seq > {after:UInt64}
    ORDER BY seq, executions.ts, order_no, fill_no
"""
_CHARGES = """
    SELECT seq, strategy, symbol, amount
    FROM financing WHERE run = {run:String} AND seq > {after:UInt64} ORDER BY seq, financing.ts
"""
_ORDERS = "SELECT strategy, max(order_no) FROM orders WHERE run = {run:String} GROUP BY strategy"
_VERSION = "SELECT max(version) FROM portfolio_history WHERE run = {run:String}"
_WORKING = """
    SELECT strategy, order_no, symbol, quantity, filled
    FROM orders LEFT JOIN (
        SELECT strategy, order_no, sum(executions.quantity) AS filled FROM executions
        WHERE run = {run:String} GROUP BY strategy, order_no
    ) AS fills USING (strategy, order_no)
    WHERE run = {run:String} AND status = 'approved' AND (strategy, order_no) NOT IN (
        SELECT strategy, order_no FROM order_ends WHERE run = {run:String})
    ORDER BY strategy, order_no
"""


def adopt(
    journal: Journal, engine: Engine, outbox: Outbox, connect: Callable[[], Client],
    history: History, labels: Labels, gone: Mapping[str, str] = MappingProxyType({}),
) -> str:  # fmt: skip
    """Bring a new engine to what a journal's book holds, and journal that.

    Positions, cash and costs are those of the last snapshot and of the fills and charges that were
    recorded after it; states, weights and holds those of the commands. Features see history, then
    what the feed brought since the snapshot. Exits go on where they stood.

    Parameters
    ----------
    outbox : of the journal; the rows that wait are sent first.
    history : bars before a time (ns UTC) that hold nothing of the feed from these offsets on.
    gone : of `unserved`; those models are dropped, and the newest is looked for.

    Returns
    -------
    What was done, in a line.

    Raises
    ------
    JournalError
        If the book has other strategies or symbols, or a command of it cannot be repeated.
    StoreError
        If the store does not take the rows that wait, or does not answer.
    """
    differing = [name for name, _, _ in changed(journal, engine)]
    after, base = newest(journal)
    if not base and journal.last_seq:
        raise JournalError(
            f"the journal has no snapshot yet to adopt; go on with what it was, or {FRESH}"
        )
    if base and ("symbols" in differing or _keys(base) != _keys(engine.state())):
        raise JournalError(_OTHERS)
    _send_all(journal, outbox)
    tail = list(journal.inputs(after=after))
    with closing(connect()) as client, store_errors():
        told = _Recorded(client, journal.id, after)
    if base:
        first = journal.positions() | _first_offsets(tail)
        if left_at := int(base["clock"]["engine_ts"][0]) or _first_ts(tail):
            engine.warm(history(engine.warmup_end(clock_mark(left_at)), first))
        engine.restore(_carried(engine.state(), base, "bars" in differing))
    _take_again(engine, tail, told)
    state = _numbered(engine.state(), told, labels)
    engine.restore(state)
    seq = journal.last_seq + 1
    ended = labels.tables(_ends(told.working, engine, labels), seq)
    text = _text(journal, told, after, [*differing, *(["models"] if gone else ())])
    events, notes = _dropped(journal, engine, gone)
    events.append(event(journal.id, engine.engine_ts or time.time_ns(), "adopted", text, seq=seq))
    entry = Input(seq, "adopted", pack(state), b"")
    inputs = input_row(journal.id, entry, 0, "{}")
    tables = {"events": pa.concat_tables(events), "inputs": inputs, **ended}
    notes |= marks(engine) | {"adopt": ""}
    journal.commit(entry, tables, notes=notes, snapshot=state)
    return text


def _text(journal: Journal, told: "_Recorded", after: int, differing: Sequence[str]) -> str:
    fills = sum(map(len, told.fills.values()))
    return (
        f"adopted by {journal.meta('adopt')}: {fills} fills after input {after}, "
        f"{len(told.working)} working orders ended; changed: "
        f"{', '.join(differing) or 'the build, which was ' + str(journal.meta('build'))}"
    )


def _dropped(
    journal: Journal, engine: Engine, gone: Mapping[str, str]
) -> tuple[list[pa.Table], dict[str, str]]:
    # Events and notes of models that are asked no more.
    at, notes = engine.engine_ts or time.time_ns(), dict[str, str]()
    events = [
        event(journal.id, at, "model_refused", f"{why}; it is dropped", strategy=name)
        for name, why in gone.items()
    ]
    for name in gone:
        notes |= without(journal, name)
    return events, notes


def unserved(journal: Journal, models: ModelLoader) -> dict[str, str]:
    """Models that going on with a journal asks, and that may not be served: strategy -> why."""
    after, base = newest(journal)
    asked = {(name, served(journal, name)) for name in models.strategies}
    asked |= {(name, str(base.get(f"models/{name}", [""])[0])) for name in models.strategies}
    for entry in journal.inputs(after=after):
        if entry.kind == "command":
            asked |= {
                (one.strategy, one.model)
                for one in read_command(entry).operations if isinstance(one, Serve)
            }  # fmt: skip
    found = dict[str, str]()
    for name, model in sorted(asked):
        if model and name in models.strategies:
            try:
                models(name, model)
            except ModelError as error:
                found[name] = str(error)
    return found


class _Recorded:
    # What the run's rows say of money since an input, and of orders since its start.

    def __init__(self, client: Client, run: str, after: int) -> None:
        def rows(sql: str) -> list[tuple[Any, ...]]:
            found = client.query(sql, parameters={"run": run, "after": after})
            return [tuple(row) for row in found.result_rows]

        self.fills, self.charges = (
            defaultdict[int, list[Fill]](list),
            defaultdict[int, list[Charge]](list),
        )
        for seq, *fill in rows(_FILLS):
            self.fills[seq].append(Fill(*fill))
        for seq, *charge in rows(_CHARGES):
            self.charges[seq].append(Charge(*charge))
        self.order_no = dict(rows(_ORDERS))
        self.version = int(rows(_VERSION)[0][0])
        self.working = rows(_WORKING)


def _send_all(journal: Journal, outbox: Outbox) -> None:
    outbox.send(journal.sealed())
    outbox.send(journal.commit(None, {}, seal_all=True))
    if not outbox.flush(_PATIENCE_S):
        raise StoreAwayError(
            "adopting reads the fills of the run in the store, which does not take the last rows "
            f"within {_PATIENCE_S:g} s: start it, and then this again"
        )
    journal.commit(None, {}, sent=outbox.arrived())


def _first_ts(tail: Iterable[Input]) -> int:
    # Of the first event after the snapshot, ns UTC; 0 for none.
    batches = (unpack_batch(one.kind, one.payload) for one in tail if one.kind in _FEEDS)
    return next((int(batch.ts[0]) for batch in batches), 0)


def _first_offsets(tail: Iterable[Input]) -> dict[int, int]:
    # Partition -> first offset of what the feed brought after the snapshot.
    first = dict[int, int]()
    for entry in tail:
        if entry.kind in _FEEDS:
            batch = unpack_batch(entry.kind, entry.payload)
            for partition in np.unique(batch.partition[batch.partition >= 0]).tolist():
                least = int(batch.offset[batch.partition == partition].min())
                first[partition] = min(least, first.get(partition, least))
    return first


def _keys(state: State) -> list[int]:
    return state["accounts"]["key"].tolist()


def _carried(state: State, base: State, other_bars: bool) -> State:
    # All that is told of the book, by name; what is not known any more is left, orders too.
    left = {"orders", *(_OF_BARS if other_bars else ())}
    configured = _CONFIGURED | (_PER_BAR if other_bars else set())
    for name, array in state.items():
        if name.startswith("features/") or name in left:
            continue
        saved = base.get(name)
        fits = saved is not None and saved.shape == array.shape
        if name in ("clock", "market", "accounts", "cells") and not fits:
            raise JournalError(f"{_OTHERS}: {name!r} has another shape")
        if saved is None or not fits:
            continue
        for field in {*(array.dtype.names or ())} & {*(saved.dtype.names or ())} - configured:
            array[field] = saved[field]
        if array.dtype == saved.dtype and array.dtype.names is None:
            array[...] = saved
    cells, market = state["cells"], state["market"]
    for field in ("working", "pending", "slices", "follow"):
        cells[field] = 0
    state["accounts"]["open_orders"] = 0
    market["orders"] = 0
    market["committed"] = market["held"]
    market["gross"] = np.abs(cells["quantity"]).sum(axis=0)
    return state


def _take_again(engine: Engine, tail: Iterable[Input], told: _Recorded) -> None:
    # What came after the snapshot, without a decision; then the money that was recorded of it.
    halted = "halt" in engine.operator.holds
    for entry in tail:
        engine.operate(Hold("halt", True))
        own: np.ndarray | None = None
        if entry.kind == "history":
            bars: Any = unpack_batch("bars", entry.payload)
            engine.warm(bars)
        elif entry.kind == "command":
            halted = _commanded(engine, entry, halted=halted)
        elif entry.kind in _FEEDS:
            own = engine.step(unpack_batch(entry.kind, entry.payload))["financing"]
        engine.operator.correct(told.fills[entry.seq], told.charges[entry.seq], own)
    engine.operate(Hold("halt", halted))


def _commanded(engine: Engine, entry: Input, *, halted: bool) -> bool:
    # A command of the tail; whether the book is halted after it.
    for one in (said := read_command(entry)).operations:
        halted = one.on if isinstance(one, Hold) and one.reason == "halt" else halted
    try:
        # Models are of the build that trained them: the newest is asked for once it trades.
        carry_out(engine, tuple(one for one in said.operations if not isinstance(one, Serve)))
    except ConfigError as error:
        raise JournalError(
            f"input {entry.seq} of the journal, a command, cannot be repeated: {error}; finish "
            "with the build that wrote it"
        ) from error
    return halted


def _numbered(state: State, told: _Recorded, labels: Labels) -> State:
    # Orders and rows are counted on from where they were; what an order that worked was to bring
    # is proposed again.
    numbers = [told.order_no.get(name, 0) for name in labels.strategies]
    for field, least in (("accounts", numbers), ("clock", [told.version])):
        name = "order_no" if field == "accounts" else "version"
        state[field][name] = np.maximum(state[field][name], least)
    for strategy, _, symbol, *_ in told.working:
        place = labels.strategies.index(strategy), labels.symbols.index(symbol)
        state["cells"]["changed"][place] = 1
    return state


def _ends(working: Iterable[Sequence[Any]], engine: Engine, labels: Labels) -> Effects:
    # Rows that say of every order that worked that it does not any more.
    empty = Effects.empty(len(labels.risk.names))
    rows = [
        (engine.engine_ts, labels.strategies.index(strategy), number, labels.symbols.index(symbol),
         END_REASONS.index("cancelled"), filled, quantity - filled)
        for strategy, number, symbol, quantity, filled in working
    ]  # fmt: skip
    return Effects({**empty.rows, "order_ends": np.array(rows, empty["order_ends"].dtype)})
