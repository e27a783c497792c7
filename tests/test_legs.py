"""Strategies over several symbols in a running book: legs go together, and no cut ever shows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.effects import END_REASONS, Effects
from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.features import rank, returns
from sysquant.risk import RiskChain
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars, Instrument
from tests.market import START, ticks

UNIVERSE = [Instrument(f"SIM:{name}", 0.01, 1.0, 0.0) for name in "ABC"]


class Apart(Strategy):
    """Long the one and short the other while the first is above a level, else nothing of both."""

    level: float = 100.0

    def legs(self):
        return ("SIM:A", "SIM:B")

    def features(self, bar):
        return {"a": bar["SIM:A"].close, "b": bar["SIM:B"].close}

    def target(self, f):
        weight = np.where(f["a"] > self.level, 0.5, 0.0)
        return {"SIM:A": weight, "SIM:B": -weight}


class Ranked(Strategy):
    """Of the universe the best long, and what a slower clock says."""

    def features(self, bar):
        slow = bar.every("5s").close
        return {"rank": rank(returns(slow)), "other": bar["SIM:C"].close}

    def target(self, f):
        return np.where(f["rank"] == 1.0, 1.0, 0.0) - (f["other"] > 100) * 0.1


def minutes(a, b):
    """Bars of one second of two symbols that close at the same bar ends."""
    n = len(a)
    close = np.column_stack((a, b)).astype(float).ravel()
    return Bars(
        ts=np.repeat(START + np.arange(1, n + 1) * SECOND, 2),
        symbol=np.tile(np.array([0, 1], np.int32), n),
        open=close, high=close, low=close, close=close, volume=np.full(2 * n, 1e6),
        partition=np.zeros(2 * n, np.int32), offset=np.arange(2 * n),
    )  # fmt: skip


def book(strategy, checks=(("order_notional", 1e15),), cut=False, **changes):
    return Engine(
        universe=changes.pop("universe", UNIVERSE),
        strategies={"it": strategy},
        risk=RiskChain(checks=[{"check": n, "limit": limit} for n, limit in checks], cut=cut),
        execution=Execution(latency_ms=0, slippage_bps=0, fee_bps=0),
        interval=SECOND,
        capital=10_000.0,
        **changes,
    )


def reasons(effects):
    return [END_REASONS[reason] for reason in effects["order_ends"]["reason"]]


PRICES = [110.0] * 4 + [90.0] * 3


def test_legs_that_all_pass_are_all_filled():
    engine = book(Apart())
    effects = engine.step(minutes(PRICES, PRICES))
    assert engine.positions()["it"] == {}
    assert reasons(effects) == ["filled"] * 4
    first = effects["executions"][:2]
    assert first["symbol"].tolist() == [0, 1]
    assert first["quantity"].sum() == 0


@pytest.mark.parametrize("refused", ["SIM:A", "SIM:B"])
def test_a_leg_that_is_refused_takes_the_other_with_it(refused):
    universe = [
        Instrument(i.symbol, 0.01, 1.0, 0.0, restricted=i.symbol == refused) for i in UNIVERSE
    ]
    engine = book(Apart(), [("restricted", 0.0)], universe=universe)
    effects = engine.step(minutes(PRICES, PRICES))
    assert not len(effects["executions"])
    assert sorted(effects["orders"]["approved"][:2]) == [0, 1]
    assert reasons(effects)[:1] == ["legs"]
    assert effects["order_ends"]["ts"][0] == effects["orders"]["ts"][0]
    # As if refused: not again for the same target until `retry_after` bars have passed.
    assert len(effects["orders"]) == 2


def test_legs_are_never_cut():
    engine = book(Apart(), [("short_limit", 0.1)], cut=True)
    effects = engine.step(minutes(PRICES, PRICES))
    assert not len(effects["executions"])
    assert effects["orders"]["quantity"].tolist() == effects["orders"]["asked"].tolist()


def test_an_exit_goes_even_if_the_other_leg_is_refused():
    engine = book(Apart(level=0.0), [("short_limit", 1.0)])
    engine.step(minutes([110.0] * 3, [110.0] * 3))
    held = engine.positions()["it"]
    assert held["SIM:A"] == -held["SIM:B"] > 0
    state = engine.state()

    class Turned(Apart):
        def target(self, f):
            return {"SIM:A": f["a"] * 0, "SIM:B": np.full_like(f["b"], -1.0)}

    # The one leg is closed, the other grows and is refused.
    other = book(Turned(level=0.0), [("short_limit", 0.0)])
    other.restore(state)
    later = minutes([110.0] * 6, [110.0] * 6)[6:]
    effects = other.step(later)
    assert "SIM:A" not in other.positions()["it"]
    assert other.positions()["it"]["SIM:B"] == held["SIM:B"]
    assert "legs" not in reasons(effects)


@settings(max_examples=20, deadline=None)
@given(
    strategy=st.sampled_from([Apart(), Ranked()]),
    seed=st.integers(0, 9),
    places=st.lists(st.integers(0, 600), max_size=12),
    disorder=st.booleans(),
)
def test_any_cut_of_the_events_gives_the_same_bytes(strategy, seed, places, disorder):
    events = ticks(600, seed=seed, symbols=3, disorder=disorder)
    whole, cut = book(strategy), book(strategy)
    expected = whole.step(events)
    edges = [0, *sorted(places), 600]
    parts = [cut.step(events[a:b]) for a, b in itertools.pairwise(edges)]
    found = Effects.join([part for part in parts if len(part.rows)])
    assert len(expected["signals"])
    for name, rows in expected.rows.items():
        assert rows.tobytes() == found[name].tobytes(), name
    state = cut.state()
    assert all(array.tobytes() == state[name].tobytes() for name, array in whole.state().items())


def test_history_before_the_first_event_is_seen_across_symbols():
    events = ticks(900, seed=4, symbols=3)
    whole = book(Ranked())
    whole.step(events)
    assert {k.split("/")[1] for k in whole.state() if k.startswith("features/")} == {"it"}
    bars = minutes([100.0, 101.0, 102.0], [100.0, 99.0, 98.0])
    warmed, frame = book(Apart()), Apart().frame(bars, [i.symbol for i in UNIVERSE])
    warmed.warm(bars)
    assert len(frame) == 3
    np.testing.assert_array_equal(frame["target SIM:A"], [0.0, 0.5, 0.5])
