"""Whether a chain bounds a strategy and does not bend it: told of backtests, and judged."""

import math
from dataclasses import fields
from dataclasses import replace as changed

import numpy as np
import pandas as pd
import pytest
import yaml

from sysquant.errors import ConfigError
from sysquant.execution import Execution
from sysquant.headroom import Bounds, judge, measure, tight_of
from sysquant.receipts import Reviews
from sysquant.risk import RiskChain
from tests.conftest import REPOSITORY
from tests.market import Flip, Hold
from tests.test_result import CLOSES, hourly, hours

CHECKS = {"order_size": 1.2, "cash": 0.0, "stale_price": 60.0, "drawdown": 0.5, "leverage": 50.0}
FREE = Execution(latency_ms=0.0, latency_sigma=0.0, slippage_bps=0.0, fee_bps=0.0)
ANY = {"cut": 1.0, "worst_day": 1.0, "drawdown": 1.0}


def ran(strategy=None, own=None, **limits):
    """Sixty days of hours, through checks with these limits; None for one that is not there."""
    wanted = {**CHECKS, **limits}
    checks = [{"check": n, "limit": limit} for n, limit in wanted.items() if limit is not None]
    risk = RiskChain(checks=checks)
    return hourly(strategy or Flip(weight=0.9), own, risk=risk, execution=FREE)


@pytest.fixture(scope="module")
def result():
    """Orders of up to twice the equity, of which the larger ones are cut."""
    return ran()


@pytest.fixture(scope="module")
def seen(result):
    return measure(result)


def use(seen, check):
    (found,) = [one for one in seen.uses if one.check == check]
    return found


def said(seen, **bounds):
    return judge(seen, Bounds(**{**ANY, **bounds}))


def test_days_and_drawdown_are_those_of_the_equity(result, seen):
    equity = result.equity
    closes = equity.groupby((equity.index - pd.Timedelta(1, "ns")).date).last()
    days = closes / closes.shift(fill_value=equity.iloc[0]) - 1.0
    assert len(days) == 60
    assert seen.worst_day == pytest.approx(days.min()) and seen.worst_date == str(days.idxmin())
    below = equity / equity.cummax() - 1.0
    assert seen.drawdown == pytest.approx(below.min()) and seen.drawdown < seen.worst_day < 0.0
    peaks = below[below == 0.0].index.union([equity.index[-1]])
    assert seen.under_water_days == pytest.approx(np.diff(peaks).max() / np.timedelta64(1, "D"))
    assert seen.exposure == pytest.approx(result.exposure["gross"].max())


def test_orders_are_counted_by_the_check_that_refused_or_cut_them(result, seen):
    orders, receipts = result.table("orders"), result.table("risk_receipts")
    refused = orders[orders["status"] == "refused"]
    cut = orders[(orders["status"] == "approved") & (orders["quantity"] != orders["asked"])]
    assert (seen.orders, seen.refused, seen.cut) == (len(orders), len(refused), len(cut))
    assert seen.cut > 100
    first = receipts[(receipts["attempt"] == 1) & (receipts["verdict"] == "refuse")]
    least = first.sort_values("room").groupby("order_no").first()["check"]
    cutters = least[least.index.isin(cut["order_no"])].value_counts()
    assert {one.check: one.cut for one in seen.uses if one.cut} == dict(cutters)
    asked = receipts[receipts["attempt"] == 1].groupby("check")["value"].max()
    assert use(seen, "order_size").extreme == asked["order_size"] > 1.2
    assert use(seen, "order_size").used == asked["order_size"] / 1.2
    lowest = receipts[receipts["attempt"] == 1].groupby("check")["value"].min()
    assert use(seen, "cash").extreme == lowest["cash"]
    assert math.isnan(use(seen, "cash").used) and math.isnan(use(seen, "stale_price").used)


def test_the_largest_order_is_held_against_the_volume_of_its_bar(result, seen):
    orders = result.table("orders").query("status == 'approved'")
    assert seen.of_volume == pytest.approx(orders["quantity"].abs().max() / 1e6)
    nothing = measure(ran(own=hours(CLOSES[:200], volume=0.0)))
    assert math.isnan(nothing.of_volume)
    assert said(nothing).figures["order_of_volume"] is None


def test_a_drawdown_between_two_orders_counts():
    held = measure(ran(Hold(weight=0.9), hours(np.linspace(100.0, 90.0, 100))))
    assert use(held, "drawdown").extreme == -held.drawdown > 0.08
    assert held.under_water_days == pytest.approx(98 / 24, abs=0.1)


def test_a_limit_that_nothing_comes_near_is_told_with_one_that_is_tight(seen):
    loose, bounds = use(seen, "leverage"), Bounds(**ANY)
    assert loose.extreme == pytest.approx(0.9, abs=0.1)
    tight = tight_of(loose, bounds)
    assert tight == 2.0 * loose.extreme
    proof = judge(seen, bounds)
    assert f"too loose: leverage 50 protects nothing, the strategy came to {loose.extreme:g}; " in (
        "\n".join(proof.notes)
    )
    assert proof.passes and proof.figures["leverage.tight"] == tight
    assert proof.figures["order_size.tight"] is None
    again = measure(ran(leverage=tight))
    assert math.isnan(tight_of(use(again, "leverage"), bounds))
    assert (again.refused, again.cut) == (seen.refused, seen.cut)
    assert math.isnan(tight_of(loose, Bounds(loose=100.0)))


def test_a_chain_that_refuses_much_fails_by_the_check_that_does(seen):
    strict = measure(ran(drawdown=0.01))
    share = use(strict, "drawdown").refused / strict.orders
    assert 0.05 < share < 1.0 and strict.refused == use(strict, "drawdown").refused
    (failure,) = said(strict).failures
    assert failure.startswith(f"drawdown refuses {strict.refused:,} of {strict.orders:,} orders")
    assert said(strict, refused=share).passes
    (failure,) = said(seen, cut=0.1).failures
    assert failure.startswith(f"the chain cuts {seen.cut:,} of {seen.orders:,} orders")
    # Each of two refuses few, both together many.
    few = strict._replace(uses=tuple(one._replace(refused=one.refused // 2) for one in strict.uses))
    (failure,) = said(few, refused=share * 0.75).failures
    assert failure.startswith(f"the chain refuses {strict.refused:,} of")


@pytest.mark.parametrize(
    ("limits", "failure"),
    [
        ({"drawdown": None}, "no check of the chain stops losses by 0.5 (it has none): add one of"),
        ({"drawdown": 0.6}, "no check of the chain stops losses by 0.5 (it has drawdown 0.6)"),
        ({"order_size": None}, "no check of the chain bounds the size of an order: add one of"),
        ({"cash": None, "leverage": None}, "no check of the chain bounds positions or exposure"),
    ],
)
def test_a_chain_without_a_protection_fails(limits, failure):
    short = measure(ran(own=hours(CLOSES[:100]), **limits))
    (found,) = said(short).failures
    assert found.startswith(failure)


def test_what_is_only_advised_is_told():
    without = said(measure(ran(own=hours(CLOSES[:100]), stale_price=None)))
    assert without.passes
    assert without.notes[-1] == "nothing in the chain looks at stale prices: stale_price would"


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("worst_day", "the worst day, 20"),
        ("drawdown", "the drawdown was "),
        ("under_water_days", "it was under water for "),
    ],
)
def test_a_run_that_was_worse_than_is_borne_fails(seen, name, failure):
    shown = abs(getattr(seen, name))
    (found,) = said(seen, **{name: shown * 0.99}).failures
    assert found.startswith(failure)
    assert said(seen, **{name: shown}).passes


def test_a_strategy_that_never_trades_shows_nothing():
    proof = said(measure(ran(Hold(weight=0.0), hours(CLOSES[:100]))))
    assert [one[:46] for one in proof.failures] == [
        "the strategy made no order in the past, so not"
    ]
    assert proof.figures["order_size.extreme"] is None
    assert proof.figures["drawdown"] == 0.0 == proof.figures["refused_share"]


def test_figures_are_plain_and_finite(seen):
    figures = said(seen).figures
    assert figures["orders"] == seen.orders and figures["cut_share"] == seen.cut / seen.orders
    assert {"drawdown.limit", "drawdown.used", "drawdown.refused"} <= figures.keys()
    for name, value in figures.items():
        assert not isinstance(value, float) or math.isfinite(value), name
        assert type(value) in (int, float, str, type(None)), name


def test_reviews_stand_beside_their_orders(result):
    reviews = Reviews.of(result.effects, result.engine.risk)
    for rows in (reviews.first, reviews.last):
        assert (rows["order_no"] == reviews.orders["order_no"]).all()
    assert (reviews.first["attempt"] == 1).all()
    assert ((reviews.last["attempt"] == 2) == reviews.is_cut).all()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"refused": 2.0}, "Bounds.refused must be >= 0 and <= 1, was 2.0"),
        ({"worst_day": -0.1}, "Bounds.worst_day must be >= 0 and <= 1"),
        ({"under_water_days": -1}, "Bounds.under_water_days must be >= 0"),
        ({"tight": 0.5}, "Bounds.tight must be >= 1"),
        ({"loose": 2.0}, "Bounds.loose must be > 2"),
        ({"losses": ("drawdwon",)}, "Bounds.losses does not know 'drawdwon'; did you mean"),
        ({"needed": {"size": ["order_szie"]}}, "Bounds.needed does not know 'order_szie'"),
        ({"advised": ["stale_price"]}, "Bounds.advised must be what is protected"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(keys, text):
    with pytest.raises(ConfigError, match=text):
        changed(Bounds(), **keys)


def test_the_configuration_asks_what_is_asked_without_it():
    text = (REPOSITORY / "conf" / "promotion" / "default.yaml").read_text()
    keys = yaml.safe_load(text)["risk"]
    assert keys.pop("_target_") == "sysquant.headroom.Bounds"
    assert list(keys) == [field.name for field in fields(Bounds)]
    assert Bounds(**{**keys, "losses": tuple(keys["losses"])}) == Bounds()


def test_the_bounds_as_they_stand_are_no_bar_to_a_good_strategy_that_is_only_unlucky():
    # Three years of days with a true Sharpe ratio of 3, of a usual volatility.
    days, many, year = 1_096, 2_000, 365.25
    mean, deviation = 3.0 * 0.2 / year, 0.2 / math.sqrt(year)
    moves = np.log1p(np.random.default_rng(1).normal(mean, deviation, (many, days)))
    equity = np.concatenate([np.zeros((many, 1)), np.cumsum(moves, axis=1)], axis=1)
    peaks, place = np.maximum.accumulate(equity, axis=1), np.arange(days + 1)
    at_peak = np.maximum.accumulate(np.where(equity >= peaks, place, 0), axis=1)
    longest, lost = (place - at_peak).max(axis=1), 1.0 - np.exp((equity - peaks).min(axis=1))
    bounds = Bounds()
    refused = (longest > bounds.under_water_days) | (lost > bounds.drawdown)
    refused |= -np.expm1(moves.min(axis=1)) > bounds.worst_day
    assert refused.mean() < 0.02
    assert (longest > 180).mean() > 0.1, "a shorter bound refuses by luck"
