"""What a strategy's code takes from outside its bars: clocks, files, connections, environment.

Input: a strategy, and a stretch of code in which it is evaluated. Output: `Seen`, each with the
line that asked; what its functions hold in tables; and the strategy once more from modules that
were loaded anew, as a fresh process would have it. What others ask meanwhile is not told.
"""

import datetime
import functools
import importlib
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from sysquant.features.expression import Expression, Operation
from sysquant.home import PACKAGE
from sysquant.strategy import Strategy

# What the interpreter tells of, and what it is: https://docs.python.org/3/library/audit_events.html
_EVENTS = {
    "open": "file", "os.listdir": "file", "os.scandir": "file", "glob.glob": "file",
    "mmap.__new__": "file", "sqlite3.connect": "file", "os.remove": "file", "os.rename": "file",
    "os.mkdir": "file", "shutil.copyfile": "file",
    "socket.__new__": "connection", "socket.connect": "connection",
    "socket.getaddrinfo": "connection", "urllib.Request": "connection",
    "subprocess.Popen": "process", "os.system": "process", "os.exec": "process",
    "os.fork": "process", "os.posix_spawn": "process",
    "os.putenv": "environment", "os.unsetenv": "environment",
    "ctypes.dlopen": "code", "ctypes.dlsym": "code",
}  # fmt: skip
_CLOCKS = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "gmtime",
    "localtime", "ctime", "asctime", "strftime", "process_time", "process_time_ns",
)  # fmt: skip
_STANDARD = sysconfig.get_paths()["stdlib"]
_EVALUATES = (str(PACKAGE / "features"), str(PACKAGE / "decider.py"))  # calls nothing outside
_MOST_OBJECTS = 20_000  # that are looked into for tables
_WATCHES: "list[_Watch]" = []  # that are open, the newest last


class Seen(NamedTuple):
    """Something from outside that was asked for.

    Parameters
    ----------
    kind : `clock`, `file`, `connection`, `process`, `environment` or `code`.
    what : as `time.time` or the file's name.
    where : file and line that asked.
    """

    kind: str
    what: str
    where: str


class _Watch:
    def __init__(self, files: tuple[str, ...], seed: int) -> None:
        self.files = (*files, *_EVALUATES)
        self.seen: dict[Seen, None] = {}
        self.noise = np.random.default_rng(seed)

    def asked(self, kind: str, what: str) -> bool:
        # Whether the code that is watched asks, by way of libraries or not. What is read while a
        # module is imported or compiled is how Python works.
        frame, name = sys._getframe(2), ""
        while frame is not None:
            name = frame.f_code.co_filename
            if "importlib" in name or f"{os.sep}numba{os.sep}" in name:
                return False
            if not _is_library(name):
                break
            frame = frame.f_back
        if frame is None or not name.startswith(self.files):
            return False
        self.seen[Seen(kind, what, f"{Path(name).name}:{frame.f_lineno}")] = None
        return True


@functools.cache
def _is_library(name: str) -> bool:
    return name.startswith(("<", _STANDARD)) or "site-packages" in name or name == __file__


def _asked(kind: str, what: str) -> bool:
    # A clock that was imported by its name in one watch is asked in the next ones, too.
    return bool(_WATCHES) and _WATCHES[-1].asked(kind, what)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    kind = _EVENTS.get(event) if _WATCHES else None
    if kind:
        what = os.fsdecode(args[0]) if args and isinstance(args[0], str | bytes) else event
        _asked(kind, what)


@functools.cache
def _listen() -> None:
    # An audit hook stays for as long as the process lives: one, that does nothing while none looks.
    sys.addaudithook(_hear)


@contextmanager
def watched(files: tuple[str, ...], seed: int) -> Iterator[list[Seen]]:
    """Watch what code asks of the world outside; clocks answer it with noise.

    Parameters
    ----------
    files : whose code is watched.
    seed : of what the clocks say.

    Yields
    ------
    What was asked; filled at the end.
    """
    import pandas as pd  # before the calendar is another: it would not load with that

    _listen()
    watch, told = _Watch(files, seed), list[Seen]()
    with ExitStack() as stack:
        for name in _CLOCKS:
            real = getattr(time, name)
            stack.enter_context(mock.patch.object(time, name, _clock(f"time.{name}", real)))
        stack.enter_context(mock.patch.object(datetime, "datetime", _calendar()))
        for name in ("now", "today", "utcnow"):
            fake = staticmethod(_clock(f"pandas.Timestamp.{name}", getattr(pd.Timestamp, name)))
            stack.enter_context(mock.patch.object(pd.Timestamp, name, fake))
        _watch_environment(stack)
        _WATCHES.append(watch)
        try:
            yield told
        finally:
            _WATCHES.remove(watch)
            told += watch.seen


def _clock(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def clock(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if not _asked("clock", name):
            return found
        if isinstance(found, int | float):
            return type(found)(found * _WATCHES[-1].noise.uniform(0.5, 1.5))
        return found

    return clock


def _calendar() -> type:
    real = datetime.datetime

    class Kind(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

        def __subclasscheck__(cls, kind: type) -> bool:
            return issubclass(kind, real)

    def said(name: str) -> Any:
        return staticmethod(_clock(f"datetime.{name}", getattr(real, name)))

    def made(_: type, *args: Any, **kwargs: Any) -> datetime.datetime:
        return real(*args, **kwargs)

    own = {name: said(name) for name in ("now", "utcnow", "today")}
    return Kind("datetime", (real,), {"__new__": made, **own})


def _watch_environment(stack: ExitStack) -> None:
    kind: Any = type(os.environ)
    read = kind.__getitem__

    def reading(environment: Any, name: str) -> str:
        _asked("environment", str(name))
        return read(environment, name)

    stack.enter_context(mock.patch.object(kind, "__getitem__", reading))


# -- its modules


def modules_of(strategy: Strategy) -> dict[str, ModuleType]:
    """Modules that a strategy's code stands in, by name: of its classes, and of those it is of."""
    found = dict[str, ModuleType]()
    for cls in type(strategy).__mro__:
        if issubclass(cls, Strategy) and cls is not Strategy and cls.__module__ in sys.modules:
            found[cls.__module__] = sys.modules[cls.__module__]
    for value in strategy.parameters.values():
        if isinstance(value, Strategy):
            found |= modules_of(value)
    return found


def codes_of(strategy: Strategy) -> list[ModuleType | type]:
    """What of a strategy's code there is to read: modules; a class that is not a module's own."""
    found = dict[ModuleType | type, None]()
    for cls in type(strategy).__mro__:
        if issubclass(cls, Strategy) and cls is not Strategy:
            module = sys.modules.get(cls.__module__)
            is_own = module is not None and _is_of(cls, module)
            found[module if is_own and module is not None else cls] = None
    for value in strategy.parameters.values():
        if isinstance(value, Strategy):
            found |= dict.fromkeys(codes_of(value))
    return list(found)


def _is_of(cls: type, module: ModuleType) -> bool:
    # Whether a module that can be loaded anew gives the class.
    return getattr(module, "__spec__", None) is not None and hasattr(module, cls.__qualname__)


def files_of(strategy: Strategy) -> tuple[str, ...]:
    """Files of `modules_of`; of what stands in none, the names its code goes by."""
    files = {str(getattr(module, "__file__", "") or "") for module in modules_of(strategy).values()}
    codes = {code.co_filename for code in _codes(type(strategy))}
    return tuple(sorted((files | codes) - {""}))


def _codes(cls: type) -> Iterator[CodeType]:
    for each in cls.__mro__:
        if each is not Strategy and issubclass(each, Strategy):
            yield from (
                one.__code__ for one in vars(each).values() if isinstance(one, FunctionType)
            )


def is_loadable(strategy: Strategy) -> bool:
    """Whether its modules can be loaded anew, and give the class again."""
    module = sys.modules.get(type(strategy).__module__)
    return module is not None and _is_of(type(strategy), module)


def fresh(strategy: Strategy) -> Strategy:
    """The same strategy of modules that were loaded anew: nothing is left of what they remembered.

    Of a class that stands in no module, another instance.
    """
    if not is_loadable(strategy):
        return type(strategy)(**strategy.parameters)
    old = modules_of(strategy)
    parent, missing = {}, object()
    for name in old:  # an import sets the module in its package, too
        package, _, own = name.rpartition(".")
        if package in sys.modules:
            parent[package, own] = vars(sys.modules[package]).get(own, missing)
        del sys.modules[name]
    try:
        return _again(strategy)
    finally:
        sys.modules.update(old)
        for (package, own), module in parent.items():
            if module is not missing:
                setattr(sys.modules[package], own, module)


def _again(strategy: Strategy) -> Strategy:
    cls = getattr(importlib.import_module(type(strategy).__module__), type(strategy).__qualname__)
    given = {
        name: _again(value) if isinstance(value, Strategy) else value
        for name, value in strategy.parameters.items()
    }
    return cls(**given)


# -- what it holds


class Table(NamedTuple):
    """Numbers that a strategy's code holds.

    Parameters
    ----------
    name : under which.
    holder : the function or class that reads it.
    numbers : how many.
    """

    name: str
    holder: str
    numbers: int


def tables(strategy: Strategy, features: dict[str, Expression], most: int) -> list[Table]:
    """Arrays, frames and collections of more than so many numbers that its code can look into.

    Parameters
    ----------
    strategy : whose classes and functions are looked into, also those of its indicators.
    features : of `features_of`.
    most : numbers that one may hold.
    """
    pending: list[tuple[str, str, Any]] = []
    for cls in type(strategy).__mro__:
        if cls is not Strategy and issubclass(cls, Strategy):
            pending += [(name, cls.__name__, one) for name, one in vars(cls).items()]
    waiting, known = list(features.values()), set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) not in known:
            known.add(id(node))
            waiting += node.inputs
            pending.append((node.operation.name, node.operation.name, node.operation))
    return list(_tables(pending, most))


def _tables(pending: list[tuple[str, str, Any]], most: int) -> Iterator[Table]:
    known = set[int]()
    while pending and len(known) < _MOST_OBJECTS:
        name, holder, one = pending.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        size = _size_of(one)
        if size > most:
            yield Table(name, holder, size)
        else:
            pending += _inside(name, holder, one)


def _size_of(one: Any) -> int:
    if isinstance(one, list | tuple | set | frozenset | dict):
        return len(one)
    size = getattr(one, "size", 0)  # of arrays, frames and columns
    return size if isinstance(size, int) else 0


def _inside(name: str, holder: str, one: Any) -> list[tuple[str, str, Any]]:
    # What can be reached: globals that a function names, what it closes over, its defaults.
    one = getattr(one, "py_func", one)  # of a compiled function
    if isinstance(one, Operation):
        return [(name, holder, each) for each in (one.kernel, one.across, one.first_state)]
    if isinstance(one, classmethod | staticmethod):
        one = one.__func__
    if isinstance(one, functools.partial):
        return [(name, holder, each) for each in (one.func, one.args, one.keywords)]
    if isinstance(one, FunctionType):
        return _of_function(name, one)
    if isinstance(one, dict):
        return [(str(key), holder, value) for key, value in one.items()]
    if isinstance(one, list | tuple | set | frozenset):
        return [(name, holder, each) for each in one]
    if isinstance(one, np.ndarray | ModuleType | Strategy | str | int | float | None):
        return []
    if isinstance(one, type):
        module = sys.modules.get(one.__module__)
        is_own = not _is_theirs(str(getattr(module, "__file__", None) or "<"))
        return [(key, one.__name__, value) for key, value in vars(one).items() if is_own]
    return [(key, holder, value) for key, value in getattr(one, "__dict__", {}).items()]


def _of_function(name: str, one: FunctionType) -> list[tuple[str, str, Any]]:
    found = list[tuple[str, str, Any]]()
    if not _is_theirs(one.__code__.co_filename) or one.__code__.co_filename == "<string>":
        named = one.__code__.co_names  # the loop around a step is of a text of its own
        found = [(n, one.__name__, one.__globals__[n]) for n in named if n in one.__globals__]
        found += [(name, one.__name__, one.__defaults__), (name, one.__name__, vars(one))]
    cells = zip(one.__code__.co_freevars, _cells(one), strict=True)
    return found + [(free, one.__name__, value) for free, value in cells]


@functools.cache
def _is_theirs(name: str) -> bool:
    # Of a library, or of this package's own but its strategies.
    own = str(PACKAGE / "strategies")
    return _is_library(name) or (name.startswith(str(PACKAGE)) and not name.startswith(own))


def _cells(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # it is empty
            found.append(None)
    return found
