"""Where outputs, data, journals and caches lie: under one directory, whatever the caller's own."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """Root of everything written: `SYSQUANT_HOME`, or else the repository.

    Returns
    -------
    Absolute path; it need not exist yet.
    """
    return Path(os.environ.get("SYSQUANT_HOME") or PACKAGE.parent).expanduser().resolve()


def under_home(path: str | Path) -> Path:
    """`path` itself when absolute, otherwise below `home()`."""
    return home() / Path(path).expanduser()
