"""The oracle's accounts: cash, positions, financing, days, risk bars, snapshots.

Written from `docs/engine.md` (5, 7, 8) in plain Python. Equity is always added up anew from what
is held, nothing is carried along that could drift.
"""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

from tests.oracle_market import NAN, SECOND, Cell, Event, Market, Order, cut, divide, sign

HOUR = 3600 * SECOND
DAY = 24 * HOUR
FUNDING, BORROW, INTEREST = range(3)
YEAR_HOURS = 8760
Row = dict[str, float]


@dataclass
class Account:
    """One strategy's money and its counters."""

    name: str
    allocation: float
    cells: list[Cell]
    cash: float = 0.0
    peak: float = 0.0
    exit_peak: float = 0.0
    day_equity: float = 0.0
    risk_equity: float = 0.0
    interest: float = 0.0
    scale: float = 1.0  # of its targets
    failed: bool = False
    promoted: bool = True
    disabled: bool = False
    order_no: int = 0
    losses: int = 0
    losses_in_doubt: bool = False  # whether a fill lost or earned is a matter of rounding
    stopped_ts: int | None = None
    approved_ts: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cash = self.peak = self.exit_peak = self.day_equity = self.allocation


class Ledger:
    """Money of a book: strategies, a pool, and the rows it writes into `rows`."""

    def __init__(self, case: SimpleNamespace) -> None:
        self.case = case
        self.terms = case.execution
        self.markets = [Market(rules) for rules in case.universe]
        self.names = [rules.symbol for rules in case.universe]
        self.accounts = []
        for k, name in enumerate(sorted(case.fractions)):
            cells = [Cell(k, y) for y in range(len(case.universe))]
            allocation = cut(case.fractions[name] * case.capital, 1e-8)
            self.accounts.append(Account(name, allocation, cells))
        self.pool = cut(case.capital - sum(a.allocation for a in self.accounts), 1e-8)
        self.peak = self.day_equity = self.pool + sum(a.allocation for a in self.accounts)
        self.now = self.version = 0
        self.day: int | None = None
        self.next_accrual = {}  # funding or financing -> its next time
        self.risk_bar: int | None = None
        self.snapshot_no: int | None = None
        self.risk_prices: list[float | None] = [None] * len(self.markets)
        self.scenarios: list[list[float]] = []  # returns per symbol, a row per risk bar
        self.known = [0] * len(self.markets)  # how many of them each symbol has
        self.covariance = [[0.0] * len(self.markets) for _ in self.markets]
        self.rows: dict[str, list[Row]] = {
            name: []
            for name in (
                "signals", "orders", "risk_receipts", "executions", "order_ends", "financing",
                "portfolio_history",
            )
        }  # fmt: skip

    # -- value
    def unit(self, symbol: int) -> float | None:
        """Book currency per unit at a price of 1; None while the rate is unknown."""
        rules = self.markets[symbol].rules
        if not rules.conversion:
            return rules.multiplier
        rate = self.markets[self.names.index(rules.conversion)].price
        return None if rate is None else rules.multiplier * rate

    def price(self, symbol: int) -> float:
        """Book currency per unit: last price x unit."""
        return self.markets[symbol].price * self.unit(symbol)

    def value(self, account: Account) -> float:
        return sum(c.held * self.price(c.symbol) for c in account.cells if c.held)

    def equity(self, account: Account) -> float:
        return account.cash + self.value(account)

    def book_equity(self) -> float:
        return self.pool + sum(self.equity(account) for account in self.accounts)

    def mark(self, *, book: bool = True) -> None:
        """Peaks, after a trade or an accrual."""
        for account in self.accounts:
            equity = self.equity(account)
            account.peak = max(account.peak, equity)
            account.exit_peak = max(account.exit_peak, equity)
        if book:
            self.peak = max(self.peak, self.book_equity())

    # -- a fill
    def book_fill(
        self, order: Order, quantity: float, price: float, reference: float, fee: float, ts: int,
        *, maker: bool, event: int,
    ) -> float:  # fmt: skip
        """Move cash and position, write the row; returns what was held before."""
        account = self.accounts[order.strategy]
        cell = account.cells[order.symbol]
        unit, lot = self.unit(order.symbol), self.markets[order.symbol].rules.lot_size
        held, cost = cell.held, price * unit
        after = cut(held + quantity, lot)
        realised = 0.0
        if held * quantity < 0:
            closed = min(abs(quantity), abs(held))
            realised = closed * sign(held) * (cost - cell.average_price)
        if held * after <= 0:  # opened, flat or turned
            cell.average_price, cell.entry = (cost, price) if after else (0.0, 0.0)
            cell.best, cell.opened_ts = price, ts
        elif abs(after) > abs(held):
            cell.average_price += (cost - cell.average_price) * quantity / after
            cell.entry += (price - cell.entry) * quantity / after
        if after and (held * after <= 0 or abs(after) > abs(held)):
            cell.grown_on = event
        cell.held = after
        slippage = quantity * (price - reference) * unit
        account.cash = cut(account.cash - (quantity * cost + fee), 1e-8)
        cell.realised += realised
        cell.fees += fee
        cell.slippage += slippage
        account.losses = account.losses + 1 if realised < 0 else account.losses
        account.losses = 0 if realised > 0 else account.losses
        is_rounding = 0 < abs(realised) < 1e-12 * abs(quantity) * cost
        account.losses_in_doubt = is_rounding or (account.losses_in_doubt and realised <= 0)
        row = {
            "ts": ts, "strategy": order.strategy, "order_no": order.no, "fill_no": order.fills,
            "symbol": order.symbol, "maker": int(maker), "quantity": quantity, "price": price,
            "reference": reference, "slippage": slippage, "fee": fee, "realised_pnl": realised,
        }  # fmt: skip
        self.rows["executions"].append(row)
        return held

    # -- time
    def start(self, ts: int) -> None:
        """Set the times of the first accruals: multiples after the first event's time."""
        for name, hours in (
            ("funding", self.terms.funding_hours), ("financing", self.terms.financing_hours),
        ):  # fmt: skip
            period = round(hours * HOUR)
            self.next_accrual[name] = (ts // period + 1) * period

    def pass_time(self, ts: int) -> None:
        """Accruals due at or before `ts`, then perhaps a new day."""
        self.now = max(self.now, ts)
        while self.next_accrual and min(self.next_accrual.values()) <= ts:
            at = min(self.next_accrual.values())
            if self.next_accrual["funding"] == at:
                self._pay_funding(at)
                self.mark(book=False)
                self.next_accrual["funding"] += round(self.terms.funding_hours * HOUR)
            if self.next_accrual["financing"] == at:
                self._pay_financing(at)
                self.next_accrual["financing"] += round(self.terms.financing_hours * HOUR)
                self.mark(book=False)
        if ts // DAY != self.day:
            self.day = ts // DAY
            for account in self.accounts:
                account.day_equity = self.equity(account)
            self.day_equity = self.book_equity()

    def funding_rate(self, symbol: int, ts: int) -> float:
        """Last of the series at or before `ts`, else the constant."""
        times, rates = (self.terms.funding or {}).get(self.names[symbol], ((), ()))
        known = [rate for at, rate in zip(times, rates, strict=True) if at <= ts]
        return known[-1] if known else self.terms.funding_rate

    def _pay_funding(self, ts: int) -> None:
        for account in self.accounts:
            for cell in account.cells:
                if cell.held and self.markets[cell.symbol].rules.perpetual:
                    rate = self.funding_rate(cell.symbol, ts)
                    self._pay(account, cell, ts, FUNDING, cell.held * self.price(cell.symbol), rate)

    def _pay_financing(self, ts: int) -> None:
        share = self.terms.financing_hours / YEAR_HOURS
        for account in self.accounts:
            for cell in account.cells:
                if cell.held < 0:
                    base = abs(cell.held * self.price(cell.symbol))
                    self._pay(account, cell, ts, BORROW, base, self.terms.borrow_rate * share)
        for account in self.accounts:
            if account.cash < 0:
                base, rate = abs(account.cash), self.terms.interest_rate * share
                self._pay(account, None, ts, INTEREST, base, rate)

    def _pay(self, account, cell: Cell | None, ts: int, kind: int, base: float, rate: float):
        amount = cut(base * rate, 1e-8)
        account.cash = cut(account.cash - amount, 1e-8)
        if cell:
            cell.financing += amount
        else:
            account.interest += amount
        row = {
            "ts": ts, "strategy": self.accounts.index(account),
            "symbol": cell.symbol if cell else -1, "kind": kind, "base": base, "amount": amount,
        }  # fmt: skip
        self.rows["financing"].append(row)

    # -- marks
    def close_risk_bar(self, end: int) -> None:
        """At the first mark of a risk bar: returns of symbols and strategies (8)."""
        risk = self.case.risk
        if end // risk.risk_bar == self.risk_bar:
            return
        self.risk_bar, is_known = end // risk.risk_bar, False
        row = [0.0] * len(self.markets)
        for y, market in enumerate(self.markets):
            if market.price is not None and self.risk_prices[y] is not None:
                row[y] = market.price / self.risk_prices[y] - 1
                self.known[y] += 1
                is_known = True
            self.risk_prices[y] = market.price
        if not is_known:
            for account in self.accounts:
                account.risk_equity = self.equity(account)
            return
        self.scenarios.append(row)
        for i, left in enumerate(row):
            for j, right in enumerate(row):
                old = self.covariance[i][j]
                self.covariance[i][j] = risk.decay * old + (1 - risk.decay) * left * right
        for account in self.accounts:
            equity = self.equity(account)
            account.returns.append(divide(equity, account.risk_equity) - 1)
            account.risk_equity = equity

    def statistics(self, account: Account) -> Row:
        """Volatility, Sharpe, Sortino and value at risk of the strategy's equity returns."""
        risk = self.case.risk
        returns = account.returns[-risk.window :]
        n, year = len(returns), math.sqrt(365 * DAY / risk.risk_bar)
        if n < 2:
            return dict.fromkeys(("volatility", "sharpe", "sortino", "value_at_risk"), NAN)
        mean = sum(returns) / n
        deviation = math.sqrt(sum((r - mean) ** 2 for r in returns) / (n - 1))
        down = math.sqrt(sum(min(0.0, r) ** 2 for r in returns) / n)
        worst = sorted(returns)[worst_of(n, risk.confidence) - 1]
        return {
            "volatility": deviation * year,
            "sharpe": mean / deviation * year if deviation else NAN,
            "sortino": mean / down * year if down else NAN,
            "value_at_risk": max(0.0, -worst),
        }

    def snapshot(self, end: int) -> None:
        """Rows of the pool, of every strategy and of every cell, once per `snapshot_ns`."""
        if end // self.case.snapshot_ns == self.snapshot_no:
            return
        self.snapshot_no = end // self.case.snapshot_ns
        rows = self.rows["portfolio_history"]
        rows.append({"ts": end, "strategy": -1, "symbol": -1, "cash": self.pool})
        for k, account in enumerate(self.accounts):
            equity = self.equity(account)
            row = {
                "ts": end, "strategy": k, "symbol": -1, "cash": account.cash, "equity": equity,
                "financing": account.interest, "peak": account.peak,
                "drawdown": equity / account.peak - 1,
            }  # fmt: skip
            rows.append(row | self.statistics(account))
            rows += [{"ts": end, "strategy": k} | self._cell_row(cell) for cell in account.cells]

    def _cell_row(self, cell: Cell) -> Row:
        price = self.price(cell.symbol) if cell.held else 0.0
        return {
            "symbol": cell.symbol, "quantity": cell.held, "average_price": cell.average_price,
            "value": cell.held * price, "realised_pnl": cell.realised,
            "unrealised_pnl": cell.held * (price - cell.average_price), "fees": cell.fees,
            "slippage": cell.slippage, "financing": cell.financing,
        }  # fmt: skip


def worst_of(n: int, confidence: float) -> int:
    """The k of the k-th worst of n; a whole number but for rounding is that number."""
    return max(1, math.ceil((1 - confidence) * n - 1e-9))


def event_of(row: tuple, interval: int, no: int) -> Event:
    """An event from a row of a stream; see `streams`."""
    what, ts, symbol, *prices = row
    if what == "bar":
        return Event(ts - interval, ts - 1, symbol, *prices, no=no)
    if what == "tick":
        price, volume = prices
        return Event(ts, ts, symbol, price, price, price, price, volume, no=no)
    return Event(ts, ts, symbol, what=what, no=no)
