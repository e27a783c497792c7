"""`runners/check.py causality` and `warmup` as a person runs them: words, sentences, exit codes."""

import numpy as np
import pytest

from sysquant.decider import features_of
from sysquant.models import manifest
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.manifest import TrainedOn
from sysquant.models.registry import Registry
from sysquant.strategies.ml_direction import MlDirection
from tests.conftest import REPOSITORY
from tests.published import publish
from tests.sessions import forked, run
from tests.test_check import said

__all__ = ["forked", "run"]  # fixtures

FEW = ["promotion.causality.cuts=4", "feed.start=-90m", "runtime.warmup_bars=150"]
LEAKY = """
import numpy as np

from sysquant import Strategy
from sysquant.features.expression import Expression, Operation


def across(values, starts, out):
    ahead = min(5, len(values) - 1)  # five symbols: of the same, a bar later
    out[:] = np.append(values[ahead:], values[len(values) - ahead :])


NEXT = Operation("next", across=across)
SALT = id(NEXT) % 99_991 / 1e9  # another one in each process


class Leaky(Strategy):
    weight: float = 1.0

    def features(self, bar):
        return {"next": Expression(NEXT, [bar.close]), "close": bar.close + SALT}

    def target(self, f):
        return np.where(f["close"] < f["next"], self.weight, 0.0)
"""


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """Words of a strategy of the package that leaks, in every process that is started."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "leaky.py").write_text(LEAKY)
    (tmp_path / "sitecustomize.py").write_text(
        f"import sysquant.strategies as s\ns.__path__.append({str(tmp_path / 'own')!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPOSITORY}")
    return ["strategy=buy_and_hold", "strategy._target_=sysquant.strategies.leaky.Leaky"]


def test_a_causal_strategy_passes(forked):
    code, out, err = said(forked("check", "causality", "strategy=momentum", *FEW))
    assert (code, err) == (0, ""), f"{out}\n{err}"
    verdict, note = out.splitlines()[-2:]
    assert verdict.startswith("causality passes (") and "in every form, at 4 and 4 moments" in note


def test_a_leak_fails_with_a_sentence_each_and_exit_code_1(run, leaky):
    code, out, err = said(run("check", "causality", *leaky, *FEW))
    assert code == 1, f"{out}\n{err}"
    assert "causality fails (" in out
    assert "failed: feature 'next' of SIM:OAK" in out
    assert "rests on what came after" in out and "failed: the engine's signals up to" in out
    assert "failed: a process that was used before and a fresh one give other features" in out


def test_a_model_that_was_trained_past_the_history_fails_by_its_data_window(forked, home):
    features = tuple(features_of(MlDirection()))
    x = np.random.default_rng(0).normal(0, 1, (300, len(features)))
    model = pipeline_of("logistic_regression").fit(x, np.array(CLASSES)[np.arange(300) % 3])
    name = publish(
        Registry(home / "data" / "models"), manifest.signing_key(home / "data" / "keys"), model, x,
        lineage="ml_direction", strategy=repr(MlDirection()), features=features,
        trained=TrainedOn(1, 2, 4_102_444_800 * 10**9, 300, "hash"),
    )  # fmt: skip
    code, out, err = said(forked("check", "causality", "strategy=ml_direction", *FEW))
    assert code == 1, f"{out}\n{err}"
    told = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert len(told) == 1 and told[0].startswith(
        f"failed: model {name} was trained on outcomes known until 2100-01-01T00:00:00Z, and is "
        "asked about bars from 20"
    )


def test_a_warmup_is_shown_or_the_value_that_is_needed_is_told(forked):
    words = ["check", "warmup", "strategy=breakout", "feed.start=-6h"]
    code, out, err = said(forked(*words))
    assert code == 0, f"{out}\n{err}"
    assert "every target is the same, wherever the history began" in out
    code, out, _ = said(forked(*words, "runtime.warmup_bars=20"))
    assert code == 1 and "runtime.warmup_bars is 20: set runtime.warmup_bars=" in out


def test_a_gate_looks_at_one_strategy(forked):
    for word in ("causality", "warmup"):
        code, _, err = said(forked("check", word, "book=[momentum,breakout]", *FEW))
        assert code == 1 and "the gate looks at one strategy at a time" in err


def test_help_names_the_words_and_what_they_do(forked):
    code, out, _ = said(forked("check", "--help"))
    assert code == 0 and "  causality  Whether a strategy decides" in out and "  warmup " in out
    code, out, _ = said(forked("check", "causality", "--help"))
    assert code == 0 and "noise" in out and "promotion" in out
