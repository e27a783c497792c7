"""The check of causality: a leak is caught by its reason, and no clean strategy is flagged."""

import importlib
import re
import sys
from itertools import count

import numpy as np
import pytest

from sysquant.activity import Activity, closed_bars
from sysquant.causality import Causality, examine, newest, trained_past
from sysquant.engine import Engine
from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.features.panel import Panel
from sysquant.forms import Market
from sysquant.noise import another_future
from sysquant.risk import RiskChain
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import example_symbols
from sysquant.survival import Life, survivors_only
from sysquant.times import DAY
from sysquant.types import SECOND, Bars, Instrument
from tests.causal import CLEAN
from tests.leaks import HEAD, LEAKS
from tests.market import CHECKS, ticks
from tests.test_strategies import STRATEGIES, made

MINUTE = 60 * SECOND
START = 1_700_000_000 * SECOND // (60 * MINUTE) * 60 * MINUTE
LIMITS = Causality(cuts=5, numbers=64)
_NUMBER = count()


def bars(symbols, length=320, seed=3):
    """Minute bars of a random walk, every symbol at every bar end."""
    rng, wide = np.random.default_rng(seed), len(symbols)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, (length, wide)), axis=0))
    open_ = np.concatenate((np.full((1, wide), 100.0), close[:-1]))
    spread = 1 + np.abs(rng.normal(0, 0.001, (2, length, wide)))
    columns = {
        "ts": np.repeat(START + MINUTE * (1 + np.arange(length)), wide),
        "symbol": np.tile(np.arange(wide, dtype=np.int32), length),
        "open": open_.ravel(), "close": close.ravel(),
        "high": (np.maximum(open_, close) * spread[0]).ravel(),
        "low": (np.minimum(open_, close) / spread[1]).ravel(),
        "volume": rng.lognormal(0, 1, length * wide),
        "partition": np.zeros(length * wide, np.int32), "offset": np.arange(length * wide),
    }  # fmt: skip
    return Bars(**columns)


def market(symbols=("A", "B"), events=None, **changes):
    """A market of bars, and an engine on it."""
    universe = [Instrument(symbol) for symbol in symbols]
    events = bars(symbols) if events is None else events

    def engine(strategy):
        return Engine(
            universe=universe, strategies={"own": strategy}, risk=RiskChain(checks=CHECKS),
            execution=Execution(latency_ms=50), interval=MINUTE, snapshot_ns=60 * MINUTE,
        )  # fmt: skip

    made = Market(universe, MINUTE, Bars.empty(), events, events, engine)
    return made._replace(**changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Make a strategy of a source: its module is written, and imported."""
    directory = tmp_path_factory.mktemp("written")
    own = bars(("A",))
    lines = ["ts,close", *(f"{ts},{close}" for ts, close in zip(own.ts, own.close, strict=True))]
    (directory / "later.csv").write_text("\n".join(lines))
    sys.path.insert(0, str(directory))

    def write(source):
        name = f"written_{next(_NUMBER)}"
        (directory / f"{name}.py").write_text(f"DATA = {str(directory / 'later.csv')!r}\n{source}")
        importlib.invalidate_caches()
        return importlib.import_module(name).Own()

    yield write
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.startswith("written_")]:
        del sys.modules[name]


def test_the_corpus_is_as_large_as_is_promised():
    assert len({leak.name for leak in LEAKS}) == len(LEAKS) >= 40
    assert len(CLEAN) + len(STRATEGIES) >= 20


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_a_leak_is_caught_by_its_own_reason(leak, written, monkeypatch):
    monkeypatch.delenv("SEEN_BARS", raising=False)
    monkeypatch.setattr(Panel, "advance", Panel.advance)  # which a leak may change
    found = examine(written(HEAD + leak.source), market(), LIMITS)
    said = "\n".join(found.failures)
    assert re.search(leak.reason, said), said or "nothing was found"


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_strategy_is_not_flagged(name, written):
    found = examine(written(CLEAN[name]), market(), LIMITS)
    assert not found.failures, "\n".join(found.failures)
    assert found.figures["decided"] and found.figures["orders"]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda cls: cls.__name__)
def test_a_shipped_strategy_is_not_flagged(strategy):
    one = made(strategy)
    symbols = example_symbols(one)
    found = examine(strategy(), market(symbols), LIMITS)
    assert not found.failures, "\n".join(found.failures)
    assert found.figures["decided"] and found.digest


@pytest.mark.parametrize("name", ["shift_minus_one", "global_mean", "one_bar_of_all"])
def test_each_form_sees_a_leak_by_itself(name, written):
    leak = next(leak for leak in LEAKS if leak.name == name)
    said = "\n".join(examine(written(HEAD + leak.source), market(), LIMITS).failures)
    assert "in the array form and" in said and "in the stream form" in said
    assert "the engine's signals" in said and "in one batch and bar by bar" in said
    if name != "one_bar_of_all":  # between which and the next no moment was drawn
        assert "rests on what came after" in said
        assert "are not the same whatever came after" in said
        assert "the target of" in said and "feature 'x'" in said


def test_a_leak_is_seen_in_ticks_and_in_bars_of_so_many_ticks(written):
    universe = [Instrument("A"), Instrument("B")]
    events = ticks(3_000, seed=5)
    leak = next(leak for leak in LEAKS if leak.name == "global_mean")
    for size in (10 * SECOND, Activity("ticks", 25)):
        made_of = market(events=events)._replace(
            interval=size, bars=closed_bars(events, universe, size),
            engine=lambda strategy, size=size: Engine(
                universe=universe, strategies={"own": strategy}, risk=RiskChain(checks=CHECKS),
                execution=Execution(latency_ms=50), interval=size, snapshot_ns=SECOND,
            ),
        )  # fmt: skip
        clean = examine(Momentum(fast=3, slow=9), made_of, LIMITS)
        assert not clean.failures, clean.failures
        assert clean.figures["orders"] and clean.figures["cuts_engine"] == LIMITS.cuts
        if isinstance(size, int):
            said = "\n".join(examine(written(HEAD + leak.source), made_of, LIMITS).failures)
            assert "the engine's signals" in said and "rests on what came after" in said


def test_history_before_the_first_event_warms_the_engine_in_every_run():
    whole = bars(("A", "B"))
    first = len(whole) // 2
    made_of = market(events=whole[first:], history=whole[:first], bars=whole)
    found = examine(Momentum(fast=3, slow=100), made_of, LIMITS)
    assert not found.failures and found.figures["orders"]
    assert found.figures["bars"] == len(whole) and found.figures["events"] == len(whole) - first


def test_a_strategy_of_no_module_is_examined_and_that_is_told():
    class Local(Momentum):
        pass

    found = examine(Local(fast=3, slow=9), market(), LIMITS)
    assert not found.failures
    assert found.notes[:1] == ["Local stands in no module, so it was not loaded anew"]


def test_a_strategy_without_an_opinion_shows_nothing():
    (failure,) = examine(Momentum(slow=500), market(), LIMITS).failures
    assert failure.startswith("it had no opinion on any of 640 bars, so nothing was shown")


def test_what_was_looked_at_is_told():
    (note,) = examine(Momentum(fast=3, slow=9), market(), LIMITS).notes
    assert re.fullmatch(
        r"640 bars, and 640 events with [\d,]+ orders, in every form, at 5 and 5 moments", note
    )


def test_the_digest_is_of_the_answers():
    one, again = (examine(Momentum(fast=3, slow=9), market(), LIMITS) for _ in range(2))
    assert one.digest == again.digest != examine(Momentum(fast=4, slow=9), market(), LIMITS).digest


def test_only_the_newest_part_of_a_long_history_is_looked_at():
    found = newest(market(), Causality(bars=100, events=60))
    assert len(found.bars) == 100 and len(found.events) == 60
    assert found.history.ts.max() == found.events.ts.min() - MINUTE
    assert len(newest(market(), LIMITS).bars) == len(newest(market(), LIMITS).events) == 640
    found = newest(market(events=ticks(900)), Causality(events=300))
    assert len(found.events) <= 300


def test_a_future_of_noise_leaves_the_past_as_it_was():
    for events in (bars(("A", "B")), ticks(500)):
        interval, lengths = MINUTE, set()
        for cut in (0, 100, 400):
            other = another_future(events, cut, 7 + cut, symbols=2, interval=interval)
            for name, column in events[:cut].columns():
                assert getattr(other, name)[:cut].tobytes() == column.tobytes()
            rest = other[cut:]
            assert (np.diff(rest.ts) >= 0).all() and (rest.volume > 0).all()
            assert not cut or rest.ts[0] >= events.ts[cut - 1]
            assert not np.isin(rest.volume, events.volume).any()
            lengths.add(len(rest) / len(events[cut:]))
            again = another_future(events, cut, 7 + cut, symbols=2, interval=interval)
            assert all(a.tobytes() == b.tobytes() for (_, a), (_, b) in
                       zip(other.columns(), again.columns(), strict=True))  # fmt: skip
        assert len(lengths) == 3
    noise = another_future(bars(("A", "B")), 100, 1, symbols=2, interval=MINUTE)
    assert (noise.high >= np.maximum(noise.open, noise.close)).all()
    assert (noise.low <= np.minimum(noise.open, noise.close)).all() and (
        noise.ts % MINUTE == 0
    ).all()
    assert len(np.unique(noise.ts * 2 + noise.symbol)) == len(noise)


# -- what only the records can say


def test_a_model_that_was_trained_past_the_history_is_refused():
    first = START + MINUTE
    assert trained_past("000003-abc", first - 1, first) == []
    (failure,) = trained_past("000003-abc", first, first)
    assert "model 000003-abc was trained on outcomes known until 2023-11-14T22:01:00Z" in failure
    assert "feed.start" in failure and "retrain.py" in failure


def test_a_universe_of_survivors_is_refused():
    end, day = START + 30 * DAY, DAY
    universe = [Instrument("X:A"), Instrument("X:B")]
    live = {"X:A": Life(START - day, end), "X:B": Life(START, end - day)}
    dead = {"X:DEAD": Life(START - 9 * day, START + 9 * day)}
    assert survivors_only(live, universe, START, end) == []
    (failure,) = survivors_only(live | dead, universe, START, end)
    assert failure.startswith("the universe holds survivors alone: X:DEAD stopped trading inside")
    assert "2023-11-23" in failure and "promotion.causality.left_out" in failure
    assert survivors_only(live | dead, universe, START, end, left_out=["X:DEAD"]) == []
    assert survivors_only(live | dead, universe, START + 10 * day, end) == []
    assert survivors_only(live | dead, universe, START, end, quiet_ns=30 * day) == []
    with_it = [*universe, Instrument("X:DEAD")]
    assert survivors_only(live | dead, with_it, START, end) == []
    elsewhere = {"Y:DEAD": dead["X:DEAD"], "DEAD": dead["X:DEAD"]}
    assert survivors_only(live | elsewhere, universe, START, end) == []
    more = dead | {"X:GONE": dead["X:DEAD"]}
    assert "X:DEAD, and 1 more, stopped" in survivors_only(live | more, universe, START, end)[0]
    assert "X:GONE stopped" in survivors_only(live | more, with_it, START, end)[0]


@pytest.mark.parametrize(
    "wrong", [{"cuts": 0}, {"bars": 0}, {"numbers": 1.5}, {"quiet_days": 0}, {"left_out": "X"}]
)
def test_a_limit_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"causality.{next(iter(wrong))} must be"):
        Causality(**wrong)
