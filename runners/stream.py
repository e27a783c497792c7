"""Publishes ticks to Kafka, from an exchange or a recording: `python runners/stream.py`.

Input: a feed of ticks (an exchange's socket, a recording, the store, a synthetic market). Output:
`price_ticks` JSON on the topic, in the feed's order, and one line that counts it. A signal ends it
with what was sent acknowledged.
"""

import logging
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # replaced, not inserted: runners/ would hide the package `kafka`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

from runners import compose, parts
from sysquant.errors import ConfigError
from sysquant.feeds.marks import published
from sysquant.feeds.publish import Publisher
from sysquant.journal import Journal
from sysquant.keys import check_flag, check_number
from sysquant.outbox import Outbox
from sysquant.stop import StopRequest
from sysquant.store import connect
from sysquant.times import check_moment
from sysquant.types import Feed, Instrument, Ticks

LIVE = ("binance", "coinbase", "finnhub")


def stream(
    source: Feed, publisher: Publisher, universe: list[Instrument], stop: StopRequest
) -> str:
    """Publish until the source ends or a signal comes; the line that counts it.

    Raises
    ------
    FeedError
        If the broker does not take a record.
    """
    began = time.monotonic()
    source.seek({})
    while not stop.reason:
        poll = source.poll(0.25)
        if isinstance(poll.events, Ticks) and len(poll.events):
            publisher.publish(poll.events, universe)
        if poll.ended:
            break
    publisher.flush()
    took = time.monotonic() - began
    count = publisher.acknowledged
    return (
        f"published {count} records to {publisher.topic} in {took:.2f} s "
        f"({count / took:.0f} a second)"
    )


def _source(cfg: DictConfig) -> tuple[Feed, list[Instrument]]:
    match compose.choice("source"):
        case "file" if cfg.path is None:
            raise ConfigError("path was not set; name a recording: source=file path=ticks.parquet")
        case "sample" | "binance_archive" | "ccxt" as past:
            raise ConfigError(
                f"source={past} is history for the store: import it with runners/backfill.py, then "
                "publish it with source=store"
            )
        case "file":
            recording = compose.build(cfg.source)
            return recording, recording.universe
        case "store":
            for key in ("start", "end"):
                check_moment(f"source.{key}", cfg.source[key])
            universe = parts.universe_of(cfg)
            dsn = cfg.store.dsn
            return compose.build(
                cfg.source, universe=universe, connect=lambda: connect(dsn)
            ), universe
        case _:
            universe = parts.universe_of(cfg)
            return compose.build(cfg.source, universe=universe), universe


def _past(cfg: DictConfig, stop: StopRequest) -> str:
    source, universe = _source(cfg)
    publisher = compose.build(cfg.publisher)
    try:
        return stream(source, publisher, universe, stop)
    finally:
        publisher.close()
        source.close()


def _live(cfg: DictConfig, stop: StopRequest) -> str:
    from sysquant.feeds.pump import Pump
    from sysquant.streaming import Streamer, given_up, left, stream_journal

    check_flag("report_to_store", cfg.report_to_store)
    check_number("report_s", cfg.report_s, above=0, most=86_400)
    check_number("most_waiting", cfg.most_waiting, least=1, whole=True)
    universe, topic = parts.universe_of(cfg), cfg.publisher.topic
    feed = compose.build(cfg.source, universe=universe)
    journal = Journal(stream_journal(feed.name, topic), way_out="one streams a source to a topic")
    publisher = compose.build(cfg.publisher, mark=feed.name, patience_s=cfg.patience_s)
    outbox = None
    try:
        publisher.find_topic()
        if feed.counts:
            there = {key: cfg.publisher[key] for key in ("bootstrap", "topic", "timeout_s")}
            version = cfg.publisher.api_version
            stands = published(
                **there, mark=feed.name, universe=universe, wanted=feed.symbols,
                api_version=version, security=dict(cfg.publisher.security),
            )  # fmt: skip
            feed.go_on(stands, given_up(journal), left(journal))
        if cfg.report_to_store:
            _, opened = parts.store_of(cfg, stop)
            opened().close()
            outbox = Outbox(journal.path, opened)
        window = min(20_000, cfg.publisher.most_waiting)
        pump = Pump(publisher, universe, most_waiting=cfg.most_waiting, window=window)
        return Streamer(
            feed=feed, publisher=publisher, pump=pump, journal=journal, outbox=outbox,
            report_s=cfg.report_s,
        ).run(stop)  # fmt: skip
    finally:
        feed.close()
        publisher.close(1.0)  # what Kafka did not take by now is filled in by the next start
        if outbox is not None:
            outbox.close(0.5)
        journal.close()
        stop.end_children()


@compose.main("stream")
def main(cfg: DictConfig) -> None:
    """Publish what the configuration names, until its end or a signal."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # its outages reach us as errors
    stop = StopRequest()
    if compose.choice("source") in LIVE:
        compose.start_log()
        print(_live(cfg, stop), flush=True)
    else:
        print(_past(cfg, stop), flush=True)


if __name__ == "__main__":
    main()
