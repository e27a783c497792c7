"""The compiled loop of the engine: marks and decisions at bars' closes, and events between them.

For each event the clock moves, orders meet it, accounts are marked, exits are tested, and what is
owed is proposed; before it, at a bar's close, targets become orders. An event that touches no
order and no level costs a few comparisons. Rules: `docs/engine.md`, section 1.
"""

import math

from sysquant import portfolio, proposal, protection, statistics, tail
from sysquant.bars import Events
from sysquant.broker import TRAILING_STOP, meet_event
from sysquant.compiled import inlined, kernel, part
from sysquant.metrics import account_statistics
from sysquant.portfolio import mark
from sysquant.proposal import act
from sysquant.records import Rows
from sysquant.state import FINANCING, SIGNALS, SNAPSHOTS, STOP_LEG, TARGET, Book, Out, has_room
from sysquant.types import CLOCK_MARK, SECOND, Floats, Ints

DAY = 86_400 * SECOND


@part
def _start_clock(book: Book, ts: int) -> None:
    # The first event or mark: when the first accruals, day and risk bar come.
    clock = book.clock[0]
    terms = book.terms[0]
    clock.next_financing = (ts // terms.financing_ns + 1) * terms.financing_ns
    clock.next_funding = (ts // terms.funding_ns + 1) * terms.funding_ns
    clock.day = ts // DAY
    clock.wake = min(clock.next_financing, clock.next_funding, (clock.day + 1) * DAY)


@part
def _wake(book: Book, out: Out, ts: int) -> None:
    # One accrual that is due by `ts`, or the new day after the last of them.
    clock = book.clock[0]
    terms = book.terms[0]
    if clock.next_financing == 0:
        _start_clock(book, ts)
        return
    due = min(clock.next_financing, clock.next_funding)
    if due <= ts:
        if due == clock.next_funding:
            clock.next_funding += terms.funding_ns
            portfolio.fund(
                due, terms, book.instruments, book.market, book.accounts, book.cells, clock,
                book.funding_ts, book.funding_rate, out.financing, out.counts, FINANCING,
            )  # fmt: skip
        if due == clock.next_financing:
            clock.next_financing += terms.financing_ns
            portfolio.finance(
                due, terms, book.market, book.accounts, book.cells, clock,
                out.financing, out.counts, FINANCING,
            )  # fmt: skip
    elif clock.day < ts // DAY:
        clock.day = ts // DAY
        clock.day_equity = clock.equity
        for account in book.accounts:
            account.day_equity = account.equity
    clock.wake = min(clock.next_financing, clock.next_funding, (clock.day + 1) * DAY)


@part
def _risk_bar(book: Book, ts: int) -> None:
    clock = book.clock[0]
    terms = book.terms[0]
    clock.next_risk_bar = (ts // terms.risk_bar_ns + 1) * terms.risk_bar_ns
    place = clock.returns % terms.window
    first = clock.returns
    tail.append(book.returns, book.covariance, clock, book.market, terms)
    for strategy in range(len(book.accounts)):
        account = book.accounts[strategy]
        if clock.returns > first:
            book.own_returns[strategy, place] = account.equity / account.risk_equity - 1.0
            known = min(clock.returns, terms.window)
            account_statistics(account, book.own_returns[strategy], known, terms)
        account.risk_equity = account.equity


@part
def _mark(book: Book, out: Out, ts: int, closed: Rows, first: int, last: int) -> None:
    # The clock mark at a bar's end: risk bar, statistics, the snapshot that may be due.
    clock = book.clock[0]
    terms = book.terms[0]
    clock.engine_ts = max(clock.engine_ts, ts)
    if ts >= clock.next_risk_bar:
        _risk_bar(book, ts)
    for bar in range(first, last):
        symbol = closed[bar].symbol
        if book.instruments[symbol].quote_volume == 1:
            closed[bar].volume /= closed[bar].close
        statistics.update(
            book.market[symbol], closed[bar], terms.statistics_weight, terms.statistics
        )
    if ts >= clock.next_snapshot:
        clock.next_snapshot = (ts // terms.snapshot_ns + 1) * terms.snapshot_ns
        portfolio.snapshot(
            ts, clock, book.accounts, book.cells, book.market, out.snapshots, out.counts, SNAPSHOTS
        )


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


@part
def _decide(
    book: Book, out: Out, strategy: int, symbol: int, ts: int, target: float
) -> tuple[float, int]:
    # What to order at a bar's close, 0 for nothing, and why.
    cell = book.cells[strategy, symbol]
    cell.bars += 1
    cell.bars_since_refusal += 1
    cell.bars_since_exit += 1
    market = book.market[symbol]
    if not market.price * market.unit > 0.0:
        return 0.0, proposal.SIGNAL
    if not math.isnan(target) and target != cell.target:
        _signal(book, out, strategy, symbol, ts, target, market.price)
    elif cell.quantity == 0.0 and cell.target == 0.0 and cell.changed + cell.closed_side == 0:
        return 0.0, proposal.SIGNAL
    if math.isnan(cell.target):
        return 0.0, proposal.SIGNAL
    protection.reopen(cell, book.rules[strategy])
    return proposal.consider(book, out, strategy, symbol, ts, False)


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
            purpose = proposal.TAKE_PROFIT
            if abs(flat_by) == STOP_LEG:
                purpose = proposal.TRAILING if trails else proposal.STOP_LOSS
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
        return 0.0, proposal.SIGNAL
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


@part
def _follow(book: Book, out: Out, symbol: int, ts: int) -> None:
    # What is owed after an event, and brackets.
    for place in range(book.market[symbol].active):
        strategy = book.active[symbol, place]
        for slot in range(3):
            quantity, purpose = _next_order(book, out, strategy, symbol, slot, ts)
            if quantity != 0.0:
                act(book, out, strategy, symbol, slot, ts, quantity, purpose)
    _unlist(book, symbol)


@inlined
def _trade(
    book: Book, out: Out, symbol: int, start: int, ts: int,
    open_: float, high: float, low: float, close: float, volume: float,
) -> bool:  # fmt: skip
    # One trade that is not late; whether effects may have come of it.
    market = book.market[symbol]
    book.clock[0].events += 1
    meets = market.orders > 0 and market.halted == 0
    if meets:
        _meet(book, out, symbol, start, ts, open_, high, low, close, volume)
    busy = True
    if book.instruments[symbol].converts == 1:
        _reprice(book, symbol, ts, close)
    else:
        busy = _price(book, symbol, ts, high, low, close)
    if busy and market.halted == 0:
        _exits(book, symbol, ts, high, low, close)
        _follow(book, out, symbol, ts)
    return meets or busy


@part
def _marks(book: Book, out: Out, closed: Rows, targets: Floats, first: int) -> int:
    # The mark at a bar's end, and what strategies decide there; the bar after the last of it.
    ts, position = closed[first].ts, closed[first].position
    last = first + 1
    while last < len(closed) and closed[last].position == position:
        last += 1
    _mark(book, out, ts, closed, first, last)
    for strategy in range(len(book.accounts)):
        for place in range(first, last):
            symbol = closed[place].symbol
            quantity, purpose = _decide(book, out, strategy, symbol, ts, targets[strategy, place])
            if quantity != 0.0:
                act(book, out, strategy, symbol, TARGET, ts, quantity, purpose)
    return last


@part
def _catch_up(book: Book, out: Out, ts: int) -> bool:
    # Accruals and days until `ts`; false while the buffers lack room.
    while ts >= book.clock[0].wake:
        if not has_room(out):
            return False
        _wake(book, out, ts)
    return has_room(out)


@part
def _command(book: Book, symbol: int, value: float) -> None:
    # What is no trade: a clock mark with the feed's lag, a halt, the end of one.
    if symbol == CLOCK_MARK:
        book.clock[0].feed_lag_s = value
    else:
        book.market[(-symbol) // 2 - 1].halted = 1 if (-symbol) % 2 == 0 else 0


@kernel
def run(book: Book, out: Out, events: Events, closed: Rows, targets: Floats, done: Ints) -> bool:
    """Advance over `events`, with marks and decisions before the positions they name.

    Parameters
    ----------
    book, out : state that is advanced, and buffers that are filled.
    events : `bars.Events`, in the order taken.
    closed : (B,) `records.BAR`, by position.
    targets : (S, B) weights decided on those bars.
    done : (2,) events and bars taken so far; moved on.

    Returns
    -------
    Whether the end was reached; if not, the buffers are full and the call is to be repeated.
    """
    clock = book.clock[0]
    bar, bars, count = done[1], len(closed), len(events.ts)
    roomy = has_room(out)
    for i in range(done[0], count + 1):
        done[0] = i
        if bar < bars and closed[bar].position == i:
            if not _catch_up(book, out, closed[bar].ts):
                return False
            bar = _marks(book, out, closed, targets, bar)
            done[1] = bar
            roomy = has_room(out)
        if i == count:
            break
        ts = events.ts[i]
        if ts < clock.engine_ts:
            continue
        if ts >= clock.wake:
            roomy = _catch_up(book, out, ts)
        if not roomy:
            return False
        clock.engine_ts = ts
        symbol = events.symbol[i]
        if symbol < 0:
            _command(book, symbol, events.volume[i])
        elif _trade(
            book, out, symbol, events.start[i], ts,
            events.open[i], events.high[i], events.low[i], events.close[i], events.volume[i],
        ):  # fmt: skip
            roomy = has_room(out)
    return True
