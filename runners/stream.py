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
from sysquant.outbox import Outbox
from sysquant.serve import ensure_server
from sysquant.stop import StopRequest
from sysquant.store import connect, migrate
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
        case "sample" | "binance_archive" as past:
            raise ConfigError(
                f"source={past} is history for the store: import it with runners/backfill.py, then "
                "publish it with source=store"
            )
        case "file":
            recording = compose.build(cfg.source)
            return recording, recording.universe
        case "store":
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
    from sysquant.streaming import Streamer, stream_journal

    universe, topic = parts.universe_of(cfg), cfg.publisher.topic
    feed = compose.build(cfg.source, universe=universe)
    journal = Journal(stream_journal(feed.name, topic), way_out="one streams a source to a topic")
    publisher = compose.build(cfg.publisher, mark=feed.name, patience_s=cfg.patience_s)
    outbox, server = None, None
    try:
        publisher.find_topic()
        if feed.counts:
            there = {key: cfg.publisher[key] for key in ("bootstrap", "topic", "timeout_s")}
            version = cfg.publisher.api_version
            feed.go_on(
                published(
                    **there, mark=feed.name, universe=universe, wanted=feed.symbols,
                    api_version=version, security=dict(cfg.publisher.security),
                )
            )  # fmt: skip
        if cfg.report_to_store:
            dsn, server = ensure_server(cfg.store.dsn, start=stop.spawn)
            client = connect(dsn)
            migrate(client)
            client.close()
            outbox = Outbox(journal.path, lambda: connect(dsn))
        window = min(20_000, cfg.publisher.most_waiting)
        pump = Pump(publisher, universe, most_waiting=cfg.most_waiting, window=window)
        return Streamer(
            feed=feed, publisher=publisher, pump=pump, journal=journal, outbox=outbox,
            report_s=cfg.report_s,
        ).run(stop)  # fmt: skip
    finally:
        feed.close()
        publisher.close()
        if outbox is not None:
            outbox.close(0.5)
        journal.close()
        if server is not None:
            server.terminate()
            server.wait(10)


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
