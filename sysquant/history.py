"""History from the store, in the one order that replay, backtest and notebooks share.

Input: a client, a universe and a range. Output: `Ticks` or `Bars`, whole or in blocks, so that a
range of any length can be read in bounded memory. Every row once; a gap stays a gap. Ticks come by
(running maximum of ts in their partition, partition, offset), bars by (close, symbol). Nothing is
written here, and no engine is opened.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from sysquant.errors import ConfigError, DataError, StoreError
from sysquant.types import SECOND, Bars, Instrument, Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Moment = int | str | None
Kind = Literal["ticks", "bars"]

MINUTE = 60 * SECOND
BLOCK_ROWS = 262_144
_UNITS = {"s": SECOND, "m": MINUTE, "h": 60 * MINUTE, "d": 1440 * MINUTE}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SLOTS = 20_000  # of a range, at most: what is counted to cut it into blocks
# The month is part of the key, so rows of two months never replace each other.
_SETTINGS = {"do_not_merge_across_partitions_select_final": 1}

_INSIDE = """symbol IN {symbols:Array(String)}
  AND ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')
  AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"""

_TICKS_INSIDE = _INSIDE + "\n  AND startsWith(epoch, {source:String})"

_SLOTS_SQL = f"""
SELECT cityHash64(epoch) AS life, partition AS place,
  intDiv(toUnixTimestamp64Nano(ts), {{width:Int64}}) AS slot,
  min(offset) AS first, max(offset) AS last, count() AS rows
FROM ticks FINAL WHERE {_TICKS_INSIDE}
GROUP BY life, place, slot ORDER BY life, place, slot
"""

_TICKS_SQL = f"""
SELECT toUnixTimestamp64Nano(t.ts) AS at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  t.price AS price, t.volume AS volume, toUnixTimestamp64Nano(t.received_at) AS received,
  cityHash64(t.epoch) AS life, t.partition AS place
FROM ticks AS t FINAL WHERE {_TICKS_INSIDE}
ORDER BY t.epoch, t.partition, t.offset
"""

_BARS_OF_TICKS_SQL = f"""
SELECT (intDiv(toUnixTimestamp64Nano(t.ts), {{interval:Int64}}) + 1) * {{interval:Int64}}
    AS close_at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  argMin(t.price, (t.ts, t.offset)) AS open, max(t.price) AS high, min(t.price) AS low,
  argMax(t.price, (t.ts, t.offset)) AS close, sum(t.volume) AS volume
FROM ticks AS t FINAL WHERE {_TICKS_INSIDE}
GROUP BY close_at, number ORDER BY close_at, number
"""

# A minute bar belongs to the instant before its close.
_BARS_OF_MINUTES_SQL = f"""
SELECT (intDiv(toUnixTimestamp64Nano(b.ts) - 1, {{interval:Int64}}) + 1) * {{interval:Int64}}
    AS close_at,
  toInt32(indexOf({{symbols:Array(String)}}, b.symbol) - 1) AS number,
  argMin(b.open, b.ts) AS open, max(b.high) AS high, min(b.low) AS low,
  argMax(b.close, b.ts) AS close, sum(b.volume) AS volume
FROM bars AS b
WHERE {_INSIDE.replace(">=", ">").replace("ts <", "ts <=")}
GROUP BY close_at, number ORDER BY close_at, number
"""

_TICK_EDGES_SQL = """
SELECT min(toUnixTimestamp64Nano(ts)), max(toUnixTimestamp64Nano(ts)) + 1, count()
FROM ticks WHERE symbol IN {symbols:Array(String)} AND startsWith(epoch, {source:String})
"""
_BAR_EDGES_SQL = """
SELECT min(first) - {minute:Int64}, max(last), sum(rows) FROM (
  SELECT min(toUnixTimestamp64Nano(ts)) AS first, max(toUnixTimestamp64Nano(ts)) AS last,
    count() AS rows
  FROM bars_1m WHERE symbol IN {symbols:Array(String)} AND ts <= now64(9, 'UTC')
  UNION ALL
  SELECT min(toUnixTimestamp64Nano(ts)), max(toUnixTimestamp64Nano(ts)), count()
  FROM bars_imported WHERE symbol IN {symbols:Array(String)} AND ts <= now64(9, 'UTC')
) WHERE rows > 0
"""


class _Window(NamedTuple):
    # A piece of history that is read at once, [start, end) ns; no tick's place depends on others.
    start: int
    end: int
    rows: int


def interval_ns(interval: int | str) -> int:
    """Nanoseconds of `1s`, `5m`, `1h`, `1d` (or ns as they are).

    Raises
    ------
    ConfigError
        If it is no positive length.
    """
    if isinstance(interval, str):
        parts = re.fullmatch(r"([0-9]+)\s*([smhd])", interval.strip())
        value = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    else:
        value = interval
    if value <= 0:
        raise ConfigError(f"interval must be like 1s, 5m, 1h or 1d, was {interval!r}")
    return value


def instant(value: int | str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time, read as UTC where it names no zone.

    Raises
    ------
    ConfigError
        If it is no time.
    """
    if isinstance(value, int):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"a time must be like 2026-01-01T00:00:00Z, was {value!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def span(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    kind: Kind = "ticks",
    source: str = "",
) -> tuple[int, int]:
    """The range that is meant, in ns: [start, end).

    Parameters
    ----------
    client : of the store.
    universe : whose history.
    start, end : ns, ISO 8601 (UTC), `-6h` before the last row in the store (units s m h d), or
        None for the first row and past the last.
    kind : of the rows that None and `-6h` refer to.
    source : ticks of epochs that begin with it; all by default.

    Raises
    ------
    ConfigError
        If a time cannot be meant, or the end is not after the start.
    DataError
        If the store's rows are asked for and it has none.
    StoreError
        If the store does not answer.
    """
    first, last = 0, 0
    if any(m is None or (isinstance(m, str) and m.startswith("-")) for m in (start, end)):
        first, last = _edges(client, universe, kind, source)
    moments = _moment(start, first, last), _moment(end, last, last)
    if moments[0] >= moments[1]:
        raise ConfigError(f"history must end after its start, was start={start} end={end}")
    return moments


def _moment(moment: Moment, default: int, last: int) -> int:
    if moment is None:
        return default
    if isinstance(moment, str) and moment.startswith("-"):
        return last - interval_ns(moment[1:])
    return instant(moment)


def _edges(
    client: "Client", universe: Sequence[Instrument], kind: Kind, source: str
) -> tuple[int, int]:
    sql = _TICK_EDGES_SQL if kind == "ticks" else _BAR_EDGES_SQL
    names = [instrument.symbol for instrument in universe]
    bound = {"symbols": names, "source": source, "minute": MINUTE}
    with _asking():
        row = client.query(sql, parameters=bound).result_rows[0]
    if not row[2]:
        raise DataError(
            f"the store has no {kind} of {', '.join(names)}: import some with"
            " `python runners/backfill.py`, or choose another universe"
        )
    return int(row[0]), int(row[1])


def ticks(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    source: str = "",
) -> Ticks:
    """Ticks of a range, as one batch.

    Parameters
    ----------
    client, universe, start, end, source : as for `span`.

    Returns
    -------
    (T,) ticks with `start <= ts < end`, ordered by (running maximum of ts in their partition,
    partition, offset); `partition` 0 and `offset` the row number in that order.

    Raises
    ------
    As `span`.
    """
    return Ticks.join([Ticks.empty(), *iter_ticks(client, universe, start, end, source=source)])


def iter_ticks(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    source: str = "",
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> Iterator[Ticks]:
    """The same ticks from row `first_row` on, in blocks of about `block_rows`.

    A block is larger where ticks are out of order over longer stretches: nothing is cut there.
    """
    begin, until = span(client, universe, start, end, source=source)
    bound = {"symbols": [i.symbol for i in universe], "source": source}
    row = 0
    for window in _tick_windows(client, bound, begin, until, block_rows):
        if row + window.rows > first_row:
            block = _read_ticks(client, bound, window, row)
            yield block[max(0, first_row - row) :]
        row += window.rows


def bars(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    interval: int | str = "1m",
) -> Bars:
    """Bars of a range, as one batch.

    Whole minutes come from the minute bars (imported ones before those of ticks), other intervals
    from ticks.

    Parameters
    ----------
    client, universe, start, end : as for `span`.
    interval : of the bars, ns or `1s`, `5m`, `1h`, `1d`; they begin at its multiples since 1970.

    Returns
    -------
    (T,) bars that lie wholly in [start, end), by (close, symbol); no trade, no bar. `partition` 0
    and `offset` the row number.

    Raises
    ------
    As `span`.
    """
    return Bars.join([Bars.empty(), *iter_bars(client, universe, start, end, interval)])


def iter_bars(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    interval: int | str = "1m",
    *,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> Iterator[Bars]:
    """The same bars from row `first_row` on, in blocks of at most `block_rows`."""
    step = interval_ns(interval)
    kind: Kind = "ticks" if step % MINUTE else "bars"
    begin, until = span(client, universe, start, end, kind=kind)
    first, last = -(-begin // step) * step, until // step * step
    width = max(1, block_rows // len(universe)) * step
    bound: dict[str, object] = {"symbols": [i.symbol for i in universe], "interval": step}
    sql = _BARS_OF_TICKS_SQL if step % MINUTE else _BARS_OF_MINUTES_SQL
    row = 0
    for at in range(first, last, width):
        table = _ask(client, sql, bound | {"source": "", "start": at, "end": min(at + width, last)})
        count = table.num_rows
        if row + count > first_row:
            names = ("open", "high", "low", "close", "volume")
            block = Bars(
                ts=np.array(_column(table, "close_at")),  # copies: Arrow's cannot be written to
                symbol=np.array(_column(table, "number")),
                **{name: np.array(_column(table, name)) for name in names},
                partition=np.zeros(count, np.int32),
                offset=np.arange(row, row + count),
            )
            yield block[max(0, first_row - row) :]
        row += count


def _tick_windows(
    client: "Client", bound: dict[str, object], start: int, end: int, block_rows: int
) -> list[_Window]:
    # Cuts a range where every record before has both the smaller offset and the smaller ts in its
    # partition: there the running maximum starts anew, so blocks can be ordered on their own.
    width = max(1, -(-(end - start) // _SLOTS))
    table = _ask(client, _SLOTS_SQL, bound | {"start": start, "end": end, "width": width})
    if not table.num_rows:
        return []
    slots, at = np.unique(_column(table, "slot"), return_inverse=True)
    rows = np.bincount(at, _column(table, "rows")).astype(np.int64)
    joined = np.zeros(len(slots) + 1, np.int64)
    for stream in _streams(table):
        first, last = _column(table, "first")[stream], _column(table, "last")[stream]
        later = np.minimum.accumulate(first[::-1])[::-1]
        mixed = np.flatnonzero(np.maximum.accumulate(last)[:-1] > later[1:])
        np.add.at(joined, at[stream][mixed] + 1, 1)
        np.add.at(joined, at[stream][mixed + 1] + 1, -1)
    free = np.cumsum(joined)[: len(slots)] == 0  # may be cut before this slot
    windows = []
    edge, count = start, 0
    for slot, number, cut in zip(slots.tolist(), rows.tolist(), free.tolist(), strict=True):
        if cut and count and count + number > block_rows:
            windows.append(_Window(edge, slot * width, count))
            edge, count = slot * width, 0
        count += number
    return [*windows, _Window(edge, end, count)]


def _read_ticks(
    client: "Client", bound: dict[str, object], window: _Window, first_row: int
) -> Ticks:
    table = _ask(client, _TICKS_SQL, bound | {"start": window.start, "end": window.end})
    ts = _column(table, "at")
    running, stream = ts.copy(), np.zeros(len(ts), np.int64)
    for number, rows in enumerate(_streams(table)):
        running[rows] = np.maximum.accumulate(ts[rows])
        stream[rows] = number
    order = np.lexsort((stream, running))  # stable: a stream's rows come in offset order
    names = ("number", "price", "volume", "received")
    symbol, price, volume, received = (_column(table, name)[order] for name in names)
    return Ticks(
        ts[order], symbol, price, volume, received,
        np.zeros(len(ts), np.int32), np.arange(first_row, first_row + len(ts)),
    )  # fmt: skip


def _streams(table: pa.Table) -> list[slice]:
    # Rows of each (epoch, partition), which lie together.
    life, place = _column(table, "life"), _column(table, "place")
    changes = np.flatnonzero((np.diff(life) != 0) | (np.diff(place) != 0)) + 1
    edges = [0, *changes.tolist(), len(life)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def _ask(client: "Client", sql: str, bound: dict[str, object]) -> pa.Table:
    with _asking():
        return client.query_arrow(sql, parameters=bound, settings=_SETTINGS)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(f"history cannot be read: {str(error).strip().splitlines()[0]}") from error


def earliest(
    client: "Client", universe: Sequence[Instrument], topic: str, first: Mapping[int, int]
) -> int | None:
    """Time of the earliest stored tick of a topic that lies at or behind given offsets.

    Parameters
    ----------
    client : of the store.
    universe : whose symbols are looked at.
    topic : epoch under which `ingest` writes it.
    first : partition -> offset; partitions not named are left out.

    Returns
    -------
    ns UTC; None when there is no such tick.
    """
    if not first:
        return None
    found = client.query(
        "SELECT min(toUnixTimestamp64Nano(ts)), count() FROM ticks WHERE epoch = {topic:String} "
        "AND symbol IN {symbols:Array(String)} AND offset >= "
        "transform(partition, {partitions:Array(Int32)}, {offsets:Array(Int64)}, {none:Int64})",
        {
            "topic": topic,
            "symbols": [instrument.symbol for instrument in universe],
            "partitions": list(first),
            "offsets": list(first.values()),
            "none": np.iinfo(np.int64).max,
        },
    ).result_rows
    return int(found[0][0]) if found[0][1] else None
