"""Started again, as a person does it, over a journal of a million inputs: soon trading again."""

from tests.chaos.harness import scenario
from tests.chaos.long_journal import lengthen
from tests.chaos.session import Session, Source, market, until

FEW = 50_000  # ticks, of which the first life takes some, many an input
REPLAYED = 2_000  # inputs since the last snapshot: ten seconds of 200 a second


@scenario(
    small={"inputs": 5_000}, full={"inputs": 1_000_000}, zero=("missed",),
    most={"again_s": 5.0},
)  # fmt: skip
def long_journal(lab, seed, inputs):
    topic, ticks = lab.topic(), inputs + FEW
    with Source(lab, topic, market(ticks / 50)) as source, Session(lab, topic) as session:
        session.forked = False
        source.finish()
        session.begin()
        session.end()
        size_mb = lengthen(session, inputs, REPLAYED)
        session.start()
        again_s = until(lambda: session.inputs() > inputs)
        session.settle()
        missed = ticks - session.positions()[0]
    return {"inputs": session.inputs(), "again_s": again_s, "journal_mb": size_mb, "missed": missed}
