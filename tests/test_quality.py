"""Data quality: each measure against pandas, on days with planted faults and a real recording."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from sysquant import backfill, quality
from sysquant.defects import spikes
from sysquant.errors import ConfigError
from sysquant.importing import repair
from sysquant.inspection import Inspection
from sysquant.quality import Limits, Quality, measure
from sysquant.store import insert
from sysquant.times import DAY
from sysquant.types import SECOND, Bars, Instrument, Ticks
from tests.test_backfill import CRYPTO, ETHUSDT, mapping

pytest_plugins = ["tests.served"]

MS, MINUTE = 1_000_000, 60 * SECOND
MIDNIGHT = pd.Timestamp("2024-03-04", tz="UTC").value  # a Monday
A = Instrument("SIM:A")
LIMITS = Limits()
NOTHING_WRONG = dict.fromkeys(
    (
        "coverage", "continuity", "order", "movement", "plausibility", "steadiness", "agreement",
        "uniqueness",
    ),
    1.0,
)  # fmt: skip


def a_day(*, step_s: float = 20.0, seed: int = 1, skew_ms: float = 250.0) -> pd.DataFrame:
    """Ticks of a whole day without a fault: an even walk in one partition, received evenly."""
    rng = np.random.default_rng(seed)
    ts = MIDNIGHT + (np.arange(0, 86_400, step_s) * SECOND).astype(np.int64)
    frame = pd.DataFrame({"ts": ts, "epoch": "e", "partition": 0, "offset": np.arange(len(ts))})
    frame["price"] = np.round(100 + rng.normal(0, 0.02, len(ts)).cumsum(), 4)
    frame["volume"] = np.round(rng.uniform(0.5, 2.0, len(ts)), 3)
    frame["received_at"] = ts + round(skew_ms * MS)
    return frame


def put(client: Client, frame: pd.DataFrame, *, symbol: str = "SIM:A", token: str = "t") -> None:
    """Ticks into the store, as ingest writes them."""
    times = {name: pa.array(frame[name], pa.timestamp("ns", "UTC")) for name in TIMES}
    rows = pa.table(
        {
            "symbol": [symbol] * len(frame), "price": frame.price.to_numpy(float),
            "volume": frame.volume.to_numpy(float), "epoch": list(frame.epoch),
            "partition": frame.partition.to_numpy(np.int32),
            "offset": frame.offset.to_numpy(np.int64), **times,
        }
    )  # fmt: skip
    insert(client, "ticks", rows, token)


TIMES = ("ts", "received_at")


def put_bars(client: Client, bars: pd.DataFrame, *, symbol: str = "SIM:A") -> None:
    """Imported minute bars; `ts` is the close."""
    prices = {name: bars[name].to_numpy(float) for name in ("open", "high", "low", "close")}
    rows = pa.table(
        {
            "symbol": [symbol] * len(bars), "ts": pa.array(bars.ts, pa.timestamp("ns", "UTC")),
            **prices, "volume": bars.volume.to_numpy(float), "source": ["file:x"] * len(bars),
        }
    )  # fmt: skip
    insert(client, "bars_imported", rows, f"bars of {symbol}")


def flat_bars(rows: int = 1440) -> pd.DataFrame:
    close = 100 + np.sin(np.arange(rows) / 20.0)
    bars = pd.DataFrame({"ts": MIDNIGHT + (np.arange(rows) + 1) * MINUTE, "close": close})
    return bars.assign(open=close, high=close + 0.1, low=close - 0.1, volume=1.0)


def minutes_of(frame: pd.DataFrame) -> pd.DataFrame:
    ordered = frame.sort_values(["ts", "offset"])
    groups = ordered.groupby((ordered.ts // MINUTE + 1) * MINUTE)
    bars = groups.price.agg(open="first", high="max", low="min", close="last")
    return bars.assign(volume=groups.volume.sum(), rows=groups.size())


def by_pandas(frame: pd.DataFrame, limits: Limits = LIMITS, end: int = MIDNIGHT + DAY) -> Any:
    """Every measure of a day of ticks of one symbol around the clock, in another way."""
    bars, ts = minutes_of(frame), np.sort(frame.ts.to_numpy())
    steps = np.diff(np.concatenate([[MIDNIGHT], ts, [end]])) / SECOND
    long = steps[steps > limits.gap_s]
    behind = frame.sort_values("offset").groupby(["epoch", "partition"]).ts.cummax() - frame.ts
    runs, length, before = [], 0, None
    for bar in bars.itertuples():
        length = length + 1 if bar.high == bar.low == before else int(bar.high == bar.low)
        before = bar.close if length else None
        runs = [*runs[:-1], length] if length > 1 else [*runs, length]
    ordered = frame.sort_values(["ts", "offset"])
    log = np.log(ordered.price.to_numpy())
    left, right = log[1:-1] - log[:-2], log[1:-1] - log[2:]
    far = np.log1p(limits.absurd)
    is_spike = (np.minimum(abs(left), abs(right)) > far) & (np.sign(left) == np.sign(right))
    skew = (frame.received_at - frame.ts) / MS
    low, middle, high = (np.percentile(skew, q) for q in (1, 50, 99))
    return SimpleNamespace(
        open_minutes=(end - MIDNIGHT) // MINUTE,
        bars=len(bars),
        ticks=len(frame.drop_duplicates(["epoch", "partition", "offset"])),
        gaps=len(long),
        gap_longest_s=steps.max(),
        gap_total_s=long.sum(),
        duplicates=int(frame.duplicated(["ts", "price", "volume"]).sum()),
        disordered=int((behind > 0).sum()),
        disorder_worst_ms=behind.max() / MS,
        stuck_longest=max(runs),
        stuck_minutes=sum(run for run in runs if run > limits.stuck_minutes),
        spikes=int(is_spike.sum()),
        spike_minutes=len(set(ordered.ts.to_numpy()[1:-1][is_spike] // MINUTE)),
        skew_median_ms=middle,
        skew_p99_ms=high,
        jitter_ms=max(high - middle, middle - low),
        compared=len(bars),
        doubled=len(frame) - len(frame.drop_duplicates(["epoch", "partition", "offset"])),
    )


def measured(client: Client, instrument: Instrument = A, **changed: Any) -> Quality:
    given = {"start": MIDNIGHT, "end": MIDNIGHT + DAY} | changed
    found = measure(client, instrument, **given)
    assert found is not None
    return found


def assert_as_pandas(found: Quality, frame: pd.DataFrame, **more: Any) -> None:
    for name, wanted in vars(by_pandas(frame, **more)).items():
        assert getattr(found, name) == pytest.approx(wanted, rel=1e-12, abs=1e-9), name


def gap(frame: pd.DataFrame) -> pd.DataFrame:
    hour = frame.ts.between(MIDNIGHT + 7 * 60 * MINUTE, MIDNIGHT + 11 * 60 * MINUTE)
    return frame[~hour]


def two_minutes(frame: pd.DataFrame) -> pd.DataFrame:
    # No minute is missing, and yet nothing came for 100 s.
    return frame[~frame.ts.isin(MIDNIGHT + np.array([20, 40, 60, 80]) * SECOND)]


def duplicate(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[-1] * 3].assign(offset=[10_000, 10_001, 10_002])])


def disorder(frame: pd.DataFrame) -> pd.DataFrame:
    offset = frame.offset.to_numpy().copy()
    offset[100:200] = offset[100:200][::-1]
    return frame.assign(offset=offset)


def stuck(frame: pd.DataFrame) -> pd.DataFrame:
    price = frame.price.to_numpy().copy()
    price[300:390] = price[300]  # thirty minutes
    price[600:624] = price[600]  # eight, which is allowed
    return frame.assign(price=price)


def spike(frame: pd.DataFrame) -> pd.DataFrame:
    price = frame.price.to_numpy().copy()
    price[[700, 702, 3000]] *= [1.3, 1.4, 0.7]
    price[2000:] *= 1.25  # a step: far from one neighbour only
    return frame.assign(price=price)


def shaken(frame: pd.DataFrame) -> pd.DataFrame:
    late = np.random.default_rng(3).exponential(900.0, len(frame))
    return frame.assign(received_at=frame.received_at + (late * MS).astype(np.int64))


def skewed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(received_at=frame.ts - 3_600_000 * MS)


def unharmed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


@pytest.mark.parametrize(
    ("plant", "hurt"),
    [
        (unharmed, set()),
        (gap, {"coverage", "continuity"}),
        (two_minutes, {"continuity"}),
        (duplicate, set()),
        (disorder, {"order"}),
        (stuck, {"movement"}),
        (spike, {"plausibility"}),
        (shaken, {"steadiness"}),
        (skewed, set()),
    ],
)
def test_a_planted_fault_is_counted_as_by_pandas_and_costs_its_part_alone(client, plant, hurt):
    frame = plant(a_day())
    put(client, frame)
    found = measured(client)
    assert_as_pandas(found, frame)
    assert {name for name, part in found.parts.items() if part < 1} == hurt
    assert found.score == min(found.parts.values())
    assert all(0 <= part <= 1 for part in found.parts.values())


def test_the_planted_faults_are_what_they_are_said_to_be():
    clean = a_day()
    assert by_pandas(gap(clean)).gap_longest_s == 4 * 3600 + 40
    assert (by_pandas(two_minutes(clean)).bars, by_pandas(two_minutes(clean)).gaps) == (1440, 1)
    assert by_pandas(duplicate(clean)).duplicates == 3
    assert by_pandas(disorder(clean)).disordered == 99
    assert by_pandas(stuck(clean)).stuck_minutes == 30
    assert (by_pandas(spike(clean)).spikes, by_pandas(spike(clean)).spike_minutes) == (4, 3)
    assert by_pandas(skewed(clean)).jitter_ms == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_day_without_faults_has_score_1(client, seed):
    rng = np.random.default_rng(seed)
    step_s, skew_ms = rng.uniform(1.5, 30.0), rng.uniform(-1e5, 1e5)
    frame = a_day(step_s=step_s, seed=seed, skew_ms=skew_ms)
    put(client, frame)
    found = measured(client)
    assert (found.parts, found.score) == (NOTHING_WRONG, 1.0)
    assert found.skew_median_ms == pytest.approx(skew_ms, abs=1e-5)
    kinds = {one.kind for one in found.findings}
    assert kinds <= {"duplicate"}


def test_each_fault_is_told_with_its_worst_case(client):
    put(client, spike(stuck(gap(a_day()))))
    told = {one.kind: (one.count, one.example) for one in measured(client).findings}
    assert told["gap"] == (1, "14440 s of open time after 2024-03-04T06:59:40Z")
    assert told["stuck price"][1].startswith("30 minutes at ")
    assert told["absurd price"][1].endswith("Z beside " + told["absurd price"][1].split()[-1])


# -- bars and ticks


def test_a_state_that_is_in_twice_is_a_bar_that_differs_until_it_is_made_anew(client):
    put(client, a_day())
    twice = MIDNIGHT + 90 * MINUTE
    client.command(
        "INSERT INTO bars_1m SELECT * FROM bars_1m "
        f"WHERE ts = fromUnixTimestamp64Nano({twice}, 'UTC')"
    )
    found = measured(client)
    assert (found.compared, found.differing) == (1440, 1)
    assert found.parts == NOTHING_WRONG | {"agreement": 1439 / 1440}
    (told,) = found.findings
    assert told.example == "the first closes at 2024-03-04T01:30:00Z"
    repair(client, ["SIM:A"], MIDNIGHT, MIDNIGHT + DAY - 1)
    assert measured(client).parts == NOTHING_WRONG


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_a_bar_that_was_made_anew_wrongly_differs_by_each_of_its_columns(client, name):
    frame = a_day()
    put(client, frame)
    bar = minutes_of(frame).iloc[5].to_dict()
    bar[name] *= 1 + 1e-6
    columns = "open, high, low, close, volume"
    client.command(
        f"INSERT INTO bars_imported (symbol, ts, {columns}, source) VALUES ('SIM:A', "
        f"fromUnixTimestamp64Nano({MIDNIGHT + 6 * MINUTE}, 'UTC'), "
        + ", ".join(repr(float(bar[c])) for c in columns.split(", "))
        + ", 'ticks')"
    )
    assert measured(client).differing == 1


def test_a_bar_without_ticks_and_ticks_without_a_bar_differ(client):
    put(client, a_day())
    client.command(
        "ALTER TABLE bars_1m DROP PARTITION ID '202403'"  # what no writer of ours does
    )
    found = measured(client)
    assert (found.compared, found.differing, found.bars) == (1440, 1440, 0)
    put(client, a_day().iloc[:30], symbol="SIM:B", token="b")
    client.command("DELETE FROM ticks WHERE symbol = 'SIM:B'")
    other = measured(client, Instrument("SIM:B"))
    assert (other.compared, other.differing, other.ticks) == (10, 10, 0)


def test_an_offset_that_two_ticks_have_is_doubled(client):
    frame = a_day()
    again = frame.iloc[[50, 60]].assign(ts=lambda f: f.ts + 1_000 * MS)
    both = pd.concat([frame, again])
    put(client, both)
    found = measured(client)
    assert (found.doubled, found.ticks) == (2, len(frame))
    assert found.parts["uniqueness"] == 1 - 2 / len(frame)


def test_what_was_sent_twice_counts_once(client):
    frame = a_day()
    put(client, frame)
    put(client, frame, token="another")  # the states are doubled now, the ticks are not
    found = measured(client)
    assert (found.ticks, found.doubled, found.duplicates) == (len(frame), 0, 0)
    assert found.differing == 1440


# -- order


def test_a_tick_is_late_by_what_another_symbol_of_its_partition_has_shown(client):
    frame = a_day()
    ahead = frame.iloc[[100]].assign(offset=-1, ts=MIDNIGHT + 5 * MINUTE)
    put(client, ahead, symbol="SIM:B", token="b")
    put(client, frame)
    found = measured(client)
    assert (found.disordered, found.disorder_worst_ms) == (15, 300_000)
    put(client, ahead.assign(partition=1), symbol="SIM:C", token="c")
    assert measured(client) == found


def test_a_tick_that_comes_after_one_of_the_next_day_is_late(client):
    frame = a_day()
    tomorrow = frame.iloc[[0]].assign(ts=MIDNIGHT + DAY + 10 * SECOND, offset=len(frame) - 2)
    frame.loc[frame.index[-2:], "offset"] += 1
    put(client, pd.concat([frame, tomorrow]))
    found = measured(client)
    assert (found.disordered, found.disorder_worst_ms) == (2, 50_000)


# -- calendars, imported bars, days that are not over


def test_only_what_the_calendar_has_open_is_missed(client):
    stock = Instrument("SIM:A", calendar="XNYS")
    frame = a_day()
    open_, close = MIDNIGHT + (14 * 60 + 30) * MINUTE, MIDNIGHT + 21 * 60 * MINUTE
    put(client, frame[(frame.ts >= open_) & (frame.ts < close)])
    found = measured(client, stock)
    assert (found.open_minutes, found.bars, found.parts) == (390, 390, NOTHING_WRONG)
    assert measured(client).parts["coverage"] == pytest.approx(390 / 1440)
    sunday = MIDNIGHT - DAY
    assert measure(client, stock, sunday, MIDNIGHT) is None
    put(client, frame.iloc[:9].assign(ts=frame.ts.iloc[:9] - DAY), token="sunday")
    closed = measured(client, stock, start=sunday, end=MIDNIGHT)
    assert (closed.open_minutes, closed.bars, closed.ticks, closed.score) == (0, 0, 9, 1.0)


def test_imported_bars_cover_their_minutes_and_may_be_absurd(client):
    bars = flat_bars()
    bars.loc[10, ["open", "high", "low", "close"]] *= 1.5  # far from both neighbours
    bars.loc[20, "high"] *= 1.3  # an extreme
    put_bars(client, bars.drop(index=[100, 101, 102]))
    found = measured(client)
    assert (found.bars, found.gaps, found.gap_longest_s) == (1437, 1, 180.0)
    assert (found.spikes, found.spike_minutes, found.compared) == (2, 2, 0)
    assert np.isnan([found.skew_median_ms, found.skew_p99_ms, found.jitter_ms]).all()
    assert found.parts["continuity"] == 1 - 180 / 86_400
    assert found.parts["steadiness"] == found.parts["agreement"] == 1.0


def test_ticks_and_imported_bars_make_up_a_day_together(client):
    frame, bars = a_day(), flat_bars()
    noon = MIDNIGHT + 720 * MINUTE
    put(client, frame[frame.ts >= noon])
    put_bars(client, bars[bars.ts <= noon])
    found = measured(client)
    assert (found.bars, found.compared, found.parts) == (1440, 720, NOTHING_WRONG)


def test_minutes_without_trades_are_not_stuck(client):
    bars = flat_bars()
    bars.loc[50:89, ["open", "high", "low", "close"]] = 100.0
    put_bars(client, bars.assign(volume=np.where(bars.index.isin(range(50, 90)), 0.0, 1.0)))
    assert measured(client).stuck_longest == 0
    put_bars(client, bars, symbol="SIM:B")
    other = measured(client, Instrument("SIM:B"))
    assert (other.stuck_longest, other.stuck_minutes) == (40, 40)


def test_a_day_is_measured_as_far_as_it_has_come(client):
    frame = a_day()
    end = MIDNIGHT + 300 * MINUTE
    put(client, frame)
    found = measured(client, end=end)
    assert_as_pandas(found, frame[frame.ts < end], end=end)
    assert (found.until, found.score) == (end, 1.0)
    days = list(quality.days(MIDNIGHT + 5, MIDNIGHT + DAY + 90 * SECOND))
    assert days == [(MIDNIGHT, MIDNIGHT + DAY), (MIDNIGHT + DAY, MIDNIGHT + DAY + MINUTE)]


def test_a_day_of_which_there_is_nothing_has_score_0(client):
    found = measured(client)
    assert (found.score, found.bars, found.gap_longest_s) == (0.0, 0, 86_400.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("gap_s", 0), ("absurd", -1), ("stuck_minutes", 1.5), ("jitter_ms", float("nan"))],
)
def test_limits_that_cannot_be_meant_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"limits\.{key} must be "):
        Limits(**{key: value})


@pytest.mark.parametrize("absurd", [0.05, 0.2])
def test_absurd_is_what_an_import_calls_absurd(client, absurd):
    rng = np.random.default_rng(5)
    frame, bars = spike(a_day()), flat_bars()
    frame["price"] *= np.where(rng.random(len(frame)) < 0.05, rng.uniform(0.7, 1.4, len(frame)), 1)
    for name in ("close", "high"):
        bars[name] *= np.where(rng.random(len(bars)) < 0.05, rng.uniform(1.0, 1.4, len(bars)), 1)
    bars["high"] = bars[["open", "high", "close"]].max(axis=1)
    zeros = np.zeros(len(frame), np.int32)
    columns = [frame[name].to_numpy() for name in ("ts", "price", "volume", "received_at")]
    ticks = Ticks(columns[0], zeros, *columns[1:], zeros, frame.offset.to_numpy())
    prices = [bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
    ts, zeros = bars.ts.to_numpy(), np.zeros(len(bars), np.int32)
    imported = Bars(ts, zeros, *prices, zeros, np.arange(len(bars)))
    put(client, frame)
    put_bars(client, bars, symbol="SIM:B")
    for block, symbol in ((ticks, "SIM:A"), (imported, "SIM:B")):
        inspection = Inspection([symbol], absurd=absurd)
        inspection.take(block)
        (wanted,) = [one for one in inspection.findings if one.kind == "absurd price"]
        found = measured(client, Instrument(symbol), limits=Limits(absurd=absurd))
        assert found.spikes == wanted.count > 20, symbol
        assert len(spikes(client, symbol, MIDNIGHT, MIDNIGHT + DAY, absurd)[0]) == found.spikes


# -- a real recording


def test_a_real_recording_is_measured_as_by_pandas(client: Client, shared_data: Path):
    columns = {name: name for name in ("symbol", "price", "volume", "received_at")}
    how = mapping("ticks", columns=columns | {"ts": "timestamp_ms"})
    backfill.import_file(client, CRYPTO, shared_data / ETHUSDT, how)
    raw = pd.read_parquet(shared_data / ETHUSDT)
    frame = pd.DataFrame({"ts": raw.timestamp_ms * MS, "price": raw.price, "volume": raw.volume})
    frame["received_at"] = pd.to_datetime(raw.received_at, utc=True).astype("int64")
    frame = frame.assign(epoch="e", partition=0, offset=np.arange(len(frame)))
    start = int(frame.ts.min()) // DAY * DAY
    shifted = frame.assign(ts=frame.ts - start + MIDNIGHT)
    shifted["received_at"] += MIDNIGHT - start
    found = measured(client, CRYPTO[1], start=start, end=start + DAY)
    assert_as_pandas(found, shifted)
    assert (found.ticks, found.duplicates, found.differing) == (11_328, 2_930, 0)
    assert found.parts["coverage"] == pytest.approx(4 / 1440) and found.score < 0.01


# -- the table


def rows(client: Client) -> list[tuple]:
    return list(client.query("SELECT * EXCEPT (measured_at) FROM quality FINAL").result_rows)


def test_a_row_holds_every_measure_once_and_a_newer_one_replaces_it(client):
    put(client, gap(a_day()))
    found = measured(client)
    quality.write(client, [found], "one")
    quality.write(client, [found], "one")
    (row,) = client.query("SELECT * FROM quality FINAL").named_results()
    assert client.query("SELECT count() FROM quality").result_rows == [(1,)]
    assert row["until"] == dt.datetime(2024, 3, 5)  # noqa: DTZ001, the client gives UTC so
    stored = {name: row[name] for name in found.row if name != "until"}
    assert stored == {name: value for name, value in found.row.items() if name != "until"}
    assert set(row) == {*found.row, "measured_at"}
    put(client, a_day().drop(index=gap(a_day()).index), token="the rest")
    quality.write(client, [measured(client)], "two")
    assert [one[3] for one in rows(client)] == [1.0]


def test_every_column_says_what_it_is(client):
    named = client.query(
        "SELECT name FROM system.columns WHERE table = 'quality' "
        "AND database = currentDatabase() AND comment = '' AND name != 'symbol'"
    ).result_rows
    assert named == []


def test_scores_are_those_that_were_known_at_a_time(client):
    put(client, a_day())
    day = measured(client)
    poor = measured(client, start=MIDNIGHT + DAY, end=MIDNIGHT + 2 * DAY)
    quality.write(client, [day, poor], "both")
    noon = MIDNIGHT + DAY + DAY // 2

    def known(at: int, days: int = 7) -> dict[str, float]:
        return quality.scores(client, ["SIM:A", "SIM:B"], at, days)

    assert known(MIDNIGHT + DAY - 1) == {}  # the day is not over
    assert known(noon) == {"SIM:A": 1.0}
    assert known(MIDNIGHT + 2 * DAY) == {"SIM:A": 0.0}
    assert known(MIDNIGHT + 9 * DAY - 1) == {"SIM:A": 0.0}
    assert known(MIDNIGHT + 9 * DAY) == {}
