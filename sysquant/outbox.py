"""Sends sealed journal batches to the store, in order per table, until each has arrived.

Input: batches that the journal sealed. Output: their rows in ClickHouse, once each, and the list
of batches that arrived, for the journal to forget. Runs in a thread of its own: a slow, stalled or
dead store never holds up the thread that trades.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from urllib3.exceptions import HTTPError

from sysquant.errors import JournalError, StoreError
from sysquant.failpoints import Point, reached
from sysquant.journal import Batch, Journal
from sysquant.journal_reader import JournalReader
from sysquant.store import insert

log = logging.getLogger(__name__)

_TRANSIENT = (ClickHouseError, StoreError, JournalError, HTTPError, OSError)


def tend(journal: Journal, outbox: "Outbox") -> None:
    """Let the journal forget what arrived, and send what is due; for when nothing else happens.

    What is due may wait for what is on its way, so each of them alone is a reason.
    """
    if outbox.has_arrived or journal.is_sealing_due():
        outbox.send(journal.commit(None, {}, sent=outbox.arrived()))


class Outbox:
    """The sending thread of one journal.

    Parameters
    ----------
    path : the journal's file.
    connect : makes a client; called in the sending thread, and again after a failure.
    """

    def __init__(self, path: Path, connect: Callable[[], Any]) -> None:
        self._path = path
        self._connect = connect
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._taken: deque[float] = deque()  # when each batch that has not arrived was taken
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.failing_since: float | None = None  # monotonic; None while the store answers
        self._thread.start()

    def send(self, batches: list[Batch]) -> None:
        """Take batches to send, in order."""
        for batch in batches:
            self._idle.clear()
            self._taken.append(time.monotonic())
            self._queue.put(batch)

    def arrived(self) -> list[Batch]:
        """The batches that arrived since the last call."""
        batches: list[Batch] = []
        while not self._arrived.empty():
            batches.append(self._arrived.get())
        return batches

    @property
    def has_arrived(self) -> bool:
        """Whether there is a batch that `arrived` would give."""
        return not self._arrived.empty()

    @property
    def age_s(self) -> float:
        """Since the oldest batch that has not arrived was taken; 0 when all have."""
        try:
            return time.monotonic() - self._taken[0]
        except IndexError:  # or the sending thread took it away just now
            return 0.0

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken has arrived; False when it has not within the time."""
        return self._idle.wait(timeout_s)

    def check(self) -> None:
        """Make sure that somebody sends.

        Raises
        ------
        StoreError
            If the thread died, which no failure of the store may cause.
        """
        if not self._thread.is_alive():
            raise StoreError(
                "what sends rows to the store died of an error that was printed before this; "
                "the rows wait in the journal, the next start sends them"
            )

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop sending; what has not arrived stays in the journal."""
        self._stop.set()
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        reader = JournalReader(self._path)
        client: Any = None
        while (batch := self._queue.get()) is not None and not self._stop.is_set():
            client = self._deliver(reader, client, batch)
            if self._stop.is_set():
                break
            self._arrived.put(batch)
            self._taken.popleft()
            try:
                reader.checkpoint()
            except JournalError as error:  # the next one moves it all
                log.warning("no checkpoint reason=%s", error)
            reached(Point.CHECKPOINTED)
            if self._queue.empty():
                self._idle.set()
        reader.close()

    def _deliver(self, reader: JournalReader, client: Any, batch: Batch) -> Any:
        # Again and again, the same bytes under the same token: the store keeps one of them.
        policy = Retrying(
            retry=retry_if_exception_type(_TRANSIENT),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            sleep=sleep_using_event(self._stop),
            stop=stop_when_event_set(self._stop),
            before_sleep=before_sleep_log(log, logging.WARNING),
            retry_error_callback=lambda state: None,
        )

        def attempt() -> Any:
            nonlocal client
            try:
                rows = reader.rows(batch)
                client = client or self._connect()
                reached(Point.BEFORE_INSERT)
                insert(client, batch.table, rows, batch.token)
                reached(Point.INSERTED)
            except _TRANSIENT:
                client = None
                self.failing_since = self.failing_since or time.monotonic()
                raise
            self.failing_since = None
            return client

        return policy(attempt)
