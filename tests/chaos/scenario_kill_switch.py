"""The kill switch, with a full feed and with ClickHouse down: how soon it acts."""

import numpy as np

from sysquant import control
from tests.chaos.harness import scenario
from tests.chaos.operating import Operator
from tests.chaos.session import Session, Source, market


@scenario(
    small={"times": 4}, full={"times": 200}, zero=("after",), most={"p99_s": 0.25},
    least={"orders": 10},
)  # fmt: skip
def kill_switch(lab, seed, times):
    topic, waited, halts = lab.topic(), [], []
    full = Session(lab, topic, "feed.max_records=10000")  # and more is there than it takes
    with Source(lab, topic, market(), 60_000) as source, full as session:
        session.begin()
        operator = Operator(session)
        for state in ("busy", "store down"):
            with lab.state(state):
                for _ in range(times // 2):
                    halted, seconds = operator.say(control.Halt())
                    session.advance(2)
                    rearmed, _ = operator.say(control.Rearm())
                    session.advance(5)
                    waited.append(seconds)
                    halts.append((halted.seq, rearmed.seq))
        source.finish(at_once=True)
        session.settle()
    with session.lab.client(session.name) as client:
        seqs = np.array(client.query("SELECT seq FROM orders").result_columns[0], np.int64)
    after = sum(int(((seqs > first) & (seqs < last)).sum()) for first, last in halts)
    return {
        "halts": len(halts),
        "orders": len(seqs),
        "after": after,
        "p99_s": float(np.quantile(waited, 0.99)),
        "p50_s": float(np.median(waited)),
    }
