"""What of a source a topic holds, read from its end in windows that grow."""

from itertools import pairwise

import pytest

from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.marks import Published, published
from sysquant.feeds.publish import Publisher
from sysquant.feeds.sequence import Missing
from sysquant.types import Instrument, Ticks
from tests.market import ticks

UNIVERSE = [Instrument("RARE"), Instrument("OFTEN"), Instrument("NEVER")]


@pytest.mark.parametrize("last", [1, 20, 10_000])
def test_each_symbol_stands_after_its_newest_id_however_far_back_that_lies(broker, topic, last):
    some = ticks(400)
    some.symbol[:] = 1
    some.symbol[[3, 9]] = 0
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, mark="venue", **broker.client)
    publisher.publish(Ticks.join([some[:200], some[205:]]), UNIVERSE)
    publisher.flush()
    publisher.close()
    found = published(
        bootstrap=broker.bootstrap, topic=topic, mark="venue", universe=UNIVERSE,
        wanted=[0, 1], last=last, **broker.client,
    )  # fmt: skip
    often = [number for number in range(400) if number not in (3, 9, *range(200, 205))]
    seen = often[-100 * last :]  # more than that is not read for a symbol that is not found
    gaps = [Missing(1, a + 1, b - 1) for a, b in pairwise(seen) if b > a + 1]
    at = [int(some.ts[rows].max()) // MILLISECOND * MILLISECOND for rows in ([3, 9], often)]
    rare = {0: Published(10, [Missing(0, 4, 8)], at[0])} if last > 1 else {}
    assert found == {1: Published(400, gaps, at[1])} | rare


def test_what_is_missing_still_is_wanted_once_but_for_what_was_given_up():
    one = Published(50, [Missing(1, 7, 8), Missing(1, 20, 25)])
    wanted = one.wanted(1, given_up=[(22, 23), (3, 3)], left=[(2, 4), (20, 25), (45, 60)])
    assert wanted == [
        Missing(1, 7, 8), Missing(1, 20, 21), Missing(1, 24, 25), Missing(1, 2, 2),
        Missing(1, 4, 4), Missing(1, 45, 49),
    ]  # fmt: skip


def test_a_symbol_that_never_came_has_no_place(broker, topic):
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, mark="venue", **broker.client)
    publisher.publish(ticks(10)[:5], UNIVERSE)
    publisher.flush()
    publisher.close()
    words = {"bootstrap": broker.bootstrap, "mark": "venue", "universe": UNIVERSE, **broker.client}
    assert 2 not in published(topic=topic, wanted=[2], last=1, **words)
    assert published(topic=f"{topic}-none", wanted=[2], **words) == {}
