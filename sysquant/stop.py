"""A request to stop: the first signal asks, the second ends the process at once.

Made before anything slow is imported, so that no moment of a start is without it. What is stuck
(a store that stalls, a broker that does not answer) cannot hold the process beyond its deadline:
the state is safe in the journal at any time.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from types import FrameType


def spawn(
    command: Sequence[str | Path], output: BufferedWriter, directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":  # fmt: skip
    """Start a process in a session of its own: no Ctrl-C reaches it, and it reads nothing.

    It inherits no file but `output`: no lock and no connection of this process stays open in it.

    Parameters
    ----------
    command : the program and its arguments.
    output : the file for all that it says.
    directory : where it runs; None for that of this process.
    environment : variables that it has besides those of this process.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=None if environment is None else {**os.environ, **environment},
        start_new_session=True,
    )


def stand_back(child: "subprocess.Popen[bytes]") -> None:
    """Let a process that has just begun have what nobody else wants, where the system knows how.

    It has the least share of the processors, and is the first to be ended when memory runs out.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, child.pid, 19)
    with suppress(OSError):
        Path(f"/proc/{child.pid}/oom_score_adj").write_text("1000")


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a process; one that is stuck is killed: what it holds is safe on disk."""
    child.terminate()
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class StopRequest:
    """Takes SIGTERM and SIGINT of this process; `reason` is empty until one came or `ask` did.

    Parameters
    ----------
    deadline_s : from the first signal to the end, whatever hangs; None waits for ever.

    Attributes
    ----------
    children : processes to be ended with this one; `spawn` adds to them.
    deadline_s : may be changed until the first signal.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self.reason = ""
        self.children: list[subprocess.Popen[bytes]] = []
        self._signals = 0
        self._starting = threading.Lock()
        self._code: int | None = None  # to leave with, as soon as no child is being started
        self.deadline_s = deadline_s
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def ask(self, reason: str) -> None:
        """Stop for a reason of one's own; an earlier one stands."""
        self.reason = self.reason or reason

    def spawn(
        self, command: Sequence[str | Path], output: BufferedWriter, directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":  # fmt: skip
        """Start a process as `spawn` does, one that ends with this one at whatever moment."""
        try:
            with self._starting:
                child = spawn(command, output, directory, environment)
                alive = [other for other in self.children if other.poll() is None]
                self.children = [*alive, child]
        finally:
            if self._code is not None:
                self._leave(self._code)
        return child

    def end_children(self) -> None:
        """End them, also one that is started meanwhile."""
        while self.children:
            end(self.children.pop())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._leave(128 + number)
            return
        self.ask(signal.Signals(number).name)
        if self.deadline_s is not None:
            last = threading.Timer(self.deadline_s, self._leave, [0])
            last.daemon = True
            last.start()

    def _leave(self, code: int) -> None:
        # A child that is being started is not known yet: whoever starts it leaves in our place.
        self._code = code
        if not self._starting.acquire(blocking=False):
            return
        for child in self.children:
            child.terminate()
        if code == 0:
            text = f"ended: {self.reason}; something does not answer; the journal has everything\n"
            os.write(1, text.encode())
        os._exit(code)

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked by a signal."""
        return self._signals > 0
