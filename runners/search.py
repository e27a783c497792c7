"""A search by Optuna: which jobs come next, and a study on disk that goes on where it was.

Input: overrides of the command line, those with several values being what is searched. Output:
words of trials. A study keeps every trial with its row, in one SQLite file; it rests on the rest of
the configuration, the data and the code, and one that rested on others is refused, never mixed.
"""

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from runners.jobs import Trial
from sysquant.compiled import machine, source_hash
from sysquant.errors import ConfigError
from sysquant.home import home
from sysquant.keys import check_choice, check_number

_SAMPLERS = ("tpe", "random")
Made = Callable[[int, Iterable[str]], Trial]


class Search:
    """Asks Optuna for trials, and tells it what came of them.

    Parameters
    ----------
    overrides : of the command line.
    options : `hydra.sweeper`.
    cfg : composed, with what is not searched; whole numbers in it are searched as such.
    directory : of the run; a study without a name lies in it.
    data : a hash of the events.

    Attributes
    ----------
    wanted : trials in all.
    notes : what a reader must know.

    Raises
    ------
    ConfigError
        If nothing is searched, an option cannot be meant, or the study rests on something else.
    """

    def __init__(
        self, overrides: Sequence[Override], options: DictConfig, cfg: DictConfig,
        directory: Path, data: str,
    ) -> None:  # fmt: skip
        check_number("hydra.sweeper.trials", options.trials, least=1, whole=True)
        check_choice("hydra.sweeper.sampler", options.sampler, _SAMPLERS)
        self.wanted, self._rank = int(options.trials), str(options.rank)
        self._fixed = [_word(o) for o in overrides if not o.is_sweep_override()]
        self._space = {
            o.get_key_element(): _distribution(o, OmegaConf.select(cfg, o.key_or_group))
            for o in overrides
            if o.is_sweep_override()
        }
        if not self._space:
            raise ConfigError(
                "there is nothing to search: give a key several values, like "
                "strategy.fast='range(5,60,5)' or strategy.slow='interval(40,400)'"
            )
        self.notes: list[str] = []
        self._asked: dict[int, optuna.Trial] = {}
        path = _path(options.study, directory)
        self._study = _opened(path, str(options.sampler), int(cfg.seed))
        choices = {
            key: getattr(values, "choices", "numbers")
            for key, values in sorted(self._space.items())
        }
        self._check({
            "configuration": _hash(OmegaConf.to_yaml(cfg)),  # secrets stay unresolved
            "search": _hash(str(choices)), "rank": self._rank, "data": data,
            "code": source_hash(), "machine": _hash(str(machine())),
        }, path)  # fmt: skip

    def known(self, make: Made) -> list[Trial]:
        """Finished trials of earlier calls."""
        found = list[Trial]()
        for old in self._study.get_trials(deepcopy=False):
            if "row" in old.user_attrs:  # one that failed is left behind
                trial = make(old.number, [*self._fixed, *old.user_attrs["words"]])
                trial.row = old.user_attrs["row"]
                found.append(trial)
        if found:
            self.notes.append(f"{len(found):,} trials of this study were finished before")
        return found

    def ask(self, make: Made, count: int) -> list[Trial]:
        """The next trials to run."""
        found = list[Trial]()
        for _ in range(count):
            asked = self._study.ask(self._space)
            self._asked[asked.number] = asked
            found.append(make(asked.number, [*self._fixed, *self._words(asked)]))
        return found

    def tell(self, finished: Iterable[Trial]) -> Iterator[Trial]:
        """Pass trials on, each once Optuna knows and the study holds it."""
        for trial in finished:
            asked = self._asked.pop(trial.number)
            asked.set_user_attr("words", self._words(asked))
            value = math.nan
            if trial.row is not None:
                asked.set_user_attr("row", trial.row)
                value = float(trial.row[self._rank])
            if math.isnan(value):  # nothing to learn from
                self._study.tell(asked, state=TrialState.FAIL)
            else:
                self._study.tell(asked, value)
            yield trial

    def _words(self, asked: optuna.Trial) -> list[str]:
        return [f"{key}={value}" for key, value in asked.params.items()]

    def _check(self, rests_on: dict[str, str], path: Path) -> None:
        known = self._study.user_attrs.get("rests_on")
        if known is None:
            self._study.set_user_attr("rests_on", rests_on)
            return
        changed = sorted(name for name in rests_on if known.get(name) != rests_on[name])
        if changed:
            raise ConfigError(
                f"the study {path} rests on another {' and '.join(changed)}: name another one, "
                "hydra.sweeper.study=..., or put back what it was (feed.start=-6h moves with the "
                "store's last row: say the times)"
            )


def _word(override: Override) -> str:
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _distribution(override: Override, now: Any) -> BaseDistribution:
    # Of what Hydra's grammar says: a choice, a range with its step, an interval.
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        low, high, is_log = float(value.start or 0), float(value.end or 0), "log" in value.tags
        if low > high or (is_log and low <= 0):
            raise ConfigError(f"{override.input_line}: an interval is (low, high), above 0 for log")
        if type(now) is int or type(value.start) is type(value.end) is int:
            return IntDistribution(math.ceil(low), math.floor(high), log=is_log)
        return FloatDistribution(low, high, log=is_log)
    if isinstance(value, RangeSweep):
        steps = sorted(value.range())
        gap = abs(value.step)
        if steps and all(isinstance(step, int) for step in steps):
            return IntDistribution(int(steps[0]), int(steps[-1]), step=int(gap))
        if steps:
            return FloatDistribution(float(steps[0]), float(steps[-1]), step=float(gap))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _path(name: str | None, directory: Path) -> Path:
    if name is None:
        return directory / "study.db"
    if not re.fullmatch(r"[\w.-]+", str(name)) or str(name).startswith("."):
        raise ConfigError(f"hydra.sweeper.study names a file: letters, digits, . _ -, was {name!r}")
    return home() / "data" / "studies" / f"{name}.db"


def _opened(path: Path, sampler: str, seed: int) -> optuna.Study:
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=f"sqlite:///{path}", study_name="sweep", direction="maximize",
            load_if_exists=True,
        )  # fmt: skip
    # A study that goes on must not draw again what it drew first.
    at = seed + len(study.get_trials(deepcopy=False))
    study.sampler = (
        optuna.samplers.TPESampler(seed=at)
        if sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=at)
    )
    return study


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
