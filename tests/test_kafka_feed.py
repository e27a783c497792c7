"""The Kafka feed against a broker: nothing lost, moved or doubled, and never stuck."""

import sys
import time
from typing import Any

import numpy as np
import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from runners.kafka import free_ports
from sysquant.errors import ConfigError, FeedError, SysquantError
from sysquant.feeds import confluent
from sysquant.feeds.connection import SECURITY, topic_life
from sysquant.feeds.decode import TickDecoder, encode
from sysquant.feeds.kafka import KafkaFeed
from sysquant.feeds.publish import Publisher
from sysquant.feeds.recording import read
from sysquant.types import Instrument, Ticks
from tests.test_decode import GOOD, MALFORMED_RECORDS, changed

UNIVERSE = [Instrument("BINANCE:BTCUSDT"), Instrument("BINANCE:ETHUSDT")]


@pytest.fixture(params=["kafka_python", "confluent"])
def client(request):
    """Every test of a feed is one of each client."""
    return request.param


@pytest.fixture
def feed_of(broker, client):
    made = []

    def make(topic, **changes):
        settings = {"bootstrap": broker.bootstrap, "universe": UNIVERSE, "topic": topic}
        settings["client"] = client
        made.append(KafkaFeed(**(settings | broker.client | changes)))
        return made[-1]

    yield make
    for feed in made:
        feed.close()


@pytest.fixture
def send(broker):
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, **broker.client)

    def to(topic, values, **where):
        answers = [producer.send(topic, value, key=b"one", **where) for value in values]
        producer.flush(20)
        return answers[-1].get(5).partition

    yield to
    producer.close(timeout=5)


@pytest.fixture
def admin(broker):
    """A client of the broker that makes, changes and deletes topics."""
    if broker.kind == "mock":
        pytest.skip("the mock broker keeps its topics as they are")
    from kafka import KafkaAdminClient

    one: Any = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield one
    one.close()


def read_until(feed, count, within_s=20.0):
    """Polls until `count` records came; (ticks, dead letters, the last poll)."""
    batches, dead, until = [], [], time.monotonic() + within_s
    poll = feed.poll(0.0)
    while True:
        batches.append(poll.events)
        dead.extend(poll.dead)
        if sum(map(len, batches)) + len(dead) >= count:
            return Ticks.join(batches), dead, poll
        assert time.monotonic() < until, "the feed brought nothing more"
        poll = feed.poll(0.25)


def same(left, right, leave_out=("partition", "offset")):
    for name, column in left.columns():
        if name not in leave_out:
            np.testing.assert_array_equal(getattr(right, name), column, err_msg=name)


def numbered(first, count):
    return [changed(price=float(i)) for i in range(first, first + count)]


def test_real_recording_comes_back_whole_equal_and_in_order(broker, topic, feed_of, shared_data):
    universe, recorded = read(shared_data / "ticks_ethusdt_2025-05-19.parquet")
    publisher = Publisher(bootstrap=broker.bootstrap, topic=topic, **broker.client)
    publisher.publish(recorded, universe)
    publisher.flush()
    publisher.close()
    assert publisher.acknowledged == 11_328
    feed = feed_of(topic, universe=universe)
    feed.seek({})
    ticks, dead, poll = read_until(feed, 11_328)
    assert not dead
    same(recorded, ticks)
    assert len(set(ticks.partition.tolist())) == 1
    np.testing.assert_array_equal(ticks.offset, np.arange(11_328))
    assert poll.next_offset[int(ticks.partition[0])] == 11_328
    assert not poll.behind


def test_poll_is_behind_while_the_topic_holds_more(topic, feed_of, send):
    partition = send(topic, numbered(1, 30))
    feed = feed_of(topic, max_records=10)
    feed.seek({})
    polls = [feed.poll(0.25)]
    while polls[-1].next_offset[partition] < 30:
        assert len(polls) < 100, "the feed brought nothing more"
        polls.append(feed.poll(0.25))
    read = [poll for poll in polls if len(poll.events)]
    assert len(read) >= 3
    assert [poll.behind for poll in read] == [{partition}] * (len(read) - 1) + [frozenset()]
    assert [poll.lag for poll in read] == [30 - poll.next_offset[partition] for poll in read]


def test_lag_is_of_all_partitions_and_known_from_the_start(new_topic, feed_of, send):
    name = new_topic(4)
    for partition, count in enumerate((5, 0, 7, 20)):
        if count:
            send(name, numbered(1, count), partition=partition)
    feed = feed_of(name)
    feed.seek({3: 18})
    poll = feed.poll(0.0)
    assert poll.lag + len(poll.events) == 14
    while poll.lag:
        poll = feed.poll(0.25)
    assert not poll.behind


def test_malformed_records_become_dead_letters_in_their_places(topic, feed_of, send):
    values = [v for bad, _ in MALFORMED_RECORDS.values() for v in (bad, changed())]
    partition = send(topic, values)
    ticks, dead, poll = read_until(feed_of(topic), len(values))
    assert [letter.offset for letter in dead] == list(range(0, len(values), 2))
    assert ticks.offset.tolist() == list(range(1, len(values), 2))
    assert {(letter.topic, letter.partition) for letter in dead} == {(topic, partition)}
    assert [letter.payload for letter in dead] == [v or b"" for v, _ in MALFORMED_RECORDS.values()]
    assert poll.next_offset[partition] == len(values)


def test_seek_goes_on_exactly_where_the_caller_stands(topic, feed_of, send):
    partition = send(topic, numbered(1, 100))
    feed = feed_of(topic)
    feed.seek({partition: 37})
    assert read_until(feed, 63)[0].offset.tolist() == list(range(37, 100))
    feed.seek({partition: 99})
    assert read_until(feed, 1)[0].price.tolist() == [100.0]
    feed.seek({partition: 100})
    assert len(feed.poll(0.1).events) == 0
    send(topic, numbered(101, 1))
    assert read_until(feed, 1)[0].offset.tolist() == [100]


def test_partitions_not_named_stand_at_the_configured_start(topic, feed_of, send):
    partition = send(topic, numbered(1, 10))
    feed = feed_of(topic, start="latest")
    feed.seek({})
    assert feed.poll(0.1).next_offset[partition] == 10
    send(topic, numbered(11, 1))
    assert read_until(feed, 1)[0].price.tolist() == [11.0]


def test_next_offset_names_every_partition_also_when_nothing_came(new_topic, feed_of):
    feed = feed_of(new_topic(4))
    feed.seek({})
    assert feed.poll(0.0).next_offset == {0: 0, 1: 0, 2: 0, 3: 0}


def test_each_partition_keeps_its_order(new_topic, feed_of, send):
    name = new_topic(4)
    for partition in range(4):
        send(name, numbered(1 + 100 * partition, 50), partition=partition)
    ticks, _, poll = read_until(feed_of(name, max_records=30), 200)
    for partition in range(4):
        mine = ticks[ticks.partition == partition]
        assert mine.offset.tolist() == list(range(50))
        assert mine.price.tolist() == [float(1 + 100 * partition + i) for i in range(50)]
    assert poll.next_offset == dict.fromkeys(range(4), 50)


def test_offset_beyond_the_end_is_refused_with_the_way_out(topic, feed_of, send):
    partition = send(topic, numbered(1, 5))
    with pytest.raises(FeedError, match=r"ends at offset 5 .* 9 is to be read next; .* journal"):
        feed_of(topic).seek({partition: 9})


def test_partition_that_is_gone_is_refused(topic, feed_of):
    with pytest.raises(FeedError, match="no partition 77"):
        feed_of(topic).seek({77: 1})


def test_topic_that_does_not_exist_is_answered_with_the_nearest(broker, topic, feed_of):
    if broker.kind == "mock":
        pytest.skip("the mock broker makes every topic it is asked for")
    with pytest.raises(FeedError, match=rf"no topic '{topic}x'; did you mean '{topic}'\?"):
        feed_of(topic + "x")


def test_unreachable_broker_is_one_sentence_within_its_time(broker, client):
    (port,) = free_ports(1)
    began = time.monotonic()
    with pytest.raises(FeedError, match=rf"Kafka at 127.0.0.1:{port} does not answer .*make kafka"):
        KafkaFeed(
            bootstrap=f"127.0.0.1:{port}", universe=UNIVERSE, client=client, connect_timeout_s=1.0
        )
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": "earlist"}, "did you mean 'earliest'"),
        ({"client": "confluence"}, "did you mean 'confluent'"),
        ({"fetch_mib": 1000}, "fetch_mib of .* was 1000"),
        ({"queue_mib": 0}, "queue_mib must be .* >= 1 .* was 0"),
        ({"linger_ms": -1}, "linger_ms must be >= 0 .* was -1"),
        ({"max_records": 0}, "max_records must be .* >= 1.* was 0"),
        ({"bootstrap": ""}, "must be host:port, was ''"),
        ({"bootstrap": "127.0.0.1:abc"}, "must be host:port, was '127.0.0.1:abc'"),
        ({"security": {"security_protocol": "SLS"}}, "was 'SLS'; did you mean 'SSL'"),
        ({"security": {"sasl_plain_pasword": "x"}}, "did you mean 'sasl_plain_password'"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(client, change, said):
    words: dict[str, Any] = {"bootstrap": "127.0.0.1:1", "universe": UNIVERSE, "client": client}
    with pytest.raises(ConfigError, match=said):
        KafkaFeed(**(words | change))


def test_kafka_python_is_refused_the_fetch_it_stalls_at():
    with pytest.raises(ConfigError, match=r"kafka-python must be >= 1 and <= 16, was 32"):
        KafkaFeed(bootstrap="127.0.0.1:1", universe=UNIVERSE, fetch_mib=32)


def test_security_without_a_counterpart_in_confluent_is_refused_by_its_key():
    security = {"sasl_oauth_token_provider": "opensesame"}
    with pytest.raises(ConfigError, match=r"sasl_oauth_token_provider has no .*kafka_python") as e:
        KafkaFeed(bootstrap="127.0.0.1:1", universe=UNIVERSE, client="confluent", security=security)
    assert "opensesame" not in str(e.value)


def test_settings_that_confluent_refuses_are_one_sentence():
    security = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAINTEXT"}
    with pytest.raises(ConfigError, match=r"refuses its settings: .*; correct bootstrap or sec"):
        KafkaFeed(bootstrap="127.0.0.1:1", universe=UNIVERSE, client="confluent", security=security)


def test_security_in_the_words_of_kafka_python_is_meant_the_same_by_confluent():
    words = {"ssl_check_hostname": False, "ssl_keyfile": None}
    words |= {key: key for key in confluent.SECURITY if key not in ("security_protocol", *words)}
    told = confluent._security(words | {"security_protocol": "SASL_SSL"})
    assert told["security.protocol"] == "SASL_SSL"
    assert told["ssl.endpoint.identification.algorithm"] == "none"
    assert told["sasl.password"] == "sasl_plain_password"
    assert set(SECURITY) - set(words) - {"security_protocol"} == {
        "ssl_context", "sasl_kerberos_name", "sasl_kerberos_domain_name",
        "sasl_oauth_token_provider",
    }  # fmt: skip


def test_confluent_that_is_not_installed_is_answered_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"pip install .*confluent.*feed.client=kafka_python"):
        KafkaFeed(bootstrap="127.0.0.1:1", universe=UNIVERSE, client="confluent")


@pytest.mark.parametrize("key", ["sasl_plain_pasword", "sasl_plain_password"])
def test_secret_is_in_no_message(broker, client, key):
    secret: dict[str, str] = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    secret |= {"sasl_plain_username": "desk", key: "opensesame"}
    words: dict[str, Any] = {"bootstrap": broker.bootstrap, "security": secret}
    for make in (
        lambda: KafkaFeed(**words, universe=UNIVERSE, client=client, connect_timeout_s=0.5),
        lambda: Publisher(**words, timeout_s=0.5),
    ):
        with pytest.raises(SysquantError) as refused:
            make()
        assert "opensesame" not in str(refused.value)


def test_topic_name_that_cannot_be_is_refused_by_the_publisher(broker):
    publisher = Publisher(bootstrap=broker.bootstrap, topic="price ticks", **broker.client)
    ticks, _ = TickDecoder(UNIVERSE).decode([changed()], 0, np.zeros(1, np.int64))
    with pytest.raises(ConfigError, match="topic cannot be 'price ticks'"):
        publisher.publish(ticks, UNIVERSE)
    publisher.close()


def test_poll_waits_no_longer_than_a_quarter_of_a_second(topic, feed_of):
    feed = feed_of(topic)
    feed.seek({})
    feed.poll(0.1)
    began = time.monotonic()
    assert len(feed.poll(60.0).events) == 0
    assert time.monotonic() - began < 0.6


def test_committed_offsets_are_seen_by_others_and_by_the_stored_start(broker, topic, feed_of, send):
    partition = send(topic, numbered(1, 20))
    feed = feed_of(topic, group=topic)
    feed.seek({})
    read_until(feed, 20)
    feed.commit({partition: 7})
    feed.close()
    other = KafkaConsumer(bootstrap_servers=broker.bootstrap, group_id=topic, **broker.client)
    assert other.committed(TopicPartition(topic, partition), timeout_ms=5000) == 7
    other.close()
    again = feed_of(topic, group=topic, start="stored")
    assert read_until(again, 13)[0].offset.tolist() == list(range(7, 20))


def test_commit_never_waits(topic, feed_of, send):
    partition = send(topic, numbered(1, 5))
    feed = feed_of(topic)
    read_until(feed, 5)
    began = time.monotonic()
    for offset in range(5):
        feed.commit({partition: offset})
    assert time.monotonic() - began < 0.5


def test_new_partition_is_found_and_read_from_its_first_record(admin, topic, feed_of, send):
    feed = feed_of(topic, start="latest", new_partitions_s=0.5)
    feed.seek({})
    admin.create_partitions({topic: 2})
    send(topic, numbered(1, 3), partition=1)
    ticks, _, poll = read_until(feed, 3)
    assert ticks.partition.tolist() == [1, 1, 1]
    assert poll.next_offset == {0: 0, 1: 3}


def test_records_the_broker_deleted_show_as_a_gap(admin, new_topic, feed_of, send):
    name = new_topic(1, cleanup_policy="delete")
    send(name, numbered(1, 100))
    feed = feed_of(name, max_records=10)
    feed.seek({})
    assert read_until(feed, 10)[2].next_offset == {0: 10}
    feed.seek({0: 5})  # elsewhere, so that what was fetched ahead is dropped
    admin.delete_records({TopicPartition(name, 0): 60})
    poll, until = feed.poll(0.25), time.monotonic() + 20
    while not len(poll.events):
        assert poll.next_offset == {0: 5}, "a gap must not be passed over in silence"
        assert time.monotonic() < until
        poll = feed.poll(0.25)
    assert poll.events.offset[0] == 60
    feed.seek({0: 20})
    assert read_until(feed, 10)[0].offset[0] == 60


@pytest.mark.parametrize("count", [3, 200])
def test_topic_made_anew_is_refused_not_read_on(broker, admin, new_topic, feed_of, send, count):
    name = new_topic(1)
    send(name, numbered(1, 100))
    feed = feed_of(name, new_partitions_s=0.5)
    feed.seek({})
    read_until(feed, 100)
    admin.delete_topics([name])
    assert not len(feed.poll(0.25).events)
    time.sleep(0.5)
    broker.create_topic(name)
    send(name, numbered(1001, count))
    with pytest.raises(FeedError, match="made anew"):
        read_until(feed, 1000, within_s=10)


def test_what_is_fetched_ahead_is_bounded_while_nobody_polls(topic, feed_of, broker, client):
    if broker.kind == "mock":
        pytest.skip("the mock broker does not keep enough")
    settings: Any = {"bootstrap_servers": broker.bootstrap, "linger_ms": 5}
    producer = KafkaProducer(**settings)
    for _ in range(1500):
        producer.send(topic, bytes(100_000))
    producer.flush(30)
    producer.close(timeout=5)
    feed = feed_of(topic, max_records=1, fetch_mib=1, queue_mib=8)
    feed.seek({})
    before = psutil.Process().memory_info().rss
    while not feed.poll(0.25).dead:
        pass
    time.sleep(1.5)
    grown = psutil.Process().memory_info().rss - before
    assert grown < 50 << 20, f"{grown >> 20} MiB of 143 were fetched ahead"
    dead = read_until(feed, 100)[1]
    assert [letter.offset for letter in dead] == list(range(1, 101))


def test_a_topic_that_is_made_anew_has_another_life(mortal, new_topic):
    topic = new_topic()
    lives = [topic_life(mortal.bootstrap, topic, 5.0, None, None) for _ in range(2)]
    assert lives[0] == lives[1] != topic and lives[0].startswith(f"{topic}-")
    admin = KafkaAdminClient(bootstrap_servers=mortal.bootstrap)
    admin.delete_topics([topic])
    until = time.monotonic() + 20
    while topic in admin.list_topics():
        assert time.monotonic() < until
        time.sleep(0.1)
    admin.close()
    mortal.create_topic(topic)
    assert topic_life(mortal.bootstrap, topic, 5.0, None, None) not in lives


def within(limit_s, step):
    """Its result; a second more than it takes is what a busy machine may add to any one step."""
    began = time.monotonic()
    result = step()
    assert time.monotonic() - began < limit_s + 1.0
    return result


def test_broker_killed_and_started_again_costs_nothing(mortal, topic, feed_of, send, caplog):
    formatted = (mortal.data_dir / "log" / "meta.properties").read_text()
    partition = send(topic, numbered(1, 50))
    feed, other = feed_of(topic), feed_of(topic)
    before, _, _ = read_until(feed, 50)
    read_until(other, 50)
    other.commit({partition: 49})
    mortal.kill()
    took = []
    for _ in range(7):
        began = time.monotonic()
        poll = within(0.6, lambda: feed.poll(0.25))
        took.append(time.monotonic() - began)
        assert (len(poll.events), poll.next_offset) == (0, {partition: 50})
        within(0.5, lambda: feed.commit({partition: 50}))
    assert np.median(took) < 0.6
    within(1.0, lambda: other.commit({partition: 50}))
    within(1.0, other.close)
    mortal.restart()
    send(topic, numbered(51, 50))
    after, dead, _ = read_until(feed, 50)
    assert not dead
    joined = Ticks.join([before, after])
    assert joined.offset.tolist() == list(range(100))
    assert joined.price.tolist() == [float(i) for i in range(1, 101)]
    assert (mortal.data_dir / "log" / "meta.properties").read_text() == formatted
    told = [r.getMessage() for r in caplog.records if r.name == "sysquant.feeds.kafka"]
    assert sum("lost broker=" in line for line in told) == 1
    assert not poll.is_connected and feed.poll(0.0).is_connected


def test_poll_commit_and_close_stay_short_with_a_stalled_broker(mortal, topic, feed_of, send):
    partition = send(topic, numbered(1, 5))
    feed = feed_of(topic)
    read_until(feed, 5)
    feed.commit({partition: 3})
    mortal.pause()
    within(0.6, lambda: feed.poll(0.25))
    within(0.5, lambda: feed.commit({partition: 5}))
    time.sleep(1.1)  # the next commit is due, the last was not answered
    within(0.6, lambda: feed.poll(0.25))
    within(0.5, lambda: feed.commit({partition: 5}))
    within(1.0, feed.close)


def test_stalled_broker_is_refused_at_the_start_like_an_absent_one(mortal, topic, client):
    mortal.pause()
    began = time.monotonic()
    with pytest.raises(FeedError, match="does not answer"):
        KafkaFeed(
            bootstrap=mortal.bootstrap,
            universe=UNIVERSE,
            topic=topic,
            client=client,
            connect_timeout_s=1.0,
        )
    assert time.monotonic() - began < 3.0


def test_publisher_to_a_stalled_broker_says_what_was_acknowledged(mortal, topic, shared_data):
    universe, recorded = read(shared_data / "ticks_ethusdt_2025-05-19.parquet")
    publisher = Publisher(bootstrap=mortal.bootstrap, topic=topic, timeout_s=1.0)
    publisher.publish(recorded[:10], universe)
    publisher.flush()
    mortal.pause()
    publisher.publish(recorded[10:20], universe)
    with pytest.raises(FeedError, match="acknowledged 10 of 20 records"):
        publisher.flush()
    publisher.close()


def test_encoded_universe_is_that_of_the_feed():
    # One symbol list decides both ways; a decoder of another order gives other indexes.
    assert GOOD["symbol"] == UNIVERSE[1].symbol
    assert encode(Ticks.empty(), UNIVERSE) == []
