"""A session that goes on has its twin made beside it: rows, alerts, and what is told of it."""

import contextlib

import psutil
import pytest

from sysquant.store import find_server
from tests.receivers import hook
from tests.sessions import forked as run
from tests.sessions import server, store, until

__all__ = ["hook", "run", "server", "store"]  # fixtures

OFTEN = ("runtime.twin_s=1", "runtime.report_s=0.2")
WORDS = (
    "strategy=momentum", "strategy.fast=3", "strategy.slow=9", "feed=synthetic", "feed.speed=60",
    "feed.length_s=null", "bars=5s", "snapshots=5s", "runtime.warmup_bars=0",
    "book.unpromoted=null", *OFTEN,
)  # fmt: skip
CHARGED = """
    INSERT INTO financing (run, seq, ts, strategy, symbol, kind, base, rate, amount)
    SELECT h.run, h.seq, h.ts, 'momentum', '', 'interest', 7, 1, 7 FROM portfolio_history AS h
    ORDER BY h.version DESC LIMIT 1
"""


def said(home):
    """All that the comparisons of the one session said."""
    return "".join(path.read_text() for path in (home / "runs" / "live").glob("*/twin.log"))


def events(store, kind):
    rows = store.query(
        "SELECT detail FROM events WHERE kind = {kind:String} ORDER BY ts", {"kind": kind}
    ).result_rows
    return [detail for (detail,) in rows]


def comparisons(live):
    """Processes that compare, of a session."""
    found = []
    for child in psutil.Process(live.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "twin" in child.cmdline():
                found.append(child)
    return found


def stopped(live):
    live.terminate()
    _, err = live.communicate(timeout=200)
    assert live.returncode == 0, err
    return err


@pytest.mark.timeout(600)
def test_a_session_is_compared_while_it_runs_and_what_is_unexplained_is_an_alert(
    run, home, store, hook, monkeypatch
):
    monkeypatch.setenv("SYSQUANT_WEBHOOK_URL", hook.url)
    live = run("live", *WORDS)
    until(lambda: comparisons(live), timeout=200)
    (beside,) = comparisons(live)
    assert beside.nice() == 19
    secret = find_server(home / "data" / "store").users["default"]
    assert "strategy.slow=9" in beside.cmdline() and secret not in " ".join(beside.cmdline())

    made = "SELECT uniqExact(made_at), max(abs(unexplained)), max(abs(live)) FROM twin"
    until(lambda: store.query(made).result_rows[0][0] >= 2, timeout=200)
    _, unexplained, earned = store.query(made).result_rows[0]
    assert unexplained < 1e-6 and earned > 0
    assert live.poll() is None and "live minus backtest" in said(home)
    assert hook.posted == [] and events(store, "alert") == []
    assert not [told for told in events(store, "twin") if "not compared so far" not in told]

    store.command(CHARGED)
    until(lambda: hook.posted, timeout=200)
    alert = hook.posted[0]
    assert (alert["kind"], alert["book"]) == ("unexplained", "momentum-synthetic")
    assert "+7 of live minus backtest P&L is unexplained" in alert["detail"]
    until(lambda: [told for told in events(store, "twin") if "exit code 1" in told])
    told = [told for told in events(store, "twin") if "exit code 1" in told]
    assert told[0].startswith("exit code 1: failed: momentum: +7 of live minus backtest P&L")
    assert events(store, "alert")[0] == f"twin: {alert['detail']}"
    assert live.poll() is None
    until(lambda: comparisons(live))
    last = comparisons(live)
    stopped(live)
    psutil.wait_procs(last, timeout=5)
    assert not [each for each in last if each.is_running()]
