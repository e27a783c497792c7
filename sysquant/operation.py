"""What an operator does to a book between two steps: capital, switches, re-arming.

Input: the book, the names of its strategies in their order, and a wish. Output: the book's state,
changed; a wish that cannot be meant is refused and changes nothing. No market event is taken here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sysquant.errors import ConfigError, nearest
from sysquant.keys import check_number
from sysquant.portfolio import BASES, move_capital
from sysquant.state import Book, enlist

STATES = ("active", "reducing", "off")


def fund(
    book: Book, names: Sequence[str], capital: float, fractions: Mapping[str, float] | None
) -> None:
    """Give the strategies of a new book their capital, see `Engine`.

    Raises
    ------
    ConfigError
        If the fractions are not of these strategies, or cannot be meant.
    """
    shares = dict.fromkeys(names, 1.0 / len(names)) if fractions is None else dict(fractions)
    if set(shares) != set(names):
        raise ConfigError(f"fractions name {sorted(shares)}, the book holds {list(names)}")
    if not (min(shares.values()) > 0 and sum(shares.values()) <= 1 + 1e-12):
        raise ConfigError(f"fractions must be > 0 and sum to at most 1, were {shares}")
    given = np.round([shares[n] * capital for n in names], 8)
    for field in ("allocation", "cash", "equity", *BASES):
        book.accounts[field] = given
    book.clock["pool"] = np.round(capital - given.sum(), 8)
    for field in ("equity", "peak", "day_equity"):
        book.clock[field] = capital


def set_state(book: Book, names: Sequence[str], strategy: str, state: str) -> None:
    """See `Engine.set_state`."""
    place = _place(names, strategy)
    if state not in STATES:
        raise ConfigError(f"a state is one of {', '.join(STATES)}, was {state!r}")
    book.accounts["state"][place] = STATES.index(state)
    if state == "off":
        for symbol, cell in enumerate(book.cells[place]):
            cell["changed"] = cell["pending"] = 1
            cell["refused"] = cell["slices"] = cell["follow"] = 0
            enlist(book, place, symbol)


def move_cash(book: Book, names: Sequence[str], source: str, target: str, amount: float) -> None:
    """See `Engine.move_cash`."""
    check_number("amount", amount, above=0)
    amount = round(float(amount), 8)
    accounts: dict[str, Any] = {
        name: book.accounts[_place(names, name)] for name in (source, target) if name
    }
    clock = book.clock[0]
    cash = accounts[source]["cash"] if source else clock["pool"]
    if not 0 < amount <= cash:
        raise ConfigError(f"amount must be > 0 and at most {cash:,.2f}, was {amount}")
    is_all = bool(source) and amount >= accounts[source]["equity"]
    if is_all and _is_busy(book, _place(names, source)):
        raise ConfigError(
            f"{source!r} has positions or orders, and would have no equity; move less, or "
            "switch it off and wait until it is flat"
        )
    for name, change in ((source, -amount), (target, amount)):
        if name:
            move_capital(accounts[name], change)
        else:
            clock["pool"] = round(float(clock["pool"]) + change, 8)


def rearm(book: Book, names: Sequence[str], strategy: str) -> None:
    """See `Engine.rearm`."""
    place = _place(names, strategy)
    book.accounts["disabled"][place] = 0
    book.cells["entries"][place] = 0


def _place(names: Sequence[str], strategy: str) -> int:
    if strategy not in names:
        raise ConfigError(f"the book has no strategy {strategy!r}{nearest(strategy, names)}")
    return names.index(strategy)


def _is_busy(book: Book, place: int) -> bool:
    return bool(book.cells["quantity"][place].any() or book.orders["order_no"][place].any())
