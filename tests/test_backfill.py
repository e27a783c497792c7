"""Importing history: every good row once, odd ones told, impossible ones refused."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clickhouse_connect.driver.client import Client
from omegaconf import OmegaConf

from sysquant import archive, backfill
from sysquant.backfill import Report, import_file
from sysquant.errors import ConfigError, DataError
from sysquant.mapping import FileMapping
from sysquant.tables import tick_table
from sysquant.types import Instrument
from tests import forked

pytest_plugins = ["tests.served"]

ROOT = Path(__file__).resolve().parent.parent
ETHUSDT = "ticks_ethusdt_2025-05-19.parquet"
MINUTES = "bars_btc-perp_1m_2022-01.parquet"


def universe(name: str) -> list[Instrument]:
    conf = OmegaConf.load(ROOT / "conf" / "universe" / f"{name}.yaml")
    return [Instrument(**i) for i in conf.instruments]


CRYPTO = universe("crypto")
BASE = pd.Timestamp("2024-03-01T10:00:00Z")


def mapping(kind_: str, **changed: object) -> FileMapping:
    conf = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "mapping" / f"{kind_}.yaml"))
    conf.pop("_target_")  # pyright: ignore
    if kind_ == "bars":
        conf |= {"symbol": "BTC-PERP", "label": "left", "volume_unit": "base"}  # pyright: ignore
    return FileMapping(**(conf | changed))  # pyright: ignore


def tick_frame(rows: int = 200) -> pd.DataFrame:
    ms = BASE.value // 10**6 + np.arange(rows) * 1500
    price = 100.0 + np.arange(rows) % 5
    columns = {"timestamp_ms": ms, "symbol": "BINANCE:ETHUSDT", "price": price, "volume": 1.5}
    return pd.DataFrame(columns)


def bar_frame(rows: int = 20) -> pd.DataFrame:
    close = 100.0 + np.arange(rows) % 3
    return pd.DataFrame(
        {
            "timestamp": BASE + pd.to_timedelta(np.arange(rows), unit="min"),
            "open": close, "high": close + 1, "low": close - 1, "close": close,
            "volume": 10.0,
        }
    )  # fmt: skip


def run(client: Client, path: Path, how: FileMapping, **options: object) -> Report:
    return import_file(client, CRYPTO, path, how, **options)  # pyright: ignore


def saved(tmp_path: Path, frame: Any, name: str = "file.parquet") -> Path:
    path = tmp_path / name
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


def table(client: Client, name: str) -> list[tuple]:
    return client.query(
        f"SELECT * EXCEPT (imported_at) FROM {name} FINAL ORDER BY ALL"
        if name == "bars_imported"
        else f"SELECT * FROM {name} {'FINAL' if name == 'ticks' else ''} ORDER BY ALL"
    ).result_rows  # pyright: ignore


def test_recorded_ticks_are_imported_each_once(client: Client, shared_data: Path) -> None:
    first = run(client, shared_data / ETHUSDT, mapping("ticks"))
    assert (first.rows, first.added) == (11_328, 11_328)
    assert [(f.kind, f.count) for f in first.findings] == [("duplicate", 2_930)]
    tables = [table(client, name) for name in ("ticks", "bars")]
    again = run(client, shared_data / ETHUSDT, mapping("ticks"))
    assert again.added == 0
    assert [table(client, name) for name in ("ticks", "bars")] == tables
    frame = pd.read_parquet(shared_data / ETHUSDT)
    got = archive.ticks(client, CRYPTO)
    np.testing.assert_array_equal(got.ts // 10**6, frame.timestamp_ms)
    np.testing.assert_array_equal(got.price, frame.price)
    np.testing.assert_array_equal(got.volume, frame.volume)


def test_minute_bars_of_recorded_ticks_equal_those_of_pandas(
    client: Client, shared_data: Path
) -> None:
    run(client, shared_data / ETHUSDT, mapping("ticks"))
    frame = pd.read_parquet(shared_data / ETHUSDT)
    close_at = (frame.timestamp_ms // 60_000 + 1) * 60_000
    want = frame.groupby(close_at).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"),
        close=("price", "last"), volume=("volume", "sum"),
    )  # fmt: skip
    got = archive.bars(client, CRYPTO, "2025-05-18", "2025-05-19")
    np.testing.assert_array_equal(got.ts // 10**6, want.index)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(got, name), want[name])
    np.testing.assert_allclose(got.volume, want.volume, rtol=1e-12)


def test_recorded_bars_are_imported_each_once(client: Client, shared_data: Path) -> None:
    how = mapping("bars", volume_unit="quote")
    first = run(client, shared_data / MINUTES, how)
    assert (first.rows, first.added, first.findings) == (45_031, 45_031, [])
    assert any("volume: quote currency" in note for note in first.notes)
    rows = table(client, "bars_imported")
    assert run(client, shared_data / MINUTES, how).added == 0
    assert table(client, "bars_imported") == rows
    frame = pd.read_parquet(shared_data / MINUTES)
    got = archive.bars(client, CRYPTO)
    assert got.ts[0] == (frame.timestamp[0] + pd.Timedelta("1min")).value
    np.testing.assert_array_equal(got.close, frame.close)
    typical = (frame.high + frame.low + frame.close) / 3
    np.testing.assert_allclose(got.volume, frame.volume / typical, rtol=1e-12)


def test_label_decides_which_minute_a_bar_covers(client: Client, tmp_path: Path) -> None:
    path = saved(tmp_path, bar_frame())
    run(client, path, mapping("bars", label="right"))
    assert archive.bars(client, CRYPTO).ts[0] == BASE.value


def test_csv_and_parquet_give_the_same_rows(client: Client, tmp_path: Path) -> None:
    run(client, saved(tmp_path, tick_frame(), "a.csv"), mapping("ticks"))
    run(client, saved(tmp_path, bar_frame(), "b.csv"), mapping("bars"))
    got = archive.ticks(client, CRYPTO)
    np.testing.assert_array_equal(got.ts // 10**6, tick_frame().timestamp_ms)
    np.testing.assert_array_equal(got.price, tick_frame().price)
    bars = archive.bars(client, CRYPTO[2:])
    assert len(bars) == 20
    assert bars.ts[0] == BASE.value + archive.MINUTE


def test_what_is_odd_is_told_and_kept(client: Client, tmp_path: Path) -> None:
    frame = tick_frame()
    frame.loc[50, "price"] = 500.0
    frame.loc[100:, "timestamp_ms"] += 3_600_000
    frame.loc[[150, 151]] = frame.loc[[151, 150]].to_numpy()
    frame = pd.concat([frame, frame.tail(1)])
    report = run(client, saved(tmp_path, frame), mapping("ticks"))
    found = {f.kind: (f.count, f.example) for f in report.findings}
    assert found["absurd price"] == (1, "500 at 2024-03-01T10:01:15Z after 104")
    assert found["gap"] == (1, "3601.5 s after 2024-03-01T10:02:28.500Z")
    assert found["disorder"][0] == 1
    assert found["duplicate"] == (1, "2024-03-01T11:04:58.500Z")
    assert report.added == 201
    assert "1 x absurd price" in str(report)


def test_missing_and_repeated_bars_are_told(client: Client, tmp_path: Path) -> None:
    frame = bar_frame().drop([5, 6])
    frame.loc[10, "high"] = 900.0
    frame = pd.concat([frame, frame.tail(1)])
    report = run(client, saved(tmp_path, frame), mapping("bars"))
    assert {f.kind: f.count for f in report.findings} == {
        "gap": 1, "duplicate": 1, "absurd price": 1,
    }  # fmt: skip
    assert len(archive.bars(client, CRYPTO)) == 18


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("price", float("nan"), "row 7: price must be positive and finite, was nan"),
        ("price", -1.0, "row 7: price must be positive and finite, was -1.0"),
        ("price", float("inf"), "row 7: price must be positive"),
        ("volume", -0.5, "row 7: volume must be >= 0"),
        ("volume", None, "row 7: volume must be >= 0, was nan"),
        ("symbol", "BINANCE:ETHUSD", "row 7: symbol 'BINANCE:ETHUSD' is not of the universe; did"),
        ("symbol", None, "row 7: symbol None is not"),
        ("timestamp_ms", 1, "row 7: timestamp_ms must be a time from 2000 to tomorrow in ms"),
        ("timestamp_ms", 2**60, "row 7: timestamp_ms must be a time"),
    ],
)
def test_tick_that_cannot_be_meant_stops_the_import(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    frame = tick_frame()
    frame[column] = frame[column].astype(object)
    frame.loc[7, column] = value
    if column != "symbol":
        frame[column] = frame[column].astype(float if column != "timestamp_ms" else "int64")
    with pytest.raises(DataError) as error:
        list(mapping("ticks").read(saved(tmp_path, frame), CRYPTO))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"high": 50.0}, "high must be >= open and close"),
        ({"low": 500.0}, "low must be <= open and close"),
        ({"close": 0.0}, "close must be positive"),
        ({"timestamp": BASE + pd.Timedelta("7.5min")}, "whole minute"),
    ],
)
def test_bar_that_cannot_be_meant_stops_the_import(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    frame = bar_frame()
    for column, value in change.items():
        frame.loc[7, column] = value  # pyright: ignore
    with pytest.raises(DataError, match=message):
        list(mapping("bars").read(saved(tmp_path, frame), CRYPTO))


def test_bar_that_stands_twice_with_other_values_is_refused(client: Client, tmp_path: Path) -> None:
    frame = bar_frame()
    frame.loc[7, "timestamp"] = BASE
    with pytest.raises(DataError, match="rows 0 and 7 are the same bar with another open"):
        run(client, saved(tmp_path, frame), mapping("bars"))


def test_nothing_is_written_of_a_file_that_is_refused(client: Client, tmp_path: Path) -> None:
    frame = tick_frame()
    frame.loc[199, "price"] = -1.0
    with pytest.raises(DataError, match="row 199"):
        run(client, saved(tmp_path, frame), mapping("ticks"))
    assert not table(client, "ticks")


def test_longer_bars_are_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="were 300 s apart"):
        run(client, saved(tmp_path, bar_frame(20)[::5]), mapping("bars"))


def test_file_that_cannot_be_read_is_refused(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really PAR1")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("timestamp_ms,symbol,price,volume\n1,2\n")
    for path, message in (
        (tmp_path / "none.parquet", "cannot be read: No such file"),
        (broken, "cannot be read"),
        (ragged, "cannot be read"),
        (saved(tmp_path, tick_frame(), "t.txt"), "must end in .parquet, .csv"),
        (saved(tmp_path, tick_frame().rename(columns={"price": "prices"})), "did you mean 'pri"),
        (saved(tmp_path, tick_frame(0), "empty.parquet"), "has no rows"),
    ):
        with pytest.raises(DataError, match=message):
            run(client, path, mapping("ticks"))


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("bars", {"label": None}, "label must be left or right, was None"),
        ("bars", {"volume_unit": None}, "volume_unit must be base or quote"),
        ("bars", {"symbol": None}, "a symbol must come from"),
        ("ticks", {"unit": "minutes"}, "unit must be s or ms"),
        ("ticks", {"kind": "tick"}, "did you mean 'ticks'"),
        ("ticks", {"columns": {"pice": "p"}}, "did you mean 'price'"),
        ("ticks", {"columns": {"ts": "t"}}, "columns.price must name"),
    ],
)
def test_what_a_file_does_not_say_must_be_said(
    kind: str, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mapping(kind, **changed)


def test_same_trades_from_another_source_do_not_count_twice(client: Client, tmp_path: Path) -> None:
    run(client, saved(tmp_path, tick_frame()), mapping("ticks"))
    copy = saved(tmp_path, tick_frame(), "copy.csv")
    with pytest.raises(DataError, match="200 ticks of BINANCE:ETHUSDT from another source"):
        run(client, copy, mapping("ticks"))
    assert run(client, copy, mapping("ticks"), overlap=True).added == 200
    with pytest.raises(DataError, match="with another mapping"):
        run(client, copy, mapping("ticks", symbol="BTC-PERP", columns={
            "ts": "timestamp_ms", "price": "price", "volume": "volume",
        }))  # fmt: skip


def test_minutes_counted_twice_are_made_anew(client: Client, tmp_path: Path) -> None:
    path = saved(tmp_path, tick_frame())
    source = run(client, path, mapping("ticks")).source
    good = archive.bars(client, CRYPTO)
    ticks = archive.ticks(client, CRYPTO)
    rows = tick_table(ticks, [i.symbol for i in CRYPTO], source)
    backfill.insert(client, "ticks", rows, "a token the store has never seen")
    assert archive.bars(client, CRYPTO).volume.sum() == 2 * good.volume.sum()
    run(client, path, mapping("ticks"))
    for name, column in archive.bars(client, CRYPTO).columns():
        np.testing.assert_array_equal(column, getattr(good, name), err_msg=name)


def test_import_that_was_cut_off_is_finished_by_the_next(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysquant.mapping.BLOCK_ROWS", 50)
    path, calls = saved(tmp_path, tick_frame()), []

    def cut_off(rows: int) -> None:
        calls.append(rows)
        if len(calls) == 6:  # four blocks checked, two stored
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(client, path, mapping("ticks"), progress=cut_off)
    assert len(table(client, "ticks")) == 100
    assert run(client, path, mapping("ticks")).added == 100
    assert archive.bars(client, CRYPTO).volume.sum() == 200 * 1.5
    assert not table(client, "bars_imported"), "no minute had to be repaired"


def test_second_file_that_shares_a_minute_adds_to_it(client: Client, tmp_path: Path) -> None:
    frame = tick_frame()
    run(client, saved(tmp_path, frame[:95], "one.parquet"), mapping("ticks"))
    run(client, saved(tmp_path, frame[95:], "two.parquet"), mapping("ticks"))
    assert archive.bars(client, CRYPTO).volume.sum() == frame.volume.sum()
    assert not table(client, "bars_imported")


def rate_frame(rows: int = 6, rate: float = 1e-4) -> pd.DataFrame:
    hours = pd.to_timedelta(8 * np.arange(rows), unit="h")
    ts = pd.Timestamp("2024-03-01T00:00:00.004Z") + hours  # as exchanges stamp them
    return pd.DataFrame({"ts": ts, "symbol": "BTC-PERP", "rate": rate * (1 + np.arange(rows))})


def funding(client: Client) -> list[tuple]:
    sql = "SELECT symbol, toString(ts), rate FROM funding FINAL ORDER BY ALL"
    return client.query(sql).result_rows  # pyright: ignore


@pytest.mark.parametrize("name", ["funding.csv", "funding.parquet"])
def test_funding_rates_are_imported_each_once_at_their_minute(
    client: Client, tmp_path: Path, name: str
) -> None:
    path = saved(tmp_path, rate_frame(), name)
    first, second = (run(client, path, mapping("funding")) for _ in range(2))
    assert (first.kind, first.rows, first.added, second.added) == ("funding", 6, 6, 0)
    assert (first.counts, first.findings, second.notes) == ({"BTC-PERP": 6}, [], [])
    rows = funding(client)
    assert [rate for _, _, rate in rows] == pytest.approx(rate_frame().rate.tolist())
    assert rows[1][:2] == ("BTC-PERP", "2024-03-01 08:00:00.000000000")
    start = BASE.normalize().value
    times, _ = archive.funding(client, ["BTC-PERP"], start, start + 48 * 3600 * 10**9)["BTC-PERP"]
    assert np.diff(times).tolist() == [8 * 3600 * 10**9] * 5


def test_symbol_and_unit_of_funding_rates_can_be_said(client: Client, tmp_path: Path) -> None:
    frame = rate_frame()
    frame["fundingTime"] = [ts.value // 10**6 for ts in frame.pop("ts")]
    path = saved(tmp_path, frame.drop(columns="symbol").rename(columns={"rate": "fundingRate"}))
    columns = {"ts": "fundingTime", "symbol": None, "rate": "fundingRate"}
    how = mapping("funding", columns=columns, unit="ms", symbol="BTC-PERP")
    assert run(client, path, how).added == len(funding(client)) == 6


def test_rate_that_was_imported_last_holds(client: Client, tmp_path: Path) -> None:
    files = [saved(tmp_path, rate_frame(rate=rate), f"{rate}.csv") for rate in (1e-4, 2e-4)]
    for path, note in (
        (files[0], []),
        (files[1], ["6 rates were others in the store, and are replaced"]),
        (files[0], ["6 rates were others in the store, and are replaced"]),
    ):
        report = run(client, path, mapping("funding"))
        assert report.notes == note
    assert [rate for _, _, rate in funding(client)] == pytest.approx(rate_frame().rate.tolist())


def test_what_is_odd_about_funding_rates_is_told_and_kept(client: Client, tmp_path: Path) -> None:
    frame = rate_frame(12).drop(index=7)
    frame.loc[3, "rate"] = -0.0125
    report = run(client, saved(tmp_path, pd.concat([frame, frame[-1:]])), mapping("funding"))
    assert {(f.kind, f.count, f.example) for f in report.findings} == {
        ("gap", 1, "57600 s after 2024-03-03T00:00:00Z"),
        ("absurd rate", 1, "-0.0125 at 2024-03-02T00:00:00Z"),
        ("duplicate", 1, "2024-03-04T16:00:00Z"),
    }
    assert (report.rows, report.added, len(funding(client))) == (12, 11, 11)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rate", np.nan, "row 4: rate must be a fraction between -1 and 1, was nan"),
        ("rate", 1.0, "row 4: rate must be a fraction between -1 and 1, was 1.0"),
        ("rate", -np.inf, "row 4: rate must be a fraction"),
        ("symbol", "BTC-PREP", "did you mean 'BTC-PERP'"),
        ("ts", pd.Timestamp("2024-03-01T08:00Z"), "rows 1 and 4 are the same funding time with"),
        ("ts", pd.Timestamp("1999-03-01T08:00Z"), "row 4: ts must be a time from 2000"),
    ],
)
def test_funding_rate_that_cannot_be_meant_stops_the_import(
    client: Client, tmp_path: Path, column: str, value: object, message: str
) -> None:
    frame = rate_frame()
    frame.loc[4, column] = value
    with pytest.raises(DataError, match=message.replace("'", ".")):
        run(client, saved(tmp_path, frame), mapping("funding"))
    assert not funding(client)


def test_sample_fills_an_empty_store_once(client: Client) -> None:
    names = universe("sample")
    report = backfill.sample(client, names, days=2, hours=2, end="2026-03-02T12:00:00Z")
    assert report is not None
    assert report.added > 20_000
    assert backfill.sample(client, names, days=2, hours=2) is None
    bars = archive.bars(client, names)
    assert 0.99 < len(bars) / (2 * 1440 * 5) <= 1
    for symbol in range(5):
        close = bars.close[bars.symbol == symbol]
        assert np.abs(np.diff(np.log(close))).max() < 0.05, "prices go on where ticks begin"
    with pytest.raises(ConfigError, match="hours must be"):
        backfill.sample(client, names, days=1, hours=25)


def backfill_runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run("backfill", *arguments, cwd=Path("/"))


def test_runner_imports_and_says_what_it_did(
    dsn: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    path = saved(home, tick_frame())
    done = backfill_runner(
        "source=file", f"path={path.name}", "universe=crypto", "store=clickhouse"
    )
    assert done.returncode == 0, done.stderr
    assert "200 ticks, 200 added, 2024-03-01T10:00:00Z to" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=fiel"], "did you mean 'file'"),
        (["source=file"], "path was not set"),
        (["source=file", "path=none.csv"], "cannot be read"),
        (["source=synthetic"], "cannot be imported"),
        (["mapping.unti=s"], "did you mean 'unit'"),
    ],
)
def test_runner_answers_what_it_cannot_do_in_one_sentence(
    dsn: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    done = backfill_runner(*arguments, "store=clickhouse")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
