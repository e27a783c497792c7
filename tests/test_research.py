"""The research ledger: every run is counted, once, by whoever made it, and no fault loses one."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from sysquant import backtest, research, sweep, walk_forward
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.features import ema, lag
from sysquant.recording import Extent, Recorder, aside, origin_of
from sysquant.research_file import ResearchFile, RunRow, here
from sysquant.splits import WalkForward
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.types import Instrument
from tests.benchmarks.markets import Walk
from tests.conftest import REPOSITORY
from tests.research_runs import ANY, BARS, counted, filled

pytest_plugins = ["tests.served"]

UNIVERSE = [Instrument("SIM:S0", 0.01, 1e-6)]
QUIET = {"progress": False, "verify_best": 1, "verify_sample": 2}


class Crossing(Strategy):
    """Momentum under another name, a default changed."""

    fast: int = 7
    slow: int = 100

    def features(self, bar):
        return {"fast": ema(bar.close, self.fast), "slow": ema(bar.close, self.slow)}

    def target(self, f):
        return (f["fast"] > f["slow"]).astype(float)


class Contrary(Strategy):
    """Another decision on the same features, with other numbers in them."""

    fast: int = 3

    def features(self, bar):
        return {"fast": ema(bar.close, 2 * self.fast), "slow": ema(bar.close, 400)}

    def target(self, f):
        return (f["fast"] < f["slow"]).astype(float)


class Rising(Strategy):
    """Nothing of Momentum."""

    def features(self, bar):
        return {"up": bar.close > lag(bar.close, 5)}

    def target(self, f):
        return f["up"]


@pytest.fixture(autouse=True)
def own_ledger(home):
    """A home, and with it a ledger, for each test."""
    return home


# -- what is counted


def test_every_run_is_counted_and_a_repeated_one_is_no_trial():
    for fast in (5, 5, 8):
        backtest(Momentum(fast=fast), BARS, UNIVERSE)
    found = counted()
    assert (found.runs, found.trials(), found.lost) == (3, 2, 0)
    frame = research.trials("Momentum")
    assert frame["trial"].nunique() == 2 and len(frame) == 3
    assert frame["parameters"].tolist()[2] == '{"fast":8,"slow":100}'
    assert set(frame["kind"]) == {"backtest"} and set(frame["symbols"]) == {"SIM:S0"}
    assert frame["first"].iloc[0].value == BARS.ts[0] and frame["last"].iloc[0].value == BARS.ts[-1]


def test_sharpe_ratio_of_the_ledger_is_that_of_the_result():
    result = backtest(Momentum(fast=5), BARS, UNIVERSE)
    row = research.trials(Momentum).iloc[0]
    returns = result.returns.to_numpy()
    assert row["periods"] == len(returns)
    assert row["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1), rel=1e-9)
    score = next(iter(counted().scores.values()))
    assert score == pytest.approx(row["sharpe"] * np.sqrt(len(returns)))


def test_cells_of_a_sweep_count_once_and_what_verifies_them_does_not():
    found = sweep(Momentum, BARS, UNIVERSE, fast=[3, 5, 8], slow=[20, 40], **QUIET)
    assert found.verified.best + found.verified.sampled == 3
    assert (counted().runs, counted().trials()) == (6, 6)
    frame = research.trials("Momentum")
    assert frame["sharpe"].tolist() == pytest.approx(
        [found.frame["sharpe_period"][at] for at in _places(found, frame)]
    )
    best = found.strategy(int(found.best(1).index[0]))
    backtest(best, BARS, UNIVERSE)
    assert (counted().runs, counted().trials()) == (7, 6), "a cell again is no other trial"


def _places(found, frame):
    asked = [json.loads(said) for said in frame["parameters"]]
    known = [dict(strategy.parameters) for strategy in found.grid.strategies]
    return [known.index(each) for each in asked]


@pytest.mark.timeout(300)  # vectorbt compiles
def test_cells_that_are_only_screened_count_as_well():
    sweep(
        Momentum, BARS, UNIVERSE, fast=[3, 5, 8], slow=[20, 40], screen="vectorbt", keep=2, **QUIET
    )
    frame = research.trials("Momentum")
    assert sorted(frame["kind"]) == ["cell"] * 2 + ["screened"] * 4
    with aside():
        alone = sweep(Momentum, BARS, UNIVERSE, fast=[3, 5, 8], slow=[20, 40], **QUIET)
    wanted = alone.frame["sharpe_period"] * np.sqrt(alone.frame["periods"])
    scores = frame["sharpe"] * np.sqrt(frame["periods"])
    assert scores.tolist() == pytest.approx(wanted[_places(alone, frame)].tolist(), abs=0.5)
    assert counted().trials() == 6


def test_cells_of_an_interrupted_sweep_count_once(home):
    for fast in ([3, 5], [3, 5, 8]):
        sweep(Momentum, BARS, UNIVERSE, fast=fast, slow=[20], resume=home / "s.jsonl", **QUIET)
    assert counted().trials() == 3


def test_walk_counts_its_trainings_and_its_tests():
    walk = walk_forward(
        Momentum, BARS, UNIVERSE, splits=WalkForward("16h", "8h"), fast=[3, 5], slow=[20, 40],
        progress=False,
    )  # fmt: skip
    folds = len(walk.folds)
    assert folds > 2 and counted().runs == folds * (4 + 1)
    assert counted().trials() == folds * 5, "each window is other data"
    assert len(counted().configurations) == 4


def test_book_of_several_counts_for_each_of_them():
    backtest({"a": Momentum(), "b": Rising()}, BARS, UNIVERSE)
    assert counted().runs == counted(Rising()).runs == 1
    assert np.isnan(next(iter(counted().scores.values())))


def test_costs_data_and_parameters_make_another_trial():
    def trials():
        return counted().trials()

    backtest(Momentum(), BARS, UNIVERSE)
    for number, options in enumerate(
        (
            {"execution": Execution(fee_bps=1)}, {"capital": 5e5}, {"start": "-1d"}, {"seed": 2},
            {"end": "-1d"},
        ), 2,
    ):  # fmt: skip
        backtest(Momentum(), BARS, UNIVERSE, **options)
        assert trials() == number, options
    changed = Walk(2).bars(3_000)
    backtest(Momentum(), changed, UNIVERSE)
    backtest(Momentum(slow=50), BARS, UNIVERSE)
    assert trials() == counted().runs == 8


def test_only_data_that_overlap_the_window_count():
    backtest(Momentum(), BARS[:1_000], UNIVERSE)
    backtest(Momentum(), BARS[1_000:], UNIVERSE)
    edge = int(BARS.ts[1_000])
    assert research.tried(Momentum(), 0, edge).runs == 1
    assert research.tried(Momentum(), edge, 1 << 62).runs == 1
    assert research.tried(Momentum(), edge - 1, edge + 1).runs == 1
    assert research.tried(Momentum(), 0, 1 << 62).runs == 2


def test_what_is_judged_aside_is_no_trial():
    with aside():
        backtest(Momentum(), BARS, UNIVERSE)
        sweep(Momentum, BARS, UNIVERSE, fast=[3, 5], slow=[20], **QUIET)
    assert counted().runs == 0 and counted().trials() == 1


# -- whose it is


def test_copy_under_another_name_belongs_to_the_lineage():
    backtest(Crossing(), BARS, UNIVERSE)
    backtest(Contrary(), BARS, UNIVERSE)
    backtest(Rising(), BARS, UNIVERSE)
    assert origin_of(Crossing()).code == origin_of(Momentum()).code
    assert origin_of(Contrary()).graph == origin_of(Momentum(fast=9)).graph
    found = counted()
    assert set(found.lineages) == {"Momentum", "Crossing", "Contrary"} and found.runs == 2
    assert counted(Rising()).lineages == ("Rising",)


def test_derived_and_declared_strategies_belong_to_the_lineage():
    class Faster(Momentum):
        def target(self, f):
            return 0.5 * (f["fast"] > f["slow"])

    class Other(Strategy):
        lineage = "Momentum"

        def features(self, bar):
            return {"high": bar.high}

        def target(self, f):
            return np.ones(len(f["high"]))

    backtest(Faster(), BARS, UNIVERSE)
    backtest(Other(), BARS, UNIVERSE)
    assert counted().runs == 2 and counted(Other()).runs == 2
    assert origin_of(Other()).lineage == "Momentum"
    assert origin_of(Other()).graph == "", "nothing is computed of a bar's own field"


def test_class_of_the_same_name_in_another_module_is_the_same_lineage():
    made = type("Momentum", (Strategy,), dict(vars(Rising)) | {"__module__": "elsewhere"})
    backtest(made(), BARS, UNIVERSE)
    assert counted().runs == 1


def test_abstract_base_links_nothing():
    class Desk(Strategy):
        def target(self, f):
            return next(iter(f.values()))

    class First(Desk):
        def features(self, bar):
            return {"a": bar.close > lag(bar.close, 3)}

    class Second(Desk):
        def features(self, bar):
            return {"b": ema(bar.close, 3) > bar.open}

    backtest(First(), BARS, UNIVERSE)
    assert counted(First()).runs == 1 and counted(Second()).runs == 0


def test_unknown_lineage_is_answered_with_the_nearest():
    backtest(Momentum(), BARS, UNIVERSE)
    with pytest.raises(ConfigError, match=r"no lineage 'Momentun'; did you mean 'Momentum'\?"):
        research.trials("Momentun")


# -- the file


ADD = """
    import sys
    from tests.research_runs import filled
    filled(int(sys.argv[1]), int(sys.argv[2]), told=True)
"""


def started(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)], cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def test_processes_add_at_once_and_each_run_is_there():
    writers = [started(ADD, 150, name) for name in range(4)]
    for one in writers:
        _, error = one.communicate(timeout=200)
        assert one.returncode == 0, error
    assert counted().runs == counted().trials() == 600


def test_runs_that_were_added_outlive_a_killed_process():
    writer = started(ADD, 100_000, 1)
    seen = 0
    for line in writer.stdout:
        seen += line.strip().isdigit()
        if seen == 200:
            break
    writer.send_signal(signal.SIGKILL)
    told = seen + sum(line.isdigit() for line in writer.stdout.read().split())
    writer.wait(30)
    writer.stdout.close()
    writer.stderr.close()
    assert told <= counted().runs <= told + 1


def test_child_of_a_fork_has_a_connection_of_its_own():
    filled(1, 1)
    child = os.fork()
    if child == 0:
        try:
            filled(3, 2)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    filled(1, 3)
    assert counted().runs == 5


FULL = """
    import resource
    from sysquant.research_file import here
    from tests.research_runs import counted, filled
    filled(2)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    filled(3, 7)
    print(here().lost, counted().trials(), flush=True)
    if {again}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        filled(1, 8)
        print(here().lost, counted().trials(), flush=True)
"""


@pytest.mark.parametrize("again", [False, True])
def test_disk_that_is_full_makes_no_smaller_count(again):
    writer = started(FULL.format(again=again))
    out, error = writer.communicate(timeout=200)
    assert writer.returncode == 0, error
    assert out.split() == ["3", "5", *(["0", "6"] if again else [])]
    assert error.count("runs are counted, and written when it goes again") == 1
    found = counted()
    assert (found.runs, found.lost) == ((6, 0) if again else (2, 3))
    assert found.trials() == (6 if again else 5)


def test_ledger_that_cannot_be_made_breaks_no_backtest(home, monkeypatch, caplog, tmp_path):
    (home / "data").mkdir()
    (home / "data" / "research").write_text("a file where the directory should be")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert backtest(Momentum(), BARS, UNIVERSE).tally.fills > 0
    backtest(Momentum(), BARS, UNIVERSE)
    said = [each for each in caplog.records if "research ledger" in each.getMessage()]
    assert len(said) == 1 and said[0].levelno == logging.WARNING
    assert here().lost == 2, "counted in the system's temporary directory"
    with pytest.raises(DataError, match="cannot be read"):
        counted()


def test_damaged_ledger_breaks_no_backtest_and_is_refused_by_who_counts(home):
    filled(3)
    path = here().path
    here().changing().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    assert backtest(Momentum(), BARS, UNIVERSE).tally.fills > 0
    with pytest.raises(DataError, match=r"the research ledger .* (is damaged|cannot be read)"):
        counted()


def test_rows_that_were_taken_out_are_missed():
    filled(5)
    db = sqlite3.connect(here().path)
    db.execute("DELETE FROM runs WHERE number = 3")
    db.commit()
    with pytest.raises(DataError, match=r"is damaged: it has 4 of 5 rows; restore it"):
        counted()
    db.execute("DELETE FROM runs")
    db.commit()
    db.close()
    with pytest.raises(DataError, match="is damaged"):
        counted()


def test_file_that_is_moved_away_is_made_anew():
    filled(2)
    here().path.rename(here().path.with_name("old"))
    filled(1, 5)
    assert counted().runs == 1


def test_a_sweep_that_is_killed_loses_a_second_of_its_cells_at_most(monkeypatch):
    monkeypatch.setattr("sysquant.recording._EVERY_S", 0.05)
    recorder = Recorder(Momentum(), {"symbols": "A", "bars": "1m"}, Extent(BARS), "cell")
    recorder.add({"fast": 1}, 0.0, 1)
    assert counted().runs == 0
    time.sleep(0.06)
    recorder.add({"fast": 2}, 0.0, 1)
    assert counted().runs == 2


def test_a_row_that_cannot_be_written_takes_no_other_with_it(tmp_path):
    file = ResearchFile(tmp_path / "ledger")
    study = _study()
    assert file.add(study, [RunRow("{}", b"1", 0.1, 3)]) is None
    wrong = [RunRow("{}", b"2", 0.1, 3), RunRow("{}", b"3", 0.1, object())]
    assert isinstance(file.add(study, wrong), sqlite3.Error)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert file.lost == 2


def _study():
    return Recorder(Momentum(), {"symbols": "A", "bars": "1m"}, Extent(BARS), "cell")._study


# -- the holdout


def test_backtest_that_reaches_into_the_holdout_says_so_once(caplog):
    edge = np.datetime64(int(BARS.ts[2_000]), "ns").astype("M8[s]")
    research.hold_out(f"{edge}Z")
    backtest(Momentum(), BARS[:1_900], UNIVERSE)
    assert not caplog.records
    for _ in range(2):
        backtest(Momentum(), BARS, UNIVERSE)
    (said,) = [each.getMessage() for each in caplog.records]
    assert f"the data reach into the holdout from {edge} on" in said
    assert research.holdout()[0] == edge.astype("M8[ns]").astype(int)


@pytest.mark.parametrize(
    "wrong", [("-30d",), ("2026-01-01", "-3d"), (None,), ("2026-02-01", "2026-01-01"), ("soon",)]
)
def test_holdout_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^(start|end) must be"):
        research.hold_out(*wrong)
    assert research.holdout() is None


# -- the store


def test_runs_are_carried_to_the_store_once(client):
    sweep(Momentum, BARS, UNIVERSE, fast=[3, 5], slow=[20, 40], **QUIET)
    assert research.carry(client) == 4
    assert research.carry(client) == 0
    backtest(Rising(), BARS, UNIVERSE)
    here().sealed()  # and its process is killed before it sends
    assert research.carry(client) == 1
    here().changing().execute("UPDATE batches SET sent = 0")  # killed before it remembers
    assert research.carry(client) == 5
    rows = client.query("SELECT * FROM research_runs ORDER BY number").named_results()
    rows = list(rows)
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    frame = research.trials("Momentum")
    assert [row["trial"] for row in rows[:4]] == frame["trial"].tolist()
    assert [row["sharpe"] for row in rows[:4]] == frame["sharpe"].tolist()
    assert rows[4]["names"] == ["Rising"] and rows[4]["kind"] == "backtest"
    assert rows[0]["first"].timestamp() == BARS.ts[0] / 1e9


def test_other_ledgers_in_the_store_count_too(client, monkeypatch, tmp_path):
    backtest(Momentum(fast=5), BARS, UNIVERSE)
    backtest(Momentum(fast=6), BARS, UNIVERSE)
    research.carry(client)
    monkeypatch.setenv("SYSQUANT_RESEARCH", str(tmp_path / "another"))
    backtest(Crossing(fast=6), BARS, UNIVERSE)
    alone, all_of_it = counted(), research.tried(Momentum(), *ANY, client)
    assert (alone.runs, all_of_it.runs, all_of_it.trials()) == (1, 3, 2)
    assert research.carry(client) == 1
    again = research.tried(Momentum(), *ANY, client)
    assert (again.runs, again.trials()) == (3, 2), "its own are not counted twice"
    early = research.tried(Momentum(), 0, int(BARS.ts[0]), client)
    assert early.runs == 0
