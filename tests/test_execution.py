"""Fill prices, lots and draws of the simulated broker; the book-keeping of fills."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import records
from sysquant.errors import ConfigError
from sysquant.execution import Execution, cut, cut_down, fill_price, order_key, uniform
from sysquant.portfolio import book_fill


def test_a_market_order_pays_slippage_and_the_next_tick():
    assert fill_price(100.0, 1.0, 0.0001, 0.01) == 100.01
    assert fill_price(100.0, -1.0, 0.0001, 0.01) == 99.99
    assert fill_price(100.003, 1.0, 0.0, 0.01) == 100.01
    assert fill_price(100.003, -1.0, 0.0, 0.01) == 100.0
    assert fill_price(100.0, 1.0, 0.0, 0.01) == 100.0
    assert fill_price(46588.0, 2.0, 0.0001, 1.0) == 46593.0


def test_steps_are_exact_decimals():
    assert cut(0.30000000000000004, 0.1) == 0.3
    assert cut(7.0, 5.0) == 5.0
    assert cut_down(0.9999999, 0.001) == 0.999
    assert cut_down(-0.9999999, 0.001) == -0.999
    assert cut_down(0.35, 0.1) == 0.3


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


@pytest.mark.parametrize("key", ["latency_ms", "latency_sigma", "slippage_bps", "fee_bps"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_terms_that_cannot_be_meant_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"execution.{key}"):
        Execution(**{key: value})


def booked(fills, fee_rate=0.0):
    account, cell = np.zeros(1, records.ACCOUNT), np.zeros(1, records.CELL)
    for quantity, price in fills:
        book_fill(account[0], cell[0], quantity, price, price, fee_rate, 0.01)
    return account[0], cell[0]


lots = st.integers(-500, 500).filter(bool).map(lambda n: n / 100)
prices = st.integers(9_000, 11_000).map(lambda n: n / 100)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(lots, prices), min_size=1, max_size=12))
def test_cash_and_position_explain_the_pnl_after_any_fills(fills):
    account, cell = booked(fills, 0.001)
    last = 100.0
    value = cell["quantity"] * last
    unrealised = cell["quantity"] * (last - cell["average_price"])
    pnl = cell["realised_pnl"] + unrealised - cell["fees"]
    assert account["cash"] + value == pytest.approx(pnl, abs=1e-6)
    assert cell["quantity"] == pytest.approx(sum(q for q, _ in fills), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 400), prices, st.lists(st.integers(1, 399), max_size=5))
def test_any_split_of_a_fill_gives_the_same_pnl(n, price, places):
    edges = [0, *sorted(p for p in set(places) if p < n), n]
    parts = [((b - a) / 100, price) for a, b in pairwise(edges)]
    closing = [(-n / 100, price + 1.0)]
    whole = booked([(n / 100, price), *closing])
    split = booked(parts + closing)
    assert split[0]["cash"] == pytest.approx(whole[0]["cash"], abs=1e-6)
    assert split[1]["realised_pnl"] == pytest.approx(whole[1]["realised_pnl"], abs=1e-6)
    assert split[1]["quantity"] == whole[1]["quantity"] == 0
