"""Exits: stop loss, trailing stop, take profit, longest holding, drawdown; by rule or by bracket.

Input: the state of a run after an event of a symbol was marked. Output: closed sides and waiting
proposals (the rule), or orders at the broker (the bracket). Rules: `docs/engine.md`, section 6.
"""

import math

from sysquant import broker, state
from sysquant.compiled import part
from sysquant.records import Row
from sysquant.state import LIMIT_LEG, STOP_LEG, Book, Out


@part
def watch(cell: Row, rules: Row) -> None:
    """Set the levels at which the cell's exits act; none without a position or by bracket."""
    cell.exit_low = -math.inf
    cell.exit_high = math.inf
    if cell.quantity == 0.0 or rules.bracket == 1:
        return
    side = math.copysign(1.0, cell.quantity)
    stop = cell.entry * (1.0 - side * rules.stop_loss)
    trailing = cell.best * (1.0 - side * rules.trailing_stop)
    profit = cell.entry * (1.0 + side * rules.take_profit)
    if side > 0.0:
        cell.exit_low = max(stop, trailing)
        cell.exit_high = profit
    else:
        cell.exit_high = min(stop, trailing)
        cell.exit_low = profit


@part
def close_side(
    book: Book, strategy: int, symbol: int, ts: int, purpose: int, held: float
) -> None:  # fmt: skip
    """An exit fired: the side of `held` stays closed, and what is left of it is to go."""
    cell = book.cells[strategy, symbol]
    cell.closed_side = 1 if held > 0.0 else -1
    cell.closed_bar = book.market[symbol].bars
    cell.purpose = purpose
    cell.changed = 1
    cell.pending = 1
    cell.exiting = 1
    cell.refused = 0
    cell.slices = 0
    cell.follow = 0
    if purpose == state.STOP_LOSS or purpose == state.TRAILING:
        book.accounts[strategy].stopped_ts = ts


@part
def reopen(cell: Row, market: Row, rules: Row) -> None:
    """Reopen a side that an exit closed, when the target or time allows."""
    if cell.closed_side == 0:
        return
    closed_bars = market.bars - cell.closed_bar
    if cell.target * cell.closed_side <= 0.0 or 0 < rules.rearm_bars <= closed_bars:
        cell.closed_side = 0


@part
def _fired(
    book: Book, strategy: int, symbol: int, low: float, high: float, close: float, ts: int,
) -> int:  # fmt: skip
    # The rule that fires on this event, -1 for none; moves the best price.
    cell = book.cells[strategy, symbol]
    rules = book.rules[strategy]
    side = math.copysign(1.0, cell.quantity)
    worse, better = (low, high) if side > 0.0 else (high, low)
    stop = cell.entry * (1.0 - side * rules.stop_loss)
    trailing = cell.best * (1.0 - side * rules.trailing_stop)
    profit = cell.entry * (1.0 + side * rules.take_profit)
    stopped = (stop - worse) * side >= 0.0
    trailed = (trailing - worse) * side >= 0.0
    gained = (better - profit) * side >= 0.0
    if (stopped or trailed) and gained and low < high:
        book.clock[0].ambiguous += 1
    if (better - cell.best) * side > 0.0:
        cell.best = better
        raised = better * (1.0 - side * rules.trailing_stop)
        if not (stopped or trailed or gained) and (raised - close) * side >= 0.0:
            trailed = True
            if low < high:
                book.clock[0].ambiguous += 1
    if stopped:
        return state.STOP_LOSS
    if trailed:
        return state.TRAILING
    if gained:
        return state.TAKE_PROFIT
    if ts - cell.opened_ts >= rules.max_hold_ns:
        return state.MAX_HOLD
    return -1


@part
def check_exits(
    book: Book, strategy: int, symbol: int, low: float, high: float, close: float, ts: int
) -> None:
    """Fire the exit rule of a cell that the event reached; positions that grew on it wait."""
    cell = book.cells[strategy, symbol]
    rules = book.rules[strategy]
    if cell.quantity == 0.0 or cell.grown_event == book.clock[0].events:
        return
    if cell.closed_side * cell.quantity > 0.0:
        return
    fired = -1
    if rules.bracket == 0:
        fired = _fired(book, strategy, symbol, low, high, close, ts)
        watch(cell, rules)
    elif ts - cell.opened_ts >= rules.max_hold_ns:
        fired = state.MAX_HOLD
    if fired >= 0:
        close_side(book, strategy, symbol, ts, fired, cell.quantity)


@part
def check_drawdown(book: Book, strategy: int, ts: int) -> None:
    """Close every position of a strategy that fell too far below its exit peak."""
    account = book.accounts[strategy]
    if 1.0 - account.equity / account.exit_peak < book.rules[strategy].flatten_drawdown:
        return
    held = False
    for symbol in range(len(book.market)):
        quantity = book.cells[strategy, symbol].quantity
        if quantity != 0.0:
            held = True
            close_side(book, strategy, symbol, ts, state.DRAWDOWN, quantity)
    if held:
        account.exit_peak = account.equity


@part
def grew(book: Book, strategy: int, symbol: int) -> bool:
    """Whether a position with a bracket opened, turned or grew on this event."""
    cell = book.cells[strategy, symbol]
    if book.rules[strategy].bracket == 0 or cell.quantity == 0.0:
        return False
    return cell.grown_event == book.clock[0].events


@part
def end_bracket(book: Book, out: Out, strategy: int, symbol: int, ts: int) -> None:
    """Old legs make room for new ones."""
    for slot in (STOP_LEG, LIMIT_LEG):
        if book.orders[strategy, symbol, slot].order_no > 0:
            broker.end_order(book, out, strategy, symbol, slot, ts, broker.REPLACED)


@part
def leg(book: Book, strategy: int, symbol: int, slot: int) -> tuple[float, int]:
    """Quantity of a leg of the bracket, 0 for none, and its purpose."""
    rules = book.rules[strategy]
    quantity = -book.cells[strategy, symbol].quantity
    if slot == LIMIT_LEG:
        return (quantity if rules.take_profit < math.inf else 0.0), state.TAKE_PROFIT
    if rules.stop_loss < math.inf:
        return quantity, state.STOP_LOSS
    return (quantity if rules.trailing_stop < math.inf else 0.0), state.TRAILING
