"""A plugin of pytest in a copy of the tree: what each test said, as a line of JSON.

Input: the file to write, in the environment. Hypothesis does not shrink what it finds here, and
nothing is compiled beforehand that no test asks for.
"""

import json
import os
import sys
from pathlib import Path

import pytest

NAME = "tests.defects.witness"
FILE = "DEFECTS_TOLD"


def pytest_configure(config: pytest.Config) -> None:
    """After `tests/conftest.py` set its profile, before the tests are read."""
    from hypothesis import Phase, settings  # not before its own plugin was read

    once = settings(
        settings.get_profile("sysquant"),
        phases=(Phase.explicit, Phase.generate),
        report_multiple_bugs=False,
    )
    settings.register_profile("defects", once)
    settings.load_profile("defects")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to judge another tree than the copy."""
    found, root = Path(sys.modules["sysquant"].__file__ or ""), session.config.rootpath
    if not found.resolve().is_relative_to(root.resolve()):
        raise pytest.UsageError(f"the tests import {found}, not the copy in {root}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """One line for a test, and one more for a fixture that broke."""
    report = yield
    if call.when == "call" or call.excinfo is not None:
        kind, said = "", ""
        if call.excinfo is not None:
            kind, said = call.excinfo.type.__name__, str(call.excinfo.value)
        line = {"test": item.nodeid, "outcome": report.outcome, "kind": kind, "said": said}
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report
