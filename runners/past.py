"""The past that one configuration is backtested on: feed, funding rates, history to warm up on.

Input: a composed configuration. Output: a `Past`, and all of its events at once for who runs many
strategies over them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf

from runners import chain, compose, parts
from sysquant import backfill
from sysquant.backtesting import poll_all
from sysquant.errors import ConfigError, DataError
from sysquant.store import connect, migrate
from sysquant.strategy import Strategy
from sysquant.types import Bars, Feed, Instrument, Ticks


class Past(NamedTuple):
    """What a backtest rests on."""

    universe: list[Instrument]
    client: Client
    feed: Feed
    funding: parts.Funding | None
    history: Callable[[int, Mapping[int, int]], Bars] | None


def compile_first(cfg: DictConfig, strategy: Strategy | None = None) -> None:
    """Check a backtest's configuration, and compile its engine, before the store is opened.

    Parameters
    ----------
    cfg : composed.
    strategy : to make the engine with; default that of `cfg`.

    Raises
    ------
    ConfigError
        If the feed never ends, or a value of `cfg` cannot be meant.
    """
    endless = compose.choice("feed") == "synthetic" and not (cfg.feed.length_s or cfg.feed.end)
    if endless or compose.choice("feed") == "kafka":
        raise ConfigError("a backtest needs a feed that ends: feed=replay, or feed.length_s=3600")
    parts.wishes_of(cfg)
    parts.runtime_of(cfg)
    parts.compile_engine(cfg, parts.universe_of(cfg), strategy)


def past_of(cfg: DictConfig) -> Past:
    """Open the store and the feed.

    Raises
    ------
    ConfigError
        If a value of `cfg` cannot be meant.
    StoreError, DataError
        If the store does not answer, or lacks what is asked for.
    """
    universe, warmup_bars = parts.universe_of(cfg), parts.runtime_of(cfg).warmup_bars

    def opened() -> Client:
        return connect(cfg.store.dsn)

    client = opened()
    migrate(client)
    if compose.choice("feed") == "replay" and compose.choice("universe") == "sample":
        backfill.sample(client, universe)
    feed = parts.feed_of(cfg, universe, opened)
    chain.rate(cfg, opened, feed)
    universe = parts.universe_of(cfg)
    funding = parts.funding_of(cfg, universe, opened, feed)
    history = parts.warmup_of(cfg, universe, opened, feed) if warmup_bars else None
    return Past(universe, client, feed, funding, history)


@contextmanager
def closed(past: Past) -> Iterator[None]:
    """Close the feed and the client in the end."""
    try:
        yield
    finally:
        past.feed.close()
        past.client.close()


def events_of(past: Past) -> Ticks | Bars:
    """All that the feed brings, in its order.

    Raises
    ------
    DataError
        If it brings nothing.
    """
    batches: list[Any] = [batch for batch in poll_all(past.feed) if len(batch)]
    if not batches:
        raise DataError("the feed brings no event; see feed.start and feed.end")
    return type(batches[0]).join(batches)


def rests_on(cfg: DictConfig) -> str:
    """What the events of a configuration follow from: equal text, equal events."""
    named = ("feed", "universe", "store", "bars")
    return OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, list(named)), resolve=True)
