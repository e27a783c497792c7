"""A request to stop: the first signal asks, the second ends the process at once."""

import os
import signal
from types import FrameType


class StopRequest:
    """Takes SIGTERM and SIGINT of this process; `reason` is empty until one came or `ask` did."""

    def __init__(self) -> None:
        self.reason = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def ask(self, reason: str) -> None:
        """Stop for a reason of one's own; an earlier one stands."""
        self.reason = self.reason or reason

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.reason:
            os._exit(128 + number)  # the state is safe in the journal
        self.reason = signal.Signals(number).name
