"""The compiled loop of the engine: for each event the clock moves, the broker fills what is due,
the portfolio is marked; before it, at a bar's close, targets become orders and risk reviews them.

Inputs are the records of `records.py`; outputs are rows appended to the effects' buffers. An order
decided at a mark can only fill on a later event.
"""

import math
from typing import NamedTuple

import numpy as np

from sysquant import portfolio, risk
from sysquant.bars import Events
from sysquant.compiled import kernel
from sysquant.execution import fill_price, latency, worst_cash
from sysquant.records import FACTS, Row, Rows
from sysquant.sizing import is_worth_it, target_quantity
from sysquant.types import Floats, Ints

SIGNALS, ORDERS, RECEIPTS, EXECUTIONS, SNAPSHOTS = range(5)  # places in `Out.counts`


class Book(NamedTuple):
    """Terms and state of a run; every field an array of the record type of its name."""

    instruments: Rows  # (Y,)
    terms: Rows  # (1,)
    checks: Ints  # (C,) numbers of the checks, in order
    limits: Floats  # (C,)
    clock: Rows  # (1,)
    market: Rows  # (Y,)
    accounts: Rows  # (S,)
    cells: Rows  # (S, Y)
    working: Rows  # (S, Y)


class Out(NamedTuple):
    """Buffers of effects, large enough, and how many rows each holds."""

    signals: Rows
    orders: Rows
    receipts: Rows
    executions: Rows
    snapshots: Rows
    counts: Ints  # (5,)


@kernel
def _take_target(book: Book, out: Out, decision: Row, price: float) -> None:
    # A new opinion replaces the last one and is a signal; no opinion leaves it standing.
    cell = book.cells[decision.strategy, decision.symbol]
    if math.isnan(decision.target) or decision.target == cell.target:
        return
    cell.target = decision.target
    cell.changed = 1
    row = out.signals[out.counts[SIGNALS]]
    out.counts[SIGNALS] += 1
    row.ts = decision.ts
    row.strategy = decision.strategy
    row.symbol = decision.symbol
    row.target = decision.target
    row.price = price


@kernel
def _quantity_to_order(book: Book, decision: Row, price: float) -> float:
    # What to order for the standing target, 0 for nothing; a fresh refusal is not repeated.
    terms = book.terms[0]
    instrument = book.instruments[decision.symbol]
    cell = book.cells[decision.strategy, decision.symbol]
    equity = book.accounts[decision.strategy].equity
    wanted = target_quantity(cell.target, equity, price, terms, instrument)
    worth = is_worth_it(
        cell.changed == 1, cell.quantity, wanted, price, terms, instrument.min_notional
    )
    cell.changed = 0
    if not worth:
        return 0.0
    if cell.refused == 1 and cell.refused_target == cell.target:
        cell.bars_since_refusal += 1
        if cell.bars_since_refusal < terms.retry_after:
            book.clock[0].suppressed += 1
            return 0.0
    return wanted - cell.quantity


@kernel
def _facts(book: Book, strategy: int, symbol: int, quantity: float) -> Rows:
    # The order as the risk chain sees it: projected with every working order filled.
    terms = book.terms[0]
    account = book.accounts[strategy]
    spent = 0.0
    short = 0.0
    for other in range(len(book.market)):
        added = quantity if other == symbol else 0.0
        if book.working[strategy, other].order_no > 0:
            added += book.working[strategy, other].quantity
        price = book.market[other].price
        spent += worst_cash(price, added, terms, book.instruments[other].tick_size)
        short += max(0.0, -(book.cells[strategy, other].quantity + added)) * price
    held = book.cells[strategy, symbol].quantity
    facts = np.zeros(1, FACTS)
    order = facts[0]
    order.quantity = quantity
    order.price = book.market[symbol].price
    order.notional = abs(quantity) * order.price
    order.allocation = account.allocation
    order.cash_after = account.cash - spent
    order.short_after = short
    order.equity = account.equity
    order.drawdown = portfolio.drawdown(account)
    order.reduces = 1 if held * quantity < 0.0 and abs(quantity) <= abs(held) else 0
    return facts


@kernel
def _propose(book: Book, out: Out, decision: Row, quantity: float, price: float) -> None:
    # Numbers the order, runs the chain, and hands it to the broker when approved.
    strategy, symbol = decision.strategy, decision.symbol
    account = book.accounts[strategy]
    cell = book.cells[strategy, symbol]
    order = book.working[strategy, symbol]
    first = out.counts[RECEIPTS]
    receipts = out.receipts[first : first + len(book.checks)]
    account.order_no += 1
    facts = _facts(book, strategy, symbol, quantity)
    refused_by = risk.review(facts[0], book.checks, book.limits, receipts)
    for place in range(len(receipts)):
        receipts[place].ts = decision.ts
        receipts[place].strategy = strategy
        receipts[place].order_no = account.order_no
        receipts[place].symbol = symbol
    row = out.orders[out.counts[ORDERS]]
    row.ts = decision.ts
    row.strategy = strategy
    row.order_no = account.order_no
    row.symbol = symbol
    row.quantity = quantity
    row.target = cell.target
    row.price = price
    row.refused_by = refused_by
    if refused_by == 0:
        row.approved = 1
        row.due = decision.ts + latency(book.terms[0], account.key, account.order_no)
        order.order_no = account.order_no
        order.due = row.due
        order.quantity = quantity
        cell.refused = 0
    else:
        cell.refused = 1
        cell.refused_target = cell.target
        cell.bars_since_refusal = 0
    out.counts[RECEIPTS] += len(receipts)
    out.counts[ORDERS] += 1


@kernel
def _decide(book: Book, out: Out, decision: Row) -> None:
    price = book.market[decision.symbol].price
    if not price > 0.0:
        return
    _take_target(book, out, decision, price)
    if math.isnan(book.cells[decision.strategy, decision.symbol].target):
        return
    if book.working[decision.strategy, decision.symbol].order_no > 0:
        return
    quantity = _quantity_to_order(book, decision, price)
    if quantity != 0.0:
        _propose(book, out, decision, quantity, price)


@kernel
def _mark_time(book: Book, out: Out, ts: int) -> None:
    # The clock mark at a bar's end, with the snapshot that may be due there.
    clock = book.clock[0]
    clock.engine_ts = max(clock.engine_ts, ts)
    every = book.terms[0].snapshot_ns
    if ts // every != clock.snapshot_ts // every:
        clock.snapshot_ts = ts
        out.counts[SNAPSHOTS] = portfolio.snapshot(
            ts, clock, book.accounts, book.cells, book.market, out.snapshots, out.counts[SNAPSHOTS]
        )


@kernel
def _fill(book: Book, out: Out, strategy: int, symbol: int, ts: int, reference: float) -> None:
    # Fills the whole working order against `reference`.
    terms = book.terms[0]
    instrument = book.instruments[symbol]
    order = book.working[strategy, symbol]
    price = fill_price(reference, order.quantity, terms.slippage, instrument.tick_size)
    fee, slippage, realised = portfolio.book_fill(
        book.accounts[strategy], book.cells[strategy, symbol], order.quantity, price, reference,
        terms.fee, instrument.lot_size,
    )  # fmt: skip
    row = out.executions[out.counts[EXECUTIONS]]
    out.counts[EXECUTIONS] += 1
    row.ts = ts
    row.strategy = strategy
    row.order_no = order.order_no
    row.fill_no = 1
    row.symbol = symbol
    row.quantity = order.quantity
    row.price = price
    row.reference = reference
    row.slippage = slippage
    row.fee = fee
    row.realised_pnl = realised
    order.order_no = 0


@kernel
def _trade(book: Book, out: Out, events: Events, i: int) -> None:
    # One event that is not late: due orders fill at its open when due by its start, else its close.
    symbol = events.symbol[i]
    start = events.start[i]
    ts = events.ts[i]
    for strategy in range(len(book.accounts)):
        order = book.working[strategy, symbol]
        if order.order_no > 0 and order.due <= ts:
            if order.due <= start:
                _fill(book, out, strategy, symbol, start, events.open[i])
            else:
                _fill(book, out, strategy, symbol, ts, events.close[i])
    book.market[symbol].ts = ts
    book.market[symbol].price = events.close[i]
    for strategy in range(len(book.accounts)):
        if book.cells[strategy, symbol].held == 1:
            portfolio.mark(book.accounts[strategy], book.cells[strategy], book.market)


@kernel
def run(book: Book, out: Out, events: Events, closed: Rows, decisions: Rows) -> None:
    """Advance over `events`, with marks and decisions before the positions they name.

    Parameters
    ----------
    book, out : state that is advanced, and buffers that are filled.
    events : `bars.Events`, in the order taken.
    closed : (B,) `records.BAR`, by position.
    decisions : (D,) `records.DECISION`, by (position, strategy, symbol).
    """
    bar = 0
    next_decision = 0
    for i in range(len(events.ts) + 1):
        if bar < len(closed) and closed[bar].position == i:
            _mark_time(book, out, closed[bar].ts)
            while bar < len(closed) and closed[bar].position == i:
                bar += 1
            while next_decision < len(decisions) and decisions[next_decision].position == i:
                _decide(book, out, decisions[next_decision])
                next_decision += 1
        if i == len(events.ts):
            break
        if events.ts[i] >= book.clock[0].engine_ts:
            book.clock[0].engine_ts = events.ts[i]
            if events.symbol[i] >= 0:
                _trade(book, out, events, i)
