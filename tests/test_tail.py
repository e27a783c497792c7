"""The tail of the book: its returns, the worst of its scenarios, and the checks that read them."""

import math

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from sysquant import records, tail
from sysquant.checks import CHECKS
from sysquant.checks.chain import PASS, REFUSE
from sysquant.risk import RiskChain
from tests.test_checks import INF, NAN, checked, of_size, reviewed

DECAY, WINDOW, SYMBOLS, CONFIDENCE = 0.9, 7, 3, 0.7


@numba.njit
def append(returns, tails, covariance, clock, markets, terms):
    tail.append(returns, tails, covariance, clock[0], markets, terms[0])


@numba.njit
def keep_all(lowest, ring, values, sign, confidence):
    for taken in range(len(values)):
        place = taken % len(ring)
        oldest = ring[place]
        ring[place] = values[taken]
        tail.keep_lowest(lowest, ring, place, sign, taken, oldest, confidence)


@numba.njit
def worst_first(base, moves, n, k, quantity):
    tail.worst_first(base, moves, n, k, quantity)


@numba.njit
def mean_loss(base, moves, first, k, quantity):
    return tail.mean_loss(base, moves, first, k, quantity)


@numba.njit
def largest_quantity(a, b, c, most):
    return tail.largest_quantity(a, b, c, most)


@numba.njit
def correlation(own, rest, n):
    return tail.correlation(own, rest, n)


# -- risk bars


class Past:
    """A ring of returns, and the state beside it."""

    def __init__(self):
        self.returns = np.zeros((WINDOW, SYMBOLS))
        self.tails = np.zeros((SYMBOLS, 2, tail.worst_count(CONFIDENCE, WINDOW)))
        self.covariance = np.zeros((SYMBOLS, SYMBOLS))
        self.clock = np.zeros(1, records.CLOCK)
        self.markets = np.zeros(SYMBOLS, records.MARKET)
        self.terms = np.zeros(1, records.TERMS)
        self.terms["window"], self.terms["decay"] = WINDOW, DECAY
        self.terms["confidence"] = CONFIDENCE

    def close(self, *prices):
        self.markets["price"] = prices
        append(self.returns, self.tails, self.covariance, self.clock, self.markets, self.terms)

    @property
    def rows(self):
        return int(self.clock["returns"][0])


def prices_of(seed, count):
    rng = np.random.default_rng(seed)
    return [100, 1, 0.01] * np.exp(np.cumsum(rng.normal(0, 0.02, (count, SYMBOLS)), axis=0))


@pytest.mark.parametrize("count", [2, 5, 30])
def test_the_ring_holds_the_newest_simple_returns(count):
    past, prices = Past(), prices_of(1, count)
    for row in prices:
        past.close(*row)
    expected = prices[1:] / prices[:-1] - 1
    assert past.rows == count - 1 and past.markets["returns"].tolist() == [count - 1] * SYMBOLS
    for back in range(min(WINDOW, count - 1)):
        newest = past.returns[(past.rows - 1 - back) % WINDOW]
        assert newest.tolist() == expected[-1 - back].tolist()
    known = min(WINDOW, count - 1)
    for side, sign in enumerate((1.0, -1.0)):
        found = past.tails[:, side, : tail.worst_count(CONFIDENCE, known)]
        rising = np.sort(sign * expected[-known:], axis=0).T
        assert found.tolist() == rising[:, : found.shape[1]].tolist()


@given(
    st.integers(2, 12),
    st.lists(st.sampled_from([-1.0, 0.0, -0.0, 2.0, INF, NAN]) | st.floats(-9, 9), max_size=50),
    st.sampled_from([0.6, 0.8, 0.97]),
    st.sampled_from([1.0, -1.0]),
)
def test_the_tail_of_a_ring_is_that_of_its_values_sorted(window, values, confidence, sign):
    lowest = np.zeros(tail.worst_count(confidence, window))
    keep_all(lowest, np.zeros(window), np.array(values, float), sign, confidence)
    known = sorted(sign * v if math.isfinite(v) else INF for v in values[-window:])
    if known:
        worst = tail.worst_count(confidence, len(known))
        assert lowest[:worst].tolist() == known[:worst]


@pytest.mark.parametrize(("n", "worst"), [(0, 1), (1, 1), (40, 1), (41, 2), (250, 7)])
def test_the_tail_is_a_share_of_the_returns_and_one_at_least(n, worst):
    assert tail.worst_count(0.975, n) == worst


@pytest.mark.parametrize("count", [2, 5, 30])
def test_the_covariance_is_the_weighted_mean_of_products(count):
    past, prices = Past(), prices_of(2, count)
    for row in prices:
        past.close(*row)
    moves = prices[1:] / prices[:-1] - 1
    weights = DECAY ** np.arange(len(moves))[::-1]
    expected = np.einsum("t,ti,tj->ij", weights / weights.sum(), moves, moves)
    read = past.covariance / past.clock["covariance_weight"]
    np.testing.assert_allclose(read, expected, rtol=1e-12)
    assert (past.covariance == past.covariance.T).all()


def test_the_first_risk_bar_only_takes_the_prices():
    past = Past()
    past.close(100.0, 50.0, 0.0)
    assert past.rows == 0 and not past.covariance.any()
    assert past.markets["risk_price"].tolist() == [100.0, 50.0, 0.0]


@pytest.mark.parametrize("nothing", [0.0, NAN])
def test_a_symbol_without_both_prices_has_return_0_and_does_not_know_the_row(nothing):
    past = Past()
    past.close(100.0, 50.0, nothing)
    past.close(110.0, 50.0, 20.0)
    past.close(110.0, 55.0, 21.0)
    assert past.returns[0].tolist() == [110 / 100 - 1, 0.0, 0.0]
    assert past.returns[1].tolist() == [0.0, 55 / 50 - 1, 21 / 20 - 1]
    assert past.markets["returns"].tolist() == [2, 2, 1]
    assert np.isfinite(past.covariance).all()


# -- the worst scenarios

PNL = st.floats(-1e6, 1e6)


@st.composite
def scenarios(draw):
    n = draw(st.integers(1, 40))
    base = draw(st.lists(PNL, min_size=n, max_size=n))
    moves = draw(st.lists(st.sampled_from([0.0, 1.0, -1.0]) | PNL, min_size=n, max_size=n))
    return np.array(base), np.array(moves), draw(st.integers(1, n)), draw(PNL)


@given(scenarios(), st.integers(0, 3))
def test_the_worst_scenarios_stand_first_and_none_is_lost(drawn, more):
    base, moves, k, quantity = drawn
    n = len(base)
    pairs = sorted(zip(base, moves, strict=True))
    expected = np.sort(base + quantity * moves)
    base, moves = (np.concatenate([part, np.full(more, -1e300)]) for part in (base, moves))
    worst_first(base, moves, n, k, quantity)
    assert (base[:k] + quantity * moves[:k]).tolist() == expected[:k].tolist()
    assert sorted(zip(base[:n], moves[:n], strict=True)) == pairs
    assert (base[n:] == -1e300).all(), "what lies beyond n is left alone"
    loss = mean_loss(base, moves, k - 1, k, quantity)
    assert loss == max(0.0, -expected[k - 1])
    shortfall = mean_loss(base, moves, 0, k, quantity)
    assert shortfall == pytest.approx(max(0.0, -expected[:k].mean()), rel=1e-9, abs=1e-6)


@given(st.integers(1, 12), st.integers(0, 11), st.data())
def test_a_scenario_that_is_no_number_is_met_by_every_reader(n, place, data):
    base, moves = np.arange(n, dtype=float), np.zeros(n)
    base[place % n] = NAN
    k = data.draw(st.integers(1, n))
    worst_first(base, moves, n, k, 1.0)
    assert math.isnan(mean_loss(base, moves, k - 1, k, 1.0))
    assert math.isnan(mean_loss(base, moves, 0, k, 1.0))


def test_quantiles_of_a_long_history_are_those_of_numpy():
    rng = np.random.default_rng(3)
    base, moves = rng.standard_t(3, 250) * 1000, rng.standard_t(3, 250)
    pnl = np.sort(base - 50.0 * moves)
    worst_first(base, moves, 250, 7, -50.0)
    assert mean_loss(base, moves, 6, 7, -50.0) == -pnl[6]
    assert mean_loss(base, moves, 0, 7, -50.0) == pytest.approx(-pnl[:7].mean(), rel=1e-14)


# -- by covariance


def test_normal_quantiles_are_those_of_scipy():
    for confidence in (0.9, 0.975, 0.999):
        terms = RiskChain(checks=[{"check": "cash", "limit": 0}], confidence=confidence).terms(1)
        z = stats.norm.ppf(confidence)
        assert terms["z_var"] == pytest.approx(z, rel=1e-12)
        assert terms["z_es"] == pytest.approx(stats.norm.pdf(z) / (1 - confidence), rel=1e-12)


def test_the_variance_of_the_book_is_that_of_its_exposures():
    rng = np.random.default_rng(4)
    factors = rng.normal(0, 0.02, (3, 3))
    covariance = factors @ factors.T
    exposures, price, quantity = np.array([2e3, -1e3, 5e2]), 64.0, -10.0
    after = exposures + np.array([quantity * price, 0, 0])
    sigma = math.sqrt(after @ covariance @ after)
    facts = {
        "variance_a": exposures @ covariance @ exposures,
        "variance_b": price * (covariance @ exposures)[0],
        "variance_c": price**2 * covariance[0, 0], "z_var": 1.96, "z_es": 2.34,
        "risk_bars_per_year": 8760.0, "quantity": quantity, "side": -1,
    }  # fmt: skip
    scales = {
        "covariance_value_at_risk": 1.96, "covariance_expected_shortfall": 2.34,
        "volatility": math.sqrt(8760),
    }  # fmt: skip
    for name, scale in scales.items():
        assert checked(name, 1.0, **facts)[0] == pytest.approx(scale * sigma / 4096, rel=1e-9)


def test_a_variance_that_rounding_made_negative_is_none():
    assert checked("volatility", 0.0, variance_a=-1e-9)[:2] == (0.0, PASS)
    assert checked("volatility", 1.0, variance_a=0.25)[0] == 2 * 0.5 / 4096


@pytest.mark.parametrize("name", ["covariance_value_at_risk", "volatility"])
@given(
    own=st.floats(0.1, 100.0), rest=st.floats(0.0, 1e4), together=st.floats(-1.0, 1.0),
    side=st.sampled_from([1, -1]), limit=st.floats(0.001, 1.0),
)  # fmt: skip
@example(own=1.0, rest=1000.0, together=-1.0, side=1, limit=0.001)
def test_a_quadratic_room_is_the_largest_size_that_passes(name, own, rest, together, side, limit):
    a, b, c = rest**2, rest * own * together, own**2
    facts = {"variance_a": a, "variance_b": b, "variance_c": c}
    room = checked(name, limit, **of_size(1.0, side, facts))[2]
    assert math.isfinite(room)
    grain = 1e-6 * (room + 1.0 + rest / own)
    if room > grain and checked(name, limit, **of_size(0.0, side, facts))[1] == PASS:
        assert checked(name, limit, **of_size(room - grain, side, facts))[1] == PASS
    assert checked(name, limit, **of_size(room + grain, side, facts))[1] == REFUSE


def test_a_hedge_that_brings_the_book_within_its_limit_has_room_up_to_the_far_side():
    facts = {"variance_a": 2048.0**2, "variance_b": -2048.0, "variance_c": 1.0}
    value, verdict, room = checked("volatility", 0.5, **of_size(1024.0, 1, facts))
    assert (value, verdict, room) == (0.5, PASS, 3072.0)
    assert checked("volatility", 0.5, **of_size(1024.0, -1, facts))[2] == 0.0


@pytest.mark.parametrize("place", range(4))
def test_a_quadratic_of_what_is_no_number_leaves_no_room(place):
    numbers = [1.0, -1.0, 0.0, 4.0]
    numbers[place] = NAN
    assert not largest_quantity(*numbers) > 0.0


# -- by history


@pytest.mark.parametrize("name", ["value_at_risk", "expected_shortfall"])
@pytest.mark.parametrize("side", [1, -1])
def test_a_historical_room_is_found_by_halving(name, side):
    moves = np.array([-3.0, -2.0, -2.5, -1.0, -0.5, -4.0, -2.0, -3.5]) * side
    facts = {"base": [-10.0] * 8, "moves": moves}
    assert checked(name, 0.5, **of_size(500.0, side, facts))[2] == 500.0
    value, verdict, room = checked(name, 0.5, **of_size(2000.0, side, facts))
    per_unit = 3.5 if name == "value_at_risk" else 3.75
    assert verdict == REFUSE and value == (10 + 2000 * per_unit) / 4096
    assert room == pytest.approx((0.5 * 4096 - 10) / per_unit, rel=1e-9)
    assert checked(name, 0.5, **of_size(room, side, facts))[1] == PASS
    assert checked(name, 0.5, **of_size(room + 1e-6, side, facts))[1] == REFUSE
    assert checked(name, 0.001, **of_size(2000.0, side, facts))[2] == 0.0


def test_both_historical_checks_read_the_same_scenarios_in_any_order():
    names = ["value_at_risk", "expected_shortfall"]
    base = [-5.0, 9.0, -400.0, 3.0, -7.0, 2.0, -800.0, 1.0]
    expected = [400 / 4096, 600 / 4096]
    for limit in (1.0, 0.01):  # the second refuses, and searches for a room in between
        assert reviewed(names, [limit] * 2, base=base)[0].tolist() == expected
    assert reviewed(names[::-1], [0.01] * 2, base=base)[0].tolist() == expected[::-1]


@pytest.mark.parametrize("name", ["value_at_risk", "expected_shortfall"])
def test_the_tail_refuses_what_it_does_not_know_and_reads_nothing_as_no_loss(name):
    assert checked(name, 1.0, scenarios=0.0)[:2] == (0.0, PASS)
    for facts in (
        {"scenarios": NAN}, {"worst_scenarios": NAN}, {"scenarios": 9.0}, {"scenarios": -1.0},
        {"worst_scenarios": 9.0}, {"worst_scenarios": 0.0},
    ):  # fmt: skip
        value, verdict, room = checked(name, 1.0, **facts)
        assert math.isnan(value) and (verdict, room) == (REFUSE, 0.0), facts
    for place in range(8):
        base = [0.0] * 8
        base[place] = NAN
        assert checked(name, 1.0, base=base)[1:] == (REFUSE, 0.0), place
    assert checked(name, 1.0, base=[0.0] * 6 + [-INF] * 2) == (INF, REFUSE, 0.0)


@pytest.mark.parametrize(("worst", "known"), [(1.0, 1.0), (1.0, 8.0), (8.0, 8.0)])
def test_the_worst_may_be_one_or_all_of_those_known(worst, known):
    base = [-float(2**place) for place in range(8)]
    facts = {"base": base, "worst_scenarios": worst, "scenarios": known}
    losses = sorted((-pnl for pnl in base[: int(known)]), reverse=True)[: int(worst)]
    assert checked("value_at_risk", 1.0, **facts)[0] == losses[-1] / 4096
    assert checked("expected_shortfall", 1.0, **facts)[0] == sum(losses) / worst / 4096


def test_a_limit_of_zero_leaves_room_up_to_where_a_loss_begins():
    hedged = {"base": [12.0] * 8, "moves": [-3.0] * 8}
    _, verdict, room = checked("value_at_risk", 0.0, **of_size(8.0, 1, hedged))
    assert verdict == REFUSE and room == pytest.approx(4.0, rel=1e-9)
    still = {"variance_a": 0.0, "variance_c": 4.0}
    assert checked("volatility", 0.0, **of_size(0.0, 1, still)) == (0.0, PASS, 0.0)
    hedge = {"variance_a": 4.0, "variance_b": -2.0, "variance_c": 1.0, "book_equity": 0.5}
    assert checked("volatility", 0.0, **of_size(2.0, 1, hedge)) == (0.0, PASS, 2.0)


def test_tail_checks_together_read_what_each_reads_alone():
    rng = np.random.default_rng(5)
    facts = {"base": rng.normal(0, 100, 8), "moves": rng.normal(0, 1, 8), "quantity": 30.0}
    pnl = np.sort(facts["base"] + 30.0 * facts["moves"])
    names = [name for name in CHECKS if name in ("value_at_risk", "expected_shortfall", "cash")]
    value = dict(zip(names, reviewed(names, [0.0] * 3, **facts)[0], strict=True))
    assert value["value_at_risk"] == -pnl[1] / 4096
    assert value["expected_shortfall"] == pytest.approx(-pnl[:2].mean() / 4096, rel=1e-14)


# -- correlation


@given(st.integers(3, 250), st.floats(-1e3, 1e3), st.integers(0, 100))
def test_correlation_is_that_of_scipy(n, together, seed):
    rng = np.random.default_rng(seed)
    rest = rng.normal(5, 100, n)
    own = together * rest + rng.normal(-3, 100, n)
    longer = [np.append(series, [NAN, INF]) for series in (own, rest)]
    expected = stats.pearsonr(own, rest).statistic
    assert correlation(*longer, n) == pytest.approx(expected, abs=1e-12)


def test_who_moves_alike_correlates_fully():
    rest = np.random.default_rng(6).normal(0, 1, 99)
    assert correlation(2.0 * rest, rest, 99) == pytest.approx(1.0, abs=1e-15)
    assert correlation(-3.0 * rest, rest, 99) == pytest.approx(-1.0, abs=1e-15)


@pytest.mark.parametrize("still", [0.0, 0.1, -1e9])
def test_what_does_not_vary_correlates_with_nothing(still):
    moving = np.random.default_rng(7).normal(0, 1, 99)
    for own, rest in ((moving, np.full(99, still)), (np.full(99, still), moving)):
        assert correlation(own, rest, 99) == 0.0
    assert correlation(moving, moving, 0) == correlation(moving, moving, 1) == 0.0


def test_what_rounding_leaves_of_a_difference_does_not_vary():
    own = np.random.default_rng(8).normal(0, 1e6, 99)
    rest = (own + own * 0.1) - own * 0.1 - own
    assert rest.any() and correlation(own, rest, 99) == 0.0


def test_correlation_with_what_is_no_number_is_none():
    own, rest = np.arange(9.0), np.ones(9)
    for series in (own, rest):
        kept = series[4]
        for bad in (NAN, INF, -INF):
            series[4] = bad
            assert math.isnan(correlation(own, rest, 9))
        series[4] = kept
