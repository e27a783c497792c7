"""Values of expressions against numpy, their graph, and indicators of one's own."""

import itertools
import subprocess
import sys

import numba
import numpy as np
import pytest

from sysquant.errors import DataError, StrategyError
from sysquant.features import (
    Bar,
    FeatureGraph,
    atr,
    clip,
    ema,
    indicator,
    isnan,
    maximum,
    minimum,
    returns,
    sma,
    step,
    where,
    zscore,
)

bar = Bar()
NAN = np.nan


def evaluate(expression, **columns):
    return FeatureGraph({"x": expression}).run(columns)["x"]


def random_bars(length=3000, seed=0):
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, length)))
    return {
        "high": close * (1 + random.random(length) / 100),
        "low": close / (1 + random.random(length) / 100),
        "close": close,
    }


BARS = random_bars()


def test_arithmetic_is_that_of_numpy():
    x, y = BARS["high"], BARS["low"]
    h, l = bar.high, bar.low  # noqa: E741
    cases = [
        (h + l, x + y), (h - l, x - y), (h * l, x * y), (h / l, x / y), (-h, -x), (+h, x),
        (1 + h, 1 + x), (1 - h, 1 - x), (2 * h, 2 * x), (1 / h, 1 / x), (abs(-h), x),
        (h > l, x > y), (h >= l, x >= y), (h < l, x < y), (h <= l, x <= y),
        (h == l, x == y), (h != l, x != y), (h > 100, x > 100),
        ((h > 100) & (l > 100), (x > 100) & (y > 100)), (~(h > 100), ~(x > 100)),
        ((h > 100) | (l > 100), (x > 100) | (y > 100)),
        (where(h > 100, l, 0), np.where(x > 100, y, 0)),
        (minimum(h, 100), np.minimum(x, 100)), (maximum(h, 100), np.maximum(x, 100)),
        (clip(h, 99, 101), np.clip(x, 99, 101)), (np.sqrt(h), np.sqrt(x)), (np.sign(-h), -x / x),
        (np.float64(2) * h, 2 * x), (np.where(h > 100, 1, 0), np.where(x > 100, 1, 0)),  # pyright: ignore
        (np.logical_not(h > 100), ~(x > 100)), (np.absolute(h), x), (np.negative(h), -x),
    ]  # fmt: skip
    for expression, expected in cases:
        value = evaluate(expression, high=x, low=y)
        assert np.array_equal(value, expected.astype(float)), expression
    smooth = [(np.log(h), np.log(x)), (np.exp(h / 100), np.exp(x / 100)), (h**2, x**2)]
    for expression, expected in [*smooth, (2 ** (h / 100), 2 ** (x / 100)), (np.tanh(h), x / x)]:
        assert np.allclose(evaluate(expression, high=x), expected, rtol=1e-14, atol=0), expression


def test_elementwise_results_do_not_depend_on_the_length_of_a_batch():
    x = BARS["close"]
    rows = [np.log(bar.close), np.exp(bar.close / 99), np.tanh(bar.close / 99), bar.close**0.3]
    features = {str(i): e for i, e in enumerate(rows)}
    whole = FeatureGraph(features).run({"close": x})
    graph = FeatureGraph(features)
    single = [graph.run({"close": x[i : i + 1]}) for i in range(len(x))]
    for name, values in whole.items():
        assert values.tobytes() == np.concatenate([s[name] for s in single]).tobytes()


def test_a_verdict_about_nan_is_nan():
    close, one = np.array([NAN, 1.0, 2.0]), bar.close * 0 + 1
    for verdict in (bar.close > 1, bar.close < 1, bar.close == 1, bar.close != 1, ~bar.close):
        assert np.isnan(evaluate(verdict, close=close)).tolist() == [True, False, False]
    for verdict in (bar.close & one, bar.close | 1):
        assert np.isnan(evaluate(verdict, close=close)).tolist() == [True, False, False]


def test_where_ignores_a_nan_in_the_branch_not_taken():
    close = np.array([NAN, 1.0, 2.0])
    assert evaluate(where(isnan(bar.close), 0, bar.close), close=close).tolist() == [0, 1, 2]
    assert np.isnan(evaluate(where(bar.close, 1, 2), close=close)[0])


def test_two_averages_at_once_are_those_of_one_at_a_time():
    draw = np.random.default_rng(4)
    x = draw.normal(size=400)
    x[draw.random(400) < 0.03] = np.nan
    x[draw.random(400) < 0.03] = np.inf
    close = Bar().close
    spans = (3, 20, 7, 1)
    graph = FeatureGraph({f"{n}": ema(close, n) for n in spans} | {"open": ema(Bar().open, 3)})
    cuts = [0, 1, 2, 9, 25, 26, 300, 400]
    parts = [graph.run({"close": x[a:b], "open": -x[a:b]}) for a, b in itertools.pairwise(cuts)]
    for n in spans:
        alone = FeatureGraph({"x": ema(close, n)}).run({"close": x})["x"]
        assert np.concatenate([part[f"{n}"] for part in parts]).tobytes() == alone.tobytes()
    opposite = np.concatenate([part["open"] for part in parts])
    np.testing.assert_array_equal(opposite, -np.concatenate([part["3"] for part in parts]))
    # Nodes are computed in another order than they were named in, and keep their names.
    assert set(graph.state()) == {f"ema(close, {n})" for n in spans} | {"ema(open, 3)"}


def test_equal_formulas_are_one_node():
    graph = FeatureGraph(
        {f"{a}/{b}": ema(bar.close, a) / ema(bar.close, b) for a in range(2, 14) for b in (50, 60)}
    )
    assert sum(name.startswith("ema") for name in graph.nodes) == 14
    assert hash(ema(bar.close, 2) + 1) == hash(ema(bar.close, 2) + 1)
    assert repr(bar.close / sma(bar.close, 10)) == "div(close, sma(close, 10))"


def test_a_formula_that_doubles_at_each_level_stays_small():
    x = bar.close
    for _ in range(200):
        x = (x + x) / 2
    graph = FeatureGraph({"x": x})
    assert len(graph.nodes) == 401  # two a level, and the number 2
    assert graph.run({"close": np.array([3.0])})["x"].tolist() == [3.0]
    assert max(map(len, graph.nodes)) <= 160


def test_an_expression_is_neither_true_nor_an_array():
    with pytest.raises(StrategyError, match="no truth value"):
        bool(bar.close > 1)
    with pytest.raises(StrategyError, match="no truth value"):
        _ = bar.close > 1 and bar.close < 2
    with pytest.raises(StrategyError, match=r"np\.sin cannot be used"):
        np.sin(bar.close)
    with pytest.raises(StrategyError, match="was ndarray"):
        where(bar.close > 1, np.ones(3), 0)  # pyright: ignore
    with pytest.raises(AttributeError, match="did you mean 'close'"):
        bar.clsoe  # noqa: B018


def test_columns_of_any_type_stride_and_order_are_taken():
    ints = np.arange(40, dtype=np.int32)
    frozen = ints.astype(float)
    frozen.setflags(write=False)
    expected = evaluate(sma(bar.close, 3), close=ints.astype(float))
    for close in (ints, ints.astype(np.float32), np.repeat(ints, 2)[::2], frozen):
        value = evaluate(sma(bar.close, 3), close=close, extra=np.empty(0))
        assert value.tobytes() == expected.tobytes()
        graph = FeatureGraph({"x": sma(bar.close, 3)})
        singly = [graph.run({"close": close[i : i + 1]})["x"] for i in range(len(close))]
        assert np.concatenate(singly).tobytes() == expected.tobytes()


def test_bad_columns_leave_the_graph_as_it_was():
    graph = FeatureGraph({"x": atr(bar, 3), "y": sma(bar.close, 3)})
    for rows in (slice(0, 49), slice(49, 50)):  # the last one singly, as in a stream
        graph.run({k: v[rows] for k, v in BARS.items()})
    before = graph.state()
    with pytest.raises(DataError, match="need the columns high, low; there: close"):
        graph.run({"close": np.ones(3)})
    with pytest.raises(DataError, match="need the columns high, low; there: close"):
        graph.run({"close": np.ones(1)})
    with pytest.raises(DataError, match=r"differ in length, were \[2, 3\]"):
        graph.run({"close": np.ones(3), "high": np.ones(2), "low": np.ones(3)})
    with pytest.raises(DataError, match=r"differ in length, were \[1, 2\]"):
        graph.run({"close": np.ones(1), "high": np.ones(1), "low": np.ones(2)})
    after = graph.state()
    assert all(np.array_equal(before[k], after[k], equal_nan=True) for k in before)


def test_state_of_other_features_is_refused():
    graph = FeatureGraph({"x": sma(bar.close, 3)})
    for other in (sma(bar.close, 4), ema(bar.close, 3), bar.close):
        with pytest.raises(DataError, match="state is of other features"):
            graph.restore(FeatureGraph({"x": other}).state())
    wrong = {"sma(close, 3)": np.zeros(4)}
    with pytest.raises(DataError, match=r"was \(4,\), needed \(5,\)"):
        graph.restore(wrong)


def test_state_names_and_bits_are_those_of_another_process():
    code = (
        "import numpy as np; from sysquant.features import *; b = Bar();"
        "g = FeatureGraph({'x': zscore(b.close, 5) + ema(returns(b.close), 3)});"
        "g.run({'close': np.linspace(1, 2, 33)});"
        "print([(k, v.tobytes().hex()) for k, v in g.state().items()])"
    )
    graph = FeatureGraph({"x": zscore(bar.close, 5) + ema(returns(bar.close), 3)})
    graph.run({"close": np.linspace(1, 2, 33)})
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = str([(k, v.tobytes().hex()) for k, v in graph.state().items()])
    assert other.stdout.strip() == here


def test_importing_the_features_compiles_nothing():
    code = (
        "import sys, sysquant.features; from numba.core.dispatcher import Dispatcher;"
        "found = [f for name, module in list(sys.modules.items())"
        " if name.startswith('sysquant.features')"
        " for f in vars(module).values() if isinstance(f, Dispatcher)];"
        "print(len(found) > 50, [f.__name__ for f in found if f.signatures])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "[]"]


def test_an_indicator_of_ones_own_is_one_step_function():
    @step(state=2)
    def smoothed_range(state, high, low, span: int, scale: float = 1.0):
        state[0] += 1.0
        state[1] += (scale * (high - low) - state[1]) / min(span, state[0])
        return state[1]

    node = smoothed_range(bar.high, bar.low, span=5)
    assert repr(node) == "smoothed_range(high, low, 5, 1)"
    value = evaluate(node, **BARS)
    expected, average = [], 0.0
    for i, width in enumerate(BARS["high"] - BARS["low"]):
        average += (width - average) / min(5, i + 1)
        expected.append(average)
    assert np.allclose(value, expected, rtol=1e-13)
    graph = FeatureGraph({"x": node})
    cut = [graph.run({k: v[i : i + 7] for k, v in BARS.items()})["x"] for i in range(0, 3000, 7)]
    assert np.concatenate(cut).tobytes() == value.tobytes()


def test_a_signal_with_memory_is_a_step_function():
    @step(state=1)
    def hysteresis(state, x, enter: float, leave: float):
        if x > enter:
            state[0] = 1.0
        elif x < leave:
            state[0] = 0.0
        return state[0]

    close = np.array([0.0, 1.0, 3.0, 1.0, 0.4, 1.0])
    assert evaluate(hysteresis(bar.close, 2, 0.5), close=close).tolist() == [0, 0, 1, 1, 0, 0]


def test_an_indicator_of_ones_own_may_be_a_kernel():
    @numba.njit
    def total_kernel(state, inputs, params, out):
        for i in range(out.shape[0]):
            state[0] += inputs[0, i]
            out[i] = state[0]

    @indicator(total_kernel, first_state=lambda: [0.0])
    def total(x):
        return (x,), ()

    assert evaluate(total(bar.close), close=np.arange(4)).tolist() == [0, 1, 3, 6]


def test_an_indicator_that_does_not_compile_is_named():
    @step(state=0)
    def broken(state, x):
        return x.price

    with pytest.raises(StrategyError, match="broken does not compile"):
        FeatureGraph({"x": broken(bar.close)})
    with pytest.raises(StrategyError, match="must take"):
        step(state=0)(lambda state: 0.0)


def test_two_indicators_of_one_name_are_not_mixed_up():
    @step(state=0)
    def ema(state, x, span: int):
        return x

    from sysquant import features

    with pytest.raises(StrategyError, match="two different indicators are called 'ema'"):
        FeatureGraph({"x": ema(bar.close, 3) + features.ema(bar.close, 3)})
    # Also where all that lies above them looks the same.
    shipped = {"x": sma(features.ema(bar.close, 3), 5)}
    assert len(FeatureGraph({"y": sma(features.ema(bar.close, 3), 5)} | shipped).nodes) == 2
    with pytest.raises(StrategyError, match="two different indicators are called 'ema'"):
        FeatureGraph({"y": sma(ema(bar.close, 3), 5)} | shipped)
    # Also where what lies above them looks the same.
    own, other = sma(ema(bar.close, 3), 5) * 2, sma(features.ema(bar.close, 3), 5) * 2
    with pytest.raises(StrategyError, match="two different indicators are called 'ema'"):
        FeatureGraph({"own": own, "other": other})
    assert FeatureGraph({"other": other, "again": sma(features.ema(bar.close, 3), 5) * 2})


def test_features_without_columns_take_their_length_from_any():
    assert FeatureGraph({"x": bar.close * 0 + 1}).run({"close": np.ones(0)})["x"].shape == (0,)
    from sysquant.features.expression import as_expression

    graph = FeatureGraph({"x": as_expression(2)})
    assert graph.run({"ts": np.arange(3)})["x"].tolist() == [2, 2, 2]
