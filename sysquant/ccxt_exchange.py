"""An exchange through the library ccxt: its spot markets, and pages of its minute candles.

Input: ccxt's name of the exchange and settings of its connection. Output: the market of a symbol,
and candles that were looked at row by row: what cannot be meant is told, never passed on. Nothing
is known of the store here. Needs the extra `ccxt`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Self

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from sysquant.archive import MINUTE
from sysquant.errors import ConfigError, FeedError, nearest
from sysquant.inspection import iso
from sysquant.types import Bars, Floats, Ints

_MS = 1_000_000  # ns
_MINUTE_MS = MINUTE // _MS
_LIMIT = 300  # candles of one answer, where ccxt does not know how many an exchange gives at most
_ATTEMPTS = 6
_WAIT = wait_random_exponential(multiplier=0.5, max=30.0)
# What ccxt raises beside its own errors when an answer, or a setting, has another shape.
_ODD = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)


def library() -> Any:
    """The package ccxt.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return import_module("ccxt")
    except ImportError as error:
        raise ConfigError(
            "source=ccxt needs the package ccxt: pip install 'sysquant[ccxt]' (-e '.[ccxt]' in the"
            " repository)"
        ) from error


@dataclass(slots=True)
class Page:
    """Candles of one answer, by time, each minute once; those past what was wanted are left away.

    Parameters
    ----------
    opened : (T,) int64, when each begins, ns UTC.
    values : (T, 5) open, high, low, close in quote currency, and volume in units of the base.
    next : where the next page begins, ns UTC.
    idle : (T,) int64, begins of minutes without a trade, ns UTC; not each is in `opened`.
    bad : begin of a minute, ns UTC, or None -> what it came with, and why that is no candle.
    """

    opened: Ints
    values: Floats
    next: int
    idle: Ints
    bad: list[tuple[int | None, str]] = field(default_factory=list[tuple[int | None, str]])

    @classmethod
    def empty(cls, following: int) -> Self:
        """Of no candles."""
        return cls(np.empty(0, np.int64), np.empty((0, 5)), following, np.empty(0, np.int64))

    def bars(self, symbol: int) -> Bars:
        """Its candles, as bars of an instrument of this index."""
        return bars_of(self.opened + MINUTE, self.values, symbol)


def bars_of(ts: Ints, values: Floats, symbol: int) -> Bars:
    """Bars of one instrument.

    Parameters
    ----------
    ts : (T,) closes, ns UTC.
    values : (T, 5) open, high, low, close and volume.
    symbol : index into the universe.
    """
    columns = dict(zip(("open", "high", "low", "close", "volume"), values.T, strict=True))
    rows = len(ts)
    return Bars(
        ts, np.full(rows, symbol, np.int32), **columns,
        partition=np.zeros(rows, np.int32), offset=np.zeros(rows, np.int64),
    )  # fmt: skip


class CcxtExchange:
    """One exchange; asked again a few times, with pauses, when it does not answer.

    Parameters
    ----------
    name : ccxt's, such as `binance`.
    settings : of ccxt's constructor, such as `urls`, `proxies`, `options`.

    Raises
    ------
    ConfigError
        If it has no minute candles, or a setting cannot be meant.
    """

    def __init__(self, name: str, settings: Mapping[str, object]) -> None:
        self.name = name
        self._ccxt = ccxt = library()
        self._policy = Retrying(
            retry=retry_if_exception_type(ccxt.OperationFailed),  # such as NetworkError
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_WAIT,
            reraise=True,
        )
        try:
            self._exchange = getattr(ccxt, name)({"enableRateLimit": True, **settings})
            self._exchange.enableLastJsonResponse = True
            has_minutes = self._exchange.has["fetchOHLCV"] is True
            has_minutes &= "1m" in (self._exchange.timeframes or ())
        except (ccxt.BaseError, *_ODD) as error:
            said = f"source.settings are refused by ccxt's {name}: {_said(error)}"
            raise ConfigError(said) from error
        if not has_minutes:
            raise ConfigError(f"source.exchange={name} gives no candles of one minute")

    def close(self) -> None:
        """Let go of its connections."""
        self._exchange.close()

    def market(self, symbol: str, given: str | None) -> str:
        """What ccxt calls the market of a symbol.

        Parameters
        ----------
        symbol : of the universe; the exchange's own name stands after its colon.
        given : ccxt's name, where a person has said it.

        Raises
        ------
        ConfigError
            If there is no such spot market: volume of others may be counted in contracts.
        FeedError
            If the exchange does not answer.
        """
        known = self._asked(self._exchange.load_markets)
        if given is None:
            listed = self._exchange.markets_by_id.get(symbol.partition(":")[2], [])
        else:
            listed = [known[given]] if given in known else []
        found = [market["symbol"] for market in listed if market["spot"]]
        if found:
            return str(found[0])
        if given is None:
            raise ConfigError(
                f"{symbol} is no spot market of {self.name} by that name; say which it is in"
                f" source.symbols, `{symbol}: BASE/QUOTE`, or leave it out of the universe"
            )
        spot = [name for name, market in known.items() if market["spot"]]
        near = nearest(given, spot)
        hint = near if near.startswith("; did") else "; write it as ccxt does, like BTC/USDT"
        raise ConfigError(
            f"source.symbols of {symbol} was {given!r}, no spot market of {self.name}{hint}"
        )

    def limit(self, market: str) -> int:
        """How many candles one answer has at most."""
        return int(self._exchange.feature_value(market, "fetchOHLCV", "limit", _LIMIT) or _LIMIT)

    def page(self, market: str, start: int, end: int, now: int) -> Page:
        """The next candles of a range.

        Parameters
        ----------
        market : from `market`.
        start, end : candles that begin in [start, end), whole minutes, ns UTC.
        now : what begins later cannot be, ns UTC.

        Returns
        -------
        At most `limit` candles. It may be empty, and its `next` always lies behind `start`.

        Raises
        ------
        FeedError
            If the exchange does not answer, or not with candles.
        """
        count = min(self.limit(market), (end - start) // MINUTE)
        given = self._asked(self._candles, market, start // _MS, count)
        try:
            page = _read(given, start, end, now)
        except _ODD as error:
            raise FeedError(f"{self.name} sends no candles: {_said(error)}") from error
        if page.next == start:  # nothing of this time
            page.next = start + count * MINUTE
        return page

    def _candles(self, market: str, since_ms: int, count: int) -> Any:
        given = self._exchange.fetch_ohlcv(market, "1m", since_ms, count)
        # Of an answer that is no JSON, such as a page of a proxy, ccxt makes no candles.
        if not isinstance(self._exchange.last_json_response, list | dict):
            raise self._ccxt.BadResponse(f"{self.name} sends no JSON")
        return given

    def _asked(self, question: Callable[..., Any], *arguments: object) -> Any:
        try:
            return self._policy(question, *arguments)
        except self._ccxt.BaseError as error:
            raise FeedError(f"{self.name} does not answer: {_said(error)}") from error
        except _ODD as error:
            said = f"{self.name} cannot be asked, or understood: {_said(error)}"
            raise FeedError(f"{said}; see source.settings") from error


def _read(given: Sequence[Sequence[Any]], start: int, end: int, now: int) -> Page:
    # `next` is `start` where no candle tells where to go on. Another clock may be a little ahead.
    table = np.array([_numbers(row) for row in given], np.float64).reshape(-1, 6)
    at, values = table[:, 0], table[:, 1:]
    with np.errstate(all="ignore"):
        is_timed = (at % _MINUTE_MS == 0) & (at >= start // _MS) & (at <= now // _MS + _MINUTE_MS)
    is_wanted = is_timed & (at < end // _MS)
    is_twice = is_timed & _contradict(table)
    is_idle = is_wanted & ~is_twice & (values[:, 4] == 0)
    is_good = is_wanted & ~is_twice & _is_sane(values)
    opened = np.where(is_timed, at, 0).astype(np.int64) * _MS
    kept, first = np.unique(opened[is_good], return_index=True)
    page = Page(kept, values[is_good][first], start, np.unique(opened[is_idle]))
    for row in np.flatnonzero(~is_timed | (is_wanted & ~is_good & ~is_idle)).tolist():
        what = "comes twice with other values" if is_twice[row] else "is no candle of that time"
        when = int(opened[row]) if is_timed[row] else None
        page.bad.append((when, f"{_shown(given[row])} {what}"))
    if is_wanted.any():
        page.next = int(opened[is_wanted].max()) + MINUTE
    elif is_timed.any():  # it has nothing before
        page.next = int(opened[is_timed].min())
    return page


def _numbers(row: Sequence[Any]) -> list[float]:
    numbers = list[float]()
    for value in row:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):  # a candle without a trade may have no prices
            numbers.append(np.nan)
    return numbers if len(numbers) == 6 else [np.nan] * 6


def _is_sane(values: Floats) -> np.ndarray:
    prices, volume = values[:, :4], values[:, 4]
    with np.errstate(invalid="ignore"):
        return (
            np.isfinite(values).all(axis=1)
            & (prices > 0).all(axis=1)
            & (volume >= 0)
            & (prices[:, 1] == prices.max(axis=1))
            & (prices[:, 2] == prices.min(axis=1))
        )


def _contradict(table: Floats) -> np.ndarray:
    # Candles of a time that has another one: either could be meant.
    times, count = np.unique(np.unique(table, axis=0)[:, 0], return_counts=True)
    return np.isin(table[:, 0], times[count > 1])


def _shown(row: Any) -> str:
    try:
        at = iso(int(row[0]) * _MS)
    except _ODD:
        at = "a candle"
    return f"{at} {str(list(row)[1:])[:120]}" if isinstance(row, list) else f"{str(row)[:120]!r}"


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__} {lines[0][:200] if lines else ''}".rstrip()
