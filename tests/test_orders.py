"""How an order is placed: kind, levels and life by hand, and combinations that are refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records
from sysquant.errors import ConfigError
from sysquant.orders import KINDS, Orders, place
from sysquant.steps import steps_of

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING = range(5)
GTC, IOC, FOK, GTD = range(4)


def row(dtype, **values):
    rows = np.zeros(1, dtype)
    for name, value in values.items():
        rows[name] = value
    return rows[0]


def placed(quantity, *, price=100.0, tick=0.01, reduces=False, exits=0, **keys):
    order = row(records.ORDER, quantity=quantity, limit=7.0, stop=7.0, trail=7.0, end=7)
    rules = row(records.RULES, **Orders(**keys).rules())
    market = row(records.MARKET, price=price)
    steps = row(records.INSTRUMENT, **steps_of(tick, 1.0))
    place(order, rules, market, steps, NOW, reduces, exits)
    return order


# -- kinds and levels


def test_market_order_has_no_levels_and_no_end():
    order = placed(1.0)
    assert (order["kind"], order["tif"], order["end"]) == (MARKET, GTC, records.NEVER)
    assert all(math.isnan(order[name]) for name in ("limit", "stop", "trail"))
    assert (order["post_only"], order["carry"], order["then"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("quantity", "keys", "limit", "stop"),
    [
        (1.0, {"kind": "limit", "offset_bps": 10}, 99.9, math.nan),
        (-1.0, {"kind": "limit", "offset_bps": 10}, 100.1, math.nan),
        (1.0, {"kind": "limit", "offset_bps": 10.5}, 99.89, math.nan),
        (-1.0, {"kind": "limit", "offset_bps": 10.5}, 100.11, math.nan),
        (1.0, {"kind": "limit", "offset_bps": 0}, 100.0, math.nan),
        (1.0, {"kind": "limit", "offset_bps": -10.5}, 100.1, math.nan),
        (-1.0, {"kind": "limit", "offset_bps": -10.5}, 99.9, math.nan),
        (1.0, {"kind": "stop", "offset_bps": 10.5}, math.nan, 100.11),
        (-1.0, {"kind": "stop", "offset_bps": 10.5}, math.nan, 99.89),
        (1.0, {"kind": "stop_limit", "offset_bps": 10, "limit_offset_bps": 5}, 100.16, 100.1),
        (-1.0, {"kind": "stop_limit", "offset_bps": 10, "limit_offset_bps": 5}, 99.85, 99.9),
    ],
    ids=str,
)
def test_levels_by_hand(quantity, keys, limit, stop):
    order = placed(quantity, **keys)
    assert KINDS[order["kind"]] == keys["kind"]
    np.testing.assert_array_equal([order["limit"], order["stop"]], [limit, stop])


def test_trailing_stop_has_a_distance_and_no_level_yet():
    order = placed(1.0, kind="trailing_stop", trail_bps=50)
    assert (order["kind"], order["trail"]) == (TRAILING, pytest.approx(0.005))
    assert math.isnan(order["stop"]) and math.isnan(order["limit"])


def test_level_below_the_first_tick_is_the_first_tick():
    assert placed(1.0, kind="limit", offset_bps=9_999, price=1.0)["limit"] == 0.01
    assert placed(-1.0, kind="stop", offset_bps=9_999, price=1.0)["stop"] == 0.01


@given(
    st.sampled_from([1.0, -1.0]),
    st.sampled_from([0.01, 0.05, 0.5, 1.0]),
    st.floats(50, 1e5),
    st.floats(0, 500),
    st.floats(0, 500),
)
def test_levels_are_ticks_on_their_side_of_the_market(side, tick, price, offset, beyond):
    limit = placed(side, price=price, tick=tick, kind="limit", offset_bps=offset)["limit"]
    near = 1e-8 * tick + 1e-14 * price
    assert side * (price - limit) >= price * offset * 1e-4 - near
    keys = {"kind": "stop_limit", "offset_bps": offset, "limit_offset_bps": beyond}
    order = placed(side, price=price, tick=tick, **keys)
    assert side * (order["stop"] - price) >= price * offset * 1e-4 - near
    assert side * (order["limit"] - order["stop"]) >= -near
    for level in (limit, order["stop"], order["limit"]):
        assert level / tick == pytest.approx(round(level / tick), abs=1e-6)


# -- what reduces, and exits


@pytest.mark.parametrize("kind", KINDS)
def test_order_that_reduces_goes_to_the_market_unless_it_is_a_limit(kind):
    keys = {"trail_bps": 50} if kind == "trailing_stop" else {}
    order = placed(-1.0, kind=kind, reduces=True, **keys)
    assert KINDS[order["kind"]] == ("limit" if kind == "limit" else "market")
    assert math.isnan(order["stop"])


def test_order_that_reduces_keeps_its_life():
    order = placed(-1.0, kind="stop", tif="gtd", timeout_s=5, then="market", reduces=True)
    assert (order["tif"], order["end"], order["then"]) == (GTD, NOW + 5 * SECOND, 1)


@pytest.mark.parametrize("keys", [{"kind": "limit", "post_only": True}, {"tif": "fok"}])
def test_exit_is_a_market_order_that_works_until_it_is_filled(keys):
    order = placed(-1.0, reduces=True, exits=1, carry=False, **keys)
    assert (order["kind"], order["tif"], order["end"]) == (MARKET, GTC, records.NEVER)
    assert (order["post_only"], order["carry"], order["then"]) == (0, 1, 0)
    assert math.isnan(order["limit"])


# -- life


def test_good_till_a_time_ends_then():
    order = placed(1.0, kind="limit", tif="gtd", timeout_s=0.5, then="market")
    assert (order["tif"], order["end"], order["then"]) == (GTD, NOW + SECOND // 2, 1)


@pytest.mark.parametrize(("tif", "number"), [("ioc", IOC), ("fok", FOK)])
def test_immediate_orders_have_no_end_of_their_own(tif, number):
    order = placed(1.0, kind="limit", tif=tif)
    assert (order["tif"], order["end"]) == (number, records.NEVER)


def test_post_only_and_carry_are_handed_on():
    order = placed(1.0, kind="limit", post_only=True, carry=False)
    assert (order["post_only"], order["carry"]) == (1, 0)


# -- configuration


def test_rules_are_in_the_units_of_the_record():
    found = Orders(
        kind="stop_limit", offset_bps=1, limit_offset_bps=2, tif="gtd", timeout_s=1.5,
        then="market", slices=4, slice_s=0.25, carry=False,
    ).rules()  # fmt: skip
    assert set(found) <= set(records.RULES.names)
    assert (found["kind"], found["tif"], found["then"]) == (STOP_LIMIT, GTD, 1)
    assert (found["offset"], found["limit_offset"]) == pytest.approx((1e-4, 2e-4))
    assert (found["timeout_ns"], found["slice_ns"]) == (1_500_000_000, 250_000_000)
    assert (found["slices"], found["carry"], found["post_only"]) == (4, 0, 0)
    assert Orders().rules()["timeout_ns"] == records.NEVER


def test_what_is_printed_makes_the_same_orders_again():
    orders = Orders(kind="limit", offset_bps=1.0, tif="gtd", timeout_s=60.0, post_only=True)
    assert eval(repr(orders)) == orders


NUMBERS = ("offset_bps", "limit_offset_bps", "trail_bps", "timeout_s", "slices", "slice_s")
BESIDE = {
    "offset_bps": {"kind": "limit"},
    "limit_offset_bps": {"kind": "stop_limit"},
    "trail_bps": {"kind": "trailing_stop"},
    "timeout_s": {"tif": "gtd"},
    "slices": {"slice_s": 1.0},
    "slice_s": {"slices": 2},
}


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -20_000.0, True, "1"], ids=repr)
def test_number_that_cannot_be_meant_is_refused_with_its_key_and_value(key, value):
    with pytest.raises(ConfigError, match=rf"^orders\.{key} must be .*, was {value!r}$"):
        Orders(**(BESIDE[key] | {key: value}))


@pytest.mark.parametrize("key", NUMBERS)
def test_number_that_something_follows_from_is_never_null_nor_zero(key):
    if key in ("trail_bps", "timeout_s", "slices", "slice_s"):
        with pytest.raises(ConfigError, match=rf"orders\.{key}|slice_s above 0"):
            Orders(**(BESIDE[key] | {key: 0}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "limt"}, "orders.kind does not know 'limt'; did you mean 'limit'?"),
        ({"tif": "day"}, "orders.tif does not know 'day'; there is: fok, gtc, gtd, ioc"),
        ({"then": "markt"}, "orders.then does not know 'markt'; did you mean 'market'?"),
        ({"post_only": 1}, "orders.post_only must be true or false, was 1"),
        ({"carry": "no"}, "orders.carry must be true or false, was 'no'"),
        ({"offset_bps": 5.0}, "orders.offset_bps was 5.0, and means nothing with orders.kind"),
        ({"kind": "stop", "limit_offset_bps": 5.0}, "only with stop_limit"),
        ({"kind": "stop", "trail_bps": 5.0}, "only with trailing_stop"),
        ({"kind": "stop", "post_only": True}, "only with limit"),
        ({"timeout_s": 5.0}, "orders.timeout_s was 5.0, and means nothing with orders.tif 'gtc'"),
        ({"tif": "gtd"}, "orders.timeout_s is missing"),
        ({"then": "market"}, "set tif to gtd, was 'gtc'"),
        ({"kind": "trailing_stop"}, "orders.trail_bps must be > 0"),
        ({"kind": "stop", "offset_bps": -1.0}, "orders.offset_bps must be >= 0, was -1.0"),
        ({"kind": "limit", "offset_bps": -1.0, "post_only": True}, "must be >= 0, was -1.0"),
        ({"kind": "stop", "tif": "ioc"}, "kind was 'stop'; take gtc or gtd"),
        ({"kind": "limit", "tif": "fok", "post_only": True}, "leave nothing to fill"),
        ({"slices": 3}, "go together, were 3 and 0.0"),
        ({"slice_s": 3.0}, "go together, were 1 and 3.0"),
        ({"slices": 2.5, "slice_s": 1}, "orders.slices must be a whole number"),
    ],
)
def test_orders_that_cannot_be_meant_are_refused_with_the_way_out(keys, said):
    with pytest.raises(ConfigError) as caught:
        Orders(**keys)
    assert said in str(caught.value)
