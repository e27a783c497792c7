"""Every check in a running book: the value that an order by hand has, passed at it, refused beyond.

Prices are 100 and costs nothing where nothing else is said: a weight of 0.5 is 5,000 of the 10,000
of a strategy, 49 units of 100.01 (a tick is left for the fill), 4,900 of value.
"""

import math
from statistics import NormalDist

import pytest

from sysquant.checks import CHECKS
from sysquant.checks.chain import EXEMPT, PASS, REFUSE
from sysquant.sizing import WeightSizing
from tests.told import SECOND, START, flat, ran, ticks

NAN = math.nan
AGAIN = {"sizing": WeightSizing(band=0.0, split=False), "orders": {"tif": "ioc", "kind": "limit",
         "offset_bps": 100.0}}  # fmt: skip

# A at second 1, B (50) at second 2, A again to close B's bar.
PAIR = [*flat(100), *flat(50, symbol=1, first=2), *flat(100, first=3)]
TWO = {"others": [{}]}
LONG_SHORT = {"s0": [0.1], "s1": [-0.5]}  # 9 and -49 units of A at one mark
ONE_EACH = {"s0": {1: 0.3}, "s1": {2: 0.5}}  # 29 of A, then 99 of B

# Returns of -2, -1, 1 and 3 %, then an order; of four at 60 % the two worst are the tail.
RETURNS = (0.01, -0.02, 0.03, -0.01)
CLOSES = [100.0]
for _one in RETURNS:
    CLOSES.append(CLOSES[-1] * (1 + _one))
TAIL = {
    "risk": {"risk_bar": 10**9, "confidence": 0.6, "decay": 0.9, "least_history": 4},
    "instrument": {"tick_size": 1e-6, "lot_size": 1e-6},
}  # fmt: skip
PRICES = flat(*CLOSES, CLOSES[-1])
VALUE = 5_000.0  # of the order, within a millionth of a unit
SIGMA = math.sqrt(
    sum(0.1 * 0.9 ** (3 - n) * one**2 for n, one in enumerate(RETURNS)) / (1 - 0.9**4)
)
Z = NormalDist().inv_cdf(0.6)
ES = NormalDist().pdf(Z) / 0.4
RISE_AND_FALL = flat(100, 100, 120, 110, 110)
FALL = flat(100, 100, 90, 90)
IN_HALF = {"capital": 20_000.0, "fractions": {"s0": 0.5}}

# check -> value of the last order, the events, the targets, what else is special.
CASES = {
    "order_quantity": (49.0, flat(100, 100), [0.5], {}),
    "order_notional": (4_900.0, flat(100, 100), [0.5], {}),
    "order_size": (0.49, flat(100, 100), [0.5], {}),
    "min_notional": (3_900.0, flat(100, 100), [0.5], {"instrument": {"min_notional": 1_000.0}}),
    "price_collar": (0.001, flat(100, 100), [0.5], {"execution": {"slippage_bps": 10.0}}),
    "reference_collar": (  # the average of 100 and 110 with a weight of a half
        110 / 105 - 1, flat(100, 110, 110), [NAN, 0.5], {"execution": {"statistics_span": 3}}
    ),
    "stale_price": (0.8, ticks((0.2, 100), (1.0, 100)), [0.5], {}),
    "feed_lag": (
        5.0, [("clock", START, -1, 0.0, 5.0), *ticks((0.2, 100), (1.0, 100))], [0.5], {}
    ),
    "tick_jump": (0.02, ticks((0.1, 100), (0.2, 102), (1.0, 102)), [0.5], {}),
    "cash": (  # 49 x 100.01, a fee of 10 bps of it, and 7
        10_000 - 4_900.49 * 1.001 - 7, flat(100, 100), [0.5],
        {"execution": {"fee_bps": 10.0, "fee_fixed": 7.0}},
    ),
    "order_rate_second": (2.0, [*flat(100), *flat(50, symbol=1), *flat(100, first=2)], [0.3], TWO),
    "order_rate_minute": (2.0, flat(100, 100, 100), [0.5, 0.8], {}),
    "repeated_order": (2.0, flat(100, 100, 100), [0.5], AGAIN),
    "duplicate_order": (1.0, flat(100, 100, 100), [0.5], AGAIN),
    "self_match": (1.0, flat(100, 100), LONG_SHORT, {}),
    "warm_up": (2.0, flat(100, 100, 100), [NAN, 0.5], {}),
    "trading_window": (  # New York closes at 21:00, 73 minutes and 20 seconds before the start
        60.0, flat(100, 100, first=-4_460), {-4_460: 0.5}, {"instrument": {"calendar": "XNYS"}}
    ),
    "restricted": (1.0, flat(100, 100), [0.5], {"instrument": {"restricted": True}}),
    "data_quality": (0.75, flat(100, 100), [0.5], {"instrument": {"quality": 0.75}}),
    "state": (
        2.0, [*ticks((0.2, 100)), ("halt", START + SECOND // 2, 0), *ticks((1.0, 100))], [0.5], {}
    ),
    "position_quantity": (79.0, flat(100, 100, 100), [0.5, 0.8], {}),
    "position_notional": (7_900.0, flat(100, 100, 100), [0.5, 0.8], {}),
    "position_weight": (0.79, flat(100, 100, 100), [0.5, 0.8], {}),
    "not_promoted": (0.79, flat(100, 100, 100), [0.5, 0.8], {}),
    "short_limit": (0.29 + 0.495, PAIR, {1: -0.3, 2: -0.5}, TWO),
    "long_only": (-49.0, flat(100, 100), [-0.5], {}),
    "shortable": (-49.0, flat(100, 100), [-0.5], {"instrument": {"shortable": False}}),
    "gross_exposure": (2_900.0 + 4_950.0, PAIR, {1: 0.3, 2: -0.5}, TWO),
    "net_exposure": (4_950.0 - 900.0, PAIR, {1: 0.1, 2: -0.5}, TWO),
    "leverage": (0.785, PAIR, {1: 0.3, 2: -0.5}, TWO),
    "concentration": (1.0, flat(100, 100), [0.5], {}),
    "open_positions": (2.0, PAIR, {1: 0.3, 2: 0.5}, TWO),
    "open_orders": (2.0, PAIR, {1: 0.3, 2: 0.5}, TWO),
    "book_gross_exposure": (900.0 + 4_900.0, flat(100, 100), LONG_SHORT, {}),
    "book_net_exposure": (4_000.0, flat(100, 100), LONG_SHORT, {}),
    "book_leverage": (5_800 / 20_000, flat(100, 100), LONG_SHORT, {}),
    "book_concentration": (1.0, flat(100, 100), [0.5], {}),
    "book_open_positions": (2.0, PAIR, ONE_EACH, TWO),
    "book_open_orders": (2.0, PAIR, ONE_EACH, TWO),
    "drawdown": (0.049, FALL, {1: 0.5, 3: 0.9}, {}),
    "book_drawdown": (0.0245, FALL, {1: 0.5, 3: 0.9}, IN_HALF),
    "daily_loss": (0.049, FALL, {1: 0.5, 3: 0.9}, {}),
    "book_daily_loss": (0.0245, FALL, {1: 0.5, 3: 0.9}, IN_HALF),
    "consecutive_losses": (
        2.0, flat(100, 100, 90, 90, 90, 90), {1: 0.5, 3: 0.3, 4: 0.1, 5: 0.5}, {}
    ),
    "cooldown": (  # the stop fires a nanosecond before the end of second 3
        1 + 1e-9, flat(100, 100, 90, 90, 90), {1: 0.5, 4: -0.5}, {"exits": {"stop_loss": 0.05}}
    ),
    "give_back": (0.5, RISE_AND_FALL, {1: 0.5, 4: 0.9}, {}),
    "covariance_value_at_risk": (Z * SIGMA * VALUE / 1e4, PRICES, {5: 0.5}, TAIL),
    "covariance_expected_shortfall": (ES * SIGMA * VALUE / 1e4, PRICES, {5: 0.5}, TAIL),
    "volatility": (math.sqrt(365 * 86_400) * SIGMA * VALUE / 1e4, PRICES, {5: 0.5}, TAIL),
    "correlation": (1.0, PRICES, {"s0": {5: 0.5}, "s1": {5: 0.3}}, TAIL),
    "value_at_risk": (0.01 * VALUE / 1e4, PRICES, {5: 0.5}, TAIL),
    "expected_shortfall": (0.015 * VALUE / 1e4, PRICES, {5: 0.5}, TAIL),
}  # fmt: skip


def last_review(name, limit, case):
    """The last order of a case and the value and verdict of its check."""
    _, events, targets, more = case
    found = ran(events, targets, checks=[(name, limit)], **more)
    receipt = found.risk_receipts[-1]
    return found.orders[-1], receipt.value[0], receipt.verdict[0]


def test_every_check_has_a_case():
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("name", CASES)
def test_an_order_passes_at_its_limit_and_not_beyond(name):
    expected = CASES[name][0]
    step = 1e-10 * max(1.0, abs(expected))
    if CASES[name][3] is TAIL:  # sums of products, of an order a millionth of a unit off
        step = 1e-6 * expected
    for sign, verdict in ((1, PASS), (-1, REFUSE)):
        limit = expected + sign * (step if CHECKS[name].most else -step)
        order, value, given = last_review(name, limit, CASES[name])
        assert value == pytest.approx(expected, abs=step)
        assert (given, order.approved) == (verdict, int(verdict == PASS)), (value, limit)


@pytest.mark.parametrize(
    ("name", "targets", "value"),
    [
        ("concentration", {1: 0.3, 2: 0.5}, 4_950 / 7_850),
        ("book_concentration", ONE_EACH, 4_950 / 7_850),
        ("book_concentration", {"s0": {1: 0.3, 2: 0.5}, "s1": {1: -0.1}}, 4_950 / 8_750),
    ],
)
def test_the_largest_position_is_a_share_of_all(name, targets, value):
    assert last_review(name, 1.0, (None, PAIR, targets, TWO))[1] == pytest.approx(value)


def test_an_instruments_largest_position_stands_in_for_the_limit():
    case = (None, flat(100, 100), [0.5], {"instrument": {"max_position": 40.0}})
    order, value, given = last_review("position_quantity", 1_000.0, case)
    assert (order.approved, given) == (0, REFUSE)
    assert value == 49 / (40 / 1_000)


def test_a_sale_that_slips_past_zero_still_brings_a_tick_less_its_fee():
    dear = {"slippage_bps": 20_000.0, "fee_bps": 100.0}
    case = (None, flat(100, 100), [-1.0], {"execution": dear})
    order, value, _ = last_review("cash", 0.0, case)
    assert order.quantity == -33.0  # 10,000 at 300.01 and a fee of 1 %
    assert value == pytest.approx(10_000 + 33 * 0.01 * 0.99)


def test_a_promoted_strategy_is_not_held_to_the_share_of_new_ones():
    case = (None, flat(100, 100), [0.5], {"promoted": ["s0"]})
    assert last_review("not_promoted", 0.0, case)[1:] == (0.0, PASS)


def test_an_order_that_reduces_passes_a_check_that_it_fails():
    lost = last_review("drawdown", 0.01, (None, FALL, {1: 0.5, 3: 0.2}, {}))
    assert (lost[0].approved, lost[0].quantity, lost[2]) == (1, -28.0, EXEMPT)
