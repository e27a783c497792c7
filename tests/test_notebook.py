"""The notebooks run as papermill runs them: with parameters, from anywhere, beside a server."""

import ast
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sysquant.feeds.synthetic import SAMPLE
from sysquant.serve import ensure_server
from sysquant.store import connect, lock_holder
from tests.conftest import REPOSITORY

FIRST = REPOSITORY / "notebooks" / "01_first_backtest.ipynb"
SECOND = FIRST.with_name("02_sweep_parameters.ipynb")
THIRD = FIRST.with_name("03_validate_out_of_sample.ipynb")
FOURTH = FIRST.with_name("04_measure_costs.ipynb")
FIFTH = FIRST.with_name("05_compare_strategies.ipynb")
SIXTH = FIRST.with_name("06_inspect_data.ipynb")
TENTH = FIRST.with_name("10_retrain.ipynb")
NOTEBOOKS = sorted(FIRST.parent.glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def papermill(home, tmp_path):
    """Run a notebook with parameters; its cells, run, by the place they have among the code."""
    # A home that is a file: whoever would write to Jupyter's user directories fails.
    nobody = tmp_path / "nobody"
    nobody.touch()
    environment = os.environ | {
        "HOME": str(nobody),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }

    def run(notebook: Path, **parameters: object) -> list[dict]:
        done = tmp_path / "done.ipynb"
        command = [
            sys.executable, "-m", "papermill", str(notebook), str(done), "--kernel", "python3",
            "--cwd", str(tmp_path), "--no-progress-bar", "--parameters_yaml",
            json.dumps(parameters),
        ]  # fmt: skip
        made = subprocess.run(
            command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=150
        )
        assert made.returncode == 0, made.stderr[-4000:]
        return _code(done)

    return run


@pytest.fixture(scope="module")
def dsn(tmp_path_factory) -> str:
    """One store for all notebooks that do not need an empty one; the first of them fills it."""
    return f"chdb:{tmp_path_factory.mktemp('notebooks') / 'store'}"


def _code(notebook: Path) -> list[dict]:
    return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]


def _is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def _outputs(cells: list[dict]) -> list[dict]:
    return [output for cell in cells for output in cell["outputs"]]


def printed(cells: list[dict]) -> str:
    """What a run notebook printed; nothing may be said on stderr."""
    streams = [o for o in _outputs(cells) if o["output_type"] == "stream"]
    assert not [o["text"] for o in streams if o["name"] == "stderr"]
    return "".join("".join(o["text"]) for o in streams)


def shown(cells: list[dict]) -> list[str]:
    """What it showed as text."""
    plain = [o["data"].get("text/plain", "") for o in _outputs(cells) if "data" in o]
    return ["".join(text) for text in plain]


def figures(cells: list[dict]) -> list[dict]:
    """Its plotly figures."""
    return [o["data"][PLOTLY] for o in _outputs(cells) if PLOTLY in o.get("data", {})]


def length(values: list | dict) -> int:
    """Of a trace's column, as plotly writes it down: a list, or bytes of its numbers."""
    if isinstance(values, list):
        return len(values)
    return len(base64.b64decode(values["bdata"])) // int(values["dtype"][1:])


def titles(cells: list[dict]) -> list[str]:
    return [figure["layout"]["title"]["text"] for figure in figures(cells)]


@pytest.mark.timeout(300)  # where nothing is compiled yet
def test_first_notebook_runs_on_an_empty_machine_and_its_command_goes_live(papermill, home):
    cells = papermill(FIRST)
    assert titles(cells)[1:] == ["Equity", "SIM:OAK"]
    assert [trace["name"] for trace in figures(cells)[1]["data"]] == [
        "equity", "buy and hold", "before costs",
    ]  # fmt: skip
    for start in ("History of 5 symbols: ", "Backtest of momentum=Momentum(fast=20"):
        assert any(text.startswith(start) for text in shown(cells))
    said = printed(cells)
    assert "first opinion at bar 100" in said
    assert f"{home / 'runs' / 'first_backtest.html'}\n" in said
    assert "Round trips" in (home / "runs" / "first_backtest.html").read_text()
    assert lock_holder(home / "data" / "store") is None

    command = shlex.split(said[said.index("python runners/live.py") :])
    live = subprocess.run(
        [sys.executable, *command[1:]], cwd=REPOSITORY, text=True, capture_output=True, timeout=120
    )
    assert live.returncode == 0, live.stderr[-4000:]
    assert "fills" in live.stdout


def test_first_notebook_shares_a_served_store_and_takes_parameters(papermill, home):
    _, server = ensure_server("chdb:data/store")
    assert server is not None
    try:
        cells = papermill(FIRST, symbol="SIM:YEW", days=10, interval="5m", fast=5, slow=30)
        client = connect("chdb:data/store")
        symbols = client.query("SELECT uniqExact(symbol) FROM bars").result_rows
        client.close()
    finally:
        server.terminate()
        server.wait(10)
    assert symbols == [(5,)]
    assert titles(cells)[-1] == "SIM:YEW"
    assert "strategy.fast=5 strategy.slow=30 bars=5m" in printed(cells)
    assert any("SIM:YEW: 2,880 bars, no gaps" in text for text in shown(cells))


def test_second_notebook_sweeps_verifies_and_says_how_far_to_trust_it(papermill, dsn):
    small = {"days": 10, "interval": "15m", "most_fast": 20, "most_slow": 60, "steps": 4}
    cells = papermill(SECOND, dsn=dsn, **small)
    told = "\n".join(shown(cells))
    assert re.search(r"Sweep of Momentum over \d+ combinations, \d left out", told)
    assert "trades are the same bytes" in told
    assert "plateau around" in told
    said = printed(cells)
    assert re.search(r"better than luck with probability \d+%", said)
    assert re.search(r"Overfitting: probability \d+\.\d%, over 252 halves", said)
    assert len(figures(cells)) == 2


def test_third_notebook_walks_crosses_and_judges(papermill, dsn):
    small = {"days": 20, "interval": "15m", "most_fast": 20, "most_slow": 60, "steps": 3}
    cells = papermill(THIRD, dsn=dsn, train="6d", test="3d", groups=6, **small)
    told = "\n".join(shown(cells))
    assert "Walk-forward of Momentum: 4 folds" in told
    assert "10 paths of 20 splits" in printed(cells)
    walked, folds, crossed = figures(cells)
    assert walked["data"][0]["name"] == "out of sample"
    assert length(folds["data"][0]["x"]) == 4
    assert length(crossed["data"][0]["x"]) == 10
    verdict = shown(cells)[-1]
    assert all(line in verdict for line in ("lower limit", "paths that earn", "overfitting"))


def test_fourth_notebook_adds_up_what_costs_take_and_shows_a_refusal(papermill, dsn):
    cells = papermill(FOURTH, dsn=dsn, days=20, capitals=[1e5, 1e7], most_daily_loss=0.002)
    falls, capacity, _ = figures(cells)
    *steps, left = falls["data"][0]["y"]
    assert left == 0 and len(steps) == 6
    ledger = next(text for text in shown(cells) if "earned before costs" in text)
    told = {line.split()[0]: float(line.split()[-2]) for line in ledger.splitlines()[1:]}
    assert told["left"] == pytest.approx(sum(steps), abs=0.01)
    paid = told["fees"] + told["slippage"] + told["financing"]
    assert told["earned"] - paid == pytest.approx(told["left"], abs=0.05)
    assert length(capacity["data"][0]["y"]) == 2
    assert re.search(r"\d+ orders approved, [1-9]\d* refused", printed(cells))
    assert shown(cells)[-2].count("refuse") >= 1


def test_fifth_notebook_compares_and_gives_capital_by_its_rule(papermill, dsn):
    cells = papermill(FIFTH, dsn=dsn, days=20, confidence=0.0)
    paths, _, correlation = figures(cells)
    names = [trace["name"] for trace in paths["data"]]
    assert len(names) == 8 and names[0] == "buy_and_hold"
    assert list(correlation["data"][0]["x"]) == names
    assert any("Backtest of breakout=Breakout(" in text for text in shown(cells))
    *_, verdict = shown(cells)
    passed = [line.split()[0] for line in verdict.splitlines() if line.endswith("True")]
    assert printed(cells) == f"capital for: {', '.join(passed) or 'none'}\n"


def test_sixth_notebook_shows_where_the_data_is_not_good_enough(papermill, dsn):
    cells = papermill(SIXTH, dsn=dsn, days=2, skew_span="6m", gap_s=5.0, least=0.99)
    coverage, prices, skew = figures(cells)
    assert coverage["data"][0]["type"] == "heatmap"
    assert len(coverage["data"][0]["y"]) == 5 and coverage["layout"]["title"]["text"].startswith(
        "Coverage: "
    )
    assert [trace["mode"] for trace in prices["data"]] == ["lines", "markers"]
    assert {trace["type"] for trace in skew["data"]} == {"histogram"}
    assert re.search(r"[1-9]\d* findings on \d+ days\n", printed(cells))
    assert re.search(r"below 0\.99: (none|SIM:)", printed(cells))


def test_tenth_notebook_trains_on_the_sample_and_says_why_it_keeps_the_model_back(papermill, home):
    cells = papermill(TENTH, recipe={"family": "logistic_regression"})  # a forest takes longer
    assert [title.partition(":")[0] for title in titles(cells)] == [
        "SIM", "Labels", "Out of sample", "Confusion", "Calibration", "Importance",
        "P&L after costs", "Predictions",
    ]  # fmt: skip
    assert len(figures(cells)[0]["layout"]["shapes"]) == 9
    assert any(text.startswith("Backtest of ml_direction=MlDirection(") for text in shown(cells))
    said = printed(cells)
    assert said.startswith("kept back\nit foresees no more than a guess")
    directory = Path(re.search(r"candidate [0-9a-f]{12} in (\S+)", said)[1])
    assert {path.name for path in directory.iterdir()} == {"model.skops", "candidate.json"}
    shutil.rmtree(directory)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_one_cell_of_parameters_which_holds_literals(notebook):
    (cell,) = [cell for cell in _code(notebook) if _is_parameters(cell)]
    for statement in ast.parse("".join(cell["source"])).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        ast.literal_eval(statement.value)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_asks_answers_and_says_what_would_change_it(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    first, last = ("".join(cell["source"]) for cell in (cells[0], cells[-1]))
    assert first.startswith("# ") and "**Question.**" in first and "**Answer**" in first
    assert "What would change my mind" in last


def test_notebooks_are_committed_as_the_hook_leaves_them():
    subprocess.run([sys.executable, "-m", "nbstripout", "--verify", *NOTEBOOKS], check=True)
    for notebook in NOTEBOOKS:
        assert not [c for c in _code(notebook) if c["outputs"] or c["execution_count"]]


def _logic(tree: ast.AST, name: str) -> str:
    # A class as it is run: without what its docstrings say.
    (found,) = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name]
    return "\n".join(ast.unparse(node) for node in found.body if not _is_docstring(node))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_first_notebook_defines_the_strategy_that_its_command_trades():
    shown = ast.parse("\n".join("".join(cell["source"]) for cell in _code(FIRST)))
    shipped = ast.parse((REPOSITORY / "sysquant" / "strategies" / "momentum.py").read_text())
    assert _logic(shown, "Momentum") == _logic(shipped, "Momentum")


def test_first_notebook_trades_the_universe_of_the_sample():
    (cell,) = [c for c in _code(FIRST) if "Instrument(" in "".join(c["source"])]
    scope: dict = {}
    exec("".join(cell["source"]), scope)
    conf = yaml.safe_load((REPOSITORY / "conf" / "universe" / "sample.yaml").read_text())
    stated = [scope["Instrument"](**instrument) for instrument in conf["instruments"]]
    assert scope["universe"] == stated == list(SAMPLE)
