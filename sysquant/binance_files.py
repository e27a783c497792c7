"""Files of the public archive of Binance spot: where they lie, and what their rows mean.

Input: a symbol and its days; a zip file on disk. Output: paths in the archive; checked `Bars` and
`Ticks` in blocks that are cut alike every time. Times are milliseconds, from 2025 on microseconds,
told apart by their size in each file; a header may stand there. Nothing is downloaded or written.

Source: Binance, "Binance Public Data": layout and columns of spot klines and trades.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sysquant.archive import MINUTE
from sysquant.errors import DataError
from sysquant.importing import refuse_bars
from sysquant.inspection import iso
from sysquant.mapping import FileMapping
from sysquant.times import instant
from sysquant.types import Bars, Instrument, Ticks

PREFIX = "BINANCE:"
_CHUNK = 16 << 20  # bytes of CSV that make a block
_MICROSECONDS = 10**14  # no time in milliseconds is as large
_COLUMNS = {
    "klines": (
        "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
        "count", "taker_buy_base", "taker_buy_quote", "ignore",
    ),
    "trades": ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"),
}  # fmt: skip
_FIELDS = {
    "klines": {"ts": "open_time"} | {n: n for n in ("open", "high", "low", "close", "volume")},
    "trades": {"ts": "time", "price": "price", "volume": "qty"},
}
_WHOLE = {"id", "time", "open_time"}  # numbers; the others that are read are floats
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

KINDS = tuple(_COLUMNS)


class ArchiveFile(NamedTuple):
    """A month or a day of a symbol.

    Parameters
    ----------
    symbol : the exchange's name.
    kind : klines (bars of one minute) | trades.
    first : its first day.
    is_month : whether it is the month that begins there, or that day alone.
    """

    symbol: str
    kind: str
    first: date
    is_month: bool

    @property
    def end(self) -> date:
        """The day after its last."""
        if not self.is_month:
            return self.first + timedelta(days=1)
        return (self.first.replace(day=28) + timedelta(days=4)).replace(day=1)

    @property
    def span(self) -> tuple[int, int]:
        """What it covers, ns UTC, as in [start, end)."""
        return instant(self.first.isoformat()), instant(self.end.isoformat())

    @property
    def stem(self) -> str:
        """Its name without an ending."""
        label = f"{self.first:%Y-%m}" if self.is_month else self.first.isoformat()
        return f"{self.symbol}-{'1m' if self.kind == 'klines' else 'trades'}-{label}"

    @property
    def path(self) -> str:
        """Its path in the archive."""
        period = "monthly" if self.is_month else "daily"
        place = f"{self.symbol}/1m" if self.kind == "klines" else self.symbol
        return f"data/spot/{period}/{self.kind}/{place}/{self.stem}.zip"

    def days(self) -> "list[ArchiveFile]":
        """Its days, each as the file of that day."""
        count = (self.end - self.first).days
        dates = [self.first + timedelta(days=n) for n in range(count)]
        return [self._replace(first=day, is_month=False) for day in dates]


def read(file: ArchiveFile, path: Path, universe: Sequence[Instrument]) -> Iterator[Bars | Ticks]:
    """Blocks of a file, in the order of its rows.

    Parameters
    ----------
    file : what it should be.
    path : of the zip on disk.
    universe : with its symbol in it.

    Returns
    -------
    Bars, whose `ts` is the close, one minute behind the label; or trades, each id once, which is
    their `offset`.

    Raises
    ------
    DataError
        If it cannot be read, or holds a row that cannot be meant or is of another time.
    """
    blocks = _blocks(file, path, universe)
    return _rising(blocks) if file.kind == "trades" else blocks


def check(file: ArchiveFile, path: Path, universe: Sequence[Instrument]) -> int:
    """Read a file to its end, and count its rows.

    Raises
    ------
    DataError
        As `read`; and if it has no rows, or its bars contradict each other or are longer.
    """
    rows, bars = 0, list[Bars]()
    for block in read(file, path, universe):
        rows += len(block)
        if isinstance(block, Bars):
            bars.append(block)
    if not rows:
        raise DataError("it has no rows")
    if bars:
        refuse_bars(Bars.join(bars), f"{file.stem}.csv")
    return rows


def _blocks(
    file: ArchiveFile, path: Path, universe: Sequence[Instrument]
) -> Iterator[Bars | Ticks]:
    mapping, row = None, 0
    for batch in _batches(file, path):
        times = batch.column(_FIELDS[file.kind]["ts"])
        mapping = mapping or _mapping(file, times[0].as_py())
        block = cast(
            "Bars | Ticks", mapping.block(batch, universe, name=f"{file.stem}.csv", first=row)
        )
        _refuse_other_times(file, block)
        yield _named_by_id(file, block, batch) if isinstance(block, Ticks) else block
        row += batch.num_rows


def _mapping(file: ArchiveFile, time: int | None) -> FileMapping:
    is_bars = file.kind == "klines"
    return FileMapping(
        kind="bars" if is_bars else "ticks",
        columns=_FIELDS[file.kind],
        unit="us" if (time or 0) >= _MICROSECONDS else "ms",
        symbol=PREFIX + file.symbol,
        label="left" if is_bars else None,
        volume_unit="base" if is_bars else None,
    )


def _refuse_other_times(file: ArchiveFile, block: Bars | Ticks) -> None:
    start, end = file.span
    began = block.ts - MINUTE if isinstance(block, Bars) else block.ts
    other = np.flatnonzero((began < start) | (began >= end))
    if len(other):
        raise DataError(f"a row is of {iso(int(began[other[0]]))}, another time than its name says")


def _named_by_id(file: ArchiveFile, ticks: Ticks, batch: pa.RecordBatch) -> Ticks:
    # Each symbol counts its own trades: a partition of its own, whatever else is imported.
    ids = batch.column("id")
    if ids.null_count:
        raise DataError("a trade has no id")
    partition = np.full(len(ticks), partition_of(PREFIX + file.symbol), np.int32)
    return replace(ticks, partition=partition, offset=ids.to_numpy())


def partition_of(symbol: str) -> int:
    """Number of the partition that the trades of a symbol lie in; it follows from the name."""
    return zlib.crc32(symbol.encode()) & 0x7FFFFFFF


def _rising(blocks: Iterator[Bars | Ticks]) -> Iterator[Ticks]:
    # Each trade once; one that comes again with other values, or too late, could mean anything.
    last: list[Ticks] = []
    for block in cast("Iterator[Ticks]", blocks):
        rows = Ticks.join([*last, block])
        step = np.diff(rows.offset)
        is_new = np.append(not last, step > 0)
        changed = [np.diff(column) != 0 for column in (rows.ts, rows.price, rows.volume)]
        bad = np.flatnonzero((step < 0) | ((step == 0) & np.any(changed, axis=0)))
        if len(bad):
            raise DataError(
                f"trade {rows.offset[bad[0] + 1]} comes after trade {rows.offset[bad[0]]}: ids must"
                " rise, and a repeated one must have the same values"
            )
        last = [rows[-1:]]
        yield rows[is_new]


def _batches(file: ArchiveFile, path: Path) -> Iterator[pa.RecordBatch]:
    names = _COLUMNS[file.kind]
    used = list(dict.fromkeys([names[0], *_FIELDS[file.kind].values()]))
    kinds = {name: pa.int64() if name in _WHOLE else pa.float64() for name in used}
    convert = csv.ConvertOptions(include_columns=used, column_types=kinds)
    try:
        with zipfile.ZipFile(path) as zipped, zipped.open(_member(file, zipped)) as member:
            for number, chunk in enumerate(_chunks(member)):
                skip = int(number == 0 and _is_header(chunk, names, used))
                how = csv.ReadOptions(column_names=names, skip_rows=skip)
                rows = csv.read_csv(pa.BufferReader(chunk), how, convert_options=convert)
                yield from rows.combine_chunks().to_batches()
    except _UNREADABLE as error:
        raise DataError(f"its zip cannot be read: {error}") from error
    except pa.ArrowException as error:
        raise DataError(f"its rows cannot be read: {str(error).splitlines()[0]}") from error


def _member(file: ArchiveFile, zipped: zipfile.ZipFile) -> str:
    name, there = f"{file.stem}.csv", zipped.namelist()
    if there != [name]:
        raise DataError(f"its zip must hold {name} alone, has {', '.join(there[:3]) or 'nothing'}")
    return name


def _chunks(member: IO[bytes]) -> Iterator[bytes]:
    # Whole lines.
    rest = b""
    while piece := member.read(_CHUNK):
        lines, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield lines + newline
    if rest:
        yield rest


def _is_header(chunk: bytes, names: Sequence[str], used: Sequence[str]) -> bool:
    line = chunk.partition(b"\n")[0].decode("utf-8-sig", errors="replace")
    words = [word.strip().strip('"').lower() for word in line.split(",")]
    if any(word[:1].isdigit() for word in words):
        return False
    if [word for word, name in zip(words, names, strict=False) if name in used] != [
        name for name in names if name in used
    ]:
        raise DataError(f"its first line must be a row or name its columns, was {line[:80]!r}")
    return True
