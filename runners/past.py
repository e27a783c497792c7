"""The past that one configuration is backtested on: feed, funding rates, history to warm up on.

Input: a composed configuration. Output: a `Past`, and all of its events at once for who runs many
strategies over them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from clickhouse_connect.driver.client import Client
from omegaconf import DictConfig, OmegaConf

from runners import chain, compose, parts
from sysquant import archive, backfill
from sysquant.activity import Activity, bar_size
from sysquant.backtesting import poll_all
from sysquant.errors import ConfigError, DataError
from sysquant.inspection import iso
from sysquant.store import connect, migrate
from sysquant.strategy import Strategy
from sysquant.types import Bars, Feed, Instrument, Ticks

MOST_ROWS = 20_000_000  # that a gate looks at, where nobody said how many
_FURTHER = 2  # times as far back bars must reach, to be taken in place of ticks


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


def past_of(cfg: DictConfig, *, whole: bool = False) -> Past:
    """Open the store and the feed.

    Parameters
    ----------
    cfg : composed.
    whole : where its words do not say what is replayed: all that the store has, and bars where
        they reach much further back than ticks; `cfg` has them then, and it is printed.

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
    if whole and compose.choice("feed") == "replay":
        _widen(cfg, client, universe)
    feed = parts.feed_of(cfg, universe, opened)
    chain.rate(cfg, opened, feed)
    universe = parts.universe_of(cfg)
    funding = parts.funding_of(cfg, universe, opened, feed)
    history = parts.warmup_of(cfg, universe, opened, feed) if warmup_bars else None
    return Past(universe, client, feed, funding, history)


def _widen(cfg: DictConfig, client: Client, universe: list[Instrument]) -> None:
    # What decides in hours says nothing by the few that a session replays.
    said = {word.partition("=")[0].lstrip("+") for word in compose.overrides("feed")}
    size, end = bar_size(str(cfg.bars)), cfg.feed.end
    began = {kind: _first(cfg, client, universe, kind) for kind in ("ticks", "bars")}
    bars, ticks = began["bars"], began["ticks"]
    made = not isinstance(size, Activity) and size % archive.MINUTE == 0
    if "feed.kind" not in said and made and bars is not None:
        _, until = archive.span(client, universe, None, end, kind="bars")
        if ticks is None or until - bars > _FURTHER * (until - ticks):
            cfg.feed.kind = "bars"
    kind = "bars" if cfg.feed.kind == "bars" and made else "ticks"
    start = began[kind]
    if "feed.start" not in said and start is not None:
        _, until = archive.span(client, universe, start, end, kind=kind, source=cfg.feed.source)
        cfg.feed.start = iso(_newest(client, universe, kind, start, until))
    if not {"feed.start", "feed.kind"} <= said:
        print(
            f"judged on {cfg.feed.kind} from {cfg.feed.start} on: feed.start=... feed.kind=... "
            "choose others",
            flush=True,
        )


def _first(
    cfg: DictConfig, client: Client, universe: list[Instrument], kind: Literal["ticks", "bars"]
) -> int | None:
    # Of the store's rows of a kind, ns UTC; None where it has none.
    source = cfg.feed.source if kind == "ticks" else ""
    try:
        return archive.span(client, universe, None, None, kind=kind, source=source)[0]
    except DataError:
        return None


def _newest(
    client: Client, universe: list[Instrument], kind: Literal["ticks", "bars"], start: int, end: int
) -> int:
    # Later than the start where a part of the rows is all that memory should hold.
    rows = archive.count(client, universe, start, end, kind=kind)
    if rows <= MOST_ROWS:
        return start
    return end - (end - start) * MOST_ROWS // rows // archive.MINUTE * archive.MINUTE


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
