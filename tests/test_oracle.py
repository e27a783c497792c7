"""The oracle against examples by hand and its own invariants; the engine against the oracle."""

import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle import Oracle
from tests.oracle_compare import Switches, compare
from tests.oracle_facts import Facts
from tests.oracle_market import Order, cut, cut_down, round_down, round_up
from tests.oracle_risk import CHECKS
from tests.streams import CHOICES, FLAGS, LIMITS, SECOND, case_of, random_switches

START = 1_700_000_000 * SECOND
FREE = {"latency_ms": 0.0, "slippage_bps": 0.0, "fee_bps": 0.0}
STREAMS = 2_000


class Told(Oracle):
    """Wants what a list says, bar by bar; then nothing more."""

    def __init__(self, case, targets):
        super().__init__(case)
        self.targets = list(targets)

    def target(self, account, symbol, bars, ts):
        return self.targets.pop(0) if self.targets else math.nan


def bars(*rows):
    """Bars of one second and one symbol: (open, high, low, close, volume)."""
    return [("bar", START + (i + 1) * SECOND, 0, *row) for i, row in enumerate(rows)]


def flat(*closes):
    """Bars whose four prices are the same, with volume to spare."""
    return bars(*((c, c, c, c, 1e6) for c in closes))


def told(events, targets, *, instrument=None, execution=None, checks=(), risk=None, **rules):
    """Rows and oracle of one strategy on one symbol."""
    case = SimpleNamespace(
        seed=1, interval=SECOND, snapshot_ns=SECOND, capital=10_000.0, fractions={"s0": 1.0},
        promoted=["s0"], scripts={"s0": {}}, events=events, calls=[], cuts=[],
        legs=[], activity=None,
        universe=[
            {"symbol": "A", "tick_size": 0.01, "lot_size": 1.0, "min_notional": 0.0}
            | (instrument or {})
        ],
        execution=FREE | (execution or {}),
        sizing={"s0": {"kind": "weight", "band": 0.0, "retry_after": 1} | rules.get("sizing", {})},
        orders={"s0": rules.get("orders", {})},
        exits={"s0": rules.get("exits", {})},
        risk={
            "checks": [{"check": name, "limit": limit} for name, limit in checks],
            "cut": False, "risk_bar": SECOND, "window": 30, "confidence": 0.95, "decay": 0.9,
            "min_history": "refuse", "least_history": 4,
        }
        | (risk or {}),
    )  # fmt: skip
    oracle = Told(case, targets)
    return oracle.run(), oracle


def seen(rows, *names):
    """Columns of a table, row by row."""
    return [tuple(row[name] for name in names) for row in rows]


# -- by hand
def test_numbers_are_cut_as_the_page_says():
    assert [cut(0.125, 0.01), cut(7.5, 5.0), cut(2.5, 1.0)] == [0.12, 10.0, 2.0]
    assert [cut_down(1125.3, 0.1), cut_down(-0.29, 0.1), cut_down(3.9, 1.0)] == [1125.3, -0.2, 3.0]
    assert [round_up(100.001, 0.05), round_down(100.049, 0.05), round_down(0.01, 0.05)] == [
        100.05, 100.0, 0.05,
    ]  # fmt: skip
    assert round_up(0.1 + 0.2, 0.1) == round_down(0.3, 0.1) == 0.3


def test_an_order_fills_at_the_next_open_and_pays_slippage_to_the_tick():
    # 10,000 / (100 x 1.0010 + 0.01) = 99.89: 99 units; 101 x 1.001 = 101.101, up to 101.11
    events = bars((100, 100, 100, 100, 9), (101, 103, 99, 102, 9))
    rows, oracle = told(events, [1.0], execution={"slippage_bps": 10.0})
    assert seen(rows["executions"], "ts", "quantity", "price", "reference") == [
        (START + SECOND, 99.0, 101.11, 101)
    ]
    assert oracle.accounts[0].cash == pytest.approx(10_000 - 99 * 101.11, abs=1e-9)


def test_an_order_due_inside_a_bar_sees_only_its_close():
    events = bars((100, 100, 100, 100, 9), (101, 103, 99, 102, 9))
    rows, _ = told(events, [1.0], execution={"latency_ms": 1.0})
    assert seen(rows["executions"], "ts", "price") == [(START + 2 * SECOND - 1, 102)]


def test_a_limit_that_is_only_touched_gets_its_share_of_the_queue():
    # Buys 100 at 99.00; the second bar touches it with volume 50, the third goes through it.
    events = bars((100,) * 4 + (9,), (100, 100, 99, 100, 50), (99, 99, 98, 98, 1000))
    orders = {"kind": "limit", "offset_bps": 100.0}
    rows, _ = told(events, [1.0], execution={"queue_share": 0.2}, orders=orders)
    assert seen(rows["executions"], "quantity", "price", "maker") == [
        (10.0, 99.0, 1), (89.0, 99.0, 1),
    ]  # fmt: skip


def test_a_stop_fills_at_its_level_inside_a_bar_and_at_the_open_beyond_a_gap():
    orders = {"kind": "stop", "offset_bps": 100.0}
    inside = bars((100,) * 4 + (9,), (100, 103, 99, 99, 9))
    gap = bars((100,) * 4 + (9,), (102, 103, 99, 99, 9))
    assert seen(told(inside, [1.0], orders=orders)[0]["executions"], "price") == [(101.0,)]
    assert seen(told(gap, [1.0], orders=orders)[0]["executions"], "price") == [(102,)]


def test_the_smallest_fee_is_paid_once_and_the_rest_by_the_fill():
    # 99 units in two fills of 60 and 39 at 100: 10 bps are 6.00 and 3.90, the least is 7.00.
    execution = {"fee_bps": 10.0, "fee_minimum": 7.0, "participation": 0.5}
    events = bars((100,) * 4 + (9,), (100,) * 4 + (120,), (100,) * 4 + (120,))
    rows, _ = told(events, [1.0], execution=execution)
    assert seen(rows["executions"], "quantity", "fee") == [(60.0, 7.0), (39.0, 2.9)]


def test_a_position_that_turns_realises_what_it_closes_and_opens_at_the_fill():
    # Equity is 10,000 and 10,990 at the two decisions: 99 units long, then 99 short.
    rows, oracle = told(flat(100, 100, 110, 120), [1.0, math.nan, -1.0])
    assert seen(rows["executions"], "quantity", "price", "realised_pnl") == [
        (99.0, 100, 0.0), (-198.0, 120, 1980.0),
    ]  # fmt: skip
    cell = oracle.accounts[0].cells[0]
    assert (cell.held, cell.average_price, cell.entry) == (-99.0, 120, 120)


def test_of_a_bar_the_worse_extreme_comes_first_for_an_exit_rule():
    # Long from 100: low 97 and high 104 reach both the loss (98) and the profit (103).
    exits = {"stop_loss": 0.02, "take_profit": 0.03}
    events = [*flat(100, 100), *bars(*[(0,) * 5] * 2, (100, 104, 97, 100, 1e6))[2:]]
    rows, _ = told(events, [1.0], exits=exits)
    assert seen(rows["orders"], "purpose", "quantity") == [(0, 99.0), (3, -99.0)]


def test_a_bracket_leaves_two_orders_and_one_ends_the_other():
    exits = {"stop_loss": 0.02, "take_profit": 0.03, "how": "bracket"}
    rows, _ = told(flat(100, 100, 101, 103.5), [1.0], exits=exits)
    assert seen(rows["orders"], "purpose", "kind", "stop_price", "limit_price")[1:] == [
        (3, 2, 98.0, pytest.approx(math.nan, nan_ok=True)),
        (5, 1, pytest.approx(math.nan, nan_ok=True), 103.0),
    ]
    assert seen(rows["order_ends"], "order_no", "reason") == [(1, 0), (2, 8), (3, 0)]
    assert rows["executions"][-1]["price"] == 103.0  # as a maker: the limit, not the open


def test_shorts_borrow_and_perpetuals_are_funded_at_the_hours():
    execution = {
        "borrow_rate": 0.0876, "financing_hours": 1.0, "funding_rate": 1e-4, "funding_hours": 2.0,
    }  # fmt: skip
    hour = 3600 * SECOND
    first = START - START % (2 * hour) + hour  # one hour before a time of both
    events = [("tick", first + i * SECOND, 0, 100.0, 1e6) for i in range(3)]
    events.append(("tick", first + 2 * hour, 0, 100.0, 1e6))
    rows, _ = told(events, [-1.0], execution=execution, instrument={"perpetual": True})
    assert seen(rows["financing"], "ts", "kind", "amount") == [
        (first + hour, 0, pytest.approx(-0.99)),  # a short position is paid for a positive rate
        (first + hour, 1, pytest.approx(0.099)),
        (first + 2 * hour, 1, pytest.approx(0.099)),
    ]


def test_value_at_risk_is_the_loss_of_the_worst_scenario():
    # Returns 1, -2, 1, 3 %: of four at 95 % the worst one, times the value of 99 units.
    checks = [("value_at_risk", 0.05), ("expected_shortfall", 0.05)]
    closes = [100, 101, 98.98, 99.9698, 102.968894]
    rows, _ = told(flat(*closes, 100), [math.nan] * 4 + [1.0], checks=checks)
    (receipts,) = [row["receipts"] for row in rows["risk_receipts"]]
    quantity = rows["orders"][0]["quantity"]
    expected = 0.02 * quantity * closes[-1] / 10_000
    assert [value for _, value, *_ in receipts] == pytest.approx([expected, expected])


def test_a_refused_order_is_not_repeated_until_its_bars_have_passed():
    checks = [("order_notional", 50.0)]
    sizing = {"retry_after": 3}
    rows, oracle = told(flat(*[100] * 6), [1.0], checks=checks, sizing=sizing)
    assert seen(rows["orders"], "ts") == [(START + SECOND,), (START + 4 * SECOND,)]
    assert oracle.suppressed == 3


# -- invariants
@pytest.mark.parametrize("seed", range(60))
def test_the_oracle_conserves_money_in_every_snapshot(seed):
    oracle = Oracle(case_of(random_switches(seed)))
    history = oracle.run()["portfolio_history"]
    for ts in sorted({row["ts"] for row in history}):
        rows = [row for row in history if row["ts"] == ts]
        total = {
            name: math.fsum(row.get(name, 0.0) for row in rows)
            for name in ("cash", "value", "realised_pnl", "unrealised_pnl", "fees", "financing")
        }
        left = total["cash"] + total["value"]
        gained = total["realised_pnl"] + total["unrealised_pnl"]
        right = oracle.case.capital + gained - total["fees"] - total["financing"]
        assert left == pytest.approx(right, abs=1e-6)


def rooms(oracle, account, name, seed):
    """Every finite room of a check at the end of a stream, and a function of the size to ask."""
    check, is_most, _ = CHECKS[name]
    limit = LIMITS[name](random.Random(seed), account.allocation)
    for y, market in enumerate(oracle.markets):
        for side in (1.0, -1.0) if market.price is not None and oracle.unit(y) else ():

            def asked(size, y=y, side=side):
                order = Order(0, 0, y, 0, side * size, 0, oracle.now)
                value, room = check(Facts(oracle, account, order, oracle.now), limit)
                return (value <= limit if is_most else value >= limit), room

            _, room = asked(1.0)
            if limit and room is not None and 1e-6 < room < math.inf:
                yield room, asked


@pytest.mark.parametrize("seed", range(60))
def test_an_order_of_the_size_of_its_room_passes_and_a_larger_one_does_not(seed):
    oracle = Oracle(case_of(random_switches(seed)))
    oracle.run()
    of_own_size = {"cash", "value_at_risk", "expected_shortfall"}  # of their rooms
    for name in CHECKS.keys() - of_own_size:
        for room, asked in rooms(oracle, oracle.accounts[0], name, seed):
            assert asked(room * (1 - 1e-9))[0], (name, room)
            assert not asked(room * (1 + 1e-9) + 1e-9)[0], (name, room)


# -- the engine against the oracle
def drawn(**fixed):
    """Switches of a case, piece by piece, so that a failure shrinks to what it needs."""
    pieces = {
        "seed": st.integers(0, 1_000_000),
        "events": st.integers(5, 100),
        "symbols": st.integers(1, 3),
        "strategies": st.integers(1, 3),
        "checks": st.lists(st.sampled_from(sorted(LIMITS)), max_size=4, unique=True).map(tuple),
        **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
        **{name: st.booleans() for name in FLAGS},
    }
    return st.builds(Switches, **(pieces | fixed))


PARTS = {
    "orders": {"exits": st.just("none"), "checks": st.just(())},
    "exits": {"exits": st.sampled_from(("rule", "bracket")), "checks": st.just(())},
    "checks": {
        "checks": st.lists(st.sampled_from(sorted(LIMITS)), min_size=5, unique=True).map(tuple)
    },
    "broker": {"participation": st.just(True), "fees": st.just(True), "rejects": st.just(True)},
    "activity": {
        "source": st.just("ticks"),
        "bars": st.sampled_from(("ticks", "volume", "value")),
        "late": st.booleans(),
    },
    "accounts": {"financing": st.just(True), "instruments": st.just(True)},
}


@pytest.mark.timeout(600)  # the first of them compiles the engine
@pytest.mark.parametrize("part", PARTS)
def test_the_engine_does_what_the_oracle_does(part):
    @settings(
        max_examples=STREAMS // len(PARTS), suppress_health_check=list(HealthCheck), deadline=None
    )
    @given(drawn(**PARTS[part]))
    def same(switches):
        outcome = compare(switches)
        assert outcome.difference is None, str(outcome.difference)

    same()
