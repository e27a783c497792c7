"""From weight to quantity by hand for each sizing, what it is worth, and what is refused."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records
from sysquant import sizing as sizes
from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.sizing import (
    FixedNotional,
    RiskPerTrade,
    VolatilityTarget,
    WeightSizing,
    is_worth_it,
    wanted_quantity,
)
from sysquant.steps import steps_of


@numba.njit
def notional(rules, terms, market, weight, equity):
    return sizes.notional(rules, terms, market, weight, equity)


@numba.njit
def is_surely_in_band(rules, terms, instrument, market, weight, equity, held):
    value = sizes.notional(rules, terms, market, weight, equity)
    cost = sizes.worst_unit_cost(terms, instrument, market, value)
    return sizes.is_surely_in_band(value, held, cost, rules, instrument)


HOUR = 3_600_000_000_000
SIZINGS = {
    "weight": WeightSizing(),
    "volatility_target": VolatilityTarget(volatility=0.2),
    "fixed_notional": FixedNotional(notional=10_000.0),
    "risk_per_trade": RiskPerTrade(risk=0.01, stop=0.05),
}
FREE = Execution(latency_ms=0, slippage_bps=0, fee_bps=0)


def row(dtype, **values):
    rows = np.zeros(1, dtype)
    for name, value in values.items():
        rows[name] = value
    return rows[0]


def rules(sizing, share=1.0):
    return row(records.RULES, share=share, **sizing.rules())


def terms(execution=FREE):
    return row(records.TERMS, **execution.terms(HOUR))


def market(**values):
    # 0.4 a year in hours.
    known = {"price": 100.0, "unit": 1.0, "bars": 9, "variance": 0.16 / 8760, "volume": 400.0}
    return row(records.MARKET, **(known | values))


def instrument(**values):
    sizes = {"tick_size": 0.01, "lot_size": 0.001} | values
    steps = steps_of(sizes["tick_size"], sizes["lot_size"])
    return row(records.INSTRUMENT, **({"min_notional": 10.0} | values | steps))


# -- notional


@pytest.mark.parametrize(
    ("sizing", "value"),
    [
        (WeightSizing(), 0.5 * 0.25 * 1e6),
        (VolatilityTarget(volatility=0.2), 0.5 * 0.25 * 1e6 * 0.5),
        (VolatilityTarget(volatility=0.8), 0.5 * 0.25 * 1e6),
        (VolatilityTarget(volatility=0.8, most=3.0), 0.5 * 0.25 * 1e6 * 2.0),
        (VolatilityTarget(volatility=8.0, most=3.0), 0.5 * 0.25 * 1e6 * 3.0),
        (FixedNotional(notional=10_000.0), 0.5 * 10_000.0),
        (RiskPerTrade(risk=0.01, stop=0.05), 0.5 * 0.01 * 1e6 / 0.05),
    ],
    ids=str,
)
def test_notional_by_hand(sizing, value):
    found = notional(rules(sizing, share=0.25), terms(), market(), 0.5, 1e6)
    assert found == pytest.approx(value, rel=1e-12)
    short = notional(rules(sizing, share=0.25), terms(), market(), -0.5, 1e6)
    assert short == -found


def test_volatility_target_is_unknown_until_the_volatility_is():
    sizing = rules(VolatilityTarget(volatility=0.2))
    for early in ({"bars": 0}, {"bars": 1, "variance": math.nan}, {"variance": math.nan}):
        assert math.isnan(notional(sizing, terms(), market(**early), 1.0, 1e6))
        wanted = wanted_quantity(sizing, terms(), instrument(), market(**early), 1.0, 1e6)
        assert math.isnan(wanted)
        assert wanted_quantity(sizing, terms(), instrument(), market(**early), 0.0, 1e6) == 0.0


def test_market_that_stands_still_gets_the_most():
    still = market(variance=0.0)
    sizing = rules(VolatilityTarget(volatility=0.2, most=2.0))
    assert notional(sizing, terms(), still, 1.0, 1e6) == 2e6


# -- quantity


def test_quantity_is_what_costs_leave_affordable():
    execution = Execution(slippage_bps=10.0, fee_bps=20.0)
    found = wanted_quantity(
        rules(WeightSizing()), terms(execution), instrument(taker=0.002), market(), 1.0, 1e6
    )
    worst = (100.0 * 1.001 + 0.01) * 1.002
    assert found == math.floor(1e6 / worst / 0.001) * 0.001
    assert found * worst <= 1e6


def test_slippage_that_grows_with_size_is_taken_at_the_size_that_is_wanted():
    execution = Execution(slippage_bps=0.0, fee_bps=0.0, impact=1.0)
    known = market(variance=1e-4, volume=10_000.0)
    found = wanted_quantity(rules(WeightSizing()), terms(execution), instrument(), known, 1.0, 1e6)
    worst = 100.0 * (1 + 0.01 * math.sqrt(10_000 / 10_000)) + 0.01
    assert found == pytest.approx(1e6 / worst, abs=0.001)


def test_unit_of_an_instrument_divides_the_quantity():
    plain = wanted_quantity(rules(WeightSizing()), terms(), instrument(), market(), 0.3, 1e6)
    tenfold = market(unit=10.0)
    found = wanted_quantity(rules(WeightSizing()), terms(), instrument(), tenfold, 0.3, 1e6)
    assert found == pytest.approx(plain / 10, abs=0.001)


@pytest.mark.parametrize("sizing", SIZINGS.values(), ids=SIZINGS)
def test_nothing_is_wanted_at_weight_zero_or_without_equity(sizing):
    for weight, equity in ((0.0, 1e6), (1.0, 0.0), (1.0, -5.0), (1.0, math.nan)):
        assert wanted_quantity(rules(sizing), terms(), instrument(), market(), weight, equity) == 0


@given(
    st.sampled_from(list(SIZINGS.values())),
    st.floats(0.01, 1.0),
    st.floats(1e3, 1e7),
    st.floats(0.1, 1e5),
    st.sampled_from([1e-6, 0.001, 0.5, 10.0]),
)
def test_what_is_wanted_never_costs_more_than_its_notional(sizing, weight, equity, price, lot):
    execution, known = Execution(impact=1.0), market(price=price)
    step = instrument(lot_size=lot, taker=0.0005)
    found = wanted_quantity(rules(sizing), terms(execution), step, known, weight, equity)
    value = notional(rules(sizing), terms(execution), known, weight, equity)
    assert 0 <= found * price * 1.0005 <= value * (1 + 1e-9)
    short = wanted_quantity(rules(sizing), terms(execution), step, known, -weight, equity)
    assert short == -found


# -- is it worth an order


@given(
    st.sampled_from(list(SIZINGS.values())),
    st.sampled_from([1.0, -1.0, 0.01]),
    st.floats(1e3, 1e7),
    st.floats(0.1, 1e5),
    st.sampled_from([1e-6, 0.001, 0.5, 10.0]),
    st.sampled_from([0.0, 1e-9, 0.05, 1.0, 30.0]),
    st.floats(-2.0, 2.0),
)
def test_what_is_surely_in_the_band_is_never_worth_an_order(
    sizing, weight, equity, price, lot, band, off
):
    execution, known = Execution(impact=1.0), market(price=price)
    step, how = instrument(lot_size=lot, taker=0.0005, min_notional=0.0), rules(sizing)
    how["band"] = band
    found = wanted_quantity(how, terms(execution), step, known, weight, equity)
    for lots in (off * band * abs(found) / lot, band * abs(found) / lot + off, off):
        held = found + round(lots) * lot
        if is_surely_in_band(how, terms(execution), step, known, weight, equity, held):
            assert found != 0.0
            assert not is_worth_it(False, held, found, price, how, step)


def test_a_position_well_inside_the_band_is_surely_there():
    held = wanted_quantity(rules(WeightSizing()), terms(), instrument(), market(), 0.5, 1e6)
    asked = rules(WeightSizing()), terms(), instrument(), market(), 0.5, 1e6
    assert [is_surely_in_band(*asked, part * held) for part in (0.94, 0.96, 1.0, 1.04, 1.06)] == [
        False, True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "held", "wanted", "worth"),
    [
        (True, 0.0, 10.0, True),
        (True, 9.95, 10.0, False),  # 5 of value, min_notional is 10
        (True, 9.875, 10.0, True),  # 12.5 of value
        (False, 9.5, 10.0, False),  # at the band of 5 %
        (False, 9.49, 10.0, True),
        (False, 10.5, 10.0, False),
        (False, -10.0, -10.51, False),
        (False, -9.0, -10.0, True),
        (True, 0.0, 0.0, False),
        (False, 0.01, 0.0, True),
        (False, -0.01, 0.0, True),
    ],
)
def test_what_is_worth_an_order(changed, held, wanted, worth):
    plan = rules(WeightSizing())
    assert is_worth_it(changed, held, wanted, 100.0, plan, instrument()) == worth


# -- configuration


@pytest.mark.parametrize(("number", "name"), list(enumerate(SIZINGS)))
def test_rules_are_fields_of_the_record(number, name):
    found = SIZINGS[name].rules()
    assert set(found) <= set(records.RULES.names)
    assert (found["sizing"], found["band"], found["retry_after"]) == (number, 0.05, 60)
    assert SIZINGS[name].split == (number < 2)


@pytest.mark.parametrize("sizing", SIZINGS.values(), ids=SIZINGS)
def test_what_is_printed_makes_the_same_sizing_again(sizing):
    assert eval(repr(sizing)) == sizing


REQUIRED = {
    WeightSizing: {},
    VolatilityTarget: {"volatility": 0.2},
    FixedNotional: {"notional": 1.0},
    RiskPerTrade: {"risk": 0.01, "stop": 0.02},
}
KEYS = [(kind, key) for kind in REQUIRED for key in kind.__dataclass_fields__ if key != "split"]


@pytest.mark.parametrize(("kind", "key"), KEYS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, True, "1", None], ids=repr)
def test_number_that_cannot_be_meant_is_refused_with_its_key_and_value(kind, key, value):
    with pytest.raises(ConfigError, match=rf"^sizing\.{key} must be .*, was {value!r}$"):
        kind(**(REQUIRED[kind] | {key: value}))


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (VolatilityTarget, "volatility", 0.0),
        (VolatilityTarget, "most", 0.0),
        (FixedNotional, "notional", 0.0),
        (RiskPerTrade, "risk", 0.0),
        (RiskPerTrade, "risk", 1.01),
        (RiskPerTrade, "stop", 0.0),
        (RiskPerTrade, "stop", 1.01),
        (WeightSizing, "retry_after", 1.5),
        (WeightSizing, "split", 1),
        (VolatilityTarget, "split", "yes"),
    ],
)
def test_value_outside_its_range_is_refused(kind, key, value):
    with pytest.raises(ConfigError, match=rf"sizing\.{key} must be"):
        kind(**(REQUIRED[kind] | {key: value}))


def test_ends_of_the_ranges_are_allowed():
    WeightSizing(band=0, retry_after=0, split=False)
    RiskPerTrade(risk=1.0, stop=1.0)
