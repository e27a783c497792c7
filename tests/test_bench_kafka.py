"""The benchmark of the Kafka feed, small."""

import pytest

from tests.benchmarks import bench_kafka
from tests.test_bench import is_measured


def test_feed_is_measured_against_polls_and_the_plain_loop(broker, topic):
    if broker.kind == "mock":
        pytest.skip("throughput is a real broker's: not shown here")
    for row in bench_kafka.measure(broker.bootstrap, topic, 3_000, 1):
        is_measured(row)
