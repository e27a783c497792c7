"""What comes by the clock: accruals, days, risk bars, snapshots.

Input: the state of a run, and the time of an event or mark. Output: the state, moved on to that
time, rows of financing and snapshots. Rules: `docs/engine.md`, sections 1, 7 and 8.
"""

from sysquant import portfolio, tail
from sysquant.compiled import inlined, kernel, part
from sysquant.metrics import take_return
from sysquant.state import FINANCING, SNAPSHOTS, Book, Out, has_room
from sysquant.statistics import take_bar
from sysquant.types import SECOND, Floats

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
def close_risk_bar(book: Book, ts: int) -> None:
    """Returns of symbols and accounts since the last risk bar, when one ends by `ts`."""
    clock = book.clock[0]
    terms = book.terms[0]
    clock.next_risk_bar = (ts // terms.risk_bar_ns + 1) * terms.risk_bar_ns
    taken = clock.returns
    tail.append(book.returns, book.tails, book.covariance, clock, book.market, terms)
    for strategy in range(len(book.accounts)):
        account = book.accounts[strategy]
        if clock.returns > taken:
            change = 0.0
            if account.risk_equity != 0.0:  # it is 0 while all capital is elsewhere
                change = account.equity / account.risk_equity - 1.0
            take_return(
                account, book.own_returns[strategy], book.own_lowest[strategy], taken, change,
                terms,
            )  # fmt: skip
        account.risk_equity = account.equity


@part
def take_snapshot(book: Book, out: Out, ts: int) -> None:
    """Rows of the pool, every account and every position."""
    clock = book.clock[0]
    terms = book.terms[0]
    clock.next_snapshot = (ts // terms.snapshot_ns + 1) * terms.snapshot_ns
    portfolio.snapshot(
        ts, clock, book.accounts, book.cells, book.market, out.snapshots, out.counts, SNAPSHOTS
    )


@part
def _catch_up(book: Book, out: Out, ts: int) -> bool:
    # Accruals and days until `ts`; false while the buffers lack room.
    while ts >= book.clock[0].wake:
        if not has_room(out):
            return False
        _wake(book, out, ts)
    return has_room(out)


@inlined
def is_ready(book: Book, out: Out, ts: int, roomy: bool) -> bool:
    """Bring accruals and days up to `ts`; whether the buffers then have room for what it causes.

    Parameters
    ----------
    roomy : whether they had before.
    """
    return _catch_up(book, out, ts) if ts >= book.clock[0].wake else roomy


@kernel
def take_history(
    book: Book, symbol: int, high: Floats, low: Floats, close: Floats, volume: Floats
) -> None:
    """Let the statistics of a symbol see bars that closed before the first event."""
    for bar in range(len(close)):
        take_bar(
            book.market[symbol], book.instruments[symbol], book.terms[0],
            high[bar], low[bar], close[bar], volume[bar],
        )  # fmt: skip
