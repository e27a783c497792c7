"""A live exchange -> Kafka, until it is stopped: nothing silent, nothing twice.

Input: a feed of a socket and a pump. Output: the topic; rows of `feed_stats` and `events` (gaps,
drops) through a journal of its own, whose lock also keeps a second stream of the same source off
the topic.
"""

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import pyarrow as pa

from sysquant.feeds.publish import Publisher
from sysquant.feeds.pump import Pump
from sysquant.feeds.socket import Ids, SocketFeed
from sysquant.home import home
from sysquant.journal import Journal
from sysquant.outbox import Outbox, tend
from sysquant.rows import event, stream_stats
from sysquant.stop import StopRequest
from sysquant.types import Ticks

log = logging.getLogger(__name__)

_TURN_S = 0.25
_NAMED = 5  # symbols


def stream_journal(source: str, topic: str) -> Path:
    """Where the stream of a source to a topic keeps its journal."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{source}-{topic}")
    return home() / "data" / "journals" / f"stream-{name}"


def given_up(journal: Journal) -> Ids:
    """What earlier streams of a source to a topic told as lost: it is not told again."""
    return _ids(journal, "given_up")


def left(journal: Journal) -> Ids:
    """What the last one still missed at its orderly end; asked once, for it may come now."""
    found = _ids(journal, "left")
    journal.remember(left="{}")
    return found


def _ids(journal: Journal, key: str) -> Ids:
    return msgspec.json.decode(journal.meta(key) or "{}", type=dict[str, list[tuple[int, int]]])


class Streamer:
    """Publishes a live source.

    Parameters
    ----------
    feed, publisher, pump, journal : the parts; the feed is closed at the end.
    outbox : what sends the journal's rows; None keeps them in it.
    report_s : between two rows of `feed_stats`.
    flush_s : what Kafka has for the last records, once asked to stop.
    """

    def __init__(
        self, *, feed: SocketFeed, publisher: Publisher, pump: Pump, journal: Journal,
        outbox: Outbox | None, report_s: float = 10.0, flush_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._feed, self._publisher, self._pump = feed, publisher, pump
        self._journal, self._outbox = journal, outbox
        self._report_s, self._flush_s = report_s, flush_s
        self._newest = self._dropped = 0
        self._report_at = time.monotonic() + report_s

    def run(self, stop: StopRequest) -> str:
        """Read and publish until a signal; the line that counts it.

        Raises
        ------
        FeedError
            If the broker refuses a record, or does not acknowledge the last ones in time.
        """
        began = time.monotonic()
        if self._outbox is not None:
            self._outbox.send(self._journal.sealed())
        while not stop.reason:
            self._take(_TURN_S)
            if time.monotonic() >= self._report_at:
                self._report_at += self._report_s
                self._report()
        self._feed.close()
        self._take(0.0)
        waited, missing = self._feed.rest()
        self._journal.remember(left=msgspec.json.encode(missing).decode())
        self._pump.send(waited)
        self._finish()
        took = time.monotonic() - began
        return f"published {self._publisher.acknowledged} records in {took:.0f} s; {self._told()}"

    def _take(self, timeout_s: float) -> None:
        poll = self._feed.poll(timeout_s)
        events = poll.events
        if isinstance(events, Ticks):
            if len(events):
                self._newest = max(self._newest, int(events.ts.max()))
            self._pump.send(events)
        if self._feed.gaps:
            rows = [self._event("gap", text) for text in self._feed.gaps]
            known = msgspec.json.encode(self._feed.given_up).decode()
            self._record({"events": pa.concat_tables(rows)}, {"given_up": known})
        elif self._outbox is not None:
            tend(self._journal, self._outbox)

    def _finish(self) -> None:
        until = time.monotonic() + self._flush_s
        while self._pump.held and time.monotonic() < until:
            self._pump.send(Ticks.empty())
            time.sleep(0.01)
        try:
            self._publisher.flush(max(0.5, until - time.monotonic()))
        finally:
            self._report()
            if self._outbox is not None:
                self._outbox.send(self._journal.commit(None, {}, seal_all=True))
                self._outbox.flush(2.0)
                self._record({})

    def _report(self) -> None:
        dropped, self._dropped = self._pump.dropped - self._dropped, self._pump.dropped
        tables = {}
        if dropped:
            tables["events"] = self._event("dropped", f"{dropped} ticks: Kafka was away too long")
        lag_ms = (time.time_ns() - self._newest) / 1e6 if self._newest else float("nan")
        tables["feed_stats"] = stream_stats(
            self._journal.id, self._feed.name, self._feed.counters, self._newest, lag_ms,
            dropped=self._pump.dropped, waiting=self._pump.waiting,
        )  # fmt: skip
        log.info("stream %s: %s lag_ms=%.0f", self._feed.name, self._told(), lag_ms)
        self._record(tables)

    def _told(self) -> str:
        count, unheard = self._feed.counters, self._feed.unheard
        more = f" and {len(unheard) - _NAMED} more" if len(unheard) > _NAMED else ""
        silent = f"; no trade yet of {', '.join(unheard[:_NAMED])}{more}" if unheard else ""
        return (
            f"{count.trades} trades, {count.filled} of them filled in, {count.lost} lost, "
            f"{self._pump.dropped} dropped, {count.duplicates} came again, {count.bad} unreadable, "
            f"{count.connections} connections{silent}"
        )

    def _event(self, kind: str, detail: str) -> pa.Table:
        return event(self._journal.id, time.time_ns(), kind, f"{self._feed.name}: {detail}")

    def _record(
        self, tables: Mapping[str, pa.Table], notes: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        sent = self._outbox.arrived() if self._outbox is not None else []
        batches = self._journal.commit(None, tables, notes=notes, sent=sent)
        if self._outbox is not None:
            self._outbox.check()
            self._outbox.send(batches)
