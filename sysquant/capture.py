"""A strategy's class as written in a notebook cell, as the text of a module that means the same.

Input: the class. Output: Python source: imports, constants and functions that the class uses, and
the class. The source is that of the cell in which it runs; what was replaced since, or rests on
what a module cannot say, is refused. Nothing is written, and nothing is judged.
"""

import ast
import builtins
import importlib
import inspect
import linecache
import math
import symtable
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from sysquant.errors import StrategyError, nearest
from sysquant.purity import IMPORTS
from sysquant.strategy import Strategy

_PARTS = ("co_code", "co_names", "co_varnames")
_PLAIN = (bool, int, str, bytes, type(None))


def module_text(strategy: type[Strategy]) -> str:
    """The text of a module that holds a strategy's class and all that it uses.

    Parameters
    ----------
    strategy : defined at the top level of a notebook cell, or of a file.

    Raises
    ------
    StrategyError
        If its source is not to be found, is not what runs, or uses what a module cannot hold: a
        package that is not allowed, values that are no constants, variables of a function.
    """
    return _Capture(strategy).text()


class _Capture:
    # What the class rests on, found from name to name; each definition after what it uses.

    def __init__(self, strategy: type[Strategy]) -> None:
        self._strategy = strategy
        self._modules = set[str]()  # statements
        self._names = dict[str, set[str]]()  # module -> what is imported from it
        self._constants = dict[str, str]()
        self._definitions = dict[str, str]()
        self._open = set[str]()
        self._define(strategy.__name__, strategy)

    def text(self) -> str:
        said = inspect.getdoc(self._strategy) if "__doc__" in vars(self._strategy) else None
        about = (said or self._strategy.__name__).splitlines()[0].rstrip(".").replace('"""', "")
        named = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._names.items())
        ]
        imports = "\n".join([*sorted(self._modules), *named])
        constants = "\n".join(f"{name} = {value}" for name, value in self._constants.items())
        parts = [f'"""{self._strategy.__name__}: {about}."""\n', imports, constants]
        head = "\n\n".join(part.strip("\n") for part in parts if part)
        return "\n\n\n".join([head, *self._definitions.values()]) + "\n"

    def _define(self, name: str, value: Any) -> None:
        if name in self._definitions or name in self._open:
            return
        self._open.add(name)
        node, text = _definition(name, value)
        _refuse_replaced(name, value, node)
        scope = _namespace(value)
        for used in _globals_of(text, name):
            if used != name:
                self._take(used, scope, name)
        self._definitions[name] = text

    def _take(self, name: str, scope: dict[str, Any], user: str) -> None:
        if name not in scope:
            if hasattr(builtins, name):
                return
            raise StrategyError(f"{user} uses {name!r}, which is nowhere{nearest(name, scope)}")
        value = scope[name]
        if isinstance(value, ModuleType):
            _refuse_package(value.__name__, name, user)
            self._modules.add(_import_of(value.__name__, name))
        elif (said := _constant(value)) is not None:
            self._constants[name] = said
        elif _code_of(value) is not None and _module_of(value) == self._strategy.__module__:
            if _own_name(value) != name:
                raise StrategyError(f"{user} calls {_own_name(value)!r} {name!r}: use one name")
            self._define(name, value)
        else:
            self._import_from(name, value, user)

    def _import_from(self, name: str, value: Any, user: str) -> None:
        module, own = _module_of(value), _own_name(value)
        if not module or not own or module == self._strategy.__module__:
            raise StrategyError(
                f"{user} uses {name!r}, a {type(value).__name__}, which no module holds: make it a "
                "number, a text or a tuple of them, a parameter, or a function"
            )
        _refuse_package(module, name, user)
        if getattr(importlib.import_module(module), own, None) is not value:
            raise StrategyError(
                f"{user} uses {name!r}, which is not {module}.{own}: import it under its own name"
            )
        said = own if own == name else f"{own} as {name}"
        self._names.setdefault(_public(module, own, value), set()).add(said)


def _public(module: str, own: str, value: Any) -> str:
    # The shortest package that offers it: where people import it from.
    parts = module.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if getattr(importlib.import_module(package), own, None) is value:
            return package
    return module


def _import_of(module: str, name: str) -> str:
    if module == name:
        return f"import {module}"
    if "." in module and module.rpartition(".")[2] == name:
        return f"from {module.rpartition('.')[0]} import {name}"
    return f"import {module} as {name}"


def _refuse_package(module: str, name: str, user: str) -> None:
    if module.split(".")[0] not in IMPORTS:
        raise StrategyError(
            f"{user} uses {name!r} of the package {module.split('.')[0]!r}; a strategy rests on "
            f"{', '.join(sorted(IMPORTS))} alone"
        )


def _constant(value: Any) -> str | None:
    # As it is written in a module; None for what is none.
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        return f'float("{value}")'
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        return repr(value)
    if type(value) is tuple:
        parts = [_constant(each) for each in value]
        if None in parts:
            return None
        return f"({', '.join(str(part) for part in parts)}{',' * (len(parts) == 1)})"
    return None


def _bare(value: Any) -> Any:
    # The function under decorators, numba's among them.
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "py_func", value)
    return inspect.unwrap(value) if callable(value) else value


def _code_of(value: Any) -> CodeType | None:
    # Of a function, or of any method of a class.
    if isinstance(value, type):
        found = (_code_of(each) for each in vars(value).values() if not isinstance(each, type))
        return next((code for code in found if code is not None), None)
    bare = _bare(value)
    return bare.__code__ if isinstance(bare, FunctionType) else None


def _module_of(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "")


def _own_name(value: Any) -> str:
    return str(getattr(value, "__name__", ""))


def _namespace(value: Any) -> dict[str, Any]:
    if isinstance(value, type):
        functions = (_bare(each) for each in vars(value).values())
        return next(each.__globals__ for each in functions if isinstance(each, FunctionType))
    return _bare(value).__globals__


def _definition(name: str, value: Any) -> tuple[ast.stmt, str]:
    # The statement that made it, and its text.
    code = _code_of(value)
    if code is None:
        raise StrategyError(f"{name} has no function of its own, so its source is not to be found")
    linecache.checkcache(code.co_filename)
    source = "".join(linecache.getlines(code.co_filename))
    if not source:
        raise StrategyError(
            f"the source of {name} is not to be found: define it in a notebook cell, or in a file"
        )
    for node in ast.parse(source).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        if first <= code.co_firstlineno <= (node.end_lineno or 0):
            if getattr(node, "name", "") != name:
                break
            lines = source.splitlines()[first - 1 : node.end_lineno]
            return node, "\n".join(line.rstrip() for line in lines)
    raise StrategyError(
        f"{name} is not defined at the top level of a cell or file, as a class or function of that "
        "name: move it there"
    )


def _refuse_replaced(name: str, value: Any, node: ast.stmt) -> None:
    # Functions must be those that the text makes: nothing was put in their place since.
    made = {code.co_qualname: code for code in _codes(_compiled(node, value))}
    own = vars(value).values() if isinstance(value, type) else [value]
    for each in own:
        code = None if isinstance(each, type) else _code_of(each)
        if code is None:
            continue
        if set(code.co_freevars) - {"__class__"}:
            raise StrategyError(
                f"{name} uses variables of a function around it, {', '.join(code.co_freevars)}: "
                "define it at the top level"
            )
        if code.co_qualname not in made or not _is_same(made[code.co_qualname], code):
            raise StrategyError(
                f"{code.co_qualname} is not what its source says: it was replaced, or edited "
                "without being run; run its cell again"
            )


def _compiled(node: ast.stmt, value: Any) -> CodeType:
    code = _code_of(value)
    future = (code.co_flags if code else 0) & 0x1FE0000  # what `from __future__` asked for
    module = ast.Module([node], [])
    return compile(module, "<source>", "exec", flags=future, dont_inherit=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _is_same(one: CodeType, other: CodeType) -> bool:
    if any(getattr(one, part) != getattr(other, part) for part in _PARTS):
        return False
    pairs = list(zip(one.co_consts, other.co_consts, strict=False))
    return len(one.co_consts) == len(other.co_consts) and all(
        _is_same(a, b)
        if isinstance(a, CodeType) and isinstance(b, CodeType)
        else repr(a) == repr(b)
        for a, b in pairs
    )


def _globals_of(text: str, name: str) -> list[str]:
    # Names that a definition takes from its module, in the order of the alphabet.
    found = set[str]()

    def look(table: symtable.SymbolTable) -> None:
        for symbol in table.get_symbols():
            if symbol.is_declared_global():
                raise StrategyError(
                    f"{name} sets the global {symbol.get_name()!r}: a strategy has no memory but "
                    "its features (sysquant.features.step)"
                )
            is_outer = symbol.is_global() or table.get_type() != "function"
            if is_outer and symbol.is_referenced() and not symbol.is_assigned():
                found.add(symbol.get_name())
        for child in table.get_children():
            look(child)

    look(symtable.symtable(text, "<source>", "exec"))
    return sorted(found - {name, "__class__"})
