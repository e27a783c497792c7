"""`--multirun`: jobs of a grid or of a search, a progress bar, and what came of them.

Input: what Hydra gives a sweeper, and the words of the command line. Output: a table at the
terminal, `sweep.csv`, `sweep.parquet`, `report.html` and `run.json` in the run's directory. The
best jobs and a random sample are run again as single backtests, and every trade is compared.
"""

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from runners import compose
from runners.jobs import Jobs, Trial
from runners.leaderboard import Leaderboard
from sysquant.keys import check_choice, check_number
from sysquant.scores import COLUMNS
from sysquant.screening import best_first
from sysquant.serve import ensure_server
from sysquant.stop import end
from sysquant.trials import Verification

_TOLD = 10  # failed jobs at the terminal


def grid(
    context: HydraContext, config: DictConfig, launcher: Launcher | None, words: Sequence[str]
) -> None:
    """Run every combination of the words, and tell of them.

    Raises
    ------
    SystemExit
        With 1 when a job failed or a comparison differed, with 130 on Ctrl-C.
    """
    with compose.in_one_sentence():
        run = _Run(context, config, launcher, words)
        lists = [_said(override) for override in run.overrides]
        trials = [run.trial(n, chosen) for n, chosen in enumerate(itertools.product(*lists))]
        run.wanted = len(trials)
        with run.going():
            run.take(run.jobs.run(trials))
        run.close()


def search(
    context: HydraContext, config: DictConfig, launcher: Launcher | None, words: Sequence[str]
) -> None:
    """Let Optuna choose the jobs, and tell of them; a named study goes on where it was.

    Raises
    ------
    SystemExit
        As of `grid`.
    """
    from runners.search import Search

    with compose.in_one_sentence():
        run = _Run(context, config, launcher, words)
        with run.going() as bar:
            fixed = [word for o in run.overrides if not o.is_sweep_override() for word in _said(o)]
            cfg = run.jobs.composed(fixed)
            found = Search(
                run.overrides, config.hydra.sweeper, cfg, run.directory, run.jobs.data(cfg)
            )  # fmt: skip
            run.wanted = bar.total = found.wanted
            run.take(found.known(run.trial))
            run.notes += found.notes
            while len(run.trials) < run.wanted:
                asked = found.ask(run.trial, min(run.batch, run.wanted - len(run.trials)))
                run.take(found.tell(run.jobs.run(asked)))
        run.close()


def _said(override: Override) -> list[str]:
    # Words of every value of an override.
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


class _Run:
    # One multirun while it goes on: its options, jobs and finished trials.

    def __init__(
        self, context: HydraContext, config: DictConfig, launcher: Launcher | None,
        words: Sequence[str],
    ) -> None:  # fmt: skip
        self._options, self._config = config.hydra.sweeper, config
        self._check()
        self.batch = int(self._options.batch)
        self.directory = Path(str(config.hydra.sweep.dir))
        parser = OverridesParser.create(config_loader=context.config_loader)
        last = {
            override.get_key_element(): override for override in parser.parse_overrides(list(words))
        }
        self.overrides = list(last.values())
        self._swept = {o.get_key_element() for o in self.overrides if o.is_sweep_override()}
        self.jobs = Jobs(
            context, config, launcher, workers=self._options.workers, batch=self.batch
        )  # fmt: skip
        self._launched = launcher is not None
        self.trials: list[Trial] = []
        self.notes: list[str] = []
        self.wanted, self._is_stopped, self._began = 0, False, time.monotonic()
        self._server: subprocess.Popen[bytes] | None = None
        self._bar: tqdm[Any] | None = None
        compose.start_log(quiet=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, self.directory / "multirun.yaml")  # secrets stay unresolved

    def _check(self) -> None:
        o = self._options
        check_choice("hydra.sweeper.rank", o.rank, COLUMNS)
        check_number("hydra.sweeper.batch", o.batch, least=1, whole=True)
        check_number("hydra.sweeper.verify_best", o.verify_best, least=0, whole=True)
        check_number("hydra.sweeper.verify_sample", o.verify_sample, least=0, whole=True)
        if o.workers is not None:
            check_number("hydra.sweeper.workers", o.workers, least=1, whole=True)

    def trial(self, number: int, words: Iterable[str]) -> Trial:
        chosen = tuple(words)
        pairs = [word.partition("=") for word in chosen]
        return Trial(number, chosen, {key: said for key, _, said in pairs if key in self._swept})

    def take(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            self.trials.append(trial)
            if self._bar is not None:
                self._bar.update()

    @contextmanager
    def going(self) -> "Iterator[tqdm[Any]]":
        if self._launched:  # processes cannot share the embedded store: one more serves it
            _, self._server = ensure_server(self._config.store.dsn)
        try:
            with tqdm(total=self.wanted, unit=" jobs", disable=None) as self._bar:
                yield self._bar
        except KeyboardInterrupt:
            self._is_stopped = True

    def close(self) -> None:
        """Compare, tell, write, and exit with what it is worth."""
        try:
            done = [trial for trial in self.trials if trial.row is not None]
            verified = Verification(0, 0, 0) if self._is_stopped else self._verified(done)
        finally:
            if self._server is not None:
                end(self._server)
        board = Leaderboard(self.trials, self._options.rank, verified, tuple(self.notes))
        board.show()
        board.write(self.directory)
        failed = [trial for trial in self.trials if trial.error]
        compose.record(
            self.directory, jobs=self.wanted, done=len(done), failed=len(failed),
            rank=str(self._options.rank), trades_compared=verified.trades,
            disagreements=list(verified.disagreements), took_s=time.monotonic() - self._began,
        )  # fmt: skip
        print(f"  files in {self.directory}")
        if len(failed) > _TOLD:
            print(f"  {len(failed) - _TOLD:,} more failed: sweep.csv says why", file=sys.stderr)
        for trial in failed[:_TOLD]:
            said = " ".join(f"{k}={v}" for k, v in trial.varied.items())
            print(f"error: job {trial.number} {said}: {trial.error}", file=sys.stderr)
        if self._is_stopped:
            print(
                f"stopped: {len(self.trials):,} of {self.wanted:,} jobs are done", file=sys.stderr
            )
            raise SystemExit(130)
        if failed or verified.disagreements:
            raise SystemExit(1)

    def _verified(self, done: Sequence[Trial]) -> Verification:
        rows = {at: trial.row for at, trial in enumerate(done) if trial.row is not None}
        best = best_first(rows, str(self._options.rank))[: self._options.verify_best]
        others = [at for at in rows if at not in set(best)]
        count = min(int(self._options.verify_sample), len(others))
        drawn = random.Random(int(self._config.seed)).sample(others, count)
        trades, said = self.jobs.compare([done[at] for at in sorted([*best, *drawn])])
        return Verification(len(best), len(drawn), trades, tuple(said))
