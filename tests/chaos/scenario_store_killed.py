"""ClickHouse killed, and its replies dropped after the commit: no row is missing or there twice."""

import random
import signal
import time

from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import Session, Source, market, until


@scenario(
    small={"kills": 1, "drops": 5}, full={"kills": 20, "drops": 100}, rounds=10,
    zero=WRONG, least={"dropped": 5, "fills": 10},
)  # fmt: skip
def store_killed(lab, seed, kills, drops):
    topic, draw, before = lab.topic(), random.Random(seed), lab.proxy.dropped
    with Source(lab, topic, market(), 300) as source, Session(lab, topic) as session:
        session.begin()
        with lab.dropping(0.5):
            until(lambda: lab.proxy.dropped - before >= drops, 600)
        for _ in range(kills):
            with lab.dropping(0.2):
                time.sleep(draw.uniform(0.0, 1.0))
                lab.end_store(signal.SIGKILL)
                lab.revive_store()
        source.finish(at_once=True)
        session.settle()
    return compared(session) | {"kills": kills, "dropped": lab.proxy.dropped - before}
