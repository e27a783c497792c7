"""Train a model on the store's newest history, and publish it when it is worth more than the last.

python runners/retrain.py model=random_forest

The notebook `notebooks/10_retrain.ipynb` trains and judges in a process of its own, which knows no
key; it is kept with its outputs. What comes out of it is held against rows that this runner makes
of the history itself, then signed and published. Every training is a row of `model_runs`.

Exit codes: 0 published; 3 kept back, for the verdict said no; 1 failed or refused, or the store is
away; 2 the command line or a value is not understood.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import functools
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from runners import compose, line, notebook, parts
from sysquant import archive, backfill, history, history_file, publishing
from sysquant.compiled import source_hash
from sysquant.errors import ConfigError, JournalError, ModelError, StoreError
from sysquant.home import home
from sysquant.keys import check_number
from sysquant.models.labels import Labels
from sysquant.models.loader import wanted
from sysquant.models.manifest import Manifest, public_key, signing_key
from sysquant.models.registry import Loaded, Registry, name_of
from sysquant.models.training import training_set
from sysquant.past import History
from sysquant.publishing import Candidate
from sysquant.retraining import Recipe
from sysquant.store import connect, insert, migrate
from sysquant.strategy import Strategy
from sysquant.times import DAY, Moment, check_moment, interval_ns
from sysquant.types import Instrument

CODES = {"published": 0, "kept": 3}  # of the outcomes; all others are 1
GIVEN = ("history", "strategy", "parameters", "recipe", "before", "candidate")
# Where the keys of a recipe stand in the configuration.
_PLACES = {"family": "model", "settings": "model", "labels": "labels"}
_PLACES |= dict.fromkeys(("weights", "balance", "train", "test", "embargo"), "training")


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


def order_of(cfg: DictConfig) -> Order:
    """What is asked for.

    Raises
    ------
    ConfigError, ModelError
        If a value cannot be meant.
    """
    strategy, made_of = _strategy_of(cfg)
    recipe = _recipe_of(cfg)
    bars, end = compose.value(cfg, "bars", str), cfg.end
    interval_ns(bars, "bars")
    days, timeout_s = (compose.value(cfg, key, float) for key in ("days", "timeout_s"))
    check_number("days", days, above=0)
    check_number("timeout_s", timeout_s, above=0)
    check_moment("end", end)
    lineage = compose.value(cfg, "lineage", str | None) or compose.choice("strategy")
    _registry().numbers(lineage)
    return Order(
        strategy=strategy, made_of=made_of, recipe=recipe, labels=recipe.check(),
        universe=parts.universe_of(cfg), bars=bars, days=days, end=end, lineage=lineage,
        life=interval_ns(compose.value(cfg, "expires", str), "expires"), timeout_s=timeout_s,
        notebook=notebook.notebook_of(compose.value(cfg, "notebook", str), GIVEN),
    )  # fmt: skip


def _strategy_of(cfg: DictConfig) -> tuple[Strategy, tuple[str, dict[str, Any]]]:
    strategy, listed = compose.build(cfg.strategy), _plain(cfg.strategy)
    if not strategy.classes:
        raise ConfigError(
            f"strategy={compose.choice('strategy')} asks no model; choose one that names classes, "
            "as strategy=ml_direction"
        )
    for key, value in listed.items():
        if isinstance(value, dict):
            raise ConfigError(f"strategy.{key} is a strategy: only plain parameters are retrained")
    return strategy, (str(listed.pop("_target_")), listed)


def _recipe_of(cfg: DictConfig) -> Recipe:
    given = _plain(cfg.model) | _plain(cfg.labels) | _plain(cfg.training)
    try:
        recipe = msgspec.convert(given, Recipe)
        recipe.check()
    except msgspec.ValidationError as error:
        raise ConfigError(f"model, labels or training: {error}") from error
    except ConfigError as error:
        first = str(error).split()[0]
        if first in cfg.labels.label_settings:
            raise ConfigError(f"labels.label_settings.{error}") from error
        place = _PLACES.get(first.partition(".")[0])
        raise ConfigError(f"{place}.{error}" if place else str(error)) from error
    return recipe


def _plain(node: DictConfig) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(node, resolve=True)
    return found


def _registry() -> Registry:
    return Registry(home() / "data" / "models")


def window_of(cfg: DictConfig, order: Order) -> History:
    """The history that is trained on.

    Raises
    ------
    StoreError, DataError
        If the store does not answer, or has no bars of it.
    """
    kind: archive.Kind = "ticks" if interval_ns(order.bars) % archive.MINUTE else "bars"
    with closing(connect(cfg.store.dsn)) as client:
        migrate(client)
        if compose.choice("universe") == "sample":
            backfill.sample(client, order.universe)
        _, until = archive.span(client, order.universe, None, order.end, kind=kind)
        start = until - round(order.days * DAY)
        return history(order.universe, start, until, order.bars, client=client)


def judged(order: Order, bars: History, directory: Path, parent: Loaded | None) -> Outcome:
    """Hold the candidate of a directory against the history, and publish it if it says so."""
    candidate: Candidate | None = None
    try:
        candidate = publishing.read(directory)
        rows = training_set(order.strategy, bars, order.labels, weights=order.recipe.weights)
        checked = publishing.check(candidate, directory, order.recipe, rows)
        if not candidate.publish:
            return Outcome("kept", candidate.reasons, candidate)
        published = publishing.publish(
            _registry(), checked, rows, signing_key(home() / "data" / "keys"),
            lineage=order.lineage, parent=parent.manifest.id if parent else "",
            build=source_hash(), life=order.life,
        )  # fmt: skip
    except (ModelError, JournalError) as error:
        return Outcome("refused", (str(error),), candidate)
    return Outcome("published", (), candidate, published)


def store(cfg: DictConfig, order: Order, outcome: Outcome, parent: str, took_s: float) -> None:
    """Insert the row of `model_runs`.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    run = compose.output_dir()
    row = publishing.run_row(
        lineage=order.lineage, verdict=outcome.verdict, reasons=outcome.reasons,
        strategy=order.strategy, recipe=order.recipe, parent=parent, build=source_hash(),
        features=wanted(order.lineage, order.strategy).features, took_s=took_s,
        notebook=str((run / "retrain.ipynb").relative_to(home())),
        candidate=outcome.candidate, published=outcome.published,
    )  # fmt: skip
    with closing(connect(cfg.store.dsn)) as client:
        migrate(client)
        insert(client, "model_runs", row, f"retrain {run.name} {secrets.token_hex(6)}")


def show(order: Order, outcome: Outcome, parent: str) -> None:
    """Print what came of it, and tell the books that run here."""
    if outcome.candidate is not None:
        table = Table(title=f"{order.lineage}: {order.recipe.family}, out of sample")
        for name in ("", "value", "low", "high"):
            table.add_column(name, justify="right" if name else "left")
        for name, score in outcome.candidate.estimates.items():
            table.add_row(name, *(f"{value:.4f}" for value in score))
        table.add_row("P&L after costs", f"{outcome.candidate.pnl:+.2%}", "", "")
        if outcome.candidate.pnl_before is not None:
            table.add_row(f"P&L of {parent}", f"{outcome.candidate.pnl_before:+.2%}", "", "")
        Console().print(table)
    print(f"notebook {compose.output_dir() / 'retrain.ipynb'}")
    name = ""
    if outcome.published is not None:
        name = f" {name_of(outcome.published)}"
        told = line.refresh(order.lineage)  # the ping: books that run here take it
        for said in told or (f"next: python runners/live.py strategy={order.lineage}",):
            print(said)
    print(f"{outcome.verdict}{name}")  # last, for who started this
    for reason in outcome.reasons:
        print(f"  {reason}")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A line for what is done, and how long it took."""
    began = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


@compose.main("retrain")
def main(cfg: DictConfig) -> None:
    """Read, train, check, publish, record."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the notebook ends with its runner
    compose.start_log(quiet=True)
    try:
        order = order_of(cfg)
    except (ConfigError, ModelError) as error:
        print(f"error: {compose.sentence(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    run = compose.output_dir()
    with stage("window"):
        bars = window_of(cfg, order)
        path = history_file.save(bars, run / "history.parquet")
    parent = publishing.newest(
        _registry(), order.lineage, order.strategy,
        functools.partial(public_key, home() / "data" / "keys"),
    )  # fmt: skip
    name = parent.name if parent else ""
    values = (
        str(path), *order.made_of, msgspec.to_builtins(order.recipe),
        str(_registry().directory / order.lineage / name) if name else "", str(run / "candidate"),
    )  # fmt: skip
    began = time.perf_counter()
    with stage(f"notebook, {len(bars):,} bars of {', '.join(bars.symbols)}"):
        fault = _train(order, run, dict(zip(GIVEN, values, strict=True)))
    took_s = time.perf_counter() - began
    with stage("checks"):
        outcome = (
            Outcome("failed", (fault,)) if fault else judged(order, bars, run / "candidate", parent)
        )
    compose.record(lineage=order.lineage, verdict=outcome.verdict, reasons=outcome.reasons)
    code = CODES.get(outcome.verdict, 1)
    try:
        with stage("record"):
            store(cfg, order, outcome, name, took_s)
    except StoreError as error:
        print(f"error: model_runs has no row of this: {compose.sentence(error)}", file=sys.stderr)
        code = 1
    show(order, outcome, name)
    raise SystemExit(code)


def _train(order: Order, run: Path, parameters: Mapping[str, Any]) -> str:
    # Why the notebook failed; what it left about is deleted.
    try:
        return notebook.run(
            order.notebook, run / "retrain.ipynb", parameters, scratch=run / "scratch",
            timeout_s=order.timeout_s,
        )  # fmt: skip
    finally:
        shutil.rmtree(run / "scratch", ignore_errors=True)


if __name__ == "__main__":
    main()
