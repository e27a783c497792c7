"""The check of causality: a leak is caught by its reason, and no clean strategy is flagged."""

import importlib
import re
import sys
from itertools import count

import numpy as np
import pytest

from sysquant.causality import Causality, examine
from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.forms import Market
from sysquant.risk import RiskChain
from sysquant.strategy import example_symbols
from sysquant.types import SECOND, Bars, Instrument
from tests.causal import CLEAN
from tests.leaks import HEAD, LEAKS
from tests.market import CHECKS
from tests.test_strategies import STRATEGIES, made

MINUTE = 60 * SECOND
START = 1_700_000_000 * SECOND // (60 * MINUTE) * 60 * MINUTE
LIMITS = Causality(cuts=5, numbers=64)
_NUMBER = count()


def bars(symbols, length=320, seed=3):
    """Minute bars of a random walk, every symbol at every bar end."""
    rng, wide = np.random.default_rng(seed), len(symbols)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, (length, wide)), axis=0))
    open_ = np.concatenate((np.full((1, wide), 100.0), close[:-1]))
    spread = 1 + np.abs(rng.normal(0, 0.001, (2, length, wide)))
    columns = {
        "ts": np.repeat(START + MINUTE * (1 + np.arange(length)), wide),
        "symbol": np.tile(np.arange(wide, dtype=np.int32), length),
        "open": open_.ravel(), "close": close.ravel(),
        "high": (np.maximum(open_, close) * spread[0]).ravel(),
        "low": (np.minimum(open_, close) / spread[1]).ravel(),
        "volume": rng.lognormal(0, 1, length * wide),
        "partition": np.zeros(length * wide, np.int32), "offset": np.arange(length * wide),
    }  # fmt: skip
    return Bars(**columns)


def market(symbols=("A", "B"), events=None, **changes):
    """A market of bars, and an engine on it."""
    universe = [Instrument(symbol) for symbol in symbols]
    events = bars(symbols) if events is None else events

    def engine(strategy):
        return Engine(
            universe=universe, strategies={"own": strategy}, risk=RiskChain(checks=CHECKS),
            execution=Execution(latency_ms=50), interval=MINUTE, snapshot_ns=60 * MINUTE,
        )  # fmt: skip

    made = Market(universe, MINUTE, Bars.empty(), events, events, engine)
    return made._replace(**changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Make a strategy of a source: its module is written, and imported."""
    directory = tmp_path_factory.mktemp("written")
    own = bars(("A",))
    lines = ["ts,close", *(f"{ts},{close}" for ts, close in zip(own.ts, own.close, strict=True))]
    (directory / "later.csv").write_text("\n".join(lines))
    sys.path.insert(0, str(directory))

    def write(source):
        name = f"written_{next(_NUMBER)}"
        (directory / f"{name}.py").write_text(f"DATA = {str(directory / 'later.csv')!r}\n{source}")
        importlib.invalidate_caches()
        return importlib.import_module(name).Own()

    yield write
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.startswith("written_")]:
        del sys.modules[name]


def test_the_corpus_is_as_large_as_is_promised():
    assert len({leak.name for leak in LEAKS}) == len(LEAKS) >= 40
    assert len(CLEAN) + len(STRATEGIES) >= 20


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_a_leak_is_caught_by_its_own_reason(leak, written, monkeypatch):
    monkeypatch.delenv("SEEN_BARS", raising=False)
    found = examine(written(HEAD + leak.source), market(), LIMITS)
    said = "\n".join(found.failures)
    assert re.search(leak.reason, said), said or "nothing was found"


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_strategy_is_not_flagged(name, written):
    found = examine(written(CLEAN[name]), market(), LIMITS)
    assert not found.failures, "\n".join(found.failures)
    assert found.figures["decided"] and found.figures["orders"]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda cls: cls.__name__)
def test_a_shipped_strategy_is_not_flagged(strategy):
    one = made(strategy)
    symbols = example_symbols(one)
    found = examine(strategy(), market(symbols), LIMITS)
    assert not found.failures, "\n".join(found.failures)
    assert found.figures["decided"] and found.digest
