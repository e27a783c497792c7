"""Checks of what the order makes of its strategy and of the book: positions, exposure, losses.

Input: `records.FACTS` of one order, where *projected* is with it and every working order filled;
and a limit in the unit that each check names. Output: see `outcome`. A fraction of capital that is
not above 0 is infinite. What is NaN passes no check.
"""

import math

from sysquant.checks.outcome import Outcome, at_least, at_most, loss, share, up_to, up_to_position
from sysquant.compiled import inlined
from sysquant.records import Row


@inlined
def _unit(order: Row) -> float:
    # Value of one unit, the book's currency.
    return order.price * order.unit


@inlined
def _value(order: Row) -> float:
    # |value| of the cell, projected.
    return abs(order.held + order.quantity) * _unit(order)


@inlined
def _larger(one: float, other: float) -> float:
    # NaN if either is, unlike the built-in.
    return one if one > other or math.isnan(one) else other


@inlined
def _is_position(quantity: float) -> float:
    # 1 for what is not 0; NaN for what is not known.
    if math.isnan(quantity):
        return quantity
    return 0.0 if quantity == 0.0 else 1.0


# -- one position


@inlined
def position_quantity(order: Row, limit: float) -> Outcome:
    """Size of the projected position, units; at most.

    An instrument with a largest position of its own has that one as its limit: its units are
    scaled to match.
    """
    value, bound = abs(order.held + order.quantity), limit
    if limit > 0.0 and order.max_position != math.inf:
        bound = order.max_position
        value /= bound / limit
    return up_to(value, limit, bound - order.side * order.held if limit >= 0.0 else 0.0)


@inlined
def position_notional(order: Row, limit: float) -> Outcome:
    """Value of the projected position, the book's currency; at most."""
    return up_to_position(_value(order), limit, 1.0, 0.0, _unit(order), order.side * order.held)


@inlined
def position_weight(order: Row, limit: float) -> Outcome:
    """Value of the projected position, a fraction of the strategy's equity; at most."""
    value = share(_value(order), order.equity)
    return up_to_position(value, limit, order.equity, 0.0, _unit(order), order.side * order.held)


@inlined
def not_promoted(order: Row, limit: float) -> Outcome:
    """Value of the projected position of a strategy that is not promoted, of equity; at most."""
    if order.promoted == 1.0:
        return at_most(0.0, limit)
    return position_weight(order, limit)


@inlined
def short_limit(order: Row, limit: float) -> Outcome:
    """Projected short value of the strategy, a fraction of its equity; at most."""
    after = order.held + order.quantity
    short = 0.0 if after >= 0.0 else -after * _unit(order)
    value = share(order.shorts_others + short, order.equity)
    if order.side > 0:
        return at_most(value, limit)
    return up_to_position(
        value, limit, order.equity, order.shorts_others, _unit(order), -order.held
    )


@inlined
def long_only(order: Row, limit: float) -> Outcome:
    """Projected position where it is short, units, 0 or below; at least."""
    after = order.held + order.quantity
    value = 0.0 if after >= 0.0 else after
    passes = value >= limit
    if order.side > 0:
        return value, passes, math.inf if passes else 0.0
    room = order.held - limit
    return value, passes, room if limit <= 0.0 and room > 0.0 else 0.0


@inlined
def shortable(order: Row, limit: float) -> Outcome:
    """Projected short position of what may not be sold short, units, 0 or below; at least."""
    if order.shortable == 1.0:
        return at_least(0.0, limit)
    return long_only(order, limit)


# -- the strategy


@inlined
def gross_exposure(order: Row, limit: float) -> Outcome:
    """Sum of the projected positions' sizes, the book's currency; at most."""
    value = order.gross_others + _value(order)
    return up_to_position(
        value, limit, 1.0, order.gross_others, _unit(order), order.side * order.held
    )


@inlined
def net_exposure(order: Row, limit: float) -> Outcome:
    """Size of the sum of the projected positions, the book's currency; at most."""
    unit = _unit(order)
    before = order.net_others + order.held * unit
    value = abs(before + order.quantity * unit)
    return up_to_position(value, limit, 1.0, 0.0, unit, order.side * before / unit)


@inlined
def leverage(order: Row, limit: float) -> Outcome:
    """Sum of the projected positions' sizes, a fraction of the strategy's equity; at most."""
    value = share(order.gross_others + _value(order), order.equity)
    return up_to_position(
        value, limit, order.equity, order.gross_others, _unit(order), order.side * order.held
    )


@inlined
def concentration(order: Row, limit: float) -> Outcome:
    """Largest projected position, a fraction of the sum of their sizes; at most."""
    gross = order.gross_others + _value(order)
    if gross == 0.0:
        return at_most(0.0, limit)
    return at_most(_larger(order.largest_others, _value(order)) / gross, limit)


@inlined
def open_positions(order: Row, limit: float) -> Outcome:
    """Symbols with a projected position, a count; at most."""
    return at_most(order.positions_others + _is_position(order.held + order.quantity), limit)


@inlined
def open_orders(order: Row, limit: float) -> Outcome:
    """Working orders of the strategy with this one, a count; at most."""
    return at_most(order.open_orders + 1.0, limit)


# -- the book: gross adds up every strategy's positions, all else nets them by symbol


@inlined
def book_gross_exposure(order: Row, limit: float) -> Outcome:
    """Sum of the projected positions' sizes over all strategies, its currency; at most."""
    others = order.book_gross_others
    return up_to_position(
        others + _value(order), limit, 1.0, others, _unit(order), order.side * order.held
    )


@inlined
def book_net_exposure(order: Row, limit: float) -> Outcome:
    """Size of the sum of the projected positions over all strategies, its currency; at most."""
    unit = _unit(order)
    before = order.book_net_others + order.book_held * unit
    value = abs(before + order.quantity * unit)
    return up_to_position(value, limit, 1.0, 0.0, unit, order.side * before / unit)


@inlined
def book_leverage(order: Row, limit: float) -> Outcome:
    """Sum of the projected positions' sizes, a fraction of the book's equity; at most."""
    others = order.book_gross_others
    value = share(others + _value(order), order.book_equity)
    return up_to_position(
        value, limit, order.book_equity, others, _unit(order), order.side * order.held
    )


@inlined
def book_concentration(order: Row, limit: float) -> Outcome:
    """Largest projected netted position, a fraction of the book's gross exposure; at most."""
    gross = order.book_gross_others + _value(order)
    if gross == 0.0:
        return at_most(0.0, limit)
    netted = abs(order.book_held + order.quantity) * _unit(order)
    return at_most(_larger(order.book_largest_others, netted) / gross, limit)


@inlined
def book_open_positions(order: Row, limit: float) -> Outcome:
    """Symbols with a projected netted position, a count; at most."""
    after = order.book_held + order.quantity
    return at_most(order.book_positions_others + _is_position(after), limit)


@inlined
def book_open_orders(order: Row, limit: float) -> Outcome:
    """Working orders of all strategies with this one, a count; at most."""
    return at_most(order.book_open_orders + 1.0, limit)


# -- losses


@inlined
def drawdown(order: Row, limit: float) -> Outcome:
    """Drawdown of the strategy from its peak, a fraction; at most."""
    return at_most(loss(order.equity, order.peak), limit)


@inlined
def book_drawdown(order: Row, limit: float) -> Outcome:
    """Drawdown of the book from its peak, a fraction; at most."""
    return at_most(loss(order.book_equity, order.book_peak), limit)


@inlined
def daily_loss(order: Row, limit: float) -> Outcome:
    """Loss of the strategy since the day began, a fraction of its equity then; at most."""
    return at_most(loss(order.equity, order.day_equity), limit)


@inlined
def book_daily_loss(order: Row, limit: float) -> Outcome:
    """Loss of the book since the day began, a fraction of its equity then; at most."""
    return at_most(loss(order.book_equity, order.book_day_equity), limit)


@inlined
def consecutive_losses(order: Row, limit: float) -> Outcome:
    """Fills in a row that realised a loss, a count; at most."""
    return at_most(order.losses, limit)


@inlined
def cooldown(order: Row, limit: float) -> Outcome:
    """Time since an exit rule last fired with a loss, seconds; at least."""
    return at_least(order.since_stop_s, limit)


@inlined
def give_back(order: Row, limit: float) -> Outcome:
    """Part of the strategy's best profit that is lost again, a fraction; at most."""
    if order.peak <= order.stake:
        return at_most(0.0, limit)
    return at_most((order.peak - order.equity) / (order.peak - order.stake), limit)
