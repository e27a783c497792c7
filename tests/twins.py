"""Recorded sessions in one process, and their twins: a live side that can be another than told."""

from typing import Any, NamedTuple

from sysquant.inputs import Inputs, canonical
from sysquant.outcome import recorded_outcome
from sysquant.session import recorded
from sysquant.store import insert
from sysquant.twin import Book, Twin, compare
from tests.market import engine
from tests.test_desk import commanded
from tests.test_live import MemoryFeed


class Traded(NamedTuple):
    """A session that is over."""

    directory: Any
    run: str
    tables: dict[str, Any]
    engine: Any


def traded(directory, market, *said, feed=None, **more) -> Traded:
    """A session over a market, of which an operator speaks."""
    runner, _, tables = commanded(directory, *said, feed=feed or MemoryFeed(market), **more)
    run = runner.journal.id
    runner.run()
    return Traded(directory, run, tables, runner.engine)


def keep(client, session: Traded) -> None:
    """Put a session's rows into a store."""
    for name, batches in session.tables.items():
        for token, rows in batches.items():
            insert(client, name, rows, token)


def twin(client, session: Traded, market, make=engine, history=None) -> Twin:
    """Its twin, where the store has this market."""
    inputs = Inputs.of(recorded(session.directory, session.directory / "sealed"))
    told = recorded_outcome(client, session.run, 1 << 62)
    return compare(Book(make, inputs, told, canonical(market), history), session.run)


def only(found: Twin, *causes: str, strategy: str = "flip", least: float = 1e-3) -> None:
    """Assert that these causes brought something, no other did, and nothing is unexplained."""
    told = found.causes[strategy]
    brought = {name for name, one in told.items() if abs(one.pnl) > least}
    assert brought == set(causes), {n: one for n, one in told.items() if one.pnl or one.differing}
    rest = {name: one for name, one in told.items() if name not in causes}
    assert all(one.differing == 0 and one.pnl == 0 for one in rest.values()), rest
    assert all(told[name].differing and told[name].first for name in causes)
    for name, amount in found.unexplained.items():
        assert abs(amount) <= 1e-6 * found.capital[name], (name, amount)
        whole = found.live[name] - found.backtest[name]
        parts = sum(one.pnl for one in found.causes[name].values()) + amount
        assert abs(whole - parts) < 1e-7
