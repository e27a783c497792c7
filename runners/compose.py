"""From the command line to objects: composing, checking and instantiating the configuration.

Shared by the runners that use Hydra; nothing below `runners/` knows it. A misspelt group, option
or key is answered with the nearest right one before Hydra starts; only `_target_`s of this package
are made into objects.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sysquant.errors import ConfigError, SysquantError, nearest
from sysquant.home import home

CONF = Path(__file__).resolve().parents[1] / "conf"
MULTIRUN = {"-m", "--multirun"}


def main(
    config_name: str, *, multirun: bool = False
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a composed configuration into the entry point of a runner.

    Parameters
    ----------
    config_name : of the YAML file in `conf/`.
    multirun : whether Hydra's multirun is allowed.

    Returns
    -------
    A decorator. The entry point exits with 2 when the command line cannot be meant, with 1 on a
    `SysquantError`, one sentence on stderr each.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        def guarded(cfg: DictConfig) -> None:
            try:
                task(cfg)
            except (SysquantError, OmegaConfBaseException) as error:
                print(f"error: {_sentence(error)}", file=sys.stderr)
                raise SystemExit(1) from None

        def entry() -> None:
            OmegaConf.register_new_resolver("home", lambda: str(home()), replace=True)
            OmegaConf.register_new_resolver("job", lambda: Path(sys.argv[0]).stem, replace=True)
            try:
                check_command_line(config_name, sys.argv[1:], multirun=multirun)
            except ConfigError as error:
                print(f"error: {error}", file=sys.stderr)
                raise SystemExit(2) from None
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(
                guarded
            )()

        return entry

    return decorate


def _sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def check_command_line(config_name: str, arguments: list[str], *, multirun: bool = False) -> None:
    """Compose with these overrides, and say what is wrong with them.

    Raises
    ------
    ConfigError
        If a group, an option or a key does not exist, or multirun is asked for and not allowed.
    """
    if not multirun and (MULTIRUN & set(arguments) or "hydra.mode=MULTIRUN" in arguments):
        raise ConfigError("this runner starts one session: it has no --multirun")
    try:
        overrides = OverridesParser.create().parse_overrides(
            [a for a in arguments if "=" in a and not a.startswith("-")]
        )
    except HydraException as error:
        raise ConfigError(_sentence(error)) from error
    groups = [o for o in overrides if _is_group(o.key_or_group)]
    for override in groups:
        _check_option(override)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            known = hydra.compose(config_name, [str(o.input_line) for o in groups])
        except HydraException as error:
            raise ConfigError(_sentence(error)) from error
        for override in overrides:
            if override not in groups and not override.is_add() and not override.is_delete():
                _check_key(known, override.key_or_group)


def _is_group(name: str) -> bool:
    return (CONF / name).is_dir()


def _check_option(override: Override) -> None:
    group, option = override.key_or_group, override.value()
    options = {path.stem for path in (CONF / group).glob("*.yaml")}
    if isinstance(option, str) and option not in options:
        raise ConfigError(f"{group}={option} does not exist{nearest(option, options)}")


def _check_key(known: DictConfig, key: str) -> None:
    if key.split(".")[0] == "hydra":
        return
    node: Any = known
    path = ""
    for part in key.split("."):
        if isinstance(node, ListConfig) or not OmegaConf.is_config(node):
            return
        if part not in node:
            names = [str(name) for name in node if name != "_target_"]
            if not path:
                names += [child.name for child in CONF.iterdir() if child.is_dir()]
            where = f" in {path!r}" if path else ""
            raise ConfigError(f"there is no key {part!r}{where}{nearest(part, names)}")
        path = f"{path}.{part}".lstrip(".")
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)
        if OmegaConf.is_config(node) and node._is_none():  # pyright: ignore
            return


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that one YAML file describes, with the arguments only the runner knows.

    Raises
    ------
    ConfigError
        If a `_target_` lies outside the package, or its constructor refuses an argument.
    """
    given: Any = OmegaConf.to_container(node, resolve=True)
    target = given.pop("_target_")
    if not str(target).startswith("sysquant."):
        raise ConfigError(f"_target_ {target!r} lies outside sysquant; nothing else is run")
    try:
        return hydra.utils.get_class(target)(**given, **arguments)
    except TypeError as error:
        raise ConfigError(f"{target}: {error}") from error


def choice(group: str) -> str:
    """Which option of a group was composed."""
    return str(HydraConfig.get().runtime.choices[group])


def overrides(*groups: str) -> list[str]:
    """What the command line said about these groups, to be said again to another runner."""
    given = HydraConfig.get().overrides.task
    return [o for o in given if o.split("=")[0].split(".")[0] in groups]


def output_dir() -> Path:
    """Where this run's files go."""
    return Path(HydraConfig.get().runtime.output_dir)


def start_log(*, quiet: bool = False) -> None:
    """Log lines as `time level key=value ...` to stderr, and to the run's directory."""
    level = logging.WARNING if quiet else logging.INFO
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(level)


def record(**facts: Any) -> None:
    """Write what this run was (`run.json`) beside its configuration, which stays unresolved."""
    facts["written_at"] = datetime.now(UTC).isoformat()
    output_dir().mkdir(parents=True, exist_ok=True)
    (output_dir() / "run.json").write_text(json.dumps(facts, indent=2, default=str) + "\n")
