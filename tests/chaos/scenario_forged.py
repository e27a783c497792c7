"""Forged, stale, replayed and mis-roled commands to a session that trades: none is accepted."""

import random

from sysquant import control
from sysquant.mailbox import post
from tests.chaos.harness import scenario
from tests.chaos.operating import Operator
from tests.chaos.session import Session, Source, market, until


@scenario(small={"messages": 60}, full={"messages": 10_000}, zero=("accepted", "unanswered"))
def forged(lab, seed, messages):
    topic, draw = lab.topic(), random.Random(seed)
    with Source(lab, topic, market(), 200) as source, Session(lab, topic) as session:
        session.begin()
        operator = Operator(session)
        operator.say(control.Pause("momentum"))
        sent = [operator.forged(draw) for _ in range(messages)]
        for raw in sent:
            post(session.directory, raw)
        asked, last = len({*sent, *operator.used}), "SELECT count(*) FROM answers"
        until(lambda: session.ask(last) >= asked, 120)
        answered = session.ask(last)
        session.advance(3)  # what was said once more is answered no other way
        operator.say(control.Status())
        source.finish(at_once=True)
        session.settle()
    with session.lab.client(session.name) as client:
        sql = "SELECT count() FROM inputs WHERE kind = 'command'"
        accepted = client.query(sql).result_rows[0][0] - 1
    return {"messages": len(sent), "accepted": accepted, "unanswered": asked - answered}
