"""Old months of ticks out of the store: into Parquet files that `history` goes on reading.

Input: a client, how long ticks stay, and a folder. Output: one file per symbol and month, a row of
`archived` for each, and a smaller table `ticks`. A part of the table is dropped after its rows were
read back from the files and compared with the store; whatever ends this on the way, the next run
goes on, and each row is in the store or in a file. Bars stay where they are.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from pyarrow import fs, parquet

from sysquant.answers import ask, column
from sysquant.checksums import (
    FILE,
    GROUP_ROWS,
    IN_FILE,
    Tally,
    added,
    read_back,
    rows_of,
    stored,
    tally,
)
from sysquant.errors import ConfigError, DataError, StoreError
from sysquant.home import sync, under_home
from sysquant.locking import lock
from sysquant.months import (
    Month,
    chunk_of,
    compared,
    hash_of,
    months,
    place_of,
    ticks_of,
    without_options,
)
from sysquant.store import insert
from sysquant.times import interval_ns

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_NO_SUCH_PART = 232
_NS = pa.timestamp("ns", "UTC")
_PARTS_SQL = """
SELECT partition, arraySort(groupArray(name)) AS names FROM system.parts
WHERE database = currentDatabase() AND table = 'ticks' AND active AND rows > 0
GROUP BY partition ORDER BY partition
"""
_SYMBOLS_SQL = """
SELECT toString(ticks.symbol) AS symbol, toInt64(count()) AS rows FROM ticks
WHERE toYYYYMM(ts) = {month:UInt32} GROUP BY symbol ORDER BY symbol
"""
Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Moved:
    """What was done with a month of ticks.

    Parameters
    ----------
    month : YYYYMM.
    files : of its symbols, as the index has them now.
    left : parts that stay in the store: their rows came, or they were merged, meanwhile.
    """

    month: int
    files: tuple[Month, ...]
    left: int

    def __str__(self) -> str:
        rows = sum(file.rows for file in self.files)
        said = f"{_text(self.month)}: {rows} ticks of {len(self.files)} symbols in files"
        return said + (f", {self.left} parts left for the next run" if self.left else "")


def retain(
    client: "Client",
    keep: int | str,
    export: str,
    *,
    now: int | None = None,
    tell: Tell = lambda step: None,
) -> list[Moved]:
    """Move the months of ticks that are wholly older than `keep` into files.

    Parameters
    ----------
    client : of a migrated store.
    keep : how long ticks stay, ns or `400d`.
    export : folder, below `home()` unless absolute, or a URL as `s3://bucket/path`, of which
        `pyarrow.fs.FileSystem.from_uri` makes a file system, options behind a `?`; its keys come
        from the environment.
    now : ns UTC; by default the clock's.
    tell : called after each step with its name.

    Returns
    -------
    Months that were moved, the oldest first.

    Raises
    ------
    ConfigError
        If `keep` or `export` cannot be meant.
    DataError
        If a file that is there cannot be what it should, or what was written differs from the
        store; nothing of that month was dropped then.
    StoreError
        If the store does not answer; repeat it.
    JournalError
        If another process of this home moves ticks just now.
    """
    length = interval_ns(keep, "keep")
    if not export:
        raise ConfigError("export was empty: name a folder, or a URL as s3://bucket/path")
    cutoff = np.datetime64((time.time_ns() if now is None else now) - length, "ns")
    before = int(str(cutoff.astype("M8[M]")).replace("-", ""))
    with closing(lock(under_home("data/retain"), "one moves ticks at a time")):
        return _moved(client, before, export, tell)


def _moved(client: "Client", before: int, export: str, tell: Tell) -> list[Moved]:
    _forget_replaced(client)
    parts = ask(client, _PARTS_SQL, {}).to_pylist()
    old = [(int(each["partition"]), each["names"]) for each in parts]
    return [_move(client, month, names, export, tell) for month, names in old if month < before]


def _move(client: "Client", month: int, parts: list[str], export: str, tell: Tell) -> Moved:
    counted = ask(client, _SYMBOLS_SQL, {"month": month}).to_pylist()
    symbols = [each["symbol"] for each in counted]
    known = {each.symbol: each for each in months(client, symbols) if each.month == month}
    files = list[Month]()
    for symbol, rows in (each.values() for each in counted):
        file = _Export(client, symbol, month, export, known.get(symbol), tell, rows).run()
        if file != known.get(symbol):
            # Named by what it holds and where: written again after a crash, it is the same row.
            insert(client, "archived", _index_row(file), f"{file.path}:{file.version}:{file.hash}")
            tell(f"indexed {file.path}")
        files.append(file)
    missing = set(files) - set(months(client, symbols))
    if missing:
        raise StoreError(
            f"the table archived has no row of {missing.pop().path}, which was added: nothing was "
            "dropped; run it again"
        )
    left = 0
    for part in parts:
        # Parts by their names, not the partition: rows that came since are in other parts.
        left += not _drop(client, part)
        tell(f"dropped {part}")
    _forget_replaced(client, symbols)
    tell(f"moved {_text(month)}")
    return Moved(month, tuple(files), left)


def _drop(client: "Client", part: str) -> bool:
    try:
        client.command("ALTER TABLE ticks DROP PART {part:String}", {"part": part})
    except ClickHouseError as error:
        if getattr(error, "code", None) == _NO_SUCH_PART:
            return False
        raise StoreError(str(error).strip().splitlines()[0]) from error
    return True


def _forget_replaced(client: "Client", symbols: list[str] | None = None) -> None:
    # A month with late ticks has a new file: the one before it is of no use any more.
    for month in months(client, symbols or ()):
        if month.version > 1:
            filesystem, path = place_of(_path(month.path, month.month, month.version - 1))
            if filesystem.get_file_info(path).type == fs.FileType.File:
                compared(month)
                filesystem.delete_file(path)


def _index_row(month: Month) -> pa.Table:
    row = month._asdict() | {"table": "ticks"}
    types = {"month": pa.uint32(), "version": pa.uint32(), "rows": pa.uint64()}
    types |= {"first": _NS, "last": _NS}
    return pa.table({name: pa.array([row[name]], types.get(name)) for name in row})


@dataclass(frozen=True, slots=True)
class _Export:
    """A symbol's month on its way into a file."""

    client: "Client"
    symbol: str
    month: int
    export: str
    known: Month | None
    tell: Tell
    rows: int  # in the store, at the start

    def run(self) -> Month:
        """The file that has every row of the store: the one that is known, if it does."""
        wanted = stored(self.client, self.symbol, self.month)
        found = self.known or self._found()
        if found is not None:
            rows, kept = self._compare(found)
            if kept and self.known is None:
                raise DataError(
                    f"{found.path} is there already, with ticks that this store does not have: "
                    "name another folder as export"
                )
            wanted = added(wanted, kept)
            is_whole = found == self.known and rows == found.rows
            if is_whole and read_back(*compared(found)).tally == wanted:
                return found
        version = 1 if self.known is None else self.known.version + 1
        path = _path(self._first_path(), self.month, version)
        filesystem, place = place_of(path)
        folder, unnamed = place.rpartition("/")[0], f"{place}.unfinished"
        filesystem.create_dir(folder)
        self._write(filesystem, unnamed)
        self.tell(f"wrote {path}")
        digest = hash_of(filesystem, unnamed)  # of what is read back, and nothing else
        back = read_back(filesystem, unnamed)
        if not back.is_rising or back.tally != wanted:
            raise DataError(
                f"{path} was read back with {back.rows} ticks, which are not the {rows_of(wanted)} "
                "of the store: nothing was dropped; run it again"
            )
        self.tell(f"verified {path}")
        _sync(filesystem, unnamed)
        filesystem.move(unnamed, place)
        _sync(filesystem, folder)
        if hash_of(filesystem, place) != digest:
            raise DataError(
                f"{path} was changed by another while it was verified: nothing was dropped; run it "
                "again, alone"
            )
        self.tell(f"named {path}")
        return Month(
            self.symbol, self.month, path, version, back.rows, back.first, back.last, digest
        )  # fmt: skip

    def _first_path(self) -> str:
        if self.known is not None:  # a month stays where it is
            return self.known.path
        name = quote(self.symbol, safe="").replace(".", "%2E")
        folder, mark, options = without_options(self.export)
        place = f"{folder.rstrip('/')}/ticks/{name}/{_text(self.month)}.parquet"
        return place + mark + options

    def _found(self) -> Month | None:
        # Left by a run that was cut off before the index knew it, or by another store.
        path = self._first_path()
        filesystem, place = place_of(path)
        if filesystem.get_file_info(place).type != fs.FileType.File:
            return None
        return Month(
            self.symbol, self.month, path, 0, 0, *_ends(self.month), hash_of(filesystem, place)
        )

    def _compare(self, found: Month) -> tuple[int, Tally]:
        # How many ticks store and file have together, and those that the file alone has.
        rows, kept = 0, Tally()
        for piece in self._pieces(found):
            rows += piece.num_rows
            kept = added(kept, tally(piece.filter(piece.column("filed"))))
        return rows, kept

    def _pieces(self, found: Month | None) -> Iterator[pa.Table]:
        bound: dict[str, object] = {"symbols": [self.symbol], "source": ""}
        start, end = _ends(self.month)
        step = chunk_of((end - start) // max(1, self.rows))
        for at in range(start, end, step):
            held = [found] if found else []
            piece = ticks_of(self.client, bound, at, min(at + step, end), held)
            names = ("at", "life", "place", "record")
            order = np.lexsort([column(piece, name) for name in reversed(names)])
            yield piece.take(pa.array(order))

    def _write(self, filesystem: fs.FileSystem, place: str) -> None:
        with (
            filesystem.open_output_stream(place) as stream,
            parquet.ParquetWriter(
                stream,
                FILE,
                compression="zstd",
                use_dictionary=["symbol", "epoch"],  # pyright: ignore[reportArgumentType]
                column_encoding=dict.fromkeys(
                    ("ts", "received_at", "offset"), "DELTA_BINARY_PACKED"
                ),
            ) as writer,
        ):
            for piece in self._pieces(self.known):
                names = pa.repeat(pa.scalar(self.symbol), piece.num_rows)
                columns = [names, *(piece.column(name) for name in IN_FILE)]
                arrays = [each.cast(kind) for each, kind in zip(columns, FILE.types, strict=True)]
                writer.write_table(pa.table(arrays, schema=FILE), row_group_size=GROUP_ROWS)


def _sync(filesystem: fs.FileSystem, place: str) -> None:
    # What is on a disk of this machine is there after a loss of power, too.
    if isinstance(filesystem, fs.LocalFileSystem):
        sync(Path(place))


def _text(month: int) -> str:
    return f"{month // 100}-{month % 100:02d}"


def _ends(month: int) -> tuple[int, int]:
    # Where a month begins and the next one does, ns UTC.
    first = np.datetime64(_text(month), "M")
    start, end = (int(each.astype("M8[ns]").astype(np.int64)) for each in (first, first + 1))
    return start, end


def _path(path: str, month: int, version: int) -> str:
    # Of a version of a file, from the path of any.
    name = _text(month) + (f".{version}" if version > 1 else "")
    place, mark, options = without_options(path)
    return f"{place.rpartition('/')[0]}/{name}.parquet{mark}{options}"
