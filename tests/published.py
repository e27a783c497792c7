"""Small models of `Asks`, a strategy with one feature, published as `runners/retrain.py` would."""

from concurrent.futures import wait

import numpy as np
from msgspec.structs import replace

from sysquant.models import manifest as manifests
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import Manifest, TrainedOn
from sysquant.models.registry import Registry, content_id, name_of, versions
from tests.market import START, engine
from tests.test_models_swap import Asks, Flip

EVER = 1 << 62


class Prompt(ModelLoader):
    """A loader whose looks are over when they were asked for."""

    def ask(self, *given, **more):
        super().ask(*given, **more)
        wait(self._looks)


def publish(registry, key, model, x, **told):
    """Publish a logistic regression that was fitted on rows; its name."""
    about = Manifest(
        lineage="", number=0, id=content_id(model, told["features"], (-0.03, 0.03), x),
        strategy="", family="logistic_regression", settings={}, features=(), classes=CLASSES,
        labels="quantiles", thresholds=(-0.03, 0.03), build="build", scores={}, parent="",
        trained=TrainedOn(1, 2, START - 1, 600, "hash"), versions=versions(), made=START,
        expires=EVER, files={},
    )  # fmt: skip
    return name_of(registry.publish(replace(about, **told), model, x, key))


class Published:
    """A registry with its key below a directory, and books that ask it."""

    def __init__(self, directory):
        self.keys = directory / "keys"
        self.key = manifests.signing_key(self.keys)
        self.registry = Registry(directory / "models")

    def publish(self, slope=1.0, *, seed=0, strategy="asks", scale=0.1, **changed):
        """A model that says up after rises, or with a negative slope after falls; its name."""
        x = np.random.default_rng(seed).normal(0, scale, (600, 1))
        noise = np.random.default_rng(seed + 1).normal(0, 0.5 * scale, 600)
        edges = [-0.3 * scale, 0.3 * scale]
        y = np.array(CLASSES)[np.digitize(slope * x[:, 0] + noise, edges)]
        model = pipeline_of("logistic_regression").fit(x, y)
        return publish(
            self.registry, self.key, model, x, lineage=strategy, strategy=repr(Asks()),
            features=("change",), **changed,
        )  # fmt: skip

    def loader(self, make=Prompt):
        """Of a book of `Asks` and `Flip`."""
        return make(
            self.registry, lambda: manifests.public_key(self.keys),
            {"asks": Asks(), "flip": Flip()},
        )  # fmt: skip

    def book(self, loader, **changes):
        """That asks a loader."""
        return engine(strategies={"asks": Asks(), "flip": Flip()}, models=loader, **changes)
