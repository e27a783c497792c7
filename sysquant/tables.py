"""Columns of ticks, bars and funding rates as Arrow rows of the store's tables."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sysquant.types import Bars, Rates, Ticks

_NS = pa.timestamp("ns", "UTC")


def tick_table(ticks: Ticks, names: Sequence[str], epoch: str) -> pa.Table:
    """Rows of the table `ticks`; `names` are the universe's symbols."""
    return pa.table(
        {
            "symbol": _names(ticks.symbol, names),
            "ts": pa.array(ticks.ts, _NS),
            "price": ticks.price,
            "volume": ticks.volume,
            "received_at": pa.array(ticks.received_at, _NS),
            "epoch": pa.repeat(pa.scalar(epoch), len(ticks)),
            "partition": ticks.partition,
            "offset": ticks.offset,
        }
    )


def bar_table(bars: Bars, names: Sequence[str], source: str) -> pa.Table:
    """Rows of the table `bars_imported`; `names` are the universe's symbols."""
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pa.table(
        {
            "symbol": _names(bars.symbol, names),
            "ts": pa.array(bars.ts, _NS),
            **columns,
            "source": pa.repeat(pa.scalar(source), len(bars)),
        }
    )


def rate_table(rates: Rates, names: Sequence[str], source: str) -> pa.Table:
    """Rows of the table `funding`; `names` are the universe's symbols."""
    return pa.table(
        {
            "symbol": _names(rates.symbol, names),
            "ts": pa.array(rates.ts, _NS),
            "rate": rates.rate,
            "source": pa.repeat(pa.scalar(source), len(rates)),
        }
    )


def _names(symbol: np.ndarray, names: Sequence[str]) -> pa.Array:
    return pa.array(list(names), pa.string()).take(pa.array(symbol))
