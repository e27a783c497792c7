"""Records delivered again, to the same life and to the next one: effects as if they came once."""

from sysquant.failpoints import Point
from tests.chaos.altered import RewoundSession
from tests.chaos.harness import scenario
from tests.chaos.kills import kill_often
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import Source, market, undisturbed

# Read and not journaled: the next life is given them once more.
POINTS = (Point.POLLED, Point.STEPPED, Point.COMMITTING, Point.BEFORE_COMMIT)


@scenario(
    small={"kills": 6}, full={"kills": 40}, rounds=2,
    zero=WRONG, least={"fills": 10, "rewound": 100},
)  # fmt: skip
def redelivered(lab, seed, kills):
    topic = lab.topic()
    with Source(lab, topic, market(), 500) as source, RewoundSession(lab, topic) as session:
        found = kill_often(session, kills, seed, POINTS)
        source.finish(at_once=True)
        session.settle()
        found["rewound"] = int(session.told().sum())
    return found | compared(session, undisturbed(lab, topic))
