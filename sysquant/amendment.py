"""A running book made to have paid, been charged or sent what others recorded.

Input: the book of an engine between two events, and what was recorded of a fill, a charge or an
order. Output: its cash, peaks and working orders as if that had happened. Nothing is decided here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from sysquant.portfolio import commit
from sysquant.state import TARGET, Book
from sysquant.types import Floats

_PEAKS = ("peak", "exit_peak")


class Peaks(NamedTuple):
    """Highest equity so far: (S, 2) of each account, and of the book."""

    accounts: Floats
    book: float


class Amendment:
    """What of one book can be amended.

    Parameters
    ----------
    book : of an engine.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    @property
    def feed_lag_s(self) -> float:
        """How far the feed is back, as the last clock mark said."""
        return float(self._book.clock["feed_lag_s"][0])

    @property
    def units(self) -> Floats:
        """(Y,) value of one unit at a price of 1, the book's currency."""
        return self._book.market["unit"].copy()

    @property
    def worth(self) -> Floats:
        """(Y,) value of one unit at the last trade, the book's currency; 0 before the first."""
        return self._book.market["price"] * self._book.market["unit"]

    def held(self, strategy: int, symbol: int) -> float:
        """Quantity of a position, units."""
        return float(self._book.cells["quantity"][strategy, symbol])

    def cash(self, strategy: int) -> float:
        """Cash of an account."""
        return float(self._book.accounts["cash"][strategy])

    def peaks(self) -> Peaks:
        """As they stand, for `pay`, which is told them from before the event that it amends."""
        accounts = np.stack([self._book.accounts[name] for name in _PEAKS], axis=1)
        return Peaks(accounts, float(self._book.clock["peak"][0]))

    def pay(self, strategy: int, symbol: int, price: float, fee: float, before: Peaks) -> None:
        """Take more from an account: as the price of a fill, and as its fee.

        Parameters
        ----------
        strategy, symbol : by number.
        price, fee : the book's currency, positive when more is paid.
        before : peaks before the event.
        """
        account, cell = self._book.accounts[strategy], self._book.cells[strategy, symbol]
        if cell["quantity"]:
            cell["cost"] = round(float(cell["cost"]) + price, 8)
        else:
            cell["realised_pnl"] = round(float(cell["realised_pnl"]) - price, 8)
        cell["slippage"] += price
        cell["fees"] += fee
        self._take(account, price + fee, strategy, before)

    def enter(self, strategy: int, symbol: int, was: float, price: float) -> None:
        """Measure exits from another price where they were measured from that of one fill."""
        cell, rules = self._book.cells[strategy, symbol], self._book.rules[strategy]
        for name in ("entry", "best"):
            if cell[name] == was:
                cell[name] = price
        if cell["quantity"] and not rules["bracket"]:  # as `protection.watch`
            side = float(np.sign(cell["quantity"]))
            stops = (
                cell["entry"] * (1.0 - side * rules["stop_loss"]),
                cell["best"] * (1.0 - side * rules["trailing_stop"]),
            )
            levels = (
                side * max(side * one for one in stops),
                (cell["entry"] * (1.0 + side * rules["take_profit"])),
            )
            cell["exit_low"], cell["exit_high"] = levels if side > 0 else levels[::-1]

    def charge(self, strategy: int, symbol: int, amount: float, before: Peaks) -> None:
        """Take more financing from an account; `symbol` -1 for interest."""
        account: Any = self._book.accounts[strategy]
        payer = account if symbol < 0 else self._book.cells[strategy, symbol]
        payer["financing"] += amount
        self._take(account, amount, strategy, before)

    def send(self, strategy: int, symbol: int, order_no: int, due: int) -> None:
        """Let a working order reach the broker at another time, ns UTC."""
        orders = self._book.orders[strategy, symbol]
        orders["due"][orders["order_no"] == order_no] = due

    def resize(self, strategy: int, symbol: int, order_no: int, quantity: float) -> bool:
        """Let a target order that has not filled yet be of another size; whether there is one."""
        book, order = self._book, self._book.orders[strategy, symbol, TARGET]
        if order["order_no"] != order_no or order["fills"]:
            return False
        cell = book.cells[strategy, symbol]
        order["quantity"] = order["left"] = cell["last_quantity"] = quantity
        held, instrument = float(cell["quantity"]), book.instruments[symbol]
        commit(book.market[symbol], cell, held, quantity, instrument)
        return True

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Let every order pass the chain meanwhile, with no check in it."""
        places = self._book.places
        were = places.copy()
        places[:] = -1
        try:
            yield
        finally:
            places[:] = were

    def lot(self, symbol: int) -> float:
        """Smallest step of a quantity, units."""
        return float(self._book.instruments["lot_size"][symbol])

    def _take(self, account: Any, amount: float, strategy: int, before: Peaks) -> None:
        account["cash"] = round(float(account["cash"]) - amount, 8)
        account["equity"] = account["cash"] + account["value"]
        for place, name in enumerate(_PEAKS):
            account[name] = max(before.accounts[strategy, place], account["equity"])
        clock = self._book.clock[0]
        clock["equity"] -= amount
        clock["peak"] = max(before.book, float(clock["equity"]))
