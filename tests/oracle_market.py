"""The oracle's words: numbers cut to steps, events, symbols, orders, cells.

Written from `docs/engine.md` (its head, 3.1, 3.3, 3.4) in plain Python, without a line of the
package.
"""

import hashlib
import math
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace

NEVER = 2**63 - 1
SECOND = 1_000_000_000
NAN = math.nan
OPEN, FIRST, SECOND_EXTREME, CLOSE = range(4)  # the points of a bar
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Kind(IntEnum):
    MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP = range(5)


class Tif(IntEnum):
    GTC, IOC, FOK, GTD = range(4)


class Purpose(IntEnum):
    SIGNAL, SLICE, FOLLOW_UP, STOP_LOSS, TRAILING_STOP = range(5)
    TAKE_PROFIT, MAX_HOLD, DRAWDOWN, OFF = range(5, 9)


class Ended(IntEnum):
    FILLED, CANCELLED, EXPIRED, REJECTED, IOC, FOK = range(6)
    POST_ONLY, REDUCE_ONLY, OCO, REPLACED, LEGS = range(6, 11)


# -- numbers
def sign(x: float) -> float:
    return (x > 0) - (x < 0)


def divide(a: float, b: float) -> float:
    """As IEEE 754 has it: x / 0 is infinite, 0 / 0 is NaN."""
    if b == 0:
        return NAN if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
    return a / b


def fraction(a: float, b: float) -> float:
    """Of what is not above 0, any amount is infinitely much."""
    return math.inf if b <= 0 else a / b


def cut(value: float, step: float) -> float:
    if step < 1.0:
        inverse = round(1.0 / step)
        if abs(inverse * step - 1.0) < 1e-9:
            return round(value * inverse) / inverse
    return round(value / step) * step


def cut_down(value: float, step: float) -> float:
    """The largest multiple of `step` that is not further from zero."""
    size = cut(abs(value), step)
    if size > abs(value):
        size = cut(size - step, step)
    return math.copysign(size, value)


def near(ticks: float) -> float:
    """How far from a tick a price may be and still be on it, in ticks."""
    return 1e-9 + 1e-15 * abs(ticks)


def round_up(price: float, tick: float) -> float:
    ticks = price / tick
    return max(tick, cut(math.ceil(ticks - near(ticks)) * tick, tick))


def round_down(price: float, tick: float) -> float:
    ticks = price / tick
    return max(tick, cut(math.floor(ticks + near(ticks)) * tick, tick))


def against(price: float, tick: float, side: float) -> float:
    """To the tick that costs the trader, but at least one: a buy up, a sale down."""
    return round_up(price, tick) if side > 0 else round_down(price, tick)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def uniform(seed: int, key: int, order_no: int, draw: int) -> float:
    """SplitMix64 over a counter, in (0, 1)."""
    x = _mix((seed + _GOLDEN) & _MASK)
    for word in (key, order_no, draw):
        x = _mix(((x ^ word) + _GOLDEN) & _MASK)
    return ((x >> 11) + 0.5) * 2.0**-53


def order_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


# -- one symbol
@dataclass
class Event:
    """Something that happened: a trade (or bar), or a mark of the clock or of a halt."""

    start: int
    ts: int
    symbol: int
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    volume: float = 0.0
    what: str = "trade"  # trade, clock, halt, resume
    no: int = 0


@dataclass
class Market:
    """Last trade and statistics (3.4) of a symbol; None: not known yet."""

    rules: SimpleNamespace
    ts: int = 0
    price: float | None = None
    previous: float | None = None
    halted: bool = False
    close: float | None = None
    high: float = 0.0
    low: float = 0.0
    variance: float | None = None
    volume: float | None = None
    reference: float | None = None
    change: float | None = None
    covariance: float | None = None
    roll: float | None = None
    corwin_schultz: float | None = None

    def units(self, volume: float, close: float) -> float:
        return volume / close if self.rules.volume_unit == "quote" else volume

    def update(self, bar: Event, weight: float) -> None:
        """Take in a closed bar."""

        def average(x: float | None, new: float) -> float:
            return new if x is None else x + weight * (new - x)

        self.volume = average(self.volume, self.units(bar.volume, bar.close))
        self.reference = average(self.reference, bar.close)
        if self.close is not None:
            self.variance = average(self.variance, math.log(bar.close / self.close) ** 2)
            change = bar.close - self.close
            if self.change is not None:
                self.covariance = average(self.covariance, change * self.change)
                self.roll = 2 * math.sqrt(max(0.0, -self.covariance)) / bar.close
            self.change = change
            self.corwin_schultz = average(self.corwin_schultz, self._high_low(bar))
        self.close, self.high, self.low = bar.close, bar.high, bar.low

    def _high_low(self, bar: Event) -> float:
        b = math.log(bar.high / bar.low) ** 2 + math.log(self.high / self.low) ** 2
        g = math.log(max(bar.high, self.high) / min(bar.low, self.low)) ** 2
        k = 3 - 2 * math.sqrt(2)
        alpha = (math.sqrt(2 * b) - math.sqrt(b)) / k - math.sqrt(g / k)
        return max(0.0, 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha)))


# -- one order
@dataclass
class Order:
    """An order of a strategy; `left` is unsigned, `end` the earlier of expiry and cancel."""

    no: int
    strategy: int
    symbol: int
    slot: int
    quantity: float
    purpose: int
    born: int
    kind: int = Kind.MARKET
    tif: int = Tif.GTC
    limit: float = NAN
    stop: float = NAN
    trail: float = NAN
    best: float = NAN
    left: float = 0.0
    due: int = 0
    expires: int = NEVER
    cancel_at: int = NEVER
    arrived: bool = False
    triggered: bool = False
    reduce_only: bool = False
    post_only: bool = False
    carry: bool = True
    ended: bool = False
    fills: int = 0
    filled: float = 0.0
    touched: float = 0.0
    budget: float = math.inf
    rate_value: float = 0.0
    asked: float = 0.0
    target: float = NAN  # that it was sent for

    @property
    def side(self) -> float:
        return sign(self.quantity)

    @property
    def end(self) -> int:
        return min(self.expires, self.cancel_at)

    @property
    def reason(self) -> Ended:
        """What its end is, if nothing else ends it before."""
        return Ended.CANCELLED if self.cancel_at <= self.expires else Ended.EXPIRED

    def sees(self, event: Event, point: int) -> bool:
        """Certainly alive at this point, or not there (3.1)."""
        if point == OPEN:
            return self.due <= event.start < self.end
        if point == CLOSE:
            return self.due <= event.ts < self.end
        return self.due <= event.start and event.ts < self.end


@dataclass
class Cell:
    """What one strategy has in one symbol: holding, target, orders in three slots."""

    strategy: int
    symbol: int
    state: str = "active"
    held: float = 0.0
    average_price: float = 0.0
    entry: float = 0.0
    best: float = NAN
    realised: float = 0.0
    fees: float = 0.0
    slippage: float = 0.0
    financing: float = 0.0
    opened_ts: int = 0
    grown_on: int = -1  # the event on which it was opened, grown or turned last
    target: float = NAN
    changed: bool = False
    pending: bool = False
    exiting: bool = False  # an exit fired and its order is still owed
    follow: bool = False
    purpose: int = 0
    refused_target: float = NAN
    since_refusal: int = 0
    since_exit: int = 0
    bars: int = 0
    closed_side: float = 0
    left: tuple[float, int] | None = None  # side and purpose of a leg that left it flat
    slices_left: int = 0
    next_slice: int = 0
    goal: float = 0.0
    entries: int = 0
    last_order_ts: int = 0
    last_quantity: float = NAN
    orders: list[Order | None] = field(default_factory=lambda: [None, None, None])

    @property
    def projected(self) -> float:
        """Held and, if the order of slot 0 fills, its rest."""
        order = self.orders[0]
        return self.held + (order.side * order.left if order else 0.0)
