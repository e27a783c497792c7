"""Resolve the whole set on each Python found and write `constraints.txt`.

The lowest version decides every pin; the higher ones add only what they need besides. The output
holds names and versions alone, never an address. Run it through `make constraints`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
# pip is pinned as well; appnope is for macOS, so that no resolve on another machine names it.
BESIDES = ("pip", "appnope")
# The newest soupsieve wants a later 3.11 than 3.11.2, which Debian 12 has; ccxt has pinned what it
# shares with others, such as idna, to single older versions since 4.5.65.
CAPS = ("soupsieve<3", "ccxt<4.5.65")
HEADER = """\
# The pinned set: frozen on Python 3.11, completed with what 3.12, 3.13 and macOS add.
# Written by `make constraints`; pyproject.toml says what is wanted, this file which version.
"""


def interpreter(version: str) -> str | None:
    """Path of a Python of that version, from PATH or from pyenv; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    shelved = sorted(pyenv.glob(f"{version}*/bin/python{version}"))
    candidates = [shutil.which(f"python{version}"), *map(str, reversed(shelved))]
    for path in filter(None, candidates):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def resolve(python: str, constraints: Path | None, wanted: tuple[str, ...]) -> dict[str, str]:
    """Name to version of all that pip would install, nothing installed.

    Parameters
    ----------
    python : interpreter to resolve for; the pip that runs is that of this one.
    constraints : pins to keep to, or None for the newest of everything.
    wanted : arguments of `pip install`, relative to the repository.

    Raises
    ------
    subprocess.CalledProcessError
        If there is no answer; pip has said why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        command += ["--dry-run", "--ignore-installed", "--report", str(report)]
        command += ["-c", str(constraints)] if constraints else []
        subprocess.run([*command, *wanted], cwd=REPOSITORY, check=True)
        found = json.loads(report.read_text())["install"]
    pins = {canonical(each["metadata"]["name"]): each["metadata"]["version"] for each in found}
    pins.pop("sysquant", None)
    return pins


def canonical(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write(path: Path, pins: dict[str, str]) -> None:
    """Write the pins, one a line, by name."""
    path.write_text(HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)))


def main() -> None:
    """Resolve on the lowest version, then let each higher one add to it."""
    path = REPOSITORY / "constraints.txt"
    pythons = {version: interpreter(version) for version in VERSIONS}
    if missing := [version for version, python in pythons.items() if not python]:
        sys.exit(f"the pins need Python {', '.join(VERSIONS)}; missing: {', '.join(missing)}")
    lowest, *higher = (python for python in pythons.values() if python)
    pins = resolve(lowest, None, ("-e", ".[dev,bench]", *BESIDES, *CAPS))
    write(path, pins)
    for python in higher:
        added = resolve(python, path, ("-e", ".[dev,bench]"))
        pins = {**added, **pins}
        write(path, pins)
    sys.stdout.write(f"pins={len(pins)} file={path.name}\n")


if __name__ == "__main__":
    main()
