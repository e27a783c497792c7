"""`check.py twin` and `check.py why` on a session of live.py: what they say, and exit codes."""

import json

import pytest

from runners.recordings import session_of
from sysquant import journal_reader
from sysquant.store import insert
from tests.forked import run as forked_run
from tests.sessions import ended, run_of, server, store, until
from tests.sessions import forked as run

__all__ = ["run", "server", "store"]  # fixtures

WORDS = (
    "strategy=momentum", "strategy.fast=3", "strategy.slow=9", "feed=synthetic",
    "feed.length_s=1800", "bars=5s", "snapshots=5s", "runtime.warmup_bars=0",
    "book.unpromoted=null",
    "risk.checks=[{check: open_positions, limit: 3}, {check: cash, limit: 0.0}]",
)  # fmt: skip


def checked(home, *words):
    return forked_run("check", *words, cwd=home)


def test_a_session_and_its_orders_are_explained(run, home, store):
    live = run_of(ended(run("live", *WORDS)))
    done = checked(home, "twin", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "live minus backtest +0.00" in done.stdout and "unexplained" in done.stdout
    rows = store.query(
        "SELECT count(), sum(differing), max(abs(pnl)), max(abs(unexplained)), any(live) FROM twin "
        "FINAL WHERE run = {run:String}", {"run": live},
    ).result_rows  # fmt: skip
    assert rows[0][:4] == (8, 0, 0.0, pytest.approx(0.0, abs=1e-6)) and rows[0][4] != 0
    said = json.loads(checked(home, "twin", "json=true", *WORDS).stdout)
    assert said["run"] == live and said["failures"] == said["notes"] == []

    dearer = checked(home, "twin", *WORDS, "execution.fee_bps=1.0")
    assert dearer.returncode == 0 and "note: configured otherwise" in dearer.stdout
    assert [
        line.split()[2] for line in dearer.stdout.splitlines() if line.startswith("  fees")
    ] != ["0:"]
    _orders(home, store, live)
    _moments(home, live)
    _unexplained(home, store, live)
    _loops(run, store, live)
    _refused(home)


def _orders(home, store, live):
    found = store.query(
        "SELECT status, min(order_no), max(order_no) FROM orders WHERE run = {run:String} "
        "GROUP BY status", {"run": live},
    ).result_rows  # fmt: skip
    numbers = {status: (first, last) for status, first, last in found}
    assert set(numbers) == {"approved", "refused"}
    plain = checked(home, "why", f"order=momentum:{numbers['approved'][0]}", *WORDS)
    assert plain.returncode == 0, plain.stderr
    for part in ("order\n", "bar\n", "features\n", "  fast ", "sizing\n", "check cash", "pnl\n"):
        assert part in plain.stdout
    sent = json.loads(
        checked(home, "why", f"order=momentum:{numbers['approved'][0]}", "json=true", *WORDS).stdout
    )
    assert sent["order"]["status"] == "approved" and sent["instead"] == {}
    assert sent["features"]["fast"] > sent["features"]["slow"] and sent["signal"]["target"] == 1
    assert sent["bar"]["ticks"] > 0 and sent["bar"]["close"] == pytest.approx(
        sent["order"]["price"]
    )
    assert {one["check"]: one["verdict"] for one in sent["checks"]} == {
        "open_positions": "pass", "cash": "pass",
    }  # fmt: skip
    (fill,) = sent["fills"]
    assert fill["quantity"] == sent["order"]["quantity"] == sent["sizing"]["asked"]
    assert sent["pnl"]["total"] == pytest.approx(sent["pnl"]["moved"] - fill["fee"])
    refused = json.loads(
        checked(home, "why", f"order=momentum:{numbers['refused'][0]}", "json=true", *WORDS).stdout
    )
    assert refused["order"]["reason"] == "open_positions" and refused["fills"] == []
    instead = refused["instead"]
    assert instead["filled"] == refused["order"]["asked"] and instead["average_price"] > 0
    assert instead["pnl"] != 0 and "passed the chain" in instead["assumed"]


def _moments(home, live):
    session = session_of(*WORDS)
    assert session.directory == home / "data" / "journals" / "momentum-synthetic"
    last, earlier = session.at(), session.at("-10m")
    assert 0 < earlier.ts <= last.ts - 600_000_000_000
    kept = journal_reader.ask(session.directory, "SELECT seq, hex(checksum) FROM snapshots")
    assert {seq: session.after(seq).hash for seq, _ in kept} == {
        seq: said.lower() for seq, said in kept
    }
    assert set(earlier.features["momentum"]) <= set(earlier.engine.symbols)


def _unexplained(home, store, live):
    row = store.query_arrow(
        "SELECT * REPLACE (realised_pnl + 7 AS realised_pnl, version + 1000 AS version, "
        "ts + INTERVAL 1 NANOSECOND AS ts) FROM portfolio_history AS h WHERE run = {run:String} "
        "AND h.ts = (SELECT max(ts) FROM portfolio_history WHERE run = {run:String})",
        {"run": live},
    )  # fmt: skip
    insert(store, "portfolio_history", row, "wrong")
    wrong = checked(home, "twin", *WORDS)
    assert wrong.returncode == 1 and "failed: momentum: +" in wrong.stdout
    (alert,) = store.query(
        "SELECT detail FROM events WHERE run = {run:String} AND kind = 'alert'", {"run": live}
    ).result_rows
    assert "of live minus backtest P&L is unexplained" in alert[0]


def _loops(run, store, live):
    looping = run("check", "twin", "every=1s", *WORDS)
    sql = "SELECT uniqExact(made_at) FROM twin WHERE run = {run:String}"
    before = store.query(sql, {"run": live}).result_rows[0][0]
    until(lambda: store.query(sql, {"run": live}).result_rows[0][0] >= before + 2)
    assert looping.poll() is None
    looping.terminate()
    looping.communicate(timeout=20)


def _refused(home):
    for words, said in (
        (("twin", "strategy=momentum", "feed=kafka"), "there is no session of a book"),
        (("twin", *WORDS, "book.capital=5"), "other allocations"),
        (("twin", *WORDS, "every=often"), "every must be like"),
        (("twin", *WORDS, "json=perhaps"), "json must be true or false"),
        (("why", *WORDS), "order must be like order=momentum:17"),
        (("why", *WORDS, "order=momentum:999999"), "has no order 999999"),
        (("why", *WORDS, "strategy.fast=4", "order=momentum:1"), "the session's book differs"),
    ):
        done = checked(home, *words)
        assert done.returncode == 1 and said in done.stderr, (words, done.stderr)
