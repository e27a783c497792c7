"""Arrow rows of the tables that tell about a session: inputs, events, statistics, bad records."""

import json
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from sysquant.journal import Input
from sysquant.types import DeadLetter
from sysquant.vitals import Measures

_NS = pa.timestamp("ns", "UTC")


def _row(**columns: pa.Array) -> pa.Table:
    return pa.table(columns)


def _time(*values: int) -> pa.Array:
    return pa.array(np.array(values, "M8[ns]"), _NS)


def _count(*values: int) -> pa.Array:
    return pa.array(values, pa.uint64())


def input_row(run: str, entry: Input, rows: int, offsets: str) -> pa.Table:
    """Row of `inputs` for one journaled input."""
    return _row(
        run=pa.array([run], pa.string()),  # to look for the type takes longer than the rest
        seq=_count(entry.seq),
        kind=pa.array([entry.kind], pa.string()),
        rows=pa.array([rows], pa.uint32()),
        offsets=pa.array([offsets], pa.string()),
        effects_hash=pa.array([entry.effects_hash.hex()], pa.string()),
        payload=pa.array([entry.payload], pa.binary()),
    )


def model_served(run: str, seq: int, ts: int, strategy: str, model: str, why: str) -> pa.Table:
    """Row of `models_served`."""
    return _row(
        run=pa.array([run]),
        seq=_count(seq),
        ts=_time(ts),
        strategy=pa.array([strategy]),
        model=pa.array([model]),
        why=pa.array([why]),
    )


def drifted(run: str, ts: int, rows: Sequence[Mapping[str, object]]) -> dict[str, pa.Table]:
    """Rows of `drift`, of models, kinds, names and indexes; nothing for none."""
    if not rows:
        return {}
    table = pa.Table.from_pylist([dict(row) for row in rows])
    table = table.add_column(0, "run", pa.array([run] * len(rows)))
    return {"drift": table.add_column(1, "ts", _time(*[ts] * len(rows)))}


def offsets_json(partition: np.ndarray, offset: np.ndarray) -> str:
    """JSON of partition -> [first, last] offset; clock marks (partition -1) are left out."""
    found = {
        int(p): [int(offset[partition == p].min()), int(offset[partition == p].max())]
        for p in np.unique(partition[partition >= 0])
    }
    return json.dumps(found)


def event(
    run: str, ts: int, kind: str, detail: str, *, seq: int = 0, strategy: str = ""
) -> pa.Table:
    """Row of `events`."""
    return _row(
        run=pa.array([run]),
        seq=_count(seq),
        ts=_time(ts),
        kind=pa.array([kind]),
        strategy=pa.array([strategy]),
        detail=pa.array([detail]),
    )


def run_row(run: str, mode: str, book: str, build: str, config: str) -> pa.Table:
    """Row of `runs`."""
    return _row(
        run=pa.array([run]),
        mode=pa.array([mode]),
        book=pa.array([book]),
        build=pa.array([build]),
        started_at=_time(time.time_ns()),
        config=pa.array([config]),
    )


class _Counts(Protocol):
    events: int
    dead: int


def stats(
    run: str, feed: str, counts: _Counts, engine: Any, measures: Measures
) -> dict[str, pa.Table]:
    """Rows of `feed_stats` and `runtime_metrics`, at the end of one period."""
    ts = _time(measures.ts)
    of_feed = _row(
        run=pa.array([run]),
        ts=ts,
        feed=pa.array([feed]),
        ticks=_count(counts.events),
        dead=_count(counts.dead),
        late=_count(engine.late),
        engine_ts=_time(engine.engine_ts),
        lag_ms=pa.array([measures.lag_ms], pa.float64()),
        outbox_rows=_count(measures.outbox_rows),
    )
    columns = {
        field.name: pa.array(
            [getattr(measures, field.name)], pa.uint64() if field.type is int else pa.float64()
        )
        for field in fields(measures)
    }
    of_runtime = _row(run=pa.array([run]), **columns | {"ts": ts})
    return {"feed_stats": of_feed, "runtime_metrics": of_runtime}


def stream_stats(
    run: str, feed: str, counts: Any, newest: int, lag_ms: float, *, dropped: int, waiting: int
) -> pa.Table:
    """Row of `feed_stats` of a stream from an exchange; `counts` are `SocketFeed.counters`."""
    return _row(
        run=pa.array([run]),
        ts=_time(time.time_ns()),
        feed=pa.array([feed]),
        ticks=_count(counts.trades),
        dead=_count(counts.bad),
        late=_count(0),
        engine_ts=_time(newest),
        lag_ms=pa.array([lag_ms], pa.float64()),
        outbox_rows=_count(waiting),
        filled=_count(counts.filled),
        duplicates=_count(counts.duplicates),
        lost=_count(counts.lost),
        dropped=_count(dropped),
        connections=_count(counts.connections),
    )


def faults(
    run: str, seq: int, found: Iterable[tuple[str, int, BaseException]]
) -> dict[str, pa.Table]:
    """Rows of `events` of strategies that raised: name, time and error; no table for none."""
    rows = list[pa.Table]()
    for name, ts, error in found:
        told = "".join(traceback.format_exception(error.__cause__ or error)) + str(error)
        rows.append(event(run, ts, "fault", told, seq=seq, strategy=name))
    return {"events": pa.concat_tables(rows)} if rows else {}


def dead_letters(dead: Sequence[DeadLetter]) -> pa.Table:
    """Rows of `dead_letter`."""
    return _row(
        topic=pa.array([d.topic for d in dead]),
        partition=pa.array([d.partition for d in dead], pa.int32()),
        offset=pa.array([d.offset for d in dead], pa.int64()),
        reason=pa.array([d.reason for d in dead]),
        payload=pa.array([d.payload for d in dead], pa.binary()),
        ts=_time(*[time.time_ns()] * len(dead)),
    )
