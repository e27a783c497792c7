"""Failpoints: each is on the way of a session, and ends the process when it is asked to."""

import inspect
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

from sysquant import failpoints, journal, live, outbox, recovery, sealing
from sysquant.failpoints import Point
from sysquant.outbox import Outbox
from tests.conftest import REPOSITORY
from tests.market import ticks
from tests.test_live import MemoryFeed, session

MODULES = (journal, live, outbox, recovery, sealing)


class AnyClient:
    """Takes whatever is inserted."""

    def insert_arrow(self, *arguments, **named):
        pass


def test_every_point_is_reached_by_a_session_and_its_recovery(tmp_path, monkeypatch):
    passed = Counter()
    for module in MODULES:
        monkeypatch.setattr(module, "reached", lambda point: passed.update([point]))
    for events in (ticks(300), ticks(600)):
        runner = session(tmp_path, MemoryFeed(events), {}, least=1)
        runner.outbox.close()
        runner.outbox = Outbox(runner.journal.path, AnyClient)
        runner.run()
    assert set(passed) == set(Point)


def test_every_point_stands_in_one_place():
    found = Counter()
    for module in MODULES:
        found.update(re.findall(r"reached\(Point\.(\w+)\)", inspect.getsource(module)))
    assert found == Counter(point.name for point in Point)
    assert [int(point) for point in Point] == list(range(1, len(Point) + 1))


@pytest.mark.parametrize(("said", "lived"), [("4", 0), ("4:3", 2), ("5", 3), ("", 3)])
def test_a_process_ends_itself_at_the_passage_that_is_named(said, lived):
    program = (
        "import os; from sysquant.failpoints import Point, reached\n"
        f"os.environ['SYSQUANT_KILL_AT'] = {said!r}\n"
        "for _ in range(3): reached(Point.STEPPED); print('lived', flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("lived") == lived
    assert done.returncode == (0 if lived == 3 else -signal.SIGKILL)


@pytest.mark.parametrize("said", ["0", "99", "x", "3:x"])
def test_what_names_no_point_is_one_sentence(said, monkeypatch):
    monkeypatch.setenv("SYSQUANT_KILL_AT", said)
    failpoints._wanted.cache_clear()
    try:
        with pytest.raises(failpoints.ConfigError, match="must be a number of 1 to 20"):
            failpoints.reached(Point.POLLED)
    finally:
        monkeypatch.undo()
        failpoints._wanted.cache_clear()
