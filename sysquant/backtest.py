"""The backtest driver: history -> engine -> a result. The engine is the one that trades live.

Input: a feed of the past, or bars in memory. Output: a `Result` with every signal, order, receipt,
fill and snapshot, which can be written to the store, and the prices it all rested on. No journal: a
backtest that dies is repeated. Nothing is drawn here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sysquant.bars import BarClock, events_of
from sysquant.effects import Effects, Labels
from sysquant.engine import Engine
from sysquant.errors import ConfigError, nearest
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.rows import run_row
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Strategy
from sysquant.tally import Tally
from sysquant.types import SECOND, Bars, Feed, Instrument, Ticks, clock_mark

if TYPE_CHECKING:
    import pandas as pd

DESK_CHECKS: tuple[Mapping[str, object], ...] = (
    {"check": "order_size", "limit": 2.1},
    {"check": "cash", "limit": 0.0},
    {"check": "short_limit", "limit": 1.0},
    {"check": "drawdown", "limit": 0.5},
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a backtest decided and what came of it.

    Parameters
    ----------
    engine : as it stood after the last event.
    labels : names of what the effects' indexes stand for.
    effects : everything it caused, in order.
    tally : counts.
    start, end : first and last event, ns UTC; 0 when there was none.
    closes : (B,) records of ts, symbol (its index) and close of every bar, by (ts, symbol); the
        last of a symbol may be of a bar cut short at `end`.
    """

    engine: Engine
    labels: Labels
    effects: Effects
    tally: Tally
    start: int
    end: int
    closes: np.ndarray
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def table(self, name: str) -> "pd.DataFrame":
        """One of signals, orders, risk_receipts, executions, portfolio_history as a frame."""
        if name not in self.effects.rows:
            raise ConfigError(f"a result has no table {name!r}{nearest(name, self.effects.rows)}")
        return self.arrow(name).to_pandas()

    def arrow(self, name: str) -> pa.Table:
        """The same as Arrow, without copies where possible."""
        if name not in self._tables:
            self._tables[name] = self.labels.table(name, self.effects[name], 0)
        return self._tables[name]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of the universe, in its order."""
        return self.engine.symbols

    def prices(self, symbol: str) -> "pd.Series":
        """Close of every bar of `symbol`, quote currency, indexed by time (UTC).

        Raises
        ------
        ConfigError
            If the universe has no such symbol.
        """
        if symbol not in self.symbols:
            raise ConfigError(
                f"the universe has no symbol {symbol!r}{nearest(symbol, self.symbols)}"
            )
        rows = self.closes[self.closes["symbol"] == self.symbols.index(symbol)]
        return _series(rows["ts"], rows["close"], symbol)

    @property
    def equity(self) -> "pd.Series":
        """Equity of the whole book, with its pool, at every snapshot and at the end.

        Returns
        -------
        Quote currency, indexed by time (UTC), rising; empty when there was no event.
        """
        rows = self.effects["portfolio_history"]
        accounts = rows[(rows["symbol"] < 0) & (rows["ts"] < self.end)]
        ts, at = np.unique(accounts["ts"], return_inverse=True)
        total = np.bincount(at, weights=accounts["equity"], minlength=len(ts))
        if self.end:
            last = sum(account["equity"] for account in self.engine.accounts().values())
            ts, total = np.append(ts, self.end), np.append(total, self._pool + last)
        return _series(ts, total, "equity")

    @property
    def drawdown(self) -> "pd.Series":
        """Equity against its highest so far: fractions <= 0 at the times of `equity`."""
        equity = self.equity
        return (equity / equity.cummax() - 1.0).rename("drawdown")

    @property
    def buy_and_hold(self) -> "pd.Series":
        """What the strategies' capital had become, held in equal shares of every symbol.

        Bought at the first close of each symbol that traded (cash until then), without costs; the
        pool stays as it is. Quote currency, at the times of `equity`.
        """
        import pandas as pd

        times = self.equity.index
        capital = sum(account["allocation"] for account in self.engine.accounts().values())
        held = [price for price in map(self.prices, self.symbols) if len(price)]
        worth = np.full(len(times), self._pool + (0.0 if held else capital))
        for price in held:
            at = price.index.searchsorted(times, side="right") - 1
            worth += capital / len(held) * price.to_numpy()[np.maximum(at, 0)] / price.iloc[0]
        return pd.Series(worth, times, name="buy and hold")

    @property
    def _pool(self) -> float:
        return float(self.engine.state()["clock"]["pool"][0])

    def store(self, client: Any, book: str, config: str = "{}") -> None:
        """Write every row, and the run itself, to the store under `labels.run`.

        Parameters
        ----------
        client : from `sysquant.store.connect`, migrated.
        book : its name.
        config : what the run was composed of, secrets unresolved.
        """
        from sysquant.store import insert

        build = str(self.engine.fingerprint())
        tables = {"runs": run_row(self.labels.run, "backtest", book, build, config)}
        for name in self.effects.rows:
            tables[name] = self.arrow(name)
        for name, table in tables.items():
            if table.num_rows:
                insert(client, name, table, f"{self.labels.run} {name}")

    def __repr__(self) -> str:
        names = ", ".join(f"{n}={s!r}" for n, s in self.engine.strategies.items())
        lines = [f"Backtest of {names} on {', '.join(self.symbols)}"]
        if not self.end:
            return f"{lines[0]}\n  no events"
        day = np.array([self.start, self.end], "M8[ns]").astype("M8[s]")
        lines.append(f"  {day[0]} to {day[1]} UTC, {self.engine.bars:,} bars")
        for name, account in self.engine.accounts().items():
            gain = account["equity"] / account["allocation"] - 1
            lines.append(
                f"  {name}: equity {account['equity']:,.2f} ({gain:+.2%}), "
                f"drawdown now {account['drawdown']:.2%}"
            )
        hold = self.buy_and_hold
        fills = self.effects["executions"]
        t = self.tally
        lines += [
            f"  book: worst drawdown {self.drawdown.min():.2%}, "
            f"buy and hold instead {hold.iloc[-1]:,.2f} ({hold.iloc[-1] / hold.iloc[0] - 1:+.2%})",
            f"  signals {t.signals:,}, orders approved {t.approved:,}, refused {t.refused:,} "
            f"({t.top_reasons()}), fills {t.fills:,}",
            f"  traded {np.abs(fills['quantity'] * fills['price']).sum():,.2f}, "
            f"fees {fills['fee'].sum():,.2f}, slippage {fills['slippage'].sum():,.2f}",
        ]
        return "\n".join(lines)


class _Closes:
    # Closes the bars that the engine closes, by the same code, and keeps time and close of each:
    # what a plot needs of millions of ticks.

    _FIELDS = np.dtype([("ts", "i8"), ("symbol", "i8"), ("close", "f8")])
    _CHUNK = 65_536  # events at once: bounds memory, changes nothing else

    def __init__(self, symbols: int, interval: int) -> None:
        self._clock = BarClock(symbols, interval)
        self._interval = interval
        self._parts = [np.empty(0, self._FIELDS)]

    def add(self, batch: Ticks | Bars) -> None:
        events = events_of(batch, self._interval)
        for _, closed, bars in self._clock.passes(events, self._CHUNK):
            rows = np.empty(bars, self._FIELDS)
            for name in self._FIELDS.names or ():
                rows[name] = getattr(closed, name)[:bars]
            self._parts.append(rows)

    def all(self, end: int) -> np.ndarray:
        self.add(clock_mark(int(self._clock.clock["end"][0])))
        closes = np.concatenate(self._parts)
        np.minimum(closes["ts"], end, out=closes["ts"])
        return closes


def run(
    engine: Engine, batches: Iterable[Ticks | Bars], *, name: str,
    history: Callable[[int, Mapping[int, int]], Bars] | None = None,
) -> Result:  # fmt: skip
    """Drive `engine` over batches of the past, in their order.

    Parameters
    ----------
    engine : fresh.
    batches : of market events; how they are cut changes nothing.
    name : of the run, in every row.
    history : bars before a time (ns UTC), for warming up before the first event.
    """
    tally = Tally()
    parts: list[Effects] = []
    closes = _Closes(len(engine.symbols), engine.interval)
    start = end = 0
    for batch in batches:
        if not len(batch):
            continue
        if not start:
            start = int(batch.ts[0])
            if history is not None:
                engine.warm(history(engine.warmup_end(batch), {}))
        end = max(end, int(batch.ts.max()))
        effects = engine.step(batch)
        tally.add(effects, len(batch), engine.risk)
        parts.append(effects)
        closes.add(batch)
    labels = Labels(name, list(engine.strategies), engine.symbols, engine.risk)
    return Result(engine, labels, Effects.join(parts), tally, start, end, closes.all(end))


def poll_all(feed: Feed) -> Iterator[Ticks | Bars]:
    """Every batch of a feed that ends."""
    feed.seek({})
    while True:
        poll = feed.poll(0.0)
        yield poll.events
        if poll.ended:
            return


def fresh_engine(
    strategy: Strategy | Mapping[str, Strategy],
    universe: Sequence[Instrument],
    *,
    interval: int = 60 * SECOND,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
) -> Engine:
    """The engine of a backtest before its first event; parameters as of `backtest`."""
    return Engine(
        universe=universe,
        strategies=strategy if isinstance(strategy, Mapping) else {_name(strategy): strategy},
        risk=risk or RiskChain(checks=DESK_CHECKS),
        execution=execution or Execution(),
        sizing=sizing or WeightSizing(),
        orders=orders or Orders(),
        exits=exits or Exits(),
        interval=interval,
        capital=capital,
        seed=seed,
        snapshot_ns=snapshot_ns,
    )


def backtest(
    strategy: Strategy | Mapping[str, Strategy],
    bars: Bars,
    universe: Sequence[Instrument],
    *,
    interval: int = 60 * SECOND,
    capital: float = 1_000_000.0,
    risk: RiskChain | None = None,
    execution: Execution | None = None,
    sizing: Sizing | None = None,
    orders: Orders | None = None,
    exits: Exits | None = None,
    seed: int = 1,
    snapshot_ns: int = 3600 * SECOND,
) -> Result:
    """Backtest one strategy, or several by name, on bars in memory.

    Parameters
    ----------
    strategy : an instance; its name in the result is its class's, in lower case.
    bars : of `interval` ns, as `sysquant.history` returns them.
    universe : the instruments that the bars' symbol column counts.
    capital : quote currency, divided equally among the strategies.
    risk, execution, sizing : defaults are the desk's four checks, 50 ms latency, 1 bp slippage,
        5 bp fee, and an equal share of equity per symbol.
    orders, exits : defaults are market orders, and no exits but the strategy's own.
    """
    engine = fresh_engine(
        strategy, universe, interval=interval, capital=capital, risk=risk, execution=execution,
        sizing=sizing, orders=orders, exits=exits, seed=seed, snapshot_ns=snapshot_ns,
    )  # fmt: skip
    return run(engine, [bars], name="notebook")


def _name(strategy: Strategy) -> str:
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(strategy).__name__)
    return words.lstrip("_")


def _series(ts: np.ndarray, values: np.ndarray, name: str) -> "pd.Series":
    import pandas as pd

    index = pd.DatetimeIndex(np.ascontiguousarray(ts).view("M8[ns]"), tz="UTC", name="ts")
    return pd.Series(values, index, name=name)
