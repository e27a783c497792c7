"""Lengths and moments as people write them, in nanoseconds: `5m`, `-6h`, `2026-01-31T12:00`."""

import re
from datetime import UTC, datetime, timedelta
from numbers import Integral

from sysquant.errors import ConfigError
from sysquant.types import SECOND

Moment = int | str | datetime | None

DAY = 86_400 * SECOND

_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": DAY}
_LEAST_NS = 10**15  # what is less, eleven days from 1970, lacks its unit
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def interval_ns(interval: int | str, key: str = "interval") -> int:
    """Nanoseconds of `1s`, `5m`, `1h`, `1d` (or ns as they are, a whole number).

    Parameters
    ----------
    interval : the length.
    key : its name in an error.

    Raises
    ------
    ConfigError
        If it is no positive length.
    """
    if isinstance(interval, str):
        parts = re.fullmatch(r"([0-9]+)\s*([smhd])", interval.strip())
        value = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    else:
        value = interval
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 < value < 2**63:
        raise ConfigError(f"{key} must be like 1s, 5m, 1h or 1d, was {interval!r}")
    return int(value)


def length_name(ns: int) -> str:
    """`1d`, `6h`, `90s` for a length in ns: in the largest unit that it is a whole number of."""
    fits = [each for each in _UNITS.items() if ns % each[1] == 0]  # the largest comes last
    name, unit = fits[-1] if fits else ("s", SECOND)
    return f"{ns / unit:g}{name}"


def instant(value: int | str | datetime, key: str = "a time") -> int:
    """Nanoseconds since 1970 of an ISO 8601 time, read as UTC where it names no zone.

    Parameters
    ----------
    value : the time (or ns as they are, or a datetime, which must have a zone).
    key : its name in an error.

    Raises
    ------
    ConfigError
        If it is no time.
    """
    if isinstance(value, Integral):
        return int(value)
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        said = f"{key} must be like 2026-01-31 or 2026-01-31T12:00, was {value!r}"
        raise ConfigError(said) from None
    if moment.tzinfo is None:
        if moment is value:
            raise ConfigError(f"{key} needs a zone, was {value!r}; .replace(tzinfo=UTC) gives one")
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def check_moment(key: str, moment: Moment) -> None:
    """Refuse a time of a range that cannot be meant, before any store is asked.

    Raises
    ------
    ConfigError
        If it is no time, or a number that is too small for ns since 1970.
    """
    try:
        meant = not isinstance(moment, Integral) or abs(int(moment)) >= _LEAST_NS
        moment_ns(moment, 0, 0)
    except ConfigError:
        if isinstance(moment, datetime):
            instant(moment, key)  # says what it lacks
        meant = False
    if not meant:
        like = "-6h, 2026-01-31 or 2026-01-31T12:00"
        raise ConfigError(f"{key} must be like {like}, was {moment!r}")


def moment_ns(moment: Moment, default: int, last: int) -> int:
    """Nanoseconds of a time: `default` for None, a length back from `last` for `-6h`.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if moment is None:
        return default
    if isinstance(moment, str) and moment.startswith("-"):
        return last - interval_ns(moment[1:])
    return instant(moment)
