"""The checks of the risk chain by name and number, and the one switch that runs them.

A check is a compiled function of an order's facts and its limit; historical ones see scenarios too.
Numbers keep every chain the same compiled function. A new check is a function in the module of its
theme, and here a name, its number and a line of the switch.
"""

from typing import NamedTuple

from sysquant.checks import order as of_order
from sysquant.checks import portfolio as of_portfolio
from sysquant.checks import tail as of_tail
from sysquant.checks.outcome import Outcome
from sysquant.compiled import inlined
from sysquant.records import Row
from sysquant.types import Floats

_NAMES = (  # by number: the order, its pace, its position, the strategy, the book, losses, the tail
    "order_quantity", "order_notional", "order_size", "min_notional", "price_collar",
    "reference_collar", "stale_price", "feed_lag", "tick_jump", "cash",
    "order_rate_second", "order_rate_minute", "repeated_order", "duplicate_order", "self_match",
    "warm_up", "trading_window", "restricted", "state",
    "position_quantity", "position_notional", "position_weight", "not_promoted", "short_limit",
    "long_only", "shortable",
    "gross_exposure", "net_exposure", "leverage", "concentration", "open_positions",
    "open_orders",
    "book_gross_exposure", "book_net_exposure", "book_leverage", "book_concentration",
    "book_open_positions", "book_open_orders",
    "drawdown", "book_drawdown", "daily_loss", "book_daily_loss", "consecutive_losses",
    "cooldown", "give_back",
    "covariance_value_at_risk", "covariance_expected_shortfall", "volatility", "correlation",
    "value_at_risk", "expected_shortfall",
)  # fmt: skip
(
    ORDER_QUANTITY, ORDER_NOTIONAL, ORDER_SIZE, MIN_NOTIONAL, PRICE_COLLAR, REFERENCE_COLLAR,
    STALE_PRICE, FEED_LAG, TICK_JUMP, CASH,
    ORDER_RATE_SECOND, ORDER_RATE_MINUTE, REPEATED_ORDER, DUPLICATE_ORDER, SELF_MATCH, WARM_UP,
    TRADING_WINDOW, RESTRICTED, STATE,
    POSITION_QUANTITY, POSITION_NOTIONAL, POSITION_WEIGHT, NOT_PROMOTED, SHORT_LIMIT, LONG_ONLY,
    SHORTABLE,
    GROSS_EXPOSURE, NET_EXPOSURE, LEVERAGE, CONCENTRATION, OPEN_POSITIONS, OPEN_ORDERS,
    BOOK_GROSS_EXPOSURE, BOOK_NET_EXPOSURE, BOOK_LEVERAGE, BOOK_CONCENTRATION,
    BOOK_OPEN_POSITIONS, BOOK_OPEN_ORDERS,
    DRAWDOWN, BOOK_DRAWDOWN, DAILY_LOSS, BOOK_DAILY_LOSS, CONSECUTIVE_LOSSES, COOLDOWN,
    GIVE_BACK,
    COVARIANCE_VALUE_AT_RISK, COVARIANCE_EXPECTED_SHORTFALL, VOLATILITY, CORRELATION,
    VALUE_AT_RISK, EXPECTED_SHORTFALL,
) = range(len(_NAMES))  # fmt: skip
_LEAST = {
    "min_notional", "cash", "duplicate_order", "warm_up", "trading_window", "long_only",
    "shortable", "cooldown",
}  # fmt: skip
_NEVER_EXEMPT = {
    "order_quantity", "order_notional", "price_collar", "stale_price", "feed_lag",
    "duplicate_order", "self_match",
}  # fmt: skip


class Check(NamedTuple):
    """What there is to know of a check besides its limit.

    Parameters
    ----------
    number : its place in the switch.
    most : whether its limit is the most that passes, not the least.
    exempt : whether an order that truly reduces a position may fail it.
    """

    number: int
    most: bool
    exempt: bool


CHECKS = {
    name: Check(number, most=name not in _LEAST, exempt=name not in _NEVER_EXEMPT)
    for number, name in enumerate(_NAMES)
}


@inlined
def _check_order(number: int, order: Row, limit: float) -> Outcome:
    if number == ORDER_QUANTITY:
        return of_order.order_quantity(order, limit)
    if number == ORDER_NOTIONAL:
        return of_order.order_notional(order, limit)
    if number == ORDER_SIZE:
        return of_order.order_size(order, limit)
    if number == MIN_NOTIONAL:
        return of_order.min_notional(order, limit)
    if number == PRICE_COLLAR:
        return of_order.price_collar(order, limit)
    if number == REFERENCE_COLLAR:
        return of_order.reference_collar(order, limit)
    if number == STALE_PRICE:
        return of_order.stale_price(order, limit)
    if number == FEED_LAG:
        return of_order.feed_lag(order, limit)
    if number == TICK_JUMP:
        return of_order.tick_jump(order, limit)
    return of_order.cash(order, limit)


@inlined
def _check_pace(number: int, order: Row, limit: float) -> Outcome:
    if number == ORDER_RATE_SECOND:
        return of_order.order_rate_second(order, limit)
    if number == ORDER_RATE_MINUTE:
        return of_order.order_rate_minute(order, limit)
    if number == REPEATED_ORDER:
        return of_order.repeated_order(order, limit)
    if number == DUPLICATE_ORDER:
        return of_order.duplicate_order(order, limit)
    if number == SELF_MATCH:
        return of_order.self_match(order, limit)
    if number == WARM_UP:
        return of_order.warm_up(order, limit)
    if number == TRADING_WINDOW:
        return of_order.trading_window(order, limit)
    if number == RESTRICTED:
        return of_order.restricted(order, limit)
    return of_order.state(order, limit)


@inlined
def _check_position(number: int, order: Row, limit: float) -> Outcome:
    if number == POSITION_QUANTITY:
        return of_portfolio.position_quantity(order, limit)
    if number == POSITION_NOTIONAL:
        return of_portfolio.position_notional(order, limit)
    if number == POSITION_WEIGHT:
        return of_portfolio.position_weight(order, limit)
    if number == NOT_PROMOTED:
        return of_portfolio.not_promoted(order, limit)
    if number == SHORT_LIMIT:
        return of_portfolio.short_limit(order, limit)
    if number == LONG_ONLY:
        return of_portfolio.long_only(order, limit)
    return of_portfolio.shortable(order, limit)


@inlined
def _check_strategy(number: int, order: Row, limit: float) -> Outcome:
    if number == GROSS_EXPOSURE:
        return of_portfolio.gross_exposure(order, limit)
    if number == NET_EXPOSURE:
        return of_portfolio.net_exposure(order, limit)
    if number == LEVERAGE:
        return of_portfolio.leverage(order, limit)
    if number == CONCENTRATION:
        return of_portfolio.concentration(order, limit)
    if number == OPEN_POSITIONS:
        return of_portfolio.open_positions(order, limit)
    return of_portfolio.open_orders(order, limit)


@inlined
def _check_book(number: int, order: Row, limit: float) -> Outcome:
    if number == BOOK_GROSS_EXPOSURE:
        return of_portfolio.book_gross_exposure(order, limit)
    if number == BOOK_NET_EXPOSURE:
        return of_portfolio.book_net_exposure(order, limit)
    if number == BOOK_LEVERAGE:
        return of_portfolio.book_leverage(order, limit)
    if number == BOOK_CONCENTRATION:
        return of_portfolio.book_concentration(order, limit)
    if number == BOOK_OPEN_POSITIONS:
        return of_portfolio.book_open_positions(order, limit)
    return of_portfolio.book_open_orders(order, limit)


@inlined
def _check_losses(number: int, order: Row, limit: float) -> Outcome:
    if number == DRAWDOWN:
        return of_portfolio.drawdown(order, limit)
    if number == BOOK_DRAWDOWN:
        return of_portfolio.book_drawdown(order, limit)
    if number == DAILY_LOSS:
        return of_portfolio.daily_loss(order, limit)
    if number == BOOK_DAILY_LOSS:
        return of_portfolio.book_daily_loss(order, limit)
    if number == CONSECUTIVE_LOSSES:
        return of_portfolio.consecutive_losses(order, limit)
    if number == COOLDOWN:
        return of_portfolio.cooldown(order, limit)
    return of_portfolio.give_back(order, limit)


@inlined
def _check_tail(number: int, order: Row, limit: float) -> Outcome:
    if number == COVARIANCE_VALUE_AT_RISK:
        return of_tail.covariance_value_at_risk(order, limit)
    if number == COVARIANCE_EXPECTED_SHORTFALL:
        return of_tail.covariance_expected_shortfall(order, limit)
    if number == VOLATILITY:
        return of_tail.volatility(order, limit)
    return of_tail.correlation(order, limit)


@inlined
def run_check(number: int, order: Row, limit: float) -> Outcome:
    """Value, whether it passes, and room of a check that reads facts alone."""
    if number <= CASH:
        return _check_order(number, order, limit)
    if number <= STATE:
        return _check_pace(number, order, limit)
    if number <= SHORTABLE:
        return _check_position(number, order, limit)
    if number <= OPEN_ORDERS:
        return _check_strategy(number, order, limit)
    if number <= BOOK_OPEN_ORDERS:
        return _check_book(number, order, limit)
    if number <= GIVE_BACK:
        return _check_losses(number, order, limit)
    return _check_tail(number, order, limit)


@inlined
def run_historical(number: int, order: Row, limit: float, base: Floats, moves: Floats) -> Outcome:
    """The same of a check that reads scenarios, sorted for the order (`sort_scenarios`)."""
    if number == VALUE_AT_RISK:
        return of_tail.value_at_risk(order, limit, base, moves)
    return of_tail.expected_shortfall(order, limit, base, moves)
