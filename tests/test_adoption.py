"""Going on under another configuration: the money that was recorded, and nothing doubled."""

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from sysquant import journal_reader
from sysquant.adoption import adopt, unserved
from sysquant.control import Rollback
from sysquant.effects import Labels
from sysquant.errors import FeedError, JournalError, StoreAwayError
from sysquant.execution import Execution
from sysquant.journal import Journal
from sysquant.models import registry
from sysquant.operation import Hold, Weigh
from sysquant.outbox import Outbox
from sysquant.recovery import is_ours
from sysquant.store import connect
from sysquant.swapping import Serving
from sysquant.types import SECOND
from tests.market import UNIVERSE, Flip, engine, ticks
from tests.published import Published
from tests.test_desk import events_of
from tests.test_live import MemoryFeed, no_history, session
from tests.test_swapping import served, traded

pytest_plugins = ["tests.served"]

MONEY = ("cash", "financing", "allocation", "scale", "order_no")
HELD = ("quantity", "cost", "entry", "realised_pnl", "fees", "slippage", "state")


def slow(weight=1.0, **changes):
    """A book whose orders are long on their way."""
    return engine(Flip(weight=weight), execution=Execution(latency_ms=900), **changes)


class Operated(MemoryFeed):
    """Says something to the book on its way."""

    def __init__(self, events, said=()):
        super().__init__(events)
        self.said, self.runner = dict(said), None

    def poll(self, timeout_s):
        for operation in self.said.pop(self.at, ()):
            self.runner.desk.operate(self.runner._record, "said", operation)
        return super().poll(timeout_s)


def killed(directory, events, at, connected, said=(), *, ended=400) -> Any:
    """A session that died at an event, after one that ended well at an earlier one."""
    outbox = partial(Outbox, connect=connected)
    if ended:
        session(directory, MemoryFeed(events[:ended]), {}, book=slow(), outbox=outbox).run()
    feed = Operated(events, said)
    feed.breaks_at = at
    second = session(directory, feed, {}, book=slow(), outbox=outbox, snapshot_s=3600.0)
    feed.runner, second._finish = second, lambda **_: None
    with pytest.raises(FeedError):
        second.run()
    return second


def adopted(directory, book, connected, history=no_history) -> tuple[str, Any]:
    """What is said, and the state that the journal goes on with."""
    journal = Journal(directory)
    outbox = Outbox(journal.path, connected)
    labels = Labels(journal.id, list(book.strategies), book.symbols, book.risk)
    journal.remember(adopt="ann")
    try:
        assert not is_ours(journal, book)
        text = adopt(journal, book, outbox, connected, history, labels)
        assert is_ours(journal, book) and not journal.meta("adopt")
        return text, journal.snapshot()
    finally:
        outbox.close()
        journal.close()


def test_money_and_positions_are_those_of_the_session_that_died(tmp_path, dsn, client):
    connected = partial(connect, dsn)
    events = ticks(1_500)
    dead = killed(tmp_path, events, 900, connected)
    was = dead.engine.state()
    text, (seq, state) = adopted(tmp_path, slow(0.5), connected)
    assert seq == dead.journal.last_seq + 1 and "adopted by ann" in text
    for field in MONEY:
        assert state["accounts"][field].tolist() == was["accounts"][field].tolist(), field
    for field in HELD:
        np.testing.assert_allclose(state["cells"][field], was["cells"][field], 1e-12, err_msg=field)
    assert state["clock"]["pool"] == was["clock"]["pool"]
    assert state["clock"]["version"] >= was["clock"]["version"]
    assert not state["orders"]["order_no"].any()
    np.testing.assert_allclose(state["accounts"]["equity"], was["accounts"]["equity"], 1e-12)
    worked = np.count_nonzero(was["orders"]["order_no"])
    assert worked and f"{worked} working orders ended" in text
    book, outbox = slow(0.5), partial(Outbox, connect=connected)
    rest = session(tmp_path, MemoryFeed(events), {}, book=book, outbox=outbox)
    rest.run()
    assert rest.ended
    table = {"run": rest.labels.run}
    left = client.query(
        "SELECT count() FROM orders WHERE run = {run:String} AND status = 'approved' AND "
        "(strategy, order_no) NOT IN (SELECT strategy, order_no FROM order_ends "
        "WHERE run = {run:String})", parameters=table,
    ).result_rows[0][0]  # fmt: skip
    assert left == np.count_nonzero(book.state()["orders"]["order_no"])
    unbalanced = client.query(
        "SELECT count() FROM (SELECT seq, ts, sum(cash + value + fees + financing - realised_pnl "
        "- unrealised_pnl) AS capital FROM portfolio_history WHERE run = {run:String} "
        "GROUP BY seq, ts HAVING abs(capital - 1000000) > 1e-6)", parameters=table,
    ).result_rows[0][0]  # fmt: skip
    assert unbalanced == 0
    doubled = "SELECT count() - uniqExact(strategy, order_no) FROM orders WHERE run = {run:String}"
    assert client.query(doubled, parameters=table).result_rows[0][0] == 0


def test_before_its_second_snapshot_a_book_keeps_its_capital(tmp_path, dsn, client):
    connected = partial(connect, dsn)
    dead = killed(tmp_path, ticks(1_500), 900, connected, ended=0)
    was = dead.engine.state()
    assert was["accounts"]["order_no"][0] > 5
    text, (_, state) = adopted(tmp_path, slow(capital=500_000.0), connected)
    assert "changed: allocations" in text
    for field in MONEY:
        assert state["accounts"][field].tolist() == was["accounts"][field].tolist(), field
    for field in ("quantity", "cost"):
        assert state["cells"][field].tolist() == was["cells"][field].tolist(), field


def test_bars_are_those_of_the_configuration(tmp_path, dsn, client):
    connected = partial(connect, dsn)
    events = ticks(1_500)
    killed(tmp_path, events, 900, connected)
    book = slow(interval=5 * SECOND)
    adopted(tmp_path, book, connected)
    before = book.bars
    rest = session(
        tmp_path, MemoryFeed(events), {}, book=book, outbox=partial(Outbox, connect=connected)
    )
    rest.run()
    seconds = (events.ts[-1] - events.ts[900]) / SECOND
    assert 0 < book.bars - before <= 2 * (seconds / 5 + 1)


@pytest.mark.parametrize("halted", [False, True])
def test_what_was_commanded_stays(tmp_path, dsn, client, halted):
    connected = partial(connect, dsn)
    said = {594: [Weigh("flip", 0.25), Hold("halt", True)], 691: [Hold("halt", halted)]}
    dead = killed(tmp_path, ticks(1_500), 900, connected, said)
    book = slow(0.5)
    _, (_, state) = adopted(tmp_path, book, connected)
    assert ("halt" in book.operator.holds) is halted
    assert state["accounts"]["scale"].tolist() == [0.25]
    for field in ("quantity", "cost"):
        assert (state["cells"][field] == dead.engine.state()["cells"][field]).all()


def test_features_see_history_up_to_what_the_feed_brought_since_the_snapshot(tmp_path, dsn, client):
    asked = []

    def history(end, first):
        asked.append((end, first))
        return no_history(end, first)

    connected = partial(connect, dsn)
    events = ticks(1_500)
    killed(tmp_path, events, 900, connected)
    adopted(tmp_path, slow(0.5), connected, history)
    ((end, first),) = asked
    assert end <= events.ts[399] and first == {0: 400}


def test_other_strategies_are_refused(tmp_path, dsn, client):
    connected = partial(connect, dsn)
    killed(tmp_path, ticks(1_500), 900, connected)
    with pytest.raises(JournalError, match="the same strategies"):
        adopted(tmp_path, slow(strategies={"other": Flip()}), connected)


def test_other_symbols_are_refused(tmp_path, dsn, client):
    connected = partial(connect, dsn)
    killed(tmp_path, ticks(1_500), 900, connected)
    others = [replace(UNIVERSE[0], symbol="SIM:C"), UNIVERSE[1]]
    with pytest.raises(JournalError, match="same strategies and symbols"):
        adopted(tmp_path, slow(universe=others), connected)


def test_without_the_store_nothing_is_adopted(tmp_path, dsn, client, monkeypatch):
    connected = partial(connect, dsn)
    killed(tmp_path, ticks(1_500), 900, connected)
    monkeypatch.setattr("sysquant.adoption._PATIENCE_S", 0.3)

    def away():
        raise StoreAwayError("it is away")

    before = journal_reader.ask(tmp_path, "SELECT max(seq) FROM inputs")
    with pytest.raises(StoreAwayError):
        adopted(tmp_path, slow(0.5), away)
    assert journal_reader.ask(tmp_path, "SELECT max(seq) FROM inputs") == before
    assert journal_reader.meta(tmp_path)["adopt"] == "ann"


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("how", ["gone", "other versions"])
def test_a_model_that_may_not_be_served_any_more_is_dropped_and_the_newest_is_taken(
    tmp_path, dsn, client, monkeypatch, how, holds
):
    published, serving = Published(tmp_path / "registry"), Serving(holds=holds)
    first, second = published.publish(), published.publish(-1.0)
    _, _, tables = traded(tmp_path, published, serving=serving)
    assert served(tables) == [("asks", second)]
    if how == "gone":
        shutil.rmtree(published.registry.directory / "asks" / second)
        said, newest = "there is no model asks 2", first
    else:
        ours = registry.versions() | {"numpy": "9.9"}
        monkeypatch.setattr(registry, "versions", lambda: ours)
        said, newest = "wanted is 9.9: train it anew", published.publish(versions=ours)
    with pytest.raises(JournalError, match=r"control\.py adopt --book book") as error:
        traded(tmp_path, published, serving=serving, count=1_900)
    assert said in str(error.value) and "journal=fresh" in str(error.value)
    text, gone = dropped(tmp_path / "book", published, partial(connect, dsn))
    assert said in gone["asks"] and text.endswith("changed: models")
    _, _, tables = traded(tmp_path, published, serving=serving, count=1_900)
    assert served(tables) == [("asks", newest)]
    (event,) = events_of(tables, "model_refused")
    assert event["strategy"] == "asks" and event["detail"].endswith("it is dropped")


def test_a_model_that_was_rolled_back_from_is_not_taken_for_one_that_is_gone(tmp_path, dsn, client):
    published = Published(tmp_path / "registry")
    first, _ = published.publish(), published.publish(-1.0)
    traded(tmp_path, published, (485, Rollback("asks", 1)))
    shutil.rmtree(published.registry.directory / "asks" / first)
    dropped(tmp_path / "book", published, partial(connect, dsn))
    _, _, tables = traded(tmp_path, published, count=1_900)
    assert served(tables) == []
    assert "rolled back from" in events_of(tables, "model_refused")[-1]["detail"]


def dropped(directory, published, connected) -> tuple[str, dict[str, str]]:
    """What is said by a start that may adopt, and which models may not be served."""
    loader = published.loader()
    book, journal = published.book(loader), Journal(directory)
    outbox = Outbox(journal.path, connected)
    labels = Labels(journal.id, list(book.strategies), book.symbols, book.risk)
    journal.remember(adopt="ann")
    try:
        assert is_ours(journal, book)
        gone = unserved(journal, loader)
        return adopt(journal, book, outbox, connected, no_history, labels, gone), gone
    finally:
        outbox.close()
        journal.close()
        loader.close()
