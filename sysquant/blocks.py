"""Ticks of the store in pieces that can be ordered on their own, and how history asks it at all.

Input: a client, what is asked for, and a range. Output: Arrow tables, or `Ticks` of one window. A
window begins where every record before it has both the smaller offset and the smaller ts in its
partition, so no tick's place depends on another window.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from numpy.typing import DTypeLike

from sysquant.errors import StoreError
from sysquant.types import Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SLOTS = 20_000  # of a range, at most: what is counted to cut it into windows
_SETTINGS = {
    # The month is part of the key, so rows of two months never replace each other.
    "do_not_merge_across_partitions_select_final": 1,
    # Prices hardly shrink: LZ4, the default, takes a third of the time and saves little.
    "output_format_arrow_compression_method": "none",
}

INSIDE = """symbol IN {symbols:Array(String)}
  AND ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')
  AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"""

TICKS_INSIDE = INSIDE + "\n  AND startsWith(epoch, {source:String})"

_SLOTS_SQL = f"""
SELECT cityHash64(epoch) AS life, partition AS place,
  intDiv(toUnixTimestamp64Nano(ts), {{width:Int64}}) AS slot,
  min(offset) AS first, max(offset) AS last, count() AS rows
FROM ticks FINAL WHERE {TICKS_INSIDE}
GROUP BY life, place, slot ORDER BY life, place, slot
"""

_TICKS_SQL = f"""
SELECT toUnixTimestamp64Nano(t.ts) AS at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  t.price AS price, t.volume AS volume, toUnixTimestamp64Nano(t.received_at) AS received,
  cityHash64(t.epoch) AS life, t.partition AS place
FROM ticks AS t FINAL WHERE {TICKS_INSIDE}
ORDER BY t.epoch, t.partition, t.offset
"""


@contextmanager
def asking() -> Iterator[None]:
    """Turn the client's errors into `StoreError` with one line."""
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(f"history cannot be read: {str(error).strip().splitlines()[0]}") from error


def ask(client: "Client", sql: str, bound: dict[str, object]) -> pa.Table:
    """The answer to `sql` with its parameters `bound`.

    Raises
    ------
    StoreError
        If the store does not answer or refuses.
    """
    with asking():
        return client.query_arrow(sql, parameters=bound, settings=_SETTINGS)


def column(table: pa.Table, name: str) -> np.ndarray:
    """One column as an array; it may be read-only."""
    return table.column(name).to_numpy()


def gathered(table: pa.Table, name: str, dtype: DTypeLike) -> np.ndarray:
    """One column as an array of its own, in `room`."""
    values, at = room(table.num_rows, dtype), 0
    for chunk in table.column(name).chunks:
        values[at : at + len(chunk)] = chunk.to_numpy()
        at += len(chunk)
    return values


def room(count: int, dtype: DTypeLike) -> np.ndarray:
    """An array, not filled, in memory that Arrow keeps for its next use.

    What numpy takes for millions of rows goes back to the system every time, and to be given it
    anew, page by page, takes longer than to copy the rows.
    """
    return np.frombuffer(pa.allocate_buffer(count * np.dtype(dtype).itemsize), dtype)


class Window(NamedTuple):
    """A piece of history that is read at once: [start, end) ns, and how many rows lie in it."""

    start: int
    end: int
    rows: int


def tick_windows(
    client: "Client", bound: dict[str, object], start: int, end: int, block_rows: int
) -> list[Window]:
    """Windows of about `block_rows` ticks that make up [start, end) ns, in order.

    Cut where every record before has both the smaller offset and the smaller ts in its partition:
    there the running maximum starts anew. A window is larger where ticks are out of order over
    longer stretches.

    Parameters
    ----------
    client : of the store.
    bound : parameters `symbols` and `source` of the queries.
    """
    width = max(1, -(-(end - start) // _SLOTS))
    table = ask(client, _SLOTS_SQL, bound | {"start": start, "end": end, "width": width})
    if not table.num_rows:
        return []
    slots, at = np.unique(column(table, "slot"), return_inverse=True)
    rows = np.bincount(at, column(table, "rows")).astype(np.int64)
    joined = np.zeros(len(slots) + 1, np.int64)
    for stream in _streams(table):
        first, last = column(table, "first")[stream], column(table, "last")[stream]
        later = np.minimum.accumulate(first[::-1])[::-1]
        mixed = np.flatnonzero(np.maximum.accumulate(last)[:-1] > later[1:])
        np.add.at(joined, at[stream][mixed] + 1, 1)
        np.add.at(joined, at[stream][mixed + 1] + 1, -1)
    free = np.cumsum(joined)[: len(slots)] == 0  # may be cut before this slot
    windows = []
    edge, count = start, 0
    for slot, number, cut in zip(slots.tolist(), rows.tolist(), free.tolist(), strict=True):
        if cut and count and count + number > block_rows:
            windows.append(Window(edge, slot * width, count))
            edge, count = slot * width, 0
        count += number
    return [*windows, Window(edge, end, count)]


def read_ticks(client: "Client", bound: dict[str, object], window: Window, first_row: int) -> Ticks:
    """Ticks of a window, by (running maximum of ts in their partition, partition, offset).

    Parameters
    ----------
    client, bound : as for `tick_windows`.
    first_row : their `offset` counts from here; `partition` is 0.
    """
    table = ask(client, _TICKS_SQL, bound | {"start": window.start, "end": window.end})
    ts = column(table, "at")
    running, stream = ts.copy(), np.zeros(len(ts), np.int64)
    for number, rows in enumerate(_streams(table)):
        running[rows] = np.maximum.accumulate(ts[rows])
        stream[rows] = number
    order = np.lexsort((stream, running))  # stable: a stream's rows come in offset order
    names = ("number", "price", "volume", "received")
    symbol, price, volume, received = (column(table, name)[order] for name in names)
    return Ticks(
        ts[order], symbol, price, volume, received,
        np.zeros(len(ts), np.int32), np.arange(first_row, first_row + len(ts)),
    )  # fmt: skip


def _streams(table: pa.Table) -> list[slice]:
    # Rows of each (epoch, partition), which lie together.
    life, place = column(table, "life"), column(table, "place")
    changes = np.flatnonzero((np.diff(life) != 0) | (np.diff(place) != 0)) + 1
    edges = [0, *changes.tolist(), len(life)]
    return [slice(a, b) for a, b in pairwise(edges)]
