"""The four checks: limit minus, at, plus; what is not a number refuses; reductions are exempt."""

import math

import numpy as np
import pytest

from sysquant import records
from sysquant.errors import ConfigError
from sysquant.risk import EXEMPT, PASS, REFUSE, RiskChain, review
from tests.market import CHECKS

SAFE = {
    "reduces": 0, "quantity": 1.0, "price": 100.0, "notional": 100.0, "allocation": 1000.0,
    "cash_after": 500.0, "short_after": 0.0, "equity": 1000.0, "drawdown": -0.1,
}  # fmt: skip


def verdict(check, limit, **changes):
    chain = RiskChain(checks=[{"check": check, "limit": limit}])
    facts = np.zeros(1, records.FACTS)
    for name, value in (SAFE | changes).items():
        facts[name] = value
    receipts = np.zeros(1, records.EFFECTS["risk_receipts"])
    refused_by = review(facts[0], chain.checks, chain.limits, receipts)
    assert bool(refused_by) == (receipts["verdict"][0] == REFUSE)
    assert receipts["limit"][0] == limit
    return receipts["verdict"][0]


@pytest.mark.parametrize(
    ("check", "limit", "fact", "passes", "refuses"),
    [
        ("order_size", 0.5, "notional", [0.0, 499.999, 500.0], [500.001, math.inf, math.nan]),
        ("cash", 0.0, "cash_after", [1.0, 0.0, -0.0, 1e308], [-1e-9, -math.inf, math.nan]),
        ("short_limit", 0.3, "short_after", [0.0, -0.0, 300.0], [300.001, math.inf, math.nan]),
        ("drawdown", 0.2, "drawdown", [0.0, -0.2], [-0.2000001, -math.inf, math.nan]),
    ],
)
def test_a_check_passes_up_to_its_limit_and_refuses_beyond(check, limit, fact, passes, refuses):
    for value in passes:
        assert verdict(check, limit, **{fact: value}) == PASS, value
    for value in refuses:
        assert verdict(check, limit, **{fact: value}) == REFUSE, value


def test_a_reducing_order_is_exempt_and_its_receipt_says_so():
    assert verdict("drawdown", 0.2, drawdown=-0.5, reduces=1) == EXEMPT


def test_what_is_not_a_number_refuses_even_a_reducing_order():
    assert verdict("drawdown", 0.2, drawdown=math.nan, reduces=1) == REFUSE


def test_all_checks_run_although_the_first_refuses():
    chain = RiskChain(checks=CHECKS)
    facts = np.zeros(1, records.FACTS)
    for name, value in (SAFE | {"notional": 1e9, "cash_after": -1.0}).items():
        facts[name] = value
    receipts = np.zeros(len(CHECKS), records.EFFECTS["risk_receipts"])
    refused_by = review(facts[0], chain.checks, chain.limits, receipts)
    assert chain.refusals(refused_by) == ["order_size", "cash"]
    assert receipts["verdict"].tolist() == [REFUSE, REFUSE, PASS, PASS]


@pytest.mark.parametrize(
    ("checks", "text"),
    [
        ([{"check": "drawdwon", "limit": 1.0}], "did you mean 'drawdown'"),
        ([{"check": "cash"}], "needs a number as limit"),
        ([{"check": "cash", "limit": math.nan}], "finite limit"),
        ([{"check": "cash", "limit": True}], "needs a number"),
        ([{"check": "cash", "limt": 1.0, "limit": 1.0}], "did you mean 'limit'"),
        ([{"check": "cash", "limit": 0.0}] * 2, "named twice"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused(checks, text):
    with pytest.raises(ConfigError, match=text):
        RiskChain(checks=checks)
