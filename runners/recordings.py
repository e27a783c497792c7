"""Recorded sessions of this machine, found and made again from the words that live.py was given.

Input: a composed configuration, or words. Output: where a session's inputs lie, engines as its own,
and the events that its backtest takes. In a notebook: `session_of("strategy=momentum").at("-2h")`.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from clickhouse_connect.driver.client import Client
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from runners import chain, compose, parts, promoted
from runners.command_line import CONF
from sysquant import journal_reader
from sysquant.engine import Engine
from sysquant.errors import ConfigError, DataError, NotRecordedError, StoreAwayError
from sysquant.home import home
from sysquant.inputs import Events, Inputs, canonical
from sysquant.locking import holder
from sysquant.session import Session
from sysquant.store import connect, migrate, store_errors
from sysquant.types import Bars, Feed, Instrument, Ticks

_PATIENCE_S = 30.0  # with a store that is to take the last rows of a session that goes on
_INGEST_S, _AGAIN_S = 30.0, 2.0  # for an ingest to write what a session took; between looks
_SAME = ("symbols", "bars", "allocations")  # of the fingerprint: without them nothing is compared
_TICKS = """
    SELECT toUnixTimestamp64Nano(t.ts) AS ts,
        toInt32(indexOf({symbols:Array(String)}, t.symbol) - 1) AS symbol, t.price AS price,
        t.volume AS volume, toUnixTimestamp64Nano(t.received_at) AS received_at,
        t.partition AS partition, t.offset AS offset
    FROM ticks AS t FINAL
    WHERE t.symbol IN {symbols:Array(String)} AND has({lives:Array(String)}, toString(t.epoch))
        AND t.offset >= transform(t.partition, {parts:Array(Int32)}, {first:Array(Int64)}, -1)
        AND t.offset <= transform(t.partition, {parts:Array(Int32)}, {last:Array(Int64)}, -1)
        AND has({parts:Array(Int32)}, t.partition)
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """A session that was recorded on this machine, and what its book is made of.

    Parameters
    ----------
    book : its name.
    run : its id, in every row.
    directory, files : of its journal, and of what that forgot.
    universe : as the session began with it.
    client : of the store.
    feed : as configured.
    make : a fresh engine, as configured.
    differs : what is configured otherwise than the session was, by name.
    history : as `parts.warmup_of`.
    """

    book: str
    run: str
    directory: Path
    files: Path
    universe: list[Instrument]
    client: Client
    feed: Feed
    make: Callable[[], Engine]
    differs: tuple[str, ...]
    history: Callable[[int, Mapping[int, int]], Bars]

    def session(self) -> Session:
        """To be looked at, at any moment.

        Raises
        ------
        ConfigError
            If it was configured otherwise.
        """
        if self.differs:
            raise ConfigError(
                f"the session's book differs: {', '.join(self.differs)}; give the words that "
                "live.py was given"
            )
        return Session(self.directory, self.files, self.make)


@contextmanager
def recording_of(cfg: DictConfig) -> Iterator[Recording]:
    """The session of a configuration, with the store open.

    Raises
    ------
    ConfigError, DataError
        If there is none, or it traded other symbols, bars or capital.
    StoreError
        If the store does not answer.
    """
    book = compose.book_of(cfg)
    directory = home() / "data" / "journals" / book
    known = journal_reader.meta(directory)
    if "fingerprint" not in known:
        raise DataError(
            f"there is no session of a book {book!r} in {directory.parent}: give the words that "
            "live.py was given"
        )

    def opened() -> Client:
        return connect(cfg.store.dsn)

    if "speed" in cfg.feed:
        with open_dict(cfg):
            cfg.feed.speed = "max"
    with closing(parts.models_of(cfg)) as models, closing(opened()) as client:
        migrate(client)
        feed = parts.feed_of(cfg, parts.universe_of(cfg), opened)
        try:
            chain.rate(cfg, opened, feed, known.get("quality", ""))
            universe = parts.universe_of(cfg)
            funding = parts.funding_of(cfg, universe, opened, feed)

            def make() -> Engine:
                return parts.engine_of(
                    cfg, universe, funding, contained=True, models=models,
                    promoted=promoted.named(said),
                )  # fmt: skip

            said = json.loads(known["fingerprint"])
            differs = _differing(said, make().fingerprint())
            yield Recording(
                book, known["id"], directory, home() / "runs" / known["id"], universe, client,
                feed, make, differs, parts.warmup_of(cfg, universe, opened, feed),
            )  # fmt: skip
        finally:
            feed.close()


def _differing(was: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    names = [name for name, said in now.items() if was.get(name, "") != said]
    if others := [name for name in names if name in _SAME]:
        raise ConfigError(
            f"the session's book has other {', '.join(others)}: give the words that live.py was "
            "given"
        )
    return tuple(names)


def arrived(recording: Recording, last: int) -> None:
    """Wait until the store has all rows of a session's inputs up to one.

    Raises
    ------
    StoreAwayError
        If they do not come.
    """
    until, first = time.monotonic() + _PATIENCE_S, None
    while True:
        sql = "SELECT min(id), (SELECT seq FROM sqlite_sequence WHERE name='outbox') FROM outbox"
        found = journal_reader.ask(recording.directory, sql)
        least, newest = found[0] if found else (None, 0)
        first = (newest or 0) + 1 if first is None else first
        if least is None or least >= first:
            return
        if holder(recording.directory) is None or time.monotonic() > until:
            raise StoreAwayError(
                f"rows of the session up to input {last} wait in the journal for the store: start "
                "live.py with the same words, which sends them"
            )
        time.sleep(0.2)


def stored(recording: Recording, cfg: DictConfig, inputs: Inputs, until: int) -> Events:
    """Events that the session's backtest takes, in canonical order: of its feed, or its topic.

    Parameters
    ----------
    inputs : of the session.
    until : what comes later is not asked for, ns UTC.

    Raises
    ------
    DataError
        If there are none.
    NotRecordedError
        If nobody writes those of the topic into the store.
    """
    if compose.choice("feed") == "kafka":
        return canonical(_of_topic(recording, cfg, inputs))
    batches, feed = list[Any](), recording.feed
    feed.seek({})
    while True:
        poll = feed.poll(0.0)
        if len(poll.events):
            batches.append(poll.events)
        if poll.ended or (batches and int(batches[-1].ts.max()) > until):
            break
    if not batches:
        raise DataError("the feed brings no event any more: the store lost what it had")
    return type(batches[0]).join(batches)


def _of_topic(recording: Recording, cfg: DictConfig, inputs: Inputs) -> Ticks:
    # What ingest wrote of the offsets that the session took.
    first, last = inputs.first_offsets, inputs.last_offsets
    lives = [recording.feed.name, parts.life_of(cfg)]
    given: dict[str, Any] = {
        "symbols": [one.symbol for one in recording.universe], "lives": lives,
        "parts": list(first), "first": list(first.values()), "last": [last[p] for p in first],
    }  # fmt: skip
    until = time.monotonic() + _INGEST_S
    while True:
        with store_errors():
            found = recording.client.query_arrow(_TICKS, given)
        if not found.num_rows:
            raise NotRecordedError(
                f"the store has no tick of {' or '.join(lives)} at the session's offsets: run "
                "runners/ingest.py, which writes them"
            )
        columns: dict[str, Any] = {
            name: np.array(found[name].to_numpy(), kind) for name, kind in Ticks.DTYPES.items()
        }
        ticks = Ticks(**columns)
        is_whole = all(bool((ticks.offset[ticks.partition == p] == last[p]).any()) for p in last)
        if is_whole or holder(recording.directory) is None or time.monotonic() > until:
            return ticks
        time.sleep(_AGAIN_S)  # ingest is a moment behind a session that goes on


def session_of(*words: str) -> Session:
    """The session that live.py was given these words for; for notebooks.

    Raises
    ------
    As `recording_of`, and as `Recording.session`.
    """
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        OmegaConf.resolve(cfg.store)
    with recording_of(cfg) as recording:
        return recording.session()
