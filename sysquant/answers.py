"""How history asks the store: answers as Arrow tables, and their columns as numpy arrays.

Input: a client and a query with its parameters. Output: tables and arrays. Which queries there are
is for others to know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from numpy.typing import DTypeLike

from sysquant.errors import StoreError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

UNKNOWN_TABLE = 60
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


def is_unknown_table(error: StoreError) -> bool:
    """Whether the store has no such table: it is empty, or of an older schema."""
    return getattr(error.__cause__, "code", None) == UNKNOWN_TABLE


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


def coded(texts: "pa.ChunkedArray") -> np.ndarray:
    """Each text as its rank among those that occur; equal texts have one rank."""
    found = pa.chunked_array([texts.combine_chunks()]).dictionary_encode().combine_chunks()
    names = found.dictionary.to_pylist()
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return rank[found.indices.to_numpy()]
