"""What a session measures of itself, against numpy, and on clocks that were made up."""

import gc
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant import vitals
from sysquant.types import DeadLetter, Poll, Ticks, clock_mark
from sysquant.vitals import ERROR, SHARES, ClockSkew, Quantiles, Vitals
from tests.market import ticks

FIELDS = {"lag_ms": math.nan, "outbox_rows": 7, "outbox_age_s": 0.5, "snapshot_age_s": 3.0}
KINDS = {
    "lognormal": lambda random: random.lognormal(0, 2, 20_000),
    "two humps": lambda random: np.r_[random.normal(1, 0.1, 9_900), random.normal(900, 9, 100)],
    "constant": lambda random: np.full(500, 3.7),
    "few": lambda random: np.array([1.0, 2.0, 4.0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_are_those_of_numpy_to_half_a_percent(kind):
    values = KINDS[kind](np.random.default_rng(1))
    counted = Quantiles()
    for part in np.array_split(values, 3):
        counted.add(part)
    exact = np.quantile(values, SHARES, method="lower")
    np.testing.assert_allclose(counted.take(), exact, rtol=ERROR * 1.001)


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=200))
def test_no_value_is_told_further_off_than_half_a_percent(values):
    counted = Quantiles()
    for value in values:
        counted.add(value)
    exact = np.quantile(values, SHARES, method="lower")
    np.testing.assert_allclose(counted.take(), exact, rtol=ERROR * 1.001)


def test_quantiles_begin_anew_when_they_are_taken_and_hold_what_lies_outside():
    counted = Quantiles()
    counted.add(np.array([-5.0, 0.0, 1e-30]))
    assert counted.take() == pytest.approx((1e-3,) * 3, rel=1.1 * ERROR)
    counted.add(1e300)
    assert counted.take() == pytest.approx((1e9,) * 3, rel=1.1 * ERROR)
    assert all(math.isnan(value) for value in counted.take())


def arrivals(skew_ms, *, drift=0.0, count=20_000, floor_ms=5.0):
    """Seconds, and arrival minus time of event, for clocks that differ by so much at the start."""
    random = np.random.default_rng(2)
    seconds = np.linspace(0, 1200, count)
    delay_ms = floor_ms + random.exponential(40.0, count)
    return zip(seconds.tolist(), (skew_ms + 1e3 * drift * seconds + delay_ms).tolist(), strict=True)


@pytest.mark.parametrize("skew_ms", [-2_000.0, 0.0, 350.0])
def test_skew_of_two_clocks_is_found_but_for_the_delay_that_every_record_has(skew_ms):
    skew = ClockSkew()
    assert math.isnan(skew.ms)
    for second, least_ms in arrivals(skew_ms):
        skew.add(least_ms, second)
    assert skew_ms + 5.0 <= skew.ms < skew_ms + 5.1


@pytest.mark.parametrize("drift", [-50e-6, 50e-6])
def test_skew_of_clocks_that_drift_is_that_of_the_last_ten_minutes(drift):
    skew = ClockSkew()
    for second, least_ms in arrivals(100.0, drift=drift):
        skew.add(least_ms, second)
    at = 600 if drift > 0 else 1200
    assert skew.ms == pytest.approx(105 + 1e3 * drift * at, abs=1.0)


def test_skew_keeps_one_value_a_second_at_most():
    skew = ClockSkew()
    for second, least_ms in enumerate(np.arange(0, 50_000, 0.5)):
        skew.add(least_ms, second / 100)
    assert len(skew._least) <= vitals._WINDOW_S + 1


def of_now(count=1000, *, spread_ms=100, old_ms=0):
    """Ticks whose last one happened so many ms ago."""
    found = ticks(count)
    ago = np.linspace(old_ms + spread_ms, old_ms, count) * 1e6
    found.ts[:] = time.time_ns() - ago.astype(np.int64)
    return found


def test_measures_of_a_session_that_is_now():
    measured = Vitals(is_now=True)
    for old_ms in (20, 20, 500):  # the last batch waited for half a second
        batch = of_now(old_ms=old_ms)
        measured.polled(Poll(batch, lag=12))
        time.sleep(0.01)
        measured.taken(batch)
    measured.taken(clock_mark(1))
    found = measured.measure(**FIELDS)
    assert found == measured.last
    assert found.batches == 4
    assert found.ticks_per_s == pytest.approx(3_000 / found.period_s)
    assert found.lag_records == 12
    assert 10 < found.decision_ms_p50 < 60
    assert found.decision_ms_p50 <= found.decision_ms_p99 <= found.decision_ms_p999 < 600
    assert 20 <= found.clock_skew_ms < 60
    # Of the three batches, the last has waited 480 ms longer, and a tick of it up to 100 more.
    assert 560 < found.exchange_ms_p99 < 700
    assert found.exchange_ms_p50 < 300
    assert (found.outbox_rows, found.outbox_age_s, found.snapshot_age_s) == (7, 0.5, 3.0)
    assert found.memory_bytes > 1e7
    assert abs(found.open_files - len([*Path("/dev/fd").iterdir()])) <= 3


def test_what_happened_long_ago_is_not_measured_from_its_exchange():
    measured = Vitals(is_now=False)
    measured.polled(Poll(ticks(10)))
    measured.taken(ticks(10))
    found = measured.measure(**FIELDS)
    assert found.ticks_per_s > 0
    assert found.decision_ms_p50 > 0
    unknown = (found.exchange_ms_p50, found.exchange_ms_p999, found.clock_skew_ms, found.lag_ms)
    assert all(math.isnan(value) for value in unknown)


def test_measures_begin_anew_with_each_row():
    measured = Vitals(is_now=True)
    measured.polled(Poll(of_now()))
    measured.taken(of_now())
    measured.measure(**FIELDS)
    again = measured.measure(**FIELDS)
    assert (again.batches, again.ticks_per_s) == (0, 0.0)
    assert math.isnan(again.decision_ms_p50) and math.isnan(again.exchange_ms_p50)
    assert not math.isnan(again.clock_skew_ms)  # it is of ten minutes


def test_collections_of_garbage_are_counted_while_it_is_open():
    measured = Vitals(is_now=False)
    gc.collect()
    assert measured.measure(**FIELDS).gc_collections == 0
    measured.open()
    try:
        gc.collect()
        gc.collect()
        found = measured.measure(**FIELDS)
    finally:
        measured.close()
    assert found.gc_collections >= 2
    assert 0 < found.gc_longest_ms < found.gc_pause_ms
    gc.collect()
    assert measured.measure(**FIELDS).gc_collections == 0
    measured.close()  # twice is no error


def test_times_tell_of_the_connection_records_and_commits():
    measured = Vitals(is_now=False)
    start = measured.record_ts
    measured.polled(Poll(Ticks.empty(), is_connected=False))
    assert (measured.connected_ts, measured.record_ts) == (start, start)
    measured.polled(Poll(Ticks.empty()))
    assert measured.connected_ts > measured.record_ts == start
    bad = DeadLetter("t", 0, 1, "no tick", b"")
    measured.polled(Poll(Ticks.empty(), (bad,)))
    assert measured.record_ts == measured.connected_ts > measured.commit_ts == start
    measured.taken(ticks(3))
    assert measured.commit_ts > measured.record_ts


def test_a_batch_is_measured_in_less_than_a_millisecond():
    measured, batch = Vitals(is_now=True), of_now(5_000)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        measured.polled(Poll(batch))
        measured.taken(batch)
        taken.append(time.perf_counter() - began)
    assert np.median(taken) < 1e-3
