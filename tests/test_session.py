"""Whole sessions as a person runs them: processes, the real store, signals."""

import os
import signal
import subprocess
import sys
import time

import pandas
import pytest

from sysquant.parity import decided
from sysquant.serve import ensure_server
from sysquant.store import connect, find_server
from tests.compare import TABLES, assert_same_decisions
from tests.sessions import ROOT, ended, journaled, run_of, server, store, synthetic, until
from tests.sessions import forked as run
from tests.sessions import run as run_anew

__all__ = ["run", "run_anew", "server", "store", "synthetic"]  # fixtures

MINUTES = "bars_btc-perp_1m_2022-01.parquet"


def test_real_minute_bars_replayed_live_trade_as_their_backtest(run, store, shared_data):
    bars = ["universe=crypto", "universe.instruments=[{symbol: BTC-PERP, tick_size: 1.0}]"]
    ended(
        run(
            "backfill", "source=file", f"path={shared_data / MINUTES}", "mapping=bars",
            "mapping.symbol=BTC-PERP", "mapping.label=left", "mapping.volume_unit=quote", *bars,
        )
    )  # fmt: skip
    session = ["strategy=momentum", *bars, "feed=replay", "feed.kind=bars", "feed.start=null"]
    session += ["runtime.snapshot_s=0.3", "book.unpromoted=null"]
    live = run_of(ended(run("live", *session, "feed.batch=1000")))
    backtest = run_of(ended(run("backtest", *session)))
    assert_same_decisions(store, live, backtest, least=500)
    rows = store.query("SELECT sum(rows) FROM inputs WHERE run = {run:String}", {"run": live})
    assert rows.result_rows == [(45_031,)]


def perpetual(run, home, hours=24):
    """A session over a day of minute bars of a perpetual; the rates of `hours` are imported."""
    ts = pandas.date_range("2024-03-01", periods=1440, freq="min", tz="UTC")
    price = [50_000.0 + 50 * (minute % 97) + minute for minute in range(1440)]
    bars = pandas.DataFrame(dict.fromkeys(("open", "high", "low", "close"), price))
    bars.assign(timestamp=ts, volume=1e3).to_csv(home / "bars.csv", index=False)
    rates = pandas.DataFrame({"ts": ts[:: 4 * 60], "symbol": "BTC-PERP"})
    rates["rate"] = [1e-4, -3e-4, 2e-4, 4e-4, -1e-4, 5e-4]
    rates[rates.ts < ts[0] + pandas.Timedelta(hours=hours)].to_csv(home / "rates.csv", index=False)
    said = ["mapping.symbol=BTC-PERP", "mapping.label=left", "mapping.volume_unit=base"]
    for name, more in (("bars", said), ("rates", [])):
        mapping = "bars" if name == "bars" else "funding"
        arguments = ["source=file", f"path={name}.csv", f"mapping={mapping}", *more]
        ended(run("backfill", *arguments, "universe=crypto"))
    instrument = "{symbol: BTC-PERP, tick_size: 1.0, lot_size: 0.001, perpetual: true}"
    return [
        "strategy=buy_and_hold", "universe=crypto", f"universe.instruments=[{instrument}]",
        "feed=replay", "feed.kind=bars", "feed.start=null", "execution.funding=store",
        "execution.funding_hours=4", "book.unpromoted=null",
    ]  # fmt: skip


def test_funding_of_the_store_is_charged_alike_in_a_backtest_and_in_a_session_that_was_ended(
    run, home, store
):
    session = perpetual(run, home)
    paced = run("live", *session, "feed.speed=20000", "runtime.snapshot_s=0.2")
    until(lambda: store.query("SELECT count() FROM financing").result_rows[0][0] > 1)
    paced.send_signal(signal.SIGTERM)
    first = ended(paced)
    last = ended(run("live", *session))
    assert run_of(first) == run_of(last)
    backtest = run_of(ended(run("backtest", *session)))
    assert_same_decisions(store, run_of(last), backtest)
    rows = store.query(
        "SELECT toString(ts), rate, kind, amount / base FROM financing "
        "WHERE run = {run:String} ORDER BY ts",
        {"run": backtest},
    ).result_rows
    assert [row[0][11:13] for row in rows] == ["04", "08", "12", "16", "20"]
    assert [row[1] for row in rows] == [-3e-4, 2e-4, 4e-4, -1e-4, 5e-4]
    assert {row[2] for row in rows} == {"funding"}
    assert [row[3] for row in rows] == pytest.approx([row[1] for row in rows])


def test_funding_that_the_store_lacks_is_refused_and_another_series_is_another_book(
    run, home, store
):
    session = perpetual(run, home, hours=16)
    for runner in ("backtest", "live"):
        said = sentence(run(runner, *session))
        assert "BTC-PERP has no rate at 2024-03-01T16:00:00Z and 1 more times" in said
    assert not (home / "data" / "journals").exists()
    paced = run("live", *session, "feed.end=2024-03-01T15:00:00Z", "feed.speed=5000")
    until(lambda: store.query("SELECT count() FROM financing").result_rows[0][0])
    paced.send_signal(signal.SIGTERM)
    ended(paced)
    store.command("INSERT INTO funding (symbol, ts, rate) VALUES ('BTC-PERP', '2024-03-01', 0.5)")
    said = sentence(run("live", *session, "feed.end=2024-03-01T15:00:00Z"))
    assert "this journal's book differs: series" in said and "journal=fresh" in said


def until_trading(store):
    until(lambda: store.query("SELECT max(ticks) FROM feed_stats").result_rows[0][0] > 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_its_deadline_with_everything_flushed(
    run, store, synthetic, number
):
    live = run("live", *synthetic, "runtime.report_s=0.2")
    until_trading(store)
    asked = time.monotonic()
    live.send_signal(number)
    output = ended(live, timeout=10)
    assert time.monotonic() - asked < 5
    assert f"ended: {number.name}" in output
    assert "wait in the journal" not in output
    journaled = store.query(
        "SELECT max(ticks) = (SELECT sum(rows) FROM inputs WHERE kind = 'ticks') FROM feed_stats"
    )
    assert journaled.result_rows == [(1,)]


def test_a_second_signal_ends_it_at_once(run, server, store, synthetic):
    live = run("live", *synthetic, "runtime.report_s=0.2")
    until_trading(store)
    server.send_signal(signal.SIGSTOP)
    try:
        live.terminate()
        time.sleep(0.5)
        assert live.poll() is None
        live.terminate()
        asked = time.monotonic()
        live.communicate(timeout=5)
        assert time.monotonic() - asked < 1
        assert live.returncode == 128 + signal.SIGTERM
    finally:
        server.send_signal(signal.SIGCONT)


def test_a_dead_store_holds_nothing_up_and_gets_every_row_when_it_is_back(
    run, server, store, synthetic
):
    live = run("live", *synthetic, "runtime.report_s=0.2")
    until_trading(store)
    server.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    live.terminate()
    asked = time.monotonic()
    out, _ = live.communicate(timeout=10)
    assert time.monotonic() - asked < 5
    assert live.returncode == 0
    assert "wait in the journal for the store" in out
    server.send_signal(signal.SIGCONT)
    again = ended(run("live", *synthetic, "runtime.stop_after_idle_s=0.1", "feed.speed=max"))
    assert run_of(again) == run_of(out)
    assert len(decided(store, TABLES[0], run_of(again))) > 0
    (rows,) = store.query(
        "SELECT sum(rows), uniqExact(seq), max(seq) FROM inputs WHERE kind = 'ticks'"
    ).result_rows
    assert f"events {rows[0]:,} " in again
    assert rows[1] == rows[2]


def test_a_killed_store_is_started_again_and_gets_every_row(run, home, synthetic):
    live = run("live", *synthetic, "feed.speed=300", "feed.length_s=900", "runtime.report_s=0.2")
    directory = home / "data" / "store"
    until(
        lambda: journaled(home, "buy_and_hold-synthetic") > 5 and find_server(directory) is not None
    )
    served = find_server(directory)
    assert served is not None
    os.kill(served.pid, signal.SIGKILL)
    until(lambda: (again := find_server(directory)) is not None and again.pid != served.pid)
    output = ended(live)
    assert "wait in the journal" not in output
    dsn, server = ensure_server("chdb:data/store")
    assert server is not None  # what live revived ended with it
    client = connect(dsn)
    (rows,) = client.query("SELECT uniqExact(seq), count(), max(seq) FROM inputs").result_rows
    client.close()
    server.terminate()
    server.wait(10)
    assert rows[0] == rows[1] == rows[2] > 10


def sentence(process, *, timeout=30):
    """The one line on stderr of a process that must refuse."""
    out, err = process.communicate(timeout=timeout)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert process.returncode in (1, 2), f"{process.returncode}\n{out}\n{err}"
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["strategy.fsat=3"], "did you mean 'fast'"),
        (["strategy=momentun"], "did you mean 'momentum'"),
        (["stratgy=momentum"], "did you mean 'strategy'"),
        (["execution.fee_bps=-1"], "execution.fee_bps must be >= 0"),
        (["bars=1parsec"], "bars must be like"),
        (["feed.kind=bars", "feed.interval=5m"], "feed.interval must be"),
        (["strategy._target_=os.system"], "lies outside sysquant"),
        (["--multirun", "strategy.fast=1,2"], "no --multirun"),
        (["hydra.mode=MULTIRUN"], "no --multirun"),
        (["strategy.fast=abc"], "fast"),
        (["risk.checks=[{check: cash}]"], "risk.checks: 'cash' has no limit"),
        (["feed=kafka", "feed.bootstrap=127.0.0.1:1"], "does not answer"),
        (["store=clickhouse", "store.dsn=http://127.0.0.1:1/db"], "does not answer"),
        (["store.dsn=postgres://x"], "dsn must be chdb"),
        (["store.dsn=http://u:secret@127.0.0.1:1/db"], "holds a password"),
        (["journal=frsh"], "journal does not know 'frsh'; did you mean 'fresh'"),
        (["ingest=maybe"], "ingest does not know 'maybe'; there is: auto, none"),
        (["bars=60"], "bars must be like 1s, 5m"),
        (["bars=5ticks", "sizing=volatility_target"], "sizing=volatility_target of 'momentum'"),
        (["seed=abc"], "seed must be a whole number, was 'abc'"),
        (["book.capital=abc"], "book.capital must be a number, was 'abc'"),
        (["book.capital=inf"], "capital must be > 0"),
        (["book.name=../../evil"], "book.name names a directory"),
        (["runtime.grace_ms=abc"], "runtime.grace_ms must be a whole number, was 'abc'"),
        (["runtime.clock=foo"], "runtime.clock does not know 'foo'; there is: auto, event"),
        (["runtime.outbox_rows=0"], "runtime.outbox_rows must be a whole number >= 1"),
        (["universe.instruments=null"], "universe.instruments is empty"),
        (["universe.instruments=[{symbol: A, tick_size: -1}]"], "tick_size of A must be > 0"),
        (["universe.instruments=[{symbol: A, tick: 1}]"], "did you mean 'tick_size'"),
        (["execution.funding=stroe"], "execution.funding does not know 'stroe'; did you mean"),
        (["execution.funding=store", "feed=synthetic"], "is for feed=replay, was synthetic"),
        (["execution.funding=store", "feed=kafka"], "is for feed=replay, was kafka"),
        (["execution.latency_sigma=50"], "latency_sigma must be >= 0 and <= 3"),
        (["risk.checks=null"], "risk.checks must be [{name: a value}, ...], was None"),
        (["feed=kafka", "feed.max_records=abc"], "feed.max_records must be a whole number"),
        (["hydra.run.dir=/tmp/elsewhere"], "runs lie below SYSQUANT_HOME"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_the_way_out(run, arguments, said):
    assert said in sentence(run("live", "strategy=momentum", *arguments))


def test_a_full_disk_is_one_sentence_and_the_session_goes_on_when_there_is_room(
    run, run_anew, store, home, synthetic
):
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 600; exec \"$@\"", "bash"]
    said = sentence(run_anew("live", *synthetic, "feed.speed=max", before=limited))
    assert "the journal" in said
    assert "free space" in said
    taken = journaled(home, "buy_and_hold-synthetic")
    output = ended(run("live", *synthetic, "feed.speed=max"))
    (rows,) = store.query("SELECT uniqExact(seq), max(seq) FROM inputs").result_rows
    assert rows[0] == rows[1] > taken
    assert "ended: end of feed" in output


def test_a_backtest_of_a_feed_that_never_ends_is_refused(run):
    assert "needs a feed that ends" in sentence(run("backtest", "feed=kafka"))
    assert "needs a feed that ends" in sentence(
        run("backtest", "feed=synthetic", "feed.length_s=null")
    )


def test_a_home_that_cannot_be_written_is_one_sentence(run, home, monkeypatch):
    place = home / "file"
    place.write_text("")
    monkeypatch.setenv("SYSQUANT_HOME", str(place / "below"))
    for runner in ("live", "backtest", "ingest", "backfill"):
        assert "set SYSQUANT_HOME elsewhere" in sentence(run(runner))


def test_a_store_that_stalls_under_a_replay_does_not_hold_the_exit_up(run, server, store):
    live = run("live", "strategy=buy_and_hold", "feed.speed=600", "runtime.report_s=0.2")
    until_trading(store)
    server.send_signal(signal.SIGSTOP)
    try:
        time.sleep(3)
        live.terminate()
        asked = time.monotonic()
        out, err = live.communicate(timeout=20)
        assert time.monotonic() - asked < 5
        assert live.returncode == 0, f"{out}\n{err}"
        assert "ended: SIGTERM" in out
    finally:
        server.send_signal(signal.SIGCONT)


def test_one_signal_ends_a_session_that_waits_for_the_store_in_order(run, server, store):
    live = run(
        "live", "strategy=buy_and_hold", "feed=synthetic", "feed.speed=60", "feed.length_s=240"
    )
    until_trading(store)
    server.send_signal(signal.SIGSTOP)
    try:
        time.sleep(5)
        assert live.poll() is None
        live.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = live.communicate(timeout=20)
        assert time.monotonic() - asked < 5
        assert live.returncode == 0, f"{out}\n{err}"
        assert "ended: end of feed" in out
    finally:
        server.send_signal(signal.SIGCONT)


def test_a_locked_store_is_one_sentence(run, home):
    program = (
        "import time; from sysquant.store import connect; c = connect('chdb:data/store');"
        "print('open', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        said = sentence(run("live", "strategy=momentum"))
        assert f"process {holder.pid}" in said
        assert "runners/store.py" in said
    finally:
        holder.kill()
        holder.communicate()


def test_a_second_live_runner_of_a_book_is_refused(run, store, synthetic):
    first = run("live", *synthetic, "runtime.report_s=0.2")
    until_trading(store)
    said = sentence(run("live", *synthetic))
    assert f"in use by process {first.pid}" in said


def test_runners_work_from_anywhere_and_write_below_home_alone(run, home, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = ended(
        run("live", "strategy=buy_and_hold", "feed=synthetic", "feed.length_s=60", cwd=elsewhere)
    )
    assert "ended: end of feed" in output
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in home.iterdir()} <= {"data", "runs", ".cache"}
