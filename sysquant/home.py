"""Where outputs, data, journals and caches lie: under one directory, whatever the caller's own."""

import os
import threading
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """Root of everything written: `SYSQUANT_HOME`, or else the repository.

    Returns
    -------
    Absolute path; it need not exist yet.
    """
    return Path(os.environ.get("SYSQUANT_HOME") or PACKAGE.parent).expanduser().resolve()


def cache() -> Path:
    """Root of what can be made again: `SYSQUANT_CACHE`, or else `.cache` of `home()`."""
    return Path(os.environ.get("SYSQUANT_CACHE") or home() / ".cache").expanduser().resolve()


def under_home(path: str | Path) -> Path:
    """`path` itself when absolute, otherwise below `home()`."""
    return home() / Path(path).expanduser()


def sync(path: Path) -> None:
    """Make sure that a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it; on disk when it returns.

    Parameters
    ----------
    path : in a directory that is there; what was there is replaced.
    content : of the file.
    mode : of the file, from its first byte on.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)
