"""Orders in a running book, by hand: kinds, lives, brackets, delays, prices, fees, halts.

Prices are 100 and costs nothing where nothing else is said; a weight of 1 is then 99 units.
"""

import math

import pytest

from sysquant.effects import END_REASONS, PURPOSES
from sysquant.orders import KINDS
from sysquant.records import NEVER
from tests.oracle_market import order_key, uniform
from tests.told import NAN, STILL, at, bars, flat, ran, ticks


def ends(found):
    return [(row.order_no, END_REASONS[row.reason]) for row in found.order_ends]


def made(found):
    return [(KINDS[row.kind], PURPOSES[row.purpose], row.quantity) for row in found.orders]


# -- kinds of order


def test_a_market_order_takes_the_next_price_and_slips_to_the_tick():
    events = bars(STILL, (101, 103, 99, 102, 1e6))
    found = ran(events, [1.0], execution={"slippage_bps": 10.0})  # 101.101
    fill = ("ts", "quantity", "price", "reference", "maker")
    assert found.seen("executions", *fill) == [(at(1), 99.0, 101.11, 101.0, 0)]


def test_a_limit_rests_until_the_market_goes_through_it_and_is_a_maker():
    orders = {"kind": "limit", "offset_bps": 100.0}
    found = ran(bars(STILL, (100, 100, 98.5, 100, 1e6)), [1.0], orders=orders)
    assert found.seen("orders", "kind", "limit_price") == [(1, 99.0)]
    assert found.seen("executions", "price", "reference", "maker") == [(99.0, 99.0, 1)]


def test_a_limit_beyond_the_market_takes_but_never_worse_than_its_price():
    orders = {"kind": "limit", "offset_bps": -100.0}  # 101
    found = ran(flat(100, 100.5), [1.0], orders=orders, execution={"slippage_bps": 200.0})
    assert found.seen("executions", "price", "reference", "maker") == [(101.0, 100.5, 0)]
    assert not ran(flat(100, 102), [1.0], orders=orders).executions


def test_a_stop_fills_at_its_level_inside_a_bar_and_at_the_open_beyond_a_gap():
    orders = {"kind": "stop", "offset_bps": 100.0}  # 101
    for second, price in (((100, 103, 99, 99, 9e6), 101.0), ((102, 103, 99, 99, 9e6), 102.0)):
        found = ran(bars(STILL, second), [1.0], orders=orders)
        assert found.seen("executions", "price", "maker") == [(price, 0)]
    assert not ran(flat(100, 100.99), [1.0], orders=orders).executions


def test_a_stop_limit_is_a_limit_once_its_stop_is_reached():
    orders = {"kind": "stop_limit", "offset_bps": 100.0, "limit_offset_bps": 50.0}
    taken = ran(bars(STILL, (100, 103, 100, 100, 1e6)), [1.0], orders=orders)
    assert taken.seen("orders", "stop_price", "limit_price") == [(101.0, 101.51)]
    assert taken.seen("executions", "price", "maker") == [(101.0, 0)]
    rested = ran(flat(100, 102, 101.4), [1.0], orders=orders)
    assert rested.seen("executions", "ts", "price", "maker") == [(at(2), 101.51, 1)]


def test_a_trailing_stop_follows_the_best_price_and_triggers_at_its_distance():
    orders = {"kind": "trailing_stop", "trail_bps": 100.0}
    found = ran(flat(100, 98, 97, 97.9, 98), [1.0], orders=orders)  # 98.98, then 97.97
    assert found.seen("executions", "ts", "price") == [(at(4), 98.0)]


# -- how long it lives


def test_good_till_cancelled_works_until_it_is_filled():
    orders = {"kind": "limit", "offset_bps": 100.0}
    found = ran(flat(*[100] * 9, 98), [1.0], orders=orders)
    assert found.orders[0].expires == NEVER
    assert found.seen("executions", "ts") == [(at(9),)] and ends(found) == [(1, "filled")]


def test_immediate_or_cancel_fills_what_it_can_at_once():
    some = {"participation": 0.5}
    found = ran(flat(100, 100, 100, volume=20), [1.0], orders={"tif": "ioc"}, execution=some)
    assert found.executions[0].quantity == 10.0
    assert ends(found)[0] == (1, "ioc")
    assert (found.order_ends[0].filled, found.order_ends[0].remainder) == (10.0, 89.0)


def test_fill_or_kill_fills_whole_or_not_at_all():
    for kind in ({}, {"kind": "limit", "offset_bps": -100.0}):
        for volume, fills, reason in ((197, [], "fok"), (198, [(99.0,)], "filled")):
            found = ran(
                flat(100, 100, volume=volume), [1.0],
                orders={"tif": "fok", **kind}, execution={"participation": 0.5},
            )  # fmt: skip
            assert found.seen("executions", "quantity") == fills
            assert ends(found) == [(1, reason)]


def test_good_till_a_time_expires_then():
    orders = {"kind": "limit", "offset_bps": 100.0, "tif": "gtd", "timeout_s": 1.5}
    found = ran(ticks((0.5, 100), (1, 100), (2.4, 100), (2.5, 98)), [1.0], orders=orders)
    assert found.orders[0].expires == at(2.5)
    assert not found.executions and ends(found) == [(1, "expired")]
    assert found.order_ends[0].ts == at(2.5)


def test_what_timed_out_is_followed_by_a_market_order_if_that_is_wished():
    life = {"kind": "limit", "offset_bps": 100.0, "tif": "gtd", "timeout_s": 1.0}
    for then, more in (("none", []), ("market", [("market", "follow_up", 99.0)])):
        found = ran(flat(100, 100, 100, 100), [1.0], orders=life | {"then": then})
        assert made(found) == [("limit", "signal", 99.0), *more]
        assert len(found.executions) == len(more)


def test_a_post_only_order_that_would_take_ends_instead():
    orders = {"kind": "limit", "post_only": True}
    found = ran(flat(100, 100), [1.0], orders=orders)
    assert ends(found) == [(1, "post_only")] and not found.executions
    rests = ran(flat(100, 101, 99), [1.0], orders=orders)
    assert rests.seen("executions", "price", "maker") == [(100.0, 1)]


def test_an_order_over_time_is_sent_in_slices():
    found = ran(flat(*[100] * 9), [1.0], orders={"slices": 4, "slice_s": 1.5})
    assert made(found) == [
        ("market", "signal", 24.0), *[("market", "slice", 25.0)] * 3,
    ]  # fmt: skip
    # Each at the first event from 1.5 s after the one before: bars end a nanosecond early.
    waits = [row.ts for row in found.orders]
    assert waits == [at(1), at(3) - 1, at(5) - 1, at(7) - 1]


def test_the_rest_of_a_partial_fill_is_carried_or_not():
    for carry, quantities in ((True, [(10.0,), (10.0,)]), (False, [(10.0,)])):
        found = ran(
            flat(100, 100, 100, volume=20), [1.0],
            orders={"carry": carry}, execution={"participation": 0.5},
        )  # fmt: skip
        assert found.seen("executions", "quantity") == quantities
        assert ends(found) == ([] if carry else [(1, "expired")])


def test_a_changed_target_cancels_and_replaces_the_order_that_works():
    orders = {"kind": "limit", "offset_bps": 100.0}
    later = ran(
        flat(100, 100, 100, 100, 100), [1.0, -1.0], orders=orders,
        execution={"cancel_latency_ms": 1_500.0},
    )  # fmt: skip
    assert [(row.order_no, row.ts) for row in later.order_ends] == [(1, at(4) - 1)]
    assert [(row.quantity, row.ts) for row in later.orders] == [(99.0, at(1)), (-99.0, at(4) - 1)]
    at_once = ran(flat(100, 100, 100), [1.0, -1.0], orders=orders)
    assert [(row.order_no, row.ts) for row in at_once.order_ends] == [(1, at(2))]
    assert ends(at_once) == ends(later) == [(1, "cancelled")]
    crossed = ran(
        flat(100, 100, 100, 98), [1.0, -1.0], orders=orders,
        execution={"cancel_latency_ms": 5_000.0},
    )  # fmt: skip
    assert crossed.seen("executions", "quantity") == [(99.0,)], "it may fill before it is cancelled"


# -- brackets


BRACKET = {"stop_loss": 0.02, "take_profit": 0.03, "how": "bracket"}


def test_a_bracket_leaves_two_orders_and_one_ends_the_other():
    for last, price, legs in (
        (104, 103.0, {2: "oco", 3: "filled"}), (97, 97.0, {2: "filled", 3: "oco"}),
    ):  # fmt: skip
        found = ran(flat(100, 100, 101, last), [1.0], exits=BRACKET)
        assert made(found)[1:] == [("stop", "stop_loss", -99.0), ("limit", "take_profit", -99.0)]
        assert (found.orders[1].stop_price, found.orders[2].limit_price) == (98.0, 103.0)
        assert found.executions[-1].price == price
        assert dict(ends(found)) == {1: "filled"} | legs
        assert found.engine.positions() == {"s0": {}}


def test_a_position_that_grows_gets_a_new_bracket():
    found = ran(flat(100, 100, 100, 100), [0.5, 0.8], exits=BRACKET)
    assert dict(ends(found)) == {1: "filled", 2: "replaced", 3: "replaced", 4: "filled"}
    assert made(found)[4:] == [("stop", "stop_loss", -79.0), ("limit", "take_profit", -79.0)]


def test_the_stop_of_a_bracket_may_trail():
    exits = {"trailing_stop": 0.02, "how": "bracket"}
    found = ran(flat(100, 100, 100, 110, 107.9, 107.8), [1.0], exits=exits)
    assert made(found)[1:] == [("trailing_stop", "trailing_stop", -99.0)]
    assert found.seen("executions", "ts", "price")[1:] == [(at(5), 107.8)]


def test_a_reduce_only_order_takes_no_more_than_is_held():
    exits = {"stop_loss": 0.05, "how": "bracket"}
    found = ran(flat(100, 100, 100, 94), [0.5, 0.2], exits=exits)
    assert made(found)[1] == ("stop", "stop_loss", -49.0)
    assert found.seen("executions", "quantity") == [(49.0,), (-30.0,), (-19.0,)]
    assert found.engine.positions() == {"s0": {}}


# -- delays


@pytest.mark.parametrize("model", ["fixed", "lognormal", "replayed"])
def test_an_order_arrives_after_its_latency(model):
    u0, u1 = (uniform(1, order_key("s0"), 1, draw) for draw in (0, 1))
    sample = [1.0, 20.0, 300.0, 40.0]
    keys, delay_ms = {
        "fixed": ({"latency_ms": 250.0}, 250.0),
        "lognormal": (
            {"latency_ms": 250.0, "latency_sigma": 0.5},
            250.0 * math.exp(0.5 * math.sqrt(-2 * math.log(u0)) * math.cos(2 * math.pi * u1)),
        ),
        "replayed": ({"latency_sample_ms": sample}, sample[int(u0 * 4)]),
    }[model]
    found = ran(
        ticks((0.5, 100), *((1 + ms / 1000, 100 + ms / 1000) for ms in range(500))), [1.0],
        execution=keys,
    )  # fmt: skip
    assert found.orders[0].due == pytest.approx(at(1 + delay_ms / 1000), abs=1)
    (fill,) = found.executions
    assert fill.ts == at(1 + math.ceil(delay_ms) / 1000)


def test_a_cancel_has_a_latency_of_its_own():
    u0, u1 = (uniform(1, order_key("s0"), 1, draw) for draw in (3, 4))
    z = math.sqrt(-2 * math.log(u0)) * math.cos(2 * math.pi * u1)
    for sigma, delay_ms in ((0.0, 200.0), (0.4, 200.0 * math.exp(0.4 * z))):
        found = ran(
            ticks((0.5, 100), (1.5, 100), *((2 + ms / 1000, 100) for ms in range(900))), [1.0, 0.0],
            orders={"kind": "limit", "offset_bps": 100.0},
            execution={"cancel_latency_ms": 200.0, "cancel_latency_sigma": sigma},
        )  # fmt: skip
        assert found.order_ends[0].ts == at(2 + math.ceil(delay_ms) / 1000)


# -- what a fill costs


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("fixed", {"slippage_bps": 10.0}),
        ("constant", {"half_spread_bps": 20.0}),
        ("roll", {"spread_model": "roll"}),
        ("corwin_schultz", {"spread_model": "corwin_schultz"}),
        ("impact", {"impact": 1.0}),
        ("volatility", {"volatility_scale": 0.5}),
    ],
    ids=["fixed", "constant", "roll", "corwin_schultz", "impact", "volatility"],
)
def test_a_taker_pays_each_part_of_slippage(model, keys):
    # Of the last bars alone: changes of 1 and -1, ranges of 2, a volume of 400.
    rows = [(100, 100.5, 98.5, 100, 400), (100, 101.5, 99.5, 101, 400), (101, 101, 99, 100, 400)]
    found = ran(
        bars(*rows, STILL), [NAN, NAN, 0.5],
        execution=keys | {"statistics_span": 1}, instrument={"tick_size": 1e-6},
    )  # fmt: skip
    (fill,) = found.executions
    sigma = math.log(101 / 100)
    b = math.log(101 / 99) ** 2 + math.log(101.5 / 99.5) ** 2
    k = 3 - 2 * math.sqrt(2)
    alpha = (math.sqrt(2 * b) - math.sqrt(b)) / k - math.sqrt(math.log(101.5 / 99) ** 2 / k)
    slip = {
        "fixed": 0.001,
        "constant": 0.002,
        "roll": 0.5 * 2 * math.sqrt(1.0) / 100,
        "corwin_schultz": (math.exp(alpha) - 1) / (1 + math.exp(alpha)),
        "impact": sigma * math.sqrt(fill.quantity / 400),
        "volatility": 0.5 * sigma,
    }[model]
    assert slip > 5e-4
    assert fill.price == pytest.approx(100 * (1 + slip), abs=2e-6)
    assert fill.slippage == pytest.approx(fill.quantity * 100 * slip, abs=1e-3)


@pytest.mark.parametrize(
    ("key", "keys", "more", "fees"),
    [
        ("fee_bps", {"fee_bps": 10.0}, {}, [6.0, 3.9]),
        ("fee_fixed", {"fee_fixed": 5.0}, {}, [5.0, 0.0]),
        ("fee_minimum", {"fee_bps": 10.0, "fee_minimum": 7.0}, {}, [7.0, 2.9]),
        (
            "maker_fee_bps", {"maker_fee_bps": 2.0},
            {"orders": {"kind": "limit", "offset_bps": -1.0, "post_only": False}}, [0.0, 0.78],
        ),
        (
            "tiers", {"tiers": {"vip": {"fee_bps": 1.0, "maker_fee_bps": 0.0}}},
            {"instrument": {"fee_tier": "vip"}}, [0.6, 0.39],
        ),
    ],
    ids=["fee_bps", "fee_fixed", "fee_minimum", "maker_fee_bps", "tiers"],
)  # fmt: skip
def test_fees_of_an_order_in_two_fills(key, keys, more, fees):
    # 60 and 39 units at 100; as a limit of 100.01, the second waits as a maker.
    events = bars(STILL, (100, 100, 100, 100, 120), (100, 100, 100, 100, 120))
    found = ran(events, [1.0], execution={"participation": 0.5} | keys, **more)
    assert found.seen("executions", "quantity") == [(60.0,), (39.0,)]
    assert [row.fee for row in found.executions] == pytest.approx(fees, abs=1e-3)
    assert found.engine.accounts()["s0"]["cash"] == pytest.approx(100 - sum(fees), abs=0.5)


# -- what the market lets through


def test_an_order_takes_its_part_of_the_volume_of_an_event():
    found = ran(flat(100, 100, 100, volume=120), [1.0], execution={"participation": 0.5})
    assert found.seen("executions", "quantity", "price") == [(60.0, 100.0), (39.0, 100.0)]


def test_a_limit_that_is_only_touched_gets_its_share_of_the_queue():
    events = bars(STILL, (100, 100, 99, 100, 50), (99, 99, 98, 98, 1_000))
    orders = {"kind": "limit", "offset_bps": 100.0}
    for share, quantities in ((0.2, [(10.0,), (89.0,)]), (0.0, [(99.0,)])):
        found = ran(events, [1.0], execution={"queue_share": share}, orders=orders)
        assert found.seen("executions", "quantity") == quantities


def test_the_exchange_rejects_orders_with_their_probability():
    always = ran(flat(100, 100, 100), [1.0], execution={"reject_probability": 1.0})
    assert ends(always) == [(1, "rejected")] and not always.executions
    draw = uniform(1, order_key("s0"), 1, 2)
    for probability, reason in ((draw * 0.99, "filled"), (min(1.0, draw * 1.01), "rejected")):
        found = ran(flat(100, 100), [1.0], execution={"reject_probability": probability})
        assert ends(found) == [(1, reason)]


def test_nothing_fills_while_a_symbol_is_halted():
    events = [
        *ticks((0.5, 100), (1.0, 100)), ("halt", at(1.0), 0), *ticks((1.1, 101), (1.2, 102)),
        ("resume", at(1.3), 0), *ticks((1.4, 103)),
    ]  # fmt: skip
    late = {"latency_ms": 50.0}
    found = ran(events, [1.0], execution=late)
    assert found.seen("executions", "ts", "price") == [(at(1.4), 103.0)]
    assert ran(events[:2] + events[3:5], [1.0], execution=late).executions[0].price == 101.0
