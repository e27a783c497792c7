"""The checks of the risk chain by name and number; `chain` runs them.

A check is a compiled function of an order's facts and its limit; historical ones see scenarios too.
Numbers keep every chain the same compiled function.
"""

from typing import NamedTuple

_NAMES = (  # by number: the order, its pace, its position, the strategy, the book, losses, the tail
    "order_quantity", "order_notional", "order_size", "min_notional", "price_collar",
    "reference_collar", "stale_price", "feed_lag", "tick_jump", "cash",
    "order_rate_second", "order_rate_minute", "repeated_order", "duplicate_order", "self_match",
    "warm_up", "trading_window", "restricted", "data_quality", "state",
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
    TRADING_WINDOW, RESTRICTED, DATA_QUALITY, STATE,
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
    "min_notional", "cash", "duplicate_order", "warm_up", "trading_window", "data_quality",
    "long_only", "shortable", "cooldown",
}  # fmt: skip
_NEVER_EXEMPT = {
    "order_quantity", "order_notional", "price_collar", "stale_price", "feed_lag",
    "duplicate_order", "self_match",
}  # fmt: skip


class Check(NamedTuple):
    """What there is to know of a check besides its limit.

    Parameters
    ----------
    number : its index in `RiskChain.places`.
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
