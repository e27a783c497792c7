"""Another future: events as they were up to a place, and noise after it.

Input: ticks or bars, and where their past ends. Output: the same past, followed by events of other
times, symbols, prices, volumes and number, which nobody could have foreseen. Seeded: the same seed,
the same noise.
"""

import numpy as np

from sysquant.types import Bars, Floats, Ints, Ticks

_FEWEST, _SPREAD = 8, 0.1  # bar ends or ticks of noise; deviation of its log prices
_PRESENT = 0.8  # chance that a symbol has a bar


def another_future(
    events: Ticks | Bars, cut: int, seed: int, *, symbols: int, interval: int
) -> Ticks | Bars:  # fmt: skip
    """The first `cut` events, and noise in place of all others.

    Parameters
    ----------
    events : in their order; bars by (close, symbol).
    cut : of bars between two bar ends.
    seed : of the noise.
    symbols : how many there are.
    interval : of the bars, ns.

    Returns
    -------
    Events of the same kind: as many as were replaced, half of them, or twice as many.
    """
    rng = np.random.default_rng(seed)
    after = events[cut:]
    levels = _levels(events, symbols)
    count = max(_FEWEST, int(len(after) * rng.uniform(0.5, 2.0)))
    start = int(events.ts[:cut].max()) if cut else int(events.ts[0]) - 1
    if isinstance(events, Ticks):
        return Ticks.join([events[:cut], _ticks(rng, after, count, start, levels)])
    return Bars.join([events[:cut], _bars(rng, count, start, interval, levels)])


def _levels(events: Ticks | Bars, symbols: int) -> Floats:
    # A price of each symbol about which its noise lies; its first: that is no future.
    price = events.price if isinstance(events, Ticks) else events.close
    levels = np.full(symbols, 100.0)
    for number in range(symbols):
        own = np.flatnonzero(events.symbol == number)
        if len(own) and np.isfinite(price[own[0]]):
            levels[number] = price[own[0]]
    return levels


def _prices(rng: np.random.Generator, levels: Floats, symbol: Ints) -> Floats:
    return levels[symbol] * np.exp(rng.normal(0.0, _SPREAD, len(symbol)))


def _ticks(
    rng: np.random.Generator, after: Ticks | Bars, count: int, start: int, levels: Floats
) -> Ticks:  # fmt: skip
    length = int(after.ts.max()) - start if len(after) else 60_000_000_000
    gaps = 1 + rng.exponential(max(1.0, length / count), count).astype(np.int64)
    ts = start + np.cumsum(gaps)
    symbol = rng.integers(0, len(levels), count)
    return Ticks(
        ts=ts, symbol=symbol.astype(np.int32), price=_prices(rng, levels, symbol),
        volume=rng.lognormal(0.0, 1.0, count), received_at=ts,
        partition=np.zeros(count, np.int32), offset=np.arange(count, dtype=np.int64),
    )  # fmt: skip


def _bars(
    rng: np.random.Generator, count: int, start: int, interval: int, levels: Floats
) -> Bars:  # fmt: skip
    ends = max(_FEWEST, count // len(levels))
    steps = 1 + (rng.random(ends) > _PRESENT)
    grid = start - start % interval + interval * np.cumsum(steps)
    there = rng.random((ends, len(levels))) < _PRESENT
    there[:, 0] |= ~there.any(axis=1)
    at, symbol = np.nonzero(there)
    close, open_ = _prices(rng, levels, symbol), _prices(rng, levels, symbol)
    wide = np.exp(np.abs(rng.normal(0.0, _SPREAD / 2, len(at))))
    return Bars(
        ts=grid[at], symbol=symbol.astype(np.int32), open=open_,
        high=np.maximum(open_, close) * wide, low=np.minimum(open_, close) / wide, close=close,
        volume=rng.lognormal(0.0, 1.0, len(at)),
        partition=np.zeros(len(at), np.int32), offset=np.arange(len(at), dtype=np.int64),
    )  # fmt: skip
