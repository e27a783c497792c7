"""What an operator does to a book between two events: states, weights, capital, halts.

Input: the book, the names of its strategies and symbols in their order, and an operation. Output:
the book's state, changed; an operation that cannot be meant is refused and changes nothing. No
market event is taken here. Rules: `docs/engine.md`, section 9.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from sysquant.errors import ConfigError, nearest
from sysquant.keys import check_choice, check_number
from sysquant.portfolio import BASES, book_fill, commit, move_capital, revalue
from sysquant.state import Book, Out
from sysquant.steps import cut
from sysquant.switching import cancel_all, switch

STATES = ("active", "reducing", "off", "paused")  # of a cell, by number
HOLDS = ("halt", "operator", "outbox", "gap", "stop")  # why entries are stopped, by bit
State: TypeAlias = Literal["active", "reducing", "off", "paused"]


class _Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=str.lower):
    pass


class Switch(_Operation, frozen=True):
    """Set the state of a strategy, of a symbol in all strategies, of both, or (None) of all.

    `reducing` goes only nearer to flat; `off` leaves everything as its symbols trade; `paused`
    keeps what is held but for its exits; `active` trades, with the cash that was given back.
    """

    state: State
    strategy: str | None = None
    symbol: str | None = None


class Weigh(_Operation, frozen=True):
    """Multiply the targets of a strategy by a weight in [0, 1]."""

    strategy: str
    weight: float


class Move(_Operation, frozen=True):
    """Move capital between strategies, or from or to the pool (""); no profit, no loss.

    Drawdowns, what was given back, and the returns of the day and of the risk bar stay the
    fractions they were, also when all of it leaves and other comes later.
    """

    source: str
    target: str
    amount: float


class Release(_Operation, frozen=True):
    """Give all cash of a strategy that is off and flat back to the pool."""

    strategy: str


class Hold(_Operation, frozen=True):
    """Stop entries of the whole book for a reason, or no longer; `halt` stops every order.

    `halt` and `stop` (of the process) also cancel target orders that work.
    """

    reason: Literal["halt", "operator", "outbox", "gap", "stop"]
    on: bool


class Rearm(_Operation, frozen=True):
    """Let a strategy order again that `repeated_order` had disabled."""

    strategy: str


class Serve(_Operation, frozen=True):
    """Let a strategy ask a model, by its id, from the next bar on; "" for none."""

    strategy: str
    model: str


class Fill(NamedTuple):
    """A fill as it was recorded; money in the book's currency, `ts` in ns UTC."""

    strategy: str
    symbol: str
    quantity: float
    price: float
    fee: float
    slippage: float
    ts: int


class Charge(NamedTuple):
    """Funding, borrow fee or, without a symbol, interest as it was recorded."""

    strategy: str
    symbol: str
    amount: float


Operation: TypeAlias = Switch | Weigh | Move | Release | Hold | Rearm | Serve


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


class Operator:
    """Carries operations out on one book, and tells how it stands.

    Parameters
    ----------
    strategies, symbols : names, in the order of the book's rows.
    """

    def __init__(
        self, book: Book, out: Out, strategies: Sequence[str], symbols: Sequence[str]
    ) -> None:
        self._book, self._out = book, out
        self._strategies, self._symbols = tuple(strategies), tuple(symbols)

    def __call__(self, operation: Operation) -> None:
        """Carry one out; what it causes at once lies in the buffers.

        Raises
        ------
        ConfigError
            If it cannot be meant; nothing has changed then.
        """
        match operation:
            case Switch():
                self._switch(operation)
            case Weigh():
                self._weigh(operation)
            case Move():
                self._move(operation)
            case Release():
                self._release(operation.strategy)
            case Hold():
                self._hold(operation)
            case Rearm():
                place = self._place(operation.strategy)
                self._book.accounts["disabled"][place] = 0
                self._book.cells["entries"][place] = 0

    # -- looking

    @property
    def pool(self) -> float:
        """Cash that no strategy has."""
        return float(self._book.clock["pool"][0])

    @property
    def holds(self) -> tuple[str, ...]:
        """Reasons for which entries, or by a halt all orders, are stopped."""
        bits = int(self._book.clock["holds"][0])
        return tuple(name for bit, name in enumerate(HOLDS) if bits >> bit & 1)

    def states(self) -> dict[str, dict[str, str]]:
        """Strategy -> symbol -> active, reducing, off or paused."""
        return {
            name: {symbol: STATES[state] for symbol, state in zip(self._symbols, row, strict=True)}
            for name, row in zip(self._strategies, self._book.cells["state"].tolist(), strict=True)
        }

    def flat(self) -> tuple[str, ...]:
        """Strategies that are off in every symbol, and have no position and no order left."""
        cells = self._book.cells
        if not (cells["state"] == STATES.index("off")).any():  # asked after every batch
            return ()
        busy = (cells["quantity"] != 0) | self._book.orders["order_no"].any(axis=2)
        off = cells["state"] == STATES.index("off")
        done = (off & ~busy).all(axis=1).tolist()
        return tuple(name for name, is_done in zip(self._strategies, done, strict=True) if is_done)

    # -- doing

    def _place(self, strategy: str) -> int:
        return _index("strategy", strategy, self._strategies)

    def _switch(self, wish: Switch) -> None:
        check_choice("state", wish.state, STATES)
        book = self._book
        strategies = range(len(self._strategies))
        symbols = range(len(self._symbols))
        if wish.strategy is not None:
            strategies = [self._place(wish.strategy)]
        if wish.symbol is not None:
            symbols = [_index("symbol", wish.symbol, self._symbols)]
        for strategy in strategies:
            account = book.accounts[strategy]
            for symbol in symbols:
                switch(book, strategy, symbol, STATES.index(wish.state))
            if wish.state == "active":
                account["failed"] = 0
                self._give_back(account)

    def _give_back(self, account: Any) -> None:
        # What it had released comes back, as much as the pool has.
        clock = self._book.clock[0]
        amount = min(float(account["released"]), float(clock["pool"]))
        account["released"] = 0.0
        if amount > 0:
            move_capital(account, amount)
            clock["pool"] = round(float(clock["pool"]) - amount, 8)

    def _weigh(self, wish: Weigh) -> None:
        check_number("weight", wish.weight, least=0, most=1)
        place = self._place(wish.strategy)
        self._book.accounts["scale"][place] = wish.weight
        self._book.cells["changed"][place] = 1
        self._book.cells["slices"][place] = 0

    def _move(self, wish: Move) -> None:
        check_number("amount", wish.amount, above=0)
        if wish.source == wish.target:
            raise ConfigError(
                f"capital moves between two places, was {wish.source or 'the pool'!r}"
            )
        amount, book = round(float(wish.amount), 8), self._book
        accounts: dict[str, Any] = {
            name: book.accounts[self._place(name)] for name in (wish.source, wish.target) if name
        }
        clock, source = book.clock[0], wish.source
        cash = float(clock["pool"])
        if source:
            cash = float(accounts[source]["cash"]) - self._ordered(self._place(source))
        if not 0 < amount <= cash:
            raise ConfigError(f"amount must be > 0 and at most {max(0.0, cash):,.2f}, was {amount}")
        is_all = bool(source) and amount >= accounts[source]["equity"]
        if is_all and self._is_busy(self._place(source)):
            raise ConfigError(
                f"{source!r} has positions or orders, and would have no equity; move less, or "
                "switch it off and wait until it is flat"
            )
        for name, change in ((source, -amount), (wish.target, amount)):
            if name:
                move_capital(accounts[name], change)
            else:
                clock["pool"] = round(float(clock["pool"]) + change, 8)

    def correct(
        self, fills: Iterable[Fill], charges: Iterable[Charge], instead: np.ndarray | None
    ) -> None:
        """Put what was recorded in place of what the engine did by itself.

        Parameters
        ----------
        instead : rows of `financing` that were charged now, and are given back.
        """
        for row in () if instead is None else instead:
            self._charge(int(row["strategy"]), int(row["symbol"]), -float(row["amount"]))
        for charge in charges:
            symbol = _index("symbol", charge.symbol, self._symbols) if charge.symbol else -1
            self._charge(self._place(charge.strategy), symbol, charge.amount)
        for fill in fills:
            self._fill(fill)
        book = self._book
        revalue(book.accounts, book.cells, book.market, book.clock[0])

    def _charge(self, place: int, symbol: int, amount: float) -> None:
        account = self._book.accounts[place]
        account["cash"] = round(float(account["cash"]) - amount, 8)
        payer: Any = account if symbol < 0 else self._book.cells[place, symbol]
        payer["financing"] += amount

    def _fill(self, fill: Fill) -> None:
        place, symbol = self._place(fill.strategy), _index("symbol", fill.symbol, self._symbols)
        book, account = self._book, self._book.accounts[place]
        cell, market = book.cells[place, symbol], book.market[symbol]
        held = float(cell["quantity"])
        realised = book_fill(account, cell, fill.quantity, fill.price, float(market["unit"]))
        account["cash"] = round(float(account["cash"]) - fill.fee, 8)
        account["losses"] = (account["losses"] + (realised < 0)) * (realised <= 0)
        cell["fees"] += fill.fee
        cell["slippage"] += fill.slippage
        after = cut(held + fill.quantity, float(book.instruments["lot_size"][symbol]))
        commit(market, cell, after, 0.0, book.instruments[symbol])
        if held * after <= 0 and after:
            cell["opened_ts"], cell["best"] = fill.ts, fill.price

    def _ordered(self, place: int) -> float:
        # What working orders that buy may cost, at last prices or their limits.
        orders, book = self._book.orders[place], self._book
        prices = (book.market["price"] * book.market["unit"])[:, None]
        limits = orders["limit"] * book.market["unit"][:, None]
        each = np.where(np.isfinite(limits), np.maximum(limits, prices), prices) * orders["left"]
        each *= 1.0 + book.instruments["taker"][:, None]
        works = (orders["order_no"] > 0) & (orders["left"] > 0) & (orders["reduce_only"] == 0)
        return float(each[works].sum())

    def _release(self, strategy: str) -> None:
        place, book = self._place(strategy), self._book
        account, clock = book.accounts[place], book.clock[0]
        if (book.cells["state"][place] != STATES.index("off")).any() or self._is_busy(place):
            raise ConfigError(f"{strategy!r} is not off and flat: stop it first")
        amount = float(account["cash"])
        if amount > 0:
            account["value"], account["equity"] = 0.0, amount
            move_capital(account, -amount)
            clock["pool"] = round(float(clock["pool"]) + amount, 8)
            account["released"] += amount

    def _is_busy(self, place: int) -> bool:
        book = self._book
        return bool(book.cells["quantity"][place].any() or book.orders["order_no"][place].any())

    def _hold(self, wish: Hold) -> None:
        clock, bit = self._book.clock[0], 1 << HOLDS.index(wish.reason)
        was = int(clock["state"])
        clock["holds"] = clock["holds"] | bit if wish.on else clock["holds"] & ~bit
        clock["state"] = 2 if clock["holds"] & 1 else int(clock["holds"] > 0)
        if clock["state"] == 2 > was or (wish.on and wish.reason == "stop"):
            cancel_all(self._book, self._out)


def _index(kind: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ConfigError(f"the book has no {kind} {name!r}{nearest(name, names)}")
    return names.index(name)
