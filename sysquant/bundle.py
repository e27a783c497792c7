"""Named arrays that compiled functions take as one pointer.

numba passes a named tuple of thirty arrays as some three hundred arguments at every call: most of
the time of a small function, and most of the time it takes to compile one. A bundle is the same to
read, `book.cells[strategy, symbol]`, and costs a pointer. Its arrays are those it was made with:
they are written in place, never replaced.
"""

import hashlib
from typing import Any, NoReturn

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    intrinsic,
    lower_getattr_generic,
    models,
    register_model,
    unbox,
)
from numba.np.arrayobj import populate_array

_MOST_DIMENSIONS = 3
_WORDS = 1 + 2 * _MOST_DIMENSIONS  # address, shape, strides of one array


class BundleType(types.Type):
    """The compiler's view of a bundle: names and types of its arrays."""

    def __init__(self, name: str, members: tuple[tuple[str, types.Array], ...]) -> None:
        self.members = dict(members)
        self.names = tuple(self.members)
        described = ", ".join(f"{n}: {t}" for n, t in members)
        # Part of the name of every function that takes one: short, or compiling takes longer.
        super().__init__(name=f"{name}_{hashlib.sha256(described.encode()).hexdigest()[:16]}")


class Bundle:
    """Arrays of at most three dimensions, by the names that the subclass annotates.

    Parameters
    ----------
    arrays : one for each annotation; kept alive, and written in place.

    Raises
    ------
    TypeError
        If an array is missing or not one of the bundle's.
    """

    def __init__(self, **arrays: np.ndarray) -> None:
        names = tuple(type(self).__annotations__)
        if set(names) != set(arrays):
            raise TypeError(f"{type(self).__name__} holds {names}, was given {tuple(arrays)}")
        words = np.zeros((len(names), _WORDS), np.int64)
        for row, name in zip(words, names, strict=True):
            array = arrays[name]
            row[0] = array.ctypes.data
            row[1 : 1 + array.ndim] = array.shape
            row[1 + _MOST_DIMENSIONS : 1 + _MOST_DIMENSIONS + array.ndim] = array.strides
        members = tuple((name, _type_of(arrays[name])) for name in names)
        fixed: dict[str, Any] = {
            **arrays,
            "words": words,
            "address": words.ctypes.data,
            "_numba_type_": BundleType(type(self).__name__, members),
        }
        self.__dict__.update(fixed)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name!r} is written in place, not replaced")


_types: dict[tuple[Any, ...], Any] = {}


def _type_of(array: np.ndarray) -> Any:
    # Remembered: to look at a record's fields is a third of what it takes to make an engine.
    flags = array.flags
    kind = array.dtype, array.ndim, flags.c_contiguous, flags.f_contiguous, flags.writeable
    if kind not in _types:
        _types[kind] = numba.typeof(array)
    return _types[kind]


@register_model(BundleType)
class _BundleModel(models.PrimitiveModel):
    def __init__(self, manager: Any, bundle: Any) -> None:
        super().__init__(manager, bundle, ir.IntType(8).as_pointer())


@unbox(BundleType)
def _unbox(_type: Any, value: Any, context: Any) -> Any:
    address = context.pyapi.object_getattr_string(value, "address")
    pointer = context.pyapi.long_as_voidptr(address)
    context.pyapi.decref(address)
    return NativeValue(pointer)


@infer_getattr
class _BundleAttribute(AttributeTemplate):
    key = BundleType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        return typ.members.get(attr)


@lower_getattr_generic(BundleType)
def _array(context: Any, builder: Any, bundle: Any, value: Any, name: str) -> Any:
    # The array of that name, from its words; nobody counts references to it.
    kind = bundle.members[name]
    word = ir.IntType(64)
    words = builder.bitcast(value, word.as_pointer())
    first = bundle.names.index(name) * _WORDS

    def load(place: int) -> Any:
        return builder.load(cgutils.gep_inbounds(builder, words, first + place))

    itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    if isinstance(kind.dtype, types.Record):
        itemsize = kind.dtype.size
    shape = [load(1 + d) for d in range(kind.ndim)]
    strides = [load(1 + _MOST_DIMENSIONS + d) for d in range(kind.ndim)]
    if kind.layout == "C":
        step = ir.Constant(word, itemsize)
        for d in reversed(range(kind.ndim)):
            strides[d] = step
            step = builder.mul(step, shape[d])
    array = context.make_array(kind)(context, builder)
    populate_array(
        array,
        data=builder.inttoptr(load(0), array.data.type),
        shape=shape,
        strides=strides,
        itemsize=ir.Constant(word, itemsize),
        meminfo=None,
    )
    return array._getvalue()


@intrinsic
def _lent(_context: Any, array: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lent = context.make_array(signature.return_type)(context, builder, args[0])
        lent.meminfo = cgutils.get_null_value(lent.meminfo.type)
        lent.parent = cgutils.get_null_value(lent.parent.type)
        return lent._getvalue()

    return array(array), build


lent: Any = _lent
"""The same array, in compiled code, to which nobody counts references: its caller keeps it alive.

To hand a counted array on to a function costs two atomic operations.
"""


@intrinsic
def _prefetch(_context: Any, array: Any, place: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), (byte, *(number,) * 3))
        )
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        how = [ir.Constant(number, word) for word in (0, 3, 1)]  # to read, into all caches, data
        builder.call(function, [pointer, *how])
        return context.get_dummy_value()

    return types.none(array, place), build


prefetch: Any = _prefetch
"""Ask for a place of a one-dimensional array, in compiled code, that will be read soon.

The place may lie outside: nothing is read yet.
"""
