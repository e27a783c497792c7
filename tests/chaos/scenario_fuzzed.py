"""Records that are none, among ticks: no crash, no order from them, each accounted for."""

from tests.chaos.disorder import fuzz
from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared, dead_letters
from tests.chaos.session import Session, Source, market, undisturbed


@scenario(
    small={"bad": 3_000}, full={"bad": 100_000}, rounds=10,
    zero=(*WRONG, "unaccounted"), least={"fills": 10},
)  # fmt: skip
def fuzzed(lab, seed, bad):
    soiled, clean = lab.topic(), lab.topic()
    with Source(lab, clean, market(240)) as source:
        source.finish()
    with Source(lab, soiled, market(240), 6000) as source, Session(lab, soiled) as session:
        session.start()
        sent = fuzz(lab, soiled, bad, seed)
        source.finish()
        assert session.is_alive()
        session.settle(600)
    found = compared(session, undisturbed(lab, clean))
    return found | {"bad": sent, "unaccounted": abs(dead_letters(session) - sent)}
