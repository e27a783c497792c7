"""Write a Kafka topic's ticks to the store, until Ctrl-C; `live.py` starts it beside itself.

python runners/ingest.py universe=crypto store=clickhouse
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

from runners import compose, parts
from sysquant.ingest import Ingest, ingest_journal
from sysquant.journal import Journal
from sysquant.outbox import Outbox
from sysquant.stop import StopRequest


@compose.main("ingest")
def main(cfg: DictConfig) -> None:
    """Compose the parts, run, end what was started beside it."""
    compose.start_log()
    stop = StopRequest()
    universe = parts.universe_of(cfg)
    where = ingest_journal(cfg.feed.topic, cfg.store.dsn)
    journal = Journal(where, seal_rows=200_000, way_out="one writes a topic into a store")
    try:
        _, opened = parts.store_of(cfg, stop)
        opened().close()
        ingest = Ingest(
            feed=compose.build(cfg.feed, universe=universe),
            journal=journal,
            outbox=Outbox(journal.path, opened),
            universe=universe,
            epoch=cfg.epoch or parts.life_of(cfg),
            stop_after_idle_s=cfg.stop_after_idle_s,
            stop_with=cfg.stop_with,
        )
        reason = ingest.run(stop)
        print(f"ended: {reason}; {ingest.ticks:,} ticks, {ingest.dead:,} dead letters")
    finally:
        stop.end_children()


if __name__ == "__main__":
    main()
