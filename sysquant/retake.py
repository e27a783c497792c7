"""A session taken again with the decisions that it recorded, and at will its fees and fill prices.

Input: the session's own events in pieces, what it recorded, and an engine as configured. Output:
what that engine makes of them: orders by its own sizing and chain, filled by its own broker, each
fill then amended to what was recorded of the same order. Features and `target` take no part.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sysquant.amendment import Peaks
from sysquant.bars import ClosedBars, Events
from sysquant.engine import Decided, Engine
from sysquant.outcome import (
    Charge,
    ChargeKey,
    Fill,
    FillKey,
    Order,
    OrderKey,
    Outcome,
    Signal,
)
from sysquant.steps import cut
from sysquant.types import CLOCK_MARK, Bars, Floats, Ints, Ticks

CENT = 1e-8  # that cash is cut to
_ALIKE = 0.05  # of its size, within which an order moves its price alike
_RESERVED = 4.0  # times the costs of an order: those of both sides of a position that turns


class Amended(NamedTuple):
    """A fill, a charge or an arrival that was recorded otherwise, for people.

    Parameters
    ----------
    is_price : whether it is of when and at which price an order filled, not of what it cost.
    """

    strategy: str
    is_price: bool
    text: str


class Retake:
    """One replay with recorded decisions.

    Parameters
    ----------
    engine : fresh, as configured.
    told : what the session recorded.
    fees : whether fees and financing are at the recorded rates.
    prices : whether orders that the session sent, too, arrive and fill as they did there.
    costs : strategy -> how far costs were recorded from the configured ones, at most, a fraction
        of value. Sizing reserves what an order may cost: orders take their recorded sizes, as long
        as that explains them.

    Attributes
    ----------
    costs : the same, of the fills that were amended here.
    outcome : what this one does, amended.
    units : fill -> value of one unit at a price of 1 when it came.
    amended : fills and charges that were recorded otherwise, in order.
    unasked : recorded decisions on bars that did not close here.
    """

    def __init__(
        self, engine: Engine, told: Outcome, *, fees: bool = False, prices: bool = False,
        costs: Mapping[str, float] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.outcome, self.units = Outcome(told.ts), dict[FillKey, float]()
        self.amended, self.unasked = list[Amended](), set(told.signals)
        self.costs, self._known = dict[str, float](), costs
        self._engine, self._told, self._fees, self._prices = engine, told, fees, prices
        self._names, self._symbols = tuple(engine.strategies), engine.symbols
        self._amendment = engine.amendment()
        self._by_bar = dict[tuple[int, int], list[tuple[int, float]]]()
        for (strategy, symbol, ts), target in told.signals.items():
            place = ts, self._symbols.index(symbol)
            self._by_bar.setdefault(place, []).append((self._names.index(strategy), target))
        self._decided_at = np.unique(np.array([ts for ts, _ in self._by_bar], np.int64))
        self._faults = {(self._names.index(name), ts) for name, ts in told.faults}
        moments = [one.ts for one in (*told.orders.values(), *told.fills.values())]
        self._moments = np.unique(np.array(moments if fees else [], np.int64))
        self._due = sorted({key.ts for key in told.charges}) if fees else []

    def step(self, batch: Ticks | Bars) -> None:
        """Take events, in the session's order."""
        for taken, closed, bars in self._engine.passes(batch):
            targets = self._targets(closed, bars)
            for piece in self._pieces(taken, closed, bars, targets):
                self._advance(piece)

    def adopt(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on with a state that was journaled: it rests on what was recorded until then."""
        self._engine.restore(state)
        at, told = self._engine.engine_ts, self._told
        known = self.outcome.fills, self.outcome.charges
        for mine in known:
            mine.clear()
        self.outcome.fills.update({k: one for k, one in told.fills.items() if one.ts <= at})
        self.outcome.charges.update({k: one for k, one in told.charges.items() if k.ts <= at})

    # -- decisions

    def _targets(self, closed: ClosedBars, bars: int) -> Floats:
        # (S, bars) recorded weights; NaN where the last one stands.
        targets = np.full((len(self._names), bars), np.nan)
        ts, symbols = closed.ts[:bars], closed.symbol[:bars]
        for bar in np.flatnonzero(np.isin(ts, self._decided_at)).tolist():
            place = int(ts[bar]), int(symbols[bar])
            for strategy, target in self._by_bar.get(place, ()):
                targets[strategy, bar] = target
                known = self._names[strategy], self._symbols[place[1]], place[0]
                self.unasked.discard(Signal(*known))
        for strategy, at in self._faults:
            bar = int(np.searchsorted(ts, at))
            while bar < bars and ts[bar] == at and np.isfinite(targets[strategy, bar]):
                bar += 1
            if bar < bars and ts[bar] == at:
                targets[strategy, bar] = np.inf
        return targets

    # -- events in pieces

    def _pieces(
        self, events: Events, closed: ClosedBars, bars: int, targets: Floats
    ) -> Iterator[Decided]:
        # Cut before and after each event, and after each mark, at which something was recorded.
        start = begun = 0
        for end, last in self._cuts(events, closed, bars):
            if end == start and last == begun:
                continue
            columns = [column[start:end] for column in events[:-1]]
            own = [column[begun:last] for column in closed]
            own[0] = own[0] - start
            taken = Events._make([*columns, events.length])
            yield from self._accruals(taken, closed.ts[begun:last])
            yield taken, ClosedBars._make(own), last - begun, targets[:, begun:last]
            start, begun = end, last

    def _cuts(self, events: Events, closed: ClosedBars, bars: int) -> list[tuple[int, int]]:
        # How many events, and how many bars that close before the next, each piece ends with.
        ts, position = events.end - (1 if events.length else 0), closed.position[:bars]
        closes, count = closed.ts[:bars], len(events.end)

        def before(event: int) -> int:
            return int(np.searchsorted(position, event, side="right"))

        at = np.flatnonzero(np.isin(ts, self._moments)).tolist()
        cuts = {(event, before(event)) for event in at} | {(one + 1, before(one)) for one in at}
        marks = position[np.isin(closes, self._moments)].tolist()
        cuts |= {(event, before(event)) for event in marks} | {(count, bars)}
        for due in self._due:
            later = np.flatnonzero(ts >= due)
            event = int(later[0]) if len(later) else count
            bar = int(np.searchsorted(closes, due))
            if bar < before(event):
                cuts.add((int(position[bar]), bar))
            elif len(later):
                cuts.add((event, before(event)))
        return sorted(cuts)

    def _accruals(self, events: Events, closes: Ints) -> Iterator[Decided]:
        # A charge is amended before anything is decided at its time: the clock comes there first.
        length = 1 if events.length else 0
        first = min([int(ts) for ts in (*(events.end[:1] - length), *closes[:1])], default=0)
        while self._due and self._due[0] <= first:
            due = self._due.pop(0)
            lag, none = self._amendment.feed_lag_s, np.zeros(1)
            mark = Events(
                np.array([due]), np.array([CLOCK_MARK], np.int32), none, none, none, none,
                np.array([lag]), 0,
            )  # fmt: skip
            nothing = [np.empty(0, np.int64)] * 2 + [np.empty(0, np.int32)] + [np.empty(0)] * 5
            yield mark, ClosedBars._make(nothing), 0, np.empty((len(self._names), 0))

    def _advance(self, piece: Decided) -> None:
        before = self._amendment.peaks()
        parts = dict[str, list[np.ndarray]]()

        def take(rows: Mapping[str, np.ndarray]) -> None:
            for name in ("signals", "orders", "executions", "financing"):
                if len(rows[name]):
                    parts.setdefault(name, []).append(rows[name].copy())

        self._engine.replay([piece], take)
        if not parts:
            return
        rows = {name: np.concatenate(of) for name, of in parts.items()}
        nothing = Outcome(self._told.ts)
        empty = {name: np.empty(0, [("ts", "i8")]) for name in _TABLES}
        nothing.take(empty | rows, self._names, self._symbols)
        self._amend(nothing, before)

    def _amend(self, new: Outcome, before: Peaks) -> None:
        units = self._amendment.units
        self.outcome.signals.update(new.signals)
        self.outcome.orders.update(new.orders)
        for key, fill in new.fills.items():
            self.units[key] = float(units[self._symbols.index(fill.symbol)])
            self.outcome.fills[key] = self._filled(key, fill, before)
        for key, charge in new.charges.items():
            self.outcome.charges[key] = self._charged(key, charge, before)
        for key, order in new.orders.items():
            told = self._told.orders.get(key)
            if self._fees and told and order.is_approved and told.is_like(order):
                self.outcome.orders[key] = self._sent(key, order, told)

    def _sent(self, key: OrderKey, order: Order, told: Order) -> Order:
        # When it arrives, and of which size it is.
        place = self._names.index(key.strategy), self._symbols.index(order.symbol)
        if self._prices and told.due != order.due:
            self._amendment.send(*place, key.order_no, told.due)
            later = f"arrived {(told.due - order.due) / 1e6:+,.3f} ms"
            self._tell(key, order.symbol, f"{later} from what is configured", is_price=True)
        exposed = abs(order.quantity) + abs(self._amendment.held(*place))
        most = _RESERVED * self._known.get(key.strategy, 0.0) * exposed + self._amendment.lot(
            place[1]
        )
        wants = key.strategy in self._known and told.quantity != order.quantity
        is_near = wants and abs(told.quantity - order.quantity) <= most
        if is_near and self._amendment.resize(*place, key.order_no, told.quantity):
            return order._replace(quantity=told.quantity, asked=told.asked)
        return order

    def _filled(self, key: FillKey, fill: Fill, before: Peaks) -> Fill:
        # The fill as it was recorded of the same order, of what quantity there is.
        told, order = self._told.fills.get(key), self.outcome.orders.get(key.order)
        same = self._told.orders.get(key.order)
        if not (self._fees and told and order and same and same.is_like(order)):
            return fill
        place = self._names.index(key.strategy), self._symbols.index(fill.symbol)
        unit = self.units[key]
        alike = abs(same.quantity - order.quantity) <= _ALIKE * abs(order.quantity)
        price = told.price if self._prices and alike else fill.price
        fee = _fee(fill, told, price)
        paid = _paid(fill, price, unit) - _paid(fill, fill.price, unit)
        if fee == fill.fee and price == fill.price:
            return fill
        more = (abs(paid) + abs(fee - fill.fee)) / abs(fill.quantity * fill.price * unit)
        self.costs[key.strategy] = max(more, self.costs.get(key.strategy, 0.0))
        self._amendment.pay(*place, paid, fee - fill.fee, before)
        if price != fill.price:
            self._amendment.enter(*place, fill.price, price)
        if price != fill.price:
            said = f"price {told.price:g} was {fill.price:g} as configured"
            self._tell(key, fill.symbol, said, is_price=True)
        else:
            said = f"fee {told.fee:g} was {fill.fee:g} as configured"
            self._tell(key, fill.symbol, said, is_price=False)
        return fill._replace(price=price, fee=fee, slippage=fill.slippage + paid)

    def _tell(self, key: FillKey | OrderKey, symbol: str, said: str, *, is_price: bool) -> None:
        text = f"order {key.order_no} of {key.strategy} in {symbol}: {said}"
        self.amended.append(Amended(key.strategy, is_price, text))

    def _charged(self, key: ChargeKey, charge: Charge, before: Peaks) -> Charge:
        told = self._told.charges.get(key)
        if not self._fees or told is None or told.rate == charge.rate:
            return charge
        amount = cut(charge.base * told.rate, CENT)
        symbol = self._symbols.index(key.symbol) if key.symbol else -1
        place = self._names.index(key.strategy), symbol
        self._amendment.charge(*place, amount - charge.amount, before)
        what = f"{key.kind} of {key.strategy} {key.symbol}".rstrip()
        said = f"{what}: rate {told.rate:g} was {charge.rate:g} as configured"
        self.amended.append(Amended(key.strategy, False, said))
        return charge._replace(rate=told.rate, amount=amount)


_TABLES = ("signals", "orders", "executions", "financing")


def _paid(fill: Fill, price: float, unit: float) -> float:
    return cut(fill.quantity * price * unit, CENT)


def _fee(fill: Fill, told: Fill, price: float) -> float:
    # What a fill costs at a price, by the recorded rate where that is another one.
    own, other = abs(fill.quantity * fill.price), abs(told.quantity * told.price)
    scaled = told.fee / other * own
    if abs(scaled - fill.fee) <= 2 * CENT and price == fill.price:
        return fill.fee
    if told.quantity == fill.quantity and price == told.price:
        return told.fee
    return cut(told.fee / other * abs(fill.quantity * price), CENT)
