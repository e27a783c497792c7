"""From a standing target to an order at the broker: what is wanted, plan, review, placement.

Input: the state of a run, at a bar's close or at an event. Output: rows of orders and receipts, and
approved orders in their slots. Rules: `docs/engine.md`, section 2.
"""

import math

from sysquant import broker
from sysquant.checks import CHECKS
from sysquant.checks.chain import review
from sysquant.compiled import inlined, numbers, part, wide
from sysquant.execution import cancel_latency, latency
from sysquant.facts import gather
from sysquant.orders import place
from sysquant.portfolio import commit
from sysquant.records import NEVER, Row
from sysquant.sizing import (
    is_surely_in_band,
    is_worth_it,
    notional,
    wanted_quantity,
    worst_unit_cost,
)
from sysquant.state import LIMIT_LEG, ORDERS, RECEIPTS, TARGET, Book, Out, enlist
from sysquant.steps import cut_lots, cut_lots_down, tick_beyond

SIGNAL, SLICE, FOLLOW_UP, STOP_LOSS, TRAILING, TAKE_PROFIT, MAX_HOLD, DRAWDOWN, OFF = numbers(9)
ACTIVE, REDUCING, SWITCHED_OFF, PAUSED = numbers(4)  # `cell.state`
HALTED = SWITCHED_OFF  # `clock.state`, which is 0, `REDUCING` or this
REPEATED_ORDER = CHECKS["repeated_order"].number


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
def _write_order(
    book: Book, out: Out, strategy: int, symbol: int, ts: int, asked: float, refused_by: int
) -> None:
    # A row of `orders` for the draft.
    draft = book.draft[0]
    row = out.orders[out.counts[ORDERS]]
    out.counts[ORDERS] += 1
    row.ts = ts
    row.strategy = strategy
    row.order_no = draft.order_no
    row.symbol = symbol
    row.kind = draft.kind
    row.tif = draft.tif
    row.purpose = draft.purpose
    row.quantity = draft.quantity
    row.asked = asked
    row.target = book.cells[strategy, symbol].target
    row.price = book.market[symbol].price
    row.limit_price = draft.limit
    row.stop_price = draft.stop
    row.expires = draft.end
    row.refused_by = refused_by
    row.approved = 1 if refused_by == 0 else 0
    row.due = draft.due if refused_by == 0 else 0


@part
def _cut_size(book: Book, out: Out, symbol: int) -> float:
    # The largest size that every refusing check would pass, signed; 0 when not worth an order.
    draft = book.draft[0]
    at = out.counts[RECEIPTS] - 1
    room = math.inf
    for place_ in range(len(book.limits)):
        if out.verdicts[at, place_] == 0:
            room = min(room, out.rooms[at, place_])
    if not room < abs(draft.quantity):
        return 0.0
    instrument = book.instruments[symbol]
    quantity = cut_lots_down(math.copysign(room, draft.quantity), instrument)
    notional = abs(quantity) * book.market[symbol].price * book.market[symbol].unit
    return quantity if notional >= instrument.min_notional else 0.0


@part
def _approve(book: Book, strategy: int, symbol: int, slot: int, ts: int) -> None:
    # Hands the draft to the broker.
    draft = book.draft[0]
    account = book.accounts[strategy]
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    truly_reduces = book.facts[0].reduces == 1
    draft.due = ts + latency(book.terms[0], book.latencies, account.key, draft.order_no)
    book.orders[strategy, symbol, slot] = draft
    market.orders += 1
    ring = book.rates[strategy]
    if account.rate_head - account.rate_minute == len(ring):
        account.rate_minute += 1
        account.rate_second = max(account.rate_second, account.rate_minute)
    ring[account.rate_head % len(ring)] = ts
    account.rate_head += 1
    enlist(book, strategy, symbol)
    if slot != TARGET:
        return
    account.open_orders += 1
    cell.refused = 0
    cell.last_order_ts = ts
    cell.last_quantity = draft.quantity
    if not truly_reduces:
        cell.entries += 1
    commit(market, cell, cell.quantity, draft.quantity, book.instruments[symbol])


@part
def _blank_draft(book: Book, strategy: int, symbol: int, quantity: float, purpose: int) -> None:
    draft = book.draft[0]
    account = book.accounts[strategy]
    account.order_no += 1
    draft.order_no = account.order_no
    draft.quantity = quantity
    draft.left = quantity
    draft.purpose = purpose
    draft.kind = broker.MARKET
    draft.tif = broker.GTC
    draft.then = 0
    draft.end = NEVER
    draft.end_reason = broker.EXPIRED
    draft.target = book.cells[strategy, symbol].target
    draft.limit = math.nan
    draft.stop = math.nan
    draft.trail = math.nan
    draft.reduce_only = 0
    draft.post_only = 0
    draft.carry = 1
    draft.arrived = 0
    draft.triggered = 0
    draft.raised = 0
    draft.fills = 0
    draft.rate_value = 0.0
    draft.paid = 0.0


@part
def _set_leg(draft: Row, cell: Row, rules: Row, slot: int, instrument: Row) -> None:
    # Stop or limit of a bracket, from the position's entry; rounded to the tick.
    side = math.copysign(1.0, cell.quantity)
    draft.reduce_only = 1
    if slot == LIMIT_LEG:
        level = cell.entry * (1.0 + side * rules.take_profit)
        draft.kind = broker.LIMIT
        draft.limit = tick_beyond(level, side, instrument)
    elif rules.stop_loss < math.inf:
        level = cell.entry * (1.0 - side * rules.stop_loss)
        draft.kind = broker.STOP
        draft.stop = tick_beyond(level, -side, instrument)
    else:
        draft.kind = broker.TRAILING_STOP
        draft.trail = rules.trailing_stop


@part
def _draw_up(
    book: Book, strategy: int, symbol: int, slot: int, ts: int, quantity: float, purpose: int
) -> None:
    # The draft: by the strategy's plan, at the market for exits and follow-ups, or a leg.
    cell = book.cells[strategy, symbol]
    rules = book.rules[strategy]
    draft = book.draft[0]
    market, instrument = book.market[symbol], book.instruments[symbol]
    _blank_draft(book, strategy, symbol, quantity, purpose)
    if slot != TARGET:
        _set_leg(draft, cell, rules, slot, instrument)
    elif purpose <= SLICE:
        reduces = cell.quantity * quantity < 0.0 and abs(quantity) <= abs(cell.quantity)
        place(draft, rules, market, instrument, ts, reduces, 0)
    elif purpose >= STOP_LOSS:
        draft.reduce_only = 1


@part
def _refuse(book: Book, strategy: int, symbol: int, slot: int, refused_by: int) -> None:
    # Not again soon for the same target; too many of the same disable the strategy.
    cell = book.cells[strategy, symbol]
    if slot == TARGET:
        cell.refused = 1
        cell.refused_target = cell.target
        cell.refused_bar = book.market[symbol].bars
        cell.slices = 0
    bit = book.places[REPEATED_ORDER]
    if bit >= 0 and refused_by >> bit & 1:
        book.accounts[strategy].disabled = 1


@part
def act(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, ts: int, asked: float, purpose: int
) -> None:
    """Draw an order up, have it reviewed, and place it in its slot when it is approved.

    The chain may cut it, once; both reviews leave receipts.
    """
    _draw_up(book, strategy, symbol, slot, ts, asked, purpose)
    draft = book.draft[0]
    refused_by = 0
    for attempt in range(1, 3):
        gather(book, strategy, symbol, ts, slot != TARGET)
        at = out.counts[RECEIPTS]
        out.counts[RECEIPTS] += 1
        receipt = out.receipts[at]
        receipt[0] = ts
        receipt[1] = strategy
        receipt[2] = draft.order_no
        receipt[3] = symbol
        receipt[4] = attempt
        refused_by = review(
            book.facts[0], book.scenarios[0], book.scenarios[1], book.places, book.limits,
            out.values[at], out.rooms[at], out.verdicts[at],
        )  # fmt: skip
        is_whole = book.terms[0].cut == 0 or book.rules[strategy].legs == 1
        if refused_by == 0 or attempt == 2 or is_whole:
            break
        smaller = _cut_size(book, out, symbol)
        if smaller == 0.0:
            break
        draft.quantity = smaller
        draft.left = smaller
    if refused_by == 0:
        _approve(book, strategy, symbol, slot, ts)
    else:
        _refuse(book, strategy, symbol, slot, refused_by)
    _write_order(book, out, strategy, symbol, ts, asked, refused_by)


@part
def withdraw_legs(book: Book, out: Out, strategy: int, since: int, ts: int) -> None:
    """Where one of a strategy's orders since a row was refused, end those that are no exits.

    None of them has reached the broker: that takes a later event.
    """
    is_refused = False
    for row in range(since, out.counts[ORDERS]):
        is_refused |= out.orders[row].approved == 0
    for row in range(since, out.counts[ORDERS] if is_refused else since):
        written = out.orders[row]
        cell = book.cells[strategy, wide(written.symbol)]
        reduces = cell.quantity * written.quantity < 0.0
        reduces &= abs(written.quantity) <= abs(cell.quantity)
        if written.approved == 1 and not reduces:
            symbol = wide(written.symbol)
            broker.end_order(book, out, strategy, symbol, TARGET, ts, broker.NOT_ALL_LEGS)


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
