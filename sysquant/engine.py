"""The engine: one deterministic fold over market events, the same for backtest and live.

A batch goes through three passes: bars close, strategies turn them into targets, and one compiled
loop sizes, reviews, fills and accounts. Strategies see market history alone, so a batch may be one
tick or a year: the effects are the same bytes. No I/O, no wall clock, no global random numbers.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from sysquant import operation, records
from sysquant.activity import Activity, BarSize, clock_of
from sysquant.amendment import Amendment
from sysquant.bars import ClosedBars, Events
from sysquant.book import book_of, buffers_of, check_activity, check_longer, rules_of
from sysquant.clockwork import take_history
from sysquant.effects import Effects
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution, order_key
from sysquant.exits import Exits
from sysquant.facts import USES_TAIL
from sysquant.keys import check_number
from sysquant.loop import run
from sysquant.opinions import Models, Opinions, Seen
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars, Floats, Instrument, Ints, Ticks

_STATE = (
    "clock", "market", "active", "accounts", "cells", "orders", "rates", "returns", "covariance",
    "own_returns", "tails", "own_lowest",
)  # fmt: skip
_SERIES = ("latencies", "sessions", "funding_ts", "funding_rate")
_WEIGHT = WeightSizing()
_MARKET_ORDERS = Orders()
_NO_EXITS = Exits()
Decided = tuple[Events, ClosedBars, int, Floats]  # a pass: events, bars, how many, their targets
Rows = Mapping[str, np.ndarray]
_PASS = {Ticks: 65_536, Bars: 16_384}  # events at a time: their bars stay in the cache


class Engine:
    """A book of strategies over a universe, advanced by batches of market events.

    Parameters
    ----------
    universe : what may be traded; symbol columns are indexes into it.
    strategies : name -> strategy; they act in name order.
    sizing, orders, exits : how targets become sizes and orders, and when positions are left; one
        for all, or by name of the strategy.
    fractions : name -> share of `capital` given to it at the start; what is left stays in the
        pool. Defaults to equal shares of all of it.
    capital : in the book's `currency`.
    interval : of the bars that strategies decide on: ns, or an `Activity` (of ticks alone).
    seed : of every random draw.
    snapshot_ns : engine time between two snapshots of the portfolio.
    promoted : names of strategies that were promoted; the others are held to `not_promoted`.
    contained : whether a strategy that raises is switched off, and the others go on.
    models : gives a strategy's model, by name and id: always the same for the same id.

    Attributes
    ----------
    operator : what it may be asked about states, holds and the pool.
    faults : of strategies that raised, in order: name, engine time, error.

    Raises
    ------
    ConfigError
        If there is no strategy or symbol, an instrument's currency cannot be converted, a number, a
        name or the fractions cannot be meant, or a strategy or sizing needs bars of time.
    """

    def __init__(
        self,
        *,
        universe: Sequence[Instrument],
        strategies: Mapping[str, Strategy],
        risk: RiskChain,
        execution: Execution,
        interval: BarSize,
        sizing: Sizing | Mapping[str, Sizing] = _WEIGHT,
        orders: Orders | Mapping[str, Orders] = _MARKET_ORDERS,
        exits: Exits | Mapping[str, Exits] = _NO_EXITS,
        capital: float = 1_000_000.0,
        currency: str = "",
        fractions: Mapping[str, float] | None = None,
        promoted: Collection[str] = (),
        seed: int = 1,
        snapshot_ns: int = 60 * SECOND,
        contained: bool = False,
        models: Models | None = None,
    ) -> None:
        if not strategies or not universe:
            raise ConfigError("a book needs at least one strategy and one symbol")
        if not isinstance(interval, Activity):
            check_number("interval", interval, above=0, below=2**63, whole=True)
        check_number("snapshot_ns", snapshot_ns, above=0, below=2**63, whole=True)
        check_number("capital", capital, above=0)
        check_number("seed", seed, least=-(2**63), below=2**63, whole=True)
        self.universe = tuple(universe)
        self.symbols = tuple(instrument.symbol for instrument in universe)
        self.strategies = dict(sorted(strategies.items()))
        self.risk = risk
        self.interval = interval
        self._bar_clock = clock_of(universe, interval)
        names = tuple(self.strategies)
        rules = rules_of(names, sizing, orders, exits, len(universe))
        for row, strategy in zip(rules, self.strategies.values(), strict=True):
            row["legs"] = bool(strategy.legs())
        if isinstance(interval, Activity):
            check_activity(interval, self.strategies, rules)
        else:
            check_longer(self.strategies, interval)
        self._book = book_of(
            universe, currency, execution, risk, 0 if isinstance(interval, Activity) else interval,
            seed, snapshot_ns, rules=rules,
        )  # fmt: skip
        buffers, self._out = buffers_of(self._book)
        self._tables = list(buffers.items())
        self._nothing = {name: buffer[:0] for name, buffer in self._tables}
        accounts = self._book.accounts
        accounts["key"] = [order_key(name) for name in names]
        accounts["promoted"] = [name in promoted for name in names]
        self._promoted = ", ".join(sorted(promoted))
        strangers = sorted(set(promoted) - set(names))
        if strangers:
            raise ConfigError(f"promoted names {strangers}, the book holds {list(names)}")
        operation.fund(self._book, names, capital, fractions)
        self._funded = accounts["allocation"].tolist()
        self.operator = operation.Operator(self._book, self._out, names, self.symbols)
        failed: Ints = accounts["failed"]
        self._opinions = Opinions(
            self.strategies, self.symbols, failed, contained=contained, models=models
        )
        self.faults = self._opinions.faults

    # -- advancing

    def warm(self, bars: Bars) -> None:
        """Let features and statistics see history, without decisions; before the first `step`."""
        if len(bars) and self.engine_ts:
            raise DataError("history can only be given before the first event")
        for symbol in range(len(self.symbols)):
            own = bars[bars.symbol == symbol]
            take_history(self._book, symbol, own.high, own.low, own.close, own.volume)
        for name in self._opinions.warm(dict(bars.columns())):  # as the loop does at a bar
            self.operator(operation.Switch("off", name))
            self._book.accounts["failed"][tuple(self.strategies).index(name)] = 1

    def warmup_end(self, batch: Ticks | Bars) -> int:
        """Where history before a batch must end, ns UTC: a bar's end, of activity the batch."""
        first = int(batch.ts[0])
        if isinstance(self.interval, Activity):
            return first
        start = first if isinstance(batch, Ticks) else first - self.interval
        return start - start % self.interval

    def step(self, batch: Ticks | Bars) -> Effects:
        """Advance over a batch, in its order, and return what it caused.

        After an error of a strategy that is not contained the engine is of no more use.

        Raises
        ------
        ConfigError
            If it is of bars, and those that are decided on are made of ticks.
        DataError
            If a symbol is not in the universe; nothing has been taken then.
        StrategyError
            If a `target` is no weight, and that is not contained.
        """
        parts: list[Effects] = []
        passes = ((*each, self._opinions.on(*each[1:])) for each in self.passes(batch))
        self._advance(passes, lambda: parts.append(self._drain()))
        return Effects.join(parts)

    def passes(self, batch: Ticks | Bars) -> Iterator[tuple[Events, ClosedBars, int]]:
        """The batch in the pieces that `step` takes it in: events, and what bars close in them.

        What closed is good until the next one. Only the clock of the bars moves: this is for
        `replay`, by others.

        Raises
        ------
        DataError
            If a symbol is not in the universe; nothing has been taken then.
        """
        return self._bar_clock.passes(batch, _PASS[type(batch)])

    def replay(self, passes: Iterable[Decided], take: Callable[[Rows], None]) -> None:
        """Advance the book over events whose bars and targets are known, as `step` would.

        Neither features nor the clock of the bars take part: many runs over one market share both.

        Parameters
        ----------
        passes : those of `passes`, each with the (S, bars) weights that were decided on its bars.
        take : is given the rows of every table when the buffers are full, and at the end; they are
            good until it returns.
        """

        def hand_over() -> None:
            counts = self._out.counts
            rows = {
                name: buffer[:count]
                for (name, buffer), count in zip(self._tables, counts.tolist(), strict=True)
            }
            take(rows)
            rows["portfolio_history"].view(np.uint64)[:] = 0  # as `_drain`
            counts[:] = 0

        self._advance(passes, hand_over)

    def rewinder(self) -> Callable[[], None]:
        """A function that puts the book back to what it is now, for one `replay` after another."""
        held = [(array, array.copy()) for array in self._arrays().values()]

        def rewind() -> None:
            for array, first in held:
                array[...] = first

        return rewind

    def drop_statistics(self) -> None:
        """Take no returns per risk bar from now on, unless a check of the chain reads them.

        Snapshots then show no volatility, Sharpe and Sortino ratio and value at risk. All else is
        the same bytes.
        """
        if not self._book.terms["checks"][0] & USES_TAIL:
            self._book.terms["risk_bar_ns"] = records.NEVER // 2

    def _advance(self, passes: Iterable[Decided], empty: Callable[[], None]) -> None:
        # `empty` makes room in the buffers, and has the last word.
        done = np.empty(2, np.int64)
        for taken, closed, bars, targets in passes:
            done[:] = 0
            while not run(self._book, self._out, taken, closed, bars, targets, done):
                empty()
        empty()

    def _drain(self) -> Effects:
        # Copies what the loop wrote, as words: three times faster than as records. A snapshot
        # leaves fields of its rows as they are: 0.
        rows = dict(self._nothing)
        counts = self._out.counts
        for table in np.flatnonzero(counts).tolist():
            name, buffer = self._tables[table]
            words = buffer[: counts[table]].view(np.uint64)
            rows[name] = words.copy().view(buffer.dtype)
            if name == "portfolio_history":
                words[:] = 0
        counts[:] = 0
        return Effects(rows)

    # -- operating

    def operate(self, wish: operation.Operation) -> Effects:
        """Carry an operation out, between two events; what it caused at once.

        Raises
        ------
        ConfigError
            If it cannot be meant; nothing has changed then.
        ModelError
            If a model cannot be served; the one before goes on.
        """
        if isinstance(wish, operation.Serve):
            self._opinions.serve(wish.strategy, wish.model)
        else:
            self.operator(wish)
        return self._drain()

    # -- looking

    @property
    def deciding(self) -> dict[str, Strategy]:
        """Strategies as they decide now: those that ask a model have it."""
        return self._opinions.deciding

    def amendment(self) -> Amendment:
        """What of the book can be put in place of what the engine did by itself."""
        return Amendment(self._book)

    def watch(self, seen: Seen) -> None:
        """Show what strategies are given on closed bars from now on; see `Opinions.watch`."""
        self._opinions.watch(seen)

    @property
    def engine_ts(self) -> int:
        """Largest event time so far, ns UTC; 0 before the first."""
        return int(self._bar_clock.clock["engine_ts"][0])

    @property
    def models(self) -> dict[str, str]:
        """Strategy -> id of the model that it asks, of those that have one."""
        return dict(self._opinions.models)

    @property
    def late(self) -> int:
        """Events that came older than engine time, so far."""
        return int(self._bar_clock.clock["late"][0])

    @property
    def bars(self) -> int:
        """Bars closed so far, over all symbols."""
        return int(self._bar_clock.clock["bars"][0])

    @property
    def ambiguous(self) -> int:
        """Bars on which the order of high and low decided what was filled, so far."""
        return int(self._book.clock["ambiguous"][0])

    @property
    def next_mark(self) -> int:
        """End of the bar that is open, ns UTC; 0 when none is."""
        return int(self._bar_clock.clock["end"][0])

    def accounts(self) -> dict[str, dict[str, float]]:
        """Strategy -> allocation, cash, equity, peak, drawdown, weight (`scale`), working orders
        and whether it failed (1), at the last trades.
        """
        fields = ("allocation", "cash", "equity", "peak", "scale", "failed")
        working = np.count_nonzero(self._book.orders["order_no"], axis=(1, 2)).tolist()
        return {
            name: {field: float(row[field]) for field in fields}
            | {"drawdown": float((row["equity"] + row["left"]) / row["peak"] - 1.0)}
            | {"orders": float(orders)}
            for name, row, orders in zip(self.strategies, self._book.accounts, working, strict=True)
        }

    def positions(self) -> dict[str, dict[str, float]]:
        """Strategy -> symbol -> quantity, of what is held."""
        return {
            name: {
                symbol: float(cell["quantity"])
                for symbol, cell in zip(self.symbols, row, strict=True)
                if cell["quantity"]
            }
            for name, row in zip(self.strategies, self._book.cells, strict=True)
        }

    # -- state

    def fingerprint(self) -> dict[str, str]:
        """What was configured, by name: two books with equal values decide alike."""
        return {
            "symbols": ", ".join(self.symbols),
            "strategies": ", ".join(f"{n}={s!r}" for n, s in self.strategies.items()),
            "bars": str(ns) if isinstance(ns := self.interval, Activity) else f"{ns} ns",
            "instruments": str([_named(row) for row in self._book.instruments]),
            "terms": str(_named(self._book.terms[0])),
            "rules": str([_named(row) for row in self._book.rules]),
            "series": hashlib.sha256(
                b"".join(getattr(self._book, name).tobytes() for name in _SERIES)
            ).hexdigest(),
            "allocations": str(self._funded),
            "promoted": self._promoted,
            "risk": str(dict(zip(self.risk.names, self.risk.limits.tolist(), strict=True))),
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        return self._bar_clock.arrays() | {name: getattr(self._book, name) for name in _STATE}

    def state(self) -> dict[str, np.ndarray]:
        """A copy of everything that the next step depends on, by name."""
        state = {name: array.copy() for name, array in self._arrays().items()}
        return state | self._opinions.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned.

        Raises
        ------
        DataError
            If a part is missing or has another shape: it is the state of another book.
        """
        for name, array in self._arrays().items():
            saved = state.get(name)
            if saved is None or saved.shape != array.shape or saved.dtype != array.dtype:
                raise DataError(f"the snapshot does not fit this book: {name!r} differs")
            array[...] = saved
        self._opinions.restore(state)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: `state` is what a book is between two steps.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            "an engine cannot be pickled or copied: make another with the same arguments, and "
            "give it the state() of this one by restore()"
        )


def _named(row: records.Row) -> dict[str, Any]:
    return dict(zip(row.dtype.names, row.item(), strict=True))
