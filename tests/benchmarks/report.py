"""What every benchmark shares: its arguments, timing in turns, its table, and `runs/bench.json`.

The file is a list of rows {name, ours, reference, ratio, unit, command}, medians; a row that is
measured again replaces the one of its name. `ratio` is ours / reference; both are null where there
is nothing to compare with, or where the peer is not installed.
"""

import argparse
import gc
import importlib.util
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sysquant.home import under_home

# What is run to be timed is nobody's research: a ledger of its own, gone at the end.
_LEDGER = tempfile.TemporaryDirectory(prefix="sysquant-research-")
os.environ.setdefault("SYSQUANT_RESEARCH", _LEDGER.name)

FILE = "runs/bench.json"
FIELDS = ("name", "ours", "reference", "ratio", "unit", "command")
BUSY = 0.9  # of a core: with less, the machine had other work, and rates are too low

Row = dict[str, Any]
Ways = Mapping[str, Callable[[], Callable[[], Any]]]


def arguments(size: int, rounds: int, counted: str) -> argparse.Namespace:
    """Words of the command line: `size`, `rounds` and `long`, the same for every benchmark.

    Parameters
    ----------
    size, rounds : defaults.
    counted : what `size` counts.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("size", nargs="?", type=lambda word: int(float(word)), help=counted)
    parser.add_argument("rounds", nargs="?", type=int, default=rounds, help="medians over these")
    parser.add_argument("--long", action="store_true", help="also what takes longest")
    options = parser.parse_args()
    options.size = options.size or size
    return options


def is_installed(peer: str) -> bool:
    """Whether a peer can be imported; says so if not."""
    found = importlib.util.find_spec(peer) is not None
    if not found:
        print(f"{peer} is not installed: left out")
    return found


def in_turns(ways: Ways, rounds: int) -> dict[str, tuple[float, Any]]:
    """Time several ways to do one thing, one after another in every round.

    Parameters
    ----------
    ways : name -> function that prepares (not timed) and returns what is timed.
    rounds : timed ones; one before them compiles and is not counted.

    Returns
    -------
    name -> (median seconds, what the last call returned).
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, Any] = {}
    share = 1.0
    for turn in range(rounds + 1):
        for name, prepare in ways.items():
            last.pop(name, None)
            call = prepare()
            gc.collect()
            cpu, began = time.process_time(), time.perf_counter()
            last[name] = call()
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            if turn:
                seconds[name].append(took)
                share = min(share, cpu / took)
    if share < BUSY:
        print(f"a turn got {share:.0%} of a core: the machine has other work, read ratios")
    return {name: (statistics.median(took), last[name]) for name, took in seconds.items()}


def row(name: str, ours: float, reference: float | None, unit: str) -> Row:
    """One row of the file; four digits are more than a benchmark knows."""
    short = [None if value is None else float(f"{value:.4g}") for value in (ours, reference)]
    ratio = None if not reference else float(f"{ours / reference:.4g}")
    script, *words = sys.argv
    command = shlex.join(["python", f"tests/benchmarks/{Path(script).name}", *words])
    return dict(zip(FIELDS, (name, *short, ratio, unit, command), strict=True))


def rates(name: str, count: int, timed: Mapping[str, tuple[float, Any]], unit: str) -> Row:
    """The row of ways that were timed over `count` events: ours, and the peer if there is one."""
    ours, *others = (count / seconds for seconds, _ in timed.values())
    return row(name, ours, others[0] if others else None, unit)


def save(rows: Sequence[Row]) -> Path:
    """Put the rows into the file, each in place of the one of its name; print them."""
    path = under_home(FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: list[Row] = json.loads(path.read_text()) if path.exists() else []
    kept = [each for each in kept if each["name"] not in {new["name"] for new in rows}]
    lines = [json.dumps(each) for each in [*kept, *rows]]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"\n{'':34}{'ours':>12}{'reference':>12}{'ratio':>8}")
    for each in rows:
        figures = f"{_short(each['ours']):>12}{_short(each['reference']):>12}"
        print(f"{each['name']:34}{figures}{_short(each['ratio']):>8}  {each['unit']}")
    return path


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    for size, letter in ((1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / (1e6 if letter == ' M' else 1e3):.4g}{letter}"
    return f"{value:.3g}"
