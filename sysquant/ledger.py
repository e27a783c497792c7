"""What a run was worth, held, traded and paid: arrays from the engine's records and its bars.

Input: the engine after the last event, all it caused, and the bars it closed. Output: arrays in the
book's currency, or fractions, each computed once when it is first asked for. Nothing is judged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sysquant import lint, performance, summary
from sysquant.effects import Effects
from sysquant.engine import Engine
from sysquant.lint import Finding
from sysquant.performance import Returns
from sysquant.summary import Estimate
from sysquant.trips import round_trips
from sysquant.types import Floats, Instrument, Ints

STOOD_STILL = 10  # bars without another close: what a price is stale after


class Ledger:
    """A finished run in numbers.

    Parameters
    ----------
    engine : as it stood after the last event.
    effects : everything it caused, in order.
    closes : (B,) records of ts, symbol, close and volume of every bar, by (ts, symbol).
    end : last event, ns UTC; 0 when there was none.
    """

    def __init__(self, engine: Engine, effects: Effects, closes: np.ndarray, end: int) -> None:
        self.effects = effects
        self.universe = engine.universe
        self.accounts = engine.accounts()
        self.pool = float(engine.state()["clock"]["pool"][0])
        self.end = end
        self._closes = closes
        self._positions = engine.positions()

    @property
    def capital(self) -> float:
        """Given to the strategies."""
        return sum(account["allocation"] for account in self.accounts.values())

    @property
    def fills(self) -> np.ndarray:
        """Records of `executions`."""
        return self.effects["executions"]

    @cached_property
    def bars(self) -> list[np.ndarray]:
        """Bars of every symbol, by time."""
        return by_symbol(self._closes, len(self.universe))

    @cached_property
    def equity(self) -> tuple[Ints, Floats]:
        """Times of the snapshots and the end, and equity of the book, with its pool, then."""
        rows = self.effects["portfolio_history"]
        accounts = rows[(rows["symbol"] < 0) & (rows["ts"] < self.end)]
        ts, at = np.unique(accounts["ts"], return_inverse=True)
        total = np.bincount(at, weights=accounts["equity"], minlength=len(ts)).astype(float)
        if self.end:
            last = sum(account["equity"] for account in self.accounts.values())
            ts, total = np.append(ts, self.end), np.append(total, self.pool + last)
        return ts, total

    def held(self, symbols: Iterable[int]) -> Floats:
        """Equity, had the capital been held in equal shares of `symbols`, at the times of equity.

        Bought at the first close of each that traded (cash until then), without costs.
        """
        times = self.equity[0]
        bars = [self.bars[symbol] for symbol in symbols if len(self.bars[symbol])]
        worth = np.full(len(times), self.pool + (0.0 if bars else self.capital))
        for own in bars:
            worth += self.capital / len(bars) * close_at(own, times) / own["close"][0]
        return worth

    @cached_property
    def returns(self) -> Returns:
        """Of the book, see `sampled`."""
        return sampled(*self.equity)

    @cached_property
    def values(self) -> Floats:
        """Bought or sold by each fill, book currency, > 0."""
        return np.abs(self.fills["quantity"]) * self.fills["price"] * self._units

    @cached_property
    def _units(self) -> Floats:
        return units(self.universe, self.bars, self.fills["symbol"], self.fills["ts"])

    @cached_property
    def _last(self) -> tuple[Floats, Floats]:
        # Last close and unit of every symbol.
        symbols = np.arange(len(self.universe))
        last = np.full(len(symbols), self.end)
        closes = np.array([close_at(own, last[:1])[0] for own in self.bars])
        return closes, units(self.universe, self.bars, symbols, last)

    @cached_property
    def trips(self) -> np.ndarray:
        """Round trips, `trips.TRIP` records."""
        return round_trips(
            self.fills, self.effects["financing"],
            lots=np.array([instrument.lot_size for instrument in self.universe]),
            units=self._units, last=self._last[0], last_units=self._last[1],
            closes=self.bars, end=self.end,
        )  # fmt: skip

    @cached_property
    def exposure(self) -> tuple[Floats, Floats]:
        """Gross and net exposure at the times of equity, fractions of it."""
        worth = dict(
            zip((i.symbol for i in self.universe), np.prod(self._last, axis=0), strict=True)
        )
        held = [
            quantity * worth[symbol]
            for positions in self._positions.values()
            for symbol, quantity in positions.items()
        ]
        return exposure(self.effects["portfolio_history"], *self.equity, np.array(held))

    @cached_property
    def run(self) -> "Run":
        """All of it that statistics are made of."""
        return Run(
            *self.equity, *self.exposure, self.returns, self.trips, self.fills["ts"], self.values,
            self.fills["fee"] + self.fills["slippage"],
            participation(self.universe, self.bars, self.fills), stale(self.bars, self.fills),
            float(self.effects["financing"]["amount"].sum()), self.capital,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """What statistics are made of: one run, or several that were stitched together.

    Parameters
    ----------
    ts, equity : (T,) the snapshots and the end, ns UTC, rising, and what the book was worth then.
    gross, net : (T,) exposure, fractions of equity.
    returns : of the equity, see `sampled`.
    trips : `trips.TRIP` records, in any order.
    traded_at, values, costs : (F,) of every fill, by time: when, what was bought or sold, and fee
        and slippage; book currency, > 0 when paid.
    participation : (F,) quantity by the volume of its bar.
    is_stale : (F,) whether it was against a price that stood still.
    financed : paid for what was held, book currency.
    capital : given to the strategies, book currency.
    """

    ts: Ints
    equity: Floats
    gross: Floats
    net: Floats
    returns: Returns
    trips: np.ndarray
    traded_at: Ints
    values: Floats
    costs: Floats
    participation: Floats
    is_stale: NDArray[np.bool_]
    financed: float
    capital: float

    @property
    def paid(self) -> tuple[float, float]:
        """P&L net of all costs, and these: fees, slippage and financing; book currency."""
        net = self.equity[-1] - self.equity[0] if len(self.ts) else 0.0
        return float(net), float(self.costs.sum()) + self.financed

    def returns_of(self, equity: Floats) -> Floats:
        """Returns of another equity at the same times, in the periods of `returns`."""
        own = self.returns
        return performance.sample(self.ts, equity, own.every).values[: len(own.values)]

    def by_period(self) -> dict[str, Floats]:
        """Means of every period of `returns`: exposures, time in the market, turnover per year."""
        own = self.returns
        if not len(own.values):
            return {}
        place = np.searchsorted(own.ts, self.ts)
        place[-1] = min(place[-1], len(own.values) - 1)
        inside = place < len(own.values)
        count = np.bincount(place[inside], minlength=len(own.values))
        gross, net = self.gross[inside], self.net[inside]
        series = {
            "gross_exposure": gross, "net_exposure": net, "time_in_market": (gross > 0.0) * 1.0,
        }  # fmt: skip
        means = {
            name: np.bincount(place[inside], weights=each, minlength=len(own.values)) / count
            for name, each in series.items()
        }
        edges = np.append(own.ts[:-1], self.ts[-1])
        traded = np.diff(until(self.traded_at, self.values, edges), prepend=0.0)
        before = self.equity[0] * np.cumprod(np.append(1.0, 1.0 + own.values[:-1]))
        return means | {"turnover": traded / before * own.per_year}

    def estimates(self, held: Floats, *, sure: bool = True) -> list[Estimate]:
        """Every statistic, see `summary`.

        Parameters
        ----------
        held : (T,) what the benchmark was worth, at the times of equity.
        sure : whether limits that take a bootstrap are computed as well.
        """
        ended = self.trips[self.trips["is_open"] == 0]
        lowest = float(performance.drawdown(self.equity).min(initial=0.0))
        length = performance.longest_drawdown(self.ts, self.equity) / performance.DAY
        against = self.returns_of(held)
        return [
            *summary.of_returns(self.returns, against, (lowest, length), sure=sure),
            *summary.of_means(self.by_period(), sure=sure),
            *summary.of_trips(ended["pnl"], ended["exit_ts"] - ended["entry_ts"]),
            *summary.of_fills(self.costs, self.values, self.participation, self.capital),
        ]

    def findings(self) -> list[Finding]:
        """What is wrong at first sight, see `lint`; nothing where there was no event."""
        if not len(self.ts):
            return []
        return [
            *lint.short_history(self.returns.days, len(self.returns.values)),
            *lint.few_trips(len(self.trips)),
            *lint.one_trip(self.trips["pnl"]),
            *lint.costs_above_edge(*self.paid),
            *lint.flat_equity(self.returns.values),
            *lint.stale_fills(self.is_stale),
        ]


def sampled(ts: Ints, equity: Floats) -> Returns:
    """Returns per period that suits the length of a run; see `performance.period`."""
    return performance.sample(ts, equity, performance.period(ts))


def by_symbol(closes: np.ndarray, symbols: int) -> list[np.ndarray]:
    """Bars of every symbol, by time.

    Parameters
    ----------
    closes : (B,) records with ts and symbol, by ts.
    symbols : how many there are.
    """
    order = np.argsort(closes["symbol"], kind="stable")
    edges = np.searchsorted(closes["symbol"], np.arange(1, symbols), sorter=order)
    return [closes[rows] for rows in np.split(order, edges)]


def close_at(bars: np.ndarray, ts: Ints) -> Floats:
    """Last close at or before each time, or the first where there was none; NaN without bars."""
    if not len(bars):
        return np.full(len(ts), np.nan)
    place = np.searchsorted(bars["ts"], ts, side="right") - 1
    return bars["close"][np.maximum(place, 0)]


def units(
    universe: Sequence[Instrument], closes: Sequence[np.ndarray], symbol: Ints, ts: Ints
) -> Floats:
    """Book currency per unit at a price of 1: the multiplier, and the last conversion rate.

    Parameters
    ----------
    universe : Y instruments.
    closes : Y arrays of records with ts and close, by ts.
    symbol, ts : (F,) of what is asked.

    Returns
    -------
    (F,) units; of an instrument with a conversion by the close of its last bar, which the engine
    may have known more finely.
    """
    names = [instrument.symbol for instrument in universe]
    found = np.array([instrument.multiplier for instrument in universe])[symbol]
    for place, instrument in enumerate(universe):
        if instrument.conversion:
            own = symbol == place
            found[own] *= close_at(closes[names.index(instrument.conversion)], ts[own])
    return found


def participation(
    universe: Sequence[Instrument], closes: Sequence[np.ndarray], fills: np.ndarray
) -> Floats:
    """Quantity of every fill by the volume of its bar, which may close after it.

    Returns
    -------
    (F,) fractions; infinite where nothing was traded in the bar.
    """
    found = np.empty(len(fills))
    for symbol, bars in enumerate(closes):
        own = np.flatnonzero(fills["symbol"] == symbol)
        if not len(own):
            continue
        bar = bars[_bar_of(bars, fills["ts"][own])]
        is_quote = universe[symbol].volume_unit == "quote"
        volume = bar["volume"] / bar["close"] if is_quote else bar["volume"]
        quantity = np.abs(fills["quantity"][own])
        found[own] = np.divide(quantity, volume, out=np.full(len(own), np.inf), where=volume > 0.0)
    return found


def stale(closes: Sequence[np.ndarray], fills: np.ndarray) -> NDArray[np.bool_]:
    """Whether each fill is against a price that stood still.

    Its bar had no volume (of a symbol that has any), or its close had been the same for
    `STOOD_STILL` bars: what history that was filled forward looks like.
    """
    found = np.zeros(len(fills), bool)
    for symbol, bars in enumerate(closes):
        own = np.flatnonzero(fills["symbol"] == symbol)
        if not len(own):
            continue
        place = _bar_of(bars, fills["ts"][own])
        changed = np.append(True, np.diff(bars["close"]) != 0.0)
        rows = np.arange(len(bars))
        still = rows - np.maximum.accumulate(np.where(changed, rows, 0))
        found[own] = still[place] >= STOOD_STILL
        if (bars["volume"] > 0.0).any():
            found[own] |= bars["volume"][place] == 0.0
    return found


def _bar_of(bars: np.ndarray, ts: Ints) -> Ints:
    # The bar that each time is in; the last one where it was cut short.
    place = np.searchsorted(bars["ts"], ts, side="right")
    return np.minimum(place, len(bars) - 1)


def exposure(
    snapshots: np.ndarray, times: Ints, equity: Floats, held: Floats
) -> tuple[Floats, Floats]:
    """Gross and net exposure at every time of the equity.

    Parameters
    ----------
    snapshots : records of `portfolio_history`.
    times : (T,) ns UTC, rising; the last is the end of the run.
    equity : (T,) of the book at these.
    held : value of every position at the end, book currency.

    Returns
    -------
    Sum of |value| of each strategy's positions, and of value: fractions of equity, (T,) each; NaN
    where equity is not above 0.
    """
    rows = snapshots[(snapshots["symbol"] >= 0) & (snapshots["ts"] < times[-1:].sum())]
    place = np.searchsorted(times, rows["ts"])
    found: list[Floats] = []
    for values, last in ((np.abs(rows["value"]), np.abs(held)), (rows["value"], held)):
        total = np.bincount(place, weights=values, minlength=len(times))
        total[-1:] = last.sum()
        found.append(np.divide(total, equity, out=np.full(len(times), np.nan), where=equity > 0.0))
    return found[0], found[1]


def until(ts: Ints, amounts: Floats, times: Ints) -> Floats:
    """Sum of the amounts before each of `times`, and of all at the last.

    Parameters
    ----------
    ts : (F,) when each came, rising.
    amounts : (F,) numbers.
    times : (T,) rising. A snapshot comes before the fills of its instant, the end after them.
    """
    total = np.append(0.0, np.cumsum(amounts))
    place = np.searchsorted(ts, times, side="left")
    place[-1:] = len(ts)
    return total[place]
