"""The warm-up of a strategy is measured: on what a history shows, and on nothing else."""

import numpy as np
import pytest

from sysquant.errors import ConfigError, DataError
from sysquant.features import ema, hysteresis, lag, sma, zscore
from sysquant.strategy import Strategy
from sysquant.warming import Warmup, judged, measure
from tests.test_causality import MINUTE, bars

LIMITS = Warmup(starts=60)


class Above(Strategy):
    """Long above what was so many bars before."""

    span: int = 30

    def features(self, bar):
        return {"close": bar.close, "before": lag(bar.close, self.span)}

    def target(self, f):
        return np.where(f["close"] > f["before"], 1.0, 0.0)


class Average(Above):
    """Long above an average that never quite forgets."""

    def features(self, bar):
        return {"close": bar.close, "before": ema(bar.close, self.span)}


class Distance(Above):
    """As far as the price is from its mean, by sums that go on from bar to bar."""

    def features(self, bar):
        return {"distance": zscore(bar.close, self.span)}

    def target(self, f):
        return np.clip(f["distance"] / 10, -1, 1)


class Latched(Above):
    """Remembers a side until the other one comes, which may be never."""

    enter: float = 99.0

    def features(self, bar):
        return {"side": hysteresis(bar.close - 100, self.enter, -self.enter, two_sided=True)}

    def target(self, f):
        return f["side"] + 0.0


def found(strategy, length=600, symbols=("A",), missing=0.0, limits=LIMITS):
    history = bars(symbols, length)
    keep = np.random.default_rng(1).random(len(history)) >= missing
    return measure(strategy, history[keep], symbols, limits, length=MINUTE)


@pytest.mark.parametrize("span", [1, 7, 30])
def test_a_lag_needs_exactly_its_bars(span):
    measured = found(Above(span=span))
    assert measured.exact == measured.near == measured.bars(LIMITS) == measured.first == span
    assert measured.features == {"close": 0, "before": span}
    assert judged(measured, LIMITS, span) == []


def test_a_warmup_that_is_configured_too_short_is_told_what_it_must_be():
    (failure,) = judged(found(Above(span=30)), LIMITS, 29)
    assert failure.endswith("runtime.warmup_bars is 29: set runtime.warmup_bars=30")


def test_decisions_settle_though_an_average_never_does():
    measured = found(Average(span=10))
    assert measured.features["before"] is None or measured.features["before"] > measured.exact
    assert 10 <= measured.bars(LIMITS) < 200


def test_what_was_measured_holds_for_beginnings_that_were_not_tried():
    history, strategy = bars(("A",), 600), Average(span=10)
    warm = measure(strategy, history, ("A",), Warmup(starts=10_000), length=MINUTE).exact
    whole = strategy.decider(("A",)).run(dict(history.columns()))
    for begin in range(1, 150):
        own = strategy.decider(("A",)).run(dict(history[begin:].columns()))
        assert own[warm:].tobytes() == whole[begin + warm :].tobytes()
    own = [strategy.decider(("A",)).run(dict(history[b:].columns())) for b in range(1, 151)]
    assert any(o[warm - 1] != whole[b + warm - 1] for b, o in enumerate(own, 1))


def test_weights_that_are_never_quite_the_same_settle_within_a_limit():
    measured = found(Distance(span=20), length=500)
    assert measured.near == measured.bars(LIMITS) == 19 < measured.shown < measured.exact
    assert measured.features["distance"] is None
    assert judged(measured, LIMITS, 500) == []
    (failure,) = judged(
        found(Distance(span=20), limits=(strict := Warmup(within=0.0))), strict, 500
    )
    assert "still differed by more than 0" in failure


def test_a_side_that_is_kept_for_ever_cannot_be_shown():
    history = bars(("A",), 400)
    history.close[60] = 300.0
    measured = measure(Latched(), history, ("A",), LIMITS, length=MINUTE)
    assert measured.bars(LIMITS) is None and measured.near > measured.shown
    (failure,) = judged(measured, LIMITS, 500)
    assert "is too short to show a warm-up" in failure and "feed.start" in failure
    assert f"{measured.near + 1:,} are wanted" not in failure  # but as much again, by the margin


def test_a_history_without_an_opinion_shows_nothing():
    (failure,) = judged(found(Above(span=590), length=500), LIMITS, 10_000)
    assert "no opinion on any bar" in failure


def test_bars_that_are_missing_count_by_the_clock_and_by_number_without_one():
    class Both(Above):
        def features(self, bar):
            return {"close": zscore(bar.close, self.span), "before": sma(bar.close, 5) * 0}

    by_clock = found(Both(span=30), missing=0.5, length=800)
    assert by_clock.bars(LIMITS) > 40
    history = bars(("A",), 800)
    by_number = measure(Above(span=30), history, ("A",), LIMITS, length=None)
    assert by_number.bars(LIMITS) == 30


def test_several_symbols_count_bar_ends():
    assert found(Above(span=12), symbols=("A", "B", "C")).bars(LIMITS) == 12


def test_too_few_bars_are_refused():
    for length in (0, 3):
        with pytest.raises(DataError, match="too few to measure a warm-up"):
            measure(Above(), bars(("A",), 10)[:length], ("A",), LIMITS, length=MINUTE)


@pytest.mark.parametrize(
    "wrong", [{"starts": 1}, {"margin": -0.1}, {"within": 1.0}, {"bars": 0}, {"seed": -1}]
)
def test_a_limit_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"warmup.{next(iter(wrong))} must be"):
        Warmup(**wrong)
