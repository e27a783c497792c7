"""One order's facts for the risk chain: the account, the book and the tail, projected.

*Projected* means with every working target order filled. Input: the state of a run and a draft of
the order. Output: one `records.FACTS` row, and P&L by scenario for the checks of the tail.
"""

import math

from sysquant.compiled import part
from sysquant.execution import slippage
from sysquant.records import Row
from sysquant.sessions import session_left
from sysquant.state import TARGET, Book
from sysquant.tail import correlation, worst_count
from sysquant.types import SECOND

USES_TAIL, USES_CORRELATION, USES_SELF_MATCH = 1, 2, 4
_LIMITS = (1, 3)  # kinds of order with a limit price


@part
def _worst(order: Row, market: Row, terms: Row, quantity: float) -> float:
    # The price an order is reviewed at: its limit, or the last price (a stop's: its stop) slipped.
    if order.kind == 1 or order.kind == 3:
        return order.limit
    price = order.stop if order.kind == 2 else market.price
    return price * (1.0 + math.copysign(slippage(terms, market, quantity), quantity))


@part
def _cost(order: Row, instrument: Row, market: Row, terms: Row, quantity: float) -> float:
    # Cash that an order may take, book currency; negative for what a sale brings.
    price = _worst(order, market, terms, quantity)
    if order.kind != 1 and order.kind != 3:
        price = max(price + math.copysign(instrument.tick_size, quantity), instrument.tick_size)
    value = quantity * price * market.unit
    return value + abs(value) * instrument.taker


@part
def _fixed_cost(terms: Row) -> float:
    return max(terms.fee_fixed, terms.fee_minimum)


@part
def _strategy(book: Book, order: Row, strategy: int, symbol: int) -> None:
    # The strategy's other cells, and its cash after its other working orders.
    terms = book.terms[0]
    account = book.accounts[strategy]
    order.cash_others = account.cash
    order.shorts_others = 0.0
    order.gross_others = 0.0
    order.net_others = 0.0
    order.largest_others = 0.0
    order.positions_others = 0.0
    for other in range(len(book.market)):
        cell = book.cells[strategy, other]
        market = book.market[other]
        working = book.orders[strategy, other, TARGET]
        if working.order_no > 0:
            order.cash_others -= _fixed_cost(terms) + _cost(
                working, book.instruments[other], market, terms, working.left
            )
        projected = cell.quantity + cell.working
        if other == symbol or projected == 0.0:
            continue
        value = projected * market.price * market.unit
        if not value >= 0.0:
            order.shorts_others -= value
        order.gross_others += abs(value)
        order.net_others += value
        order.largest_others = max(order.largest_others, abs(value))
        order.positions_others += 1.0


@part
def _whole_book(book: Book, order: Row, symbol: int) -> None:
    # The same of all strategies together, symbols netted; and which symbols are exposed.
    gross = 0.0
    order.book_net_others = 0.0
    order.book_largest_others = 0.0
    order.book_positions_others = 0.0
    order.exposed = 0
    for other in range(len(book.market)):
        market = book.market[other]
        if market.gross == 0.0:
            continue
        gross += market.gross * market.price * market.unit
        value = market.committed * market.price * market.unit
        if value == 0.0:
            continue
        book.exposures[other] = value
        book.exposed[order.exposed] = other
        order.exposed += 1
        if other != symbol:
            order.book_net_others += value
            order.book_largest_others = max(order.book_largest_others, abs(value))
            order.book_positions_others += 1.0
    working = 0
    for account in book.accounts:
        working += account.open_orders
    order.book_open_orders = working
    others = gross - abs(order.held) * order.price * order.unit
    order.book_gross_others = 0.0 if others < 0.0 else others
    order.book_held = book.market[symbol].committed


@part
def _worst_of_one(book: Book, symbol: int, n: int, k: int, unit: float) -> int:
    # Scenarios of a book in one symbol: the k worst are among its k lowest and k highest returns.
    base, moves, tails = book.scenarios[0], book.scenarios[1], book.tails[symbol]
    exposure = book.exposures[symbol] if book.facts[0].exposed == 1 else 0.0
    count = min(n, 2 * k)
    for place in range(count):
        change = tails[0, place] if place < k else -tails[1, place - k]
        base[place] = exposure * change
        moves[place] = unit * change
    return count


@part
def _all_scenarios(book: Book, symbol: int, n: int, unit: float) -> int:
    # Scenarios of the whole book, the oldest first.
    base, moves, window = book.scenarios[0], book.scenarios[1], book.terms[0].window
    row = (book.clock[0].returns - n) % window
    for i in range(n):
        moves[i] = unit * book.returns[row, symbol]
        base[i] = _profit(book, row)
        row += 1
        if row == window:
            row = 0
    return n


@part
def _profit(book: Book, row: int) -> float:
    # Of the projected book without the order, in one risk bar of the past.
    total = 0.0
    for place in range(book.facts[0].exposed):
        other = book.exposed[place]
        total += book.exposures[other] * book.returns[row, other]
    return total


@part
def _tail(book: Book, order: Row, symbol: int) -> None:
    # P&L of the projected book by scenario, and its variance as a quadratic in the order's size.
    terms = book.terms[0]
    unit = order.price * order.unit
    known = book.market[symbol].returns
    for place in range(order.exposed):
        known = min(known, book.market[book.exposed[place]].returns)
    n = min(known, terms.window)
    if n < terms.min_history and terms.allow_short_history == 0:
        order.history = math.nan
        order.scenarios = math.nan
        order.variance_a = math.nan
        order.variance_b = math.nan
        order.variance_c = math.nan
        return
    order.history = n
    worst = worst_count(terms.confidence, n)
    order.worst_scenarios = worst
    if order.exposed == 0 or (order.exposed == 1 and book.exposed[0] == symbol):
        order.scenarios = _worst_of_one(book, symbol, n, worst, unit)
    else:
        order.scenarios = _all_scenarios(book, symbol, n, unit)
    a = 0.0
    b = 0.0
    for one in range(order.exposed):
        left = book.exposed[one]
        b += book.exposures[left] * book.covariance[left, symbol]
        for two in range(order.exposed):
            right = book.exposed[two]
            a += book.exposures[left] * book.exposures[right] * book.covariance[left, right]
    scale = 1.0 / book.clock[0].covariance_weight if n > 0 else 0.0
    order.variance_a = a * scale
    order.variance_b = b * unit * scale
    order.variance_c = unit * unit * book.covariance[symbol, symbol] * scale


@part
def _is_all(book: Book, strategy: int) -> bool:
    # Whether nobody else in the book has a position or an order.
    for symbol in range(len(book.market)):
        cell = book.cells[strategy, symbol]
        if book.market[symbol].committed != cell.quantity + cell.working:
            return False
    return True


@part
def _correlation(book: Book, order: Row, strategy: int, symbol: int) -> float:
    # Of the strategy's projected P&L with that of the rest of the book.
    if math.isnan(order.history):
        return math.nan
    if _is_all(book, strategy):
        return 0.0
    window = book.terms[0].window
    n = int(order.history)
    own, rest = book.scenarios[2], book.scenarios[3]
    row = (book.clock[0].returns - n) % window
    for i in range(n):
        change = order.quantity * order.price * order.unit * book.returns[row, symbol]
        total = change
        for other in range(len(book.market)):
            cell = book.cells[strategy, other]
            market = book.market[other]
            projected = cell.quantity + cell.working
            if projected != 0.0:
                total += projected * market.price * market.unit * book.returns[row, other]
        own[i] = total
        rest[i] = _profit(book, row) + change - total
        row += 1
        if row == window:
            row = 0
    return correlation(own, rest, n)


@part
def _meets(draft: Row, other: Row) -> bool:
    # Whether a working order of another strategy would trade with this one.
    if draft.quantity * other.left >= 0.0:
        return False
    if draft.kind != 1 or other.kind != 1:
        return True
    return (draft.limit - other.limit) * draft.quantity >= 0.0


@part
def _opposite(book: Book, draft: Row, strategy: int, symbol: int) -> float:
    count = 0
    market = book.market[symbol]
    for place in range(market.active):
        other = book.active[symbol, place]
        order = book.orders[other, symbol, TARGET]
        if other != strategy and order.order_no > 0 and _meets(draft, order):
            count += 1
    return count


@part
def _pace(book: Book, order: Row, strategy: int, symbol: int, ts: int, leg: bool) -> None:
    # How often the strategy has ordered, and how long ago the same.
    account = book.accounts[strategy]
    cell = book.cells[strategy, symbol]
    ring = book.rates[strategy]
    room = len(ring)
    while account.rate_second < account.rate_head and (
        ring[account.rate_second % room] <= ts - SECOND
    ):
        account.rate_second += 1
    while account.rate_minute < account.rate_head and (
        ring[account.rate_minute % room] <= ts - 60 * SECOND
    ):
        account.rate_minute += 1
    order.orders_second = account.rate_head - account.rate_second
    order.orders_minute = account.rate_head - account.rate_minute
    order.entries = cell.entries
    order.disabled = account.disabled
    order.since_duplicate_s = math.inf
    if not leg and cell.last_order_ts > 0 and cell.last_quantity == order.quantity:
        order.since_duplicate_s = (ts - cell.last_order_ts) / SECOND
    order.since_stop_s = math.inf
    if account.stopped_ts > 0:
        order.since_stop_s = (ts - account.stopped_ts) / SECOND


@part
def gather(book: Book, strategy: int, symbol: int, ts: int, leg: bool) -> None:
    """Fill `book.facts` and `book.scenarios` for the order in `book.draft`.

    Parameters
    ----------
    ts : of the decision, ns.
    leg : whether it is a leg of a bracket: those never count as duplicates.
    """
    terms = book.terms[0]
    order = book.facts[0]
    draft = book.draft[0]
    account = book.accounts[strategy]
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    instrument = book.instruments[symbol]
    clock = book.clock[0]
    quantity = draft.quantity
    order.quantity = quantity
    order.side = 1 if quantity > 0.0 else -1
    order.held = cell.quantity + cell.working
    order.reduces = 1 if order.held * quantity < 0.0 and abs(quantity) <= abs(order.held) else 0
    order.unit = market.unit
    order.price = market.price
    order.worst = _worst(draft, market, terms, quantity)
    order.reference = market.reference if market.bars > 0 else math.nan
    order.previous = market.previous if market.previous > 0.0 else market.price
    order.stale_s = (ts - market.ts) / SECOND + clock.feed_lag_s
    order.feed_lag_s = clock.feed_lag_s
    order.min_notional = instrument.min_notional
    order.max_position = instrument.max_position
    order.shortable = instrument.shortable
    order.restricted = instrument.restricted
    order.quality = instrument.quality
    order.session_left_s = session_left(book.sessions, instrument, market, ts)
    order.state = max(clock.state, min(cell.state, 2), 2 * market.halted)
    order.allocation = account.allocation
    order.stake = account.stake
    order.equity = account.equity
    order.peak = account.peak
    order.unit_cost = _cost(draft, instrument, market, terms, quantity) / abs(quantity)
    order.fixed_cost = _fixed_cost(terms)
    order.book_equity = clock.equity
    order.book_peak = clock.peak
    order.open_orders = account.open_orders
    order.day_equity = account.day_equity
    order.book_day_equity = clock.day_equity
    order.losses = account.losses
    order.bars = market.bars
    order.promoted = account.promoted
    order.z_var = terms.z_var
    order.z_es = terms.z_es
    order.risk_bars_per_year = terms.risk_bars_per_year
    order.opposite_orders = 0.0
    order.correlation = 0.0
    _strategy(book, order, strategy, symbol)
    _whole_book(book, order, symbol)
    _pace(book, order, strategy, symbol, ts, leg)
    if terms.checks & USES_TAIL:
        _tail(book, order, symbol)
        if terms.checks & USES_CORRELATION:
            order.correlation = _correlation(book, order, strategy, symbol)
    if terms.checks & USES_SELF_MATCH:
        order.opposite_orders = _opposite(book, draft, strategy, symbol)
