"""Retraining from the command line: what is published, kept, refused and failed, and recorded."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from skops import io

from runners import notebook
from runners.retrain import GIVEN
from sysquant import publishing, retraining, training_rows
from sysquant.errors import ConfigError, ModelError
from sysquant.home import PACKAGE
from sysquant.locking import lock
from sysquant.models.families import pipeline_of
from sysquant.models.loader import wanted
from sysquant.models.manifest import public_key
from sysquant.models.registry import CANDIDATE, MODEL, Registry
from sysquant.models.training import training_set
from sysquant.retraining import Recipe, train
from sysquant.serve import ensure_server
from sysquant.store import connect, insert, migrate
from sysquant.strategies.ml_direction import MlDirection
from sysquant.tables import bar_table
from tests import forked
from tests.conftest import REPOSITORY
from tests.minutes import UNIVERSE
from tests.sessions import until
from tests.test_models_serving import NAMES, rows
from tests.test_registry import Runs
from tests.test_retraining import history

RETRAIN = REPOSITORY / "notebooks" / "10_retrain.ipynb"
RECIPE = Recipe(
    family="logistic_regression", settings={"c": 1.0, "most_iterations": 1000},
    label_settings={"horizon": "5m", "low": 0.3, "high": 0.7}, train="2000m", test="1000m",
    embargo="10m",
)  # fmt: skip
WORDS = (
    "model=logistic_regression", *UNIVERSE, "labels.label_settings.horizon=5m",
    "training.train=2000m", "training.test=1000m", "training.embargo=10m", "days=5",
)  # fmt: skip
PARAMETERS = "\n".join(f"{name} = None" for name in GIVEN)


@pytest.fixture(scope="module")
def planted():
    """Bars in which there is something to foresee, and what a training makes of them."""
    bars = history(2.0)
    return bars, train(RECIPE, MlDirection(), bars)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, planted):
    """A home whose served store has those bars, and nothing else."""
    home = tmp_path_factory.mktemp("retrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYSQUANT_HOME", str(home))
        _, server = served(planted[0].bars)
        yield home
        server.terminate()
        server.wait(10)


def served(bars):
    """The store of the home, with these bars: its address and its server."""
    dsn, server = ensure_server("chdb:data/store")
    with connect(dsn) as client:
        migrate(client)
        insert(client, "bars_imported", bar_table(bars, ["SIM:A"], "x"), "planted")
    return dsn, server


@pytest.fixture(scope="module")
def candidate(planted, tmp_path_factory):
    """Directory of a candidate that is what it says, and to be published."""
    directory = tmp_path_factory.mktemp("candidate")
    assert publishing.write(planted[1], directory).publish
    return directory


def retrained(home, *words):
    """The runner, run to its end, and where its files are."""
    before = set((home / "runs" / "retrain").glob("*"))
    done = forked.run("retrain", *WORDS, *words, cwd=home)
    made = set((home / "runs" / "retrain").glob("*")) - before
    return done, made.pop() if made else None


def recorded(home, lineage):
    with connect(f"chdb:{home}/data/store") as client:
        found = client.query(
            "SELECT * FROM model_runs WHERE lineage = {lineage:String} ORDER BY made",
            {"lineage": lineage},
        )
        return list(found.named_results())


def written(path: Path, *cells: str, parameters: str = PARAMETERS) -> str:
    """A notebook of these cells; the word that names it."""
    listed = [
        {"cell_type": "code", "id": str(n), "metadata": {}, "outputs": [], "source": source,
         "execution_count": None}
        for n, source in enumerate([parameters, *cells])
    ]  # fmt: skip
    listed[0]["metadata"] = {"tags": ["parameters"]}
    metadata = json.loads(RETRAIN.read_text())["metadata"]
    told = {"cells": listed, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(told))
    return f"notebook={path}"


def handing_over(path: Path, candidate: Path) -> str:
    """A notebook that trains nothing: it brings a candidate along."""
    return written(path, f"import shutil; shutil.copytree({str(candidate)!r}, candidate)")


def output_of(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs)


# -- from one end to the other


@pytest.fixture(scope="module")
def published(desk):
    """The first model, of the notebook itself."""
    done, run = retrained(desk, "expires=2d")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, run


def test_what_is_worth_it_is_published_signed_and_recorded(desk, published):
    said, run = published
    registry, key = Registry(desk / "data" / "models"), public_key(desk / "data" / "keys")
    asked = wanted("ml_direction", MlDirection())
    loaded = registry.load(1, asked, key, now=time.time_ns())
    assert f"published {loaded.name}" in said
    assert "next: python runners/live.py strategy=ml_direction" in said
    assert loaded.manifest.parent == "" and loaded.manifest.scores["skill_low"] > 0
    assert loaded.manifest.expires - loaded.manifest.made == 2 * 86_400 * 10**9
    with pytest.raises(ModelError, match="it has expired"):
        registry.load(1, asked, key, now=loaded.manifest.expires)
    (row,) = recorded(desk, "ml_direction")
    assert (row["model"], row["id"], row["verdict"]) == (
        loaded.name, loaded.manifest.id, "published",
    )  # fmt: skip
    assert row["data_hash"] == loaded.manifest.trained.hash and row["reasons"] == []
    assert row["rows"] == loaded.manifest.trained.rows and row["parent"] == ""
    assert (desk / row["notebook"]) == run / "retrain.ipynb" and row["took_s"] > 0
    assert row["scores"]["pnl"] > 0 and msgspec.json.decode(row["recipe"], type=Recipe) == RECIPE
    for name in ("window ...\n", "notebook, 6,000 bars of SIM:A ...\n"):  # before they are long
        assert name in said
    for name in ("window: ", "notebook, 6,000 bars of SIM:A: ", "checks: ", "record: "):
        assert name in said


def test_the_notebook_is_kept_with_its_pictures_and_nothing_else_is_left_about(published):
    _, run = published
    kept = (run / "retrain.ipynb").read_text()
    cells = [cell for cell in json.loads(kept)["cells"] if cell["cell_type"] == "code"]
    pictures = [o for c in cells for o in c["outputs"] if "application/vnd.plotly.v1+json" in
                o.get("data", {})]  # fmt: skip
    assert len(pictures) == 8 and "to be published" in output_of(run / "retrain.ipynb")
    names = {path.name for path in run.iterdir()}
    assert {"history.parquet", "run.json", "candidate", "retrain.log"} <= names
    assert "scratch" not in names


def test_what_earns_no_more_than_the_model_that_serves_is_kept_back(desk, published):
    done, _ = retrained(desk, "days=1e9")
    assert "days=1e+09: the store has 4.2 of them" in done.stdout  # and all of them are taken
    assert done.returncode == 3, done.stdout + done.stderr
    *_, row = recorded(desk, "ml_direction")
    (name,) = Registry(desk / "data" / "models").numbers("ml_direction").values()
    assert row["verdict"] == "kept" and row["parent"] == name.name and row["model"] == ""
    assert "no more than the model before" in row["reasons"][-1] and f"P&L of {name.name[:6]}" in (
        done.stdout
    )


def test_rows_that_were_skewed_in_the_notebook_are_refused(desk, tmp_path):
    told = json.loads(RETRAIN.read_text())
    at = next(n for n, c in enumerate(told["cells"]) if "train(how" in "".join(c["source"]))
    skew = (
        "from dataclasses import replace\nfrom sysquant import retraining\n"
        "honest = retraining.training_set\n"
        "def skewed(*a, **k):\n    made = honest(*a, **k)\n"
        "    return replace(made, x=made.x * ([1.01] + [1.0] * (made.x.shape[1] - 1)))\n"
        "retraining.training_set = skewed"
    )
    told["cells"].insert(at, told["cells"][at] | {"id": "skew", "source": skew})
    path = tmp_path / "skewed.ipynb"
    path.write_text(json.dumps(told))
    done, _ = retrained(desk, f"notebook={path}", "lineage=skewed")
    assert done.returncode == 1 and "its training rows and the history differ" in done.stdout
    (row,) = recorded(desk, "skewed")
    assert row["verdict"] == "refused" and not Registry(desk / "data/models").numbers("skewed")


def test_a_publication_is_not_lost_when_the_store_is_away(desk, planted, candidate, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYSQUANT_HOME", str(tmp_path))
        dsn, server = served(planted[0].bars)
    gate = tmp_path / "gate"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)"
    copy = f"import shutil; shutil.copytree({str(candidate)!r}, candidate)"
    word = written(tmp_path / "gated.ipynb", wait, copy)
    environment = os.environ | {"CLICKHOUSE_DSN": dsn}
    process = forked.Forked(
        "retrain", (*WORDS, word, "store=clickhouse", "lineage=away"), desk, environment
    )
    try:
        out = process._files[0]
        until(lambda: out.exists() and "window: " in out.read_text())
        server.terminate()
        server.wait(10)
        gate.touch()
        said, error = process.communicate(200)
    finally:
        process.kill()
    assert process.returncode == 1 and "published 000001-" in said
    assert "error: model_runs has no row of this: " in error
    assert "next: it serves where a strategy of a book has the name away" in said
    models = Registry(desk / "data" / "models").numbers("away")
    assert list(models) == [1] and recorded(desk, "away") == []
    with connect(f"chdb:{desk}/data/store") as client:  # as the next training does
        training_rows.deliver(desk / "data" / "trainings" / "away", client, models)
    (row,) = recorded(desk, "away")
    assert (row["verdict"], row["model"]) == ("published", models[1].name)


# -- notebooks that do otherwise


def test_a_notebook_that_fails_is_kept_up_to_there(desk, tmp_path):
    word = written(tmp_path / "fails.ipynb", "print('so far')", "raise ValueError('no luck')")
    done, run = retrained(desk, word, "lineage=fails")
    assert done.returncode == 1 and "failed\n  ValueError: no luck" in done.stdout
    assert output_of(run / "retrain.ipynb") == "so far\n"
    (row,) = recorded(desk, "fails")
    assert (row["verdict"], row["reasons"]) == ("failed", ["ValueError: no luck"])
    assert (row["rows"], row["model"], row["id"]) == (0, "", "") and len(row["features"]) == 18


def endless(tmp_path):
    """A notebook that never ends, and the file in which it and its child leave their ids."""
    mark = tmp_path / "pids"
    start = (
        "import os, pathlib, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"fresh = pathlib.Path({str(mark)!r} + '.new')\n"
        f"pathlib.Path({str(mark)!r} + '.cwd').write_text(os.getcwd())\n"
        "fresh.write_text(f'{os.getpid()} {child.pid}')\n"
        f"print('begun')\nfresh.rename({str(mark)!r})"
    )
    return written(tmp_path / "long.ipynb", start, "time.sleep(600)"), mark


def test_a_notebook_that_takes_too_long_is_killed_with_all_it_started(desk, tmp_path):
    word, mark = endless(tmp_path)
    done, run = retrained(desk, word, "lineage=long", "timeout_s=15")
    assert done.returncode == 1 and "it was stopped after timeout_s=15" in done.stdout
    assert output_of(run / "retrain.ipynb") == "begun\n"
    for pid in mark.read_text().split():
        until(lambda pid=pid: is_dead(pid))
    assert [row["verdict"] for row in recorded(desk, "long")] == ["failed"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_notebook_ends_with_its_runner_and_the_training_is_a_row(desk, tmp_path, name):
    word, mark = endless(tmp_path)
    lineage = f"ended_{name.lower()}"
    process = forked.Forked("retrain", (*WORDS, word, f"lineage={lineage}"), desk)
    try:
        until(mark.exists)
        process.send_signal(signal.Signals[name])
        said, error = process.communicate(200)
    finally:
        process.kill()
    for pid in mark.read_text().split():
        until(lambda pid=pid: is_dead(pid))
    scratch = Path(mark.with_suffix(".cwd").read_text())
    until(lambda: not scratch.exists())
    if name == "SIGKILL":
        assert recorded(desk, lineage) == []
        with connect(f"chdb:{desk}/data/store") as client:  # as the next training does
            training_rows.deliver(desk / "data" / "trainings" / lineage, client, {})
    else:
        assert (process.returncode, error) == (1, "")
        assert said.splitlines()[-1] == f"ended: {name}; nothing was published"
    (row,) = recorded(desk, lineage)
    reason = training_rows.CUT_OFF if name == "SIGKILL" else f"interrupted: {name}"
    assert (row["verdict"], row["reasons"]) == ("failed", [reason])


def guarded(scratch, source, stdin):
    """A Python program under the guard of notebooks."""
    command = [sys.executable, "-P", str(PACKAGE / "guard.py"), str(scratch)]
    return subprocess.Popen([*command, sys.executable, "-c", source], stdin=stdin)


def test_what_a_notebook_leaves_behind_ends_with_it(tmp_path):
    mark = tmp_path / "pid"
    source = (
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"pathlib.Path({str(mark)!r}).write_text(str(child.pid))\nraise SystemExit(7)"
    )
    with guarded(tmp_path / "scratch", source, subprocess.PIPE) as process:
        assert process.wait(60) == 7
    assert is_dead(mark.read_text())


def test_two_trainings_of_a_lineage_take_turns(desk, candidate, tmp_path):
    word = handing_over(tmp_path / "second.ipynb", candidate)
    held = lock(desk / "data" / "trainings" / "turns")
    process = forked.Forked("retrain", (*WORDS, word, "lineage=turns"), desk)
    try:
        out = process._files[0]
        told = f"process {os.getpid()} trains turns: this waits for its end"
        until(lambda: out.exists() and told in out.read_text())
        assert "window" not in out.read_text()  # what it would be judged against is not read yet
        held.close()
        said, error = process.communicate(200)
    finally:
        process.kill()
    assert (process.returncode, error) == (0, "") and "published 000001-" in said
    assert [row["verdict"] for row in recorded(desk, "turns")] == ["published"]


def test_a_training_that_does_not_end_is_not_waited_for_for_ever(home):
    held = lock(home / "data" / "trainings" / "turns")
    done = forked.run("retrain", "lineage=turns", "timeout_s=0.2", cwd=home)
    held.close()
    assert done.returncode == 1 and "still trains turns after timeout_s=0.2: start" in done.stderr


def test_a_row_goes_into_the_store_once_and_says_whether_it_was_published(tmp_path, monkeypatch):
    told = list[tuple[str, str, list[str]]]()

    def insert(client, table, rows, token):
        (row,) = rows.to_pylist()
        told.append((token, row["model"], row["verdict"]))

    monkeypatch.setattr(training_rows, "insert", insert)
    models = {7: tmp_path / f"000007-{'ab' * 6}", 6: tmp_path / f"000006-{'cd' * 6}"}
    for name, content in {"a": "ab" * 32, "b": "cd" * 32, "c": ""}.items():
        row = publishing.run_row(
            lineage="direction", verdict="failed", reasons=[training_rows.CUT_OFF],
            strategy=MlDirection(), recipe=RECIPE, features=["x"], parent="", build="",
            notebook="", took_s=1.0,
        )  # fmt: skip
        row = row.set_column(row.schema.get_field_index("id"), "id", pa.array([content]))
        training_rows.keep(tmp_path / f"{name}.arrow", row, newest=6)
    (tmp_path / "d.arrow").write_bytes(b"of another program")
    training_rows.deliver(tmp_path, None, models)
    assert told == [
        ("retrain a", models[7].name, "published"), ("retrain b", "", "failed"),
        ("retrain c", "", "failed"),
    ]  # fmt: skip
    training_rows.deliver(tmp_path, None, models)
    assert len(told) == 3


def is_dead(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_a_notebook_sees_no_secret_and_one_that_writes_nothing_is_refused(
    desk, tmp_path, monkeypatch
):
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "geheim-1")
    monkeypatch.setenv("FINNHUB_TOKEN", "geheim-2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    dump = "import json, os\nprint(json.dumps(dict(os.environ)))"
    done, run = retrained(desk, written(tmp_path / "env.ipynb", dump), "lineage=env")
    assert done.returncode == 1 and f"its {CANDIDATE} cannot be read: No such file" in done.stdout
    seen = json.loads(output_of(run / "retrain.ipynb"))
    added = {  # by the kernel itself
        "JPY_PARENT_PID", "JPY_SESSION_NAME", "PYDEVD_USE_FRAME_EVAL", "PYDEVD_USE_CYTHON",
        "TERM", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PAGER", "GIT_PAGER", "MPLBACKEND",
        "LC_CTYPE", "PYDEVD_DISABLE_FILE_VALIDATION", "PWD", "SHLVL", "_",
    }  # fmt: skip
    assert set(seen) - added == set(notebook.environment(run / "scratch"))
    assert seen["HOME"] == seen["SYSQUANT_HOME"] == str(run / "scratch")
    assert seen["LANG"] == "C.UTF-8"
    for path in (path for path in run.rglob("*") if path.is_file()):
        assert b"geheim" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=momentum"], "strategy=momentum asks no model"),
        (["days=0"], "days must be > 0"),
        (["expires=never"], "expires must be like"),
        (["end=monday"], "end must be like -6h"),
        (["lineage=../etc"], "a lineage is named by small letters"),
        (["training.train=soon"], "training.train must be like"),
        (["model.settings.trees=0"], "model.settings.trees must be a whole number"),
        (["labels.label_settings.high=2"], "labels.label_settings.high must be"),
        (["model.family=svn"], "did you mean 'svm'"),
        (["notebook=nowhere.ipynb"], "notebook=nowhere.ipynb is no file below "),
        (["notebook=/nowhere.ipynb"], "notebook=/nowhere.ipynb is no file\n"),
        (["notebook=/etc/passwd"], "notebook=/etc/passwd must be an .ipynb"),
        (["bars=7s"], "bars must divide the day, 1s at least, was '7s'"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_before_anything_is_done(home, words, said):
    done = forked.run("retrain", *words, cwd=home)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (home / "data").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.train", "${oc.env:SECRET}"),
        ("strategy.full", "${oc.decode:${oc.env:SECRET}}"),
        ("labels.label_settings.horizon", "${store.dsn}"),
    ],
)
def test_a_secret_of_the_environment_is_no_part_of_a_training(home, monkeypatch, key, value):
    monkeypatch.setenv("SECRET", "geheim")
    monkeypatch.setenv("CLICKHOUSE_DSN", "http://me:geheim@127.0.0.1:1/x")
    done = forked.run("retrain", "store=clickhouse", f"{key}='{value}'", cwd=home)
    assert done.returncode == 2 and f"error: {key} is read from the environment" in done.stderr
    assert "geheim" not in done.stdout + done.stderr and not (home / "data").exists()


def test_a_parameter_that_the_notebook_does_not_have_is_refused(home, tmp_path):
    misspelt = PARAMETERS.replace("recipe", "recipes")
    word = written(tmp_path / "own.ipynb", parameters=misspelt)
    done = forked.run("retrain", word, cwd=home)
    assert done.returncode == 2
    assert "has no parameter 'recipe' in a cell that is tagged `parameters`" in done.stderr
    assert "did you mean 'recipes'" in done.stderr
    (tmp_path / "text.ipynb").write_text("text")
    with pytest.raises(ConfigError, match="is no notebook"):
        notebook.notebook_of(str(tmp_path / "text.ipynb"), GIVEN)


def test_small_numbers_reach_the_notebook_as_numbers(tmp_path):
    word = written(tmp_path / "small.ipynb", "assert recipe == {'penalty': 1e-05, 'on': 'yes'}")
    path = Path(word.partition("=")[2])
    given = dict.fromkeys(GIVEN, "") | {"recipe": {"penalty": 1e-05, "on": "yes"}}
    done = tmp_path / "done.ipynb"
    assert notebook.run(path, done, given, scratch=tmp_path / "scratch", timeout_s=60) == ""


# -- candidates that are not what they say

SKEWS = {
    "scaled": lambda x: x * np.array([1.001] + [1.0] * (x.shape[1] - 1)),
    "shifted": lambda x: x + np.array([0.0, 1e-6] + [0.0] * (x.shape[1] - 2)),
    "swapped": lambda x: x[:, [1, 0, *range(2, x.shape[1])]],
}


def checked(directory, bars):
    """What the runner makes of a candidate."""
    rows = training_set(MlDirection(), bars, RECIPE.check(), weights=RECIPE.weights)
    return publishing.check(publishing.read(directory), directory, RECIPE, rows)


def tampered(directory, **changed):
    told = json.loads((directory / CANDIDATE).read_bytes()) | changed
    (directory / CANDIDATE).write_text(json.dumps(told))


@pytest.fixture
def copied(candidate, tmp_path):
    directory = tmp_path / "copied"
    directory.mkdir()
    for path in candidate.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def test_an_honest_candidate_is_taken(candidate, planted):
    assert checked(candidate, planted[0]).candidate.id == planted[1].id


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_a_skew_of_the_training_rows_is_refused(planted, tmp_path, monkeypatch, skew, lies):
    bars, true = planted

    def skewed(*given, **more):
        made = training_set(*given, **more)
        return replace(made, x=np.ascontiguousarray(SKEWS[skew](made.x)))

    monkeypatch.setattr(retraining, "training_set", skewed)
    publishing.write(train(RECIPE, MlDirection(), bars), tmp_path)
    if lies:
        rows = publishing.trained_on(true.training)
        tampered(tmp_path, trained=msgspec.to_builtins(rows))
    said = "predicts something else" if lies else "its training rows and the history differ"
    with pytest.raises(ModelError, match=said):
        checked(tmp_path, bars)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"features": ["other"]}, "its features and"),
        ({"classes": ["up", "flat", "down"]}, "its classes and"),
        ({"thresholds": [-1.0, 1.0]}, "its thresholds and"),
        ({"strategy": "MlDirection(full=0.1, half=0.55)"}, "its strategy and"),
        ({"id": "00" * 32}, "predicts something else than it says"),
        ({"pnl": -0.5}, "its verdict is not the one"),
        ({"scores": {}}, "its scores lack 'skill'"),
        ({"publish": False}, "its verdict is not the one"),
        ({"also": 1}, "cannot be read: Object contains unknown field `also`"),
        ({"pnl": "much"}, "cannot be read: Expected `float`"),
        (
            {"recipe": msgspec.to_builtins(msgspec.structs.replace(RECIPE, test="1d"))},
            "its recipe and",
        ),
    ],
)
def test_a_candidate_that_was_tampered_with_is_refused(copied, planted, changed, said):
    tampered(copied, **changed)
    with pytest.raises(ModelError, match=said):
        checked(copied, planted[0])


def test_another_model_in_its_place_is_refused(copied, planted):
    bars, true = planted
    other = pipeline_of("logistic_regression", {"c": 0.01})
    rows_of = true.training
    codes = np.random.default_rng(0).choice(true.fitted.classifier.classes_, len(rows_of))
    (copied / MODEL).write_bytes(io.dumps(other.fit(rows_of.x, codes)))
    with pytest.raises(ModelError, match="predicts something else than it says"):
        checked(copied, bars)
    (copied / MODEL).write_bytes(io.dumps(other.fit(*rows(500))))
    assert len(NAMES) != len(rows_of.features)
    with pytest.raises(ModelError, match="it cannot be asked: X has"):
        checked(copied, bars)


def test_a_pickle_in_its_place_is_refused_and_runs_nothing(copied, planted, tmp_path):
    mark = tmp_path / "ran"
    (copied / MODEL).write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(ModelError, match="it cannot be read"):
        checked(copied, planted[0])
    assert not mark.exists()
