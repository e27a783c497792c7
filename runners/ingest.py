"""Write a Kafka topic's ticks to the store, until Ctrl-C; `live.py` starts it beside itself.

python runners/ingest.py universe=crypto store=clickhouse
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from contextlib import closing

from omegaconf import DictConfig

from runners import compose, parts
from sysquant.ingest import Ingest, ingest_journal
from sysquant.journal import Journal
from sysquant.keys import check_number
from sysquant.outbox import Outbox
from sysquant.stop import StopRequest

_STANDS_SQL = """
SELECT partition, max(offset) + 1 FROM ticks WHERE epoch = {epoch:String} GROUP BY partition
"""


@compose.main("ingest")
def main(cfg: DictConfig) -> None:
    """Compose the parts, run, end what was started beside it."""
    compose.start_log()
    stop = StopRequest()
    universe = parts.universe_of(cfg)
    if cfg.stop_after_idle_s is not None:
        check_number("stop_after_idle_s", cfg.stop_after_idle_s, above=0)
    if cfg.stop_with is not None:
        check_number("stop_with", cfg.stop_with, least=1, whole=True)
    where = ingest_journal(cfg.feed.topic, cfg.store.dsn)
    journal = Journal(where, seal_rows=200_000, way_out="one writes a topic into a store")
    try:
        _, opened = parts.store_of(cfg, stop)
        opened().close()

        def stands(epoch: str) -> dict[int, int]:
            with closing(opened()) as client:
                found = client.query(_STANDS_SQL, {"epoch": epoch}).result_rows
            return {int(partition): int(offset) for partition, offset in found}

        ingest = Ingest(
            feed=compose.build(cfg.feed, universe=universe),
            journal=journal,
            outbox=Outbox(journal.path, opened),
            universe=universe,
            epoch=cfg.epoch or parts.life_of(cfg),
            stop_after_idle_s=cfg.stop_after_idle_s,
            stop_with=cfg.stop_with,
            stands=stands,
        )
        reason = ingest.run(stop)
        print(f"ended: {reason}; {ingest.ticks:,} ticks, {ingest.dead:,} dead letters")
    finally:
        stop.end_children()


if __name__ == "__main__":
    main()
