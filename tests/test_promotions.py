"""A promotion record holds what trades to what was promoted, and says the first difference."""

import re

import msgspec
import numpy as np
import pytest

from runners import promoted
from sysquant import promotions
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError
from sysquant.execution import Execution
from sysquant.promotions import Promotion, differences, moved, read, renew, terms_of, write
from sysquant.proof import Proof
from sysquant.risk import RiskChain
from sysquant.runtime import Runtime
from sysquant.sizing import WeightSizing
from sysquant.strategies.breakout import Breakout
from sysquant.strategies.ml_direction import MlDirection
from sysquant.strategies.momentum import Momentum
from sysquant.types import SECOND, Bars, Instrument
from tests.published import Published
from tests.test_models_swap import Asks

CHECKS = ({"check": "order_size", "limit": 2.0}, {"check": "drawdown", "limit": 0.2})
UNIVERSE = (Instrument("SIM:A"), Instrument("SIM:B", tick_size=0.5))


def engine(**changed):
    given = {
        "universe": UNIVERSE, "strategies": {"trend": Momentum(), "other": Breakout()},
        "risk": RiskChain(checks=CHECKS), "execution": Execution(), "interval": 60 * SECOND,
    }  # fmt: skip
    return Engine(**given | changed)


def record(**changed):
    given = {
        "name": "trend", "terms": terms_of(engine(), "trend"), "allocation": 500_000.0,
        "environment": promotions.environment(), "model": "", "warmup": 100, "start": 1, "end": 2,
        "proofs": (Proof(name="parity", figures={"rows": 1}),), "words": ("strategy=trend",),
        "made": 1,
    }  # fmt: skip
    return Promotion(**given | changed)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    assert read(tmp_path, "trend") is None
    kept = write(tmp_path, record())
    assert len(kept.id) == 16 and read(tmp_path, "trend") == kept
    assert write(tmp_path, record(made=2)).id != kept.id
    assert kept.strategy == "Momentum(fast=20, slow=100)" and kept.day == "1970-01-01"


def test_the_command_takes_it_live_with_the_history_that_it_needs():
    assert record().command == "python runners/live.py strategy=trend feed=kafka"
    assert record(warmup=5_000).command == (
        "python runners/live.py strategy=trend feed=kafka runtime.warmup_bars=5000"
    )


@pytest.mark.parametrize("was", ['"allocation": 500000.0', '"limit": ', "'0.2'", '"name": "trend"'])
def test_a_record_that_was_changed_is_refused(tmp_path, was):
    write(tmp_path, record())
    path = tmp_path / "trend.json"
    text = path.read_text()
    changed = text.replace(was, was.replace("trend", "trent").replace("0", "9"), 1)
    path.write_text(changed if changed != text else text.replace('"0.2"', '"0.9"', 1))
    assert path.read_text() != text
    with pytest.raises(ConfigError, match=r"was changed after it was written; promote it anew"):
        read(tmp_path, "trend")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_a_record_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "trend.json").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path, "trend")


def test_what_is_as_it_was_promoted_has_no_difference():
    assert not list(differences(record(), terms_of(engine(), "trend"), 500_000.0))
    assert not list(differences(record(), terms_of(engine(), "trend"), 10.0))
    # Another strategy of the book is its own affair.
    others = engine(strategies={"trend": Momentum(), "zero": Momentum(fast=3)})
    assert not list(differences(record(), terms_of(others, "trend"), 500_000.0))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strategies": {"trend": Momentum(fast=21)}}, "its parameter fast was 20, is 21"),
        ({"risk": RiskChain(checks=[CHECKS[0], {"check": "drawdown", "limit": 0.3}])},
         "the risk limit drawdown was 0.2, is 0.3"),
        ({"risk": RiskChain(checks=CHECKS[:1])}, "the risk limit drawdown was 0.2, is not there"),
        ({"execution": Execution(fee_bps=1.0)}, "the market's SIM:A taker was 0.0005, is 0.0001"),
        ({"execution": Execution(slippage_bps=9.0)}, "the execution's fixed_slippage was 0.0001"),
        ({"sizing": WeightSizing(band=0.2)}, "its "),
        ({"universe": UNIVERSE[:1]}, "the market's SIM:B tick_size was "),
        ({"universe": (UNIVERSE[0], Instrument("SIM:B", tick_size=0.25))},
         "the market's SIM:B tick_size was "),
        ({"interval": 300 * SECOND}, "the market's bars was "),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(changed, said):
    found = list(differences(record(), terms_of(engine(**changed), "trend"), 500_000.0))
    assert any(one.startswith(said) for one in found), found
    if "strategies" in changed:  # a parameter shows in the features as well, and is named first
        assert found[0].startswith(said)


def test_code_is_held_to_the_byte_and_named_first():
    terms = terms_of(engine(), "trend")
    ((module, digest),) = terms["code"].items()
    other = {**terms, "code": {module: "0" * 16}, "parameters": {}}
    found = next(differences(record(), other, 500_000.0))
    assert found == f"its code sysquant.strategies.momentum was {digest}, is {'0' * 16}"


def test_features_in_another_order_are_others():
    terms = terms_of(engine(), "trend")
    other = {**terms, "features": dict(reversed(terms["features"].items()))}
    (said,) = differences(record(), other, 500_000.0)
    assert said == "its features were fast, slow, are slow, fast"


def test_a_record_that_was_read_knows_the_order_of_features_and_checks(tmp_path):
    chain = RiskChain(checks=CHECKS[::-1])
    strategies = {"trend": MlDirection()}  # whose features do not stand in the alphabet's order
    terms = terms_of(engine(strategies=strategies, risk=chain), "trend")
    write(tmp_path, record(terms=terms))
    kept = read(tmp_path, "trend")
    assert kept is not None and not list(differences(kept, terms, 500_000.0))
    other = terms_of(engine(strategies=strategies), "trend")
    assert list(differences(kept, other, 500_000.0)) == [
        "its risk checks were drawdown, order_size, are order_size, drawdown"
    ]


def test_more_capital_than_was_promoted_is_a_difference():
    (said,) = differences(record(), terms_of(engine(), "trend"), 600_000.0)
    assert said == "its allocation was 500,000.00, is 600,000.00"


def test_a_newer_model_of_the_recipe_trades_as_promoted_and_of_another_is_refused(
    home, monkeypatch
):  # fmt: skip
    monkeypatch.setattr(promoted.compose, "words", lambda **_: ["strategy=asks"])
    published = Published(home / "data")
    loader = published.loader()
    alone = Engine(
        universe=UNIVERSE, strategies={"asks": Asks()}, risk=RiskChain(checks=CHECKS),
        execution=Execution(), interval=60 * SECOND, models=loader,
    )  # fmt: skip
    first = published.publish()
    kept = write(promoted.directory(), promoted.record_of(alone, loader, warmup=100))
    records = promoted.records_of(["asks"])
    assert records == {"asks": kept} and kept.model == first

    def start():
        promoted.refuse_others(records, alone, published.loader(), Runtime())

    start()
    newer = published.publish(-0.5, seed=7)
    assert newer != first
    start()
    settings = {"c": 0.1}
    for changed, said in {
        "labels": ("barriers", "its model's labels was quantiles, is barriers"),
        "settings": (settings, f"its model's settings was {{}}, is {settings}"),
    }.items():
        published.publish(**{changed: said[0]})
        with pytest.raises(ConfigError, match=f"not what was promoted: {re.escape(said[1])}"):
            start()
    published.publish(0.25)
    start()
    (published.registry.numbers("asks")[5] / "manifest.sig").write_bytes(b"0" * 64)
    with pytest.raises(ConfigError, match=r"newest model of asks may not be served: model asks 5"):
        start()


def test_parity_that_was_shown_anew_stands_for_the_new_engine(tmp_path, monkeypatch):
    kept = write(tmp_path, record())
    assert not list(moved(tmp_path, kept))
    new = {**promotions.environment(), "numpy": "9.9"}
    monkeypatch.setattr(promotions, "environment", lambda: new)
    assert list(moved(tmp_path, kept)) == [f"numpy was {kept.environment['numpy']}, is 9.9"]
    renew(tmp_path, kept, Proof(name="parity", failures=("no",)))
    assert list(moved(tmp_path, kept)), "what failed shows nothing"
    renew(tmp_path, kept, Proof(name="parity"))
    assert not list(moved(tmp_path, kept))
    other = write(tmp_path, msgspec.structs.replace(kept, made=2))
    assert list(moved(tmp_path, other)), "it was shown for the record before"


def test_history_that_is_too_short_for_what_was_promoted_is_refused():
    empty = Bars.empty()
    columns = {name: np.zeros(150, of.dtype) for name, of in empty.columns()}
    columns["symbol"][100:] = 1
    history = Bars(**columns)  # a hundred bars of one symbol, fifty of the other
    records = {"trend": record(warmup=50)}
    before = promoted.warmed(lambda *_: history, records, ["SIM:A", "SIM:B"])
    assert before(1, {}) is history
    before = promoted.warmed(lambda *_: history, {"trend": record(warmup=51)}, ["SIM:A", "SIM:B"])
    with pytest.raises(DataError, match="after 51 bars of history, of SIM:B there are 50"):
        before(1, {})
