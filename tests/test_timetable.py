"""Retraining in simulated time: at its hours, on what was known, by what trains live; resumed."""

import html
import math
import signal
import subprocess
import sys

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant import retraining, shelf, timetable
from sysquant.errors import ConfigError, DataError, ModelError, StrategyError
from sysquant.execution import Execution
from sysquant.past import History
from sysquant.retraining import Recipe, fitted_on, train, window
from sysquant.shelf import Shelf
from sysquant.strategies.momentum import Momentum
from sysquant.timetable import Timetable
from sysquant.trainings import RetrainedWalk
from sysquant.types import Bars, Instrument
from sysquant.walk import walk_forward
from tests.conftest import REPOSITORY
from tests.test_retraining import FREE, RECIPE, history
from tests.test_training import MINUTE, Two, bars
from tests.test_walk import FOUND

HOUR = 60 * MINUTE
LENGTH = 3_600 * MINUTE  # 60h
PLAIN = {"retrain": "4h", "window": "60h", "recipe": RECIPE, "execution": FREE, "progress": False}
NOISE_AFTER = 4_300  # rows


def mixed(count=5_600, after=NOISE_AFTER) -> History:
    """A planted signal, which is gone after so many bars."""
    planted, noise = history(3.0, count=count), history(0.0, count=count, seed=5)
    return changed(planted, noise.bars, after)


def changed(old: History, other: Bars, after: int) -> History:
    columns = dict(old.bars.columns())
    for name in ("open", "high", "low", "close"):
        columns[name] = columns[name].copy()
        columns[name][after:] = getattr(other, name)[after:]
    return History(
        Bars(**columns), old.universe, old.interval, old.start, old.end, old.gaps
    )  # fmt: skip


MARKET = mixed()


@pytest.fixture(autouse=True, scope="module")
def _kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYSQUANT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A cache with nothing in it."""
    monkeypatch.setenv("SYSQUANT_CACHE", str(tmp_path))
    return tmp_path / "trainings"


@pytest.fixture
def fits(monkeypatch):
    """Grows with every fit."""
    found, own = [], retraining.fit

    def counted(*args, **options):
        found.append(1)
        return own(*args, **options)

    monkeypatch.setattr(retraining, "fit", counted)
    return found


def walk(market=MARKET, strategy=Two, **options) -> RetrainedWalk:
    return walk_forward(strategy, market, **(PLAIN | options))


@pytest.fixture(scope="module")
def judged(_kept):
    return walk()


@pytest.fixture(scope="module")
def unjudged(_kept):
    return walk(judge=False)


def same(one: RetrainedWalk, other: RetrainedWalk) -> bool:
    rows = one.result.effects.rows
    are = all(one.result.effects[n].tobytes() == other.result.effects[n].tobytes() for n in rows)
    return are and one.frame.equals(other.frame)


# -- when


@given(
    first=st.integers(0, 500), count=st.integers(1, 900), every=st.integers(1, 90),
    length=st.integers(1, 400), took=st.integers(0, 90),
)  # fmt: skip
@settings(max_examples=200)
def test_trainings_are_at_multiples_of_their_interval_with_a_window_behind(
    first, count, every, length, took
):
    own = bars(count, symbols=1)
    begin = own.ts[0] + first * MINUTE
    own = Bars(**(dict(own.columns()) | {"ts": begin + np.arange(count) * MINUTE}))
    took = min(took, every)
    table = Timetable(every * MINUTE, length * MINUTE, took * MINUTE)
    wanted = [
        at
        for at in range(int(begin) // MINUTE - 1, int(own.ts[-1]) // MINUTE + 1)
        if at % every == 0
        and (at - length) * MINUTE >= begin - MINUTE
        and (at + took) * MINUTE < own.ts[-1]
    ]
    if wanted:
        assert (table.times(own, MINUTE) // MINUTE).tolist() == wanted
    else:
        with pytest.raises(DataError, match="first training on a whole window of"):
            table.times(own, MINUTE)


def test_a_window_holds_what_closed_by_its_end_and_opened_in_it():
    end = int(MARKET.bars.ts[4_000])
    seen = window(MARKET, end, "60h")
    assert seen.bars.ts[-1] == end and len(seen) == 3_600
    assert seen.bars.ts[0] - MINUTE == end - LENGTH == seen.start
    assert (seen.end, seen.universe, seen.interval) == (end, MARKET.universe, MINUTE)
    between = window(MARKET, end + MINUTE // 2, "60h")
    assert between.bars.ts[-1] == end and len(between) == 3_599
    with pytest.raises(DataError, match="no bar lies between 2023"):
        window(MARKET, int(MARKET.bars.ts[0]) - HOUR, "60h")
    with pytest.raises(ConfigError, match="window must be like"):
        window(MARKET, end, "long")


def test_each_training_saw_only_what_was_known_by_its_time(judged, unjudged):
    for found in (judged, unjudged):
        table = found.frame
        assert (np.diff(table["at"].astype("int64")) == 4 * HOUR).all()
        assert (table["at"].astype("int64") % (4 * HOUR) == 0).all()
        assert (table["known"] <= table["at"]).all() and (table["last"] < table["known"]).all()
        assert (table["at"] - table["first"] < pd.Timedelta(LENGTH)).all()
        assert (table["rows"] > 3_500).all() and len(table) >= 8


def test_labels_that_are_known_too_early_are_refused(unjudged):
    one = unjudged.trainings[0]
    trained = msgspec.structs.replace(one.facts.trained, known=one.at + 1)
    with pytest.raises(DataError, match="its labels look ahead"):
        type(one)(one.at, msgspec.structs.replace(one.facts, trained=trained))


@given(at=st.integers(0, 7), later=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=6, phases=FOUND)
def test_a_bar_after_a_training_changes_nothing_of_it(at, later, seed):
    judged, unjudged = walk(), walk(judge=False)  # trained once
    times = [one.at for one in judged.trainings]
    row = int(np.searchsorted(MARKET.bars.ts, times[at], side="right")) + later - 1
    other = changed(MARKET, history(1.0, count=len(MARKET), seed=100 + seed).bars, row)
    known = [time for time in times if time < other.bars.ts[row]]
    for one, options in ((unjudged, {"judge": False}), (judged, {})):
        found = walk(other, **options)
        for mine, theirs in zip(one.trainings[: len(known)], found.trainings, strict=False):
            assert repr(mine.facts) == repr(theirs.facts) and mine.reasons == theirs.reasons
            assert mine.serves == theirs.serves
        mine, theirs = (r.result.effects["signals"] for r in (one, found))
        before = [rows[rows["ts"] < other.bars.ts[row]].tobytes() for rows in (mine, theirs)]
        assert before[0] == before[1]


# -- what trains and serves


def test_every_training_is_the_one_that_live_would_do(judged):
    serving = None
    for one in judged.trainings:
        seen = window(MARKET, one.at, "60h")
        by_hand = train(RECIPE, Two(), seen, serving, execution=FREE)
        assert one.facts.id == by_hand.id and one.facts.scores == by_hand.scores
        assert one.facts.trained.hash == by_hand.training.hash
        assert one.reasons == by_hand.verdict.reasons
        assert math.isnan(one.earned_before) == (by_hand.before is None)
        assert (one.model is not None) == by_hand.verdict.publish
        if by_hand.verdict.publish:
            serving = by_hand.fitted.served(by_hand.training)
    assert {one.verdict.partition(":")[0] for one in judged.trainings} == {"published", "kept back"}


def test_a_training_without_a_judge_has_the_same_id(judged, unjudged):
    assert [one.facts.id for one in judged.trainings] == [o.facts.id for o in unjudged.trainings]
    assert all(one.verdict == "published" for one in unjudged.trainings)
    seen = window(MARKET, unjudged.trainings[2].at, LENGTH)
    assert fitted_on(RECIPE, Two(), seen).id == unjudged.trainings[2].facts.id


def test_each_bar_is_decided_by_the_model_that_served_then(judged):
    features = Two().frame(MARKET.bars)
    signals = judged.result.table("signals")
    assert len(signals) > 1_000
    for one in judged.trainings:
        if one.model is None:
            assert one.serves == one.until == 0
            continue
        assert one.serves == one.at + MINUTE, "the bar of its time was decided on before"
        own = signals[
            (signals["ts"] >= pd.Timestamp(one.serves, tz="UTC"))
            & (signals["ts"] < pd.Timestamp(one.until, tz="UTC"))
        ]
        rows = features.loc[own["ts"]]
        chance = one.model.proba({name: rows[name].to_numpy() for name in ("fast", "slow")})
        np.testing.assert_array_equal(own["target"].to_numpy(), chance["up"] - chance["down"])
    covered = sum(one.until - one.serves for one in judged.trainings)
    assert covered == MARKET.bars.ts[-1] - judged.models[0][0]


def test_nothing_is_decided_before_the_first_model(judged, unjudged):
    for found in (judged, unjudged):
        decided = found.result.effects["signals"]["ts"]
        assert decided.min() == found.models[0][0] > found.begin
    noise = walk(history(0.0, count=4_800, seed=3))
    assert not noise.models and not len(noise.result.effects["signals"])
    assert "no model served in the first" in repr(noise) and "0 published" not in repr(noise)
    assert noise.frame["serves"].isna().all() and noise.figure.data


def test_a_model_serves_once_its_training_is_over(unjudged):
    slow = walk(judge=False, took="30m")
    assert all(one.serves == one.at + HOUR // 2 + MINUTE for one in slow.trainings)
    assert slow.result.effects["signals"]["ts"][0] == slow.trainings[0].serves
    assert slow.begin == slow.trainings[0].at + HOUR // 2
    assert slow.frame["id"].equals(unjudged.frame["id"])
    assert not same(slow, unjudged)


def test_a_model_serves_after_the_bar_during_which_it_came(unjudged):
    between = walk(judge=False, took="90s")
    assert all(one.serves == one.at + 2 * MINUTE for one in between.trainings)
    own, theirs = (one.result.effects["signals"] for one in (between, unjudged))
    late = [one.at + MINUTE for one in unjudged.trainings]
    rest = [rows[~np.isin(rows["ts"], late)] for rows in (own, theirs)]
    np.testing.assert_array_equal(rest[0]["target"], rest[1]["target"])
    assert np.isin(late[1:], own["ts"]).all() and late[0] not in own["ts"]
    both = [rows["target"][np.isin(rows["ts"], late[1:])] for rows in (own, theirs)]
    assert (both[0] != both[1]).all()


def test_bars_with_their_universe_are_walked_as_a_history_is(unjudged):
    assert same(walk(MARKET.bars, universe=MARKET.universe, judge=False), unjudged)


def test_a_walk_over_several_symbols_trains_on_all_of_them():
    market = bars(4_200, symbols=2, signal=3.0)
    universe = [Instrument("SIM:A", 1e-6, 1e-6), Instrument("SIM:B", 1e-6, 1e-6)]
    found = walk(market, universe=universe, judge=False)
    assert len(found.trainings) == 3 and (found.frame["rows"] == 2 * 3_575).all()
    decided = found.result.effects["signals"]
    assert decided["ts"].min() == found.models[0][0] and set(decided["symbol"]) == {0, 1}


def test_a_training_that_fails_leaves_the_model_before(monkeypatch, empty):
    own, calls = timetable.fitted_on, []

    def failing(recipe, strategy, seen):
        calls.append(seen.end)
        if seen.end == max(calls) and len(calls) > 3:
            raise ModelError("of 9 training rows none is 'up': take a longer window")
        return own(recipe, strategy, seen)

    monkeypatch.setattr(timetable, "fitted_on", failing)
    found = walk(judge=False, workers=1)
    assert [one.model is None for one in found.trainings[:5]] == [False] * 3 + [True] * 2
    assert "failed: of 9 training rows" in found.frame["verdict"].iloc[-1]
    assert found.trainings[2].until == MARKET.bars.ts[-1] and "failed" in repr(found)


# -- not twice


def test_a_second_walk_fits_nothing_and_finds_the_same(judged, unjudged, fits, monkeypatch):
    monkeypatch.setattr(timetable, "traded", lambda *_, **__: pytest.fail("it was compared again"))
    assert same(walk(), judged) and same(walk(judge=False), unjudged)
    assert not fits


def test_a_walk_that_was_cut_off_goes_on_where_it_was(unjudged, empty, fits, monkeypatch):
    own, done = Shelf.put, []

    def cut(self, key, *more):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(key)
        return own(self, key, *more)

    monkeypatch.setattr(Shelf, "put", cut)
    with pytest.raises(KeyboardInterrupt):
        walk(judge=False, workers=1)
    monkeypatch.setattr(Shelf, "put", own)
    before = len(fits)
    assert same(walk(judge=False), unjudged)
    assert len(fits) - before == len(unjudged.trainings) - 4


# Dies between the third model and its facts.
KILLED = """
import os, signal, sys
import tests.conftest
import sysquant.compiled  # compiled functions are kept where they are for all tests
from tests.test_timetable import Shelf, walk

os.environ["SYSQUANT_CACHE"] = sys.argv[1]

own, done = Shelf._write, []

def write(self, path, content):
    done.append(path.name)
    if sum(name.endswith("facts.json") for name in done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    own(self, path, content)

Shelf._write = write
walk(judge=False, workers=1)
"""


def test_a_walk_that_was_killed_goes_on_where_it_was(unjudged, empty, fits):
    done = subprocess.run([sys.executable, "-c", KILLED, str(empty.parent)], cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert len(list(empty.glob("*.facts.json"))) == 2 < len(list(empty.glob("*.skops")))
    assert same(walk(judge=False), unjudged)
    assert len(fits) == len(unjudged.trainings) - 2


def test_what_is_not_whole_is_trained_again(empty, fits, unjudged):
    walk(judge=False)
    facts, models = (sorted(empty.glob(f"*.{end}")) for end in ("facts.json", "skops"))
    assert len(facts) == len(models) == len(fits) == len(unjudged.trainings)
    facts[0].write_text(facts[0].read_text()[:50])
    facts[1].write_text("[]")
    facts[2].unlink()
    named = models[4].with_name(facts[3].name.replace("facts.json", "model.skops"))
    named.write_bytes(models[4].read_bytes())
    fits.clear()
    assert same(walk(judge=False), unjudged)
    assert len(fits) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": msgspec.structs.replace(RECIPE, settings={"c": 0.5})},
        {"window": "59h"},
        {"judge": True, "execution": Execution(fee_bps=1.0)},
    ],
)
def test_another_training_is_not_taken_for_one_that_is_kept(judged, unjudged, fits, changes):
    walk(**({"judge": False} | changes))
    assert fits


def test_a_longer_history_trains_only_what_is_new(empty, fits):
    short = changed(MARKET, MARKET.bars, 0)
    short = History(
        short.bars[:4_700], short.universe, MINUTE, short.start, short.end, short.gaps
    )  # fmt: skip
    known = walk(short, judge=False)
    fits.clear()
    found = walk(judge=False)
    assert len(fits) == len(found.trainings) - len(known.trainings) > 0


def test_a_helper_that_changes_is_noticed(monkeypatch, empty, fits):
    import tests.test_training as place

    walk(judge=False)
    fits.clear()
    own = place.returns
    monkeypatch.setattr(place, "returns", lambda close, span: own(close, span + 1))
    walk(judge=False)
    assert fits


def test_only_models_that_serve_stay_in_memory(unjudged):
    kept = unjudged.models[0][1]._shelf
    assert len(kept._opened) <= 2 < len(unjudged.models)


def test_a_model_that_is_gone_is_told(empty):
    found = walk(judge=False)
    for path in empty.glob("*.skops"):
        path.unlink()
    lost = Shelf().model(found.models[0][1].key)
    with pytest.raises(ModelError, match="is gone, or was changed, since the walk began"):
        lost.proba({"fast": np.zeros(1), "slow": np.zeros(1)})


def test_a_kept_model_of_strange_types_is_not_opened(empty, monkeypatch):
    found = walk(judge=False)
    monkeypatch.setattr(shelf, "unpacked", lambda *_: pytest.fail("it was opened unchecked"))
    lost = Shelf().model(found.models[0][1].key)
    path = next(empty.glob(f"{lost.key}*.skops"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="was changed"):
        lost.proba({"fast": np.zeros(1), "slow": np.zeros(1)})


def test_workers_change_nothing(unjudged, judged, empty):
    assert same(walk(judge=False, workers=3), unjudged)
    assert same(walk(workers=1), judged)


# -- what it says


def test_prints_what_was_trained_and_what_it_earned(judged, unjudged):
    lines = [line for line in repr(judged).split("\n") if "  !" not in line]
    assert lines[0].startswith("Two() trained every 4h on 60h: ") and " kept back" in lines[0]
    assert "skill" in lines[1] and len(lines) <= 20 and max(map(len, lines)) < 160
    assert not judged.notes and len(unjudged.notes) == 1
    assert "no model was judged" in repr(unjudged) and "skill" not in repr(unjudged)
    shown = judged._repr_html_()
    assert html.escape(lines[0]) in shown
    assert shown.count("<td>published</td>") == len(judged.models)


def test_table_has_a_row_per_training(judged):
    assert list(judged.frame) == [
        "at", "rows", "first", "last", "known", "skill", "skill_low", "earned", "earned_before",
        "verdict", "serves", "until", "id",
    ]  # fmt: skip
    assert list(judged.frame.index) == list(range(1, len(judged.trainings) + 1))
    assert judged.frame["id"].nunique() == len(judged.trainings)
    pd.testing.assert_series_equal(judged.equity, judged.result.equity)
    assert judged.statistics.loc["total_return", "value"] == pytest.approx(
        judged.equity.iloc[-1] / 1e6 - 1
    )


def test_figure_shows_equity_swaps_and_what_tests_earned(judged, unjudged):
    names = [trace.name for trace in judged.figure.data]
    assert names == ["equity", "buy and hold", "published", "kept back"]
    assert len(judged.figure.data[2].x) == len(judged.models)
    assert len(judged.figure.layout.shapes) == 2 * len(judged.models)
    assert len(unjudged.figure.layout.shapes) == len(unjudged.models)


# -- what it refuses


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"splits": 3}, ConfigError, "splits chooses parameters: leave it out, or retrain="),
        ({"where": max}, ConfigError, "where chooses parameters"),
        ({"rank": "return"}, ConfigError, "rank chooses parameters"),
        ({"retrain": None}, ConfigError, r"recipe is for models: give retrain='4h' as well"),
        ({"retrain": None, "recipe": None}, ConfigError, "window is for models"),
        ({"retrain": "often"}, ConfigError, "retrain must be like"),
        ({"retrain": "30s"}, ConfigError, "retrain must be at least a bar of 1m, was 30s"),
        ({"window": "1s"}, ConfigError, "window must be at least a bar of 1m, was 1s"),
        ({"window": "9d"}, DataError, "first training on a whole window of 9d would be at 2023"),
        ({"took": "5h"}, ConfigError, "took must be at most retrain='4h', was '5h'"),
        ({"took": "soon"}, ConfigError, "took must be like"),
        ({"judge": 1}, ConfigError, "judge must be true or false"),
        ({"workers": 0}, ConfigError, "workers must be a whole number >= 1"),
        ({"recipe": "forest"}, ConfigError, "recipe must be a sysquant.retraining.Recipe"),
        ({"recipe": Recipe(family="forest")}, ConfigError, "family does not know 'forest'"),
        ({"window": "40h"}, DataError, "every training failed, the first one because: 1.6 days"),
        ({"strategy": Momentum}, ModelError, "names no classes, so there is no model to retrain"),
        ({"fast": [1, 2]}, ConfigError, r"fast must be one value with retrain=, was \[1, 2\]"),
        ({"fast": 3}, ConfigError, "Two has no parameter 'fast'"),
        ({"interval": "5m"}, ConfigError, "a history has its own universe and interval"),
        ({"market": history(0.0).bars[:0], "universe": MARKET.universe}, DataError, "no bars"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_way_out(options, error, said):
    with pytest.raises(error, match=said):
        walk(**options)


def test_a_strategy_that_breaks_its_contract_ends_the_walk():
    class Wild(Two):
        def target(self, f):
            return super().target(f) + 3.0

    with pytest.raises(StrategyError):
        walk(strategy=Wild)
