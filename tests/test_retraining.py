"""One training from bars to verdict: found when there is something, refused when there is not."""

import msgspec
import numpy as np
import pytest

from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.models.serving import predicted
from sysquant.past import History
from sysquant.retraining import Recipe, train
from sysquant.types import Gaps, Instrument
from tests.test_training import MINUTE, Two, bars

RECIPE = Recipe(
    family="logistic_regression", label_settings={"horizon": "10m"}, train="2000m", test="1000m",
    embargo="10m",
)  # fmt: skip
FREE = Execution(fee_bps=0.0, slippage_bps=0.0)


def history(signal, *, count=6_000, seed=0):
    market = bars(count, symbols=1, seed=seed, signal=signal)
    ends = int(market.ts[0]) - MINUTE, int(market.ts[-1])
    return History(market, (Instrument("SIM:A", 1e-6, 1e-6),), MINUTE, *ends, Gaps.empty())


@pytest.fixture(scope="module")
def planted():
    return train(RECIPE, Two(), history(3.0), execution=FREE)


def test_a_planted_signal_is_found_and_published(planted):
    assert planted.verdict.publish, planted.verdict.reasons
    assert planted.scores["skill"].low > 0
    assert planted.result.equity.iloc[-1] > 1_000_000
    assert planted.before is None


def test_noise_is_kept_back_with_its_reasons():
    found = train(RECIPE, Two(), history(0.0, seed=3))
    assert not found.verdict.publish
    assert any("no more than" in reason for reason in found.verdict.reasons)


def test_every_test_is_decided_by_what_was_known_before_it(planted):
    training, first = planted.training, planted.found[0]
    for one in planted.found:
        assert one.fitted.thresholds != planted.fitted.thresholds
    times = [int(training.ts[one.rows[0]]) for one in planted.found]
    assert times == sorted(times) and len(times) >= 3
    decided = planted.result.arrow("signals")["ts"].cast("int64").to_numpy()
    assert decided.min() >= training.ts[first.rows[0]] - MINUTE
    assert decided.max() <= training.ts[planted.found[-1].rows[-1]]


def test_the_same_bars_make_the_same_model(planted):
    again = train(RECIPE, Two(), history(3.0), execution=FREE)
    assert again.id == planted.id and again.training.hash == planted.training.hash
    x = planted.training.x[-1_000:]
    same = (predicted(one.fitted.classifier, x).tobytes() for one in (again, planted))
    assert len(set(same)) == 1
    other = train(msgspec.structs.replace(RECIPE, settings={"c": 0.1}), Two(), history(3.0))
    assert other.id != planted.id


def test_a_model_that_earns_no_more_than_the_one_before_is_kept_back(planted):
    before = planted.found[-1].fitted.served(planted.training)
    found = train(RECIPE, Two(), history(3.0), before, execution=FREE)
    assert found.before is not None
    earned = [r.equity.iloc[-1] / 1_000_000 - 1 for r in (found.result, found.before)]
    assert found.verdict.publish == (earned[0] > earned[1])


def test_costs_count(planted):
    paid = train(RECIPE, Two(), history(3.0), execution=Execution(fee_bps=1_000.0))
    assert paid.result.equity.iloc[-1] < planted.result.equity.iloc[-1]
    assert not paid.verdict.publish and "after costs it earns" in paid.verdict.reasons[-1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"family": "forest"}, "family does not know 'forest'"),
        ({"settings": {"trees": 3}}, "settings of logistic_regression has no 'trees'"),
        ({"labels": "quantile"}, "did you mean 'quantiles'"),
        ({"label_settings": {"horizont": "1m"}}, "did you mean 'horizon'"),
        ({"weights": "none"}, "weights does not know"),
        ({"balance": 1}, "balance must be true or false"),
        ({"train": "soon"}, "train must be"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(changed, said):
    with pytest.raises(ConfigError, match=said):
        msgspec.structs.replace(RECIPE, **changed).check()


def test_a_history_that_is_too_short_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="take a longer history, or shorter windows"):
        train(RECIPE, Two(), history(0.0, count=2_500))
    assert np.isfinite(history(0.0).bars.close).all()
