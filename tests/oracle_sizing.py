"""The oracle's sizes: from a target to a quantity, sections 2.2 and 2.3 of `docs/engine.md`."""

import math
from types import SimpleNamespace

from tests.oracle_book import Account, Ledger
from tests.oracle_broker import Broker
from tests.oracle_market import Cell, cut, cut_down, divide, sign

ACTIVE, REDUCING, HALTED = range(3)  # a book


class Sizing(Ledger):
    """What a strategy wants to hold, and whether the way there is worth an order."""

    broker: Broker
    state: int  # of the book
    close_calls: set[tuple[int, int]]  # (ts, strategy): rounding decided on a lot more or less
    level_calls: set[tuple[int, int]]  # the same: whether a level of an exit was reached

    def rules(self, name: str, account: Account) -> SimpleNamespace:
        """Orders, exits or sizing of a strategy."""
        return getattr(self.case, name)[account.name]

    def wanted(self, account: Account, cell: Cell) -> float | None:
        """Quantity to hold (2.2); None while a statistic or a target is unknown."""
        equity = self.equity(account)
        closed = cell.closed_side != 0 and sign(cell.target) == cell.closed_side
        if closed or cell.state == "off":
            return 0.0
        if cell.state == "paused":
            return cell.held
        if cell.target * account.scale == 0 or not equity > 0:
            return 0.0
        if math.isnan(cell.target):
            return None
        market, rules = self.markets[cell.symbol], self.rules("sizing", account)
        notional = self.notional(rules, cell, equity)
        if notional is None:
            return None
        unit = self.unit(cell.symbol)
        slip = self.broker.slip(market, abs(notional) / (market.price * unit))
        worst = market.price * (1 + slip) + market.rules.tick_size
        cost = worst * unit * (1 + self.broker.rates(market.rules)[1])
        wanted = self.whole_lots(cell, notional / cost)
        if (cell.state == "reducing" or self.state == REDUCING) and abs(wanted) > 0:
            if wanted * cell.held <= 0:
                return 0.0
            return cell.held if abs(wanted) > abs(cell.held) else wanted
        return wanted

    def whole_lots(self, cell: Cell, quantity: float) -> float:
        """Cut down to the lot; where rounding alone decides which lot, that is noted."""
        lot = self.markets[cell.symbol].rules.lot_size
        if math.isfinite(quantity):
            lots = abs(quantity) / lot
            cents = 2e-8 / (lot * self.price(cell.symbol))  # cash is cut to 1e-8, up or down
            if abs(lots - round(lots)) <= 1e-9 + 1e-13 * lots + cents:
                self.close_calls.add((self.now, cell.strategy))
        return cut_down(quantity, lot) if math.isfinite(quantity) else quantity

    def notional(self, rules: SimpleNamespace, cell: Cell, equity: float) -> float | None:
        w = cell.target * self.accounts[cell.strategy].scale
        share = 1 / len(self.markets) if rules.split else 1.0
        if rules.kind == "volatility_target":
            variance = self.markets[cell.symbol].variance
            if variance is None:
                return None
            sigma = math.sqrt(variance) * math.sqrt(365 * 86_400e9 / self.case.interval)
            return w * share * equity * min(rules.most, divide(rules.volatility, sigma))
        if rules.kind == "fixed_notional":
            return w * rules.notional
        if rules.kind == "risk_per_trade":
            return w * rules.risk * equity / rules.stop
        return w * share * equity

    def is_worth_it(self, account: Account, cell: Cell, wanted: float) -> bool:
        """Section 2.3."""
        lot = self.markets[cell.symbol].rules.lot_size
        difference = cut(wanted - cell.held, lot)
        if wanted == 0 or difference == 0:
            return difference != 0
        price = self.price(cell.symbol)
        notional = abs(difference) * price
        band = self.rules("sizing", account).band
        if not cell.changed and notional <= band * abs(wanted) * price:
            return False
        return notional >= self.markets[cell.symbol].rules.min_notional
