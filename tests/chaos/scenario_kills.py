"""SIGKILL at every failpoint and at random moments: every row as if nobody had disturbed it."""

from sysquant.failpoints import Point
from tests.chaos.altered import SealingSession
from tests.chaos.harness import scenario
from tests.chaos.kills import kill_often
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import Source, market, undisturbed


@scenario(
    small={"kills": 21}, full={"kills": 100}, rounds=10,
    zero=(*WRONG, "unreached"),
    least={"fills": 20, "at_points": len(Point)},
)  # fmt: skip
def kills(lab, seed, kills):
    topic = lab.topic()
    with Source(lab, topic, market(), 500) as source, SealingSession(lab, topic) as session:
        found = kill_often(session, kills, seed, tuple(Point))
        source.finish(at_once=True)
        session.settle()
    return found | compared(session, undisturbed(lab, topic))
