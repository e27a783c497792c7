"""A day of research over three notebooks and a multirun: the ledger has each of its runs."""

import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from sysquant import research
from sysquant.research_file import here
from sysquant.strategies.momentum import Momentum
from tests.conftest import REPOSITORY
from tests.test_multirun import desk, start

__all__ = ["desk", "start"]  # fixtures

OPENING = """
from sysquant import Strategy, backtest, sweep, walk_forward
from sysquant.features import ema
from sysquant.splits import WalkForward
from sysquant.strategies.momentum import Momentum
from sysquant.types import Instrument
from tests.benchmarks.markets import Walk

universe, bars = [Instrument("SIM:S0", 0.01, 1e-6)], Walk().bars(4_000)
quiet = {"progress": False}
"""
# Cells of each notebook, and the runs they make: what is verified or shown again is none.
NOTEBOOKS = {
    "looks.ipynb": (
        (
            "for fast in (5, 10, 20):\n    backtest(Momentum(fast=fast), bars, universe)",
            "result = backtest(Momentum(fast=10), bars, universe)\nprint(result)",
        ), 4,
    ),
    "sweeps.ipynb": (
        (
            "found = sweep(Momentum, bars, universe, fast=range(2, 12), slow=[20, 40], **quiet)",
            "best = found.strategy(int(found.best(1).index[0]))\nbacktest(best, bars, universe)",
        ), 21,
    ),
    "walks.ipynb": (
        (
            "walk = walk_forward(Momentum, bars, universe, splits=WalkForward('1d', '12h'),\n"
            "                    fast=[3, 5, 8], slow=[20, 40], **quiet)\nprint(len(walk.folds))",
            "class Mine(Strategy):\n    fast: int = 4\n\n"
            "    def features(self, bar):\n"
            "        return {'fast': ema(bar.close, self.fast), 'slow': ema(bar.close, 90)}\n\n"
            "    def target(self, f):\n        return (f['fast'] > f['slow']) * 0.5\n\n"
            "backtest(Mine(), bars, universe)",
        ), None,
    ),
}  # fmt: skip


@pytest.fixture
def papermill(tmp_path):
    """Write notebooks and run them at once, a process each; what each printed."""

    def begun(name, cells):
        made = nbformat.v4.new_notebook()
        made.cells = [nbformat.v4.new_code_cell(source) for source in (OPENING, *cells)]
        nbformat.write(made, tmp_path / name)
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "IPYTHONDIR": str(tmp_path / "ipython"),
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "papermill", name, f"done-{name}", "--kernel", "python3",
             "--no-progress-bar"],
            cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(notebooks):
        for name, process in [(name, begun(name, cells)) for name, cells in notebooks.items()]:
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error[-4000:]
            cells = nbformat.read(tmp_path / f"done-{name}", 4).cells
            yield "".join(out.get("text", "") for cell in cells for out in cell["outputs"])

    return run


@pytest.mark.timeout(600)
def test_ledger_has_every_run_of_a_day_of_research(desk, start, papermill, monkeypatch):
    monkeypatch.delenv("SYSQUANT_RESEARCH", raising=False)
    *_, said = papermill({name: cells for name, (cells, _) in NOTEBOOKS.items()})
    folds = int(said.split()[0])
    assert folds >= 3
    wanted = sum(runs or folds * (6 + 1) + 1 for _, runs in NOTEBOOKS.values())
    assert research.tried(Momentum(), 0, 1 << 62).runs == wanted
    code, said, directory = start("-m", "strategy.fast=3,5,8", "strategy.slow=range(20,60,20)")
    assert code == 0, said
    assert len(pd.read_csv(directory / "sweep.csv")) == 6
    wanted += 6
    assert start("strategy.fast=3", "strategy.slow=20")[0] == 0
    wanted += 1
    found = research.tried(Momentum(), 0, 1 << 62)
    assert found.runs == wanted and found.lost == 0
    assert set(found.lineages) == {"Momentum", "Mine"}
    frame = research.trials("Momentum")
    assert len(frame) == wanted and "notebook" in set(frame["source"])
    multirun = frame[frame["source"] != "notebook"]
    assert multirun["kind"].tolist() == ["cell"] * 6 + ["backtest"]
    assert multirun["trial"].nunique() == 6, "the single run repeats a job"
    stored(wanted)


def stored(runs):
    """The runner of the single backtest has carried all of them to the store."""
    from sysquant.store import connect

    with here().reading() as db:
        assert db.execute("SELECT count(*) FROM batches WHERE NOT sent").fetchone() == (0,)
    with connect(os.environ["CLICKHOUSE_DSN"]) as client:
        (row,) = client.query("SELECT count(), uniqExact(trial) FROM research_runs").result_rows
    assert row[0] == runs == len(research.trials("Momentum"))
