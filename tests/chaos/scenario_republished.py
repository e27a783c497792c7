"""Copies under new offsets are trades, for equal trades are real: every one is counted."""

import numpy as np

from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared, traded
from tests.chaos.session import Session, Source, market


def twice(seconds):
    for block in market(seconds):
        yield block[np.repeat(np.arange(len(block)), 2)]


@scenario(
    small={"seconds": 120}, full={"seconds": 3600},
    zero=(*WRONG, "miscounted"),
)  # fmt: skip
def republished(lab, seed, seconds):
    topic, once = lab.topic(), list(market(seconds))
    with Source(lab, topic, twice(seconds)) as source, Session(lab, topic) as session:
        source.finish()
        session.settle()
        with lab.client(session.name) as client:
            ticks = traded(client, session.run)
    volume = 2 * sum(block.volume.sum() for block in once)
    miscounted = abs(len(ticks) - 2 * sum(map(len, once)))
    wrong = int(abs(ticks.volume.sum() - volume) > 1e-6 * volume)
    return compared(session) | {"miscounted": miscounted + wrong}
