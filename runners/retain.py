"""Move old months of ticks out of the store into Parquet files, which history goes on reading.

`python runners/retain.py store=clickhouse keep=400d export=data/archive`; repeat it as you like.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

from runners import compose
from sysquant.errors import ConfigError
from sysquant.retention import retain
from sysquant.store import connect, migrate


@compose.main("retain")
def main(cfg: DictConfig) -> None:
    """Move what is older than `keep`, and say what was moved."""
    if cfg.keep is None:
        print("keep is null: all ticks stay in the store")
        return
    if not isinstance(cfg.keep, str):
        raise ConfigError(f"keep must name its unit, as 400d, was {cfg.keep}")
    client = connect(cfg.store.dsn)
    try:
        migrate(client)
        moved = retain(client, cfg.keep, cfg.export)
    finally:
        client.close()
    for month in moved:
        print(month)
    if not moved:
        print(f"no month of ticks is wholly older than {cfg.keep}: nothing was moved")


if __name__ == "__main__":
    main()
