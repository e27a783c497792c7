"""Live minus backtest P&L is split into causes: each disturbance is named in its own."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from sysquant import control
from sysquant.execution import Execution
from sysquant.risk import RiskChain
from sysquant.serve import ensure_server
from sysquant.store import connect, migrate
from sysquant.twin import CAUSES, Tolerance
from tests.market import CHECKS, Flip, Hold, engine, ticks
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
