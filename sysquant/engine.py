"""The engine: one deterministic fold over market events, the same for backtest and live.

A batch goes through three passes: bars close, strategies turn them into targets, and one compiled
loop sizes, reviews, fills and accounts. Strategies see market history alone, so a batch may be one
tick or a year: the effects are the same bytes. No I/O, no wall clock, no global random numbers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sysquant import records
from sysquant.bars import BarClock, Events, events_of
from sysquant.effects import Effects
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution, order_key
from sysquant.loop import Book, Out, run
from sysquant.risk import RiskChain
from sysquant.sizing import WeightSizing
from sysquant.strategy import Decider, Strategy
from sysquant.types import Bars, Floats, Instrument, Ticks

_STATE = ("clock", "market", "accounts", "cells", "working")
_CHUNK = 65_536  # events in one pass: bounds memory, changes nothing else


class Engine:
    """A book of strategies over a universe, advanced by batches of market events.

    Parameters
    ----------
    universe : what may be traded; symbol columns are indexes into it.
    strategies : name -> strategy; they act in name order.
    fractions : name -> share of `capital` given to it at the start; what is left stays in the
        pool. Defaults to equal shares of all of it.
    capital : quote currency.
    interval : of the bars that strategies decide on, ns.
    seed : of every random draw.
    snapshot_ns : engine time between two snapshots of the portfolio.

    Raises
    ------
    ConfigError
        If there is no strategy or symbol, or the fractions cannot be meant.
    """

    def __init__(
        self,
        *,
        universe: Sequence[Instrument],
        strategies: Mapping[str, Strategy],
        risk: RiskChain,
        execution: Execution,
        sizing: WeightSizing,
        interval: int,
        capital: float = 1_000_000.0,
        fractions: Mapping[str, float] | None = None,
        seed: int = 1,
        snapshot_ns: int = 60_000_000_000,
    ) -> None:
        if not strategies or not universe:
            raise ConfigError("a book needs at least one strategy and one symbol")
        if interval <= 0 or snapshot_ns <= 0 or not 0 < capital < math.inf:
            raise ConfigError(
                "bar interval, snapshot interval and capital must be > 0, "
                f"were {interval} ns, {snapshot_ns} ns, {capital}"
            )
        self.symbols = tuple(instrument.symbol for instrument in universe)
        self.strategies = dict(sorted(strategies.items()))
        self.risk = risk
        self.interval = interval
        self._bar_clock = BarClock(len(universe), interval)
        self._deciders = [
            [strategy.decider() for _ in universe] for strategy in self.strategies.values()
        ]
        cells = np.zeros((len(strategies), len(universe)), records.CELL)
        cells["target"] = np.nan
        cells["refused_target"] = np.nan
        self._book = Book(
            instruments=np.array(
                [(i.tick_size, i.lot_size, i.min_notional) for i in universe], records.INSTRUMENT
            ),
            terms=_terms(execution, sizing, len(universe), seed, snapshot_ns),
            checks=risk.checks,
            limits=risk.limits,
            clock=np.zeros(1, records.CLOCK),
            market=np.zeros(len(universe), records.MARKET),
            accounts=np.zeros(len(strategies), records.ACCOUNT),
            cells=cells,
            working=np.zeros(cells.shape, records.WORKING),
        )
        self._fund(capital, fractions)

    def _fund(self, capital: float, fractions: Mapping[str, float] | None) -> None:
        names = list(self.strategies)
        shares = dict.fromkeys(names, 1.0 / len(names)) if fractions is None else dict(fractions)
        if set(shares) != set(names):
            raise ConfigError(f"fractions name {sorted(shares)}, the book holds {names}")
        if min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-12:
            raise ConfigError(f"fractions must be > 0 and sum to at most 1, were {shares}")
        accounts = self._book.accounts
        accounts["allocation"] = np.round([shares[n] * capital for n in names], 8)
        for field in ("cash", "equity", "peak"):
            accounts[field] = accounts["allocation"]
        accounts["key"] = [order_key(name) for name in names]
        self._book.clock["pool"] = np.round(capital - accounts["allocation"].sum(), 8)

    # -- advancing

    def warm(self, bars: Bars) -> None:
        """Let features see history, without decisions; before the first `step`."""
        if len(bars) and self.engine_ts:
            raise DataError("history can only be given before the first event")
        for symbol in range(len(self.symbols)):
            columns = _bar_columns(bars[bars.symbol == symbol])
            for deciders in self._deciders:
                deciders[symbol].run(columns)

    def warmup_end(self, batch: Ticks | Bars) -> int:
        """Where the history must end that comes before a batch, ns UTC: a bar's end."""
        start = int(events_of(batch[:1], self.interval).start[0])
        return start - start % self.interval

    def step(self, batch: Ticks | Bars) -> Effects:
        """Advance over a batch, in its order, and return what it caused."""
        events = events_of(batch, self.interval)
        parts = [
            self._advance(Events._make(column[at : at + _CHUNK] for column in events))
            for at in range(0, len(batch), _CHUNK)
        ]
        return Effects.join(parts)

    def _advance(self, events: Events) -> Effects:
        closed = self._bar_clock.close(events)
        decisions = self._decide(closed)
        out = self._buffers(len(decisions), len(closed))
        run(self._book, out, events, closed, decisions)
        written = zip(records.EFFECTS, out[:-1], out.counts, strict=True)
        return Effects({name: rows[:n] for name, rows, n in written})

    def _buffers(self, decisions: int, bars: int) -> Out:
        # Room for the most that a pass can cause: an order per decision, a fill per order.
        strategies, symbols = self._book.cells.shape
        sizes = {
            "signals": decisions,
            "orders": decisions,
            "risk_receipts": decisions * len(self.risk.checks),
            "executions": decisions + strategies * symbols,
            "portfolio_history": bars * (1 + strategies * (1 + symbols)),
        }
        buffers = [np.zeros(sizes[name], dtype) for name, dtype in records.EFFECTS.items()]
        return Out(*buffers, counts=np.zeros(len(buffers), np.int64))

    def _decide(self, closed: records.Rows) -> records.Rows:
        # One row per strategy and closed bar, in (position, strategy, symbol) order.
        shape = (len(self.strategies), len(closed))
        targets = np.empty(shape, np.float64)
        symbols: list[int] = np.unique(closed["symbol"]).tolist()
        for symbol in symbols:
            rows = closed["symbol"] == symbol
            columns = _bar_columns(closed[rows])
            for strategy, deciders in enumerate(self._deciders):
                targets[strategy, rows] = deciders[symbol].run(columns)
        decisions = np.empty(shape, records.DECISION)
        for field in ("position", "ts", "symbol"):
            decisions[field] = closed[field]
        decisions["strategy"] = np.arange(len(self.strategies))[:, None]
        decisions["target"] = targets
        decisions = decisions.ravel()
        order = np.lexsort((decisions["symbol"], decisions["strategy"], decisions["position"]))
        return decisions[order]

    # -- looking

    @property
    def engine_ts(self) -> int:
        """Largest event time so far, ns UTC; 0 before the first."""
        return int(self._bar_clock.clock["engine_ts"][0])

    @property
    def late(self) -> int:
        """Events that came older than engine time, so far."""
        return int(self._bar_clock.clock["late"][0])

    @property
    def bars(self) -> int:
        """Bars closed so far, over all symbols."""
        return int(self._bar_clock.clock["bars"][0])

    @property
    def next_mark(self) -> int:
        """End of the bar that is open, ns UTC; 0 when none is."""
        return int(self._bar_clock.clock["end"][0])

    def accounts(self) -> dict[str, dict[str, float]]:
        """Strategy -> allocation, cash, equity, peak and drawdown at the last trades."""
        fields = ("allocation", "cash", "equity", "peak")
        return {
            name: {field: float(row[field]) for field in fields}
            | {"drawdown": float(row["equity"] / row["peak"] - 1.0)}
            for name, row in zip(self.strategies, self._book.accounts, strict=True)
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
            "bars": f"{self.interval} ns",
            "instruments": str(self._book.instruments.tolist()),
            "terms": str(_named(self._book.terms[0])),
            "allocations": str(self._book.accounts["allocation"].tolist()),
            "risk": str(dict(zip(self.risk.names, self.risk.limits.tolist(), strict=True))),
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "bar_clock": self._bar_clock.clock,
            "open_bars": self._bar_clock.open_bars,
        } | {name: getattr(self._book, name) for name in _STATE}

    def state(self) -> dict[str, np.ndarray]:
        """A copy of everything that the next step depends on, by name."""
        state = {name: array.copy() for name, array in self._arrays().items()}
        for name, symbol, decider in self._named_deciders():
            for part, array in decider.state().items():
                state[f"features/{name}/{symbol}/{part}"] = array
        return state

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
        for name, symbol, decider in self._named_deciders():
            prefix = f"features/{name}/{symbol}/"
            decider.restore(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )

    def _named_deciders(self) -> Iterator[tuple[str, str, Decider]]:
        for name, deciders in zip(self.strategies, self._deciders, strict=True):
            for symbol, decider in zip(self.symbols, deciders, strict=True):
                yield name, symbol, decider


def _terms(
    execution: Execution, sizing: WeightSizing, symbols: int, seed: int, snapshot_ns: int
) -> np.ndarray:
    terms = np.zeros(1, records.TERMS)
    values: dict[str, Any] = {
        "seed": seed,
        "retry_after": sizing.retry_after,
        "snapshot_ns": snapshot_ns,
        "latency_ns": execution.latency_ns,
        "share": 1.0 / symbols if sizing.split else 1.0,
        "band": sizing.band,
        "latency_sigma": execution.latency_sigma,
        "slippage": execution.slippage,
        "fee": execution.fee,
    }
    for name, value in values.items():
        terms[name] = value
    return terms


def _bar_columns(bars: Bars | np.ndarray) -> dict[str, Floats]:
    names = ("ts", "open", "high", "low", "close", "volume")
    if isinstance(bars, Bars):
        return {name: getattr(bars, name) for name in names}
    return {name: np.ascontiguousarray(bars[name]) for name in names}


def _named(row: records.Row) -> dict[str, Any]:
    return dict(zip(row.dtype.names, row.item(), strict=True))
