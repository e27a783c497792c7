"""The arrays of a run, from what was configured: instruments, terms, rules, state, buffers.

Input: configuration objects. Output: `state.Book` and `state.Out`, ready for the loop.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from sysquant import records, statistics
from sysquant.activity import Activity
from sysquant.decider import features_of
from sysquant.errors import ConfigError, nearest
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.facts import USES_CORRELATION, USES_SELF_MATCH, USES_TAIL
from sysquant.features.panel import lengths_of, needs_bar_ends
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.sessions import sessions_of
from sysquant.sizing import VOLATILITY_TARGET, Sizing
from sysquant.state import Book, Out
from sysquant.steps import steps_of
from sysquant.strategy import Strategy
from sysquant.tail import worst_count
from sysquant.times import length_name
from sysquant.types import Instrument

T = TypeVar("T")

_ROOM = 2_048  # rows of effects that fit, beyond what one event may cause
_SHORT_ROWS = {"portfolio_history": 4 * _ROOM}
_MOST_RATE = 65_536
_TAIL = {
    "value_at_risk", "expected_shortfall", "covariance_value_at_risk",
    "covariance_expected_shortfall", "volatility", "correlation",
}  # fmt: skip


def rules_of(
    names: Sequence[str],
    sizing: "Sizing | Mapping[str, Sizing]",
    orders: "Orders | Mapping[str, Orders]",
    exits: "Exits | Mapping[str, Exits]",
    symbols: int,
) -> list[dict[str, Any]]:
    """Values of the rows of `records.RULES`: what is chosen by name of a strategy, or for all.

    Raises
    ------
    ConfigError
        If a mapping lacks a strategy, or has one that is not in the book.
    """
    chosen = (
        _each_of("sizing", sizing, names), _each_of("orders", orders, names),
        _each_of("exits", exits, names),
    )  # fmt: skip
    return [_rules_of(*each, symbols) for each in zip(*chosen, strict=True)]


def _each_of(key: str, choice: "T | Mapping[str, T]", names: Sequence[str]) -> "list[T]":
    if not isinstance(choice, Mapping):
        return [choice] * len(names)
    for name in names:
        if name not in choice:
            raise ConfigError(f"{key} has nothing for {name!r}{nearest(name, list(choice))}")
    for name in choice:
        if name not in names:
            raise ConfigError(f"{key} names {name!r}, the book holds {list(names)}")
    return [choice[name] for name in names]  # pyright: ignore[reportUnknownVariableType]


def _rules_of(sizing: Sizing, orders: Orders, exits: Exits, symbols: int) -> dict[str, Any]:
    rules: dict[str, Any] = {**sizing.rules(), **orders.rules(), **exits.rules()}
    rules["share"] = 1.0 / symbols if getattr(sizing, "split", True) else 1.0
    trails = rules["trailing_stop"] < math.inf and not rules["bracket"]
    timed = rules["max_hold_ns"] < records.NEVER or rules["flatten_drawdown"] < math.inf
    return rules | {"watchful": int(trails or timed)}


def check_longer(strategies: Mapping[str, Strategy], interval: int) -> None:
    """Refuse longer bars that those of `interval` ns do not make up.

    Raises
    ------
    ConfigError
        With the strategy, and the lengths there are.
    """
    for name, strategy in strategies.items():
        for length in lengths_of(features_of(strategy)):
            if length % interval:
                raise ConfigError(
                    f"{name!r} looks at bars of {length_name(length)}, which those of "
                    f"{length_name(interval)} do not make up: take a multiple"
                )


def check_activity(
    activity: Activity, strategies: Mapping[str, Strategy], rules: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse what bars of an activity cannot serve: a year of them, and ends that symbols share.

    Raises
    ------
    ConfigError
        With the strategy, what it needs, and the ways out.
    """
    for (name, strategy), row in zip(strategies.items(), rules, strict=True):
        if row["sizing"] == VOLATILITY_TARGET:
            raise ConfigError(
                f"sizing=volatility_target of {name!r} counts bars per year, and bars of {activity}"
                " come as they come: take another sizing (the strategy volatility_target measures "
                "by the calendar), or bars of time, as 1m"
            )
        if needed := needs_bar_ends(features_of(strategy), strategy.legs()):
            raise ConfigError(
                f"{name!r} uses {needed}, which needs bars that end at common times, and those of "
                f"{activity} do not: take bars of time, as 1m, or a strategy that sees one symbol "
                "at a time"
            )


def _fill(row: records.Row, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        row[name] = value


def _instruments(
    universe: Sequence[Instrument], currency: str, execution: Execution
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    # Rows, and the series they point into.
    symbols = [instrument.symbol for instrument in universe]
    for place, symbol in enumerate(symbols):
        if symbol in symbols[:place]:
            raise ConfigError(f"the universe names {symbol!r} twice; give each symbol once")
    for symbol in execution.funding or ():
        if symbol not in symbols:
            raise ConfigError(
                f"execution.funding has rates of {symbol!r}, which is not in the universe"
                f"{nearest(symbol, symbols)}"
            )
    sessions, session_from, session_to = sessions_of(universe)
    rows = np.zeros(len(universe), records.INSTRUMENT)
    times: list[np.ndarray] = [np.empty(0, np.int64)]
    rates: list[np.ndarray] = [np.empty(0)]
    for row, i in zip(rows, universe, strict=True):
        foreign = i.currency not in ("", currency)
        if foreign and i.conversion not in symbols:
            raise ConfigError(
                f"{i.symbol} is quoted in {i.currency}, the book is in {currency or 'another'}: "
                "set its conversion to a symbol of the universe that gives the rate"
                f"{nearest(i.conversion, symbols)}"
            )
        maker, taker = execution.rates(i)
        ts, rate = execution.series(i.symbol)
        start = sum(map(len, times))
        times.append(ts)
        rates.append(rate)
        _fill(row, {
            **steps_of(i.tick_size, i.lot_size), "min_notional": i.min_notional,
            "max_position": i.max_position, "multiplier": i.multiplier,
            "quote_volume": i.volume_unit == "quote", "shortable": i.shortable,
            "perpetual": i.perpetual, "restricted": i.restricted, "quality": i.quality,
            "maker": maker, "taker": taker,
            "conversion": symbols.index(i.conversion) if foreign else -1,
            "funding_from": start, "funding_to": start + len(ts),
        })  # fmt: skip
    rows["session_from"], rows["session_to"] = session_from, session_to
    for conversion in rows["conversion"]:
        if conversion >= 0:
            rows["converts"][conversion] = 1
    return rows, {
        "sessions": sessions,
        "funding_ts": np.concatenate(times).astype(np.int64),
        "funding_rate": np.concatenate(rates).astype(np.float64),
    }


def _terms(
    execution: Execution, risk: RiskChain, interval: int, seed: int, snapshot_ns: int,
    rules: Sequence[Mapping[str, Any]],
) -> tuple[np.ndarray, int]:  # fmt: skip
    # The row, and how many times of orders must be remembered for the rate checks.
    names = set(risk.names)
    uses = USES_TAIL * bool(names & _TAIL)
    uses |= USES_CORRELATION * ("correlation" in names) | USES_SELF_MATCH * ("self_match" in names)
    most = [0.0, *(
        limit for name, limit in zip(risk.names, risk.limits, strict=True)
        if name.startswith("order_rate")
    )]  # fmt: skip
    if max(most) > _MOST_RATE:
        raise ConfigError(f"order rates are counted up to {_MOST_RATE}, was {max(most):g}")
    terms = np.zeros(1, records.TERMS)
    _fill(terms[0], execution.terms(interval) | risk.terms(interval))
    varies = terms["impact"][0] > 0 or terms["volatility_scale"][0] > 0
    varies |= any(row["sizing"] == VOLATILITY_TARGET for row in rules)
    spread = (0, statistics.ROLL, statistics.CORWIN_SCHULTZ)[int(terms["spread_model"][0])]
    _fill(terms[0], {
        "seed": seed, "snapshot_ns": snapshot_ns, "interval": interval, "checks": uses,
        "statistics": spread | statistics.VOLATILITY * bool(varies),
    })  # fmt: skip
    return terms, int(max(most)) + 1


def book_of(
    universe: Sequence[Instrument],
    currency: str,
    execution: Execution,
    risk: RiskChain,
    interval: int,
    seed: int,
    snapshot_ns: int,
    *,
    rules: Sequence[Mapping[str, Any]],
) -> Book:
    """Terms and empty state of a run over `universe`, a row of `rules` per strategy.

    `interval` is that of the bars, ns; 0 where they are not of time.
    """
    strategies, symbols, window = len(rules), len(universe), risk.window
    tail = worst_count(risk.confidence, window)
    instruments, series = _instruments(universe, currency, execution)
    terms, remembered = _terms(execution, risk, interval, seed, snapshot_ns, rules)
    rows = np.zeros(strategies, records.RULES)
    for row, values in zip(rows, rules, strict=True):
        _fill(row, values)
    cells = np.zeros((strategies, symbols), records.CELL)
    cells["target"] = cells["refused_target"] = math.nan
    cells["exit_low"], cells["exit_high"] = -math.inf, math.inf
    market = np.zeros(symbols, records.MARKET)
    market["unit"] = np.where(instruments["conversion"] < 0, instruments["multiplier"], math.nan)
    accounts = np.zeros(strategies, records.ACCOUNT)
    accounts["scale"] = 1.0
    for field in ("volatility", "sharpe", "sortino", "value_at_risk"):
        accounts[field] = math.nan
    return Book(
        instruments=instruments, terms=terms, rules=rows,
        places=risk.places, limits=risk.limits, latencies=execution.samples, **series,
        clock=np.zeros(1, records.CLOCK), market=market,
        active=np.zeros((symbols, strategies), np.int64), accounts=accounts, cells=cells,
        orders=np.zeros((strategies, symbols, 3), records.ORDER),
        rates=np.zeros((strategies, remembered), np.int64),
        returns=np.zeros((window, symbols)), covariance=np.zeros((symbols, symbols)),
        own_returns=np.zeros((strategies, window)),
        tails=np.zeros((symbols, 2, tail)), own_lowest=np.zeros((strategies, tail)),
        draft=np.zeros(1, records.ORDER), facts=np.zeros(1, records.FACTS),
        scenarios=np.zeros((4, window)), exposures=np.zeros(symbols),
        exposed=np.zeros(symbols, np.int64),
    )  # fmt: skip


def buffers_of(book: Book) -> tuple[dict[str, np.ndarray], Out]:
    """Buffers of effects by table, and the loop's view of them.

    One mark or event may cause at most the rows that are kept free in each.
    """
    strategies, symbols = book.cells.shape
    cells = strategies * symbols
    most = {
        "signals": cells, "orders": 3 * cells, "risk_receipts": 6 * cells,
        "executions": 12 * strategies, "order_ends": 8 * cells,
        "financing": 2 * cells + strategies, "portfolio_history": 1 + strategies * (1 + symbols),
    }  # fmt: skip
    types = records.effects(len(book.limits))
    room = {name: _SHORT_ROWS.get(name, _ROOM) for name in types}
    buffers = {name: np.zeros(most[name] + room[name], types[name]) for name in types}
    receipts = buffers["risk_receipts"]
    head = np.ndarray((len(receipts), 5), np.int64, receipts, strides=(receipts.itemsize, 8))
    out = Out(
        signals=buffers["signals"], orders=buffers["orders"], receipts=head,
        executions=buffers["executions"], ends=buffers["order_ends"],
        financing=buffers["financing"], snapshots=buffers["portfolio_history"],
        values=receipts["value"], rooms=receipts["room"], verdicts=receipts["verdict"],
        counts=np.zeros(len(types), np.int64),
        full=np.array(list(room.values()), np.int64),
    )  # fmt: skip
    return buffers, out
