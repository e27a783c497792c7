"""The gate's statistics: what is asked of a strategy by backtests, and what the ledger knows."""

import json
import math

import numpy as np
import pytest
from scipy.signal import lfilter

from sysquant import backtest, research, sweep
from sysquant.candidate import MOST_DELAY_MS, candidate_of, dearer
from sysquant.errors import ConfigError, DataError
from sysquant.evidence import Limits
from sysquant.execution import Execution
from sysquant.features import ema, lag
from sysquant.judgement import prove
from sysquant.recording import aside
from sysquant.research_file import here
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars, Instrument

HOUR = 3600 * SECOND
UNIVERSE = [Instrument("SIM:S0", 0.01, 1e-6)]
DAYS = 120
QUIET = {"progress": False, "verify_best": 0, "verify_sample": 0}


class Lookback(Strategy):
    """Long above the close of so many bars ago, short below."""

    back: int = 12  # bars
    weight: float = 0.9

    def features(self, bar):
        return {"now": ema(bar.close, 3), "then": lag(bar.close, self.back)}

    def target(self, f):
        return self.weight * np.sign(f["now"] - f["then"])


def market(drift=0.0, *, days=DAYS, seed=1, volume=1e9):
    """Bars of an hour; below the walk, a drift that keeps its side for two days on average."""
    rng, count = np.random.default_rng(seed), 24 * days
    turns = np.cumsum(rng.random(count) < 1 / 48) % 2 * 2 - 1
    moves = 0.006 * (rng.normal(0.0, 1.0, count) + drift * turns)
    close = np.round(100.0 * np.exp(lfilter([1.0], [1.0, -0.9999], moves)), 2)
    open_ = np.concatenate(([100.0], close[:-1]))
    ts = 1_700_006_400 * SECOND + HOUR * np.arange(1, count + 1)
    return Bars(
        ts=ts, symbol=np.zeros(count, np.int32), open=open_, high=np.maximum(open_, close),
        low=np.minimum(open_, close), close=close, volume=np.full(count, volume),
        partition=np.zeros(count, np.int32), offset=np.arange(count),
    )  # fmt: skip


PLANTED, NOISE = market(0.6), market()


def candidate(strategy, bars):
    return candidate_of(strategy, bars, UNIVERSE, interval="1h")


@pytest.fixture(autouse=True)
def own_ledger(home):
    """A home, and with it a ledger, for each test."""
    return home


def failed(proof, *words):
    """Failures that hold one of the words."""
    return [each for each in proof.failures if any(word in each for word in words)]


def test_planted_edge_passes_with_every_figure():
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    assert proof.passes, str(proof)
    f = proof.figures
    assert f["trials"] == f["runs"] == 1 and f["lineages"] == "Lookback"
    assert f["deflated_sharpe"] > 0.99 and f["sharpe_by_luck"] == 0.0
    assert f["sharpe_low"] < f["sharpe"] < f["sharpe_high"]
    assert f["returns"] == f["walk_returns"] + f["returns"] // 3
    assert f["costs_1x_sharpe"] == f["sharpe"] > f["costs_2x_sharpe"] > f["costs_3x_sharpe"]
    assert f["delay_3_bars_sharpe"] < f["sharpe"] and f["neighbours"] == 4
    assert f["plateau"] > 0.5 and f["capacity"] > 1e6
    assert f["overfitting"] is None and f["holdout_reads"] is None
    assert all(not isinstance(v, float) or math.isfinite(v) for v in f.values())
    json.dumps(f)
    assert "Sharpe ratio" in proof.notes[0] and "no holdout is declared" in str(proof)


def test_noise_fails_with_the_value_the_limit_and_the_way_out():
    proof = prove(candidate(Lookback(), NOISE), Limits())
    assert not proof.passes
    (said,) = failed(proof, "deflated Sharpe ratio is")
    assert (
        said.endswith(
            "it loses after costs: look for another signal, or trade less often, or set "
            "promotion.statistics.deflated"
        )
        and "at least 0.95 is asked for" in said
    )


def test_sharpe_ratio_and_costs_are_those_of_backtests():
    chosen = candidate(Lookback(), PLANTED)
    proof = prove(chosen, Limits())
    for costs in (1.0, 2.0, 3.0):
        with aside():
            result = backtest(
                Lookback(), PLANTED, UNIVERSE, interval="1h", execution=Execution(
                    fee_bps=5.0 * costs, slippage_bps=costs
                ),
            )  # fmt: skip
        returns = result.returns.to_numpy()
        sharpe = returns.mean() / returns.std(ddof=1) * math.sqrt(result.ledger.returns.per_year)
        assert proof.figures[f"costs_{costs:g}x_sharpe"] == pytest.approx(sharpe)
        earned = result.equity.iloc[-1] / 1e6 - 1
        assert proof.figures[f"costs_{costs:g}x_return"] == pytest.approx(earned)


def test_trials_of_a_sweep_raise_the_bar_and_are_run_again():
    alone = prove(candidate(Lookback(), PLANTED), Limits()).figures
    sweep(Lookback, PLANTED, UNIVERSE, interval="1h", back=range(2, 50, 2), **QUIET)
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    f = proof.figures
    assert f["trials"] == 24 and f["runs"] == 26, "24 cells, one of them itself, twice at the gate"
    assert f["sharpe_by_luck"] > 0 and f["deflated_sharpe"] < alone["deflated_sharpe"]
    assert f["overfitting_trials"] == 24, "its own parameters are one of the cells"
    assert 0 <= f["overfitting"] <= 1
    few = prove(candidate(Lookback(), PLANTED), Limits(rerun=5)).figures
    assert few["overfitting_trials"] == 6 and few["trials"] == 24


def test_best_of_a_sweep_over_noise_does_not_pass():
    found = sweep(Lookback, NOISE, UNIVERSE, interval="1h", back=range(2, 60), **QUIET)
    best = found.strategy(int(found.best(1).index[0]))
    proof = prove(candidate(best, NOISE), Limits())
    assert proof.figures["trials"] >= 58 and failed(proof, "the best of 5")


def test_gate_counts_what_is_tried_at_the_gate():
    for bars in (5, 12, 12, 30):
        proof = prove(candidate(Lookback(back=bars), PLANTED), Limits())
    assert (proof.figures["trials"], proof.figures["runs"]) == (3, 4)
    assert set(research.trials(Lookback)["kind"]) == {"gate"}


# -- the holdout


def test_parameter_that_was_chosen_on_the_holdout_is_caught():
    edge = int(PLANTED.ts[-1]) - 30 * 24 * HOUR
    found = sweep(
        Lookback, PLANTED, UNIVERSE, interval="1h", start=edge, back=range(2, 40, 4), **QUIET
    )
    best = found.strategy(int(found.best(1).index[0]))
    proof = prove(candidate(best, PLANTED), Limits(holdout="30d"))
    (said,) = failed(proof, "were run on the holdout")
    assert said.startswith("9 other configurations of Lookback were run on the holdout from ")
    assert "at most 0 are allowed" in said and "wait for new data" in said
    assert proof.figures["holdout_reads"] == 9
    lenient = prove(candidate(best, PLANTED), Limits(holdout="30d", holdout_reads=9))
    assert not failed(lenient, "holdout")
    assert not failed(
        prove(candidate(best, PLANTED), Limits(holdout="10d", holdout_reads=None)), "hol"
    )


def test_parameter_that_was_chosen_before_the_holdout_passes_it():
    edge = int(PLANTED.ts[-1]) - 30 * 24 * HOUR
    sweep(Lookback, PLANTED, UNIVERSE, interval="1h", end=edge, back=range(2, 40, 4), **QUIET)
    chosen = Lookback(back=14)
    backtest(chosen, PLANTED, UNIVERSE, interval="1h")  # looked at once, and nothing else after it
    proof = prove(candidate(chosen, PLANTED), Limits(holdout="30d"))
    assert proof.figures["holdout_reads"] == 0 and not failed(proof, "holdout")
    assert proof.figures["holdout_returns"] == 30
    assert proof.figures["holdout_sharpe_low"] < proof.figures["holdout_sharpe"]


def test_a_renamed_copy_that_read_the_holdout_is_caught():
    class Renamed(Lookback):
        pass

    sweep(Renamed, PLANTED, UNIVERSE, interval="1h", back=[4, 8], **QUIET)
    proof = prove(candidate(Lookback(), PLANTED), Limits(holdout="30d"))
    assert proof.figures["holdout_reads"] == 2
    assert any("trials of Renamed count" in note for note in proof.notes)


def test_holdout_that_was_declared_holds_where_the_limits_name_none():
    edge = np.datetime64(int(PLANTED.ts[-1]) - 20 * 24 * HOUR, "ns").astype("M8[s]")
    research.hold_out(f"{edge}Z")
    backtest(Lookback(back=4), PLANTED, UNIVERSE, interval="1h")
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    assert proof.figures["holdout"] == str(edge) and proof.figures["holdout_reads"] == 1
    dated = prove(candidate(Lookback(), PLANTED), Limits(holdout=str(edge)[:10]))
    assert dated.figures["holdout"] == f"{str(edge)[:10]}T00:00:00"
    with pytest.raises(ConfigError, match=r"promotion\.statistics\.holdout must be like 30d"):
        prove(candidate(Lookback(), PLANTED), Limits(holdout="a month"))


# -- each limit


def test_edge_that_doubled_costs_eat_is_refused():
    dear = candidate(Lookback(back=1), PLANTED)
    proof = prove(dear, Limits(deflated=0.0, walk_sharpe=None))
    assert failed(proof, "at 2 times its costs it returns")
    assert not failed(prove(dear, Limits(costs=None)), "its costs it returns")
    assert "costs_2.5x_return" in prove(dear, Limits(costs=2.5)).figures


class Peak(Strategy):
    """Right with one number alone."""

    key: int = 40

    def features(self, bar):
        return {"now": ema(bar.close, 3), "then": lag(bar.close, 12)}

    def target(self, f):
        side = np.sign(f["now"] - f["then"])
        return 0.9 * side if self.key == 40 else np.where(np.abs(side) > 2, np.nan, -0.9 * side)


def test_peak_without_a_plateau_is_refused():
    proof = prove(candidate(Peak(), PLANTED), Limits())
    (said,) = failed(proof, "neighbours have a median Sharpe ratio of -")
    assert "at least 0.5 of that is asked for" in said and "Sweep.plateau" in said
    assert prove(candidate(Peak(), PLANTED), Limits(plateau=None)).passes


def test_steps_to_neighbours_are_a_tenth_and_leave_out_what_has_none():
    class Several(Strategy):
        span: int = 3
        long: int = 100
        level: float = 0.5
        zero: float = 0.0
        flag: bool = True
        word: str = "a"
        seed: int = 7

        def features(self, bar):
            return {"close": bar.close}

        def target(self, f):
            return np.zeros(len(f["close"]))

    own = Several()
    found = [
        {name: each.parameters[name] for name in own.parameters if each.parameters[name] != value}
        for each in candidate(own, NOISE).neighbours
        for value in [None]
    ]
    changed = [{n: v for n, v in each.items() if v != own.parameters[n]} for each in found]
    assert changed == [
        {"span": 2}, {"span": 4}, {"long": 90}, {"long": 110}, {"level": pytest.approx(0.45)},
        {"level": pytest.approx(0.55)},
    ]  # fmt: skip


def test_capital_that_the_bars_do_not_carry_is_refused():
    thin = market(0.6, volume=100.0)
    proof = prove(candidate(Lookback(), thin), Limits())
    (said,) = failed(proof, "its fills carry a capital of")
    assert "1 times the book's 1,000,000 is asked for: give it less (book.capital)" in said
    assert not failed(prove(candidate(Lookback(), thin), Limits(capacity=None)), "carry")


def test_strategy_that_never_trades_is_refused():
    proof = prove(candidate(Lookback(weight=0.0), PLANTED), Limits())
    assert failed(proof, "it never traded") and proof.figures["deflated_sharpe"] is None
    assert failed(proof, "deflated")


def test_short_past_is_refused():
    proof = prove(candidate(Lookback(), PLANTED[:40]), Limits())
    assert failed(proof, "at least 60 are asked for")
    with pytest.raises(DataError, match="the market holds no event"):
        candidate(Lookback(), PLANTED[:0])


def test_gate_refuses_where_the_ledger_cannot_be_read(home):
    prove(candidate(Lookback(), PLANTED), Limits())
    here().changing().execute("DELETE FROM runs")
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    (said,) = failed(proof, "how often it was tried is not known")
    assert "is damaged" in said and proof.figures["trials"] is None
    assert proof.figures["costs_2x_return"] > 0, "the rest is told"


def test_gate_refuses_where_the_ledger_cannot_be_written(home, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (home / "data").mkdir()
    (home / "data" / "research").write_text("no directory")
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    assert failed(proof, "the research ledger cannot be written")


def test_runs_that_were_lost_count_as_trials(home):
    prove(candidate(Lookback(), PLANTED), Limits())
    (here().path.parent / "lost").write_bytes(b"5000".ljust(4096))
    proof = prove(candidate(Lookback(), PLANTED), Limits())
    assert proof.figures["trials"] == 5001
    assert any("5,000 runs could not be written" in note for note in proof.notes)


def test_strategy_that_the_gate_changes_may_break_its_contract():
    class Wild(Strategy):
        bars: int = 12

        def features(self, bar):
            return {"now": ema(bar.close, 3), "then": lag(bar.close, 12)}

        def target(self, f):
            return (1.0 if self.bars == 12 else 7.0) * np.sign(f["now"] - f["then"])

    proof = prove(candidate(Wild(), PLANTED), Limits())
    assert proof.figures["neighbours"] == 0 and proof.figures["walk_candidates"] == 1


def test_momentum_of_the_package_can_be_judged():
    assert prove(candidate(Momentum(), NOISE), Limits()).figures["neighbours"] == 4


def test_delays_and_costs_change_what_they_name():
    terms = {"latency_ms": 50.0, "latency_sigma": 0.3, "fee_bps": 5.0, "maker_fee_bps": None}
    assert dearer(terms, 1.0, 0.0) == {}
    assert dearer(terms, 2.0, 60_000.0) == {
        "fee_bps": 10.0, "latency_ms": 60_050.0, "latency_sigma": 0.0
    }  # fmt: skip
    assert dearer(terms, 1.0, MOST_DELAY_MS)["latency_ms"] == MOST_DELAY_MS
    tiers = {"vip": {"fee_bps": 2.0, "maker_fee_bps": None}}
    assert dearer({"tiers": tiers}, 3.0, 0.0) == {
        "tiers": {"vip": {"fee_bps": 6.0, "maker_fee_bps": None}}
    }
    assert dearer({"latency_sample_ms": [5.0]}, 1.0, 10.0) == {"latency_sample_ms": [15.0]}


def test_days_are_judged_without_delays_that_no_order_takes():
    days = PLANTED[23::24]
    proof = prove(candidate_of(Lookback(back=2), days, UNIVERSE, interval="1d"), Limits())
    assert "delay_1_bars_sharpe" in proof.figures and "delay_3_bars_sharpe" not in proof.figures
