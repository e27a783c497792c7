"""From the command line to objects: composing, checking and instantiating the configuration.

Shared by the runners that use Hydra; nothing below `runners/` knows it. `command_line` answers what
is misspelt before Hydra starts; only `_target_`s of this package are made into objects.
"""

import inspect
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import hydra
import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from runners.command_line import (
    CONF,
    check_command_line,
    groups_of,
    options_of,
    spelled_out,
)
from runners.line import SHADOW
from sysquant import __version__
from sysquant.compiled import machine, source_hash
from sysquant.errors import ConfigError, SysquantError
from sysquant.home import home
from sysquant.keys import check_choice

_MEANINGS = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false",
    NoneType: "null", object: "a value",
}  # fmt: skip


FAULTS = (SysquantError, OmegaConfBaseException, OSError)  # what one sentence says


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """End the process with 1 on a fault of the user's, told on stderr."""
    try:
        yield
    except FAULTS as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def main(
    config_name: str, *, job: Callable[[DictConfig], Any] | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a composed configuration into the entry point of a runner.

    Parameters
    ----------
    config_name : of the YAML file in `conf/`.
    job : what a job of a multirun does in a process of its own; None: there is no multirun.

    Returns
    -------
    A decorator. The entry point exits with 2 when the command line cannot be meant, with 1 on a
    `SysquantError`, one sentence on stderr each.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        def guarded(cfg: DictConfig) -> Any:
            if job is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
                return job(cfg)  # Hydra keeps what is raised, too
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a session has sockets, too
            with in_one_sentence():
                return task(cfg)

        def entry() -> None:
            # Said once: the jobs of a multirun, in whatever process, lie in one directory.
            name, stamp = Path(sys.argv[0]).stem, f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S-%f}"
            about = inspect.getdoc(sys.modules[task.__module__]) or ""
            resolvers: dict[str, Callable[[], str]] = {
                "home": lambda: str(home()),
                "job": lambda: name,
                "stamp": lambda: stamp,
                "about": lambda: about,
                "groups": lambda: _groups(config_name),
            }
            # The flag may stand among the words.
            sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
            sys.argv[1:] = spelled_out(sys.argv[1:])
            for word, resolver in resolvers.items():
                OmegaConf.register_new_resolver(word, resolver, replace=True)
            try:
                check_command_line(config_name, sys.argv[1:], multirun=job is not None)
                require_home()
            except ConfigError as error:
                print(f"error: {error}", file=sys.stderr)
                raise SystemExit(2) from None
            # What is only shown (`--help | head`) ends quietly when its reader has enough. A parent
            # that has the embedded engine open leaves the signal blocked to its children.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(
                guarded
            )()

        entry.__doc__ = task.__doc__
        return entry

    return decorate


def _groups(config_name: str) -> str:
    # For `--help`: only the groups that this runner is made of.
    return "\n".join(
        f"  {group}={' | '.join(options_of(group)) or '(no file yet)'}"
        for group in groups_of(config_name)
    )


def sentence(error: Exception) -> str:
    """What an error says, its first line."""
    return str(error).strip().splitlines()[0]


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that one YAML file describes, with the arguments only the runner knows.

    Parameters
    ----------
    node : of a composed configuration, where its place gives its keys their full names.
    **arguments : they count instead of keys of their names.

    Raises
    ------
    ConfigError
        If `_target_` is nothing of the package, or refuses an argument.
    """
    listed: Any = OmegaConf.to_container(node, resolve=True)
    given: dict[str, Any] = {k: v for k, v in listed.items() if k not in arguments}
    target = str(given.pop("_target_", ""))
    if not target:
        raise ConfigError("this choice has no _target_, so no object is made of it; choose another")
    if not target.startswith("sysquant."):
        raise ConfigError(f"_target_ {target!r} lies outside sysquant; nothing else is run")
    try:
        make = hydra.utils.get_object(target)
    except (HydraException, ImportError, ValueError) as error:
        raise ConfigError(f"_target_ {target!r} does not exist: {sentence(error)}") from error
    # What a module of ours only imports (`sysquant.home.Path`) is not ours.
    if not callable(make) or not str(getattr(make, "__module__", "")).startswith("sysquant."):
        raise ConfigError(f"_target_ {target!r} lies outside sysquant; nothing else is run")
    where = str(node._get_full_key(None))
    for name, found in given.items():
        if isinstance(found, dict) and "_target_" in found:
            given[name] = build(node[name])
    check_types(make, given, where)
    try:
        return make(**given, **arguments)
    except TypeError as error:
        raise ConfigError(f"{target}: {error}") from error
    except ConfigError as error:
        # The object knows its arguments' names, `span` or `Momentum.span`; only we, their place.
        said = str(error).removeprefix(f"{target.rpartition('.')[2]}.")
        ours = where and said.split()[0] in given
        raise ConfigError(f"{where}.{said}" if ours else str(error)) from error


def check_types(make: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Refuse arguments that are not of the types a constructor says; others than YAML's pass.

    Parameters
    ----------
    make : its annotations are the schema.
    given : the arguments.
    where : the full name of the key that they stand in.

    Raises
    ------
    ConfigError
        If one is of another type.
    """
    parameters = inspect.signature(make).parameters
    for name, found in given.items():
        if name in parameters:
            _convert(found, parameters[name].annotation, f"{where}.{name}".lstrip("."))


def _convert(found: Any, kind: Any, key: str) -> Any:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        if get_origin(kind) is Literal:
            check_choice(key, found, get_args(kind))
        raise ConfigError(f"{key} must be {_meaning(kind)}, was {found!r}") from error
    except TypeError:  # no annotation, or a type that no YAML holds
        return found


def _meaning(kind: Any) -> str:
    # What an annotation asks for, as it is written in YAML.
    origin, inside = get_origin(kind), [_meaning(part) for part in get_args(kind)]
    if origin in (Union, UnionType):
        return " or ".join(inside)
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{{name: {inside[1]}}}"
    if isinstance(origin, type) and issubclass(origin, tuple):
        return f"[{', '.join(inside)}]"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"[{inside[0]}, ...]"
    return _MEANINGS.get(kind, getattr(kind, "__name__", str(kind)))


def value(cfg: DictConfig, key: str, kind: Any) -> Any:
    """One value of the configuration, of the type that is meant.

    Raises
    ------
    ConfigError
        If it is of another.
    """
    found: Any = OmegaConf.select(cfg, key)
    if OmegaConf.is_config(found):
        found = OmegaConf.to_container(found, resolve=True)
    return _convert(found, kind, key)


def read_from_environment(node: DictConfig | ListConfig) -> list[str]:
    """Full names of the keys whose values come from the environment, also by way of other keys."""
    asked = list[object]()

    def noticed(*given: Any) -> Any:
        asked.append(given)
        return oc.env(*given)

    def found(node: DictConfig | ListConfig) -> Iterator[str]:
        for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
            before, inside = len(asked), None
            with suppress(OmegaConfBaseException):
                inside = node[key]
            if len(asked) > before:
                yield str(node._get_full_key(key))
            elif isinstance(inside, DictConfig | ListConfig):
                yield from found(inside)

    OmegaConf.register_new_resolver("oc.env", noticed, replace=True)
    try:
        return list(found(node))
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def require_home() -> None:
    """Refuse a home that cannot be written.

    Raises
    ------
    ConfigError
        If nothing can be made in it.
    """
    try:
        home().mkdir(parents=True, exist_ok=True)
        writable = os.access(home(), os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise ConfigError(f"nothing can be written to {home()}; set SYSQUANT_HOME elsewhere")


def choice(group: str) -> str:
    """Which option of a group was composed."""
    return str(HydraConfig.get().runtime.choices[group])


def is_shadow() -> bool:
    """Whether the book is a challenger's, beside a champion's."""
    return choice("serving") == "challenger"


def book_of(cfg: DictConfig) -> str:
    """Name of the book that is traded live.

    Raises
    ------
    ConfigError
        If it cannot name a directory.
    """
    of = "strategy" if choice("book") == "single" else "book"
    traded = "-".join(sorted(cfg.book.only or ())) or choice(of)
    book = cfg.book.name or f"{traded}-{choice('feed')}{SHADOW * is_shadow()}"
    if not re.fullmatch(r"[A-Za-z0-9._-]*[A-Za-z0-9_-]", str(book)):
        raise ConfigError(f"book.name names a directory: letters, digits, . _ -, was {book!r}")
    return str(book)


def words(*, without: Collection[str] = ()) -> list[str]:
    """What the command line said, but about these groups and keys."""
    return [
        word for word in HydraConfig.get().overrides.task
        if _key(word) not in without and _key(word).split(".")[0] not in without
    ]  # fmt: skip


def overrides(*groups: str) -> list[str]:
    """What the command line said about these groups."""
    return [word for word in words() if _key(word).split(".")[0] in groups]


def chosen(*groups: str) -> list[str]:
    """Which options these groups have and what was changed in them, for another runner's words."""
    changed = [word for word in overrides(*groups) if "." in _key(word)]
    return [f"{group}={choice(group)}" for group in groups] + changed


def _key(word: str) -> str:
    return word.lstrip("+").split("=")[0]


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


def record(directory: Path | None = None, /, **facts: Any) -> None:
    """Write what this run was (`run.json`) beside its configuration, which stays unresolved."""
    where = directory or output_dir()
    facts |= {"version": __version__, "source": source_hash(), **machine()}
    facts["written_at"] = datetime.now(UTC).isoformat()
    where.mkdir(parents=True, exist_ok=True)
    (where / "run.json").write_text(json.dumps(facts, indent=2, default=str) + "\n")
