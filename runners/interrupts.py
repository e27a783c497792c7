"""Signals to a runner that does one thing to its end: ended where nothing is lost, else finished.

Input: SIGINT and SIGTERM. Output: `Ended`, raised where the runner stands, after one line that says
so; from `finish` on nothing, for what was begun is brought to its end. The second signal ends the
process at once. Made before anything slow is imported, so that no moment of a start is without it.
"""

import os
import signal
from types import FrameType


class Ended(SystemExit):
    """A signal ended this; exit code 1.

    Parameters
    ----------
    reason : name of the signal.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(1)
        self.reason = reason


class Interrupts:
    """Takes SIGINT and SIGTERM of this process.

    Parameters
    ----------
    undone : what is said to be left undone, as `nothing was published`.
    """

    def __init__(self, undone: str) -> None:
        self._undone, self._signals, self._finishes = undone, 0, False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def finish(self) -> None:
        """From now on nothing is left half done: a signal does not end it any more."""
        self._finishes = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals > 1:
            os._exit(128 + number)
        if self._finishes:
            os.write(1, f"{name}: it ends as soon as this is recorded\n".encode())
            return
        os.write(1, f"ended: {name}; {self._undone}\n".encode())
        raise Ended(name)
