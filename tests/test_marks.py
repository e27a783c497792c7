"""What of a source a topic holds, read from its end in windows that grow."""

from itertools import pairwise

import pytest

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
    rare = {0: Published(10, [Missing(0, 4, 8)])} if last > 1 else {}
    assert found == {1: Published(400, gaps)} | rare


def test_a_symbol_that_never_came_has_no_place(broker, topic):
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, mark="venue", **broker.client)
    publisher.publish(ticks(10)[:5], UNIVERSE)
    publisher.flush()
    publisher.close()
    words = {"bootstrap": broker.bootstrap, "mark": "venue", "universe": UNIVERSE, **broker.client}
    assert 2 not in published(topic=topic, wanted=[2], last=1, **words)
    assert published(topic=f"{topic}-none", wanted=[2], **words) == {}
