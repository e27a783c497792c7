"""Round trips: what a strategy made of a symbol from flat to flat.

Input: fills and financing as the engine records them, and closes. Output: one record a round trip.
It begins with the fill that leaves zero and ends with the one that comes back to it; what is added
or closed in part on the way belongs to it. A fill that turns the position ends one and begins the
next: its fee is divided by quantity, its realised P&L is that of the one it ends.
"""

from collections.abc import Sequence

import numpy as np

from sysquant.types import Floats, Ints

_INTS = ("strategy", "symbol", "entry_ts", "exit_ts", "fills", "is_open")
_FLOATS = (
    "quantity", "entry_price", "exit_price", "value", "pnl", "costs", "return", "mae", "mfe",
)  # fmt: skip
TRIP = np.dtype([(name, "i8") for name in _INTS] + [(name, "f8") for name in _FLOATS])


def round_trips(
    fills: np.ndarray,
    financing: np.ndarray,
    *,
    lots: Floats,
    units: Floats,
    last: Floats,
    last_units: Floats,
    closes: Sequence[np.ndarray],
    end: int,
) -> np.ndarray:
    """Round trips of every strategy and symbol, in the order they began.

    Parameters
    ----------
    fills : (F,) records of `executions`, in the order they happened.
    financing : (A,) records of `financing`; what belongs to no symbol is left out.
    lots : (Y,) smallest step of each symbol's quantity.
    units : (F,) book currency per unit at a price of 1, when each fill happened.
    last, last_units : (Y,) last close of each symbol, and its unit then.
    closes : Y arrays of records with ts and close, by ts.
    end : time of the last event, ns UTC: until then an open trip is held.

    Returns
    -------
    (N,) records of `TRIP`. `quantity` is the most that was held, > 0 long; `entry_price` the
    average of all fills that opened; `exit_price` of those that closed, NaN without one. `value`
    is what was opened in all, book currency. `pnl` is net of `costs` (fees and financing; slippage
    is in the prices) and, when `is_open`, of what is held at the last close. `return` is
    `pnl / value`. `mae` and `mfe` are the lowest and highest that the price stood against the
    entry price while held, at the closes of bars and at the exit: fractions, mae <= 0 <= mfe.

    References
    ----------
    J. Sweeney, Maximum Adverse Excursion, 1996.
    """
    parts, first = _parts(fills, lots, units)
    trips = np.zeros(len(first), TRIP)
    if not len(first):
        return trips
    stop = np.append(first[1:], len(parts))
    opened, closed = parts[first], parts[stop - 1]
    for name in ("strategy", "symbol"):
        trips[name] = opened[name]
    trips["entry_ts"] = opened["ts"]
    trips["is_open"] = closed["after"] != 0
    trips["exit_ts"] = np.where(trips["is_open"] == 1, end, closed["ts"])
    trips["fills"] = stop - first
    side = np.sign(opened["lots"])
    lot = lots[trips["symbol"]]
    trips["quantity"] = side * np.maximum.reduceat(np.abs(parts["after"]), first) * lot
    opens = np.sign(parts["lots"]) == np.repeat(side, stop - first)
    trips["entry_price"] = _average(parts, opens, first)
    trips["exit_price"] = _average(parts, ~opens, first)
    trips["value"] = np.add.reduceat(np.where(opens, np.abs(parts["paid"]), 0.0), first)
    realised = np.add.reduceat(parts["realised"], first)
    worth = closed["after"] * lot * last[trips["symbol"]] * last_units[trips["symbol"]]
    standing = worth - np.add.reduceat(parts["paid"], first) - realised
    trips["costs"] = np.add.reduceat(parts["fee"], first) + _financed(trips, financing, len(lots))
    trips["pnl"] = realised + np.where(trips["is_open"] == 1, standing, 0.0) - trips["costs"]
    trips["return"] = trips["pnl"] / trips["value"]
    _excursions(trips, side, closes)
    return trips[np.argsort(trips["entry_ts"], kind="stable")]


_PART = np.dtype(
    [(name, "i8") for name in ("strategy", "symbol", "ts", "lots", "after")]
    + [(name, "f8") for name in ("price", "paid", "fee", "realised")]
)


def _parts(fills: np.ndarray, lots: Floats, units: Floats) -> tuple[np.ndarray, Ints]:
    # Fills by strategy and symbol, those that turn a position cut in two, and where trips begin.
    # Positions are counted in lots, so that flat is exactly 0.
    cell = fills["strategy"] * len(lots) + fills["symbol"]
    order = np.argsort(cell, kind="stable")
    fills, units, cell = fills[order], units[order], cell[order]
    moved = np.rint(fills["quantity"] / lots[fills["symbol"]]).astype(np.int64)
    total = np.cumsum(moved)
    begins = np.flatnonzero(np.diff(cell, prepend=-1))
    base = (total - moved)[begins]
    after = total - np.repeat(base, np.diff(np.append(begins, len(cell))))
    before = after - moved
    turns = np.sign(before) * np.sign(after) < 0
    row = np.repeat(np.arange(len(fills)), 1 + turns)
    second = np.append(False, row[1:] == row[:-1])
    is_first = turns[row] & ~second
    parts = np.empty(len(row), _PART)
    for name in ("strategy", "symbol", "ts", "price"):
        parts[name] = fills[name][row]
    parts["after"] = np.where(is_first, 0, after[row])
    parts["lots"] = np.where(is_first, -before[row], np.where(second, after[row], moved[row]))
    share = parts["lots"] / moved[row]
    quantity = fills["quantity"][row] * share
    parts["paid"] = quantity * parts["price"] * units[row]
    parts["fee"] = fills["fee"][row] * share
    parts["realised"] = np.where(second, 0.0, fills["realised_pnl"][row])
    return parts, np.flatnonzero(parts["after"] == parts["lots"])


def _average(parts: np.ndarray, chosen: np.ndarray, first: Ints) -> Floats:
    # Average price of the chosen parts of every trip, by quantity; NaN without one.
    quantity = np.where(chosen, np.abs(parts["lots"]), 0).astype(float)
    total = np.add.reduceat(quantity, first)
    paid = np.add.reduceat(quantity * parts["price"], first)
    return np.divide(paid, total, out=np.full(len(first), np.nan), where=total > 0.0)


def _financed(trips: np.ndarray, financing: np.ndarray, symbols: int) -> Floats:
    # What was charged on every trip: that which was held then. Trips lie by cell, then time.
    own = financing[financing["symbol"] >= 0]
    key = [("cell", "i8"), ("ts", "i8")]
    begun, due = np.empty(len(trips), key), np.empty(len(own), key)
    begun["cell"] = trips["strategy"] * symbols + trips["symbol"]
    begun["ts"] = trips["entry_ts"]
    due["cell"], due["ts"] = own["strategy"] * symbols + own["symbol"], own["ts"]
    # It was charged on what was held before the fills of its instant.
    place = np.searchsorted(begun, due, side="left") - 1
    found = np.zeros(len(trips))
    np.add.at(found, np.maximum(place, 0), own["amount"])
    return found


def _excursions(trips: np.ndarray, side: Ints, closes: Sequence[np.ndarray]) -> None:
    for symbol in np.unique(trips["symbol"]):
        rows = np.flatnonzero(trips["symbol"] == symbol)
        own = trips[rows]
        entry, sides = own["entry_price"], side[rows]
        bars = closes[symbol]
        low, high = _range(bars, own["entry_ts"], own["exit_ts"])
        low, high = np.fmin(low, own["exit_price"]), np.fmax(high, own["exit_price"])
        worst, best = np.where(sides > 0, low, high), np.where(sides > 0, high, low)
        trips["mae"][rows] = np.fmin(0.0, sides * (worst / entry - 1.0))
        trips["mfe"][rows] = np.fmax(0.0, sides * (best / entry - 1.0))


def _range(bars: np.ndarray, after: Ints, until: Ints) -> tuple[Floats, Floats]:
    # Lowest and highest close in (after, until] of every row; NaN where there is none. A close at
    # the time of a fill comes before it.
    start = np.searchsorted(bars["ts"], after, side="right")
    stop = np.searchsorted(bars["ts"], until, side="right")
    edges = np.column_stack([start, stop]).ravel()
    padded = np.append(bars["close"], np.nan)
    is_some = start < stop
    found = [
        np.where(is_some, of.reduceat(padded, edges)[::2], np.nan)
        for of in (np.minimum, np.maximum)
    ]
    return found[0], found[1]
