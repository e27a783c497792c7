"""Kafka -> `ticks`: the one writer of a topic's trades, apart from whoever trades on them.

Input: a feed of ticks. Output: rows of `ticks` (and, by materialised view, `bars_1m`) and
`dead_letter`, once each: a batch is a range of offsets fixed in the journal before the first try
and re-sent unchanged until it arrived. Kafka's committed offsets say what the store has.
"""

import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sysquant.errors import FeedError
from sysquant.home import home
from sysquant.journal import Journal
from sysquant.live import MAX_POLL_S
from sysquant.outbox import Outbox, tend
from sysquant.rows import dead_letters
from sysquant.stop import StopRequest
from sysquant.store import Dsn
from sysquant.types import Feed, Instrument, Ticks

log = logging.getLogger(__name__)


def ingest_journal(topic: str, dsn: str) -> Path:
    """Where the ingest of a topic into a store keeps its journal."""
    store = Dsn.parse(dsn)
    place = f"{store.directory or store.url} {store.database}"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", topic)
    key = hashlib.sha256(place.encode()).hexdigest()[:8]
    return home() / "data" / "journals" / f"ingest-{name}-{key}"


class Ingest:
    """Writes one topic until it is stopped.

    Parameters
    ----------
    feed, journal, outbox : the parts; closed at the end.
    universe : the feed's.
    epoch : which life of the topic: one made anew counts its offsets from 0 again, and has another.
    most_waiting : rows waiting for the store at which reading pauses.
    stop_after_idle_s : end when nothing came for so long; None never.
    stop_with : process id of the parent to end with; None for none.
    stands : asked where the journal is new: partition -> next offset, of what the store has of this
        life of the topic.
    """

    def __init__(
        self,
        *,
        feed: Feed,
        journal: Journal,
        outbox: Outbox,
        universe: Sequence[Instrument],
        epoch: str = "",
        most_waiting: int = 2_000_000,
        stop_after_idle_s: float | None = None,
        stop_with: int | None = None,
        stands: Callable[[str], Mapping[int, int]] = lambda _: {},
    ) -> None:
        self.ticks = self.dead = 0
        self._feed = feed
        self._journal = journal
        self._outbox = outbox
        self._symbols = pa.array([instrument.symbol for instrument in universe])
        self._epoch = epoch
        self._most_waiting = most_waiting
        self._stop_after_idle_s = stop_after_idle_s
        self._stop_with = stop_with
        self._stands = stands
        self._unsaid = deque[tuple[int, dict[int, int]]]()  # number of rows, offsets they end at

    def run(self, stop: StopRequest) -> str:
        """Read and write until a signal, an end or a long silence; returns which.

        Raises
        ------
        StoreError
            If nobody sends rows to the store any more; one that is away is waited for.
        """
        try:
            return self._run(stop)
        finally:
            self._feed.close()
            self._outbox.close(0.5)
            self._journal.close()

    def _run(self, stop: StopRequest) -> str:
        if self._journal.begin_topic(self._epoch):
            log.warning("topic %s was made anew: read from its start", self._feed.name)
        self._feed.seek(self._journal.positions() or self._stands(self._epoch))
        self._note(self._journal.positions())
        self._outbox.send(self._journal.sealed())
        idle_since = time.monotonic()
        while not stop.reason:
            if self._stop_with is not None and os.getppid() != self._stop_with:
                stop.ask("its parent ended")
            self._outbox.check()
            if self._journal.outbox_rows >= self._most_waiting:
                time.sleep(0.05)
                self._commit({}, {})
                continue
            if self._take():
                idle_since = time.monotonic()
            elif self._is_idle(idle_since):
                stop.ask("idle")
        self._outbox.send(self._journal.commit(None, {}, seal_all=True))
        self._outbox.flush(3.0)
        self._commit({}, {})
        self._say()
        log.info(
            "ingest ended ticks=%d dead=%d waiting=%d",
            self.ticks, self.dead, self._journal.outbox_rows,
        )  # fmt: skip
        return stop.reason

    def _is_idle(self, since: float) -> bool:
        limit = self._stop_after_idle_s
        return limit is not None and time.monotonic() - since >= limit

    def _take(self) -> bool:
        poll = self._feed.poll(MAX_POLL_S)
        if not isinstance(poll.events, Ticks):
            raise FeedError("only a feed of ticks can be ingested, this one brings bars")
        tables = {}
        if len(poll.events):
            tables["ticks"] = self._rows(poll.events)
        if poll.dead:
            tables["dead_letter"] = dead_letters(poll.dead)
        if tables:
            self._commit(tables, dict(poll.next_offset))
            self._note(dict(poll.next_offset))
        else:
            tend(self._journal, self._outbox)
        self._say()
        self.ticks += len(poll.events)
        self.dead += len(poll.dead)
        return bool(tables)

    def _note(self, offsets: dict[int, int]) -> None:
        self._unsaid.append((self._journal.waiting()[1], offsets))

    def _say(self) -> None:
        # Offsets go to Kafka after the insert: they say what the store has.
        first, said = self._journal.waiting()[0], dict[int, int]()
        while self._unsaid and self._unsaid[0][0] <= first:
            said |= self._unsaid.popleft()[1]
        if said:
            self._feed.commit(said)

    def _rows(self, ticks: Ticks) -> pa.Table:
        time_type = pa.timestamp("ns", "UTC")
        return pa.table(
            {
                "symbol": self._symbols.take(pa.array(ticks.symbol)),
                "ts": pa.array(ticks.ts.view("M8[ns]"), time_type),
                "price": ticks.price,
                "volume": ticks.volume,
                "received_at": pa.array(ticks.received_at.view("M8[ns]"), time_type),
                "epoch": pa.array(np.full(len(ticks), self._epoch)),
                "partition": ticks.partition,
                "offset": ticks.offset,
            }
        )

    def _commit(self, tables: dict[str, pa.Table], positions: dict[int, int]) -> None:
        sealed = self._journal.commit(
            None, tables, positions=positions, sent=self._outbox.arrived()
        )
        self._outbox.send(sealed)
