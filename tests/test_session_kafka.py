"""Whole sessions over a real broker: what was traded is its backtest, whatever came between."""

import json
import time

import kafka
import pandas

from tests.compare import assert_same_decisions
from tests.sessions import ended, journaled, run_of, server, store, until
from tests.sessions import forked as run

__all__ = ["run", "server", "store"]  # fixtures

ETHUSDT = "ticks_ethusdt_2025-05-19.parquet"


def eth_session(broker, topic):
    return [
        "strategy=momentum",
        "strategy.fast=3",
        "strategy.slow=9",
        "book.unpromoted=null",
        "universe=crypto",
        "bars=1s",
        "snapshots=1s",
        "feed=kafka",
        f"feed.bootstrap={broker.bootstrap}",
        f"feed.topic={topic}",
        "runtime.clock=event",
        "runtime.stop_after_idle_s=3",
        "runtime.snapshot_s=0.2",
        *(["feed.api_version=[2,3]"] if broker.kind == "mock" else []),
    ]


def same_history(session):
    """The backtest of what a Kafka session ingested."""
    kept = [a for a in session if not a.startswith(("feed", "runtime"))]
    return [*kept, "feed=replay", "feed.kind=ticks", "feed.start=null"]


def publish(run, broker, topic, path):
    arguments = [f"publisher.bootstrap={broker.bootstrap}", f"publisher.topic={topic}"]
    if broker.kind == "mock":
        arguments.append("publisher.api_version=[2,3]")
    ended(run("stream", "source=file", f"path={path}", "speed=max", *arguments))


def test_a_recording_over_kafka_trades_as_its_backtest_and_survives_sigkill(
    run, home, store, broker, topic, shared_data
):
    publish(run, broker, topic, shared_data / ETHUSDT)
    session = eth_session(broker, topic)
    undisturbed = run_of(ended(run("live", *session, "book.name=undisturbed")))
    backtest = run_of(ended(run("backtest", *same_history(session))))
    ticks = store.query("SELECT count(), uniqExact(partition, offset) FROM ticks").result_rows
    assert ticks == [(11_328, 11_328)]
    assert_same_decisions(store, undisturbed, backtest, least=10)

    slowly = [*session, "book.name=killed", "feed.max_records=100"]  # 114 inputs
    for enough in (10, 60):
        victim = run("live", *slowly)
        until(lambda least=enough: journaled(home, "killed") >= least)
        victim.kill()
        victim.communicate()
        assert enough <= journaled(home, "killed") < 110
    output = ended(run("live", *slowly))
    assert "events 11,328 (late 0, dead letters 0)" in output
    assert_same_decisions(store, run_of(output), undisturbed, least=10)


def test_time_from_the_exchange_is_measured_apart_from_the_skew_of_its_clock(
    run, home, store, broker, topic
):
    """The exchange's clock is two seconds ahead, and every tenth record is 150 ms late."""
    session = [word for word in eth_session(broker, topic) if word != "runtime.clock=event"]
    live = run("live", *session, "book.name=now", "runtime.report_s=0.5", "feed.start=latest")
    beat = home / "data" / "journals" / "now" / "heartbeat.json"
    until(lambda: beat.exists() and b'"running"' in beat.read_bytes())
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, **broker.client)
    for number in range(200):
        late_ms = 150 if number % 10 == 0 else 0
        tick = {"timestamp_ms": time.time_ns() // 10**6 + 2_000 - late_ms, "price": 2500.0}
        seen = "2025-05-18T22:56:13+00:00"
        tick |= {"symbol": "BINANCE:ETHUSDT", "volume": 1.0, "timestamp": seen, "received_at": seen}
        producer.send(topic, json.dumps(tick).encode())
        producer.flush()
        time.sleep(0.01)
    assert "events 200 " in ended(live)
    producer.close()
    rows = store.query(
        "SELECT argMax(clock_skew_ms, ts), median(exchange_ms_p50), median(exchange_ms_p99), "
        "sum(batches), median(decision_ms_p99), max(lag_ms) FROM runtime_metrics "
        # The first ticks wait while features are warmed up on the store's history; medians, as
        # a machine that stands still for half a second is none of the session's.
        "WHERE ticks_per_s > 0 AND ts > (SELECT min(ts) FROM runtime_metrics WHERE ticks_per_s > 0)"
    ).result_rows
    skew, median, slow, batches, decided, lag = rows[0]
    assert -2_000 <= skew < -1_900
    assert 0 < median < 150 < slow < 600
    assert batches > 20
    assert 0 < decided < 200
    assert lag < 0  # wall clock minus engine time holds the skew


BAD = [
    b"",
    b"not json",
    b"[]",
    b"{}",
    b'{"timestamp_ms": 1747608973000, "symbol": "BINANCE:ETHUSDT", "price": NaN, "volume": 1}',
    b"\xff\xfe",
]


def bad_ticks():
    """One record of every kind that cannot be used, otherwise whole."""
    good = {
        "timestamp": "2025-05-18T22:56:13+00:00", "timestamp_ms": 1747608973000,
        "symbol": "BINANCE:ETHUSDT", "price": 2500.0, "volume": 1.0,
        "received_at": "2025-05-18T22:56:13+00:00",
    }  # fmt: skip
    changes = [
        {"price": -1.0}, {"price": 0}, {"price": "2500"}, {"price": None}, {"volume": -0.5},
        {"symbol": "NASDAQ:NONE"}, {"symbol": 7}, {"timestamp_ms": "soon"}, {"timestamp_ms": -5},
        {"timestamp_ms": 10**18}, {"received_at": "yesterday"},
    ]  # fmt: skip
    return BAD + [json.dumps(good | change).encode() for change in changes]


def test_bad_ticks_are_dead_letters_and_nothing_else_changes(
    run, store, broker, new_topic, shared_data
):
    clean, soiled = new_topic(), new_topic()
    publish(run, broker, clean, shared_data / ETHUSDT)
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, **broker.client)
    for record in bad_ticks():
        producer.send(soiled, record).get(10)
    producer.close()
    publish(run, broker, soiled, shared_data / ETHUSDT)
    runs = []
    for topic in (clean, soiled):
        output = ended(run("live", *eth_session(broker, topic), f"book.name={topic}"))
        runs.append(run_of(output))
    assert f"events 11,328 (late 0, dead letters {len(bad_ticks())})" in output
    assert_same_decisions(store, *runs, least=10)
    dead = store.query("SELECT topic, count(), max(reason != '') FROM dead_letter FINAL GROUP BY 1")
    assert dead.result_rows == [(soiled, len(bad_ticks()), 1)]


def test_history_holds_nothing_that_the_feed_still_brings(
    run, home, store, broker, topic, shared_data
):
    ticks = pandas.read_parquet(shared_data / ETHUSDT)
    late = ticks.index[len(ticks) // 3]
    moved = pandas.concat([ticks.loc[[late]], ticks.drop(index=late)], ignore_index=True)
    moved.to_parquet(home / "moved.parquet")
    publish(run, broker, topic, home / "moved.parquet")
    session = eth_session(broker, topic)
    first = run_of(ended(run("live", *session, "book.name=first")))
    again = run_of(ended(run("live", *session, "book.name=again")))
    backtest = run_of(ended(run("backtest", *same_history(session))))
    assert store.query("SELECT count() FROM ticks").result_rows == [(11_328,)]
    assert_same_decisions(store, first, again, least=5)
    assert_same_decisions(store, first, backtest, least=5)
