"""SIGKILL by the wall clock, three partitions: nothing lost or doubled, no old price traded."""

from sysquant.failpoints import Point
from tests.chaos.altered import DatedSession
from tests.chaos.harness import scenario
from tests.chaos.kills import kill_often, stale
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import STALE_S, WALL_WORDS, Source, market


@scenario(
    small={"kills": 6}, full={"kills": 100}, rounds=10,
    zero=(*WRONG, "unreached", "stale"),
    least={"entries": 3},
)  # fmt: skip
def kills_wall(lab, seed, kills):
    topic = lab.topic(3)
    with (
        Source(lab, topic, market(), 200, "now") as source,
        DatedSession(lab, topic, *WALL_WORDS, clock="wall") as session,
    ):
        found = kill_often(session, kills, seed, (Point.COMMITTED, Point.BEFORE_COMMIT))
        session.start()
        session.advance(100)
        source.finish(at_once=True)
        session.settle()
    return found | compared(session) | stale(session, STALE_S)
