"""Checks of the order itself: its size, its price, the market it meets, its pace and permission.

Input: `records.FACTS` of one order, and a limit in the unit that each check names. Output: see
`outcome`. What is NaN passes no check.
"""

import math

from sysquant.checks.outcome import Outcome, at_least, at_most, share, up_to
from sysquant.compiled import inlined
from sysquant.records import Row


@inlined
def order_quantity(order: Row, limit: float) -> Outcome:
    """Size of the order, units; at most."""
    return up_to(abs(order.quantity), limit, limit)


@inlined
def order_notional(order: Row, limit: float) -> Outcome:
    """Value of the order at the last price, the book's currency; at most."""
    unit = order.price * order.unit
    return up_to(abs(order.quantity) * unit, limit, limit / unit)


@inlined
def order_size(order: Row, limit: float) -> Outcome:
    """Value of the order, a fraction of the capital allocated to the strategy; at most."""
    unit = order.price * order.unit
    value = share(abs(order.quantity) * unit, order.allocation)
    return up_to(value, limit, limit * max(0.0, order.allocation) / unit)


@inlined
def min_notional(order: Row, limit: float) -> Outcome:
    """Value of the order above the least that the exchange takes, the book's currency; at least."""
    unit = order.price * order.unit
    return at_least(abs(order.quantity) * unit - order.min_notional, limit)


@inlined
def price_collar(order: Row, limit: float) -> Outcome:
    """Distance of the worst price it may trade at from the last price, a fraction; at most."""
    return at_most(abs(order.worst / order.price - 1.0), limit)


@inlined
def reference_collar(order: Row, limit: float) -> Outcome:
    """Distance of the last price from its moving average, a fraction of that; at most."""
    return at_most(abs(order.price / order.reference - 1.0), limit)


@inlined
def stale_price(order: Row, limit: float) -> Outcome:
    """Age of the last trade, seconds; at most."""
    return at_most(order.stale_s, limit)


@inlined
def feed_lag(order: Row, limit: float) -> Outcome:
    """Lag of the feed behind the wall clock, seconds; at most."""
    return at_most(order.feed_lag_s, limit)


@inlined
def tick_jump(order: Row, limit: float) -> Outcome:
    """Distance of the last price from the one before it, a fraction of that; at most."""
    return at_most(abs(order.price / order.previous - 1.0), limit)


@inlined
def cash(order: Row, limit: float) -> Outcome:
    """Cash left when this order and all working ones cost their worst, book currency; at least."""
    left = order.cash_others - order.fixed_cost
    value = left - abs(order.quantity) * order.unit_cost
    passes = value >= limit
    if order.side < 0:
        return value, passes, math.inf if passes else 0.0
    room = (left - limit) / order.unit_cost
    return value, passes, room if room > 0.0 else 0.0


@inlined
def order_rate_second(order: Row, limit: float) -> Outcome:
    """Approved orders of the strategy in the last second with this one, a count; at most."""
    return at_most(order.orders_second + 1.0, limit)


@inlined
def order_rate_minute(order: Row, limit: float) -> Outcome:
    """Approved orders of the strategy in the last minute with this one, a count; at most."""
    return at_most(order.orders_minute + 1.0, limit)


@inlined
def repeated_order(order: Row, limit: float) -> Outcome:
    """Entries in a row for one standing target with this one, a count; at most.

    Infinite while the strategy is disabled for having repeated itself.
    """
    if order.disabled != 0.0:
        return at_most(order.disabled * math.inf, limit)
    return at_most(order.entries + 1.0, limit)


@inlined
def duplicate_order(order: Row, limit: float) -> Outcome:
    """Time since an approved order of the same quantity, if that was the last, s; at least."""
    return at_least(order.since_duplicate_s, limit)


@inlined
def self_match(order: Row, limit: float) -> Outcome:
    """Working orders of other strategies that this one would trade with, a count; at most."""
    return at_most(order.opposite_orders, limit)


@inlined
def warm_up(order: Row, limit: float) -> Outcome:
    """Closed bars of the symbol that the strategy has seen, a count; at least."""
    return at_least(order.bars, limit)


@inlined
def trading_window(order: Row, limit: float) -> Outcome:
    """Time until the session ends, -1 outside, seconds; at least."""
    return at_least(order.session_left_s, limit)


@inlined
def restricted(order: Row, limit: float) -> Outcome:
    """1 if the instrument is restricted; at most."""
    return at_most(order.restricted, limit)


@inlined
def data_quality(order: Row, limit: float) -> Outcome:
    """Score of the instrument's data, 0 to 1, NaN where nobody measured it; at least."""
    return at_least(order.quality, limit)


@inlined
def state(order: Row, limit: float) -> Outcome:
    """Worst of book, strategy and symbol: 0 active, 1 reducing, 2 off or halted; at most."""
    return at_most(order.state, limit)
