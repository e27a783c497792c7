"""Signals while a session starts, and what it has started by then."""

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.sessions import ended, journaled, run, synthetic, until

__all__ = ["run", "synthetic"]  # fixtures


def takes_signals(process):
    """Whether a process handles SIGTERM, which it does last; Python by itself does not."""
    status = Path(f"/proc/{process.pid}/status")
    if not Path("/proc/self/status").exists():  # it cannot be seen here: long enough is waited
        time.sleep(1)
        return True
    caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
    return caught is not None and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1 == 1


def processes(home):
    """Those whose command line names the test's home, as its store's server does."""
    name = quote(str(home.resolve()))
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if name in " ".join(process.info["cmdline"] or [])]


@pytest.mark.parametrize("after_s", [0.0, 0.4, 0.9, 1.5])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_order(run, home, synthetic, number, after_s):
    live = run("live", *synthetic)
    until(lambda: takes_signals(live))
    time.sleep(after_s)
    live.send_signal(number)
    asked = time.monotonic()
    out, err = live.communicate(timeout=10)
    assert time.monotonic() - asked < 5
    assert (live.returncode, err.count("Traceback")) == (0, 0), f"{out}\n{err}"
    until(lambda: not processes(home), timeout=10)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.04, 0.06])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_is_taken_leaves_nothing_behind(run, home, synthetic, number, after_s):
    live = run("live", *synthetic)
    time.sleep(after_s)
    live.send_signal(number)
    try:
        out, err = live.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # the interpreter itself may lose one in its first instants
        live.send_signal(number)
        out, err = live.communicate(timeout=10)
        assert number == signal.SIGINT and "Failed checking if argv[0]" in err, err
    if live.returncode:  # it ended as Python does, before the first thing was begun
        interrupted = number == signal.SIGINT and err.rstrip().endswith("\nKeyboardInterrupt")
        assert live.returncode == -number or interrupted, f"{out}\n{err}"
        assert not list(home.iterdir())
    until(lambda: not processes(home), timeout=10)


@contextlib.contextmanager
def frozen_start(home):
    """The server that starts in the test's home, held in its first instants."""
    until(lambda: processes(home))
    (server,) = processes(home)
    server.suspend()
    try:
        yield server
    finally:
        for process in processes(home):
            process.kill()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_server_that_still_starts_at_the_deadline_is_not_left_behind(
    run, home, synthetic, signals
):
    live = run("live", *synthetic)
    with frozen_start(home) as server:
        for _ in range(signals):
            live.terminate()
            time.sleep(0.2)
        out, err = live.communicate(timeout=10)
        assert live.returncode == (0 if signals == 1 else 128 + signal.SIGTERM), f"{out}\n{err}"
        server.resume()
        until(lambda: not processes(home), timeout=10)


def test_a_server_that_is_being_revived_is_not_left_behind(run, home, synthetic):
    live = run("live", *synthetic, "runtime.report_s=0.2")
    until(lambda: journaled(home, "buy_and_hold-synthetic") > 5)
    (served,) = processes(home)
    served.kill()
    until(lambda: served not in processes(home))
    with frozen_start(home) as server:
        live.terminate()
        ended(live, timeout=10)
        with contextlib.suppress(psutil.NoSuchProcess):
            server.resume()
        until(lambda: not processes(home), timeout=10)
