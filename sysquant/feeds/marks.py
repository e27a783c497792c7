"""What of a source lies on a topic already, read from the topic's own end.

Input: a topic whose records carry their id in a header (`Publisher(mark=...)`). Output: the next id
of each symbol, and which ids before it are missing. The topic itself remembers, so nothing else can
disagree with it.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from sysquant.errors import FeedError
from sysquant.feeds.connection import client_settings, connect
from sysquant.feeds.decode import MILLISECOND
from sysquant.feeds.sequence import Missing
from sysquant.types import Instrument

_READ_S = 60.0
_RECENT = 1_000  # ids of a symbol


class Published(NamedTuple):
    """Of one symbol: the id after the greatest, ids between the least and it that lack, and the
    time of its newest record, ns UTC.
    """

    next_id: int
    missing: list[Missing]
    newest: int = 0

    def wanted(
        self, symbol: int, given_up: Sequence[tuple[int, int]], left: Sequence[tuple[int, int]]
    ) -> list[Missing]:
        """What is missing here, or was at the last end, without what was given up; each id once."""
        gaps = list(self.missing)
        for first, last in left:
            parts = Missing(symbol, first, last).without(self.next_id, max(last, self.next_id))
            for known in self.missing:
                parts = [part for one in parts for part in one.without(known.first, known.last)]
            gaps += parts
        for first, last in given_up:
            gaps = [part for gap in gaps for part in gap.without(first, last)]
        return gaps


class _Value(msgspec.Struct, gc=False):
    timestamp_ms: int = 0


def published(
    *,
    bootstrap: str,
    topic: str,
    mark: str,
    universe: Sequence[Instrument],
    wanted: Collection[int],
    last: int = 20_000,
    timeout_s: float = 10.0,
    api_version: Sequence[int] | None = None,
    security: Mapping[str, Any] | None = None,
) -> dict[int, Published]:
    """Symbol's index -> what the last records of a topic hold of it.

    Parameters
    ----------
    mark : name of the header.
    wanted : indexes of the symbols that are looked for.
    last : records of each partition that are read; ten and a hundred times as many when a symbol
        has none among them.
    bootstrap, topic, timeout_s, api_version, security : as for `Publisher`.

    Raises
    ------
    FeedError
        If no broker answers, or it does not bring the records.
    """
    settings = client_settings(bootstrap, min(timeout_s, 5.0), api_version, security)
    consumer, _ = connect(KafkaConsumer, settings)
    keys = [one.symbol.encode() for one in universe]
    try:
        found, newest = dict[bytes, list[int]](), dict[bytes, int]()
        places = [TopicPartition(topic, at) for at in consumer.partitions_for_topic(topic) or ()]
        first, stop = consumer.beginning_offsets(places), consumer.end_offsets(places)
        end = dict(stop)
        for most in (last, 10 * last, 100 * last):
            start = {place: max(first[place], end[place] - most) for place in places}
            for key, ids in _read(consumer, start, stop, mark, newest).items():
                found[key] = ids + found.get(key, [])
            stop = start
            if start == first or all(found.get(keys[at]) for at in wanted):
                break
    except KafkaError as error:
        raise FeedError(f"the end of {topic!r} at {bootstrap} cannot be read: {error!r}") from error
    finally:
        consumer.close()
    # The newest say where it stands: an exchange may have begun to count anew.
    recent = {at: found.get(keys[at], [])[-_RECENT:] for at in wanted}
    ids = {at: sorted(set(some)) for at, some in recent.items()}
    return {
        at: Published(some[-1] + 1, _missing(at, some), newest.get(keys[at], 0))
        for at, some in ids.items()
        if some
    }


def _read(
    consumer: KafkaConsumer,
    start: Mapping[TopicPartition, int],
    stop: Mapping[TopicPartition, int],
    mark: str,
    newest: dict[bytes, int],
) -> dict[bytes, list[int]]:
    # Key -> ids in their order, of the records from `start` on and before `stop`; and their times.
    left = {place for place in start if start[place] < stop[place]}
    found, until = dict[bytes, list[int]](), time.monotonic() + _READ_S
    consumer.assign(list(left))
    consumer.resume(*left)  # from an earlier reading
    for place in left:
        consumer.seek(place, start[place])
    while left:
        if time.monotonic() > until:
            raise FeedError(f"the records' ids were not read within {_READ_S:.0f} s")
        for place, records in consumer.poll(timeout_ms=250).items():
            for record in records:
                if record.offset < stop[place]:
                    ids = [int(v) for name, v in record.headers if name == mark and v.isdigit()]
                    key = record.key or b""
                    found.setdefault(key, []).extend(ids)
                    newest[key] = max(newest.get(key, 0), _time_of(record.value))
        done = {place for place in left if (consumer.position(place) or 0) >= stop[place]}
        consumer.pause(*done)
        left -= done
    return found


def _time_of(value: bytes | None) -> int:
    try:
        return msgspec.json.decode(value or b"", type=_Value).timestamp_ms * MILLISECOND
    except msgspec.MsgspecError:
        return 0


def _missing(symbol: int, ids: Sequence[int]) -> list[Missing]:
    return [Missing(symbol, one + 1, other - 1) for one, other in pairwise(ids) if other > one + 1]
