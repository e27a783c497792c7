"""The oracle's risk chain: every check of section 4 of `docs/engine.md`, one line each.

A check is a function of the facts of one order and its limit; it returns its value and its room,
`None` for a room that is infinite if the check passes and 0 if not. Plain Python, no package code.
"""

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from tests.oracle_book import DAY, Account
from tests.oracle_facts import Facts
from tests.oracle_market import NAN, SECOND, Kind, Order, cut, divide, fraction

if TYPE_CHECKING:
    from tests.oracle import Oracle

REFUSE, PASS, EXEMPT = range(3)
STATES = {"active": 0, "reducing": 1, "off": 2, "paused": 2}  # of a cell, for the check
GRAIN = 1e-7  # of an account's money: fills and payments are each cut to 1e-8
ROUNDING = 2.0**-48  # of the terms of a sum: what is left of one that cancels may be this
Answer = tuple[float, float | None]


# -- the checks
def bounded(value: float, bound: float, f: Facts) -> Answer:
    return value, f.units_up_to(bound)


def seller(value: float, room: float, f: Facts) -> Answer:
    """A check that only sales can fail."""
    return value, None if f.s > 0 else room


def position_quantity(f: Facts, limit: float) -> Answer:
    most = f.rules.max_position
    if math.isinf(most):
        return bounded(abs(f.h + f.q), limit, f)
    return bounded(divide(abs(f.h + f.q), divide(most, limit)), most, f)


def short_limit(f: Facts, limit: float) -> Answer:
    others = sum(max(0.0, -n) for n in f.others)
    value = fraction(others + max(0.0, -f.n), f.E)
    room = (limit * f.E - others) / f.u + f.h if limit * f.E >= others else 0.0
    return seller(value, room, f)


def long_only(f: Facts, limit: float) -> Answer:
    return seller(min(0.0, f.h + f.q), f.h - limit, f)


def shortable(f: Facts, limit: float) -> Answer:
    return (0.0, None) if f.rules.shortable else long_only(f, limit)


def gross(f: Facts, limit: float) -> Answer:
    others = sum(map(abs, f.others))
    return bounded(others + abs(f.n), (limit - others) / f.u, f)


def net(f: Facts, limit: float) -> Answer:
    before = sum(f.others) + f.h * f.u
    return abs(sum(f.others) + f.n), limit / f.u - f.s * before / f.u


def leverage(f: Facts, limit: float) -> Answer:
    others = sum(map(abs, f.others))
    return bounded(fraction(others + abs(f.n), f.E), (limit * f.E - others) / f.u, f)


def concentration(f: Facts, limit: float) -> Answer:
    values = [*map(abs, f.others), abs(f.n)]
    return (max(values) / sum(values) if sum(values) else 0.0), None


def open_positions(f: Facts, limit: float) -> Answer:
    own = cut(f.h + f.q, f.rules.lot_size)
    return sum(1 for n in [*f.others, own] if n), None


def working(account: Account) -> int:
    return sum(1 for cell in account.cells if cell.orders[0])


def book_gross(f: Facts, limit: float) -> Answer:
    others = sum(map(abs, f.book_others))
    return bounded(others + abs(f.n), (limit - others) / f.u, f)


def book_net(f: Facts, limit: float) -> Answer:
    before = sum(f.exposures(0.0))
    return abs(before + f.q * f.u), limit / f.u - f.s * before / f.u


def book_leverage(f: Facts, limit: float) -> Answer:
    others = sum(map(abs, f.book_others))
    return bounded(fraction(others + abs(f.n), f.B), (limit * f.B - others) / f.u, f)


def book_concentration(f: Facts, limit: float) -> Answer:
    total = sum(map(abs, f.book_others)) + abs(f.n)
    return (max(map(abs, f.book_values)) / total if total else 0.0), None


def cash(f: Facts, limit: float) -> Answer:
    per_unit, fixed = f.cost(f.order, f.q)
    left = f.cash_others
    room = None if f.s < 0 else divide(left - limit - fixed, per_unit)
    return left - f.size * per_unit - fixed, room


def price_collar(f: Facts, limit: float) -> Answer:
    worst = (f.order.stop if f.order.kind == Kind.STOP else f.p) * (1 + f.s * f.slip)
    if f.order.kind in (Kind.LIMIT, Kind.STOP_LIMIT):
        worst = f.order.limit
    return abs(worst / f.p - 1), None


def fallen(now: float, before: float) -> float:
    return math.inf if before <= 0 else 1 - now / before


def give_back(f: Facts, limit: float) -> Answer:
    gained = f.account.peak - f.account.allocation
    f.slack["give_back"] = GRAIN / abs(gained) if gained else math.inf
    return ((f.account.peak - f.E) / gained if gained > 0 else 0.0), None


def losses(f: Facts, limit: float) -> Answer:
    if f.account.losses_in_doubt:
        f.slack["consecutive_losses"] = math.inf
    return f.account.losses, None


def historical(f: Facts, limit: float, shortfall: bool) -> Answer:
    value = f.historical(f.q, shortfall)
    if value <= limit:
        return value, f.size
    low, high = 0.0, f.size
    for _ in range(40):
        middle = (low + high) / 2
        if f.historical(f.s * middle, shortfall) <= limit:
            low = middle
        else:
            high = middle
    return value, low


def by_covariance(f: Facts, name: str, limit: float, factor: float) -> Answer:
    """`factor` x the standard deviation of the book's P&L, over B."""
    a, b, c = f.quadratic
    variance = a + 2 * b * f.q + c * f.q**2
    sigma = 0.0 if variance < 0 else math.sqrt(variance)
    value = fraction(factor * sigma, f.B)
    if not value < math.inf:
        return value, 0.0
    lost = ROUNDING * (abs(a) + 2 * abs(b * f.q) + c * f.q**2)
    f.slack[name] = factor * (math.sqrt(sigma**2 + lost) - sigma) / f.B
    top = (limit * f.B / factor) ** 2 if limit >= 0 else -1.0
    if c == 0:
        return value, (math.inf if a <= top else 0.0)
    b *= f.s
    root = b * b - c * (a - top)
    return value, (0.0 if root < 0 else (-b + math.sqrt(root)) / c)


def covariance_var(f: Facts, limit: float) -> Answer:
    quantile = NormalDist().inv_cdf(f.book.case.risk.confidence)
    return by_covariance(f, "covariance_var", limit, quantile)


def covariance_es(f: Facts, limit: float) -> Answer:
    normal, confidence = NormalDist(), f.book.case.risk.confidence
    mean = normal.pdf(normal.inv_cdf(confidence)) / (1 - confidence)
    return by_covariance(f, "covariance_expected_shortfall", limit, mean)


def volatility(f: Facts, limit: float) -> Answer:
    year = math.sqrt(365 * DAY / f.book.case.risk.risk_bar)
    return by_covariance(f, "volatility", limit, year)


def correlation(f: Facts, limit: float) -> Answer:
    if not f.rows:
        return (NAN if f.rows is None else 0.0), None
    mine, rest = ([0.0] * len(f.netted) for _ in range(2))
    for account in f.book.accounts:
        units = mine if account is f.account else rest
        for cell in account.cells:
            units[cell.symbol] += cell.projected + (f.q if cell is f.cell else 0.0)
    for units in (mine, rest):  # sums of whole lots
        lots = [cut(x, f.book.markets[y].rules.lot_size) for y, x in enumerate(units)]
        units[:] = [x * f.book.price(y) if x else 0.0 for y, x in enumerate(lots)]
    x, y = f.pnl(mine, f.rows), f.pnl(rest, f.rows)
    dx, dy = ([v - sum(z) / len(z) for v in z] for z in (x, y))
    scale = math.sqrt(sum(v * v for v in dx) * sum(v * v for v in dy))
    return (sum(a * b for a, b in zip(dx, dy, strict=True)) / scale if scale else 0.0), None


def order_rate(f: Facts, seconds: int) -> Answer:
    limits = [x for name, x in f.book.case.risk.checks if name.startswith("order_rate")]
    found = sum(1 for ts in f.account.approved_ts if ts > f.ts - seconds * SECOND)
    return 1 + min(found, math.floor(max(limits)) + 1 if limits else found), None


def self_match(f: Facts, limit: float) -> Answer:
    found = 0
    for account in f.book.accounts:
        other = account.cells[f.order.symbol].orders[0]
        if account is f.account or not other or other.side == f.s:
            continue
        both = f.order.kind == Kind.LIMIT and other.kind == Kind.LIMIT
        found += not both or f.s * (f.order.limit - other.limit) >= 0
    return found, None


def duplicate_order(f: Facts, limit: float) -> Answer:
    same = f.cell.last_quantity == f.q and f.order.slot == 0
    return ((f.ts - f.cell.last_order_ts) / 1e9 if same else math.inf), None


def session_left(f: Facts) -> float:
    """Seconds until the session of the instrument ends, -1 outside of one."""
    sessions = f.book.case.calendars.get(f.rules.calendar)
    if sessions is None:
        return math.inf
    return next((((b - f.ts) / 1e9) for a, b in sessions if a <= f.ts < b), -1.0)


def repeated_order(f: Facts, limit: float) -> Answer:
    return (math.inf if f.account.disabled else f.cell.entries + 1), None


def since_stop(f: Facts) -> float:
    at = f.account.stopped_ts
    return math.inf if at is None else (f.ts - at) / 1e9


# name -> value and room, whether the limit is the most, whether reducing orders are exempt
CHECKS = {
    "order_quantity": (lambda f, x: (f.size, x), True, False),
    "order_notional": (lambda f, x: (f.size * f.u, x / f.u), True, False),
    "order_size": (
        lambda f, x: (fraction(f.size * f.u, f.account.allocation), x * f.account.allocation / f.u),
        True,
        True,
    ),
    "min_notional": (lambda f, x: (f.size * f.u - f.rules.min_notional, None), False, True),
    "price_collar": (price_collar, True, False),
    "reference_collar": (
        lambda f, x: (abs(f.p / (f.market.reference or NAN) - 1), None), True, True
    ),
    "stale_price": (lambda f, x: ((f.ts - f.market.ts) / 1e9, None), True, False),
    "feed_lag": (lambda f, x: (0.0, None), True, False),
    "tick_jump": (lambda f, x: (abs(f.p / (f.market.previous or f.p) - 1), None), True, True),
    "cash": (cash, False, True),
    "position_quantity": (position_quantity, True, True),
    "position_notional": (lambda f, x: bounded(abs(f.n), x / f.u, f), True, True),
    "position_weight": (
        lambda f, x: bounded(fraction(abs(f.n), f.E), x * f.E / f.u, f), True, True
    ),
    "short_limit": (short_limit, True, True),
    "long_only": (long_only, False, True),
    "shortable": (shortable, False, True),
    "gross_exposure": (gross, True, True),
    "net_exposure": (net, True, True),
    "leverage": (leverage, True, True),
    "concentration": (concentration, True, True),
    "open_positions": (open_positions, True, True),
    "open_orders": (lambda f, x: (working(f.account) + 1, None), True, True),
    "book_gross_exposure": (book_gross, True, True),
    "book_net_exposure": (book_net, True, True),
    "book_leverage": (book_leverage, True, True),
    "book_concentration": (book_concentration, True, True),
    "book_open_positions": (lambda f, x: (sum(1 for n in f.book_values if n), None), True, True),
    "book_open_orders": (
        lambda f, x: (sum(map(working, f.book.accounts)) + 1, None), True, True
    ),
    "drawdown": (lambda f, x: (fallen(f.E, f.account.peak), None), True, True),
    "book_drawdown": (lambda f, x: (fallen(f.B, f.book.peak), None), True, True),
    "daily_loss": (lambda f, x: (fallen(f.E, f.account.day_equity), None), True, True),
    "book_daily_loss": (lambda f, x: (fallen(f.B, f.book.day_equity), None), True, True),
    "consecutive_losses": (losses, True, True),
    "cooldown": (lambda f, x: (since_stop(f), None), False, True),
    "give_back": (give_back, True, True),
    "value_at_risk": (lambda f, x: historical(f, x, False), True, True),
    "expected_shortfall": (lambda f, x: historical(f, x, True), True, True),
    "covariance_value_at_risk": (covariance_var, True, True),
    "covariance_expected_shortfall": (covariance_es, True, True),
    "volatility": (volatility, True, True),
    "correlation": (correlation, True, True),
    "order_rate_second": (lambda f, x: order_rate(f, 1), True, True),
    "order_rate_minute": (lambda f, x: order_rate(f, 60), True, True),
    "repeated_order": (repeated_order, True, True),
    "duplicate_order": (duplicate_order, False, False),
    "self_match": (self_match, True, False),
    "warm_up": (lambda f, x: (f.cell.bars, None), False, True),
    "not_promoted": (
        lambda f, x: bounded(
            0.0 if f.account.promoted else fraction(abs(f.n), f.E),
            math.inf if f.account.promoted else x * f.E / f.u,
            f,
        ),
        True,
        True,
    ),
    "trading_window": (lambda f, x: (session_left(f), None), False, True),
    "restricted": (lambda f, x: (int(f.rules.restricted), None), True, True),
    "data_quality": (lambda f, x: (f.rules.quality, None), False, True),
    "state": (
        lambda f, x: (max(f.book.state, STATES[f.cell.state], 2 * f.market.halted), None),
        True,
        True,
    ),
}  # fmt: skip


def review(book: "Oracle", account: Account, order: Order, ts: int) -> list[tuple]:
    """Every check of the chain on one order: (name, value, limit, verdict, room, slack)."""
    facts = Facts(book, account, order, ts)
    receipts = []
    for name, limit in book.case.risk.checks:
        check, is_most, may_exempt = CHECKS[name]
        value, room = check(facts, limit)
        passes = value <= limit if is_most else value >= limit
        verdict = PASS if passes else REFUSE
        if not passes and may_exempt and facts.reduces and not math.isnan(limit):
            verdict = EXEMPT
        if room is None:
            room = math.inf if passes else 0.0
        receipts.append((name, value, limit, verdict, max(0.0, room), facts.slack.get(name, 0.0)))
    return receipts
