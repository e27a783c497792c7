"""Signals with memory and the calendar, against plain Python and pandas."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.errors import ConfigError
from sysquant.features import (
    Bar,
    FeatureGraph,
    bars_since,
    cooldown,
    day_of_week,
    every,
    hold,
    hysteresis,
    latch,
    log,
    time_of_day,
    zscore,
)

bar = Bar()
NAN = np.nan
SECOND, HOUR, DAY = 10**9, 3600 * 10**9, 86_400 * 10**9
signals = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0]), max_size=60).map(np.array)


def evaluate(expression, **columns):
    return FeatureGraph({"x": expression}).run(columns)["x"]


def runs(values):
    # (value, length) of what stays the same; all but the last one have ended.
    edges = np.flatnonzero(np.diff(values)) + 1
    return [(part[0], len(part)) for part in np.split(values, edges) if len(part)]


def test_hysteresis_is_entered_at_one_threshold_and_left_at_another():
    close = np.array([0.0, 1.0, 2.0, 2.1, 1.0, 0.5, 0.4, 1.0, -3.0, 3.0])
    value = evaluate(hysteresis(bar.close, 2, 0.5), close=close)
    assert value.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]


def test_hysteresis_of_two_sides_trades_a_pair():
    close = np.array([0, 2.5, 1, 0.4, -1, -2.5, -1, -0.4, 3, -3, NAN, -1, 3])
    value = evaluate(hysteresis(bar.close, 2, 0.5, two_sided=True), close=close)
    expected = [0, 1, 1, 0, 0, -1, -1, 0, 1, -1, NAN, -1, 1]
    assert np.array_equal(value, expected, equal_nan=True)
    beyond = evaluate(hysteresis(bar.close, 2, -0.5, two_sided=True), close=close[:8])
    assert beyond.tolist() == [0, 1, 1, 1, 0, -1, -1, -1]


def test_thresholds_may_be_expressions_and_infinite():
    close, enter = np.array([1.0, 1.0, 3.0, 1.0]), np.array([2.0, 0.5, 2.0, NAN])
    value = evaluate(hysteresis(bar.close, bar.open, bar.open - 1), close=close, open=enter)
    assert np.array_equal(value, [0, 1, 1, NAN], equal_nan=True)
    forever = evaluate(hysteresis(bar.close, 2, -np.inf), close=-np.array([0.0, -3.0, 1e9]))
    assert forever.tolist() == [0, 1, 1]


def test_a_pair_is_a_strategy_without_memory_of_its_own():
    close = np.exp(np.random.default_rng(0).normal(0, 0.01, 500))
    score = zscore(log(bar.close), 100)
    weight = -hysteresis(score, enter=2, leave=0.5, two_sided=True)
    values = FeatureGraph({"score": score, "weight": weight}).run({"close": close})
    held = values["weight"][99:]
    assert set(held) == {-1.0, 0.0, 1.0}
    assert (held[values["score"][99:] > 2] == -1).all()
    assert (held[abs(values["score"][99:]) < 0.5] == 0).all()


@given(x=signals, bars=st.integers(1, 6))
def test_a_signal_that_is_held_lasts_as_long_as_was_said(x, bars):
    value = evaluate(hold(bar.close, bars), close=x)
    assert all(length >= bars for held, length in runs(value)[:-1] if held)
    expected, held, until = [], 0.0, 0
    for t, signal in enumerate(x):
        if t >= until and signal != held:
            held, until = signal, t + bars if signal else t
        expected.append(held)
    assert value.tolist() == expected
    assert evaluate(hold(bar.close, 1), close=x).tolist() == x.tolist()


@given(x=signals, bars=st.integers(1, 6))
def test_a_signal_that_cools_down_stays_away_as_long_as_was_said(x, bars):
    value = evaluate(cooldown(bar.close, bars), close=x)
    assert all(length >= bars for held, length in runs(value)[1:-1] if not held)
    expected, last, until = [], 0.0, 0
    for t, signal in enumerate(x):
        if t >= until:
            if signal == 0 and last != 0:
                until = t + bars
            last = signal
        expected.append(last)
    assert value.tolist() == expected
    assert evaluate(cooldown(bar.close, 1), close=x).tolist() == x.tolist()


@given(x=signals)
def test_what_was_last_is_kept_and_counted_from(x):
    price = 100.0 + np.arange(len(x))
    when = pd.Series(price).where(x != 0).ffill()
    kept = evaluate(latch(bar.close, bar.open), close=price, open=x)
    assert np.array_equal(kept, when, equal_nan=True)
    since = evaluate(bars_since(bar.open), close=price, open=x)
    assert np.array_equal(since, price - when, equal_nan=True)


def test_every_so_many_bars_is_counted_from_the_first():
    value = evaluate(every(3), close=np.ones(8))
    assert value.tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert evaluate(every(1), close=np.ones(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("duration", ["5m", "1h", "7h", "1d", "2d"])
def test_every_duration_is_the_first_bar_that_has_reached_a_multiple(duration):
    # Bars with gaps, in whole seconds; some close on a multiple, some jump over several.
    draw = np.random.default_rng(5)
    ts = 1_700_000_000 * SECOND + np.cumsum(draw.choice([20, 60, 300, 8000], 4000)) * SECOND
    reached = pd.Series(pd.to_datetime(ts)).dt.floor(duration.replace("m", "min").replace("d", "D"))
    expected = (reached != reached.shift()).to_numpy(float)
    value = evaluate(every(duration), ts=ts)
    assert np.isnan(value[0])
    assert np.array_equal(value[1:], expected[1:]) and 0 < expected[1:].sum() < 3999
    for start in (1, 17, 1000):  # wherever the history begins
        assert np.array_equal(evaluate(every(duration), ts=ts[start:])[1:], value[start + 1 :])


def test_a_first_bar_that_closes_on_a_multiple_is_known_to_be_the_first():
    ts = np.array([2 * HOUR, 2 * HOUR + SECOND, 3 * HOUR - SECOND, 3 * HOUR])
    assert evaluate(every("1h"), ts=ts).tolist() == [1, 0, 0, 1]


def test_the_calendar_is_that_of_pandas():
    ts = 1_709_164_800 * SECOND + np.arange(0, 40 * DAY, 1717 * SECOND)  # over a 29 February
    at = pd.to_datetime(ts)
    hours = evaluate(time_of_day(bar), ts=ts)
    assert np.allclose(hours, (at - at.floor("D")) / pd.Timedelta("1h"), rtol=1e-15, atol=0)
    assert np.array_equal(evaluate(day_of_week(bar), ts=ts), at.day_of_week)
    midnight = np.array([DAY - SECOND, DAY])
    assert evaluate(time_of_day(bar), ts=midnight).tolist() == [24 - 1 / 3600, 0]
    assert evaluate(day_of_week(bar), ts=midnight).tolist() == [3, 4]
    for expression in (time_of_day(bar), day_of_week(bar), every("1h")):
        assert np.isnan(evaluate(expression, ts=np.array([NAN, NAN]))).all()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: every(0), "period must be a whole number of bars >= 1, was 0"),
        (lambda: every("1 hour"), "period must be like 1s, 5m, 1h or 1d, was '1 hour'"),
        (lambda: every("0h"), "was '0h'"),
        (lambda: hold(bar.close, 0), "bars must be .* >= 1, was 0"),
        (lambda: cooldown(bar.close, 1.5), "was 1.5"),  # pyright: ignore
    ],
)
def test_a_length_that_cannot_be_meant_is_refused(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
