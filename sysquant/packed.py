"""Arrays as bytes: a plain JSON header with names, types and shapes, then the raw values.

Used for journaled inputs and for snapshots. Never pickle; a header that does not fit its bytes is
an error.
"""

import json
import struct
from collections.abc import Mapping

import numpy as np

from sysquant.errors import DataError
from sysquant.types import Bars, Ticks

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


def _tuples(descr: object) -> object:
    # JSON turns the (name, type) pairs of a record type into lists.
    return [tuple(field) for field in descr] if isinstance(descr, list) else descr


def pack_batch(batch: Ticks | Bars) -> bytes:
    """Bytes of a batch of market events."""
    return pack(dict(batch.columns()))


def unpack_batch(kind: str, data: bytes) -> Ticks | Bars:
    """The batch that `pack_batch` was given; `kind` is `ticks` or `bars`."""
    return _BATCHES[kind](**unpack(data))  # pyright: ignore[reportArgumentType]
