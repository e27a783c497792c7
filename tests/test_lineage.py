"""Models of a past: each serves from when its training was known; a gate judges from then on."""

import numpy as np
import pytest
from msgspec.structs import replace

from sysquant.candidate import candidate_of
from sysquant.decider import features_of
from sysquant.evidence import Limits
from sysquant.judgement import prove
from sysquant.lineage import Lineage, lineage_of, wishes_of
from sysquant.models import manifest
from sysquant.models.families import pipeline_of
from sysquant.models.labels import CLASSES
from sysquant.models.manifest import TrainedOn
from sysquant.models.registry import Registry, name_of
from sysquant.operation import Serve
from sysquant.strategies.ml_direction import MlDirection
from sysquant.times import instant
from tests.market import START
from tests.published import EVER, Published, publish
from tests.sessions import forked
from tests.test_check import said
from tests.test_judgement import HOUR, PLANTED, UNIVERSE
from tests.test_models_swap import Asks

__all__ = ["forked"]  # fixtures


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "registry")


def trained(known):
    return TrainedOn(1, 2, known, 600, "hash")


def manifests(published):
    return published.loader().past("asks")[0]


def test_of_the_models_known_by_then_the_newest_serves_until_it_expires(published):
    published.publish(trained=trained(100), expires=400)
    (first,) = manifests(published)
    second = replace(first, number=2, trained=trained(200), expires=300)
    early = replace(first, number=3, trained=trained(150), expires=180)
    names = [name_of(one) for one in (first, second, early)]
    found = [(at, wish.model) for at, wish in wishes_of("asks", [second, early, first])]
    assert found == [
        (100, names[0]), (150, names[2]), (180, names[0]), (200, names[1]), (300, names[0]),
        (400, ""),
    ]  # fmt: skip
    assert list(wishes_of("asks", [])) == []


@pytest.mark.parametrize(
    ("start", "end", "since"),
    [
        (0, 50, None), (0, 100, None), (0, 101, 100), (150, 400, 150), (200, 400, 250),
        (310, 400, None),
    ],
)  # fmt: skip
def test_a_past_is_judged_from_the_first_moment_that_a_model_serves(start, end, since):
    moments = [(100, "a"), (200, ""), (250, "b"), (300, "")]
    asked = Lineage("b", tuple((at, Serve("asks", name)) for at, name in moments), ())
    assert asked.since(start, end) == since


def test_models_that_may_not_be_served_are_left_out_and_told(published, tmp_path):
    first = published.publish(trained=trained(START), expires=START + 1)  # long over
    other = Published(tmp_path / "other")
    other.registry = published.registry
    stranger = other.publish(-1.0, trained=trained(START))
    harmed = published.publish(-2.0, trained=trained(START))
    (published.registry.numbers("asks")[3] / "model.skops").write_bytes(b"")
    made = published.publish(0.5, trained=trained(START), labels="barriers")
    asked = lineage_of(published.loader(), "asks", EVER)
    assert asked.newest == made and asked.wishes[0] == (START, Serve("asks", made))
    told = "\n".join(asked.notes)
    assert "model asks 2 is refused: its signature is not that of models.pub" in told
    assert f"{first} was made otherwise than {made}: its labels was quantiles, is barriers" in told
    assert f"{harmed} was made otherwise" in told and stranger not in told
    same = published.publish(0.7, trained=trained(START + 9), labels="barriers")
    (published.registry.numbers("asks")[5] / "model.skops").write_bytes(b"")
    asked = lineage_of(published.loader(), "asks", EVER)
    assert asked.newest == made and same not in {wish.model for _, wish in asked.wishes}
    assert any("model asks 5 is refused: its model.skops is not what was" in n for n in asked.notes)


def test_one_that_expired_serves_what_is_past_and_a_strategy_without_models_none(published):
    name = published.publish(trained=trained(100), expires=200)
    loader = published.loader()
    asked = lineage_of(loader, "asks", EVER)
    assert asked.wishes == ((100, Serve("asks", name)), (200, Serve("asks", "")))
    assert asked.newest == name and "from 1970-01-01T00:00:00Z on" in asked.notes[0]
    assert lineage_of(loader, "flip", EVER) == Lineage("", (), ())
    (note,) = lineage_of(loader, "asks", 100).notes
    assert note.startswith(f"asks asks no model: what {name} was trained on was known by 1970")


# -- what is judged


class Trend:
    """Says up where the close rose, and remembers what it was asked."""

    def proba(self, f):
        up = np.clip(0.5 + 0.4 * np.sign(f["change"]), 0, 1)
        return {"up": up, "down": 1 - up, "flat": np.zeros(len(up))}


@pytest.fixture(autouse=True)
def own_ledger(home):
    return home


def test_nothing_is_judged_before_the_first_model_and_its_training_answers_for_the_rest():
    half = int(PLANTED.ts[len(PLANTED) // 2])
    chosen = candidate_of(Asks(), PLANTED, UNIVERSE, interval="1h", models=[(half, Trend())])
    assert int(chosen.market.ts[0]) == half + HOUR and int(chosen.history.ts[-1]) == half
    proof = prove(chosen, Limits(periods=80))
    signals = chosen.result.arrow("signals")["ts"].cast("int64").to_numpy()
    assert signals.min() == half + HOUR, "its features are warm by then"
    assert chosen.result.tally.fills > 0
    assert proof.figures["returns"] < 80 <= len(PLANTED) // 24
    (short,) = [one for one in proof.failures if "at least 80 are asked for" in one]
    assert f"known since {np.datetime64(half, 'ns').astype('M8[s]')}Z alone" in short
    assert "runners/retrain.py end=" in short and "runners/schedule.py" in short
    assert proof.figures["plateau"] is None and proof.figures["overfitting"] is None
    assert proof.figures["walk_returns"] > 0
    assert any("are those of its training" in note for note in proof.notes)
    costs = [proof.figures[f"costs_{n}x_return"] for n in (1, 2, 3)]
    assert costs == sorted(costs, reverse=True) and costs[0] != costs[2], "models serve there, too"


def test_a_strategy_whose_models_know_all_of_the_past_is_told_the_ways_out():
    late = int(PLANTED.ts[-1])
    for models in ([], [(late + HOUR, Trend())]):
        bare = candidate_of(Asks(), PLANTED, UNIVERSE, interval="1h")
        proof = prove(bare, Limits())
        (never,) = [one for one in proof.failures if one.startswith("it never traded")]
        assert "none is known that was not trained on these bars" in never, models
        assert "end=" in never and "walk_forward(..., retrain=" in never


# -- as a person asks


WORDS = [
    "strategy=ml_direction", "feed=synthetic", "feed.length_s=10800", "runtime.warmup_bars=0",
    "promotion.statistics.periods=3",
]  # fmt: skip


def model_known(home, moment):
    """A small model of `ml_direction` that says up after rises; its name."""
    features = tuple(features_of(MlDirection()))
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, len(features)))
    y = np.array(CLASSES)[np.digitize(x[:, 0] + rng.normal(0, 0.3, 300), [-0.1, 0.1])]
    model = pipeline_of("logistic_regression").fit(x, y)
    return publish(
        Registry(home / "data" / "models"), manifest.signing_key(home / "data" / "keys"), model, x,
        lineage="ml_direction", strategy=repr(MlDirection()), features=features,
        trained=trained(instant(moment)),
    )  # fmt: skip


@pytest.mark.timeout(240)
def test_statistics_and_risk_serve_a_model_from_when_its_training_was_known(forked, home):
    late = model_known(home, "2026-01-01T12:00:00")
    for word, failure in {
        "statistics": "failed: it never traded, so nothing can be said of it: it asks a model, and",
        "risk": "failed: the strategy made no order in the past",
    }.items():
        code, out, err = said(forked("check", word, *WORDS))
        assert (code, err) == (1, "") and failure in out, out
        known = f"  ml_direction asks no model: what {late} was trained on was known by 2026-01-01T"
        assert known in out
    name = model_known(home, "2026-01-01T02:00:00")
    for word in ("statistics", "risk"):
        code, out, err = said(forked("check", word, *WORDS))
        since = "from 2026-01-01T02:00:00Z on, when what it was trained on was known"
        assert err == "" and f"  ml_direction asks model {name} {since}" in out, out
        assert "never traded" not in out and "made no order" not in out


@pytest.mark.timeout(240)
def test_causality_asks_that_some_bars_come_after_what_a_model_was_trained_on(forked, home):
    words = [*WORDS[:4], "promotion.causality.cuts=4"]
    name = model_known(home, "2026-01-01T02:00:00")
    code, out, err = said(forked("check", "causality", *words))
    assert (code, err) == (0, ""), out
    assert f"  ml_direction asks model {name} from 2026-01-01T02:00:00Z on" in out
    late = model_known(home, "2026-01-01T12:00:00")
    _, out, _ = said(forked("check", "causality", *words))
    assert f"asks model {name} from" in out and f"model {late} is looked at on all bars" in out
