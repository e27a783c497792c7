"""Backtest one strategy on the store's history: the engine that trades live, and its report.

python runners/backtest.py strategy=momentum
python runners/backtest.py strategy=momentum strategy.fast=5,10,20 --multirun
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import secrets

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from sysquant import backfill, backtest, plot
from sysquant.errors import ConfigError
from sysquant.store import connect, migrate


@compose.main("config", multirun=True)
def main(cfg: DictConfig) -> None:
    """Run the feed of the past through the engine, write rows and report, print the result."""
    compose.start_log(quiet=True)
    endless = compose.choice("feed") == "synthetic" and not (cfg.feed.length_s or cfg.feed.end)
    if endless or compose.choice("feed") == "kafka":
        raise ConfigError("a backtest needs a feed that ends: feed=replay, or feed.length_s=3600")
    parts.wishes_of(cfg)
    warmup_bars = parts.runtime_of(cfg).warmup_bars
    universe = parts.universe_of(cfg)
    parts.compile_engine(cfg, universe)

    def opened() -> Client:
        return connect(cfg.store.dsn)

    client = opened()
    migrate(client)
    if compose.choice("feed") == "replay" and compose.choice("universe") == "sample":
        backfill.sample(client, universe)
    feed = parts.feed_of(cfg, universe, opened)
    engine = parts.engine_of(cfg, universe, parts.funding_of(cfg, universe, opened, feed))
    history = parts.warmup_of(cfg, universe, opened, feed) if warmup_bars else None
    result = backtest.run(
        engine, backtest.poll_all(feed), name=f"backtest-{secrets.token_hex(6)}", history=history
    )
    feed.close()
    book = str(cfg.book.name or compose.choice("strategy"))
    result.store(client, book, OmegaConf.to_yaml(cfg))
    span = {"start": result.start, "end": result.end}  # first and last event, ns UTC
    compose.record(run=result.labels.run, feed=feed.name, **span, **engine.fingerprint())
    print(result)
    print(f"  run {result.labels.run}, files in {compose.output_dir()}")
    print(f"  report {plot.report(result, compose.output_dir() / 'report.html')}")


if __name__ == "__main__":
    main()
