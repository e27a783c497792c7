"""A training that has begun: read, run as a notebook, checked, published, and noted at every step.

Input: an `Order`. Output: its outcome, a model of the registry when it is worth it, and a row that
is on disk from the beginning, until the store has it. A lineage is trained by one at a time: the
other would be judged against what is past.
"""

import functools
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from omegaconf import DictConfig

from runners import compose, notebook
from runners.interrupts import Ended, Interrupts
from sysquant import archive, backfill, history, history_file, publishing, training_rows
from sysquant.compiled import source_hash
from sysquant.errors import JournalError, ModelError, StoreError
from sysquant.home import home
from sysquant.locking import holder, lock
from sysquant.models.labels import Labels
from sysquant.models.loader import wanted
from sysquant.models.manifest import Manifest, public_key, signing_key
from sysquant.models.registry import Loaded, Registry
from sysquant.models.training import training_set
from sysquant.past import History
from sysquant.publishing import Candidate
from sysquant.retraining import Recipe
from sysquant.store import connect, migrate
from sysquant.strategy import Strategy
from sysquant.times import DAY, Moment, interval_ns
from sysquant.training_rows import CUT_OFF
from sysquant.types import Instrument

HELD_S = 60.0  # that another process may have the store
_BRIEF_S = 0.5  # the same, when this one is to end
GIVEN = ("history", "strategy", "parameters", "recipe", "before", "candidate")


@dataclass(frozen=True, slots=True)
class Order:
    """What a configuration asks for, checked before anything is read or written."""

    strategy: Strategy
    made_of: tuple[str, dict[str, Any]]  # class and parameters
    recipe: Recipe
    labels: Labels
    universe: list[Instrument]
    bars: str
    days: float
    end: Moment
    lineage: str
    life: int
    timeout_s: float
    notebook: Path


class Outcome(NamedTuple):
    """What came of a training: published, kept, refused or failed, and why."""

    verdict: str
    reasons: tuple[str, ...] = ()
    candidate: Candidate | None = None
    published: Manifest | None = None


@dataclass(slots=True)
class Training:
    """A training that has begun; its row is on disk until the store has it.

    Parameters
    ----------
    cfg, order : what is asked for.
    run : directory of its files.
    parent : the model that it is compared with.
    newest : number of the newest model, 0 for none.
    """

    cfg: DictConfig
    order: Order
    run: Path
    parent: Loaded | None
    newest: int
    _row: Path = field(init=False)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        """Note it as one that was cut off: whatever ends this process, it is known."""
        self._began = time.perf_counter()
        self._row = _rows(self.order) / f"{self.run.name}-{secrets.token_hex(6)}.arrow"
        self.note(Outcome("failed", (CUT_OFF,)))

    @property
    def before(self) -> str:
        """Name of the parent; empty for none."""
        return self.parent.name if self.parent else ""

    def note(self, outcome: Outcome) -> None:
        """Write what came of it, on disk."""
        order = self.order
        row = publishing.run_row(
            lineage=order.lineage, verdict=outcome.verdict, reasons=outcome.reasons,
            strategy=order.strategy, recipe=order.recipe, parent=self.before, build=source_hash(),
            features=wanted(order.lineage, order.strategy).features,
            took_s=time.perf_counter() - self._began,
            notebook=str((self.run / "retrain.ipynb").relative_to(home())),
            candidate=outcome.candidate, published=outcome.published,
        )  # fmt: skip
        training_rows.keep(self._row, row, self.newest)

    def deliver(self, wait_s: float) -> None:
        """Insert the rows of this training, and of earlier ones that have none.

        Raises
        ------
        StoreError
            If the store does not answer, or another process holds it for longer.
        """
        with closing(connect(self.cfg.store.dsn, wait_s=wait_s)) as client:
            migrate(client)
            models = registry().numbers(self.order.lineage)
            training_rows.deliver(_rows(self.order), client, models)

    def run_to_end(self, interrupts: Interrupts) -> Outcome:
        """Read, train, check and publish; what comes of it is noted, also when it is cut off."""
        outcome, is_done = Outcome("failed", ("it came to no end",)), False
        try:
            outcome, is_done = self._outcome(interrupts), True
        except Ended as ended:
            outcome = Outcome("failed", (f"interrupted: {ended.reason}",))
            raise
        except compose.FAULTS as error:
            outcome = Outcome("failed", (compose.sentence(error),))
            raise
        finally:
            interrupts.finish()
            self.note(outcome)
            if not is_done:
                with suppress(StoreError):
                    self.deliver(_BRIEF_S)
        return outcome

    def _outcome(self, interrupts: Interrupts) -> Outcome:
        order = self.order
        with stage("window"):
            bars = window_of(self.cfg, order)
            path = history_file.save(bars, self.run / "history.parquet")
        directory = str(registry().directory / order.lineage / self.before) if self.before else ""
        values = (
            str(path), *order.made_of, msgspec.to_builtins(order.recipe), directory,
            str(self.run / "candidate"),
        )  # fmt: skip
        with stage(f"notebook, {len(bars):,} bars of {', '.join(bars.symbols)}"):
            fault = _train(order, self.run, dict(zip(GIVEN, values, strict=True)))
        with stage("checks"):
            return Outcome("failed", (fault,)) if fault else self.judged(bars, interrupts.finish)

    def judged(self, bars: History, finish: Callable[[], None]) -> Outcome:
        """What the candidate on disk is, held against the history; published if it says so.

        `finish` is called before anything is published: from then on nothing may cut it off.
        """
        order, directory = self.order, self.run / "candidate"
        candidate: Candidate | None = None
        try:
            candidate = publishing.read(directory)
            rows = training_set(order.strategy, bars, order.labels, weights=order.recipe.weights)
            checked = publishing.check(candidate, directory, order.recipe, rows)
            if not candidate.publish:
                return Outcome("kept", candidate.reasons, candidate)
            finish()
            self.note(Outcome("failed", (CUT_OFF,), candidate))
            published = publishing.publish(
                registry(), checked, rows, signing_key(home() / "data" / "keys"),
                lineage=order.lineage, parent=self.parent.manifest.id if self.parent else "",
                build=source_hash(), life=order.life, newest=self.newest,
            )  # fmt: skip
        except (ModelError, JournalError) as error:
            return Outcome("refused", (str(error),), candidate)
        return Outcome("published", (), candidate, published)


def begun(cfg: DictConfig, order: Order) -> Training:
    """A training that begins now."""
    newest = max(registry().numbers(order.lineage), default=0)
    parent = publishing.newest(
        registry(), order.lineage, order.strategy,
        functools.partial(public_key, home() / "data" / "keys"),
    )  # fmt: skip
    return Training(cfg, order, compose.output_dir(), parent, newest)


def _rows(order: Order) -> Path:
    return home() / "data" / "trainings" / order.lineage


def turn(order: Order) -> IO[str]:
    """The lock of a lineage, for the time of a training; who has it is waited for.

    Raises
    ------
    ModelError
        If that takes longer than a training may.
    """
    directory = _rows(order)
    with suppress(JournalError):
        return lock(directory)
    by = holder(directory)
    print(f"process {by} trains {order.lineage}: this waits for its end", flush=True)
    try:
        return lock(directory, wait_s=order.timeout_s)
    except JournalError as error:
        raise ModelError(
            f"process {by} still trains {order.lineage} after timeout_s={order.timeout_s:g}: start "
            "this again when it has ended"
        ) from error


def window_of(cfg: DictConfig, order: Order) -> History:
    """The history that is trained on.

    Raises
    ------
    StoreError, DataError
        If the store does not answer, or has no bars of it.
    """
    kind: archive.Kind = "ticks" if interval_ns(order.bars) % archive.MINUTE else "bars"
    with closing(connect(cfg.store.dsn, wait_s=HELD_S)) as client:
        migrate(client)
        if compose.choice("universe") == "sample":
            backfill.sample(client, order.universe)
        first, until = archive.span(client, order.universe, None, order.end, kind=kind)
        start = until - round(order.days * DAY)
        if start < first:
            print(f"days={order.days:g}: the store has {(until - first) / DAY:.1f} of them")
        return history(order.universe, max(start, first), until, order.bars, client=client)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A line for what begins, and one for how long it took."""
    print(f"{name} ...", flush=True)
    began = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


def _train(order: Order, run: Path, parameters: Mapping[str, Any]) -> str:
    # Why the notebook failed; what it left about is deleted.
    try:
        return notebook.run(
            order.notebook, run / "retrain.ipynb", parameters, scratch=run / "scratch",
            timeout_s=order.timeout_s,
        )  # fmt: skip
    finally:
        shutil.rmtree(run / "scratch", ignore_errors=True)


def registry() -> Registry:
    """The published models."""
    return Registry(home() / "data" / "models")
