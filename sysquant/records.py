"""The rows of the engine: its state, and the effects it causes, as packed numpy records.

State arrays have one row per strategy (`S`), per symbol (`Y`) or per pair of both; effects are
appended in the order they happened. Every field is eight bytes wide, so that a row has no padding
and its bytes are its values. Times are ns UTC, prices and cash quote currency, quantities units.
"""

from typing import Any

import numpy as np

# One record, and an array of them: numba knows their fields, a type checker cannot.
Row = Any
Rows = Any


def _row(*, ints: str = "", floats: str = "", order: str = "") -> np.dtype[np.void]:
    kinds = dict.fromkeys(ints.split(), "i8") | dict.fromkeys(floats.split(), "f8")
    return np.dtype([(name, kinds[name]) for name in (order.split() or kinds)])


# -- what a run is made of: constant while it runs
INSTRUMENT = _row(floats="tick_size lot_size min_notional")
TERMS = _row(  # one row: sizing and execution
    ints="seed retry_after snapshot_ns latency_ns",
    floats="share band latency_sigma slippage fee",
)

# -- state
CLOCK = _row(ints="engine_ts snapshot_ts version suppressed", floats="pool")
MARKET = _row(ints="ts", floats="price")  # (Y,) last trade; price 0 before the first
ACCOUNT = _row(  # (S,)
    ints="order_no key",
    floats="allocation cash equity peak",
)
CELL = _row(  # (S, Y)
    ints="held changed refused bars_since_refusal",
    floats="quantity average_price realised_pnl fees slippage target refused_target",
)
WORKING = _row(  # (S, Y): the one order at the broker; order_no 0 for none
    ints="order_no due",
    floats="quantity",
)
CLOSING = _row(ints="interval end engine_ts late corrections bars")  # the bar clock
OPEN_BAR = _row(ints="ticks first_ts last_ts", floats="open high low close volume")  # (Y,)

# -- between the rooms, inside one event
BAR = _row(ints="position ts symbol", floats="open high low close volume")
DECISION = _row(ints="position ts strategy symbol", floats="target")  # position: before that event
FACTS = _row(  # one order as the risk chain sees it
    ints="reduces",
    floats="quantity price notional allocation cash_after short_after equity drawdown",
)

# -- effects: one dtype per table, named as the table; strategy and symbol are indexes
EFFECTS = {
    "signals": _row(ints="ts strategy symbol", floats="target price"),
    "orders": _row(
        ints="ts strategy order_no symbol approved due refused_by",
        floats="quantity target price",
    ),
    "risk_receipts": _row(ints="ts strategy order_no symbol check verdict", floats="value limit"),
    "executions": _row(
        ints="ts strategy order_no fill_no symbol",
        floats="quantity price reference slippage fee realised_pnl",
    ),
    "portfolio_history": _row(
        ints="ts version strategy symbol",  # -1: the pool, an account row
        floats="quantity average_price price value cash realised_pnl unrealised_pnl fees slippage"
        " equity peak drawdown",
    ),
}
