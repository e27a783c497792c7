"""When instruments trade: sessions of their exchange, from 2000 on.

Input: the `calendar` of each instrument. Output: opening and closing times, and how long the
session still lasts. A calendar is computed from the rules of its exchange, without a look at the
clock, up to the last year whose holidays are known, at most 2049. A lunch break ends a session.
"""

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from sysquant.compiled import inlined_kernel
from sysquant.errors import ConfigError, nearest
from sysquant.records import Row
from sysquant.types import ALWAYS, Instrument, Ints

_START, _END = "2000-01-01", "2049-12-31"


def sessions_of(universe: Sequence[Instrument]) -> tuple[Ints, Ints, Ints]:
    """Sessions of all calendars of a universe.

    Returns
    -------
    (N, 2) open and close of each session, ns UTC, the close not in it, rising for each calendar;
    and (Y,) each instrument's first row and the one after its last; equal for `24/7`.

    Raises
    ------
    ConfigError
        If a calendar is not known.
    """
    parts: list[Ints] = [np.empty((0, 2), np.int64)]
    places: dict[str, tuple[int, int]] = {ALWAYS: (0, 0)}
    for instrument in universe:
        if instrument.calendar not in places:
            start = sum(map(len, parts))
            parts.append(_sessions_of(instrument))
            places[instrument.calendar] = (start, start + len(parts[-1]))
    bounds = np.array([places[instrument.calendar] for instrument in universe], np.int64)
    bounds = bounds.reshape(len(universe), 2)
    return np.concatenate(parts), bounds[:, 0].copy(), bounds[:, 1].copy()


def _sessions_of(instrument: Instrument) -> Ints:
    # Half a second, and only some universes need it.
    import exchange_calendars as xc
    from exchange_calendars.errors import InvalidCalendarName

    try:
        return _sessions(instrument.calendar)
    except InvalidCalendarName as error:
        names = [ALWAYS, *xc.get_calendar_names()]
        raise ConfigError(
            f"calendar of {instrument.symbol} does not know {instrument.calendar!r}"
            + nearest(instrument.calendar, names)
        ) from error


@cache  # half a second each, and a notebook makes many engines
def _sessions(name: str) -> Ints:
    import exchange_calendars as xc
    import pandas as pd

    start: Any = pd.Timestamp(_START)
    end: Any = pd.Timestamp(_END)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library is behind the newest pandas
        known = type(xc.get_calendar(name))
        calendar = known(
            start=max(known.bound_min() or start, start), end=min(known.bound_max() or end, end)
        )
        opens, closes = calendar.opens_nanos, calendar.closes_nanos
        break_starts, break_ends = calendar.break_starts_nanos, calendar.break_ends_nanos
    broken = break_starts != np.iinfo(np.int64).min  # NaT: no break on that day
    morning = np.column_stack([opens, np.where(broken, break_starts, closes)])
    afternoon = np.column_stack([break_ends, closes])[broken]
    both = np.concatenate([morning, afternoon]).astype(np.int64)
    return both[np.argsort(both[:, 0], kind="stable")]


@inlined_kernel
def session_left(sessions: Ints, instrument: Row, market: Row, ts: int) -> float:
    """Seconds until the instrument's session ends, -1 outside one, inf if it always trades.

    Parameters
    ----------
    sessions : (N, 2) open and close, ns UTC.
    instrument, market : `records.INSTRUMENT` and `MARKET`; `session` moves on with time, so that
        times must not go back.
    ts : ns UTC.
    """
    if instrument.session_from == instrument.session_to:
        return math.inf
    place = max(market.session, instrument.session_from)
    while place < instrument.session_to and sessions[place, 1] <= ts:
        place += 1
    market.session = place
    if place == instrument.session_to or ts < sessions[place, 0]:
        return -1.0
    return (sessions[place, 1] - ts) / 1e9
