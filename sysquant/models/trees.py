"""Whether a model that was read from a file is of its family, and its trees lead nowhere else.

Input: a classifier, before it is asked anything. Output: nothing, or why it may not be asked.
scikit-learn walks a tree by the numbers that stand in it: a node that leads out of its tree, back,
or to a feature that there is not, reads memory that is not the model's, and ends the process.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sysquant.errors import ModelError
from sysquant.models.families import pipeline_of
from sysquant.types import Ints


def check_kind(family: str, classifier: Any, features: int) -> None:
    """Refuse a classifier that its family does not make.

    Parameters
    ----------
    family : of `pipeline_of`.
    classifier : as it was read.
    features : how many columns it is asked with.

    Raises
    ------
    ModelError
        If its steps are of other types, or a tree leads out of itself or its rows.
    """
    found, meant = (
        [type(one), *(type(step) for _, step in one.steps)]
        for one in (classifier, pipeline_of(family))
    )
    if found != meant:
        said, wanted = (", ".join(kind.__name__ for kind in kinds) for kinds in (found, meant))
        raise ModelError(f"it is made of {said}, a {family} is of {wanted}")
    for inner, left, right, feature in _trees(family, classifier.steps[-1][1]):
        nodes = np.flatnonzero(inner)
        leads = [(end > nodes) & (end < len(inner)) for end in (left[nodes], right[nodes])]
        knows = (feature[nodes] >= 0) & (feature[nodes] < features)
        if not len(inner) or not np.all(leads) or not knows.all():
            raise ModelError("a tree of it leads out of itself, or asks for a feature it lacks")


def _trees(family: str, last: Any) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    # Which nodes are no leaves, the children of all, and the feature that each asks for.
    if family == "random_forest":
        for tree in last.estimators_:
            _check_type(tree, "DecisionTreeClassifier")
            found = tree.tree_
            left = found.children_left
            yield left != -1, left, found.children_right, found.feature
    if family == "gradient_boosting":
        if last._preprocessor is not None:
            raise ModelError("it tells categories apart: no feature is one")
        for tree in (tree for trees in last._predictors for tree in trees):
            _check_type(tree, "TreePredictor")
            nodes = tree.nodes
            if nodes["is_categorical"].any():
                raise ModelError("a tree of it tells categories apart: no feature is one")
            yield nodes["is_leaf"] == 0, nodes["left"], nodes["right"], nodes["feature_idx"]


def _check_type(tree: Any, meant: str) -> None:
    if type(tree).__name__ != meant:
        raise ModelError(f"a tree of it is a {type(tree).__name__}, wanted is a {meant}")
