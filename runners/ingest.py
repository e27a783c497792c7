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
from sysquant.serve import ensure_server
from sysquant.store import connect, migrate

OTHER = "one writes a topic into a store"


@compose.main("ingest")
def main(cfg: DictConfig) -> None:
    """Compose the parts and run."""
    compose.start_log()
    universe = parts.universe_of(cfg)
    journal = Journal(
        ingest_journal(cfg.feed.topic, cfg.store.dsn), seal_rows=200_000, way_out=OTHER
    )
    dsn, server = ensure_server(cfg.store.dsn)
    try:
        client = connect(dsn)
        migrate(client)
        client.close()
        ingest = Ingest(
            feed=compose.build(cfg.feed, universe=universe),
            journal=journal,
            outbox=Outbox(journal.path, lambda: connect(dsn)),
            universe=universe,
            epoch=cfg.epoch or parts.life_of(cfg),
            stop_after_idle_s=cfg.stop_after_idle_s,
            stop_with=cfg.stop_with,
        )
        reason = ingest.run()
        print(f"ended: {reason}; {ingest.ticks:,} ticks, {ingest.dead:,} dead letters")
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)


if __name__ == "__main__":
    main()
