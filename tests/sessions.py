"""Runners as processes, for tests: started, waited for, looked at."""

import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

from sysquant.serve import ensure_server
from sysquant.store import connect, migrate
from tests.conftest import REPOSITORY as ROOT
from tests.forked import Forked


@pytest.fixture
def run(home):
    """Start a runner; every process is ended with the test."""
    # To be ignored is inherited by what starts in the background, and by all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(runner, *arguments, cwd=home, before=()):
        command = [*before, sys.executable, str(ROOT / "runners" / f"{runner}.py"), *arguments]
        return subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    yield from starting(start)


@pytest.fixture
def forked(home):
    """The same for tests of what a runner does once it is there; see `tests.forked`."""

    def start(runner, *arguments, cwd=home):
        return Forked(runner, arguments, cwd)

    yield from starting(start)


def starting(start):
    """A function that starts processes and remembers them, which end with the test."""
    started = []

    def remembered(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    yield remembered
    for process in started:
        if process.poll() is None:
            servers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for server in servers:  # what is killed cannot end them
                with contextlib.suppress(psutil.NoSuchProcess):
                    server.terminate()
        process.communicate()


def ended(process, *, timeout=250):
    """Output of a process that must end well."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def journaled(home, book):
    """Inputs in a book's journal, while its runner writes it."""
    path = home / "data" / "journals" / book / "journal.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return db.execute("SELECT count(*) FROM inputs").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0


def until(is_so, *, timeout=180):
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture
def synthetic():
    """A session that goes on for long: an hour of a synthetic market at 60 times its speed."""
    return ["strategy=buy_and_hold", "feed=synthetic", "feed.speed=60", "runtime.warmup_bars=0"]


def run_of(output):
    """The run that a runner's last lines name."""
    return re.findall(r"run (\S+?)[,\s]", output + " ")[-1]


@pytest.fixture
def server(home):
    """A process that serves the embedded store of the test's home."""
    _, process = ensure_server("chdb:data/store")
    assert process is not None
    yield process
    process.terminate()
    process.wait(10)


@pytest.fixture
def store(server):
    """A client of it."""
    client = connect("chdb:data/store")
    migrate(client)
    yield client
    client.close()
