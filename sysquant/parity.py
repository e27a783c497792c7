"""Whether two runs decided the same, from the rows that the store has of them.

Input: a store, and two runs. Output: of each table its rows, the hash of what they decided, and
where they differ first. What a row tells about its run, and not about its decisions, is left out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from sysquant.answers import asking
from sysquant.keys import check_number
from sysquant.store import decided_columns
from sysquant.tables import tick_table
from sysquant.types import CLOCK_MARK, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

KEYS = {
    "signals": "strategy, symbol, ts",
    "orders": "strategy, order_no",
    "risk_receipts": "strategy, order_no, attempt, check",
    "executions": "strategy, order_no, fill_no",
    "order_ends": "strategy, order_no",
    "financing": "ts, strategy, symbol, kind",
    "portfolio_history": "version",
}


@dataclass(frozen=True, slots=True)
class Window:
    """What parity is shown on, as configured by `conf/promotion`.

    Parameters
    ----------
    ticks : newest of the window, at most.
    bootstrap : of a broker; None: one is started for this.
    timeout_s : for the live session.
    """

    ticks: int = 100_000
    bootstrap: str | None = None
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_number("promotion.parity.ticks", self.ticks, least=1, whole=True)
        check_number("promotion.parity.timeout_s", self.timeout_s, above=0)


class Compared(NamedTuple):
    """One table of two runs.

    Parameters
    ----------
    table : its name.
    rows : of either run.
    hashes : SHA-256 of what they decided.
    difference : the first, as a sentence; empty when there is none.
    """

    table: str
    rows: tuple[int, int]
    hashes: tuple[str, str]
    difference: str


def taken(session: Ticks, told: Ticks, symbols: Sequence[str]) -> Compared:
    """The ticks that a session took, against those that it was told, in their order."""
    one, other = (
        tick_table(ticks, symbols, "").drop_columns(["received_at", "epoch"])
        for ticks in (session[session.symbol != CLOCK_MARK], told)
    )
    return _compared("ticks", one, other)


def compare(client: "Client", left: str, right: str) -> Iterator[Compared]:
    """Every table of decisions of two runs, in the order of `KEYS`.

    NaN is NaN, and -0.0 is not 0.0.
    """
    for table in KEYS:
        yield _compared(table, *(decided(client, table, run) for run in (left, right)))


def _compared(table: str, one: pa.Table, other: pa.Table) -> Compared:
    hashes = _digest(one), _digest(other)
    said = "" if is_same(one, other) else first_difference(one, other)
    return Compared(table, (one.num_rows, other.num_rows), hashes, said)


def decided(client: "Client", table: str, run: str) -> pa.Table:
    """Columns that a row decides, of every row of a run, ordered by the table's key."""
    columns = ", ".join(f"`{name}`" for name in decided_columns(client, table))
    sql = f"SELECT {columns} FROM {table} WHERE run = {{run:String}} ORDER BY {KEYS[table]}"
    with asking():
        return client.query_arrow(sql, {"run": run})


def is_same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same bytes: NaN is NaN, and -0.0 is not 0.0."""
    return _as_bits(one).equals(_as_bits(other))


def _as_bits(table: pa.Table) -> pa.Table:
    columns = [
        column.combine_chunks().view(pa.int64()) if pa.types.is_float64(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, table.column_names)


def _digest(table: pa.Table) -> str:
    found = hashlib.sha256()
    for name, column in zip(table.column_names, _as_bits(table).columns, strict=True):
        found.update(f"{name}\n".encode())
        found.update(repr(column.to_pylist()).encode())
    return found.hexdigest()


def first_difference(one: pa.Table, other: pa.Table) -> str:
    """Where two tables differ first, as a sentence."""
    for number, rows in enumerate(zip(one.to_pylist(), other.to_pylist(), strict=False), 1):
        if repr(rows[0]) != repr(rows[1]):
            return f"row {number}, {_where(rows[0])}: {_columns(*rows)}"
    longer = one if one.num_rows > other.num_rows else other
    number = min(one.num_rows, other.num_rows)
    return (
        f"{one.num_rows:,} rows against {other.num_rows:,}, the first without an equal: "
        f"{_where(longer.slice(number, 1).to_pylist()[0])}"
    )


def _where(row: dict[str, Any]) -> str:
    known = ("ts", "strategy", "symbol", "order_no", "check")
    return ", ".join(f"{name} {row[name]}" for name in known if name in row)


def _columns(one: dict[str, Any], other: dict[str, Any]) -> str:
    apart = [name for name in one if repr(one[name]) != repr(other[name])]
    return ", ".join(f"{name} {one[name]!r} against {other[name]!r}" for name in apart)
