"""Many ticks in one life: memory and files do not grow with them."""

import numpy as np
import psutil
from scipy.stats import theilslopes

from tests.chaos.harness import scenario
from tests.chaos.session import Session, Source, market, until

NOISE_MB = 100.0  # while an allocator finds its size: the first hundreds of thousands


@scenario(
    small={"ticks": 300_000}, full={"ticks": 10_000_000}, zero=("beyond_mb",),
    most={"more_files": 2.0}, least={"samples": 10},
)  # fmt: skip
def endurance(lab, seed, ticks):
    topic, seen = lab.topic(), list[tuple[int, float, int]]()
    words = "feed.max_records=10000", "runtime.snapshot_s=1", "snapshots=1m", "bars=1m"
    source = Source(lab, topic, market(ticks / 50))
    with source, Session(lab, topic, *words) as session:
        session.begin()
        process = psutil.Process(session.process.pid)
        read = 0
        while read < ticks:
            least = min(ticks, read + ticks // 100)
            until(lambda: sum(session.positions().values()) >= least, 300)  # noqa: B023
            read = sum(session.positions().values())
            seen.append((read, process.memory_info().rss / 2**20, process.num_fds()))
        session.end()
    count, memory, files = np.array(seen[len(seen) // 5 :], float).T  # once all is loaded
    half = len(files) // 2
    per_million = float(theilslopes(memory, count / 1e6).slope)  # old inputs are sealed in jumps
    allowed = max(1.0, NOISE_MB / (ticks / 1e6) ** 2)
    return {
        "ticks": read, "samples": len(seen), "mb_per_million": per_million,
        "beyond_mb": max(0.0, per_million - allowed), "most_mb": memory.max(),
        "more_files": float(np.median(files[half:]) - np.median(files[:half])),
    }  # fmt: skip
