"""Served models say of a row what they say of it alone, whatever family they are of."""

import numpy as np
import pytest
from sklearn.base import clone

from sysquant.errors import ConfigError, ModelError
from sysquant.models.families import FAMILIES, pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.serving import BLOCK, ServedModel, predicted

NAMES = tuple("abcdef")
SMALL = {"random_forest": {"trees": 40}, "gradient_boosting": {"rounds": 20}}


def rows(count, seed=0):
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(count, len(NAMES))) * [1.0, 1e-4, 1e4, 1.0, 1.0, 1.0]
    edge = x[:, 0] + drawn.normal(size=count)
    return x, np.array(CLASSES)[np.digitize(edge, [-0.6, 0.6])]


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request):
    x, y = rows(2_000)
    return pipeline_of(request.param, SMALL.get(request.param)).fit(x, y)


def test_a_thousand_rows_at_once_are_the_same_bytes_as_one_at_a_time(fitted):
    x, _ = rows(1_000, seed=1)
    together = predicted(fitted, x)
    alone = np.concatenate([predicted(fitted, x[[row]]) for row in range(len(x))])
    assert together.tobytes() == alone.tobytes()
    assert len(np.unique(together, axis=0)) > 100, "rows of several kinds are told apart"
    order = np.random.default_rng(2).permutation(len(x))
    assert predicted(fitted, x[order]).tobytes() == together[order].tobytes()


def test_a_family_fits_the_same_model_again(fitted):
    x, y = rows(2_000)
    again = clone(fitted)
    assert predicted(again.fit(x, y), x).tobytes() == predicted(fitted, x).tobytes()


def test_weights_count(fitted):
    x, y = rows(600)
    last = fitted.steps[-1][0]
    weight = {f"{last}__sample_weight": np.where(y == "up", 9.0, 1.0)}
    heavy = clone(fitted).fit(x, y, **weight)
    up = list(heavy.classes_).index("up")
    assert predicted(heavy, x)[:, up].mean() > predicted(fitted, x)[:, up].mean() + 0.05


class Echo:
    """Tells the rows it is asked with; its classes stand in another order than the strategy's."""

    classes_ = np.array(["down", "flat", "up"])

    def __init__(self):
        self.blocks = []

    def predict_proba(self, x):
        self.blocks.append(x.copy())
        return x[:, :3]


def test_it_is_asked_in_whole_blocks_that_are_padded_with_their_last_row():
    echo = Echo()
    x = np.arange(BLOCK * 3 + 3, dtype=float).reshape(-1, 3)
    assert (predicted(echo, x) == x).all()
    assert [block.shape for block in echo.blocks] == [(BLOCK, 3)] * 2
    assert all(block.flags.c_contiguous for block in echo.blocks)
    assert (echo.blocks[1][1:] == x[-1]).all()
    assert predicted(echo, x[:0]).shape == (0, 3) and len(echo.blocks) == 2


def test_what_is_not_finite_has_no_opinion_and_changes_no_other():
    served = ServedModel(Echo(), ["a", "b", "c"], ["up", "down", "flat"])
    f = {"c": np.array([3.0, 3.0, 6.0]), "a": np.array([1.0, np.nan, 4.0]),
         "b": np.array([2.0, 2.0, np.inf])}  # fmt: skip
    found = served.proba(f)
    assert list(found) == ["up", "down", "flat"]
    np.testing.assert_array_equal(found["down"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(found["flat"], [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(found["up"], [3.0, np.nan, np.nan])


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(ModelError, match="apart, this one was fitted on down, flat, up"):
        ServedModel(Echo(), ["a"], ["down", "up"])


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("random_florest", {}, "did you mean 'random_forest'"),
        ("random_forest", {"tree": 3}, "did you mean 'trees'"),
        ("random_forest", {"trees": 0}, "settings.trees must be a whole number >= 1"),
        ("mlp", {"seed": -1}, "settings.seed must be"),
        ("svm", {"c": float("nan")}, "settings.c must be > 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(family, settings, said):
    with pytest.raises(ConfigError, match=said):
        pipeline_of(family, settings)
