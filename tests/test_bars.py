"""Bars from ticks, against pandas, with ticks out of order."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sysquant.bars import BarClock, events_of
from sysquant.errors import DataError
from sysquant.types import CLOCK_MARK, SECOND, Bars
from tests.market import START, ticks

COLUMNS = ("ts", "symbol", "open", "high", "low", "close", "volume")


def closed(batches, symbols=2, most=1_000):
    clock = BarClock(symbols, SECOND)
    parts = []
    for batch in batches:
        for _, bars, count in clock.passes(batch, most):
            parts.append({name: getattr(bars, name)[:count].copy() for name in COLUMNS})
    return clock, {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def prices(rows):
    """Open, high, low and close of every bar."""
    return list(zip(*(rows[name].tolist() for name in COLUMNS[2:6]), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_bars_equal_those_of_pandas(seed):
    batch = ticks(3_000, seed=seed)
    _, rows = closed([batch])
    frame = pd.DataFrame(dict(batch.columns()))
    frame["end"] = frame.ts // SECOND * SECOND + SECOND
    frame = frame[frame.end <= rows["ts"].max()]
    expected = (
        frame.groupby(["end", "symbol"])
        .agg(
            open=("price", "first"), high=("price", "max"), low=("price", "min"),
            close=("price", "last"), volume=("volume", "sum"),
        )
        .reset_index()
    )  # fmt: skip
    assert rows["ts"].tolist() == expected.end.tolist()
    assert rows["symbol"].tolist() == expected.symbol.tolist()
    for name in ("open", "high", "low", "close"):
        assert rows[name].tolist() == expected[name].tolist()
    np.testing.assert_allclose(rows["volume"], expected.volume, rtol=1e-12)


def test_a_late_tick_counts_in_the_open_bar_and_not_behind_a_closed_one():
    batch = ticks(6, symbols=1)
    start = batch.ts[0] // SECOND * SECOND
    batch.ts[:] = start + np.array([100, 300, 200, 1_100, 900, 2_100]) * 1_000_000
    batch.price[:] = [10.0, 11.0, 9.0, 12.0, 1.0, 13.0]
    clock, rows = closed([batch])
    assert prices(rows) == [
        (10.0, 11.0, 9.0, 11.0),
        (12.0, 12.0, 12.0, 12.0),
    ]
    assert clock.clock["late"][0] == 2
    assert clock.clock["corrections"][0] == 1


def test_an_earlier_late_tick_becomes_the_open():
    batch = ticks(3, symbols=1)
    start = batch.ts[0] // SECOND * SECOND
    batch.ts[:] = start + np.array([300, 100, 1_000]) * 1_000_000
    batch.price[:] = [10.0, 11.0, 9.0]
    _, rows = closed([batch])
    assert prices(rows) == [(11.0, 11.0, 10.0, 10.0)]


def test_a_tick_at_the_very_end_belongs_to_the_next_bar():
    batch = ticks(3, symbols=1)
    start = batch.ts[0] // SECOND * SECOND
    batch.ts[:] = start + np.array([0, SECOND, 2 * SECOND])
    batch.price[:] = [1.0, 2.0, 3.0]
    _, rows = closed([batch])
    assert rows["close"].tolist() == [1.0, 2.0]
    assert rows["ts"].tolist() == [start + SECOND, start + 2 * SECOND]


def test_bars_that_are_passed_on_are_those_that_are_built():
    draw = np.random.default_rng(3)
    passed_on = 0
    for _ in range(300):
        gaps = draw.choice([1, 1, 1, 1, 3, 0, -1], 30, p=[0.24, 0.24, 0.24, 0.18, 0.08, 0.01, 0.01])
        ts = START + np.cumsum(gaps) * SECOND + (draw.random(30) < 0.01)
        close = 100.0 + draw.normal(size=30)
        batch = Bars(
            ts=ts, symbol=np.where(draw.random(30) < 0.005, CLOCK_MARK, 0).astype(np.int32),
            open=close + 1.0, high=close + 2.0, low=close - 1.0, close=close, volume=close / 7.0,
            partition=np.zeros(30, np.int32), offset=np.arange(30),
        )  # fmt: skip
        batches = [batch[:11], batch[11:]]
        (built, rows), (given, same) = (closed(batches, 1, most) for most in (30, 4))
        for name in COLUMNS:
            assert rows[name].tobytes() == same[name].tobytes()
        assert built.clock.tobytes() == given.clock.tobytes()
        assert built.open_bars.tobytes() == given.open_bars.tobytes()
        passed_on += bool((np.diff(ts) > 0).all())
    assert passed_on > 100


def test_a_symbol_outside_the_universe_is_refused_before_anything_is_taken():
    for number in (2, -6, 1_000_000):
        batch = ticks(6, symbols=1)
        batch.symbol[3] = number
        clock = BarClock(2, SECOND)
        with pytest.raises(DataError, match=f"symbol number {number}, the universe holds 2"):
            list(clock.passes(batch, 100))
        assert clock.clock["engine_ts"] == 0


def test_columns_of_other_types_are_those_of_the_contract():
    batch = ticks(6, symbols=1)
    narrow = dataclasses.replace(
        batch, price=batch.price.astype(np.float32), symbol=batch.symbol.astype(np.int64)
    )
    events = events_of(narrow, SECOND)
    assert [column.dtype for column in events[:-1]] == [np.int64, np.int32, *[np.float64] * 5]
