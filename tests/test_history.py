"""`sysquant.history`: bars in one call, what is missing of them, and what a backtest takes."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st

import sysquant
from sysquant import archive, history
from sysquant.backtesting import backtest
from sysquant.errors import ConfigError, DataError, StoreError
from sysquant.past import History
from sysquant.retrieval import find_gaps
from sysquant.store import insert, lock_holder
from sysquant.strategies.momentum import Momentum
from sysquant.tables import bar_table, tick_table
from sysquant.times import instant
from sysquant.types import SECOND, Bars, Gaps, Instrument, Ticks
from tests.conftest import REPOSITORY

pytest_plugins = ["tests.served"]

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
START = instant("2024-03-04T00:00:00Z")  # a Monday
NAMES = ["SIM:OAK", "SIM:ELM"]
A = Instrument("A")


def walk(closes: np.ndarray, *, seed: int = 1, symbol: int = 0) -> Bars:
    """Bars at these closes, prices in cents and volumes in thousandths."""
    rng = np.random.default_rng(seed)
    n = len(closes)
    close = np.round(100 + rng.normal(0, 0.2, n).cumsum(), 2)
    return Bars(
        np.asarray(closes, np.int64), np.full(n, symbol, np.int32), close, close + 0.02,
        close - 0.02, close, np.round(rng.exponential(1, n), 3) + 0.001, np.zeros(n, np.int32),
        np.arange(n),
    )  # fmt: skip


def minutes(count: int, first: int = START) -> np.ndarray:
    return first + (1 + np.arange(count)) * MINUTE


@pytest.fixture
def filled(client: Client) -> Client:
    """Two days of OAK, one and a half of ELM with an hour missing."""
    insert(client, "bars_imported", bar_table(walk(minutes(2880)), NAMES, "x"), "oak")
    elm = minutes(2160)
    elm = elm[(elm <= START + 6 * HOUR) | (elm > START + 7 * HOUR)]
    insert(client, "bars_imported", bar_table(walk(elm, seed=2, symbol=1), NAMES, "x"), "elm")
    return client


# -- what comes


def test_bars_come_with_their_universe_interval_and_range(filled: Client) -> None:
    got = history(["SIM:ELM", "SIM:OAK"], "-2d", client=filled)
    assert isinstance(got, History)
    assert got.symbols == ("SIM:ELM", "SIM:OAK")
    assert (got.interval, got.start, got.end) == (MINUTE, START, START + 2 * DAY)
    assert len(got) == 2880 + 2100
    want = archive.bars(filled, [Instrument(name) for name in got.symbols], START)
    for name, column in got.bars.columns():
        np.testing.assert_array_equal(column, getattr(want, name), err_msg=name)
        assert column.flags.writeable, name


@pytest.mark.parametrize(
    "start",
    [
        "2024-03-05", "2024-03-05T01:00+01:00", START + DAY, np.int64(START + DAY), "-24h",
        datetime(2024, 3, 5, tzinfo=UTC), pd.Timestamp("2024-03-05", tz="UTC"),
        datetime(2024, 3, 5, 2, tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=str,
)  # fmt: skip
def test_a_time_can_be_told_in_many_ways(filled: Client, start) -> None:
    got = history("SIM:OAK", start, client=filled)
    assert (got.start, len(got)) == (START + DAY, 1440)


def test_none_is_the_first_row_and_past_the_last(filled: Client) -> None:
    assert len(history("SIM:OAK", None, client=filled)) == 2880


@pytest.mark.parametrize(
    ("interval", "rows"),
    [("1m", 2880), ("5m", 576), ("90m", 32), ("1h", 48), ("1d", 2), (8 * HOUR, 6)],
)
def test_minutes_are_aggregated_to_any_interval_that_divides_the_day(
    filled: Client, interval, rows: int
) -> None:
    fine = history("SIM:OAK", START, client=filled).bars
    got = history("SIM:OAK", START, interval=interval, client=filled)
    assert len(got.bars) == rows
    for at, end in enumerate(got.bars.ts.tolist()):
        own = fine[(fine.ts > end - got.interval) & (fine.ts <= end)]
        row = [getattr(got.bars, n)[at] for n in ("open", "high", "low", "close", "volume")]
        want = [own.open[0], own.high.max(), own.low.min(), own.close[-1], own.volume.sum()]
        assert row == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("interval", ["1s", "10s", "90s"])
def test_other_intervals_come_from_ticks(client: Client, interval: str) -> None:
    rng = np.random.default_rng(3)
    ts = START + np.sort(rng.integers(0, 600 * SECOND, 400))
    price = rng.integers(90, 110, 400) / 4
    zeros = np.zeros(400, np.int32)
    ticks = Ticks(ts, zeros, price, np.full(400, 0.5), ts, zeros, np.arange(400))
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    got = history("SIM:OAK", START, START + 600 * SECOND, interval, client=client)
    step = got.interval
    inside = ts < START + 600 * SECOND // step * step
    bars = pd.Series(price[inside]).groupby((ts[inside] // step + 1) * step)
    frame = got.frame()
    np.testing.assert_array_equal(got.bars.ts, bars.first().index)
    for name, want in (("open", bars.first()), ("high", bars.max()), ("close", bars.last())):
        np.testing.assert_array_equal(frame[name], want)
    assert len(got) + got.gaps.missing.sum() == 600 * SECOND // step
    assert (got.universe[0].tick_size, got.universe[0].lot_size) == (0.01, 0.1)


# -- instruments


@pytest.mark.parametrize(
    ("scale", "tick"), [(1.0, 0.01), (1e-4, 1e-6), (100.0, 1.0), (1e4, 1.0), (1 / 3, 1e-8)]
)
def test_steps_of_a_name_are_the_smallest_decimal_ones_seen(client: Client, scale, tick) -> None:
    bars = walk(minutes(500))
    columns = {n: getattr(bars, n) * scale for n in ("open", "high", "low", "close", "volume")}
    bars = Bars(bars.ts, bars.symbol, **columns, partition=bars.partition, offset=bars.offset)
    insert(client, "bars_imported", bar_table(bars, NAMES, "x"), "one")
    (found,) = history("SIM:OAK", None, client=client).universe
    lot = {1e-4: 1e-7, 100.0: 0.1, 1e4: 1.0, 1 / 3: 1e-6}.get(scale, 0.001)
    assert (found.tick_size, found.lot_size) == (0.01 if scale == 1 / 3 else tick, lot)


def test_an_instrument_says_what_a_name_leaves_to_the_data(filled: Client) -> None:
    oak = Instrument("SIM:OAK", tick_size=0.5, lot_size=10.0, perpetual=True)
    got = history([oak, "SIM:ELM"], "-1d", client=filled)
    assert got.universe == (oak, Instrument("SIM:ELM", tick_size=0.01, lot_size=0.001))
    assert got.inferred == {"SIM:ELM"}


def test_a_symbol_without_a_volume_keeps_the_lot_of_an_instrument(client: Client) -> None:
    bars = walk(minutes(10))
    bars.volume[:] = 0
    insert(client, "bars_imported", bar_table(bars, NAMES, "x"), "one")
    (found,) = history("SIM:OAK", None, client=client).universe
    assert found == Instrument("SIM:OAK", tick_size=0.01)


# -- gaps


def gaps_of(closes, instrument=A, *, start=START, end=START + DAY, interval=MINUTE):
    bars = walk(np.asarray(closes, np.int64))
    found = find_gaps(bars, [instrument], start, end, interval)
    columns = (((found.start - start) / MINUTE), ((found.end - start) / MINUTE), found.missing)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_gaps_are_told_with_their_bars_and_nothing_is_filled(filled: Client) -> None:
    got = history(NAMES, START, client=filled)
    frame = got.gap_frame()
    assert frame["symbol"].tolist() == ["SIM:ELM", "SIM:ELM"]
    assert frame["missing"].tolist() == [60, 720]
    assert frame["start"].tolist() == [
        pd.Timestamp("2024-03-04T06:00Z"), pd.Timestamp("2024-03-05T12:00Z"),
    ]  # fmt: skip
    assert frame["end"].tolist() == [
        pd.Timestamp("2024-03-04T07:00Z"), pd.Timestamp("2024-03-06T00:00Z"),
    ]  # fmt: skip
    assert np.isfinite(got.bars.close).all()
    assert len(got) == 2880 + 2100


def test_a_symbol_without_a_bar_in_the_range_is_one_gap(filled: Client) -> None:
    got = history(NAMES, START + 2160 * MINUTE, client=filled)
    assert got.gaps.symbol.tolist() == [1]
    assert got.gaps.missing.tolist() == [720]


@given(st.sets(st.integers(1, 60)), st.sampled_from([1, 3, 5]))
def test_bars_and_missing_ones_make_up_the_range(present: set[int], width: int) -> None:
    # By hand: every expected close that is not there lies in exactly one gap.
    step = width * MINUTE
    closes = [START + n * step for n in sorted(present) if n * width <= 60]
    found = gaps_of(closes, end=START + HOUR, interval=step)
    missing = set[int]()
    for start, end, count in found:
        inside = set(range(round(start / width) + 1, round(end / width) + 1))
        assert len(inside) == count
        assert not inside & missing
        missing |= inside
    assert missing == set(range(1, 60 // width + 1)) - present
    assert all(a[1] < b[0] for a, b in pairwise(found)), "apart and in order"


def test_a_range_that_cuts_a_bar_expects_whole_ones_only() -> None:
    found = gaps_of([START + 10 * MINUTE], start=START + SECOND, end=START + 14 * MINUTE + SECOND,
                    interval=5 * MINUTE)  # fmt: skip
    assert found == []


XNYS = Instrument("A", calendar="XNYS")
OPEN, CLOSE = START + 870 * MINUTE, START + 1260 * MINUTE  # 14:30 to 21:00 UTC in winter


def test_a_calendar_expects_bars_in_its_sessions_only() -> None:
    session = minutes(390, OPEN)
    assert gaps_of(session, XNYS) == []
    assert gaps_of(session[5:-7], XNYS) == [(870, 875, 5), (1253, 1260, 7)]
    assert gaps_of([], XNYS) == [(870, 1260, 390)]
    assert gaps_of([], XNYS, start=START - 2 * DAY, end=START) == [], "a weekend"
    assert len(gaps_of(session, A)) == 2


def test_a_gap_over_a_night_counts_the_bars_of_sessions_alone() -> None:
    two = np.concatenate([minutes(390, OPEN)[:-10], minutes(390, OPEN + DAY)[20:]])
    assert gaps_of(two, XNYS, end=START + 2 * DAY) == [(1250, 1440 + 890, 30)]


def test_a_bar_outside_the_sessions_is_no_gap_and_ends_none() -> None:
    session = minutes(390, OPEN)
    early = np.concatenate([minutes(30, OPEN - HOUR), session[:100], session[120:]])
    assert gaps_of(early, XNYS) == [(970, 990, 20)]


def test_a_bar_that_a_session_only_touches_is_expected() -> None:
    hours = START + np.arange(15, 22) * HOUR
    assert gaps_of(hours, XNYS, interval=HOUR) == []
    assert gaps_of(hours[1:], XNYS, interval=HOUR) == [(840, 900, 1)]
    assert gaps_of([START + DAY], XNYS, interval=DAY) == []


def test_a_bar_that_two_sessions_touch_is_one() -> None:
    hongkong = Instrument("A", calendar="XHKG")  # 01:30 to 04:00 and 05:00 to 08:00 UTC
    closes = START + np.array([3, 6, 9]) * HOUR
    assert gaps_of(closes, hongkong, interval=3 * HOUR) == []
    assert gaps_of(closes[[0, 2]], hongkong, interval=3 * HOUR) == [(180, 360, 1)]


# -- what is made of it


def test_print_names_symbols_range_rows_and_gaps_in_a_few_lines(filled: Client) -> None:
    said = str(history([Instrument("SIM:OAK"), "SIM:ELM"], START, client=filled)).splitlines()
    assert said == [
        "History of 2 symbols: 4,980 bars of 1m",
        "  2024-03-04T00:00:00 to 2024-03-06T00:00:00 UTC, times are closes",
        "  SIM:OAK: 2,880 bars, no gaps",
        "  SIM:ELM: 2,100 bars, 780 missing in 2 gaps, the longest 2024-03-05T12:00:00 to "
        "2024-03-06T00:00:00; tick 0.01, lot 0.001 *",
        "  * smallest decimal steps seen; give an Instrument to say better",
    ]


def test_print_of_many_symbols_stays_short() -> None:
    universe = tuple(Instrument(f"S{n}") for n in range(40))
    bars = walk(minutes(5))
    gaps = find_gaps(bars, universe, START, START + 5 * MINUTE, MINUTE)
    lines = str(History(bars, universe, MINUTE, START, START + 5 * MINUTE, gaps)).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "  and 32 more, 0 bars, 160 missing"


def test_frames_are_of_one_symbol_or_of_all(filled: Client) -> None:
    got = history(NAMES, "-2d", client=filled)
    one, both = got.frame("SIM:ELM"), got.frame()
    assert list(one) == ["open", "high", "low", "close", "volume"]
    assert list(both) == ["symbol", *one]
    assert (len(one), len(both)) == (2100, 4980)
    assert str(one.index.dtype) == "datetime64[ns, UTC]" and one.index.name == "ts"
    pd.testing.assert_frame_equal(both[both["symbol"] == "SIM:ELM"].drop(columns="symbol"), one)
    with pytest.raises(ConfigError, match=r"no 'SIM:ELMS'; did you mean 'SIM:ELM'\?"):
        got.frame("SIM:ELMS")


def test_a_frame_of_all_shares_the_memory_of_the_bars(filled: Client) -> None:
    got = history(NAMES, "-2d", client=filled)
    assert np.shares_memory(got.frame()["close"].to_numpy(), got.bars.close)


def test_a_strategy_takes_it_as_it_is(filled: Client) -> None:
    got = history("SIM:OAK", "-1d", client=filled)
    strategy = Momentum(fast=5, slow=20)
    pd.testing.assert_frame_equal(strategy.frame(got), strategy.frame(got.frame("SIM:OAK")))


def test_a_backtest_takes_its_universe_and_interval(filled: Client) -> None:
    got = history(NAMES, "-2d", interval="5m", client=filled)
    strategy = Momentum(fast=5, slow=20)
    result = backtest(strategy, got)
    want = backtest(strategy, got.bars, got.universe, interval=5 * MINUTE)
    assert len(result.table("executions")) > 3
    pd.testing.assert_frame_equal(result.table("executions"), want.table("executions"))
    assert result.engine.interval == 5 * MINUTE


def test_a_backtest_refuses_what_a_history_already_says(filled: Client) -> None:
    got = history("SIM:OAK", "-1d", client=filled)
    for also in ({"universe": got.universe}, {"interval": MINUTE}):
        with pytest.raises(ConfigError, match="has its own universe and interval"):
            backtest(Momentum(), got, **also)
    with pytest.raises(ConfigError, match="need the universe"):
        backtest(Momentum(), got.bars)


# -- what is refused


def test_an_unknown_symbol_is_answered_with_the_nearest(filled: Client) -> None:
    with pytest.raises(DataError, match=r"no bars of 'SIM:OK'; did you mean 'SIM:OAK'\?"):
        history("SIM:OK", "-1d", client=filled)
    with pytest.raises(DataError, match=r"no bars of 'SIM:ELMS'; did you mean 'SIM:ELM'\?"):
        history(["SIM:OAK", "SIM:ELMS"], START, client=filled)
    with pytest.raises(DataError, match=r"'\?\?'; there is: SIM:ELM, SIM:OAK"):
        history("??", START, client=filled)


def test_seconds_of_imported_minutes_are_refused(filled: Client) -> None:
    with pytest.raises(DataError, match="minute bars of SIM:OAK but no ticks"):
        history("SIM:OAK", "-1d", interval="1s", client=filled)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"interval": "7m"}, "interval must divide the day"),
        ({"interval": "2d"}, "interval must divide the day"),
        ({"interval": 1000}, "interval must divide the day"),
        ({"interval": "fortnight"}, "interval must be like"),
        ({"start": "monday"}, "start must be like"),
        ({"start": 1_700_000_000}, "start must be like"),
        ({"start": datetime(2024, 1, 1)}, "start needs a zone"),  # noqa: DTZ001
        ({"end": 3.5}, "end must be like"),
        ({"end": "2024-03-01"}, "end after its start"),
        ({"symbols": []}, "symbols must be names"),
        ({"symbols": ["SIM:OAK", 3]}, "symbols must be names"),
        ({"symbols": ["SIM:OAK", Instrument("SIM:OAK")]}, "SIM:OAK was given twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(filled: Client, arguments, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        history(**({"symbols": "SIM:OAK", "start": START} | arguments), client=filled)


# -- the store


def test_it_opens_the_store_that_the_environment_names_and_closes_it(
    filled: Client, dsn: str, monkeypatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    assert len(history("SIM:OAK", "-1d")) == 1440


def test_an_empty_store_says_how_to_fill_it(client: Client, served: str, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"the store is empty: `make live`"):
        history("SIM:OAK", "-1d", client=client)
    monkeypatch.setenv("CLICKHOUSE_DSN", f"{served}/default")  # without any table
    with pytest.raises(DataError, match=r"the store is empty: `make live`"):
        history("SIM:OAK", "-1d")


def test_a_server_that_does_not_answer_is_named(monkeypatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", "http://127.0.0.1:1/x")
    with pytest.raises(StoreError, match="does not answer"):
        history("SIM:OAK", "-1d")


TWO_LINES = """
from sysquant import history
from sysquant.backtesting import backtest
from sysquant.strategies.momentum import Momentum

bars = history("SIM:OAK", "-1d")
print(backtest(Momentum(fast=10), bars))
"""


def test_two_lines_backtest_the_embedded_store_and_leave_it_free(home) -> None:
    fill = (
        "from tests.test_history import *\n"
        "from sysquant.store import connect, migrate\n"
        f"client = connect('chdb:{home}/data/store')\n"
        "migrate(client)\n"
        "insert(client, 'bars_imported', bar_table(walk(minutes(1500)), NAMES, 'x'), 'one')\n"
        "client.close()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CLICKHOUSE_DSN"}
    for program in (fill, TWO_LINES):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, text=True,
            capture_output=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("Backtest of momentum=Momentum(fast=10")
    assert lock_holder(home / "data" / "store") is None


def test_its_name_is_a_function_whatever_was_imported_before() -> None:
    program = (
        "import sys, sysquant.archive, sysquant.past, sysquant.backtesting\n"
        "assert 'sysquant.retrieval' not in sys.modules\n"
        "import sysquant.retrieval\n"
        "from sysquant import history\n"
        "assert callable(history) and history is sysquant.retrieval.history\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
    assert sysquant.__all__ == ["Strategy", "backtest", "history", "sweep", "walk_forward"]
    with pytest.raises(AttributeError, match="no attribute 'histry'"):
        _ = sysquant.histry  # pyright: ignore[reportAttributeAccessIssue]


def test_gaps_are_columns_like_any_batch() -> None:
    assert len(Gaps.empty()) == 0
    assert pa.array(Gaps.empty().missing).type == pa.int64()
