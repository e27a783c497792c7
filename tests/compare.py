"""Rows that two runs decided, from the store: equal to the byte, or the first that differs."""

from sysquant.store import decided_columns

TABLES = ("signals", "orders", "risk_receipts", "executions", "portfolio_history")
KEYS = {
    "signals": "strategy, symbol, ts",
    "orders": "strategy, order_no",
    "risk_receipts": "strategy, order_no, check",
    "executions": "strategy, order_no, fill_no",
    "portfolio_history": "version",
}


def decided(client, table, run):
    """Columns that a row decides, of every row of a run, ordered by the table's key."""
    columns = ", ".join(f"`{name}`" for name in decided_columns(client, table))
    sql = f"SELECT {columns} FROM {table} WHERE run = {{run:String}} ORDER BY {KEYS[table]}"
    return client.query_arrow(sql, {"run": run})


def assert_same_decisions(client, left, right, *, least=1):
    """Every decision table has the same bytes for both runs, and executions enough of them."""
    for table in TABLES:
        one, other = decided(client, table, left), decided(client, table, right)
        assert one.num_rows == other.num_rows, (table, one.num_rows, other.num_rows)
        assert one.combine_chunks().equals(other.combine_chunks()), first_difference(one, other)
        if table == "executions":
            assert one.num_rows >= least, f"only {one.num_rows} executions"


def first_difference(one, other):
    for left, right in zip(one.to_pylist(), other.to_pylist(), strict=False):
        if repr(left) != repr(right):
            return left, right
    return None
