"""What the compiled engine works on: the arrays of a run, and the buffers its effects go to.

Bundles of records (`records.py`) and plain arrays.
"""

import numpy as np
from numpy.typing import NDArray

from sysquant.bundle import Bundle
from sysquant.compiled import kernel, numbers, part
from sysquant.records import Rows
from sysquant.types import Floats, Ints

SIGNALS, ORDERS, RECEIPTS, EXECUTIONS, ENDS, FINANCING, SNAPSHOTS = numbers(7)  # `Out.counts`
TARGET, STOP_LEG, LIMIT_LEG = numbers(3)  # slots of `Book.orders`
NOBODY = numbers(-1, 0)[0]  # in place of a strategy or a symbol
SIGNAL, SLICE, FOLLOW_UP, STOP_LOSS, TRAILING, TAKE_PROFIT, MAX_HOLD, DRAWDOWN, OFF = numbers(9)
ACTIVE, REDUCING, SWITCHED_OFF, PAUSED = numbers(4)  # `cell.state`
HALTED = SWITCHED_OFF  # `clock.state`, which is 0, `REDUCING` or this


class Book(Bundle):
    """Terms and state of a run; where nothing else is said, arrays of the record of that name."""

    instruments: Rows  # (Y,)
    terms: Rows  # (1,)
    rules: Rows  # (S,)
    places: Ints  # (N,) of every check in the chain, by number; -1 if it is not in it
    limits: Floats  # (C,)
    latencies: Ints  # recorded ones, ns; empty without
    sessions: Ints  # (N, 2) open and close, ns
    funding_ts: Ints  # series of all perpetuals, one after the other, ns
    funding_rate: Floats
    clock: Rows  # (1,)
    market: Rows  # (Y,)
    active: Ints  # (Y, S) strategies listed in a symbol, rising; `market.active` of them
    accounts: Rows  # (S,)
    cells: Rows  # (S, Y)
    orders: Rows  # (S, Y, 3)
    rates: Ints  # (S, R) times of the last approved orders, a ring
    returns: Floats  # (W, Y) per risk bar, a ring
    covariance: Floats  # (Y, Y) not yet normalised
    own_returns: Floats  # (S, W) of equity, a ring
    tails: Floats  # (Y, 2, K) lowest of the known `returns`, and of their negatives, rising
    own_lowest: Floats  # (S, K) the lowest of `own_returns`
    # scratch: nothing in it outlives one order
    draft: Rows  # (1,) ORDER
    facts: Rows  # (1,) FACTS
    scenarios: Floats  # (4, W) P&L of the book, one unit, the strategy, the rest of the book
    exposures: Floats  # (Y,)
    exposed: Ints  # (Y,) symbols with an exposure, as many as `facts.exposed`


class Out(Bundle):
    """Buffers of effects, and how many rows each holds."""

    signals: Rows
    orders: Rows
    receipts: Ints  # (N, 5) ts, strategy, order_no, symbol, attempt; with the three below
    executions: Rows
    ends: Rows
    financing: Rows
    snapshots: Rows
    values: Floats  # (N, C)
    rooms: Floats
    verdicts: NDArray[np.int8]
    counts: Ints  # (7,)
    full: Ints  # (7,) counts from which on one more event may not fit


@part
def has_room(out: Out) -> bool:
    """Whether all that one event or mark can cause still fits."""
    fits = True
    for table in range(len(out.counts)):
        fits &= out.counts[table] < out.full[table]
    return fits


@kernel
def enlist(book: Book, strategy: int, symbol: int) -> None:
    """List a strategy in a symbol, in order, unless it is."""
    cell, market = book.cells[strategy, symbol], book.market[symbol]
    if cell.listed == 1:
        return
    cell.listed = 1
    place = market.active
    while place > 0 and book.active[symbol, place - 1] > strategy:
        book.active[symbol, place] = book.active[symbol, place - 1]
        place -= 1
    book.active[symbol, place] = strategy
    market.active += 1
