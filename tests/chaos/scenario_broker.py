"""Kafka killed, stalled, started again: no tick lost, no old price traded, and it goes on soon."""

import time

from tests.chaos.altered import DatedSession
from tests.chaos.harness import scenario
from tests.chaos.kills import stale
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import STALE_S, WALL_WORDS, Source, market


@scenario(
    small={"times": 1, "away_s": 1.5}, full={"times": 5, "away_s": 5.0}, rounds=2,
    zero=(*WRONG, "stale"), most={"again_s": 2.0}, least={"entries": 3},
)  # fmt: skip
def broker(lab, seed, times, away_s):
    topic, again = lab.topic(), []
    with (
        Source(lab, topic, market(), 200, "now") as source,
        DatedSession(lab, topic, *WALL_WORDS, clock="wall") as session,
    ):
        session.start()
        for state in ("broker down", "broker stalled") * times:
            session.advance(20)
            with lab.state(state):
                time.sleep(away_s)
            again.append(session.advance(1, 30))
        source.finish(at_once=True)
        session.settle()
    return compared(session) | stale(session, STALE_S) | {"again_s": max(again)}
