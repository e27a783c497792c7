"""The engine against its oracle on many random streams: `make check-engine`.

`python tests/check_engine.py --streams 100000 --seed 0` takes the streams of so many seeds, appends
one row to `runs/check_engine.jsonl`, and returns 1 at any difference, after it printed the first
one as small as it gets. The row counts what was exercised: a check that never refused was not
tested.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from sysquant.compiled import machine
from tests.oracle_compare import compare
from tests.oracle_shrink import described, shrink
from tests.streams import Switches, random_switches

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = REPOSITORY / "runs" / "check_engine.jsonl"
CHUNK = 100  # streams that a worker takes at a time
SHOWN = 20  # seeds of differing streams in a row of the file


def take(seeds: range) -> tuple[Counter, list[tuple[int, str]]]:
    """Counts over these seeds, and (seed, what) of those that differ."""
    counts: Counter = Counter()
    differing = []
    for seed in seeds:
        outcome = compare(random_switches(seed))
        counts += outcome.counts
        counts["ties"] += outcome.tie
        if outcome.difference:
            counts[f"differing: {outcome.difference.what}"] += 1
            differing.append((seed, str(outcome.difference)))
    return counts, differing


def run(streams: int, first: int, workers: int) -> dict[str, Any]:
    """Every stream, in chunks over the workers; the row of this run."""
    began = time.perf_counter()
    chunks = [
        range(a, min(a + CHUNK, first + streams)) for a in range(first, first + streams, CHUNK)
    ]
    counts: Counter = Counter()
    differing: list[tuple[int, str]] = []
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        tqdm(total=streams, unit=" streams", disable=None) as bar,
    ):
        for chunk, (found, wrong) in zip(chunks, pool.map(take, chunks), strict=True):
            counts += found
            differing += wrong
            bar.update(len(chunk))
            bar.set_postfix(differing=len(differing))
    return {
        "ts": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "first_seed": first,
        **{name: counts[name] for name in ("streams", "events", "orders", "refusals", "fills")},
        "ties": counts["ties"],
        "accepted_breaches": counts["differing: accepted breach"],
        "false_refusals": counts["differing: false refusal"],
        "differing_fills": counts["differing: executions"],
        "differing_streams": len(differing),
        "differing": dict(islice(differing, SHOWN)),
        "kinds": under(counts, "kind "),
        "purposes": under(counts, "purpose "),
        "ends": under(counts, "end "),
        "checks": under(counts, "check "),
        "seconds": round(time.perf_counter() - began, 1),
    }


def under(counts: Counter, prefix: str) -> dict[str, int]:
    """Counts whose name begins so, without that beginning."""
    return {k.removeprefix(prefix): n for k, n in sorted(counts.items()) if k.startswith(prefix)}


def commit() -> str:
    """Of the working tree, with `+` if it was changed since."""
    ask = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(ask, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def show(row: dict[str, Any], untested: list[str]) -> None:
    """The figures of a run, and the smallest case of the first difference."""
    for name in (
        "streams", "events", "orders", "refusals", "fills", "ties", "accepted_breaches",
        "false_refusals", "differing_fills", "differing_streams", "seconds",
    ):  # fmt: skip
        print(f"{name:20} {row[name]:>12,}")
    if untested:
        print("never refused:", ", ".join(untested))
    if row["differing"]:
        seed, what = next(iter(row["differing"].items()))
        print(f"seed {seed}: {what}")
        small: Switches = shrink(random_switches(int(seed)))
        print(f"at its smallest: compare({described(small)})")
        print(compare(small).difference)


def main() -> int:
    """Run, write, show; 1 if the two sides differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first stream")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    row = run(given.streams, given.seed, given.workers)
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.write(json.dumps(row) + "\n")
    passed = [name for name in row["checks"] if name.endswith(" passed")]
    names = [name.removesuffix(" passed") for name in passed]
    show(row, [name for name in names if f"{name} refused" not in row["checks"]])
    return 1 if row["differing_streams"] else 0


if __name__ == "__main__":
    sys.exit(main())
