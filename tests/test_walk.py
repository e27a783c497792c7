"""Walk-forward: what follows is never seen before the choice, and the whole is its pieces."""

import html
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sysquant.backtesting import backtest
from sysquant.errors import ConfigError, DataError, StrategyError
from sysquant.execution import Execution
from sysquant.folds import Walk, chained
from sysquant.performance import DAY
from sysquant.splits import CombinatorialPurged, WalkForward
from sysquant.strategies.momentum import Momentum
from sysquant.sweeping import sweep
from sysquant.types import SECOND, Bars
from sysquant.walk import walk_forward
from tests.benchmarks.markets import MINUTE
from tests.benchmarks.markets import Walk as Market
from tests.test_sweep import UNIVERSE, Between, Wild, two_symbols

BARS = Market(3).bars(2_600)
COSTS = Execution(latency_ms=50, slippage_bps=0.5, fee_bps=0.5)
SPLITS = WalkForward(800, 400, embargo=20)
GRID = {"fast": [3, 6, 12], "slow": [20, 50]}
FOUND = (Phase.explicit, Phase.reuse, Phase.generate)  # a smaller example would say no more
QUARTER = 900 * SECOND  # ns


def walk(bars=BARS, splits=SPLITS, strategy=Momentum, universe=UNIVERSE, **options) -> Walk:
    given = {"execution": COSTS, "progress": False, "snapshot_ns": QUARTER}
    grid = GRID if strategy is Momentum else {}
    return walk_forward(strategy, bars, universe, splits=splits, **(given | grid | options))


WALK = walk()


def scrambled(bars: Bars, begin: int, end: int, seed: int) -> Bars:
    """The same bars, but for other prices and volumes in rows [begin, end)."""
    other, columns = Market(1_000 + seed).bars(len(bars)), dict(bars.columns())
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = columns[name].copy()
        columns[name][begin:end] = getattr(other, name)[begin:end]
    return Bars(**columns)


def same_run(one, other) -> bool:
    return all(one.effects[n].tobytes() == other.effects[n].tobytes() for n in one.effects.rows)


def training(fold):
    return fold.chosen, fold.in_sample, fold.train


# -- no leak


@settings(max_examples=12, deadline=None, phases=FOUND)
@given(fold=st.integers(0, 3), later=st.integers(0, 300), seed=st.integers(0, 99))
def test_folds_are_the_same_bytes_when_everything_after_them_is_scrambled(fold, later, seed):
    rows = [test for _, test in SPLITS.split(BARS)]
    other = walk(scrambled(BARS, int(rows[fold][-1]) + 1 + later, len(BARS), seed))
    assert len(other.folds) == len(WALK.folds) == 4
    for mine, theirs in zip(WALK.folds[: fold + 1], other.folds, strict=False):
        assert training(mine) == training(theirs) and mine.out_of_sample == theirs.out_of_sample
        assert same_run(mine.result, theirs.result) and mine.result.tally.fills > 0
    until = pd.Timestamp(WALK.folds[fold].test[1], tz="UTC")
    pd.testing.assert_series_equal(WALK.equity[:until], other.equity[:until])


@settings(max_examples=12, deadline=None, phases=FOUND)
@given(fold=st.integers(0, 3), seed=st.integers(0, 99))
def test_training_is_the_same_when_test_and_embargo_are_scrambled(fold, seed):
    train, test = list(SPLITS.split(BARS))[fold]
    other = walk(scrambled(BARS, int(train[-1]) + 1, int(test[-1]) + 1, seed))
    assert training(WALK.folds[fold]) == training(other.folds[fold])
    assert not same_run(WALK.folds[fold].result, other.folds[fold].result)


def test_nothing_is_decided_or_filled_before_a_test_begins_and_features_are_warm_then():
    for fold, (_, test) in zip(WALK.folds, SPLITS.split(BARS), strict=True):
        first = BARS.ts[test[0]]
        assert fold.test == (first - MINUTE, BARS.ts[test[-1]])
        assert fold.result.effects["signals"]["ts"][0] == first
        for name in ("orders", "executions", "risk_receipts"):
            assert fold.result.effects[name]["ts"].min() >= first
        assert fold.result.end == fold.test[1]


# -- the whole is its pieces


def test_choice_is_the_best_of_a_sweep_of_the_training_window_alone():
    for fold, (train, test) in zip(WALK.folds, SPLITS.split(BARS), strict=True):
        start = int(BARS.ts[train[0] - 1]) if train[0] else None
        found = sweep(
            Momentum, BARS[: train[-1] + 1], UNIVERSE, start=start, execution=COSTS,
            snapshot_ns=QUARTER, progress=False, verify_sample=0, **GRID,
        )  # fmt: skip
        best = found.best(1)
        assert found.grid.parameters(int(best.index[0])) == fold.chosen
        assert best["sharpe"].iloc[0] == fold.in_sample
        alone = backtest(
            Momentum(**fold.chosen), BARS[: test[-1] + 1], UNIVERSE, execution=COSTS,
            snapshot_ns=QUARTER, start=int(BARS.ts[test[0] - 1]),
        )  # fmt: skip
        assert same_run(alone, fold.result)
        again = sweep(
            Momentum, BARS[: test[-1] + 1], UNIVERSE, start=int(BARS.ts[test[0] - 1]),
            execution=COSTS, snapshot_ns=QUARTER, progress=False, verify_best=0, verify_sample=0,
            **fold.chosen,
        )  # fmt: skip
        assert again.frame["sharpe"].iloc[0] == pytest.approx(fold.out_of_sample, rel=1e-12)


def test_stitched_equity_chains_the_returns_of_single_backtests():
    level, times = 1e6, list[pd.Timestamp]()
    for fold in WALK.folds:
        own = fold.result.equity
        inside = own[own.index > times[-1]] if times else own
        np.testing.assert_allclose(WALK.equity[inside.index], level * inside / 1e6, rtol=1e-12)
        times += list(inside.index)
        level *= own.iloc[-1] / 1e6
    assert list(WALK.equity.index) == times and WALK.equity.index.is_monotonic_increasing
    assert WALK.equity.iloc[-1] == pytest.approx(level)
    assert WALK.equity.iloc[-1] / 1e6 == pytest.approx((1 + WALK.frame["return"]).prod())


def test_statistics_of_one_fold_are_those_of_its_backtest():
    one = walk(splits=WalkForward(1_200, 1_400))
    pd.testing.assert_frame_equal(one.statistics, one.folds[0].result.statistics)
    pd.testing.assert_series_equal(one.equity, one.folds[0].result.equity)
    pd.testing.assert_series_equal(one.returns, one.folds[0].result.returns)
    assert {f.name for f in one.folds[0].result.warnings} <= {f.name for f in one.warnings}


def test_statistics_are_of_the_stitched_equity_and_all_trades():
    values = WALK.statistics["value"]
    assert values["total_return"] == pytest.approx(WALK.equity.iloc[-1] / 1e6 - 1)
    ended = [(~fold.result.trips["is_open"]).sum() for fold in WALK.folds]
    assert values["trips"] == sum(ended)
    held = [fold.result.benchmark_equity.iloc[-1] / 1e6 for fold in WALK.folds]
    assert values["benchmark_return"] == pytest.approx(math.prod(held) - 1)
    assert WALK.benchmark_equity.iloc[-1] == pytest.approx(1e6 * math.prod(held))
    own = pd.concat([f.result.table("executions") for f in WALK.folds])
    cost, value = own["fee"] + own["slippage"], own["quantity"].abs() * own["price"]
    grown = np.repeat(
        np.cumprod([1.0, *(1 + WALK.frame["return"])])[:-1], WALK.frame["fills"]
    )  # amounts as if each window had begun with what was left
    paid = 1e4 * (cost * grown).sum() / (value * grown).sum()
    assert values["cost_per_trade"] == pytest.approx(paid)


def test_walks_that_expand_on_a_history_of_several_symbols_with_a_benchmark():
    bars, universe = two_symbols(900)
    found = walk(
        bars, WalkForward("6h", "3h", expanding=True), Between, universe, span=[5, 20],
        scale=[300.0], benchmark="SIM:B",
    )  # fmt: skip
    assert len(found.folds) > 2 and found.benchmark == "SIM:B" and not found.notes
    assert all(f.train[0] == found.folds[0].train[0] for f in found.folds)
    assert "SIM:B instead" in repr(found)


def test_chained_leaves_out_what_is_not_after_the_run_before():
    times = [np.array([1, 2, 3]), np.array([3, 5]), np.array([7, 8])]
    equities = [np.array([10.0, 11, 12]), np.array([10.0, 15]), np.array([4.0, 2])]
    ts, equity = chained(times, equities, 100.0)
    assert ts.tolist() == [1, 2, 3, 5, 7, 8]
    np.testing.assert_allclose(equity, [100, 110, 120, 180, 180, 90])


# -- what it says


def with_scores(*scores, rank="sharpe"):
    fold = WALK.folds[0]
    folds = [
        replace(fold, in_sample=inside, out_of_sample=outside, chosen={"fast": fast, "slow": 20})
        for inside, outside, fast in scores
    ]
    return replace(WALK, folds=tuple(folds), rank=rank)


def test_efficiency_is_what_is_left_of_the_score_in_sample():
    assert with_scores((2.0, 1.0, 3), (4.0, 0.5, 3)).efficiency == 0.25
    assert with_scores((2.0, 1.0, 3), (4.0, math.nan, 3)).efficiency == 0.5
    assert math.isnan(with_scores((-2.0, 1.0, 3)).efficiency)
    assert math.isnan(with_scores((2.0, math.nan, 3)).efficiency)
    assert math.isnan(with_scores((10.0, 5.0, 3), rank="fills").efficiency)
    fold = with_scores((0.2, 0.1, 3), rank="return").folds[0]
    fold = replace(fold, train=(0, 10 * DAY), test=(10 * DAY, 12 * DAY))
    walked = replace(WALK, folds=(fold,), rank="return")
    assert walked.efficiency == pytest.approx((0.1 / 2) / (0.2 / 10))


def test_stability_counts_the_moves_of_each_parameter():
    table = with_scores((1, 1, 3), (1, 1, 12), (1, 1, 12), (1, 1, 6)).stability
    fast = table.loc["fast"]
    assert (fast["lowest"], fast["highest"], fast["different"]) == (3, 12, 3)
    assert fast["moved"] == pytest.approx(2 / 3)
    assert fast["step"] == pytest.approx((2 + 0 + 1) / 3 / 2)
    assert table.loc["slow", "moved"] == 0.0
    assert math.isnan(with_scores((1, 1, 3)).stability.loc["fast", "moved"])


def test_prints_in_about_a_dozen_lines():
    lines = [line for line in repr(WALK).split("\n") if "  !" not in line]
    assert lines[0] == (
        "Walk-forward of Momentum: 4 folds, the best of 6 combinations in training, by sharpe"
    )
    assert len(lines) <= 15 and max(map(len, lines)) < 140
    assert "in_sample" in lines[1] and lines[2].split()[0] == "1"
    assert "efficiency" in lines[6] and "fast" in lines[7]
    many = walk(splits=WalkForward(200, 100), fast=3)
    assert f"{len(many.folds)} folds" in repr(many) and len(many.folds) > 20
    assert len(repr(many).split("\n")) < 30


def test_a_notebook_shows_a_walk_as_tables_of_what_is_printed():
    shown, said = WALK._repr_html_(), repr(WALK).split("\n")
    assert html.escape(said[0]) in shown and html.escape(said[-1].strip()) in shown
    for number, fold in enumerate(WALK.folds, 1):
        assert f"<td>{number}</td><td>" in shown and f"<td>{fold.out_of_sample:,.4g}</td>" in shown
    assert shown.count("<tr>") == 1 + len(WALK.folds) + 6


def test_choice_at_the_edge_of_the_grid_is_found():
    walked = with_scores((1.0, 1.0, 12))
    assert "fast=12 is the highest of 3 values tried" in repr(walked)
    assert "slow" not in [finding.name for finding in walked.warnings]


def test_frame_has_a_row_per_fold():
    assert list(WALK.frame) == [
        "train", "train_end", "test", "test_end", "fast", "slow", "in_sample", "out_of_sample",
        "return", "fills",
    ]  # fmt: skip
    assert list(WALK.frame.index) == [1, 2, 3, 4]
    assert (WALK.frame["train_end"] + pd.Timedelta(minutes=20) == WALK.frame["test"]).all()


def test_figure_shows_equity_boundaries_and_what_was_chosen():
    figure = WALK.figure
    assert [trace.name for trace in figure.data] == [
        "out of sample", "buy and hold", "fast", "slow",
    ]  # fmt: skip
    assert list(figure.data[2].y[:-1]) == [fold.chosen["fast"] for fold in WALK.folds]
    assert len(figure.layout.shapes) == 4 * 3


# -- what it refuses


@pytest.mark.parametrize(
    ("splits", "error", "said"),
    [
        (
            CombinatorialPurged(6, 2),
            ConfigError,
            r"trains on what comes after its test.* paths\(\)",
        ),
        (CombinatorialPurged(3, 1), ConfigError, "split 1 trains on what comes after its test"),
        (WalkForward(800, 400, step=200), ConfigError, "test of split 2 overlaps .* a step of"),
        (WalkForward(5_000, 400), DataError, r"finds no split in 2,600 bars; shorten train"),
    ],
)
def test_splits_that_are_no_walk_are_refused_with_the_way_out(splits, error, said):
    with pytest.raises(error, match=said):
        walk(splits=splits)


def test_horizon_that_leaves_holes_in_training_is_refused():
    horizon = np.where(np.arange(len(BARS)) % 7 == 0, 50, 0)
    with pytest.raises(ConfigError, match="one horizon for all"):
        walk(splits=WalkForward(800, 400, horizon=horizon))


def test_misspelt_parameter_and_rank_are_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r"no parameter 'fats'.*fast"):
        walk_forward(Momentum, BARS, UNIVERSE, splits=SPLITS, fats=[1])
    with pytest.raises(ConfigError, match=r"rank .*sharpe"):
        walk(rank="sharp")


def test_error_inside_a_fold_says_in_which():
    with pytest.raises(DataError, match="no combination has a sharpe in training") as caught:
        walk(fast=3, slow=[10_000, 20_000])
    assert caught.value.__notes__ == ["in fold 1 of 4"]
    with pytest.raises(StrategyError) as broken:
        walk(strategy=Wild, weight=[1.5])
    assert "in fold 1 of 4" in broken.value.__notes__
