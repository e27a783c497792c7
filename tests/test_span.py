"""A part of a history: what is before it warms up, what is after it is not looked at."""

import numpy as np
import pandas as pd
import pytest

from sysquant.backtesting import backtest, span_of
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.features import demean, ema
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.sweeping import sweep
from sysquant.types import SECOND, Bars
from tests.benchmarks.markets import Walk
from tests.test_sweep import CHEAP, UNIVERSE, Between, assert_rows_are_backtests, quiet, two_symbols

BARS = Walk(5).bars(4_000)
START, END = int(BARS.ts[1_499]), int(BARS.ts[2_999])
FREE = Execution(latency_ms=0.0, latency_sigma=0.0, slippage_bps=0.0, fee_bps=0.0)
SPAN = {"start": START, "end": END}
GRID = {"fast": [5, 9], "slow": [30, 90]}


class Relative(Strategy):
    """Looks across the universe, so that no two of them can share a feature."""

    fast: int = 3

    def features(self, bar):
        return {"apart": demean(ema(bar.close, self.fast) / ema(bar.close, 30))}

    def target(self, f):
        return np.where(f["apart"] > 0, 0.5, 0.0)


def scrambled(bars: Bars, begin: int, seed: int = 1) -> Bars:
    """The same bars up to row `begin`, and others at the same times from there on."""
    other = Walk(100 + seed).bars(len(bars))
    drawn = np.random.default_rng(seed).permutation(np.arange(begin, len(bars)))
    columns = dict(bars.columns())
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = np.append(columns[name][:begin], getattr(other, name)[drawn])
    return Bars(**columns)


def test_nothing_is_decided_in_the_history_and_all_features_are_warm():
    part = backtest(Between(span=50), BARS, UNIVERSE, **SPAN)
    whole = backtest(Between(span=50), BARS, UNIVERSE)
    decided, all_decided = (r.table("signals") for r in (part, whole))
    times = pd.to_datetime([START, END], utc=True)
    inside = all_decided[(all_decided["ts"] > times[0]) & (all_decided["ts"] <= times[1])]
    # The first one is what stands at the start; it is no change, or the same change.
    told = [list(zip(d["ts"], d["target"], strict=True)) for d in (decided, inside)]
    assert len(told[0]) > 100 and told[0][1:] == told[1][-len(told[0]) + 1 :]
    assert part.table("orders")["ts"].min() > times[0]
    assert part.table("executions")["ts"].min() > times[0]
    assert part.equity.iloc[0] == 1e6 and (part.start, part.end) == (START + 60 * SECOND, END)


def test_what_is_after_the_end_changes_nothing():
    part = backtest(Momentum(fast=5, slow=30), BARS, UNIVERSE, **SPAN)
    other = backtest(Momentum(fast=5, slow=30), scrambled(BARS, 3_000), UNIVERSE, **SPAN)
    for name in part.effects.rows:
        assert part.effects[name].tobytes() == other.effects[name].tobytes()
    assert len(part.effects["executions"]) > 20


def test_history_changes_features_and_is_not_only_skipped():
    with_history = backtest(Momentum(fast=5, slow=90), BARS, UNIVERSE, **SPAN)
    without = backtest(Momentum(fast=5, slow=90), BARS[1_500:3_000], UNIVERSE)
    first = [int(r.effects["signals"]["ts"][0]) for r in (with_history, without)]
    assert first == [START + 60 * SECOND, START + 90 * 60 * SECOND]


@pytest.mark.parametrize("options", [{"execution": CHEAP}, {"execution": FREE, "seed": 3}])
def test_rows_of_a_sweep_on_a_part_are_backtests_of_it(options):
    found = quiet(Momentum, BARS, **GRID, **SPAN, **options)
    assert found.agrees and found.verified.trades > 50
    assert_rows_are_backtests(found, BARS, **SPAN, **options)


def test_rows_of_several_symbols_that_share_no_feature_are_backtests_too():
    bars, universe = two_symbols(800)
    span = {"start": int(bars.ts[500]), "end": int(bars.ts[1_200])}
    found = quiet(Relative, bars, universe, fast=[3, 9], **span)
    assert found.agrees and found.verified.trades > 20
    assert_rows_are_backtests(found, bars, universe, **span)


def test_resumed_sweep_of_another_part_starts_anew(tmp_path):
    path = tmp_path / "rows"
    quiet(Momentum, BARS, **GRID, **SPAN, resume=path)
    assert "4 combinations were finished before" in repr(
        quiet(Momentum, BARS, **GRID, **SPAN, resume=path)
    )
    later = quiet(Momentum, BARS, **GRID, start=START + 60 * SECOND, end=END, resume=path)
    assert "changed since" in repr(later) and ": data;" in repr(later)


def test_returns_that_are_kept_are_those_between_the_snapshots(tmp_path):
    path = tmp_path / "rows"
    quiet(Momentum, BARS, fast=[5], slow=[30, 90], **SPAN, resume=path)
    found = quiet(Momentum, BARS, **GRID, **SPAN, resume=path, returns=True)
    assert found.returns is not None and list(found.returns) == [0, 1, 2, 3]
    for at, returns in found.returns.items():
        equity = backtest(found.strategy(int(at)), BARS, UNIVERSE, **SPAN).equity
        expected = equity.iloc[:-1].pct_change().iloc[1:]
        pd.testing.assert_series_equal(returns, expected, check_names=False, check_freq=False)
    assert quiet(Momentum, BARS[:600], fast=5).returns is None


def test_span_is_told_in_words_and_back_from_the_end():
    end = int(BARS.ts[-1])
    assert span_of(BARS, UNIVERSE, 60 * SECOND, None, None).history is None
    history, bars = span_of(BARS, UNIVERSE, 60 * SECOND, "-1h", None)
    assert history is not None and len(bars) == 60 and bars.ts[-1] == end
    iso = str(np.datetime64(START, "ns").astype("M8[s]"))
    assert span_of(BARS, UNIVERSE, 60 * SECOND, iso, None).market.ts[0] == START + 60 * SECOND
    assert span_of(BARS, UNIVERSE, 60 * SECOND, int(BARS.ts[0]) - 1, None).history is None
    assert len(span_of(BARS, UNIVERSE, 60 * SECOND, None, "-1h").market) == len(BARS) - 60


def test_span_that_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError, match="start must be like"):
        backtest(Momentum(), BARS, UNIVERSE, start="yesterday")
    with pytest.raises(ConfigError, match="end must be like"):
        sweep(Momentum, BARS, UNIVERSE, end=5, fast=[3])
    with pytest.raises(DataError, match="no bar closes after start='2030-01-01' up to end=None"):
        backtest(Momentum(), BARS, UNIVERSE, start="2030-01-01")
    with pytest.raises(DataError, match="there is none at all"):
        backtest(Momentum(), BARS[:0], UNIVERSE, start="-1d")
