"""What a gate looks at where nobody says it: all that the store has, and of which kind."""

import pytest
from omegaconf import OmegaConf

from runners import parity, past
from sysquant.parity import Window
from sysquant.times import DAY
from sysquant.types import Instrument
from tests.sessions import forked as run
from tests.sessions import server, store
from tests.test_check import A_AND_B, said
from tests.test_quality import MIDNIGHT, MINUTE, a_day, flat_bars, put, put_bars

__all__ = ["run", "server", "store"]  # fixtures

UNIVERSE = [Instrument("SIM:A"), Instrument("SIM:B")]
WORDS = ["warmup", "strategy=breakout", "universe=crypto", A_AND_B]


@pytest.fixture
def filled(store):
    """Five days of bars, of whose last one there are ticks as well."""
    bars = flat_bars(5 * 1_440)
    bars["ts"] = MIDNIGHT + DAY + MINUTE * (bars.index.to_numpy() - len(bars) + 1)
    for name in "AB":
        put_bars(store, bars, symbol=f"SIM:{name}")
        put(store, a_day(seed=ord(name)), symbol=f"SIM:{name}", token=name)
    return store


def told(out):
    """Lines about what is judged."""
    return [line for line in out.splitlines() if line.startswith("judged on ")]


def test_the_whole_history_is_looked_at_and_bars_where_they_reach_much_further_back(run, filled):
    (line,) = told(said(run("check", *WORDS))[1])
    assert line.startswith("judged on bars from 2024-02-29T00:00:00Z on: feed.start=... feed.kind")
    (line,) = told(said(run("check", *WORDS, "feed.kind=ticks"))[1])
    assert line.startswith("judged on ticks from 2024-03-04T00:00:00Z on")
    (line,) = told(said(run("check", *WORDS, "feed.start=-2h"))[1])
    assert line.startswith("judged on bars from -2h on")
    (line,) = told(said(run("check", *WORDS, "bars=1s"))[1])
    assert line.startswith("judged on ticks from "), "no second is made of minutes"
    assert told(said(run("check", *WORDS, "feed.start=-2h", "feed.kind=ticks"))[1]) == []


def test_of_more_than_memory_should_hold_the_newest_part_is_looked_at(filled, monkeypatch):
    span = MIDNIGHT - 4 * DAY, MIDNIGHT + DAY
    assert past._newest(filled, UNIVERSE, "bars", *span) == span[0]
    monkeypatch.setattr(past, "MOST_ROWS", 4_000)
    later = past._newest(filled, UNIVERSE, "bars", *span)
    assert span[0] < later < span[1] and later % MINUTE == 0
    assert past._newest(filled, UNIVERSE, "ticks", MIDNIGHT, MIDNIGHT + DAY) > MIDNIGHT + DAY // 2


def test_parity_tells_ticks_of_the_store_where_they_are_of_enough_bars(filled):
    known = past.Past(UNIVERSE, filled, None, None, None)
    last = MIDNIGHT + DAY

    def recorded(bars, count):
        cfg = OmegaConf.create({"bars": bars})
        return parity._recorded(cfg, known, Window(ticks=count), last)

    ticks = recorded("1m", 2_000)
    assert len(ticks) == 2_000 and last - 30_000_000_000 < ticks.ts.max() < last
    assert len(recorded("1m", 10**6)) == 2 * 4_320
    assert recorded("1m", 100) is None, "a hundred ticks are of few minutes"
    assert recorded("1h", 10**6) is None, "a day has few hours"
