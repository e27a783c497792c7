"""`runners/backtest.py --multirun` finds what single runs find, and says what failed.

Most of it runs in this process: a start of a runner takes seconds.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tomllib
from importlib.util import find_spec

import optuna
import pandas as pd
import pytest
from hydra.core.plugins import Plugins

from runners import backtest, command_line, jobs
from sysquant import intervals
from sysquant.errors import ConfigError
from sysquant.serve import ensure_server
from sysquant.strategies.momentum import Momentum
from sysquant.sweeping import Study, figures_of
from tests.conftest import REPOSITORY
from tests.test_conf import composed

QUIET = ["hydra/hydra_logging=none", "hydra/job_logging=none"]
MARKET = ["feed=synthetic", "feed.length_s=1800", "bars=10s", "snapshots=1m"]
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.trials=6", "hydra.sweeper.study=mine"]
SPACE = ["strategy.fast=range(2,12,2)", "strategy.slow=interval(20,60)"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A home whose store is served, for this process and its children."""
    home = tmp_path_factory.mktemp("multirun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYSQUANT_HOME", str(home))
        dsn, server = ensure_server("chdb:data/store")
        patch.setenv("CLICKHOUSE_DSN", dsn)
        yield home
        server.terminate()
        server.wait(10)


@pytest.fixture
def start(desk, monkeypatch, capsys):
    """Run the runner in this process: its exit code, what it said, and its directory."""

    def started(*words):
        before = set((desk / "runs" / "backtest").glob("*"))
        flags = [word for word in words if word == "-m"]
        words = [*MARKET, *QUIET, *(word for word in words if word != "-m")]
        monkeypatch.setattr(sys, "argv", ["backtest.py", *flags, *words])
        code = 0
        try:
            backtest.main()
        except SystemExit as end:
            code = end.code
        new = set((desk / "runs" / "backtest").glob("*")) - before
        said = "".join(capsys.readouterr())
        assert new or code != 0, said
        return code, said, new.pop() if new else None

    level, handlers = logging.root.level, list(logging.root.handlers)
    pipe, mask = signal.getsignal(signal.SIGPIPE), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    jobs._EVENTS.clear()
    yield started
    signal.signal(signal.SIGPIPE, pipe)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture
def single(start, monkeypatch):
    """The figures of one run without `--multirun`."""

    def figures(*words):
        kept = []
        monkeypatch.setattr(backtest.plot, "report", lambda result, path: kept.append(result))
        assert start(*words)[0] == 0
        return figures_of(kept[0])

    return figures


def table(directory):
    """`sweep.csv`, which `sweep.parquet` must equal, by job."""
    frame = pd.read_csv(directory / "sweep.csv")
    other = pd.read_parquet(directory / "sweep.parquet")
    assert list(frame.columns) == list(other.columns) and len(frame) == len(other)
    assert list(frame["job"]) == list(other["job"])
    return frame.set_index("job").sort_index()


def assert_row_is(row, figures):
    """A row of the table is what a single run found, to the last bit."""
    assert figures["fills"] > 3
    assert {name: row[name] for name in figures} == figures


# -- a grid


def test_grid_of_parameters_is_what_single_runs_find(start, single):
    words = ["strategy.fast=3,5,8", "strategy.slow=range(20,60,20)"]
    code, said, directory = start("-m", *words)
    frame = table(directory)
    assert code == 0 and len(frame) == 6
    for job, (fast, slow) in ((0, (3, 20)), (3, (5, 40)), (5, (8, 40))):
        row = frame.loc[job]
        assert (row["strategy.fast"], row["strategy.slow"]) == (fast, slow)
        assert_row_is(row, single(f"strategy.fast={fast}", f"strategy.slow={slow}"))
    assert "6 of 6 jobs done, 0 failed" in said
    assert "verified: the best 5 and 1 drawn at random" in said
    assert "plateau around fast=" in said
    assert (directory / "report.html").read_text().count("plotly") > 3
    assert json.loads((directory / "run.json").read_text())["done"] == 6
    ranked = pd.read_csv(directory / "sweep.csv")["sharpe"]
    assert ranked.is_monotonic_decreasing
    again = said.split("the best alone: python runners/backtest.py ")[1].split()
    best = frame.sort_values("sharpe").iloc[-1]
    assert f"strategy.fast={best['strategy.fast']}" in again


def test_grid_over_groups_is_what_single_runs_find(start, single):
    words = ["-m", "strategy=momentum,breakout", "execution=free,simulated", "book.fraction=0.5"]
    code, said, directory = start(*words, "runtime.warmup_bars=0")
    frame = table(directory)
    assert code == 0 and "4 of 4 jobs done, 0 failed" in said
    row = frame[(frame["strategy"] == "breakout") & (frame["execution"] == "simulated")].iloc[0]
    alone = ["strategy=breakout", "execution=simulated", "book.fraction=0.5"]
    assert_row_is(row, single(*alone, "runtime.warmup_bars=0"))
    assert (frame[frame["execution"] == "free"]["costs"] == 0).all()


def test_sharpe_limits_and_the_deflated_ratio_know_the_number_of_trials(start):
    _, said, directory = start("-m", "strategy.fast=3,5,8", "strategy.slow=20,40")
    frame = table(directory)
    best = frame.loc[frame["sharpe"].idxmax()]
    shape = best["sharpe_period"], int(best["periods"]), best["skew"], best["kurtosis"]
    chance = intervals.deflated_sharpe(*shape, 6, frame["sharpe_period"].std(ddof=1))
    assert f"deflated Sharpe of the best {chance:.1%}" in said and "the best of 6 " in said
    error = intervals.sharpe_error(*shape) * best["sharpe"] / best["sharpe_period"]
    assert best["sharpe_high"] - best["sharpe"] == pytest.approx(1.96 * error, rel=1e-3)


def test_failed_jobs_are_told_and_the_others_go_on(start, monkeypatch):
    target = Momentum.target

    def moody(self, f):
        if self.fast == 4:
            return {"no": "weight"}
        return target(self, f) if self.fast != 6 else f["fats"]

    monkeypatch.setattr(Momentum, "target", moody)
    code, said, directory = start("-m", "strategy.fast=3,0,4,5,6,abc,8")
    frame = table(directory)
    assert code == 1
    assert "3 of 7 jobs done, 4 failed" in said
    assert list(frame.index[frame["error"].isna()]) == [0, 3, 6]
    for job, words in (
        (1, "strategy.fast=0: span must be"), (2, "strategy.fast=4: Momentum(fast=4"),
        (4, "strategy.fast=6: there is no feature 'fats'"),
        (5, "strategy.fast=abc: strategy.fast must be int, was 'abc'"),
    ):  # fmt: skip
        assert f"error: job {job} {words}" in said
    assert "Traceback" not in said


def test_a_group_that_fails_leaves_the_other_groups_alone(start):
    code, said, directory = start("-m", "book.capital=0,1000000", "strategy.fast=3,5")
    frame = table(directory)
    assert code == 1 and "error: job 0 book.capital=0 strategy.fast=3: book.capital must" in said
    assert list(frame["error"].isna()) == [False, False, True, True]


def test_a_sweep_that_disagrees_with_single_backtests_says_so(start, monkeypatch):
    rows = Study.rows

    def off(self, *asked):
        for place, row in rows(self, *asked):
            yield place, row | {"equity": float(row["equity"]) + 0.01}

    monkeypatch.setattr(Study, "rows", off)
    code, said, _ = start("-m", "strategy.fast=3,5")
    assert code == 1 and "DISAGREES in 2 of them" in said


def test_ctrl_c_stops_and_says_what_is_done(start, monkeypatch):
    rows, real = Study.rows, signal.getsignal(signal.SIGINT)

    def interrupted(self, *asked):
        for at, each in enumerate(rows(self, *asked)):
            if at == 2:
                signal.raise_signal(signal.SIGINT)
            yield each

    monkeypatch.setattr(Study, "rows", interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, said, directory = start("-m", "strategy.fast=range(2,12)")
    finally:
        signal.signal(signal.SIGINT, real)
    assert code == 130
    assert "stopped: 2 of 10 jobs are done" in said and "not verified" in said
    assert len(table(directory)) == 2


# -- a search


def test_search_goes_on_where_it_was_and_counts_every_trial(start, desk, single):
    code, said, directory = start("-m", *SEARCH, *SPACE)
    first = table(directory)
    assert code == 0 and len(first) == 6 and "6 of 6 jobs done" in said
    assert set(first["strategy.fast"]) <= {2, 4, 6, 8, 10}
    assert first["strategy.slow"].between(20, 60).all()
    row = first.iloc[-1]
    words = [f"{key}={row[key]}" for key in ("strategy.fast", "strategy.slow")]
    assert_row_is(row, single(*words))

    code, said, directory = start("-m", *SEARCH, *SPACE, "hydra.sweeper.trials=9")
    second = table(directory)
    assert code == 0 and "6 trials of this study were finished before" in said
    assert first.equals(second.loc[first.index]) and len(second) == 9
    trials = len(second.drop_duplicates(["strategy.fast", "strategy.slow"]))
    assert f"what the best of {trials} shows by luck" in said.replace("\n", " ")

    for words, changed in (
        (["execution=free"], "configuration"), (["hydra.sweeper.rank=return"], "rank"),
        (["feed.seed=2"], "configuration and data"),
        (["strategy.fast=2,4"], "search"),
    ):  # fmt: skip
        code, said, _ = start("-m", *SEARCH, *SPACE, *words)
        assert code == 1 and f"rests on another {changed}" in said, said
    path = desk / "data" / "studies" / "mine.db"
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{path}")
    assert len(study.trials) == 9


def test_search_leaves_failed_trials_behind(start):
    words = ["hydra/sweeper=optuna", "hydra.sweeper.trials=4", "hydra.sweeper.study=failing"]
    code, said, _ = start("-m", *words, "strategy.fast=choice(0,-1)")
    assert code == 1 and "0 of 4 jobs done, 4 failed" in said
    code, said, _ = start("-m", *words, "strategy.fast=choice(0,-1)")
    assert "finished before" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/sweeper=optuna"], "there is nothing to search"),
        (["hydra/sweeper=optuna", *SPACE, "hydra.sweeper.trials=0"], "hydra.sweeper.trials must"),
        (["hydra/sweeper=optuna", *SPACE, "hydra.sweeper.sampler=tpf"], "did you mean 'tpe'"),
        (["hydra/sweeper=optuna", *SPACE, "hydra.sweeper.study=../up"], "names a file"),
        (["hydra/sweeper=optuna", "strategy.slow=interval(9,3)"], "an interval is (low, high)"),
        (["hydra.sweeper.rank=shrpe"], "did you mean 'sharpe'"),
        (["hydra.sweeper.workers=0"], "hydra.sweeper.workers must"),
        (["feed.length_s=null", "seed=1,2"], "a backtest needs a feed that ends"),
    ],
)
def test_options_that_cannot_be_meant_are_one_sentence(start, words, said):
    code, output, _ = start("-m", *words)
    assert code == 1 and said in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("strategy.slow=interval(1,9)", "search it with hydra/sweeper=optuna"),
        ("hydra/sweeper=basic", "hydra/sweeper=basic does not exist; there is: grid, optuna"),
        ("hydra/launcher=jobib", "did you mean 'joblib'?"),
        ("hydra.sweeper.batch=1,2", "hydra.sweeper.batch has one"),
        ("hydra.sweeper.trials=3", "there is no key 'trials' in 'hydra.sweeper'"),
    ],
)
def test_command_line_of_a_sweep_is_answered_in_one_sentence(words, said):
    with pytest.raises(ConfigError) as caught:
        command_line.check_command_line("config", ["-m", *words.split()], multirun=True)
    assert said in str(caught.value)


# -- packages and launchers


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(command_line, "_is_there", lambda module: module == "hydra")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for word, said in (
        ("hydra/sweeper=optuna", "pip install -c constraints.txt -e '.[optuna]'"),
        ("hydra/launcher=joblib", "pip install -c constraints.txt -e '.[joblib]'"),
        ("hydra/launcher=cluster", "pip install hydra-ray-launcher"),
    ):
        with pytest.raises(ConfigError) as caught:
            command_line.check_command_line("config", ["-m", word], multirun=True)
        assert said in str(caught.value)
    assert {"optuna", "joblib"} <= set(project["optional-dependencies"])


def test_processes_of_joblib_find_what_threads_find(start, desk, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    words = ["strategy.fast=3,0,8", "hydra.sweeper.verify_sample=0"]
    code, _, directory = start("-m", *words)
    threads = table(directory)
    code, said, directory = start("-m", *words, "hydra/launcher=joblib")
    assert code == 1 and "error: job 1 strategy.fast=0: span must be" in said
    assert table(directory).equals(threads)
    assert {path.name for path in directory.iterdir()} >= {"0", "1", "2", "sweep.csv"}


def test_cluster_of_ray_composes_and_its_launcher_is_made_where_it_is_installed():
    cfg = composed("config", "hydra/launcher=cluster", hydra_too=True)
    target = cfg.hydra.launcher._target_
    assert target == "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    assert cfg.hydra.launcher.ray.init.address is None
    if find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("hydra-ray-launcher is not installed: its launch is not shown here")
    launcher = Plugins.instance().instantiate_launcher(None, None, cfg)
    assert launcher.ray_cfg.remote.num_cpus == 1


def test_secret_of_the_environment_is_written_nowhere_by_a_sweep(start, desk, monkeypatch):
    password = os.environ["CLICKHOUSE_DSN"].split(":")[2].split("@")[0]
    assert len(password) > 8
    words = ["store=clickhouse", "hydra.sweeper.study=secret", "hydra.sweeper.trials=2"]
    assert start("-m", "hydra/sweeper=optuna", *words, *SPACE)[0] == 0
    assert start("-m", "store=clickhouse", "strategy.fast=3,5")[0] == 0
    for path in [*desk.glob("runs/**/*"), *desk.glob("data/studies/*")]:
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path


def test_a_start_imports_nothing_of_a_search():
    program = (
        "import sys; from hydra.core.plugins import Plugins; import runners.backtest; "
        "Plugins.instance(); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, text=True, capture_output=True, check=True
    )
    modules = set(done.stdout.split())
    assert "hydra_plugins.sysquant_sweepers" in modules
    heavy = {"optuna", "joblib", "loky", "ray", "sqlalchemy", "tqdm", "sysquant.sweeping"}
    assert not heavy & {*modules, *(name.partition(".")[0] for name in modules)}
    assert not {"runners.multirun", "runners.jobs", "runners.search"} & modules


def test_the_sweepers_of_conf_have_the_keys_that_are_read():
    for name in ("grid", "optuna"):
        options = composed("config", f"hydra/sweeper={name}", hydra_too=True).hydra.sweeper
        read = {"rank", "workers", "batch", "verify_best", "verify_sample"}
        read |= {"trials", "study", "sampler"} if name == "optuna" else set()
        assert set(options) == read | {"_target_"}
