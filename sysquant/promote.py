"""From a notebook to live in one call: the class of a cell becomes a module, and goes to the gate.

Input: a strategy as it is in the notebook. Output: `sysquant/strategies/<name>.py` and
`conf/strategy/<name>.yaml`, which mean the same, and what `runners/promote.py` says of them in a
process of its own. Nothing is judged here.
"""

import hashlib
import importlib.machinery
import itertools
import keyword
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import yaml

from sysquant import promotions
from sysquant.capture import module_text
from sysquant.errors import ConfigError, PromotionError, StrategyError
from sysquant.frames import columns_of
from sysquant.home import PACKAGE, home, write_whole
from sysquant.keys import check_number
from sysquant.past import History
from sysquant.promotions import Promotion
from sysquant.strategy import Strategy, example_symbols, random_walk
from sysquant.types import Columns

_ROOT = PACKAGE.parent
_RUNNER = _ROOT / "runners" / "promote.py"
_WRITTEN = "# Written by promote(), module "
_PARTS = 5  # of a random walk, 8,000 bars, on which the module must say what the class says


def promote(
    strategy: Strategy, name: str, *words: str, book: float = 1.0, bars: History | None = None,
    **groups: str,
) -> Promotion:  # fmt: skip
    """Write a strategy's module and configuration, and send it through the promotion gate.

    Parameters
    ----------
    strategy : an instance, of a class of the notebook or of the package.
    name : of module, configuration and record: small letters, digits, `_`.
    words : for `runners/promote.py`, as `feed.start=-24h`.
    book : share of the book's capital that it may trade.
    bars : on which, besides a random walk, the module must give the notebook's signals.
    groups : of the configuration, as `risk="canary"`, `universe="crypto"`.

    Returns
    -------
    The record; the last lines that are printed say how it goes live.

    Raises
    ------
    ConfigError
        If the name cannot be meant, or is that of something else.
    StrategyError
        If the class cannot be a module, or the module does not give its signals.
    PromotionError
        If the gate refuses it. A module that was promoted before is put back then.

    Examples
    --------
    >>> promote(MyStrategy(fast=12), "my_momentum", "feed.start=-24h", book=0.1, risk="canary")
    """
    _check_name(name)
    check_number("book", book, above=0, most=1)
    files = _files(name)
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    _write(strategy, name, bars)
    given = [f"strategy={name}", f"book.fraction={book}", *words]
    given += [f"{group}={choice}" for group, choice in groups.items()]
    code, last = _run([sys.executable, str(_RUNNER), *given])
    if code:
        if promotions.read(home() / "data" / "promotions", name) is not None:
            for path, content in before.items():
                if content is not None:
                    write_whole(path, content)
        raise PromotionError(f"{name} is not promoted: {last}")
    record = promotions.read(home() / "data" / "promotions", name)
    if record is None:
        raise PromotionError(f"the gate wrote no record of {name}: {last}")
    return record


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise ConfigError(f"name must be like my_momentum, was {name!r}")


def _files(name: str) -> tuple[Path, Path]:
    return PACKAGE / "strategies" / f"{name}.py", _ROOT / "conf" / "strategy" / f"{name}.yaml"


def _write(strategy: Strategy, name: str, bars: History | None) -> None:
    # One that is in the package already stays as it is.
    kind, (module, config) = type(strategy), _files(name)
    own = f"sysquant.strategies.{name}"
    if kind.__module__ == own:
        text = module.read_text()
    else:
        text = module_text(kind)
        _refuse_overwrite(module, config, text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    _refuse_others(strategy, _loaded(text, own), bars)
    said = {"_target_": f"{own}.{kind.__name__}", **_plain(strategy)}
    write_whole(module, text.encode())
    write_whole(config, f"{_WRITTEN}{digest}\n{yaml.safe_dump(said, sort_keys=False)}".encode())


def _plain(strategy: Strategy) -> dict[str, object]:
    # Parameters as YAML has them; a strategy is one `_target_` within another.
    found = dict[str, object]()
    for name, value in strategy.parameters.items():
        if isinstance(value, Strategy):
            kind = type(value)
            value = {"_target_": f"{kind.__module__}.{kind.__name__}", **_plain(value)}
        found[name] = value
    return found


def _refuse_overwrite(module: Path, config: Path, text: str) -> None:
    # What is there must be what this wrote, and nobody has changed since.
    if not module.exists() or module.read_text() == text:
        return
    head = config.read_text().partition("\n")[0] if config.exists() else ""
    if head != _WRITTEN + hashlib.sha256(module.read_bytes()).hexdigest()[:16]:
        raise ConfigError(
            f"{module.name} in {module.parent} is another strategy, or was edited since it was "
            "promoted: choose another name, or remove it"
        )


def _loaded(text: str, name: str) -> ModuleType:
    # As it would be in its place, and beside it.
    with tempfile.TemporaryDirectory(prefix="sysquant-promote-") as scratch:
        path = Path(scratch) / "module.py"
        path.write_text(text)
        loader = importlib.machinery.SourceFileLoader(name, str(path))
        module = ModuleType(name)
        loader.exec_module(module)
    return module


def _refuse_others(strategy: Strategy, module: ModuleType, bars: History | None) -> None:
    # The module must say what the notebook's class says, of every bar and to the bit.
    own = getattr(module, type(strategy).__name__)(**strategy.parameters)
    if strategy.classes:
        own = own.with_model(strategy.model)
    for symbols, columns in _markets(strategy, bars):
        pairs = [one.decider(symbols) for one in (strategy, own)]
        targets = [decider.run(columns) for decider in pairs]
        values = [
            np.column_stack([*decider.features.values(), target])
            for decider, target in zip(pairs, targets, strict=True)
        ]
        if values[0].tobytes() != values[1].tobytes():
            raise StrategyError(
                f"the module of {strategy!r} gives other signals than the notebook: restart the "
                "kernel, run its cells from the top, and promote again"
            )


def _markets(
    strategy: Strategy, bars: History | None
) -> Iterator[tuple[Sequence[str], Columns]]:  # fmt: skip
    symbols = example_symbols(strategy)
    parts = list(itertools.islice(random_walk(len(symbols)), _PARTS))
    yield symbols, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if bars is not None:
        yield bars.symbols, columns_of(bars, (), may_repeat=True)[0]


def _run(command: list[str]) -> tuple[int, str]:
    # Says what it says; the exit code, and the reasons or else the last line.
    last, reasons = "", list[str]()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as gate:
        for line in gate.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
            if line.startswith("failed: ") and line not in reasons:
                reasons.append(line)
    said = "; ".join(line.strip().removeprefix("failed: ") for line in reasons)
    return gate.returncode, said or last.removeprefix("error: ")
