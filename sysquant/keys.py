"""Values of configuration keys, checked: a number in its range, a word of a list, a flag.

Input: the key as it stands in a configuration, and its value. Output: nothing, or a `ConfigError`
that names the key, what it must be and what it was. Nothing is converted.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Self

from sysquant.errors import ConfigError, nearest


def check_number(
    key: str,
    value: object,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse what is not a finite number in [least, most], or in (above, below).

    Raises
    ------
    ConfigError
        If it is not; NaN, infinities, true, false and text never are.
    """
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
    bounds = {">=": least, ">": above, "<=": most, "<": below}
    meant = (
        math.isfinite(number)
        and (isinstance(value, Integral) or not whole)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )
    if not meant:
        limits = [f"{sign} {bound:.12g}" for sign, bound in bounds.items() if bound is not None]
        if most is None and below is None:
            limits.append("finite")
        kind = "a whole number " if whole else ""
        raise ConfigError(f"{key} must be {kind}{' and '.join(limits)}, was {value!r}")


def check_kind(key: str, value: object, kind: type | UnionType, meant: str) -> None:
    """Refuse what is no `kind`, where `meant` says what it must be.

    Raises
    ------
    ConfigError
        If it is of another kind.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{key} must be {meant}, was {value!r}")


def check_choice(key: str, value: object, known: Iterable[str]) -> None:
    """Refuse a word that is not one of `known`.

    Raises
    ------
    ConfigError
        If it is not; the message ends with the nearest one.
    """
    choices = tuple(known)
    if value not in choices:
        raise ConfigError(f"{key} does not know {value!r}{nearest(str(value), choices)}")


def check_flag(key: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, was {value!r}")


class Spelled:
    """A record that answers an argument it does not have with the nearest one that it has."""

    __slots__ = ()

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse what is misspelt, before Python does.

        Raises
        ------
        ConfigError
            With the nearest right word.
        """
        made: Any = cls
        refuse_words(cls.__name__, given, [field.name for field in fields(made)])
        return object.__new__(cls)


def refuse_words(where: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse arguments of names that are not known.

    Raises
    ------
    ConfigError
        With the nearest right one.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            raise ConfigError(f"{where} has no {name!r}{nearest(name, known)}")
