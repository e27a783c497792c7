"""Trades of an exchange come once each, in the order of their ids where that is possible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.feeds.sequence import Missing, Order, Trade


def trades(*numbers, symbol=0):
    return [Trade(symbol, number, number * 10, 1.0, 1.0, 0) for number in numbers]


def ids(found):
    return [trade.id for trade in found]


def test_an_early_trade_waits_for_the_one_before_it():
    one = Order(0)
    assert ids(one.take(trades(5, 7), 0.0)) == [5]
    assert one.missing() == [Missing(0, 6, 6)]
    assert ids(one.take(trades(6), 0.1)) == [6, 7]
    assert (one.missing(), one.next_id) == ([], 8)


def test_it_goes_on_without_what_does_not_come_and_takes_it_late():
    one = Order(0, hold_s=2.0, give_up_s=10.0)
    one.take(trades(5, 8, 10), 0.0)
    assert one.tend(1.9) == ([], [])
    assert ids(one.tend(2.0)[0]) == [8, 10]
    assert one.missing() == [Missing(0, 6, 7), Missing(0, 9, 9)]
    assert ids(one.take(trades(11, 6), 3.0)) == [6, 11]
    assert one.tend(10.0) == ([], [Missing(0, 7, 7), Missing(0, 9, 9)])
    assert one.missing() == []
    assert one.take(trades(7), 11.0) == [] and one.duplicates == 1


def test_what_came_before_is_a_duplicate():
    one = Order(0)
    one.take(trades(5, 6, 9), 0.0)
    assert one.take(trades(5, 6, 9), 0.0) == []
    assert one.duplicates == 3


def test_the_first_two_may_be_swapped():
    one = Order(0)
    assert ids(one.take(trades(6, 5), 0.0)) == [5, 6]
    assert one.take(trades(5, 6), 0.0) == []
    assert one.missing() == []


def test_with_a_position_what_came_since_is_missed_and_what_lies_before_is_not():
    one = Order(0, next_id=3)
    assert one.take(trades(2, 6), 0.0) == []
    assert one.missing() == [Missing(0, 3, 5)]


def test_a_heartbeat_tells_of_trades_that_did_not_come():
    one = Order(0)
    one.expect(9, 0.0)
    assert one.missing() == []
    one.take(trades(5), 0.0)
    one.expect(7, 0.0)
    assert one.missing() == [Missing(0, 6, 7)]
    assert ids(one.take(trades(6, 7), 0.0)) == [6, 7]
    assert one.missing() == []
    one.expect(9, 1.0)
    assert one.tend(3.0) == ([], [])
    assert ids(one.take(trades(10, 8), 3.5)) == [8, 10]
    assert one.tend(121.0) == ([], [Missing(0, 9, 9)])


def test_what_nobody_has_is_given_up_in_any_order():
    one = Order(0)
    one.take(trades(1, 4, 8), 0.0)
    assert one.give_up(Missing(0, 5, 7)) == ([], [Missing(0, 5, 7)])
    assert one.missing() == [Missing(0, 2, 3)]
    assert ids(one.take(trades(2), 0.0)) == [2]
    released, lost = one.give_up(Missing(0, 1, 3))
    assert (ids(released), lost) == ([4, 8], [Missing(0, 3, 3)])
    assert (one.missing(), one.next_id) == ([], 9)
    assert one.take(trades(3, 6), 0.0) == [] and one.duplicates == 2


@pytest.mark.parametrize("comes", [True, False])
def test_each_gap_is_held_for_as_long_as_it_was_missed_itself(comes):
    one = Order(0, hold_s=2.0)
    one.take(trades(5, 7), 0.0)
    one.take(trades(9, 10), 1.5)
    assert ids(one.take(trades(6), 1.9) if comes else one.tend(2.0)[0])[-1] == 7
    assert one.tend(3.4) == ([], [])
    assert ids(one.take(trades(8), 3.4) if comes else one.tend(3.5)[0]) == [8, 9, 10][not comes :]


def test_many_held_ones_are_let_go_at_once():
    one = Order(0, most_held=3)
    one.take(trades(1, 3, 4, 5, 6), 0.0)
    assert ids(one.tend(0.0)[0]) == [3, 4, 5, 6]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.lists(st.integers(0, 60), min_size=1, max_size=8)),
        st.tuples(st.just("wait"), st.floats(0.0, 5.0)),
        st.tuples(st.just("give_up"), st.tuples(st.integers(0, 60), st.integers(0, 60))),
        st.tuples(st.just("expect"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(actions, st.one_of(st.none(), st.integers(0, 20)))
def test_each_id_is_published_lost_or_missing_and_never_two_of_them(script, start):
    one, now = Order(0, start, hold_s=2.0, give_up_s=6.0), 0.0
    seen, published, lost = set(), [], []
    for what, value in script:
        if what == "take":
            seen |= set(value)
            published += ids(one.take(trades(*value), now))
        elif what == "wait":
            now += value
            released, gone = one.tend(now)
            published += ids(released)
            lost += gone
        elif what == "give_up":
            released, gone = one.give_up(Missing(0, min(value), max(value)))
            published += ids(released)
            lost += gone
        else:
            one.expect(value, now)
    assert len(set(published)) == len(published)
    gone = [number for gap in lost for number in range(gap.first, gap.last + 1)]
    absent = [number for gap in one.missing() for number in range(gap.first, gap.last + 1)]
    assert len(set(gone)) == len(gone) and not set(gone) & set(published)
    assert not set(absent) & (set(published) | set(gone))
    told = {*published, *gone, *absent, *one._held}
    if start is not None:
        assert all(number in told for number in seen if number >= start)
        assert told >= set(range(start, one.next_id))
    assert published[-1:] == [] or one.next_id > max(published)


@pytest.mark.parametrize("count", [1, 50])
@given(data=st.data())
def test_any_order_within_the_hold_is_put_right(data, count):
    order = data.draw(st.permutations(range(count)))
    one, found = Order(0, 0), []
    for number in order:
        found += ids(one.take(trades(number, number), 0.0))
    assert found == list(range(count))
    assert one.duplicates == count
