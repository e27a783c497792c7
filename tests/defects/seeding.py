"""Seeds each defect and shows what caught it: `python -m tests.defects [NAME ...] [--small]`.

At full size every defect appends a row to `runs/defects.jsonl`; one that was caught on this commit
and machine is not seeded again, unless it is named. The tree without a defect must pass the same
tests. Exit code 1 if that fails, or if a defect was not caught.
"""

import argparse
import importlib
import importlib.util
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sysquant.compiled import machine
from sysquant.errors import SysquantError
from tests.check_engine import commit
from tests.defects import REPOSITORY, NotShownError, first_sentence, shared

FILE = REPOSITORY / "runs" / "defects.jsonl"
CONTROL = "(none)"
AT_ONCE = 2
COLUMNS = ("defect", "where", "check", "cause", "took_s")
# Of one defect, but not of the others.
BREAKS_OFF = AssertionError, NotShownError, OSError, SysquantError, subprocess.SubprocessError

Row = dict[str, Any]


def kinds() -> list[ModuleType]:
    """The modules of defects that are there."""
    names = [f"tests.defects.{name}" for name in ("shared", "live")]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]


def load() -> dict[str, tuple[str, Any]]:
    """Every defect by name, with its module's."""
    return {one.name: (kind.__name__, one) for kind in kinds() for one in kind.DEFECTS}


def take(name: str, tests: Sequence[str] = ()) -> Row:
    """Seed one defect, or none and run those tests; the row of the file."""
    began = time.monotonic()
    row: Row = {
        "ts": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(), "machine": machine(), "defect": name, "where": "", "check": "",
        "cause": "", "said": "no check said anything", "took_s": 0.0, "caught": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sysquant-defect-") as directory:
        try:
            if name == CONTROL:
                count = shared.control(Path(directory), tests)
                said = f"the tree as it is passes the same {count} tests"
                return row | {"said": said, "passes": True}
            module, one = load()[name]
            row["where"] = one.where
            found = importlib.import_module(module).caught(one, Path(directory))
        except BREAKS_OFF as error:
            found, row["said"] = None, f"{type(error).__name__}: {error}"
    row["took_s"] = round(time.monotonic() - began, 1)
    return row if found is None else row | found._asdict() | {"caught": True}


def done_before() -> dict[str, Row]:
    """Rows of the file that need not be made again, by defect."""
    now = commit(), machine()
    if not FILE.exists() or now[0].endswith("+"):
        return {}
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    return {
        row["defect"]: row
        for row in rows
        if row["caught"] and (row["commit"], row["machine"]) == now
    }


def run(
    names: Sequence[str], done: dict[str, Row], *, is_kept: bool
) -> tuple[list[Row], Row | None]:
    """Rows of these defects, in their order, and that of the control where tests are shared."""
    known = load()
    left = [name for name in names if name not in done]
    tests = sorted({
        test for name in names if known[name][0] == shared.__name__ for test in known[name][1].tests
    })  # fmt: skip
    rows = {name: done[name] for name in names if name in done}
    with (
        ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(left), unit=" defects", disable=None) as bar,
    ):
        # The longest first: the others fill the time beside it.
        control = pool.submit(take, CONTROL, tests) if tests else None
        slow = sorted(left, key=lambda name: "test_oracle" not in str(known[name][1]))
        for future in as_completed([pool.submit(take, name) for name in slow]):
            row = future.result()
            rows[row["defect"]] = row
            bar.update()
            bar.set_description(row["defect"])
            if is_kept:
                FILE.parent.mkdir(exist_ok=True)
                with FILE.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return [rows[name] for name in names], control.result() if control else None


def show(rows: Sequence[Row]) -> None:
    """The table: rich at a terminal, plain lines elsewhere."""
    console = Console()
    cells = [
        [f"{row[name]:.1f}" if name == "took_s" else row[name] for name in COLUMNS] for row in rows
    ]
    heads = [*COLUMNS[:-1], "seconds"]
    if console.is_terminal:
        table = Table(*heads)
        for row, line in zip(rows, cells, strict=True):
            table.add_row(*line, style=None if row["caught"] else "red")
        console.print(table)
    else:
        lines = [heads, *cells]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(f"{c:{w}}" for c, w in zip(line, wide, strict=True)).rstrip())
    for row in rows:
        if not row["caught"]:
            print(f"{row['defect']} was NOT CAUGHT: {first_sentence(row['said'])}")


def main() -> int:
    """Run, write, show; 1 if something was not caught."""
    known = load()
    parser = argparse.ArgumentParser(prog="python -m tests.defects", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*known, []], help="default: all of them")
    parser.add_argument("--small", action="store_true", help="a few of each kind; no rows")
    given = parser.parse_args()
    few = [name for kind in kinds() for name in getattr(kind, "SMALL", ())]
    names = given.names or (few if given.small else list(known))
    done = {} if given.names or given.small else done_before()
    rows, control = run(names, done, is_kept=not given.small)
    show(rows)
    holds = control is None or "passes" in control
    if control is not None:
        print(f"{'control' if holds else 'CONTROL FAILED'}: {control['said']}")
    count = sum(row["caught"] for row in rows)
    print(f"{count} of {len(rows)} caught")
    return 0 if holds and count == len(rows) else 1
