"""The house style, as far as a machine can hold it: tools, layers, sizes, and what may not be."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, answered_once

LINES = 600
OURS = ("sysquant/", "runners/", "hydra_plugins/", ".ci/")  # code that users run, unlike tests
# The engine is a fold over its inputs: nothing in it may see a clock, chance or the outside.
PURE = (
    "bars", "effects", "engine", "execution", "features", "loop", "portfolio", "records", "risk",
    "sizing", "strategies", "strategy", "types",
)  # fmt: skip
IMPURE = {"datetime", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "threading"}
IMPURE |= {"time", "uuid"}
LOADS_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "joblib"}
LOADS_CODE |= {"marshal", "shelve", "copyreg"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
MAKES_OBJECTS = {"load", "load_all", "full_load", "unsafe_load", "unsafe_load_all"}  # of yaml
WRITES_ITS_LOOP = {"sysquant/features/definition.py: exec"}  # from a step's signature, for numba
COMPARES_CODE = {"sysquant/capture.py: compile"}  # what a cell's text says, with what runs
HEAVY = {"vectorbt", "sklearn", "jupyterlab", "notebook", "IPython", "matplotlib", "chdb", "plotly"}


@cache
def files(*endings: str) -> tuple[str, ...]:
    """What git holds or would add, with these endings."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    names = [name for name in listed.stdout.split("\0") if (REPOSITORY / name).is_file()]
    return tuple(sorted(name for name in names if name.endswith(endings)))


def _read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def _found(pattern: str, names: Iterator[str] | tuple[str, ...]) -> list[str]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return [
        f"{name}:{_read(name).count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name in names
        for match in compiled.finditer(_read(name))
    ]


def _texts() -> Iterator[str]:
    for name in files(""):
        if b"\0" not in (REPOSITORY / name).read_bytes()[:8000]:
            yield name


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "ruff", "check", "--quiet"),
        ("-m", "ruff", "format", "--check", "--quiet"),
        ("-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-logo"),
    ],
    ids=["ruff", "layout", "layers"],
)
def test_tool_finds_nothing(arguments: tuple[str, ...]):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.timeout(300)
def test_types_are_right():
    read = [name for name in files(".py") if name.startswith(("sysquant/", "runners/"))]
    texts = [f"{name}\n{_read(name)}" for name in (*read, "pyproject.toml")]
    installed = sorted(f"{d.name} {d.version}" for d in importlib.metadata.distributions())
    # The answer for the same question is the same, and asking takes pyright a minute.
    with answered_once("types", sys.executable, sys.version, *installed, *texts) as is_new:
        if is_new:
            test_tool_finds_nothing(("-m", "pyright", "--pythonpath", sys.executable))


def test_no_file_outgrows_its_limit():
    names = files(".py", ".sql", ".yaml", ".yml", ".go", "Makefile")
    long = {name: len(_read(name).splitlines()) for name in names}
    assert not {name: lines for name, lines in long.items() if lines > LINES}


def test_rows_are_appended_or_replaced_never_altered():
    names = tuple(name for name in files(".py", ".sql") if name.startswith(OURS))
    assert not _found(r"\bALTER\s+TABLE\b[^;]*?\b(UPDATE|DELETE)\b", names)


def test_no_file_names_a_path_of_one_machine():
    assert not _found(r"(?<![\w.:/}*-])/(root|work|home|Users)/\w+", tuple(_texts()))


def test_no_file_names_a_package_registry():
    address = r"pypi\.or[g]|pythonhoste[d]|npmj[s]|repo1?\.mave[n]|--(extra-)?index-ur[l]"
    assert not _found(address, tuple(_texts()))


def test_notebooks_are_committed_without_outputs():
    for name in files(".ipynb"):
        cells = [c for c in json.loads(_read(name))["cells"] if c["cell_type"] == "code"]
        assert not [c for c in cells if c["outputs"] or c["execution_count"]], name
        assert len(cells) <= 12, name
        assert all(len("".join(c["source"]).splitlines()) <= 15 for c in cells), name


def test_nothing_we_run_can_turn_a_file_into_code():
    read = [name for name in files(".py", ".ipynb") if name.startswith((*OURS, "notebooks/"))]
    tops = {name.partition("/")[0] for name in read}
    assert tops == {"sysquant", "runners", "hydra_plugins", ".ci", "notebooks"}
    found = [f"{name}: {said}" for name in read for said in _said_of(name, _read(name))]
    assert set(found) == WRITES_ITS_LOOP | COMPARES_CODE


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "import os, marshal", "eval('1')", "exec(x)",
        "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "np.load(f, None, True)",
        "yaml.load(text)", "yaml.unsafe_load(text)", "from yaml import load", "import yaml as y",
        "pd.read_pickle(f)", "from pandas import read_pickle", "import dill as d",
        "import cloudpickle", "import shelve", "map(eval, words)", "builtins.exec(x)",
        "from builtins import eval as e", "compile(x, '', 'exec')", "import_module('pickle')",
        "__import__('pickle')", "def f():\n    from pickle import loads",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["sysquant/models/registry.py", "runners/retrain.py", "notebooks/10_retrain.ipynb"]
)
def test_every_way_to_turn_a_file_into_code_is_seen(name: str, line: str):
    text = _read(name)
    if name.endswith(".ipynb"):
        told = json.loads(text)
        told["cells"].append({"cell_type": "code", "source": line.splitlines(keepends=True)})
        planted = json.dumps(told)
    else:
        planted = f"{text}\n{line}\n"
    assert not _said_of(name, text) and _said_of(name, planted)


@pytest.mark.parametrize(
    "line", ["re.compile(x)", "json.load(f)", "np.load(f)", "yaml.safe_load(text)", "x.evaluate()"]
)
def test_what_turns_no_file_into_code_is_let_be(line: str):
    assert not _said_of("x.py", line)


def test_engine_sees_no_clock_no_chance_and_nothing_outside():
    found = list[str]()
    for name in files(".py"):
        parts = Path(name).with_suffix("").parts
        if parts[0] == "sysquant" and parts[1] in PURE:
            modules = {m for node in ast.walk(ast.parse(_read(name))) for m in _imported(node)}
            found += [f"{name} imports {module}" for module in sorted(modules & IMPURE)]
            found += _found(r"np\.random\.(?!Generator|default_rng\(\w)\w+", (name,))
    assert not found


def test_one_broad_except_at_most():
    pattern = r"noqa: BLE00[1]|except\s*(\(?\s*(Base)?Exceptio[n]\b[^:]*)?:"
    handled = _found(pattern, tuple(name for name in files(".py") if name.startswith(OURS)))
    assert len({found.split(":")[0] for found in handled}) <= 1, handled


def test_live_runner_imports_nothing_heavy():
    program = "import sys, runners.live; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & {module.partition(".")[0] for module in done.stdout.split()}


# What a file's code says that could run foreign code.
def _said_of(name: str, text: str) -> list[str]:
    if name.endswith(".ipynb"):
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    return [said for node in ast.walk(ast.parse(text)) for said in _unsafe(node)]


def _unsafe(node: ast.AST) -> Iterator[str]:
    yield from sorted(_imported(node) & LOADS_CODE)
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.name for alias in node.names if _gives_code(node, alias))
    elif isinstance(node, ast.Name) and node.id in RUNS_CODE:
        yield node.id
    elif isinstance(node, ast.Attribute):
        dangerous = {"builtins": RUNS_CODE, "yaml": MAKES_OBJECTS}.get(ast.unparse(node.value), ())
        if node.attr in dangerous or node.attr == "read_pickle":
            yield node.attr
    elif isinstance(node, ast.Call):
        yield from _unsafe_call(node)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called.endswith("import_module"):
        words = [one.value for one in node.args if isinstance(one, ast.Constant)]
        yield from (str(word) for word in words if word in LOADS_CODE)
    if called in ("np.load", "numpy.load") and len(node.args) > 2:
        yield "allow_pickle"
    for keyword in node.keywords:
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
            yield "allow_pickle"


# Whether a function that is looked for is imported by its name, or yaml under another.
def _gives_code(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    if isinstance(node, ast.Import):
        return alias.name == "yaml" and alias.asname is not None
    return alias.name in RUNS_CODE | {"read_pickle"} | (
        MAKES_OBJECTS if node.module == "yaml" else set()
    )


# The top names of what the node imports.
def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()
