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
HISTORY, LATER = 6_000, 900  # minutes


def minutes(count):
    """One trade a minute of a market in which there is something to foresee."""
    market = bars(count, symbols=1, signal=2.0)
    empty = Ticks.empty()
    columns = {name: np.zeros(count, of.dtype) for name, of in empty.columns()}
    columns |= {"ts": market.ts, "received_at": market.ts, "price": market.close}
    columns |= {"volume": np.ones(count), "offset": np.arange(count)}
    return Ticks(**columns)


class Market:
    """Puts a market's ticks on the topic, as many as are asked for at a time."""

    def __init__(self, broker, topic, ticks):
        self.ticks, self.told = ticks, 0
        self._publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)

    def go_on(self, count):
        self._publisher.publish(self.ticks[self.told : self.told + count], [SYMBOL])
        self._publisher.flush()
        self.told = min(self.told + count, len(self.ticks))

    def close(self):
        self._publisher.close()


def live_words(broker, topic):
    return [
        "strategy=ml_direction", *WORDS[1:3], "feed=kafka", f"feed.bootstrap={broker.bootstrap}",
        f"feed.topic={topic}", "runtime.clock=event", "runtime.warmup_bars=0", "book.name=hands",
        *(["feed.api_version=[2,3]"] if broker.kind == "mock" else []),
    ]  # fmt: skip


@pytest.mark.timeout(240)
def test_ticks_become_a_model_that_trades_by_itself(run, home, store, broker, topic):
    market = Market(broker, topic, minutes(HISTORY + LATER))
    market.go_on(HISTORY)
    live = run("live", *live_words(broker, topic))
    until(lambda: counted(store, "ticks") == HISTORY, timeout=60)
    words = f"jobs={{ml_direction: {{words: {json.dumps(WORDS)}, bars: 1000}}}}"
    schedule = run("schedule", words, "look_s=0.5")

    def is_served():
        if market.told < HISTORY + LATER // 2:
            market.go_on(1)
        return counted(store, "models_served") or schedule.returncode is not None

    until(is_served, timeout=150)
    assert schedule.returncode is None, schedule.communicate()
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
