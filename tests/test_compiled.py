"""The cache of compiled functions: what was edited is compiled anew, and nothing else is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysquant import checks
from sysquant.compiled import kernel, part

PACKAGE = Path(checks.__file__).parents[1]
REVIEW = """
import numpy as np
from sysquant import records
from sysquant.checks.chain import review
from sysquant.risk import RiskChain
chain = RiskChain(checks=[{"check": "order_quantity", "limit": 3.0}])
order = np.ones(1, records.FACTS)
order["quantity"] = 2.0
value, room, verdict = np.zeros(1), np.zeros(1), np.zeros(1, np.int8)
review(order[0], np.zeros(1), np.zeros(1), chain.places, chain.limits, value, room, verdict)
print(value[0], verdict[0])
"""


def test_an_edited_check_gives_its_new_verdict_after_a_restart(tmp_path):
    copy = tmp_path / "sysquant"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "SYSQUANT_CACHE": str(tmp_path / "c")}

    def reviewed():
        command = [sys.executable, "-c", REVIEW]
        run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout.split()

    assert reviewed() == ["2.0", "1"]
    assert reviewed() == ["2.0", "1"]
    source = copy / "checks" / "order.py"
    text = source.read_text()
    edited = text.replace("up_to(abs(order.quantity)", "up_to(2.0 * abs(order.quantity)")
    assert edited != text
    source.write_text(edited)
    assert reviewed() == ["4.0", "0"]


def test_a_part_of_compiled_functions_is_no_function_of_python():
    @part
    def twice(value):
        return 2.0 * value

    @kernel
    def four_times(value):
        return twice(twice(value))

    assert four_times(1.5) == 6.0
    with pytest.raises(TypeError):
        twice(1.5)
