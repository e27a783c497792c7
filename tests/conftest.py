"""What every test shares: an environment of its own, the real recordings, a home to write in."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Before the first import of the package: nothing of the caller's settings reaches a test, and
# compiled functions are kept once for all homes, also those of child processes.
for name in [name for name in os.environ if name.startswith("SYSQUANT_")]:
    del os.environ[name]
os.environ["SYSQUANT_CACHE"] = str(REPOSITORY / ".cache")
# What tests run is nobody's research; a test with a home of its own has its ledger there.
_RESEARCH = tempfile.TemporaryDirectory(prefix="sysquant-research-")
os.environ["SYSQUANT_RESEARCH"] = _RESEARCH.name

# A compiled function's first example takes seconds, and the same tests must fail tomorrow.
settings.register_profile("sysquant", deadline=None, derandomize=True, database=None)
settings.load_profile("sysquant")

pytest_plugins = ["tests.broker", "tests.grouping"]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the engine once, before the workers and their children would all do it at once."""
    # A copy with a seeded defect compiles only what its test asks for.
    is_seeded = config.pluginmanager.has_plugin("tests.defects.witness")
    if not (hasattr(config, "workerinput") or config.option.collectonly or is_seeded):
        from tests.market import engine, ticks

        engine().step(ticks(2))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real recordings, which lie beside the repository and are never copied into it."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real recordings (../shared/data) are not on this machine: not shown here")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SYSQUANT_HOME, for this process and its children."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("SYSQUANT_HOME", str(path))
    monkeypatch.delenv("SYSQUANT_RESEARCH", raising=False)
    return path


@contextlib.contextmanager
def answered_once(*question: str) -> Iterator[bool]:
    """Whether a question is new: what its answer follows from, in full; kept if nothing is raised.

    For what takes a tool long to find, with the same result each time.
    """
    name = hashlib.sha256("\0".join(question).encode()).hexdigest()
    known = REPOSITORY / ".cache" / "answered" / name
    yield not known.exists()
    known.parent.mkdir(parents=True, exist_ok=True)
    known.touch()
