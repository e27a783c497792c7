"""From ticks to a model that trades, hands off: schedule, notebook, registry, ping, swap."""

import contextlib
import json
import time

import pytest

from sysquant.home import home as home_of
from sysquant.models.registry import Registry
from tests.minutes import Market, live_words, minutes
from tests.sessions import forked as run
from tests.sessions import server, store, until
from tests.test_retrain import WORDS

__all__ = ["run", "server", "store"]  # fixtures

HISTORY, LATER = 6_000, 900  # minutes


@pytest.mark.timeout(600)
def test_ticks_become_a_model_that_trades_by_itself(run, home, store, broker, topic):
    market = Market(broker, topic, minutes(HISTORY + LATER))
    market.go_on(HISTORY)
    live = run("live", *live_words(broker, topic), "book.name=hands")
    until(lambda: counted(store, "ticks") == HISTORY, timeout=60)
    words = f"jobs={{ml_direction: {{words: {json.dumps(WORDS)}, bars: 1000}}}}"
    schedule = run("schedule", words, "look_s=0.5")

    began = time.monotonic()

    def is_served():
        if market.told < HISTORY + time.monotonic() - began:  # a minute a second, to the end
            market.go_on(1)
        return counted(store, "models_served") or schedule.returncode is not None

    with contextlib.suppress(AssertionError):
        until(is_served, timeout=400)
    if not counted(store, "models_served"):
        for each in (schedule, live):
            each.terminate()
        rows = store.query("SELECT verdict, reasons, took_s FROM model_runs").result_rows
        said = [each.communicate(timeout=20) for each in (schedule, live)]
        pytest.fail(f"{said}\n{rows}")
    (name,) = store.query("SELECT model FROM models_served").result_rows[0]
    assert Registry(home_of() / "data" / "models").numbers("ml_direction")[1].name == name
    market.go_on(LATER)
    market.close()
    until(lambda: counted(store, "ticks") == HISTORY + LATER, timeout=60)
    until(lambda: counted(store, "executions"), timeout=60)
    for process in (schedule, live):
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, f"{out}\n{err}"
    asked = store.query("SELECT DISTINCT model FROM orders").result_rows
    assert asked == [(name,)]
    (row,) = store.query("SELECT verdict, model, known FROM model_runs").named_results()
    assert (row["verdict"], row["model"]) == ("published", name)
    first = store.query("SELECT min(ts) FROM orders").result_rows[0][0]
    assert row["known"] <= first, "the newest training row is older than the first use"
    kinds = [kind for (kind,) in store.query("SELECT kind FROM events ORDER BY ts").result_rows]
    assert "training" in kinds and "trained" in kinds and "refresh" in kinds


def counted(store, table):
    return store.query(f"SELECT count() FROM {table}").result_rows[0][0]
