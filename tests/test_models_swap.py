"""A strategy asks another model from the next bar on, whole, and remembers which over a restart."""

import numpy as np
import pyarrow as pa
import pytest

from sysquant.backtesting import backtest
from sysquant.errors import ConfigError, ModelError, StrategyError
from sysquant.features import lag
from sysquant.models.labels import CLASSES
from sysquant.operation import Serve
from sysquant.strategy import Strategy
from tests.market import UNIVERSE, Flip, bars, engine, ticks


class Asks(Strategy):
    """Weighs by what the model says of an up bar."""

    classes = CLASSES

    def features(self, bar):
        return {"change": bar.close - lag(bar.close, 1)}

    def target(self, f):
        chance = self.model.proba(f)
        return chance["up"] - chance["down"]


class Sign:
    """Says up after an up bar, times a factor; the id `bad` does not exist."""

    def __init__(self, factor):
        self.factor = factor

    def proba(self, f):
        up = np.clip(0.5 + self.factor * np.sign(f["change"]), 0, 1)
        return {"up": up, "down": 1 - up, "flat": np.zeros(len(up))}


MODELS = {"follow": Sign(0.5), "fade": Sign(-0.5), "half": Sign(0.25)}


def models(name, model):
    if model not in MODELS:
        raise ModelError(f"there is no model {model}")
    return MODELS[model]


def book(**changes):
    return engine(strategies={"asks": Asks(), "flip": Flip()}, models=models, **changes)


def traded(script, events, cut, one=None):
    """Rows of a book that is given models after so many events, in batches of another length."""
    one, parts, at = one or book(), [], 0
    for place, model in [*script, (len(events), None)]:
        while at < place:
            batch = events[at : min(place, at + cut)]
            parts.append(one.step(batch))
            at += len(batch)
        if model is not None:
            parts.append(one.operate(Serve("asks", model)))
    rows = {
        name: [part[name] for part in parts if len(part[name])] for name in ("signals", "orders")
    }
    return one, {name: np.concatenate(found) for name, found in rows.items() if found}


SCRIPT = [(300, "follow"), (900, "fade"), (900, "half"), (1_400, "")]


@pytest.mark.parametrize("cut", [1, 37, 5_000])
def test_a_swap_takes_effect_at_its_place_however_the_feed_is_cut(cut):
    events = ticks(1_800)
    _, rows = traded(SCRIPT, events, cut)
    _, whole = traded(SCRIPT, events, 10_000)
    assert {n: r.tobytes() for n, r in rows.items()} == {n: r.tobytes() for n, r in whole.items()}
    asked = whole["signals"][whole["signals"]["strategy"] == 0]
    edges = [events.ts[:place].max() for place in (300, 900, 1_400)]
    said = {place: set() for place in range(4)}
    for signal in asked:
        said[int(np.searchsorted(edges, signal["ts"]))].add(round(float(signal["target"]), 6))
    assert said[0] <= {0.0} or not said[0]
    assert said[1] & {1.0, -1.0} and said[2] & {0.5, -0.5}
    assert not said[2] & {1.0, -1.0}, "no bar after the swap is decided on by the model before"


def test_the_other_strategies_do_not_notice():
    events = ticks(1_500)
    _, with_swaps = traded(SCRIPT[:3], events, 100)
    _, without = traded([], events, 100)
    own = [rows["orders"][rows["orders"]["strategy"] == 1] for rows in (with_swaps, without)]
    assert len(own[0]) > 20
    for field in ("ts", "quantity", "symbol"):
        np.testing.assert_array_equal(own[0][field], own[1][field])


def test_a_restored_book_asks_the_model_that_it_asked():
    events = ticks(1_500)
    one, _ = traded(SCRIPT[:1], events[:700], 100)
    state = one.state()
    _, expected = traded([], events[700:], 100, one)
    other = book()
    other.restore(state)
    assert other.models == {"asks": "follow"}
    _, found = traded([], events[700:], 100, other)
    assert found["signals"].tobytes() == expected["signals"].tobytes()
    fresh = book()
    other.restore(fresh.state())
    assert other.models == {}


def test_a_model_that_is_refused_leaves_the_one_before():
    one = book()
    one.operate(Serve("asks", "follow"))
    for wish, error, said in (
        (Serve("asks", "bad"), ModelError, "no model bad"),
        (Serve("flip", "follow"), StrategyError, "names no classes"),
        (Serve("asked", "follow"), ConfigError, "did you mean 'asks'"),
    ):
        with pytest.raises(error, match=said):
            one.operate(wish)
    assert one.models == {"asks": "follow"}
    with pytest.raises(ConfigError, match="this book was given none"):
        engine(strategies={"asks": Asks()}).operate(Serve("asks", "follow"))


@pytest.mark.parametrize("swaps", [[(40, "follow"), (90, "fade")], [(0, "half")], []])
def test_a_backtest_decides_each_bar_by_the_model_of_its_time(swaps):
    history = bars((100 + np.cumsum(np.random.default_rng(4).normal(0, 1, 150))).tolist())
    timed = [(int(history.ts[at]) if at else 0, MODELS[name]) for at, name in swaps]
    result = backtest(Asks(), history, UNIVERSE[:1], interval="1s", models=timed)
    closes, table = history.close, result.arrow("signals")
    signals = table.set_column(
        table.column_names.index("ts"), "ts", table["ts"].cast(pa.int64())
    ).to_pylist()
    assert bool(signals) == bool(swaps)
    for signal in signals:
        at = int(np.searchsorted(history.ts, signal["ts"]))
        served = [MODELS[name] for place, name in swaps if place <= at][-1]
        chance = served.proba({"change": closes[at : at + 1] - closes[at - 1 : at]})
        assert signal["target"] == pytest.approx((chance["up"] - chance["down"])[0])
