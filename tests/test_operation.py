"""What an operator does to a running book, by hand: capital, states, weights, halts, faults.

Prices are 100 and costs nothing where nothing else is said; a weight of 0.5 is then 49 units.
"""

import math

import numpy as np
import pytest

from sysquant.effects import END_REASONS, PURPOSES
from sysquant.engine import Engine
from sysquant.errors import ConfigError, StrategyError
from sysquant.operation import Hold, Move, Rearm, Release, Switch, Weigh
from sysquant.sizing import WeightSizing
from sysquant.strategy import Strategy
from tests.told import NAN, at, flat, made, ran


def test_capital_that_is_moved_is_no_profit():
    found = ran(
        flat(100, 100, 100, 100), {1: 0.5, 3: 0.5}, capital=20_000.0, fractions={"s0": 0.5},
        calls={2: lambda engine: engine.operate(Move("", "s0", 5_000.0))},
        sizing=WeightSizing(band=0.0, split=False),
    )  # fmt: skip
    assert made(found) == [("signal", 49.0), ("signal", 25.0)]  # half of 15,000 are 74
    account = found.engine.accounts()["s0"]
    assert (account["equity"], account["peak"], account["drawdown"]) == (15_000, 15_000, 0)
    assert found.engine.accounts()["s0"]["allocation"] == 15_000
    with pytest.raises(ConfigError, match="at most 5,000"):
        found.engine.operate(Move("", "s0", 5_001.0))


BASES = ("peak", "stake", "day_equity", "exit_peak", "risk_equity")


@pytest.mark.parametrize(("source", "target"), [("s0", ""), ("", "s0"), ("s0", "s1"), ("s1", "s0")])
def test_capital_that_is_moved_leaves_drawdowns_and_returns_as_they_are(source, target):
    states = []

    def move(engine):
        states.append(engine.state())
        engine.operate(Move(source, target, 4_000.0))
        states.append(engine.state())

    found = ran(  # a drawdown of 1 - 9,020 / 10,980
        flat(100, 100, 120, 80, 80, 80), {"s0": {1: 0.5, 5: 0.8}, "s1": {1: 0.5, 5: 0.8}},
        capital=30_000.0, fractions={"s0": 1 / 3, "s1": 1 / 3}, calls={4: move},
        checks=[("drawdown", 0.2)], exits={"flatten_drawdown": 0.2}, risk={"risk_bar": "1s"},
    )  # fmt: skip
    before, after = states
    for old, new in zip(before["accounts"], after["accounts"], strict=True):
        kept = [new["equity"] / new[base] for base in BASES]
        assert kept == pytest.approx([old["equity"] / old[base] for base in BASES], rel=1e-14)
        moved = [new[field] - old[field] for field in ("allocation", "cash")]
        assert moved == pytest.approx([new["equity"] - old["equity"]] * 2)
    assert after["accounts"]["equity"].sum() + after["clock"]["pool"] == 9_020 * 2 + 10_000
    for field in ("equity", "peak", "day_equity"):
        assert before["clock"][field] == after["clock"][field], "all of it is the book's"
    assert {row.purpose for row in found.orders} == {PURPOSES.index("signal")}
    assert {row.approved for row in found.orders} == {1}


@pytest.mark.parametrize("amount", [-2_000.0, 5_000.0])
def test_capital_that_is_moved_leaves_what_was_given_back(amount):
    def given_back(engine):
        (account,) = engine.state()["accounts"]
        return (account["peak"] - account["equity"]) / (account["peak"] - account["stake"])

    engine = ran(
        flat(100, 100, 120, 110, 110), [0.5, 0.5, 0.5, 0.5], capital=20_000.0, fractions={"s0": 0.5}
    ).engine
    before = given_back(engine)
    engine.operate(Move(*(("", "s0") if amount > 0 else ("s0", "")), abs(amount)))
    assert given_back(engine) == pytest.approx(before, rel=1e-12)
    assert before == pytest.approx(0.5)


def test_capital_that_comes_and_goes_makes_no_drawdown():
    engine = ran(flat(100, 100), [0.5], capital=20_000.0, fractions={"s0": 0.5}).engine
    for amount in (0.01, 333.33, 1_234.56789, 5_000.1):
        for names in (("s0", ""), ("", "s0")):
            engine.operate(Move(*names, amount))
            assert engine.accounts()["s0"]["drawdown"] == 0


def test_all_capital_that_is_taken_and_given_back_leaves_the_drawdown():
    def move(engine):
        before = engine.accounts()["s0"]
        engine.operate(Move("s0", "", before["equity"]))
        assert engine.accounts()["s0"]["equity"] == 0
        engine.operate(Move("", "s0", before["equity"]))
        assert engine.accounts()["s0"] == pytest.approx(before)
        assert before["drawdown"] == pytest.approx(8_220 / 11_780 - 1)

    ran(flat(100, 100, 120, 80, 80, 80), [0.9, 0.9, 0.9, 0.0], calls={5: move})


@pytest.mark.parametrize("amount", [1_000.0, 8_220.0, 100_000.0])
def test_whatever_comes_after_all_capital_left_has_the_drawdown_it_left_with(amount):
    # Every base is kept that still is one; risk bars begin anew with what comes.
    kept = ("peak", "stake", "day_equity", "exit_peak")
    fractions = []

    def of_bases(engine):
        (account,) = engine.state()["accounts"]
        fractions.append([(account["equity"] + account["left"]) / account[base] for base in kept])

    def leave(engine):
        of_bases(engine)
        engine.operate(Move("s0", "", engine.accounts()["s0"]["equity"]))
        of_bases(engine)

    def come_back(engine):
        of_bases(engine)
        assert engine.accounts()["s0"]["drawdown"] == pytest.approx(8_220 / 11_780 - 1)
        engine.operate(Move("", "s0", amount))
        of_bases(engine)

    found = ran(
        flat(100, 100, 120, 80, 80, 80, 80, 80, 80), {1: 0.9, 4: 0.0, 8: 0.5},
        calls={5: leave, 7: come_back}, capital=120_000.0, fractions={"s0": 1 / 12},
        risk={"risk_bar": "1s"}, checks=[("drawdown", 0.2)],
    )  # fmt: skip
    for each in fractions:
        assert each == pytest.approx(fractions[0], rel=1e-12)
    assert not found.orders[-1].approved, "out and in again disarms no limit"
    volatility = found.engine.state()["accounts"]["volatility"]
    assert math.isfinite(volatility[0])


@pytest.mark.parametrize("strategies", [[0.5, 0.5, 0.5, 0.5], [-0.5, -0.5, -0.5, -0.5]])
def test_a_strategy_with_positions_keeps_some_equity(strategies):
    engine = ran(flat(100, 100, 100, 50), strategies).engine
    account = engine.accounts()["s0"]
    if account["cash"] < account["equity"]:
        with pytest.raises(ConfigError, match="at most"):
            engine.operate(Move("s0", "", account["equity"]))
        return
    with pytest.raises(ConfigError, match="positions or orders"):
        engine.operate(Move("s0", "", account["equity"]))
    assert engine.accounts()["s0"] == account


@pytest.mark.parametrize("amount", ["5", None, True, 0.0, -1.0, math.nan, math.inf])
def test_an_amount_that_cannot_be_meant_moves_nothing(amount):
    engine = ran(flat(100, 100), [0.5], capital=20_000.0, fractions={"s0": 0.5}).engine
    before = engine.state()["accounts"].tobytes()
    with pytest.raises(ConfigError, match="amount must be"):
        engine.operate(Move("", "s0", amount))
    assert engine.state()["accounts"].tobytes() == before


def test_a_strategy_that_is_reducing_only_comes_nearer_to_flat():
    for weight, more in ((0.8, []), (0.2, [("signal", -30.0)]), (-0.5, [("signal", -49.0)])):
        found = ran(
            flat(100, 100, 100, 100), {1: 0.5, 2: weight},
            calls={2: lambda engine: engine.operate(Switch("reducing", "s0"))},
        )  # fmt: skip
        assert made(found) == [("signal", 49.0), *more]


def test_a_strategy_that_is_off_leaves_everything_and_may_come_back():
    def switch(state):
        return lambda engine: engine.operate(Switch(state, "s0"))

    found = ran(flat(*[100] * 5), [0.5, 0.5, NAN, 0.8], calls={2: switch("off")})
    assert made(found) == [("signal", 49.0), ("off", -49.0)]
    assert found.engine.positions() == {"s0": {}}
    calls = {2: switch("off"), 4: switch("active")}
    again = ran(flat(*[100] * 6), [0.5, NAN, NAN, NAN, 0.8], calls=calls)
    assert made(again)[2:][-1] == ("signal", 79.0)


@pytest.mark.parametrize("opinion", [0.5, NAN])
def test_what_is_off_is_tried_at_every_bar_until_it_is_flat(opinion):
    calls = {
        bar: lambda engine, state=state: engine.operate(Switch(state, "s0"))
        for bar, state in {12: "off", 13: "active", 14: "off"}.items()
    }
    found = ran(
        flat(*[100] * 60), [0.5, *[opinion] * 59], calls=calls,
        execution={"reject_probability": 0.7}, seed=8,
        sizing=WeightSizing(retry_after=2, split=False),
    )  # fmt: skip
    tries = [row for row in found.orders if row.purpose == PURPOSES.index("off")]
    assert len(tries) == 10
    assert np.diff([row.ts for row in tries[1:]]).tolist() == [at(2) - at(1)] * 8
    assert found.engine.positions() == {"s0": {}}


def test_a_paused_strategy_keeps_what_it_holds_and_its_exits():
    calls = {2: lambda engine: engine.operate(Switch("paused", "s0"))}
    kept = ran(flat(*[100] * 6), {1: 0.5, 3: -0.5, 5: 0.0}, calls=calls)
    assert made(kept) == [("signal", 49.0)]
    assert kept.engine.positions() == {"s0": {"A": 49.0}}
    left = ran(flat(100, 100, 100, 97, 97, 97), [0.5], calls=calls, exits={"stop_loss": 0.02})
    assert made(left) == [("signal", 49.0), ("stop_loss", -49.0)]
    calls[4] = lambda engine: engine.operate(Switch("active", "s0"))
    again = ran(flat(*[100] * 6), {1: 0.5, 3: -0.5}, calls=calls)
    assert made(again) == [("signal", 49.0), ("signal", -98.0)]


def test_one_symbol_may_be_switched_alone_and_in_every_strategy():
    sides = flat(*[100] * 5), flat(*[100] * 5, symbol=1)
    events = [row for pair in zip(*sides, strict=True) for row in pair]
    calls = {4: lambda engine: engine.operate(Switch("off", symbol="A"))}
    found = ran(events, {"s0": {1: 0.5}, "s1": {1: 0.5}}, others=[{}], calls=calls)
    assert found.engine.positions() == {"s0": {"B": 49.0}, "s1": {"B": 49.0}}


def test_a_weight_scales_what_targets_ask_for():
    def weigh(weight):
        return lambda engine: engine.operate(Weigh("s0", weight))

    found = ran(flat(*[100] * 6), [0.5], calls={2: weigh(0.5), 4: weigh(0.0)})
    assert made(found) == [("signal", 49.0), ("signal", -25.0), ("signal", -24.0)]
    assert {row.target for row in found.orders} == {0.5}


def test_a_halted_book_sends_no_order_until_it_is_rearmed():
    def hold(on):
        return lambda engine: engine.operate(Hold("halt", on))

    far = {"orders": {"kind": "limit", "offset_bps": 500.0}}
    found = ran(flat(*[100] * 6), {1: 0.5, 3: -0.5}, calls={3: hold(True)}, **far)
    assert [row.reason for row in found.order_ends] == [END_REASONS.index("cancelled")]
    assert len(found.orders) == 1
    stopped = ran(
        flat(100, 100, 100, 90, 90, 90, 90), [0.5], exits={"stop_loss": 0.02},
        calls={2: hold(True), 5: hold(False)},
    )  # fmt: skip
    assert made(stopped) == [("signal", 49.0), ("stop_loss", -49.0)]
    assert stopped.orders[1].ts == at(5), "an exit waits for the end of the halt, too"


def test_entries_that_are_stopped_for_two_reasons_begin_when_both_have_ended():
    def hold(reason, on):
        return lambda engine: engine.operate(Hold(reason, on))

    calls = {
        1: hold("outbox", True), 2: hold("gap", True), 3: hold("outbox", False),
        5: hold("gap", False),
    }  # fmt: skip
    found = ran(flat(*[100] * 7), {1: 0.5}, calls=calls, sizing=WeightSizing(split=False))
    assert found.seen("orders", "ts") == [(at(5),)]


def test_cash_of_a_stopped_strategy_goes_to_the_pool_and_comes_back_with_its_start():
    said = []

    def release(engine):
        with pytest.raises(ConfigError, match="'s1' is not off and flat"):
            engine.operate(Release("s1"))
        engine.operate(Release("s0"))
        said.append(float(engine.state()["clock"]["pool"][0]))

    calls = {
        2: lambda engine: engine.operate(Switch("off", "s0")), 4: release,
        5: lambda engine: engine.operate(Switch("active", "s0")),
    }  # fmt: skip
    found = ran(
        flat(100, 100, 110, 110, 110, 110, 110, 110), {"s0": {1: 0.5, 6: 0.5}, "s1": [0.0]},
        calls=calls, capital=20_000.0, fractions={"s0": 0.5, "s1": 0.5},
    )  # fmt: skip
    assert said == [10_490.0]
    account = found.engine.accounts()["s0"]
    assert (account["allocation"], account["equity"]) == (10_000.0, 10_490.0)
    assert found.engine.state()["clock"]["pool"][0] == 0.0
    assert made(found)[-1] == ("signal", 47.0)


class Raises(Strategy):
    """Wants half; from a time on, its code raises."""

    since: float = 1e30  # ns
    kind: int = 0

    @property
    def kinds(self):
        return ValueError, SystemExit, RecursionError

    def features(self, bar):
        return {"ts": bar.ts}

    def target(self, f):
        if f["ts"].max() >= self.since:
            raise self.kinds[self.kind]("no such thing")
        return np.full_like(f["ts"], 0.5)


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 3, 4, 5)])
def test_a_strategy_that_raises_is_switched_off_and_leaves_and_the_others_go_on(cuts, kind):
    plain = {"s0": Raises(), "s1": Raises()}
    faulty = {"s0": Raises(since=float(at(3)), kind=kind), "s1": Raises()}
    calls = dict.fromkeys(cuts, Engine.accounts)  # a batch ends there
    found, undisturbed = (
        ran(flat(*[100] * 6), book, calls=calls, contained=True) for book in (faulty, plain)
    )
    assert made(found) == [("signal", 49.0), ("signal", 49.0), ("off", -49.0)]
    assert found.engine.positions() == {"s0": {}, "s1": {"A": 49.0}}
    ((name, ts, error),) = found.engine.faults
    assert (name, ts) == ("s0", at(3)) and "no such thing" in str(error)
    own = [row for row in found.executions if row.strategy == 1]
    assert own == [row for row in undisturbed.executions if row.strategy == 1]
    with pytest.raises(StrategyError, match="no such thing"):
        ran(flat(*[100] * 6), faulty)


def test_a_strategy_that_repeats_itself_is_disabled_until_it_is_rearmed():
    again = {
        "orders": {"kind": "limit", "offset_bps": 100.0, "tif": "ioc"},
        "sizing": WeightSizing(band=0.0, retry_after=0, split=False),
        "checks": [("repeated_order", 2.0)],
    }  # fmt: skip
    targets = {1: 0.5, 5: 0.6}
    found = ran(flat(*[100] * 8), targets, **again)
    assert [row.approved for row in found.orders] == [1, 1, 0, 0, 0, 0, 0]
    assert found.risk_receipts[-1].value[0] == math.inf, "a new target is no way out"
    calls = {5: lambda engine: engine.operate(Rearm("s0"))}
    found = ran(flat(*[100] * 8), targets, calls=calls, **again)
    assert [row.approved for row in found.orders] == [1, 1, 0, 0, 1, 1, 0]
