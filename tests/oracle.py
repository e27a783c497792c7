"""The second specification of the engine: `docs/engine.md` in plain Python, slow and readable.

`Oracle(case).run()` takes a case of `tests.streams` (plain dicts and numbers) and returns the rows
that the engine must cause, table by table. It imports nothing of the package and shares no code
with it: what both got wrong alike, both read alike in the page.
"""

import math
from types import SimpleNamespace

from tests.oracle_book import Account, event_of
from tests.oracle_broker import Broker, place
from tests.oracle_defaults import complete
from tests.oracle_exits import Exits
from tests.oracle_market import (
    NAN,
    NEVER,
    Cell,
    Ended,
    Event,
    Order,
    Purpose,
    Tif,
    cut,
    order_key,
    sign,
)
from tests.oracle_risk import REFUSE, review
from tests.oracle_sizing import ACTIVE, HALTED, REDUCING
from tests.streams import weight_of


class Oracle(Exits):
    """A book of strategies over one stream of events."""

    def __init__(self, case: SimpleNamespace) -> None:
        case = complete(case)
        super().__init__(case)
        keys = [order_key(account.name) for account in self.accounts]
        self.broker = Broker(case.execution, case.seed, keys, self.fill, self.end)
        self.state, self.holds = ACTIVE, set()
        self.suppressed = 0
        self.close_calls = set()
        self.level_calls = set()
        self.bar_end: int | None = None
        self.bars: dict[int, Event] = {}
        self.done = [0.0] * len(self.markets)  # of the open bars of an activity
        self.event: Event | None = None
        self.calls = list(case.calls)
        for account in self.accounts:
            account.promoted = account.name in case.promoted

    def run(self) -> dict[str, list[dict]]:
        """Take every event of the case; the rows caused."""
        for no, row in enumerate(self.case.events):
            self.apply_calls(no)
            self.take(event_of(row, self.case.interval, no))
        return self.rows

    def apply_calls(self, no: int) -> None:
        """What an operator does before event `no`, as section 9 says."""
        while self.calls and self.calls[0][0] == no:
            wish = self.calls.pop(0)[1]
            if wish["type"] == "hold":
                self.hold(wish["reason"], wish["on"])
                continue
            named = [a for a in self.accounts if wish["strategy"] in (None, a.name)]
            for account in named:
                self.operate(account, wish)

    def operate(self, account: Account, wish: dict) -> None:
        for cell in account.cells:
            if wish["type"] == "weigh":
                cell.changed, cell.slices_left = True, 0
            elif wish["type"] == "rearm":
                cell.entries = 0
            elif wish["symbol"] in (None, self.names[cell.symbol]):
                self.switch(cell, wish["state"])
        account.scale = wish.get("weight", account.scale)
        account.disabled &= wish["type"] != "rearm"
        account.failed &= wish.get("state") != "active"

    def switch(self, cell: Cell, state: str) -> None:
        """Section 9, one cell."""
        was, cell.state = cell.state, state
        if state == "active":
            if was == "off" or self.accounts[cell.strategy].failed:
                cell.target = cell.refused_target = NAN
            return
        cell.slices_left, cell.follow = 0, False
        if state == "off":
            cell.refused_target = NAN
        if state == "off" or cell.orders[0]:
            cell.changed = cell.pending = True

    def hold(self, reason: str, on: bool) -> None:
        """Section 9, the book: entries, or all orders, are stopped."""
        (self.holds.add if on else self.holds.discard)(reason)
        was, self.state = self.state, REDUCING if self.holds else ACTIVE
        if "halt" in self.holds:
            self.state = HALTED
        cancels = self.state == HALTED > was or (on and reason == "stop")
        for account in self.accounts if cancels else ():
            for cell in account.cells:
                if cell.orders[0]:
                    self.cancel(cell.orders[0], self.now)
                cell.slices_left, cell.follow = 0, False

    def fails(self, account: Account, symbol: int, bars: dict[int, Event], ts: int) -> bool:
        """Whether the code of a strategy raises on this bar."""
        script = self.case.scripts[account.name]
        legs = self.case.legs
        asked = not legs or (symbol in legs and set(legs) <= set(bars))
        return bool(asked and 0 < script.get("fails_at", 0) <= float(ts))

    # -- section 1: the order of things
    def take(self, event: Event) -> None:
        """One event, and before it the mark of the bars that close there."""
        if self.bar_end is not None and event.ts >= self.bar_end:
            end, bars, self.bars, self.bar_end = self.bar_end, self.bars, {}, None
            self.close_bars(end, bars)
        is_late = event.ts < self.now
        if event.what == "trade":
            self.add_to_bar(event, is_late)
        if not is_late:
            self.happen(event)
        if event.what == "trade" and self.case.activity:
            self.count(event)

    def count(self, event: Event) -> None:
        """The mark of a bar of an activity right after the tick that completes it."""
        measure, size = self.case.activity
        y, rules = event.symbol, self.markets[event.symbol].rules
        is_quote = rules.volume_unit == "quote"
        if measure == "ticks":
            self.done[y] += 1
        elif measure == "volume":
            self.done[y] += event.volume / event.close if is_quote else event.volume
        else:
            value = event.close * event.volume * rules.multiplier
            self.done[y] += event.volume if is_quote else value
        if self.done[y] >= size * (1 - 1e-9):
            self.done[y] = 0.0
            self.close_bars(self.now, {y: self.bars.pop(y)})

    def happen(self, event: Event) -> None:
        """An event that is not late."""
        if not self.next_accrual:
            self.start(event.ts)
        self.pass_time(event.ts)
        self.event = event
        market = self.markets[event.symbol] if event.what != "clock" else None
        if event.what == "trade":
            self.trade(event)
        elif market:
            market.halted = event.what == "halt"

    def add_to_bar(self, event: Event, is_late: bool) -> None:
        interval = self.case.interval
        if self.case.activity:
            pass
        elif is_late and (self.bar_end is None or event.ts < self.bar_end - interval):
            return
        elif self.bar_end is None:
            self.bar_end = event.ts // interval * interval + interval
        bar = self.bars.get(event.symbol)
        if bar is None:
            self.bars[event.symbol] = Event(**(vars(event) | {"start": event.ts}))
            return
        if event.ts < bar.start:  # `start` and `ts` of an open bar: its first and last trade
            bar.start, bar.open = event.ts, event.open
        if event.ts >= bar.ts:
            bar.ts, bar.close = event.ts, event.close
        bar.high, bar.low = max(bar.high, event.high), min(bar.low, event.low)
        bar.volume += event.volume

    def close_bars(self, end: int, bars: dict[int, Event]) -> None:
        """The mark at which these bars close."""
        self.pass_time(end)
        self.mark()
        self.close_risk_bar(end)
        for y in sorted(bars):
            self.markets[y].update(bars[y], 2 / (self.terms.statistics_span + 1))
        self.snapshot(end)
        for account in self.accounts:
            before = len(self.rows["orders"])
            for y in sorted(bars):
                self.decide(account, account.cells[y], bars, end)
            if self.case.legs:
                self.withdraw(account, self.rows["orders"][before:], end)

    def trade(self, event: Event) -> None:
        market = self.markets[event.symbol]
        cells = [account.cells[event.symbol] for account in self.accounts]
        takes_part = [bool(cell.held or any(cell.orders)) for cell in cells]
        if not market.halted and self.unit(event.symbol) is not None:
            for cell in cells:
                self.broker.meet(event, market, cell)
        market.previous, market.price, market.ts = market.price, event.close, event.ts
        self.mark()
        if market.halted:
            return
        for account, cell, takes in zip(self.accounts, cells, takes_part, strict=True):
            if takes:
                self.exit_rules(account, cell, event)
        for account, cell in zip(self.accounts, cells, strict=True):
            self.owed(account, cell, event)

    # -- section 2: from target to order
    def decide(self, account: Account, cell: Cell, bars: dict[int, Event], ts: int) -> None:
        cell.bars += 1
        cell.since_refusal += 1
        cell.since_exit += 1
        if not account.failed and self.fails(account, cell.symbol, bars, ts):
            self.fail(account)
        elif self.markets[cell.symbol].price and self.unit(cell.symbol) is not None:
            self.take_target(account, cell, bars, ts)

    def fail(self, account: Account) -> None:
        account.failed = True
        for cell in account.cells:
            self.switch(cell, "off")

    def take_target(self, account: Account, cell: Cell, bars: dict[int, Event], ts: int) -> None:
        target = NAN if account.failed else self.target(account, cell.symbol, bars, ts)
        if target == target and target != cell.target:
            cell.target, cell.changed, cell.entries, cell.slices_left = target, True, 0, 0
            price = self.markets[cell.symbol].price
            row = {"ts": ts, "strategy": cell.strategy, "symbol": cell.symbol}
            self.rows["signals"].append(row | {"target": target, "price": price})
        if not math.isnan(cell.target):
            self.rearm(account, cell)
        elif cell.state != "off" or not cell.held:
            return
        if self.state == HALTED:
            return
        if cell.orders[0]:
            if not cell.changed:
                return
            cell.pending = True
            if not self.cancel(cell.orders[0], ts):
                return
        if cell.changed or not cell.slices_left:
            self.propose(account, cell, ts)

    def target(self, account: Account, symbol: int, bars: dict[int, Event], ts: int) -> float:
        """What the script of a strategy wants at a bar's close; of legs, all or nothing."""
        script = self.case.scripts[account.name]
        if not self.case.legs:
            return weight_of(script, ts, bars[symbol].close)
        if symbol not in self.case.legs or not set(self.case.legs) <= set(bars):
            return NAN
        weights = {leg: weight_of(script, ts, bars[leg].close) for leg in self.case.legs}
        return NAN if any(map(math.isnan, weights.values())) else weights[symbol]

    def withdraw(self, account: Account, written: list[dict], ts: int) -> None:
        """Section 2.7: one refused, none goes."""
        if all(row["approved"] for row in written):
            return
        for row in written:
            cell, quantity = account.cells[row["symbol"]], row["quantity"]
            reduces = cell.held * quantity < 0 and abs(quantity) <= abs(cell.held)
            if row["approved"] and not reduces:
                self.end(cell.orders[0], Ended.LEGS, ts)

    def propose(self, account: Account, cell: Cell, ts: int, *, follow: bool = False) -> None:
        """What the standing target asks for now, or an exit, if it is worth an order."""
        is_exit = cell.exiting or sign(cell.target) * cell.closed_side > 0
        is_off = cell.state == "off"
        wanted = 0.0 if is_exit else self.wanted(account, cell)
        if wanted is None:
            return
        worth = follow or self.is_worth_it(account, cell, wanted)
        cell.changed = cell.pending = cell.exiting = False
        if not worth:
            return
        retry_after = self.rules("sizing", account).retry_after
        again = cell.target == cell.refused_target and cell.since_refusal < retry_after
        if again and not is_off:
            self.suppressed += 1
            return
        quantity = cut(wanted - cell.held, self.markets[cell.symbol].rules.lot_size)
        if quantity == 0:
            return
        if is_exit or is_off:
            purpose = Purpose.OFF if is_off else cell.purpose
            self.send(account, cell, ts, quantity, purpose, reduce_only=True)
        elif follow:
            self.send(account, cell, ts, quantity, Purpose.FOLLOW_UP)
        else:
            self.first_slice(account, cell, ts, wanted, quantity)

    def first_slice(self, account: Account, cell: Cell, ts: int, wanted: float, quantity: float):
        rules, market = self.rules("orders", account), self.markets[cell.symbol]
        notional = abs(quantity) * self.price(cell.symbol)
        n = rules.slices
        if market.rules.min_notional > 0:
            n = max(1, min(n, math.floor(notional / market.rules.min_notional)))
        if n > 1:
            cell.goal, cell.slices_left = wanted, n
            self.slice(account, cell, ts, Purpose.SIGNAL)
        else:
            self.send(account, cell, ts, quantity, Purpose.SIGNAL)

    def slice(self, account: Account, cell: Cell, ts: int, purpose: int) -> None:
        """The next of the orders that a proposal was cut into."""
        lot = self.markets[cell.symbol].rules.lot_size
        quantity = cut(cell.goal - cell.held, lot)
        if cell.slices_left > 1:
            quantity = self.whole_lots(cell, quantity / cell.slices_left)
        cell.slices_left -= 1
        cell.next_slice = ts + round(self.rules("orders", account).slice_s * 1e9)
        if quantity:
            self.send(account, cell, ts, quantity, purpose)

    def cancel(self, order: Order, ts: int) -> bool:
        """Send a cancel, once; whether the order ended at once."""
        if order.cancel_at == NEVER:
            order.cancel_at = max(order.due, ts + self.broker.latency(order, cancel=True))
        if order.end <= ts:
            self.end(order, order.reason, ts)
        return order.ended

    def owed(self, account: Account, cell: Cell, event: Event) -> None:
        """Section 2.5: what waited for this event, then brackets."""
        if self.state == HALTED:
            return
        follow, cell.follow = cell.follow, False
        if cell.orders[0] and cell.pending:
            self.cancel(cell.orders[0], event.ts)
        if not cell.orders[0]:
            if cell.pending:
                self.propose(account, cell, event.ts)
            elif follow:
                self.propose(account, cell, event.ts, follow=True)
            elif cell.slices_left and event.ts >= cell.next_slice:
                self.slice(account, cell, event.ts, Purpose.SLICE)
        if self.rules("exits", account).how == "bracket":
            self.brackets(account, cell, event)

    # -- section 2.6: a proposal
    def send(
        self, account: Account, cell: Cell, ts: int, quantity: float, purpose: int, *,
        reduce_only: bool = False, slot: int = 0, leg: dict | None = None,
    ) -> None:  # fmt: skip
        """Number, plan, review and place one order; a leg of a bracket brings its own plan.

        Exits and follow-ups are plain market orders, good till cancelled.
        """
        account.order_no += 1
        market = self.markets[cell.symbol]
        order = Order(account.order_no, cell.strategy, cell.symbol, slot, quantity, purpose, ts)
        order.asked, order.target, order.reduce_only = quantity, cell.target, reduce_only
        if leg:
            vars(order).update(leg)
        elif purpose in (Purpose.SIGNAL, Purpose.SLICE):
            place(order, self.rules("orders", account), market, cell.held)
        refused = self.reviewed(account, order, ts)
        if refused and self.case.risk.cut and not self.case.legs:
            room = min(receipt[4] for receipt in refused)
            size = self.whole_lots(cell, room)
            is_worth = size * self.price(cell.symbol) >= market.rules.min_notional
            if 0 < size < abs(quantity) and is_worth:
                order.quantity = order.side * size
                refused = self.reviewed(account, order, ts, attempt=2)
        self.write_order(account, cell, order, refused)
        if refused:
            self.refuse(cell, order)
        else:
            self.approve(account, cell, order, ts)

    def reviewed(self, account: Account, order: Order, ts: int, attempt: int = 1) -> list[tuple]:
        """Write the receipts of the chain; those that refuse."""
        receipts = review(self, account, order, ts)
        row = {
            "ts": ts, "strategy": order.strategy, "order_no": order.no, "symbol": order.symbol,
            "attempt": attempt, "receipts": receipts,
        }  # fmt: skip
        self.rows["risk_receipts"].append(row)
        for name, value, limit, verdict, *_ in receipts:
            if name == "repeated_order" and verdict == REFUSE and value > limit:
                account.disabled = True
        return [receipt for receipt in receipts if receipt[3] == REFUSE]

    def refuse(self, cell: Cell, order: Order) -> None:
        """The retry rule: of the standing target, not of a bracket's legs."""
        if order.slot == 0 and order.target == cell.target:
            cell.refused_target, cell.since_refusal, cell.slices_left = cell.target, 0, 0

    def approve(self, account: Account, cell: Cell, order: Order, ts: int) -> None:
        reduces = cell.projected * order.quantity < 0
        reduces = reduces and abs(order.quantity) <= abs(cell.projected)
        order.left = abs(order.quantity)
        cell.entries += order.slot == 0 and not reduces
        if order.slot == 0:
            cell.last_order_ts, cell.last_quantity = ts, order.quantity
            cell.refused_target = NAN
        account.approved_ts.append(ts)
        cell.orders[order.slot] = order

    def write_order(self, account: Account, cell: Cell, order: Order, refused: list[tuple]):
        order.due = order.born + self.broker.latency(order)
        names = [name for name, _ in self.case.risk.checks]
        row = {
            "ts": order.born, "strategy": order.strategy, "order_no": order.no,
            "symbol": order.symbol, "kind": order.kind, "tif": order.tif,
            "purpose": order.purpose, "approved": int(not refused),
            "due": order.due, "expires": order.expires,
            "refused_by": sum(1 << names.index(receipt[0]) for receipt in refused),
            "quantity": order.quantity, "asked": order.asked, "target": cell.target,
            "price": self.markets[order.symbol].price,
            "limit_price": order.limit, "stop_price": order.stop,
        }  # fmt: skip
        self.rows["orders"].append(row)

    # -- what the broker tells
    def fill(self, order: Order, quantity: float, price, reference, maker: bool, ts: int) -> None:
        """Account for a fill; a position that went flat or turned ends its bracket."""
        account = self.accounts[order.strategy]
        cell = account.cells[order.symbol]
        rules = self.markets[order.symbol].rules
        before = self.broker.fee_total(order)
        order.fills += 1
        order.filled = cut(order.filled + abs(quantity), rules.lot_size)
        rate = self.broker.rates(rules)[0 if maker else 1]
        order.rate_value += abs(quantity) * price * self.unit(order.symbol) * rate
        fee = cut(self.broker.fee_total(order) - before, 1e-8)
        held = self.book_fill(
            order, quantity, price, reference, fee, ts, maker=maker, event=self.event.no
        )
        if held * cell.held <= 0 and held:
            for leg in cell.orders[1:]:
                if leg and leg is not order:
                    self.end(leg, Ended.OCO, ts)
            if order.slot and cell.held == 0:
                cell.left = (sign(held), order.purpose)

    def end(self, order: Order, reason: int, ts: int) -> None:
        """An order works no more: free its slot, write the row."""
        account = self.accounts[order.strategy]
        cell = account.cells[order.symbol]
        order.ended = True
        cell.orders[order.slot] = None
        row = {
            "ts": ts, "strategy": order.strategy, "order_no": order.no, "symbol": order.symbol,
            "reason": reason, "filled": order.side * order.filled,
            "remainder": order.side * order.left,
        }  # fmt: skip
        self.rows["order_ends"].append(row)
        if reason in (Ended.REJECTED, Ended.LEGS):
            self.refuse(cell, order)
        then = self.rules("orders", account).then
        if (
            reason == Ended.EXPIRED
            and order.tif == Tif.GTD
            and then == "market"
            and order.slot == 0
        ):
            cell.follow = not cell.changed and self.state != HALTED
