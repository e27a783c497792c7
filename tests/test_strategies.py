"""Every strategy of the package, found by itself, keeps the contract on a universe it can trade."""

import importlib
import inspect
import pickle
import pkgutil
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sysquant.strategies
from runners.compose import build
from sysquant.strategy import Strategy, example_symbols
from tests.panels import market, pieces, same

LENGTH = 400  # bar ends
CONF = Path(__file__).parents[1] / "conf"


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


STRATEGIES = _strategies()
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda c: c.__name__)
quick = settings(max_examples=12, deadline=None)


class Sure:
    """A model that reads two features and is not always of the same opinion."""

    def proba(self, f):
        up = np.clip(f["rsi_14"] / 100 + 50 * f["macd_diff"] / f["sma_60"], 0, 1)
        return {"down": 0.9 * (1 - up), "flat": 0.1 + 0 * up, "up": 0.9 * up}


def made(strategy):
    return strategy().with_model(Sure()) if strategy.classes else strategy()


def bars(strategy, seed, gaps=0, missing=0.2, length=LENGTH):
    columns = market(seed, length, example_symbols(made(strategy)), missing)
    columns["close"][np.random.default_rng(seed).integers(0, len(columns["ts"]), gaps)] = np.nan
    return columns


def decider(strategy):
    return made(strategy).decider(example_symbols(made(strategy)))


def test_the_suite_has_found_what_there_is():
    assert {"Momentum", "BuyAndHold", "Pairs", "MlDirection"} <= {c.__name__ for c in STRATEGIES}


@every_strategy
@quick
@given(
    seed=st.integers(0, 9),
    cuts=st.lists(st.integers(0, LENGTH), max_size=9),
    gaps=st.integers(0, 3),
)
def test_array_and_any_cut_decide_alike(strategy, seed, cuts, gaps):
    columns = bars(strategy, seed, gaps)
    whole, cut = decider(strategy), decider(strategy)
    parts = [cut.run(part) for part in pieces(columns, cuts)]
    assert whole.run(columns).tobytes() == np.concatenate(parts).tobytes()
    assert same(whole.state(), cut.state())


@every_strategy
def test_stream_equals_array_bit_for_bit(strategy):
    columns = bars(strategy, 1, gaps=2)
    symbols = example_symbols(made(strategy))
    whole, stream = decider(strategy), made(strategy).stream(symbols)
    found = []
    for mark in pieces(columns, range(1, LENGTH)):
        own = {
            symbols[number]: {name: column[i] for name, column in mark.items()}
            for i, number in enumerate(mark["symbol"])
        }
        found += stream.update_all(own).values() if own else []
    assert whole.run(columns).tobytes() == np.array(found).tobytes()
    assert same(whole.state(), stream.decider.state())


@every_strategy
@quick
@given(seed=st.integers(0, 9), cut=st.integers(1, LENGTH))
def test_a_strategy_restored_decides_as_before(strategy, seed, cut):
    first, second = pieces(bars(strategy, seed), [cut])
    undisturbed, restored = decider(strategy), decider(strategy)
    undisturbed.run(first)
    restored.restore(undisturbed.state())
    assert undisturbed.run(second).tobytes() == restored.run(second).tobytes()


@every_strategy
def test_a_strategy_does_not_see_the_future(strategy):
    columns, noise = bars(strategy, 1, missing=0.0), bars(strategy, 2, missing=0.0)
    targets, wide = decider(strategy).run(columns), len(example_symbols(made(strategy)))
    for cut in np.random.default_rng(0).integers(0, LENGTH, 200) * wide:
        mixed = {k: np.concatenate((v[:cut], noise[k][cut:])) for k, v in columns.items()}
        assert targets[:cut].tobytes() == decider(strategy).run(mixed)[:cut].tobytes()


@every_strategy
def test_a_strategy_has_no_opinion_before_its_warmup_and_one_after(strategy):
    warmup, wide = made(strategy).warmup(), len(example_symbols(made(strategy)))
    columns = bars(strategy, 5, missing=0.0, length=warmup + 50)
    targets = decider(strategy).run(columns).reshape(-1, wide)
    assert np.isnan(targets[:warmup]).all()
    assert np.isfinite(targets[warmup:]).all()


@every_strategy
def test_a_missing_price_is_no_opinion(strategy):
    columns = bars(strategy, 1, missing=0.0)
    wide = len(example_symbols(made(strategy)))
    columns["close"][350 * wide : 351 * wide] = np.nan
    before, found = decider(strategy).run(columns).reshape(-1, wide)[349:351]
    assert (np.isnan(found) | (found == before)).all()  # the same: it looks at longer bars


@every_strategy
def test_a_strategy_prints_as_it_is_written_and_travels(strategy):
    instance = strategy()
    assert eval(repr(instance), {c.__name__: c for c in STRATEGIES}) == instance
    assert pickle.loads(pickle.dumps(instance)) == instance
    assert hash(strategy()) == hash(instance)


@every_strategy
def test_a_strategy_has_a_reference_and_a_config_with_all_its_parameters(strategy):
    assert "References" in (inspect.getdoc(strategy) or "")
    name = strategy.__module__.rpartition(".")[2]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", [f"strategy={name}"]).strategy
    assert build(config) == strategy()
    assert set(config) - {"_target_"} == set(strategy().parameters)
    keys = (CONF / "strategy" / f"{name}.yaml").read_text().partition("_target_")[2]
    for line in keys.splitlines()[1:]:
        assert "#" in line, f"{name}.yaml: no unit in {line!r}"


@every_strategy
def test_a_strategy_is_short(strategy):
    assert len(inspect.getsource(sys.modules[strategy.__module__]).splitlines()) < 60
