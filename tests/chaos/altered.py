"""Live runners with one part of them altered, and the sessions that use such a runner.

Run as `python tests/chaos/altered.py` with the words of `runners/live.py` it is that runner, but
for what `CHAOS_ALTERED` names: `timed` tells how long each batch took from the return of its poll
to its commit, `rewound` is now and then given records once more, `sealing` seals few inputs at a
time, `dated` tells when each input was about to be journaled, `stated` seals as `sealing` and tells
the checksum of each snapshot. All but `sealing` append numbers to the file that `CHAOS_FILE` names.
"""

import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from tests.chaos.lab import Lab
from tests.chaos.session import Clock, Session

Tell = Callable[[float | list[int] | list[float]], object]
ALTERED, FILE = "CHAOS_ALTERED", "CHAOS_FILE"
FEW = 10  # inputs in a file
MOST_REWOUND, SHARE = 300, 0.1  # records, and the share of polls


class _AlteredSession(Session):
    runner = "../tests/chaos/altered"
    altered = ""

    def __init__(self, lab: Lab, topic: str, *words: str, clock: Clock = "event") -> None:
        super().__init__(lab, topic, *words, clock=clock)
        self.file = lab.home / f"{self.name}.{self.altered}"
        self.file.touch()
        self.environment |= {ALTERED: self.altered, FILE: str(self.file)}

    def told(self, begin: int = 0) -> np.ndarray:
        """What was appended since the file had so many bytes."""
        return np.fromfile(self.file, np.float64, offset=begin)


class RewoundSession(_AlteredSession):
    """Its client delivers records once more, in a tenth of the polls."""

    altered = "rewound"


class DatedSession(_AlteredSession):
    """It tells when each input was about to be journaled."""

    altered = "dated"

    def walls(self) -> np.ndarray:
        """That time of every input, ns, by its number; of the last try, where one was killed."""
        seqs, walls = np.fromfile(self.file, np.int64).reshape(-1, 2).T
        found = np.zeros(seqs.max(), np.int64)
        found[seqs - 1] = walls  # in the order they were told
        return found


class StatedSession(_AlteredSession):
    """It tells the checksums of its snapshots, and seals inputs by few at a time."""

    altered = "stated"

    def hashes(self) -> dict[int, str]:
        """Input -> SHA-256 of the state after it; of the last try, where one was killed."""
        rows = np.fromfile(self.file, np.int64).reshape(-1, 5)
        return {int(row[0]): row[1:].tobytes().hex() for row in rows}


class SealingSession(_AlteredSession):
    """It seals inputs by few at a time, as only long sessions do else."""

    altered = "sealing"


class TimedSession(_AlteredSession):
    """Its batches are timed: rows of ms from the poll's return to the commit, and 1 for orders."""

    altered = "timed"
    batches = 0

    def start_trading(self) -> None:
        """Begin a life and wait until it trades."""
        self.begin()
        self.advance(20)

    def timed(self, seconds: float) -> np.ndarray:
        """The rows of the next so many seconds."""
        before = self.file.stat().st_size
        time.sleep(seconds)
        return self.told(before).reshape(-1, 2)

    def p99_ms(self, seconds: float) -> float:
        """The 99th percentile over the next so many seconds."""
        taken = self.timed(seconds)[:, 0]
        self.batches += len(taken)
        return float(np.percentile(taken, 99))


class Machine:
    """Meanwhile, what the machine itself adds to 1 ms of sleep: other work, and the kernel's."""

    def __enter__(self) -> "Machine":
        self._over: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.p99_ms = float(np.percentile(self._over, 99))

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            self._over.append((time.perf_counter() - began) * 1e3 - 1.0)


def _timed(feeds: Any, journals: Any, tell: Tell) -> None:
    poll, commit, returned = feeds.poll, journals.commit, [0.0]

    def timed_poll(feed: Any, timeout_s: float) -> Any:
        found = poll(feed, timeout_s)
        returned[0] = time.perf_counter()
        return found

    def timed_commit(journal: Any, entry: Any, tables: Any, **named: Any) -> Any:
        sealed = commit(journal, entry, tables, **named)
        if entry is not None:
            tell([(time.perf_counter() - returned[0]) * 1e3, float("orders" in tables)])
        return sealed

    feeds.poll, journals.commit = timed_poll, timed_commit


def _rewound(feeds: Any, _journals: Any, tell: Tell) -> None:
    poll, draw = feeds.poll, random.Random(os.getpid())

    def rewound_poll(feed: Any, timeout_s: float) -> Any:
        if feed._positions and draw.random() < SHARE:
            back = {p: min(at, draw.randrange(MOST_REWOUND)) for p, at in feed._positions.items()}
            feed._client.stand({p: at - back[p] for p, at in feed._positions.items()})
            tell(float(sum(back.values())))
        return poll(feed, timeout_s)

    feeds.poll = rewound_poll


def _dated(_feeds: Any, journals: Any, tell: Tell) -> None:
    commit = journals.commit

    def dated_commit(journal: Any, entry: Any, *arguments: Any, **named: Any) -> Any:
        if entry is not None:
            tell([entry.seq, time.time_ns()])
        return commit(journal, entry, *arguments, **named)

    journals.commit = dated_commit


def _stated(feeds: Any, journals: Any, tell: Tell) -> None:
    _sealing(feeds, journals, tell)
    keep = journals._keep_snapshot

    def stated_keep(journal: Any, payload: bytes) -> None:
        digest = np.frombuffer(hashlib.sha256(payload).digest(), np.int64)
        tell([journal.last_seq, *digest.tolist()])
        keep(journal, payload)

    journals._keep_snapshot = stated_keep


def _sealing(_feeds: Any, _journals: Any, _tell: Tell) -> None:
    from sysquant.sealing import Sealer

    begin = Sealer.__init__

    def begun(sealer: Any, *arguments: Any, **named: Any) -> None:
        begin(sealer, *arguments, **named | {"least": FEW})

    setattr(Sealer, "__init__", begun)  # noqa: B010


def _main() -> None:
    from runners import live
    from sysquant.feeds.kafka import KafkaFeed
    from sysquant.journal import Journal

    file = open(os.environ[FILE], "ab", buffering=0)  # noqa: PTH123, SIM115 (to the very end)
    alter = {
        "timed": _timed, "rewound": _rewound, "sealing": _sealing, "dated": _dated,
        "stated": _stated,
    }[os.environ[ALTERED]]  # fmt: skip
    alter(KafkaFeed, Journal, lambda said: file.write(np.array(said).tobytes()))
    live.main()


if __name__ == "__main__":
    _main()
