"""Every check: its limit, what is not a number, the room it leaves, who is exempt from it."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records
from sysquant.checks import CHECKS
from sysquant.checks.chain import EXEMPT, PASS, REFUSE, review
from tests.conftest import REPOSITORY

NAN, INF = math.nan, math.inf
EPSILON = 2.0**-20  # exact in every product below: all numbers are multiples of powers of two
UNIT = 128.0  # price x unit
SAFE = {
    "reduces": 0, "side": 1, "quantity": 1.0, "held": 0.0, "unit": 2.0, "price": 64.0,
    "worst": 64.0, "reference": 64.0, "previous": 64.0, "stale_s": 0.0, "feed_lag_s": 0.0,
    "min_notional": 16.0, "max_position": INF, "shortable": 1.0, "restricted": 0.0,
    "quality": 1.0, "session_left_s": INF, "state": 0.0, "allocation": 1024.0, "equity": 1024.0,
    "peak": 1024.0, "stake": 1024.0,
    "cash_others": 1024.0, "unit_cost": UNIT, "fixed_cost": 2.0, "shorts_others": 0.0,
    "gross_others": 0.0, "net_others": 0.0, "largest_others": 0.0, "positions_others": 0.0,
    "open_orders": 0.0, "book_equity": 4096.0, "book_peak": 4096.0, "book_gross_others": 0.0,
    "book_net_others": 0.0, "book_held": 0.0, "book_largest_others": 0.0,
    "book_positions_others": 0.0, "book_open_orders": 0.0, "day_equity": 1024.0,
    "book_day_equity": 4096.0, "losses": 0.0, "since_stop_s": INF, "orders_second": 0.0,
    "orders_minute": 0.0, "entries": 0.0, "disabled": 0.0, "since_duplicate_s": INF,
    "opposite_orders": 0.0, "bars": 1000.0, "promoted": 1.0, "exposed": 0, "history": 8.0,
    "scenarios": 8.0, "worst_scenarios": 2.0, "variance_a": 0.0, "variance_b": 0.0,
    "variance_c": 0.0, "z_var": 2.0, "z_es": 2.0, "risk_bars_per_year": 4.0, "correlation": 0.0,
}  # fmt: skip
SALE = {"side": -1, "quantity": -1.0}

# check -> a limit, and facts of an order that has the value v.
CASES = {
    "order_quantity": (8.0, lambda v: {"quantity": v}),
    "order_notional": (1024.0, lambda v: {"quantity": v / UNIT}),
    "order_size": (0.5, lambda v: {"quantity": v * 8}),
    "min_notional": (8.0, lambda v: {"min_notional": UNIT - v}),
    "price_collar": (0.25, lambda v: {"worst": 64 * (1 + v)}),
    "reference_collar": (0.25, lambda v: {"price": 64 * (1 + v)}),
    "stale_price": (8.0, lambda v: {"stale_s": v}),
    "feed_lag": (8.0, lambda v: {"feed_lag_s": v}),
    "tick_jump": (0.25, lambda v: {"price": 64 * (1 + v)}),
    "cash": (256.0, lambda v: {"cash_others": v + UNIT + 2}),
    "order_rate_second": (8.0, lambda v: {"orders_second": v - 1}),
    "order_rate_minute": (8.0, lambda v: {"orders_minute": v - 1}),
    "repeated_order": (8.0, lambda v: {"entries": v - 1}),
    "duplicate_order": (8.0, lambda v: {"since_duplicate_s": v}),
    "self_match": (8.0, lambda v: {"opposite_orders": v}),
    "warm_up": (8.0, lambda v: {"bars": v}),
    "trading_window": (8.0, lambda v: {"session_left_s": v}),
    "restricted": (0.0, lambda v: {"restricted": v}),
    "data_quality": (0.5, lambda v: {"quality": v}),
    "state": (1.0, lambda v: {"state": v}),
    "position_quantity": (16.0, lambda v: {"held": v - 1}),
    "position_notional": (1024.0, lambda v: {"held": v / UNIT - 1}),
    "position_weight": (0.5, lambda v: {"held": v * 8 - 1}),
    "not_promoted": (0.5, lambda v: {"held": v * 8 - 1, "promoted": 0.0}),
    "short_limit": (0.5, lambda v: {**SALE, "shorts_others": v * 1024 - UNIT}),
    "long_only": (-4.0, lambda v: {**SALE, "held": v + 1}),
    "shortable": (-4.0, lambda v: {**SALE, "held": v + 1, "shortable": 0.0}),
    "gross_exposure": (1024.0, lambda v: {"gross_others": v - UNIT}),
    "net_exposure": (1024.0, lambda v: {"net_others": v - UNIT}),
    "leverage": (0.5, lambda v: {"gross_others": v * 1024 - UNIT}),
    "concentration": (0.5, lambda v: {"largest_others": v * 1024, "gross_others": 1024 - UNIT}),
    "open_positions": (8.0, lambda v: {"positions_others": v - 1}),
    "open_orders": (8.0, lambda v: {"open_orders": v - 1}),
    "book_gross_exposure": (1024.0, lambda v: {"book_gross_others": v - UNIT}),
    "book_net_exposure": (1024.0, lambda v: {"book_net_others": v - UNIT}),
    "book_leverage": (0.5, lambda v: {"book_gross_others": v * 4096 - UNIT}),
    "book_concentration": (
        0.5, lambda v: {"book_largest_others": v * 1024, "book_gross_others": 1024 - UNIT}
    ),
    "book_open_positions": (8.0, lambda v: {"book_positions_others": v - 1}),
    "book_open_orders": (8.0, lambda v: {"book_open_orders": v - 1}),
    "drawdown": (0.25, lambda v: {"equity": 1024 * (1 - v)}),
    "book_drawdown": (0.25, lambda v: {"book_equity": 4096 * (1 - v)}),
    "daily_loss": (0.25, lambda v: {"equity": 1024 * (1 - v)}),
    "book_daily_loss": (0.25, lambda v: {"book_equity": 4096 * (1 - v)}),
    "consecutive_losses": (8.0, lambda v: {"losses": v}),
    "cooldown": (8.0, lambda v: {"since_stop_s": v}),
    "give_back": (0.5, lambda v: {"peak": 2048.0, "equity": 2048 - 1024 * v}),
    "covariance_value_at_risk": (0.25, lambda v: {"variance_a": v * v * 2.0**22}),
    "covariance_expected_shortfall": (0.25, lambda v: {"variance_a": v * v * 2.0**22}),
    "volatility": (0.25, lambda v: {"variance_a": v * v * 2.0**22}),
    "correlation": (0.5, lambda v: {"correlation": v}),
    "value_at_risk": (0.25, lambda v: {"base": [0, -v * 4096, 0, 0, -9999, 0, 0, 0]}),
    "expected_shortfall": (0.25, lambda v: {"base": [0, -v * 4096, 0, 0, -v * 4096, 0, 0, 0]}),
}  # fmt: skip
LEAST = {
    "min_notional", "cash", "duplicate_order", "warm_up", "trading_window", "data_quality",
    "long_only", "shortable", "cooldown",
}  # fmt: skip
NEVER_EXEMPT = {
    "order_quantity", "order_notional", "price_collar", "stale_price", "feed_lag",
    "duplicate_order", "self_match",
}  # fmt: skip
# Flags whose every value but one is the strict one.
FLAGS = {"shortable", "promoted"}


def reviewed(names, limits, **facts):
    """Value, verdict and room by place, and the bits, of an order of these facts."""
    facts = SAFE | facts
    base = np.array(facts.pop("base", [0.0] * 8), float)
    moves = np.array(facts.pop("moves", [0.0] * 8), float)
    row = np.zeros(1, records.FACTS)
    for name, value in facts.items():
        row[name] = value
    count = len(names)
    value, room, verdict = np.empty(count), np.empty(count), np.empty(count, np.int8)
    places = np.full(len(CHECKS), -1)
    places[[CHECKS[name].number for name in names]] = np.arange(count)
    bits = review(row[0], base, moves, places, np.array(limits, float), value, room, verdict)
    assert all(room >= 0), "a room is never negative and never NaN"
    assert bits == sum(1 << place for place in range(count) if verdict[place] == REFUSE)
    return value, verdict, room, bits


def checked(name, limit, **facts):
    value, verdict, room, _ = reviewed([name], [limit], **facts)
    return value[0], verdict[0], room[0]


def beyond(name, step):
    """Facts of an order whose value lies `step` on the wrong side of the limit."""
    limit, facts = CASES[name]
    return facts(limit - step if name in LEAST else limit + step)


each_check = pytest.mark.parametrize("name", CASES)


def test_every_check_has_a_case():
    assert list(CASES) == list(CHECKS)
    assert set(SAFE) == set(records.FACTS.names)


@each_check
def test_a_check_passes_at_its_limit_and_within_and_refuses_beyond(name):
    limit, facts = CASES[name]
    for step, verdict in ((-EPSILON, PASS), (0.0, PASS), (EPSILON, REFUSE)):
        wanted = limit - step if name in LEAST else limit + step
        if wanted < 0 and name == "restricted":
            continue
        value, given, _ = checked(name, limit, **facts(wanted))
        assert (value, given) == (wanted, verdict), step


@each_check
def test_a_value_that_is_no_number_refuses(name):
    limit, facts = CASES[name]
    value, verdict, room = checked(name, limit, **facts(NAN))
    assert verdict == REFUSE and math.isnan(value)
    assert room in (0.0, limit, limit / UNIT, limit * 8), "the size may be what is not known"


@each_check
def test_a_limit_that_is_no_number_refuses_even_a_reducing_order(name):
    assert checked(name, NAN, reduces=1)[1:] == (REFUSE, 0.0)


@each_check
def test_an_infinite_value_on_the_wrong_side_refuses(name):
    limit, facts = CASES[name]
    assert checked(name, limit, **facts(-INF if name in LEAST else INF))[1] == REFUSE


@each_check
@pytest.mark.parametrize("huge", [1e308, 1.7e308])
def test_a_huge_value_is_on_its_side_of_the_limit(name, huge):
    limit, facts = CASES[name]
    assert checked(name, limit, **facts(-huge if name in LEAST else huge))[1] == REFUSE
    assert checked(name, huge if name not in LEAST else -huge)[1] == PASS


@each_check
def test_zero_has_no_sign(name):
    _, facts = CASES[name]
    for limit in (0.0, -0.0):
        plus, minus = (checked(name, limit, **facts(zero)) for zero in (0.0, -0.0))
        assert plus == minus == checked(name, 0.0, **facts(0.0))


@each_check
def test_a_number_that_is_not_known_is_not_read_or_refuses(name):
    limit, _ = CASES[name]
    case = CASES[name][1](limit)
    before = checked(name, limit, **case)
    assert before[1] == PASS
    for fact in records.FACTS.names:
        if records.FACTS[fact].kind == "f" and fact not in FLAGS:
            value, verdict, room = checked(name, limit, **(case | {fact: NAN}))
            assert verdict == REFUSE or (value == before[0] and room in (before[2], 0.0)), fact


@each_check
def test_a_reducing_order_is_exempt_where_the_table_says_so(name):
    limit, facts = CASES[name]
    verdict = REFUSE if name in NEVER_EXEMPT else EXEMPT
    assert checked(name, limit, **beyond(name, 1.0), reduces=1)[1] == verdict
    assert checked(name, limit, **facts(NAN), reduces=1)[1] == verdict
    assert checked(name, limit, **facts(limit), reduces=1)[1] == PASS


def test_code_and_contract_have_the_same_table():
    text = (REPOSITORY / "docs" / "engine.md").read_text().replace(r"\|", "")
    table = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    rows = {
        name: (row[4].strip() == "most", row[5].strip() == "E")
        for row in table
        if len(row) == 8
        for name in re.findall(r"`(\w+)`", row[1])
    }
    assert rows == {name: (check.most, check.exempt) for name, check in CHECKS.items()}


@each_check
def test_without_a_check_an_order_passes_that_it_alone_refuses(name):
    names = list(CHECKS)
    limits = [-1e12 if check in LEAST else 1e12 for check in names]
    place = names.index(name)
    limits[place] = CASES[name][0]
    facts = beyond(name, 0.5)
    assert reviewed(names, limits, **facts)[3] == 1 << place
    del names[place], limits[place]
    assert reviewed(names, limits, **facts)[3] == 0


@given(
    facts=st.fixed_dictionaries(
        {
            name: st.sampled_from([-1, 1] if name == "side" else [0, 1])
            if records.FACTS[name].kind == "i"
            else st.floats() | st.sampled_from([0.0, 1.0, 4.0, 8.0])
            for name in records.FACTS.names
        }
    ),
    limit=st.floats(),
    base=st.lists(st.floats(), min_size=8, max_size=8),
)
def test_no_facts_break_the_chain(facts, limit, base):
    names = list(CHECKS)
    value, verdict, _, _ = reviewed(names, [limit] * len(names), **facts, base=base)
    for name, number, said in zip(names, value, verdict, strict=True):
        passes = number >= limit if name in LEAST else number <= limit
        assert passes == (said == PASS), name


# -- single checks


def of_size(size, side, facts):
    return facts | {"side": side, "quantity": side * size}


def test_size_does_not_matter_to_what_never_moved():
    assert checked("volatility", 0.25, variance_a=0.0)[2] == INF
    assert checked("volatility", 0.25, variance_a=1e9)[1:] == (REFUSE, 0.0)
    assert checked("shortable", 0.0, **of_size(5.0, -1, {}))[1:] == (PASS, INF)
    assert checked("not_promoted", 0.0, held=100.0)[1:] == (PASS, INF)


@pytest.mark.parametrize(
    ("name", "capital"),
    [
        ("order_size", "allocation"), ("position_weight", "equity"), ("short_limit", "equity"),
        ("leverage", "equity"), ("book_leverage", "book_equity"), ("drawdown", "peak"),
        ("book_drawdown", "book_peak"), ("daily_loss", "day_equity"),
        ("book_daily_loss", "book_day_equity"), ("value_at_risk", "book_equity"),
        ("expected_shortfall", "book_equity"), ("covariance_value_at_risk", "book_equity"),
        ("volatility", "book_equity"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nothing", [0.0, -1.0, -1e9])
def test_a_fraction_of_no_capital_is_infinite(name, capital, nothing):
    for held in (-4.0, 0.5):
        value, verdict, room = checked(name, 1e12, **SALE, held=held, **{capital: nothing})
        assert (value, verdict, room) == (INF, REFUSE, 0.0)


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_a_small_limit_leaves_room_to_close_the_position(limit):
    facts = of_size(1.0, 1, {"held": -8.0})
    for name in ("position_notional", "gross_exposure", "net_exposure", "book_gross_exposure"):
        assert checked(name, limit, **facts)[2] == 8.0 + limit / UNIT, name
    for name in ("position_weight", "leverage"):
        assert checked(name, limit, **facts)[2] == 8.0 + limit * 1024 / UNIT, name
    assert checked("position_quantity", limit, **facts)[2] == 8.0 + limit
    assert checked("book_net_exposure", limit, **facts, book_held=-8.0)[2] == 8.0 + limit / UNIT
    assert checked("long_only", 0.0, **of_size(1.0, -1, {"held": 0.5}))[2] == 0.5


def test_no_size_passes_where_the_others_are_beyond_the_limit():
    facts = {"held": -10.0, "gross_others": 1e6, "book_gross_others": 1e6}
    for name in ("gross_exposure", "leverage", "book_gross_exposure", "book_leverage"):
        assert checked(name, 100.0, **facts)[1:] == (REFUSE, 0.0)
    facts = {**SALE, "held": 10.0, "shorts_others": 1e6}
    assert checked("short_limit", 0.5, **facts)[1:] == (REFUSE, 0.0)
    for name in ("position_quantity", "position_notional", "net_exposure"):
        assert checked(name, -1.0, held=-10.0)[1:] == (REFUSE, 0.0)


def test_an_instrument_with_a_largest_position_has_that_one_as_its_limit():
    for largest, verdict in ((4.0, PASS), (2.0, REFUSE)):
        value, given, room = checked("position_quantity", 1.0, held=2.0, max_position=largest)
        assert (value, given, room) == (3.0 / largest, verdict, largest - 2.0)
    assert checked("position_quantity", 0.0, max_position=4.0)[1:] == (REFUSE, 0.0)


def test_a_disabled_strategy_repeats_itself_without_end():
    assert checked("repeated_order", 1e9, disabled=1.0) == (INF, REFUSE, 0.0)


def test_nothing_held_is_no_position_and_concentrates_nothing():
    flat = {**SALE, "held": 1.0, "book_held": 1.0}
    for name in ("open_positions", "book_open_positions", "concentration", "book_concentration"):
        assert checked(name, 0.0, **flat)[:2] == (0.0, PASS)


def test_a_short_book_is_as_concentrated_as_a_long_one():
    facts = {"book_held": -20.0, "held": -20.0, "book_gross_others": 256.0}
    assert checked("book_concentration", 1.0, **facts)[0] == 19 / 21


def test_only_what_was_won_can_be_given_back():
    assert checked("give_back", 0.1, peak=1024.0, equity=10.0)[:2] == (0.0, PASS)
    assert checked("give_back", 1.0, peak=2048.0, equity=1280.0)[:2] == (0.75, PASS)


def test_only_what_ends_short_counts_as_short():
    for held, short in ((9.0, 0.0), (1.5, 0.0), (1.0, 0.0), (0.5, 0.5 * UNIT), (-1.0, 2 * UNIT)):
        value = checked("short_limit", 1.0, **SALE, held=held, shorts_others=256.0)[0]
        assert value == (256.0 + short) / 1024.0
        units = checked("long_only", -9.0, **SALE, held=held)[0]
        assert units == -short / UNIT


def test_a_loss_is_a_fraction_of_however_little_there_was():
    assert checked("drawdown", 0.5, peak=0.5, equity=0.25)[:2] == (0.5, PASS)


@pytest.mark.parametrize("left", [0.0, -0.0, -1024.0])
def test_a_fraction_of_nothing_is_infinite(left):
    capital = {
        "order_size": "allocation", "position_weight": "equity", "not_promoted": "equity",
        "short_limit": "equity", "leverage": "equity", "book_leverage": "book_equity",
        "drawdown": "peak", "book_drawdown": "book_peak", "daily_loss": "day_equity",
        "book_daily_loss": "book_day_equity", "value_at_risk": "book_equity",
        "expected_shortfall": "book_equity", "covariance_value_at_risk": "book_equity",
        "covariance_expected_shortfall": "book_equity", "volatility": "book_equity",
    }  # fmt: skip
    for name, of in capital.items():
        order = of_size(1.0, -1, {of: left, "promoted": 0.0, "variance_a": 4.0})
        assert checked(name, 1e9, **order) == (INF, REFUSE, 0.0), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_quantity", 3.0), ("position_notional", 384.0), ("position_weight", 0.375),
        ("gross_exposure", 884.0), ("net_exposure", 184.0), ("leverage", 884 / 1024),
        ("concentration", 400 / 884), ("open_positions", 3.0), ("open_orders", 8.0),
        ("book_gross_exposure", 2384.0), ("book_net_exposure", 1660.0),
        ("book_leverage", 2384 / 4096), ("book_concentration", 1536 / 2384),
        ("book_open_positions", 5.0), ("book_open_orders", 10.0), ("short_limit", 0.5),
        ("cash", 1024.0 - 2 * 130 - 2), ("order_notional", 256.0), ("order_size", 0.25),
        ("min_notional", 240.0), ("price_collar", 0.03125), ("reference_collar", 1.0),
        ("tick_jump", 0.5), ("shortable", 0.0), ("restricted", 1.0),
    ],
)  # fmt: skip
def test_every_part_of_an_order_and_its_book_counts(name, value):
    facts = {
        "quantity": 2.0, "held": 1.0, "gross_others": 500.0, "net_others": -200.0,
        "largest_others": 400.0, "positions_others": 2.0, "open_orders": 7.0,
        "book_gross_others": 2000.0, "book_net_others": 124.0, "book_held": 10.0,
        "book_largest_others": 300.0, "book_positions_others": 4.0, "book_open_orders": 9.0,
        "shorts_others": 512.0, "unit_cost": 130.0, "worst": 66.0, "reference": 32.0,
        "previous": 128.0, "restricted": 1.0,
    }  # fmt: skip
    assert checked(name, 1e12, **facts)[0] == value


def test_no_position_is_long_enough_for_a_limit_above_0():
    for name in ("long_only", "shortable"):
        facts = of_size(1.0, -1, {"held": 8.0, "shortable": 0.0})
        assert checked(name, 0.5, **facts) == (0.0, REFUSE, 0.0)


def test_distances_and_sizes_have_no_sign():
    assert checked("price_collar", 0.25, worst=48.0)[:2] == (0.25, PASS)
    assert checked("reference_collar", 0.25, price=48.0)[:2] == (0.25, PASS)
    assert checked("tick_jump", 0.25, price=48.0)[:2] == (0.25, PASS)
    sale = {"side": -1, "quantity": -4.0}
    for name, value in {
        "order_quantity": 4.0, "order_notional": 512.0, "order_size": 0.5, "min_notional": 496.0,
    }.items():  # fmt: skip
        assert checked(name, value, **sale)[:2] == (value, PASS)


def test_a_sale_leaves_the_cash_that_it_brings():
    sale = {"side": -1, "quantity": -4.0, "unit_cost": -100.0}
    assert checked("cash", 1422.0, **sale) == (1024.0 - 2 + 400, PASS, INF)
    assert checked("cash", 1423.0, **sale)[1:] == (REFUSE, 0.0)
