"""Calm stretches of a book of one strategy in one symbol, with all that moves in registers.

Nearly every event of such a book fills nothing, reaches no level and changes no target: then only
the price, the account's mark and the bar's averages move. Input and output: the state of a run and
its place in a batch, as in `loop`, which does the same for any book; the bytes are the same.
"""

import math

import numpy as np

from sysquant.bars import ClosedBars, Events, ts_of
from sysquant.bundle import prefetch
from sysquant.compiled import inlined, part, pasted
from sysquant.execution import slippage
from sysquant.sizing import is_surely_in_band, notional, unit_cost
from sysquant.state import Book
from sysquant.statistics import average
from sysquant.types import Floats


@part
def is_calm(book: Book) -> bool:
    """Whether the only cell of the book has nothing under way that an event or a bar moves on."""
    market, instrument, cell = book.market[0], book.instruments[0], book.cells[0, 0]
    under_way = market.orders | market.halted | cell.changed | cell.closed_side | cell.pending
    under_way |= cell.slices | cell.follow | cell.state | book.clock[0].state
    under_way |= instrument.quote_volume | book.terms[0].statistics | book.rules[0].watchful
    if under_way != 0 or market.bars == 0 or not market.price * market.unit > 0.0:
        return False
    if cell.quantity == 0.0:
        return market.active == 0 and (cell.target == 0.0 or math.isnan(cell.target))
    return cell.target != 0.0 and not math.isnan(cell.target)


@inlined
def _next_stop(
    events: Events, closed: ClosedBars, wanted: Floats, target: float, next_mark: int,
    bar: int, bars: int,
) -> int:  # fmt: skip
    # The first mark that is one for the loop. What the loop will read there, and nobody reads on
    # the way, is asked for now: to wait for memory then, column by column, takes longer than it.
    while bar < bars and closed.ts[bar] < next_mark:
        if not (wanted[bar] == target or math.isnan(wanted[bar])):
            break
        bar += 1
    if bar < bars:
        event = closed.position[bar]
        prefetch(events.open, event)
        prefetch(events.high, event)
        prefetch(events.low, event)
        prefetch(events.volume, event)
        prefetch(closed.symbol, bar)
        prefetch(closed.high, bar)
        prefetch(closed.low, bar)
    return bar


@pasted
def glide(
    book: Book, events: Events, closed: ClosedBars, bars: int, targets: Floats, i: int, bar: int
) -> tuple[int, int]:
    """Advance over events and marks while a calm book stays calm.

    Parameters
    ----------
    book : of one strategy and one symbol, calm.
    events, closed, bars, targets : as of `loop.run`.
    i, bar : events and bars taken so far.

    Returns
    -------
    The same afterwards: the next event, or the mark before it, is one for the loop.
    """
    clock, terms = book.clock[0], book.terms[0]
    market, instrument = book.market[0], book.instruments[0]
    account, cell, rules = book.accounts[0], book.cells[0, 0], book.rules[0]
    position, bar_close, bar_volume = closed.position, closed.close, closed.volume
    wanted, weight = targets[0], terms.statistics_weight
    quantity, target, is_held = cell.quantity, cell.target, cell.quantity != 0.0
    scaled = target * account.scale
    price, previous, last_ts, unit = market.price, market.previous, market.ts, market.unit
    reference, volume = market.reference, market.volume
    cash, value, equity, top = account.cash, account.value, account.equity, -math.inf
    engine_ts, taken = clock.engine_ts, clock.events
    book_equity, book_peak, book_held = clock.equity, clock.peak, market.held
    slip, exit_low, exit_high = slippage(terms, market, quantity), cell.exit_low, cell.exit_high
    has_exit = exit_low > -math.inf or exit_high < math.inf
    wake, next_mark = clock.wake, min(clock.wake, clock.next_risk_bar, clock.next_snapshot)
    # What is never negative is told so: no index is then taken from the end.
    event, count = np.uint64(i), np.uint64(len(events.end))
    first, mark, marks = np.uint64(bar), np.uint64(bar), np.uint64(bars)
    stop = _next_stop(events, closed, wanted, target, next_mark, bar, bars)
    while event < count:
        if mark < marks and position[mark] == np.int64(event):
            if mark == np.uint64(stop):
                break
            if is_held and not (equity > 0.0 and is_surely_in_band(
                notional(rules, terms, market, scaled, equity), quantity,
                unit_cost(price, slip, unit, instrument), rules, instrument,
            )):  # fmt: skip
                break
            engine_ts = max(engine_ts, closed.ts[mark])
            reference = average(reference, bar_close[mark], weight)
            volume = average(volume, bar_volume[mark], weight)
            mark += np.uint64(1)
        ts = ts_of(events.end[event], events.length)
        if ts < engine_ts:
            event += np.uint64(1)
            continue
        close = events.close[event]
        if ts >= wake or events.symbol[event] < 0 or not close > 0.0:
            break
        if is_held:
            if has_exit and (events.low[event] <= exit_low or events.high[event] >= exit_high):
                break
            moved = (close - price) * unit
            value += quantity * moved
            equity = cash + value
            top = max(top, equity)
            book_equity += book_held * moved
            book_peak = max(book_peak, book_equity)
        previous, price, last_ts, engine_ts = price, close, ts, ts
        taken += 1
        event += np.uint64(1)
    if mark > first:
        last = np.int64(mark) - 1
        before = market.close if last == bar else bar_close[last - 1]
        market.change, market.close = bar_close[last] - before, bar_close[last]
        market.high, market.low = closed.high[last], closed.low[last]
        market.bars += last + 1 - bar
    market.price, market.previous, market.ts = price, previous, last_ts
    market.reference, market.volume = reference, volume
    account.value, account.equity = value, equity
    account.peak, account.exit_peak = max(account.peak, top), max(account.exit_peak, top)
    clock.engine_ts, clock.events = engine_ts, taken
    clock.equity, clock.peak = book_equity, book_peak
    return np.int64(event), np.int64(mark)  # pyright: ignore[reportReturnType]
