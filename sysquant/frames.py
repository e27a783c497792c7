"""Bars as they lie in a notebook, made columns: from a pandas frame or `Bars` to arrays.

Input: bars of one symbol. Output: one array per column, times as int64 ns UTC. pandas is imported
only when a frame came in, which has imported it already. Nothing is filled, sorted or dropped.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sysquant.errors import DataError
from sysquant.past import History
from sysquant.types import Bars

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, NDArray[np.generic]]


def columns_of(bars: "pd.DataFrame | Bars | History") -> Columns:
    """Columns of the bars of one symbol.

    Parameters
    ----------
    bars : `Bars`, a `History`, or a frame with columns open, high, low, close, volume as far as
        they are used; times (the bars' closes) with a zone, or as ns since 1970, in the index or a
        column `ts`.

    Returns
    -------
    Name -> (T,) array, as it was; `ts` as int64 ns UTC, rising.

    Raises
    ------
    DataError
        If there are several symbols, or times have no zone, repeat or go back.
    """
    columns: dict[str, NDArray[np.generic]]
    if isinstance(bars, History):
        bars = bars.bars
    if isinstance(bars, Bars):
        columns = dict(bars.columns())
    else:
        columns = {str(name): bars[name].to_numpy() for name in bars.columns}
        columns["ts"] = _nanoseconds(bars)
    symbols = np.unique(columns["symbol"]) if "symbol" in columns else ()
    if len(symbols) > 1:
        raise DataError(f"bars of one symbol are needed, were of {len(symbols)}; take one of them")
    back = np.flatnonzero(np.diff(columns["ts"]) <= 0)
    if back.size:
        raise DataError(
            f"times of bars must rise, row {back[0] + 1} did not; sort them and drop repeats"
        )
    return columns


def _nanoseconds(bars: "pd.DataFrame") -> NDArray[np.int64]:
    # From a column or an index of times with a zone, or of integers that are ns already.
    import pandas as pd

    times = pd.Index(bars["ts"]) if "ts" in bars.columns else bars.index
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        return times.as_unit("ns").asi8
    if isinstance(times, pd.RangeIndex) or not pd.api.types.is_integer_dtype(times.dtype):
        raise DataError(
            f"bars need times in UTC, in the index or a column `ts`; were {times.dtype}; "
            "times without a zone: .tz_localize('UTC')"
        )
    return times.to_numpy(np.int64)
