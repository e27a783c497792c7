"""A request to stop: the first signal asks, the second ends the process at once.

Made before anything slow is imported, so that no moment of a start is without it. What is stuck
(a store that stalls, a broker that does not answer) cannot hold the process beyond its deadline:
the state is safe in the journal at any time.
"""

import os
import signal
import subprocess
import threading
from types import FrameType


class StopRequest:
    """Takes SIGTERM and SIGINT of this process; `reason` is empty until one came or `ask` did.

    Parameters
    ----------
    deadline_s : from the first signal to the end, whatever hangs; None waits for ever.

    Attributes
    ----------
    children : processes to be ended with this one.
    deadline_s : may be changed until the first signal.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self.reason = ""
        self.children: list[subprocess.Popen[bytes]] = []
        self._signals = 0
        self.deadline_s = deadline_s
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def ask(self, reason: str) -> None:
        """Stop for a reason of one's own; an earlier one stands."""
        self.reason = self.reason or reason

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._leave(128 + number)
        self.ask(signal.Signals(number).name)
        if self.deadline_s is not None:
            last = threading.Timer(self.deadline_s, self._leave, [0])
            last.daemon = True
            last.start()

    def _leave(self, code: int) -> None:
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
