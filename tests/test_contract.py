"""Every indicator and every strategy of the package, found by itself, keeps the contract."""

import importlib
import inspect
import itertools
import pickle
import pkgutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import sysquant.features
import sysquant.strategies
from sysquant.features import Bar, Expression, FeatureGraph
from sysquant.strategy import Strategy

LENGTH = 160
CONF = Path(__file__).parents[1] / "conf" / "strategy"
RECURSIVE = {"ema", "rsi", "atr"}  # they skip a NaN; all others forget it with its window


def _indicators():
    functions = (getattr(sysquant.features, name) for name in sysquant.features.__all__)
    return [
        f
        for f in functions
        if inspect.isfunction(f) and f.__annotations__.get("return") is Expression
    ]


def _strategies():
    found = []
    for module in pkgutil.iter_modules(sysquant.strategies.__path__, "sysquant.strategies."):
        loaded = importlib.import_module(module.name)
        found += [
            c
            for c in vars(loaded).values()
            if inspect.isclass(c) and issubclass(c, Strategy) and c.__module__ == module.name
        ]
    return found


INDICATORS = _indicators()
STRATEGIES = _strategies()
every_indicator = pytest.mark.parametrize("indicator", INDICATORS, ids=lambda f: f.__name__)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda c: c.__name__)
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
    assert {"Momentum", "BuyAndHold"} <= {c.__name__ for c in STRATEGIES}


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


@every_strategy
@quick
@given(
    seed=st.integers(0, 9), cuts=st.lists(st.integers(0, 400), max_size=9), gaps=st.integers(0, 3)
)
def test_stream_array_and_any_cut_decide_alike(strategy, seed, cuts, gaps):
    columns = bars(seed, 400, gaps)
    whole, cut, stream = strategy().decider(), strategy().decider(), strategy().stream()
    targets = whole.run(columns)
    parts = [cut.run(part) for part in pieces(columns, cuts)]
    single = [stream.update({k: v[i] for k, v in columns.items()}) for i in range(400)]
    assert targets.tobytes() == np.concatenate(parts).tobytes() == np.array(single).tobytes()
    assert same(whole.state(), stream.decider.state())


@every_strategy
@quick
@given(seed=st.integers(0, 9), cut=st.integers(0, 400))
def test_a_strategy_restored_decides_as_before(strategy, seed, cut):
    first, second = pieces(bars(seed, 400), [cut])
    undisturbed, restored = strategy().decider(), strategy().decider()
    undisturbed.run(first)
    restored.restore(undisturbed.state())
    assert undisturbed.run(second).tobytes() == restored.run(second).tobytes()


@every_strategy
@quick
@given(seed=st.integers(0, 9), cut=st.integers(0, 400))
def test_a_strategy_does_not_see_the_future(strategy, seed, cut):
    columns, noise = bars(seed, 400), bars(seed + 1, 400)
    mixed = {k: np.concatenate((v[:cut], noise[k][cut:])) for k, v in columns.items()}
    targets = strategy().decider().run(columns)
    assert targets[:cut].tobytes() == strategy().decider().run(mixed)[:cut].tobytes()


@every_strategy
def test_a_strategy_has_no_opinion_before_its_warmup_and_one_after(strategy):
    warmup = strategy().warmup()
    targets = strategy().decider().run(bars(5, warmup + 50))
    assert np.isnan(targets[:warmup]).all()
    assert np.isfinite(targets[warmup:]).all()


@every_strategy
def test_a_missing_price_is_no_opinion(strategy):
    columns = bars(1, 400)
    columns["close"][350] = np.nan
    assert np.isnan(strategy().decider().run(columns)[350])


@every_strategy
def test_a_strategy_prints_as_it_is_written_and_travels(strategy):
    instance = strategy()
    assert eval(repr(instance), {strategy.__name__: strategy}) == instance
    assert pickle.loads(pickle.dumps(instance)) == instance
    assert hash(strategy()) == hash(instance)


@every_strategy
def test_a_strategy_has_a_reference_and_a_config_with_all_its_parameters(strategy):
    assert "References" in (inspect.getdoc(strategy) or "")
    path = CONF / f"{strategy.__module__.rpartition('.')[2]}.yaml"
    text = path.read_text()
    config = yaml.safe_load(text)
    assert config.pop("_target_") == f"{strategy.__module__}.{strategy.__name__}"
    assert strategy(**config).parameters == config == strategy().parameters
    for line in text.splitlines()[1:]:
        assert "#" in line, f"{path.name}: no unit in {line!r}"


@every_strategy
def test_a_strategy_is_short(strategy):
    assert len(inspect.getsource(sys.modules[strategy.__module__]).splitlines()) < 60
