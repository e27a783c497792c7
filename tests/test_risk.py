"""The chain: all its checks run, its rooms hold, its presets are whole, nonsense is refused."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sysquant.checks import CHECKS
from sysquant.checks.chain import EXEMPT, PASS, REFUSE
from sysquant.errors import ConfigError
from sysquant.risk import MOST_CHECKS, RiskChain
from tests.conftest import REPOSITORY
from tests.test_checks import INF, checked, of_size, reviewed

CASH = {"check": "cash", "limit": 0.0}
PRESETS = sorted((REPOSITORY / "conf" / "risk").glob("*.yaml"))


def chain_of(path):
    """The chain of a preset, composed as Hydra would."""
    node = yaml.safe_load(path.read_text())
    if node.pop("defaults", None):
        node = yaml.safe_load((path.parent / "desk.yaml").read_text()) | node
    assert node.pop("_target_") == "sysquant.risk.RiskChain"
    return RiskChain(**node)


def test_all_checks_run_although_the_first_refuses():
    chain = RiskChain(
        checks=[
            {"check": "order_size", "limit": 2.0}, {"check": "stale_price", "limit": 1.0},
            CASH, {"check": "order_notional", "limit": 500.0},
        ]
    )  # fmt: skip
    facts = {"quantity": 100.0, "cash_others": -1.0}
    value, verdict, room, bits = reviewed(chain.names, chain.limits, **facts)
    assert verdict.tolist() == [REFUSE, PASS, REFUSE, REFUSE]
    assert chain.refusals(bits) == ["order_size", "cash", "order_notional"]
    assert value.tolist() == [12.5, 0.0, -12803.0, 12800.0]
    assert room.tolist() == [16.0, math.inf, 0.0, 3.90625]


def test_an_order_that_no_check_refuses_is_approved():
    names = ["drawdown", "order_notional"]
    _, verdict, _, bits = reviewed(names, [0.1, 500.0], equity=512.0, reduces=1)
    assert bits == 0 and verdict.tolist() == [EXEMPT, PASS]


def test_a_chain_may_be_as_long_as_there_are_bits():
    bits = reviewed(list(CHECKS), [math.nan] * len(CHECKS))[3]
    assert bits == 2 ** len(CHECKS) - 1 > 0
    assert len(CHECKS) <= MOST_CHECKS


def test_numbers_of_checks_are_their_places_in_the_table():
    assert [check.number for check in CHECKS.values()] == list(range(len(CHECKS)))
    chain = RiskChain(checks=[{"check": name, "limit": 1} for name in reversed(CHECKS)])
    assert chain.names == tuple(reversed(CHECKS))
    assert chain.places.tolist() == list(reversed(range(len(CHECKS))))
    assert chain.limits.dtype == np.float64


@pytest.mark.parametrize(
    ("checks", "text"),
    [
        ([{"check": "drawdwon", "limit": 1.0}], "did you mean 'drawdown'"),
        ([{"check": "cash"}], "'cash' has no limit"),
        ([{"limit": 1.0}], "pairs of check and limit"),
        (["cash"], "pairs of check and limit, was 'cash'"),
        ([{"check": "cash", "limit": math.nan}], "risk.checks: limit of 'cash' .* finite.* nan"),
        ([{"check": "cash", "limit": math.inf}], "finite"),
        ([{"check": "cash", "limit": -math.inf}], "finite"),
        ([{"check": "cash", "limit": True}], "finite.*, was True"),
        ([{"check": "cash", "limit": "0"}], "finite.*, was '0'"),
        ([{"check": "cash", "limit": None}], "finite.*, was None"),
        ([{"check": "cash", "limt": 1.0, "limit": 1.0}], "no key 'limt'; did you mean 'limit'"),
        ([CASH, CASH], "'cash' is named twice"),
        (None, "risk.checks must be a list of check and limit, was None"),
        ([], "1 to 62 checks, was 0"),
        ([CASH] * 63, "1 to 62 checks, was 63"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused(checks, text):
    with pytest.raises(ConfigError, match=text):
        RiskChain(checks=checks)


@pytest.mark.parametrize(
    "key",
    [
        {"cut": 1}, {"cut": "yes"}, {"risk_bar": "1w"}, {"risk_bar": 0}, {"window": 1},
        {"risk_bar": 1.5}, {"risk_bar": True}, {"risk_bar": None},
        {"window": 2.5}, {"window": 10**9}, {"confidence": 0.5}, {"confidence": 1.0},
        {"confidence": 97.5}, {"confidence": math.nan}, {"decay": 0.0}, {"decay": 1.0},
        {"min_history": "alow"}, {"least_history": 0}, {"least_history": 251},
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_meant_is_refused_by_name(key):
    (name,) = key
    with pytest.raises(ConfigError, match=f"risk.{name} "):
        RiskChain(checks=[CASH], **key)


def test_terms_are_what_the_keys_say():
    chain = RiskChain(checks=[CASH], cut=True, risk_bar="5m", window=99, min_history="allow")
    terms = chain.terms(60 * 10**9)
    assert (terms["cut"], terms["window"], terms["allow_short_history"]) == (1, 99, 1)
    assert terms["risk_bar_ns"] == 300 * 10**9 and terms["risk_bars_per_year"] == 365 * 288
    assert RiskChain(checks=[CASH]).terms(1)["min_history"] == 50


def test_a_risk_bar_is_never_shorter_than_a_bar():
    terms = RiskChain(checks=[CASH], risk_bar="1h").terms(86_400 * 10**9)
    assert terms["risk_bar_ns"] == 86_400 * 10**9 and terms["risk_bars_per_year"] == 365


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_approves_a_plain_small_order(path):
    chain = chain_of(path)
    capital = dict.fromkeys(["allocation", "equity", "peak", "cash_others", "day_equity"], 1e6)
    capital |= dict.fromkeys(["book_equity", "book_peak", "book_day_equity"], 1e6)
    value, _, _, bits = reviewed(chain.names, chain.limits, **capital)
    assert chain.refusals(bits) == [] and not np.isnan(value).any()


def test_the_full_preset_has_every_check():
    assert set(chain_of(REPOSITORY / "conf" / "risk" / "full.yaml").names) == set(CHECKS)


@pytest.mark.parametrize(("strict", "lax"), [("canary", "full"), ("strict", "desk")])
def test_a_strict_preset_is_never_laxer_than_another(strict, lax):
    own, other = (chain_of(REPOSITORY / "conf" / "risk" / f"{n}.yaml") for n in (strict, lax))
    limits = dict(zip(own.names, own.limits, strict=True))
    both = [(n, limit) for n, limit in zip(other.names, other.limits, strict=True) if n in limits]
    assert len(both) >= 4
    for name, limit in both:
        assert limits[name] <= limit if CHECKS[name].most else limits[name] >= limit, name


# -- rooms: what they leave is what passes

AMOUNT = st.floats(1.0, 1e6)
SOME = st.just(0.0) | AMOUNT
HELD = st.just(0.0) | AMOUNT | AMOUNT.map(lambda held: -held)
MARKET = {"price": st.floats(0.01, 1e5), "unit": st.floats(0.01, 100.0), "held": HELD}
OWN = MARKET | {"equity": AMOUNT}
NETTED = {"book_net_others": HELD, "book_held": HELD}
BELOW = SOME.map(lambda limit: -limit)


def own(facts):
    return facts["held"]


def netted(facts):
    units = facts.get("book_held", facts["held"])
    value = facts.get("book_net_others", facts.get("net_others", 0.0))
    return units + value / facts["price"] / facts["unit"]


# check -> what its room may depend on, its limit, the units that it bounds on both sides of 0.
SIZED = {
    "order_quantity": ({}, SOME, None),
    "order_notional": (MARKET, SOME, None),
    "order_size": (MARKET | {"allocation": AMOUNT}, SOME, None),
    "position_quantity": (MARKET | {"max_position": st.just(INF) | AMOUNT}, SOME, own),
    "position_notional": (MARKET, SOME, own),
    "position_weight": (OWN, SOME, own),
    "not_promoted": (OWN | {"promoted": st.just(0.0)}, SOME, own),
    "short_limit": (OWN | {"shorts_others": SOME}, SOME, None),
    "long_only": (MARKET, BELOW, None),
    "shortable": (MARKET | {"shortable": st.just(0.0)}, BELOW, None),
    "gross_exposure": (MARKET | {"gross_others": SOME}, SOME, own),
    "net_exposure": (MARKET | {"net_others": HELD}, SOME, netted),
    "leverage": (OWN | {"gross_others": SOME}, SOME, own),
    "book_gross_exposure": (MARKET | {"book_gross_others": SOME}, SOME, own),
    "book_net_exposure": (MARKET | NETTED, SOME, netted),
    "book_leverage": (MARKET | {"book_equity": AMOUNT, "book_gross_others": SOME}, SOME, own),
    "cash": (
        {"cash_others": HELD, "unit_cost": st.floats(0.01, 1e5), "fixed_cost": SOME}, SOME, None
    ),
}  # fmt: skip
# Sales bring cash; purchases cover shorts. Their room is all or nothing.
ONE_SIDED = {"cash": -1, "short_limit": 1, "long_only": 1, "shortable": 1}


@pytest.mark.parametrize("name", SIZED)
@given(data=st.data(), side=st.sampled_from([1, -1]), asked=AMOUNT)
def test_an_order_of_the_size_of_its_room_passes_and_a_larger_one_fails(name, data, side, asked):
    given_facts, limits, before = SIZED[name]
    facts = data.draw(st.fixed_dictionaries(given_facts))
    limit = data.draw(limits)
    _, verdict, room = checked(name, limit, **of_size(asked, side, facts))
    if ONE_SIDED.get(name) == side:
        assert room == (INF if verdict == PASS else 0.0)
        return
    assert math.isfinite(room)
    # A room that is a small difference of large numbers is known to as many digits as they are.
    unit = facts.get("unit_cost", facts.get("price", 64.0) * facts.get("unit", 2.0))
    parts = [facts.get(key, 0.0) for key in ("held", "book_held")]
    parts += [facts[key] / unit for key in facts if "others" in key]
    parts += [limit * facts.get(key, 1.0) / unit for key in ("equity", "book_equity", "allocation")]
    grain = 1e-9 * (room + sum(map(abs, parts)))
    within = INF if before is None else room + side * before(facts)
    if min(room, within) > grain:
        assert checked(name, limit, **of_size(room - grain, side, facts))[1] == PASS
    assert checked(name, limit, **of_size(room + grain + 1e-6, side, facts))[1] == REFUSE
