"""What is wrong with a command line, in one sentence with the nearest right word.

Input: a root configuration of `conf/` and the words after the runner's name. Output: nothing, or a
`ConfigError`. It composes what Hydra will compose, before Hydra starts; it builds no object.
"""

import difflib
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sysquant.errors import ConfigError, nearest

_BOOK = "book.strategies."  # where `spelled_out` puts more strategies
_PASSWORD = re.compile(r"://[^/@:]*:[^/@]+@")
CONF = Path(__file__).resolve().parents[1] / "conf"
_INSTALL = "python -m pip install -c constraints.txt -e '.[{}]'"
# What a choice of Hydra's own groups needs: a module, and how it comes.
_NEEDED = {
    "hydra/sweeper=optuna": ("optuna", _INSTALL.format("optuna")),
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", _INSTALL.format("joblib")),
    "hydra/launcher=cluster": (
        "hydra_plugins.hydra_ray_launcher",
        "python -m pip install hydra-ray-launcher, in an environment of its own: docs/sweeps.md",
    ),
}
LAUNCHERS = ("basic", "cluster", "joblib")
# Options of Hydra that read a configuration from elsewhere, or unpickle a file.
ELSEWHERE = ("config_path", "config_name", "config_dir", "experimental_rerun")


def check_command_line(config_name: str, arguments: list[str], *, multirun: bool = False) -> None:
    """Compose with these arguments, and say what is wrong with them.

    Parameters
    ----------
    config_name : of the YAML file in `conf/`.
    arguments : the words after the runner's name.
    multirun : whether Hydra's multirun is allowed.

    Raises
    ------
    ConfigError
        If an option, a group, its choice or a key does not exist or cannot be added or left out,
        or multirun is asked for and not allowed.
    """
    words, sweeping = _flags(config_name, spelled_out(arguments), multirun)
    given = [_parsed(word) for word in words]
    groups = groups_of(config_name)
    sweeper = _check_plugins(given)
    choices: list[list[str]] = []
    keys: list[Override] = []
    for override in given:
        _check_form(override, groups, multirun=multirun, sweeping=sweeping)
        if override.value_type == ValueType.INTERVAL_SWEEP and sweeper == "grid":
            raise ConfigError(
                f"{override.input_line!r} has no end of values: say which, like range(5,60,5), or "
                "search it with hydra/sweeper=optuna"
            )
        name = override.key_or_group
        if override.package is not None:
            choices.append([str(override.input_line)])
        elif name in groups:
            choices.append([f"{name}={option}" for option in _options(override)])
        elif name.startswith("hydra/"):
            choices.append([str(override.input_line)])
        else:
            keys.append(override)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for chosen in itertools.product(*choices):
            _check_keys(config_name, list(chosen), keys, groups)


def spelled_out(words: list[str]) -> list[str]:
    """Words of a command line; a book of a few, `book=[a,b]`, as those of the book of all.

    Strategies of `conf/strategy` that `conf/book/all.yaml` does not list are in it, too.
    """
    found, known = list[str](), {name for entry in _defaults("book/all") for name in entry.values()}
    more = [f"+strategy@{_BOOK}{n}={n}" for n in options_of("strategy") if n not in known]
    more = [word for word in more if word not in words]  # which were spelled out before
    for word in words:
        listed = word.removeprefix("book=")
        if listed == "all" or (listed != word and listed.startswith("[")):
            found += ["book=all", *more]
            found += [f"book.only={listed}"] if listed != "all" else []
        else:
            found.append(word)
    return found


def groups_of(config_name: str) -> list[str]:
    """Groups that a root configuration is made of, in their order."""
    named = [str(name) for entry in _defaults(config_name) for name in entry]
    return [name for name in named if name != "hydra" and not name.startswith("override ")]


def _defaults(config_name: str) -> list[dict[str, str]]:
    # Group -> option, as the defaults list of a file says, and of a root that it begins from; other
    # entries are left out.
    listed: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{config_name}.yaml"))
    found = list[dict[str, str]]()
    for entry in listed["defaults"]:
        if isinstance(entry, dict):
            found.append(entry)
        elif entry != "_self_" and (CONF / f"{entry}.yaml").exists():
            found += _defaults(entry)
    return found


def options_of(group: str) -> list[str]:
    """Names of a group's files."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _flags(config_name: str, arguments: list[str], multirun: bool) -> tuple[list[str], bool]:
    # Hydra's own parser, so that `--multir` is what Hydra takes it for.
    parser = get_args_parser()
    found, unknown = parser.parse_known_args(arguments)
    if found.multirun and not multirun:
        raise ConfigError("this runner starts one session: it has no --multirun")
    for word in unknown:
        if not word.startswith("-"):
            raise ConfigError(f"{word!r} stands behind an option: put the options first or last")
        close = difflib.get_close_matches(word, parser._option_string_actions, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; --help lists them"
        raise ConfigError(f"there is no option {word!r}{hint}")
    for name in ELSEWHERE:
        if getattr(found, name):
            raise ConfigError(
                f"this runner reads conf/{config_name}.yaml: it has no --{name.replace('_', '-')}"
            )
    return found.overrides, found.multirun


def _parsed(word: str) -> Override:
    if "=" not in word and not word.startswith("~"):
        raise ConfigError(f"{word!r} is not understood: write key=value")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(
            f"{word!r} is not understood ({_first_line(error)}): a value that holds = , [ ] {{ }} "
            "stands in quotes of its own, 'key=\"a=b\"'"
        ) from error


def _check_plugins(given: list[Override]) -> str:
    # Which sweeper it is; packages that are missing are told with the command that installs them.
    sweeper = "grid"
    for override in given:
        if override.key_or_group == "hydra/sweeper":
            sweeper = str(override.value())
            if sweeper not in (known := options_of("hydra/sweeper")):
                raise ConfigError(f"{override.input_line} does not exist{nearest(sweeper, known)}")
        if override.key_or_group == "hydra/launcher":
            close = difflib.get_close_matches(said := str(override.value()), LAUNCHERS, n=1)
            if close and said not in LAUNCHERS:
                raise ConfigError(f"{override.input_line} does not exist{nearest(said, LAUNCHERS)}")
        module, install = _NEEDED.get(str(override.input_line), ("hydra", ""))
        if not _is_there(module):
            raise ConfigError(f"{override.input_line} needs a package that is not here: {install}")
    return sweeper


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_form(override: Override, groups: list[str], *, multirun: bool, sweeping: bool) -> None:
    word = str(override.input_line)
    if override.is_delete():
        raise ConfigError(f"{word!r}: nothing can be left out; give the key another value, or null")
    if override.is_add() and override.key_or_group in groups and not override.package:
        raise ConfigError(f"{word!r}: the group is there already; write it without the +")
    if not (override.package or _BOOK).startswith(_BOOK):
        raise ConfigError(f"{word!r}: a group has one place here; write it without @")
    if _PASSWORD.search(word):
        raise ConfigError(
            f"{override.key_or_group} holds a password, and a command line is written to disk: put "
            "it into the environment (CLICKHOUSE_DSN with store=clickhouse)"
        )
    if override.key_or_group in ("hydra.run.dir", "hydra.sweep.dir"):
        raise ConfigError("runs lie below SYSQUANT_HOME: set that, not " + override.key_or_group)
    if override.key_or_group == "hydra.mode":
        way = "use --multirun" if multirun else "this runner has no --multirun"
        raise ConfigError(f"hydra.mode is not set here: {way}")
    if override.is_sweep_override() and override.key_or_group.startswith("hydra"):
        raise ConfigError(f"{word!r} is several values: {override.key_or_group} has one")
    if override.is_sweep_override() and not sweeping:
        way = "add --multirun" if multirun else "this runner has no --multirun"
        raise ConfigError(f"{word!r} is several values: {way}; a single one stands in quotes")


def _options(override: Override) -> list[str]:
    # The files of a group that an override names; several in a sweep.
    group, value, known = override.key_or_group, override.value(), options_of(override.key_or_group)
    if isinstance(value, Glob):
        return value.filter(known)
    named = [
        str(getattr(name, "text", name))
        for name in (value.list if isinstance(value, ChoiceSweep) else [value])
    ]
    for name in named:
        if name not in known:
            hint = nearest(name, known) if known else f"; conf/{group} has no file yet"
            raise ConfigError(f"{group}={name} does not exist{hint}")
    return named


def _check_keys(
    config_name: str, chosen: list[str], keys: list[Override], groups: list[str]
) -> None:
    # Composing is the slow part of a start: the bare tree is made only when something is odd.
    plain = [o for o in keys if not (o.is_add() or o.is_force_add() or o.is_sweep_override())]
    failure: Exception | None = None
    try:
        hydra.compose(config_name, [*chosen, *(str(o.input_line) for o in plain)])
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a[x]=1
        failure = error
    if failure is None and len(plain) == len(keys):
        return
    try:
        known = hydra.compose(config_name, chosen, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_first_line(error)) from error
    for override in keys:
        _check_key(known, override, groups)
    if failure is not None:
        raise ConfigError(_first_line(failure)) from failure


def _check_key(known: DictConfig, override: Override, groups: list[str]) -> None:
    key = override.key_or_group
    *above, last = key.split(".")
    node: Any = known
    for depth, part in enumerate(above):
        node = _below(node, part, ".".join(above[:depth]), groups)
        if OmegaConf.is_config(node) and node._is_none():
            return
    where = ".".join(above)
    if isinstance(node, DictConfig) and not len(node):  # arguments of a library: any may be added
        if not (override.is_add() or override.is_force_add()):
            raise ConfigError(f"{where!r} has no key {last!r} yet: write +{override.input_line}")
        return
    node = _below(node, last, where, groups)
    if override.is_add():
        raise ConfigError(f"{key!r} is there already: write {key}=..., without the +")
    _check_shape(node, override, groups)


def _check_shape(node: Any, override: Override, groups: list[str]) -> None:
    # A list stays a list, and a mapping keeps to its keys.
    key, given = override.key_or_group, override.value()
    said = str(override.input_line).partition("=")[2]
    if isinstance(node, ListConfig) and isinstance(given, dict):
        raise ConfigError(f"{key} must be [{_shape(node)}, ...], was {said}")
    if not isinstance(node, DictConfig):
        return
    if isinstance(given, list):
        raise ConfigError(f"{key} must be {_shape([node])}, was {said}")
    if not isinstance(given, dict) or override.is_force_add():
        return
    for name in map(str, given):
        if not len(node):
            raise ConfigError(f"{key!r} has no key {name!r} yet: write +{key}.{name}=...")
        _below(node, name, key, groups)


def _shape(entries: Any) -> str:
    # What the first entry is like, as it is written in YAML.
    first = entries[0] if len(entries) else None
    if not isinstance(first, DictConfig):
        return "..."
    return f"{{{', '.join(f'{name}: ...' for name in _names(first)) or 'name: ...'}}}"


def _below(node: Any, part: str, where: str, groups: list[str]) -> Any:
    # The node that `part` names; only keys that exist are read by anything.
    if isinstance(node, ListConfig):
        if not part.isdigit() or int(part) >= len(node):
            raise ConfigError(f"{where!r} has entries 0 to {len(node) - 1}, was {part!r}")
        return node._get_node(int(part))
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{where!r} is one value: it has no key {part!r}")
    if part not in set(_names(node)):
        names = [n for n in _names(node) if n not in ("_target_", "hydra")]
        names += [] if where else groups
        inside = f" in {where!r}" if where else ""
        raise ConfigError(f"there is no key {part!r}{inside}{nearest(part, set(names))}")
    return node._get_node(part)


def _names(node: DictConfig) -> Iterator[str]:
    return (str(name) for name in node)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
