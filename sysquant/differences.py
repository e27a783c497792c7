"""Where a session and its replays differ: which rows, which first, and what its fills come to.

Input: what replays did, and what the session recorded. Output: for each cause of a twin how many
rows are others, and the first of them; and the P&L of recorded fills and charges less that of a
replay's, order by order. Nothing is replayed here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sysquant.engine import Engine
from sysquant.inputs import Apart, Wish, contents_apart, order_apart
from sysquant.inspection import iso
from sysquant.ladder import Book, Done, Pnl, Retaken, Step
from sysquant.operation import Serve
from sysquant.outcome import Fill, FillKey, OrderKey, Outcome
from sysquant.retake import CENT
from sysquant.steps import cut

_NOTHING = Apart(0)


class Linear(NamedTuple):
    """What recorded fills and charges come to, less those of the last replay, by strategy.

    Parameters
    ----------
    filled : of orders that are the same but for their fills.
    charged : of charges where all orders are the same.
    risked : of all else.
    fills, orders : of either kind, those that are others, for people.
    """

    filled: Pnl
    charged: Pnl
    risked: Pnl
    fills: Mapping[str, list[str]]
    orders: Mapping[str, list[str]]

    @classmethod
    def of(cls, engine: Engine, last: Retaken, told: Outcome) -> "Linear":
        """Hold what the session recorded against its last replay; `engine` as of both."""
        names = list(engine.strategies)
        price = _Priced(engine, last)
        zero = dict.fromkeys(names, 0.0)
        found = cls(
            zero.copy(), zero.copy(), zero.copy(), {n: [] for n in names}, {n: [] for n in names}
        )
        mine = last.outcome
        theirs, ours = (price.by_order(each.fills) for each in (told, mine))
        for key in sorted(told.orders.keys() | mine.orders.keys()):
            was, now = mine.orders.get(key), told.orders.get(key)
            change = theirs.get(key, 0.0) - ours.get(key, 0.0)
            if was and now and was.is_same(now):
                found.filled[key.strategy] += change
                if change:
                    text = f"order {key.order_no} of {key.strategy} filled otherwise"
                    found.fills[key.strategy].append(text)
            else:
                found.risked[key.strategy] += change
                found.orders[key.strategy].append(_order_apart(key, was, now))
        for key in told.charges.keys() | mine.charges.keys():
            amounts = [one.amount for one in (mine.charges.get(key), told.charges.get(key)) if one]
            change = -amounts[-1] if key in told.charges else 0.0
            change += mine.charges[key].amount if key in mine.charges else 0.0
            is_calm = not found.orders[key.strategy] and not found.fills[key.strategy]
            target = found.charged if is_calm else found.risked
            target[key.strategy] += change
        return found


def _order_apart(key: OrderKey, was: Any, now: Any) -> str:
    def told(one: Any) -> str:
        if one is None:
            return "none"
        size = f"{one.quantity:g} {one.symbol}"
        return size if one.is_approved else f"{size} refused"

    ts = (now or was).ts
    return f"order {key.order_no} at {iso(ts)}: {told(now)}, as configured {told(was)}"


class _Priced:
    # What fills come to at last prices, order by order.

    def __init__(self, engine: Engine, last: Retaken) -> None:
        self._symbols, self._last = engine.symbols, last
        self._multiplier = {one.symbol: one.multiplier for one in engine.universe}
        self._converted = {one.symbol for one in engine.universe if one.conversion}

    def by_order(self, fills: Mapping[FillKey, Fill]) -> dict[OrderKey, float]:
        found = dict[OrderKey, float]()
        for key, fill in fills.items():
            worth = float(self._last.worth[self._symbols.index(fill.symbol)])
            paid = cut(fill.quantity * fill.price * self._unit(key, fill), CENT)
            found[key.order] = found.get(key.order, 0.0) + fill.quantity * worth - paid - fill.fee
        return found

    def _unit(self, key: FillKey, fill: Fill) -> float:
        # Value of one unit at a price of 1 when it filled: of what is converted, that of the
        # replay's fill, or what its slippage rests on.
        if fill.symbol not in self._converted:
            return self._multiplier[fill.symbol]
        if key in self._last.units:
            return self._last.units[key]
        moved = fill.quantity * (fill.price - fill.reference)
        if moved:
            return fill.slippage / moved
        at = self._symbols.index(fill.symbol)
        return float(self._last.worth[at]) / fill.price


# -- what differs


def counted(
    book: Book, steps: Sequence[Step], own: Done, retakes: Sequence[Retaken], linear: Linear,
    symbols: Sequence[str],
) -> Callable[[str, str], Apart]:  # fmt: skip
    """Tells of a strategy and a cause how many rows are others, and the first of them."""
    data = contents_apart(steps[0].events, steps[1].events, symbols)
    if not data.differing:
        data = contents_apart(steps[0].history, steps[1].history, symbols)
    timing = order_apart(steps[2].events, steps[1].events, symbols)
    prices = [each for each in retakes[2].amended if each.is_price]

    def of(name: str, cause: str) -> Apart:
        match cause:
            case "data":
                return data
            case "timing":
                return timing
            case "model version":
                return _swaps_apart(steps, name)
            case "capital":
                return _operations_apart(steps[4].wishes, name)
            case "decision":
                return _signals_apart(own.outcome, book.told, name)
            case "fees":
                return _listed([one.text for one in retakes[1].amended if one.strategy == name])
            case "fill price":
                told = [one.text for one in prices if one.strategy == name]
                return _listed(told + linear.fills[name])
            case _:
                return _listed(linear.orders[name])

    return of


def _listed(told: Sequence[str]) -> Apart:
    return Apart(len(told), told[0]) if told else _NOTHING


def _swaps_apart(steps: Sequence[Step], name: str) -> Apart:
    first, own = (
        [
            (wish.place, one)
            for wish in step.wishes for one in wish.operations
            if isinstance(one, Serve) and one.strategy == name
        ]
        for step in (steps[2], steps[3])
    )  # fmt: skip
    others = [each for each in own if each not in first]
    told = [f"{one.model or 'none'} from event {place + 1} on" for place, one in others]
    return _listed(told)


def _operations_apart(wishes: Sequence[Wish], name: str) -> Apart:
    told = list[str]()
    for wish in wishes:
        if wish.state is not None:
            told.append(f"the book was adopted after event {wish.place}")
        for one in wish.operations:
            named = {getattr(one, key, None) for key in ("strategy", "source", "target")}
            named -= {None, ""}
            if not isinstance(one, Serve) and (not named or name in named):
                told.append(f"{one} after event {wish.place}")
    return _listed(told)


def _signals_apart(mine: Outcome, told: Outcome, name: str) -> Apart:
    differing = sorted(
        (key.ts, key.symbol)
        for key in mine.signals.keys() | told.signals.keys()
        if key.strategy == name and mine.signals.get(key) != told.signals.get(key)
    )
    if not differing:
        return _NOTHING
    ts, symbol = differing[0]
    values = [
        next((f"{v:g}" for k, v in of.items() if k[1:] == (symbol, ts) and k[0] == name), "none")
        for of in (told.signals, mine.signals)
    ]
    first = f"{symbol} at {iso(ts)}: weight {values[0]}, by the code as it is {values[1]}"
    return Apart(len(differing), first)
