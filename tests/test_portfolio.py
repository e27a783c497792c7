"""Accounts and positions after fills: money is neither made nor lost in the books."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import records
from sysquant.portfolio import book_fill, commit
from sysquant.steps import steps_of


def booked(fills, unit=1.0):
    """Account and cell after fills (quantity, price)."""
    market, instrument = np.zeros(1, records.MARKET), np.zeros(1, records.INSTRUMENT)
    for name, value in steps_of(0.01, 0.01).items():
        instrument[name] = value
    account, cell = np.zeros(1, records.ACCOUNT), np.zeros(1, records.CELL)
    for quantity, price in fills:
        book_fill(account[0], cell[0], quantity, price, unit)
        held = round(float(cell[0]["quantity"]) + quantity, 2)
        commit(market[0], cell[0], held, 0.0, instrument[0])
    return account[0], cell[0]


lots = st.integers(-500, 500).filter(bool).map(lambda n: n / 100)
prices = st.integers(9_000, 11_000).map(lambda n: n / 100)

units = st.sampled_from([1.0, 0.3, 50.0])


@settings(max_examples=200)
@given(
    st.lists(st.tuples(lots, prices), min_size=1, max_size=12), st.sampled_from([1.0, 0.3, 50.0])
)
def test_cash_and_position_explain_the_pnl_after_any_fills(fills, unit):
    account, cell = booked(fills, unit)
    value = cell["quantity"] * 100.0 * unit
    unrealised = value - cell["cost"]
    assert account["cash"] + value == pytest.approx(cell["realised_pnl"] + unrealised, abs=1e-6)
    assert cell["quantity"] == pytest.approx(sum(q for q, _ in fills), abs=1e-9)


@settings(max_examples=100)
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
