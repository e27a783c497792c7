"""The twin of a session on a broker, whose backtest is of the ticks that ingest wrote."""

import json

from tests.forked import run as forked_run
from tests.sessions import ended, run_of, server, store
from tests.sessions import forked as run
from tests.test_session_kafka import ETHUSDT, eth_session, publish

__all__ = ["run", "server", "store"]  # fixtures


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
