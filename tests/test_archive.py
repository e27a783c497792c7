"""Reading history: one order, every row once, bars that equal bars made of the ticks."""

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st

from sysquant import archive
from sysquant.errors import ConfigError, DataError
from sysquant.store import insert
from sysquant.tables import bar_table, tick_table
from sysquant.times import instant, interval_ns
from sysquant.types import SECOND, Bars, Instrument, Ticks

pytest_plugins = ["tests.served"]

UNIVERSE = [Instrument("SIM:A"), Instrument("SIM:B"), Instrument("SIM:C")]
NAMES = [i.symbol for i in UNIVERSE]
START = instant("2024-03-01T10:00:00Z")


def market(rows: int, seed: int, *, partitions: int = 3, late: float = 0.0) -> Ticks:
    """Ticks of several partitions, a symbol each, with disorder at will."""
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(0, 400, rows)) * 1_000_000
    ts = ts - np.where(rng.random(rows) < late, rng.integers(0, 90, rows), 0) * SECOND
    ts = np.maximum(ts, START)
    partition = rng.integers(0, partitions, rows)
    offset = np.zeros(rows, np.int64)
    for p in range(partitions):
        offset[partition == p] = 2 * np.arange(np.sum(partition == p))  # with gaps
    return Ticks(
        ts, partition.astype(np.int32), rng.integers(90, 110, rows).astype(float),
        rng.integers(1, 9, rows).astype(float), ts, partition.astype(np.int32), offset,
    )  # fmt: skip


def by_definition(ticks: Ticks) -> Ticks:
    """(Running maximum of ts in the partition, partition, offset), one tick at a time."""
    running: dict[int, int] = {}
    keys = []
    for row in np.lexsort((ticks.offset, ticks.partition)).tolist():
        p = int(ticks.partition[row])
        running[p] = max(running.get(p, 0), int(ticks.ts[row]))
        keys.append((running[p], p, int(ticks.offset[row]), row))
    return ticks[np.array([row for *_, row in sorted(keys)])]


def same(got: Ticks | Bars, want: Ticks | Bars) -> None:
    for name, column in got.columns():
        if name not in ("partition", "offset"):
            np.testing.assert_array_equal(column, getattr(want, name), err_msg=name)
    np.testing.assert_array_equal(got.offset, np.arange(len(got)))


@pytest.mark.parametrize("late", [0.0, 0.002, 0.3])
def test_ticks_come_by_running_maximum_partition_and_offset(client: Client, late: float) -> None:
    ticks = market(4_000, 1, late=late)
    shuffled = np.random.default_rng(2).permutation(len(ticks))
    insert(client, "ticks", tick_table(ticks[shuffled], NAMES, "e"), "one")
    want = by_definition(ticks)
    same(archive.ticks(client, UNIVERSE), want)
    blocks = list(archive.iter_ticks(client, UNIVERSE, block_rows=500))
    assert len(blocks) > (1 if late == 0.3 else 5)
    same(Ticks.join(blocks), want)


def test_any_row_can_be_the_first(client: Client) -> None:
    ticks = market(1_000, 3, late=0.01)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    whole = archive.ticks(client, UNIVERSE)
    for row in (0, 1, 333, 999, 1000):
        rest = Ticks.join(
            [Ticks.empty(), *archive.iter_ticks(client, UNIVERSE, first_row=row, block_rows=100)]
        )
        np.testing.assert_array_equal(rest.offset, whole.offset[row:])
        np.testing.assert_array_equal(rest.price, whole.price[row:])


def test_rows_written_twice_are_read_once(client: Client) -> None:
    ticks = market(500, 4)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "two")
    same(archive.ticks(client, UNIVERSE), by_definition(ticks))


def test_universe_decides_which_symbols_and_their_indexes(client: Client) -> None:
    ticks = market(500, 5)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    got = archive.ticks(client, UNIVERSE[::-1][:2])
    assert set(got.symbol.tolist()) == {0, 1}
    assert np.sum(got.symbol == 0) == np.sum(ticks.symbol == 2)


def test_source_chooses_between_recordings_of_the_same_market(client: Client) -> None:
    ticks = market(500, 6)
    insert(client, "ticks", tick_table(ticks, NAMES, "file:x"), "one")
    insert(client, "ticks", tick_table(ticks, NAMES, "kafka:y"), "two")
    assert len(archive.ticks(client, UNIVERSE)) == 1000
    same(archive.ticks(client, UNIVERSE, source="file:"), by_definition(ticks))


def bars_by_hand(ticks: Ticks, interval: int) -> list[tuple[float, ...]]:
    rows = []
    close_at = (ticks.ts // interval + 1) * interval
    for end in np.unique(close_at).tolist():
        for symbol in range(len(UNIVERSE)):
            mine = ticks[(close_at == end) & (ticks.symbol == symbol)]
            if len(mine):
                p = mine[np.lexsort((mine.offset, mine.ts))].price
                rows.append((end, symbol, p[0], p.max(), p.min(), p[-1], mine.volume.sum()))
    return rows


def rows_of(bars: Bars) -> list[tuple[float, ...]]:
    columns = [c.tolist() for name, c in bars.columns() if name not in ("partition", "offset")]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("interval", ["1s", "7s", "1m", "5m", "1h"])
def test_bars_equal_bars_made_of_the_ticks(client: Client, interval: str) -> None:
    ticks = market(3_000, 7, late=0.05)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    ns = interval_ns(interval)
    end = START + 7200 * SECOND
    got = archive.bars(client, UNIVERSE, START // ns * ns, end // ns * ns + ns, interval)
    assert rows_of(got) == bars_by_hand(ticks, ns)
    blocks = list(archive.iter_bars(client, UNIVERSE, START, end, interval, block_rows=900))
    whole = archive.bars(client, UNIVERSE, START, end, interval)
    same(Bars.join([Bars.empty(), *blocks]), whole)
    assert all(column.flags.writeable for _, column in whole.columns())


def minutes(count: int, first: int, price: float) -> Bars:
    ones = np.full(count, price)
    return Bars(
        first + np.arange(1, count + 1) * archive.MINUTE, np.zeros(count, np.int32),
        ones, ones, ones, ones, np.ones(count), np.zeros(count, np.int32), np.arange(count),
    )  # fmt: skip


def test_imported_minutes_and_those_of_ticks_are_one_history(client: Client) -> None:
    ticks = market(600, 8)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    before = START - 10 * archive.MINUTE
    insert(client, "bars_imported", bar_table(minutes(11, before, 7.0), NAMES, "x"), "bars")
    got = archive.bars(client, UNIVERSE)
    mine = got[got.symbol == 0]
    assert mine.close[:11].tolist() == [7.0] * 11, "an imported bar goes before one of ticks"
    assert np.all(mine.close[11:] > 80)
    assert np.all(np.diff(mine.ts) == archive.MINUTE)


@pytest.mark.parametrize("interval", ["1m", "5m", "1h"])
def test_every_interval_reads_the_minutes_that_the_view_shows(client: Client, interval) -> None:
    insert(client, "ticks", tick_table(market(3_000, 10), NAMES, "e"), "ticks")
    for number, (count, first) in enumerate(
        [(4, START - 20 * archive.MINUTE), (3, START), (2, START)]
    ):
        table = bar_table(minutes(count, first, 50.0 + number), NAMES, "x")
        insert(client, "bars_imported", table, f"bars {number}")
    ns = interval_ns(interval)
    got = archive.bars(client, UNIVERSE, START - 3600 * SECOND, START + 3600 * SECOND, interval)
    view = client.query(
        "SELECT symbol, toUnixTimestamp64Nano(ts), open, high, low, close, volume FROM bars "
        "ORDER BY ts"
    ).result_rows
    want: dict[tuple[int, int], list[float]] = {}
    for symbol, ts, *values in view:
        key = (-(-ts // ns) * ns, NAMES.index(symbol))
        so_far = want.setdefault(key, [values[0], -np.inf, np.inf, 0.0, 0.0])
        so_far[1:3] = [max(so_far[1], values[1]), min(so_far[2], values[2])]
        so_far[3:] = [values[3], so_far[4] + values[4]]
    assert rows_of(got) == [(*key, *want[key]) for key in sorted(want)]
    assert got.low.min() < 60 < 100 < got.high.max(), "both kinds of minutes were read"


def test_gap_stays_a_gap(client: Client) -> None:
    table = bar_table(minutes(5, START, 1.0), NAMES, "x").take([0, 1, 4])
    insert(client, "bars_imported", table, "bars")
    got = archive.bars(client, UNIVERSE)
    assert ((got.ts - START) // archive.MINUTE).tolist() == [1, 2, 5]
    five = archive.bars(client, UNIVERSE, START, START + 5 * archive.MINUTE, "5m")
    assert five.volume.tolist() == [3.0]


def test_bar_that_sticks_out_of_the_range_is_left_out(client: Client) -> None:
    insert(client, "bars_imported", bar_table(minutes(5, START, 1.0), NAMES, "x"), "bars")
    got = archive.bars(client, UNIVERSE, START + SECOND, START + 4 * archive.MINUTE)
    assert ((got.ts - START) // archive.MINUTE).tolist() == [2, 3, 4]


def test_range_can_be_told_from_the_last_row(client: Client) -> None:
    ticks = market(600, 9)
    insert(client, "ticks", tick_table(ticks, NAMES, "e"), "one")
    last = int(ticks.ts.max())
    assert archive.span(client, UNIVERSE) == (int(ticks.ts.min()), last + 1)
    assert archive.span(client, UNIVERSE, "-30s") == (last + 1 - 30 * SECOND, last + 1)
    assert archive.span(client, UNIVERSE, "2024-03-01", "2024-03-02T00:00:00+00:00") == (
        START - 10 * 3600 * SECOND,
        START + 14 * 3600 * SECOND,
    )
    start, end = archive.span(client, UNIVERSE, "-2m", kind="bars")
    assert end % archive.MINUTE == 0
    assert end - start == 2 * archive.MINUTE


def test_empty_store_and_impossible_ranges_are_refused(client: Client) -> None:
    with pytest.raises(DataError, match="no ticks of SIM:A"):
        archive.ticks(client, UNIVERSE)
    with pytest.raises(DataError, match="no bars of SIM:A"):
        archive.bars(client, UNIVERSE)
    with pytest.raises(ConfigError, match="end after its start"):
        archive.ticks(client, UNIVERSE, "2024-01-02", "2024-01-01")
    with pytest.raises(ConfigError, match="a time must be like"):
        archive.ticks(client, UNIVERSE, "monday", "2024-01-01")
    with pytest.raises(ConfigError, match="interval must be like"):
        archive.bars(client, UNIVERSE, interval="1 fortnight")
    assert not len(archive.bars(client, UNIVERSE, "2024-01-01", "2024-01-02"))


@given(st.datetimes(), st.sampled_from(["", "Z", "+02:00"]))
def test_instants_are_exact_to_the_microsecond(moment, zone) -> None:
    ns = instant(moment.isoformat() + zone)
    hours = 2 if zone == "+02:00" else 0
    want = np.datetime64(moment, "us").astype(np.int64) - hours * 3600 * 10**6
    assert ns == int(want) * 1000


def funding_rows(symbol: str, hours: list[int], rates: list[float]) -> pa.Table:
    """Rows of the table `funding`, hours from the start."""
    ts = pa.array([START + hour * 3600 * SECOND for hour in hours], pa.timestamp("ns", "UTC"))
    return pa.table({"symbol": [symbol] * len(hours), "ts": ts, "rate": rates})


def test_funding_rates_begin_with_the_one_that_holds_at_the_start(client: Client) -> None:
    hours, rates = [-16, -8, 0, 8, 16], [1e-4, 2e-4, -3e-4, 4e-4, 5e-4]
    insert(client, "funding", funding_rows("SIM:A", hours, rates), "one")
    insert(client, "funding", funding_rows("SIM:B", [-40, 99], [7e-4, 8e-4]), "two")
    insert(client, "funding", funding_rows("OTHER", hours, rates), "three")
    end = START + 16 * 3600 * SECOND
    found = archive.funding(client, ["SIM:C", "SIM:B", "SIM:A"], START + 1, end)
    assert {name: rate.tolist() for name, (_, rate) in found.items()} == {
        "SIM:A": [-3e-4, 4e-4], "SIM:B": [7e-4],
    }  # fmt: skip
    assert found["SIM:A"][0].tolist() == [START, START + 8 * 3600 * SECOND]
    times, rate = archive.funding(client, NAMES, "2024-03-01T10:00:00Z", end)["SIM:A"]
    assert (times.dtype, rate.tolist()) == (np.int64, [2e-4, -3e-4, 4e-4])


def test_funding_rate_that_is_imported_again_counts_once_and_as_the_last_says(
    client: Client,
) -> None:
    for number, rate in enumerate([1e-4, 1e-4, 2e-4]):
        insert(client, "funding", funding_rows("SIM:A", [0], [rate]), str(number))
    times, rates = archive.funding(client, NAMES, START, START + 1)["SIM:A"]
    assert (times.tolist(), rates.tolist()) == ([START], [2e-4])
    assert archive.funding(client, NAMES, START - 1, START) == {}
    with pytest.raises(ConfigError, match="a time must be like"):
        archive.funding(client, NAMES, "monday", START)


HOUR = 3600 * SECOND


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ([0, 8, 16, 24], ""),  # the run begins at 0: its rate is not due
        ([-8, 8, 16, 32], ""),
        ([8, 16, 20], "A has a rate between the funding times at 2024-03-01T20:00:00Z"),
        ([0, 8], "A has no rate at 2024-03-01T16:00:00Z"),
        ([0, 16], "A has no rate at 2024-03-01T08:00:00Z"),
        ([], "A has no rate at 2024-03-01T08:00:00Z and 1 more times"),
        (None, "A has no rate at 2024-03-01T08:00:00Z and 1 more times"),
    ],
)
def test_funding_of_a_run_has_the_rates_of_its_times_and_no_others(hours, said) -> None:
    start = instant("2024-03-01T00:00:00Z")
    times = np.array([start + hour * HOUR for hour in hours or ()], np.int64)
    series = {} if hours is None else {"A": (times, np.full(len(times), 1e-4))}
    if not said:
        archive.check_funding(series, ["A"], start, start + 24 * HOUR, 8 * HOUR)
        return
    with pytest.raises(DataError, match=f"^{said}.*funding_hours=8: .*mapping=funding"):
        archive.check_funding(series, ["A"], start, start + 24 * HOUR, 8 * HOUR)
