"""Strategies switched on and off at random under load: money is kept, and nobody is disturbed."""

import random

from sysquant import control
from tests.chaos.harness import scenario
from tests.chaos.operating import Operator
from tests.chaos.rows import compared, of_strategy
from tests.chaos.session import Session, Source, market

BOOK = ("book=all", "book.only=[momentum,breakout,buy_and_hold]", "book.strategies.momentum.fast=3",
        "book.strategies.momentum.slow=9", "book.strategies.breakout.span=8")  # fmt: skip
ALONE = ("book=all", "book.only=[momentum]", "book.fractions={momentum: 0.3333333333333333}",
         *BOOK[2:4])  # fmt: skip
SAID = (control.Start, control.Stop, control.Drain, control.Pause, control.Resume)


@scenario(
    small={"switches": 20}, full={"switches": 1_000}, least={"fills": 10},
    zero=("different", "lost", "doubled", "unbalanced", "disturbed"),
)  # fmt: skip
def switching(lab, seed, switches):
    topic, draw = lab.topic(), random.Random(seed)
    with Source(lab, topic, market(), 500) as source, Session(lab, topic, *BOOK) as session:
        session.begin()
        operator = Operator(session)
        for _ in range(switches):
            operator.say(draw.choice(SAID)(draw.choice(("breakout", "buy_and_hold"))))
            session.advance(draw.randrange(3))
        source.finish(at_once=True)
        session.settle()
    with Session(lab, topic, *ALONE, name=lab.name()) as alone:
        alone.settle()
    found = compared(session)
    rows = [of_strategy(one, "momentum") for one in (session, alone)]
    return found | {"switches": switches, "disturbed": int(rows[0] != rows[1])}
