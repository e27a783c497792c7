"""Runners as processes of their own whose imports were done before: for tests of what they do.

A server process imports once what the runners import, and loads the compiled engine; each runner is
a fork of it with a command line, directory, environment and output of its own. That spares the two
seconds that any Python takes to import numba. How a runner starts from nothing is shown by the
tests that start it as a person does: `test_start`, `test_readme`, `test_conf`, `test_notebook`.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conftest import REPOSITORY

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forked", "tests.imported"])


class Forked:
    """A runner that was started: as much of `subprocess.Popen` as tests of runners use."""

    def __init__(
        self, runner: str, arguments: tuple[str, ...], cwd: Path,
        environment: Mapping[str, str] | None = None, seed: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.args = [str(REPOSITORY / "runners" / f"{runner}.py"), *arguments]
        self._said: tuple[str, str] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="said-")
        self._files = [Path(self._scratch.name, name) for name in ("out", "err")]
        given = (self.args, cwd, {**os.environ, **(environment or {})}, self._files, seed)
        self._process = CONTEXT.Process(target=_be_runner, args=given)
        self._process.start()
        self.pid: int = self._process.pid  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; all that it said."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        if self._said is None:
            out, err = (path.read_text() if path.exists() else "" for path in self._files)
            self._said = out, err
            self._scratch.cleanup()
        return self._said

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(runner: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A runner, to its end."""
    process = Forked(runner, arguments, cwd)
    try:
        out, err = process.communicate(250)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)


# What a new Python is given, and then the runner.
def _be_runner(
    argv: list[str], cwd: Path, environment: dict[str, str], said: list[Path],
    seed: Callable[[], None] | None,
) -> None:  # fmt: skip
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = argv
    if seed is not None:  # a defect
        seed()
    runpy.run_path(argv[0], run_name="__main__")
