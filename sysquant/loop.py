"""The compiled loop of the engine: marks and decisions at bars' closes, and events between them.

For each event the clock moves, orders meet it, accounts are marked, exits are tested, and what is
owed is proposed; before it, at a bar's close, targets become orders. An event that touches no
order and no level costs a few comparisons. Rules: `docs/engine.md`, section 1.
"""

import math

from sysquant import placing, portfolio, proposal, protection, state
from sysquant.bars import ClosedBars, Events, start_of, ts_of
from sysquant.broker import TRAILING_STOP, meet_event
from sysquant.bundle import lent
from sysquant.calm import glide, is_calm
from sysquant.clockwork import close_risk_bar, is_ready, take_snapshot
from sysquant.compiled import inlined, kernel, part, pasted, wide
from sysquant.placing import act
from sysquant.portfolio import mark
from sysquant.proposal import is_settled
from sysquant.state import (
    HALTED,
    ORDERS,
    SIGNALS,
    STOP_LEG,
    SWITCHED_OFF,
    TARGET,
    Book,
    Out,
    has_room,
)
from sysquant.statistics import take_bar
from sysquant.switching import switch
from sysquant.types import CLOCK_MARK, Floats, Ints


@part
def _signal(
    book: Book, out: Out, strategy: int, symbol: int, ts: int, target: float, price: float
) -> None:
    # A new opinion replaces the last one.
    cell = book.cells[strategy, symbol]
    cell.target = target
    cell.changed = 1
    cell.entries = 0
    row = out.signals[out.counts[SIGNALS]]
    out.counts[SIGNALS] += 1
    row.ts = ts
    row.strategy = strategy
    row.symbol = symbol
    row.target = target
    row.price = price


@inlined
def _stands(book: Book, strategy: int, symbol: int, target: float) -> bool:
    # Whether a decision changes nothing, as nearly all do: told without what a proposal costs.
    cell = book.cells[strategy, symbol]
    if target != cell.target and not math.isnan(target):
        return False
    if cell.changed | cell.closed_side | cell.pending | cell.slices != 0:
        return False
    if cell.quantity == 0.0:
        return cell.target == 0.0 or math.isnan(cell.target)
    if math.isnan(cell.target):
        return cell.state != SWITCHED_OFF
    return is_settled(book, strategy, symbol)


@part
def _fail(book: Book, strategy: int) -> None:
    # Its code raised, which an infinite weight stands for: it leaves everything, once.
    if book.accounts[strategy].failed == 0:
        book.accounts[strategy].failed = 1
        for symbol in range(len(book.market)):
            switch(book, strategy, symbol, SWITCHED_OFF)


@part
def _decide(book: Book, out: Out, strategy: int, symbol: int, ts: int, target: float) -> None:
    # What to order at a bar's close.
    cell = book.cells[strategy, symbol]
    market = book.market[symbol]
    if math.isinf(target):
        _fail(book, strategy)
        return
    if not market.price * market.unit > 0.0:
        return
    if not math.isnan(target) and target != cell.target:
        _signal(book, out, strategy, symbol, ts, target, market.price)
    if not math.isnan(cell.target):
        protection.reopen(cell, market, book.rules[strategy])
    elif cell.state != SWITCHED_OFF or cell.quantity == 0.0:
        return
    if book.clock[0].state == HALTED:
        return
    quantity, purpose = proposal.consider(book, out, strategy, symbol, ts, False)
    if quantity != 0.0:
        act(book, out, strategy, symbol, TARGET, ts, quantity, purpose)


@part
def _reprice(book: Book, symbol: int, ts: int, close: float) -> None:
    # A symbol that others are converted at: they are worth something else from the same moment on.
    market = book.market[symbol]
    market.previous = market.price
    market.price = close
    market.ts = ts
    for other in range(len(book.market)):
        instrument = book.instruments[other]
        if instrument.conversion == symbol:
            book.market[other].unit = instrument.multiplier * close
    portfolio.revalue(book.accounts, book.cells, book.market, book.clock[0])


@part
def _meet(
    book: Book, out: Out, symbol: int, start: int, ts: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> None:  # fmt: skip
    # Working orders of every strategy in the symbol; legs that closed a position close its side.
    market = book.market[symbol]
    for place in range(market.active):
        strategy = book.active[symbol, place]
        orders = book.orders[strategy, symbol]
        if orders[0].order_no + orders[1].order_no + orders[2].order_no == 0:
            continue
        trails = orders[STOP_LEG].kind == TRAILING_STOP
        account = book.accounts[strategy]
        cell = book.cells[strategy, symbol]
        before, cash = cell.quantity, account.cash
        cell.met_event = book.clock[0].events
        flat_by = meet_event(
            book, out, strategy, symbol, start, ts, open_, high, low, close, volume
        )
        if flat_by != 0:
            purpose = state.TAKE_PROFIT
            if abs(flat_by) == STOP_LEG:
                purpose = state.TRAILING if trails else state.STOP_LOSS
            protection.close_side(book, strategy, symbol, ts, purpose, float(flat_by))
        if account.cash != cash or cell.quantity != before:
            worth = (cell.quantity - before) * market.price * market.unit
            account.value += worth
            book.clock[0].equity += worth + account.cash - cash
            protection.watch(cell, book.rules[strategy])


@inlined
def _price(book: Book, symbol: int, ts: int, high: float, low: float, close: float) -> bool:
    # The symbol and everyone in it at the event's close; whether something more must be done.
    market = book.market[symbol]
    clock = book.clock[0]
    change = 0.0
    if market.price * market.unit > 0.0:  # a unit is unknown until its conversion symbol traded
        change = (close - market.price) * market.unit
    market.previous = market.price
    market.price = close
    market.ts = ts
    busy = False
    for place in range(market.active):
        strategy = book.active[symbol, place]
        cell = book.cells[strategy, symbol]
        account = book.accounts[strategy]
        account.value += cell.quantity * change
        mark(account)
        busy |= (
            low <= cell.exit_low
            or high >= cell.exit_high
            or cell.pending + cell.follow + cell.slices + book.rules[strategy].watchful > 0
            or cell.grown_event == clock.events
            or (cell.quantity == 0.0 and market.orders == 0)
        )
    clock.equity += market.held * change
    clock.peak = max(clock.peak, clock.equity)
    return busy


@part
def _exits(book: Book, symbol: int, ts: int, high: float, low: float, close: float) -> None:
    # Exit rules of everyone in the symbol.
    for place in range(book.market[symbol].active):
        strategy = book.active[symbol, place]
        cell = book.cells[strategy, symbol]
        if cell.quantity != 0.0 or cell.met_event == book.clock[0].events:
            protection.check_exits(book, strategy, symbol, low, high, close, ts)
            protection.check_drawdown(book, strategy, ts)


@part
def _next_order(
    book: Book, out: Out, strategy: int, symbol: int, slot: int, ts: int
) -> tuple[float, int]:
    # What is owed after an event, or a leg of the bracket of a position that grew on it.
    if slot == TARGET:
        return proposal.owed(book, out, strategy, symbol, ts)
    if not protection.grew(book, strategy, symbol):
        return 0.0, state.SIGNAL
    if slot == STOP_LEG:
        protection.end_bracket(book, out, strategy, symbol, ts)
    return protection.leg(book, strategy, symbol, slot)


@part
def _unlist(book: Book, symbol: int) -> None:
    # Who has nothing left in a symbol is no longer listed there.
    kept = 0
    market = book.market[symbol]
    for place in range(market.active):
        strategy = book.active[symbol, place]
        cell = book.cells[strategy, symbol]
        orders = book.orders[strategy, symbol]
        working = orders[0].order_no + orders[1].order_no + orders[2].order_no
        if working > 0 or cell.quantity != 0.0 or cell.pending + cell.follow + cell.slices > 0:
            book.active[symbol, kept] = strategy
            kept += 1
        else:
            cell.listed = 0
    market.active = kept


@pasted
def _follow(book: Book, out: Out, symbol: int, ts: int) -> None:
    # What is owed after an event, and brackets.
    for place in range(book.market[symbol].active):
        strategy = book.active[symbol, place]
        for slot in range(3 if book.clock[0].state != HALTED else 0):
            quantity, purpose = _next_order(book, out, strategy, symbol, slot, ts)
            if quantity != 0.0:
                act(book, out, strategy, symbol, slot, ts, quantity, purpose)
    _unlist(book, symbol)


@pasted
def _busy_trade(
    book: Book, out: Out, symbol: int, start: int, ts: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> bool:  # fmt: skip
    # One trade that orders meet, or that others are converted at; as `_price`.
    market = book.market[symbol]
    if market.orders > 0 and market.halted == 0:
        _meet(book, out, symbol, start, ts, open_, high, low, close, volume)
    if book.instruments[symbol].converts == 1:
        _reprice(book, symbol, ts, close)
        return True
    return _price(book, symbol, ts, high, low, close)


@part
def _aftermath(
    book: Book, out: Out, symbol: int, ts: int, high: float, low: float, close: float
) -> None:  # fmt: skip
    # What a trade may set off once everyone is marked.
    if book.market[symbol].halted == 0:
        _exits(book, symbol, ts, high, low, close)
        _follow(book, out, symbol, ts)


@part
def _command(book: Book, symbol: int, value: float) -> None:
    # What is no trade: a clock mark with the feed's lag, a halt, the end of one.
    if symbol == CLOCK_MARK:
        book.clock[0].feed_lag_s = value
    else:
        book.market[(-symbol) // 2 - 1].halted = 1 if (-symbol) % 2 == 0 else 0


@pasted
def _mark(
    book: Book, out: Out, closed: ClosedBars, bars: int, targets: Floats, first: int
) -> tuple[int, bool]:
    # The clock mark at a bar's end: risk bar, statistics, snapshot, decisions; the bar after the
    # last of it, and whether the buffers have room left.
    clock, terms = book.clock[0], book.terms[0]
    ts, position, bar = closed.ts[first], closed.position[first], first
    clock.engine_ts = max(clock.engine_ts, ts)
    if ts >= clock.next_risk_bar:
        close_risk_bar(book, ts)
    while bar < bars and closed.position[bar] == position:
        symbol = wide(closed.symbol[bar])
        take_bar(
            book.market[symbol], book.instruments[symbol], terms,
            closed.high[bar], closed.low[bar], closed.close[bar], closed.volume[bar],
        )  # fmt: skip
        bar += 1
    wrote = ts >= clock.next_snapshot
    if wrote:
        take_snapshot(book, out, ts)
    for strategy in range(len(targets)):
        before = int(out.counts[ORDERS])
        for place in range(first, bar):
            symbol, target = wide(closed.symbol[place]), targets[strategy, place]
            if not _stands(book, strategy, symbol, target):
                _decide(book, out, strategy, symbol, ts, target)
                wrote = True
        if book.rules[strategy].legs == 1:
            placing.withdraw_legs(book, out, strategy, before, ts)
    return bar, not wrote or has_room(out)


@pasted
def _event(book: Book, out: Out, events: Events, i: int, ts: int) -> bool:
    # One event that is not late; whether effects may have come of it.
    symbol = wide(events.symbol[i])
    if symbol < 0:
        _command(book, symbol, events.volume[i])
        return False
    book.clock[0].events += 1
    high, low, close = events.high[i], events.low[i], events.close[i]
    is_busy = book.market[symbol].orders | book.instruments[symbol].converts != 0
    if is_busy:
        goes_on = _busy_trade(
            book, out, symbol, start_of(events.end[i], events.length), ts,
            events.open[i], high, low, close, events.volume[i],
        )  # fmt: skip
    else:
        goes_on = _price(book, symbol, ts, high, low, close)
    if goes_on:
        _aftermath(book, out, symbol, ts, high, low, close)
    return is_busy or goes_on


@kernel
def run(
    book: Book, out: Out, events: Events, closed: ClosedBars, bars: int, targets: Floats, done: Ints
) -> bool:
    """Advance over `events`, with marks and decisions before the positions they name.

    Parameters
    ----------
    book, out : state that is advanced, and buffers that are filled.
    events : in the order taken.
    closed : the first `bars` of them closed in these events.
    targets : (S, bars) weights decided on them.
    done : (2,) events and bars taken so far; moved on.

    Returns
    -------
    Whether the end was reached; if not, the buffers are full and the call is to be repeated.
    """
    targets = lent(targets)
    events = Events(
        lent(events.end), lent(events.symbol), lent(events.open), lent(events.high),
        lent(events.low), lent(events.close), lent(events.volume), events.length,
    )  # fmt: skip
    closed = ClosedBars(
        lent(closed.position), lent(closed.ts), lent(closed.symbol), lent(closed.open),
        lent(closed.high), lent(closed.low), lent(closed.close), lent(closed.volume),
    )  # fmt: skip
    clock = book.clock[0]
    bar, count = done[1], len(events.end)
    is_single = len(targets) * len(book.market) == 1
    roomy = has_room(out)
    i = done[0]
    while i <= count:
        if is_single and is_calm(book):
            i, bar = glide(book, events, closed, bars, targets, i, bar)
        if bar < bars and closed.position[bar] == i:
            if not is_ready(book, out, closed.ts[bar], roomy):
                done[0], done[1] = i, bar
                return False
            bar, roomy = _mark(book, out, closed, bars, targets, bar)
        if i == count:
            break
        ts = ts_of(events.end[i], events.length)
        if ts < clock.engine_ts:
            i += 1
            continue
        if not is_ready(book, out, ts, roomy):
            done[0], done[1] = i, bar
            return False
        clock.engine_ts = ts
        if _event(book, out, events, i, ts):
            roomy = has_room(out)
        i += 1
    done[0], done[1] = count, bar
    return True
