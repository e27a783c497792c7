"""Months of ticks that lie in Parquet files instead of the store, and their rows.

Input: a client, what is asked for, and a range. Output: what the table `archived` says of it, and
the rows of its files together with what the store has, each once. A file that is missing, or is
not the one that was archived, is refused by its name. Nothing is written here.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from sysquant.answers import TICKS_INSIDE, ask, coded, column, is_unknown_table
from sysquant.errors import DataError, StoreError
from sysquant.home import under_home

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from pyarrow import compute
    from pyarrow.fs import FileSystem

Answer = TypeVar("Answer")

SCHEMA = pa.schema(
    {
        "at": pa.int64(), "number": pa.int32(), "price": pa.float64(), "volume": pa.float64(),
        "received": pa.int64(), "epoch": pa.string(), "place": pa.int32(), "record": pa.int64(),
    }
)  # fmt: skip
KEY = ("number", "at", "epoch", "place", "record")  # names a tick
_CHUNK_ROWS = 1_000_000  # of files, about, at a time
_BYTES = 1 << 22  # of a file, at a time
_ALWAYS = (-(1 << 62), 1 << 62)
# Files that were compared with their hash: path, hash, size and time of the last change.
_compared = set[tuple[str, str, int, int]]()

_INDEX_SQL = """
SELECT symbol, month, path, version, rows, toUnixTimestamp64Nano(first) AS since,
  toUnixTimestamp64Nano(last) AS until, hash
FROM archived FINAL
WHERE table = 'ticks' AND (symbol IN {symbols:Array(String)} OR empty({symbols:Array(String)}))
  AND toUnixTimestamp64Nano(first) < {end:Int64} AND toUnixTimestamp64Nano(last) >= {start:Int64}
ORDER BY first, symbol
"""

_STORED_SQL = f"""
SELECT toUnixTimestamp64Nano(t.ts) AS at,
  toInt32(indexOf({{symbols:Array(String)}}, t.symbol) - 1) AS number,
  t.price AS price, t.volume AS volume, toUnixTimestamp64Nano(t.received_at) AS received,
  toString(t.epoch) AS epoch, t.partition AS place, t.offset AS record
FROM ticks AS t FINAL WHERE {TICKS_INSIDE}
"""


class Month(NamedTuple):
    """A file, as the index has it.

    Parameters
    ----------
    symbol, month : what it holds; the month as YYYYMM.
    path : a URL, absolute, or below `home()`.
    version : counts the files of this symbol and month from 1.
    rows : in it.
    first, last : times of its first and last row, ns UTC.
    hash : hex SHA-256 of its bytes.
    """

    symbol: str
    month: int
    path: str
    version: int
    rows: int
    first: int
    last: int
    hash: str


def months(
    client: "Client", symbols: Sequence[str] = (), start: int = _ALWAYS[0], end: int = _ALWAYS[1]
) -> tuple[Month, ...]:
    """Archived months of some symbols, or all, with rows in [start, end) ns, in order."""
    bound: dict[str, object] = {"symbols": list(symbols), "start": start, "end": end}
    try:
        table = ask(client, _INDEX_SQL, bound)
    except StoreError as error:
        if is_unknown_table(error):  # of an older schema: nothing was archived
            return ()
        raise
    return tuple(Month(*row.values()) for row in table.to_pylist())


def steadily(
    client: "Client",
    symbols: Sequence[str],
    start: int,
    end: int,
    read: Callable[[tuple[Month, ...]], Answer],
) -> Answer:
    """What `read` gives of the months archived in [start, end), which stay the same meanwhile.

    A month leaves the store after it stands in the index: who asks the index after the store
    misses none.
    """
    held: tuple[Month, ...] = ()
    while True:
        try:
            found = read(held)
        except DataError:
            now = months(client, symbols, start, end)
            if now == held:  # else a newer file may have taken the place of one
                raise
        else:
            now = months(client, symbols, start, end)
            if now == held:
                return found
        held = now


def stretches(
    held: Sequence[Month], start: int, end: int, unit: int = 1
) -> Iterator[tuple[int, int, bool]]:
    """Pieces that make up [start, end): from, to, and whether some of it lies in files.

    Inner edges are multiples of `unit` since 1970. What lies in files comes in pieces of about a
    million ticks.
    """
    spans = sum(month.last - month.first for month in held)
    step = chunk_of(spans // max(1, sum(month.rows for month in held)), unit)
    at = start
    for month in sorted(held, key=lambda month: month.first):
        since, until = month.first // unit * unit, min((month.last // unit + 1) * unit, end)
        if at < since < end:
            yield at, since, False
            at = since
        if since >= end:
            break
        while at < until:
            edge = min((at // step + 1) * step, until)
            yield at, edge, True
            at = edge
    if at < end:
        yield at, end, False


def chunk_of(spacing: int, unit: int = 1) -> int:
    """A length, ns, of about a million ticks that lie so far apart; a multiple of `unit`."""
    return max(1, max(1, spacing) * _CHUNK_ROWS // unit) * unit


def ticks_of(
    client: "Client", bound: Mapping[str, object], start: int, end: int, held: Sequence[Month]
) -> pa.Table:
    """Ticks of [start, end) from the store and from files, each once.

    Parameters
    ----------
    client : of the store.
    bound : parameters `symbols` and `source` of a query for ticks.
    held : months whose files are read.

    Returns
    -------
    at, number (of the symbol), price, volume, received, epoch, place, record (partition and offset)
    and life (rank of the epoch), by (epoch, partition, offset); `filed` where a file alone has it.
    """
    stored = ask(client, _STORED_SQL, {**bound, "start": start, "end": end})
    symbols: Sequence[str] = bound["symbols"]  # pyright: ignore[reportAssignmentType]
    in_files = [
        rows_of(month, symbols.index(month.symbol), start, end, str(bound["source"]))
        for month in held
        if month.symbol in symbols and month.first < end and month.last >= start
    ]
    table = pa.concat_tables([stored.slice(0, 0).cast(SCHEMA), *in_files])
    if stored.num_rows and table.num_rows:
        table = table.join(stored.cast(SCHEMA).select(KEY), list(KEY), join_type="left anti")
    is_filed = np.arange(stored.num_rows + table.num_rows) >= stored.num_rows
    table = pa.concat_tables([stored.cast(SCHEMA), table.select(SCHEMA.names)])
    life = coded(table.column("epoch"))
    order = np.lexsort((column(table, "record"), column(table, "place"), life))
    table = table.append_column("life", pa.array(life)).append_column("filed", pa.array(is_filed))
    return table.take(pa.array(order))


def rows_of(month: Month, number: int, start: int, end: int, source: str = "") -> pa.Table:
    """Ticks of a file in [start, end) ns, of epochs that begin with `source`, in `SCHEMA`."""
    from pyarrow import compute

    edges = pa.array([start, end], pa.timestamp("ns", "UTC"))
    inside = (compute.field("ts") >= edges[0]) & (compute.field("ts") < edges[1])
    if source:
        epoch = compute.field("epoch")
        inside &= compute.starts_with(epoch, source)  # pyright: ignore[reportAttributeAccessIssue]
    columns = {
        "at": compute.field("ts").cast(pa.int64()),
        "number": compute.scalar(pa.scalar(number, pa.int32())),
        "price": compute.field("price"),
        "volume": compute.field("volume"),
        "received": compute.field("received_at").cast(pa.int64()),
        "epoch": compute.field("epoch"),
        "place": compute.field("partition"),
        "record": compute.field("offset"),
    }
    return _read(month, columns, inside).cast(SCHEMA)


def filed(
    client: "Client", symbols: Sequence[str], start: int, end: int, source: str
) -> tuple[str, int]:
    """The first file with ticks of [start, end), empty for none; how many there are of a source."""
    held = months(client, symbols, start, end)
    rows = sum(rows_of(month, 0, start, end, source).num_rows for month in held)
    return held[0].path if held else "", rows


def edges_of(client: "Client", symbols: Sequence[str], source: str = "") -> list[tuple[int, int]]:
    """Times of the first and the last archived tick, ns, of each month that has some."""
    found = list[tuple[int, int]]()
    for month in months(client, symbols):
        if not source:
            found.append((month.first, month.last))
            continue
        at = column(rows_of(month, 0, *_ALWAYS, source), "at")
        found += [(int(at.min()), int(at.max()))] if len(at) else []
    return found


def earliest_of(
    client: "Client", symbols: Sequence[str], lives: Sequence[str], first: Mapping[int, int]
) -> int | None:
    """Time of the earliest archived tick of a topic at or behind given offsets, ns."""
    from pyarrow import compute

    behind = compute.scalar(False)
    for partition, offset in first.items():
        behind |= (compute.field("partition") == partition) & (compute.field("offset") >= offset)
    found: int | None = None
    for month in months(client, symbols):  # by their first rows
        if found is not None and month.first >= found:
            break
        columns = {"at": compute.field("ts").cast(pa.int64())}
        # Not compared with its hash: a start of a session is no time to read every file.
        place = place_of(month.path)
        table = _read(month, columns, compute.field("epoch").isin(list(lives)) & behind, place)
        if table.num_rows:
            at = int(column(table, "at").min())
            found = at if found is None else min(at, found)
    return found


def _read(
    month: Month,
    columns: "Mapping[str, compute.Expression]",
    where: "compute.Expression",
    place: "tuple[FileSystem, str] | None" = None,
) -> pa.Table:
    from pyarrow import dataset

    filesystem, path = place or compared(month)
    try:
        return dataset.dataset(path, filesystem=filesystem, format="parquet").to_table(
            columns=dict(columns), filter=where
        )
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{month.path} cannot be read: {str(error).splitlines()[0]}") from error


def without_options(path: str) -> tuple[str, str, str]:
    """A URL, the `?`, and what stands behind it; a path of this machine has no options."""
    return path.partition("?") if "://" in path else (path, "", "")


def place_of(path: str) -> "tuple[FileSystem, str]":
    """The file system of a path of the index, and the path in it."""
    from pyarrow import fs

    if "://" not in path:
        return fs.LocalFileSystem(), under_home(path).as_posix()
    # Only the folder is read as a URL: names of files may hold what a URL would escape.
    bare, mark, options = without_options(path)
    folder, *names = bare.rsplit("/", 3)
    try:
        filesystem, root = fs.FileSystem.from_uri(folder + mark + options)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{folder} cannot be opened: {said}; is it a folder's URL?") from error
    return filesystem, "/".join([root.rstrip("/"), *names])


def compared(month: Month) -> "tuple[FileSystem, str]":
    """Where the file of a month lies; it is there, and is the one that was archived.

    Its bytes are compared once in the life of a process, and again when it was changed.

    Raises
    ------
    DataError
        If it is missing or another one.
    """
    from pyarrow import fs

    filesystem, path = place_of(month.path)
    try:
        info = filesystem.get_file_info(path)
        if info.type != fs.FileType.File:
            raise DataError(
                f"{month.path} is missing, with {month.rows} archived ticks of {month.symbol}: "
                "put it back from a copy"
            )
        seen = (month.path, month.hash, info.size or 0, info.mtime_ns or 0)
        if seen not in _compared:
            if hash_of(filesystem, path) != month.hash:
                raise DataError(
                    f"{month.path} was changed since {month.rows} ticks of {month.symbol} were "
                    "archived in it: put it back from a copy"
                )
            _compared.add(seen)
    except OSError as error:
        raise DataError(f"{month.path} cannot be read: {str(error).splitlines()[0]}") from error
    return filesystem, path


def hash_of(filesystem: "FileSystem", path: str) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while block := stream.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()
