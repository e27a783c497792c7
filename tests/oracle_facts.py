"""What the oracle's checks read of one order and the book: sections 4 and 8 of `docs/engine.md`."""

from functools import cached_property
from typing import TYPE_CHECKING

from tests.oracle_book import Account, worst_of
from tests.oracle_market import NAN, Cell, Kind, Order, cut, fraction

if TYPE_CHECKING:
    from tests.oracle import Oracle


class Facts:
    """What one order and the book look like at the moment it is proposed."""

    def __init__(self, book: "Oracle", account: Account, order: Order, ts: int) -> None:
        self.book, self.account, self.order, self.ts = book, account, order, ts
        self.slack: dict[str, float] = {}  # check -> how far rounding may have moved its value
        self.cell = account.cells[order.symbol]
        self.market = book.markets[order.symbol]
        self.rules = self.market.rules
        self.q, self.size, self.s = order.quantity, abs(order.quantity), order.side
        self.h = self.cell.projected
        self.p = self.market.price
        self.u = book.price(order.symbol)
        self.n = (self.h + self.q) * self.u
        self.E = book.equity(account)
        self.B = book.book_equity()
        self.reduces = self.q * self.h < 0 and self.size <= abs(self.h)
        self.slip = book.broker.slip(self.market, self.q)

    # -- projected positions without the order's own cell (values)
    @cached_property
    def others(self) -> list[float]:
        return [self.value(c) for c in self.account.cells if c is not self.cell]

    @cached_property
    def book_others(self) -> list[float]:
        cells = [c for a in self.book.accounts for c in a.cells]
        return [self.value(c) for c in cells if c is not self.cell]

    def value(self, cell: Cell) -> float:
        return cell.projected * self.book.price(cell.symbol) if cell.projected else 0.0

    @cached_property
    def netted(self) -> list[float]:
        """Projected units of every symbol, over all strategies, without this order."""
        return [
            sum(a.cells[y].projected for a in self.book.accounts)
            for y in range(len(self.book.markets))
        ]

    @cached_property
    def book_values(self) -> list[float]:
        """Netted value of every symbol with this order."""
        lots = [m.rules.lot_size for m in self.book.markets]
        units = [cut(x, lot) for x, lot in zip(self.with_order, lots, strict=True)]
        return [x * self.book.price(y) if x else 0.0 for y, x in enumerate(units)]

    @cached_property
    def with_order(self) -> list[float]:
        own = self.order.symbol
        return [x + (self.q if y == own else 0.0) for y, x in enumerate(self.netted)]

    def units_up_to(self, bound: float) -> float:
        """Room of a check that bounds |h + q|, in units; none where even 0 is too much."""
        return bound - self.s * self.h if bound >= 0 else 0.0

    # -- cost
    def cost(self, order: Order, quantity: float) -> tuple[float, float]:
        """Worst cost of an order: per unit of its size, and what is fixed."""
        market, s = self.book.markets[order.symbol], order.side
        slip = self.book.broker.slip(market, quantity)
        price = order.stop if order.kind == Kind.STOP else market.price
        tick = market.rules.tick_size
        worst = max(price * (1 + s * slip) + s * tick, tick)
        if order.kind in (Kind.LIMIT, Kind.STOP_LIMIT):
            worst = order.limit
        taker = self.book.broker.rates(market.rules)[1]
        worth = worst * self.book.unit(order.symbol)
        fixed = max(self.book.terms.fee_fixed, self.book.terms.fee_minimum)
        return s * worth + worth * taker, fixed

    @cached_property
    def cash_others(self) -> float:
        left = self.account.cash
        for cell in self.account.cells:
            order = cell.orders[0]
            if order:
                per_unit, fixed = self.cost(order, order.left)
                left -= order.left * per_unit + fixed
        return left

    # -- scenarios
    @cached_property
    def rows(self) -> int | None:
        """How many scenarios are known of all that matters; None: too few."""
        risk = self.book.case.risk
        exposed = {y for y, x in enumerate(self.netted) if x} | {self.order.symbol}
        n = min(risk.window, *(self.book.known[y] for y in exposed))
        return None if n < risk.least_history and risk.min_history == "refuse" else n

    def pnl(self, exposures: list[float], n: int) -> list[float]:
        rows = self.book.scenarios[len(self.book.scenarios) - n :]
        return [sum(e * r for e, r in zip(exposures, row, strict=True)) for row in rows]

    def exposures(self, q: float) -> list[float]:
        own = self.order.symbol
        units = [x + (q if y == own else 0.0) for y, x in enumerate(self.netted)]
        return [x * self.book.price(y) if x else 0.0 for y, x in enumerate(units)]

    def historical(self, q: float, shortfall: bool) -> float:
        if self.rows is None:
            return NAN
        if self.rows == 0:
            return fraction(0.0, self.B)
        worst = sorted(self.pnl(self.exposures(q), self.rows))
        worst = worst[: worst_of(self.rows, self.book.case.risk.confidence)]
        loss = -sum(worst) / len(worst) if shortfall else -worst[-1]
        return fraction(max(0.0, loss), self.B)

    @cached_property
    def quadratic(self) -> tuple[float, float, float]:
        """a, b, c of the variance a + 2 b q + c q^2 of the book's P&L per risk bar."""
        if not self.rows:
            return (NAN,) * 3 if self.rows is None else (0.0,) * 3
        y = self.order.symbol
        scale = 1 - self.book.case.risk.decay ** len(self.book.scenarios)
        matrix = [[x / scale for x in row] for row in self.book.covariance]
        e = self.exposures(0.0)
        a = sum(
            ei * c * ej
            for ei, row in zip(e, matrix, strict=True)
            for ej, c in zip(e, row, strict=True)
        )
        b = self.u * sum(c * ej for c, ej in zip(matrix[y], e, strict=True))
        return a, b, self.u**2 * matrix[y][y]
