"""What a month of ticks holds, counted in the store and in a file, so that the two can be compared.

Input: the table `ticks`, or a Parquet file of it. Output: of each epoch the number of rows and a
sum over the bits of all their columns, the same on both sides.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import fs, parquet

from sysquant.answers import ask, coded, column
from sysquant.errors import DataError
from sysquant.months import SCHEMA

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

GROUP_ROWS = 131_072  # of a file: what a range reads at least
_NS = pa.timestamp("ns", "UTC")
FILE = pa.schema(
    {
        "symbol": pa.string(), "ts": _NS, "price": pa.float64(), "volume": pa.float64(),
        "received_at": _NS, "epoch": pa.string(), "partition": pa.int32(), "offset": pa.int64(),
    }
)  # fmt: skip

# Of each row the bits of its columns, weighted, mixed, and summed up in 64 bits; `_tally` does the
# same here.
_WEIGHTS = [pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, 7)]
_MIX = 0xBF58476D1CE4E5B9
_COLUMNS = {
    "at": "toUnixTimestamp64Nano(t.ts)", "price": "t.price", "volume": "t.volume",
    "received": "toUnixTimestamp64Nano(t.received_at)", "place": "toInt64(t.partition)",
    "record": "t.offset",
}  # fmt: skip
_BITS = " + ".join(
    f"reinterpretAsUInt64({said}) * toUInt64('{weight}')"
    for said, weight in zip(_COLUMNS.values(), _WEIGHTS, strict=True)
)
_TALLY_SQL = f"""
SELECT epoch, count() AS rows, uniqExact(key) AS keys,
  sum(bitXor(bits, bitShiftRight(bits, 32)) * toUInt64('{_MIX}')) AS total
FROM (
  SELECT toString(t.epoch) AS epoch, (t.ts, t.partition, t.offset) AS key, {_BITS} AS bits
  FROM ticks AS t FINAL
  WHERE t.symbol = {{symbol:String}} AND toYYYYMM(t.ts) = {{month:UInt32}}
)
GROUP BY epoch
"""

# Of each epoch, how many rows there are, and the sum over their bits.
Tally = dict[str, tuple[int, int]]


def stored(client: "Client", symbol: str, month: int) -> Tally:
    """Of the ticks that the store has of a symbol in a month (YYYYMM).

    Raises
    ------
    DataError
        If two of them have one key.
    """
    rows = ask(client, _TALLY_SQL, {"symbol": symbol, "month": month}).to_pylist()
    twice = [row["epoch"] for row in rows if row["keys"] != row["rows"]]
    if twice:
        raise DataError(
            f"{symbol} has ticks of one key in {month}, epoch {twice[0]!r}: nothing was moved; "
            "delete what is wrong of them"
        )
    return {row["epoch"]: (row["rows"], row["total"]) for row in rows}


IN_FILE = ("at", "price", "volume", "received", "epoch", "place", "record")  # as `FILE` has them


class Back(NamedTuple):
    """What a file holds; `is_rising` if each row is behind the one before: none is there twice."""

    tally: Tally
    rows: int
    first: int
    last: int
    is_rising: bool


def read_back(filesystem: fs.FileSystem, place: str) -> Back:
    """Read a file to its end."""
    found, ends, before, is_rising = Tally(), list[int](), SCHEMA.empty_table(), True
    with parquet.ParquetFile(filesystem.open_input_file(place)) as file:
        for batch in file.iter_batches(GROUP_ROWS):
            columns = zip(IN_FILE, FILE.names[1:], strict=True)
            block = pa.table(
                {name: batch.column(own).cast(SCHEMA.field(name).type) for name, own in columns}
            )
            is_rising &= _is_rising(pa.concat_tables([before.select(IN_FILE), block]))
            found = added(found, tally(block))
            before = block.slice(block.num_rows - 1)
            ends += [block.column("at")[0].as_py(), block.column("at")[-1].as_py()]
    return Back(found, rows_of(found), min(ends, default=0), max(ends, default=0), is_rising)


def _is_rising(block: pa.Table) -> bool:
    # Whether each row lies behind the one before, by (ts, epoch, partition, offset).
    life = coded(block.column("epoch"))
    keys = [column(block, "at"), life, column(block, "place"), column(block, "record")]
    is_behind = np.zeros(max(0, block.num_rows - 1), bool)
    for key in reversed(keys):
        step = np.diff(key)
        is_behind = (step > 0) | ((step == 0) & is_behind)
    return bool(is_behind.all())


def tally(block: pa.Table) -> Tally:
    """Of rows that were read."""
    bits = np.zeros(block.num_rows, np.uint64)
    for name, weight in zip(_COLUMNS, _WEIGHTS, strict=True):
        values = column(block, name)
        values = values if values.dtype.itemsize == 8 else values.astype(np.int64)
        bits += values.view(np.uint64) * np.uint64(weight)
    mixed = (bits ^ (bits >> np.uint64(32))) * np.uint64(_MIX)
    table = pa.table({"epoch": block.column("epoch"), "total": mixed})
    found = table.group_by("epoch").aggregate([("total", "count"), ("total", "sum")]).to_pylist()
    return {row["epoch"]: (row["total_count"], row["total_sum"]) for row in found}


def added(one: Tally, other: Tally) -> Tally:
    """Of the rows of both."""
    found = dict(one)
    for epoch, (rows, total) in other.items():
        before = found.get(epoch, (0, 0))
        found[epoch] = before[0] + rows, (before[1] + total) % (1 << 64)
    return found


def rows_of(found: Tally) -> int:
    """All rows of a tally."""
    return sum(rows for rows, _ in found.values())
