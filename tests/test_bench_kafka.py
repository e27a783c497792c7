"""The benchmark of the Kafka feed, small."""

import pytest

from tests.benchmarks import bench_kafka, bench_live
from tests.sessions import server
from tests.test_bench import is_measured

__all__ = ["server"]  # a fixture


def test_feed_is_measured_against_polls_and_the_plain_loop(broker, topic):
    if broker.kind == "mock":
        pytest.skip("throughput is a real broker's: not shown here")
    for row in bench_kafka.measure(broker.bootstrap, topic, 3_000, 1):
        is_measured(row)


def test_the_live_runner_is_measured_against_the_naive_loop_and_polls(broker, server, home):
    if broker.kind == "mock":
        pytest.skip("throughput is a real broker's: not shown here")
    rows = bench_live.measure(broker.bootstrap, 60_000, 1, home)
    for row in rows:
        is_measured(row)
    assert len(rows) == 3 and all("promised" in said for said in bench_live.judge(rows))
