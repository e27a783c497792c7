"""Every indicator of the package, found by itself, keeps the contract."""

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sysquant.features
from sysquant.errors import ConfigError
from sysquant.features import Bar, Expression, FeatureGraph, cross

LENGTH = 160
BAR_NS = 17 * 60_000_000_000  # the bars reach over two midnights
CUTS = 200
# They skip a bar that is not finite; all others forget it with its window.
RECURSIVE = {
    "ema", "wilder", "kama", "rsi", "atr", "ewm_volatility", "macd", "adx", "keltner", "vwap",
    "obv", "drawdown-span=None", "hysteresis-two_sided=True", "hysteresis-two_sided=False", "hold",
    "cooldown", "latch", "bars_since",
}  # fmt: skip


@dataclass(frozen=True)
class Indicator:
    """A function of the package that makes expressions, with one kind of each argument."""

    function: Callable[..., Any]
    kinds: tuple[Any, ...]  # of each argument: Bar, Expression, int, float, str, True, False, None
    name: str

    def build(self, span, inputs):
        """Its expressions by name, and the bars they look back, of a span or a larger one."""
        for _ in range(4):
            try:
                return self._build(span, inputs)
            except ConfigError:  # a span that is too short for it
                span *= 2
        return self._build(span, inputs)

    def _build(self, span, inputs):
        pending, arguments, reach = iter(inputs), [], 0
        names = inspect.signature(self.function).parameters
        for name, kind in zip(names, self.kinds, strict=True):
            if kind is int:
                arguments.append(1 if name == "ddof" else span)
                reach, span = reach + arguments[-1], span + (name != "ddof")
            elif kind is Expression:
                arguments.append(next(pending))
            else:
                values = {Bar: Bar(), float: 1 / span, str: f"{span}h"}
                arguments.append(values.get(kind, kind))
        made = self.function(*arguments)
        return made._asdict() if isinstance(made, tuple) else {"": made}, reach


def _kinds(annotation):
    if annotation is bool:
        return (False, True)
    kinds = get_args(annotation) or (annotation,)
    if Expression in kinds:
        return (Expression,)
    return tuple(None if kind is type(None) else kind for kind in kinds)


def _indicators():
    for name in sysquant.features.__all__:
        function = getattr(sysquant.features, name)
        if not inspect.isfunction(function) or function.__module__ == cross.__name__:
            continue  # those of a universe: test_panel
        made = function.__annotations__.get("return")
        parts = made.__annotations__.values() if hasattr(made, "_fields") else (made,)
        if set(parts) != {Expression}:
            continue
        parameters = inspect.signature(function).parameters
        choices = [_kinds(parameter.annotation) for parameter in parameters.values()]
        for kinds in itertools.product(*choices):
            words = [
                f"-{key}={getattr(kind, '__name__', kind)}"
                for key, kind, others in zip(parameters, kinds, choices, strict=True)
                if len(others) > 1
            ]
            yield Indicator(function, kinds, name + "".join(words))


INDICATORS = list(_indicators())
every_indicator = pytest.mark.parametrize("indicator", INDICATORS, ids=lambda each: each.name)
quick = settings(max_examples=12, deadline=None)


def bars(seed, length=LENGTH, gaps=0):
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, length)))
    before = np.concatenate(([100.0], close[:-1]))
    columns = {
        "open": before,
        "high": np.maximum(before, close) * (1 + random.random(length) / 100),
        "low": np.minimum(before, close) / (1 + random.random(length) / 100),
        "close": close,
        "volume": random.lognormal(0, 1, length),
        "ts": BAR_NS * (1 + np.arange(length)),
    }
    columns["close"][random.integers(0, length, gaps)] = np.nan
    return columns


def features_of(indicator, span):
    # The indicator on a price, on its returns and on truth values, with the spans that were drawn.
    bar = Bar()
    change = bar.close / bar.open - 1
    cases = {
        "prices": [bar.close, bar.open, bar.high],
        "changes": [change, bar.low / bar.high - 1, change * change],
        "truths": [change > 0, bar.close, bar.open],
    }
    return {
        f"{case}.{part}": expression
        for case, inputs in cases.items()
        for part, expression in indicator.build(span, inputs)[0].items()
    }


def on_prices(indicator, span):
    # Its expressions on prices alone, and the bars they look back.
    bar = Bar()
    return indicator.build(span, [bar.close, bar.open, bar.high])


def leaks(graph, cuts, seed):
    # Names of features that something after a cut reaches, over a number of random cuts.
    columns, start = bars(seed), graph.state()
    whole, found = graph.run(columns), set()
    for draw in range(cuts):
        cut = int(np.random.default_rng(draw).integers(0, LENGTH))
        noise = bars(seed + 1 + draw, gaps=draw % 4)
        graph.restore(start)
        mixed = {k: np.concatenate((v[:cut], noise[k][cut:])) for k, v in columns.items()}
        values = graph.run(mixed)
        found |= {k for k, v in whole.items() if v[:cut].tobytes() != values[k][:cut].tobytes()}
    return found


def pieces(columns, cuts):
    edges = [0, *sorted(cuts), len(columns["close"])]
    return [{k: v[a:b] for k, v in columns.items()} for a, b in itertools.pairwise(edges)]


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same(left, right):
    return {k: v.tobytes() for k, v in left.items()} == {k: v.tobytes() for k, v in right.items()}


def test_the_suite_has_found_what_there_is():
    names = {each.name for each in INDICATORS}
    assert {
        "ema",
        "atr",
        "where",
        "zscore",
        "macd",
        "rolling_quantile",
        "every-period=str",
    } <= names
    assert names >= RECURSIVE
    built = {each.function.__name__ for each in INDICATORS}
    others = {"Bar", "Expression", "FeatureGraph", "indicator", "step"}
    others |= {name for name in vars(cross) if name in sysquant.features.__all__}
    assert built == set(sysquant.features.__all__) - others


@every_indicator
@quick
@given(
    seed=st.integers(0, 9),
    span=st.integers(2, 30),
    cuts=st.lists(st.integers(0, LENGTH), max_size=12),
    gaps=st.integers(0, 3),
)
def test_any_cut_of_a_history_gives_the_same_bits(indicator, seed, span, cuts, gaps):
    columns, features = bars(seed, gaps=gaps), features_of(indicator, span)
    whole = FeatureGraph(features).run(columns)
    cut, single = FeatureGraph(features), FeatureGraph(features)
    assert same(whole, joined([cut.run(part) for part in pieces(columns, cuts)]))
    assert same(whole, joined([single.run(part) for part in pieces(columns, range(1, LENGTH))]))


@every_indicator
@quick
@given(seed=st.integers(0, 9), span=st.integers(2, 30), cut=st.integers(0, LENGTH))
def test_restored_state_goes_on_as_if_nothing_had_happened(indicator, seed, span, cut):
    features = features_of(indicator, span)
    first, second = pieces(bars(seed), [cut])
    undisturbed = FeatureGraph(features)
    undisturbed.run(first)
    restored = FeatureGraph(features)
    restored.run(bars(seed + 1))  # of another life
    restored.restore(undisturbed.state())
    assert same(undisturbed.run(second), restored.run(second))
    assert same(undisturbed.state(), restored.state())


def test_the_future_does_not_reach_back():
    features = {
        f"{indicator.name}.{case}": expression
        for number, indicator in enumerate(INDICATORS)
        for case, expression in features_of(indicator, 2 + 5 * number % 29).items()
    }
    assert not leaks(FeatureGraph(features), CUTS, seed=7)


def test_a_kernel_that_looks_ahead_is_caught():
    @numba.njit
    def next_one(state, inputs, params, out):
        last = out.shape[0] - 1
        for i in range(last + 1):
            out[i] = inputs[0, min(i + 1, last)]

    peek = sysquant.features.indicator(next_one, first_state=list)(lambda x: ((x,), ()))
    graph = FeatureGraph({"peek": peek(Bar().close), "lag": sysquant.features.lag(Bar().close)})
    assert leaks(graph, 5, seed=7) == {"peek"}


@every_indicator
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_leaves_no_trace_when_its_window_has_passed(indicator, bad):
    features, reach = on_prices(indicator, 7)
    clean, dirty = bars(3), bars(3)
    dirty["close"][80] = bad
    expected, values = FeatureGraph(features).run(clean), FeatureGraph(features).run(dirty)
    skipped = FeatureGraph(features).run({k: np.delete(v, 80) for k, v in dirty.items()})
    for part, value in values.items():
        assert expected[part][:80].tobytes() == value[:80].tobytes()
        assert not np.isnan(value[-1])
        if indicator.name in RECURSIVE:
            assert np.isnan(value[80])
            assert np.delete(value, 80).tobytes() == skipped[part].tobytes()
        else:
            after = 80 + reach + 1
            assert np.allclose(value[after:], expected[part][after:], rtol=1e-12, atol=0)


@every_indicator
def test_a_scaled_copy_of_an_indicator_shares_its_nodes(indicator):
    once, again = features_of(indicator, 5), features_of(indicator, 5)
    scaled = {f"{case}, scaled": expression * 7919 for case, expression in again.items()}
    graph = FeatureGraph({**once, **scaled})
    distinct = len({expression.name for expression in once.values()})
    assert len(graph.nodes) == len(FeatureGraph(once).nodes) + distinct + 1


@every_indicator
def test_an_indicator_documents_itself(indicator):
    said = inspect.getdoc(indicator.function) or ""
    assert said
    if indicator.function.__module__ == "sysquant.features.functions":  # of one line, as in numpy
        return
    sections = ["Parameters", "Returns"]
    sections += ["Raises"] if {int, float, str} & set(indicator.kinds) else []
    assert all(f"\n{section}\n---" in said for section in sections)
    parameters = said.partition("\nReturns\n")[0]
    for name in inspect.signature(indicator.function).parameters:
        assert re.search(rf"^(\w+, )*{name}(, \w+)* : ", parameters, re.MULTILINE), name
    assert "NaN" in said or "not finite" in said


@every_indicator
def test_an_indicator_has_its_values_compared(indicator):
    files = ("features", "indicators", "signals")
    told = "".join((Path(__file__).parent / f"test_{name}.py").read_text() for name in files)
    assert re.search(rf"\b{indicator.function.__name__}\(", told)
