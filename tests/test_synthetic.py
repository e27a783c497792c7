"""The seeded market: the same every time, from any position, and shaped like a market."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import ConfigError, FeedError
from sysquant.feeds.synthetic import SyntheticFeed, synthetic_bars, synthetic_ticks
from sysquant.types import SECOND, Instrument, Poll, Ticks

UNIVERSE = [
    Instrument("SIM:AAA", tick_size=0.01, lot_size=0.001),
    Instrument("SIM:BBB", tick_size=0.5, lot_size=1.0),
    Instrument("SIM:CCC", tick_size=0.0001, lot_size=10.0),
]
START, END = "2026-03-02T12:00:00Z", "2026-03-02T13:00:00Z"


def feed(**changed: object) -> SyntheticFeed:
    options = {"start": START, "end": END, "speed": "max", "ticks_per_second": 5.0}
    return SyntheticFeed(UNIVERSE, **(options | changed))  # pyright: ignore


def rest(source: SyntheticFeed) -> Ticks:
    polls: list[Poll] = []
    while not polls or not polls[-1].ended:
        polls.append(source.poll(0))
    return Ticks.join([poll.events for poll in polls])  # pyright: ignore


def bits(ticks: Ticks) -> list[bytes]:
    return [column.tobytes() for _, column in ticks.columns()]


@pytest.fixture(scope="module")
def hour() -> Ticks:
    return rest(feed())


def test_same_seed_gives_the_same_ticks_byte_for_byte(hour: Ticks) -> None:
    assert len(hour) > 10_000
    assert bits(rest(feed())) == bits(hour)
    assert bits(rest(feed(seed=2))) != bits(hour)


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10_000), batch=st.integers(1, 30_000))
def test_any_position_and_poll_size_give_the_same_rest(
    hour: Ticks, position: int, batch: int
) -> None:
    source = feed(batch=batch)
    source.seek({0: position})
    polls = [source.poll(0) for _ in range(3)]
    got = Ticks.join([poll.events for poll in polls])  # pyright: ignore
    assert polls[-1].next_offset == {0: position + len(got)}
    assert bits(got) == bits(hour[position : position + 3 * batch])


def test_end_is_told_and_a_position_behind_it_is_refused(hour: Ticks) -> None:
    source = feed()
    source.seek({0: len(hour)})
    assert source.poll(0).ended
    source.seek({0: len(hour) + 1})
    with pytest.raises(FeedError, match="offset was"):
        source.poll(0)


def test_ticks_do_not_depend_on_where_the_feed_starts(hour: Ticks) -> None:
    later = rest(feed(start="2026-03-02T12:30:00Z"))
    assert bits(later)[:5] == bits(hour[len(hour) - len(later) :])[:5]


def test_ticks_lie_on_the_steps_of_their_instrument(hour: Ticks) -> None:
    assert np.all(np.diff(hour.ts) >= 0)
    assert np.all(hour.received_at > hour.ts)
    for index, instrument in enumerate(UNIVERSE):
        mine = hour[hour.symbol == index]
        for values, step in (
            (mine.price, instrument.tick_size),
            (mine.volume, instrument.lot_size),
        ):
            steps = np.round(values / step)
            assert np.all(steps >= 1)
            np.testing.assert_allclose(values, steps * step, rtol=1e-12)


def test_market_has_bursts_fat_tails_and_correlation() -> None:
    bars = synthetic_bars(UNIVERSE, "2026-01-01", "2026-02-01", ticks_per_second=30.0)
    minutes, count = np.unique(bars.ts, return_counts=True)
    bars = bars[np.isin(bars.ts, minutes[count == 3])]
    closes = np.stack([bars.close[bars.symbol == s] for s in range(3)])
    returns = np.diff(np.log(closes))
    assert np.corrcoef(returns)[0, 1] > 0.2
    squares = returns[0] ** 2 / np.var(returns[0])
    assert np.mean(squares**2) > 6, "kurtosis of a jumping market"
    year = np.sqrt(np.var(returns, axis=1) * 1440 * 365)
    assert np.all((year > 0.2) & (year < 2.0))
    ticks = Ticks.join(list(synthetic_ticks(UNIVERSE, START, END, ticks_per_second=5.0)))
    assert np.mean(np.diff(ticks.ts) == 0) > 0.1, "many ticks share a millisecond"


def test_minute_bars_and_ticks_are_one_market(hour: Ticks) -> None:
    bars = synthetic_bars(UNIVERSE, START, END, ticks_per_second=5.0)
    assert np.all(np.diff(bars.ts) >= 0)
    assert bars.ts[0] > hour.ts[0]
    assert np.all(bars.ts % (60 * SECOND) == 0)
    for row in range(0, len(bars), 7):
        inside = (hour.ts >= bars.ts[row] - 60 * SECOND) & (hour.ts < bars.ts[row])
        prices = hour.price[inside & (hour.symbol == bars.symbol[row])]
        assert len(prices), "no tick, no bar"
        assert abs(prices[-1] / bars.close[row] - 1) < 0.005
    assert 0.7 < hour.volume[hour.symbol == 0].sum() / bars.volume[bars.symbol == 0].sum() < 1.4


def test_extremes_enclose_open_and_close() -> None:
    bars = synthetic_bars(UNIVERSE, "2026-01-01", "2026-01-03")
    assert np.all(bars.high >= np.maximum(bars.open, bars.close))
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))


def test_speed_paces_by_the_wall_clock(hour: Ticks) -> None:
    source = feed(speed=100)
    first = source.poll(0)
    assert 1 <= len(first.events) < 200
    second = source.poll(0.25)
    assert 1 <= len(second.events) < 2000
    assert not second.ended


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": "yesterday"}, "start must be like 2026-01-31"),
        ({"start": "2026-03-02T12:00:30Z"}, "whole minute"),
        ({"start": "1999-01-01"}, "2010 to 2049"),
        ({"end": START}, "must end after"),
        ({"length_s": 60}, "only one of"),
        ({"speed": "fast"}, "speed must be"),
        ({"speed": -1}, "speed must be"),
        ({"ticks_per_second": 0}, "ticks_per_second"),
        ({"seed": -1}, "seed"),
        ({"batch": 0}, "batch"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(
    changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        feed(**changed).poll(0)
