"""Training rows are those that are served, and nothing of what a model is judged on trains it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import ConfigError, DataError, ModelError
from sysquant.features import returns
from sysquant.models.families import FAMILIES, pipeline_of
from sysquant.models.labels import CLASSES, QuantileLabels, TripleBarrier, classes_of
from sysquant.models.serving import predicted
from sysquant.models.training import fit, judged, training_set, uniqueness
from sysquant.splits import WalkForward
from sysquant.strategies.ml_direction import MlDirection
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars
from tests.test_models_serving import SMALL

MINUTE = 60 * SECOND
BEGIN = 28_000_000 * MINUTE
LABELS = QuantileLabels(horizon="10m")


class Two(Strategy):
    """Looks at two returns."""

    classes = CLASSES

    def features(self, bar):
        return {"fast": returns(bar.close, 2), "slow": returns(bar.close, 15)}

    def target(self, f):
        chance = self.model.proba(f)
        return chance["up"] - chance["down"]


def bars(count, symbols=2, seed=0, signal=0.0):
    """Minutes of a walk; with a signal the last return says something of the next ten."""
    drawn = np.random.default_rng(seed)
    steps = drawn.normal(0, 1e-3, (count, symbols))
    for lag in range(1, 8):
        steps[lag:] += signal * steps[:-lag] / 7
    close = 100 * np.exp(np.cumsum(steps, axis=0)).ravel()
    empty, rows = Bars.empty(), count * symbols
    columns = {name: np.zeros(rows, of.dtype) for name, of in empty.columns()}
    columns |= {"open": close, "high": close * 1.0005, "low": close * 0.9995, "close": close}
    columns["ts"] = np.repeat(BEGIN + np.arange(1, count + 1) * MINUTE, symbols)
    columns["symbol"] = np.tile(np.arange(symbols, dtype=np.int32), count)
    columns["volume"] = np.ones(rows)
    return Bars(**columns)


def test_rows_are_the_features_of_the_strategy_byte_for_byte():
    history = bars(400)
    training = training_set(MlDirection(), history, LABELS)
    frame = MlDirection().frame(history, symbols=("A", "B")).drop(columns="target")
    assert list(frame.columns) == list(training.features)
    places = {
        (ts, s): row for row, (ts, s) in enumerate(zip(history.ts, history.symbol, strict=True))
    }
    rows = [places[ts, s] for ts, s in zip(training.ts, training.symbol, strict=True)]
    assert frame.to_numpy()[rows].tobytes() == training.x.tobytes()
    assert 600 < len(training) < 800
    assert training.x.flags.c_contiguous and np.isfinite(training.x).all()
    assert np.isfinite(training.value).all() and training.weight.mean() == pytest.approx(1)
    assert (training.known <= history.ts[-1]).all()


def test_each_symbol_is_labelled_by_its_own_bars():
    history = bars(200)
    together = training_set(Two(), history, LABELS)
    for symbol in range(2):
        alone = training_set(Two(), history[history.symbol == symbol], LABELS)
        rows = together.symbol == symbol
        np.testing.assert_array_equal(together.value[rows], alone.value)


@given(st.integers(2, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_label_weighs_what_of_it_is_its_own(count, seed):
    drawn = np.random.default_rng(seed)
    ts = np.cumsum(drawn.integers(1, 4, count)).astype(np.int64)
    known = ts + drawn.integers(0, 12, count)
    covers = [(ts > a) & (ts <= b) for a, b in zip(ts, known, strict=True)]
    crowd = np.sum(covers, axis=0)
    for cover, found in zip(covers, uniqueness(ts, known), strict=True):
        assert found == pytest.approx((1 / crowd[cover]).mean() if cover.any() else 1.0)


def test_what_is_judged_on_changes_neither_thresholds_nor_model():
    training = training_set(Two(), bars(1_500), LABELS)
    pipeline = pipeline_of("logistic_regression")
    rows = np.arange(1_000)
    one = fit(pipeline, training, rows)
    training.value[1_000:] *= 50
    training.x[1_000:] += 1
    other = fit(pipeline, training, rows)
    assert one.thresholds == other.thresholds
    x = training.x[:200]
    assert predicted(one.classifier, x).tobytes() == predicted(other.classifier, x).tobytes()
    assert fit(pipeline, training).thresholds != one.thresholds


def test_no_training_row_is_known_after_its_test_began():
    training = training_set(Two(), bars(2_000, symbols=1), LABELS)
    walk = WalkForward("600m", "300m", horizon=LABELS.horizon, embargo="5m")
    splits = list(walk.split(training.frame()))
    assert len(splits) >= 4
    for train, test in splits:
        assert training.known[train].max() < training.ts[test].min() - 5 * MINUTE + MINUTE


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_are_fitted_at_once_are_those_that_are_fitted_one_by_one(family, monkeypatch):
    training = training_set(MlDirection(), bars(1_200, symbols=1, signal=2.0), LABELS)
    pipeline = pipeline_of(family, SMALL.get(family))
    splits = list(WalkForward("400m", "200m", horizon=LABELS.horizon).split(training.frame()))
    found = list[list[bytes]]()
    for cores in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        judgement = judged(pipeline, training, splits)
        found.append([one.chances.tobytes() for one in judgement])
    assert found[0] == found[1] and len(found[0]) == 3


def test_a_planted_signal_is_found_and_noise_is_not():
    pipeline, right = pipeline_of("logistic_regression"), {}
    for signal in (0.0, 3.0):
        training = training_set(Two(), bars(6_000, symbols=1, signal=signal), LABELS)
        walk = WalkForward("2000m", "1000m", horizon=LABELS.horizon)
        found = list(judged(pipeline, training, walk.split(training.frame())))
        best = np.concatenate([one.chances.argmax(axis=1) for one in found])
        codes = np.concatenate([one.codes for one in found])
        right[signal] = float((best == codes).mean())
        for one in found:
            np.testing.assert_allclose(one.chances.sum(axis=1), 1.0)
    assert right[0.0] < 0.40 < 0.45 < right[3.0]


def test_classes_count_the_same_when_they_are_balanced():
    labels = TripleBarrier(horizon="10m", above=3.0, below=1.0, span=20)
    training = training_set(Two(), bars(3_000, symbols=1), labels)
    counts = np.bincount(classes_of(training.value, labels.thresholds(training.value)))
    assert counts[0] > 2 * counts[2] > 0
    pipeline = pipeline_of("logistic_regression")
    chances = [
        predicted(fit(pipeline, training, balance=balance).classifier, training.x).mean(axis=0)
        for balance in (True, False)
    ]
    np.testing.assert_allclose(chances[0], 1 / 3, atol=0.02)
    assert chances[1][2] < 0.25


def test_a_hash_names_all_that_a_fit_depends_on():
    sets = [
        training_set(Two(), bars(300), LABELS),
        training_set(Two(), bars(300, seed=1), LABELS),
        training_set(Two(), bars(300), QuantileLabels(horizon="11m")),
        training_set(Two(), bars(300), LABELS, weights="equal"),
        training_set(MlDirection(), bars(300), LABELS),
    ]
    assert len({one.hash for one in sets}) == len(sets)
    assert training_set(Two(), bars(300), LABELS).hash == sets[0].hash


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ModelError, match="names no classes"):
        training_set(Momentum(), bars(100), LABELS)
    with pytest.raises(DataError, match="of 80 bars none has both"):
        training_set(MlDirection(), bars(40), LABELS)
    with pytest.raises(ConfigError, match="did you mean 'uniqueness'"):
        training_set(Two(), bars(100), LABELS, weights="unique")
    training = training_set(Two(), bars(100), LABELS)
    training.value[:] = np.where(training.value > 0, 1.0, 0.0)
    barrier = TripleBarrier(horizon="10m")
    object.__setattr__(training, "labels", barrier)
    with pytest.raises(ModelError, match="none is 'down'"):
        fit(pipeline_of("logistic_regression"), training)
