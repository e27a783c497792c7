"""Marks of the wall's clock: how old a batch is, and bars that are over without a tick."""

import numpy as np

from sysquant.types import CLOCK_MARK, Bars
from sysquant.wall import with_marks
from tests.oracle_compare import batch_of as batch
from tests.told import at

NONE = batch([])


def marks(found):
    rows = np.flatnonzero(found.symbol == CLOCK_MARK)
    return [(int(found.ts[row]), float(found.volume[row])) for row in rows]


def told(ticks, now, *, engine_ts=0, next_mark=0, grace_ms=100):
    return with_marks(ticks, now, engine_ts=engine_ts, next_mark=next_mark, grace_ms=grace_ms)


def ticks(*seconds):
    return batch([("tick", at(second), 0, 100.0, 1.0) for second in seconds])


def test_a_batch_is_as_old_as_its_first_tick_and_the_mark_makes_none_late():
    found = told(ticks(5.0, 7.0), at(8.0), engine_ts=at(4.0))
    assert marks(found) == [(at(4.0), 3.0)]
    assert found.symbol.tolist() == [CLOCK_MARK, 0, 0]
    assert marks(told(ticks(5.0, 4.5), at(8.0))) == [(at(4.5), 3.5)], "the first batch of all"


def test_a_late_tick_does_not_make_the_others_old_and_a_clock_ahead_is_no_lag():
    assert marks(told(ticks(1.0, 5.0), at(5.5), engine_ts=at(5.0))) == [(at(5.0), 0.5)]
    assert marks(told(ticks(9.0), at(8.0), engine_ts=at(5.0))) == [(at(5.0), 0.0)]


def test_a_bar_is_over_after_its_grace_unless_a_tick_says_so():
    end = {"engine_ts": at(4.0), "next_mark": at(5.0)}
    assert marks(told(NONE, at(5.09), **end)) == []
    assert marks(told(NONE, at(7.0), **end)) == [(at(4.0), 2.0), (at(5.0), 2.0)]
    assert [ts for ts, _ in marks(told(ticks(5.0), at(7.0), **end))] == [at(4.0)]
    both = marks(told(ticks(4.5), at(7.0), **end))
    assert both == [(at(4.0), 2.5), (at(5.0), 2.0)]


def test_bars_are_left_as_they_are():
    bars = Bars.empty()
    assert told(bars, at(1.0)) is bars
