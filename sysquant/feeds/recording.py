"""A recorded file of ticks as a feed, in the order of its rows, at a chosen speed.

Input: Parquet or CSV with `timestamp_ms, symbol, price, volume, received_at`. Output: the same
batches as any feed; the universe is the symbols of the file. It refuses a file with a bad row:
what may be wrong on a topic may not be wrong in a recording that is published as true.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from sysquant.errors import DataError, nearest
from sysquant.feeds.decode import LAST_MS, MILLISECOND
from sysquant.feeds.tape import Tape
from sysquant.home import under_home
from sysquant.types import Instrument, Poll, Ticks

READERS = {".parquet": parquet.read_table, ".csv": csv.read_csv}
COLUMNS = ("timestamp_ms", "symbol", "price", "volume", "received_at")


class RecordingFeed:
    """Ticks of a file; partition 0, offsets count its rows.

    Parameters
    ----------
    path : `.parquet` or `.csv`; below `home()` unless absolute.
    speed : market seconds per wall second, or "max".
    batch : ticks of a poll at most.
    now : whether all times are moved so that the first tick is of now.

    Raises
    ------
    DataError
        If the file is not there, lacks a column, or holds a row that is no tick.
    """

    kind: Literal["ticks", "bars"] = "ticks"
    interval = 0

    def __init__(
        self, path: str, *, speed: float | str = 1.0, batch: int = 5000, now: bool = False
    ) -> None:
        self.name = f"recording:{Path(path).name}"
        self.universe, self._ticks = read(under_home(path))
        if now and len(self._ticks):
            shift = time.time_ns() // MILLISECOND * MILLISECOND - int(self._ticks.ts[0])
            for column in (self._ticks.ts, self._ticks.received_at):
                column += shift
        self._tape = Tape(self._open_at, Ticks.empty(), speed=speed, batch=batch)

    def __len__(self) -> int:
        return len(self._ticks)

    def seek(self, next_offset: Mapping[int, int]) -> None:
        """Stand before row `next_offset[0]`; without it, at the start."""
        self._tape.seek(next_offset.get(0, 0))

    def poll(self, timeout_s: float) -> Poll:
        """Ticks that are due, waiting at most `timeout_s` for the first."""
        return self._tape.poll(timeout_s)

    def commit(self, next_offset: Mapping[int, int]) -> None:
        """Nothing to tell anyone."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _open_at(self, row: int) -> Iterator[Ticks]:
        yield self._ticks[row:]


def read(path: Path) -> tuple[list[Instrument], Ticks]:
    """Symbols of a recording, in the order they appear, and its ticks, in the order of its rows.

    Raises
    ------
    DataError
        If the file is not there, lacks a column, or holds a row that is no tick.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"a recording must end in {' or '.join(READERS)}, was {path.name!r}")
    if not path.is_file():
        raise DataError(f"there is no recording {path}; set path=... to one")
    try:
        table = reader(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read as {path.suffix}: {error}") from error
    for column in COLUMNS:
        if column not in table.column_names:
            raise DataError(f"{path} has no column {column!r}{nearest(column, table.column_names)}")
    try:
        return _columns(table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path} holds a row that is no tick: {error}") from error


def _columns(table: pa.Table) -> tuple[list[Instrument], Ticks]:
    for name in COLUMNS:
        if table[name].null_count:
            row = int(np.argmax(table[name].is_null().to_numpy()))
            raise pa.ArrowInvalid(f"row {row} has no {name}")
    if pa.types.is_integer(table["received_at"].type):
        raise pa.ArrowInvalid("received_at must be times, like 2024-08-09T12:00:00Z")
    symbols = table["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
    received = table["received_at"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    ms = table["timestamp_ms"].cast(pa.int64()).to_numpy()
    ticks = Ticks(
        ts=ms * MILLISECOND,
        symbol=symbols.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        price=table["price"].cast(pa.float64()).to_numpy(),
        volume=table["volume"].cast(pa.float64()).to_numpy(),
        received_at=received.to_numpy().copy(),
        partition=np.zeros(len(table), np.int32),
        offset=np.arange(len(table), dtype=np.int64),
    )
    good = (ms > 0) & (ms <= LAST_MS) & np.isfinite(ticks.price) & (ticks.price > 0)
    good &= np.isfinite(ticks.volume) & (ticks.volume >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise pa.ArrowInvalid(f"row {row} is {table.slice(row, 1).to_pylist()[0]}")
    return [Instrument(symbol) for symbol in symbols.dictionary.to_pylist()], ticks
