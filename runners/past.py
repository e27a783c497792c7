"""The past that one configuration is backtested on: feed, funding rates, history to warm up on.

Input: a composed configuration. Output: a `Past`, and all of its events at once for who runs many
strategies over them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf

from runners import compose, parts
from sysquant import backfill
from sysquant.backtest import poll_all
from sysquant.errors import ConfigError
from sysquant.store import connect, migrate
from sysquant.strategy import Strategy
from sysquant.types import Bars, Feed, Instrument, Ticks


class Past(NamedTuple):
    """What a backtest rests on; close the client, and the feed, when it is done."""

    universe: list[Instrument]
    client: Client
    feed: Feed
    funding: parts.Funding | None
    history: Callable[[int, Mapping[int, int]], Bars] | None


def past_of(cfg: DictConfig, strategy: Strategy | None = None) -> Past:
    """Open the store and the feed, the engine compiled before.

    Parameters
    ----------
    cfg : composed.
    strategy : to compile with; default that of `cfg`.

    Raises
    ------
    ConfigError
        If the feed never ends, or a value of `cfg` cannot be meant.
    StoreError, DataError
        If the store does not answer, or lacks what is asked for.
    """
    endless = compose.choice("feed") == "synthetic" and not (cfg.feed.length_s or cfg.feed.end)
    if endless or compose.choice("feed") == "kafka":
        raise ConfigError("a backtest needs a feed that ends: feed=replay, or feed.length_s=3600")
    parts.wishes_of(cfg)
    warmup_bars = parts.runtime_of(cfg).warmup_bars
    universe = parts.universe_of(cfg)
    parts.compile_engine(cfg, universe, strategy)

    def opened() -> Client:
        return connect(cfg.store.dsn)

    client = opened()
    migrate(client)
    if compose.choice("feed") == "replay" and compose.choice("universe") == "sample":
        backfill.sample(client, universe)
    feed = parts.feed_of(cfg, universe, opened)
    funding = parts.funding_of(cfg, universe, opened, feed)
    history = parts.warmup_of(cfg, universe, opened, feed) if warmup_bars else None
    return Past(universe, client, feed, funding, history)


def events_of(past: Past) -> Ticks | Bars | None:
    """All that the feed brings, in its order; None where it brings nothing."""
    batches = [batch for batch in poll_all(past.feed) if len(batch)]
    return type(batches[0]).join(batches) if batches else None


def rests_on(cfg: DictConfig) -> str:
    """What the events of a configuration follow from: equal text, equal events."""
    named = ("feed", "universe", "store", "bars", "runtime")
    return OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, list(named)), resolve=True)
