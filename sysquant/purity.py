"""What the source of a strategy says that a pure function of bars has no use for.

Input: the text of a module. Output: a `Remark` for each place that could bring in what lies after
the bar: files, the store, clocks, chance, memory that outlives a call, tables of numbers, ways
around Python's own rules. The text is read, never run: what hides from it, `outside` sees.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

IMPORTS = frozenset(
    {
        "__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math",
        "numba", "numpy", "pandas", "scipy", "statistics", "sysquant", "typing",
    }
)  # fmt: skip
OURS = tuple(
    f"sysquant.{name}"
    for name in (
        "compiled",
        "errors",
        "features",
        "models.labels",
        "strategies",
        "strategy",
        "types",
    )
)

_FEATURE = "a feature is built of the bar's own fields, as lag(bar.close, 1)"
_WAYS = {
    "file": f"reads or writes a file: {_FEATURE}",
    "clock": "reads a clock: the time of a bar is bar.ts, its hour time_of_day()",
    "chance": "draws at random: the same bars must always give the same target",
    "memory": "keeps what it saw from call to call: memory is a step function (features.step)",
    "state": "may be changed by any call: make it a tuple, or a number of its own",
    "hidden": "hides what it does from whoever reads it: name it plainly",
    "table": "carries a table of numbers, which may be of later bars: parameters are few",
}
_NAMES = {
    "open": "file", "input": "file", "eval": "hidden", "exec": "hidden",
    "compile": "hidden", "__import__": "hidden", "globals": "hidden", "locals": "hidden",
    "vars": "hidden", "setattr": "hidden", "delattr": "hidden", "breakpoint": "hidden",
    "__builtins__": "hidden", "__loader__": "hidden", "id": "chance", "hash": "chance",
}  # fmt: skip
_ATTRIBUTES = {
    **dict.fromkeys(("now", "today", "utcnow", "time_ns", "monotonic", "perf_counter"), "clock"),
    **dict.fromkeys(("random", "default_rng", "RandomState", "rvs"), "chance"),
    **dict.fromkeys(("lru_cache", "cache", "cached_property"), "memory"),
    **dict.fromkeys(("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "tofile"), "file"),
    **dict.fromkeys(("save", "savez", "savetxt", "savez_compressed", "loadmat"), "file"),
    **dict.fromkeys(("to_csv", "to_parquet", "to_pickle", "to_sql", "to_hdf"), "file"),
    **dict.fromkeys(("to_feather", "to_excel", "HDFStore", "ExcelFile", "DataSource"), "file"),
    **dict.fromkeys(("io", "datasets"), "file"),
    **dict.fromkeys(("objmode", "ctypeslib", "f2py"), "hidden"),
}
_READS = "read_"  # pandas: read_csv, read_parquet
_PLAIN_DUNDERS = frozenset({"__name__", "__doc__"})
_CHANGES = frozenset(
    {
        "append", "appendleft", "extend", "insert", "add", "update", "pop", "popitem", "popleft",
        "setdefault", "clear", "remove", "discard", "fill", "sort", "put", "resize", "setflags",
    }
)  # fmt: skip
_CHANGES_FIRST = frozenset({"put", "copyto", "place", "putmask", "fill_diagonal", "at"})  # of numpy
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKES_MUTABLE = frozenset(
    {
        "list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict",
        "array", "asarray", "zeros", "ones", "empty", "full", "arange", "linspace", "DataFrame",
        "Series", "iter", "count", "cycle",
    }
)  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Remark(NamedTuple):
    """One place of a source.

    Parameters
    ----------
    line : where.
    kind : `file`, `clock`, `chance`, `memory`, `state`, `hidden`, `table` or `import`.
    text : what stands there, and the way out.
    """

    line: int
    kind: str
    text: str


def remarks(source: str, most_numbers: int = 256) -> list[Remark]:
    """What a source says that a strategy must not, in the order of its lines.

    Parameters
    ----------
    source : of a module, or a class.
    most_numbers : that one literal may hold.
    """
    tree = ast.parse(source)
    modules = {
        one.asname or one.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in node.names
    }
    found = [*_walked(tree, most_numbers), *_held(tree.body)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found += _held(node.body)
        elif isinstance(node, Function):
            found += [*_defaults(node), *_outliving(node, modules)]
    return sorted(dict.fromkeys(found))


def _of(node: ast.AST, kind: str, what: str) -> Remark:
    return Remark(getattr(node, "lineno", 0), kind, f"{what} {_WAYS[kind]}")


def _walked(tree: ast.AST, most_numbers: int) -> Iterator[Remark]:
    # What a node says by itself, wherever it stands.
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from _imported(node)
            case ast.Name(ctx=ast.Load()) if kind := _NAMES.get(node.id):
                yield _of(node, kind, f"{node.id}(...)")
            case ast.Attribute():
                yield from _attribute(node)
            case ast.Global() | ast.Nonlocal():
                yield _of(node, "memory", f"`{ast.unparse(node)}`")
            case ast.Call():
                yield from _called(node)
            case ast.Constant(value="now" | "today"):
                yield _of(node, "clock", f"{node.value!r}")
            case _:
                pass
    yield from _literals(tree, most_numbers)


def _literals(tree: ast.AST, most_numbers: int) -> Iterator[Remark]:
    # The outermost of those that are large.
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            numbers = sum(isinstance(one, ast.Constant) for one in ast.walk(node))
            if numbers > most_numbers:
                yield _of(node, "table", f"a literal of {numbers:,} values")
                continue
        pending += ast.iter_child_nodes(node)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[Remark]:
    if isinstance(node, ast.ImportFrom):
        if node.level:
            yield Remark(
                node.lineno, "import", "imports by a relative name: write out sysquant.strategies"
            )
            return
        module = node.module or ""
        paths = [f"{module}.{one.name}" for one in node.names]
    else:
        paths = [one.name for one in node.names]
    for path in paths:
        top = path.partition(".")[0]
        is_ours = path in ("sysquant.Strategy", *OURS) or path.startswith(
            tuple(f"{one}." for one in OURS)
        )
        if top not in IMPORTS or (top == "sysquant" and not is_ours):
            yield Remark(
                node.lineno, "import",
                f"imports {path}: a strategy imports numpy, numba, pandas, scipy, what is plain "
                "of Python, and the features of sysquant",
            )  # fmt: skip
            continue
        for name in path.split(".")[1:]:
            if kind := _kind_of(name):
                yield _of(node, kind, f"{path}")


def _kind_of(attribute: str) -> str:
    if attribute.startswith(_READS):
        return "file"
    return _ATTRIBUTES.get(attribute, "")


def _attribute(node: ast.Attribute) -> Iterator[Remark]:
    said = ast.unparse(node)
    is_dunder = node.attr.startswith("__") and node.attr.endswith("__")
    if is_dunder and node.attr not in _PLAIN_DUNDERS:
        yield _of(node, "hidden", f"`{said}`")
    elif not isinstance(node.ctx, ast.Load):
        yield _of(node, "memory", f"setting `{said}`")
    elif kind := _kind_of(node.attr):
        yield _of(node, kind, f"`{said}`")


def _called(node: ast.Call) -> Iterator[Remark]:
    # getattr may choose a field of the bar by a parameter, and nothing else.
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name == "getattr" and ast.unparse(node.args[0] if node.args else node) != "bar":
        yield _of(node, "hidden", f"`{ast.unparse(node)}`")


def _held(body: list[ast.stmt]) -> Iterator[Remark]:
    # What a module or a class holds must not be able to change.
    for statement in body:
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or value is None:
            continue
        for node in ast.walk(value):
            made = node.func if isinstance(node, ast.Call) else None
            name = made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")
            frozen = isinstance(value, ast.Call) and _frozen(value)
            if not frozen and (isinstance(node, _MUTABLE) or name in _MAKES_MUTABLE):
                said = ast.unparse(statement)[:60]
                yield _of(node, "state", f"`{said}`")
                break


def _frozen(value: ast.Call) -> bool:
    name = value.func.attr if isinstance(value.func, ast.Attribute) else ast.unparse(value.func)
    return name in ("tuple", "frozenset", "MappingProxyType", "Operation")


def _defaults(node: Function) -> Iterator[Remark]:
    for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
        is_made = isinstance(default, ast.Call) and _name_of(default) in _MAKES_MUTABLE
        if isinstance(default, _MUTABLE) or is_made:
            yield _of(
                default, "state", f"the default `{ast.unparse(default)}` is one for all calls and"
            )


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)


def _outliving(function: Function, modules: set[str]) -> Iterator[Remark]:
    # Changes of what the function did not make itself and was not given.
    own = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
    body = function.body if isinstance(function.body, list) else [function.body]
    inside = [node for statement in body for node in _shallow(statement)]
    own |= {
        node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in inside:
        changed = _changed(node, modules)
        if changed is not None and changed not in own:
            yield _of(node, "memory", f"changing `{changed}`, which outlives the call,")


def _shallow(node: ast.AST) -> Iterator[ast.AST]:
    # A function's own nodes, not those of functions in it: these are looked at by themselves.
    yield node
    if not isinstance(node, Function | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from _shallow(child)


def _changed(node: ast.AST, modules: set[str]) -> str | None:
    # The name whose content a node changes.
    place: ast.AST | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        place = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if ast.unparse(node.func.value).partition(".")[0] in modules:
            place = node.args[0] if node.func.attr in _CHANGES_FIRST and node.args else None
        elif node.func.attr in _CHANGES:
            place = node.func.value
    elif isinstance(node, ast.keyword) and node.arg == "out":
        place = node.value
    while isinstance(place, ast.Subscript | ast.Attribute):
        place = place.value
    return place.id if isinstance(place, ast.Name) else None
