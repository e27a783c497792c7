"""History for a researcher: bars of named symbols in one call, with what is missing of them.

Input: symbols, a range and an interval. Output: a `History`. The store is opened where no client is
given, and closed again. ClickHouse aggregates; nothing is filled in, and what is missing is told.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sysquant import archive
from sysquant.answers import asking, is_unknown_table
from sysquant.errors import ConfigError, DataError, StoreError, nearest
from sysquant.months import months
from sysquant.past import History
from sysquant.sessions import sessions_of
from sysquant.store import DEFAULT_DSN, connect
from sysquant.times import DAY, Moment, check_moment, interval_ns
from sysquant.types import SECOND, Bars, Floats, Gaps, Instrument, Ints

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_LOOKED_AT = 20_000  # bars of a symbol, at most, to see its steps
_DECIMALS = 8  # of a step, at most
_PRICES = ("open", "high", "low", "close")
_EMPTY = (
    "the store is empty: `make live` fills it with a sample, `python runners/backfill.py` with "
    "your own data"
)

_SYMBOLS_SQL = {
    "ticks": "SELECT DISTINCT toString(symbol) FROM ticks",
    "bars": "SELECT DISTINCT toString(symbol) FROM bars_1m UNION DISTINCT "
    "SELECT DISTINCT toString(symbol) FROM bars_imported",
}


def history(
    symbols: str | Instrument | Sequence[str | Instrument],
    start: Moment,
    end: Moment = None,
    interval: int | str = "1m",
    *,
    client: "Client | None" = None,
) -> History:
    """Bars of a range, as a notebook wants them.

    Parameters
    ----------
    symbols : a name or several. An `Instrument` in place of a name says what it is; of a name alone
        tick and lot are the smallest decimal steps (1 to 1e-8) that prices and volumes of up to
        20,000 of the bars show, and all else is as `Instrument` has it by default.
    start, end : ISO 8601 (UTC where it names no zone), a datetime with a zone, ns since 1970,
        `-10d` before the last row in the store (units s m h d), or None for the first row and past
        the last.
    interval : of the bars, `1s` to `1d` or ns; it must divide the day. Whole minutes come from the
        minute bars (imported ones before those of ticks), others from ticks.
    client : of the store; by default one is opened on `CLICKHOUSE_DSN` of the environment, or on
        the embedded store, to read only, and closed.

    Returns
    -------
    Bars that lie wholly in [start, end), labelled by their close; no trade, no bar.

    Raises
    ------
    ConfigError
        If symbols, range or interval cannot be meant.
    DataError
        If the store knows no such symbol.
    StoreError
        If the store does not answer, or another process holds it.

    Examples
    --------
    >>> bars = history(["SIM:OAK", "SIM:ELM"], "-10d", interval="5m")
    >>> bars.frame("SIM:OAK")
    """
    named, universe = _universe_of(symbols)
    step = interval_ns(interval)
    if not SECOND <= step <= DAY or DAY % step:
        raise ConfigError(f"interval must divide the day, 1s at least, was {interval!r}")
    check_moment("start", start)
    check_moment("end", end)
    with _opened(client) as store:
        begin, until, bars = _read(store, universe, start, end, step)
    if named:
        universe = _with_steps(universe, named, bars)
    gaps = find_gaps(bars, universe, begin, until, step)
    return History(bars, tuple(universe), step, begin, until, gaps, frozenset(named))


def _universe_of(
    symbols: str | Instrument | Sequence[str | Instrument],
) -> tuple[list[str], list[Instrument]]:
    given = [symbols] if isinstance(symbols, str | Instrument) else list(symbols)
    wrong = [each for each in given if not isinstance(each, str | Instrument)]
    if wrong or not given:
        raise ConfigError(f"symbols must be names or instruments, one at least, was {symbols!r}")
    universe = [each if isinstance(each, Instrument) else Instrument(each) for each in given]
    names = [instrument.symbol for instrument in universe]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"symbols must differ, {', '.join(sorted(twice))} was given twice")
    return [each for each in given if isinstance(each, str)], universe


@contextmanager
def _opened(client: "Client | None") -> "Iterator[Client]":
    if client is not None:
        yield client
        return
    opened = connect(os.environ.get("CLICKHOUSE_DSN") or DEFAULT_DSN, read_only=True)
    try:
        yield opened
    finally:
        opened.close()


def _read(
    client: "Client", universe: list[Instrument], start: Moment, end: Moment, step: int
) -> tuple[int, int, Bars]:
    kind: archive.Kind = "ticks" if step % archive.MINUTE else "bars"
    names = [instrument.symbol for instrument in universe]
    try:
        begin, until = archive.span(client, universe, start, end, kind=kind)
        bars = archive.bars(client, universe, begin, until, step)
    except DataError:
        _refuse_unknown(client, names, kind)
        raise
    except StoreError as error:
        if is_unknown_table(error):
            raise DataError(_EMPTY) from error
        raise
    rows = np.bincount(bars.symbol, minlength=len(names))
    absent = [name for name, count in zip(names, rows, strict=True) if not count]
    if absent:
        _refuse_unknown(client, absent, kind)
    return begin, until, bars


# A symbol that has no row in the range may still be known.
def _refuse_unknown(client: "Client", names: list[str], kind: archive.Kind) -> None:
    with asking():
        known = {k: {r[0] for r in client.query(q).result_rows} for k, q in _SYMBOLS_SQL.items()}
    known["ticks"] |= {month.symbol for month in months(client)}
    if not any(known.values()):
        raise DataError(_EMPTY)
    for name in names:
        if name not in known[kind]:
            if name in known["bars"]:
                raise DataError(
                    f"the store has minute bars of {name} but no {kind}; take an interval of whole "
                    "minutes"
                )
            raise DataError(f"the store has no {kind} of {name!r}{nearest(name, known[kind])}")


def _with_steps(universe: list[Instrument], named: list[str], bars: Bars) -> list[Instrument]:
    found = list[Instrument]()
    for number, instrument in enumerate(universe):
        if instrument.symbol in named:
            rows = np.flatnonzero(bars.symbol == number)
            rows = rows[:: max(1, -(-len(rows) // _LOOKED_AT))]
            prices = np.concatenate([getattr(bars, name)[rows] for name in _PRICES])
            volumes = bars.volume[rows]
            instrument = Instrument(
                instrument.symbol,
                tick_size=_decimal_step(prices, instrument.tick_size),
                lot_size=_decimal_step(volumes[volumes > 0], instrument.lot_size),
            )
        found.append(instrument)
    return found


# Sums of many trades, and what was written in decimals, are off by some last bits.
def _decimal_step(values: Floats, default: float) -> float:
    for decimals in range(_DECIMALS + 1) if len(values) else ():
        scaled = values * 10**decimals
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-6 + 1e-12 * scaled):
            return float(f"1e-{decimals}")
    return default


def find_gaps(
    bars: Bars, universe: Sequence[Instrument], start: int, end: int, interval: int
) -> Gaps:
    """Runs of bars that are missing in a range.

    Parameters
    ----------
    bars : (T,) of `interval`, by (close, symbol).
    universe : whose calendars say when a bar is expected: `24/7` always, others at every interval
        that a session touches. A bar outside the sessions is no gap's end.
    start, end : ns UTC: bars that lie wholly in [start, end) are expected.
    interval : ns.

    Raises
    ------
    ConfigError
        If a calendar is not known.
    """
    first, last = -(-start // interval) * interval, end // interval * interval
    sessions, begins, ends = sessions_of(universe)
    rows = np.bincount(bars.symbol, minlength=len(universe))
    if np.all(begins == ends) and np.all(rows == (last - first) // interval):
        return Gaps.empty()
    # By symbol, in the order of time: sixteen bits are sorted in one pass over them.
    small = np.int16 if len(universe) < 2**15 else np.int32
    order = np.argsort(bars.symbol.astype(small), kind="stable")
    edges = np.cumsum([0, *rows])
    found = [Gaps.empty()]
    for number in range(len(universe)):
        own = sessions[begins[number] : ends[number]]
        if begins[number] == ends[number]:
            own = np.array([[first, last]])
        closes = bars.ts[order[edges[number] : edges[number + 1]]]
        found.append(_gaps_of(closes, number, _expected(own, first, last, interval), interval))
    return Gaps.join(found)


class _Runs(NamedTuple):
    # Closes at which a bar is expected: runs of them, an interval apart.
    first: Ints
    bars: Ints
    before: Ints  # expected bars in earlier runs
    total: int

    def close(self, place: Ints, interval: int) -> Ints:
        run = np.searchsorted(self.before, place, side="right") - 1
        return self.first[run] + (place - self.before[run]) * interval


def _expected(sessions: Ints, first: int, last: int, interval: int) -> _Runs:
    opens, closes = np.maximum(sessions[:, 0], first), np.minimum(sessions[:, 1], last)
    inside = opens < closes
    starts = (opens[inside] // interval + 1) * interval
    stops = -(-closes[inside] // interval) * interval
    if len(starts):  # an interval that two sessions touch is one bar
        starts[1:] = np.maximum(starts[1:], np.maximum.accumulate(stops)[:-1] + interval)
    bars = np.maximum((stops - starts) // interval + 1, 0)
    starts, bars = starts[bars > 0], bars[bars > 0]
    return _Runs(starts, bars, np.cumsum(bars) - bars, int(bars.sum()))


def _gaps_of(closes: Ints, number: int, runs: _Runs, interval: int) -> Gaps:
    if not runs.total:
        return Gaps.empty()
    run = np.searchsorted(runs.first, closes, side="right") - 1
    within = (closes - runs.first[run]) // interval
    place = (runs.before[run] + within)[(run >= 0) & (within < runs.bars[run])]
    place = np.concatenate([[-1], place, [runs.total]])
    missing = np.diff(place) - 1
    at = np.flatnonzero(missing)
    return Gaps(
        np.full(len(at), number, np.int32),
        runs.close(place[at] + 1, interval) - interval,
        runs.close(place[at + 1] - 1, interval),
        missing[at],
    )
