"""A history as one Parquet file: what a process that may not open the store is given.

Input: a `History`. Output: a file with its bars as columns and all else in its metadata; the same
history again, to the last bit. A file is there whole, or not at all.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from sysquant.errors import DataError
from sysquant.home import sync
from sysquant.past import History
from sysquant.types import Bars, Gaps, Instrument

_ABOUT = b"sysquant.history"


def save(history: History, path: Path) -> Path:
    """Write a history, in place of what is there.

    Parameters
    ----------
    history : any.
    path : of the file; its directory is there.

    Returns
    -------
    `path`.
    """
    about = {
        # Python's JSON keeps infinity, NaN and every bit of a number.
        "universe": [asdict(instrument) for instrument in history.universe],
        "interval": history.interval, "start": history.start, "end": history.end,
        "gaps": {name: column.tolist() for name, column in history.gaps.columns()},
        "inferred": sorted(history.inferred),
    }  # fmt: skip
    table = pa.table({name: pa.array(column) for name, column in history.bars.columns()})
    table = table.replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        parquet.write_table(table, fresh, compression="zstd")
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> History:
    """Read a history that `save` wrote.

    Raises
    ------
    DataError
        If the file cannot be read, or is none of `save`.
    """
    try:
        table = parquet.read_table(path)
        metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
        about = json.loads(metadata[_ABOUT])
        columns = {name: _array(table[name], kind) for name, kind in Bars.DTYPES.items()}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} holds no history ({type(error).__name__}): write it with history_file.save"
        ) from error
    gaps = {name: np.array(about["gaps"][name], kind) for name, kind in Gaps.DTYPES.items()}
    return History(
        Bars(**columns), tuple(Instrument(**each) for each in about["universe"]),
        about["interval"], about["start"], about["end"], Gaps(**gaps), frozenset(about["inferred"]),
    )  # fmt: skip


# Arrow's own memory is read-only, which is another type to compiled functions.
def _array(column: pa.ChunkedArray, kind: str) -> Any:
    return np.array(column.to_numpy(), kind)
