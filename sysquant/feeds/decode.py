"""The `price_ticks` contract: JSON bytes to `Ticks` columns and dead letters, and back.

Input: the raw values of a poll. Output: columns of the good records, and a reason for each
of the others; nothing in a payload can raise. `Contract` is the only place the fields are listed.
It knows nothing of Kafka and reads no clock.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel
from sysquant.types import SECOND, DeadLetter, Instrument, Ints, Ticks

Bytes = NDArray[np.uint8]
MILLISECOND = 1_000_000
LAST_MS = 7_258_118_400_000  # 2200-01-01: later ones overflow when intervals are added to them
UNKNOWN = -2
MALFORMED = -1
DAY = 86_400 * SECOND
FAR = DAY  # no zone is a day away
DASH, PLUS, COLON, POINT, SPACE, LETTER_T, LETTER_Z = b"-+:. TZ"
PAYLOAD_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)


class Contract(msgspec.Struct, gc=False):
    """One trade as it stands on the topic; fields not named here are ignored.

    Parameters
    ----------
    timestamp_ms : when it happened, ms since 1970, UTC; authoritative.
    symbol : e.g. `BINANCE:BTCUSDT`.
    price : quote currency, finite and positive.
    volume : units, finite and not negative.
    received_at : ISO-8601, years 1970 to 2199, UTC where it names no offset.
    """

    timestamp_ms: Annotated[int, msgspec.Meta(ge=1, le=LAST_MS)]
    symbol: str
    price: Annotated[float, msgspec.Meta(gt=0)]
    volume: Annotated[float, msgspec.Meta(ge=0)]
    received_at: str


class _Published(Contract, kw_only=True, gc=False):
    # `timestamp` only repeats `timestamp_ms` for people: written, never read.
    timestamp: str


class TickDecoder:
    """Decodes the records of one topic.

    Parameters
    ----------
    universe : the instruments that may appear; their order gives the `symbol` column.
    topic : its name, for dead letters.
    """

    def __init__(self, universe: Sequence[Instrument], topic: str = "price_ticks") -> None:
        self.topic = topic
        self._parse = msgspec.json.Decoder(Contract).decode
        self._index = _Index({one.symbol: i for i, one in enumerate(universe)})
        parse_iso(["1970-01-01T00:00:00Z"])  # compiles it now, not in the first poll

    def decode(
        self, values: Sequence[bytes | None], partitions: Ints | int, offsets: Ints
    ) -> tuple[Ticks, tuple[DeadLetter, ...]]:
        """Good records as columns, the others as dead letters, both in the order given.

        Parameters
        ----------
        values : (T,) payloads; None is a record that has none.
        partitions : (T,) int64, or one for all, where they were read.
        offsets : (T,) int64, where each of them lies in its partition.
        """
        if isinstance(partitions, int):
            partitions = np.full(len(values), partitions)
        parse, reasons = self._parse, dict[int, str]()
        rows = range(len(values))
        try:
            records = [parse(value) for value in values]  # pyright: ignore[reportArgumentType]
        except PAYLOAD_ERRORS:
            records, rows = self._parse_each(values, reasons)
        ticks = _columns(records, self._index, partitions[rows], offsets[rows])
        good = (ticks.symbol >= 0) & (ticks.received_at != MALFORMED)
        if not good.all():
            for row in np.flatnonzero(~good).tolist():
                reasons[rows[row]] = _reason(records[row], ticks.symbol[row] >= 0)
            ticks = ticks[good]
        dead = [
            DeadLetter(
                self.topic, int(partitions[row]), int(offsets[row]), reason, values[row] or b""
            )
            for row, reason in sorted(reasons.items())
        ]
        return ticks, tuple(dead)

    def _parse_each(
        self, values: Sequence[bytes | None], reasons: dict[int, str]
    ) -> tuple[list[Contract], list[int]]:
        # The slow path of a batch with a bad record in it: which one, and why.
        records, rows = list[Contract](), list[int]()
        for row, value in enumerate(values):
            try:
                records.append(self._parse(value or b""))
                rows.append(row)
            except PAYLOAD_ERRORS as error:
                reasons[row] = str(error) if value else "empty record"
        return records, rows


def encode(ticks: Ticks, universe: Sequence[Instrument]) -> list[bytes]:
    """Contract JSON of each tick; decoding gives the same columns again.

    Parameters
    ----------
    ticks : `ts` in whole milliseconds, all the topic can hold.
    universe : what the `symbol` column points into.
    """
    symbols = [one.symbol for one in universe]
    write = msgspec.json.Encoder().encode
    columns = zip(
        (ticks.ts // MILLISECOND).tolist(),
        ticks.symbol.tolist(),
        ticks.price.tolist(),
        ticks.volume.tolist(),
        iso_text(ticks.received_at),
        iso_text(ticks.ts),
        strict=True,
    )
    return [
        write(_Published(ms, symbols[at], price, volume, received, timestamp=when))
        for ms, at, price, volume, received, when in columns
    ]


def iso_text(ts: Ints) -> list[str]:
    """ISO-8601 of int64 ns UTC, as `2025-05-18T22:56:12.480000+00:00`; no digit is lost."""
    unit = "s" if not (ts % SECOND).any() else "us" if not (ts % 1000).any() else "ns"
    text = np.datetime_as_string(ts.astype("M8[ns]").astype(f"M8[{unit}]"))
    return [moment + "+00:00" for moment in text.tolist()]


def parse_iso(texts: Sequence[str]) -> Ints:
    """Int64 ns UTC of ISO-8601 texts; `MALFORMED` for what is none, or not in 1970 to 2199."""
    joined = "".join(texts)
    if not joined.isascii():
        texts = [text if text.isascii() else "" for text in texts]
        joined = "".join(texts)
    out = np.empty(len(texts), np.int64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    _parse_all(np.frombuffer(joined.encode(), np.uint8), lengths, out)
    return out


class _Index(dict[str, int]):
    # A lookup that cannot fail, so that it can be mapped over a column.
    def __missing__(self, symbol: str) -> int:
        return UNKNOWN


def _columns(records: list[Contract], index: _Index, partitions: Ints, offsets: Ints) -> Ticks:
    count = len(records)
    return Ticks(
        ts=np.fromiter([r.timestamp_ms for r in records], np.int64, count) * MILLISECOND,
        symbol=np.fromiter([index[r.symbol] for r in records], np.int32, count),
        price=np.fromiter([r.price for r in records], np.float64, count),
        volume=np.fromiter([r.volume for r in records], np.float64, count),
        received_at=parse_iso([r.received_at for r in records]),
        partition=partitions.astype(np.int32),
        offset=offsets,
    )


def _reason(record: Contract, is_known: bool) -> str:
    if not is_known:
        return f"unknown symbol {record.symbol[:80]!r}"
    return f"received_at is not ISO-8601 of 1970 to 2199: {record.received_at[:80]!r}"


@kernel
def _parse_all(raw: Bytes, lengths: Ints, out: Ints) -> None:
    # YYYY-MM-DDThh:mm[:ss[.f]][Z|+hh[[:]mm]]: what `datetime.isoformat` and RFC 3339 write.
    start = 0
    for row in range(len(lengths)):
        end = start + lengths[row]
        day = _day(raw, start, end)
        clock, at = _clock(raw, start + 10, end)
        shift = _shift(raw, at, end)
        out[row] = day * DAY + clock - shift
        if day < 0 or clock < 0 or shift == FAR or out[row] < 0:
            out[row] = MALFORMED
        start = end


@kernel
def _day(raw: Bytes, at: int, end: int) -> int:
    # Days since 1970, or -1; counted from March, so that a leap day is the last of its year.
    year, month = _digits(raw, at, 4, end), _digits(raw, at + 5, 2, end)
    day = _digits(raw, at + 8, 2, end)
    if not (1970 <= year < 2200 and 1 <= month <= 12 and day > 0):
        return -1
    if raw[at + 4] != DASH or raw[at + 7] != DASH:
        return -1
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = 31 - (month in (4, 6, 9, 11)) - (month == 2) * (3 - is_leap)
    if day > length:
        return -1
    if month < 3:
        year, month = year - 1, month + 12
    leap_days = year // 4 - year // 100 + year // 400
    return year * 365 + leap_days + (153 * month - 457) // 5 + day - 719_469


@kernel
def _clock(raw: Bytes, at: int, end: int) -> tuple[int, int]:
    # Nanoseconds into the day and where the zone begins; (-1, at) for what is no time of day.
    hour, minute = _digits(raw, at + 1, 2, end), _digits(raw, at + 4, 2, end)
    if not (0 <= hour < 24 and 0 <= minute < 60 and raw[at + 3] == COLON):
        return -1, at
    if raw[at] != LETTER_T and raw[at] != SPACE:
        return -1, at
    clock = (hour * 60 + minute) * 60 * SECOND
    at += 6
    if at >= end or raw[at] != COLON:
        return clock, at
    second = _digits(raw, at + 1, 2, end)
    if not 0 <= second < 60:
        return -1, at
    clock += second * SECOND
    at += 3
    if at < end and raw[at] == POINT:
        scale = SECOND
        at += 1
        if _digits(raw, at, 1, end) < 0:
            return -1, at
        while _digits(raw, at, 1, end) >= 0:
            scale //= 10
            clock += _digits(raw, at, 1, end) * scale
            at += 1
    return clock, at


@kernel
def _shift(raw: Bytes, at: int, end: int) -> int:
    # What a zone adds to UTC, ns; FAR for what is no zone.
    if at >= end or (at + 1 == end and raw[at] == LETTER_Z):
        return 0
    if raw[at] != PLUS and raw[at] != DASH:
        return FAR
    hour, minute = _digits(raw, at + 1, 2, end), 0
    at_minute = at + 4 if at + 3 < end and raw[at + 3] == COLON else at + 3
    if at + 3 < end:
        minute = _digits(raw, at_minute, 2, end)
        if at_minute + 2 != end:
            return FAR
    if not (0 <= hour < 24 and 0 <= minute < 60):
        return FAR
    shift = (hour * 60 + minute) * 60 * SECOND
    return shift if raw[at] == PLUS else -shift


@kernel
def _digits(raw: Bytes, at: int, count: int, end: int) -> int:
    # A number of exactly `count` digits, or -1; never looks past `end`.
    if at + count > end:
        return -1
    value = 0
    for i in range(at, at + count):
        digit = int(raw[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value
