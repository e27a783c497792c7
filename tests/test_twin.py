"""Live minus backtest P&L is split into causes: each disturbance is named in its own."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from sysquant import control
from sysquant.activity import closed_bars
from sysquant.effects import Labels
from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.models.loader import ModelLoader
from sysquant.risk import RiskChain
from sysquant.serve import ensure_server
from sysquant.store import connect, insert, migrate
from sysquant.twin import CAUSES, Tolerance
from sysquant.types import SECOND
from tests.market import CHECKS, UNIVERSE, Flip, Hold, Seldom, engine, ticks
from tests.published import Published
from tests.test_live import MemoryFeed
from tests.test_swapping import Publishing
from tests.twins import keep, only, traded, twin

MARKET = ticks(1_500)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    dsn = f"chdb:{tmp_path_factory.mktemp('twin') / 'store'}"
    _, server = ensure_server(dsn)
    with closing(connect(dsn)) as client:
        migrate(client)
        yield client
    server.terminate()
    server.wait(10)


@pytest.fixture
def session(tmp_path, store):
    """A session, whose rows are in the store."""

    def make(*said, market=MARKET, **more):
        found = traded(tmp_path, market, *said, **more)
        keep(store, found)
        return found

    return make


def test_an_undisturbed_session_has_no_cause_and_nothing_unexplained(store, session):
    found = twin(store, session(), MARKET)
    only(found)
    assert tuple(found.causes["flip"]) == CAUSES
    assert found.live["flip"] != 0 and found.failures(Tolerance()) == []
    assert found.notes == () and found.wall_bars == 0


def test_a_tick_that_the_store_has_otherwise_is_data(store, session):
    prices = MARKET.price.copy()
    prices[400] *= 1.01
    found = twin(store, session(), replace(MARKET, price=prices))
    only(found, "data")
    (one,) = {each["data"] for each in found.causes.values()}
    assert one.differing == 1 and f"{prices[400]:g}" in one.first, one.first


def test_ticks_in_another_place_are_timing(store, session):
    """Those of one symbol come late by most of a bar: many behind the mark that they belong to."""
    late = np.lexsort((MARKET.offset, MARKET.ts + 700_000_000 * (MARKET.symbol == 1)))
    found = twin(store, session(market=MARKET[late]), MARKET)
    only(found, "timing")
    assert "was taken in another place" in found.causes["flip"]["timing"].first


def test_a_command_is_capital(store, session):
    said = (485, control.Weight("flip", 0.5)), (970, control.Stop("flip"))
    found = twin(store, session(*said), MARKET)
    only(found, "capital")
    assert found.causes["flip"]["capital"].first.startswith("Weigh(")


class Backwards(Flip):
    """The same, but for a sign in one of five decisions."""

    def target(self, f):
        wrong = np.floor(f["close"] * 100) % 5 == 0
        return np.where(wrong, -1.0, 1.0) * super().target(f)


LIVE = {
    "decision": {"strategies": {"flip": Backwards()}},
    "fees": {"execution": Execution(latency_ms=50, latency_sigma=0.5, fee_bps=9.0)},
    "fill price": {"execution": Execution(latency_ms=50, latency_sigma=0.5, slippage_bps=4.0)},
    "risk": {
        "risk": RiskChain(checks=[{"check": "order_size", "limit": 0.7}, *CHECKS[1:]]),
    },
}


@pytest.mark.parametrize("cause", LIVE)
def test_what_only_the_live_side_does_is_named_in_its_cause(store, session, cause):
    found = twin(store, session(book=engine(**LIVE[cause])), MARKET)
    only(found, cause)


def test_orders_that_arrive_later_are_fill_price(store, session):
    slow = engine(execution=Execution(latency_ms=300))
    found = twin(store, session(book=slow), MARKET)
    only(found, "fill price")


def test_several_disturbances_are_split_and_sum(store, session):
    book = engine(
        strategies={"flip": Backwards(), "hold": Hold(weight=0.4)},
        execution=Execution(latency_ms=50, latency_sigma=0.5, fee_bps=8.0, slippage_bps=3.0),
    )  # fmt: skip
    prices = MARKET.price.copy()
    prices[400] *= 1.01
    recorded = session((700, control.Weight("hold", 0.5)), book=book)

    def make():
        return engine(strategies={"flip": Flip(), "hold": Hold(weight=0.4)})

    found = twin(store, recorded, replace(MARKET, price=prices), make)
    for name in ("flip", "hold"):
        assert abs(found.unexplained[name]) < 1e-6 * found.capital[name]
        told = found.causes[name]
        wanted = {"flip": {"data", "decision"}, "hold": {"capital"}}[name] | {"fees", "fill price"}
        assert {cause for cause, one in told.items() if abs(one.pnl) > 1e-3} == wanted, told


def test_marks_of_the_walls_clock_are_timing_and_their_decisions_are_counted(store, session):
    feed = MemoryFeed(MARKET, size=5)
    found = twin(store, session(feed=feed, clock="wall", grace_ms=0), MARKET)
    only(found, "timing")
    assert found.wall_bars > 20
    assert found.causes["flip"]["timing"].differing > 20


def test_a_model_that_is_swapped_is_model_version(store, session, tmp_path):
    published = Published(tmp_path / "registry")
    published.publish()
    loader = published.loader()
    feed = Publishing(MARKET, {582: lambda: published.publish(-1.0, seed=3)})
    recorded = session(
        (679, control.Refresh("asks")), feed=feed, book=published.book(loader), loader=loader
    )

    def make():
        return published.book(published.loader(ModelLoader))

    found = twin(store, recorded, MARKET, make)
    only(found, "model version", strategy="asks")
    only(found)
    (swap,) = [found.causes["asks"]["model version"]]
    assert swap.differing == 1 and swap.first.startswith("000002-")


def financed(**rates):
    return engine(execution=Execution(latency_ms=50, financing_hours=10 / 3600, **rates))


def test_another_rate_of_financing_is_fees(store, session):
    recorded = session(book=financed(borrow_rate=40.0, interest_rate=5.0))

    def make():
        return financed(borrow_rate=9.0, interest_rate=5.0)

    only(twin(store, recorded, MARKET, lambda: financed(borrow_rate=40.0, interest_rate=5.0)))
    found = twin(store, recorded, MARKET, make)
    only(found, "fees")
    assert "borrow of flip" in found.causes["flip"]["fees"].first


EXITS = Exits(stop_loss=0.004, take_profit=0.006, trailing_stop=0.005)


@pytest.mark.parametrize("exits", [EXITS, replace(EXITS, how="bracket", trailing_stop=None)])
def test_a_session_with_exits_and_another_slippage(store, session, exits):
    def book(**changes):
        execution = Execution(latency_ms=50, latency_sigma=0.5, **changes)
        return engine(Seldom(), execution=execution, exits=exits)

    recorded = session(book=book(slippage_bps=6.0), market=ticks(3_000))
    assert {row["purpose"] for table in recorded.tables["orders"].values()
            for row in table.to_pylist()} > {"signal", "take_profit"}  # fmt: skip
    only(twin(store, recorded, ticks(3_000), lambda: book(slippage_bps=6.0)))
    found = twin(store, recorded, ticks(3_000), lambda: book(slippage_bps=1.0))
    assert abs(found.unexplained["flip"]) < 1e-6 * found.capital["flip"]
    told = found.causes["flip"]
    assert told["fill price"].differing and told["data"].pnl == told["timing"].pnl == 0.0
    assert told["decision"].pnl == told["fees"].pnl == 0.0


def test_a_book_of_two_currencies(store, session):
    universe = [UNIVERSE[0], replace(UNIVERSE[1], currency="AAA", conversion=UNIVERSE[0].symbol)]

    def book(**changes):
        checks = [one for one in CHECKS if one["check"] != "cash"]
        return engine(universe=universe, risk=RiskChain(checks=checks), **changes)

    other = {"execution": Execution(latency_ms=50, slippage_bps=6.0)}
    same = {"execution": Execution(latency_ms=50)}
    recorded = session(book=book(**other))
    only(twin(store, recorded, MARKET, lambda: book(**other)))
    only(twin(store, recorded, MARKET, lambda: book(**same)), "fill price")


class Fails(Flip):
    """Raises once a price is beyond a level."""

    def target(self, f):
        if f["close"].max() > np.quantile(MARKET.price, 0.9):
            raise ValueError("too high")
        return super().target(f)


def test_a_strategy_that_failed_live_alone_is_decision(store, session):
    recorded = session(book=engine(Fails(), contained=True))
    assert any(row["kind"] == "fault" for table in recorded.tables["events"].values()
               for row in table.to_pylist())  # fmt: skip
    same = twin(store, recorded, MARKET, lambda: engine(Fails(), contained=True))
    assert {one.pnl for one in same.causes["flip"].values()} == {0.0}
    assert same.unexplained["flip"] == pytest.approx(0.0, abs=1e-6)
    found = twin(store, recorded, MARKET)
    assert abs(found.unexplained["flip"]) < 1.0
    told = found.causes["flip"]
    assert {cause for cause, one in told.items() if abs(one.pnl) > 1e-3} <= {"decision", "capital"}
    assert abs(told["decision"].pnl) > 1e-3


def test_history_that_the_store_has_otherwise_is_data(store, session):
    past = closed_bars([MARKET[:400]], UNIVERSE, SECOND)
    recorded = session(market=renumbered(MARKET[400:]), history=lambda *_: past, warmup_bars=50)
    only(twin(store, recorded, renumbered(MARKET[400:]), history=past))
    other = replace(past, close=past.close * 1.001)
    found = twin(store, recorded, renumbered(MARKET[400:]), history=other)
    assert found.causes["flip"]["data"].differing == len(past)


def renumbered(market):
    return replace(market, offset=np.arange(len(market)))


def test_what_the_session_says_and_its_fills_do_not_is_unexplained(store, session, monkeypatch):
    """Its portfolio rows are wrong by a constant from the start, as of a fault in accounting."""
    table = Labels.table

    def wrong(labels, name, rows, *more):
        if name == "portfolio_history":
            rows = rows.copy()
            rows["realised_pnl"][rows["symbol"] >= 0] += 2.5
        return table(labels, name, rows, *more)

    monkeypatch.setattr(Labels, "table", wrong)
    found = twin(store, session(), MARKET)
    assert found.unexplained["flip"] == pytest.approx(5.0, abs=1e-6)
    (failure,) = found.failures(Tolerance())
    assert failure.startswith("flip: +5") and "at most 1 may be" in failure
    assert found.failures(Tolerance(most_unexplained=1e-5)) == []


def test_rows_of_a_twin_sum_in_the_store(store, session):
    found = twin(store, session(book=engine(**LIVE["fees"])), MARKET)
    insert(store, "twin", found.table(), f"twin {found.run}")
    rows = store.query(
        "SELECT strategy, count(), sum(pnl) + any(unexplained) - any(live) + any(backtest), "
        "argMax(cause, abs(pnl)) FROM twin FINAL WHERE run = {run:String} GROUP BY strategy",
        {"run": found.run},
    ).result_rows
    assert [(name, count, cause) for name, count, _, cause in rows] == [("flip", 8, "fees")]
    assert abs(rows[0][2]) < 1e-7


def test_a_tolerance_that_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match="most_unexplained"):
        Tolerance(most_unexplained=0.0)
