"""Accounts and positions: what fills, marks and financing do to them, and their snapshots.

Conservation of money: over one snapshot, cash + value = capital + realised + unrealised - fees
- financing. Cash is cut to 1e-8, so that sums in SQL reconcile.
"""

from typing import Any

from sysquant.compiled import inlined, inlined_kernel, kernel, numbers
from sysquant.records import Row, Rows
from sysquant.state import NOBODY
from sysquant.steps import cut_cash, cut_lots
from sysquant.types import Ints

FUNDING, BORROW, INTEREST = numbers(3)
# Equity is a fraction of each.
BASES = ("peak", "stake", "day_equity", "exit_peak", "risk_equity")
_YEAR_NS = 8760.0 * 3600e9


@kernel
def book_fill(account: Row, cell: Row, quantity: float, price: float, unit: float) -> float:
    """Book `quantity` at `price` into cash and position, by average cost; returns realised P&L.

    What is paid, and the cost of what is closed, are cut to 1e-8, so that no money is lost in
    rounding. The caller sets the new quantity (`commit`).
    """
    held = cell.quantity
    paid = cut_cash(quantity * price * unit)
    account.cash = cut_cash(account.cash - paid)
    cell.held = 1
    if held * quantity >= 0.0:
        cell.entry = (cell.entry * held + price * quantity) / (held + quantity)
        cell.cost = cut_cash(cell.cost + paid)
        return 0.0
    if abs(quantity) <= abs(held):
        closing = cell.cost if quantity == -held else cut_cash(-cell.cost * quantity / held)
        cell.cost = cut_cash(cell.cost - closing)
        realised = -paid - closing
        if quantity == -held:
            cell.entry = 0.0
    else:
        proceeds = cut_cash(-paid * held / -quantity)
        realised = proceeds - cell.cost
        cell.cost = cut_cash(paid + proceeds)
        cell.entry = price
    cell.realised_pnl = cut_cash(cell.realised_pnl + realised)
    return realised


@kernel
def commit(market: Row, cell: Row, quantity: float, working: float, instrument: Row) -> None:
    """Set what a cell holds and has at the broker, and the book's sums of both, units."""
    before = cell.quantity + cell.working
    after = quantity + working
    market.held = cut_lots(market.held + quantity - cell.quantity, instrument)
    market.committed = cut_lots(market.committed + after - before, instrument)
    market.gross = cut_lots(market.gross + abs(after) - abs(before), instrument)
    cell.quantity = quantity
    cell.working = working


@inlined
def mark(account: Row) -> None:
    """Bring equity and its peaks up to value and cash."""
    account.equity = account.cash + account.value
    account.peak = max(account.peak, account.equity)
    account.exit_peak = max(account.exit_peak, account.equity)


@kernel
def revalue(accounts: Rows, cells: Rows, market: Rows, clock: Row) -> None:
    """Value of every account, and the book's equity, from scratch at last prices."""
    total = clock.pool
    for strategy in range(len(accounts)):
        account = accounts[strategy]
        value = 0.0
        for symbol in range(len(market)):
            quantity = cells[strategy, symbol].quantity
            if quantity != 0.0:
                value += quantity * market[symbol].price * market[symbol].unit
        account.value = value
        mark(account)
        total += account.equity
    clock.equity = total
    clock.peak = max(clock.peak, total)


@kernel
def drawdown(account: Row) -> float:
    """Equity against its peak, a fraction <= 0; what it was last while all capital is away."""
    return (account.equity + account.left) / account.peak - 1.0


@kernel
def _charge(
    account: Row, clock: Row, rows: Rows, counts: Ints, place: int,
    ts: int, strategy: int, symbol: int, kind: int, base: float, rate: float,
) -> float:  # fmt: skip
    # Takes base x rate from cash, as a row of `financing`; returns it.
    amount = cut_cash(base * rate)
    if amount == 0.0:
        return 0.0
    row = rows[counts[place]]
    counts[place] += 1
    row.ts = ts
    row.strategy = strategy
    row.symbol = symbol
    row.kind = kind
    row.base = base
    row.rate = rate
    row.amount = amount
    account.cash = cut_cash(account.cash - amount)
    clock.equity -= amount
    return amount


@kernel
def funding_rate(series_ts: Ints, series: Rows, instrument: Row, constant: float, ts: int) -> float:
    """Last rate of an instrument's series at or before `ts`, else the constant one."""
    low, high = instrument.funding_from, instrument.funding_to
    while low < high:
        middle = (low + high) // 2
        if series_ts[middle] <= ts:
            low = middle + 1
        else:
            high = middle
    return series[low - 1] if low > instrument.funding_from else constant


@kernel
def fund(
    ts: int, terms: Row, instruments: Rows, market: Rows, accounts: Rows, cells: Rows,
    clock: Row, series_ts: Ints, series: Rows, rows: Rows, counts: Ints, place: int,
) -> None:  # fmt: skip
    """Charge funding of every perpetual held at `ts`; a negative rate pays who is long."""
    for strategy in range(len(accounts)):
        for symbol in range(len(market)):
            cell = cells[strategy, symbol]
            if instruments[symbol].perpetual == 0 or cell.quantity == 0.0:
                continue
            value = cell.quantity * market[symbol].price * market[symbol].unit
            rate = funding_rate(series_ts, series, instruments[symbol], terms.funding_rate, ts)
            cell.financing += _charge(
                accounts[strategy], clock, rows, counts, place,
                ts, strategy, symbol, FUNDING, value, rate,
            )  # fmt: skip
        mark(accounts[strategy])


@kernel
def finance(
    ts: int, terms: Row, market: Rows, accounts: Rows, cells: Rows, clock: Row,
    rows: Rows, counts: Ints, place: int,
) -> None:  # fmt: skip
    """Charge borrow fees of every short position, then interest on negative cash, at `ts`."""
    years = terms.financing_ns / _YEAR_NS
    for strategy in range(len(accounts)):
        for symbol in range(len(market)):
            cell = cells[strategy, symbol]
            if cell.quantity < 0.0:
                value = cell.quantity * market[symbol].price * market[symbol].unit
                cell.financing += _charge(
                    accounts[strategy], clock, rows, counts, place,
                    ts, strategy, symbol, BORROW, -value, terms.borrow_rate * years,
                )  # fmt: skip
    for strategy in range(len(accounts)):
        account = accounts[strategy]
        if account.cash < 0.0:
            account.financing += _charge(
                account, clock, rows, counts, place,
                ts, strategy, NOBODY, INTEREST, -account.cash, terms.interest_rate * years,
            )  # fmt: skip
        mark(account)


@kernel
def _blank(row: Row, ts: int, clock: Row, strategy: int, symbol: int) -> None:
    clock.version += 1
    row.ts = ts
    row.version = clock.version
    row.strategy = strategy
    row.symbol = symbol


@kernel
def _position_row(row: Row, cell: Row, market: Row) -> None:
    row.quantity = cell.quantity
    row.average_price = cell.cost / cell.quantity if cell.quantity != 0.0 else 0.0
    row.price = market.price
    worth = market.price * market.unit
    row.value = cell.quantity * worth
    row.realised_pnl = cell.realised_pnl
    row.unrealised_pnl = row.value - cell.cost
    row.fees = cell.fees
    row.slippage = cell.slippage
    row.financing = cell.financing


@kernel
def _account_row(row: Row, account: Row) -> None:
    row.cash = account.cash
    row.financing = account.financing
    row.equity = account.equity
    row.peak = account.peak
    row.drawdown = drawdown(account)
    row.volatility = account.volatility
    row.sharpe = account.sharpe
    row.sortino = account.sortino
    row.value_at_risk = account.value_at_risk


@inlined_kernel
def snapshot(
    ts: int, clock: Row, accounts: Rows, cells: Rows, market: Rows,
    rows: Rows, counts: Ints, place: int,
) -> None:  # fmt: skip
    """Append the pool, every account and every position once held to `rows`."""
    revalue(accounts, cells, market, clock)
    count = counts[place]
    _blank(rows[count], ts, clock, NOBODY, NOBODY)
    rows[count].cash = clock.pool
    rows[count].equity = clock.pool
    rows[count].peak = clock.pool
    count += 1
    for strategy in range(len(accounts)):
        _blank(rows[count], ts, clock, strategy, NOBODY)
        _account_row(rows[count], accounts[strategy])
        count += 1
        for symbol in range(len(market)):
            if cells[strategy, symbol].held == 1:
                _blank(rows[count], ts, clock, strategy, symbol)
                _position_row(rows[count], cells[strategy, symbol], market[symbol])
                count += 1
    counts[place] = count


def move_capital(account: Any, amount: float) -> None:
    """Give capital to a strategy, or take it away (`amount` below 0); see `operation.Move`.

    Equity divided by a base stays what it was, also from the moment all of it is taken (`left`
    keeps what it was then) to the moment other comes. Where it lost all, bases move along.

    Parameters
    ----------
    account : its `records.ACCOUNT` row, in Python; without a position if nothing is left.
    amount : the book's currency.
    """
    before = float(account["equity"] + account["left"])
    account["allocation"] += amount
    account["cash"] = round(float(account["cash"]) + amount, 8)
    account["equity"] += amount
    after = float(account["equity"])
    account["left"] = before if before > 0 and after <= 0 else 0.0
    if account["left"] > 0:
        account["risk_equity"] = 0.0  # it has no return until capital comes
        return
    for base in BASES:
        if before <= 0:
            account[base] += amount
        elif account[base] == 0:  # a day or a risk bar that began with nothing
            account[base] = after
        else:
            account[base] = after * (account[base] / before)  # never below, rounded, at a peak
