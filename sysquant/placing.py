"""From a quantity and its purpose to an order at the broker: plan, review by the chain, placement.

Input: the state of a run, and what `proposal.py` decided. Output: rows of orders and receipts, and
approved orders in their slots. Rules: `docs/engine.md`, section 2.
"""

import math

from sysquant import broker
from sysquant.checks import CHECKS
from sysquant.checks.chain import review
from sysquant.compiled import part, wide
from sysquant.execution import latency
from sysquant.facts import gather
from sysquant.orders import place
from sysquant.portfolio import commit
from sysquant.records import NEVER, Row
from sysquant.state import (
    LIMIT_LEG,
    ORDERS,
    RECEIPTS,
    SLICE,
    STOP_LOSS,
    TARGET,
    Book,
    Out,
    enlist,
)  # fmt: skip
from sysquant.steps import cut_lots_down, tick_beyond

REPEATED_ORDER = CHECKS["repeated_order"].number


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
