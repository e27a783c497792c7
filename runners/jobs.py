"""Jobs of a multirun: many command lines, each through the full engine, what they share done once.

Input: words of every job. Output: its row of figures, or the sentence it failed with; others go on.
Jobs that differ in parameters of the strategy alone are one study of `sysquant.sweep`: one pass
over history, on all cores. Another launcher than Hydra's basic one gets each job as a process.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from runners import compose, parts
from runners.past import Past, closed, compile_first, events_of, past_of, rests_on
from sysquant.engine import Engine
from sysquant.scores import Row
from sysquant.strategy import Parameter, Strategy
from sysquant.sweeping import Study, cores
from sysquant.times import interval_ns
from sysquant.types import Bars, Ticks

# What a strategy's own code may raise is the job's fault, and no reason to stop the others.
_FAULTS = (
    *compose.FAULTS, HydraException, ArithmeticError, AttributeError, LookupError, NameError,
    TypeError, ValueError,
)  # fmt: skip
_EVENTS: dict[str, Ticks | Bars] = {}  # the last market, by what it rests on


@dataclass
class Trial:
    """One job and what came of it.

    Parameters
    ----------
    number : in the order they were made.
    words : of its command line.
    varied : key -> value as it is said, of what differs between jobs.
    row : what it came to, see `scores.Score.close`.
    error : the sentence it failed with.
    """

    number: int
    words: tuple[str, ...]
    varied: dict[str, str]
    row: Row | None = None
    error: str = ""
    strategy: Strategy | None = field(default=None, repr=False)

    def parameters_of(self) -> dict[str, Parameter]:
        """What was varied, as it is said."""
        return dict(self.varied)


@dataclass
class _Group:
    # Trials that differ in parameters of one strategy alone.
    cfg: DictConfig
    trials: list[Trial]

    @property
    def strategies(self) -> list[Strategy]:
        return [trial.strategy for trial in self.trials if trial.strategy is not None]

    def parameters(self, at: int) -> dict[str, Parameter]:
        return self.trials[at].parameters_of()


class Jobs:
    """Runs trials, in this process or by a launcher.

    Parameters
    ----------
    context, config : what Hydra gives a sweeper.
    launcher : of processes; None: threads of this one.
    workers : threads; None: one for each core.
    batch : jobs that a launcher gets at once.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, launcher: Launcher | None, *,
        workers: int | None, batch: int,
    ) -> None:  # fmt: skip
        self._loader, self._config, self._launcher = context.config_loader, config, launcher
        self._workers, self._batch = workers or cores(), batch
        self._parser = OverridesParser.create(config_loader=context.config_loader)
        self._known: dict[str, Override] = {}
        # The last group: a search has many batches of one, and the comparison comes back to it.
        self._words: tuple[str, ...] = ()
        self._cfg: DictConfig | None = None
        self._ground: _Ground | None = None
        self._number = 0

    def run(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Each trial as soon as it has its row or its error, in any order."""
        if self._launcher is not None:
            yield from self._launched(self._launcher, trials)
            return
        for words, group in self._grouped(trials):
            try:
                made = self._group(words, group)
            except _FAULTS as error:
                yield from (_failed(trial, error) for trial in group)
                continue
            yield from (trial for trial in group if trial.error)
            yield from self._studied(made)

    def compare(self, trials: Sequence[Trial]) -> tuple[int, list[str]]:
        """Run trials again as single backtests; trades that were compared, and what differed."""
        trades, said = 0, list[str]()
        for words, group in self._grouped(trials):
            made = self._group(words, group)
            rows = {at: trial.row for at, trial in enumerate(made.trials) if trial.row is not None}
            found = self._study(made).verify(rows, "equity", len(rows), 0, 1)
            trades += found.trades
            said += found.disagreements
        return trades, said

    def data(self, cfg: DictConfig) -> str:
        """A hash of all events of a configuration."""
        digest, past = hashlib.sha256(), past_of(cfg)
        with closed(past):
            for name, column in _events(cfg, past).columns():
                digest.update(f"{name} {column.dtype} {len(column)}".encode() + column.tobytes())
        return digest.hexdigest()

    def composed(self, words: Sequence[str]) -> DictConfig:
        """What a command line means, without `hydra`; Hydra's own is set to it."""
        if self._words != tuple(words) or self._cfg is None:
            cfg = self._loader.load_sweep_config(self._config, list(words))
            HydraConfig.instance().set_config(cfg)
            self._words, self._cfg, self._ground = tuple(words), cfg.copy(), None
            with open_dict(self._cfg):
                del self._cfg["hydra"]
        return self._cfg

    def _launched(self, launcher: Launcher, trials: Sequence[Trial]) -> Iterator[Trial]:
        for at in range(0, len(trials), self._batch):
            batch = trials[at : at + self._batch]
            done = launcher.launch([list(trial.words) for trial in batch], self._number)
            self._number += len(batch)
            for trial, answer in zip(batch, done, strict=True):
                if answer.status == JobStatus.COMPLETED:
                    trial.row = answer.return_value
                    yield trial
                else:
                    yield _failed(trial, answer._return_value)

    def _grouped(self, trials: Sequence[Trial]) -> list[tuple[tuple[str, ...], list[Trial]]]:
        groups: dict[tuple[str, ...], list[Trial]] = {}
        for trial in trials:
            words = tuple(w for w in trial.words if not _is_parameter(self._parsed(w)))
            groups.setdefault(words, []).append(trial)
        return list(groups.items())

    def _parsed(self, word: str) -> Override:
        # A millisecond each, and a large grid has few words.
        if word not in self._known:
            self._known[word] = self._parser.parse_override(word)
        return self._known[word]

    def _group(self, words: Sequence[str], trials: Sequence[Trial]) -> _Group:
        # Composed once; trials whose strategy cannot be made get their errors, and are left out.
        cfg = self.composed(words)
        own = cfg.copy()
        for trial in trials:
            own.strategy = cfg.strategy  # a copy of this node alone: of all of it takes 20 ms
            try:
                for override in map(self._parsed, trial.words):
                    if _is_parameter(override):
                        OmegaConf.update(own, override.key_or_group, override.value())
                trial.strategy = compose.build(own.strategy)
            except _FAULTS as error:
                _failed(trial, error)
        return _Group(cfg, [trial for trial in trials if not trial.error])

    def _studied(self, group: _Group) -> Iterator[Trial]:
        if not group.trials:
            return
        left = dict(enumerate(group.trials))
        try:
            study = self._study(group)
        except _FAULTS as error:
            yield from (_failed(trial, error) for trial in group.trials)
            return
        alone = False
        while left:
            asked = list(left)[:1] if alone else list(left)
            try:
                for place, row in study.rows(asked):
                    trial = left.pop(place)
                    trial.row = row
                    yield trial
            except _FAULTS as error:
                if alone:
                    yield _failed(left.pop(asked[0]), error)
                alone = True  # one of many failed: which one?

    def _study(self, group: _Group) -> Study:
        if self._ground is None:
            self._ground = _ground(group.cfg, group.strategies[0])
        return _study(self._ground, group, self._workers)


def row_of(cfg: DictConfig) -> Row:
    """What one composed configuration comes to: a job in a process of its own."""
    compose.start_log(quiet=True)
    trial = Trial(0, (), {}, strategy=compose.build(cfg.strategy))
    group = _Group(cfg, [trial])
    ((_, row),) = _study(_ground(cfg, group.strategies[0]), group, 1).rows([0])
    return row


class _Ground(NamedTuple):
    # What the studies of a group stand on.
    events: Ticks | Bars
    history: Bars | None
    make: Callable[[Strategy], Engine]


def _ground(cfg: DictConfig, strategy: Strategy) -> _Ground:
    compile_first(cfg, strategy)
    past, history = past_of(cfg), None

    def make(strategy: Strategy) -> Engine:
        return parts.engine_of(cfg, past.universe, past.funding, strategy)

    with closed(past):
        events = _events(cfg, past)
        if past.history is not None:
            history = past.history(make(strategy).warmup_end(events), {})
    return _Ground(events, history, make)


def _study(ground: _Ground, group: _Group, workers: int) -> Study:
    return Study(
        group, ground.events, ground.make,
        capital=parts.value(group.cfg, "book.capital", float),
        snapshot_ns=interval_ns(str(group.cfg.snapshots), "snapshots"),
        workers=min(workers, len(group.trials)), history=ground.history,
    )  # fmt: skip


def _events(cfg: DictConfig, past: Past) -> Ticks | Bars:
    # Read once for groups that rest on the same.
    key = rests_on(cfg)
    if key not in _EVENTS:
        _EVENTS.clear()
        _EVENTS[key] = events_of(past)
    return _EVENTS[key]


def _is_parameter(override: Override) -> bool:
    # Of the strategy, and to be set on what is composed already.
    above, _, name = override.key_or_group.partition(".")
    plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return above == "strategy" and bool(name) and "_target_" not in name and plain


def _failed(trial: Trial, error: Any) -> Trial:
    said = compose.sentence(error)
    known = isinstance(error, (*compose.FAULTS, HydraException))
    trial.error = said if known else f"{type(error).__name__}: {said}"
    return trial
