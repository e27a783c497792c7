"""An exchange's candles into the store: every good minute once, and the rest told."""

import os
import re
import signal
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clickhouse_connect.driver.client import Client
from tenacity import wait_none

from sysquant import ccxt_candles, ccxt_exchange
from sysquant.archive import MINUTE
from sysquant.ccxt_candles import CcxtCandles, import_candles
from sysquant.ccxt_exchange import bars_of
from sysquant.errors import ConfigError, FeedError
from sysquant.importing import Report
from sysquant.store import connect, insert
from sysquant.tables import bar_table, tick_table
from sysquant.types import Instrument, Ticks
from tests import forked
from tests.candle_server import PRICES, CandleServer, candles_of

pytest_plugins = ["tests.served"]

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
UNIVERSE = [Instrument("BTC-PERP"), Instrument(BTC), Instrument(ETH)]
DAY = 1440
NOW = pd.Timestamp("2025-01-04T00:00:30Z").value


@pytest.fixture(autouse=True)
def no_waiting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is known, and what does not answer is asked again at once."""
    monkeypatch.setattr(ccxt_candles, "_now_ns", lambda: NOW)
    monkeypatch.setattr(ccxt_exchange, "_WAIT", wait_none())


def run(
    client: Client, server: CandleServer, start: str = "2025-01-01", end: str | None = "2025-01-02",
    *, universe: list[Instrument] = UNIVERSE[:2], **options,
) -> Report:  # fmt: skip
    wanted = CcxtCandles(start=start, end=end, settings=server.settings)
    return import_candles(client, universe, wanted, **options)


def stored(client: Client, symbol: str = BTC, table: str = "bars") -> pd.DataFrame:
    sql = "SELECT toUnixTimestamp64Milli(ts) - 60000, open, high, low, close, volume FROM "
    sql += f"{table} WHERE symbol = {{symbol:String}} ORDER BY ts"
    rows = client.query(sql, {"symbol": symbol}).result_rows
    return pd.DataFrame(rows, columns=["at", *PRICES])  # pyright: ignore


def equal(got: pd.DataFrame, want: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got.reset_index(drop=True), want.reset_index(drop=True), check_dtype=False, check_exact=True
    )


# -- all of it


def test_candles_come_each_once_and_the_rest_is_told(client: Client) -> None:
    btc, eth = candles_of("2025-01-01", 3 * DAY), candles_of("2025-01-02", 2 * DAY + 1, seed=1)
    btc = btc.drop(index=[*range(600, 640), 2000])
    eth.loc[[5, 6, 700], "volume"] = 0.0
    done: list[int] = []
    with CandleServer({"BTCUSDT": btc, "ETHUSDT": eth}, [503, None, "cut"]) as server:
        report = run(client, server, end=None, universe=UNIVERSE, progress=done.append)
        assert sum(done) == 2 * 3 * DAY
        assert (report.source, report.kind) == ("ccxt:binance", "bars")
        assert (report.rows, report.added) == (5 * DAY - 41, 5 * DAY - 44)
        assert report.counts == {BTC: 3 * DAY - 41, ETH: 2 * DAY}
        assert report.span == "2025-01-01T00:01:00Z to 2025-01-04T00:00:00Z"
        assert report.missing == [
            f"{BTC} 2025-01-01T10:00:00Z to 2025-01-01T10:40:00Z, 40 minutes",
            f"{BTC} 2025-01-02T09:20:00Z to 2025-01-02T09:21:00Z, 1 minute",
            f"{ETH} 2025-01-01T00:00:00Z to 2025-01-02T00:00:00Z, 1440 minutes",
        ]
        assert report.bad == []
        assert report.notes == ["3 minutes without a trade are no bars, and were left out"]
        assert [(f.symbol, f.kind, f.count) for f in report.findings] == [(BTC, "gap", 2)]
        want = {BTC: btc, ETH: eth[eth.volume > 0][: 2 * DAY - 3]}
        for symbol, frame in want.items():
            equal(stored(client, symbol), frame)
        server.asked.clear()
        again = run(client, server, end=None, universe=UNIVERSE, progress=done.append)
        assert sum(done) == 2 * 2 * 3 * DAY
        assert (again.rows, again.added) == (report.rows, 0)
        assert again.notes[0] == f"{report.added} rows were there already"
        assert (again.missing, again.counts) == (report.missing, report.counts)
        assert len(server.asked) == 3, "the two holes, and the start with the idle minutes"
    for symbol, frame in want.items():
        equal(stored(client, symbol, "bars_imported"), frame)


def test_whole_span_that_is_there_is_asked_for_no_second_time(client: Client) -> None:
    with CandleServer({"BTCUSDT": candles_of("2025-01-01", 2 * DAY)}) as server:
        run(client, server)
        assert len(server.asked) == 2
        server.asked.clear()
        assert run(client, server).added == 0
        assert server.asked == []
        report = run(client, server, end="2025-01-03")
        first = pd.Timestamp("2025-01-02", tz="UTC").value // 10**6
        assert server.asked[0] == ("BTCUSDT", first, 1000)
        assert (report.rows, report.added) == (2 * DAY, DAY)


def test_minute_that_is_not_over_comes_when_it_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = candles_of("2025-01-03", DAY + 1)  # the last of them began 30 s ago
    with CandleServer({"BTCUSDT": frame}) as server:
        report = run(client, server, "2025-01-03", None)
        assert (report.added, report.missing, report.bad) == (DAY, [], [])
        equal(stored(client, table="bars_imported"), frame[:DAY])
        server.frames["BTCUSDT"] = frame.assign(close=frame.close.where(frame.index < DAY, 7.0))
        server.frames["BTCUSDT"].loc[DAY, "low"] = 7.0
        monkeypatch.setattr(ccxt_candles, "_now_ns", lambda: NOW + MINUTE)
        assert run(client, server, "2025-01-03", "2999-01-01").added == 1
        equal(stored(client, table="bars_imported"), server.frames["BTCUSDT"])


def test_hole_of_the_exchange_is_filled_when_it_has_the_candles(client: Client) -> None:
    frame = candles_of("2025-01-01", DAY)
    with CandleServer({"BTCUSDT": frame.drop(index=[7, 8, 900, 1439])}) as server:
        report = run(client, server)
        assert [line.split(", ")[1] for line in report.missing] == [
            "2 minutes", "1 minute", "1 minute",
        ]  # fmt: skip
        server.frames["BTCUSDT"] = frame
        report = run(client, server)
        assert (report.added, report.missing, report.findings) == (4, [], [])
    equal(stored(client, table="bars_imported"), frame)


def test_many_holes_are_told_by_the_longest_and_a_sum(client: Client) -> None:
    frame = candles_of("2025-01-01", DAY)
    with CandleServer({"BTCUSDT": frame.drop(index=[*range(0, DAY, 10), 5, 6, 7])}) as server:
        missing = run(client, server).missing
    assert len(missing) == 21
    assert f"{BTC} 2025-01-01T00:05:00Z to 2025-01-01T00:08:00Z, 3 minutes" in missing
    assert missing[-1] == f"{BTC}: 125 shorter ranges, 125 minutes together"


def test_start_long_before_the_first_candle_costs_no_page_a_day(client: Client) -> None:
    frame = candles_of("2025-01-02", 10)
    with CandleServer({"BTCUSDT": frame}) as server:
        report = run(client, server, "2017-01-01", "2025-01-03")
        assert len(server.asked) < 5
    assert (
        report.missing[0] == f"{BTC} 2017-01-01T00:00:00Z to 2025-01-02T00:00:00Z, 4209120 minutes"
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_minute_is_there_or_idle_or_told_whatever_the_blocks(
    client: Client, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = np.random.default_rng(seed)
    monkeypatch.setattr(ccxt_candles, "_BLOCK", int(random.integers(1, 400)) * MINUTE)
    monkeypatch.setattr(
        ccxt_exchange.CcxtExchange, "limit", lambda *_: int(random.integers(5, 300))
    )
    minutes = 600
    frame = candles_of("2025-01-01", minutes, seed)
    keep = random.random(minutes) > random.choice([0.0, 0.02, 0.5])
    keep[200 : 200 + int(random.integers(1, 300))] = False
    frame.loc[random.random(minutes) < 0.05, "volume"] = 0.0
    with CandleServer({"BTCUSDT": frame[keep]}) as server:
        report = run(client, server, end="2025-01-01T10:00")
        traded = frame[keep & (frame.volume > 0)]
        equal(stored(client, table="bars_imported"), traded)
        assert (report.rows, report.added) == (keep.sum(), len(traded))
        told = [re.findall(r"([0-9]+) minute", line)[0] for line in report.missing]
        assert sum(map(int, told)) == minutes - keep.sum()
        assert run(client, server, end="2025-01-01T10:00").added == 0
        server.frames["BTCUSDT"] = frame.assign(volume=frame.volume + 1)
        assert run(client, server, end="2025-01-01T10:00").added == minutes - len(traded)
    rest = server.frames["BTCUSDT"].drop(index=traded.index)
    equal(stored(client, table="bars_imported"), pd.concat([traded, rest]).sort_values("at"))


# -- cut off


@pytest.mark.parametrize(("nth", "where"), [(1, "before"), (1, "after"), (3, "before")])
def test_cut_off_in_the_middle_the_next_run_ends_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch, nth: int, where: str
) -> None:
    frame, calls = candles_of("2025-01-01", 3 * DAY), count(1)

    def cut_off(*given) -> None:
        number = next(calls)
        if number == nth and where == "before":
            raise KeyboardInterrupt
        insert(*given)
        if number == nth:
            raise KeyboardInterrupt

    monkeypatch.setattr(ccxt_candles, "insert", cut_off)
    with CandleServer({"BTCUSDT": frame}) as server:
        with pytest.raises(KeyboardInterrupt):
            run(client, server, end="2025-01-04")
        there = len(stored(client, table="bars_imported"))
        assert there == 1000 * (nth - (where == "before"))
        report = run(client, server, end="2025-01-04")
    assert (report.rows, report.added) == (3 * DAY, 3 * DAY - there)
    equal(stored(client, table="bars_imported"), frame)


def words_of(server: CandleServer, *more: str) -> list[str]:
    return [
        "source=ccxt", "universe=crypto", "store=clickhouse",
        f'+source.settings.urls={{api:{{public:"{server.url}"}}}}',
        "+source.settings.options={fetchMarkets:{types:[spot]}}", *more,
    ]  # fmt: skip


def test_killed_in_the_middle_the_next_start_ends_the_same(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    frames = {"BTCUSDT": candles_of("2025-01-01", 2 * DAY)}
    frames["ETHUSDT"] = candles_of("2025-01-01", 2 * DAY, seed=1)
    with CandleServer(frames, [None, None, "stall"]) as server:
        words = words_of(server, "source.start=2025-01-01", "source.end=2025-01-03")
        process = forked.Forked("backfill", tuple(words), Path(os.sep))
        assert server.stalled.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(10)
        server.go_on.set()
        with connect(dsn) as client:
            assert len(stored(client, table="bars_imported")) == 2000
        done = forked.run("backfill", *words, cwd=Path(os.sep))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("ccxt:binance: 5760 bars, 3760 added, 2025-01-01T00:01:00Z")
        assert "  2000 rows were there already" in done.stdout.splitlines()
        asked = len(server.asked)
        done = forked.run("backfill", *words, cwd=Path(os.sep))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("ccxt:binance: 5760 bars, 0 added, 2025-01-01T00:01:00Z")
        assert len(server.asked) == asked
    with connect(dsn) as client:
        equal(stored(client, BTC, "bars_imported"), frames["BTCUSDT"])
        equal(stored(client, ETH, "bars_imported"), frames["ETHUSDT"])


# -- what the exchange does


def test_page_that_the_exchange_fails_for_is_left_out_and_comes_later(client: Client) -> None:
    frame = candles_of("2025-01-01", 3 * DAY)
    with CandleServer({"BTCUSDT": frame}, [None, *[503] * 6]) as server:
        report = run(client, server, end="2025-01-04")
        assert (report.added, report.missing) == (3 * DAY - 1000, [])
        (bad,) = report.bad
        assert bad.startswith(
            f"{BTC} 2025-01-01T16:40:00Z to 2025-01-02T09:20:00Z, 1000 minutes: binance does not"
            " answer: ExchangeNotAvailable binance GET"
        )
        report = run(client, server, end="2025-01-04")
        assert (report.added, report.bad) == (1000, [])
    equal(stored(client, table="bars_imported"), frame)


def test_exchange_that_fails_for_good_is_told_and_ends_soon(client: Client) -> None:
    frame = candles_of("2025-01-01", 3 * DAY)
    frames = {"BTCUSDT": frame, "ETHUSDT": frame}
    with CandleServer(frames, [None], always=503) as server:
        report = run(client, server, end="2025-01-04", universe=UNIVERSE)
        assert len(server.asked) == 1 + 3 * 6
        assert (report.rows, report.added, report.missing) == (1000, 1000, [])
        assert [bad.partition(" minutes: ")[0] for bad in report.bad] == [
            f"{BTC} 2025-01-01T16:40:00Z to 2025-01-04T00:00:00Z, 3320",
            f"{ETH} 2025-01-01T00:00:00Z to 2025-01-04T00:00:00Z, 4320",
        ]
        again = run(client, server, end="2025-01-04", universe=UNIVERSE)
        assert (again.rows, again.added, again.bad) == (1000, 0, report.bad)
        server.always = None
        assert run(client, server, end="2025-01-04", universe=UNIVERSE).added == 6 * DAY - 1000
    equal(stored(client, ETH, "bars_imported"), frame)


def test_market_that_is_refused_does_not_stop_the_others(client: Client) -> None:
    frame = candles_of("2025-01-01", 3 * DAY)
    refused = {"code": -1121, "msg": "Invalid symbol."}
    script = [lambda _: refused, lambda _: refused]
    with CandleServer({"BTCUSDT": frame, "ETHUSDT": frame}, script) as server:
        report = run(client, server, end="2025-01-04", universe=UNIVERSE)
        assert len(server.asked) == 2 + 5
    assert (report.counts, report.missing) == ({ETH: 3 * DAY}, [])
    (bad,) = report.bad
    assert bad.startswith(f"{BTC} 2025-01-01T00:00:00Z to 2025-01-04T00:00:00Z, 4320 minutes: ")
    assert "BadSymbol" in bad
    equal(stored(client, ETH, "bars_imported"), frame)


def test_exchange_that_tells_no_markets_is_one_sentence() -> None:
    with CandleServer({}) as server:
        away = server.settings
    for settings, said in (
        (away, "binance does not answer: NetworkError binance GET http"),
        ({"urls": 5}, "binance "),  # ccxt answers that in other words from time to time
    ):
        wanted = CcxtCandles(start="2025-01-01", end="2025-01-02", settings=settings)
        with pytest.raises(FeedError) as error:
            import_candles(None, UNIVERSE, wanted)  # pyright: ignore
        assert str(error.value).startswith(said)


def test_answer_that_cannot_be_read_is_told_and_comes_later(client: Client) -> None:
    frame = candles_of("2025-01-01", 10)
    with CandleServer({"BTCUSDT": frame}) as server:
        for answer in (
            b"<html>busy</html>", b"[", b"null", "candles", {"code": -1121, "msg": "x"},
        ):  # fmt: skip
            server.always = lambda _, answer=answer: answer
            report = run(client, server, end="2025-01-01T00:10")
            assert (report.added, report.missing, len(report.bad)) == (0, [], 1), answer
        for answer in ([None], [["x"]], [[{}, [], {}, 1, 2, 3]], b"[[1e999, 1, 1, 1, 1, 1]]", []):
            server.always = lambda _, answer=answer: answer
            report = run(client, server, end="2025-01-01T00:10")
            assert (report.added, len(report.missing) + len(report.bad)) == (0, 1), answer
        server.always, server.script = None, [lambda _: b"<html>busy</html>"]
        report = run(client, server, end="2025-01-01T00:10")
        assert (report.added, report.missing, report.bad) == (10, [], [])
    equal(stored(client, table="bars_imported"), frame)


def test_candles_that_cannot_be_meant_are_left_out_and_told(client: Client) -> None:
    frame = candles_of("2025-01-01", 60)
    wrong = [
        ("close", "NaN"), ("high", "Infinity"), ("low", "-1"), ("open", "0"), ("high", "1"),
        ("low", "100000"), ("volume", "-5"), ("volume", "NaN"), ("volume", None), ("close", None),
        ("close", "much"), ("open", ""), ("high", []),
    ]  # fmt: skip

    def spoil(rows: list[list]) -> list[list]:
        for number, (name, value) in enumerate(wrong):
            rows[2 * number][1 + PRICES.index(name)] = value
        rows[40][1:6] = [None, None, None, None, "0"]
        return [*rows, [rows[31][0], *rows[30][1:]]]

    spoiled = [*range(0, 2 * len(wrong), 2), 31]
    with CandleServer({"BTCUSDT": frame}, [spoil]) as server:
        report = run(client, server, end="2025-01-01T01:00")
        assert (report.added, report.missing) == (59 - len(spoiled), [])
        assert report.notes == ["1 minutes without a trade are no bars, and were left out"]
        assert [bad[:36] for bad in report.bad] == [
            f"{BTC} 2025-01-01T00:{minute:02d}:00Z" for minute in spoiled
        ]
        assert all(bad.endswith("] is no candle of that time") for bad in report.bad[:-1])
        assert report.bad[-1].endswith("] comes twice with other values")
        equal(stored(client, table="bars_imported"), frame.drop(index=[*spoiled, 40]))
        report = run(client, server, end="2025-01-01T01:00")
        assert (report.added, report.bad) == (len(spoiled) + 1, [])
    equal(stored(client, table="bars_imported"), frame)


def test_candles_of_a_time_that_cannot_be_are_left_out(client: Client) -> None:
    frame = candles_of("2025-01-01", DAY)

    def moved(rows: list[list]) -> list[list]:
        for number, at in enumerate(("2025-01-01T00:02:07", "2525-01-01", "1969-12-31")):
            rows[number][0] = int(pd.Timestamp(at, tz="UTC").timestamp() * 1000)
        return rows

    with CandleServer({"BTCUSDT": frame}, [moved]) as server:
        report = run(client, server)
        assert report.added == DAY - 3
        assert report.missing == [f"{BTC} 2025-01-01T00:00:00Z to 2025-01-01T00:03:00Z, 3 minutes"]
        assert [bad[:36] for bad in report.bad] == [
            f"{BTC} 2025-01-01T00:02:07Z", f"{BTC} 2525-01-01T00:00:00Z",
        ]  # fmt: skip
        assert run(client, server).added == 3
    equal(stored(client, table="bars_imported"), frame)


def test_many_bad_candles_are_told_by_the_first_and_a_number(client: Client) -> None:
    def spoil(rows: list[list]) -> list[list]:
        return [[row[0], "-1", *row[2:]] for row in rows]

    with CandleServer({"BTCUSDT": candles_of("2025-01-01", DAY)}, always=spoil) as server:
        report = run(client, server)
    assert (report.rows, report.missing, len(report.bad)) == (0, [], 21)
    assert report.bad[-1] == f"{BTC}: 1420 more candles"


def test_candles_out_of_order_and_repeated_come_once(client: Client) -> None:
    frame = candles_of("2025-01-01", DAY)
    with CandleServer({"BTCUSDT": frame}, always=lambda rows: [*rows[::-1], *rows[:50]]) as server:
        report = run(client, server)
    assert (report.rows, report.added, report.bad, report.findings) == (DAY, DAY, [], [])
    equal(stored(client, table="bars_imported"), frame)


def test_exchange_that_sends_the_same_page_again_comes_to_an_end(client: Client) -> None:
    frame = candles_of("2025-01-01", 3 * DAY)
    kept: list[list[list]] = []

    def same(rows: list[list]) -> list[list]:
        kept.append(rows)
        return kept[0]

    with CandleServer({"BTCUSDT": frame}, always=same) as server:
        report = run(client, server, end="2025-01-04")
        assert len(server.asked) == 5
    assert (report.added, len(report.missing)) == (1000, 1)
    equal(stored(client, table="bars_imported"), frame[:1000])


def test_exchange_that_has_the_last_candles_alone_is_asked_once(client: Client) -> None:
    frame = candles_of("2025-01-03", DAY)
    with CandleServer({"BTCUSDT": frame}) as server:
        report = run(client, server)
        assert len(server.asked) == 1
    assert (report.rows, len(report.missing)) == (0, 1)


def test_empty_answers_in_the_middle_do_not_end_the_import(client: Client) -> None:
    frame = candles_of("2025-01-01", 3 * DAY)
    with CandleServer({"BTCUSDT": frame}, [None, lambda _: []]) as server:
        report = run(client, server, end="2025-01-04")
    assert (report.added, len(report.missing)) == (3 * DAY - 1000, 1)


# -- what it meets in the store


def test_bars_of_another_import_are_kept_and_those_of_ticks_are_hidden(client: Client) -> None:
    names = [one.symbol for one in UNIVERSE]
    start = pd.Timestamp("2025-01-01", tz="UTC").value
    kept = bars_of(start + MINUTE * np.arange(1, 3), np.full((2, 5), 50.0), 1)
    insert(client, "bars_imported", bar_table(kept, names, "binance_archive"), "kept")
    made = bars_of(start + MINUTE * np.arange(4, 5), np.full((1, 5), 60.0), 1)
    insert(client, "bars_imported", bar_table(made, names, "ticks"), "made")
    at = start + MINUTE * np.array([1, 5, 6])
    columns = {"ts": at, "received_at": at, "symbol": np.ones(3, np.int32), "price": np.ones(3)}
    columns |= {"volume": np.ones(3), "partition": np.zeros(3, np.int32), "offset": np.arange(3)}
    insert(client, "ticks", tick_table(Ticks(**columns), names, "topic"), "ticks")
    frame = candles_of("2025-01-01", DAY)
    with CandleServer({"BTCUSDT": frame}) as server:
        report = run(client, server)
        assert (report.rows, report.added) == (DAY, DAY - 2)
        assert report.notes == [
            "2 rows were there already",
            "2 minutes that ticks have made are hidden by imported bars",
        ]
        assert run(client, server).added == 0
    want = frame.copy()
    want.loc[:1, list(PRICES)] = 50.0
    equal(stored(client), want)


# -- what is asked for


def test_span_holds_whole_minutes_that_are_over() -> None:
    def span(start: str, end: str | None) -> list[str]:
        wanted = CcxtCandles(start=start, end=end)
        return [f"{pd.Timestamp(at):%d %H:%M:%S}" for at in wanted.span]

    assert span("2025-01-01", "2025-01-02") == ["01 00:00:00", "02 00:00:00"]
    assert span("2025-01-01T00:00:01", "2025-01-01T00:05:59") == ["01 00:01:00", "01 00:05:00"]
    assert span("2025-01-01", None) == span("2025-01-01", "2999-01-01")
    assert span("-1h", None) == ["03 23:01:00", "04 00:00:00"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exchange": "binanc"}, "exchange does not know 'binanc'; did you mean 'binance'?"),
        ({"start": None}, "start was not set; name the first day: source.start=2024-01-01"),
        ({"start": "yesterday"}, "start must be like -6h, 2026-01-31 or 2026-01-31T12:00, was"),
        ({"end": "soon"}, "end must be like -6h, 2026-01-31 or 2026-01-31T12:00, was 'soon'"),
        ({"end": "2025-01-01"}, "start must be before the end and before now, was 2025-01-01"),
        ({"start": "2999-01-01"}, "start must be before the end and before now, was 2999-01-01"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        CcxtCandles(**({"start": "2025-01-01"} | given))  # pyright: ignore
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "universe", "message"),
    [
        ({}, ["BTC-PERP"], "the universe has no symbol that begins with 'BINANCE:'"),
        ({}, ["BINANCE:XYZ"], "BINANCE:XYZ is no spot market of binance by that name; say which"),
        ({"symbols": {"BTC": "BTC/USDT"}}, [BTC], "source.symbols has 'BTC', not in the universe"),
        ({"symbols": {BTC: "BTC/USD"}}, [BTC], "source.symbols of BINANCE:BTCUSDT was 'BTC/USD', "
            "no spot market of binance; did you mean 'BTC/USDT'?"),
        ({"symbols": {BTC: "?"}}, [BTC], "source.symbols of BINANCE:BTCUSDT was '?', no spot "
            "market of binance; write it as ccxt does, like BTC/USDT"),
        ({"exchange": "coinbaseexchange"}, [BTC], "the universe has no symbol that begins with "
            "'COINBASE:'"),
        ({"settings": {"has": 5}}, [BTC], "source.settings are refused by ccxt's binance"),
    ],
)  # fmt: skip
def test_symbols_and_settings_without_a_market_are_refused(
    given: dict[str, object], universe: list[str], message: str
) -> None:
    listed = [Instrument(name) for name in universe]
    with CandleServer({}) as server:
        given = {"start": "2025-01-01", "settings": server.settings} | given
        wanted = CcxtCandles(**given)  # pyright: ignore
        with pytest.raises(ConfigError) as error:
            import_candles(None, listed, wanted)  # pyright: ignore
    assert str(error.value).startswith(message)


def test_symbol_of_another_name_comes_from_the_market_that_is_said(client: Client) -> None:
    frame = candles_of("2025-01-01", DAY)
    with CandleServer({"BTCUSDT": frame}) as server:
        wanted = CcxtCandles(
            start="2025-01-01", end="2025-01-02", settings=server.settings,
            symbols={"BTC-PERP": "BTC/USDT"},
        )  # fmt: skip
        assert import_candles(client, UNIVERSE[:1], wanted).counts == {"BTC-PERP": DAY}
    equal(stored(client, "BTC-PERP"), frame)


def test_package_that_is_not_installed_is_answered_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(ConfigError) as error:
        CcxtCandles(start="2025-01-01")
    assert str(error.value).startswith(
        "source=ccxt needs the package ccxt: pip install 'sysquant[ccxt]'"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: source.start was not set; name the first day: source.start=2024-01-01"),
        (["source.start=2024-13-01"], "error: source.start must be like -6h, 2026-01-31 or"),
        (["source.exchange=binanc"], "error: source.exchange does not know 'binanc'; did you mean"),
        (["source.start=-1h", "universe=sample"], "error: the universe has no symbol that"),
        (["source.start=-1h", r"++source.symbols={BINANCE\:BTCUSDT: BTC/EUR}"],
            "error: source.symbols of BINANCE:BTCUSDT was 'BTC/EUR', no spot market of binance"),
    ],
)  # fmt: skip
def test_runner_answers_what_it_cannot_do_in_one_sentence(
    dsn: str, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    with CandleServer({}) as server:
        done = forked.run("backfill", *words_of(server, *words), cwd=Path(os.sep))
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
