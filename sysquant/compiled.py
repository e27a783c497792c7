"""The one compiler setting of the package, and a disk cache that cannot serve stale code.

numba looks only at the file of the outermost function when it decides whether a cached binary is
still valid: an edited inner function would go on running as the old one. The cache directory is
therefore named by a hash of every compiled source file, the versions and the CPU.
"""

import ctypes
import gc
import hashlib
import os
import platform
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")  # it would give arrays other last bits

import numba
import numpy as np
from numba import _dynfunc  # pyright: ignore[reportAttributeAccessIssue]
from numba.core import codegen, compiler, config, event
from numba.core.registry import cpu_target

from sysquant.home import PACKAGE, cache

P = ParamSpec("P")
R = TypeVar("R")


def source_hash(*, compiled_only: bool = False, strategies: bool = True) -> str:
    """Hex SHA-256 over every Python file of the package, in path order.

    With `compiled_only`, over those alone that hold compiled functions (they import this module).
    Without `strategies`, over all but these: a strategy that is new changes nothing for the others.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if not strategies and path.parent.name == "strategies":
            continue
        source = path.read_bytes()
        if not compiled_only or b"sysquant.compiled" in source:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + source + b"\0")
    return digest.hexdigest()


def machine() -> dict[str, str]:
    """What last bits of floating-point results depend on: versions and CPU."""
    target: Any = cpu_target.target_context
    _, cpu, features = target.codegen().magic_tuple()
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "machine": platform.machine(),
        "cpu": f"{cpu}-{hashlib.sha256(features.encode()).hexdigest()[:12]}",
    }


def _cache_key() -> str:
    parts = source_hash(compiled_only=True) + repr(sorted(machine().items()))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


_CACHE = cache() / "numba" / _cache_key()
setattr(config, "CACHE_DIR", str(_CACHE))  # noqa: B010 (numba makes its settings at import)


class _NoCollection(event.Listener):
    # What a compiler makes lives until it is done: looking for garbage meanwhile is a tenth of it.

    def __init__(self) -> None:
        self._depth = 0
        self._was_enabled = False

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._was_enabled = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._was_enabled:
            gc.enable()


event.register("numba:compile", _NoCollection())


class _PartLibrary(codegen.JITCodeLibrary):
    # Code that waits to be linked into a kernel's, which is optimised and translated as a whole.

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _PartCompiler(compiler.Compiler):
    # numba would optimise and translate a function with all it calls, and do so again at every
    # level of calls: two fifths of the time of compiling the engine.

    def __init__(
        self, typing: Any, target: Any, library: Any, args: Any, result: Any, flags: Any, local: Any
    ) -> None:  # fmt: skip
        library = library or _PartLibrary(target.codegen(), "part")
        super().__init__(typing, target, library, args, result, flags, local)
        self.state.targetctx.get_executable = _no_executable


_REFUSE: Any = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value


def _no_executable(library: Any, function: Any, environment: Any) -> Any:
    # What stands for a part among compiled functions; to Python it answers with a TypeError.
    return _dynfunc.make_function(
        function.lookup_module(), function.qualname, "", _REFUSE, environment, (library,)
    )


_njit: Any = numba.njit  # its stubs know few of its options


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers, cached on disk, without the interpreter's lock.

    No fast-math: the same bits in an array of a million rows and in a stream of single ones.
    """
    return _njit(cache=True, nogil=True, error_model="numpy", forceinline=False)(function)


def inlined_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, and always part of compiled callers: what it is given costs no counting there.

    Of every array that a function hands on, the compiler counts who holds it.
    """
    return _njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function)


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only kernels call: from Python it is a TypeError.

    What would make it callable, and a place on disk of its own, are most of what a function with
    many arguments costs to compile.
    """
    return _part(function, forceinline=False)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `part`, and always part of its caller: for what runs at every event."""
    return _part(function, forceinline=True)


def _part(function: Callable[P, R], *, forceinline: bool) -> Callable[P, R]:
    return _njit(
        nogil=True, error_model="numpy", forceinline=forceinline,
        no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_PartCompiler,
    )(function)  # fmt: skip


def pasted(function: Callable[P, R]) -> Callable[P, R]:
    """As `inlined`, for what has one caller: it is not compiled by itself at all."""
    return _njit(nogil=True, error_model="numpy", inline="always")(function)


def numbers(*span: int) -> Any:
    """Whole numbers as `range` counts them, as constants of compiled code.

    A Python one is a type of its own to the compiler: every function it is given to is compiled
    once more for each value.
    """
    return np.arange(*span)


wide: Any = np.int64
"""A whole number of the one width that compiled functions take.

Each is compiled once more for every other width, and that of a column is kept by `int`.
"""


def is_compiled() -> bool:
    """Whether this version was compiled on this machine before."""
    return _CACHE.is_dir()
