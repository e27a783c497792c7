"""Minute candles of an exchange's REST interface, through the library ccxt, into the store.

Input: a client, a universe, an exchange and a time. Output: rows in `bars_imported`, each once
however often this is repeated or cut off, and a report of what came, what the exchange does not
have, and what was left out. Only minutes that no import has brought yet are asked for; bars that
were made of ticks are hidden by those that come.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sysquant.answers import ask, column
from sysquant.archive import MINUTE
from sysquant.backfill import Progress
from sysquant.ccxt_exchange import CcxtExchange, Page, bars_of, library
from sysquant.errors import ConfigError, FeedError, nearest
from sysquant.importing import INSIDE, Report
from sysquant.inspection import Inspection, iso
from sysquant.keys import check_choice
from sysquant.store import insert
from sysquant.tables import bar_table
from sysquant.times import DAY, check_moment, moment_ns
from sysquant.types import SECOND, Bars, Instrument, Ints

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SETTLED = 10 * SECOND  # clocks differ, and a candle may still change when its minute is over
_BLOCK = 30 * DAY  # of the store, looked at together
_MOST_LINES = 20  # of one kind that a report has of a symbol
_GIVE_UP = 2  # pages one after another without an answer, before the rest is not asked for
_PREFIXES = {"coinbaseexchange": "COINBASE"}  # of universes, where it is not ccxt's name

# What became of a minute.
_MISSING, _THERE, _IDLE, _REFUSED, _UNANSWERED = range(5)

_IMPORTED_SQL = f"""
SELECT toUnixTimestamp64Nano(ts) AS close_at, open, high, low, close, volume
FROM bars_imported FINAL WHERE {INSIDE} AND source != 'ticks' ORDER BY close_at
"""
_OF_TICKS_SQL = f"""
SELECT DISTINCT toUnixTimestamp64Nano(ts) AS close_at FROM bars_1m WHERE {INSIDE}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CcxtCandles:
    """Which candles are wanted.

    Parameters
    ----------
    exchange : ccxt's name, such as `binance` or `coinbaseexchange`.
    start, end : minutes that lie in [start, end), ISO 8601 UTC, or `-7d` before now; without an
        end, up to now. A minute that is not over is never wanted.
    symbols : of the universe -> ccxt's name such as `BTC/USDT`; others are found by the exchange's
        own name, `BINANCE:BTCUSDT` on `binance`.
    settings : of ccxt's constructor, such as `urls`, `proxies` or `options`; needs no key.

    Raises
    ------
    ConfigError
        If ccxt is not installed, or a value cannot be meant.
    """

    exchange: str = "binance"
    start: str | None = None
    end: str | None = None
    symbols: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        check_choice("exchange", self.exchange, library().exchanges)
        if self.start is None:
            raise ConfigError("start was not set; name the first day: source.start=2024-01-01")
        check_moment("start", self.start)
        check_moment("end", self.end)
        first, end = self.span
        if first >= end:
            raise ConfigError(
                f"start must be before the end and before now, was {self.start}, end={self.end}"
            )

    @property
    def span(self) -> tuple[int, int]:
        """When the first candle begins and the last one ends, whole minutes, ns UTC."""
        now = _now_ns()
        first, end = moment_ns(self.start, 0, now), moment_ns(self.end, now, now)
        return -(-first // MINUTE) * MINUTE, min(end, now - _SETTLED) // MINUTE * MINUTE

    def indices(self, universe: Sequence[Instrument]) -> list[int]:
        """Of the instruments that are of this exchange.

        Raises
        ------
        ConfigError
            If there is none, or `symbols` has one that is not in the universe.
        """
        names = [one.symbol for one in universe]
        for name in self.symbols:
            if name not in names:
                raise ConfigError(
                    f"source.symbols has {name!r}, not in the universe{nearest(name, names)}"
                )
        prefix = _PREFIXES.get(self.exchange, self.exchange.upper()) + ":"
        found = [
            index
            for index, name in enumerate(names)
            if name.startswith(prefix) or name in self.symbols
        ]
        if not found:
            raise ConfigError(
                f"the universe has no symbol that begins with {prefix!r}; name one, or say in"
                " source.symbols which market one is"
            )
        return found

    def minutes(self, universe: Sequence[Instrument]) -> int:
        """How many minutes are wanted of all symbols together."""
        first, end = self.span
        return len(self.indices(universe)) * ((end - first) // MINUTE)


def import_candles(
    client: "Client",
    universe: Sequence[Instrument],
    wanted: CcxtCandles,
    *,
    absurd: float = 0.2,
    progress: Progress | None = None,
) -> Report:
    """Import candles as minute bars; a second time asks for what is missing, and changes nothing.

    Parameters
    ----------
    client : of a migrated store.
    universe : of which the symbols of the exchange are wanted.
    wanted : which candles.
    absurd : as of `backfill.import_file`.
    progress : called with the number of minutes of a symbol that are done.

    Returns
    -------
    What was done and found, with the minutes that are missing and those that were left out.

    Raises
    ------
    ConfigError
        If a symbol has no market, or the settings cannot be meant.
    FeedError
        If the exchange does not tell its markets; what fails later is in the report.
    StoreError
        If the store does not answer; repeat the import.
    """
    indices, (first, end) = wanted.indices(universe), wanted.span
    look = Inspection([one.symbol for one in universe], absurd=absurd)
    with closing(CcxtExchange(wanted.exchange, wanted.settings)) as exchange:
        names = [universe[index].symbol for index in indices]
        markets = [exchange.market(name, wanted.symbols.get(name)) for name in names]
        job = _Import(
            client, universe, exchange, look, progress or (lambda _: None),
            f"ccxt:{wanted.exchange}",
        )  # fmt: skip
        for index, market in zip(indices, markets, strict=True):
            job.fill(_Symbol(index, universe[index].symbol, market, first, end))
    return job.report()


@dataclass(slots=True)
class _Symbol:
    index: int
    name: str
    market: str
    first: int
    end: int
    state: NDArray[np.int8] = field(init=False)  # of each minute
    next: int = field(init=False)  # what begins before was asked for
    refused: list[str] = field(default_factory=list[str])
    fault: str = ""  # why the exchange did not answer

    def __post_init__(self) -> None:
        self.state = np.full((self.end - self.first) // MINUTE, _MISSING, np.int8)
        self.next = self.first

    def mark(self, opened: Ints, state: int) -> None:
        # What is known of a minute stays.
        at = (opened - self.first) // MINUTE
        self.state[at[self.state[at] == _MISSING]] = state

    def is_missing(self, opened: Ints) -> NDArray[np.bool_]:
        return self.state[(opened - self.first) // MINUTE] == _MISSING

    def ranges(self, state: int) -> list[str]:
        # The longest runs of minutes, in the order of time.
        edges = np.flatnonzero(np.diff(self.state == state, prepend=False, append=False))
        starts, lengths = edges[::2], np.diff(edges)[::2]
        longest = np.sort(np.argsort(-lengths, kind="stable")[:_MOST_LINES])
        lines = []
        for start, length in zip(starts[longest].tolist(), lengths[longest].tolist(), strict=True):
            at = self.first + start * MINUTE
            minutes = f"{length} minutes" if length > 1 else "1 minute"
            lines.append(f"{self.name} {iso(at)} to {iso(at + length * MINUTE)}, {minutes}")
        if more := len(starts) - len(lines):
            rest = int(lengths.sum() - lengths[longest].sum())
            lines.append(f"{self.name}: {more} shorter ranges, {rest} minutes together")
        return lines


@dataclass(slots=True)
class _Import:
    client: "Client"
    universe: Sequence[Instrument]
    exchange: CcxtExchange
    look: Inspection
    progress: Progress
    source: str
    unanswered: int = 0  # pages one after another
    there: int = 0  # bars that the store had
    added: int = 0
    idle: int = 0  # minutes without a trade
    hidden: int = 0  # minutes of ticks
    missing: list[str] = field(default_factory=list[str])
    bad: list[str] = field(default_factory=list[str])

    def fill(self, symbol: _Symbol) -> None:
        """Bring what the store does not have of a symbol."""
        self.unanswered = min(self.unanswered, _GIVE_UP - 1)  # another market may be answered for
        for start in range(symbol.first, symbol.end, _BLOCK):
            self._fill_block(symbol, start, min(start + _BLOCK, symbol.end))
        self.idle += int(np.sum(symbol.state == _IDLE))
        self.missing += symbol.ranges(_MISSING)
        self.bad += symbol.refused[:_MOST_LINES]
        if len(symbol.refused) > _MOST_LINES:
            self.bad.append(f"{symbol.name}: {len(symbol.refused) - _MOST_LINES} more candles")
        self.bad += [f"{line}: {symbol.fault}" for line in symbol.ranges(_UNANSWERED)]

    def _fill_block(self, symbol: _Symbol, start: int, end: int) -> None:
        found = [self._imported(symbol, start, end)]
        self.there += len(found[0])
        symbol.mark(found[0].ts - MINUTE, _THERE)
        every, done = np.arange(start, end, MINUTE), start
        missing = every[symbol.is_missing(every)]
        while (at := int(np.searchsorted(missing, symbol.next))) < len(missing):
            page = self._page(symbol, int(missing[at]), end)
            found.append(self._taken(symbol, page))
            symbol.next, before = page.next, done
            done = min(page.next, end)
            self.progress((done - before) // MINUTE)
        self.progress((end - done) // MINUTE)
        self._count_hidden(symbol, start, end, found[1:])
        bars = Bars.join(found)
        self.look.take(bars[np.argsort(bars.ts, kind="stable")])

    def _page(self, symbol: _Symbol, start: int, end: int) -> Page:
        # Without an answer, one that is empty.
        if self.unanswered < _GIVE_UP:
            try:
                page = self.exchange.page(symbol.market, start, end, _now_ns())
            except FeedError as error:
                self.unanswered += 1
                symbol.fault = str(error)
            else:
                self.unanswered = 0
                return page
        until = min(start + self.exchange.limit(symbol.market) * MINUTE, end)
        page = Page.empty(until if self.unanswered < _GIVE_UP else end)
        symbol.mark(np.arange(start, page.next, MINUTE), _UNANSWERED)
        return page

    def _taken(self, symbol: _Symbol, page: Page) -> Bars:
        # The candles of a page that are new, of which those with a trade are in the store now.
        bars = page.bars(symbol.index)[symbol.is_missing(page.opened)]
        traded = bars[bars.volume > 0]  # no trade, no bar
        if len(traded):
            # What was imported last holds, so the rows may come again: no token of their own.
            token = f"{self.source}:{symbol.name}:{traded.ts[0]}:{secrets.token_hex(6)}"
            names = [one.symbol for one in self.universe]
            insert(self.client, "bars_imported", bar_table(traded, names, self.source), token)
        self.added += len(traded)
        symbol.mark(page.idle, _IDLE)
        symbol.mark(traded.ts - MINUTE, _THERE)
        for when, why in page.bad:
            at = np.array([] if when is None else [when], np.int64)
            if symbol.is_missing(at).all():
                symbol.refused.append(f"{symbol.name} {why}")
            symbol.mark(at, _REFUSED)
        return bars

    def _imported(self, symbol: _Symbol, start: int, end: int) -> Bars:
        table = ask(self.client, _IMPORTED_SQL, _bound(symbol, start, end))
        names = ("open", "high", "low", "close", "volume")
        return bars_of(
            column(table, "close_at"),
            np.column_stack([column(table, name) for name in names]),
            symbol.index,
        )

    def _count_hidden(self, symbol: _Symbol, start: int, end: int, found: Sequence[Bars]) -> None:
        added = [bars.ts[bars.volume > 0] for bars in found]
        if any(map(len, added)):
            table = ask(self.client, _OF_TICKS_SQL, _bound(symbol, start, end))
            self.hidden += int(np.isin(column(table, "close_at"), np.concatenate(added)).sum())

    def report(self) -> Report:
        """What was done."""
        look = self.look
        said = {
            "rows were there already": self.there,
            "minutes without a trade are no bars, and were left out": self.idle,
            "minutes that ticks have made are hidden by imported bars": self.hidden,
        }
        return Report(
            self.source, "bars", look.rows, self.added, look.first, look.last, look.counts,
            look.findings, [f"{count} {what}" for what, count in said.items() if count],
            self.missing, self.bad,
        )  # fmt: skip


def _bound(symbol: _Symbol, start: int, end: int) -> dict[str, object]:
    # Of the bars that lie in [start, end), by their closes.
    return {"symbols": [symbol.name], "first": start + MINUTE, "last": end}


def _now_ns() -> int:
    return time.time_ns()
