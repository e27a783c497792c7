"""A whole chain on one order: every check that is in it, in one compiled function for all chains.

What a chain holds is data: the place of each check by its number, and the limits by place. A new
check is a function in the module of its theme, a name in `checks`, and two lines here.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysquant import checks as check
from sysquant.checks import CHECKS
from sysquant.checks import order as of_order
from sysquant.checks import portfolio as of_portfolio
from sysquant.checks import tail as of_tail
from sysquant.checks.outcome import Outcome
from sysquant.compiled import inlined, inlined_kernel
from sysquant.records import Row
from sysquant.types import Floats, Ints

REFUSE, PASS, EXEMPT = 0, 1, 2

_EXEMPTING = np.array([each.exempt for each in CHECKS.values()])


class Receipt(NamedTuple):
    """A chain, and what it said: value, room and verdict by place."""

    places: Ints
    limits: Floats
    value: Floats
    room: Floats
    verdict: NDArray[np.int8]


@inlined
def _limit(to: Receipt, number: int) -> float:
    place = to.places[number]
    return float(to.limits[place])


@inlined
def _judge(to: Receipt, order: Row, number: int, outcome: Outcome) -> int:
    # Records what a check said; its bit if it refused.
    place = to.places[number]
    to.value[place], passes, to.room[place] = outcome
    to.verdict[place] = PASS
    if passes:
        return 0
    if order.reduces == 1 and _EXEMPTING[number] and not math.isnan(to.limits[place]):
        to.verdict[place] = EXEMPT
        return 0
    to.verdict[place] = REFUSE
    return 1 << place


@inlined
def _order(to: Receipt, order: Row) -> int:
    # Of the order: its size and collars.
    refused_by = 0
    if to.places[check.ORDER_QUANTITY] >= 0:
        outcome = of_order.order_quantity(order, _limit(to, check.ORDER_QUANTITY))
        refused_by |= _judge(to, order, check.ORDER_QUANTITY, outcome)
    if to.places[check.ORDER_NOTIONAL] >= 0:
        outcome = of_order.order_notional(order, _limit(to, check.ORDER_NOTIONAL))
        refused_by |= _judge(to, order, check.ORDER_NOTIONAL, outcome)
    if to.places[check.ORDER_SIZE] >= 0:
        outcome = of_order.order_size(order, _limit(to, check.ORDER_SIZE))
        refused_by |= _judge(to, order, check.ORDER_SIZE, outcome)
    if to.places[check.MIN_NOTIONAL] >= 0:
        outcome = of_order.min_notional(order, _limit(to, check.MIN_NOTIONAL))
        refused_by |= _judge(to, order, check.MIN_NOTIONAL, outcome)
    if to.places[check.PRICE_COLLAR] >= 0:
        outcome = of_order.price_collar(order, _limit(to, check.PRICE_COLLAR))
        refused_by |= _judge(to, order, check.PRICE_COLLAR, outcome)
    return refused_by


@inlined
def _market(to: Receipt, order: Row) -> int:
    # Of the market it meets, and its cost.
    refused_by = 0
    if to.places[check.REFERENCE_COLLAR] >= 0:
        outcome = of_order.reference_collar(order, _limit(to, check.REFERENCE_COLLAR))
        refused_by |= _judge(to, order, check.REFERENCE_COLLAR, outcome)
    if to.places[check.STALE_PRICE] >= 0:
        outcome = of_order.stale_price(order, _limit(to, check.STALE_PRICE))
        refused_by |= _judge(to, order, check.STALE_PRICE, outcome)
    if to.places[check.FEED_LAG] >= 0:
        outcome = of_order.feed_lag(order, _limit(to, check.FEED_LAG))
        refused_by |= _judge(to, order, check.FEED_LAG, outcome)
    if to.places[check.TICK_JUMP] >= 0:
        outcome = of_order.tick_jump(order, _limit(to, check.TICK_JUMP))
        refused_by |= _judge(to, order, check.TICK_JUMP, outcome)
    if to.places[check.CASH] >= 0:
        outcome = of_order.cash(order, _limit(to, check.CASH))
        refused_by |= _judge(to, order, check.CASH, outcome)
    return refused_by


@inlined
def _pace(to: Receipt, order: Row) -> int:
    # Of its pace, and whom it would meet.
    refused_by = 0
    if to.places[check.ORDER_RATE_SECOND] >= 0:
        outcome = of_order.order_rate_second(order, _limit(to, check.ORDER_RATE_SECOND))
        refused_by |= _judge(to, order, check.ORDER_RATE_SECOND, outcome)
    if to.places[check.ORDER_RATE_MINUTE] >= 0:
        outcome = of_order.order_rate_minute(order, _limit(to, check.ORDER_RATE_MINUTE))
        refused_by |= _judge(to, order, check.ORDER_RATE_MINUTE, outcome)
    if to.places[check.REPEATED_ORDER] >= 0:
        outcome = of_order.repeated_order(order, _limit(to, check.REPEATED_ORDER))
        refused_by |= _judge(to, order, check.REPEATED_ORDER, outcome)
    if to.places[check.DUPLICATE_ORDER] >= 0:
        outcome = of_order.duplicate_order(order, _limit(to, check.DUPLICATE_ORDER))
        refused_by |= _judge(to, order, check.DUPLICATE_ORDER, outcome)
    if to.places[check.SELF_MATCH] >= 0:
        outcome = of_order.self_match(order, _limit(to, check.SELF_MATCH))
        refused_by |= _judge(to, order, check.SELF_MATCH, outcome)
    return refused_by


@inlined
def _permission(to: Receipt, order: Row) -> int:
    # Whether the symbol may be traded at all now.
    refused_by = 0
    if to.places[check.WARM_UP] >= 0:
        outcome = of_order.warm_up(order, _limit(to, check.WARM_UP))
        refused_by |= _judge(to, order, check.WARM_UP, outcome)
    if to.places[check.TRADING_WINDOW] >= 0:
        outcome = of_order.trading_window(order, _limit(to, check.TRADING_WINDOW))
        refused_by |= _judge(to, order, check.TRADING_WINDOW, outcome)
    if to.places[check.RESTRICTED] >= 0:
        outcome = of_order.restricted(order, _limit(to, check.RESTRICTED))
        refused_by |= _judge(to, order, check.RESTRICTED, outcome)
    if to.places[check.DATA_QUALITY] >= 0:
        outcome = of_order.data_quality(order, _limit(to, check.DATA_QUALITY))
        refused_by |= _judge(to, order, check.DATA_QUALITY, outcome)
    if to.places[check.STATE] >= 0:
        outcome = of_order.state(order, _limit(to, check.STATE))
        refused_by |= _judge(to, order, check.STATE, outcome)
    return refused_by


@inlined
def _position(to: Receipt, order: Row) -> int:
    # Of the position it makes.
    refused_by = 0
    if to.places[check.POSITION_QUANTITY] >= 0:
        outcome = of_portfolio.position_quantity(order, _limit(to, check.POSITION_QUANTITY))
        refused_by |= _judge(to, order, check.POSITION_QUANTITY, outcome)
    if to.places[check.POSITION_NOTIONAL] >= 0:
        outcome = of_portfolio.position_notional(order, _limit(to, check.POSITION_NOTIONAL))
        refused_by |= _judge(to, order, check.POSITION_NOTIONAL, outcome)
    if to.places[check.POSITION_WEIGHT] >= 0:
        outcome = of_portfolio.position_weight(order, _limit(to, check.POSITION_WEIGHT))
        refused_by |= _judge(to, order, check.POSITION_WEIGHT, outcome)
    if to.places[check.NOT_PROMOTED] >= 0:
        outcome = of_portfolio.not_promoted(order, _limit(to, check.NOT_PROMOTED))
        refused_by |= _judge(to, order, check.NOT_PROMOTED, outcome)
    if to.places[check.SHORT_LIMIT] >= 0:
        outcome = of_portfolio.short_limit(order, _limit(to, check.SHORT_LIMIT))
        refused_by |= _judge(to, order, check.SHORT_LIMIT, outcome)
    if to.places[check.LONG_ONLY] >= 0:
        outcome = of_portfolio.long_only(order, _limit(to, check.LONG_ONLY))
        refused_by |= _judge(to, order, check.LONG_ONLY, outcome)
    if to.places[check.SHORTABLE] >= 0:
        outcome = of_portfolio.shortable(order, _limit(to, check.SHORTABLE))
        refused_by |= _judge(to, order, check.SHORTABLE, outcome)
    return refused_by


@inlined
def _strategy(to: Receipt, order: Row) -> int:
    # Of the strategy.
    refused_by = 0
    if to.places[check.GROSS_EXPOSURE] >= 0:
        outcome = of_portfolio.gross_exposure(order, _limit(to, check.GROSS_EXPOSURE))
        refused_by |= _judge(to, order, check.GROSS_EXPOSURE, outcome)
    if to.places[check.NET_EXPOSURE] >= 0:
        outcome = of_portfolio.net_exposure(order, _limit(to, check.NET_EXPOSURE))
        refused_by |= _judge(to, order, check.NET_EXPOSURE, outcome)
    if to.places[check.LEVERAGE] >= 0:
        outcome = of_portfolio.leverage(order, _limit(to, check.LEVERAGE))
        refused_by |= _judge(to, order, check.LEVERAGE, outcome)
    if to.places[check.CONCENTRATION] >= 0:
        outcome = of_portfolio.concentration(order, _limit(to, check.CONCENTRATION))
        refused_by |= _judge(to, order, check.CONCENTRATION, outcome)
    if to.places[check.OPEN_POSITIONS] >= 0:
        outcome = of_portfolio.open_positions(order, _limit(to, check.OPEN_POSITIONS))
        refused_by |= _judge(to, order, check.OPEN_POSITIONS, outcome)
    if to.places[check.OPEN_ORDERS] >= 0:
        outcome = of_portfolio.open_orders(order, _limit(to, check.OPEN_ORDERS))
        refused_by |= _judge(to, order, check.OPEN_ORDERS, outcome)
    return refused_by


@inlined
def _book(to: Receipt, order: Row) -> int:
    # Of the book.
    refused_by = 0
    if to.places[check.BOOK_GROSS_EXPOSURE] >= 0:
        outcome = of_portfolio.book_gross_exposure(order, _limit(to, check.BOOK_GROSS_EXPOSURE))
        refused_by |= _judge(to, order, check.BOOK_GROSS_EXPOSURE, outcome)
    if to.places[check.BOOK_NET_EXPOSURE] >= 0:
        outcome = of_portfolio.book_net_exposure(order, _limit(to, check.BOOK_NET_EXPOSURE))
        refused_by |= _judge(to, order, check.BOOK_NET_EXPOSURE, outcome)
    if to.places[check.BOOK_LEVERAGE] >= 0:
        outcome = of_portfolio.book_leverage(order, _limit(to, check.BOOK_LEVERAGE))
        refused_by |= _judge(to, order, check.BOOK_LEVERAGE, outcome)
    if to.places[check.BOOK_CONCENTRATION] >= 0:
        outcome = of_portfolio.book_concentration(order, _limit(to, check.BOOK_CONCENTRATION))
        refused_by |= _judge(to, order, check.BOOK_CONCENTRATION, outcome)
    if to.places[check.BOOK_OPEN_POSITIONS] >= 0:
        outcome = of_portfolio.book_open_positions(order, _limit(to, check.BOOK_OPEN_POSITIONS))
        refused_by |= _judge(to, order, check.BOOK_OPEN_POSITIONS, outcome)
    if to.places[check.BOOK_OPEN_ORDERS] >= 0:
        outcome = of_portfolio.book_open_orders(order, _limit(to, check.BOOK_OPEN_ORDERS))
        refused_by |= _judge(to, order, check.BOOK_OPEN_ORDERS, outcome)
    return refused_by


@inlined
def _losses(to: Receipt, order: Row) -> int:
    # Of losses.
    refused_by = 0
    if to.places[check.DRAWDOWN] >= 0:
        outcome = of_portfolio.drawdown(order, _limit(to, check.DRAWDOWN))
        refused_by |= _judge(to, order, check.DRAWDOWN, outcome)
    if to.places[check.BOOK_DRAWDOWN] >= 0:
        outcome = of_portfolio.book_drawdown(order, _limit(to, check.BOOK_DRAWDOWN))
        refused_by |= _judge(to, order, check.BOOK_DRAWDOWN, outcome)
    if to.places[check.DAILY_LOSS] >= 0:
        outcome = of_portfolio.daily_loss(order, _limit(to, check.DAILY_LOSS))
        refused_by |= _judge(to, order, check.DAILY_LOSS, outcome)
    if to.places[check.BOOK_DAILY_LOSS] >= 0:
        outcome = of_portfolio.book_daily_loss(order, _limit(to, check.BOOK_DAILY_LOSS))
        refused_by |= _judge(to, order, check.BOOK_DAILY_LOSS, outcome)
    if to.places[check.CONSECUTIVE_LOSSES] >= 0:
        outcome = of_portfolio.consecutive_losses(order, _limit(to, check.CONSECUTIVE_LOSSES))
        refused_by |= _judge(to, order, check.CONSECUTIVE_LOSSES, outcome)
    if to.places[check.COOLDOWN] >= 0:
        outcome = of_portfolio.cooldown(order, _limit(to, check.COOLDOWN))
        refused_by |= _judge(to, order, check.COOLDOWN, outcome)
    if to.places[check.GIVE_BACK] >= 0:
        outcome = of_portfolio.give_back(order, _limit(to, check.GIVE_BACK))
        refused_by |= _judge(to, order, check.GIVE_BACK, outcome)
    return refused_by


@inlined
def _tail(to: Receipt, order: Row, base: Floats, moves: Floats) -> int:
    # Of the tail; scenarios are put in order once, for the two that read them.
    refused_by = 0
    if to.places[check.COVARIANCE_VALUE_AT_RISK] >= 0:
        outcome = of_tail.covariance_value_at_risk(
            order, _limit(to, check.COVARIANCE_VALUE_AT_RISK)
        )
        refused_by |= _judge(to, order, check.COVARIANCE_VALUE_AT_RISK, outcome)
    if to.places[check.COVARIANCE_EXPECTED_SHORTFALL] >= 0:
        outcome = of_tail.covariance_expected_shortfall(
            order, _limit(to, check.COVARIANCE_EXPECTED_SHORTFALL)
        )
        refused_by |= _judge(to, order, check.COVARIANCE_EXPECTED_SHORTFALL, outcome)
    if to.places[check.VOLATILITY] >= 0:
        outcome = of_tail.volatility(order, _limit(to, check.VOLATILITY))
        refused_by |= _judge(to, order, check.VOLATILITY, outcome)
    if to.places[check.CORRELATION] >= 0:
        outcome = of_tail.correlation(order, _limit(to, check.CORRELATION))
        refused_by |= _judge(to, order, check.CORRELATION, outcome)
    if to.places[check.VALUE_AT_RISK] >= 0 or to.places[check.EXPECTED_SHORTFALL] >= 0:
        of_tail.sort_scenarios(order, base, moves, order.quantity)
    if to.places[check.VALUE_AT_RISK] >= 0:
        outcome = of_tail.value_at_risk(order, _limit(to, check.VALUE_AT_RISK), base, moves)
        refused_by |= _judge(to, order, check.VALUE_AT_RISK, outcome)
    if to.places[check.EXPECTED_SHORTFALL] >= 0:
        outcome = of_tail.expected_shortfall(
            order, _limit(to, check.EXPECTED_SHORTFALL), base, moves
        )
        refused_by |= _judge(to, order, check.EXPECTED_SHORTFALL, outcome)
    return refused_by


@inlined_kernel
def review(
    order: Row,
    base: Floats,
    moves: Floats,
    places: Ints,
    limits: Floats,
    value: Floats,
    room: Floats,
    verdict: NDArray[np.int8],
) -> int:
    """Run every check of a chain on an order's facts; fill value, room and verdict of each.

    Parameters
    ----------
    order : `records.FACTS` of the order.
    base, moves : (W,) P&L of the projected book by scenario without the order, and of one unit of
        its symbol; the first `order.scenarios` count. Their order is lost.
    places : place in the chain of each check, by number; -1 where it is not in it.
    limits : (C,) by place.
    value, room, verdict : (C,) filled; room is never negative and never NaN.

    Returns
    -------
    0 when approved, otherwise a bit set of the checks (by place in the chain) that refused.
    """
    to = Receipt(places, limits, value, room, verdict)
    return (
        _order(to, order)
        | _market(to, order)
        | _pace(to, order)
        | _permission(to, order)
        | _position(to, order)
        | _strategy(to, order)
        | _book(to, order)
        | _losses(to, order)
        | _tail(to, order, base, moves)
    )
