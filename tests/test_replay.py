"""The store as a feed: any position, any poll size, one sequence."""

from collections.abc import Iterator

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from sysquant import archive, backfill
from sysquant.errors import ConfigError, DataError, FeedError
from sysquant.feeds.replay import ReplayFeed
from sysquant.store import connect
from sysquant.times import interval_ns
from sysquant.types import SECOND, Bars, Instrument, Poll, Ticks

pytest_plugins = ["tests.served"]

UNIVERSE = [Instrument("SIM:A"), Instrument("SIM:B", tick_size=0.5)]
END = "2026-03-02T12:00:00Z"


@pytest.fixture
def filled(client: Client, dsn: str) -> str:
    backfill.sample(client, UNIVERSE, days=1, hours=1, end=END, ticks_per_second=2.0)
    return dsn


def feed(dsn: str, **options: object) -> ReplayFeed:
    return ReplayFeed(UNIVERSE, lambda: connect(dsn), **options)  # pyright: ignore


def polls(source: ReplayFeed) -> Iterator[Poll]:
    while True:
        poll = source.poll(0)
        yield poll
        if poll.ended:
            source.close()
            return


def rest(source: ReplayFeed) -> Ticks | Bars:
    batches = [poll.events for poll in polls(source)]
    return type(batches[0]).join(batches)  # pyright: ignore


@pytest.mark.parametrize("kind", ["ticks", "bars"])
def test_any_position_and_poll_size_give_the_same_rest(filled: str, kind: str) -> None:
    whole = rest(feed(filled, kind=kind, start=None))
    assert len(whole) > 2000
    np.testing.assert_array_equal(whole.offset, np.arange(len(whole)))
    for row, batch in ((0, 999), (1, 5000), (1500, 700), (len(whole), 10)):
        source = feed(filled, kind=kind, start=None, batch=batch)
        source.seek({0: row})
        got = rest(source)
        for name, column in got.columns():
            assert column.tobytes() == getattr(whole, name)[row:].tobytes(), name


def test_replay_is_the_history(client: Client, filled: str) -> None:
    source = feed(filled, start="-30m")
    want = archive.ticks(client, UNIVERSE, "-30m")
    got = rest(source)
    assert isinstance(got, Ticks)
    assert got.ts.tobytes() == want.ts.tobytes()
    assert got.price.tobytes() == want.price.tobytes()
    start, end = source.span
    assert end - start == 1800 * SECOND
    assert source.name == f"replay:ticks-:{start}:{end}"


def test_bars_of_any_interval_are_replayed(client: Client, filled: str) -> None:
    for interval in ("1s", "1m", "1h"):
        source = feed(filled, kind="bars", interval=interval, start=None)
        assert source.interval == interval_ns(interval)
        want = archive.bars(client, UNIVERSE, interval=interval)
        assert rest(source).ts.tobytes() == want.ts.tobytes()


def test_speed_paces_by_the_wall_clock(filled: str) -> None:
    source = feed(filled, speed=600)
    first = source.poll(0.0)
    assert 1 <= len(first.events) < 200
    later = source.poll(0.2)
    assert 1 <= len(later.events) < 2000
    assert not later.ended
    source.close()


def test_position_behind_the_last_row_is_refused(filled: str) -> None:
    source = feed(filled, start=None)
    source.seek({0: 10**7})
    with pytest.raises(FeedError, match="fewer rows than the position"):
        source.poll(0)
    source.close()


def test_what_cannot_be_replayed_is_refused(client: Client, dsn: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'ticks'"):
        feed(dsn, kind="tick")
    with pytest.raises(ConfigError, match="speed"):
        feed(dsn, speed="warp")
    with pytest.raises(DataError, match="the store has no ticks"):
        feed(dsn).poll(0)
