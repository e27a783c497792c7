"""SIGTERM to a session that is idle, busy, or without broker or store: soon over, and with 0."""

from tests.chaos.harness import scenario
from tests.chaos.session import Session, Source, market, until

STATES = ("idle", "busy", "broker down", "broker stalled", "store down", "store stalled")


@scenario(
    small={"times": 1, "states": ("busy", "broker stalled", "store stalled")},
    full={"times": 4, "states": STATES}, rounds=9, zero=("failed",), most={"ended_s": 5.0},
)  # fmt: skip
def sigterms(lab, seed, times, states):
    ends = []
    for state in states:
        topic = lab.topic()
        with Source(lab, topic, market(8 if state == "idle" else None), 400) as source:
            for _ in range(times):
                with Session(lab, topic, name=lab.name()) as session:
                    session.start()
                    if state == "idle":
                        source.wait()
                    until(session.inputs)
                    with lab.state(state):
                        ends.append(session.end())
    failed = sum(end.code != 0 for end in ends)
    return {"ends": len(ends), "failed": failed, "ended_s": max(end.seconds for end in ends)}
