"""Trading sessions: known days of real exchanges, breaks, and the time that is left."""

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from sysquant import records
from sysquant.errors import ConfigError
from sysquant.sessions import session_left, sessions_of
from sysquant.types import Instrument


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def left(calendar, *times):
    """Seconds left at rising times, with one record as in a run."""
    sessions, first, last = sessions_of([Instrument("A", calendar=calendar)])
    instrument, market = np.zeros(1, records.INSTRUMENT), np.zeros(1, records.MARKET)
    instrument["session_from"], instrument["session_to"] = first, last
    return [session_left(sessions, instrument[0], market[0], ns(time)) for time in times]


def test_what_always_trades_has_no_sessions():
    sessions, first, last = sessions_of([Instrument("A"), Instrument("B")])
    assert sessions.shape == (0, 2) and sessions.dtype == np.int64
    assert first.tolist() == last.tolist() == [0, 0]
    assert left("24/7", "2026-01-03T12:00:00") == [np.inf]


def test_new_york_opens_and_closes_in_summer_and_winter_time():
    assert left(
        "XNYS",
        "2024-03-08T14:29:59",  # a Friday in winter time: 14:30 to 21:00
        "2024-03-08T14:30:00",
        "2024-03-08T20:59:59",
        "2024-03-08T21:00:00",
        "2024-03-10T15:00:00",  # Sunday
        "2024-03-11T13:30:00",  # in summer time: 13:30 to 20:00
        "2024-03-11T20:00:00",
    ) == [-1.0, 23_400.0, 1.0, -1.0, -1.0, 23_400.0, -1.0]


def test_holiday_and_half_day_of_new_york_are_known():
    assert left("XNYS", "2024-11-28T16:00:00", "2024-11-29T17:59:00", "2024-11-29T18:00:00") == [
        -1.0,
        60.0,
        -1.0,
    ]


def test_lunch_break_of_hong_kong_lies_between_two_sessions():
    assert left(
        "XHKG",
        "2024-01-02T01:30:00",
        "2024-01-02T03:59:59",
        "2024-01-02T04:30:00",
        "2024-01-02T05:00:00",
        "2024-01-02T07:59:59",
        "2024-01-02T08:00:00",
    ) == [9_000.0, 1.0, -1.0, 10_800.0, 1.0, -1.0]


def test_first_sessions_are_those_of_2000_and_before_them_nothing_trades():
    assert left("XNYS", "1999-12-31T15:00:00", "2000-01-03T20:59:00") == [-1.0, 60.0]


def test_after_the_last_known_session_nothing_trades():
    sessions, _, _ = sessions_of([Instrument("A", calendar="XSHG")])
    assert sessions[-1, 1] <= ns("2050-01-01T00:00:00")
    end = datetime.fromtimestamp(int(sessions[-1, 1]) // 10**9, UTC).replace(tzinfo=None)
    assert left("XSHG", end.isoformat()) == [-1.0]


def test_instruments_of_one_calendar_share_its_sessions():
    calendars = ("XNYS", "24/7", "XHKG", "XNYS")
    universe = [Instrument(f"S{i}", calendar=name) for i, name in enumerate(calendars)]
    sessions, first, last = sessions_of(universe)
    assert (first[0], last[0]) == (first[3], last[3])
    assert first[1] == last[1]
    assert (last[0], last[2]) == (first[2], len(sessions))
    for start, end in zip(first, last, strict=True):
        part = sessions[start:end]
        assert (part[:, 0] < part[:, 1]).all()
        assert (part[1:, 0] >= part[:-1, 1]).all()


def test_second_instrument_starts_at_its_own_calendar():
    universe = [Instrument("A", calendar="XNYS"), Instrument("B", calendar="XHKG")]
    sessions, first, last = sessions_of(universe)
    instrument, market = np.zeros(1, records.INSTRUMENT), np.zeros(1, records.MARKET)
    instrument["session_from"], instrument["session_to"] = first[1], last[1]
    found = session_left(sessions, instrument[0], market[0], ns("2024-01-02T07:59:00"))
    assert found == 60.0
    assert first[1] <= market["session"][0] < last[1]


def test_misspelt_calendar_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"calendar of A .* 'XNYX'; did you mean 'XNYS'\?"):
        sessions_of([Instrument("A", calendar="XNYX")])


def test_universe_around_the_clock_does_not_load_the_library():
    code = (
        "import sys; from sysquant.sessions import sessions_of; "
        "from sysquant.types import Instrument; sessions_of([Instrument('A')]); "
        "sys.exit('exchange_calendars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
