"""The oracle's simulated broker: the points of an event that orders meet, fills and their price.

Written from `docs/engine.md` (2.4, 3.1 to 3.3) in plain Python, without a line of the package. The
book that owns the cells is told of every fill and every end; nothing here knows of money.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace

from tests.oracle_market import (
    CLOSE,
    FIRST,
    OPEN,
    SECOND_EXTREME,
    Cell,
    Ended,
    Event,
    Kind,
    Market,
    Order,
    Tif,
    against,
    cut,
    cut_down,
    uniform,
)

_DAY_NS = 86_400 * 10**9

Fill = Callable[[Order, float, float, float, bool, int], None]
End = Callable[[Order, int, int], None]


class Broker:
    """Orders against the points of an event.

    `fill(order, quantity, price, reference, maker, ts)` and `end(order, reason, ts)` are called
    for what happens.
    """

    def __init__(self, terms: SimpleNamespace, seed: int, keys: list[int], fill: Fill, end: End):
        self.terms, self.seed, self.keys, self.fill, self.end = terms, seed, keys, fill, end

    # -- cost and delay
    def slip(self, market: Market, quantity: float) -> float:
        """Fraction of the price that a fill of this size pays (3.3)."""
        terms = self.terms
        sigma = math.sqrt(market.variance) if market.variance is not None else 0.0
        slip = terms.slippage_bps * 1e-4
        if terms.spread_model == "constant":
            slip += terms.half_spread_bps * 1e-4
        elif getattr(market, terms.spread_model) is not None:
            slip += getattr(market, terms.spread_model) / 2
        if market.volume:
            slip += terms.impact * sigma * math.sqrt(abs(quantity) / market.volume)
        return slip + terms.volatility_scale * sigma

    def rates(self, rules: SimpleNamespace) -> tuple[float, float]:
        """Maker and taker fee of an instrument, fractions."""
        own = {"fee_bps": self.terms.fee_bps, "maker_fee_bps": self.terms.maker_fee_bps}
        tier = own if rules.fee_tier == "default" else self.terms.tiers[rules.fee_tier]
        maker = tier.get("maker_fee_bps")
        return (tier["fee_bps"] if maker is None else maker) * 1e-4, tier["fee_bps"] * 1e-4

    def fee_total(self, order: Order) -> float:
        """F of 3.3: what an order owes for all its fills so far."""
        if order.fills == 0:
            return 0.0
        return max(self.terms.fee_minimum, self.terms.fee_fixed + order.rate_value)

    def latency(self, order: Order, *, cancel: bool = False) -> int:
        terms, draw = self.terms, 3 if cancel else 0
        median, sigma = terms.latency_ms, terms.latency_sigma
        if cancel:
            median = median if terms.cancel_latency_ms is None else terms.cancel_latency_ms
            sigma = terms.cancel_latency_sigma
        draws = [uniform(self.seed, self.keys[order.strategy], order.no, draw + i) for i in (0, 1)]
        if terms.latency_sample_ms:
            sample = terms.latency_sample_ms
            return round(sample[math.floor(draws[0] * len(sample))] * 1e6)
        nanoseconds = round(median * 1e6)
        if sigma == 0:
            return nanoseconds
        z = math.sqrt(-2 * math.log(draws[0])) * math.cos(2 * math.pi * draws[1])
        return int(min(nanoseconds * math.exp(sigma * z), _DAY_NS))

    # -- one event
    def meet(self, event: Event, market: Market, cell: Cell) -> None:
        """Take the orders of a cell through the points of an event (3.1)."""
        volume = market.units(event.volume, event.close)
        for order in filter(None, cell.orders):
            share = self.terms.participation
            lot = market.rules.lot_size
            order.budget = math.inf if share is None else cut_down(share * volume, lot)
            order.touched = 0.0
        before = {id(o): o.fills for o in cell.orders if o}
        for point in (OPEN, FIRST, SECOND_EXTREME, CLOSE) if event.start < event.ts else (CLOSE,):
            for slot in (1, 2, 0):
                order = cell.orders[slot]
                if order and order.sees(event, point):
                    self._at(order, event, point, market, cell)
        for slot in (1, 2, 0):
            order = cell.orders[slot]
            if order and order.end <= event.ts:
                self.end(order, order.reason, event.ts)
            elif order and not order.carry and order.fills > before[id(order)]:
                self.end(order, Ended.EXPIRED, event.ts)

    def _at(self, order: Order, event: Event, point: int, market: Market, cell: Cell) -> None:
        worse, better = (event.high, event.low) if order.side > 0 else (event.low, event.high)
        x = {OPEN: event.open, FIRST: worse, SECOND_EXTREME: better, CLOSE: event.close}[point]
        ts = event.start if point == OPEN else event.ts
        is_first, order.arrived = not order.arrived, True
        if is_first and self._is_rejected(order):
            self.end(order, Ended.REJECTED, ts)
            return
        if not self._may_reduce(order, cell, ts):
            return
        self._act(order, x, point, is_first, market, cell, event, ts)
        if is_first and not order.ended and order.tif in (Tif.IOC, Tif.FOK):
            self.end(order, Ended.IOC if order.tif == Tif.IOC else Ended.FOK, ts)

    def _is_rejected(self, order: Order) -> bool:
        draw = uniform(self.seed, self.keys[order.strategy], order.no, 2)
        return draw < self.terms.reject_probability

    def _act(self, order, x, point, is_first, market, cell, event, ts) -> None:
        # The table of 3.2.
        extreme = point in (FIRST, SECOND_EXTREME)
        if order.kind == Kind.MARKET or (
            order.triggered and order.kind in (Kind.STOP, Kind.TRAILING_STOP)
        ):
            self._take(order, x, market, cell, ts)
        elif order.kind == Kind.LIMIT or order.triggered:
            if is_first:
                self._limit_arrives(order, x, market, cell, ts)
            else:
                self._limit_rests(order, x, market, cell, event, ts)
        elif order.kind == Kind.TRAILING_STOP and is_first:
            order.best = x
        else:
            self._trigger(order, x, extreme, market, cell, ts)

    def _trigger(self, order: Order, x: float, extreme: bool, market, cell, ts) -> None:
        side, stop = order.side, order.stop
        if order.kind == Kind.TRAILING_STOP:
            stop = against(order.best * (1 + side * order.trail), market.rules.tick_size, side)
        if side * (x - stop) < 0:
            if order.kind == Kind.TRAILING_STOP:
                order.best = min(order.best, x) if side > 0 else max(order.best, x)
            return
        order.triggered = True
        reference = stop if extreme else x
        if order.kind == Kind.STOP_LIMIT:
            self._limit_arrives(order, reference, market, cell, ts)
        else:
            self._take(order, reference, market, cell, ts)

    def _limit_arrives(self, order: Order, x: float, market, cell, ts) -> None:
        if order.side * (order.limit - x) < 0:
            return
        if order.post_only:
            self.end(order, Ended.POST_ONLY, ts)
        else:
            self._take(order, x, market, cell, ts)

    def _limit_rests(self, order: Order, x: float, market, cell, event: Event, ts: int) -> None:
        if order.side * (order.limit - x) < 0:
            return
        quantity = min(order.left, order.budget)
        if x == order.limit:
            volume = market.units(event.volume, event.close)
            queue = cut_down(self.terms.queue_share * volume, market.rules.lot_size)
            quantity = min(quantity, cut(queue - order.touched, market.rules.lot_size))
            order.touched += quantity
        self._fill(order, quantity, order.limit, order.limit, market, ts, maker=True)

    def _may_reduce(self, order: Order, cell: Cell, ts: int) -> bool:
        # A reduce-only order is first cut to what is held on the other side.
        if order.reduce_only:
            if order.side * cell.held >= 0:
                self.end(order, Ended.REDUCE_ONLY, ts)
                return False
            order.left = min(order.left, abs(cell.held))
        return True

    def _take(self, order: Order, reference: float, market: Market, cell: Cell, ts: int) -> None:
        quantity = min(order.left, order.budget)
        if order.tif == Tif.FOK and quantity < order.left:
            return
        tick, side = market.rules.tick_size, order.side
        price = reference * (1 + side * self.slip(market, quantity))
        price = against(price, tick, side)
        if order.kind in (Kind.LIMIT, Kind.STOP_LIMIT):
            price = min(price, order.limit) if side > 0 else max(price, order.limit)
        self._fill(order, quantity, price, reference, market, ts, maker=False)

    def _fill(self, order: Order, quantity: float, price, reference, market, ts, *, maker) -> None:
        if quantity <= 0:
            return
        order.left = cut(order.left - quantity, market.rules.lot_size)
        order.budget -= quantity
        if math.isfinite(order.budget):
            order.budget = cut(order.budget, market.rules.lot_size)
        self.fill(order, order.side * quantity, price, reference, maker, ts)
        if order.left == 0 and not order.ended:
            self.end(order, Ended.FILLED, ts)


def place(order: Order, rules: SimpleNamespace, market: Market, held: float) -> None:
    """Kind, prices and life of a target order (2.4)."""
    p, s, tick = market.price, order.side, market.rules.tick_size
    offset = rules.offset_bps * 1e-4
    kind = Kind[rules.kind.upper()]
    if order.quantity * held < 0 and abs(order.quantity) <= abs(held) and kind != Kind.LIMIT:
        kind = Kind.MARKET
    order.kind, order.tif, order.carry = kind, Tif[rules.tif.upper()], rules.carry
    if kind == Kind.LIMIT:
        order.limit = against(p * (1 - s * offset), tick, -s)
        order.post_only = rules.post_only
    if kind in (Kind.STOP, Kind.STOP_LIMIT):
        order.stop = against(p * (1 + s * offset), tick, s)
    if kind == Kind.STOP_LIMIT:
        order.limit = against(order.stop * (1 + s * rules.limit_offset_bps * 1e-4), tick, s)
    if kind == Kind.TRAILING_STOP:
        order.trail = rules.trail_bps * 1e-4
    if order.tif == Tif.GTD:
        order.expires = order.born + round(rules.timeout_s * 1e9)
