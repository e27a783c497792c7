"""How a live session runs: what cannot be meant is refused by its full key."""

import math
from dataclasses import fields

import pytest

from sysquant.errors import ConfigError
from sysquant.runtime import Runtime

OPEN = ("stop_after_idle_s", "silent_s", "health_port", "twin_s")
OTHERS = ("clock", "control_topic", "require_promotion")
NUMBERS = [field.name for field in fields(Runtime) if field.name not in OTHERS]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "abc"], ids=repr)
def test_a_number_of_the_runtime_that_cannot_be_meant_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"^runtime\.{key} must be .*, was {value!r}$"):
        Runtime(**{key: value})


@pytest.mark.parametrize("key", NUMBERS)
def test_only_what_may_be_never_or_off_may_be_left_open(key):
    if key in OPEN:
        assert getattr(Runtime(**{key: None}), key) is None
        return
    with pytest.raises(ConfigError, match=rf"runtime\.{key} must be .*, was None"):
        Runtime(**{key: None})


@pytest.mark.parametrize("key", ["grace_ms", "warmup_bars", "outbox_rows", "health_port"])
def test_what_is_counted_is_a_whole_number(key):
    with pytest.raises(ConfigError, match=rf"runtime\.{key} must be a whole number .*, was 2.5"):
        Runtime(**{key: 2.5})


def test_a_clock_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"runtime\.clock does not know 'evnt'.* 'event'"):
        Runtime(clock="evnt")


@pytest.mark.parametrize("value", [1, "true", None], ids=repr)
def test_whether_promotion_is_required_is_true_or_false(value):
    with pytest.raises(ConfigError, match="require_promotion"):
        Runtime(require_promotion=value)
