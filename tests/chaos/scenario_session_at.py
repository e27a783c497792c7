"""A recorded session at random inputs: the state is the one that its process had, to the byte."""

import time

import numpy as np

from sysquant.failpoints import Point
from sysquant.session import Session as Recorded
from tests.chaos.altered import StatedSession
from tests.chaos.harness import scenario
from tests.chaos.kills import kill_often
from tests.chaos.rows import maker_of
from tests.chaos.session import Source, market

POINTS = Point.STEPPED, Point.BEFORE_COMMIT, Point.AFTER_SNAPSHOT
SLOW_S = 600.0  # with a snapshot at every input


@scenario(
    small={"positions": 30, "kills": 2}, full={"positions": 1_000, "kills": 20},
    zero=("different",), least={"inputs": 50, "files": 2, "checked": 20},
)  # fmt: skip
def session_at(lab, seed, positions, kills):
    topic = lab.topic()
    with (
        Source(lab, topic, market(), 200) as source,
        StatedSession(lab, topic, "runtime.snapshot_s=0") as session,
    ):
        kill_often(session, kills, seed, POINTS)
        session.begin()
        session.advance(positions, SLOW_S)
        source.finish(at_once=True)
        session.settle(SLOW_S)
        hashes, last = session.hashes(), session.inputs()
    files = lab.home / "runs" / session.run
    recorded = Recorded(session.directory, files, maker_of(session.words))
    known = np.array([seq for seq in sorted(hashes) if seq <= last])
    seqs = np.random.default_rng(seed).choice(known, positions).tolist()
    began = time.monotonic()
    different = sum(recorded.after(seq).hash != hashes[seq] for seq in seqs)
    return {
        "inputs": last, "checked": len(set(seqs)), "different": different,
        "files": len(list(files.glob("inputs-*.parquet"))),
        "each_ms": (time.monotonic() - began) / positions * 1e3,
    }  # fmt: skip
