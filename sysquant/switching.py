"""What an operator's switches do to cells and working orders, compiled: the loop switches, too.

Input: the state of a run. Output: cells with another state, cancels on their way. Rules:
`docs/engine.md`, section 9.
"""

import math

from sysquant.compiled import kernel
from sysquant.proposal import cancel
from sysquant.state import ACTIVE, SWITCHED_OFF, TARGET, Book, Out, enlist


@kernel
def switch(book: Book, strategy: int, symbol: int, state: int) -> None:
    """Set the state of a cell: what works is cancelled, and what is too much goes, as it trades."""
    cell = book.cells[strategy, symbol]
    was, cell.state = cell.state, state
    if state == ACTIVE:
        if was == SWITCHED_OFF or book.accounts[strategy].failed == 1:
            cell.target = cell.refused_target = math.nan
        return
    cell.slices = cell.follow = 0
    if state == SWITCHED_OFF:
        cell.refused = 0
    if state == SWITCHED_OFF or book.orders[strategy, symbol, TARGET].order_no > 0:
        cell.changed = cell.pending = 1
        enlist(book, strategy, symbol)


@kernel
def cancel_all(book: Book, out: Out) -> None:
    """Send a cancel for every target order, and drop what was to follow one: the book is halted."""
    for strategy in range(len(book.accounts)):
        for symbol in range(len(book.market)):
            if book.orders[strategy, symbol, TARGET].order_no > 0:
                cancel(book, out, strategy, symbol, book.clock[0].engine_ts)
            book.cells[strategy, symbol].slices = book.cells[strategy, symbol].follow = 0
