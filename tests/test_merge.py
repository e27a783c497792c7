"""Merging partitions: nothing lost, nothing doubled, one order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import ConfigError
from sysquant.feeds.merge import Merge
from sysquant.types import Bars, Poll, Ticks

MS = 1_000_000


def ticks(rows: list[tuple[int, int, int]]) -> Ticks:
    """Ticks of (ts, partition, offset)."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    ones = np.ones(len(table))
    return Ticks(
        table[:, 0], table[:, 1].astype(np.int32), ones, ones, table[:, 0],
        table[:, 1].astype(np.int32), table[:, 2],
    )  # fmt: skip


def places(batch: Ticks | Bars) -> list[tuple[int, int]]:
    return list(zip(batch.partition.tolist(), batch.offset.tolist(), strict=True))


def expected(partitions: list[list[int]]) -> list[tuple[int, int]]:
    """The order by definition, one tick at a time."""
    rows = []
    for partition, times in enumerate(partitions):
        rows += [(max(times[: i + 1]), partition, i) for i in range(len(times))]
    return [(partition, offset) for _, partition, offset in sorted(rows)]


def cut(partitions: list[list[int]], sizes: list[tuple[int, int]]) -> list[Poll]:
    """Polls of (partition, rows), then all the rest; `behind` as a feed would know it."""
    read = [0] * len(partitions)
    polls = []
    for which, count in [*sizes, *((p, 10**6) for p in range(len(partitions)))]:
        p = which % len(partitions)
        chunk = partitions[p][read[p] : read[p] + count]
        rows = [(ts, p, read[p] + i) for i, ts in enumerate(chunk)]
        read[p] += len(chunk)
        behind = frozenset(q for q, n in enumerate(read) if n < len(partitions[q]))
        polls.append(Poll(ticks(rows), behind=behind))
    return polls


streams = st.lists(st.lists(st.integers(0, 60), max_size=30), min_size=1, max_size=4)
cuts = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=20)


@settings(max_examples=300, deadline=None)
@given(streams, cuts)
def test_order_does_not_depend_on_where_polls_are_cut(
    partitions: list[list[int]], sizes: list[tuple[int, int]]
) -> None:
    merge = Merge(range(len(partitions)))
    got = []
    for poll in cut(partitions, sizes):
        got += places(merge.take(poll, wall_ns=0))
    got += places(merge.take(Poll(Ticks.empty()), wall_ns=100 * MS))
    assert merge.held == 0
    if len(partitions) > 1:
        assert got == expected(partitions)
    else:
        assert got == [(0, i) for i in range(len(partitions[0]))]


@settings(max_examples=200, deadline=None)
@given(streams, cuts, st.lists(st.integers(0, 150), min_size=40, max_size=40))
def test_nothing_is_lost_doubled_or_reordered_within_a_partition(
    partitions: list[list[int]], sizes: list[tuple[int, int]], pauses_ms: list[int]
) -> None:
    merge = Merge(range(len(partitions)))
    wall, got = 0, []
    for poll, pause in zip(cut(partitions, sizes), pauses_ms, strict=False):
        wall += pause * MS
        got += places(merge.take(Poll(poll.events), wall))  # all at their end, as far as known
    got += places(merge.flush())
    for partition, times in enumerate(partitions):
        assert [o for p, o in got if p == partition] == list(range(len(times)))


def test_single_partition_and_bars_pass_straight_through() -> None:
    batch = ticks([(5, 3, 0), (4, 3, 1)])
    assert Merge([3]).take(Poll(batch), 0) is batch
    assert Merge([0]).take(Poll(Bars.empty()), 0) is not None


def test_partition_at_its_end_holds_back_for_the_grace_and_no_longer() -> None:
    merge = Merge([0, 1], grace_ms=100)
    assert merge.wait_s(0) == float("inf")
    assert not len(merge.take(Poll(ticks([(10, 0, 0), (20, 0, 1)])), 0))
    assert merge.wait_s(40 * MS) == pytest.approx(0.06)
    assert places(merge.take(Poll(ticks([(15, 1, 0)])), 50 * MS)) == [(0, 0), (1, 0)]
    assert not len(merge.take(Poll(Ticks.empty()), 99 * MS))
    assert places(merge.take(Poll(Ticks.empty()), 100 * MS)) == [(0, 1)]


def test_partition_behind_holds_back_whatever_the_wall_says() -> None:
    merge = Merge([0, 1])
    assert not len(merge.take(Poll(ticks([(10, 0, 0)]), behind=frozenset({1})), 0))
    assert not len(merge.take(Poll(Ticks.empty(), behind=frozenset({1})), 10**12))
    late = merge.take(Poll(ticks([(3, 1, 0), (12, 1, 1)])), 10**12)
    assert places(late) == [(1, 0), (0, 0)]


def test_tick_behind_what_went_on_goes_out_at_once() -> None:
    merge = Merge([0, 1])
    merge.take(Poll(ticks([(10, 0, 0)])), 0)
    assert len(merge.take(Poll(Ticks.empty()), 100 * MS)) == 1
    assert places(merge.take(Poll(ticks([(3, 1, 0)])), 101 * MS)) == [(1, 0)]


def test_end_of_the_feed_releases_everything() -> None:
    merge = Merge([0, 1])
    assert places(merge.take(Poll(ticks([(9, 0, 0)]), ended=True), 0)) == [(0, 0)]


def test_feed_that_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 partition"):
        Merge([])
    with pytest.raises(ConfigError, match="grace_ms"):
        Merge([0], grace_ms=-1)
    with pytest.raises(ConfigError, match="partition must be one of"):
        Merge([0, 1]).take(Poll(ticks([(1, 7, 0)])), 0)
    with pytest.raises(ConfigError, match="1 partition"):
        Merge([0, 1]).take(Poll(Bars.empty()), 0)
