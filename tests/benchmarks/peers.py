"""The same backtest elsewhere: EMA 20/100 crossover, long or flat with all of the equity, filled a
bar (hftbacktest: 50 ms) after the decision, with a fee and slippage; averages inside the clock.

`run_loop` is the bound: a hand-written loop of crossover and accounting, with no checks, receipts,
records, latency, lots or ticks. The others are used as their documentation shows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np

from sysquant.types import Floats, Ticks

FAST, SLOW = 20, 100  # spans, bars
COST = 2e-7  # fee, and slippage, of the traded value: an account survives 300,000 fills
LATENCY_NS = 50_000_000


@numba.njit(cache=True, nogil=True)
def run_loop(close: Floats, fast_span: int, slow_span: int, cost: float, cash: float):
    """Fills, and equity at the end."""
    fast = slow = held = 0.0
    fills, is_wanted = 0, False
    for i in range(len(close)):
        price = close[i]
        if is_wanted and held == 0.0:
            paid = price * (1.0 + cost) * (1.0 + cost)
            held = cash / paid
            cash -= held * paid
            fills += 1
        elif not is_wanted and held > 0.0:
            cash += held * price * (1.0 - cost) * (1.0 - cost)
            held = 0.0
            fills += 1
        fast += price / fast_span if i < fast_span else 2.0 / (fast_span + 1) * (price - fast)
        slow += price / slow_span if i < slow_span else 2.0 / (slow_span + 1) * (price - slow)
        is_wanted = i >= slow_span - 1 and fast > slow
    return fills, cash + held * close[-1]


def run_vectorbt(close: Any, capital: float, *, with_equity: bool = False) -> int:
    """Fills of vectorbt with its own averages, crossings and shift; `close` is a series.

    Its portfolio ends with the fills. `with_equity` also asks for equity and drawdown on every bar,
    which a run of ours has kept.
    """
    import vectorbt as vbt

    fast, slow = (vbt.MA.run(close, span, ewm=True) for span in (FAST, SLOW))
    entries, exits = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    portfolio = _portfolio(
        close, entries.vbt.signals.fshift(1), exits.vbt.signals.fshift(1), capital
    )
    if with_equity:
        portfolio.value(), portfolio.drawdown()
    return int(portfolio.orders.count())


def run_vectorbt_arrays(close: Any, capital: float) -> int:
    """The same, its signals made by hand in numpy: the most that vectorbt can do."""
    import vectorbt as vbt

    fast, slow = (vbt.MA.run(close, span, ewm=True).ma.to_numpy() for span in (FAST, SLOW))
    is_above = fast > slow
    entries, exits = np.zeros((2, len(is_above)), bool)
    entries[1:] = is_above[:-1]
    exits[SLOW:] = ~is_above[SLOW - 1 : -1]
    return int(_portfolio(close, entries, exits, capital).orders.count())


def _portfolio(close: Any, entries: Any, exits: Any, capital: float) -> Any:
    import vectorbt as vbt

    return vbt.Portfolio.from_signals(
        close, entries, exits, fees=COST, slippage=COST, init_cash=capital
    )


# What the name of its row ends in -> the way.
VECTORBT: dict[str, Callable[..., int]] = {
    "": run_vectorbt,
    "_equity": partial(run_vectorbt, with_equity=True),
    "_arrays": run_vectorbt_arrays,
}


def hftbacktest_events(ticks: Ticks) -> np.ndarray:
    """Trades in the layout that hftbacktest reads; sides are drawn."""
    import hftbacktest as hbt
    from hftbacktest.types import event_dtype

    events = np.zeros(len(ticks), event_dtype)
    buys = np.random.default_rng(1).random(len(ticks)) < 0.5
    kind = hbt.EXCH_EVENT | hbt.LOCAL_EVENT | hbt.TRADE_EVENT
    events["ev"] = kind | np.where(buys, hbt.BUY_EVENT, hbt.SELL_EVENT)
    events["exch_ts"] = events["local_ts"] = ticks.ts
    events["px"], events["qty"] = ticks.price, ticks.volume
    return events


def hftbacktest_run(events: np.ndarray, interval: int, capital: float) -> Callable[[], Any]:
    """A backtest on these trades, ready to run: (bars, orders, fills) of it.

    There is no depth, so a market order would find no other side: an order is a limit a basis point
    beyond the last trade, which the next trades fill.
    """
    import hftbacktest as hbt

    asset = (
        hbt.BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(LATENCY_NS, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(COST, COST)
        .tick_size(0.01)
        .lot_size(1e-6)
        .roi_lb(0.0)
        .roi_ub(1.0)
        .last_trades_capacity(1000)
    )
    backtest = hbt.ROIVectorMarketDepthBacktest([asset])

    def run() -> Any:
        found = _follow_trend(backtest, interval, capital, FAST, SLOW, hbt.GTC, hbt.LIMIT)
        backtest.close()
        return found

    return run


@numba.njit(nogil=True)
def _follow_trend(hbt, interval, capital, fast_span, slow_span, gtc, limit):
    fast = slow = 0.0
    bars = orders = 0
    while hbt.elapse(interval) == 0:
        trades = hbt.last_trades(0)
        if len(trades) == 0:
            continue
        close = trades[len(trades) - 1].px
        hbt.clear_last_trades(0)
        fast += close / fast_span if bars < fast_span else 2.0 / (fast_span + 1) * (close - fast)
        slow += close / slow_span if bars < slow_span else 2.0 / (slow_span + 1) * (close - slow)
        bars += 1
        if bars < slow_span:
            continue
        held = hbt.position(0)
        hbt.clear_inactive_orders(0)
        if len(hbt.orders(0)) > 0:
            continue
        if fast > slow and held == 0.0:
            account = hbt.state_values(0)
            equity = capital + account.balance - account.fee
            quantity = np.floor(equity / close * 1e6) / 1e6
            orders += 1
            hbt.submit_buy_order(0, orders, close * 1.0001, quantity, gtc, limit, False)
        elif fast <= slow and held > 0.0:
            orders += 1
            hbt.submit_sell_order(0, orders, close * 0.9999, held, gtc, limit, False)
    return bars, orders, hbt.state_values(0).num_trades
