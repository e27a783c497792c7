"""Seeded defects and the check that catches each: `python -m tests.defects [NAME ...] [--small]`.

A defect is a wrong piece of source, or of what only a live session has. `shared` holds those of
what backtest and live share, `live` those that only live can have; each has `DEFECTS`, of a name
and a layer (`where`), and `caught(defect, directory)`. Nothing of the tree at hand is changed:
each defect is seeded into a copy of it, which compiles into a cache of its own.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
# What tests read; the copy of it is a repository of its own, with a cache of its own.
TREE = ("conf", "docs", "hydra_plugins", "runners", "sysquant", "tests", "pyproject.toml")
SHORT = 24  # letters of a line that only names what an assertion is about
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".cache")


class Caught(NamedTuple):
    """A defect, and what caught it."""

    defect: str  # its name
    where: str  # its layer
    check: str  # what caught it: the id of a test, or a command
    cause: str  # that the twin names; '' where it does not apply
    said: str  # first sentence of what was said
    took_s: float


class NotShownError(Exception):
    """A defect that fits no longer, or that broke something else than what checks it."""


def copied(directory: Path) -> Path:
    """A copy of the tree below a directory."""
    tree = directory / "tree"
    tree.mkdir(parents=True)
    for name in TREE:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, tree / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(REPOSITORY / name, tree / name)
    return tree


def replaced(name: str, source: str, old: str, new: str) -> str:
    """Source with one piece of it exchanged.

    Raises
    ------
    NotShownError
        If the piece is not there exactly once: the code has changed, and the defect must follow.
    """
    count = source.count(old)
    if count != 1:
        raise NotShownError(
            f"{name}: its piece of source is there {count} times, not once: {old!r}; give it the "
            "piece that the code has now"
        )
    return source.replace(old, new)


def first_sentence(text: str) -> str:
    """The first line that says something; the one after a word or number that it is about, too."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join(lines[: 2 if len(lines[0]) < SHORT else 1]) if lines else ""
