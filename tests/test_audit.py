"""When the process that compares a session with its backtest is started, and what is told of it."""

import json
import logging
import os
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.audit import NOTHING, Audit
from sysquant.stop import spawn, stand_back

HOUR = 3600.0


class Process:
    """One that ends when the test says so."""

    def __init__(self):
        self.code, self.is_asked = None, False

    def poll(self):
        return self.code

    def terminate(self):
        self.is_asked = True


class Bench:
    """An audit with a clock, processes and notes of its own."""

    def __init__(self, path, every_s=HOUR):
        self.now, self.started, self.notes = 100.0, [], []
        self.says, self.error = b"", None
        self.audit = Audit(self.start, path, every_s, clock=lambda: self.now)

    def start(self, output):
        if self.error is not None:
            raise self.error
        output.write(self.says)
        self.started.append((self.now, Process()))
        return self.started[-1][1]

    def look(self, after_s=0.0):
        self.now += after_s
        self.audit.look(lambda kind, detail, level: self.notes.append((kind, detail, level)))

    def ends(self, code):
        self.started[-1][1].code = code
        self.look()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "twin.log")


def test_the_first_comparison_begins_after_one_period_and_the_next_one_after_another(bench):
    bench.look()
    bench.look(HOUR - 1)
    assert bench.started == []
    bench.look(1)
    assert len(bench.started) == 1
    bench.ends(0)
    bench.look(HOUR - 1)
    assert len(bench.started) == 1
    bench.look(2)
    assert len(bench.started) == 2 and bench.notes == []


def test_a_session_that_looks_late_is_not_made_up_for(bench):
    bench.look()
    bench.look(5 * HOUR)
    bench.ends(0)
    assert len(bench.started) == 1
    bench.look(HOUR - 1)
    assert len(bench.started) == 1


def test_one_that_still_runs_is_not_joined_by_another_and_that_is_said_once(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.look()
    for _ in range(4):
        bench.look(HOUR)
    said = [record.message for record in caplog.records]
    assert len(bench.started) == 1 and len(said) == 1 and "still runs" in said[0]
    bench.ends(0)
    bench.look(HOUR)
    assert len(bench.started) == 2 and bench.notes == []


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        (b"a table\nfailed: momentum: +7 is unexplained\nalert sent\n", 1,
         "exit code 1: failed: momentum: +7 is unexplained"),
        (b"error: the store does not answer\n", 1, "exit code 1: error: the store does not answer"),
        (b"Traceback\nMemoryError\n", 1, "exit code 1: MemoryError"),
        (b"\xff\n", 2, "exit code 2: \ufffd"),
        (b"", -9, "not compared, it was ended by signal 9"),
    ],
)  # fmt: skip
def test_a_failure_is_one_event_and_one_warning(bench, says, code, told):
    bench.look()
    bench.says = says
    bench.look(HOUR)
    bench.ends(code)
    bench.look(1)
    assert bench.notes == [("twin", told, logging.WARNING)]


def test_what_said_nothing_and_failed_is_told_with_the_place_of_its_words(bench, tmp_path):
    bench.look()
    bench.look(HOUR)
    bench.ends(1)
    ((_, told, _),) = bench.notes
    assert told == f"exit code 1: nothing was said, see {tmp_path / 'twin.log'}"


def test_only_the_words_of_the_last_comparison_are_told_however_long(bench):
    bench.look()
    for says in (b"failed: old\n", b"x" * 50_000 + b"\nnew\n", b"y" * 50_000):
        bench.says = says
        bench.look(HOUR)
        bench.ends(1)
    first, second, third = (detail for _, detail, _ in bench.notes)
    assert first == "exit code 1: failed: old" and second == "exit code 1: new"
    assert third == "exit code 1: " + "y" * 500


def test_that_there_is_nothing_to_compare_with_is_information_and_told_once(bench):
    bench.look()
    bench.says = b"error: the store has no tick of the topic\n"
    for _ in range(3):
        bench.look(HOUR)
        bench.ends(NOTHING)
    told = ("twin", "not compared so far: error: the store has no tick of the topic", logging.INFO)
    assert bench.notes == [told] and len(bench.started) == 3
    bench.look(HOUR)
    bench.ends(0)
    bench.look(HOUR)
    bench.ends(NOTHING)
    assert bench.notes == [told, told]


def test_one_that_cannot_be_started_is_told_and_tried_again_after_the_period(bench):
    bench.look()
    bench.error = BlockingIOError(11, "Resource temporarily unavailable")
    bench.look(HOUR)
    ((kind, told, level),) = bench.notes
    assert (kind, level) == ("twin", logging.WARNING)
    assert "cannot be started" in told and "Resource temporarily unavailable" in told
    bench.look(HOUR - 1)
    bench.error = None
    assert bench.started == [] and len(bench.notes) == 1
    bench.look(1)
    assert len(bench.started) == 1


def test_a_log_that_cannot_be_written_ends_no_session(tmp_path):
    bench = Bench(tmp_path / "gone" / "twin.log")
    bench.look()
    bench.look(HOUR)
    assert bench.started == [] and "No such file" in bench.notes[0][1]


def test_never_means_never(tmp_path):
    bench = Bench(tmp_path / "twin.log", None)
    for _ in range(5):
        bench.look(1e9)
    assert bench.started == [] and bench.notes == []


def test_the_end_of_a_session_ends_the_comparison_and_starts_none(bench):
    bench.look()
    bench.look(HOUR)
    process = bench.started[0][1]
    bench.audit.close()
    assert process.is_asked
    bench.look(10 * HOUR)
    assert len(bench.started) == 1 and bench.notes == []


def test_the_end_of_a_session_leaves_alone_what_has_ended(bench):
    bench.look()
    bench.look(HOUR)
    process = bench.started[0][1]
    process.code = 0
    bench.audit.close()
    bench.audit.close()
    assert not process.is_asked


@given(
    every_s=st.floats(1, 100),
    steps=st.lists(
        st.tuples(st.floats(0, 150), st.sampled_from([None, None, 0, 1, NOTHING, -9])), max_size=60
    ),
)
def test_at_no_time_do_two_run_and_each_failure_is_told_once(tmp_path_factory, every_s, steps):
    bench = Bench(tmp_path_factory.mktemp("audit") / "twin.log", every_s)
    bench.look()
    began, codes, seen = bench.now, [], 0
    for after_s, code in steps:
        bench.look(after_s)
        assert len(bench.started) - seen in (0, 1)
        running = [process for _, process in bench.started if process.code is None]
        assert running == [process for _, process in bench.started[-1:] if process.code is None]
        seen = len(bench.started)
        if code is not None and running:
            codes.append(code)
            bench.ends(code)
            seen = len(bench.started)
    times = [began, *(at for at, _ in bench.started)]
    assert all(two - one >= every_s * (1 - 1e-9) for one, two in pairwise(times))
    nothing = [n for n, code in enumerate(codes) if code == NOTHING != [0, *codes][n]]
    failed = [code for code in codes if code not in (0, NOTHING)]
    levels = [level for _, _, level in bench.notes]
    assert levels.count(logging.WARNING) == len(failed)
    assert levels.count(logging.INFO) == len(nothing)


# -- the real process

LOOKS = """
import json, os
from pathlib import Path
oom = Path("/proc/self/oom_score_adj")
print(json.dumps({
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "oom": int(oom.read_text()) if oom.exists() else 1000,
    "given": os.environ.get("SYSQUANT_GIVEN"), "path": os.environ.get("PATH"),
    "files": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{n}")) if oom.exists() else [],
}))
"""


def test_the_process_stands_back_inherits_nothing_and_has_what_it_is_given(tmp_path):
    said = tmp_path / "said"
    with (tmp_path / "lock").open("w"), said.open("wb") as output:
        child = spawn([sys.executable, "-c", LOOKS], output, tmp_path, {"SYSQUANT_GIVEN": "this"})
        stand_back(child)
        assert child.wait(30) == 0
    found = json.loads(said.read_text())
    assert (found["nice"], found["oom"]) == (19, 1000)
    assert found["given"] == "this" and found["path"] == os.environ["PATH"]
    assert set(found["files"]) <= {"/dev/null", str(said)}


def test_a_process_that_is_gone_already_can_stand_back(tmp_path):
    with (tmp_path / "said").open("wb") as output:
        child = spawn([sys.executable, "-c", ""], output)
        child.wait(30)
        stand_back(child)
