"""Runs scenarios and writes down what they found: `python -m tests.chaos [--small] [name ...]`.

A scenario is a function of a `Lab` in a file of its own, which `scenario` puts into the table below
with its sizes and what must hold of its figures. At full size every round appends a row to
`runs/chaos.jsonl`; a round that passed on this commit and machine is not done again.
"""

import argparse
import contextlib
import importlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sysquant.compiled import machine
from sysquant.errors import SysquantError
from tests.chaos.lab import Lab
from tests.check_engine import commit
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "runs" / "chaos.jsonl"
WORST = ("_s", "_ms")  # ends of the names of figures of which the largest counts, not the sum

BREAKS_OFF = AssertionError, TimeoutError, SysquantError  # a round, but not the others

Figures = Mapping[str, float]
Row = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """What is done, how often, and what must come of it.

    Parameters
    ----------
    run : takes a lab, the round's seed and the size; returns the figures.
    small, full : sizes, as arguments of `run`.
    rounds : at full size.
    zero : figures that must be 0.
    most, least : figure -> bound, at full size and at small size alike.
    """

    run: Callable[..., Figures]
    small: Mapping[str, Any]
    full: Mapping[str, Any]
    rounds: int = 1
    zero: Sequence[str] = ()
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of its function."""
        return self.run.__name__

    def broken(self, figures: Figures) -> list[str]:
        """What does not hold, as `lost is 3, at most 0`."""
        most = dict.fromkeys(self.zero, 0.0) | dict(self.most)
        said = [
            f"{name} is {figures[name]:g}, at most {limit:g}"
            for name, limit in most.items()
            if not figures[name] <= limit
        ]
        return said + [
            f"{name} is {figures[name]:g}, at least {limit:g}"
            for name, limit in self.least.items()
            if not figures[name] >= limit
        ]


SCENARIOS: dict[str, Scenario] = {}


def scenario(**given: Any) -> Callable[[Callable[..., Figures]], Callable[..., Figures]]:
    """Put a function into the table; the arguments are those of `Scenario`."""

    def put(run: Callable[..., Figures]) -> Callable[..., Figures]:
        SCENARIOS[run.__name__] = Scenario(run, **given)
        return run

    return put


def load() -> dict[str, Scenario]:
    """Every scenario of the files beside this one, by name."""
    for path in sorted(Path(__file__).parent.glob("scenario_*.py")):
        importlib.import_module(f"tests.chaos.{path.stem}")
    return SCENARIOS


def take(one: Scenario, lab: Lab, seed: int, size: Mapping[str, Any]) -> Row:
    """One round; the row of the file."""
    began = time.monotonic()
    figures: Figures = {}
    try:
        figures = one.run(lab, seed, **size)
        broken = one.broken(figures)
    except BREAKS_OFF as error:
        broken = [f"{type(error).__name__}: {error}"]
    return {
        "ts": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "scenario": one.name,
        "round": seed,
        "size": dict(size),
        "figures": {name: round(value, 4) for name, value in figures.items()},
        "broken": broken,
        "seconds": round(time.monotonic() - began, 1),
    }


def done_before(wanted: Sequence[tuple[Scenario, int]]) -> dict[tuple[str, int], Row]:
    """Rows of the file that need not be made again, by scenario and round."""
    if not FILE.exists():
        return {}
    sizes = {one.name: dict(one.full) for one, _ in wanted}
    now = commit(), machine()
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    return {
        (row["scenario"], row["round"]): row
        for row in rows
        if not row["broken"]
        and (row["commit"], row["machine"]) == now
        and row["size"] == sizes.get(row["scenario"])
    }


def run(names: Sequence[str], *, small: bool, rounds: int | None = None) -> list[Row]:
    """Every round of these scenarios, or so many of each; at full size the file's are left out."""
    chosen = [SCENARIOS[name] for name in names]
    count = 1 if small else rounds
    wanted = [(one, seed) for one in chosen for seed in range(count or one.rounds)]
    done = {} if small else done_before(wanted)
    left = [(one, seed) for one, seed in wanted if (one.name, seed) not in done]
    rows = [done[one.name, seed] for one, seed in wanted if (one.name, seed) in done]
    if not left:
        return rows
    with contextlib.closing(Lab()) as lab, tqdm(left, unit=" rounds", disable=None) as bar:
        for one, seed in bar:
            bar.set_description(f"{one.name} {seed + 1}")
            row = take(one, lab, seed, one.small if small else one.full)
            rows.append(row)
            bar.write(f"{one.name}: {figures_said(row['figures'])} ({row['seconds']} s)")
            for said in row["broken"]:
                bar.write(f"{one.name}: BROKEN, {said}")
            if not small:
                FILE.parent.mkdir(exist_ok=True)
                with FILE.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return rows


def figures_said(figures: Figures) -> str:
    """Figures on one line."""
    return ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def added(rows: Sequence[Row]) -> dict[str, float]:
    """Figures over several rounds: the worst of what is measured, the sum of what is counted."""
    total: dict[str, float] = {}
    for row in rows:
        for name, value in row["figures"].items():
            before = total.get(name, 0.0)
            total[name] = max(before, value) if name.endswith(WORST) else before + value
    return total


def show(rows: Sequence[Row]) -> None:
    """The table: a line for each scenario."""
    table = Table("scenario", "rounds", "figures", "seconds", "holds")
    for name in dict.fromkeys(row["scenario"] for row in rows):
        own = [row for row in rows if row["scenario"] == name]
        broken = [said for row in own for said in row["broken"]]
        seconds = sum(row["seconds"] for row in own)
        verdict = "[red]no: " + "; ".join(dict.fromkeys(broken)) if broken else "yes"
        table.add_row(name, str(len(own)), figures_said(added(own)), f"{seconds:.0f}", verdict)
    Console().print(table)


def main() -> int:
    """Run, write, show; 1 if something does not hold."""
    known = load()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*known, []], help="default: all of them")
    parser.add_argument("--small", action="store_true", help="one short round of each")
    parser.add_argument("--rounds", type=int, help="of each, at full size; default: all")
    given = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("sysquant").setLevel(logging.ERROR)
    rows = run(given.names or list(known), small=given.small, rounds=given.rounds)
    show(rows)
    return 1 if any(row["broken"] for row in rows) else 0
