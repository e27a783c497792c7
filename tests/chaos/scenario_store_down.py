"""ClickHouse away for a while: the same decisions, and every row in it soon after it is back."""

import signal
import time

from tests.chaos.harness import scenario
from tests.chaos.rows import WRONG, compared
from tests.chaos.session import Session, Source, market, undisturbed, until


@scenario(
    small={"down_s": 1.5}, full={"down_s": 600.0},
    zero=(*WRONG, "held_up"), most={"drained_s": 60.0},
    least={"fills": 10},
)  # fmt: skip
def store_down(lab, seed, down_s):
    topic = lab.topic()
    with Source(lab, topic, market(), 500) as source, Session(lab, topic) as session:
        session.begin()
        lab.end_store(signal.SIGKILL)
        session.end(signal.SIGKILL)
        session.start()
        session.advance()
        before = session.inputs()
        time.sleep(down_s)
        held_up, waiting = int(session.inputs() <= before), session.waiting()
        lab.revive_store()
        drained = until(lambda: session.waiting() < 1000, 120)
        source.finish(at_once=True)
        session.settle()
    found = {"held_up": held_up, "waiting": waiting, "drained_s": drained}
    return found | compared(session, undisturbed(lab, topic))
