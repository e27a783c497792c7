"""`runners/stream.py` on an exchange's socket: what reaches the topic, over kills and outages."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sysquant.feeds.decode import TickDecoder
from sysquant.feeds.pump import Pump
from sysquant.store import connect, find_server
from sysquant.types import Instrument
from tests.market import ticks as market_ticks
from tests.streaming import binance_frame, binance_past, records, stream_words
from tests.test_socket import DISTURBED, truth
from tests.venue_server import VenueServer

ROOT = Path(__file__).resolve().parents[1]


class Stream:
    """Lives of `runners/stream.py source=binance`, ended with the test."""

    def __init__(self, server, broker, topic, home):
        self.words = stream_words(server, broker, topic)
        self.home, self.process = home, None

    def start(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "runners" / "stream.py"), *self.words, *words],
            cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=200)
        return self.process.returncode, out, err


@pytest.fixture
def streaming(broker, topic, home):
    made = []

    def make(server):
        made.append(Stream(server, broker, topic, home))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            one.process.kill()
            one.process.communicate()


def until(is_so, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def real_frames(shared_data):
    path = shared_data / "binance_spot_btcusdt_2024-08-09_frames.jsonl.gz"
    with gzip.open(path, "rt") as file:
        return [json.dumps(json.loads(line)["frame"]) for line in file]


def test_real_frames_are_on_the_topic_once_each_over_kills_and_all_that_a_socket_can_do(
    broker, topic, streaming, shared_data
):
    frames = real_frames(shared_data)
    later = {4_000 + place: does for place, does in DISTURBED.items()}
    with VenueServer(frames, binance_past(frames), script=DISTURBED | later) as server:
        stream = streaming(server)
        stream.start("report_to_store=false")
        for place in (3_000, 6_000, 9_000):
            until(lambda least=place: server.place >= least)
            stream.end(signal.SIGKILL)
            server.place += 50  # the market goes on
            stream.start("report_to_store=false")
        until(lambda: server.is_over)
        until(lambda: len(records(broker, topic)) >= len(frames))
        code, _, err = stream.end()
    assert code == 0, err
    found = records(broker, topic)
    assert len(found) == len(frames) == 10_147
    assert {
        (number, said["price"], said["volume"], said["timestamp_ms"]) for number, said in found
    } == truth(frames)
    decoded, dead = TickDecoder([Instrument("BINANCE:BTCUSDT")]).decode(
        [json.dumps(said).encode() for _, said in found], 0, np.arange(len(found))
    )
    assert len(decoded) == 10_147 and not dead


def test_gaps_and_counts_are_in_the_store(broker, topic, streaming, home):
    frames = [binance_frame(number) for number in range(200)]
    words = "source.give_up_s=1", "source.hold_s=0.2", "source.silent_s=30"
    with VenueServer(frames, script={50: "close"}) as server:
        stream = streaming(server)
        stream.start(*words)
        until(lambda: len(records(broker, topic)))
        os.kill(find_server(home / "data" / "store").pid, signal.SIGKILL)  # it is started again
        until(lambda: server.is_over and len(records(broker, topic)) >= 193)
        time.sleep(1.5)
        code, out, err = stream.end()
        assert code == 0, err
        assert "7 lost" in out
        were = server.connections
        stream.start(*words)  # what is told is told
        until(lambda: server.connections > were)
        time.sleep(1.5)
        code, out, err = stream.end()
    assert code == 0, err
    assert " 0 lost" in out
    client = connect(f"chdb:{home}/data/store")
    try:
        kinds = client.query("SELECT kind, detail FROM events").result_rows
        stats = client.query(
            "SELECT ticks, lost, connections FROM feed_stats WHERE lost > 0 "
            "ORDER BY ts DESC LIMIT 1"
        ).result_rows
    finally:
        client.close()
    assert kinds == [("gap", "binance: BTCUSDT: trades 50 to 56 are lost")]
    assert stats == [(193, 7, 2)]


def test_a_second_stream_of_the_same_source_is_refused(broker, topic, streaming):
    with VenueServer([binance_frame(0)]) as server:
        first, second = streaming(server), streaming(server)
        first.start("report_to_store=false")
        until(lambda: len(records(broker, topic)) == 1)
        second.start("report_to_store=false")
        _, err = second.process.communicate(timeout=200)
        assert second.process.returncode == 1 and "is in use by process" in err
        assert first.end()[0] == 0


def test_kafka_away_costs_nothing_while_the_buffer_holds(mortal, topic, streaming):
    frames = [binance_frame(number) for number in range(3_000)]
    with VenueServer(frames, binance_past(frames), per_second=500) as server:
        stream = streaming(server)
        stream.start("report_to_store=false")
        until(lambda: server.place > 300)
        mortal.kill()
        until(lambda: server.place > 1_500)
        mortal.restart()
        until(lambda: server.is_over)
        until(lambda: len(records(mortal, topic)) >= 3_000)
        code, _, err = stream.end()
    assert code == 0, err
    assert [number for number, _ in records(mortal, topic)] == list(range(3_000))


class AwayPublisher:
    """Takes what it is given; acknowledges what it is told to."""

    def __init__(self):
        self.sent, self.acknowledged = [], 0

    @property
    def waiting(self):
        return len(self.sent) - self.acknowledged

    def check(self):
        pass

    def publish(self, ticks, universe):
        self.sent += ticks.offset.tolist()


def test_what_does_not_fit_the_buffer_is_dropped_oldest_first_and_counted():
    publisher, all_ticks = AwayPublisher(), market_ticks(1_000)
    pump = Pump(publisher, (), most_waiting=300, window=100)
    for start in range(0, 1_000, 70):
        pump.send(all_ticks[start : start + 70])
    assert publisher.sent == all_ticks.offset[:100].tolist()
    assert (pump.dropped, pump.held, pump.waiting) == (600, 300, 400)
    while pump.waiting:
        publisher.acknowledged = len(publisher.sent)
        pump.send(all_ticks[:0])
    assert publisher.sent == [*all_ticks.offset[:100], *all_ticks.offset[700:]]
