"""The parts that live and backtest share, built from one composed configuration."""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from omegaconf import DictConfig

from runners.chain import interval_of, risk_of
from runners.compose import build, check_types, choice, overrides, value
from sysquant import archive
from sysquant.activity import Activity, bar_size, closed_bars
from sysquant.compiled import is_compiled
from sysquant.effects import Labels
from sysquant.engine import Engine
from sysquant.errors import ConfigError, nearest
from sysquant.execution import Execution
from sysquant.feeds.replay import ReplayFeed
from sysquant.home import home
from sysquant.keys import check_choice, check_number
from sysquant.models.loader import ModelLoader
from sysquant.models.manifest import public_key
from sysquant.models.registry import Registry
from sysquant.operation import Hold, Switch
from sysquant.opinions import Models
from sysquant.promotions import Promotion
from sysquant.runtime import Runtime
from sysquant.serve import ensure_server, revive
from sysquant.stop import StopRequest
from sysquant.store import connect, migrate
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Bars, Feed, Floats, Instrument, Ints, Ticks, clock_mark

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Connect = Callable[[], Any]
Funding = Mapping[str, tuple[Ints, Floats]]
_FARTHEST = 4**7 * archive.MINUTE  # back for bars of activity: eleven days of ticks are read
_NO_RECORDS: Mapping[str, Promotion] = MappingProxyType({})
INSTRUMENT = [field.name for field in fields(Instrument)]


def store_of(cfg: DictConfig, stop: StopRequest) -> tuple[str, Callable[[], "Client"]]:
    """DSN of the store's server, and what connects to it; it is started where none runs.

    Connecting starts a server again that died, and makes the tables; the server ends with `stop`.
    """
    dsn, _ = ensure_server(cfg.store.dsn, start=stop.spawn)

    def opened() -> "Client":
        revive(cfg.store.dsn, stop.spawn)
        client = connect(dsn)
        migrate(client)
        return client

    return dsn, opened


def universe_of(cfg: DictConfig) -> list[Instrument]:
    """The instruments of `universe.instruments`, in their order."""
    if not cfg.universe.instruments:
        raise ConfigError("universe.instruments is empty; name at least one symbol")
    listed = value(cfg, "universe.instruments", list[dict[object, object]])
    return [_instrument(keys, f"universe.instruments.{n}") for n, keys in enumerate(listed)]


def _instrument(given: dict[Any, Any], where: str) -> Instrument:
    for key in set(given) - set(INSTRUMENT):
        raise ConfigError(f"{where}: no key {key!r}{nearest(str(key), INSTRUMENT)}")
    if "symbol" not in given:
        raise ConfigError(f"{where} has no symbol, was {given}")
    if given.get("max_position", 0) is None:  # null: none
        del given["max_position"]
    check_types(Instrument, given, where)
    try:
        return msgspec.convert(given, Instrument)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def runtime_of(cfg: DictConfig) -> Runtime:
    """How a session runs; `runtime.clock=auto` becomes what the feed needs."""
    if value(cfg, "runtime.clock", Literal["auto", "event", "wall"]) == "auto":
        cfg.runtime.clock = "wall" if choice("feed") == "kafka" else "event"
    return build(cfg.runtime)


def wishes_of(cfg: DictConfig) -> tuple[str, str]:
    """What is wanted of the journal, and of ingest; a backtest has neither, and refuses alike."""
    journal = value(cfg, "journal", Literal["resume", "fresh"])
    return journal, value(cfg, "ingest", Literal["auto", "none"])


def engine_of(
    cfg: DictConfig,
    universe: list[Instrument],
    funding: Funding | None = None,
    strategy: Strategy | None = None,
    *,
    contained: bool = False,
    models: Models | None = None,
    promoted: Collection[str] | None = None,
) -> Engine:
    """The engine of the book of `cfg`.

    Parameters
    ----------
    funding : what `funding_of` found.
    strategy : in place of the one that `cfg` names, of its class.
    contained, models : as of `Engine`.
    promoted : as of `Engine`; None: all of them, for what is only looked at.
    """
    strategies = {choice("strategy"): strategy} if strategy else strategies_of(cfg)
    flattened(cfg, list(strategies))
    capital = value(cfg, "book.capital", float)
    check_number("book.capital", capital, above=0)
    return Engine(
        universe=universe,
        strategies=strategies,
        risk=risk_of(cfg),
        execution=_execution_of(cfg, funding),
        sizing=build(cfg.sizing),
        orders=build(cfg.orders),
        exits=build(cfg.exits),
        interval=bar_size(str(cfg.bars)),
        capital=capital,
        fractions=_fractions_of(cfg, list(strategies)),
        seed=value(cfg, "seed", int),
        snapshot_ns=interval_of(cfg, "snapshots"),
        currency=value(cfg, "book.currency", str),
        contained=contained,
        models=models,
        promoted=list(strategies) if promoted is None else promoted,
    )


def models_of(cfg: DictConfig, records: Mapping[str, Promotion] = _NO_RECORDS) -> ModelLoader:
    """What finds the models of the book's strategies; of promoted ones, by their recipes alone."""
    key = functools.partial(public_key, home() / "data" / "keys")
    recipes = {name: record.terms["model"] for name, record in records.items()}
    return ModelLoader(Registry(home() / "data" / "models"), key, strategies_of(cfg), recipes)


def strategies_of(cfg: DictConfig) -> dict[str, Strategy]:
    """The strategies of the book, by name: that of `strategy`, or those of `book.strategies`."""
    listed: Any = cfg.book.get("strategies")
    only = value(cfg, "book.only", list[str] | None)
    if only is not None and not only:
        raise ConfigError("book.only is empty: name at least one strategy, or leave it out")
    if listed and overrides("strategy"):
        raise ConfigError(
            "strategy is that of book=single; of a book of several, a parameter is "
            "book.strategies.<name>.<key>"
        )
    if not listed:
        if only:
            raise ConfigError("book.only chooses from a book of several: book=all")
        return {choice("strategy"): build(cfg.strategy)}
    for name in only or ():
        if name not in listed:
            raise ConfigError(f"book.only: the book has no {name!r}{nearest(name, list(listed))}")
    return {str(name): build(listed[name]) for name in only or listed}


def _fractions_of(cfg: DictConfig, names: list[str]) -> Mapping[str, float]:
    fraction = value(cfg, "book.fraction", float)
    check_number("book.fraction", fraction, above=0, most=1)
    equal: dict[str, float] = dict.fromkeys(names, float(fraction) / len(names))
    given = value(cfg, "book.fractions", dict[str, float] | None) or equal
    if given is not equal and fraction != 1:
        raise ConfigError("book.fraction is for equal shares: leave it out beside book.fractions")
    for name in given:
        if name not in names:
            raise ConfigError(f"book.fractions: the book has no {name!r}{nearest(name, names)}")
    for name in names:
        if name not in given:
            raise ConfigError(f"book.fractions has no share for {name!r}")
    return given


def flattened(cfg: DictConfig, names: list[str]) -> list[str]:
    """Strategies that leave everything when the session is stopped (`book.at_stop`)."""
    said = value(cfg, "book.at_stop", str | dict[str, str])
    each = said if isinstance(said, dict) else dict.fromkeys(names, said)
    for name, what in each.items():
        if name not in names:
            raise ConfigError(f"book.at_stop: the book has no {name!r}{nearest(name, names)}")
        check_choice("book.at_stop", what, ("keep", "flatten"))
    return [name for name, what in each.items() if what == "flatten"]


def _execution_of(cfg: DictConfig, funding: Funding | None) -> Execution:
    node = cfg.execution
    if not isinstance(node.funding, str):
        return build(node)
    check_choice("execution.funding", node.funding, ("null", "store"))
    if choice("feed") != "replay":
        # What comes later is no input of the journal: a restart would charge other rates.
        raise ConfigError(
            f"execution.funding=store is for feed=replay, was {choice('feed')}: the rates of hours "
            "to come are not in the store yet; set execution.funding=null and a constant "
            "execution.funding_rate"
        )
    return build(node, funding=funding)


def funding_of(
    cfg: DictConfig, universe: list[Instrument], connect: Connect, feed: Feed | None
) -> Funding | None:
    """Rates of the store for what a replay holds of perpetuals; None unless they are asked for.

    Raises
    ------
    DataError
        If the store lacks a rate of one of its funding times.
    """
    symbols = [instrument.symbol for instrument in universe if instrument.perpetual]
    if cfg.execution.funding != "store" or not symbols or not isinstance(feed, ReplayFeed):
        return None
    client = connect()
    try:
        found = archive.funding(client, symbols, *feed.span)
    finally:
        client.close()
    step = round(value(cfg, "execution.funding_hours", float) * 60 * archive.MINUTE)
    archive.check_funding(found, symbols, *feed.span, step)
    return found


def compile_engine(
    cfg: DictConfig, universe: list[Instrument], strategy: Strategy | None = None
) -> None:
    """Compile what the engine needs before any event waits for it; from the cache after once."""
    if not is_compiled():
        print("compiling the engine, once for this version and machine (half a minute)", flush=True)
    spare = engine_of(cfg, universe, strategy=strategy, contained=True)
    first, end = clock_mark(archive.MINUTE), clock_mark(2 * archive.MINUTE)
    trade = replace(first, symbol=np.zeros(1, np.int32), price=np.ones(1))
    spare.warm(closed_bars([trade, end], universe, archive.MINUTE))  # compiles what decides
    spare.step(Ticks.join([trade, end]))
    for wish in (Hold("halt", on=True), Switch("off")):  # no kill switch waits for a compiler
        spare.operate(wish)


def labels_of(engine: Engine, run: str, promotions: Mapping[str, str]) -> Labels:
    """Names for the engine's rows."""
    return Labels(run, list(engine.strategies), engine.symbols, engine.risk, promotions)


def feed_of(cfg: DictConfig, universe: list[Instrument], connect: Connect) -> Feed:
    """The feed; one that replays the store gets a client of its own."""
    own = {"connect": connect} if choice("feed") == "replay" else {}
    size = bar_size(str(cfg.bars))
    if isinstance(size, Activity) and cfg.feed.get("kind") == "bars":
        raise ConfigError(
            f"bars={cfg.bars} are made of ticks, feed.kind was bars: set feed.kind=ticks, or bars "
            "to a length of time, as 1m"
        )
    feed: Feed = build(cfg.feed, universe=universe, **own)
    if feed.kind == "bars" and feed.interval != size:
        raise ConfigError(
            f"feed.interval must be that of the strategies' bars ({cfg.bars}), was "
            f"{feed.interval / SECOND:g} s; set bars=..., which feed.interval follows"
        )
    return feed


def life_of(cfg: DictConfig) -> str:
    """Epoch under which the ingest writes the topic of `cfg.feed`; the broker is asked."""
    from sysquant.feeds.connection import topic_life

    feed = cfg.feed
    return topic_life(
        feed.bootstrap, feed.topic, feed.connect_timeout_s, feed.api_version, dict(feed.security)
    )


def warmup_of(
    cfg: DictConfig, universe: list[Instrument], connect: Connect, feed: Feed
) -> Callable[[int, Mapping[int, int]], Bars]:
    """Bars of the store before a time, as many as `runtime.warmup_bars`.

    Causal: they hold nothing that the feed is still to bring. A tick of it that came late, but lies
    before its first one, ends the history earlier.
    """
    size = bar_size(str(cfg.bars))
    step = 1 if isinstance(size, Activity) else size  # ends are multiples of it
    most = cfg.runtime.warmup_bars

    def bars_until(client: Any, end: int) -> Bars:
        if isinstance(size, Activity):
            return _last_of_ticks(client, universe, end, size, most)
        return archive.bars(client, universe, end - most * size, end, size)

    def before(end: int, first: Mapping[int, int]) -> Bars:
        if not most:
            return Bars.empty()
        if isinstance(feed, ReplayFeed):
            end = min(end, feed.span[0] - feed.span[0] % step)
        lives = [feed.name]  # as ClickHouse's own engine writes it, and as our ingest does
        if "bootstrap" in cfg.get("feed", {}):
            lives.append(life_of(cfg))
        client = connect()
        try:
            while True:
                bars = bars_until(client, end)
                earliest = archive.earliest(client, universe, lives, first)
                if earliest is None or earliest >= end:
                    return bars
                end = earliest - earliest % step
        finally:
            client.close()

    return before


def _last_of_ticks(
    client: Any, universe: list[Instrument], end: int, size: Activity, most: int
) -> Bars:
    # How far back so many bars begin is not known: four times as far each time.
    back = archive.MINUTE
    while True:
        ticks = archive.iter_ticks(client, universe, end - back, end)
        bars = closed_bars(ticks, universe, size)
        enough = np.bincount(bars.symbol, minlength=len(universe)).min() >= most
        if enough or back >= _FARTHEST:
            break
        back *= 4
    last = [np.flatnonzero(bars.symbol == number)[-most:] for number in range(len(universe))]
    return bars[np.sort(np.concatenate(last))]
