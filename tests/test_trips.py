"""Round trips: flat to flat, with every unit of money in exactly one of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import records
from sysquant.backtesting import run
from sysquant.execution import Execution
from sysquant.trips import TRIP, round_trips
from sysquant.types import SECOND
from tests.market import START, UNIVERSE, Flip, Hold, engine, ticks

FILL, CHARGE = records.EFFECTS["executions"], records.EFFECTS["financing"]
CLOSE = np.dtype([("ts", "i8"), ("close", "f8")])


def fills(*rows, symbol=0, strategy=0):
    """Of (second, quantity, price), 0.1 % fee; realised P&L by average cost."""
    found = np.zeros(len(rows), FILL)
    held = cost = 0.0
    for row, (second, quantity, price) in zip(found, rows, strict=True):
        row["ts"], row["quantity"], row["price"] = START + second * SECOND, quantity, price
        row["symbol"], row["strategy"] = symbol, strategy
        row["fee"] = 0.001 * abs(quantity) * price
        closed = -np.sign(held) * min(abs(held), abs(quantity)) if held * quantity < 0 else 0.0
        if closed:
            average = cost / held
            row["realised_pnl"] = -closed * (price - average)
            held, cost = held + closed, cost + closed * average
        held, cost = held + quantity - closed, cost + (quantity - closed) * price
    return found


def closes(*prices):
    """A close at the end of every second."""
    found = np.zeros(len(prices), CLOSE)
    found["ts"] = START + np.arange(1, len(prices) + 1) * SECOND
    found["close"] = prices
    return found


def trips(own, *, prices=(), financing=(), last=100.0, unit=1.0):
    charges = np.zeros(len(financing), CHARGE)
    for row, (second, symbol, amount) in zip(charges, financing, strict=True):
        row["ts"], row["symbol"], row["amount"] = START + second * SECOND, symbol, amount
    return round_trips(
        own, charges, lots=np.full(2, 0.5), units=np.full(len(own), unit),
        last=np.full(2, last), last_units=np.full(2, unit),
        closes=[closes(*prices), closes(*prices)], end=START + 60 * SECOND,
    )  # fmt: skip


def test_a_trip_goes_from_flat_to_flat_with_all_that_lies_between():
    # Buys 2 at 100 and 2 at 110, sells 1 at 120 and the other 3 at 100.
    (trip,) = trips(fills((1, 2.0, 100.0), (2, 2.0, 110.0), (4, -1.0, 120.0), (9, -3.0, 100.0)))
    assert (trip["entry_ts"], trip["exit_ts"]) == (START + SECOND, START + 9 * SECOND)
    assert (trip["fills"], trip["is_open"], trip["quantity"]) == (4, 0, 4.0)
    assert (trip["entry_price"], trip["exit_price"]) == (105.0, 105.0)
    assert trip["value"] == 420.0 and trip["costs"] == pytest.approx(0.84)
    assert trip["pnl"] == pytest.approx(-0.84)
    assert trip["return"] == pytest.approx(-0.84 / 420.0)


def test_a_fill_that_turns_the_position_ends_one_trip_and_begins_the_next():
    # Long 2 at 100; sells 5 at 110, which leaves short 3; buys 3 at 120.
    long, short = trips(fills((1, 2.0, 100.0), (5, -5.0, 110.0), (8, 3.0, 120.0)))
    assert (long["quantity"], short["quantity"]) == (2.0, -3.0)
    assert long["exit_ts"] == short["entry_ts"] == START + 5 * SECOND
    assert (long["exit_price"], short["entry_price"], short["exit_price"]) == (110.0, 110.0, 120.0)
    # The fee of the fill in the middle, 0.55, is divided two to three.
    assert long["costs"] == pytest.approx(0.2 + 0.22)
    assert short["costs"] == pytest.approx(0.33 + 0.36)
    assert long["pnl"] == pytest.approx(20.0 - 0.42)
    assert short["pnl"] == pytest.approx(-30.0 - 0.69)
    assert short["value"] == pytest.approx(330.0)


def test_an_open_trip_stands_at_the_last_close_until_the_end():
    (trip,) = trips(fills((1, 4.0, 100.0), (3, -1.0, 130.0)), last=120.0)
    assert trip["is_open"] == 1 and trip["exit_ts"] == START + 60 * SECOND
    assert trip["pnl"] == pytest.approx(30.0 + 3 * 20.0 - 0.53)
    (untouched,) = trips(fills((1, -4.0, 100.0)), last=120.0)
    assert np.isnan(untouched["exit_price"])
    assert untouched["pnl"] == pytest.approx(-80.0 - 0.4)


def test_a_multiplier_counts_in_value_and_in_what_stands_open():
    (trip,) = trips(fills((1, 4.0, 100.0)), last=120.0, unit=10.0)
    assert trip["value"] == 4_000.0
    assert trip["pnl"] == pytest.approx(800.0 - 0.4)


def test_financing_is_charged_to_the_trip_that_was_open():
    own = fills((1, 2.0, 100.0), (5, -2.0, 100.0), (8, 2.0, 100.0), (9, -2.0, 100.0))
    # At second 5 what was charged is on what was held before the fill; -1 is interest.
    first, second = trips(own, financing=[(3, 0, 1.0), (5, 0, 2.0), (9, 0, 4.0), (9, -1, 8.0)])
    assert first["costs"] == pytest.approx(0.4 + 3.0)
    assert second["costs"] == pytest.approx(0.4 + 4.0)


def test_strategies_and_symbols_do_not_mix():
    own = np.concatenate(
        [
            fills((1, 2.0, 100.0)),
            fills((2, -2.0, 100.0), symbol=1),
            fills((3, 2.0, 90.0), strategy=1),
        ]
    )
    found = trips(own, financing=[(4, 1, 5.0)])
    assert found[["strategy", "symbol", "quantity"]].tolist() == [
        (0, 0, 2.0), (0, 1, -2.0), (1, 0, 2.0)
    ]  # fmt: skip
    assert found["costs"].tolist() == pytest.approx([0.2, 5.2, 0.18])


@pytest.mark.parametrize(("side", "worst", "best"), [(1.0, -0.20, 0.10), (-1.0, -0.10, 0.20)])
def test_excursions_are_the_lowest_and_highest_closes_while_held(side, worst, best):
    own = fills((2, side, 100.0), (6, -side, 100.0))
    # Closes at seconds 1 to 8; that of second 2 came before the fill, that of 6 is the last.
    (trip,) = trips(own, prices=[50.0, 50.0, 110.0, 80.0, 100.0, 90.0, 200.0, 200.0])
    assert trip["mae"] == pytest.approx(worst) and trip["mfe"] == pytest.approx(best)


def test_a_trip_within_one_bar_is_measured_at_its_exit():
    (trip,) = trips(fills((2, 1.0, 100.0), (2, -1.0, 95.0)), prices=[50.0] * 8)
    assert trip["mae"] == pytest.approx(-0.05) and trip["mfe"] == 0.0


def test_no_fill_is_no_trip():
    found = trips(fills())
    assert len(found) == 0 and found.dtype == TRIP


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(90, 110)), max_size=40))
def test_every_unit_of_money_is_in_exactly_one_trip(traded):
    rows = [(i + 1, 0.5 * lots, float(price)) for i, (lots, price) in enumerate(traded) if lots]
    own = fills(*rows)
    found = trips(own, last=97.0)
    held = own["quantity"].sum()
    total = held * 97.0 - (own["quantity"] * own["price"]).sum() - own["fee"].sum()
    assert found["pnl"].sum() == pytest.approx(total, abs=1e-9)
    assert found["costs"].sum() == pytest.approx(own["fee"].sum())
    assert (found["is_open"] == 1).sum() == (held != 0.0)
    position, begins = 0.0, 0
    for quantity in own["quantity"]:
        after = position + quantity
        begins += (position == 0.0) or position * after < 0.0
        position = after
    assert len(found) == begins
    assert np.all(found["mae"] <= 0.0) and np.all(found["mfe"] >= 0.0)


@pytest.mark.parametrize("strategy", [Flip(), Hold(weight=-0.7)])
def test_trips_of_a_run_add_up_to_what_its_equity_gained(strategy):
    costs = Execution(latency_ms=50, latency_sigma=0.5, borrow_rate=0.5, financing_hours=0.01)
    book = engine(strategy, execution=costs)
    result = run(book, [ticks(3_000)], name="test")
    assert len(result.trips) == (2 if isinstance(strategy, Hold) else len(result.trips)) > 0
    charged = result.table("financing")["amount"].sum()
    assert (charged > 0.0) or isinstance(strategy, Flip)
    gained = result.equity.iloc[-1] - result.equity.iloc[0]
    assert result.trips["pnl"].sum() == pytest.approx(gained, abs=1e-4)
    assert set(result.trips["symbol"]) <= {instrument.symbol for instrument in UNIVERSE}
