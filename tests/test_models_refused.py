"""Models that would harm: none is executed, none serves, and each is refused with its reason.

Every kind is tried through the loader and in a running book, which goes on with the model before.
A canary, a file that the harm would write, shows that nothing of it ran.
"""

import json
import os
import pickle
import shutil
import warnings
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io

from sysquant import control
from sysquant.errors import ModelError
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.registry import MODEL, PROBE, opened, versions
from tests.published import Published
from tests.test_desk import events_of
from tests.test_models_serving import NAMES
from tests.test_models_serving import rows as drawn
from tests.test_registry import Runs, signed_anew, with_file
from tests.test_swapping import asked, served, traded

SYSTEM = f"{os.system.__module__}.system"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Directory of a registry of two models."""
    directory = tmp_path_factory.mktemp("prepared")
    made = Published(directory)
    made.publish()
    made.publish(-1.0)
    return directory


@pytest.fixture
def published(tmp_path, prepared):
    """A registry of its own with the same two; the second one is to be harmed."""
    shutil.copytree(prepared, tmp_path / "registry")
    return Published(tmp_path / "registry")


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "ran"


# -- what harms: of the registry, the directory of the newest model, and the canary


def pickled(published, path, mark):
    (path / MODEL).write_bytes(pickle.dumps(Runs(mark)))


def pickled_signed(published, path, mark):
    with_file(path, published.key, MODEL, pickle.dumps(Runs(mark)))


def pickled_probe(published, path, mark):
    with_file(path, published.key, PROBE, pickle.dumps(Runs(mark)))


def pickled_manifest(published, path, mark):
    said = pickle.dumps(Runs(mark))
    (path / "manifest.json").write_bytes(said)
    (path / "manifest.sig").write_bytes(published.key.sign(said))


def pickled_inside(published, path, mark):
    with_file(path, published.key, MODEL, with_member(path, ".npy", pickle.dumps(Runs(mark))))


def array_of_objects(published, path, mark):
    file = BytesIO()
    np.save(file, np.array([Runs(mark)], object), allow_pickle=True)
    with_file(path, published.key, MODEL, with_member(path, ".npy", file.getvalue()))


def strange_type(published, path, mark):
    strange = make_pipeline(FunctionTransformer(os.system), pipeline_of("logistic_regression"))
    with_file(path, published.key, MODEL, io.dumps(strange))


def called_when_made(published, path, mark):
    # What skops would call with arguments of the file, as if it were the classifier.
    word = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}
    word |= {"content": json.dumps(f"touch {mark}"), "is_json": True}
    given = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"}
    made = {"__class__": "system", "__module__": os.system.__module__}
    made |= {"__loader__": "ConstructorFromReduceNode", "content": given | {"content": [word]}}
    content = with_member(path, "schema.json", json.dumps(made | {"protocol": 2}).encode())
    with_file(path, published.key, MODEL, content)


def swapped(published, path, mark):
    older = published.registry.numbers("asks")[1]
    shutil.copy(older / MODEL, path / MODEL)


def swapped_signed(published, path, mark):
    older = published.registry.numbers("asks")[1]
    with_file(path, published.key, MODEL, (older / MODEL).read_bytes())


def cut(published, path, mark):
    (path / MODEL).write_bytes((path / MODEL).read_bytes()[:-40])


def cut_signed(published, path, mark):
    with_file(path, published.key, MODEL, (path / MODEL).read_bytes()[:-40])


def no_probe(published, path, mark):
    with_file(path, published.key, PROBE, b"")


def link(published, path, mark):
    outside = mark.with_name("outside")
    (path / MODEL).rename(outside)
    (path / MODEL).symlink_to(outside)


def pipe(published, path, mark):
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def huge(published, path, mark):
    os.truncate(path / MODEL, 300 << 20)


def bomb(published, path, mark):
    with_file(path, published.key, MODEL, with_member(path, ".npy", bytes(257 << 20)))


def deep(published, path, mark):
    node = b'{"__class__":"list","__module__":"builtins","__loader__":"ListNode","content":['
    schema = b'{"protocol":2,' + node[1:] + node * 3_000 + b"]}" * 3_001
    with_file(path, published.key, MODEL, with_member(path, "schema.json", schema))


def vast_array(published, path, mark):
    file = BytesIO()
    told = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
    np.lib.format.write_array_header_1_0(file, told)
    with_file(path, published.key, MODEL, with_member(path, ".npy", file.getvalue()))


def path_upwards(published, path, mark):
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    signed_anew(path, published.key, files=files | {"../../keys/models.key": "00" * 32})


def renamed(published, path, mark):
    path.rename(path.with_name(f"000009-{path.name.partition('-')[2]}"))


def signed_by_another(published, path, mark):
    other = Published(mark.with_name("other"))
    (path / "manifest.sig").write_bytes(other.key.sign((path / "manifest.json").read_bytes()))


def told(**changed):
    """A manifest that its publisher signed, and that says something else."""

    def harm(published, path, mark):
        signed_anew(path, published.key, **changed)

    return harm


HARMS = {
    "pickle": (pickled, "its model.skops is not what was signed"),
    "pickle, signed": (pickled_signed, "it cannot be read: File is not a zip file"),
    "pickle as probe": (pickled_probe, "it does not predict what it did"),
    "pickle as manifest": (pickled_manifest, "its manifest cannot be read"),
    "pickle in the archive": (pickled_inside, "it cannot be read: "),
    "array of objects": (array_of_objects, "it cannot be read: Object arrays cannot be loaded"),
    "type not allowed": (strange_type, f"it holds {SYSTEM}, which is not allowed"),
    "call not allowed": (called_when_made, f"it holds {SYSTEM}, which is not allowed"),
    "content swapped": (swapped, "its model.skops is not what was signed"),
    "content swapped, signed": (swapped_signed, "it does not predict what it did"),
    "truncated": (cut, "its model.skops is not what was signed"),
    "truncated, signed": (cut_signed, "it cannot be read: File is not a zip file"),
    "without probe": (no_probe, "its probe.bin has no row"),
    "link out of the directory": (link, "its model.skops cannot be read: Too many levels"),
    "pipe": (pipe, "its manifest.json is no file"),
    "huge": (huge, "its model.skops has more than 268435456 bytes"),
    "bomb": (bomb, "it unpacks to 2695"),
    "nested": (deep, "it cannot be read: maximum recursion depth"),
    "vast array": (vast_array, "it cannot be read: Unable to allocate"),
    "path upwards": (path_upwards, "its files are ['../../keys/models.key', "),
    "renamed to be newer": (renamed, "its number is 2, wanted is 9"),
    "another signer": (signed_by_another, "its signature is not that of models.pub"),
    "expired": (told(expires=1), "it has expired"),
    "wrong features": (told(features=["other"]), "its features are ('other',)"),
    "wrong strategy": (told(strategy="Asks(by=2)"), "its strategy is Asks(by=2)"),
    "wrong version": (told(versions=versions() | {"numpy": "1.0"}), "its numpy is 1.0"),
    "wrong format": (told(format=9), "its manifest has format 9"),
    "without references": (told(references=[]), "its references are 0, wanted is 4"),
}


def with_member(path, ending, content):
    """The archive of a model with another content of its first member of this ending."""
    made, found = BytesIO(), False
    with ZipFile(path / MODEL) as old, ZipFile(made, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            is_it = name.endswith(ending) and not found
            found |= is_it
            new.writestr(name, content if is_it else old.read(name))
    assert found
    return made.getvalue()


def as_pickle(path):
    pickle.loads((path / MODEL).read_bytes())


def as_trusted(path):
    io.loads((path / MODEL).read_bytes(), trusted=[SYSTEM])


def as_array(path):
    with ZipFile(path / MODEL) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".npy"))
        np.load(BytesIO(archive.read(name)), allow_pickle=True)


@pytest.mark.parametrize(
    ("harm", "read"),
    [(pickled, as_pickle), (called_when_made, as_trusted), (array_of_objects, as_array)],
)
def test_the_canary_is_written_by_a_reader_that_is_not_as_careful(published, mark, harm, read):
    path = published.registry.numbers("asks")[2]
    harm(published, path, mark)
    assert not mark.exists()
    read(path)
    assert mark.exists()


def test_an_archive_that_nothing_was_done_to_is_read(published):
    _, path = published.registry.numbers("asks").values()
    with ZipFile(path / MODEL) as archive:
        same = archive.read("schema.json")
    with_file(path, published.key, MODEL, with_member(path, "schema.json", same))
    with_file(path, published.key, PROBE, (path / PROBE).read_bytes())
    loader = published.loader()
    loader.ask("asks", "", now=1, least=0)
    assert [look.refused for look in loader.found()] == [False]


@pytest.mark.parametrize("kind", HARMS)
def test_the_loader_refuses_it(published, mark, kind):
    harm, said = HARMS[kind]
    first, path = published.registry.numbers("asks").values()
    harm(published, path, mark)
    loader, newest = published.loader(), published.registry.numbers("asks")
    loader.ask("asks", first.name, now=2, least=1)
    (look,) = loader.found()
    assert look.refused and not look.name and said in look.said
    assert f"model asks {max(newest)} is refused: " in look.said
    assert not mark.exists()
    if kind != "expired":  # what one that has expired did is replayed
        with pytest.raises(ModelError):
            loader("asks", newest[max(newest)].name)
    assert not mark.exists()


@pytest.mark.parametrize("kind", HARMS)
def test_a_running_book_refuses_it_and_goes_on_with_the_one_before(tmp_path, published, mark, kind):
    harm, said = HARMS[kind]
    first, path = published.registry.numbers("asks").values()
    away = path.rename(tmp_path / "away")

    def come():
        harm(published, away.rename(path), mark)

    _, answers, tables = traded(
        tmp_path, published, (388, control.Refresh("asks")), (679, control.Status()),
        done={291: come}, count=900,
    )  # fmt: skip
    model = answers[1].status["strategies"]["asks"]["model"]
    assert model["model"] == first.name and said in model["said"]
    assert served(tables) == [("asks", first.name)] and set(asked(tables, "signals")) == {
        first.name
    }
    (event,) = events_of(tables, "model_refused")
    assert event["strategy"] == "asks" and said in event["detail"]
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["truncated", "pickle, signed", "wrong version", "pipe"])
def test_a_new_book_serves_the_newest_model_that_may_be_and_tells_of_those_that_may_not(
    tmp_path, published, mark, kind
):
    harm, said = HARMS[kind]
    first, path = published.registry.numbers("asks").values()
    harm(published, path, mark)
    _, answers, tables = traded(tmp_path, published, (679, control.Status()), count=900)
    model = answers[0].status["strategies"]["asks"]["model"]
    assert model["model"] == first.name and said in model["said"]
    assert served(tables) == [("asks", first.name)]
    (event,) = events_of(tables, "model_refused")
    assert event["strategy"] == "asks" and said in event["detail"]


def test_a_model_older_than_one_that_was_rolled_back_from_is_not_the_next_best(published, mark):
    _, path = published.registry.numbers("asks").values()
    cut(published, path, mark)
    loader = published.loader()
    loader.ask("asks", "", now=2, least=1)
    (look,) = loader.found()
    assert look.refused and "its model.skops is not what was signed" in look.said


def test_a_book_whose_only_model_harms_trades_without_opinion(tmp_path, published, mark):
    first, path = published.registry.numbers("asks").values()
    shutil.rmtree(first)
    pickled_signed(published, path, mark)
    _, answers, tables = traded(tmp_path, published, (679, control.Status()), count=900)
    model = answers[0].status["strategies"]["asks"]["model"]
    assert model["model"] == "" and "it cannot be read" in model["said"]
    assert served(tables) == [] and asked(tables) == [] and not mark.exists()


def test_bytes_at_random_in_a_model_are_refused_or_harm_nothing():
    content = io.dumps(pipeline_of("logistic_regression").fit(*drawn(300)))
    chance, refused = np.random.default_rng(0), 0
    for _ in range(400):
        changed = bytearray(content)
        for at in chance.integers(0, len(content), chance.integers(1, 20)):
            changed[at] = chance.integers(256)
        try:
            with warnings.catch_warnings(action="ignore"):
                opened("logistic_regression", bytes(changed), NAMES, CLASSES)
        except ModelError:
            refused += 1
    assert refused > 300
