"""Rows that two runs decided are equal to the byte."""

from sysquant.parity import KEYS, compare

TABLES = tuple(KEYS)


def assert_same_decisions(client, left, right, *, least=1):
    """Every decision table has the same bytes for both runs, and executions enough of them."""
    for found in compare(client, left, right):
        assert not found.difference, (found.table, found.difference)
        if found.table == "executions":
            assert found.rows[0] >= least, f"only {found.rows[0]} executions"
