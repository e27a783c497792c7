"""Bars of more lengths in SQL: those of `history`, those of pandas, and right after late ticks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clickhouse_connect.driver.client import Client
from omegaconf import OmegaConf

from sysquant import backfill, history
from sysquant.mapping import FileMapping
from sysquant.store import insert
from sysquant.tables import bar_table, tick_table
from sysquant.times import instant, interval_ns
from sysquant.types import SECOND, Bars, Instrument, Ticks
from tests.conftest import REPOSITORY

pytest_plugins = ["tests.served"]

VIEWS = ["1s", "5m", "1h", "1d"]
PRICES = ["open", "high", "low", "close", "volume"]
START = instant("2024-03-03T22:00:00Z")
DAY = 86_400 * SECOND
NAMES = ["SIM:OAK", "SIM:ELM"]


def market(rows: int, seed: int, hours: int = 30, first: int = 0) -> Ticks:
    """Ticks of two symbols in milliseconds, of which many share one, over two midnights."""
    rng = np.random.default_rng(seed)
    ms = np.sort(rng.integers(0, hours * 3_600_000, rows // 2)).repeat(2)
    zeros = np.zeros(rows, np.int32)
    return Ticks(
        START + ms * 1_000_000, rng.integers(0, 2, rows).astype(np.int32),
        np.round(100 + rng.normal(0, 0.1, rows).cumsum(), 2), rng.integers(1, 99, rows) / 8,
        START + ms * 1_000_000, zeros, first + np.arange(rows),
    )  # fmt: skip


def view(client: Client, interval: str) -> pd.DataFrame:
    sql = (
        "SELECT toString(symbol) AS symbol, toUnixTimestamp64Nano(ts) AS ts, open, high, low, "
        f"close, volume FROM bars_{interval} ORDER BY ts, indexOf(['SIM:OAK', 'SIM:ELM'], symbol)"
    )
    return client.query_df(sql)


def of_history(client: Client, interval: str, names: list[str]) -> pd.DataFrame:
    bars = history(names, START - 2 * DAY, START + 4 * DAY, interval, client=client).bars
    columns = {"symbol": np.array(names)[bars.symbol], "ts": bars.ts}
    return pd.DataFrame(columns | {name: getattr(bars, name) for name in PRICES})


def of_pandas(ticks: Ticks, interval: str) -> pd.DataFrame:
    ns = interval_ns(interval)
    frame = pd.DataFrame(
        {"symbol": ticks.symbol, "ts": (ticks.ts // ns + 1) * ns, "at": ticks.ts,
         "offset": ticks.offset, "price": ticks.price, "volume": ticks.volume}
    ).sort_values(["at", "offset"])  # fmt: skip
    found = frame.groupby(["ts", "symbol"], as_index=False).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"),
        close=("price", "last"), volume=("volume", "sum"),
    )  # fmt: skip
    names = np.array(NAMES)[found.pop("symbol")]
    found.insert(0, "symbol", names)
    return found


def same(got: pd.DataFrame, want: pd.DataFrame) -> None:
    assert list(got) == ["symbol", "ts", *PRICES]
    assert len(got) == len(want) > 1
    for name in got:
        np.testing.assert_array_equal(got[name].to_numpy(), want[name].to_numpy(), err_msg=name)


@pytest.mark.parametrize("interval", VIEWS)
def test_view_has_the_bars_of_history_and_of_pandas(client: Client, interval: str) -> None:
    ticks = market(6_000, 1)
    shuffled = np.random.default_rng(2).permutation(len(ticks))
    for number, rows in enumerate(np.array_split(shuffled, 3)):
        insert(client, "ticks", tick_table(ticks[rows], NAMES, "e"), str(number))
    same(view(client, interval), of_history(client, interval, NAMES))
    same(view(client, interval), of_pandas(ticks, interval))


@pytest.mark.parametrize("interval", VIEWS)
def test_late_ticks_correct_their_bar(client: Client, interval: str) -> None:
    ticks = market(3_000, 3)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "first")
    before = view(client, interval)
    late = market(40, 4, hours=3, first=10_000)
    late.price[:] = np.where(np.arange(40) % 2, 50.0, 200.0)  # new highs and lows, and some opens
    late.ts[:4] = np.repeat(START - np.array([0, 10**6]), 2)
    insert(client, "ticks", tick_table(late, NAMES, "e"), "late")
    after = view(client, interval)
    same(after, of_history(client, interval, NAMES))
    same(after, of_pandas(Ticks.join([ticks, late]), interval))
    assert before.low.min() > 50 == after.low.min()


@pytest.mark.parametrize("interval", VIEWS[1:])
def test_imported_minutes_go_before_those_of_ticks(client: Client, interval: str) -> None:
    insert(client, "ticks", tick_table(market(3_000, 5), NAMES, "e"), "ticks")
    count = 700
    flat = np.full(count, 7.0)
    zeros = np.zeros(count, np.int32)
    closes = START + 60 * SECOND * np.arange(1, count + 1)
    bars = Bars(closes, zeros, flat, flat, flat, flat, flat, zeros, np.arange(count))
    insert(client, "bars_imported", bar_table(bars, NAMES, "x"), "bars")
    found = view(client, interval)
    same(found, of_history(client, interval, NAMES))
    assert found.open.min() == 7.0 < found.close.max()


@pytest.mark.parametrize("interval", VIEWS)
def test_recorded_ticks_give_the_bars_of_history(
    client: Client, shared_data: Path, interval: str
) -> None:
    conf = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf/mapping/ticks.yaml"))
    how = FileMapping(**{k: v for k, v in conf.items() if k != "_target_"})  # pyright: ignore
    name = "BINANCE:ETHUSDT"
    path = shared_data / "ticks_ethusdt_2025-05-19.parquet"
    backfill.import_file(client, [Instrument(name)], path, how)
    bars = history(name, "2025-05-18", "2025-05-20", interval, client=client).bars
    rows = client.query_df(
        f"SELECT toUnixTimestamp64Nano(ts) AS at, * FROM bars_{interval} ORDER BY ts"
    )
    assert len(rows) == len(bars) > 0
    np.testing.assert_array_equal(rows["at"], bars.ts)
    for column in PRICES[:-1]:
        np.testing.assert_array_equal(rows[column], getattr(bars, column))
    np.testing.assert_allclose(rows["volume"], bars.volume, rtol=1e-12)


@pytest.mark.parametrize("interval", VIEWS)
def test_bar_is_shown_when_its_time_is_over(client: Client, interval: str) -> None:
    ns = interval_ns(interval)
    now = int(pd.Timestamp.now("UTC").value)
    ticks = market(4, 6)
    ticks.symbol[:] = 0
    ticks.ts[:] = now // ns * ns + np.array([-ns, -1, 10 * DAY, 10 * DAY])
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "now")
    found = view(client, interval)
    closes = [now // ns * ns] if ns < DAY or now % DAY else []
    assert found.ts.tolist() == closes, "the next ones are of a time to come"


def test_seconds_of_a_range_read_the_granules_of_that_range(client: Client) -> None:
    client.command(
        "INSERT INTO ticks SELECT 'SIM:OAK', fromUnixTimestamp64Nano({start:Int64} + "
        "toInt64(number) * 1000000000, 'UTC'), 1, 1, now64(9), 'e', 0, number FROM numbers(400000)",
        {"start": START},
    )
    said = client.query(
        "EXPLAIN indexes = 1 SELECT * FROM bars_1s WHERE symbol = 'SIM:OAK' "
        "AND ts > '2024-03-05 03:00:00' AND ts <= '2024-03-05 03:10:00'"
    ).result_rows
    granules = [str(row[0]).split()[-1] for row in said if "Granules:" in str(row[0])]
    assert granules[-1].split("/")[0] in ("1", "2"), granules
