"""Native blocks as clients of a newer protocol revision read them.

Input: blocks as the embedded engine writes them, of revision 0. Output: the same with a header
before each block and a flag byte (0: no special layout) behind each column's type. Where a column
ends is found from its type alone; no value is decoded.

References
----------
ClickHouse documentation, "Native format" and "Native interface: Block".
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.container import Array, Map, Tuple
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.datatypes.special import SimpleAggregateFunction
from clickhouse_connect.datatypes.string import String

from sysquant.serve.wire import WireError

# From the first revision on columns carry the flag; the second knows one more field of the header.
FIRST_FRAMED, OUT_OF_ORDER = 54454, 54480
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff"  # no overflow, no bucket
NOT_IMPLEMENTED = 48


def frame_native(chunks: Iterable[bytes], revision: int) -> Iterator[bytes]:
    """Native blocks as a client of this protocol revision reads them.

    Parameters
    ----------
    chunks : whole Native blocks, as the engine writes them.
    revision : `client_protocol_version` of the request, at least `FIRST_FRAMED`.

    Raises
    ------
    WireError
        If a column is of a type whose layout is not known here (JSON, Variant, aggregate states).
    """
    info = BLOCK_INFO + (b"\x03\x00" if revision >= OUT_OF_ORDER else b"") + b"\x00"
    for chunk in chunks:
        at, out = 0, bytearray()
        while at < len(chunk):
            out += info
            at = _frame_block(chunk, at, out)
        yield bytes(out)


def _frame_block(chunk: bytes, start: int, out: bytearray) -> int:
    columns, at = _varint(chunk, start)
    rows, at = _varint(chunk, at)
    copied = start
    for _ in range(columns):
        size, at = _varint(chunk, at)
        name_end, at = at + size, at + size
        size, at = _varint(chunk, name_end)
        column = _type(chunk[at : at + size].decode())
        at += size
        out += chunk[copied:at] + b"\x00"
        copied = at
        if rows:
            at = _end(chunk, at + _prefix(column), column, rows)
    out += chunk[copied:at]
    return at


@lru_cache(maxsize=1024)
def _type(name: str) -> ClickHouseType:
    return get_from_name(name)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _uint64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _parts(column: ClickHouseType) -> list[ClickHouseType]:
    if isinstance(column, Array | SimpleAggregateFunction):
        return [column.element_type]
    if isinstance(column, Map):
        return [column.key_type, column.value_type]
    return list(column.element_types) if isinstance(column, Tuple) else []


# Every dictionary inside a column writes its version at the column's beginning.
def _prefix(column: ClickHouseType) -> int:
    return 8 if column.low_card else sum(_prefix(part) for part in _parts(column))


def _end(data: bytes, at: int, column: ClickHouseType, rows: int) -> int:
    if column.low_card:
        return _end_of_dictionary(data, at, column, rows)
    if column.nullable:
        at += rows
    if isinstance(column, Array | Map):
        inner = _uint64(data, at + 8 * rows - 8) if rows else 0
        at += 8 * rows
        rows = inner
    parts = _parts(column)
    for part in parts:
        at = _end(data, at, part, rows)
    return at if parts else _end_of_values(data, at, column, rows)


def _end_of_dictionary(data: bytes, at: int, column: ClickHouseType, rows: int) -> int:
    if rows == 0:
        return at
    width = 1 << (data[at] & 0xFF)
    at = _end_of_values(data, at + 16, column, _uint64(data, at + 8))
    return at + 8 + width * _uint64(data, at)


def _end_of_values(data: bytes, at: int, column: ClickHouseType, rows: int) -> int:
    if column.byte_size or isinstance(column, Tuple):  # an empty tuple takes a byte
        return at + (column.byte_size or 1) * rows
    if not isinstance(column, String):
        raise WireError(
            f"columns of type {column.name} are not served to this protocol: select them as "
            "toString(...). (NOT_IMPLEMENTED)",
            NOT_IMPLEMENTED,
        )
    for _ in range(rows):
        size = data[at]
        if size < 0x80:
            at += size + 1
        else:
            size, at = _varint(data, at)
            at += size
    return at
