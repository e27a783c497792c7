"""The benchmarks, small: every row is measured and saved, and no figure without its work."""

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import (
    bench_engine,
    bench_features,
    bench_gate,
    bench_history,
    bench_publishing,
    bench_retrain,
    bench_store,
    bench_sweep,
    peers,
    report,
)
from tests.benchmarks.markets import LEVEL, Walk

SMALL = 40_000  # bars of the longest run

# vectorbt gives its compiled functions lists.
pytestmark = pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")
PEERS = {
    bench_engine.bars_vs_vectorbt: "vectorbt",
    bench_engine.ticks_vs_hftbacktest: "hftbacktest",
}


def is_measured(row: report.Row, *, compared: bool = True) -> None:
    assert tuple(row) == report.FIELDS
    assert row["ours"] > 0
    assert (row["ratio"] is not None) == (row["reference"] is not None) == compared
    if compared:
        assert row["ratio"] == pytest.approx(row["ours"] / row["reference"], rel=2e-3)


@pytest.mark.parametrize("measure", bench_engine.ROWS, ids=lambda measure: measure.__name__)
def test_engine_does_the_work_that_its_figure_is_for(measure):
    peer = PEERS.get(measure)
    is_there = peer is None or report.is_installed(peer)
    for row in measure(SMALL, 1):
        is_measured(row, compared=is_there and row["name"] != "engine_orders")
    if not is_there:
        pytest.skip(f"{peer} is not installed: ours was measured, the comparison is not shown here")


def test_crossover_trades_on_a_walk_as_often_as_the_figures_rest_on():
    walk = Walk(bench_engine.SEED)
    for _ in range(3):
        close = walk.bars(1_000_000).close
        fills, _ = peers.run_loop(close, peers.FAST, peers.SLOW, peers.COST, 1e6)
        assert bench_engine.LEAST_FILLS <= fills <= 15_000
        assert 0.5 * LEVEL < close.min() < close.max() < 2 * LEVEL


def test_walk_goes_on_where_its_last_batch_ended():
    walk = Walk()
    first, second = walk.bars(500), walk.bars(500)
    assert second.open[0] == first.close[-1]
    assert (np.diff(np.concatenate([first.ts, second.ts])) > 0).all()
    ticks = [Walk(3).ticks(1_000, symbols=3) for _ in range(2)]
    assert (ticks[0].price == ticks[1].price).all()
    assert (np.diff(ticks[0].ts) > 0).all()
    assert set(ticks[0].symbol.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    "broken",
    [
        {"refusals": 1},
        {"receipts": 9},
        {"filled": [np.arange(7)]},
        {"filled": [np.arange(0)], "orders": 0, "receipts": 0},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_figure_of_a_run_that_did_less_is_refused(broken):
    full = {"orders": 10, "receipts": 10, "filled": [np.arange(10)]}
    engine = bench_engine.engine_of()
    bench_engine.check(bench_engine.Outcome(engine=engine, **full), 10)
    with pytest.raises(AssertionError):
        bench_engine.check(bench_engine.Outcome(engine=engine, **(full | broken)), 10)


FEW = {"fast": (5, 10), "slow": (20, 40, 60)}


def test_sweep_does_the_work_that_its_figure_is_for(capsys):
    is_there = report.is_installed("vectorbt")
    rows = bench_sweep.against_vectorbt(8_000, 1, **FEW)
    assert [row["name"] for row in rows] == ["sweep_vs_vectorbt", "sweep_vs_vectorbt_fills"]
    for row in rows:
        is_measured(row, compared=is_there)
    said = capsys.readouterr().out
    assert "6 pairs," in said and "the best 0 and 6 drawn at random were run again" in said
    if not is_there:
        pytest.skip(
            "vectorbt is not installed: ours was measured, the comparison is not shown here"
        )


def test_figure_of_a_sweep_that_trades_otherwise_is_refused():
    found = bench_sweep.swept(Walk().bars(5_000), **FEW)
    fills = found.frame["fills"].tolist()
    bench_sweep.check(found, fills)
    with pytest.raises(AssertionError, match="in 1 of 6 pairs the peer's fills are others"):
        bench_sweep.check(found, [*fills[:-1], int(1.2 * fills[-1]) + 3])
    for broken in ({"refused": 1}, {"approved": 0}, {"equity": 1.0}):
        with pytest.raises(AssertionError):
            bench_sweep.check(replace(found, frame=found.frame.assign(**broken)))
    verified = replace(found.verified, disagreements=("one",))
    with pytest.raises(AssertionError, match="DISAGREES"):
        bench_sweep.check(replace(found, verified=verified))


def test_peak_of_a_sweep_is_that_of_a_process_of_its_own(monkeypatch):
    (row,) = bench_sweep.memory(500)
    is_measured(row)
    assert row["ours"] > 50
    monkeypatch.setattr(bench_sweep, "MOST_MB", 50.0)
    with pytest.raises(AssertionError, match="MB"):
        bench_sweep.memory(500)


def test_sweep_below_its_promise_is_told():
    def said(ratio):
        row = report.row("sweep_vs_vectorbt", ratio, 1.0, "combos x bars/s")
        return "".join(bench_sweep.judge([row]))

    assert "promised" in said(11.0) and "aimed at" in said(15.0) and not said(21.0)


def test_peer_that_is_not_installed_is_left_out_and_named(monkeypatch, capsys):
    find, named = importlib.util.find_spec, PEERS.values()
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in named else find(n))
    for measure in PEERS:
        for row in measure(SMALL, 1):
            is_measured(row, compared=False)
    for row in bench_sweep.against_vectorbt(2_000, 1, **FEW):
        is_measured(row, compared=False)
    said = capsys.readouterr().out
    assert all(f"{peer} is not installed: left out" in said for peer in named)


def test_memory_is_that_of_a_tenth_of_the_events():
    (row,) = bench_engine.memory(4 * bench_engine.BATCH)
    is_measured(row)


def test_start_from_the_cache_is_measured_without_numba():
    assert bench_engine.start_s(os.environ["SYSQUANT_CACHE"]) > 0.05


def test_cost_of_a_trade_is_printed_for_every_number_of_listeners(capsys):
    bench_engine.cost_by_listeners(1_000, 1)
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[0] for line in lines if "strategies" in line] == ["1", "10", "100"]


def test_features_are_measured_against_every_peer():
    rows = bench_features.compare(2_000, 1)
    assert len({row["name"] for row in rows}) == 11
    for row in rows:
        is_measured(row)
    for row in bench_features.stream(50, 1):
        is_measured(row, compared=False)


def test_store_is_measured_served_and_in_process():
    rows = bench_store.compare(2_000, 1, rounds=1)
    assert {row["unit"] for row in rows} == {"ms", "million rows/s"}
    for row in rows:
        is_measured(row)


def test_history_is_measured_against_the_raw_query():
    rows = bench_store.history_vs_arrow(500, 1)
    assert [row["name"] for row in rows] == ["history_vs_arrow", "history_vs_view"]
    for row in rows:
        is_measured(row)


def test_history_is_measured_over_ticks_that_the_store_generates():
    rows = bench_history.compare(20_000, 1)
    assert [row["name"] for row in rows] == ["history_day", "history_year"]
    for row in rows:
        is_measured(row)


def test_retraining_is_measured_by_stage(capsys, monkeypatch):
    words = ["model=logistic_regression", "training.train=1d", "training.test=1d"]
    monkeypatch.setattr(bench_retrain, "SECONDS", 0.0)
    found = bench_retrain.compare(3, 0, *words)
    stages = ("", "_window", "_notebook", "_checks", "_record")
    assert [row["name"] for row in found] == [f"retrain{stage}" for stage in stages]
    for row in found:
        assert row["ours"] >= 0 and row["unit"] == "s"
    said = capsys.readouterr().out
    assert "promised are 0" in said and " s trained = train(" in said


@pytest.fixture(scope="module")
def few():
    """Two trainings on a strong signal, and two on noise."""
    return bench_publishing.trials(2, 2, 0.6)


def test_trainings_are_published_on_a_strong_signal_and_not_on_noise(few):
    before = dict(os.environ)
    planted, noise = few
    assert [one.verdict for one in planted] == ["published"] * 2
    assert [one.verdict for one in noise] == ["kept"] * 2
    assert all(one.is_found and not one.reasons for one in planted)
    assert not any(one.is_found for one in noise) and all(one.reasons for one in noise)
    assert len({one.skill for one in (*planted, *noise)}) == 4, "each has data of its own"
    rows = bench_publishing.compare(planted, noise)
    assert [(row["ours"], row["reference"]) for row in rows[:2]] == [(100, 90), (0, 8)]
    is_measured(rows[2], compared=False)
    said = "\n".join(bench_publishing.told("noise", noise))
    assert "noise: 0 of 2 published, 0.0%, limits 0.0% to 65.8%" in said
    assert "2 kept: after costs it earns #, no more than nothing" in said
    assert dict(os.environ) == before


def test_trainings_that_break_the_promise_are_told(few):
    planted, noise = few
    assert not list(bench_publishing.judge(planted * 50, noise * 100))
    assert not list(bench_publishing.judge([*planted * 45, *noise * 5], noise * 100))
    said = list(bench_publishing.judge([*planted * 44, *noise * 6], noise * 100))
    assert said == ["88 of 100 planted, promised 90%"]
    most = [*planted * 8, *noise * 92]
    assert not list(bench_publishing.judge(planted * 50, most))
    said = list(bench_publishing.judge(planted * 50, [*planted, *most[:-2]]))
    assert said == ["18 of 200 noise, promised at most 8%"]
    said = list(bench_publishing.judge(noise * 50, noise * 100))
    assert [each.split()[0] for each in said] == ["0", "skill", "pnl"]
    refused = planted[0]._replace(verdict="refused", reasons=("its rows differ",))
    said = list(bench_publishing.judge([*planted * 50, refused], noise))
    assert said == ["1 were refused: its rows differ"]


def test_a_promise_that_is_missed_ends_with_1(few, monkeypatch, home, capsys):
    planted, noise = few
    monkeypatch.setattr("sys.argv", ["bench_publishing.py", "2", "2"])
    monkeypatch.setattr(bench_publishing, "trials", lambda *_: (planted, noise))
    bench_publishing.main()
    monkeypatch.setattr(bench_publishing, "trials", lambda *_: (noise, planted))
    with pytest.raises(SystemExit) as ended:
        bench_publishing.main()
    assert ended.value.code == 1 and "2 of 2 noise, promised" in capsys.readouterr().out
    assert len(json.loads((home / "runs" / "bench.json").read_text())) == 3


def test_rows_replace_those_of_their_name_and_keep_the_others(home: Path):
    report.save([report.row("a", 10, 4, "x/s"), report.row("b", 1, None, "ms")])
    path = report.save([report.row("a", 20, 4, "x/s")])
    assert path == home / "runs" / "bench.json"
    rows = json.loads(path.read_text())
    assert [row["name"] for row in rows] == ["b", "a"]
    assert rows[1] == report.row("a", 20, 4, "x/s") | {"ratio": 5.0}
    assert rows[1]["command"].startswith("python tests/benchmarks/")


def test_ways_take_turns_after_one_that_compiles():
    called = list[str]()
    ways = {name: (lambda name=name: lambda: called.append(name)) for name in ("ours", "peer")}
    timed = report.in_turns(ways, 2)
    assert called == ["ours", "peer"] * 3
    assert all(seconds >= 0 for seconds, _ in timed.values())


@pytest.fixture(scope="module")
def few_judged():
    """Some strategies of every kind."""
    return bench_gate.decided(60)


def test_gate_lets_few_of_noise_and_most_of_a_planted_edge_pass(few_judged, capsys):
    kinds = [(one.kind, one.trials) for one in few_judged]
    assert kinds == [
        *[(kind, trials) for kind in ("noise", "planted") for trials in (1, 100, 10_000)],
        ("tails", 100), ("alike", 100),
    ]  # fmt: skip
    passes = {kind: one.passes for kind, one in zip(kinds, few_judged, strict=True)}
    for (kind, trials), count in passes.items():
        if kind == "planted":
            assert count >= 0.8 * 60 * bench_gate.LEAST_PLANTED[trials]
        else:
            assert count <= 9, "of 60, where 3 pass by chance"
    rows = bench_gate.compared(few_judged)
    assert [row["name"] for row in rows][:4] == [
        "gate_noise_1", "gate_noise_100", "gate_noise_10000", "gate_planted_1",
    ]  # fmt: skip
    assert rows[3]["reference"] == 80 and rows[0]["reference"] == 6.5
    first, *_ = bench_gate.told(few_judged)
    assert first.startswith(f"noise after 1 trials: {passes['noise', 1]} of 60 pass, ")


def test_gate_that_breaks_its_promise_is_told():
    made = bench_gate.Passed
    good = [made("noise", 100, 65, 1000), made("planted", 100, 600, 1000)]
    assert not list(bench_gate.missed(good))
    bad = [made("noise", 100, 66, 1000), made("planted", 10_000, 249, 1000)]
    assert list(bench_gate.missed(bad)) == [
        "noise after 100 trials: 6.6% pass, promised at most 6.5%",
        "planted after 10,000 trials: 24.9% pass, promised at least 25.0%",
    ]


def test_gate_is_timed_on_the_work_that_its_figures_are_for(home):
    (row,) = bench_gate.speed(50, 1)
    assert row["name"] == "gate_judge" and row["ours"] > 0
    rows = bench_gate.ledger(1, {"short": 2_000, "long": 4_000}, 500)
    assert [row["name"] for row in rows] == [
        "ledger_short", "ledger_long", "ledger_cell", "ledger_read",
    ]  # fmt: skip
    assert all(row["ours"] > 0 for row in rows)


def test_best_of_many_without_skill_has_the_ratio_that_was_drawn():
    returns, apart = bench_gate.luckiest(50, 1_000, np.random.default_rng(1))
    scores = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * np.sqrt(bench_gate.DAYS)
    assert scores.mean() == pytest.approx(3.24, abs=0.2), "what 1,000 normal numbers have as most"
    assert apart.mean() == pytest.approx(1.0, abs=0.05)
