"""Controls of a running book, by hand: sizes, exits, the chain, instruments, financing, states.

Prices are 100 and costs nothing where nothing else is said; a weight of 0.5 is then 49 units.
"""

import math

import pytest
import yaml

from sysquant.checks.chain import PASS, REFUSE
from sysquant.effects import FINANCING_KINDS
from sysquant.errors import ConfigError
from sysquant.orders import KINDS
from sysquant.sizing import FixedNotional, RiskPerTrade, VolatilityTarget, WeightSizing
from tests.conftest import REPOSITORY
from tests.test_limits import PRICES, SIGMA, TAIL, Z
from tests.told import NAN, SECOND, START, STILL, at, bars, flat, made, ran, ticks

# -- sizes


@pytest.mark.parametrize(
    ("sizing", "quantity"),
    [
        (WeightSizing(split=False), 49.0),  # of 5,000
        # A percent a second is 56 a year; a target of 28 takes about half of 5,000.
        (VolatilityTarget(volatility=28.0, split=False), 25.0),
        (VolatilityTarget(volatility=280.0, split=False), 49.0),
        (VolatilityTarget(volatility=280.0, most=1.5, split=False), 74.0),
        (FixedNotional(notional=3_000.0), 14.0),
        (RiskPerTrade(risk=0.01, stop=0.05), 9.0),  # 0.5 x 100 / 5 %
    ],
    ids=["weight", "volatility_target", "most_1", "most_1.5", "fixed_notional", "risk_per_trade"],
)
def test_each_sizing_reads_a_weight_in_its_own_way(sizing, quantity):
    events = flat(100 / 1.01, 100, 100)
    found = ran(events, [NAN, 0.5], sizing=sizing, execution={"statistics_span": 1})
    assert made(found) == [("signal", quantity)]


def test_equity_is_split_among_the_symbols_or_not():
    events = [*flat(100), *flat(100, symbol=1), *flat(100, first=2)]
    for split, quantity in ((True, 24.0), (False, 49.0)):
        found = ran(events, [0.5], others=[{}], sizing=WeightSizing(band=1.0, split=split))
        assert made(found) == [("signal", quantity)] * 2


def test_an_unchanged_target_trades_outside_its_band_only():
    # At 110 equity is 10,490 and 47 are wanted: 2 of them are 0.0425 of the target.
    for band, more in ((0.05, []), (0.04, [("signal", -2.0)])):
        found = ran(flat(100, 100, 110, 110), [0.5], sizing=WeightSizing(band=band, split=False))
        assert made(found) == [("signal", 49.0), *more]


def test_a_refused_order_waits_until_it_is_proposed_again():
    found = ran(
        flat(*[100] * 8), [0.5], checks=[("order_notional", 50.0)],
        sizing=WeightSizing(retry_after=3, split=False),
    )  # fmt: skip
    assert found.seen("orders", "ts") == [(at(1),), (at(4),), (at(7),)]


# -- exits


@pytest.mark.parametrize(
    ("exits", "rows", "second"),
    [
        ({"stop_loss": 0.02}, [(100, 100, 98, 99, 1e6)], 3),
        ({"take_profit": 0.03}, [(100, 103, 100, 102, 1e6)], 3),
        (
            {"trailing_stop": 0.02},
            [(100, 110, 100, 110, 1e6), (110, 110, 107.8, 109, 1e6)], 4,
        ),
        ({"max_hold_s": 1.5}, [STILL, STILL], 3),
        ({"flatten_drawdown": 0.05}, [(89, 89, 89, 89, 1e6)], 3),
    ],
    ids=["stop_loss", "take_profit", "trailing_stop", "max_hold", "drawdown"],
)  # fmt: skip
def test_an_exit_rule_leaves_the_position_at_its_level(exits, rows, second, request):
    found = ran(bars(STILL, STILL, *rows, STILL), [0.5], exits=exits)
    purpose = request.node.callspec.id
    assert made(found) == [("signal", 49.0), (purpose, -49.0)]
    assert found.orders[1].ts == at(second) - 1
    assert found.engine.positions() == {"s0": {}}


@pytest.mark.parametrize(
    ("exits", "rows"),
    [
        ({"stop_loss": 0.02}, [(100, 100, 98.01, 99, 1e6)]),
        ({"take_profit": 0.03}, [(100, 102.99, 100, 102, 1e6)]),
        ({"trailing_stop": 0.02}, [(100, 110, 100, 110, 1e6), (110, 110, 107.81, 109, 1e6)]),
        ({"max_hold_s": 3.0}, [STILL, STILL]),
        ({"flatten_drawdown": 0.05}, [(90, 90, 90, 90, 1e6)]),
    ],
    ids=["stop_loss", "take_profit", "trailing_stop", "max_hold", "drawdown"],
)
def test_an_exit_rule_does_nothing_short_of_its_level(exits, rows):
    found = ran(bars(STILL, STILL, *rows), [0.5], exits=exits)
    assert made(found) == [("signal", 49.0)]


def test_of_a_bar_the_worse_extreme_is_tested_first():
    events = bars(STILL, STILL, (100, 104, 97, 100, 1e6))
    found = ran(events, [0.5], exits={"stop_loss": 0.02, "take_profit": 0.03})
    assert made(found)[1] == ("stop_loss", -49.0)
    assert found.engine.ambiguous == 1


def test_the_side_that_an_exit_closed_opens_again_by_signal_or_after_bars():
    closes = [100, 100, 97, *[97] * 7]
    left = [("signal", 49.0), ("stop_loss", -49.0)]
    loss = {"stop_loss": 0.02}
    assert made(ran(flat(*closes), {1: 0.5, 4: 0.6}, exits=loss)) == left
    by_zero = ran(flat(*closes), {1: 0.5, 5: 0.0, 6: 0.5}, exits=loss)
    assert made(by_zero)[:2] == left and by_zero.orders[2].ts == at(6)
    other_side = ran(flat(*closes), {1: 0.5, 5: -0.5}, exits=loss)
    assert other_side.orders[2].quantity < 0 and other_side.orders[2].ts == at(5)
    by_bars = ran(
        flat(*closes), [0.5], exits=loss | {"rearm": "bars", "rearm_bars": 3},
        sizing=WeightSizing(split=False),
    )  # fmt: skip
    assert by_bars.orders[2].quantity > 0 and by_bars.orders[2].ts == at(5)


# -- the risk chain


def test_an_order_that_is_too_large_is_cut_to_the_room_of_every_check():
    checks = [("order_notional", 3_000.0), ("position_quantity", 31.0)]
    whole, cut = (ran(flat(100, 100), [0.5], checks=checks, risk={"cut": c}) for c in (False, True))
    assert whole.seen("orders", "asked", "quantity", "approved") == [(49.0, 49.0, 0)]
    assert cut.seen("orders", "asked", "quantity", "approved") == [(49.0, 30.0, 1)]
    assert cut.seen("risk_receipts", "attempt") == [(1,), (2,)]
    assert cut.executions[0].quantity == 30.0


def test_every_check_leaves_a_receipt_although_the_first_refuses():
    checks = [("order_notional", 1.0), ("order_quantity", 100.0), ("drawdown", -1.0)]
    (receipt,) = ran(flat(100, 100), [0.5], checks=checks).risk_receipts
    assert list(receipt.verdict[:3]) == [REFUSE, PASS, REFUSE]
    assert list(receipt.room) == [0.01, 100.0, 0.0]


# Returns of 1, -2, 3, -1 %; the order is half of equity.
@pytest.mark.parametrize(
    ("check", "changed", "value"),
    [
        ("value_at_risk", {"confidence": 0.95}, 0.5 * 0.02),
        ("value_at_risk", {"confidence": 0.6}, 0.5 * 0.01),
        ("value_at_risk", {"confidence": 0.95, "window": 2, "least_history": 2}, 0.5 * 0.01),
        ("value_at_risk", {"risk_bar": 2 * SECOND, "least_history": 2}, 0.0),
        ("value_at_risk", {"least_history": 5}, NAN),
        ("value_at_risk", {"least_history": 5, "min_history": "allow"}, 0.5 * 0.01),
        ("covariance_value_at_risk", {"decay": 0.9}, 0.5 * Z * SIGMA),
        (
            "covariance_value_at_risk", {"decay": 0.5},
            0.5 * Z * math.sqrt((0.01**2 + 2 * 0.02**2 + 4 * 0.03**2 + 8 * 0.01**2) / 15),
        ),
    ],
    ids=[
        "confidence_0.95", "confidence_0.6", "window", "risk_bar", "refuse", "allow", "decay_0.9",
        "decay_0.5",
    ],
)  # fmt: skip
def test_the_tail_is_measured_as_its_keys_say(check, changed, value):
    found = ran(
        PRICES, {5: 0.5}, checks=[(check, 1.0)], risk=TAIL["risk"] | changed,
        instrument=TAIL["instrument"],
    )  # fmt: skip
    (receipt,) = found.risk_receipts
    assert receipt.value[0] == pytest.approx(value, rel=1e-6, nan_ok=True)
    assert found.orders[0].approved == (not math.isnan(value))


# -- instruments


def test_prices_lie_on_the_tick_against_the_order():
    for weight, price in ((0.5, 100.25), (-0.5, 99.75)):
        found = ran(
            flat(100, 100), [weight], instrument={"tick_size": 0.25},
            execution={"slippage_bps": 10.0},
        )  # fmt: skip
        assert found.executions[0].price == price


def test_quantities_are_whole_lots_and_not_below_the_smallest_value():
    assert made(ran(flat(100, 100), [0.5], instrument={"lot_size": 10.0})) == [("signal", 40.0)]
    assert made(ran(flat(100, 100), [0.5], instrument={"lot_size": 0.001})) == [("signal", 49.995)]
    events = flat(100, 100, 100)
    for least, orders in ((499.0, 2), (501.0, 1)):  # from 49 to 54 are 500
        found = ran(events, [0.5, 0.55], instrument={"min_notional": least})
        assert len(found.orders) == orders


def test_a_contract_is_worth_its_multiple():
    found = ran(flat(100, 100, 100), [1.0], instrument={"multiplier": 10.0})
    assert made(found) == [("signal", 9.0)]
    assert found.engine.accounts()["s0"]["cash"] == 10_000 - 9 * 1_000


def test_volume_may_be_told_in_value():
    for unit, quantity in (("base", 49.0), ("quote", 20.0)):  # 4,000 of value are 40 units
        found = ran(
            flat(100, 100, volume=4_000), [0.5], instrument={"volume_unit": unit},
            execution={"participation": 0.5},
        )  # fmt: skip
        assert found.executions[0].quantity == quantity


def test_another_currency_is_converted_at_the_last_price_of_its_symbol():
    euro = {"currency": "EUR", "conversion": "B"}
    events = [*ticks((0.1, 2.0, 1)), *ticks((0.2, 100), (1.0, 100), (1.1, 100), (1.2, 3.0, 1))]
    found = ran(events, {1: 0.5}, instrument=euro, others=[{"lot_size": 1e9}])
    assert made(found) == [("signal", 24.0)]
    account = found.engine.accounts()["s0"]
    assert (account["cash"], account["equity"]) == (10_000 - 24 * 200, 10_000 + 24 * 100)
    unknown = ran(ticks((0.2, 100), (1.0, 100)), [0.5], instrument=euro, others=[{}])
    assert not unknown.orders, "without a rate nothing is proposed"
    with pytest.raises(ConfigError, match="conversion"):
        ran(events, [0.5], instrument={"currency": "EUR"})


# -- financing: the first whole hour is 2,800 s after the start, half an hour 1,000 s

HELD = ticks((0.2, 100), (1.0, 100), (1.1, 100), (2_801, 100))
PERPETUAL = {"instrument": {"perpetual": True}}
LEVERED = [*ticks((0.2, 100), (0.2, 100, 1), (1.0, 100), (1.0, 100, 1)), *HELD[3:]]


@pytest.mark.parametrize(
    ("weight", "keys", "more", "rows"),
    [
        (-0.5, {"borrow_rate": 0.0876}, {}, [("borrow", 2_800, 0.049)]),
        (0.5, {"borrow_rate": 0.0876}, {}, []),
        (
            -0.5, {"borrow_rate": 0.0876, "financing_hours": 0.5}, {},
            [("borrow", 1_000, 0.0245), ("borrow", 2_800, 0.0245)],
        ),
        (0.9, {"interest_rate": 0.0876}, {"others": [{}]}, [("interest", 2_800, 0.078)]),
        (0.5, {"funding_rate": 1e-4}, PERPETUAL, [("funding", 2_800, 0.49)]),
        (-0.5, {"funding_rate": 1e-4}, PERPETUAL, [("funding", 2_800, -0.49)]),
        (0.5, {"funding_rate": 1e-4}, {}, []),
        (
            0.5, {"funding_rate": 1e-4, "funding_hours": 0.5}, PERPETUAL,
            [("funding", 1_000, 0.49), ("funding", 2_800, 0.49)],
        ),
        (
            0.5, {
                "funding_rate": 1e-4, "funding_hours": 0.5,
                "funding": {"A": ([at(1_001), at(2_800), at(2_801)], [5.0e-4, 2e-4, 9e-4])},
            }, PERPETUAL,
            [("funding", 1_000, 0.49), ("funding", 2_800, 0.98)],
        ),
    ],
    ids=[
        "borrow", "long_pays_no_borrow", "financing_hours", "interest", "funding_of_a_long",
        "funding_of_a_short", "spot", "funding_hours", "series",
    ],
)  # fmt: skip
def test_what_is_held_is_financed_at_its_hours(weight, keys, more, rows):
    hours = {"financing_hours": 1.0, "funding_hours": 1.0}
    events = LEVERED if "others" in more else HELD
    found = ran(events, [weight], execution=hours | keys, **more)
    paid = [(FINANCING_KINDS[r.kind], (r.ts - START) / SECOND, r.amount) for r in found.financing]
    assert [row[:2] for row in paid] == [row[:2] for row in rows]
    assert [row[2] for row in paid] == pytest.approx([row[2] for row in rows])
    bought = sum(row.quantity * row.price for row in found.executions)
    cash = 10_000 - bought - sum(row[2] for row in rows)
    assert found.engine.accounts()["s0"]["cash"] == pytest.approx(cash)


# -- accounts


def test_capital_is_divided_and_the_rest_stays_in_the_pool():
    found = ran(flat(100, 100), [0.5], capital=20_000.0, fractions={"s0": 0.25})
    assert made(found) == [("signal", 24.0)]
    assert found.engine.accounts()["s0"]["allocation"] == 5_000
    pool = [row.equity for row in found.portfolio_history if row.strategy == -1]
    assert set(pool) == {15_000.0}


def test_an_order_that_is_refused_is_told_with_its_reasons():
    checks = [("order_notional", 1.0), ("order_quantity", 100.0), ("drawdown", -1.0)]
    (order,) = ran(flat(100, 100), [0.5], checks=checks).orders
    assert (order.approved, order.refused_by) == (0, 0b101)


# -- presets


def preset(group, name):
    node = yaml.safe_load((REPOSITORY / "conf" / group / f"{name}.yaml").read_text())
    base = [one for one in node.pop("defaults", []) if one != "_self_"]
    keys = preset(group, base[0]) | node if base else node
    return {key: value for key, value in keys.items() if key != "_target_"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("passive", [("limit", at(1)), ("market", at(62) - 1)]),
        ("stop_entry", [("stop", at(1))]),
        ("twap", [("market", at(1)), *(("market", at(62 + 60 * n) - 1) for n in range(9))]),
    ],
    ids=["passive", "stop_entry", "twap"],
)
def test_presets_place_orders_as_they_say(name, kinds):
    found = ran(flat(*[100.0] * 700), [0.5], orders=preset("orders", name))
    assert [(KINDS[row.kind], row.ts) for row in found.orders] == kinds
    assert found.orders[0].limit_price == 99.99 or name != "passive"
    assert found.orders[0].stop_price == 100.1 or name != "stop_entry"


@pytest.mark.parametrize("name", ["stops", "bracket"])
def test_presets_leave_positions_as_they_say(name):
    exits = preset("exits", name)
    falls = ran(flat(100, 100, 98, 98), [0.5], exits=exits)
    rises = ran(flat(100, 100, 104, 104), [0.5], exits=exits)
    left = {"bracket": ["signal", "stop_loss", "take_profit"], "stops": ["signal", "stop_loss"]}
    assert [purpose for purpose, _ in made(falls)] == left[name]
    assert falls.engine.positions() == {"s0": {}}
    assert rises.engine.positions() == {"s0": {} if name == "bracket" else {"A": 49.0}}
