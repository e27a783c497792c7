"""Models on their way from a training to the registry: written, read again, checked, published.

Input: what `retraining.train` returned, later its directory. Output: a directory of `model.skops`
and `candidate.json`; a candidate that was checked against the history itself; a signed model; the
row that tells of it. What wrote a candidate is not trusted: no code of its files is run, and what
it says of its rows must be what the strategy makes of the bars.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sysquant.errors import ConfigError, ModelError, nearest
from sysquant.models import judging
from sysquant.models.judging import Estimate, Verdict
from sysquant.models.loader import wanted
from sysquant.models.manifest import Manifest, TrainedOn
from sysquant.models.registry import (
    CANDIDATE,
    MANIFEST,
    MODEL,
    UNREADABLE,
    Loaded,
    Registry,
    content_id,
    name_of,
    opened,
    read_file,
    versions,
)
from sysquant.models.serving import Classifier, ServedModel
from sysquant.models.training import TrainingSet
from sysquant.retraining import Recipe, Trained
from sysquant.strategy import Strategy

_UNKNOWN = math.nan
_TIMES, _LISTS = ("first", "last", "known", "expires", "made"), ("reasons", "features")
_MAPS = ("scores", "versions")


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a training says of the model that came of it; JSON.

    Parameters
    ----------
    recipe : how it was trained.
    strategy : class and parameters whose features it takes.
    features, classes : in their order.
    thresholds : of the classes.
    trained : on which rows.
    scores : name -> value, low, high, out of sample; null where there are too few rows to tell.
    pnl, pnl_before : return after costs, of it and of the model that served; fractions.
    publish, reasons : the verdict.
    id : of its content.
    """

    recipe: Recipe
    strategy: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    thresholds: tuple[float, float]
    trained: TrainedOn
    scores: dict[str, tuple[float | None, float | None, float | None]]
    pnl: float
    pnl_before: float | None
    publish: bool
    reasons: tuple[str, ...]
    id: str

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The scores; NaN where it cannot be told."""
        return {
            name: Estimate(*(_UNKNOWN if value is None else value for value in score))
            for name, score in self.scores.items()
        }

    @property
    def figures(self) -> dict[str, float]:
        """Scores with their limits, and P&L, by name; what cannot be told is left out."""
        found = {"pnl": self.pnl, "pnl_before": self.pnl_before}
        for name, score in self.scores.items():
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), score, strict=True))
        return {name: value for name, value in found.items() if value is not None}


def strategy_of(path: str, parameters: Mapping[str, Any]) -> Strategy:
    """A strategy by the full name of its class, as `sysquant.strategies.ml_direction.MlDirection`.

    Raises
    ------
    ConfigError
        If there is no such class, it is no strategy, or has no such parameter.
    """
    module, _, name = path.rpartition(".")
    try:
        found = vars(import_module(module or "sysquant"))
    except ImportError as error:
        raise ConfigError(f"strategy={path!r} cannot be imported: {error}") from error
    made = found.get(name)
    if not (isinstance(made, type) and issubclass(made, Strategy)):
        classes = [n for n, one in found.items() if isinstance(one, type)]
        raise ConfigError(f"{module} has no strategy {name!r}{nearest(name, classes)}")
    return made(**parameters)


def trained_on(training: TrainingSet) -> TrainedOn:
    """What a manifest says of the rows of a training."""
    return TrainedOn(
        int(training.ts.min()), int(training.ts.max()), int(training.known.max()), len(training),
        training.hash,
    )  # fmt: skip


def write(trained: Trained, directory: Path) -> Candidate:
    """Write `model.skops` and `candidate.json`.

    Parameters
    ----------
    trained : of `retraining.train`.
    directory : made when it is missing.
    """
    from skops import io

    training = trained.training
    candidate = Candidate(
        recipe=trained.recipe, strategy=repr(training.strategy), features=training.features,
        classes=training.strategy.classes, thresholds=trained.fitted.thresholds,
        trained=trained_on(training),
        scores={name: (one.value, one.low, one.high) for name, one in trained.scores.items()},
        pnl=trained.pnl, pnl_before=trained.pnl_before,
        publish=trained.verdict.publish, reasons=trained.verdict.reasons, id=trained.id,
    )  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODEL).write_bytes(io.dumps(trained.fitted.classifier))
    (directory / CANDIDATE).write_bytes(msgspec.json.encode(candidate))
    return candidate


def serving(directory: Path) -> ServedModel:
    """A published model, for a comparison: its signature is not looked at.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    try:
        about = msgspec.json.decode(read_file(directory / MANIFEST), type=Manifest)
    except msgspec.MsgspecError as error:
        raise ModelError(f"{directory / MANIFEST} cannot be read: {error}") from error
    return opened(about.family, read_file(directory / MODEL), about.features, about.classes)


class Checked(NamedTuple):
    """A candidate that is what it says.

    Parameters
    ----------
    candidate : what it says.
    classifier : the model.
    """

    candidate: Candidate
    classifier: Classifier


def read(directory: Path) -> Candidate:
    """What a candidate says of itself.

    Raises
    ------
    ModelError
        If there is none.
    """
    try:
        return msgspec.json.decode(read_file(directory / CANDIDATE), type=Candidate)
    except msgspec.MsgspecError as error:
        raise ModelError(f"its {CANDIDATE} cannot be read: {error}") from error


def check(candidate: Candidate, directory: Path, recipe: Recipe, training: TrainingSet) -> Checked:
    """Hold a candidate against what was wanted, and against rows that were not made by its writer.

    Parameters
    ----------
    candidate : of `read`.
    directory : where its model is.
    recipe : by which it should be trained.
    training : made of the history itself, with the strategy that is to be served.

    Raises
    ------
    ModelError
        If recipe, strategy, rows, features, thresholds or predictions are others than it says, the
        verdict is not that of its scores, or its file may not be opened.
    """
    strategy, rows = training.strategy, trained_on(training)
    told = {
        "recipe": (candidate.recipe, recipe),
        "strategy": (candidate.strategy, repr(strategy)),
        "features": (candidate.features, training.features),
        "classes": (candidate.classes, strategy.classes),
        "training rows": (candidate.trained, rows),
        "thresholds": (candidate.thresholds, training.labels.thresholds(training.value)),
    }
    for name, (said, found) in told.items():
        if said != found:
            raise ModelError(
                f"its {name} and the history differ: it says {said}, recomputed is {found}; what "
                "trained it saw other rows than would be served"
            )
    family, content = candidate.recipe.family, read_file(directory / MODEL)
    served = opened(family, content, training.features, strategy.classes)
    again = _content(served.classifier, candidate, training)
    if again != candidate.id:
        raise ModelError(
            f"it predicts something else than it says: its id is {candidate.id[:12]}, of its "
            f"predictions on the recomputed rows it is {again[:12]}"
        )
    if _verdict(candidate) != Verdict(candidate.publish, candidate.reasons):
        raise ModelError("its verdict is not the one that its scores and P&L come to")
    return Checked(candidate, served.classifier)


def _content(classifier: Classifier, candidate: Candidate, training: TrainingSet) -> str:
    try:
        return content_id(classifier, training.features, candidate.thresholds, training.x)
    except UNREADABLE as error:
        raise ModelError(f"it cannot be asked: {error}") from error


def _verdict(candidate: Candidate) -> Verdict:
    try:
        return judging.verdict(
            candidate.estimates, pnl=candidate.pnl, pnl_before=candidate.pnl_before
        )
    except KeyError as error:
        raise ModelError(f"its scores lack {error}") from error


def newest(
    registry: Registry, lineage: str, strategy: Strategy, key: Callable[[], Ed25519PublicKey]
) -> Loaded | None:
    """The newest published model that may be served now; None for none.

    Parameters
    ----------
    registry, lineage : where it is looked for.
    strategy : that it must be of.
    key : gives the publisher's; without one there is no such model.

    Raises
    ------
    ModelError
        If the lineage cannot be a name.
    """
    for number in sorted(registry.numbers(lineage), reverse=True):
        try:
            return registry.load(number, wanted(lineage, strategy), key(), now=time.time_ns())
        except ModelError:
            continue
    return None


def publish(
    registry: Registry, checked: Checked, training: TrainingSet, key: Ed25519PrivateKey,
    *, lineage: str, parent: str, build: str, life: int, newest: int | None = None,
) -> Manifest:  # fmt: skip
    """Sign a candidate and put it into the registry.

    Parameters
    ----------
    registry : of published models.
    checked : of `check`, against `training`.
    key : of the publisher.
    lineage : of which models it is one.
    parent : id of the model that it was compared with; empty for none.
    build : hash of the code that trained it.
    life : ns from now, after which it gives no opinion.
    newest : as of `Registry.publish`.

    Raises
    ------
    ModelError
        If the registry refuses it.
    """
    candidate, made = checked.candidate, time.time_ns()
    recipe = candidate.recipe
    about = Manifest(
        lineage=lineage, number=0, id=candidate.id, strategy=candidate.strategy,
        family=recipe.family, settings=recipe.settings, features=candidate.features,
        classes=candidate.classes, labels=repr(training.labels), thresholds=candidate.thresholds,
        trained=candidate.trained, versions=versions(), build=build, scores=candidate.figures,
        parent=parent, made=made, expires=made + life, files={},
    )  # fmt: skip
    return registry.publish(about, checked.classifier, training.x, key, newest=newest)


def run_row(
    *, lineage: str, verdict: str, reasons: Sequence[str], strategy: Strategy, recipe: Recipe,
    features: Sequence[str], parent: str, build: str, notebook: str, took_s: float,
    candidate: Candidate | None = None, published: Manifest | None = None,
) -> pa.Table:  # fmt: skip
    """Row of `model_runs`, made now.

    Parameters
    ----------
    lineage, parent, notebook, took_s : as the table has them.
    verdict : published, kept, refused or failed.
    reasons : why it was not published.
    strategy, recipe, features : what was wanted.
    build : hash of the code.
    candidate : what came of it, when it was read.
    published : the model, when there is one.
    """
    on = candidate.trained if candidate else TrainedOn(0, 0, 0, 0, "")
    told: dict[str, Any] = {
        "lineage": lineage, "model": name_of(published) if published else "",
        "id": candidate.id if candidate else "", "verdict": verdict, "reasons": list(reasons),
        "strategy": repr(strategy), "family": recipe.family,
        "recipe": msgspec.json.encode(recipe).decode(), "features": list(features),
        "first": on.first, "last": on.last, "known": on.known, "data_hash": on.hash,
        "scores": list(candidate.figures.items() if candidate else ()), "parent": parent,
        "build": build, "versions": list(versions().items()), "notebook": notebook,
        "expires": published.expires if published else 0, "made": time.time_ns(),
    }  # fmt: skip
    columns = {name: _column(name, value) for name, value in told.items()}
    columns |= {"rows": pa.array([on.rows], pa.uint64()), "took_s": pa.array([took_s])}
    return pa.table(columns)


def _column(name: str, value: Any) -> pa.Array:
    if name in _TIMES:
        return pa.array(np.array([value], "M8[ns]"), pa.timestamp("ns", "UTC"))
    if name in _LISTS:
        return pa.array([value], pa.list_(pa.string()))
    if name in _MAPS:
        kind = pa.float64() if name == "scores" else pa.string()
        return pa.array([value], pa.map_(pa.string(), kind))
    return pa.array([value], pa.string())
