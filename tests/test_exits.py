"""Exits: what the loop is given, and what is refused."""

import math

import pytest

from sysquant import records
from sysquant.errors import ConfigError
from sysquant.exits import Exits

LEVELS = ("stop_loss", "take_profit", "trailing_stop", "flatten_drawdown")


def test_without_a_key_nothing_is_ever_reached():
    found = Exits().rules()
    assert set(found) <= set(records.RULES.names)
    assert [found[level] for level in LEVELS] == [math.inf] * 4
    assert (found["max_hold_ns"], found["rearm_bars"]) == (records.NEVER, records.NEVER)
    assert found["bracket"] == 0


def test_keys_are_in_the_units_of_the_record():
    found = Exits(
        stop_loss=0.02, take_profit=0.04, max_hold_s=1.5, flatten_drawdown=0.2,
        how="bracket", rearm="bars", rearm_bars=7,
    ).rules()  # fmt: skip
    assert [found[level] for level in LEVELS] == [0.02, 0.04, math.inf, 0.2]
    assert (found["max_hold_ns"], found["bracket"], found["rearm_bars"]) == (1_500_000_000, 1, 7)


def test_what_is_printed_makes_the_same_exits_again():
    exits = Exits(stop_loss=0.02, rearm="bars", rearm_bars=3)
    assert eval(repr(exits)) == exits


@pytest.mark.parametrize("key", [*LEVELS, "max_hold_s"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 0, True, "1"], ids=repr)
def test_number_that_cannot_be_meant_is_refused_with_its_key_and_value(key, value):
    with pytest.raises(ConfigError, match=rf"^exits\.{key} must be .*, was {value!r}$"):
        Exits(**{key: value})


@pytest.mark.parametrize(
    ("key", "most", "outside"),
    [
        ("stop_loss", 0.999, 1),
        ("trailing_stop", 0.999, 1),
        ("flatten_drawdown", 1, 1.001),
        ("max_hold_s", 1e9, 1.1e9),
    ],
)
def test_boundaries_of_each_range(key, most, outside):
    Exits(**{key: most})
    with pytest.raises(ConfigError, match=f"exits.{key} must be"):
        Exits(**{key: outside})


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1.5, True, None], ids=repr)
def test_bars_to_rearm_are_a_whole_number(value):
    with pytest.raises(ConfigError, match=r"exits\.rearm_bars must be a whole number"):
        Exits(rearm="bars", rearm_bars=value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"how": "brackt"}, "exits.how does not know 'brackt'; did you mean 'bracket'?"),
        ({"rearm": "bar"}, "exits.rearm does not know 'bar'; did you mean 'bars'?"),
        ({"rearm": "bars"}, "exits.rearm_bars must be >= 1 with rearm 'bars'"),
        ({"rearm_bars": 3}, "was 3 with 'signal'"),
        ({"how": "bracket"}, "exits.how 'bracket' needs a stop_loss"),
        ({"how": "bracket", "max_hold_s": 5.0}, "exits.how 'bracket' needs a stop_loss"),
        ({"how": "bracket", "stop_loss": 0.1, "trailing_stop": 0.2}, "one order in a bracket"),
    ],
)
def test_exits_that_cannot_be_meant_are_refused_with_the_way_out(keys, said):
    with pytest.raises(ConfigError) as caught:
        Exits(**keys)
    assert said in str(caught.value)


def test_both_stops_are_watched_by_rule():
    found = Exits(stop_loss=0.1, trailing_stop=0.2).rules()
    assert (found["stop_loss"], found["trailing_stop"]) == (0.1, 0.2)
