"""Sweeps: every row is what a single backtest finds, and what is not so is said."""

import hashlib
import html
import json
import math
import random

import numpy as np
import pandas as pd
import pytest

from sysquant import intervals, replays
from sysquant.backtesting import backtest
from sysquant.errors import ConfigError, DataError, StrategyError
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.features import lag, sma, step
from sysquant.grid import Grid
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.scores import COLUMNS
from sysquant.sizing import VolatilityTarget
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.sweeping import figures_of, sweep
from sysquant.trials import Sweep, Verification
from sysquant.types import SECOND, Bars, Instrument
from tests.benchmarks.markets import LOT_SIZE, MINUTE, TICK_SIZE, Walk

UNIVERSE = [Instrument("SIM:A", TICK_SIZE, LOT_SIZE)]
BARS = Walk(3).bars(20_000)
FEW = BARS[:4_000]
CHEAP = Execution(latency_ms=50, slippage_bps=2e-3, fee_bps=2e-3)
DEAR = Execution(latency_ms=50, slippage_bps=20, fee_bps=40)  # half of the capital goes in costs
HOUR = 3600 * SECOND


class Between(Strategy):
    """Weights of every size, both signs, and no opinion in a quarter of the bars."""

    span: int = 10
    scale: float = 100.0

    def features(self, bar):
        return {"close": bar.close, "average": sma(bar.close, self.span), "ts": bar.ts}

    def target(self, f):
        weight = np.clip(self.scale * (f["close"] / f["average"] - 1.0), -1.0, 1.0)
        return np.where(f["ts"] / MINUTE % 4 < 1, np.nan, np.round(weight, 1))


def quiet(strategy, bars, universe=UNIVERSE, **options) -> Sweep:
    return sweep(strategy, bars, universe, **({"progress": False} | options))


def pairs(**options) -> Sweep:
    """A small sweep of momentum."""
    grid = {"fast": range(5, 25, 5), "slow": range(20, 60, 10)}
    return quiet(Momentum, FEW, **({"execution": CHEAP} | grid | options))


def assert_rows_are_backtests(found: Sweep, bars, universe=UNIVERSE, chosen=None, **options):
    for at in found.frame.index if chosen is None else chosen:
        result = backtest(found.strategy(at), bars, universe, **options)
        row = found.frame.loc[at]
        single = figures_of(result)
        assert {name: row[name] for name in single} == single
        for check, count in result.tally.reasons.items():
            assert row[f"refused_{check}"] == count
        fills = result.effects["executions"]
        assert row["fees"] == pytest.approx(fills["fee"].sum(), rel=1e-9)
        assert row["slippage"] == pytest.approx(fills["slippage"].sum(), rel=1e-9, abs=1e-9)
        traded = np.abs(fills["quantity"] * fills["price"]).sum()
        assert row["traded"] == pytest.approx(traded, rel=1e-9)
        financing = result.effects["financing"]["amount"].sum()
        assert row["financing"] == pytest.approx(financing, rel=1e-9, abs=1e-9)


def test_fifty_pairs_are_single_backtests_trade_by_trade():
    found = quiet(
        Momentum, BARS, execution=CHEAP, fast=range(5, 45, 4), slow=range(50, 150, 10),
        verify_best=0, verify_sample=0,
    )  # fmt: skip
    drawn = random.Random(7).sample(range(len(found.grid)), 50)
    assert_rows_are_backtests(found, BARS, chosen=drawn, execution=CHEAP)
    assert found.frame["fills_hash"].is_unique and (found.frame["fills"] > 100).all()


@pytest.mark.parametrize(
    "options",
    [
        {"execution": DEAR, "snapshot_ns": HOUR // 4},
        {"risk": RiskChain(checks=[{"check": "order_size", "limit": 0.4}], cut=True)},
        {"orders": Orders(kind="limit", tif="gtd", offset_bps=1.0, timeout_s=600.0)},
        {"exits": Exits(stop_loss=0.001, take_profit=0.002, how="bracket")},
        {"exits": Exits(trailing_stop=0.001, max_hold_s=7200.0), "seed": 5, "capital": 1e5},
        {"sizing": VolatilityTarget(volatility=0.1), "execution": Execution(participation=0.01)},
    ],
    ids=["refusals", "cut", "limit orders", "brackets", "exits", "sizing"],
)
def test_rows_are_backtests_under_every_kind_of_terms(options):
    found = quiet(Between, FEW, span=[10, 40], scale=[50.0, 300.0], **options)
    assert found.agrees and found.verified.trades > 20
    assert_rows_are_backtests(found, FEW, **options)


def test_refusals_are_counted_by_check():
    found = quiet(Momentum, BARS, execution=DEAR, fast=[2, 3], slow=[4, 6])
    assert (found.frame["refused"] > 0).all()
    assert (found.frame["refused_drawdown"] == found.frame["refused"]).all()
    assert "an order was refused" in repr(found)


def two_symbols(count: int) -> tuple[Bars, list[Instrument]]:
    walks = [Walk(seed).bars(count) for seed in (1, 2)]
    both = Bars.join(walks)
    symbol = np.repeat(np.array([0, 1], np.int32), count)
    order = np.lexsort((symbol, both.ts))
    joined = Bars(**(dict(both.columns()) | {"symbol": symbol}))[order]
    gaps = np.random.default_rng(1).random(len(joined)) < 0.9
    return joined[gaps], [*UNIVERSE, Instrument("SIM:B", 0.05, 0.001)]


def test_rows_of_several_symbols_are_backtests():
    bars, universe = two_symbols(3_000)
    found = quiet(Between, bars, universe, span=[10, 30], scale=[50.0, 100.0])
    assert found.agrees
    assert_rows_are_backtests(found, bars, universe)


def test_figures_are_those_that_a_backtest_says():
    found = pairs()
    for at in range(0, len(found.grid), 5):
        result = backtest(found.strategy(at), FEW, UNIVERSE, execution=CHEAP)
        row, said = found.frame.loc[at], result.statistics["value"]
        assert row["periods"] == len(result.returns) > 30
        for name, term in ("sharpe", "sharpe"), ("skew", "skewness"), ("kurtosis", "kurtosis"):
            assert row[name] == pytest.approx(said[term], rel=1e-9)
        years = (result.equity.index[-1] - result.equity.index[0]) / pd.Timedelta(days=365.25)
        yearly = math.sqrt(len(result.returns) / years)
        assert row["sharpe"] == pytest.approx(row["sharpe_period"] * yearly)
        assert row["return"] == pytest.approx(said["total_return"])
        assert row["drawdown"] == said["max_drawdown"]
        assert row["elapsed_days"] == result.ledger.returns.days
        assert row["turnover"] == pytest.approx(row["traded"] / result.equity[:-1].mean() / years)
        assert row["turnover"] == pytest.approx(said["turnover"], rel=0.05)
        chance = result.deflated_sharpe(40, found.frame["sharpe"].std())
        shape = row["sharpe_period"], row["periods"], row["skew"], row["kurtosis"]
        spread = found.frame["sharpe_period"].std()
        assert chance == pytest.approx(intervals.deflated_sharpe(*shape, 40, spread))


def test_any_number_of_threads_and_any_memory_give_the_same_frame(monkeypatch):
    whole = pairs(workers=1).frame
    pd.testing.assert_frame_equal(pairs(workers=3).frame, whole)
    monkeypatch.setattr(replays, "_KEPT", 3 * 8 * len(FEW))  # bytes: three features
    pd.testing.assert_frame_equal(pairs().frame, whole)


def named_alike(scale: float):
    """An indicator that is another one for each scale, and is called the same."""

    @step(state=1)
    def scaled(state, x):
        return x * scale

    return scaled


class Clashing(Strategy):
    """Its indicator is made anew for each instance."""

    scale: float = 1.0

    def features(self, bar):
        return {"now": lag(named_alike(self.scale)(bar.close), 1), "before": lag(bar.close, 2)}

    def target(self, f):
        return (f["now"] > f["before"]).astype(float)


def test_features_that_cannot_be_shared_run_in_engines_of_their_own():
    found = quiet(Clashing, FEW[:500], scale=[0.9999, 1.0], execution=CHEAP)
    assert found.agrees and found.verified.trades > 50 and found.frame["fills"].is_unique
    assert_rows_are_backtests(found, FEW[:500], execution=CHEAP)
    with pytest.raises(ConfigError, match="use screen='engine'"):
        quiet(Clashing, FEW[:500], scale=[0.9, 1.0], screen="vectorbt")


CALLS = [0]


class Moody(Strategy):
    """Breaks the contract: it counts how often it was asked."""

    span: int = 5

    def features(self, bar):
        return {"close": bar.close, "average": sma(bar.close, self.span)}

    def target(self, f):
        CALLS[0] += len(f["close"]) > 256  # not when it is asked again about some
        return np.where(f["close"] > f["average"], 1.0, 0.0 if CALLS[0] % 2 else 0.5)


def test_sweep_that_disagrees_with_backtests_says_so():
    CALLS[0] = 0
    found = quiet(Moody, FEW[:2_000], span=[5, 10, 15], workers=1, execution=CHEAP)
    assert not found.agrees
    said = repr(found)
    assert f"DISAGREES in {len(found.verified.disagreements)} of them" in said
    assert "the sweep and a backtest differ" in said and "trade 1 is" in said


def test_best_are_verified_and_others_are_drawn_once():
    found = pairs(verify_best=3, verify_sample=4)
    assert (found.verified.best, found.verified.sampled) == (3, 4)
    assert "the best 3 and 4 drawn at random" in repr(found)
    assert "all" in repr(found.verified) and found.verified.trades > 0
    assert pairs(verify_best=99, verify_sample=99).verified.sampled == 0
    assert "not verified" in repr(pairs(verify_best=0, verify_sample=0))


def test_sweep_as_in_the_documentation_needs_no_universe(capsys):
    found = sweep(Momentum, FEW[:600], fast=range(5, 60, 5), slow=range(20, 200, 10))
    assert len(found.frame) == 11 * 18
    assert "198/198" in capsys.readouterr().err
    assert found.agrees


def test_progress_is_not_drawn_where_it_is_not_wanted(capsys):
    pairs(progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"fasst": [1]}, ConfigError, "did you mean 'fast'"),
        ({"fast": []}, ConfigError, "fast has no values"),
        ({"fee_bps": [1]}, ConfigError, "it is execution=Execution.fee_bps"),
        ({"resume": "/"}, DataError, "resume must be a file"),
        ({"screen": "vectorbtt"}, ConfigError, "did you mean 'vectorbt'"),
        ({"rank": "sharp"}, ConfigError, "did you mean 'sharpe'"),
        ({"screen": "vectorbt", "rank": "costs"}, ConfigError, "rank does not know 'costs'"),
        ({"verify_best": -1}, ConfigError, "verify_best must be"),
        ({"workers": 0}, ConfigError, "workers must be"),
        ({"capital": 0}, ConfigError, "capital must be"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(changes, error, said):
    with pytest.raises(error, match=said):
        pairs(**changes)


def test_no_bars_are_refused():
    with pytest.raises(DataError, match="no bars to sweep over"):
        quiet(Momentum, Bars.empty(), fast=[5])


class Wild(Strategy):
    """A weight that may be none."""

    weight: float = 1.0

    def features(self, bar):
        return {"close": bar.close}

    def target(self, f):
        return np.full_like(f["close"], self.weight)


def test_weight_out_of_range_names_the_combination():
    with pytest.raises(StrategyError, match=r"Wild\(weight=1.5\): target must lie in"):
        quiet(Wild, FEW, weight=[0.5, 1.5])


# -- resuming


def rows_on(path) -> list[str]:
    return [json.loads(line)["strategy"] for line in path.read_text().splitlines()[1:]]


def test_interrupted_sweep_goes_on_where_it_was(tmp_path):
    path = tmp_path / "sweep.jsonl"
    with pytest.raises(StrategyError):
        quiet(Wild, FEW, weight=[0.2, 0.4, 0.6, 1.5], resume=path, workers=1)
    assert rows_on(path)[:3] == ["Wild(weight=0.2)", "Wild(weight=0.4)", "Wild(weight=0.6)"]
    with path.open("a") as file:
        file.write('{"strategy": "Wild(weight=0.8)", "row": {"fil')
    found = quiet(Wild, FEW, weight=[0.2, 0.4, 0.6, 0.8], resume=path)
    assert "3 combinations were finished before" in repr(found)
    assert rows_on(path) == [f"Wild(weight={weight})" for weight in (0.2, 0.4, 0.6, 0.8)]
    fresh = quiet(Wild, FEW, weight=[0.2, 0.4, 0.6, 0.8])
    pd.testing.assert_frame_equal(found.frame, fresh.frame)
    assert found.agrees


def test_wider_grid_takes_the_finished_combinations_along(tmp_path):
    path = tmp_path / "sweep.jsonl"
    pairs(resume=path, fast=[5, 10])
    found = pairs(resume=path, fast=[5, 10, 15])
    assert "8 combinations were finished before" in found.notes[0]
    pd.testing.assert_frame_equal(found.frame, pairs(fast=[5, 10, 15]).frame)


class Rewritten(Wild):
    """The same name as another class has."""

    def target(self, f):
        return np.full_like(f["close"], 0.5 * self.weight)


Rewritten.__qualname__ = Rewritten.__name__ = "Wild"


@pytest.mark.parametrize(
    ("what", "strategy", "bars", "options"),
    [
        ("data", Wild, BARS[:3_999], {}),
        ("engine", Wild, FEW, {"capital": 2e6}),
        ("engine", Wild, FEW, {"exits": Exits(stop_loss=0.01)}),
        ("strategy", Rewritten, FEW, {}),
    ],
)
def test_anything_that_changed_starts_anew_and_is_named(tmp_path, what, strategy, bars, options):
    path = tmp_path / "sweep.jsonl"
    quiet(Wild, FEW, weight=[0.2, 0.4], resume=path)
    before = path.read_text()
    found = quiet(strategy, bars, weight=[0.2, 0.4], resume=path, **options)
    assert f"started anew: changed since {path} was written: {what};" in repr(found)
    assert (tmp_path / "sweep.jsonl.old").read_text() == before
    pd.testing.assert_frame_equal(
        found.frame, quiet(strategy, bars, weight=[0.2, 0.4], **options).frame
    )


FACTOR = {"now": 1.0}


class Borrowing(Wild):
    """Rests on something outside of the class."""

    def target(self, f):
        return np.full_like(f["close"], FACTOR["now"] * self.weight)


def test_change_that_no_hash_sees_is_found_by_running_one_combination_again(tmp_path, monkeypatch):
    path = tmp_path / "sweep.jsonl"
    quiet(Borrowing, FEW, weight=[0.2, 0.4], resume=path)
    monkeypatch.setitem(FACTOR, "now", 0.5)
    found = quiet(Borrowing, FEW, weight=[0.2, 0.4], resume=path)
    assert "what weight=0.2 comes to" in repr(found) and found.agrees
    assert sorted(rows_on(path)) == ["Borrowing(weight=0.2)", "Borrowing(weight=0.4)"]


@pytest.mark.parametrize("row", [-1, 99, 1.5])
def test_a_row_that_there_is_not_has_no_strategy(row):
    found = pairs()
    with pytest.raises(ConfigError, match="the index of a row"):
        found.strategy(row)


def test_file_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="holds no sweep; give resume= another path"):
        pairs(resume=path)
    assert path.read_text() == '{"a": 1}\n'
    path.write_text("junk")
    with pytest.raises(DataError, match="holds no sweep"):
        pairs(resume=path)
    assert path.read_text() == "junk"


def test_what_is_no_market_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"what history\(\) returned, Bars or Ticks, was Data"):
        quiet(Momentum, pd.DataFrame({"close": [1.0]}), fast=[2, 3])


def test_resume_lies_below_home_unless_absolute(home):
    pairs(resume="runs/sweep.jsonl")
    assert len(rows_on(home / "runs" / "sweep.jsonl")) == 16


# -- looking


def made(values, **axes) -> Sweep:
    """A sweep of these figures, as `sharpe`, in the order of the grid."""
    grid = Grid(Momentum, axes)
    frame = pd.DataFrame([grid.parameters(at) for at in range(len(grid))])
    for name in COLUMNS:
        frame[name] = np.asarray(values, float)
    return Sweep(grid, frame, "sharpe", Verification(0, 0, 0))


def hill(spike: float = 0.0) -> Sweep:
    """A gentle hill around (30, 60), and a spike at (10, 20)."""
    fast, slow = range(10, 60, 10), range(20, 120, 20)
    heights = [1 - ((f - 30) / 40) ** 2 - ((s - 60) / 80) ** 2 for f in fast for s in slow]
    heights[0] = spike
    return made(heights, fast=fast, slow=slow)


def test_plateau_is_the_hill_and_not_the_spike():
    plateau = hill(spike=5.0).plateau()
    assert plateau.peak == {"fast": 10, "slow": 20} and plateau.peak_alone == 5.0
    assert plateau.centre == {"fast": 30, "slow": 60} and plateau.centre_alone == 1.0
    assert plateau.combinations == 9
    assert "plateau around fast=30, slow=60" in repr(plateau)
    assert "peak at fast=10, slow=20: 5" in repr(plateau)


def test_a_sweep_that_wants_nothing_says_so():
    class Idle(Momentum):
        def target(self, f):
            return 0.0 * f["fast"]

    found = quiet(Idle, FEW[:2_000], fast=[2, 3], slow=[10, 20])
    assert "no_orders: every target was NaN, 0, or worth less" in repr(found)


def test_best_at_the_edge_of_the_grid_is_told():
    edges = [str(found) for found in hill(spike=5.0).warnings if found.name == "grid_edge"]
    assert len(edges) == 2 and "fast" in edges[0] and "slow" in edges[1]
    assert f"! {edges[0]}" in repr(hill(spike=5.0))
    assert not [found for found in hill().warnings if found.name == "grid_edge"]


def test_plateau_of_a_grid_with_holes_has_most_of_its_neighbours():
    values = hill().frame["sharpe"].to_numpy().copy()
    values[[6, 7, 8, 11]] = np.nan
    found = made(values, fast=range(10, 60, 10), slow=range(20, 120, 20)).plateau()
    assert found.combinations >= 6


def test_heat_map_shows_the_grid_and_marks_peak_and_plateau():
    found = hill(spike=5.0)
    figure = found.heat_map("fast", "slow")
    heat, peak, plateau = figure.data
    assert list(heat.x) == [10, 20, 30, 40, 50] and list(heat.y) == [20, 40, 60, 80, 100]
    assert heat.z[2][2] == 1.0 and heat.z[0][0] == 5.0
    assert (peak.x[0], peak.y[0]) == (10, 20) and (plateau.x[0], plateau.y[0]) == (30, 60)
    with pytest.raises(ConfigError, match="did you mean 'fast'"):
        found.heat_map("fasst", "slow")
    with pytest.raises(ConfigError, match="did you mean 'sharpe'"):
        found.heat_map("fast", "slow", value="sharp")
    with pytest.raises(ConfigError, match="two parameters"):
        found.heat_map("fast", "fast")


def test_best_leaves_out_what_has_no_figure_and_ties_keep_their_order():
    found = made([1.0, np.nan, 3.0, 3.0, 2.0], fast=range(1, 6))
    assert found.best(9)["fast"].tolist() == [3, 4, 5, 1]
    assert found.best(2, by="fills")["fast"].tolist() == [3, 4]


def test_trials_are_what_a_deflated_sharpe_ratio_needs():
    found = pairs()
    trials = found.trials()
    best = found.best(1, by="sharpe_period").iloc[0]
    assert trials["trials"] == 16
    assert trials["variance"] == pytest.approx(found.frame["sharpe_period"].var())
    assert (trials["sharpe"], trials["periods"]) == (best["sharpe_period"], best["periods"])
    assert math.isnan(made([np.nan] * 3, fast=[1, 2, 3]).trials()["sharpe"])


def test_strategy_that_never_trades_has_no_sharpe_and_no_best():
    found = quiet(Wild, FEW[:500], weight=[0.0])
    assert found.frame["fills"][0] == 0 and math.isnan(found.frame["sharpe"][0])
    assert len(found.best()) == 0 and "Sweep of Wild over 1 combinations" in repr(found)
    assert found.frame["fills_hash"][0] == hashlib.sha256().hexdigest()


def test_result_says_the_best_the_plateau_and_how_it_was_verified():
    found = pairs(where=lambda fast, slow: fast < slow)
    said = repr(found)
    assert said.startswith("Sweep of Momentum over 15 combinations, 1 left out, by sharpe")
    assert "plateau around fast=" in said and "verified: the best 5 and 10 drawn" in said
    top = found.best(1).iloc[0]
    assert f"{top['fast']:.0f}" in said.splitlines()[2]


def test_a_notebook_shows_a_sweep_as_a_table_of_what_is_printed():
    found = pairs()
    shown, said = found._repr_html_(), repr(found).splitlines()
    assert all(html.escape(line.strip()) in shown for line in (said[0], said[-1]))
    top = found.best(1).iloc[0]
    assert f"<td>{top['sharpe']:,.4g}</td>" in shown and shown.count("<tr>") == 6
    assert "<table" not in quiet(Wild, FEW[:500], weight=[0.0])._repr_html_()
