"""A class in a notebook's cell is promoted and trades live; what was changed since does not."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import nbformat
import pytest

from sysquant.home import cache
from tests.conftest import REPOSITORY
from tests.minutes import UNIVERSE, Market, minutes
from tests.sessions import ended as output_of
from tests.sessions import server, starting, store, until

__all__ = ["server", "store"]  # fixtures

CELL = '''
import numpy as np
from sysquant import Strategy
from sysquant.features import ema, step
from sysquant.promote import promote

EDGE = 0.0


@step(state=1)
def smooth(state, x, keep: float):
    state[0] = x if state[0] == 0.0 else keep * state[0] + (1.0 - keep) * x
    return state[0]


class MyTrend(Strategy):
    """Long while a fast average is above a slow one."""

    fast: int = 3  # bars
    keep: float = 0.9

    def features(self, bar):
        return {"fast": ema(bar.close, self.fast), "slow": smooth(bar.close, keep=self.keep)}

    def target(self, f):
        return np.where(f["fast"] > f["slow"] + EDGE, 1.0, 0.0)
'''
GATE = [  # one small trade a minute is told: little capital is carried by it
    "promotion.parity.ticks=600", "feed.start=null", "promotion.statistics.capacity=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A copy of the package, its runners and configuration, to which a strategy may be added."""
    root = tmp_path_factory.mktemp("code")
    for name in ("sysquant", "runners", "conf", "hydra_plugins"):
        shutil.copytree(
            REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    return root


@pytest.fixture
def run(code, home):
    """Start a runner of the copy."""

    def start(runner, *words):
        command = [sys.executable, str(code / "runners" / f"{runner}.py"), *words]
        return subprocess.Popen(
            command, cwd=home, env=environment(code, home), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    yield from starting(start)


def environment(code, home):
    own = {"PYTHONPATH": str(code), "SYSQUANT_HOME": str(home), "SYSQUANT_CACHE": str(cache())}
    return os.environ | own


def executed(code, home, *cells):
    """What a fresh kernel printed of cells."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    path, done = home / "research.ipynb", home / "executed.ipynb"
    nbformat.write(book, path)
    words = ["-m", "papermill", str(path), str(done), "--kernel", "python3", "--no-progress-bar"]
    found = subprocess.run(
        [sys.executable, *words], env=environment(code, home), cwd=home, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3_000:]
    cells = nbformat.read(done, 4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", ()))


@pytest.mark.timeout(600)
def test_a_class_of_a_cell_is_promoted_and_trades_live(code, run, home, store, broker, topic):
    market = Market(broker, topic, minutes(4_500))
    market.go_on(4_000)
    words = [*UNIVERSE, f"feed.bootstrap={broker.bootstrap}", f"feed.topic={topic}"]
    # History comes into the store as it does on a desk: by the ingest.
    ingest = run("ingest", *words)
    until(lambda: counted(store, "ticks") == 4_000)
    ingest.terminate()
    output_of(ingest)
    began = time.monotonic()
    given = [*UNIVERSE, *GATE, f"promotion.parity.bootstrap={broker.bootstrap}"]
    asked = f'promote(MyTrend(fast=4), "my_trend", *{given!r}, book=0.1)'
    said = executed(code, home, CELL, asked)
    assert "my_trend is promoted, record " in said, said
    record = json.loads((home / "data" / "promotions" / "my_trend.json").read_text())
    assert record["terms"]["parameters"] == {"class": "MyTrend", "fast": "4", "keep": "0.9"}
    live_words = command_of(said)
    assert live_words[:2] == ["strategy=my_trend", "book.fraction=0.1"]
    live_words += [*words[-2:], "runtime.clock=event", "ingest=none", "book.name=my"]
    live_words += ["feed.start=latest"]  # what came before is history
    live = run("live", *live_words)
    beat = home / "data" / "journals" / "my" / "heartbeat.json"
    until(lambda: live.poll() is not None or (beat.exists() and b'"running"' in beat.read_bytes()))
    market.go_on(500)
    until(lambda: live.poll() is not None or counted(store, "executions") > 10)
    took_s = time.monotonic() - began
    live.terminate()
    out = output_of(live)
    assert f"my_trend is promoted: {record['id']}" in out
    for table in ("signals", "orders", "risk_receipts", "executions", "order_ends"):
        rows = store.query(f"SELECT DISTINCT strategy, promotion FROM {table}").result_rows
        assert rows == [("my_trend", record["id"])], table
    rows = store.query("SELECT DISTINCT strategy, promotion FROM portfolio_state").result_rows
    assert set(rows) == {("my_trend", record["id"]), ("", "")}
    (row,) = store.query("SELECT * FROM promotions").named_results()
    assert (row["id"], row["verdict"], row["name"]) == (record["id"], "promoted", "my_trend")
    if "PYTEST_XDIST_WORKER" not in os.environ:  # beside other tests it says nothing
        assert took_s < 120, f"from the cell to the first fills in {took_s:.0f} s"
    refused(code, run, home, live_words, record)
    market.close()


def refused(code, run, home, words, record):
    """Each thing that is changed is named, and set back."""
    module = code / "sysquant" / "strategies" / "my_trend.py"
    text = module.read_text()
    module.write_text(text.replace("1.0, 0.0)", "1.0, 0.5)"))
    (name,) = record["terms"]["code"]
    assert f"my_trend is not what was promoted: its code {name} was " in failed(run, words)
    module.write_text(text)
    for word, said in {
        "strategy.fast=5": "its parameter fast was 4, is 5",
        "risk.checks.0.limit=2.0": "the risk limit order_size was 2.1, is 2.0",
        "book.fraction=0.2": "its allocation was 100,000.00, is 200,000.00",
    }.items():
        key = word.split("=")[0]
        others = [each for each in words if each.split("=")[0] != key]
        assert f"my_trend is not what was promoted: {said}" in failed(run, [*others, word])
    path = home / "data" / "promotions" / "my_trend.json"
    kept = path.read_text()
    path.write_text(kept.replace('"allocation": 100000.0', '"allocation": 900000.0'))
    assert "was changed after it was written" in failed(run, words)
    path.write_text(kept)
    other = [word for word in words if not word.startswith("strategy")]
    said = failed(run, ["strategy=breakout", *other, "runtime.require_promotion=true"])
    assert "breakout was not promoted, and runtime.require_promotion is true" in said


def failed(run, words):
    live = run("live", *words)
    _, err = live.communicate(timeout=200)
    assert live.returncode == 1, err
    return err


def counted(store, table):
    return store.query(f"SELECT count() FROM {table}").result_rows[0][0]


def command_of(said):
    (line,) = re.findall(r"python runners/live.py (.*)", said)
    return shlex.split(line)
