"""`runners/stream.py`: ticks of a recording or a synthetic market reach the topic, in order."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from runners.kafka import free_ports
from runners.stream import stream
from sysquant.errors import DataError
from sysquant.feeds.kafka import KafkaFeed
from sysquant.feeds.publish import Publisher
from sysquant.feeds.recording import RecordingFeed, read
from sysquant.types import Ticks
from tests import forked

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "timestamp": ["2025-05-19T03:56:12Z"] * 3,
    "timestamp_ms": [1747608972480, 1747608972519, 1747608972519],
    "symbol": ["BINANCE:ETHUSDT", "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"],
    "price": [2446.59, 103_000.0, 2446.6],
    "volume": [0.0124, 0.0, 0.0395],
    "received_at": ["2025-05-19T03:56:11Z", "2025-05-19T03:56:11.5Z", "2025-05-19T03:56:12Z"],
}


def write(path, **changes):
    columns = {name: column for name, column in (ROWS | changes).items() if column is not None}
    table = pa.table(columns)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
    return path


def run(*words, cwd=ROOT):
    return forked.run("stream", *words, cwd=cwd)


@pytest.fixture
def on(broker):
    """Arguments that name this broker and a topic."""

    def words(topic):
        version = str(list(broker.client.get("api_version", ()))).replace(" ", "")
        extra = [f"publisher.api_version={version}"] if broker.client else []
        return [f"publisher.bootstrap={broker.bootstrap}", f"publisher.topic={topic}", *extra]

    return words


def read_back(broker, topic, universe, count):
    feed = KafkaFeed(bootstrap=broker.bootstrap, universe=universe, topic=topic, **broker.client)
    batches, until = [], time.monotonic() + 20
    feed.seek({})
    while sum(map(len, batches)) < count and time.monotonic() < until:
        poll = feed.poll(0.25)
        assert not poll.dead
        batches.append(poll.events)
    batches.append(feed.poll(0.25).events)
    feed.close()
    return Ticks.join(batches)


@pytest.mark.parametrize("name", ["ticks.parquet", "ticks.csv"])
def test_recording_is_read_as_it_stands(tmp_path, name):
    universe, ticks = read(write(tmp_path / name))
    assert [one.symbol for one in universe] == ["BINANCE:ETHUSDT", "BINANCE:BTCUSDT"]
    assert ticks.symbol.tolist() == [0, 1, 0]
    assert ticks.ts.tolist() == [ms * 1_000_000 for ms in ROWS["timestamp_ms"]]
    assert ticks.price.tolist() == ROWS["price"]
    assert ticks.received_at.tolist()[1] == 1747626971_500_000_000
    assert {n: c.dtype.str[1:] for n, c in ticks.columns()} == dict(Ticks.DTYPES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"price": None, "prices": [1.0, 2.0, 3.0]}, "no column 'price'; did you mean 'prices'"),
        ({"price": [1.0, -2.0, 3.0]}, "row 1 is"),
        ({"volume": [0.0, 0.0, float("nan")]}, "row 2 is"),
        ({"timestamp_ms": [0, 1, 2]}, "row 0 is"),
        ({"price": ["a", "b", "c"]}, "no tick"),
        ({"received_at": ["now", "now", "now"]}, "no tick"),
        ({"received_at": [1747608972480] * 3}, "received_at must be times"),
        ({"received_at": ["2025-05-19T03:56:11Z", None, None]}, "row 1 has no received_at"),
        ({"symbol": ["A", "B", None]}, "row 2 has no symbol"),
    ],
)
def test_recording_with_a_bad_row_is_refused(tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        read(write(tmp_path / "ticks.parquet", **changes))


def test_file_that_is_no_recording_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no recording"):
        RecordingFeed(str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"cannot be read as .parquet"):
        RecordingFeed(str(tmp_path / "text.parquet"))
    with pytest.raises(DataError, match=r"must end in .parquet or .csv, was 'ticks.xls'"):
        RecordingFeed("ticks.xls")


def test_recording_plays_at_its_own_speed(tmp_path):
    feed = RecordingFeed(str(write(tmp_path / "ticks.parquet")), speed=0.1)
    began = time.monotonic()
    first = feed.poll(0.1)
    assert first.events.offset.tolist() == [0]
    rest = []
    while not rest or not rest[-1].ended:
        rest.append(feed.poll(0.25))
    assert [o for poll in rest for o in poll.events.offset.tolist()] == [1, 2]
    assert 0.35 <= time.monotonic() - began < 2.0  # 39 ms at a tenth of the speed


def test_recording_can_be_moved_to_now(tmp_path):
    path = str(write(tmp_path / "ticks.parquet"))
    was, now = (RecordingFeed(path, speed="max", now=moved).poll(0.1).events for moved in (0, 1))
    assert 0 <= time.time_ns() - now.ts[0] < 60e9 and not now.ts[0] % 1_000_000
    for name in ("ts", "received_at"):
        assert len(set((getattr(now, name) - getattr(was, name)).tolist())) == 1


def test_real_recording_is_published_whole_and_in_order(broker, topic, on, shared_data, tmp_path):
    path = shared_data / "ticks_ethusdt_2025-05-19.parquet"
    done = run("source=file", f"path={path}", "speed=max", *on(topic), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"published 11328 records to {topic} in ")
    universe, recorded = read(path)
    again = read_back(broker, topic, universe, len(recorded))
    for name, column in recorded.columns():
        if name != "partition":
            np.testing.assert_array_equal(getattr(again, name), column, err_msg=name)


def test_synthetic_market_reaches_the_topic(broker, topic, on):
    done = run("source=synthetic", "source.length_s=60", "speed=max", *on(topic))
    assert (done.returncode, done.stderr) == (0, "")
    assert "published " in done.stdout


def test_signal_ends_it_with_everything_it_sent_acknowledged(
    broker, topic, on, shared_data, tmp_path
):
    path = shared_data / "ticks_ethusdt_2025-05-19.parquet"
    words = ["source=file", f"path={path}", "speed=5", *on(topic)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "runners" / "stream.py"), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    universe, recorded = read(path)
    try:
        first = read_back(broker, topic, universe, 20)
        assert len(first) >= 20
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    count = int(out.split()[1])
    assert 20 <= count < len(recorded)
    again = read_back(broker, topic, universe, count)
    np.testing.assert_array_equal(again.price, recorded.price[:count])


def test_stopped_source_publishes_nothing_more(broker, topic, tmp_path):
    feed = RecordingFeed(str(write(tmp_path / "ticks.parquet")), speed="max")
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)
    stopped = SimpleNamespace(reason="SIGTERM")
    assert stream(feed, publisher, feed.universe, stopped).startswith("published 0 records")
    publisher.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["source=file"], 1, "path was not set"),
        (["source=file", "path=none.parquet"], 1, "there is no recording"),
        (["source=fiel"], 2, "did you mean 'file'"),
        (["sped=2"], 2, "did you mean 'speed'"),
        (["speed=-1"], 1, "speed must be"),
        (["publisher.linger_ms=-1"], 1, "publisher.linger_ms must be"),
        (["source=store", "source.start=yesterday"], 1, "source.start must be"),
        (["source=binance", "universe=crypto", "report_s=abc"], 1, "report_s must be"),
        (["source=binance", "universe=crypto", "most_waiting=abc"], 1, "most_waiting must be"),
        (["source=binance", "universe=crypto", "patience_s=abc"], 1, "patience_s must be"),
        (["source=binance", "universe=crypto", "report_to_store=maybe"], 1, "true or false"),
        (["source=binance", "universe=crypto", "source.venue.url=x"], 1, "source.venue.url is no"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(words, code, said):
    done = run(*words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_unreachable_broker_is_one_sentence_with_the_way_out():
    (port,) = free_ports(1)
    done = run(f"publisher.bootstrap=127.0.0.1:{port}", "publisher.timeout_s=1")
    assert done.returncode == 1
    assert f"Kafka at 127.0.0.1:{port} does not answer" in done.stderr
    assert "make kafka" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
