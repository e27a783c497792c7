"""Splits: nothing is both trained and tested on, and nothing is learnt of what is tested."""

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, TimeSeriesSplit, cross_val_score

from sysquant.errors import ConfigError, DataError
from sysquant.past import History
from sysquant.splits import CombinatorialPurged, WalkForward
from sysquant.types import SECOND, Bars, Gaps, Instrument

DAY = 86_400 * SECOND


def listed(splitter, x):
    return [(train.tolist(), test.tolist()) for train, test in splitter.split(x)]


def daily(count, *, start="2024-01-01"):
    index = pd.date_range(start, periods=count, freq="D", tz="UTC")
    return pd.DataFrame({"x": np.arange(count)}, index=index)


# -- walk-forward, by worked examples


def test_walk_forward_rolls_as_skfolio_publishes_it():
    assert listed(WalkForward(2, 1), np.zeros((6, 2))) == [
        ([0, 1], [2]), ([1, 2], [3]), ([2, 3], [4]), ([3, 4], [5]),
    ]  # fmt: skip
    assert listed(WalkForward(2, 1, horizon=1), np.zeros((6, 2))) == [
        ([0, 1], [3]), ([1, 2], [4]), ([2, 3], [5]),
    ]  # fmt: skip
    assert listed(WalkForward(3, 2), np.zeros((6, 2))) == [([0, 1, 2], [3, 4])]


@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize("expanding", [True, False])
def test_walk_forward_is_scikit_learns_with_a_gap(gap, expanding):
    x = np.zeros(5 + gap + 4 * 3)
    longest = None if expanding else 5
    theirs = TimeSeriesSplit(n_splits=4, test_size=3, gap=gap, max_train_size=longest)
    want = [(train.tolist(), test.tolist()) for train, test in theirs.split(x)]
    assert listed(WalkForward(5, 3, expanding=expanding, horizon=gap), x) == want
    assert listed(WalkForward(5, 3, expanding=expanding, embargo=gap), x) == want


def test_durations_are_windows_of_time():
    got = listed(WalkForward("10d", "5d", step="7d"), daily(30))
    assert [(t[0], t[-1], s[0], s[-1]) for t, s in got] == [
        (0, 9, 10, 14), (7, 16, 17, 21), (14, 23, 24, 28),
    ]  # fmt: skip
    assert got == listed(WalkForward(10, 5, step=7), daily(30))


def test_a_hole_in_time_shortens_windows_of_durations_only():
    x = daily(40).drop(pd.date_range("2024-01-13", "2024-01-16", tz="UTC"))
    got = list(WalkForward("10d", "5d").split(x))
    assert [str(x.index[test[0]].date()) for _, test in got] == [
        "2024-01-11", "2024-01-17", "2024-01-21", "2024-01-26", "2024-01-31", "2024-02-05",
    ]  # fmt: skip
    assert [len(test) for _, test in got] == [2, 4, 5, 5, 5, 5]
    assert [len(train) for train, _ in got] == [10, 10, 6, 9, 10, 10]
    assert {(len(train), len(test)) for train, test in WalkForward(10, 5).split(x)} == {(10, 5)}


@pytest.mark.parametrize(
    ("horizon", "embargo"), [("2d", 0), (0, "2d"), ("1d", "1d"), (2, 0), (1, 1)]
)
def test_horizon_and_embargo_keep_training_away_from_the_test(horizon, embargo):
    got = listed(WalkForward(10, 5, horizon=horizon, embargo=embargo), daily(30))
    assert got[0] == (list(range(10)), [12, 13, 14, 15, 16])
    assert got == listed(WalkForward("10d", "5d", horizon=horizon, embargo=embargo), daily(30))


# -- combinatorial, by worked examples


def test_combinatorial_is_as_skfolio_publishes_it():
    x = np.zeros((12, 2))
    a, b, c = list(range(4)), list(range(4, 8)), list(range(8, 12))
    assert listed(CombinatorialPurged(3, 2), x) == [(c, a + b), (b, a + c), (a, b + c)]
    assert listed(CombinatorialPurged(3, 2, horizon=1), x) == [
        (c[1:], a + b), (b[1:-1], a + c), (a[:-1], b + c),
    ]  # fmt: skip
    assert listed(CombinatorialPurged(3, 2, embargo=1), x) == [
        (c[1:], a + b), (b[1:], a + c), (a, b + c),
    ]  # fmt: skip


def test_six_groups_two_tested_give_the_fifteen_splits_and_five_paths_of_the_book():
    splitter = CombinatorialPurged(6, 2)
    assert splitter.get_n_splits() == 15
    assert splitter.paths.shape == (5, 6)
    # Lopez de Prado, figure 12.1: the first path takes S1, S1, S2, S3, S4, S5.
    assert (splitter.paths[0] + 1).tolist() == [1, 1, 2, 3, 4, 5]
    assert (splitter.paths[1] + 1).tolist() == [2, 6, 6, 7, 8, 9]
    times = np.bincount(splitter.paths.ravel(), minlength=15)
    assert times.tolist() == [2] * 15, "each split is used for each of its two groups"


def test_one_tested_group_is_the_k_fold():
    x = np.zeros((20, 1))
    want = [(train.tolist(), test.tolist()) for train, test in KFold(5).split(x)]
    assert listed(CombinatorialPurged(5, 1), x) == want
    assert len(CombinatorialPurged(5, 1).paths) == 1


def test_the_last_group_takes_what_is_left_over():
    tests = [test for _, test in listed(CombinatorialPurged(3, 1), np.zeros(11))]
    assert tests == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9, 10]]


def test_labels_of_their_own_length_are_purged_each_by_its_own():
    horizon = [0, 9, 0, 0, 0, 2, 0, 0, 0]
    assert listed(CombinatorialPurged(3, 1, horizon=horizon), np.zeros(9)) == [
        ([], [0, 1, 2]),  # sample 1 looks past the end
        ([0, 2, 8], [3, 4, 5]),  # 1 looks in; 5 looks out to 7
        ([0, 2, 3, 4], [6, 7, 8]),
    ]


# -- what holds for all


@st.composite
def problems(draw):
    n = draw(st.integers(12, 60))
    horizon = draw(
        st.one_of(st.integers(0, 4), st.lists(st.integers(0, 6), min_size=n, max_size=n))
    )
    return n, horizon, draw(st.integers(0, 4))


def overlaps(i, j, horizon):
    return i <= j + horizon[j] and j <= i + horizon[i]


@given(problems(), st.integers(2, 6), st.data())
def test_combinatorial_trains_on_exactly_what_no_test_could_leak_into(problem, groups, data):
    n, horizon, embargo = problem
    tested = data.draw(st.integers(1, groups - 1))
    splitter = CombinatorialPurged(groups, tested, horizon=horizon, embargo=embargo)
    looks = np.broadcast_to(horizon, n)
    blocks = [np.arange(g * (n // groups), (g + 1) * (n // groups)) for g in range(groups - 1)]
    blocks.append(np.arange((groups - 1) * (n // groups), n))
    for (train, test), choice in zip(
        splitter.split(np.zeros(n)), combinations(range(groups), tested), strict=True
    ):
        # By the definition: pair by pair, and behind the last label of each tested group.
        assert test.tolist() == np.concatenate([blocks[g] for g in choice]).tolist()
        shut = [(blocks[g][0], (blocks[g] + looks[blocks[g]]).max() + embargo) for g in choice]
        want = [
            i
            for i in range(n)
            if i not in test
            and not any(a <= i <= b for a, b in shut)
            and not any(i < a <= i + looks[i] for a, _ in shut)
        ]
        assert train.tolist() == want
        assert not any(overlaps(i, j, looks) for i in train for j in test)


@given(problems(), st.integers(1, 12), st.integers(1, 6), st.integers(1, 8), st.booleans())
def test_walk_forward_keeps_its_distance_and_its_order(problem, train, test, step, expanding):
    n, horizon, embargo = problem
    splitter = WalkForward(
        train, test, step=step, expanding=expanding, horizon=horizon, embargo=embargo
    )
    looks = np.broadcast_to(horizon, n)
    got = list(splitter.split(np.zeros(n)))
    assert len(got) == splitter.get_n_splits(np.zeros(n))
    for before, after in got:
        assert after.tolist() == list(range(after[0], after[0] + test))
        allowed = [i for i in range(n) if i + looks[i] + embargo < after[0]]
        assert before.tolist() == (allowed if expanding else allowed[-train:])
        assert len(before) >= train
    starts = [int(after[0]) for _, after in got]
    able = [a for a in range(n) if sum(i + looks[i] + embargo < a for i in range(n)) >= train]
    assert starts == (list(range(able[0], n - test + 1, step)) if able else [])


@given(st.integers(2, 7), st.data())
def test_every_path_tests_every_group_once_in_order(groups, data):
    tested = data.draw(st.integers(1, groups - 1))
    splitter = CombinatorialPurged(groups, tested)
    n = data.draw(st.integers(groups, 40))
    x = np.arange(n)
    assert splitter.paths.shape == (comb(groups, tested) * tested // groups, groups)
    parts = [test * 1000 + number for number, (_, test) in enumerate(splitter.split(x))]
    joined = splitter.join(parts, x)
    np.testing.assert_array_equal(joined // 1000, np.tile(x, (len(splitter.paths), 1)))
    used = {(value % 1000, value // 1000) for value in joined.ravel().tolist()}
    assert len(used) == joined.size == sum(map(len, parts)), "every test is used, and once"


@given(st.integers(2, 5), st.integers(4, 20), st.integers(0, 3), st.integers(0, 2))
def test_rows_of_one_time_are_never_parted(symbols, moments, horizon, embargo):
    x = daily(moments)
    panel = x.loc[x.index.repeat(symbols)]
    for splitter in (
        CombinatorialPurged(3, 1, horizon=horizon, embargo=embargo),
        WalkForward(2, 1, horizon=horizon, embargo=embargo),
    ):
        for one, all_of_them in zip(splitter.split(x), splitter.split(panel), strict=True):
            for few, many in zip(one, all_of_them, strict=True):
                want = (few[:, None] * symbols + np.arange(symbols)).ravel()
                np.testing.assert_array_equal(many, want)


# -- what it takes, and what it refuses


def test_bars_and_histories_are_samples():
    ts = np.repeat(np.arange(1, 31) * DAY, 2)
    zeros = np.zeros(60)
    bars = Bars(ts, np.tile([0, 1], 30).astype(np.int32), zeros, zeros, zeros, zeros, zeros,
                zeros.astype(np.int32), np.arange(60))  # fmt: skip
    both = (Instrument("A"), Instrument("B"))
    past = History(bars, both, DAY, 0, 30 * DAY, Gaps.empty())
    want = listed(WalkForward("10d", "5d"), pd.DataFrame(index=pd.DatetimeIndex(ts, tz="UTC")))
    assert len(want) == 4 and want[0][1] == list(range(20, 30))
    assert listed(WalkForward("10d", "5d"), bars) == want == listed(WalkForward("10d", "5d"), past)


def test_scikit_learn_takes_them_as_splitters():
    x = np.random.default_rng(1).normal(size=(60, 2))
    y = x @ [1.0, 2.0]
    for splitter in (WalkForward(20, 10), CombinatorialPurged(6, 2, horizon=1)):
        scores = cross_val_score(LinearRegression(), x, y, cv=splitter)
        assert len(scores) == splitter.get_n_splits(x)
        np.testing.assert_allclose(scores, 1.0)


def test_a_repr_can_be_pasted_back():
    for splitter in (WalkForward("9d", "3d", horizon=2), CombinatorialPurged(5, 2, embargo="1h")):
        assert repr(eval(repr(splitter))) == repr(splitter)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WalkForward(0, 1), "train must be a whole number >= 1"),
        (lambda: WalkForward(1.5, 1), "train must be a whole number"),
        (lambda: WalkForward("5x", "1d"), "train must be like"),
        (lambda: WalkForward("5d", 10), "all be bars or all be durations"),
        (lambda: WalkForward(5, 1, embargo=-1), "embargo must be a whole number >= 0"),
        (lambda: WalkForward(5, 1, horizon=[1, -1]), "horizon must be"),
        (lambda: WalkForward(5, 1, horizon=[0.5]), "horizon must be"),
        (lambda: WalkForward(5, 1, expanding=1), "expanding must be true or false"),
        (lambda: WalkForward(5, 1).get_n_splits(), "depends on X"),
        (lambda: CombinatorialPurged(1, 1), "groups must be a whole number >= 2"),
        (lambda: CombinatorialPurged(4, 4), "tested must be a whole number >= 1 and <= 3"),
        (lambda: CombinatorialPurged(30, 15), "take fewer groups"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_samples_that_cannot_be_split_are_refused():
    with pytest.raises(DataError, match="a duration needs samples with times"):
        list(WalkForward("5d", "1d").split(np.zeros(9)))
    with pytest.raises(DataError, match="a duration needs samples with times"):
        list(CombinatorialPurged(3, 1, horizon="1d").split(np.zeros(9)))
    with pytest.raises(DataError, match="must not go back, row 1 did"):
        list(WalkForward(2, 1).split(daily(9).iloc[::-1]))
    with pytest.raises(DataError, match="6 groups need as many moments, were 5"):
        list(CombinatorialPurged().split(np.zeros(5)))
    with pytest.raises(DataError, match="horizon has 2 moments, the samples have 9"):
        list(CombinatorialPurged(3, 1, horizon=[0, 1]).split(np.zeros(9)))
    with pytest.raises(DataError, match="a value for each row of its test"):
        CombinatorialPurged(3, 1).join([np.zeros(2)] * 3, np.zeros(9))


def test_too_little_history_has_no_split():
    for splitter in (WalkForward(10, 5), WalkForward("10d", "5d"), WalkForward(10, 1, horizon=99)):
        assert listed(splitter, daily(12)) == []
    assert listed(WalkForward(1, 1), np.zeros(0)) == []
