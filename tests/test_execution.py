"""Terms of the simulated broker: draws, delays, steps, slippage, fees, and what is refused."""

import math
from decimal import Decimal

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import records, steps
from sysquant.errors import ConfigError
from sysquant.execution import (
    Execution,
    cancel_latency,
    fee_total,
    latency,
    order_key,
    slippage,
    taker_price,
    uniform,
)
from sysquant.steps import cut, cut_down, round_down, round_up, steps_of
from sysquant.types import Instrument

MINUTE = 60_000_000_000
STEPS = ("0.00000001", "0.000001", "0.001", "0.01", "0.05", "0.25", "0.5", "1", "2.5", "5", "100")
DAY_NS = 86_400 * 10**9


def row(dtype, **values):
    rows = np.zeros(1, dtype)
    for name, value in values.items():
        rows[name] = value
    return rows[0]


def terms(**keys):
    return row(records.TERMS, seed=1, **Execution(**keys).terms(MINUTE))


def market(**values):
    known = {"price": 100.0, "unit": 1.0, "bars": 100, "variance": 1e-4, "volume": 400.0}
    return row(records.MARKET, **(known | values))


def delays(function, n=4_000, seed=1, **keys):
    execution = Execution(**keys)
    priced = terms(**keys)
    priced["seed"] = seed
    key = order_key("momentum")
    return np.array([function(priced, execution.samples, key, i) for i in range(1, n + 1)])


# -- draws


def test_draws_repeat_spread_and_belong_to_their_order():
    key = order_key("momentum")
    draws = np.array([uniform(1, key, n, 0) for n in range(20_000)])
    again = np.array([uniform(1, key, n, 0) for n in range(20_000)])
    other = np.array([uniform(1, order_key("other"), n, 0) for n in range(20_000)])
    assert (draws == again).all()
    assert 0 < draws.min() < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(draws, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.03


def test_draws_of_one_order_do_not_depend_on_each_other():
    key = order_key("momentum")
    draws = np.array([[uniform(1, key, n, draw) for draw in range(5)] for n in range(20_000)])
    assert np.abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.03


# -- latency


def test_fixed_latency_is_the_same_for_every_order():
    assert set(delays(latency, latency_ms=12.5)) == {12_500_000}
    assert set(delays(latency, latency_ms=0)) == {0}


def test_lognormal_latency_has_its_median_and_sigma():
    found = np.log(delays(latency, 20_000, latency_ms=50, latency_sigma=0.3) / 50e6)
    assert abs(np.median(found)) < 0.01
    assert found.std() == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(((found - found.mean()) / found.std()) ** 3)) < 0.06


def test_lognormal_latency_is_the_formula_of_the_engine():
    key, n = order_key("momentum"), 7
    u0, u1 = uniform(1, key, n, 0), uniform(1, key, n, 1)
    z = math.sqrt(-2 * math.log(u0)) * math.cos(2 * math.pi * u1)
    found = latency(terms(latency_ms=50, latency_sigma=0.3), np.empty(0, np.int64), key, n)
    assert found == int(50e6 * math.exp(0.3 * z))


def test_no_latency_is_longer_than_a_day():
    found = delays(latency, latency_ms=86_400_000, latency_sigma=3)
    assert found.max() == DAY_NS
    assert (found >= 0).all()


def test_replayed_latency_gives_values_of_the_sample_alone_and_all_alike():
    sample = [38.2, 41.0, 240.1, 0.0]
    for function in (latency, cancel_latency):
        found, counts = np.unique(
            delays(function, 8_000, latency_sample_ms=sample), return_counts=True
        )
        assert found.tolist() == [0, 38_200_000, 41_000_000, 240_100_000]
        assert np.abs(counts / 8_000 - 0.25).max() < 0.02


def test_cancel_takes_as_long_as_an_order_unless_it_has_a_latency_of_its_own():
    assert set(delays(cancel_latency, latency_ms=12.5)) == {12_500_000}
    assert set(delays(cancel_latency, latency_ms=12.5, cancel_latency_ms=0)) == {0}
    assert set(delays(cancel_latency, latency_ms=50, latency_sigma=1)) == {50_000_000}
    keys = {"latency_ms": 50, "latency_sigma": 0.5, "cancel_latency_sigma": 0.5}
    submitted, cancelled = delays(latency, **keys), delays(cancel_latency, **keys)
    assert abs(np.corrcoef(np.log(submitted), np.log(cancelled))[0, 1]) < 0.05
    assert np.median(cancelled) == pytest.approx(50e6, rel=0.03)


def test_another_seed_gives_other_delays():
    keys = {"latency_ms": 50, "latency_sigma": 0.5}
    assert (delays(latency, 100, **keys) == delays(latency, 100, **keys)).all()
    assert (delays(latency, 100, **keys) != delays(latency, 100, seed=2, **keys)).all()


# -- steps


@given(st.sampled_from(STEPS), st.integers(-(10**9), 10**9), st.floats(-0.4, 0.4))
def test_nearest_multiple_is_the_exact_decimal(step, n, off):
    exact = float(Decimal(n) * Decimal(step))
    assert cut(exact, float(step)) == exact
    assert cut(exact + off * float(step), float(step)) == exact


def test_half_a_step_goes_to_the_even_one():
    assert [cut(x, 1.0) for x in (0.5, 1.5, 2.5, -0.5)] == [0.0, 2.0, 2.0, 0.0]
    assert cut(7.0, 5.0) == 5.0
    assert cut(12.5, 5.0) == 10.0


def test_sum_of_money_beyond_the_integers_stays_itself():
    assert cut(4.2e18, 1e-8) == 4.2e18
    assert cut_down(4.2e18, 1e-8) == 4.2e18


@given(st.sampled_from(STEPS), st.floats(-1e6, 1e6))
def test_cutting_down_stays_nearer_to_zero_by_less_than_a_step(step, value):
    step = float(step)
    found = cut_down(value, step)
    error = 1e-12 * abs(value)
    assert abs(found) <= abs(value) + error
    assert abs(value) - abs(found) <= step * (1 + 1e-9) + error
    assert found == 0 or (found > 0) == (value > 0)
    assert found == cut(found, step)


def test_cutting_down_by_hand():
    assert cut_down(0.9999999, 0.001) == 0.999
    assert cut_down(-0.9999999, 0.001) == -0.999
    assert cut_down(0.35, 0.1) == 0.3
    assert cut_down(-12.0, 5.0) == -10.0
    assert cut_down(0.0009, 0.001) == 0.0


@given(st.sampled_from(STEPS), st.integers(1, 10**7), st.floats(0.001, 0.999))
def test_price_between_two_ticks_is_rounded_to_them_and_one_on_a_tick_stays(step, n, off):
    tick = float(step)
    below, above = (float(Decimal(k) * Decimal(step)) for k in (n, n + 1))
    assert round_up(below, tick) == round_down(below, tick) == below
    assert round_up(below * (1 + 1e-15), tick) == round_down(below * (1 - 1e-15), tick) == below
    assert round_up(below + off * tick, tick) == above
    assert round_down(below + off * tick, tick) == below


@pytest.mark.parametrize("rounded", [cut, cut_down, round_up, round_down])
def test_what_is_unknown_stays_so(rounded):
    assert math.isnan(rounded(math.nan, 0.01))


def test_quantity_without_a_bound_is_not_cut_down():
    assert (cut_down(math.inf, 0.01), cut_down(-math.inf, 0.01)) == (math.inf, -math.inf)


def test_no_price_is_below_one_tick():
    for price in (0.004, 0.0, -3.0):
        assert round_down(price, 0.01) == 0.01
        assert round_up(price, 0.01) == 0.01


@numba.njit
def of_instrument(value, instrument):
    """Cut, cut down, rounded up and down by an instrument's steps; cut to cash."""
    return (
        steps.cut_lots(value, instrument), steps.cut_lots_down(value, instrument),
        steps.tick_beyond(value, 1.0, instrument), steps.tick_beyond(value, -1.0, instrument),
        steps.cut_cash(value),
    )  # fmt: skip


@given(st.sampled_from(STEPS), st.floats(-1e9, 1e9))
def test_steps_of_an_instrument_are_those_of_its_sizes(step, value):
    size = float(step)
    found = of_instrument(value, row(records.INSTRUMENT, **steps_of(size, size)))
    expected = [rounded(value, size) for rounded in (cut, cut_down, round_up, round_down)]
    assert found == (*expected, cut(value, 1e-8))


# -- price of a fill


def in_ticks_of(tick):
    return row(records.INSTRUMENT, **steps_of(tick, 1.0))


def test_taker_pays_slippage_and_the_next_tick():
    assert taker_price(100.0, 1.0, 0.0001, in_ticks_of(0.01)) == 100.01
    assert taker_price(100.0, -1.0, 0.0001, in_ticks_of(0.01)) == 99.99
    assert taker_price(100.003, 1.0, 0.0, in_ticks_of(0.01)) == 100.01
    assert taker_price(100.003, -1.0, 0.0, in_ticks_of(0.01)) == 100.0
    assert taker_price(100.0, 1.0, 0.0, in_ticks_of(0.01)) == 100.0
    assert taker_price(46588.0, 1.0, 0.0001, in_ticks_of(1.0)) == 46593.0
    assert taker_price(0.02, -1.0, 0.9, in_ticks_of(0.01)) == 0.01


def test_each_part_of_slippage_by_hand():
    # sigma = 0.01, volume = 400: a fill of 100 units is a quarter of a bar, its root a half.
    known = market(roll=0.004, spread=0.006)
    for keys, fraction in (
        ({}, 0.0),
        ({"slippage_bps": 2.0}, 0.0002),
        ({"half_spread_bps": 3.0}, 0.0003),
        ({"spread_model": "roll"}, 0.002),
        ({"spread_model": "corwin_schultz"}, 0.003),
        ({"impact": 1.0}, 0.005),
        ({"impact": 0.4}, 0.002),
        ({"volatility_scale": 0.1}, 0.001),
        ({"slippage_bps": 2.0, "half_spread_bps": 3.0, "impact": 1.0}, 0.0055),
    ):
        priced = terms(**({"slippage_bps": 0.0} | keys))
        assert slippage(priced, known, 100.0) == pytest.approx(fraction, abs=1e-15), keys
        assert slippage(priced, known, -100.0) == slippage(priced, known, 100.0)


@pytest.mark.parametrize("unknown", ["variance", "volume", "roll", "spread"])
def test_part_of_slippage_without_its_statistic_is_nothing(unknown):
    keys = {
        "volume": {"impact": 1.0}, "variance": {"impact": 1.0, "volatility_scale": 1.0},
        "roll": {"spread_model": "roll"}, "spread": {"spread_model": "corwin_schultz"},
    }[unknown]  # fmt: skip
    for value in (math.nan, 0.0):
        priced = terms(slippage_bps=2.0, **keys)
        assert slippage(priced, market(**{unknown: value}), 100.0) == pytest.approx(0.0002)


@given(st.floats(1e-6, 1e9), st.floats(1, 100))
def test_a_larger_order_never_slips_less(quantity, times):
    priced, known = terms(impact=1.0, volatility_scale=0.1), market()
    assert slippage(priced, known, quantity * times) >= slippage(priced, known, quantity)


# -- fees


def test_fee_of_an_order_is_its_minimum_or_its_fixed_part_and_rates():
    priced = terms(fee_fixed=1.0, fee_minimum=5.0)
    assert fee_total(priced, 0.0, 0.0) == 0.0
    assert fee_total(priced, 2.0, 1_000.0) == 5.0
    assert fee_total(priced, 4.0, 1_000.0) == 5.0
    assert fee_total(priced, 7.5, 1_000.0) == 8.5
    assert fee_total(terms(), 0.5, 1_000.0) == 0.5


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=8))
def test_fees_of_any_split_sum_to_the_fee_of_the_whole(values):
    priced, paid, so_far = terms(fee_fixed=1.0, fee_minimum=5.0), 0.0, 0.0
    for value in values:
        so_far += value * 5e-4
        after = fee_total(priced, so_far, value)
        assert after >= paid
        paid = after
    assert paid == pytest.approx(max(5.0, 1.0 + sum(values) * 5e-4))


def test_fee_rates_are_those_of_the_instruments_tier():
    tiers = {"vip": {"fee_bps": 2.0, "maker_fee_bps": 0.0}, "plain": {"fee_bps": 3.0}}
    execution = Execution(fee_bps=5.0, maker_fee_bps=1.0, tiers=tiers)
    rates = {tier: execution.rates(Instrument("A", fee_tier=tier)) for tier in ("default", *tiers)}
    assert rates["default"] == pytest.approx((1e-4, 5e-4))
    assert rates["vip"] == pytest.approx((0.0, 2e-4))
    assert rates["plain"] == pytest.approx((3e-4, 3e-4))
    assert Execution(fee_bps=5.0).rates(Instrument("A")) == pytest.approx((5e-4, 5e-4))
    with pytest.raises(ConfigError, match=r"fee_tier of A .* 'vop'; did you mean 'vip'\?"):
        execution.rates(Instrument("A", fee_tier="vop"))


# -- configuration


def test_terms_are_in_the_units_of_the_records():
    found = Execution(
        latency_ms=0.0005, cancel_latency_ms=2, slippage_bps=1, half_spread_bps=2,
        financing_hours=24, funding_hours=0.5, statistics_span=9, participation=0.1,
        spread_model="constant",
    ).terms(MINUTE)  # fmt: skip
    assert set(found) <= set(records.TERMS.names)
    assert (found["latency_ns"], found["cancel_latency_ns"]) == (500, 2_000_000)
    assert (found["fixed_slippage"], found["half_spread"]) == pytest.approx((1e-4, 2e-4))
    assert found["financing_ns"] == DAY_NS
    assert found["funding_ns"] == 1_800 * 10**9
    assert found["statistics_weight"] == pytest.approx(0.2)
    assert found["bars_per_year"] == 365 * 24 * 60
    assert (found["participation"], Execution().terms(1)["participation"]) == (0.1, math.inf)
    models = ("constant", "roll", "corwin_schultz")
    numbers = [Execution(spread_model=model).terms(1)["spread_model"] for model in models]
    assert numbers == [0, 1, 2]


def test_what_is_printed_makes_the_same_terms_again():
    execution = Execution(latency_sample_ms=[1, 2], tiers={"vip": {"fee_bps": 2.0}}, impact=1.0)
    again = eval(repr(execution), {"Execution": Execution})
    assert again.terms(MINUTE) == execution.terms(MINUTE)
    assert again.samples.tolist() == [1_000_000, 2_000_000]


NUMBERS = sorted(
    set(Execution.__dataclass_fields__) - {"latency_sample_ms", "spread_model", "tiers", "funding"}
)
WRONG = [math.nan, math.inf, -math.inf, True, "1", -1.0]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_number_that_cannot_be_meant_is_refused_with_its_key_and_value(key, value):
    with pytest.raises(ConfigError, match=rf"^execution\.{key} must be .*, was {value!r}$"):
        Execution(**{key: value})


@pytest.mark.parametrize(
    ("key", "least", "most", "outside"),
    [
        ("latency_ms", 0, 86_400_000, [86_400_001]),
        ("latency_sigma", 0, 3, [3.01]),
        ("cancel_latency_ms", 0, 86_400_000, [86_400_001]),
        ("cancel_latency_sigma", 0, 3, [3.01]),
        ("participation", 1e-9, 1, [0, 1.01]),
        ("queue_share", 0, 1, [1.01]),
        ("reject_probability", 0, 1, [1.01]),
        ("financing_hours", 1e-3, 87_600, [0, 87_601]),
        ("funding_hours", 1e-3, 87_600, [0, 87_601]),
        ("funding_rate", -0.99, 0.99, [1.0]),
        ("statistics_span", 1, 1_000_000, [0, 1.5, 1_000_001]),
    ],
)
def test_boundaries_of_each_range(key, least, most, outside):
    Execution(**{key: least})
    Execution(**{key: most})
    for value in outside:
        with pytest.raises(ConfigError, match=rf"execution\.{key} must be .*, was {value}"):
            Execution(**{key: value})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"spread_model": "rol"},
            "spread_model does not know 'rol'; did you mean 'roll'",
        ),
        ({"spread_model": "roll", "half_spread_bps": 1.0}, "half_spread_bps was 1.0"),
        ({"latency_sample_ms": []}, "latency_sample_ms is empty"),
        ({"latency_sample_ms": [1.0, -2.0]}, "latency_sample_ms[1] must be"),
        ({"latency_sample_ms": [1.0, math.nan]}, "was nan"),
        ({"latency_sample_ms": [1.0], "latency_sigma": 0.3}, "latency_sigma was 0.3"),
        ({"latency_sample_ms": [1.0], "cancel_latency_ms": 5.0}, "cancel_latency_ms was 5.0"),
        ({"tiers": {"vip": {}}}, "execution.tiers.vip.fee_bps must be"),
        ({"tiers": {"vip": {"fee_bps": -1.0}}}, "execution.tiers.vip.fee_bps must be"),
        ({"tiers": {"vip": {"fee_bps": 1.0, "maker_fee_bps": -1.0}}}, "vip.maker_fee_bps must be"),
        ({"tiers": {"vip": {"fee_bsp": 1.0}}}, "no key 'fee_bsp'; did you mean 'fee_bps'?"),
        ({"tiers": {"default": {"fee_bps": 1.0}}}, "is execution.fee_bps and maker_fee_bps"),
        ({"funding": {"P": ([1, 2], [0.1])}}, "execution.funding[P] needs a rate per time"),
        ({"funding": {"P": ([2, 1], [0.1, 0.1])}}, "times must rise"),
        ({"funding": {"P": ([1, 1], [0.1, 0.1])}}, "times must rise"),
        ({"funding": {"P": ([1], [math.nan])}}, "execution.funding[P] rate 0 must be"),
        ({"funding": "store"}, "funding must be symbol -> (times, rates), or None, was 'store'"),
        ({"tiers": None}, "execution.tiers must be name -> its fees, was None"),
        ({"latency_sample_ms": 5}, "latency_sample_ms must be recorded ms, or None, was 5"),
        ({"funding": {"P": ([1.5], [0.1])}}, "execution.funding[P] time 0 must be a whole number"),
    ],
)
def test_terms_that_contradict_themselves_are_refused_with_the_way_out(keys, said):
    with pytest.raises(ConfigError) as caught:
        Execution(**keys)
    assert said in str(caught.value)


def test_funding_of_a_symbol_is_its_series_or_empty():
    execution = Execution(funding={"P": ([1, 5], [0.1, -0.2])})
    times, rates = execution.series("P")
    assert (times.tolist(), rates.tolist()) == ([1, 5], [0.1, -0.2])
    assert (times.dtype, rates.dtype) == (np.int64, np.float64)
    assert [len(part) for part in execution.series("Q")] == [0, 0]
    assert [len(part) for part in Execution().series("P")] == [0, 0]
