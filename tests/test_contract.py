"""Every indicator of the package, found by itself, keeps the contract."""

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sysquant.features
from sysquant.features import Bar, Expression, FeatureGraph

LENGTH = 160
RECURSIVE = {"ema", "rsi", "atr"}  # they skip a NaN; all others forget it with its window


def _indicators():
    functions = (getattr(sysquant.features, name) for name in sysquant.features.__all__)
    return [
        f
        for f in functions
        if inspect.isfunction(f)
        and f.__annotations__.get("return") is Expression
        and f.__module__ != "sysquant.features.cross"  # of a universe: test_panel
    ]


INDICATORS = _indicators()
every_indicator = pytest.mark.parametrize("indicator", INDICATORS, ids=lambda f: f.__name__)
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
        "ts": 60_000_000_000 * (1 + np.arange(length)),
    }
    columns["close"][random.integers(0, length, gaps)] = np.nan
    return columns


def features_of(indicator, span):
    # The indicator on a price, on its returns and on truth values, with the spans that were drawn.
    bar = Bar()
    change = bar.close / bar.open - 1
    cases = {}
    for name, inputs in {
        "prices": [bar.close, bar.open, bar.high],
        "changes": [change, bar.low / bar.high - 1, change * change],
        "truths": [change > 0, bar.close, bar.open],
    }.items():
        pending, arguments = iter(inputs), {}
        for parameter in inspect.signature(indicator).parameters.values():
            if parameter.annotation is Bar:
                arguments[parameter.name] = bar
            elif parameter.annotation is int:
                arguments[parameter.name] = 1 if parameter.name == "ddof" else span
            else:
                arguments[parameter.name] = next(pending)
        cases[name] = indicator(**arguments)
    return cases


def pieces(columns, cuts):
    edges = [0, *sorted(cuts), len(columns["close"])]
    return [{k: v[a:b] for k, v in columns.items()} for a, b in itertools.pairwise(edges)]


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same(left, right):
    return {k: v.tobytes() for k, v in left.items()} == {k: v.tobytes() for k, v in right.items()}


def test_the_suite_has_found_what_there_is():
    assert {"ema", "atr", "where", "zscore"} <= {f.__name__ for f in INDICATORS}


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


@every_indicator
@quick
@given(seed=st.integers(0, 9), span=st.integers(2, 30), cut=st.integers(0, LENGTH))
def test_the_future_does_not_reach_back(indicator, seed, span, cut):
    features, columns, noise = features_of(indicator, span), bars(seed), bars(seed + 1)
    mixed = {k: np.concatenate((v[:cut], noise[k][cut:])) for k, v in columns.items()}
    before = {k: v[:cut] for k, v in FeatureGraph(features).run(columns).items()}
    assert same(before, {k: v[:cut] for k, v in FeatureGraph(features).run(mixed).items()})


@every_indicator
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_leaves_no_trace_when_its_window_has_passed(indicator, bad):
    span = 7
    feature = {"x": features_of(indicator, span)["prices"]}
    clean, dirty = bars(3), bars(3)
    dirty["close"][80] = bad
    expected, value = FeatureGraph(feature).run(clean)["x"], FeatureGraph(feature).run(dirty)["x"]
    assert expected[:80].tobytes() == value[:80].tobytes()
    if indicator.__name__ in RECURSIVE:
        without = {k: np.delete(v, 80) for k, v in dirty.items()}
        assert np.isnan(value[80])
        skipped = FeatureGraph(feature).run(without)["x"]
        assert np.delete(value, 80).tobytes() == skipped.tobytes()
    else:
        assert np.allclose(value[80 + span + 1 :], expected[80 + span + 1 :], rtol=1e-12, atol=0)


@every_indicator
def test_a_scaled_copy_of_an_indicator_shares_its_nodes(indicator):
    node = features_of(indicator, 5)["prices"]
    again = features_of(indicator, 5)["prices"]
    graph = FeatureGraph({"once": node, "again": again, "double": again * 2})
    assert len(graph.nodes) == len(FeatureGraph({"once": node}).nodes) + 2


@every_indicator
def test_an_indicator_documents_itself(indicator):
    assert inspect.getdoc(indicator)
