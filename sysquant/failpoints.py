"""Numbered points at which a process ends itself as a crash would, for the tests of recovery.

`SYSQUANT_KILL_AT=12` kills the process at its first passage of point 12, `SYSQUANT_KILL_AT=12:5` at
the fifth. Without the variable a point costs a tenth of a microsecond and does nothing.
"""

import os
import signal
from collections import Counter
from enum import IntEnum
from functools import cache

from sysquant.errors import ConfigError

VARIABLE = "SYSQUANT_KILL_AT"
_passed: Counter[int] = Counter()


class Point(IntEnum):
    """Every point, by the moment it stands for."""

    RECOVERING = 1  # the snapshot is restored, the inputs after it are not replayed
    RECOVERED = 2  # all is replayed; neither the start nor the feed's position is noted
    POLLED = 3  # records were read
    STEPPED = 4  # the engine has decided, nobody knows
    COMMITTING = 5  # all that is to be written is made
    COMMITTED = 6  # it happened; its batches are not handed to who sends them
    FINISHING = 7  # the end was asked for, nothing of it is done
    FINISHED = 8  # the last state is written; its batches are not sent
    BEFORE_BEGIN = 9  # the journal: before a transaction
    BEGUN = 10  # nothing is in it
    BEFORE_COMMIT = 11  # everything is in it
    AFTER_COMMIT = 12  # it is on disk
    BATCH = 13  # a batch of rows has its number, its rows do not know it
    SNAPSHOT = 14  # a snapshot is written, older ones are there
    AFTER_SNAPSHOT = 15  # its transaction is over, the file is not made smaller
    BEFORE_INSERT = 16  # the outbox: rows are read, the store knows nothing of them
    INSERTED = 17  # the store has them, the journal does not know
    CHECKPOINTED = 18  # the journal is told, its log is moved
    FILE_WRITTEN = 19  # the sealer: old inputs are in a file without a name
    FILE_NAMED = 20  # it has its name, the journal does not forget them


def reached(point: Point) -> None:
    """Say that a point is passed; the process may not come back from it."""
    wanted = _wanted()
    if wanted is not None and point == wanted[0]:
        _passed[point] += 1
        if _passed[point] == wanted[1]:
            os.kill(os.getpid(), signal.SIGKILL)


@cache  # at the first passage: the variable may be set after this module was imported
def _wanted() -> tuple[int, int] | None:
    said = os.environ.get(VARIABLE)
    if not said:
        return None
    number, _, passage = said.partition(":")
    try:
        return Point(int(number)), int(passage or 1)
    except ValueError:
        raise ConfigError(
            f"{VARIABLE} must be a number of 1 to {max(Point)}, or that and a passage as 12:5, "
            f"was {said!r}"
        ) from None
