"""Arrays and Arrow tables as bytes.

Arrays are a plain JSON header with names, types and shapes, then the raw values: journaled inputs
and snapshots. Never pickle; a header that does not fit its bytes is an error. Tables are Arrow's
own IPC stream: rows that wait for the store.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sysquant.errors import DataError
from sysquant.types import Bars, Ticks

Table = Any  # a pyarrow.Table, which has no types
_MAGIC = b"SQ01"
_BATCHES: dict[str, type[Ticks] | type[Bars]] = {"ticks": Ticks, "bars": Bars}


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Bytes of named arrays, in their order."""
    header = json.dumps(
        [[name, np.lib.format.dtype_to_descr(a.dtype), a.shape] for name, a in arrays.items()]
    ).encode()
    parts = [_MAGIC, struct.pack("<I", len(header)), header]
    return b"".join(parts + [np.ascontiguousarray(a).tobytes() for a in arrays.values()])


def unpack(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that `pack` was given, writable copies.

    Raises
    ------
    DataError
        If the bytes are not whole.
    """
    try:
        if data[:4] != _MAGIC:
            raise ValueError("not packed arrays")
        at = 8 + struct.unpack_from("<I", data, 4)[0]
        arrays: dict[str, np.ndarray] = {}
        for name, descr, shape in json.loads(data[8:at]):
            dtype = np.lib.format.descr_to_dtype(_tuples(descr))
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
            at += count * dtype.itemsize
        if at != len(data):
            raise ValueError(f"{len(data)} bytes, {at} described")
    except (ValueError, struct.error, TypeError, KeyError) as error:
        raise DataError(f"packed arrays are damaged: {error}") from error
    return arrays


def _tuples(descr: Any) -> Any:
    # JSON turns the (name, type) pairs of a record type into lists.
    return [tuple(field) for field in descr] if isinstance(descr, list) else descr


def pack_batch(batch: Ticks | Bars) -> bytes:
    """Bytes of a batch of market events."""
    return pack(dict(batch.columns()))


def unpack_batch(kind: str, data: bytes) -> Ticks | Bars:
    """The batch that `pack_batch` was given; `kind` is `ticks` or `bars`."""
    return _BATCHES[kind](**unpack(data))  # pyright: ignore[reportArgumentType]


def pack_table(table: Table) -> bytes:
    """An Arrow table as bytes of the IPC stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack_table(data: bytes) -> Table:
    """The table that `pack_table` was given."""
    return pa.ipc.open_stream(data).read_all()


def join_tables(tables: Sequence[Table]) -> Table:
    """One table of several with the same columns."""
    return pa.concat_tables(tables)
