"""The pages of docs/ and the code name the same things, and every test named there exists."""

import importlib
import inspect
import re
import shlex
from dataclasses import fields
from typing import get_args

import pytest
import yaml

from runners import command_line
from sysquant import operation
from sysquant.checks import CHECKS
from sysquant.execution import SPREAD_MODELS
from sysquant.exits import HOW, REARM
from sysquant.health import Kind, Limits
from sysquant.orders import FOLLOW_UPS, KINDS, TIFS
from sysquant.risk import HISTORY
from sysquant.runtime import Runtime
from sysquant.types import Instrument
from tests.conftest import REPOSITORY

CONF = REPOSITORY / "conf"
RUNNER = "python runners/backtest.py "
GROUPS = ("execution", "orders", "exits", "sizing", "risk")
VALUES = {
    "orders.kind": KINDS, "orders.tif": TIFS, "orders.then": FOLLOW_UPS, "exits.how": HOW,
    "exits.rearm": REARM, "execution.spread_model": SPREAD_MODELS, "risk.min_history": HISTORY,
    "execution.funding": ("store",),
}  # fmt: skip
ALSO = {"seed", "book.capital", "book.fraction", "book.currency", "-"}
PAGE = (REPOSITORY / "docs" / "controls.md").read_text()
PLACE = re.compile(r"tests/(test_\w+)\.py::(test_\w+)(?:\[(.+)\])?")
HEAD = ["control", "what it does", "key", "test"]


def lines():
    """Cells of every line of the page's tables."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [row for row in cells if row != HEAD and set(row[0]) != {"-"}]


LINES = lines()
NAMED = sorted({test for row in LINES for test in re.findall(r"`([^`]+)`", row[-1])})


def keys_of(row):
    return re.findall(r"`([^`]+)`", row[2]) or [row[2]]


def wanted():
    """Every key of the groups, every value of a key that has a list of them, every option."""
    found = {f"universe.instruments.{field.name}" for field in fields(Instrument)}
    for group in GROUPS:
        for path in (CONF / group).glob("*.yaml"):
            keys = set(yaml.safe_load(path.read_text())) - {"_target_", "defaults"}
            found |= {f"{group}={path.stem}", *(f"{group}.{key}" for key in keys)}
    return found | {f"{key}={value}" for key, values in VALUES.items() for value in values}


def test_every_line_says_what_its_control_does():
    assert len(LINES) > 150
    assert not [row for row in LINES if len(row) != 4 or not all(row)]


def test_every_check_has_one_line_and_every_line_its_check():
    rows = {row[0].strip("`"): row for row in LINES if keys_of(row) == ["risk.checks"]}
    del rows["all checks run"]
    assert set(rows) == set(CHECKS)
    assert sum(row[0].startswith("`") for row in LINES) == len(CHECKS)
    for name, row in rows.items():
        assert (" at most" if CHECKS[name].most else " at least") in row[1], name


def test_every_control_of_the_configuration_has_a_line_and_every_line_its_control():
    named = {key for row in LINES for key in keys_of(row)}
    operations = {key for key in named if key.startswith("operation.")}
    assert all(callable(getattr(operation, key.partition(".")[2], None)) for key in operations)
    with_values = named | {key.partition("=")[0] for key in named}
    assert wanted() - with_values == set(), "without a line"
    assert named - operations - wanted() - ALSO == set(), "without a control"


def ids_of(function):
    """What may stand in brackets behind a test that is parametrised once."""
    (mark,) = [mark for mark in function.pytestmark if mark.name == "parametrize"]
    ids = mark.kwargs.get("ids")
    if callable(ids):
        return [ids(value) for value in mark.args[1]]
    return [str(one) for one in ids or mark.args[1]]


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_a_line_names_exists(named):
    file, name, chosen = PLACE.fullmatch(named).groups()
    module = importlib.import_module(f"tests.{file}")
    function = getattr(module, name)
    assert inspect.isfunction(function) and inspect.getmodule(function) is module
    marks = {mark.name for mark in getattr(function, "pytestmark", [])}
    assert not marks & {"skip", "skipif", "xfail"}
    if chosen:
        assert chosen in ids_of(function)


def test_pages_lead_to_it():
    readme, engine = ((REPOSITORY / name).read_text() for name in ("README.md", "docs/engine.md"))
    assert "(docs/controls.md)" in readme.split("## Orders, risk and exits")[1].split("\n## ")[0]
    assert "(controls.md)" in engine.split("\n## ")[0]


def test_every_command_of_the_page_on_sweeps_can_be_meant(monkeypatch):
    monkeypatch.setattr(command_line, "_is_there", lambda module: True)  # Ray is in no pinned set
    page = (REPOSITORY / "docs" / "sweeps.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    runs = [line.removeprefix(RUNNER) for line in lines if line.startswith(RUNNER)]
    assert len(runs) == 5
    for words in map(shlex.split, runs):
        command_line.check_command_line("config", words, multirun=True)
    assert "(docs/sweeps.md)" in (REPOSITORY / "README.md").read_text()


def test_keys_of_the_sweepers_stand_on_their_page():
    page = (REPOSITORY / "docs" / "sweeps.md").read_text()
    for name in ("grid", "optuna"):
        keys = yaml.safe_load((CONF / "hydra" / "sweeper" / f"{name}.yaml").read_text())
        for key in set(keys) - {"_target_"}:
            assert re.search(rf"\b{key}\b", page), key


def test_page_on_operation_names_every_alert_and_every_key_of_the_watchdog():
    page = (REPOSITORY / "docs" / "operation.md").read_text()
    assert "(docs/operation.md)" in (REPOSITORY / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", page, re.MULTILINE))
    assert {*get_args(Kind), "recovered"} <= rows.keys()
    runtime = yaml.safe_load((CONF / "runtime" / "default.yaml").read_text())
    for name in Limits.__struct_fields__:
        assert float(rows[f"runtime.{name}"]) == runtime[name] == getattr(Runtime(), name)
    for command in re.findall(r"^python runners/watchdog\.py(.*)$", page, re.MULTILINE):
        command_line.check_command_line("watchdog", shlex.split(command))
    for name in yaml.safe_load((CONF / "watchdog.yaml").read_text()).keys() - {"defaults", "hydra"}:
        assert re.search(rf"\b{name}\b", page), name
