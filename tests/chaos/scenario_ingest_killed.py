"""SIGKILL of the ingest at failpoints and at random: each tick once, bars those of the ticks."""

from tests.chaos.harness import scenario
from tests.chaos.ingesting import POINTS, Ingesting
from tests.chaos.kills import kill_often
from tests.chaos.session import Source, market


@scenario(
    small={"kills": 8}, full={"kills": 100}, zero=("lost", "doubled", "other_bars", "unreached"),
    least={"bars": 5, "at_points": len(POINTS)},
)  # fmt: skip
def ingest_killed(lab, seed, kills):
    topic = lab.topic()
    with Source(lab, topic, market(), 2_000) as source, Ingesting(lab, topic) as ingest:
        found = kill_often(ingest, kills, seed, POINTS)
        source.finish(at_once=True)
        ingest.settle()
        return found | ingest.stored()
