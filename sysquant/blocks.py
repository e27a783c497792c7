"""Ticks of history in pieces that can be ordered on their own, and bars made of them.

Input: a client, what is asked for, and a range. Output: Arrow tables, or `Ticks` of one window. A
window begins where every record before it has both the smaller offset and the smaller ts in its
partition, so no tick's place depends on another window. Months that lie in files are read there.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from sysquant.answers import TICKS_INSIDE, ask, coded, column
from sysquant.months import Month, steadily, stretches, ticks_of
from sysquant.types import Ticks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SLOTS = 20_000  # of a range, at most: what is counted to cut it into windows

_SLOTS_SQL = f"""
SELECT toString(epoch) AS life, partition AS place,
  intDiv(toUnixTimestamp64Nano(ts), {{width:Int64}}) AS slot,
  min(offset) AS first, max(offset) AS last, toInt64(count()) AS rows
FROM ticks FINAL WHERE {TICKS_INSIDE}
GROUP BY life, place, slot
"""

_TICKS_SQL = f"""
SELECT toUnixTimestamp64Nano(t.ts) AS at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  t.price AS price, t.volume AS volume, toUnixTimestamp64Nano(t.received_at) AS received,
  cityHash64(t.epoch) AS life, t.partition AS place
FROM ticks AS t FINAL WHERE {TICKS_INSIDE}
ORDER BY t.epoch, t.partition, t.offset
"""

_BARS_SQL = f"""
SELECT (intDiv(toUnixTimestamp64Nano(t.ts), {{interval:Int64}}) + 1) * {{interval:Int64}}
    AS close_at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  argMin(t.price, (t.ts, t.offset)) AS open, max(t.price) AS high, min(t.price) AS low,
  argMax(t.price, (t.ts, t.offset)) AS close, sum(t.volume) AS volume
FROM ticks AS t FINAL WHERE {TICKS_INSIDE}
GROUP BY close_at, number
"""


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
    table = _slots(client, bound, start, end, width)
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

    def read(held: Sequence[Month]) -> pa.Table:
        if held:
            return ticks_of(client, bound, window.start, window.end, held)
        return ask(client, _TICKS_SQL, bound | {"start": window.start, "end": window.end})

    table = steadily(client, _symbols(bound), window.start, window.end, read)
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


def tick_bars(client: "Client", bound: dict[str, object], start: int, end: int) -> pa.Table:
    """Bars made of the ticks of [start, end) ns, in no order.

    Parameters
    ----------
    client : of the store.
    bound : parameters `symbols`, `source` and `interval`, ns, of which start and end are multiples.

    Returns
    -------
    close_at, number (of the symbol), open, high, low, close, volume.
    """
    interval = int(bound["interval"])  # pyright: ignore[reportArgumentType]

    def read(held: Sequence[Month]) -> pa.Table:
        pieces = [
            _bars_of(ticks_of(client, bound, a, b, held), interval)
            if in_files
            else ask(client, _BARS_SQL, bound | {"start": a, "end": b})
            for a, b, in_files in stretches(held, start, end, interval)
        ]
        return pa.concat_tables(pieces, promote_options="default")

    return steadily(client, _symbols(bound), start, end, read)


def _bars_of(ticks: pa.Table, interval: int) -> pa.Table:
    # As ClickHouse makes them: of equal (ts, offset) the first row counts, and volumes are added
    # one after another in the order of the table's key, so that the last bits are the same.
    names = ("number", "at", "life", "place", "record")
    order = np.lexsort([column(ticks, name) for name in reversed(names)])
    rows = {name: column(ticks, name)[order] for name in (*names, "price", "volume")}
    group = (rows["at"] // interval + 1) * interval
    first = _begins(rows["number"], group)
    bar = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(order))))
    by_trade = np.lexsort(
        (rows["record"], rows["at"], rows["number"])
    )  # groups stay where they are
    price = rows["price"][by_trade]
    same = _begins(rows["number"][by_trade], rows["at"][by_trade], rows["record"][by_trade])
    last = same[np.searchsorted(same, np.append(first[1:], len(order)), side="left") - 1]
    return pa.table(
        {
            "close_at": group[first],
            "number": rows["number"][first],
            "open": price[first],
            "high": np.maximum.reduceat(price, first) if len(first) else price,
            "low": np.minimum.reduceat(price, first) if len(first) else price,
            "close": price[last] if len(first) else price,
            "volume": np.bincount(bar, rows["volume"], len(first)),
        }
    )


def _begins(*keys: np.ndarray) -> np.ndarray:
    # Rows at which one of the keys is another than in the row before; the first is one.
    if not len(keys[0]):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(True, np.any([np.diff(key) != 0 for key in keys], axis=0)))


def _slots(
    client: "Client", bound: dict[str, object], start: int, end: int, width: int
) -> pa.Table:
    # How many ticks of each (epoch, partition) lie in each slot, and between which offsets.
    def read(held: Sequence[Month]) -> pa.Table:
        pieces = [
            _slots_of(ticks_of(client, bound, a, b, held), width)
            if in_files
            else ask(client, _SLOTS_SQL, bound | {"start": a, "end": b, "width": width})
            for a, b, in_files in stretches(held, start, end, width)
        ]
        return pa.concat_tables(pieces, promote_options="default")

    table = steadily(client, _symbols(bound), start, end, read)
    life = coded(table.column("life"))
    table = table.set_column(table.schema.get_field_index("life"), "life", pa.array(life))
    order = np.lexsort((column(table, "slot"), column(table, "place"), life))
    return table.take(pa.array(order))


def _slots_of(ticks: pa.Table, width: int) -> pa.Table:
    slot = pa.array(column(ticks, "at") // width)
    keys = ["epoch", "place", "slot"]
    counted = [("record", "min"), ("record", "max"), ("record", "count")]
    table = ticks.append_column("slot", slot).group_by(keys).aggregate(counted)
    return table.rename_columns(["life", "place", "slot", "first", "last", "rows"])


def _symbols(bound: dict[str, object]) -> Sequence[str]:
    return bound["symbols"]  # pyright: ignore[reportReturnType]


def _streams(table: pa.Table) -> list[slice]:
    # Rows of each (epoch, partition), which lie together.
    life, place = column(table, "life"), column(table, "place")
    changes = np.flatnonzero((np.diff(life) != 0) | (np.diff(place) != 0)) + 1
    edges = [0, *changes.tolist(), len(life)]
    return [slice(a, b) for a, b in pairwise(edges)]
