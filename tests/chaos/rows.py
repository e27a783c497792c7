"""Rows of a session, compared with a replay of its recorded inputs and with another session.

Input: a session whose rows are in the store. Output: counts of rows and of those that differ in any
column that a decision fixes, to the byte; a row too many or too few differs, too.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import hydra
import msgspec
import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from hydra.core.hydra_config import HydraConfig

from runners import parts
from runners.command_line import CONF
from sysquant import parity
from sysquant.effects import Effects, Labels
from sysquant.engine import Engine
from sysquant.feeds.synthetic import SAMPLE
from sysquant.journal import Input
from sysquant.packed import join_tables, unpack_batch
from sysquant.recovery import Carried, carry_out
from sysquant.rows import input_row, offsets_json
from sysquant.store import decided_columns, insert
from sysquant.types import Bars, Ticks
from tests.chaos.session import Session

WRONG = ("different", "lost", "doubled", "unbalanced")  # figures that are 0 if all is well
KEYS = parity.KEYS | {"portfolio_state": "strategy, symbol", "inputs": "seq"}
DECIDED_S = 0.25  # from the return of a poll to its commit, at most, on a busy machine
_carried = msgspec.json.Decoder(Carried).decode
CAPITAL = 1_000_000.0


def engine_of(words: list[str]) -> Engine:
    """The engine that a live runner makes of these words."""
    return maker_of(words)()


def maker_of(words: list[str]) -> Callable[[], Engine]:
    """Makes such engines, from one configuration."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    models, universe = parts.models_of(cfg), parts.universe_of(cfg)
    return lambda: parts.engine_of(cfg, universe, contained=True, models=models, promoted=())


def recorded(client: Client, run: str) -> Iterator[tuple[int, str, bytes]]:
    """Number, kind and payload of every input of a run, in order."""
    sql = "SELECT seq, kind, payload FROM inputs WHERE run = {run:String} ORDER BY seq"
    found = client.query_arrow(sql, {"run": run}, use_strings=False)
    for row in found.to_pylist():
        yield row["seq"], row["kind"].decode(), row["payload"]


def replayed(client: Client, session: Session) -> str:
    """A fresh engine over the recorded inputs of a session, its rows put beside them; its run."""
    run, engine = f"{session.run}-again", engine_of(session.words)
    labels = Labels(run, list(engine.strategies), engine.symbols, engine.risk)
    tables = defaultdict[str, list[pa.Table]](list)
    for number, (_, kind, payload) in enumerate(recorded(client, session.run), start=1):
        effects, records, offsets = _again(engine, kind, payload)
        entry = Input(number, kind, payload, effects.hash() if effects else b"")
        caused = labels.tables(effects, number, engine.models) if effects else {}
        for name, rows in caused.items():
            tables[name].append(rows)
        tables["inputs"].append(input_row(run, entry, records, offsets))
    for name, rows in tables.items():
        insert(client, name, join_tables(rows), f"{run} {name}")
    return run


def _again(engine: Engine, kind: str, payload: bytes) -> tuple[Effects | None, int, str]:
    # What an input causes, how many records it has, and their offsets.
    if kind == "command":
        return carry_out(engine, _carried(payload).operations), 0, "{}"
    batch = unpack_batch("bars" if kind == "history" else kind, payload)
    if isinstance(batch, Bars):
        engine.warm(batch)
        return None, len(batch), "{}"
    records = int(np.count_nonzero(batch.symbol >= 0))
    return engine.step(batch), records, offsets_json(batch.partition, batch.offset)


def differing(client: Client, one: str, other: str, tables: list[str]) -> dict[str, int]:
    """`rows` of one run that were compared, and how many are `different`, over these tables."""
    found = {"rows": 0, "different": 0}
    for table in tables:
        left, right = (_decided(client, table, run) for run in (one, other))
        found["rows"] += left.num_rows
        if not parity.is_same(left, right):
            found["different"] += _count(left, right)
    return found


def _decided(client: Client, table: str, run: str) -> pa.Table:
    columns = ", ".join(f"`{name}`" for name in decided_columns(client, table))
    final = " FINAL" if table == "portfolio_state" else ""
    sql = f"SELECT {columns} FROM {table}{final} WHERE run = {{run:String}} ORDER BY {KEYS[table]}"
    return client.query_arrow(sql, {"run": run}, use_strings=False)  # payloads are bytes


def _count(left: pa.Table, right: pa.Table) -> int:
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=False)
    differ = sum(repr(one) != repr(other) for one, other in pairs)
    return differ + abs(left.num_rows - right.num_rows)


def compared(session: Session, undisturbed: Session | None = None) -> dict[str, float]:
    """Every figure of a session's rows.

    Returns
    -------
    `rows` and `different` (from a replay, and from the undisturbed session); `ticks`, `lost` and
    `doubled` of the topic's offsets; `unbalanced` moments at which money is not conserved; `fills`.
    """
    client = session.lab.client(session.name)
    try:
        found: dict[str, float] = dict(
            differing(client, session.run, replayed(client, session), list(KEYS))
        )
        found |= _offsets(client, session) | _money(client, session.run)
        if undisturbed is not None:
            found["different"] += _against(client, session, undisturbed)
    finally:
        client.close()
    return found


def _against(client: Client, session: Session, undisturbed: Session) -> int:
    # Where a poll was cut is no decision: of `inputs` the ticks are compared, not the batches.
    decided = [table for table in KEYS if table != "inputs"]
    found = 0
    other = session.lab.client(undisturbed.name)
    try:
        for table in decided:
            left = _decided(client, table, session.run)
            right = _decided(other, table, undisturbed.run)
            if not parity.is_same(left, right):
                found += _count(left, right)
        pairs = ((client, session.run), (other, undisturbed.run))
        one, two = (_said(traded(each, run)) for each, run in pairs)
        return found + (one != two)
    finally:
        other.close()


def traded(client: Client, run: str) -> Ticks:
    """Every tick that a run took, in its order."""
    payloads = [payload for _, kind, payload in recorded(client, run) if kind == "ticks"]
    batches: list[Any] = [unpack_batch("ticks", payload) for payload in payloads]
    ticks = Ticks.join(batches) if batches else Ticks.empty()
    return ticks[ticks.partition >= 0]


def _said(ticks: Ticks) -> bytes:
    return b"".join(
        column.tobytes() for column in (ticks.ts, ticks.symbol, ticks.price, ticks.volume)
    )


def entries(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Input, and time of the last price (ns), of each approved order that may not be on an old one.

    Their chain has `stale_price`, the age at the decision with the feed's lag, and `feed_lag`.
    """
    sql = """
        SELECT any(orders.seq), toUnixTimestamp64Nano(any(orders.ts))
            - toInt64(maxIf(value, check = 'stale_price') * 1e9)
            + toInt64(maxIf(value, check = 'feed_lag') * 1e9)
        FROM orders JOIN risk_receipts AS receipt ON receipt.run = orders.run
            AND receipt.strategy = orders.strategy AND receipt.order_no = orders.order_no
        WHERE orders.run = {run:String} AND status = 'approved'
        GROUP BY orders.strategy, orders.order_no
        HAVING countIf(check = 'stale_price' AND verdict = 'pass') > 0
    """
    with contextlib.closing(session.lab.client(session.name)) as client:
        rows = client.query(sql, {"run": session.run}).result_rows
    seqs, priced = np.array(rows, np.int64).reshape(-1, 2).T
    return seqs, priced


def fills_at_others(session: Session, ticks: Ticks) -> int:
    """Fills whose time and reference are those of none of these ticks."""
    symbols = [one.symbol for one in SAMPLE]
    columns = ticks.ts.tolist(), ticks.symbol.tolist(), ticks.price.tolist()
    prices = {(ts, symbols[number], price) for ts, number, price in zip(*columns, strict=True)}
    sql = """
        SELECT toUnixTimestamp64Nano(ts), symbol, reference FROM executions
        WHERE run = {run:String}
    """
    with contextlib.closing(session.lab.client(session.name)) as client:
        rows = client.query(sql, {"run": session.run}).result_rows
    return sum(row not in prices for row in rows)


def dead_letters(session: Session) -> int:
    """Records that the session refused, each counted once."""
    with contextlib.closing(session.lab.client(session.name)) as client:
        sql = "SELECT uniqExact(partition, offset), count() FROM dead_letter"
        once, there = client.query(sql).result_rows[0]
    assert once == there, "a dead letter is there twice"
    return once


def _offsets(client: Client, session: Session) -> dict[str, int]:
    ticks = traded(client, session.run)
    places = set(zip(ticks.partition.tolist(), ticks.offset.tolist(), strict=True))
    dead = client.query("SELECT DISTINCT partition, offset FROM dead_letter").result_rows
    there = sum(session.lab.end_offsets(session.topic).values())
    return {
        "ticks": len(ticks),
        "lost": there - len(places | {(int(p), int(o)) for p, o in dead}),
        "doubled": len(ticks) - len(places),
    }


def _money(client: Client, run: str) -> dict[str, int]:
    sql = f"""
        SELECT count(), countIf(abs(gap) > 1e-6) FROM (
            SELECT sum(cash) + sum(value) - {CAPITAL} - sum(realised_pnl) - sum(unrealised_pnl)
                + sum(fees) AS gap
            FROM portfolio_history WHERE run = {{run:String}} GROUP BY ts)
    """
    moments, unbalanced = client.query(sql, {"run": run}).result_rows[0]
    fills = client.query(
        "SELECT count() FROM executions WHERE run = {run:String}", {"run": run}
    ).result_rows[0][0]
    return {"moments": moments, "unbalanced": unbalanced, "fills": fills}


def of_strategy(session: Session, strategy: str) -> list[tuple[object, ...]]:
    """Everything that a strategy decided and traded, in order, without the input's number."""
    found = list[tuple[object, ...]]()
    with contextlib.closing(session.lab.client(session.name)) as client:
        for table in ("signals", "orders", "risk_receipts", "executions"):
            columns = ", ".join(f"`{name}`" for name in decided_columns(client, table))
            sql = f"SELECT {columns} FROM {table} WHERE run = {{run:String}} AND strategy = "
            sql += f"{{strategy:String}} ORDER BY {KEYS[table]}"
            given = {"run": session.run, "strategy": strategy}
            found += client.query(sql, given).result_rows
    return found
