"""Instruments: what is allowed, and what is refused by name."""

import math

import pytest

from sysquant.errors import ConfigError
from sysquant.types import Instrument


def test_instrument_needs_no_more_than_its_symbol():
    found = Instrument("SIM:A")
    assert (found.max_position, found.multiplier, found.volume_unit) == (math.inf, 1.0, "base")
    assert (found.shortable, found.perpetual, found.restricted) == (True, False, False)
    assert (found.calendar, found.fee_tier, found.currency, found.conversion) == (
        "24/7", "default", "", "",
    )  # fmt: skip
    assert eval(repr(found), {"Instrument": Instrument, "inf": math.inf}) == found


@pytest.mark.parametrize(
    "key", ["tick_size", "lot_size", "min_notional", "max_position", "multiplier"]
)
@pytest.mark.parametrize("value", [math.nan, -math.inf, -1.0, True, "1", None], ids=repr)
def test_number_that_cannot_be_meant_is_refused_with_its_key_and_value(key, value):
    with pytest.raises(ConfigError, match=rf"^{key} of SIM:A must be .*, was {value!r}$"):
        Instrument("SIM:A", **{key: value})


@pytest.mark.parametrize("key", ["tick_size", "lot_size", "max_position", "multiplier"])
def test_step_of_zero_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} of SIM:A must be"):
        Instrument("SIM:A", **{key: 0})


@pytest.mark.parametrize("key", ["tick_size", "lot_size", "min_notional", "multiplier"])
def test_infinite_step_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} of SIM:A must be"):
        Instrument("SIM:A", **{key: math.inf})


def test_smallest_order_may_be_nothing_and_largest_position_unbounded():
    Instrument("SIM:A", min_notional=0, max_position=math.inf)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"volume_unit": "qote"},
            "does not know 'qote'; did you mean 'quote'",
        ),
        ({"shortable": 1}, "shortable of SIM:A must be true or false, was 1"),
        ({"perpetual": "no"}, "perpetual of SIM:A must be true or false, was 'no'"),
        ({"restricted": None}, "restricted of SIM:A must be true or false, was None"),
        ({"quality": 1.5}, "quality of SIM:A must be >= 0 and <= 1, was 1.5"),
        ({"quality": "good"}, "quality of SIM:A must be >= 0 and <= 1, was 'good'"),
        ({"calendar": ""}, "calendar of SIM:A is empty"),
        ({"fee_tier": ""}, "fee_tier of SIM:A is empty"),
        ({"symbol": ""}, "symbol of an instrument is empty"),
        ({"currency": "EUR", "conversion": "SIM:A"}, "conversion of SIM:A is itself"),
        ({"conversion": "EURUSD"}, "set currency to what it converts"),
    ],
)
def test_instrument_that_cannot_be_meant_is_refused(keys, said):
    with pytest.raises(ConfigError) as caught:
        Instrument(**({"symbol": "SIM:A"} | keys))
    assert said in str(caught.value)
