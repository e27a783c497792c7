"""Each finding is made where it should be, with its number, and not where it should not."""

import numpy as np
import pytest

from sysquant import lint


def only(found, name):
    """The one finding, of this rule."""
    (finding,) = found
    assert finding.name == name
    return finding


def test_a_run_that_never_wanted_anything_is_told_as_that():
    assert lint.no_orders(1) == []
    assert "strategy.warmup()" in only(lint.no_orders(0), "no_orders").advice


def test_few_round_trips_are_found():
    assert only(lint.few_trips(29), "few_trips").text == "29 round trips begun, fewer than 30"
    assert lint.few_trips(30) == []


def test_one_round_trip_that_makes_the_profit_is_found():
    found = only(lint.one_trip(np.array([600.0, 250.0, -100.0, 250.0])), "one_trip")
    assert found.text == ("one of 4 round trips made 600.00 of 1,000.00, 60%; the others 400.00")
    assert lint.one_trip(np.array([500.0, 250.0, 250.0])) == []  # half of it is not more


def test_a_loss_or_a_single_round_trip_is_not_made_by_one():
    assert lint.one_trip(np.array([500.0, -600.0])) == []
    assert lint.one_trip(np.array([500.0])) == []
    assert lint.one_trip(np.empty(0)) == []


def test_fills_on_stale_prices_are_found():
    stale = np.zeros(200, bool)
    stale[:2] = True
    assert lint.stale_fills(stale) == []  # one in a hundred
    stale[2] = True
    found = only(lint.stale_fills(stale), "stale_fills")
    assert found.text.startswith("3 of 200 fills (1.5%) on stale prices")
    assert lint.stale_fills(np.empty(0, bool)) == []


def test_equity_that_stands_still_is_found():
    returns = np.full(100, 0.01)
    returns[50:83] = 0.0
    assert lint.flat_equity(returns) == []
    returns[83] = 0.0
    found = only(lint.flat_equity(returns), "flat_equity")
    assert found.text == "equity stood still for 34 of 100 periods in a row"
    assert only(lint.flat_equity(np.zeros(3)), "flat_equity")
    assert lint.flat_equity(np.empty(0)) == []


def test_short_rests_do_not_add_up_to_a_flat_equity():
    assert lint.flat_equity(np.tile([0.01, 0.0, 0.0], 40)) == []


def test_costs_above_what_was_earned_are_found():
    found = only(lint.costs_above_edge(net=-20.0, costs=100.0), "costs_above_edge")
    assert found.text == "costs of 100.00 against 80.00 earned before them"
    assert found.advice.startswith("trade less often")
    assert lint.costs_above_edge(net=10.0, costs=100.0) == []
    assert lint.costs_above_edge(net=-10.0, costs=0.0) == []


def test_a_loss_before_costs_is_told_apart():
    found = only(lint.costs_above_edge(net=-200.0, costs=100.0), "costs_above_edge")
    assert found.advice.startswith("it loses before costs")


@pytest.mark.parametrize(("days", "returns"), [(89.9, 500), (400.0, 29)])
def test_short_history_is_found(days, returns):
    assert (
        f"{returns} returns in {days} days"
        in only(lint.short_history(days, returns), "short_history").text
    )


def test_long_history_is_not_found_short():
    assert lint.short_history(90.0, 30) == []


def test_parameter_at_the_edge_of_its_grid_is_found():
    grid = {"fast": [20, 5, 10], "slow": [50.0, 100.0, 200.0]}
    (low,) = lint.grid_edge(grid, {"fast": 5, "slow": 100.0})
    assert low.text == "fast=5 is the lowest of 3 values tried"
    assert low.advice == "try values beyond 5"
    (high,) = lint.grid_edge(grid, {"fast": 10, "slow": 200.0})
    assert high.text == "slow=200.0 is the highest of 3 values tried"
    assert lint.grid_edge(grid, {"fast": 10, "slow": 100.0}) == []


def test_grid_of_two_values_or_of_no_numbers_has_no_edge():
    grid = {"fast": [5, 10], "kind": ["a", "b", "c"], "on": [True, False], "same": [3, 3, 3]}
    assert lint.grid_edge(grid, {"fast": 5, "kind": "a", "on": True, "same": 3}) == []
    assert lint.grid_edge({"fast": [1, 2, 3]}, {"slow": 1}) == []


def test_finding_reads_as_one_line():
    assert str(lint.few_trips(2)[0]) == (
        "few_trips: 2 round trips begun, fewer than 30; take a longer history or more symbols "
        "before comparing anything"
    )
