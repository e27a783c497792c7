"""From a standing target to what is to be ordered: what is wanted, whether, how much at once.

Input: the state of a run, at a bar's close or at an event. Output: a quantity and its purpose, for
`placing.py`; cancels on their way. Rules: `docs/engine.md`, section 2.
"""

import math

from sysquant import broker
from sysquant.compiled import inlined, part
from sysquant.execution import cancel_latency
from sysquant.sizing import (
    is_surely_in_band,
    is_worth_it,
    notional,
    wanted_quantity,
    worst_unit_cost,
)
from sysquant.state import (
    FOLLOW_UP,
    OFF,
    PAUSED,
    REDUCING,
    SIGNAL,
    SLICE,
    SWITCHED_OFF,
    TARGET,
    Book,
    Out,
    enlist,
)  # fmt: skip
from sysquant.steps import cut_lots, cut_lots_down


@part
def wanted(book: Book, strategy: int, symbol: int) -> float:
    """Units that the standing target asks for now; NaN when that is unknown."""
    cell = book.cells[strategy, symbol]
    account = book.accounts[strategy]
    if cell.exiting == 1 or cell.state == SWITCHED_OFF or cell.closed_side * cell.target > 0.0:
        return 0.0
    if cell.state == PAUSED:
        return cell.quantity
    if cell.target == 0.0:
        return 0.0
    quantity = wanted_quantity(
        book.rules[strategy], book.terms[0], book.instruments[symbol], book.market[symbol],
        cell.target * account.scale, account.equity,
    )  # fmt: skip
    if cell.state == REDUCING or book.clock[0].state == REDUCING:
        if quantity * cell.quantity <= 0.0:
            return 0.0
        if abs(quantity) > abs(cell.quantity):
            return cell.quantity
    return quantity


@inlined
def is_settled(book: Book, strategy: int, symbol: int) -> bool:
    """Whether a position is surely inside the no-trade band of its standing target."""
    cell, account = book.cells[strategy, symbol], book.accounts[strategy]
    if cell.state | book.clock[0].state != 0 or not account.equity > 0.0:
        return False
    market, terms = book.market[symbol], book.terms[0]
    rules, instrument = book.rules[strategy], book.instruments[symbol]
    value = notional(rules, terms, market, cell.target * account.scale, account.equity)
    cost = worst_unit_cost(terms, instrument, market, value)
    return is_surely_in_band(value, cell.quantity, cost, rules, instrument)


@part
def _slice(book: Book, strategy: int, symbol: int, ts: int, quantity: float) -> float:
    # The next part of an order over time.
    cell = book.cells[strategy, symbol]
    if cell.slices > 1:
        quantity = cut_lots_down(quantity / cell.slices, book.instruments[symbol])
    cell.slices -= 1
    cell.next_slice = ts + book.rules[strategy].slice_ns
    enlist(book, strategy, symbol)
    return quantity


@part
def _first(book: Book, strategy: int, symbol: int, ts: int, goal: float) -> float:
    # What is wanted beyond what is held, whole or as the first of several slices.
    cell = book.cells[strategy, symbol]
    rules = book.rules[strategy]
    instrument = book.instruments[symbol]
    difference = cut_lots(goal - cell.quantity, instrument)
    if rules.slices == 1:
        return difference
    notional = abs(difference) * book.market[symbol].price * book.market[symbol].unit
    cell.slices = rules.slices
    if instrument.min_notional > 0.0:
        most = math.floor(min(notional / instrument.min_notional, 1e9))
        cell.slices = max(1, min(rules.slices, int(most)))
    cell.goal = goal
    return _slice(book, strategy, symbol, ts, difference)


@part
def cancel(book: Book, out: Out, strategy: int, symbol: int, ts: int) -> bool:
    """Send a cancel for the target order, once; whether it is gone already."""
    order = book.orders[strategy, symbol, TARGET]
    if order.end_reason != broker.CANCELLED:
        key = book.accounts[strategy].key
        arrives = ts + cancel_latency(book.terms[0], book.latencies, key, order.order_no)
        arrives = max(order.due, arrives)
        if arrives <= order.end:
            order.end = arrives
            order.end_reason = broker.CANCELLED
    if order.end <= ts:
        broker.end_order(book, out, strategy, symbol, TARGET, ts, order.end_reason)
        return True
    return False


@part
def _is_free(book: Book, out: Out, strategy: int, symbol: int, ts: int) -> bool:
    # Whether a target order may be proposed: what works is cancelled when the target changed.
    cell = book.cells[strategy, symbol]
    if book.orders[strategy, symbol, TARGET].order_no == 0:
        return cell.changed == 1 or cell.slices == 0
    if cell.changed == 0:
        return False
    cell.pending = 1
    return cancel(book, out, strategy, symbol, ts)


@part
def consider(
    book: Book, out: Out, strategy: int, symbol: int, ts: int, follows: bool
) -> tuple[float, int]:
    """What to order for the standing target, and why; 0 for nothing.

    Parameters
    ----------
    follows : whether an order ran out that is to be followed at the market: worth it at any size.
    """
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    rules = book.rules[strategy]
    instrument = book.instruments[symbol]
    if not _is_free(book, out, strategy, symbol, ts):
        return 0.0, SIGNAL
    exits = cell.exiting == 1 or cell.closed_side * cell.target > 0.0
    goal = wanted(book, strategy, symbol)
    if math.isnan(goal):
        return 0.0, SIGNAL
    worth = follows or is_worth_it(
        cell.changed == 1, cell.quantity, goal, market.price * market.unit,
        rules, instrument,
    )  # fmt: skip
    cell.changed = 0
    cell.pending = 0
    cell.exiting = 0
    cell.slices = 0
    if not worth:
        return 0.0, SIGNAL
    again = cell.refused == 1 and cell.refused_target == cell.target
    again &= cell.state != SWITCHED_OFF  # what is to be flat is tried until it is
    if again and market.bars - cell.refused_bar < rules.retry_after:
        book.clock[0].suppressed += 1
        return 0.0, SIGNAL
    difference = cut_lots(goal - cell.quantity, instrument)
    if cell.state == SWITCHED_OFF:
        return difference, OFF
    if exits:
        return difference, cell.purpose
    if follows:
        return difference, FOLLOW_UP
    return _first(book, strategy, symbol, ts, goal), SIGNAL


@part
def owed(book: Book, out: Out, strategy: int, symbol: int, ts: int) -> tuple[float, int]:
    """What to order after an event, and why; 0 for nothing.

    A waiting proposal, the follow-up of an expired order, or the next slice of an order over time.
    """
    cell = book.cells[strategy, symbol]
    follows = cell.follow == 1
    cell.follow = 0
    if cell.pending == 1 or follows:
        return consider(book, out, strategy, symbol, ts, follows and cell.pending == 0)
    if book.orders[strategy, symbol, TARGET].order_no > 0:
        return 0.0, SIGNAL
    if cell.slices > 0 and ts >= cell.next_slice:
        difference = cut_lots(cell.goal - cell.quantity, book.instruments[symbol])
        return _slice(book, strategy, symbol, ts, difference), SLICE
    return 0.0, SIGNAL
