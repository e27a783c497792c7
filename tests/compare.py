"""Rows that two runs decided, from the store: equal to the byte, or the first that differs."""

import pyarrow as pa

from sysquant.store import decided_columns

KEYS = {
    "signals": "strategy, symbol, ts",
    "orders": "strategy, order_no",
    "risk_receipts": "strategy, order_no, attempt, check",
    "executions": "strategy, order_no, fill_no",
    "order_ends": "strategy, order_no",
    "financing": "ts, strategy, symbol, kind",
    "portfolio_history": "version",
}
TABLES = tuple(KEYS)


def decided(client, table, run):
    """Columns that a row decides, of every row of a run, ordered by the table's key."""
    columns = ", ".join(f"`{name}`" for name in decided_columns(client, table))
    sql = f"SELECT {columns} FROM {table} WHERE run = {{run:String}} ORDER BY {KEYS[table]}"
    return client.query_arrow(sql, {"run": run})


def is_same(one, other):
    """Whether two tables have the same bytes: NaN is NaN, and -0.0 is not 0.0."""
    return _as_bits(one).equals(_as_bits(other))


def _as_bits(table):
    columns = [
        column.combine_chunks().view(pa.int64()) if pa.types.is_float64(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, table.column_names)


def assert_same_decisions(client, left, right, *, least=1):
    """Every decision table has the same bytes for both runs, and executions enough of them."""
    for table in TABLES:
        one, other = decided(client, table, left), decided(client, table, right)
        assert one.num_rows == other.num_rows, (table, one.num_rows, other.num_rows)
        assert is_same(one, other), (table, first_difference(one, other))
        if table == "executions":
            assert one.num_rows >= least, f"only {one.num_rows} executions"


def first_difference(one, other):
    for left, right in zip(one.to_pylist(), other.to_pylist(), strict=False):
        if repr(left) != repr(right):
            return left, right
    return None
