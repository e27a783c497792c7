"""Labels look ahead as far as they say, and take their thresholds from what they are given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import ConfigError, DataError
from sysquant.models.labels import QuantileLabels, TripleBarrier, classes_of
from sysquant.types import SECOND

MINUTE = 60 * SECOND


def bars(count, seed=0, holes=0.2):
    drawn = np.random.default_rng(seed)
    ts = np.flatnonzero(drawn.random(2 * count + 2) >= holes)[:count].astype(np.int64) * MINUTE
    close = 100 * np.exp(np.cumsum(drawn.normal(0, 1e-3, len(ts))))
    spread = close * drawn.exponential(1e-3, len(ts))
    return ts, close + spread, close - spread, close


@given(st.integers(1, 80), st.integers(0, 50), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_returns_run_to_the_last_close_of_the_horizon(count, seed, minutes):
    ts, high, low, close = bars(count, seed)
    found = QuantileLabels(horizon=f"{minutes}m").outcomes(ts, high, low, close)
    for row in range(len(ts)):
        end = ts[row] + minutes * MINUTE
        assert found.known[row] == end
        if end > ts[-1]:
            assert np.isnan(found.value[row])
        else:
            assert found.value[row] == close[ts <= end][-1] / close[row] - 1.0


@given(st.integers(1, 80), st.integers(0, 50), st.integers(1, 30), st.floats(0.1, 3.0))
@settings(max_examples=60, deadline=None)
def test_the_first_barrier_that_is_touched_counts(count, seed, minutes, above):
    ts, high, low, close = bars(count, seed)
    labels = TripleBarrier(horizon=f"{minutes}m", above=above, below=1.0, span=10)
    found = labels.outcomes(ts, high, low, close)
    changes, spacing = np.diff(np.log(close)), np.median(np.diff(ts)) if len(ts) > 1 else 1
    for row in range(len(ts)):
        end = ts[row] + minutes * MINUTE
        if row < 10:
            assert np.isnan(found.value[row])
            continue
        spread = changes[row - 10 : row].std() * np.sqrt(max(1, minutes * MINUTE / spacing))
        later = [at for at in range(row + 1, len(ts)) if ts[at] <= end]
        touched = [
            (at, float(high[at] >= close[row] * (1 + above * spread)),
             float(low[at] <= close[row] * (1 - spread))) for at in later
        ]  # fmt: skip
        first = next((one for one in touched if one[1] or one[2]), None)
        if first:
            assert (found.value[row], found.known[row]) == (first[1] - first[2], ts[first[0]])
        elif ts[-1] >= end:
            assert (found.value[row], found.known[row]) == (0.0, end)
        else:
            assert np.isnan(found.value[row])


def test_what_follows_the_horizon_changes_no_outcome():
    ts, high, low, close = bars(400, holes=0.0)
    for labels in (QuantileLabels(horizon="20m"), TripleBarrier(horizon="20m", span=30)):
        whole = labels.outcomes(ts, high, low, close)
        part = labels.outcomes(*(column[:300] for column in (ts, high, low, close)))
        known = np.isfinite(part.value)
        assert known.sum() > 200
        np.testing.assert_array_equal(part.value[known], whole.value[:300][known])
        np.testing.assert_array_equal(part.known[known], whole.known[:300][known])


def test_thirty_in_a_hundred_are_down_and_as_many_up():
    value = np.random.default_rng(0).permutation(np.linspace(-1, 1, 1_000))
    labels = QuantileLabels()
    codes = classes_of(value, labels.thresholds(value))
    assert np.bincount(codes).tolist() == [300, 400, 300]
    assert value[codes == 0].max() < value[codes == 1].min() < value[codes == 2].min()


def test_returns_that_do_not_vary_are_refused():
    with pytest.raises(DataError, match="have the quantiles 0"):
        QuantileLabels().thresholds(np.zeros(100))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: QuantileLabels(low=0.8), "low must be"),
        (lambda: QuantileLabels(high=1.0), "high must be"),
        (lambda: QuantileLabels(horizon="soon"), "horizon must be"),
        (lambda: TripleBarrier(above=0), "above must be > 0"),
        (lambda: TripleBarrier(span=1), "span must be"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
