"""The oracle's exits: section 6 of `docs/engine.md`, rules that are watched and brackets."""

from types import SimpleNamespace

from tests.oracle_book import Account
from tests.oracle_market import NAN, Cell, Ended, Event, Kind, Purpose, against, sign
from tests.oracle_sizing import Sizing


class Exits(Sizing):
    """What ends a position besides its target; `Oracle` sends and ends the orders."""

    def exit_rules(self, account: Account, cell: Cell, event: Event) -> None:
        rules = self.rules("exits", account)
        if cell.left:
            self.close_side(account, cell, *cell.left, event.ts)
            cell.left = None
        side = sign(cell.held)
        if side and cell.grown_on != event.no and cell.closed_side != side:
            purpose = self.fired(rules, cell, event, side)
            if purpose:
                self.close_side(account, cell, side, purpose, event.ts)
        if rules.flatten_drawdown is None or not any(c.held for c in account.cells):
            return
        equity = self.equity(account)
        if 1 - equity / account.exit_peak >= rules.flatten_drawdown:
            account.exit_peak = equity
            for other in account.cells:
                if other.held:
                    self.close_side(account, other, sign(other.held), Purpose.DRAWDOWN, event.ts)

    def fired(self, rules: SimpleNamespace, cell: Cell, event: Event, side: float) -> int:
        """Purpose of the first rule that this event reached, 0 for none; moves `best`."""
        worse, better = (event.low, event.high) if side > 0 else (event.high, event.low)
        by_rule = rules.how == "rule"

        def reached(gap: float) -> bool:
            if abs(gap) <= 1e-12 * abs(cell.entry):
                self.level_calls.add((event.ts, cell.strategy))
            return gap <= 0

        def trails(price: float) -> bool:
            if rules.trailing_stop is None:
                return False
            return reached(side * (price - cell.best * (1 - side * rules.trailing_stop)))

        found = 0
        if by_rule and rules.stop_loss is not None:
            level = cell.entry * (1 - side * rules.stop_loss)
            found = Purpose.STOP_LOSS if reached(side * (worse - level)) else 0
        if by_rule and not found and trails(worse):
            found = Purpose.TRAILING_STOP
        if by_rule and not found and rules.take_profit is not None:
            level = cell.entry * (1 + side * rules.take_profit)
            found = Purpose.TAKE_PROFIT if reached(side * (level - better)) else 0
        cell.best = max(cell.best, better) if side > 0 else min(cell.best, better)
        if by_rule and not found and trails(event.close):
            found = Purpose.TRAILING_STOP
        if not found and rules.max_hold_s is not None:
            found = (
                Purpose.MAX_HOLD
                if event.ts - cell.opened_ts >= round(rules.max_hold_s * 1e9)
                else 0
            )
        return found

    def close_side(self, account: Account, cell: Cell, side: float, purpose: int, ts: int) -> None:
        cell.closed_side, cell.since_exit, cell.purpose = side, 0, purpose
        cell.changed = cell.pending = cell.exiting = True
        cell.slices_left, cell.refused_target = 0, NAN
        if purpose in (Purpose.STOP_LOSS, Purpose.TRAILING_STOP):
            account.stopped_ts = ts

    def rearm(self, account: Account, cell: Cell) -> None:
        rules = self.rules("exits", account)
        if cell.closed_side and (
            sign(cell.target) != cell.closed_side
            or (rules.rearm == "bars" and cell.since_exit >= rules.rearm_bars)
        ):
            cell.closed_side = 0

    def brackets(self, account: Account, cell: Cell, event: Event) -> None:
        """Both legs anew, where this event made the position."""
        if cell.grown_on != event.no or not cell.held:
            return
        for order in cell.orders[1:]:
            if order:
                self.end(order, Ended.REPLACED, event.ts)
        rules, tick = self.rules("exits", account), self.markets[cell.symbol].rules.tick_size
        side, quantity = sign(cell.held), -cell.held
        if rules.stop_loss is not None:
            level = against(cell.entry * (1 - side * rules.stop_loss), tick, -side)
            leg = {"kind": Kind.STOP, "stop": level}
            self.send(
                account,
                cell,
                event.ts,
                quantity,
                Purpose.STOP_LOSS,
                reduce_only=True,
                slot=1,
                leg=leg,
            )
        elif rules.trailing_stop is not None:
            leg = {"kind": Kind.TRAILING_STOP, "trail": rules.trailing_stop}
            self.send(
                account,
                cell,
                event.ts,
                quantity,
                Purpose.TRAILING_STOP,
                reduce_only=True,
                slot=1,
                leg=leg,
            )
        if rules.take_profit is not None:
            level = against(cell.entry * (1 + side * rules.take_profit), tick, side)
            leg = {"kind": Kind.LIMIT, "limit": level}
            self.send(
                account,
                cell,
                event.ts,
                quantity,
                Purpose.TAKE_PROFIT,
                reduce_only=True,
                slot=2,
                leg=leg,
            )
