"""Bars as they lie in a notebook, made columns: from a pandas frame or `Bars` to arrays.

Input: bars. Output: one array per column, times as int64 ns UTC. pandas is imported
only when a frame came in, which has imported it already. Nothing is filled, sorted or dropped.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sysquant.errors import DataError
from sysquant.past import History
from sysquant.types import Bars, Columns

if TYPE_CHECKING:
    import pandas as pd

_LEAST_NS = 10**13  # what is less is milliseconds or seconds since 1970


def columns_of(
    bars: "pd.DataFrame | Bars | History",
    symbols: Sequence[str] = (),
    *,
    may_repeat: bool = False,
) -> tuple[Columns, tuple[str, ...]]:
    """Columns of bars, and the names of their symbols.

    Parameters
    ----------
    bars : a `History`, `Bars`, or a frame with columns open, high, low, close, volume as far as
        they are used; times (the bars' closes) with a zone, or as ns since 1970, in the index or a
        column `ts`; a column `symbol`, of several by (ts, symbol).
    symbols : names that the column `symbol` counts, where it holds numbers.
    may_repeat : whether bars of a symbol may close at one time, as those of so many ticks do; in a
        frame they never may.

    Returns
    -------
    Name -> (T,) array, as it was; `ts` as int64 ns UTC; `symbol` as numbers; and what they count,
    `("",)` when there is no such column.

    Raises
    ------
    DataError
        If it is none of these, times have no zone, or those of a symbol go back, or repeat and may
        not.
    """
    columns: dict[str, NDArray[np.generic]]
    if isinstance(bars, History):
        bars, symbols = bars.bars, symbols or bars.symbols
    if isinstance(bars, Bars):
        columns = dict(bars.columns())
    elif not hasattr(bars, "columns"):
        raise DataError(
            "bars must be what history() returned, Bars, or a frame with the bars' columns, was "
            f"{type(bars).__name__}"
        )
    else:
        if not symbols and "symbol" in bars.columns and hasattr(bars["symbol"], "cat"):
            symbols = tuple(map(str, bars["symbol"].cat.categories))  # in the order they stand in
        columns = {str(name): bars[name].to_numpy() for name in bars.columns}
        columns["ts"] = _nanoseconds(bars)
    names = tuple(symbols) or ("",)
    if "symbol" in columns:
        columns["symbol"], names = _numbered(columns["symbol"], tuple(symbols))
    places = columns["symbol"] if len(names) > 1 else np.zeros(len(columns["ts"]), np.int32)
    ts = columns["ts"]
    least = 0 if may_repeat and isinstance(bars, Bars) else 1
    back = np.flatnonzero((np.diff(ts) < 0) | ((np.diff(ts) == 0) & (np.diff(places) < least)))
    if back.size:
        raise DataError(
            f"times of bars must rise, row {back[0] + 1} did not; sort them (by ts, then symbol) "
            "and drop repeats"
        )
    return columns, names


def _numbered(
    symbol: NDArray[np.generic], names: tuple[str, ...]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    # Numbers as they are; of names their places in sorted order, or in that of `names`.
    if symbol.dtype.kind in "iu":
        most = int(symbol.max(initial=0)) + 1  # pyright: ignore[reportArgumentType]
        return symbol.astype(np.int32), names or tuple(map(str, range(most)))
    texts = symbol.astype(str)
    names = names or tuple(np.unique(texts).tolist())
    strange = sorted(set(np.unique(texts).tolist()) - set(names))
    if strange:
        raise DataError(f"bars hold the symbols {', '.join(strange)}, the universe does not")
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[text] for text in texts.tolist()], np.int32), names


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
    ts = times.to_numpy(np.int64)
    if len(ts) and 0 < ts.max() < _LEAST_NS:
        raise DataError(f"times of bars are ns since 1970, {ts.max()} is too small for ns")
    return ts
