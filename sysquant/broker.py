"""The simulated broker: working orders meet the points of an event, fill, and end.

Input: the state of a run and one event of a symbol. Output: fills in the accounts, rows of
executions and order ends. Which points an order sees, and at which price it fills, is told in
`docs/engine.md`, section 3. Nothing is decided here.
"""

import math

from sysquant import portfolio
from sysquant.compiled import numbers, part
from sysquant.execution import fee_total, slippage, taker_price, uniform
from sysquant.records import Row
from sysquant.state import ENDS, EXECUTIONS, HALTED, LIMIT_LEG, STOP_LEG, TARGET, Book, Out
from sysquant.steps import cut_cash, cut_lots, cut_lots_down, tick_beyond

MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP = numbers(5)  # kinds of order
GTC, IOC, FOK, GTD = numbers(4)
FILLED, CANCELLED, EXPIRED, REJECTED, NOT_WHOLE_IOC, NOT_WHOLE_FOK, CROSSED = numbers(7)
NOTHING_TO_REDUCE, OTHER_LEG, REPLACED, NOT_ALL_LEGS = numbers(7, 11)
TAKER, MAKER = numbers(2)  # whether a fill brought liquidity
_GOES_ON = numbers(-1, 0)[0]
OPEN, FIRST_EXTREME, SECOND_EXTREME, CLOSE = numbers(4)
_REJECT_DRAW = 2


@part
def end_order(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, ts: int, reason: int
) -> None:
    """Take an order off the broker, with a row that says why."""
    order = book.orders[strategy, symbol, slot]
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    row = out.ends[out.counts[ENDS]]
    out.counts[ENDS] += 1
    row.ts = ts
    row.strategy = strategy
    row.order_no = order.order_no
    row.symbol = symbol
    row.reason = reason
    row.filled = cut_lots(order.quantity - order.left, book.instruments[symbol])
    row.remainder = order.left
    market.orders -= 1
    order.order_no = 0
    if slot != TARGET:
        return
    portfolio.commit(market, cell, cell.quantity, 0.0, book.instruments[symbol])
    book.accounts[strategy].open_orders -= 1
    if reason in (REJECTED, NOT_ALL_LEGS) and order.target == cell.target:
        cell.refused = 1
        cell.refused_target = cell.target
        cell.refused_bar = market.bars
        cell.slices = 0
    elif reason == EXPIRED and order.then == 1 and order.left != 0.0 and cell.changed == 0:
        cell.follow = int(book.clock[0].state != HALTED)


@part
def _lost(account: Row, realised: float) -> None:
    # Counts losing fills in a row.
    if realised < 0.0:
        account.losses += 1
    elif realised > 0.0:
        account.losses = 0


@part
def _track(cell: Row, held: float, price: float, ts: int, event: int) -> None:
    # When a position opens, turns or grows: what exits are measured from.
    after = cell.quantity
    if after == 0.0:
        cell.best = 0.0
    elif held * after <= 0.0:
        cell.opened_ts = ts
        cell.best = price
        cell.grown_event = event
    elif abs(after) > abs(held):
        cell.grown_event = event


@part
def _fill(
    book: Book, out: Out, strategy: int, symbol: int, slot: int,
    quantity: float, price: float, reference: float, maker: int, ts: int,
) -> None:  # fmt: skip
    order = book.orders[strategy, symbol, slot]
    account = book.accounts[strategy]
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    instrument = book.instruments[symbol]
    held = cell.quantity
    realised = portfolio.book_fill(account, cell, quantity, price, market.unit)
    order.left = cut_lots(order.left - quantity, instrument)
    order.fills += 1
    order.budget = cut_lots(order.budget - abs(quantity), instrument)
    value = abs(quantity) * price * market.unit
    order.rate_value += value * (instrument.maker if maker == 1 else instrument.taker)
    total = fee_total(book.terms[0], order.rate_value, value)
    fee = cut_cash(total - order.paid)
    order.paid += fee
    paid = quantity * (price - reference) * market.unit
    account.cash = cut_cash(account.cash - fee)
    cell.fees += fee
    cell.slippage += paid
    after = cut_lots(held + quantity, instrument)
    working = order.left if slot == TARGET else cell.working
    portfolio.commit(market, cell, after, working, instrument)
    _lost(account, realised)
    _track(cell, held, price, ts, book.clock[0].events)
    row = out.executions[out.counts[EXECUTIONS]]
    out.counts[EXECUTIONS] += 1
    row.ts = ts
    row.strategy = strategy
    row.order_no = order.order_no
    row.fill_no = order.fills
    row.symbol = symbol
    row.maker = maker
    row.quantity = quantity
    row.price = price
    row.reference = reference
    row.slippage = paid
    row.fee = fee
    row.realised_pnl = realised


@part
def _size(order: Row, most: float, instrument: Row) -> float:
    # What of the order fits into `most` units, signed; 0 when less than a lot does.
    if most >= abs(order.left):
        return order.left
    return cut_lots_down(math.copysign(most, order.left), instrument)


@part
def _take(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, reference: float, ts: int
) -> None:
    # Against the market: at the reference, slipped, never worse than a limit.
    order = book.orders[strategy, symbol, slot]
    instrument = book.instruments[symbol]
    quantity = _size(order, order.budget, instrument)
    if quantity == 0.0:
        return
    side = math.copysign(1.0, quantity)
    slip = slippage(book.terms[0], book.market[symbol], quantity)
    price = taker_price(reference, side, slip, instrument)
    if order.kind == LIMIT or order.kind == STOP_LIMIT:
        price = min(price, order.limit) if side > 0.0 else max(price, order.limit)
    _fill(book, out, strategy, symbol, slot, quantity, price, reference, TAKER, ts)


@part
def _make(book: Book, out: Out, strategy: int, symbol: int, slot: int, x: float, ts: int) -> None:
    # A resting limit: traded through, or touched with a share of the queue.
    order = book.orders[strategy, symbol, slot]
    beyond = (order.limit - x) * order.left
    if beyond < 0.0:
        return
    most = order.budget if beyond > 0.0 else min(order.budget, order.touches)
    instrument = book.instruments[symbol]
    quantity = _size(order, most, instrument)
    if quantity == 0.0:
        return
    if beyond == 0.0:
        order.touches = cut_lots(order.touches - abs(quantity), instrument)
    _fill(book, out, strategy, symbol, slot, quantity, order.limit, order.limit, MAKER, ts)


@part
def _stop_price(order: Row, instrument: Row) -> float:
    # Of a trailing stop, from the best price so far.
    side = math.copysign(1.0, order.left)
    return tick_beyond(order.best * (1.0 + side * order.trail), side, instrument)


@part
def _triggers(book: Book, order: Row, symbol: int, point: int, x: float, bar: bool) -> float:
    # The price a stop triggers at, NaN when it does not; a trailing one follows the market.
    if order.kind == TRAILING_STOP and order.arrived == 0:
        order.best = x
        order.stop = _stop_price(order, book.instruments[symbol])
        return math.nan
    reached = (x - order.stop) * order.left >= 0.0
    if not reached:
        if order.kind == TRAILING_STOP and (x - order.best) * order.left < 0.0:
            order.best = x
            order.stop = _stop_price(order, book.instruments[symbol])
            order.raised = 1
        return math.nan
    if order.kind == TRAILING_STOP and order.raised == 1 and bar:
        book.clock[0].ambiguous += 1
    return order.stop if OPEN < point < CLOSE else x


@part
def _try(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, point: int, x: float,
    ts: int, bar: bool,
) -> int:  # fmt: skip
    # One order at one point; the reason it must end, or -1.
    order = book.orders[strategy, symbol, slot]
    reference = x
    first = order.arrived == 0
    if (order.kind >= STOP) and order.triggered == 0:
        reference = _triggers(book, order, symbol, point, x, bar)
        if math.isnan(reference):
            return _GOES_ON
        order.triggered = 1
        first = True
    if order.kind == MARKET or order.kind == STOP or order.kind == TRAILING_STOP:
        if order.tif == FOK and order.budget < abs(order.left):
            return NOT_WHOLE_FOK
        _take(book, out, strategy, symbol, slot, reference, ts)
    elif first:
        if (order.limit - reference) * order.left < 0.0:
            return NOT_WHOLE_FOK if order.tif == FOK else _GOES_ON
        if order.post_only == 1:
            return CROSSED
        if order.tif == FOK and order.budget < abs(order.left):
            return NOT_WHOLE_FOK
        _take(book, out, strategy, symbol, slot, reference, ts)
    else:
        _make(book, out, strategy, symbol, slot, x, ts)
    return _GOES_ON


@part
def _reduces(book: Book, strategy: int, symbol: int, slot: int) -> bool:
    # Cuts a reduce-only order to what it can still reduce; false when there is nothing.
    order = book.orders[strategy, symbol, slot]
    held = book.cells[strategy, symbol].quantity
    if held * order.left >= 0.0:
        return False
    if abs(order.left) > abs(held):
        order.quantity = cut_lots(order.quantity - order.left - held, book.instruments[symbol])
        order.left = -held
        if slot == TARGET:
            cell = book.cells[strategy, symbol]
            portfolio.commit(book.market[symbol], cell, held, -held, book.instruments[symbol])
    return True


@part
def _meet(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, point: int, x: float,
    ts: int, bar: bool,
) -> None:  # fmt: skip
    # An order that sees a point: arrives, fills, or ends.
    order = book.orders[strategy, symbol, slot]
    terms = book.terms[0]
    if order.arrived == 0 and terms.reject_probability > 0.0:
        key = book.accounts[strategy].key
        if uniform(terms.seed, key, order.order_no, _REJECT_DRAW) < terms.reject_probability:
            end_order(book, out, strategy, symbol, slot, ts, REJECTED)
            return
    if order.reduce_only == 1 and not _reduces(book, strategy, symbol, slot):
        end_order(book, out, strategy, symbol, slot, ts, NOTHING_TO_REDUCE)
        return
    reason = _try(book, out, strategy, symbol, slot, point, x, ts, bar)
    order.arrived = 1
    if order.left == 0.0:
        reason = FILLED
    elif reason < 0 and order.tif == IOC:
        reason = NOT_WHOLE_IOC
    if reason >= 0:
        end_order(book, out, strategy, symbol, slot, ts, reason)


@part
def _sees(order: Row, point: int, start: int, ts: int) -> bool:
    # Certainly at the broker at that point.
    if point == OPEN:
        return order.due <= start < order.end
    if point == CLOSE:
        return order.due <= ts < order.end
    return order.due <= start and ts < order.end


@part
def _both_legs(book: Book, strategy: int, symbol: int, start: int, ts: int,
               low: float, high: float) -> bool:  # fmt: skip
    # Whether one bar reaches both legs of a bracket.
    stop, limit = book.orders[strategy, symbol, STOP_LEG], book.orders[strategy, symbol, LIMIT_LEG]
    if stop.order_no == 0 or limit.order_no == 0:
        return False
    if not (_sees(stop, FIRST_EXTREME, start, ts) and _sees(limit, FIRST_EXTREME, start, ts)):
        return False
    return low <= min(stop.stop, limit.limit) and high >= max(stop.stop, limit.limit)


@part
def _legs_end(book: Book, out: Out, strategy: int, symbol: int, ts: int, held: float) -> None:
    # A bracket lives as long as the side it was placed for.
    after = book.cells[strategy, symbol].quantity
    if held * after > 0.0:
        return
    for slot in (STOP_LEG, LIMIT_LEG):
        if book.orders[strategy, symbol, slot].order_no > 0:
            end_order(book, out, strategy, symbol, slot, ts, OTHER_LEG)


@part
def _expire(book: Book, out: Out, strategy: int, symbol: int, slot: int, ts: int) -> None:
    # After the last point: what ran out, was cancelled, or does not carry over.
    order = book.orders[strategy, symbol, slot]
    if order.order_no == 0:
        return
    if order.end <= ts:
        end_order(book, out, strategy, symbol, slot, ts, order.end_reason)
    elif order.carry == 0 and order.fills > 0:
        end_order(book, out, strategy, symbol, slot, ts, EXPIRED)


@part
def _prepare(book: Book, strategy: int, symbol: int, volume: float, close: float) -> None:
    # What the orders of a cell may fill on this event.
    terms = book.terms[0]
    instrument = book.instruments[symbol]
    units = volume / close if instrument.quote_volume == 1 else volume
    budget = math.inf
    if terms.participation < math.inf:
        budget = cut_lots_down(terms.participation * units, instrument)
    touches = 0.0
    if terms.queue_share > 0.0:
        touches = cut_lots_down(terms.queue_share * units, instrument)
    for slot in range(3):
        order = book.orders[strategy, symbol, slot]
        order.budget = budget
        order.touches = touches
        order.raised = 0


@part
def _price_at(point: int, buys: bool, open_: float, high: float, low: float, close: float) -> float:
    # Buys see the high first, sales the low: the worse one.
    if point == OPEN:
        return open_
    if point == CLOSE:
        return close
    return high if buys == (point == FIRST_EXTREME) else low


@part
def meet_event(
    book: Book, out: Out, strategy: int, symbol: int, start: int, ts: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> int:  # fmt: skip
    """Let a strategy's orders in a symbol meet an event.

    Returns
    -------
    The bracket leg whose fill left the position flat (1 or 2), negative when it was short; else 0.
    """
    cell = book.cells[strategy, symbol]
    bar = start < ts
    _prepare(book, strategy, symbol, volume, close)
    if bar and _both_legs(book, strategy, symbol, start, ts, low, high):
        book.clock[0].ambiguous += 1
    flat_by = 0
    for point in range(OPEN if bar else CLOSE, CLOSE + 1):
        for slot in (STOP_LEG, LIMIT_LEG, TARGET):
            order = book.orders[strategy, symbol, slot]
            if order.order_no == 0 or not _sees(order, point, start, ts):
                continue
            x = _price_at(point, order.left > 0.0, open_, high, low, close)
            held = cell.quantity
            moment = start if point == OPEN else ts
            _meet(book, out, strategy, symbol, slot, point, x, moment, bar)
            if held != 0.0 and cell.quantity != held:
                _legs_end(book, out, strategy, symbol, moment, held)
                if cell.quantity == 0.0 and slot != TARGET:
                    flat_by = slot if held > 0.0 else -slot
    for slot in range(3):
        _expire(book, out, strategy, symbol, slot, ts)
    return flat_by
