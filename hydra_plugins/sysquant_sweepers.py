"""Sweepers of `--multirun`, where Hydra looks for them; all they do is in `runners.multirun`.

Hydra imports this at every start of every runner, and takes sweepers from `hydra_plugins` alone. So
nothing heavy is imported before one of them is used.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Every combination; the arguments are the keys of `conf/hydra/sweeper/grid.yaml`."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives; another launcher than the basic one is made, too."""
        self._context: HydraContext = hydra_context
        self._config: DictConfig = config
        self._launcher: Launcher | None = None
        if not str(config.hydra.launcher._target_).endswith(".BasicLauncher"):
            self._launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs; exits with 1 when one failed, with 130 on Ctrl-C."""
        from runners import multirun

        multirun.grid(self._context, self._config, self._launcher, arguments)


class OptunaSweeper(GridSweeper):
    """A search by Optuna; the arguments are the keys of `conf/hydra/sweeper/optuna.yaml`."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run as many trials as are wanted; exits as a grid does."""
        from runners import multirun

        multirun.search(self._context, self._config, self._launcher, arguments)
