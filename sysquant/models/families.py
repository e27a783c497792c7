"""Kinds of models: scikit-learn pipelines with their scaler inside, from a few plain numbers.

Input: settings of a family. Output: an unfitted pipeline whose last step takes `sample_weight`.
Every one is seeded and fits on one thread, so that it can be made again, bit for bit.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sysquant.errors import ConfigError, nearest
from sysquant.keys import check_number, refuse_words

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def logistic_regression(*, c: float = 1.0, most_iterations: int = 1000) -> "Pipeline":
    """Multinomial logistic regression.

    Parameters
    ----------
    c : inverse of the L2 penalty.
    most_iterations : of the solver.
    """
    from sklearn.linear_model import LogisticRegression

    check_number("settings.c", c, above=0)
    check_number("settings.most_iterations", most_iterations, least=1, whole=True)
    return _scaled(LogisticRegression(C=c, max_iter=most_iterations))


def random_forest(
    *, trees: int = 200, depth: int = 8, share: float = 0.25, least_leaf: int = 50, seed: int = 0
) -> "Pipeline":
    """Random forest.

    Parameters
    ----------
    trees, depth : how many, and how deep each may be.
    share : of the rows that each tree draws. Labels of neighbours overlap: trees that draw as many
        as there are differ little, and take twice as long.
    least_leaf : samples in a leaf.
    seed : of the draws.

    References
    ----------
    M. Lopez de Prado, Advances in Financial Machine Learning, 2018, ch. 6.4.
    """
    from sklearn.ensemble import RandomForestClassifier

    check_number("settings.trees", trees, least=1, whole=True)
    check_number("settings.depth", depth, least=1, whole=True)
    check_number("settings.share", share, above=0, most=1)
    check_number("settings.least_leaf", least_leaf, least=1, whole=True)
    return _scaled(
        RandomForestClassifier(
            trees, max_depth=depth, max_samples=float(share), min_samples_leaf=least_leaf,
            random_state=_seed(seed), n_jobs=1,
        )
    )  # fmt: skip


def gradient_boosting(
    *, rounds: int = 100, rate: float = 0.05, leaves: int = 15, least_leaf: int = 100, seed: int = 0
) -> "Pipeline":
    """Gradient boosting over histograms.

    Parameters
    ----------
    rounds, rate : how many trees, and how much of each is taken.
    leaves, least_leaf : most of a tree, and samples in each.
    seed : of the draws.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    check_number("settings.rounds", rounds, least=1, whole=True)
    check_number("settings.rate", rate, above=0, most=1)
    check_number("settings.leaves", leaves, least=2, whole=True)
    check_number("settings.least_leaf", least_leaf, least=1, whole=True)
    made: Any = HistGradientBoostingClassifier  # pyright's stubs know no early_stopping=False
    return _scaled(
        made(
            max_iter=rounds, learning_rate=rate, max_leaf_nodes=leaves,
            min_samples_leaf=least_leaf, early_stopping=False, random_state=_seed(seed),
        )
    )  # fmt: skip


def svm(*, c: float = 1.0, most_iterations: int = 1000, seed: int = 0) -> "Pipeline":
    """Linear support vector machine, its margins calibrated to probabilities on three folds.

    Parameters
    ----------
    c : inverse of the penalty.
    most_iterations : of the solver.
    seed : of the draws.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    check_number("settings.c", c, above=0)
    check_number("settings.most_iterations", most_iterations, least=1, whole=True)
    machine = LinearSVC(C=c, max_iter=most_iterations, random_state=_seed(seed))
    calibrated: Any = CalibratedClassifierCV  # and no ensemble=False
    return _scaled(calibrated(machine, cv=3, ensemble=False))


def mlp(
    *, hidden: int = 32, layers: int = 2, penalty: float = 1e-3, rounds: int = 60, seed: int = 0
) -> "Pipeline":
    """Neural network of equally wide hidden layers.

    Parameters
    ----------
    hidden, layers : units of a layer, and layers.
    penalty : L2.
    rounds : most passes over the training rows; it stops when a tenth of them gets no better.
    seed : of the weights and the order of the rows.
    """
    from sklearn.neural_network import MLPClassifier

    check_number("settings.hidden", hidden, least=1, whole=True)
    check_number("settings.layers", layers, least=1, whole=True)
    check_number("settings.penalty", penalty, least=0)
    check_number("settings.rounds", rounds, least=1, whole=True)
    return _scaled(
        MLPClassifier(
            (hidden,) * layers, alpha=penalty, max_iter=rounds, early_stopping=True,
            random_state=_seed(seed),
        )
    )  # fmt: skip


FAMILIES: dict[str, Callable[..., "Pipeline"]] = {
    one.__name__: one for one in (logistic_regression, random_forest, gradient_boosting, svm, mlp)
}


def pipeline_of(family: str, settings: dict[str, Any] | None = None) -> "Pipeline":
    """An unfitted pipeline.

    Raises
    ------
    ConfigError
        If there is no such family, it has no such setting, or a value cannot be meant.
    """
    if family not in FAMILIES:
        raise ConfigError(f"family does not know {family!r}{nearest(family, FAMILIES)}")
    make: Any = FAMILIES[family]
    given = dict(settings or {})
    refuse_words(f"settings of {family}", given, make.__kwdefaults__)
    return make(**given)


def _seed(seed: int) -> int:
    check_number("settings.seed", seed, least=0, most=(1 << 32) - 1, whole=True)
    return seed


def _scaled(classifier: Any) -> "Pipeline":
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("scale", StandardScaler()), ("classify", classifier)])
