"""A model is served only when it is what its publisher signed, and what the strategy wants."""

import json
import os
import pickle
import stat
import threading
from functools import partial

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io

from sysquant.errors import ModelError
from sysquant.locking import lock
from sysquant.models import manifest as manifests
from sysquant.models.families import FAMILIES, pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.manifest import Manifest, TrainedOn, digest
from sysquant.models.registry import MODEL, PROBE, Registry, Wanted, content_id, versions
from sysquant.models.serving import predicted
from tests.test_models_serving import NAMES, SMALL, rows

WANTED = Wanted("direction", "MlDirection()", NAMES, CLASSES)
NOW, EXPIRES = 1_000, 2_000


def about(family="logistic_regression", **changed):
    given = Manifest(
        lineage="direction", number=0, id="ab" * 32, strategy="MlDirection()", family=family,
        settings={}, features=NAMES, classes=CLASSES, labels="quantiles",
        thresholds=(-0.1, 0.1), trained=TrainedOn(1, 2, 3, 4, "hash"), versions=versions(),
        build="build", scores={"log_loss": 1.0}, parent="", made=NOW, expires=EXPIRES, files={},
    )  # fmt: skip
    return replace(given, **changed)


@pytest.fixture
def key(tmp_path):
    return manifests.signing_key(tmp_path / "keys")


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models")


@pytest.fixture(scope="module")
def fitted():
    return pipeline_of("logistic_regression").fit(*rows(500))


@pytest.fixture
def published(registry, key, fitted):
    registry.publish(about(), fitted, rows(500)[0], key)
    return registry.numbers("direction")[1]


@pytest.fixture
def load(registry, tmp_path):
    public = partial(manifests.public_key, tmp_path / "keys")
    return lambda **given: registry.load(
        **({"number": 1, "wanted": WANTED, "key": public(), "now": NOW} | given)
    )


def signed_anew(path, key, **changed):
    """Change a published model as its publisher could."""
    said = json.loads((path / "manifest.json").read_bytes()) | changed
    body = json.dumps(said).encode()
    (path / "manifest.json").write_bytes(body)
    (path / "manifest.sig").write_bytes(key.sign(body))


def with_file(path, key, name, content):
    """Put another file in place of a published one, and sign it."""
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    (path / name).write_bytes(content)
    signed_anew(path, key, files=files | {name: digest(content)})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_model_predicts_what_it_did(registry, key, load, family):
    x, y = rows(700)
    model = pipeline_of(family, SMALL.get(family)).fit(x, y)
    registry.publish(about(family), model, x, key)
    found = load()
    assert predicted(found.served.classifier, x).tobytes() == predicted(model, x).tobytes()
    chance = found.served.proba(dict(zip(NAMES, x.T, strict=True)))
    assert list(chance) == list(CLASSES)
    assert found.manifest.number == 1 and found.manifest.scores == {"log_loss": 1.0}


def test_numbers_count_and_every_model_stays(registry, key, fitted, load):
    for _ in range(3):
        registry.publish(about(), fitted, rows(100)[0], key)
    assert list(registry.numbers("direction")) == [1, 2, 3]
    assert load(number=2, least=2).manifest.number == 2
    with pytest.raises(ModelError, match="unless a roll-back names it"):
        load(number=1, least=2)
    assert registry.numbers("other") == {}


def test_one_publishes_at_a_time(registry, key, fitted, monkeypatch):
    monkeypatch.setattr("sysquant.models.registry._PATIENCE_S", 0.1)
    held = lock(registry.directory / "direction")
    with pytest.raises(ModelError, match=r"another process publishes .* train it anew later"):
        registry.publish(about(), fitted, rows(100)[0], key)
    held.close()


def test_who_publishes_waits_for_another_that_does(registry, key, fitted):
    held = lock(registry.directory / "direction")
    threading.Timer(0.3, held.close).start()
    assert registry.publish(about(), fitted, rows(100)[0], key).number == 1


def test_a_model_that_was_judged_against_one_that_is_not_the_newest_any_more_is_refused(
    registry, published, key, fitted
):
    with pytest.raises(ModelError, match=r"000001-ababababab.. was published while this one was"):
        registry.publish(about(), fitted, rows(100)[0], key, newest=0)
    (registry.directory / "direction" / "000007-aaaaaaaaaaaa").mkdir()  # no model
    assert registry.publish(about(), fitted, rows(100)[0], key, newest=1).number == 8


def test_a_directory_that_is_no_model_hides_none(registry, published, key, fitted, load):
    (registry.directory / "direction" / "999999-aaaaaaaaaaaa").mkdir()
    assert list(registry.numbers("direction")) == [1]
    numbers = [registry.publish(about(), fitted, rows(100)[0], key).number for _ in range(2)]
    assert numbers == [1_000_000, 1_000_001]
    assert list(registry.numbers("direction")) == [1, *numbers]
    assert load(number=1_000_001).name.startswith("1000001-")


def test_a_number_that_nobody_would_see_is_not_published(registry, key, fitted):
    last = registry.directory / "direction" / f"{'9' * 18}-aaaaaaaaaaaa"
    last.mkdir(parents=True)
    with pytest.raises(ModelError, match=r"no number comes after that of .*9-a{12}: take it away"):
        registry.publish(about(), fitted, rows(100)[0], key)
    assert registry.numbers("direction") == {}


def test_a_model_that_answers_a_row_alone_otherwise_is_not_published(
    registry, key, fitted, monkeypatch
):
    def by_size(classifier, x):
        return predicted(classifier, x) + (len(x) == 1) * 1e-16 * (x[:, :1] > 1)

    monkeypatch.setattr("sysquant.models.registry.predicted", by_size)
    with pytest.raises(
        ModelError, match=r"of row \d+ of the last 250 it says something else alone"
    ):
        registry.publish(about(), fitted, rows(500)[0], key)
    assert registry.numbers("direction") == {}


def test_what_fails_half_way_leaves_nothing(registry, key, fitted, monkeypatch):
    monkeypatch.setattr("sysquant.models.registry.sync", lambda path: 1 / 0)
    monkeypatch.setattr("sysquant.models.registry._write", lambda path, content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        registry.publish(about(), fitted, rows(100)[0], key)
    assert [p.name for p in (registry.directory / "direction").iterdir()] == ["journal.lock"]


# -- what is refused


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", MODEL, PROBE])
@pytest.mark.parametrize("harm", ["bit", "cut", "gone", "empty", "link", "huge"])
def test_a_changed_file_is_refused_before_it_is_opened(published, load, name, harm, monkeypatch):
    path = published / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    if harm in ("gone", "link"):
        path.rename(published / "elsewhere")
    if harm == "link":
        path.symlink_to(published / "elsewhere")
    elif harm == "huge":
        os.truncate(path, 300 << 20)
    elif harm != "gone":
        path.write_bytes({"bit": bytes(changed), "cut": content[:-7], "empty": b""}[harm])
    monkeypatch.setattr("skops.io.loads", lambda *_, **__: pytest.fail("it was opened"))
    monkeypatch.setattr("skops.io.get_untrusted_types", lambda **_: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match="model direction 1 is refused: its "):
        load()


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", MODEL, PROBE])
@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(published, load, name):
    (published / name).unlink()
    os.mkfifo(published / name)
    with pytest.raises(ModelError, match=f"model direction 1 is refused: its {name} is no file"):
        load()


def test_a_pickle_runs_nothing_even_when_it_is_signed(published, key, load, tmp_path):
    mark = tmp_path / "ran"
    with_file(published, key, MODEL, pickle.dumps(Runs(mark)))
    with pytest.raises(ModelError, match="it cannot be read"):
        load()
    assert not mark.exists()


def test_types_that_nobody_looked_at_are_refused_even_when_they_are_signed(
    published, key, load, fitted
):
    strange = make_pipeline(FunctionTransformer(os.system), clone(fitted))
    with_file(published, key, MODEL, io.dumps(strange))
    with pytest.raises(ModelError, match=r"it holds (posix|nt)\.system, which is not allowed"):
        load()


def test_a_model_that_predicts_otherwise_is_refused(published, key, load):
    other = pipeline_of("logistic_regression").fit(*rows(500, seed=9))
    with_file(published, key, MODEL, io.dumps(other))
    with pytest.raises(ModelError, match="does not predict what it did"):
        load()


def test_another_model_of_fewer_features_is_refused(published, key, load):
    x, y = rows(500)
    narrow = make_pipeline(PCA(2), pipeline_of("logistic_regression")).fit(x[:, :3], y)
    with_file(published, key, MODEL, io.dumps(narrow))
    with pytest.raises(ModelError, match="it is made of Pipeline, PCA, Pipeline, a logistic_regr"):
        load()
    narrow = pipeline_of("logistic_regression").fit(x[:, :3], y)
    with_file(published, key, MODEL, io.dumps(narrow))
    with pytest.raises(ModelError, match="it cannot be read"):
        load()


def test_another_publishers_model_is_refused(published, load):
    said = (published / "manifest.json").read_bytes()
    (published / "manifest.sig").write_bytes(Ed25519PrivateKey.generate().sign(said))
    with pytest.raises(ModelError, match=r"not that of models\.pub"):
        load()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lineage": "other"}, "its lineage is other, wanted is direction: put it back where"),
        ({"number": 2}, "its number is 2, wanted is 1: put it back where it was published"),
        ({"id": "cd" * 32}, "its id is cdcd"),
        ({"strategy": "MlDirection(full=0.9)"}, "its strategy is"),
        ({"features": list(NAMES[::-1])}, "its features are"),
        ({"classes": ["up", "down"]}, "its classes are"),
        ({"versions": versions() | {"scikit-learn": "0.1"}}, "its scikit-learn is 0.1"),
        ({"versions": {}}, "its python is None"),
        ({"expires": NOW}, "it has expired"),
        ({"format": 2}, "has format 2"),
        ({"family": "forest"}, "its family 'forest' is not known"),
        ({"files": {}}, "its files are"),
        ({"files": {MODEL: "a", PROBE: "b", "../../keys/models.key": "c"}}, "its files are"),
        ({"more": 1}, "its manifest cannot be read"),
        ({"made": "now"}, "its manifest cannot be read"),
    ],
)
def test_a_signed_model_that_is_not_what_is_wanted_is_refused(published, key, load, changed, said):
    signed_anew(published, key, **changed)
    with pytest.raises(ModelError, match=said):
        load()


@pytest.mark.parametrize("lineage", ["", "../x", "A", "a/b", "a" * 65, "."])
def test_a_lineage_is_no_path(registry, lineage):
    with pytest.raises(ModelError, match="a lineage is named by"):
        registry.numbers(lineage)


# -- keys and names


def test_the_private_key_is_the_publishers_alone(tmp_path):
    directory = tmp_path / "keys"
    key = manifests.signing_key(directory)
    assert stat.S_IMODE((directory / manifests.PRIVATE).stat().st_mode) == 0o600
    again = manifests.signing_key(directory)
    assert again.sign(b"x") == key.sign(b"x")
    manifests.public_key(directory).verify(key.sign(b"x"), b"x")
    (directory / manifests.PRIVATE).chmod(0o644)
    with pytest.raises(ModelError, match="others may read"):
        manifests.signing_key(directory)
    (directory / manifests.PUBLIC).write_text("none")
    with pytest.raises(ModelError, match="no key of 32 bytes"):
        manifests.public_key(directory)
    with pytest.raises(ModelError, match=r"runners/retrain\.py makes it"):
        manifests.public_key(tmp_path)


def test_an_id_names_parameters_features_thresholds_and_predictions(fitted):
    x, y = rows(500)
    edges = (-0.1, 0.1)
    known = content_id(fitted, NAMES, edges, x)
    assert known == content_id(clone(fitted).fit(x, y), NAMES, edges, x)
    others = [
        content_id(fitted, NAMES[::-1], edges, x),
        content_id(fitted, NAMES, (-0.2, 0.1), x),
        content_id(fitted, NAMES, edges, x + 1),
        content_id(clone(fitted).fit(x[::-1] * 2, y), NAMES, edges, x),
        content_id(pipeline_of("logistic_regression", {"c": 2.0}).fit(x, y), NAMES, edges, x),
    ]
    assert len({known, *others}) == 6
    assert np.isfinite(x).all()
