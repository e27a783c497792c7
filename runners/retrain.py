"""Train a model on the store's newest history, and publish it when it is worth more than the last.

python runners/retrain.py model=random_forest

The notebook `notebooks/10_retrain.ipynb` trains and judges in a process of its own, which knows no
key; it is kept with its outputs. What comes out of it is held against rows that this runner makes
of the history itself, then signed and published. Every training is a row of `model_runs`; one that
could not be written goes in with the next training. A lineage is trained by one at a time.

Exit codes: 0 published; 3 kept back, for the verdict said no; 1 failed, refused or interrupted, or
the store is away; 2 the command line or a value is not understood.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from runners.interrupts import Interrupts

UNDONE = "nothing was published"
# Before what is slow to import.
INTERRUPTS = Interrupts(UNDONE) if __name__ == "__main__" else None

from contextlib import closing
from typing import Any

import msgspec
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from runners import compose, line, notebook, parts
from runners.command_line import options_of
from runners.training import GIVEN, HELD_S, Order, Outcome, begun, registry, stage, turn
from sysquant.errors import ConfigError, ModelError, StoreError
from sysquant.keys import check_number
from sysquant.models.registry import name_of
from sysquant.retraining import Recipe
from sysquant.strategy import Strategy
from sysquant.times import DAY, check_moment, interval_ns
from sysquant.types import SECOND

CODES = {"published": 0, "kept": 3}  # of the outcomes; all others are 1
# Where the keys of a recipe stand in the configuration.
_PLACES = {"family": "model", "settings": "model", "labels": "labels"}
_PLACES |= dict.fromkeys(("weights", "balance", "train", "test", "embargo"), "training")


def order_of(cfg: DictConfig) -> Order:
    """What is asked for.

    Raises
    ------
    ConfigError, ModelError
        If a value cannot be meant.
    """
    _refuse_secrets(cfg)
    strategy, made_of = _strategy_of(cfg)
    recipe = _recipe_of(cfg)
    bars, end = compose.value(cfg, "bars", str), cfg.end
    step = interval_ns(bars, "bars")
    if not SECOND <= step <= DAY or DAY % step:
        raise ConfigError(f"bars must divide the day, 1s at least, was {bars!r}")
    days, timeout_s = (compose.value(cfg, key, float) for key in ("days", "timeout_s"))
    check_number("days", days, above=0)
    check_number("timeout_s", timeout_s, above=0)
    check_moment("end", end)
    lineage = compose.value(cfg, "lineage", str | None) or compose.choice("strategy")
    registry().numbers(lineage)
    return Order(
        strategy=strategy, made_of=made_of, recipe=recipe, labels=recipe.check(),
        universe=parts.universe_of(cfg), bars=bars, days=days, end=end, lineage=lineage,
        life=interval_ns(compose.value(cfg, "expires", str), "expires"), timeout_s=timeout_s,
        notebook=notebook.notebook_of(compose.value(cfg, "notebook", str), GIVEN),
    )  # fmt: skip


def _refuse_secrets(cfg: DictConfig) -> None:
    for name in ("strategy", "model", "labels", "training"):
        for key in compose.read_from_environment(cfg[name]):
            raise ConfigError(
                f"{key} is read from the environment, and would stand in the notebook, the model "
                "and the store: a training has no secret, write the value itself"
            )


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
        for said in told or (_next(order.lineage),):
            print(said)
    print(f"{outcome.verdict}{name}")  # last, for who started this
    for reason in outcome.reasons:
        print(f"  {reason}")


def _next(lineage: str) -> str:
    if lineage in options_of("strategy"):
        return f"next: python runners/live.py strategy={lineage}"
    return f"next: it serves where a strategy of a book has the name {lineage}"


@compose.main("retrain")
def main(cfg: DictConfig) -> None:
    """Read, train, check, publish, record."""
    interrupts = INTERRUPTS or Interrupts(UNDONE)
    compose.start_log(quiet=True)
    try:
        order = order_of(cfg)
    except (ConfigError, ModelError) as error:
        print(f"error: {compose.sentence(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    with closing(turn(order)):
        training = begun(cfg, order)
        outcome = training.run_to_end(interrupts)
        compose.record(lineage=order.lineage, verdict=outcome.verdict, reasons=outcome.reasons)
        code = CODES.get(outcome.verdict, 1)
        try:
            with stage("record"):
                training.deliver(HELD_S)
        except StoreError as error:
            print(
                f"error: model_runs has no row of this: {compose.sentence(error)}; it goes in with "
                f"the next training of {order.lineage}", file=sys.stderr,
            )  # fmt: skip
            code = 1
        show(order, outcome, training.before)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
