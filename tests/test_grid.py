"""Combinations of parameters: which there are, what is refused, and who is beside whom."""

import itertools

import numpy as np
import pytest

from sysquant.errors import ConfigError
from sysquant.grid import Grid
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy


class Mixed(Strategy):
    """Parameters of every kind."""

    span: int = 10
    weight: float = 0.5
    side: str = "long"
    slow: bool = False

    def features(self, bar):
        return {"close": bar.close}

    def target(self, f):
        return np.full_like(f["close"], self.weight)


def below(fast, slow):
    return fast < slow


def test_last_parameter_moves_fastest():
    grid = Grid(Momentum, {"fast": [5, 10], "slow": range(20, 50, 10)})
    pairs = [(s.parameters["fast"], s.parameters["slow"]) for s in grid.strategies]
    assert pairs == list(itertools.product([5, 10], [20, 30, 40]))
    assert grid.parameters(4) == {"fast": 10, "slow": 30}


def test_parameters_that_are_not_named_keep_their_defaults_and_one_value_is_an_axis():
    grid = Grid(Mixed, {"side": "short", "weight": np.linspace(0.1, 0.3, 3)})
    assert len(grid) == 3
    assert grid.strategies[0] == Mixed(side="short", weight=0.1)


def test_where_leaves_combinations_out_and_is_asked_only_for_what_it_takes():
    grid = Grid(Momentum, {"fast": [10, 20, 30], "slow": [20, 30]}, below)
    assert [(p["fast"], p["slow"]) for p in map(grid.parameters, range(len(grid)))] == [
        (10, 20), (10, 30), (20, 30),
    ]  # fmt: skip
    assert grid.left_out == 3
    assert len(Grid(Momentum, {"fast": [10, 20], "slow": [20]}, lambda fast: fast > 10)) == 1
    assert len(Grid(Momentum, {"fast": [10, 20]}, lambda **all_: all_ == {"fast": 20})) == 1


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        ({}, None, "nothing to sweep: name parameters, like fast="),
        ({"fasst": [5]}, None, "no parameter 'fasst'; did you mean 'fast'"),
        ({"fast": []}, None, "fast has no values"),
        ({"fast": [5, 7, 5]}, None, "fast has the value 5 twice"),
        ({"fast": [50], "slow": [20]}, below, "where leaves none of 1"),
        ({"fast": [50]}, below, "where asks for 'slow'"),
        ({"fast": [10, 0], "slow": [20]}, None, r"refuses fast=0, slow=20: .*where=lambda"),
        ({"fast": ["a"]}, None, "refuses fast='a'"),
        ({"fast": 5, "slow": 1.5}, None, r"slow=1\.5: .*must be int"),
    ],
)
def test_grid_that_cannot_be_meant_is_refused_and_says_the_way_out(values, where, said):
    with pytest.raises(ConfigError, match=said):
        Grid(Momentum, values, where)


def test_parameter_called_as_a_column_of_the_result_is_refused():
    with pytest.raises(ConfigError, match="'span' is a column of the result; rename"):
        Grid(Mixed, {"span": [1, 2]}, taken=["fills", "span"])


def test_median_over_neighbours_is_that_of_all_within_one_step():
    values = {"weight": [0.3, 0.1, 0.2, 0.4], "side": ["a", "b"], "span": [5, 10, 50]}
    grid = Grid(Mixed, values, lambda weight, span: (weight, span) != (0.2, 10))
    figures = np.random.default_rng(1).normal(size=len(grid))
    figures[3] = np.nan
    medians, counts = grid.smooth(figures)
    spans, weights = sorted(values["span"]), sorted(values["weight"])

    def steps(one, other):
        return max(
            abs(weights.index(one["weight"]) - weights.index(other["weight"])),
            abs(spans.index(one["span"]) - spans.index(other["span"])),
            0 if one["side"] == other["side"] else 9,
        )

    every = [grid.parameters(at) for at in range(len(grid))]
    for at, own in enumerate(every):
        near = [figures[k] for k, other in enumerate(every) if steps(own, other) <= 1]
        near = [value for value in near if not np.isnan(value)]
        assert medians[at] == pytest.approx(np.median(near))
        assert counts[at] == len(near)
    assert counts.max() <= grid.most_neighbours == 9


def test_place_without_values_around_it_has_no_median():
    medians, counts = Grid(Momentum, {"fast": [5, 10, 15, 20]}).smooth(
        np.array([np.nan] * 3 + [1.0])
    )
    assert np.isnan(medians[:2]).all() and medians[2:].tolist() == [1.0, 1.0]
    assert counts.tolist() == [0, 0, 1, 1]
