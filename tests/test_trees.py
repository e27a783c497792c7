"""A tree that would read what is not its own is refused before it is asked."""

import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io

from sysquant.errors import ModelError
from sysquant.models.families import FAMILIES, pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.registry import opened
from sysquant.models.serving import predicted
from sysquant.models.trees import check_kind
from tests.test_models_serving import NAMES, SMALL, rows

COLUMNS = {
    "random_forest": ("left_child", "right_child", "feature"),
    "gradient_boosting": ("left", "right", "feature_idx"),
}
CASES = [(family, column) for family, columns in COLUMNS.items() for column in columns]


def fitted(family):
    return pipeline_of(family, SMALL.get(family)).fit(*rows(700))


def bent(model, column, value):
    """The model with another number in the root of its last tree."""
    last = model[-1]
    if hasattr(last, "estimators_"):
        tree = last.estimators_[-1].tree_
        state = tree.__getstate__()
        nodes = state["nodes"] = state["nodes"].copy()
        nodes[column][0] = value
        tree.__setstate__(state)
    else:
        last._predictors[-1][-1].nodes[column][0] = value
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_makes_is_let_be(family):
    model = fitted(family)
    found = opened(family, io.dumps(model), NAMES, CLASSES).classifier
    x, _ = rows(100, seed=1)
    assert predicted(found, x).tobytes() == predicted(model, x).tobytes()


@pytest.mark.parametrize(("family", "column"), CASES)
@pytest.mark.parametrize("value", [1 << 20, -5], ids=["beyond", "below"])
def test_a_tree_that_leads_elsewhere_is_refused(family, column, value):
    if value < 0 and family == "gradient_boosting" and column != "feature_idx":
        value += 1 << 32  # they are unsigned
    content = io.dumps(bent(fitted(family), column, value))
    with pytest.raises(ModelError, match="a tree of it leads out of itself"):
        opened(family, content, NAMES, CLASSES)


@pytest.mark.parametrize(("family", "column"), [case for case in CASES if "feature" not in case[1]])
def test_a_tree_that_leads_back_is_refused(family, column):
    with pytest.raises(ModelError, match="a tree of it leads out of itself"):
        opened(family, io.dumps(bent(fitted(family), column, 0)), NAMES, CLASSES)


@pytest.mark.parametrize(("family", "column"), [case for case in CASES if "feature" in case[1]])
def test_a_tree_may_ask_for_each_feature_and_no_more(family, column):
    last = len(NAMES) - 1
    opened(family, io.dumps(bent(fitted(family), column, last)), NAMES, CLASSES)
    with pytest.raises(ModelError, match="for a feature it lacks"):
        opened(family, io.dumps(bent(fitted(family), column, last + 1)), NAMES, CLASSES)


def test_trees_at_another_place_than_its_own_are_refused():
    x, y = rows(300)
    forest = fitted("random_forest")
    wrapped = make_pipeline(StandardScaler(), BaggingClassifier(forest[-1], 1)).fit(x, y)
    posing = BaggingClassifier(forest[-1], 1).fit(x, y)
    posing.steps = forest.steps
    for model in (wrapped, posing, fitted("svm")):
        with pytest.raises(ModelError, match="it is made of "):
            check_kind("random_forest", model, len(NAMES))
    forest[-1].estimators_[3] = posing
    with pytest.raises(ModelError, match="a tree of it is a BaggingClassifier"):
        check_kind("random_forest", forest, len(NAMES))


def test_trees_that_tell_categories_apart_are_refused():
    model = bent(fitted("gradient_boosting"), "is_categorical", 1)
    with pytest.raises(ModelError, match="a tree of it tells categories apart"):
        check_kind("gradient_boosting", model, len(NAMES))
    model = fitted("gradient_boosting")
    model[-1]._preprocessor = StandardScaler()
    with pytest.raises(ModelError, match="it tells categories apart"):
        check_kind("gradient_boosting", model, len(NAMES))
