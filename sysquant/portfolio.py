"""Accounts and positions: what a fill does to them, and the rows that are snapshots of them.

Conservation of money: over one snapshot, cash + value = capital + realised + unrealised - fees.
Cash is cut to 1e-8, so that sums in SQL reconcile.
"""

import math

from sysquant.compiled import kernel
from sysquant.execution import cut
from sysquant.records import Row, Rows

CASH_STEP = 1e-8


@kernel
def book_fill(
    account: Row,
    cell: Row,
    quantity: float,
    price: float,
    reference: float,
    fee_rate: float,
    lot_size: float,
) -> tuple[float, float, float]:
    """Book `quantity` at `price` into account and position; returns fee, slippage, realised P&L."""
    fee = cut(abs(quantity) * price * fee_rate, CASH_STEP)
    slippage = quantity * (price - reference)
    held = cell.quantity
    realised = 0.0
    if held * quantity < 0.0:
        closed = min(abs(held), abs(quantity))
        realised = closed * (price - cell.average_price) * math.copysign(1.0, held)
    after = cut(held + quantity, lot_size)
    if after == 0.0:
        cell.average_price = 0.0
    elif held * after <= 0.0:
        cell.average_price = price
    elif abs(after) > abs(held):
        cell.average_price = (cell.average_price * held + price * quantity) / (held + quantity)
    cell.quantity = after
    cell.held = 1
    cell.realised_pnl += realised
    cell.fees += fee
    cell.slippage += slippage
    account.cash = cut(account.cash - quantity * price - fee, CASH_STEP)
    return fee, slippage, realised


@kernel
def equity(account: Row, cells: Rows, market: Rows) -> float:
    """Cash and positions at last trades, quote currency."""
    total = account.cash
    for symbol in range(len(market)):
        if cells[symbol].quantity != 0.0:
            total += cells[symbol].quantity * market[symbol].price
    return total


@kernel
def mark(account: Row, cells: Rows, market: Rows) -> None:
    """Bring equity and its peak up to the last trades."""
    account.equity = equity(account, cells, market)
    account.peak = max(account.peak, account.equity)


@kernel
def drawdown(account: Row) -> float:
    """Equity against its peak, a fraction <= 0."""
    return account.equity / account.peak - 1.0


@kernel
def _blank(row: Row, ts: int, clock: Row, strategy: int, symbol: int) -> None:
    clock.version += 1
    row.ts = ts
    row.version = clock.version
    row.strategy = strategy
    row.symbol = symbol


@kernel
def snapshot(
    ts: int, clock: Row, accounts: Rows, cells: Rows, market: Rows, rows: Rows, count: int
) -> int:
    """Append the pool, every account and every position once held to `rows`; the new count."""
    _blank(rows[count], ts, clock, -1, -1)
    rows[count].cash = clock.pool
    rows[count].equity = clock.pool
    rows[count].peak = clock.pool
    count += 1
    for strategy in range(len(accounts)):
        account = accounts[strategy]
        row = rows[count]
        _blank(row, ts, clock, strategy, -1)
        row.cash = account.cash
        row.equity = account.equity
        row.peak = account.peak
        row.drawdown = drawdown(account)
        count += 1
        for symbol in range(len(market)):
            cell = cells[strategy, symbol]
            if cell.held == 0:
                continue
            row = rows[count]
            _blank(row, ts, clock, strategy, symbol)
            row.quantity = cell.quantity
            row.average_price = cell.average_price
            row.price = market[symbol].price
            row.value = cell.quantity * market[symbol].price
            row.realised_pnl = cell.realised_pnl
            row.unrealised_pnl = cell.quantity * (market[symbol].price - cell.average_price)
            row.fees = cell.fees
            row.slippage = cell.slippage
            count += 1
    return count
