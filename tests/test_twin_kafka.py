"""The twin of a session on a broker, whose backtest is of the ticks that ingest wrote."""

import json

import pytest

from tests.forked import run as forked_run
from tests.receivers import hook
from tests.sessions import ended, run_of, server, store, until
from tests.sessions import forked as run
from tests.test_audit_live import OFTEN, events, said, stopped
from tests.test_session_kafka import ETHUSDT, eth_session, publish

__all__ = ["hook", "run", "server", "store"]  # fixtures


def test_a_recorded_day_over_kafka_has_no_cause_and_a_changed_tick_is_data(
    run, home, store, broker, topic, shared_data
):
    publish(run, broker, topic, shared_data / ETHUSDT)
    words = [*eth_session(broker, topic), "book.name=day"]
    live = run_of(ended(run("live", *words)))
    done = forked_run("check", "twin", "json=true", *words, cwd=home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (told,) = found["strategies"].values()
    assert found["run"] == live and told["live"] == told["backtest"] != 0
    assert {(one["pnl"], one["differing"]) for one in told["causes"].values()} == {(0.0, 0)}
    assert abs(told["unexplained"]) < 1e-6 * 1e6

    store.command(
        "INSERT INTO ticks SELECT * REPLACE (price * 1.02 AS price) FROM ticks FINAL "
        "WHERE offset = 4000"
    )
    done = forked_run("check", "twin", "json=true", *words, cwd=home)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["strategies"].values()
    assert told["causes"]["data"]["differing"] == 1
    assert {c for c, one in told["causes"].items() if one["pnl"]} <= {"data"}
    assert abs(told["unexplained"]) < 1e-6 * 1e6


@pytest.mark.timeout(600)
def test_ticks_that_nobody_writes_into_the_store_are_information_told_once(
    run, home, store, broker, topic, hook, monkeypatch
):
    monkeypatch.setenv("SYSQUANT_WEBHOOK_URL", hook.url)
    kafka = [f"bootstrap={broker.bootstrap}", f"topic={topic}"]
    kafka += ["api_version=[2,3]"] if broker.kind == "mock" else []
    ticks = ["source=synthetic", "source.length_s=600", "speed=max"]
    ended(run("stream", *ticks, *[f"publisher.{word}" for word in kafka]))
    live = run(
        "live", "strategy=buy_and_hold", "feed=kafka", *[f"feed.{word}" for word in kafka],
        "ingest=none", "runtime.clock=event", "runtime.warmup_bars=0", *OFTEN,
    )  # fmt: skip
    lacking = "error: the store has no tick of "
    until(lambda: said(home).count(lacking) >= 2, timeout=200)
    until(lambda: any(lacking in told for told in events(store, "twin")))
    err = stopped(live)
    told = events(store, "twin")
    assert len([each for each in told if lacking in each]) == 1, told
    assert all(each.startswith("not compared so far: error: ") for each in told)
    assert events(store, "alert") == [] and hook.posted == []
    assert "WARNING logger=sysquant.live twin" not in err
    assert store.query("SELECT count() FROM twin").result_rows == [(0,)]
