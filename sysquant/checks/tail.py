"""Checks of what the projected book may lose: by history, by covariance, and with whom it moves.

Input: `records.FACTS` of one order, a limit, and for the historical ones the P&L of every scenario
(see `tail.worst_first`: the worst ones stand first, for the order as it is). Output: see `outcome`.
Losses are fractions of the book's equity per risk bar.
"""

import math

from sysquant.checks.outcome import Outcome, at_most, share, up_to
from sysquant.compiled import inlined, part
from sysquant.records import Row
from sysquant.tail import largest_quantity, mean_loss, worst_first
from sysquant.types import Floats

_HALVINGS = 40


@inlined
def sort_scenarios(order: Row, base: Floats, moves: Floats, quantity: float) -> None:
    """Put the worst scenarios at a size of the order first, as the historical checks need them."""
    if 1.0 <= order.worst_scenarios <= order.scenarios <= len(base):
        worst_first(base, moves, int(order.scenarios), int(order.worst_scenarios), quantity)


@inlined
def _loss_at(order: Row, base: Floats, moves: Floats, is_mean: bool, quantity: float) -> float:
    # Loss in the k-th worst of the sorted scenarios, or the mean of all k, a fraction of equity.
    if order.scenarios == 0.0:
        return share(0.0, order.book_equity)
    if not 1.0 <= order.worst_scenarios <= order.scenarios <= len(base):
        return math.nan
    worst = int(order.worst_scenarios)
    first = 0 if is_mean else worst - 1
    return share(mean_loss(base, moves, first, worst, quantity), order.book_equity)


@part
def _halve(order: Row, limit: float, base: Floats, moves: Floats, is_mean: bool) -> float:
    # The largest smaller size that passes, by halvings; scenarios end sorted for the order again.
    low, high = 0.0, abs(order.quantity)
    for _ in range(_HALVINGS):
        size = 0.5 * (low + high)
        quantity = order.side * size
        sort_scenarios(order, base, moves, quantity)
        if _loss_at(order, base, moves, is_mean, quantity) <= limit:
            low = size
        else:
            high = size
    sort_scenarios(order, base, moves, order.quantity)
    return low


@inlined
def _by_history(order: Row, limit: float, base: Floats, moves: Floats, is_mean: bool) -> Outcome:
    value = _loss_at(order, base, moves, is_mean, order.quantity)
    size = abs(order.quantity)
    if value <= limit:
        return value, True, size if size >= 0.0 else 0.0  # NaN too
    if math.isnan(value) or not limit >= 0.0:
        return value, False, 0.0
    return value, False, _halve(order, limit, base, moves, is_mean)


@inlined
def value_at_risk(order: Row, limit: float, base: Floats, moves: Floats) -> Outcome:
    """Loss of the projected book in the k-th worst scenario, a fraction of equity; at most."""
    return _by_history(order, limit, base, moves, False)


@inlined
def expected_shortfall(order: Row, limit: float, base: Floats, moves: Floats) -> Outcome:
    """Mean loss of the projected book in the k worst scenarios, a fraction of equity; at most."""
    return _by_history(order, limit, base, moves, True)


@inlined
def _by_covariance(order: Row, limit: float, scale: float) -> Outcome:
    # `scale` standard deviations of the projected book's P&L.
    quantity = order.quantity
    a, b, c = order.variance_a, order.variance_b, order.variance_c
    variance = a + quantity * (2.0 * b + quantity * c)
    sigma = 0.0 if variance < 0.0 else math.sqrt(variance)
    value = share(scale * sigma, order.book_equity)
    if not (limit >= 0.0 and order.book_equity > 0.0):
        return up_to(value, limit, 0.0)
    most = limit * order.book_equity / scale
    return up_to(value, limit, largest_quantity(a, order.side * b, c, most * most))


@inlined
def covariance_value_at_risk(order: Row, limit: float) -> Outcome:
    """Loss of the projected book at a normal quantile, a fraction of equity; at most."""
    return _by_covariance(order, limit, order.z_var)


@inlined
def covariance_expected_shortfall(order: Row, limit: float) -> Outcome:
    """Mean loss of the projected book beyond a normal quantile, a fraction of equity; at most."""
    return _by_covariance(order, limit, order.z_es)


@inlined
def volatility(order: Row, limit: float) -> Outcome:
    """Volatility of the projected book per year, a fraction of equity; at most."""
    return _by_covariance(order, limit, math.sqrt(order.risk_bars_per_year))


@inlined
def correlation(order: Row, limit: float) -> Outcome:
    """Correlation of the strategy's projected P&L with the rest of the book's; at most."""
    return at_most(order.correlation, limit)
