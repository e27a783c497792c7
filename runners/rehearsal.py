"""A live session in miniature: the live runner on a broker, with what a day may bring it.

Input: ticks, and a place to tell them. Output: the session's name, and what operators did between
which ticks; its rows are in a store of its own. The session is paused for a while, and killed in
the middle of its work and started again: neither may change what it decides.
Broker, journal, store and home are made for this and removed again. Nothing is compared here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tqdm import tqdm

from runners import compose, kafka, promoted
from runners.line import Line
from sysquant import journal_reader
from sysquant.control import Command, Keys, Pause, Resume
from sysquant.errors import DataError, FeedError
from sysquant.feeds.publish import Publisher
from sysquant.home import cache, home
from sysquant.operation import Operation, Switch
from sysquant.serve import ensure_server
from sysquant.types import Instrument, Ticks

BOOK = "parity"
_LIVE = Path(__file__).with_name("live.py")
_AT_ONCE = 20_000  # ticks published at a time
_OTHERS = promoted.ELSEWHERE | {"book.name"}
# Of all ticks, after how many the session is paused, goes on, and is killed.
_PAUSED, _RESUMED, _KILLED = 0.4, 0.45, 0.6
_STARTS_S, _LOOK_S = 30.0, 0.05


class Process(Protocol):
    """A runner that was started, as much of `subprocess.Popen` as is used."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...


Start = Callable[[list[str], Path, IO[str], Mapping[str, str]], Process]


def spawned(words: list[str], root: Path, log: IO[str], own: Mapping[str, str]) -> Process:
    """The live runner as a process with these words, in a directory of its own, writing a log."""
    return subprocess.Popen(
        [sys.executable, str(_LIVE), *words], env={**os.environ, **own}, cwd=root, stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


class Place(NamedTuple):
    """Where it is held: a home, a store and a broker."""

    root: Path
    dsn: str
    bootstrap: str


@contextmanager
def place(bootstrap: str | None) -> Iterator[Place]:
    """Make one; a broker is started where none is named.

    Raises
    ------
    FeedError
        If there is none, and none can be started.
    """
    with tempfile.TemporaryDirectory(prefix="sysquant-parity-") as scratch:
        root = Path(scratch)
        _furnish(root)
        with _broker(bootstrap, root) as address, _store(root) as dsn:
            yield Place(root, dsn, address)


def _furnish(root: Path) -> None:
    # A home that has the models and the key that vouches for them, and nothing else.
    (root / "data" / "keys").mkdir(parents=True)
    models, key = home() / "data" / "models", home() / "data" / "keys" / "models.pub"
    if models.exists():
        (root / "data" / "models").symlink_to(models, target_is_directory=True)
    if key.exists():
        shutil.copy(key, root / "data" / "keys")


@contextmanager
def _broker(bootstrap: str | None, root: Path) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    try:
        broker = kafka.start(0, root / "kafka")
    except FeedError as error:
        raise FeedError(
            f"parity is shown on a broker, and none can be started here: {error}; name one by "
            "promotion.parity.bootstrap=host:port"
        ) from error
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


@contextmanager
def _store(root: Path) -> Iterator[str]:
    dsn, server = ensure_server(f"chdb://{root}/data/store")
    try:
        yield dsn
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)


class Done(NamedTuple):
    """What was done to a session.

    Parameters
    ----------
    run : its name, in every row.
    operations : of an operator, each after how many ticks.
    """

    run: str
    operations: tuple[tuple[int, Operation], ...]


@dataclass(slots=True)
class Rehearsal:
    """One session, from its first tick to its end.

    Parameters
    ----------
    where : it is held.
    universe : the instruments of the ticks.
    warmup_bars : of history, which is in the store.
    timeout_s : for all of it.
    start : starts the live runner.
    """

    where: Place
    universe: list[Instrument]
    warmup_bars: int
    timeout_s: float
    start: Start = spawned
    _topic: str = field(default="", init=False)
    _until: float = field(default=0.0, init=False)
    _log: Any = field(default=None, init=False)
    _live: Any = field(default=None, init=False)

    def hold(self, ticks: Ticks) -> Done:
        """Tell a session these ticks, and bring it to its end.

        Raises
        ------
        DataError
            If it fails, or does not take the ticks in time.
        """
        self._topic = f"{BOOK}-{os.getpid()}-{time.time_ns()}"
        self._until = time.monotonic() + self.timeout_s
        publisher = Publisher(bootstrap=self.where.bootstrap, topic=self._topic)
        paused, resumed, killed = (
            max(1, int(len(ticks) * part)) for part in (_PAUSED, _RESUMED, _KILLED)
        )
        with (
            (self.where.root / "live.log").open("a+") as self._log,
            tqdm(total=len(ticks), desc="live", unit=" ticks", leave=False, disable=None) as bar,
        ):
            try:
                self._tell(publisher, ticks[:paused])
                self._begin()
                self._taken(paused, bar)
                self._ask(Pause(None))
                self._tell(publisher, ticks[paused:resumed])
                self._taken(resumed, bar)
                self._ask(Resume(None))
                self._tell(publisher, ticks[resumed:killed])
                self._taken(killed, bar)
                self._tell(publisher, ticks[killed:])
                self._live.kill()
                self._live.wait(10)
                self._begin()
                self._taken(len(ticks), bar)
                self._live.terminate()
                self._live.wait(30)
                if self._live.returncode:
                    raise self._failed()
            finally:
                publisher.close()
                if self._live is not None and self._live.poll() is None:
                    self._live.kill()
                    self._live.wait(10)
        operations = (paused, Switch("paused")), (resumed, Switch("active"))
        return Done(journal_reader.meta(self.journal)["id"], operations)

    @property
    def journal(self) -> Path:
        """Directory of the session's journal."""
        return self.where.root / "data" / "journals" / BOOK

    @property
    def words(self) -> list[str]:
        """What the live runner is given."""
        return [
            *compose.words(without=_OTHERS), "feed=kafka", "ingest=none",
            f"feed.bootstrap={self.where.bootstrap}", f"feed.topic={self._topic}",
            f"book.name={BOOK}", "runtime.clock=event", f"runtime.warmup_bars={self.warmup_bars}",
            "runtime.require_promotion=true",
        ]  # fmt: skip

    def _begin(self) -> None:
        own = {"SYSQUANT_HOME": str(self.where.root), "SYSQUANT_CACHE": str(cache())}
        self._live = self.start(self.words, self.where.root, self._log, own)

    def _tell(self, publisher: Publisher, ticks: Ticks) -> None:
        for at in range(0, len(ticks), _AT_ONCE):
            publisher.publish(ticks[at : at + _AT_ONCE], self.universe)
        publisher.flush()

    def _taken(self, count: int, bar: "tqdm[Any]") -> None:
        # Waits until so many ticks of all are journaled.
        while (done := sum(journal_reader.positions(self.journal).values())) < count:
            bar.update(done - bar.n)
            if self._live.poll() is not None:
                raise self._failed()
            if time.monotonic() >= self._until:
                raise DataError(
                    f"the live session had taken {done:,} of {bar.total:,} ticks after "
                    f"{self.timeout_s:g} s: take fewer, promotion.parity.ticks=..., or give it "
                    "longer, promotion.parity.timeout_s=..."
                )
            time.sleep(_LOOK_S)
        bar.update(done - bar.n)

    def _ask(self, command: Command) -> None:
        keys = Keys.load(self.where.root / "data" / "keys")
        meta = journal_reader.meta(self.journal)
        line = Line(meta, _STARTS_S, directory=self.journal, topic={}, keys=keys)
        answer = line.ask(command)
        if not answer.ok:
            raise DataError(f"the live session refused {command.word()}: {answer.text}")

    def _failed(self) -> DataError:
        self._log.seek(0)
        said = self._log.read().strip().splitlines()
        return DataError(f"the live session failed: {said[-1] if said else 'it said nothing'}")
