"""From ticks to a model that trades, hands off: schedule, notebook, registry, ping, swap."""

import json

import numpy as np
import pytest

from sysquant.feeds.publish import Publisher
from sysquant.home import home as home_of
from sysquant.models.registry import Registry
from sysquant.types import Instrument, Ticks
from tests.sessions import forked as run
from tests.sessions import server, store, until
from tests.test_retrain import WORDS
from tests.test_training import bars

__all__ = ["run", "server", "store"]  # fixtures

SYMBOL = Instrument("SIM:A", 1e-6, 1e-6)
HISTORY, LATER = 6_000, 400  # minutes


def minutes(count):
    """One trade a minute of a market in which there is something to foresee."""
    market = bars(count, symbols=1, signal=2.0)
    empty = Ticks.empty()
    columns = {name: np.zeros(count, of.dtype) for name, of in empty.columns()}
    columns |= {"ts": market.ts, "received_at": market.ts, "price": market.close}
    columns |= {"volume": np.ones(count), "offset": np.arange(count)}
    return Ticks(**columns)


def publish(broker, topic, ticks):
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)
    publisher.publish(ticks, [SYMBOL])
    publisher.flush()
    publisher.close()


def live_words(broker, topic):
    return [
        "strategy=ml_direction", *WORDS[1:3], "feed=kafka", f"feed.bootstrap={broker.bootstrap}",
        f"feed.topic={topic}", "runtime.clock=event", "runtime.warmup_bars=0", "book.name=hands",
        *(["feed.api_version=[2,3]"] if broker.kind == "mock" else []),
    ]  # fmt: skip


@pytest.mark.timeout(240)
def test_ticks_become_a_model_that_trades_by_itself(run, home, store, broker, topic):
    ticks = minutes(HISTORY + LATER)
    publish(broker, topic, ticks[:HISTORY])
    live = run("live", *live_words(broker, topic))
    until(lambda: counted(store, "ticks") == HISTORY, timeout=60)
    words = json.dumps(WORDS)
    schedule = run(
        "schedule", f"jobs={{ml_direction: {{words: {words}, bars: 1000}}}}", "look_s=0.5"
    )
    until(lambda: counted(store, "models_served") or schedule.returncode is not None, timeout=150)
    assert schedule.returncode is None, schedule.communicate()
    (name,) = store.query("SELECT model FROM models_served").result_rows[0]
    assert Registry(home_of() / "data" / "models").numbers("ml_direction")[1].name == name
    publish(broker, topic, ticks[HISTORY:])
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
