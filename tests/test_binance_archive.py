"""Binance's archive into the store: every good row once, and the rest told, whatever happens."""

import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clickhouse_connect.driver.client import Client
from urllib3.util import Retry

from sysquant import archive, binance_archive, downloads
from sysquant.binance_archive import BinanceArchive, import_archive
from sysquant.binance_files import partition_of
from sysquant.errors import ConfigError, DataError
from sysquant.importing import Report
from sysquant.retention import retain
from sysquant.store import connect, insert
from sysquant.tables import tick_table
from sysquant.types import Ticks
from tests import forked
from tests.archive_market import BTC, ETH, PRICES, UNIVERSE, Market, days_of, of, trades_of
from tests.archive_server import ArchiveServer

pytest_plugins = ["tests.served"]


# -- what the store should have


def run(
    client: Client, server: ArchiveServer, kind: str, start: str, end: str, **options
) -> Report:
    wanted = BinanceArchive(kind=kind, start=start, end=end, url=server.url)  # pyright: ignore
    return import_archive(client, UNIVERSE, wanted, **options)


def stored_bars(client: Client, symbol: str) -> pd.DataFrame:
    sql = "SELECT toUnixTimestamp64Milli(ts), open, high, low, close, volume FROM bars "
    sql += "WHERE symbol = {symbol:String} ORDER BY ts"
    rows = client.query(sql, {"symbol": symbol}).result_rows
    return pd.DataFrame(rows, columns=["close_at", *PRICES])  # pyright: ignore


def stored_ticks(client: Client) -> pd.DataFrame:
    sql = "SELECT symbol, offset, price, volume, toUnixTimestamp64Milli(ts), epoch, partition "
    rows = client.query(sql + "FROM ticks FINAL ORDER BY symbol, offset").result_rows
    names = ["symbol", "id", "price", "qty", "time", "epoch", "partition"]
    return pd.DataFrame(rows, columns=names)  # pyright: ignore


def bars_of_klines(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.sort_values("open_time")
    return frame.assign(close_at=frame.open_time + 60_000)[["close_at", *PRICES]]


def bars_of_trades(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.sort_values(["time", "id"])
    close_at = ((frame.time // 60_000 + 1) * 60_000).rename("close_at")
    return frame.groupby(close_at).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"),
        close=("price", "last"), volume=("qty", "sum"),
    ).reset_index()  # fmt: skip


def equal(got: pd.DataFrame, want: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got.reset_index(drop=True), want.reset_index(drop=True), check_dtype=False, rtol=1e-12
    )


def check_trades(client: Client, want: dict[str, pd.DataFrame]) -> None:
    """That the store has these trades of each symbol, each once, and the bars of them."""
    got = stored_ticks(client)
    assert set(got.symbol) == set(want)
    assert (got.epoch == "binance_archive").all()
    assert (got.partition == [partition_of(symbol) for symbol in got.symbol]).all()
    for symbol, frame in want.items():
        columns = ["id", "price", "qty", "time"]
        equal(got[got.symbol == symbol][columns], frame[columns])
        equal(stored_bars(client, symbol), bars_of_trades(frame))


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, and a server that is away is soon given up."""
    monkeypatch.setattr(downloads, "_RETRY", Retry(
        total=2, backoff_factor=0.01, status_forcelist=[503],
    ))  # fmt: skip
    yield
    assert not list(home.rglob("*.part")), "nothing half is left"


# -- all of it, with every disturbance


@pytest.fixture
def disturbed_klines() -> tuple[ArchiveServer, Market]:
    """2024-11 to 2025-02-04: months, days of a missing month, both units, and what goes wrong."""
    market = Market("klines", "2024-11-01", "2025-02-04")
    files = [market.file(BTC, "2024-11"), market.file(BTC, "2025-01", header=True, micro=True)]
    files += [market.file(BTC, day) for day in days_of("2024-12") if day != "2024-12-05"]
    files += [market.file(BTC, f"2025-02-0{n}", micro=True) for n in (1, 2, 3, 4)]
    files += [market.file(ETH, "2024-12", header=True)]
    files += [market.file(ETH, day, micro=True) for day in ("2025-01-30", "2025-01-31")]
    server = ArchiveServer(dict(files))
    path = {label: of("klines", BTC, label).path for label in ("2024-11", *days_of("2024-12"))}
    server.script = {
        path["2024-11"]: ["cut"],
        path["2024-12-06"]: [503],
        path["2024-12-07"]: ["cut"],
    }
    truncated, wrong = (of("klines", BTC, f"2025-02-0{n}").path for n in (2, 3))
    server.files[truncated] = server.files[truncated][:-300]
    server.checksums[wrong] = "0" * 64
    return server, market


def test_klines_come_each_once_and_the_rest_is_told(
    client: Client, disturbed_klines: tuple[ArchiveServer, Market]
) -> None:
    server, market = disturbed_klines
    with server:
        report = run(client, server, "klines", "2024-11-01", "2025-02-05")
        december = [day for day in days_of("2024-12") if day != "2024-12-05"]
        want = {
            BTC: market.frame(BTC, "2024-11", *december, "2025-01", "2025-02-01", "2025-02-04"),
            ETH: market.frame(ETH, "2024-12", "2025-01-30", "2025-01-31"),
        }
        rows = sum(map(len, want.values()))
        assert (report.kind, report.rows, report.added) == ("bars", rows, rows)
        assert report.counts == {name: len(frame) for name, frame in want.items()}
        assert report.missing == [
            f"{BTC} 2024-12-05",
            f"{ETH} 2024-11-01 to 2024-11-30, 30 days",
            f"{ETH} 2025-01-01 to 2025-01-29, 29 days",
            f"{ETH} 2025-02-01 to 2025-02-04, 4 days",
        ]
        assert len(report.bad) == 2
        assert report.bad[0].startswith("BTCUSDT-1m-2025-02-02.zip: its zip cannot be read: File")
        assert report.bad[1].startswith("BTCUSDT-1m-2025-02-03.zip: its SHA-256 must be 000000")
        gaps = {f.symbol: f.example for f in report.findings if f.kind == "gap"}
        assert gaps[BTC].endswith("s after 2025-02-02T00:00:00Z")  # two bad days
        for symbol, frame in want.items():
            equal(stored_bars(client, symbol), bars_of_klines(frame))
        # What broke off in the middle went on there; what is wrong was had twice.
        for label in ("2024-11", "2024-12-07"):
            assert len(server.ranges[of("klines", BTC, label).path]) == 1
        whole = {path: len(content) for path, content in server.files.items()}
        twice = {of("klines", BTC, f"2025-02-0{n}").path for n in (2, 3)}
        for path, size in whole.items():
            assert server.sent[path] == size * (2 if path in twice else 1), path
        sent = server.sent.copy()
        again = run(client, server, "klines", "2024-11-01", "2025-02-05")
        assert server.sent == sent, "nothing is downloaded again"
        assert (again.rows, again.added) == (rows, 0)
        assert again.notes == [f"{rows} rows were there already"]
        assert (again.missing, again.bad) == (report.missing, report.bad)
    for symbol, frame in want.items():
        equal(stored_bars(client, symbol), bars_of_klines(frame))


def test_trades_come_each_once_with_the_bars_of_their_minutes(client: Client) -> None:
    market = Market("trades", "2024-12-01", "2025-02-01")
    there = [day for day in days_of("2025-01") if day not in ("2025-01-02", "2025-01-03")]
    files = [market.file(BTC, "2024-12", header=True)]
    files += [market.file(BTC, day, micro=True, header=day < "2025-01-10") for day in there]
    files += [market.file(ETH, "2024-12-31"), market.file(ETH, "2025-02-01", micro=True)]
    server = ArchiveServer(dict(files))
    path = of("trades", BTC, "2025-01-20").path
    server.script = {path: ["cut", "cut", 503], of("trades", ETH, "2024-12-31").path: [503]}
    want = {
        BTC: market.frame(BTC, "2024-12", *there),
        ETH: market.frame(ETH, "2024-12-31", "2025-02-01"),
    }
    with server:
        report = run(client, server, "trades", "2024-12-01", "2025-02-02")
        rows = sum(map(len, want.values()))
        assert (report.kind, report.rows, report.added, report.bad) == ("ticks", rows, rows, [])
        assert report.missing[:2] == [
            f"{BTC} 2025-01-02 to 2025-01-03, 2 days",
            f"{BTC} 2025-02-01",
        ]
        lost = {f.symbol: f for f in report.findings if f.kind == "missing trades"}
        last = market.rows[BTC, "2025-01-01"].id.max()
        assert (lost[BTC].count, lost[BTC].example) == (1, f"1200 after trade {last}")
        check_trades(client, want)
        assert len(server.ranges[path]) == 2
        sent = server.sent.copy()
        again = run(client, server, "trades", "2024-12-01", "2025-02-02")
        assert (server.sent, again.added, again.rows) == (sent, 0, rows)
        assert again.notes == [f"{rows} rows were there already"]
    check_trades(client, want)
    imported = client.query("SELECT count() FROM bars_imported").result_rows
    assert imported == [(0,)], "no minute had to be made right"


# -- cut off


def days_in_january(rows: int = 40_000) -> tuple[Market, list[str], dict[str, bytes]]:
    market, days = Market("trades", "2025-01-01", "2025-01-01"), days_of("2025-01")[:4]
    for number, day in enumerate(days):
        market.rows[BTC, day] = trades_of(day, number, rows * number, rows)
    return market, days, dict(market.file(BTC, day, micro=True) for day in days)


def test_killed_in_the_middle_the_next_start_ends_the_same(
    dsn: str, client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    market, days, files = days_in_january()
    stalled = of("trades", BTC, days[2]).path
    with ArchiveServer(files, {stalled: ["stall"]}) as server:
        words = ["source=binance_archive", "source.kind=trades", f"source.url={server.url}"]
        words += [f"source.start={days[0]}", "source.end=2025-01-05", "universe=crypto"]
        words += ["universe.instruments=[{symbol: 'BINANCE:BTCUSDT'}]", "store=clickhouse"]
        words += ["source.parallel=1"]
        process = forked.Forked("backfill", tuple(words), home)
        assert server.stalled.wait(60)
        deadline = time.monotonic() + 30
        while not len(stored_ticks(client)) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate(200)
        assert process.returncode == -signal.SIGKILL
        assert 0 < len(stored_ticks(client)) < 4 * 40_000
        server.go_on.set()
        done = forked.run("backfill", *words, cwd=home)
        assert (done.returncode, done.stderr) == (0, "")
        assert "160000 ticks" in done.stdout
        assert server.ranges[stalled] and server.ranges[stalled] != ["bytes=0-"]
        for path, content in files.items():
            limit = len(content) + (downloads._PIECE if path == stalled else 0)
            assert len(content) <= server.sent[path] <= limit, path
        sent = server.sent.copy()
        again = forked.run("backfill", *words, cwd=home)
        assert "160000 ticks, 0 added" in again.stdout
        assert server.sent == sent
    check_trades(client, {BTC: market.frame(BTC, *days)})


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("nth", [1, 4, 7])
def test_cut_off_at_an_insert_the_next_start_ends_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch, nth: int, where: str
) -> None:
    monkeypatch.setattr("sysquant.binance_files._CHUNK", 50_000)
    market, days, files = days_in_january(3000)
    calls = count(1)

    def cut_off(*given) -> None:
        number = next(calls)
        if number == nth and where == "before":
            raise KeyboardInterrupt
        insert(*given)
        if number == nth:
            raise KeyboardInterrupt

    monkeypatch.setattr(binance_archive, "insert", cut_off)
    with ArchiveServer(files) as server:
        with pytest.raises(KeyboardInterrupt):
            run(client, server, "trades", days[0], "2025-01-05")
        before = len(stored_ticks(client))
        report = run(client, server, "trades", days[0], "2025-01-05")
        assert next(calls) > 16, "the files are several blocks each"
    assert report.added == 4 * 3000 - before
    assert not client.query("SELECT * FROM bars_imported").row_count, "none had to be made right"
    check_trades(client, {BTC: market.frame(BTC, *days)})


def test_trades_that_were_deleted_come_again(client: Client) -> None:
    market, days, files = days_in_january(500)
    with ArchiveServer(files) as server:
        run(client, server, "trades", days[0], "2025-01-05")
        client.command("DELETE FROM ticks WHERE epoch = 'binance_archive'")
        assert not len(stored_ticks(client))
        assert run(client, server, "trades", days[0], "2025-01-05").added == 2000
    check_trades(client, {BTC: market.frame(BTC, *days)})


def test_trades_whose_month_was_moved_into_files_come_no_second_time(client: Client) -> None:
    _, days, files = days_in_january(rows=2_000)
    with ArchiveServer(files) as server:
        first = run(client, server, "trades", days[0], "2025-01-05")
        assert len(retain(client, "1d", "data/archive")) == 1
        again = run(client, server, "trades", days[0], "2025-01-05")
    assert (again.added, again.bad, first.added) == (0, [], again.rows)
    assert not len(stored_ticks(client)), "they lie in the file alone"


def test_month_that_comes_after_its_days_doubles_nothing(client: Client) -> None:
    market, days, files = days_in_january(500)
    for day in days_of("2025-01")[4:]:
        market.rows[BTC, day] = market.rows[BTC, days[0]][:0]
    files.pop(of("trades", BTC, days[1]).path)
    with ArchiveServer(files) as server:
        first = run(client, server, "trades", "2025-01-01", "2025-02-01")
        assert (first.added, first.missing[0]) == (1500, f"{BTC} 2025-01-02")
        server.files.update([market.file(BTC, "2025-01", micro=True)])
        second = run(client, server, "trades", "2025-01-01", "2025-02-01")
        assert (second.rows, second.added) == (2000, 500)
        assert second.missing[0].startswith(ETH)
    check_trades(client, {BTC: market.frame(BTC, *days)})


# -- what the server and the disk do


def test_file_that_was_bad_comes_when_the_server_has_it_right(client: Client) -> None:
    market, days, files = days_in_january(500)
    path = of("trades", BTC, days[1]).path
    with ArchiveServer(files | {path: files[path][:-50]}) as server:
        assert len(run(client, server, "trades", days[0], "2025-01-05").bad) == 1
        sent = server.sent[path]
        assert len(run(client, server, "trades", days[0], "2025-01-05").bad) == 1
        assert server.sent[path] == sent
        server.files[path] = files[path]
        report = run(client, server, "trades", days[0], "2025-01-05")
        assert (report.bad, report.added) == ([], 500)
    check_trades(client, {BTC: market.frame(BTC, *days)})


def test_file_that_was_damaged_on_disk_is_downloaded_again(client: Client, home: Path) -> None:
    _, days, files = days_in_january(500)
    with ArchiveServer(files) as server:
        run(client, server, "trades", days[0], "2025-01-05")
        (kept,) = home.rglob(f"*{days[2]}.zip")
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        assert run(client, server, "trades", days[0], "2025-01-05").bad == []
        for path, content in files.items():
            assert server.sent[path] == len(content) * (2 if days[2] in path else 1)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_part_of_another_version_is_not_mixed_with_this_one(
    client: Client, home: Path, has_ranges: bool
) -> None:
    market, days, files = days_in_january(500)
    path = of("trades", BTC, days[0]).path
    part = home / binance_archive.DIRECTORY / f"{path}.part"
    part.parent.mkdir(parents=True)
    for foreign in (b"foreign" * 10, b"longer than the file" * 5000):
        part.write_bytes(foreign)
        with ArchiveServer(files, has_ranges=has_ranges) as server:
            report = run(client, server, "trades", days[0], days[1])
            assert (report.rows, report.bad) == (500, [])
            if not has_ranges:
                assert server.sent[path] == len(files[path]), "what is foreign was thrown away"
        part.with_suffix("").unlink()
    check_trades(client, {BTC: market.frame(BTC, days[0])})


def test_server_that_fails_for_one_file_does_not_stop_the_others(client: Client) -> None:
    _, days, files = days_in_january(500)
    path = of("trades", BTC, days[1]).path
    with ArchiveServer(files, {path: [503] * 99}) as server:
        report = run(client, server, "trades", days[0], "2025-01-05")
        assert report.added == 1500
        (bad,) = report.bad
        assert bad.startswith(f"BTCUSDT-trades-{days[1]}.zip: the server does not answer: too many")
        server.script = {path: [403]}
        (bad,) = run(client, server, "trades", days[0], "2025-01-05").bad
        assert bad.endswith("the server answered 403")
        assert run(client, server, "trades", days[0], "2025-01-05").added == 500


def test_month_that_the_server_fails_for_is_left_out_until_it_does_not(client: Client) -> None:
    market = Market("klines", "2024-02-01", "2024-03-01")
    files = dict(market.file(BTC, label) for label in ("2024-02", *days_of("2024-02")))
    files |= [market.file(BTC, "2024-03-01")]
    with ArchiveServer(files, {of("klines", BTC, "2024-02").path: [503] * 3}) as server:
        report = run(client, server, "klines", "2024-02-01", "2024-03-02")
        assert [bad[:23] for bad in report.bad] == ["BTCUSDT-1m-2024-02.zip:"]
        assert (report.added, len(server.sent)) == (90, 2)
        assert run(client, server, "klines", "2024-02-01", "2024-03-02").added == 29 * 90
    equal(stored_bars(client, BTC), bars_of_klines(market.frame(BTC, "2024-02", "2024-03-01")))


def test_month_that_is_bad_comes_by_its_days(client: Client) -> None:
    market = Market("klines", "2024-02-01", "2024-02-29")
    files = dict(market.file(BTC, label) for label in ("2024-02", *days_of("2024-02")))
    with ArchiveServer(files) as server:
        server.checksums[of("klines", BTC, "2024-02").path] = "1" * 64
        report = run(client, server, "klines", "2024-02-01", "2024-03-01")
    assert [bad[:24] for bad in report.bad] == ["BTCUSDT-1m-2024-02.zip: "]
    assert report.added == 29 * 90
    equal(stored_bars(client, BTC), bars_of_klines(market.frame(BTC, "2024-02")))


# -- what it meets in the store


def test_trades_of_another_source_are_refused_before_anything_is_downloaded(
    client: Client, home: Path
) -> None:
    _, days, files = days_in_january(500)
    at = np.array([pd.Timestamp("2025-01-03T12:00Z").value])
    one = {"ts": at, "received_at": at, "symbol": np.ones(1, np.int32), "price": np.ones(1)}
    one |= {"volume": np.ones(1), "partition": np.zeros(1, np.int32), "offset": np.zeros(1, int)}
    rows = tick_table(Ticks(**one), [i.symbol for i in UNIVERSE], "topic")  # pyright: ignore
    insert(client, "ticks", rows, "another")
    with ArchiveServer(files) as server:
        with pytest.raises(DataError, match=r"has 1 ticks of BINANCE:BTCUSDT, .* another"):
            run(client, server, "trades", days[0], "2025-01-05")
        assert not server.sent and not list(home.rglob("*.zip"))
        assert run(client, server, "trades", days[0], "2025-01-03").added == 1000
        assert run(client, server, "trades", days[0], "2025-01-05", overlap=True).added == 1000


def test_klines_hide_the_minutes_of_ticks_and_idle_minutes_are_no_bars(client: Client) -> None:
    market, days, files = days_in_january(500)
    klines = Market("klines", days[0], days[0])
    klines.rows[BTC, days[0]].loc[[3, 4], "volume"] = 0.0
    klines.rows[BTC, days[0]].loc[[10], "high"] *= 2
    with ArchiveServer(files | dict([klines.file(BTC, days[0], micro=True)])) as server:
        run(client, server, "trades", days[0], days[1])
        made = bars_of_trades(market.frame(BTC, days[0]))
        report = run(client, server, "klines", days[0], days[1])
    want = bars_of_klines(klines.frame(BTC, days[0]))
    want = want[want.volume > 0]
    hidden = made.close_at.isin(want.close_at)
    assert (report.rows, report.added) == (90, 88)
    assert report.notes == [
        "2 minutes without a trade are no bars, and were left out",
        f"{hidden.sum()} minutes that ticks have made are hidden by imported bars",
    ]
    assert [(f.kind, f.count) for f in report.findings] == [("absurd price", 1)]
    both = pd.concat([want, made[~made.close_at.isin(want.close_at)]]).sort_values("close_at")
    equal(stored_bars(client, BTC), both)
    assert archive.bars(client, UNIVERSE).ts.max() == pd.Timestamp("2025-01-02T00:00Z").value


# -- what is asked for


def test_whole_months_are_asked_for_by_the_month_and_other_days_by_the_day() -> None:
    wanted = BinanceArchive(start="2024-01-30", end="2024-04-02")
    assert [file.stem for file in wanted.files("BTCUSDT")] == [
        "BTCUSDT-1m-2024-01-30", "BTCUSDT-1m-2024-01-31", "BTCUSDT-1m-2024-02",
        "BTCUSDT-1m-2024-03", "BTCUSDT-1m-2024-04-01",
    ]  # fmt: skip
    assert wanted.days(UNIVERSE) == 2 * 63
    today = pd.Timestamp.now("UTC").normalize()
    last = BinanceArchive(start=f"{today - pd.Timedelta('40D'):%Y-%m-%d}", end="2999-01-01")
    files = last.files("BTCUSDT")
    assert files[-1].end == today.date()
    assert files[-1].is_month == (today.day == 1)
    assert [
        file.path for file in (of("trades", BTC, "2024-02"), of("klines", BTC, "2024-02-29"))
    ] == [
        "data/spot/monthly/trades/BTCUSDT/BTCUSDT-trades-2024-02.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-02-29.zip",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "kline"}, "kind does not know 'kline'; did you mean 'klines'"),
        ({"start": None}, "start was not set; name the first day"),
        ({"start": "yesterday"}, "start must be like 2026-01-31"),
        ({"start": "2024-01-01T12:00"}, "start must be a whole day UTC, like 2024-01-31, was"),
        ({"end": "2024-01-01"}, "start must be before the end and before today, was 2024-01-01"),
        ({"start": "2999-01-01"}, "start must be before the end and before today, was 2999-01-01"),
        ({"parallel": 0}, "parallel must be a whole number >= 1"),
        ({"url": "ftp://x"}, "url must begin with http:// or https://, was 'ftp://x'"),
    ],
)
def test_what_cannot_be_meant_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        BinanceArchive(**({"start": "2024-01-01"} | changed))  # pyright: ignore
    assert str(error.value).startswith(message)


def test_universe_without_a_symbol_of_binance_is_refused(client: Client) -> None:
    with pytest.raises(ConfigError, match="no symbol that begins with 'BINANCE:'"):
        import_archive(client, UNIVERSE[:1], BinanceArchive(start="2024-01-01"))


def test_runner_says_what_it_did_and_ends_with_1_when_nothing_came(
    dsn: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    market = Market("klines", "2025-01-01", "2025-01-02")
    words = ["source=binance_archive", "universe=crypto", "store=clickhouse"]
    words += ["source.start=2025-01-01", "source.end=2025-01-04"]
    with ArchiveServer(dict([market.file(BTC, "2025-01-02", micro=True)])) as server:
        done = forked.run("backfill", *words, f"source.url={server.url}", cwd=Path("/"))
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0] == (
            "binance_archive: 90 bars, 90 added, 2025-01-02T22:31:00Z to 2025-01-03T00:00:00Z"
        )
        assert "  missing: BINANCE:BTCUSDT 2025-01-01" in lines
        assert "  missing: BINANCE:ETHUSDT 2025-01-01 to 2025-01-03, 3 days" in lines
        assert (home / binance_archive.DIRECTORY / of("klines", BTC, "2025-01-02").path).is_file()
        server.files.clear()
        words[3] = "source.start=2025-01-03"
        done = forked.run("backfill", *words, f"source.url={server.url}", cwd=Path("/"))
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith("binance_archive: 0 bars, 0 added, nothing\n")
    with connect(dsn) as client:
        equal(stored_bars(client, BTC), bars_of_klines(market.frame(BTC, "2025-01-02")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: source.start was not set; name the first day: source.start=2024-01-01"),
        (["source.start=2024-13-01"], "error: source.start must be like 2026-01-31"),
        (["source.kind=bars"], "error: source.kind does not know 'bars'"),
        (["source.start=2024-01-01", "universe=sample"], "error: the universe has no symbol that"),
    ],
)
def test_runner_answers_what_it_cannot_do_in_one_sentence(
    dsn: str, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    words = ["source=binance_archive", "store=clickhouse", "universe=crypto", *words]
    done = forked.run("backfill", *words, cwd=Path(os.sep))
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
