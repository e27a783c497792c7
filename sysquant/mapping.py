"""What the columns of a file mean: Parquet or CSV to checked `Ticks`, `Bars` and `Rates`.

Input: a file and a mapping of its columns. Output: blocks in the order of its rows, cut at the
same rows every time. A row that cannot be meant is refused with its number; nothing is dropped,
mended or sorted.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from sysquant.archive import MINUTE
from sysquant.errors import ConfigError, DataError, nearest
from sysquant.times import instant
from sysquant.types import SECOND, Bars, Floats, Instrument, Ints, Rates, Ticks

BLOCK_ROWS = 250_000
_CSV_BLOCK = 16 << 20
_NS = {"s": SECOND, "ms": SECOND // 1000, "us": 1000, "ns": 1}
_FIRST = instant("2000-01-01")
_DAY = 86_400 * SECOND
_FIELDS = {
    "ticks": ("ts", "price", "volume"),
    "bars": ("ts", "open", "high", "low", "close", "volume"),
    "funding": ("ts", "rate"),
}
_OPTIONAL = {"ticks": ("symbol", "received_at"), "bars": ("symbol",), "funding": ("symbol",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMapping:
    """Which columns of a file hold what.

    Parameters
    ----------
    kind : ticks | bars (of one minute) | funding (rates of perpetuals).
    columns : field -> column of the file: ts, price, volume and perhaps symbol, received_at of
        ticks; ts, open, high, low, close, volume and perhaps symbol of bars; ts, rate (a fraction)
        and perhaps symbol of funding, whose times are rounded to the minute: exchanges stamp them
        some ms off.
    unit : of times that are numbers, s | ms | us | ns; others are timestamps, UTC if without zone.
    symbol : of all rows, where no column says it.
    label : whether a bar's time is its open (left) or its close (right); no default.
    volume_unit : of bars, base (units) or quote (value, made units by the typical price,
        (high + low + close) / 3); no default.

    Raises
    ------
    ConfigError
        If a field is missing or unknown, or what the file does not say is not said.
    """

    kind: Literal["ticks", "bars", "funding"]
    columns: Mapping[str, str | None]
    unit: str | None = None
    symbol: str | None = None
    label: str | None = None
    volume_unit: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _FIELDS:
            raise ConfigError(f"kind of a file was {self.kind!r}{nearest(self.kind, _FIELDS)}")
        known = _FIELDS[self.kind] + _OPTIONAL[self.kind]
        for field in self.columns:
            if field not in known:
                raise ConfigError(f"columns has no field {field!r}{nearest(field, known)}")
        for field in _FIELDS[self.kind]:
            if not self.columns.get(field):
                raise ConfigError(f"columns.{field} must name a column of the file, was empty")
        if bool(self.columns.get("symbol")) == bool(self.symbol):
            raise ConfigError(
                "a symbol must come from columns.symbol (a column) or from symbol (of all rows), "
                f"were {self.columns.get('symbol')} and {self.symbol}"
            )
        _one_of("unit", self.unit, (None, *_NS))
        if self.kind == "bars":
            # A wrong label is one bar of look-ahead.
            _one_of("label", self.label, ("left", "right"))
            _one_of("volume_unit", self.volume_unit, ("base", "quote"))

    @property
    def digest(self) -> str:
        """Hex hash of what decides the rows."""
        columns = sorted((k, v) for k, v in self.columns.items() if v)
        parts = (self.kind, columns, self.unit, self.symbol, self.label, self.volume_unit)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self, path: Path, universe: Sequence[Instrument]) -> Iterator[Ticks | Bars | Rates]:
        """Blocks of a file; `partition` 0 and `offset` the row number, from 0, of ticks and bars.

        Raises
        ------
        DataError
            If the file cannot be read, lacks a column, or holds a row that cannot be meant.
        """
        names = [column for column in self.columns.values() if column]
        row = 0
        try:
            for batch in _batches(path, names):
                if batch.num_rows:
                    yield self.block(batch, universe, name=path.name, first=row)
                    row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error

    def block(
        self, batch: pa.RecordBatch, universe: Sequence[Instrument], *, name: str, first: int
    ) -> Ticks | Bars | Rates:
        """What rows mean that were read already.

        Parameters
        ----------
        batch : the rows, with the columns that are named here.
        universe : which symbols may come.
        name : of their file.
        first : number of the first of them in it.

        Raises
        ------
        DataError
            If a row cannot be meant.
        """
        rows = _Reading(batch, name, first)
        ts = rows.times(self._named("ts"), self.unit)
        symbol = self._symbols(rows, universe)
        if self.kind == "funding":
            rate = rows.floats(self._named("rate"))
            rows.refuse(~(np.abs(rate) < 1), "rate", "a fraction between -1 and 1", rate)
            return Rates((ts + MINUTE // 2) // MINUTE * MINUTE, symbol, rate)
        place = np.zeros(len(ts), np.int32), np.arange(rows.first, rows.first + len(ts))
        volume = rows.floats(self._named("volume"))
        rows.refuse(~(np.isfinite(volume) & (volume >= 0)), "volume", ">= 0", volume)
        if self.kind == "ticks":
            price = rows.prices(self._named("price"))
            received = self.columns.get("received_at")
            seen = rows.times(received, self.unit) if received else ts
            return Ticks(ts, symbol, price, volume, seen, *place)
        names = [self._named(field) for field in ("open", "high", "low", "close")]
        open_, high, low, close = (rows.prices(name) for name in names)
        rows.refuse(high < np.maximum(open_, close), "high", ">= open and close", high)
        rows.refuse(low > np.minimum(open_, close), "low", "<= open and close", low)
        rows.refuse(ts % MINUTE != 0, "time", "a whole minute of a minute bar, ns", ts)
        if self.label == "left":
            ts = ts + MINUTE
        if self.volume_unit == "quote":
            volume = volume / ((high + low + close) / 3)
        return Bars(ts, symbol, open_, high, low, close, volume, *place)

    def _named(self, field: str) -> str:
        return cast("str", self.columns[field])

    def _symbols(self, rows: "_Reading", universe: Sequence[Instrument]) -> np.ndarray:
        # (T,) int32 indexes into the universe.
        known = {instrument.symbol: index for index, instrument in enumerate(universe)}
        if self.symbol:
            if self.symbol not in known:
                raise DataError(f"symbol was {self.symbol!r}{nearest(self.symbol, known)}")
            return np.full(rows.batch.num_rows, known[self.symbol], np.int32)
        coded = rows.column(self._named("symbol")).cast(pa.string()).dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        names = [*coded.dictionary.to_pylist(), None]
        for name in names[:-1] if (codes >= 0).all() else names:
            if name not in known:
                row = rows.first + int(np.flatnonzero(codes == _code(names, name))[0])
                raise DataError(
                    f"{rows.name} row {row}: symbol {name!r} is not of the universe"
                    + nearest(str(name), known)
                )
        return np.array([known.get(n, -1) for n in names], np.int32)[codes]


def row_count(path: Path) -> int | None:
    """Rows of a Parquet file; None for others, which do not know, and for a file not there."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    try:
        return parquet.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _code(names: list[str | None], name: str | None) -> int:
    return -1 if name is None else names.index(name)


def _one_of(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        said = " or ".join(str(choice) for choice in choices if choice)
        raise ConfigError(f"{name} must be {said}, was {value}; who made the file knows")


@dataclass(frozen=True, slots=True)
class _Reading:
    # Rows of a file as they came; `first` is the number of the first.
    batch: pa.RecordBatch
    name: str
    first: int

    def column(self, name: str) -> pa.Array:
        return self.batch.column(name)

    def floats(self, name: str) -> Floats:
        values = pc.cast(self.column(name), pa.float64(), safe=False)
        return np.array(values.to_numpy(zero_copy_only=False))  # a null is a NaN

    def prices(self, name: str) -> Floats:
        price = self.floats(name)
        self.refuse(~(np.isfinite(price) & (price > 0)), name, "positive and finite", price)
        return price

    def times(self, name: str, unit: str | None) -> Ints:
        column = self.column(name)
        kind = column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if number and unit is None:
            raise ConfigError(f"unit must be s, ms, us or ns for the numbers in {name!r}, was None")
        if not number:
            column = _timestamps(column)
        step = _NS[unit] if number and unit else 1
        missing = column.is_null().to_numpy(zero_copy_only=False)
        self.refuse(missing, name, "a time", np.full(len(column), np.nan))
        values = column.to_numpy(zero_copy_only=False)
        low, high = _FIRST, time.time_ns() + _DAY
        out = ~((values >= low / step) & (values <= high / step))
        self.refuse(out, name, f"a time from 2000 to tomorrow in {unit or 'UTC'}", values)
        if pa.types.is_floating(kind):
            return np.round(values * step).astype(np.int64)
        return values.astype(np.int64) * step

    def refuse(self, bad: np.ndarray, what: str, must_be: str, values: np.ndarray) -> None:
        rows = np.flatnonzero(bad)
        if len(rows):
            row = int(rows[0])
            raise DataError(
                f"{self.name} row {self.first + row}: {what} must be {must_be}, was {values[row]}"
                + (f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else "")
                + "; correct the file or its mapping"
            )


def _timestamps(column: pa.Array) -> pa.Array:
    # int64 ns; text with and without a zone, and timestamps of any unit.
    if not pa.types.is_timestamp(column.type):
        text = column.cast(pa.string())
        try:
            column = text.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid:
            column = text.cast(pa.timestamp("ns"))
    return column.cast(pa.timestamp("ns", getattr(column.type, "tz", None))).cast(pa.int64())


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            _has(path, names, file.schema_arrow.names)
            yield from file.iter_batches(BLOCK_ROWS, columns=names)
    elif path.name.endswith((".csv", ".csv.gz")):
        with csv.open_csv(path, csv.ReadOptions(block_size=_CSV_BLOCK)) as reader:
            _has(path, names, reader.schema.names)
            for batch in reader:
                yield batch.select(names)
    else:
        raise DataError(f"a file must end in .parquet, .csv or .csv.gz, was {path.name!r}")


def _has(path: Path, names: list[str], there: list[str]) -> None:
    for name in names:
        if name not in there:
            raise DataError(f"{path.name} has no column {name!r}{nearest(name, there)}")
