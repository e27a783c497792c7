"""Bars by ticks, volume and value: against a plain definition, in a book, live and refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runners import parts
from sysquant import archive, backfill
from sysquant.activity import Activity, ActivityClock, bar_size, closed_bars
from sysquant.backtesting import backtest, fresh_engine, run
from sysquant.effects import Effects
from sysquant.errors import ConfigError, DataError, FeedError
from sysquant.execution import Execution
from sysquant.features import ema, rank
from sysquant.feeds.replay import ReplayFeed
from sysquant.packed import unpack_batch
from sysquant.sizing import VolatilityTarget
from sysquant.store import connect
from sysquant.strategy import Strategy
from sysquant.sweeping import sweep
from sysquant.types import SECOND, Instrument, Ticks, clock_mark, halt_mark
from tests.market import START, UNIVERSE, Flip, Hold, bars, engine, ticks
from tests.test_engine import cut, same
from tests.test_live import DECIDED, MemoryFeed, rows, session

pytest_plugins = ["tests.served"]

FIELDS = ("ts", "symbol", "open", "high", "low", "close", "volume")
VARIED = [
    dataclasses.replace(UNIVERSE[0], multiplier=5.0),
    dataclasses.replace(UNIVERSE[1], volume_unit="quote"),
]
SIZES = st.one_of(
    st.builds(Activity, st.just("ticks"), st.integers(1, 30)),
    st.builds(Activity, st.just("volume"), st.sampled_from((0.02, 1.0, 12.5))),
    st.builds(Activity, st.just("value"), st.sampled_from((3.0, 400.0, 2e4))),
)
EVERY = [Activity("ticks", 7), Activity("volume", 9.0), Activity("value", 1500.0)]


def counted(measure, instrument, price, volume):
    """What one tick counts for, as the page says."""
    if measure == "ticks":
        return 1.0
    if measure == "volume":
        return volume / price if instrument.volume_unit == "quote" else volume
    return volume if instrument.volume_unit == "quote" else price * volume * instrument.multiplier


def plain(batch, universe, activity):
    """Bars as (number of the last tick, ts, symbol, open, high, low, close, volume)."""
    found, now = [], 0
    taken = {number: [] for number in range(len(universe))}
    done = dict.fromkeys(taken, 0.0)
    columns = (batch.ts, batch.symbol, batch.price, batch.volume)
    for place, (ts, symbol, price, volume) in enumerate(
        zip(*map(np.ndarray.tolist, columns), strict=True)
    ):
        now = max(now, ts)
        if symbol < 0:
            continue
        taken[symbol].append((ts, price, volume))
        done[symbol] += counted(activity.measure, universe[symbol], price, volume)
        if done[symbol] >= activity.size * (1 - 1e-9):
            own, taken[symbol], done[symbol] = taken[symbol], [], 0.0
            prices = [price for _, price, _ in own]
            first, last = min(own, key=lambda t: t[0]), max(reversed(own), key=lambda t: t[0])
            total = 0.0
            for _, _, volume in own:
                total += volume
            bar = (first[1], max(prices), min(prices), last[1], total)
            found.append((place, now, symbol, *bar))
    return found


def closed(batches, universe, activity, most=1_000):
    """The same of the step function, and its clock."""
    clock, found, before = ActivityClock(universe, activity), [], 0
    for batch in batches:
        for taken, bars_, count in clock.passes(batch, most):
            columns = [getattr(bars_, name)[:count].tolist() for name in ("position", *FIELDS)]
            found += [(before + at - 1, *rest) for at, *rest in zip(*columns, strict=True)]
            before += len(taken.end)
    return found, clock


# -- the step function
@settings(max_examples=60)
@given(seed=st.integers(0, 1000), activity=SIZES, disorder=st.booleans())
def test_bars_are_those_of_the_plain_definition(seed, activity, disorder):
    batch = ticks(400, seed=seed, disorder=disorder)
    batch.symbol[::41] = -1
    batch.symbol[7::90] = halt_mark(1)
    found, clock = closed([batch], VARIED, activity)
    assert found == plain(batch, VARIED, activity)
    assert clock.clock["bars"][0] == len(found)
    assert clock.clock["late"][0] == (batch.ts < np.maximum.accumulate(batch.ts)).sum()


@settings(max_examples=40)
@given(
    activity=SIZES,
    places=st.lists(st.integers(0, 300), max_size=12),
    most=st.sampled_from((1, 7, 1_000)),
)
def test_any_cut_of_the_ticks_closes_the_same_bars(activity, places, most):
    batch = ticks(300, disorder=True)
    whole, one = closed([batch], VARIED, activity)
    pieces, other = closed(cut(batch, places), VARIED, activity, most)
    assert whole == pieces
    assert same(one.arrays(), other.arrays())
    table = closed_bars(cut(batch, places), VARIED, activity)
    expected = sorted(whole, key=lambda bar: bar[1:3])
    assert [list(bar[1:]) for bar in expected] == [
        list(row) for row in zip(*(getattr(table, name).tolist() for name in FIELDS), strict=True)
    ]
    assert table.offset.tolist() == list(range(len(whole)))


def of_volume(*volumes, price=10.0):
    """Ticks of the first symbol, two at each time."""
    batch = ticks(len(volumes), symbols=1)
    batch.ts[:] = START + np.arange(len(volumes)) // 2 * SECOND
    batch.price[:], batch.volume[:] = price, volumes
    return batch


def test_what_a_tick_has_too_much_stays_in_the_bar_it_completes():
    bars_ = closed_bars(of_volume(6, 5, 4, 1, 40, 9, 1, 9), UNIVERSE, "10volume")
    assert bars_.volume.tolist() == [11, 45, 10]
    assert bars_.ts.tolist() == [START, START + 2 * SECOND, START + 3 * SECOND]


def test_what_adds_up_but_for_rounding_is_enough():
    bars_ = closed_bars(of_volume(*[0.1] * 20), UNIVERSE, "1volume")
    plainly = np.cumsum([0.1] * 10)[-1]
    assert plainly < 1.0
    assert bars_.volume.tolist() == [plainly] * 2


def test_several_bars_may_close_at_one_time_and_a_frame_takes_them():
    bars_ = closed_bars(of_volume(10, 10, 10, 9), UNIVERSE, Activity("value", 100))
    assert bars_.ts.tolist() == [START, START, START + SECOND]
    assert len(Hold().frame(bars_)) == 3
    with pytest.raises(DataError, match="times of bars must rise, row 1 did not"):
        Across().frame(bars_)  # which of the two others see, only common bar ends would say


def test_time_bars_of_ticks_are_told_by_the_same_function():
    batch = ticks(900)
    own = closed_bars(batch, UNIVERSE, "1s")
    result = run(engine(), [batch], name="test")
    assert len(own) == result.engine.bars
    assert own.close.tolist() == result.closes["close"][: len(own)].tolist()


# -- in a book
@pytest.mark.parametrize("activity", EVERY, ids=str)
def test_any_cut_of_the_events_gives_the_same_bytes(activity):
    @settings(max_examples=15)
    @given(
        seed=st.integers(0, 1000),
        places=st.lists(st.integers(0, 600), max_size=12),
        symbols=st.sampled_from((1, 2)),
    )
    def holds(seed, places, symbols):
        events = ticks(600, seed=seed, disorder=True, symbols=symbols)
        whole, parts_, restored = (
            engine(interval=activity, universe=UNIVERSE[:symbols]) for _ in range(3)
        )
        effects = whole.step(events)
        pieces = []
        for piece in cut(events, places):
            pieces.append(parts_.step(piece))
            restored.restore(parts_.state())
        assert effects.hash() == Effects.join(pieces).hash()
        assert same(whole.state(), parts_.state()) and same(whole.state(), restored.state())
        assert whole.step(events).hash() == restored.step(events).hash()
        assert len(effects["orders"]) > 5

    holds()


def test_one_tick_at_a_time_equals_all_at_once_for_calm_and_busy_books():
    events = ticks(1_500, symbols=1)
    for strategy in (Flip(), Hold(weight=0.5)):
        whole, single = (
            engine(strategy, universe=UNIVERSE[:1], interval=Activity("ticks", 3)) for _ in "12"
        )
        effects = whole.step(events)
        pieces = [single.step(events[i : i + 1]) for i in range(len(events))]
        assert effects.hash() == Effects.join(pieces).hash()
        assert same(whole.state(), single.state())
        assert len(effects["executions"])


def test_an_order_is_decided_with_the_tick_that_completes_its_bar_and_fills_on_a_later_one():
    execution = Execution(latency_ms=0, slippage_bps=0, fee_bps=0)
    book = engine(
        Hold(weight=0.5), universe=UNIVERSE[:1], interval=Activity("ticks", 2), execution=execution
    )
    events = of_volume(1, 1, 1, 1)  # two at each time
    events.price[:] = [10.0, 11.0, 12.0, 13.0]
    first, second = book.step(events[:1]), book.step(events[1:2])
    assert not len(first["orders"]) and book.next_mark == 0
    assert second["orders"]["ts"].tolist() == [START]
    assert second["orders"]["price"].tolist() == [11.0]
    assert not len(second["executions"])
    third = book.step(events[2:])
    assert third["executions"]["reference"].tolist()[0] == 12.0
    # of the same time as the tick that caused it, but a later event
    again = engine(
        Hold(weight=0.5), universe=UNIVERSE[:1], interval=Activity("ticks", 1), execution=execution
    )
    fills = again.step(events)["executions"]
    assert (fills["ts"][0], fills["reference"][0]) == (START, 11.0)


def test_a_late_tick_may_complete_a_bar_and_marks_nothing():
    events = of_volume(1, 1, 1)
    events.ts[:] = START + np.array([0, 5, 2]) * SECOND
    events.price[:] = [10.0, 11.0, 99.0]
    book = engine(Hold(), universe=UNIVERSE[:1], interval=Activity("ticks", 3))
    effects = book.step(events)
    assert book.bars == 1 and book.late == 1
    assert effects["orders"]["ts"].tolist() == [START + 5 * SECOND]
    assert effects["orders"]["price"].tolist() == [11.0]


def test_clock_marks_close_no_bar_and_an_unfinished_one_decides_nothing():
    book = engine(Hold(), interval=Activity("ticks", 100))
    events = ticks(150, symbols=1)
    book.step(events)
    book.step(clock_mark(int(events.ts[-1]) + 3600 * SECOND))
    assert book.bars == 1 and book.next_mark == 0
    result = run(engine(interval=Activity("ticks", 100)), [events], name="test")
    assert result.closes["close"].tolist() == [events.price[99], events.price[-1]]
    assert result.closes["ts"].tolist() == [events.ts[99], events.ts[-1]]
    assert result.closes["volume"][1] == pytest.approx(events.volume[100:].sum())


def test_a_backtest_and_a_sweep_take_ticks_where_they_take_bars():
    events = ticks(3_000)
    result = backtest(Flip(weight=0.5), events, UNIVERSE, interval="20ticks")
    assert "20ticks" in result.engine.fingerprint()["bars"]
    assert result.engine.bars == len(closed_bars(events, UNIVERSE, "20ticks")) > 100
    decided = Flip(weight=0.5).frame(closed_bars(events, UNIVERSE, "20ticks"))["target"]
    changed = decided.groupby(level="symbol", observed=True).apply(
        lambda own: (own.dropna().diff() != 0).sum()
    )
    assert result.tally.signals == changed.sum()
    found = sweep(
        Flip, events, UNIVERSE, weight=[0.2, 0.5], interval="20ticks", progress=False, workers=1
    )
    assert found.frame["fills"].tolist()[1] == result.tally.fills > 10
    assert found.verified.trades > 0 and not found.verified.disagreements


def test_ticks_up_to_the_start_of_a_backtest_are_history():
    events = ticks(3_000, disorder=True)
    newest = np.maximum.accumulate(events.ts)
    start = int(newest[1_000])
    stop = np.searchsorted(newest, start, side="right")
    result = backtest(Flip(), events, UNIVERSE, interval="20ticks", start=start)
    by_hand = run(
        fresh_engine(Flip(), UNIVERSE, interval=Activity("ticks", 20)), [events[stop:]],
        name="test", history=lambda *_: closed_bars(events[:stop], UNIVERSE, "20ticks"),
    )  # fmt: skip
    assert result.effects.hash() == by_hand.effects.hash()
    assert result.start == events.ts[stop] > 0


# -- live
@pytest.mark.parametrize("activity", EVERY, ids=str)
def test_a_session_that_died_and_went_on_has_the_rows_of_a_backtest(tmp_path, activity):
    events, tables = ticks(1_200, disorder=True), {}
    feed = MemoryFeed(events)
    feed.breaks_at = 700
    first = session(tmp_path, feed, tables, book=engine(interval=activity), snapshot_s=3600.0)
    first._finish = lambda **_: None  # no snapshot: what was taken is replayed
    with pytest.raises(FeedError, match="refuses for good"):
        first.run()
    runner = session(tmp_path, MemoryFeed(events), tables, book=engine(interval=activity))
    runner.run()
    assert runner.ended
    inputs = [row for table in tables["inputs"].values() for row in table.to_pylist()]
    inputs = sorted((x for x in inputs if x["kind"] == "ticks"), key=lambda x: x["seq"])
    taken = Ticks.join([unpack_batch("ticks", x["payload"]) for x in inputs])
    result = run(engine(interval=activity), [taken], name="expected")
    for name in DECIDED:
        expected = [
            {k: v for k, v in row.items() if k not in ("run", "seq")}
            for row in result.arrow(name).to_pylist()
        ]
        assert rows(tables, name) == expected, name
    assert len(rows(tables, "executions")) > 20


STORED = [Instrument("SIM:A"), Instrument("SIM:B", tick_size=0.5)]


@pytest.mark.parametrize("size", ["40ticks", "1e5value"])
def test_a_session_on_a_replay_warms_up_and_trades_as_a_backtest(tmp_path, client, dsn, size):
    backfill.sample(
        client, STORED, days=1, hours=1, end="2026-03-02T12:00:00Z", ticks_per_second=2.0
    )

    def opened():
        return connect(dsn)

    def feed():
        return ReplayFeed(STORED, opened, start="-10m", batch=777)

    def book():
        return engine(universe=STORED, interval=bar_size(size))

    cfg = OmegaConf.create({"bars": size, "runtime": {"warmup_bars": 5}})
    history = parts.warmup_of(cfg, STORED, opened, feed())
    tables = {}
    runner = session(tmp_path, feed(), tables, book=book(), history=history)
    runner.run()
    replayed = archive.ticks(client, STORED, "-10m")
    result = run(book(), [replayed], name="expected", history=history)
    for name in DECIDED:
        expected = [
            {k: v for k, v in row.items() if k not in ("run", "seq")}
            for row in result.arrow(name).to_pylist()
        ]
        assert rows(tables, name) == expected, name
    assert len(rows(tables, "executions")) > 5
    warm = history(int(replayed.ts[0]), {})
    assert np.bincount(warm.symbol).tolist() == [5, 5]
    before = archive.ticks(client, STORED, None, int(feed().span[0]))
    assert warm.ts.max() <= before.ts[-1] < replayed.ts[0]


# -- refused
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1parsec", "bars must be like 1s, 5m, 1h or 1d, or like 500ticks, 10volume or 1e6value"),
        ("60", "was '60'"),
        ("ticks", "was 'ticks'"),
        ("0ticks", "ticks of a bar must be a whole number > 0"),
        ("1.5ticks", "was 1.5"),
        ("1e999value", "value of a bar must be > 0 and finite, was inf"),
        ("-5volume", "was '-5volume'"),
        ("1..5volume", "was '1..5volume'"),
    ],
)
def test_a_size_that_cannot_be_meant_is_refused(text, said):
    with pytest.raises(ConfigError) as caught:
        bar_size(text)
    assert said in str(caught.value)


def test_sizes_are_read_as_they_are_written():
    assert bar_size("5m") == 300 * SECOND
    for text, size in (
        ("500ticks", Activity("ticks", 500)),
        ("1e3 ticks", Activity("ticks", 1000)),
        ("0.1volume", Activity("volume", 0.1)),
        ("1_000_000value", Activity("value", 1e6)),
    ):
        assert bar_size(text) == size == bar_size(str(size)) == bar_size(size)
    with pytest.raises(ConfigError, match="measure of bars does not know 'tick'; did you mean"):
        Activity("tick", 5)


class Other(Strategy):
    """Looks at another symbol."""

    def features(self, bar):
        return {"x": ema(bar["SIM:B"].close, 3) - bar.close}


class Across(Strategy):
    """Looks across the universe."""

    def features(self, bar):
        return {"x": ema(rank(bar.close), 3)}


class Longer(Strategy):
    """Looks at longer bars."""

    def features(self, bar):
        return {"x": ema(bar.every("15m").close, 3) - bar.close}


class Pair(Strategy):
    """Trades two symbols together."""

    def features(self, bar):
        return {"x": bar["SIM:A"].close, "y": bar["SIM:B"].close}

    def legs(self):
        return ("SIM:A", "SIM:B")


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Other(), "'flip' uses bar[\"SIM:B\"], which needs bars that end at common times"),
        (Across(), "uses rank across the universe"),
        (Longer(), "uses bar.every of 900 s"),
        (Pair(), "uses legs SIM:A, SIM:B"),
    ],
)
def test_what_needs_common_bar_ends_is_refused(strategy, said):
    engine(strategy)  # time bars have them
    with pytest.raises(ConfigError) as caught:
        engine(strategy, interval=Activity("ticks", 5))
    assert said in str(caught.value) and "take bars of time" in str(caught.value)


def test_sizing_by_bars_per_year_is_refused():
    with pytest.raises(ConfigError, match="sizing=volatility_target of 'flip' counts bars per"):
        engine(sizing=VolatilityTarget(volatility=0.2), interval=Activity("ticks", 5))


def test_bars_are_refused_where_ticks_are_needed_and_nothing_is_taken():
    book = engine(interval=Activity("volume", 5))
    with pytest.raises(ConfigError, match=r"bars of 5volume are made of ticks, what came was Bars"):
        book.step(bars([1.0, 2.0]))
    assert book.engine_ts == 0
    with pytest.raises(ConfigError, match="made of ticks"):
        closed_bars(bars([1.0]), UNIVERSE, "5ticks")
    with pytest.raises(ConfigError, match="made of ticks"):
        backtest(Flip(), bars([1.0, 2.0]), UNIVERSE, interval="5ticks")
    with pytest.raises(ConfigError, match="screen='vectorbt' is for bars"):
        sweep(Flip, ticks(50), UNIVERSE, weight=[1.0], interval="5ticks", screen="vectorbt")
    batch = ticks(6, symbols=1)
    batch.symbol[3] = 2
    with pytest.raises(DataError, match="symbol number 2, the universe holds 2"):
        book.step(batch)
    assert book.engine_ts == 0


def test_bars_of_another_length_than_said_are_refused_by_a_backtest():
    made = closed_bars(ticks(400), UNIVERSE, "20ticks")
    with pytest.raises(DataError, match=r"apart at 2023-11-14T22:13:.*Z, with an interval of 60 s"):
        backtest(Flip(), made, UNIVERSE)
    seconds = bars([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match=r"of symbol number 0 close 1 s apart .* set interval="):
        backtest(Flip(), seconds, UNIVERSE)
    with pytest.raises(DataError, match=r"close -1 s apart .* sort them"):
        backtest(Flip(), seconds[::-1], UNIVERSE, interval=SECOND)
    assert backtest(Flip(), seconds, UNIVERSE, interval=SECOND).engine.bars == 2


def test_a_snapshot_of_time_bars_fits_no_book_of_activity():
    with pytest.raises(DataError, match="does not fit"):
        engine(interval=Activity("ticks", 5)).restore(engine().state())
