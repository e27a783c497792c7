"""The strategy contract: parameters, frozen instances, targets, frames and streams."""

import copy
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from sysquant.errors import ConfigError, DataError, StrategyError
from sysquant.features import Bar, atr, ema, macd, sma
from sysquant.strategies.buy_and_hold import BuyAndHold
from sysquant.strategies.momentum import Momentum
from sysquant.strategy import Strategy
from sysquant.types import Bars

CLOSE = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 300)))
INDEX = pd.date_range("2024-01-01 00:01", periods=300, freq="min", tz="UTC")


class Weighted(Strategy):
    span: int = 3
    weight: float = 1.0
    mode: str = "plain"
    short: bool = False
    FLOOR: ClassVar[float] = 0.0

    def features(self, bar):
        return {"close": bar.close, "average": sma(bar.close, self.span), "one": 1}

    def target(self, f):
        return np.where(f["close"] > f["average"], self.weight, self.FLOOR)


def with_target(target):
    return type("Odd", (Weighted,), {"target": lambda self, f: target(f)})()


def decide(strategy, close=CLOSE):
    return strategy.decider().run({"close": close})


def test_parameters_have_types_defaults_and_a_repr_to_paste():
    strategy = Weighted(span=5, weight=1, short=np.True_)  # pyright: ignore
    assert repr(strategy) == "Weighted(span=5, weight=1.0, mode='plain', short=True)"
    assert strategy.parameters == {"span": 5, "weight": 1.0, "mode": "plain", "short": True}
    assert strategy == Weighted(span=5, weight=1.0, short=True) != Weighted()
    assert hash(strategy) == hash(Weighted(span=5, short=True))
    assert Momentum() != BuyAndHold()
    assert copy.deepcopy(strategy) == copy.copy(strategy) == strategy


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"spam": 3}, "Weighted has no parameter 'spam'; did you mean 'span'?"),
        ({"horizon": 3}, "; there is: mode, short, span, weight"),
        ({"span": 3.0}, "Weighted.span must be int, was 3.0"),
        ({"span": True}, "Weighted.span must be int, was True"),
        ({"span": "3"}, "must be int, was '3'"),
        ({"weight": "1"}, "must be float, was '1'"),
        ({"weight": float("nan")}, "must be finite, was nan"),
        ({"weight": float("inf")}, "must be finite, was inf"),
        ({"mode": 1}, "must be str, was 1"),
        ({"short": 1}, "must be bool, was 1"),
        ({"span": 0}, "span must be a whole number of bars >= 1, was 0"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused(parameters, text):
    with pytest.raises(ConfigError) as error:
        Weighted(**parameters)
    assert text in str(error.value)


def test_a_strategy_that_remembers_something_fails_loudly():
    class Counting(Weighted):
        def target(self, f):
            self.seen = len(f["close"])
            return np.ones(self.seen)

    with pytest.raises(StrategyError, match="is frozen, 'seen' cannot be set"):
        decide(Counting())
    with pytest.raises(StrategyError, match="frozen"):
        Weighted().span = 5
    with pytest.raises(StrategyError, match="frozen"):
        del Weighted().span
    with pytest.raises(StrategyError, match=r"raised ValueError: .*read-only"):
        decide(with_target(lambda f: np.multiply(f["close"], 0, out=f["close"])))


def rises(close):
    return np.append(close[1:] > close[:-1], False)


@pytest.mark.parametrize(
    "target",
    [
        lambda f: rises(f["close"]),
        lambda f: rises(f["close"][::-1])[::-1],
        lambda f: f["close"] > f["close"].mean(),
        lambda f: f["close"] / f["close"].max(),
        lambda f: np.tanh(np.cumsum(f["close"] - f["average"])),
        lambda f: np.full(len(f["one"]), 1.0 if len(f["one"]) > 256 else 0.0),
        lambda f: np.random.default_rng().random(len(f["one"])),
    ],
    ids=["next", "last", "mean", "scale", "memory", "length", "random"],
)
def test_a_target_that_looks_at_other_bars_is_refused(target):
    with pytest.raises(StrategyError, match=r"Odd\(.*every bar by itself.*is a feature"):
        decide(with_target(target))


@pytest.mark.parametrize("count", [8, 20, 200, 255])
@pytest.mark.parametrize(
    "target",
    [
        lambda f: rises(f["close"]) * 1.0,
        lambda f: np.full_like(f["close"], np.sign(f["close"][-1] - f["close"][0])),
    ],
    ids=["next", "whole"],
)
def test_a_short_history_is_no_way_to_look_at_other_bars(count, target):
    with pytest.raises(StrategyError, match="every bar by itself"):
        decide(with_target(target), CLOSE[:count])


def test_a_target_of_legs_that_looks_at_other_bars_is_refused():
    class Both(Strategy):
        def legs(self):
            return ("A", "B")

        def features(self, bar):
            return {"a": bar["A"].close, "b": bar["B"].close}

        def target(self, f):
            return {"A": (f["a"] > f["b"]) * 1.0, "B": rises(f["b"]) * -1.0}

    columns = {
        "ts": np.repeat(np.arange(1, 301) * 60 * 10**9, 2), "symbol": np.tile([0, 1], 300),
        "close": np.repeat(CLOSE, 2) * np.tile([1.0, 1.01], 300),
    }  # fmt: skip
    with pytest.raises(StrategyError, match="every bar by itself"):
        Both().decider(("A", "B")).run(columns)


def test_a_target_that_raises_names_itself_its_line_and_the_way_out():
    class Branching(Weighted):
        def target(self, f):
            return f["one"] if f["close"] > f["average"] else 0 * f["one"]

    with pytest.raises(StrategyError, match=r"Branching\(.*ValueError in line \d+: .*np.where\("):
        decide(Branching())
    with pytest.raises(StrategyError, match="raised ZeroDivisionError: division by zero"):
        decide(with_target(lambda f: f["one"] * (1 / 0)))


def test_parameters_by_place_are_told_how_they_are_given():
    with pytest.raises(ConfigError, match=r"parameters by name: Momentum\(fast=5, slow=20\)"):
        Momentum(5, 20)


def test_what_pandas_calls_a_method_is_told_as_a_function():
    class Habit(Strategy):
        def features(self, bar):
            return {"before": bar.close.shift(1)}

    with pytest.raises(AttributeError, match=r"'shift', was close.shift; write lag\(x, 1\)"):
        Habit()
    for wrong, text in (
        (lambda bar: bar.close[-1], "n bars ago is lag"),
        (lambda bar: ema(bar, 20), "name a field of the bar"),
        (lambda bar: macd(bar.close), r"name one of its values: \.line"),
        (lambda bar: atr(bar.close, 20), r"takes the bar itself, like atr\(bar, 20\)"),
        (lambda bar: np.cumsum(bar.close), r"write rolling_sum\(x, 20\)"),
    ):
        bad = type(
            "Bad", (Strategy,), {"features": lambda self, bar, wrong=wrong: {"x": wrong(bar)}}
        )
        with pytest.raises((AttributeError, StrategyError), match=text):
            bad()
    node = ema(sma(Bar().close, 3), 5)
    assert copy.deepcopy(node).name == node.name


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"span": 20}, "Bad.span has no type, was 20"),
        ({"memory": []}, "Bad.memory has no type"),
        ({"__annotations__": {"span": int}}, "Bad.span needs a default"),
        ({"__annotations__": {"stream": int}, "stream": 3}, "taken by Strategy"),
        ({"__annotations__": {"spans": list}, "spans": [3]}, "must be bool, int, float, str or S"),
    ],
)
def test_a_class_that_breaks_the_contract_is_refused_when_defined(body, text):
    with pytest.raises(StrategyError, match=text):
        type("Bad", (Strategy,), body)


def test_a_default_of_the_wrong_type_is_refused_when_defined():
    with pytest.raises(ConfigError, match=r"Bad\.span must be int, was 2\.5"):
        type("Bad", (Strategy,), {"__annotations__": {"span": int}, "span": 2.5})


def test_a_strategy_without_features_or_target_says_so():
    with pytest.raises(StrategyError, match="must define features"):
        type("Empty", (Strategy,), {})()
    silent = type("Silent", (Strategy,), {"features": lambda self, bar: {"close": bar.close}})()
    with pytest.raises(StrategyError, match="must define target"):
        decide(silent)
    listed = type("Listed", (Strategy,), {"features": lambda self, bar: [bar.close]})
    with pytest.raises(StrategyError, match="must return a dict"):
        listed()
    taken = type("Taken", (Strategy,), {"features": lambda self, bar: {"target": bar.close}})
    with pytest.raises(StrategyError, match="cannot be called 'target'"):
        taken()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (lambda f: 1.0, "shape (300,), was float of shape ()"),
        (lambda f: f["close"][:-1] * 0, "was ndarray of float64 of shape (299,)"),
        (lambda f: [1.0] * 300, "was list"),
        (lambda f: np.array(["long"] * 300), "array of numbers"),
        (lambda f: f["close"], "must lie in [-1, 1], was"),
        (lambda f: f["close"] / 0, "must lie in [-1, 1], was np.float64(inf)"),
        (lambda f: -1 - f["one"], "was np.float64(-2.0)"),
        (lambda f: f["clsoe"], "there is no feature 'clsoe'; did you mean 'close'?"),
    ],
)
def test_a_target_that_is_no_weight_is_refused_by_name(target, text):
    with pytest.raises(StrategyError) as error:
        decide(with_target(target))
    assert text in str(error.value)
    assert "Odd(" in str(error.value) or "no feature" in str(error.value)


def test_whole_numbers_and_truths_are_weights():
    assert decide(with_target(lambda f: f["close"] > 0)).tolist() == [1.0] * 300
    assert decide(with_target(lambda f: -(f["close"] > 0).astype(int))).tolist() == [-1.0] * 300


def test_no_opinion_where_a_feature_that_was_read_is_nan():
    close = CLOSE.copy()
    close[[50, 60]] = np.nan
    targets = decide(Weighted(span=4), close)
    missing = set(range(3)) | set(range(50, 54)) | set(range(60, 64))
    assert set(np.flatnonzero(np.isnan(targets))) == missing


def test_a_feature_that_was_not_read_does_not_silence():
    targets = decide(with_target(lambda f: f["one"] * ("average" in f)))
    assert targets.tolist() == [1.0] * 300
    every = decide(with_target(lambda f: 0 * sum(f.values())))
    assert np.isnan(every[:2]).all()


def test_a_target_of_nan_is_no_opinion():
    targets = decide(with_target(lambda f: np.where(f["close"] > 100, 1.0, np.nan)))
    assert np.isnan(targets).tolist() == (CLOSE <= 100).tolist()


def test_what_lies_outside_where_there_is_no_opinion_does_not_matter():
    targets = decide(with_target(lambda f: np.where(np.isnan(f["average"]), 7.0, 0.5)))
    assert np.isnan(targets[:2]).all()
    assert (targets[2:] == 0.5).all()


def test_numpy_warnings_of_a_target_do_not_stop_it():
    targets = decide(with_target(lambda f: np.clip(np.log(f["one"] - 1), -1, 1)))
    assert targets.tolist() == [-1.0] * 300


def test_target_is_always_given_arrays():
    shapes = []

    def target(f):
        shapes.append(f["close"].shape)
        return f["one"]

    strategy = with_target(target)
    strategy.stream().update({"close": 5})
    assert decide(strategy, CLOSE[:0]).shape == (0,)
    decide(strategy)
    assert shapes == [(1,), (300,), (256,), (64,), *[(1,)] * 16]  # asked again about some


def test_momentum_is_long_above_its_slow_average_only():
    frame = Momentum(fast=5, slow=20).frame(pd.DataFrame({"close": CLOSE}, index=INDEX))
    assert frame.index.equals(INDEX)
    assert frame.index.name == "ts"
    assert list(frame) == ["fast", "slow", "target"]
    known = frame.iloc[19:]
    assert frame["target"].iloc[:19].isna().all()
    assert (known["target"] == (known["fast"] > known["slow"])).all()
    assert 0 < known["target"].mean() < 1


def test_stream_reads_mappings_and_objects():
    one, other = Momentum(fast=2, slow=3).stream(), Momentum(fast=2, slow=3).stream()
    frame = pd.DataFrame({"close": CLOSE, "volume": 1.0})
    targets = [one.update(row) for row in frame.to_dict("records")]
    assert [*map(repr, targets)] == [repr(other.update(row)) for row in frame.itertuples()]
    assert targets[-1] == Momentum(fast=2, slow=3).frame(frame.set_index(INDEX))["target"].iloc[-1]
    assert set(one.features) == {"fast", "slow"}


def test_frame_reads_times_from_index_column_or_bars():
    ns, zeros = INDEX.as_unit("ns").asi8, np.zeros(300, np.int32)
    by_index = Weighted().frame(pd.DataFrame({"close": CLOSE}, index=INDEX))
    for bars in (
        pd.DataFrame({"close": CLOSE, "ts": INDEX}),
        pd.DataFrame({"close": CLOSE, "ts": ns}),
        pd.DataFrame({"close": CLOSE}, index=INDEX.tz_convert("Asia/Tokyo")),
        Bars(ns, zeros, CLOSE, CLOSE, CLOSE, CLOSE, CLOSE, zeros, np.arange(300)),
    ):
        pd.testing.assert_frame_equal(Weighted().frame(bars), by_index, check_freq=False)
    assert Weighted().frame(pd.DataFrame({"close": CLOSE[:0]}, index=INDEX[:0])).empty
    both = pd.DataFrame({"close": np.repeat(CLOSE, 2)}, index=INDEX.repeat(2))
    both["symbol"] = pd.Categorical.from_codes(np.tile([0, 1], 300), ["B", "A"])  # a history's
    assert len(Weighted().frame(both)) == 600


@pytest.mark.parametrize(
    ("bars", "text"),
    [
        (pd.DataFrame({"close": CLOSE}), "need times in UTC"),
        (pd.DataFrame({"close": CLOSE}, index=INDEX.tz_localize(None)), "tz_localize"),
        (pd.DataFrame({"close": CLOSE[::-1]}, index=INDEX[::-1]), "row 1 did not"),
        (pd.DataFrame({"open": CLOSE}, index=INDEX), "need the columns close; there: open, ts"),
        (pd.Series(CLOSE, INDEX), "or a frame with the bars' columns, was Series"),
        (pd.DataFrame({"close": CLOSE}, index=INDEX.as_unit("ms").asi8), "too small for ns"),
    ],
)
def test_a_history_that_cannot_be_meant_is_refused(bars, text):
    with pytest.raises(DataError) as error:
        Weighted().frame(bars)
    assert text in str(error.value)


def test_warmup_is_measured():
    assert BuyAndHold().warmup() == 0
    assert Momentum(fast=30, slow=10).warmup() == 29
    assert Momentum(slow=5000).warmup() == 4999


def test_a_strategy_that_never_decides_is_told_apart(monkeypatch):
    monkeypatch.setattr("sysquant.strategy._LONGEST_WARMUP", 1000)
    with pytest.raises(StrategyError, match="had no opinion on any of"):
        with_target(lambda f: f["close"] * np.nan).warmup()


def test_a_class_may_extend_another():
    class Wider(Weighted):
        width: float = 0.5

        def features(self, bar):
            return {**super().features(bar), "slow": ema(bar.close, 2 * self.span)}

    assert Wider(span=4).parameters == {
        "span": 4, "weight": 1.0, "mode": "plain", "short": False, "width": 0.5,
    }  # fmt: skip
    assert set(Weighted().parameters) == {"span", "weight", "mode", "short"}
    assert Wider().decider().names == ("close", "average", "one", "slow")


def test_a_strategy_needs_neither_pandas_nor_a_research_library():
    code = (
        "import sys, numpy as np; from sysquant.strategies.momentum import Momentum;"
        "Momentum().decider().run({'close': np.ones(3)});"
        "print(sorted({'pandas', 'vectorbt', 'sklearn', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- strategies in strategies, and models


class Scaled(Strategy):
    of: Strategy = Momentum()
    scale: float = 0.5

    def features(self, bar):
        return self.of.features(bar)

    def target(self, f):
        return self.scale * self.of.target(f)


def test_a_strategy_can_be_a_parameter_of_another():
    inner = Momentum(fast=2, slow=3)
    outer = Scaled(of=inner)
    assert repr(outer) == "Scaled(of=Momentum(fast=2, slow=3), scale=0.5)"
    assert outer == Scaled(of=Momentum(fast=2, slow=3)) != Scaled()
    np.testing.assert_array_equal(decide(outer), 0.5 * decide(inner))
    with pytest.raises(ConfigError, match=r"Scaled\.of must be Strategy, was 3"):
        Scaled(of=3)


class Believer(Strategy):
    classes = ("down", "up")

    def features(self, bar):
        return {"close": bar.close}

    def target(self, f):
        chance = self.model.proba(f)
        return chance["up"] - chance["down"]


class Coin:
    def proba(self, f):
        up = np.where(f["close"] > 100, 0.75, 0.25)
        return {"up": up, "down": 1 - up}


def test_a_strategy_without_its_model_has_no_opinion_and_with_it_asks_it():
    assert np.isnan(decide(Believer())).all()
    found = decide(Believer().with_model(Coin()))
    np.testing.assert_array_equal(found, np.where(CLOSE > 100, 0.5, -0.5))
    with pytest.raises(StrategyError, match="names no classes"):
        Momentum().with_model(Coin())
