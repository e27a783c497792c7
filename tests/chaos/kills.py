"""Ends of live sessions at moments drawn from a seed, and the age of the prices they traded on."""

import random
import signal
import time
from collections.abc import Sequence

import numpy as np

from sysquant.failpoints import Point
from tests.chaos.altered import DatedSession
from tests.chaos.rows import DECIDED_S, entries
from tests.chaos.session import Session, until

ONCE = (Point.RECOVERING, Point.RECOVERED, Point.FINISHING, Point.FINISHED)
SELDOM = (Point.SNAPSHOT, Point.AFTER_SNAPSHOT, Point.FILE_WRITTEN, Point.FILE_NAMED)
LONGEST_S = 1.4  # that a life gets which ends at random; it trades after half of that
UNREACHED_S = 20.0


def kill_often(session: Session, kills: int, seed: int, points: Sequence[Point]) -> dict[str, int]:
    """So many lives that end by SIGKILL: at these failpoints in turn, and at random moments.

    Returns
    -------
    `at_points` and `at_random`: how many were of each kind; `unreached`: those whose point did
    not come in time.
    """
    draw = random.Random(seed)
    found = {"at_points": 0, "at_random": 0, "unreached": 0}
    for number in range(kills):
        if number < len(points) or number % 2:
            point = points[(number if number < len(points) else number // 2) % len(points)]
            found["at_points" if _killed_at(session, point, draw) else "unreached"] += 1
        else:
            session.start()
            time.sleep(draw.uniform(0.0, LONGEST_S))
            _killed(session)
            found["at_random"] += 1
    return found


def _killed_at(session: Session, point: Point, draw: random.Random) -> bool:
    # Whether it was the failpoint that killed it.
    most = 1 if point in ONCE else 2 if point in SELDOM else 8
    session.start(kill_at=f"{int(point)}:{draw.randint(1, most)}")
    if point in (Point.FINISHING, Point.FINISHED):
        session.advance(1, UNREACHED_S)
        assert session.process is not None
        session.process.terminate()
    try:
        until(lambda: not session.is_alive(), UNREACHED_S)
    except TimeoutError:
        _killed(session)
        return False
    ended = session.wait()
    assert ended.code == -signal.SIGKILL, ended.said
    return True


def _killed(session: Session) -> None:
    ended = session.end(signal.SIGKILL)
    assert ended.code == -signal.SIGKILL, ended.said


def stale(session: DatedSession, limit_s: float) -> dict[str, float]:
    """Entries, those on a price older than the limit when they were journaled, the oldest, s."""
    seqs, priced = entries(session)
    walls = session.walls()
    ages = (walls[seqs - 1] - priced) / 1e9 if len(seqs) else np.zeros(1)
    return {
        "entries": len(seqs),
        "stale": int((ages > limit_s + DECIDED_S).sum()),
        "oldest_s": float(ages.max()),
    }
