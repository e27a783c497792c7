"""How long a retraining takes, from the command to the record: `bench_retrain.py [days] [rounds]`.

Minute bars of one symbol in an embedded store, and `runners/retrain.py model=random_forest` as a
process, as a timetable starts it. Rows: seconds in all, and of each stage that the runner tells of;
of the cells of its notebook, the longest are printed. Medians over the rounds, after one start that
compiles.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sysquant.home import cache
from sysquant.store import connect, insert, migrate
from sysquant.tables import bar_table
from tests.benchmarks import report
from tests.benchmarks.markets import Walk

DAYS, ROUNDS = 30, 3
SECONDS = 60.0  # promised on two cores
A_DAY = 1_440  # minutes
NAME = "BENCH:WALK"
RUNNER = Path(__file__).resolve().parents[2] / "runners" / "retrain.py"
UNIVERSE = f"universe.instruments=[{{symbol: '{NAME}', tick_size: 0.01, lot_size: 1e-6}}]"


def fill(home: Path, days: int) -> None:
    """Minute bars of a walk into the store of a home."""
    with connect(f"chdb:{home}/data/store") as client:
        migrate(client)
        insert(client, "bars_imported", bar_table(Walk().bars(days * A_DAY), [NAME], "bench"), "1")


def retrained(home: Path, *words: str) -> dict[str, float]:
    """Seconds of one retraining: in all, and of each stage."""
    environment = os.environ | {"SYSQUANT_HOME": str(home), "SYSQUANT_CACHE": str(cache())}
    command = [sys.executable, str(RUNNER), "universe=crypto", UNIVERSE, *words]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    took = {"": time.perf_counter() - began}
    assert done.returncode in (0, 3), done.stdout + done.stderr
    for name, seconds in re.findall(r"^(\w+).*: ([0-9.]+) s$", done.stdout, re.MULTILINE):
        took[name] = float(seconds)
    return took


def cells(home: Path) -> Iterator[tuple[str, float]]:
    """First line and seconds of each cell of the last notebook."""
    last = max((home / "runs" / "retrain").glob("*/retrain.ipynb"))
    for cell in json.loads(last.read_text())["cells"]:
        told: Mapping[str, float | None] = cell["metadata"].get("papermill", {})
        if cell["cell_type"] == "code":
            yield "".join(cell["source"]).partition("\n")[0], told.get("duration") or 0.0


def compare(days: int, rounds: int, *words: str) -> list[report.Row]:
    """A row in all and one of each stage; the time above its limit is told."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        fill(home, days)
        took = [retrained(home, f"days={days}", *words) for _ in range(rounds + 1)]
        took = took[1:] or took
        longest = sorted(cells(home), key=lambda cell: -cell[1])[:4]
    for first, seconds in longest:
        print(f"  {seconds:5.1f} s {first}")
    medians = {name: statistics.median(each[name] for each in took) for name in took[0]}
    if medians[""] > SECONDS:
        print(f"a retraining took {medians['']:.0f} s, promised are {SECONDS:.0f} on two cores")
    return [
        report.row("_".join(filter(None, ("retrain", name))), seconds, None, "s")
        for name, seconds in medians.items()
    ]


def main() -> None:
    """Measure, and save every row."""
    options = report.arguments(DAYS, ROUNDS, "days of minute bars")
    report.save(compare(options.size, options.rounds, "model=random_forest"))


if __name__ == "__main__":
    main()
