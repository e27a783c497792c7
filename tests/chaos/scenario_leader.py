"""A topic whose leader dies, and comes back: the session follows, and loses nothing."""

import contextlib

from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared
from tests.chaos.second import FIRST, Second
from tests.chaos.session import Session, Source, market, undisturbed, until


@scenario(
    small={"moves": 2}, full={"moves": 20}, zero=WRONG, least={"fills": 10}, most={"again_s": 10.0}
)
def leader_moves(lab, seed, moves):
    second, topic, again = Second(lab.broker, lab.home / "second"), lab.name(), [0.0]
    with contextlib.ExitStack() as ends:
        ends.callback(second.stop)
        second.restart()
        second.make_topic(topic)
        with Source(lab, topic, market(), 200) as source, Session(lab, topic) as session:
            session.begin()
            for _ in range(moves // 2):
                second.kill()
                until(lambda: second.leader(topic) == FIRST)
                again.append(session.advance(3))
                second.restart()
                second.lead(topic)
                again.append(session.advance(3))
            source.finish(at_once=True)
            session.settle()
    return compared(session, undisturbed(lab, topic)) | {"moves": moves, "again_s": max(again)}
