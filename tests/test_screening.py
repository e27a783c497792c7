"""Screening a sweep with vectorbt: the engine is the verdict, and what differs is said."""

import pytest

from sysquant.errors import ConfigError
from sysquant.sizing import VolatilityTarget
from sysquant.strategies.momentum import Momentum
from tests.test_sweep import (
    BARS,
    CHEAP,
    DEAR,
    FEW,
    Between,
    assert_rows_are_backtests,
    pairs,
    quiet,
    two_symbols,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # what vectorbt is built on warns at will


def test_screening_keeps_the_best_for_the_engine_and_agrees_where_it_may():
    grid = {"fast": [5, 10, 15], "slow": [20, 40, 60]}
    found = quiet(Momentum, BARS, execution=CHEAP, screen="vectorbt", keep=4, **grid)
    frame = found.frame
    judged = frame["fills"].notna()
    assert judged.sum() == 4 and frame["screen_fills"].notna().all()
    assert set(frame.index[judged]) == set(frame["screen_sharpe"].nlargest(4).index)
    assert (abs(frame["fills"] - frame["screen_fills"])[judged] <= 1).all()
    assert frame["screen_return"][judged].tolist() == pytest.approx(
        frame["return"][judged].tolist(),
        abs=3e-4,  # the engine rounds prices against the order
    )
    assert frame["screen_sharpe"][judged].tolist() == pytest.approx(
        frame["sharpe"][judged].tolist(), rel=0.05, abs=0.5
    )
    assert not [note for note in found.notes if "apart" in note]
    assert_rows_are_backtests(found, BARS, chosen=frame.index[judged], execution=CHEAP)


def test_fills_that_only_vectorbt_would_have_are_said():
    grid = {"fast": [2, 3], "slow": [4, 6]}
    found = quiet(Momentum, BARS, execution=DEAR, screen="vectorbt", keep=4, **grid)
    said = repr(found)
    assert "by vectorbt, more than 5% apart" in said
    assert "... and 1 more of 4 that both judged" in said


def test_weights_between_are_screened_as_targets_of_the_equity():
    found = quiet(
        Between, FEW, screen="vectorbt", keep=2, span=[10, 40], scale=[300.0], execution=CHEAP
    )
    frame = found.frame
    for at in (0, 1):
        assert frame["screen_fills"][at] == pytest.approx(frame["fills"][at], rel=0.05)
        assert frame["screen_return"][at] == pytest.approx(frame["return"][at], abs=2e-4)


def test_what_vectorbt_cannot_screen_is_refused():
    bars, universe = two_symbols(300)
    with pytest.raises(ConfigError, match="vectorbt screens one symbol"):
        quiet(Momentum, bars, universe, fast=[5], screen="vectorbt")
    with pytest.raises(ConfigError, match="vectorbt screens weights of equity"):
        pairs(screen="vectorbt", sizing=VolatilityTarget(volatility=0.1))
