"""A market told minute by minute over Kafka, for books that ask models."""

import numpy as np

from sysquant.feeds.publish import Publisher
from sysquant.types import Instrument, Ticks
from tests.test_training import bars

SYMBOL = Instrument("SIM:A", 1e-6, 1e-6)
UNIVERSE = (
    "universe=crypto",
    "universe.instruments=[{symbol: 'SIM:A', tick_size: 1e-6, lot_size: 1e-6}]",
)


def minutes(count):
    """One trade a minute of a market in which there is something to foresee."""
    market = bars(count, symbols=1, signal=2.0)
    empty = Ticks.empty()
    columns = {name: np.zeros(count, of.dtype) for name, of in empty.columns()}
    columns |= {"ts": market.ts, "received_at": market.ts, "price": market.close}
    columns |= {"volume": np.ones(count), "offset": np.arange(count)}
    return Ticks(**columns)


class Market:
    """Puts a market's ticks on the topic, as many as are asked for at a time."""

    def __init__(self, broker, topic, ticks):
        self.ticks, self.told = ticks, 0
        self._publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)

    def go_on(self, count):
        self._publisher.publish(self.ticks[self.told : self.told + count], [SYMBOL])
        self._publisher.flush()
        self.told = min(self.told + count, len(self.ticks))

    def close(self):
        self._publisher.close()


def live_words(broker, topic):
    """Command line of a live runner that trades it."""
    return [
        "strategy=ml_direction", *UNIVERSE, "feed=kafka", f"feed.bootstrap={broker.bootstrap}",
        f"feed.topic={topic}", "runtime.clock=event", "runtime.warmup_bars=0",
        "book.unpromoted=null",
        *(["feed.api_version=[2,3]"] if broker.kind == "mock" else []),
    ]  # fmt: skip
