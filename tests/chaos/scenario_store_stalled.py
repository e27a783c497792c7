"""ClickHouse stalled by SIGSTOP: decisions are as quick, the machine's own pace beside them."""

import contextlib
import statistics

from tests.chaos.altered import Machine, TimedSession
from tests.chaos.harness import scenario
from tests.chaos.session import Source, market


@scenario(
    small={"pairs": 1, "seconds": 2.0}, full={"pairs": 5, "seconds": 20.0},
    most={"beyond_ms": 0.0}, least={"batches": 50},
)  # fmt: skip
def store_stalled(lab, seed, pairs, seconds):
    topic, p99 = lab.topic(), {"with": [], "without": [], "machine": []}
    with Source(lab, topic, market(), 1000), TimedSession(lab, topic) as session:
        session.start_trading()
        for _ in range(pairs):
            for name, state in (("without", contextlib.nullcontext), ("with", lab.stalled_store)):
                with state(), Machine() as machine:
                    p99[name].append(session.p99_ms(seconds))
                p99["machine"].append(machine.p99_ms)
    found = {f"{name}_ms": statistics.median(values) for name, values in p99.items()}
    allowed = max(1.0, 0.1 * found["without_ms"])
    return found | {
        "beyond_ms": max(0.0, found["with_ms"] - found["without_ms"] - allowed),
        "batches": session.batches,
    }
