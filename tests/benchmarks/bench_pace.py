"""How soon and at what cost the live runner trades 1,000 ticks a second: `bench_pace.py [seconds]`.

A real broker, a store, and `runners/live.py` as a process on ticks of now, with every check of the
full chain. Rows: ms from the return of a poll to the commit of an order in the journal, median and
99th percentile, beside what the machine adds to a sleep of 1 ms by itself; and CPU in percent of a
core, with the wait of the consumer for more records of a batch (`feed.linger_ms`) in its name.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sysquant.checks import CHECKS
from tests.benchmarks import report
from tests.chaos.altered import Machine, TimedSession
from tests.chaos.lab import Lab
from tests.chaos.session import Source, market

SECONDS, PER_SECOND = 120, 1000
LINGER_MS = 10.0
MOST_MS, MOST_CPU = 5.0, 25.0
# Every check there is, passed where it knows enough; the tail does after a minute of risk bars.
CHAIN = ", ".join(
    f"{{check: {n}, limit: {60000 if c.most else -60000}}}" for n, c in CHECKS.items()
)
KNOWN_S = 70
WORDS = (  # orders in many bars, at the pace and the snapshots of a session
    f"risk.checks=[{CHAIN}]", "risk.risk_bar=1s", "sizing.retry_after=1",
    "strategy.fast=2", "strategy.slow=3", "bars=1s", "feed.max_records=100000",
    "runtime.snapshot_s=10", "snapshots=1m", f"feed.linger_ms={LINGER_MS}",
)  # fmt: skip


def measure(lab: Lab, seconds: float, known_s: float = KNOWN_S) -> list[report.Row]:
    """Milliseconds to the order, and CPU, once a session has traded for `known_s`."""
    topic = lab.topic()
    source = Source(lab, topic, market(per_second=PER_SECOND), PER_SECOND, "now")
    with source, TimedSession(lab, topic, *WORDS, clock="wall") as session, Machine() as machine:
        session.start_trading()
        assert session.process is not None
        process = psutil.Process(session.process.pid)
        session.timed(known_s)
        before = process.cpu_times()
        taken = session.timed(seconds)
        after = process.cpu_times()
    orders = taken[taken[:, 1] > 0, 0]
    cpu = after.user + after.system - before.user - before.system
    print(f"{len(taken):,} batches, {len(orders):,} with orders, {PER_SECOND:,} ticks/s")
    return [
        report.row("pace_order_p50", float(np.median(orders)), None, "ms"),
        report.row("pace_order_p99", float(np.percentile(orders, 99)), machine.p99_ms, "ms"),
        report.row("pace_batch_p99", float(np.percentile(taken[:, 0], 99)), machine.p99_ms, "ms"),
        report.row(f"pace_cpu_linger_{LINGER_MS:g}ms", 100 * cpu / seconds, None, "% of a core"),
    ]


def judge(rows: list[report.Row]) -> Iterator[str]:
    """What falls short of what is promised."""
    most = {"pace_order_p99": MOST_MS, rows[-1]["name"]: MOST_CPU}
    for row in rows:
        if row["ours"] > most.get(row["name"], np.inf):
            yield f"{row['name']}: {row['ours']:.3g} {row['unit']}, promised {most[row['name']]:g}"


def main() -> None:
    """Measure, and save."""
    for name in ("kafka", "sysquant"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options = report.arguments(SECONDS, 1, "seconds")
    with contextlib.closing(Lab()) as lab:
        rows = measure(lab, options.size)
    report.save(rows)
    print(*judge(rows), sep="\n")


if __name__ == "__main__":
    main()
