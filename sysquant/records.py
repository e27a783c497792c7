"""The rows of the engine: its state, and the effects it causes, as packed numpy records.

State arrays have one row per strategy (`S`), per symbol (`Y`) or per pair of both; effects are
appended in the order they happened. Every field is eight bytes wide, so that a row has no padding
and its bytes are its values. Times are ns UTC, prices in quote currency, cash in the book's,
quantities in units.
"""

from typing import Any

import numpy as np

# One record, and an array of them: numba knows their fields, a type checker cannot.
Row = Any
Rows = Any

NEVER = np.iinfo(np.int64).max  # a time that does not come


def _row(*, ints: str = "", floats: str = "", order: str = "") -> np.dtype[np.void]:
    kinds = dict.fromkeys(ints.split(), "i8") | dict.fromkeys(floats.split(), "f8")
    return np.dtype([(name, kinds[name]) for name in (order.split() or kinds)])


# -- what a run is made of: constant while it runs
INSTRUMENT = _row(  # (Y,)
    ints="quote_volume shortable perpetual restricted conversion converts"
    " session_from session_to funding_from funding_to",
    floats="tick_size ticks_per_unit lot_size lots_per_unit min_notional max_position multiplier"
    " maker taker quality",
)
TERMS = _row(  # (1,): the broker's, and those of the whole book
    ints="seed snapshot_ns interval"
    " latency_ns cancel_latency_ns latency_samples spread_model"
    " financing_ns funding_ns"
    " risk_bar_ns window min_history allow_short_history cut checks statistics",
    floats="latency_sigma cancel_latency_sigma reject_probability"
    " fixed_slippage half_spread impact volatility_scale participation queue_share"
    " fee_fixed fee_minimum borrow_rate interest_rate funding_rate"
    " statistics_weight decay confidence z_var z_es bars_per_year risk_bars_per_year",
)
RULES = _row(  # (S,): how targets become sizes, orders and exits
    ints="sizing retry_after"
    " kind tif then post_only carry slices timeout_ns slice_ns legs"  # legs: all or none
    " bracket rearm_bars max_hold_ns watchful",  # watchful: exits look at every event
    floats="share band amount most"  # amount: target volatility, notional or risk of the sizing
    " offset limit_offset trail"
    " stop_loss take_profit trailing_stop flatten_drawdown",  # infinite for none
)

# -- state
CLOCK = _row(  # (1,)
    ints="engine_ts events version suppressed ambiguous day returns"
    " holds state"  # holds: bits of why entries are stopped; state: what comes of them
    " next_financing next_funding wake"  # wake: the next accrual or day
    " next_risk_bar next_snapshot",
    floats="pool equity peak day_equity feed_lag_s covariance_weight",
)
MARKET = _row(  # (Y,): the last trade, who is in it, statistics per bar
    ints="ts halted session returns bars"
    " orders active",  # working orders of all strategies; strategies listed as in it
    floats="price previous unit risk_price held committed gross"  # of the book: units
    " close high low variance volume reference change roll_covariance roll spread",
)
ACCOUNT = _row(  # (S,)
    ints="key order_no failed promoted disabled losses stopped_ts rate_head rate_second rate_minute"
    " open_orders",
    floats="allocation scale released"  # of its targets; what it gave back to the pool
    " cash value equity peak day_equity exit_peak risk_equity stake left financing"
    " mean squares losses_squared"  # of its returns per risk bar in the window
    " volatility sharpe sortino value_at_risk",
)
CELL = _row(  # (S, Y)
    ints="state held listed changed pending refused refused_bar closed_side closed_bar"
    " exiting purpose opened_ts grown_event met_event slices next_slice follow entries"
    " last_order_ts",
    floats="quantity cost entry best realised_pnl fees slippage financing"
    " target refused_target working goal last_quantity exit_low exit_high",
)
ORDER = _row(  # (S, Y, 3): target order, bracket stop, bracket limit; order_no 0 for none
    ints="order_no kind tif then due end end_reason arrived triggered raised reduce_only post_only"
    " carry fills purpose",
    floats="quantity left target limit stop trail best budget touches rate_value paid",
)
CLOSING = _row(ints="interval end engine_ts late corrections bars")  # the bar clock
ACTIVITY = _row(ints="counts", floats="multiplier size done")  # (Y,) of bars that are not of time
OPEN_BAR = _row(ints="ticks first_ts last_ts", floats="open high low close volume")  # (Y,)

# -- between the rooms
FACTS = _row(  # one order as the risk chain sees it; "others" without the order's own cell
    ints="reduces side exposed",
    floats="quantity held unit price worst reference previous"
    " stale_s feed_lag_s min_notional max_position shortable restricted quality"
    " session_left_s state allocation stake equity peak cash_others unit_cost fixed_cost"
    " shorts_others gross_others net_others largest_others positions_others open_orders"
    " book_equity book_peak book_gross_others book_net_others book_held book_largest_others"
    " book_positions_others book_open_orders"
    " day_equity book_day_equity losses since_stop_s"
    " orders_second orders_minute entries disabled since_duplicate_s opposite_orders"
    " bars promoted"
    " history scenarios worst_scenarios variance_a variance_b variance_c z_var z_es"
    " risk_bars_per_year correlation",
)

# -- effects: one dtype per table, named as the table; strategy and symbol are indexes
EFFECTS = {
    "signals": _row(ints="ts strategy symbol", floats="target price"),
    "orders": _row(
        ints="ts strategy order_no symbol kind tif purpose approved due expires refused_by",
        floats="quantity asked target price limit_price stop_price",
    ),
    "risk_receipts": _row(ints="ts strategy order_no symbol attempt"),  # see `effects`
    "executions": _row(
        ints="ts strategy order_no fill_no symbol maker",
        floats="quantity price reference slippage fee realised_pnl",
    ),
    "order_ends": _row(ints="ts strategy order_no symbol reason", floats="filled remainder"),
    "financing": _row(ints="ts strategy symbol kind", floats="base rate amount"),
    "portfolio_history": _row(
        ints="ts version strategy symbol",  # -1: the pool, an account row
        floats="quantity average_price price value cash realised_pnl unrealised_pnl fees slippage"
        " financing equity peak drawdown volatility sharpe sortino value_at_risk",
    ),
}


def effects(checks: int) -> dict[str, np.dtype[Any]]:
    """Row types of the effects of a chain of `checks`: one receipt row holds all of an order's.

    Its `value` and `room` are (checks,) float64; its `verdict` is int8, as long as the next
    multiple of eight, so that every row stays aligned; what is beyond `checks` is 0.
    """
    own = [(name, "i8") for name in EFFECTS["risk_receipts"].names or ()]
    parts = [
        ("value", "f8", (checks,)), ("room", "f8", (checks,)),
        ("verdict", "i1", (-(-checks // 8) * 8,)),
    ]  # fmt: skip
    return EFFECTS | {"risk_receipts": np.dtype([*own, *parts])}
