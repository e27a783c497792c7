"""Drift is small where nothing moved, grows with what did, and is of the newest rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.models.drift import LEAST, WINDOW, Drift, Reference, references_of

DRAWN = np.random.default_rng(0)
TRAINED = DRAWN.normal(size=(5_000, 2))
CHANCES = DRAWN.dirichlet([5, 5, 5], 5_000)


def drift():
    return Drift(("a", "b"), ("down", "flat", "up"), references_of(TRAINED, CHANCES))


def asked(count, shift=0.0, seed=1):
    drawn = np.random.default_rng(seed)
    return drawn.normal([shift, 0.0], 1.0, (count, 2)), drawn.dirichlet([5, 5, 5], count)


def test_the_index_of_shares_by_hand():
    reference = Reference((0.0,), (0.5, 0.5))
    now = np.repeat([-1.0, 1.0], [80, 20])
    assert reference.psi(now) == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(deadline=None)
def test_nothing_moved_is_zero_and_it_is_never_below(seed, distinct):
    column = np.random.default_rng(seed).integers(0, distinct, 500).astype(float)
    reference = Reference.of(column)
    assert reference.psi(column) == pytest.approx(0.0, abs=1e-12)
    assert sum(reference.shares) == pytest.approx(1.0)
    assert reference.psi(column + 1.0) >= 0.0


def test_what_moved_is_told_by_its_column():
    one = drift()
    one.see(*asked(1_000))
    assert {(each.kind, each.name) for each in one.measure()} == {
        ("feature", "a"), ("feature", "b"), ("prediction", "down"), ("prediction", "flat"),
        ("prediction", "up"),
    }  # fmt: skip
    assert max(each.psi for each in one.measure()) < 0.05
    one.see(*asked(1_000, shift=1.0))
    moved = {each.name: each.psi for each in one.measure()}
    assert moved["a"] > 0.25 > 0.05 > moved["b"]


def test_few_rows_say_nothing_and_the_newest_count():
    one = drift()
    one.see(*asked(LEAST - 1))
    assert one.measure() == []
    for seed in range(40):
        one.see(*asked(100, shift=3.0, seed=seed))
    for seed in range(10):
        one.see(*asked(100, seed=seed))
    assert all(each.psi < 0.1 and each.rows == WINDOW for each in one.measure())
    assert one.asked == LEAST - 1 + 5_000
