"""Publishes ticks to Kafka: `python runners/stream.py source=file path=... speed=max`.

Input: a feed of ticks (a recording, a synthetic market). Output: `price_ticks` JSON on the topic,
in the feed's order, and one line that counts it. A signal ends it with what was sent acknowledged.
"""

import logging
import signal
import sys
import threading
import time
from pathlib import Path

if __name__ == "__main__":  # replaced, not inserted: runners/ would hide the package `kafka`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

from runners import compose, parts
from sysquant.errors import ConfigError
from sysquant.feeds.publish import Publisher
from sysquant.types import Feed, Instrument, Ticks


def stream(
    source: Feed, publisher: Publisher, universe: list[Instrument], stopped: threading.Event
) -> str:
    """Publish until the source ends or `stopped` is set; the line that counts it.

    Raises
    ------
    FeedError
        If the broker does not take a record.
    """
    began = time.monotonic()
    source.seek({})
    while not stopped.is_set():
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
    if compose.choice("source") != "file":
        universe = parts.universe_of(cfg)
        return compose.build(cfg.source, universe=universe), universe
    if cfg.path is None:
        raise ConfigError("path was not set; name a recording: source=file path=ticks.parquet")
    recording = compose.build(cfg.source)
    return recording, recording.universe


@compose.main("stream")
def main(cfg: DictConfig) -> None:
    """Publish what the configuration names, until its end or a signal."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # its outages reach us as errors
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    source, universe = _source(cfg)
    publisher = compose.build(cfg.publisher)
    try:
        print(stream(source, publisher, universe, stopped), flush=True)
    finally:
        publisher.close()
        source.close()


if __name__ == "__main__":
    main()
