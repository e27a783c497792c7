"""The strategy contract: a causal pure function from the history of bars to a target weight.

A strategy states `features` (expressions over the bar) and `target` (numpy over their values).
`frame` evaluates it over a history, `stream` bar by bar, `decider` for the engine; all three run
the same nodes. It sees no broker, no clock and no configuration.
"""

import inspect
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, get_origin

import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel
from sysquant.errors import ConfigError, StrategyError, nearest
from sysquant.features import Bar, Expression, FeatureGraph
from sysquant.features.expression import BAR_FIELDS, as_expression
from sysquant.frames import Columns, columns_of
from sysquant.types import SECOND, Bars, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

Parameter = bool | int | float | str

_KINDS = (bool, int, float, str)
_LONGEST_WARMUP = 1 << 20  # bars


class Strategy:
    """Base of all strategies: parameters, features, target.

    Parameters are annotated class attributes with defaults (`fast: int = 20`), of type bool, int,
    float or str; the constructor takes them by keyword. Instances are frozen, equal when class and
    parameters are, and their repr can be pasted back.

    Raises
    ------
    ConfigError
        If a parameter is unknown, of the wrong type, or not finite.
    StrategyError
        If the class breaks the contract: a parameter without type or default, a name that the base
        needs, features that are not expressions.

    Examples
    --------
    >>> class Trend(Strategy):
    ...     span: int = 50  # bars
    ...
    ...     def features(self, bar):
    ...         return {"close": bar.close, "average": ema(bar.close, self.span)}
    ...
    ...     def target(self, f):
    ...         return np.where(f["close"] > f["average"], 1.0, 0.0)
    >>> Trend(span=20)
    Trend(span=20)
    """

    _values: Mapping[str, Parameter]
    _kinds: ClassVar[Mapping[str, type]] = {}
    _defaults: ClassVar[Mapping[str, Parameter]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints = inspect.get_annotations(cls, eval_str=True)
        kinds, defaults = dict(cls._kinds), dict(cls._defaults)
        for name, kind in hints.items():
            if get_origin(kind) is ClassVar or kind is ClassVar or name.startswith("_"):
                continue
            _check_declared(cls, name, kind)
            kinds[name], defaults[name] = kind, _checked(cls, name, kind, vars(cls)[name])
        for name, value in vars(cls).items():
            if not (name.startswith("_") or name in hints or _is_code(value)):
                raise StrategyError(
                    f"{cls.__name__}.{name} has no type, was {value!r}; a parameter is written as "
                    "`span: int = 20`, anything else belongs outside the class"
                )
        cls._kinds, cls._defaults = kinds, defaults

    def __init__(self, **parameters: Parameter) -> None:
        cls = type(self)
        for name in parameters:
            if name not in self._kinds:
                raise ConfigError(
                    f"{cls.__name__} has no parameter {name!r}{nearest(name, self._kinds)}"
                )
        given = {
            name: _checked(cls, name, kind, parameters.get(name, self._defaults[name]))
            for name, kind in self._kinds.items()
        }
        object.__setattr__(self, "_values", given)
        for name, value in given.items():
            object.__setattr__(self, name, value)
        _features_of(self)  # a wrong span is refused here, not at the first bar

    def features(self, bar: Bar) -> Mapping[str, Expression]:
        """What `target` looks at: name -> expression over `bar`."""
        raise StrategyError(f"{type(self).__name__} must define features(self, bar)")

    def target(self, f: Mapping[str, Floats]) -> NDArray[np.generic]:
        """Weight of the strategy's equity, elementwise over arrays of features.

        Parameters
        ----------
        f : feature name -> (n,) float64, read-only; always arrays, live of length one.

        Returns
        -------
        (n,) in [-1, 1]; negative is short; NaN is no opinion. Where any feature that was read is
        NaN, the result becomes NaN whatever is returned.
        """
        raise StrategyError(f"{type(self).__name__} must define target(self, f)")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter and its value."""
        return dict(self._values)

    def decider(self) -> "Decider":
        """A fresh evaluation for one symbol, for the engine."""
        return Decider(self)

    def stream(self) -> "Stream":
        """A fresh evaluation for one symbol, one bar at a time."""
        return Stream(self)

    def frame(self, bars: "pd.DataFrame | Bars") -> "pd.DataFrame":
        """Features and target over a history of one symbol.

        Parameters
        ----------
        bars : columns open, high, low, close, volume as far as they are used; times (the bars'
            closes, UTC) in the index or in a column `ts`, as timestamps or ns since 1970.

        Returns
        -------
        One row per bar, indexed by `ts`: every feature, and `target` (NaN: no opinion).

        Raises
        ------
        DataError
            If a column is missing, times have no zone, repeat or go back, or there are several
            symbols.
        """
        import pandas as pd

        columns = columns_of(bars)
        decider = self.decider()
        target = decider.run(columns)
        index = pd.DatetimeIndex(columns["ts"], tz="UTC", name="ts")
        return pd.DataFrame({**decider.features, "target": target}, index=index)

    def warmup(self) -> int:
        """Bars before the first opinion, measured on a seeded random walk.

        Raises
        ------
        StrategyError
            If there is none within a million bars.
        """
        decider, seen, batch = self.decider(), 0, 256
        walk = np.random.default_rng(0)
        price = 100.0
        while seen < _LONGEST_WARMUP:
            columns = _random_bars(walk, price, batch, seen)
            price = float(columns["close"][-1])
            known = np.flatnonzero(~np.isnan(decider.run(columns)))
            if known.size:
                return seen + int(known[0])
            seen, batch = seen + batch, 2 * batch
        raise StrategyError(f"{self!r} had no opinion on any of {seen} bars")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise StrategyError(
            f"{self!r} is frozen, {name!r} cannot be set; a signal with memory is a step function "
            "(sysquant.features.step), other parameters are another instance"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise StrategyError(f"{self!r} is frozen, {name!r} cannot be deleted")

    def __repr__(self) -> str:
        values = getattr(self, "_values", {})
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in values.items())})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values == self._values

    def __hash__(self) -> int:
        return hash((type(self), tuple(self._values.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self._values)


class FeatureValues(Mapping[str, Floats]):
    """Features as `target` gets them; remembers which of them were read."""

    def __init__(self, names: Sequence[str], table: Floats, rows: Ints) -> None:
        self._row = dict(zip(names, rows.tolist(), strict=True))
        self._table = table.view()
        self._table.flags.writeable = False
        self.read: set[int] = set()

    def __getitem__(self, name: str) -> Floats:
        row = self._row.get(name)
        if row is None:
            raise StrategyError(f"there is no feature {name!r}{nearest(str(name), self._row)}")
        self.read.add(row)
        return self._table[row]

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


class Decider:
    """One strategy on one symbol: new bars in, target weights out; not thread-safe.

    Attributes
    ----------
    strategy : as given.
    fields : columns of a bar that its features need.
    names : of its features.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._graph = FeatureGraph(_features_of(strategy))
        self.fields = self._graph.fields
        self.names = self._graph.names
        self._table, self._rows = np.empty((0, 0)), np.empty(0, np.int64)

    def run(self, columns: Columns) -> Floats:
        """Take n newly closed bars, oldest first, and decide on each.

        Parameters
        ----------
        columns : field -> (n,), those in `fields` at least; n may be 0, 1 or millions, and how a
            history is cut never shows in the result.

        Returns
        -------
        (n,) weights in [-1, 1]; NaN where there is no opinion.

        Raises
        ------
        DataError
            If a column is missing or of another length.
        StrategyError
            If `target` returns what is no weight.
        """
        self._table, self._rows = self._graph.advance(columns)
        if self._table.shape[1] == 0:
            return np.empty(0)
        values = FeatureValues(self.names, self._table, self._rows)
        with np.errstate(all="ignore"):
            answer = self.strategy.target(values)
        return _weights(self.strategy, answer, self._table, values.read)

    @property
    def features(self) -> dict[str, Floats]:
        """Features of the last run: name -> (n,), until the next one."""
        return {name: self._table[row] for name, row in zip(self.names, self._rows, strict=True)}

    def state(self) -> dict[str, Floats]:
        """Memory of its nodes by name; copies."""
        return self._graph.state()

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Put back what `state` returned.

        Raises
        ------
        DataError
            If it is the state of other features.
        """
        self._graph.restore(state)


class Stream:
    """One strategy on one symbol, bar by bar; the same nodes as in an array."""

    def __init__(self, strategy: Strategy) -> None:
        self.decider = Decider(strategy)

    def update(self, bar: Any) -> float:
        """Take the next closed bar.

        Parameters
        ----------
        bar : mapping or object with the fields that are needed, e.g. `{"close": 101.5}`.

        Returns
        -------
        Weight in [-1, 1], or NaN: no opinion.
        """
        fields = self.decider.fields or BAR_FIELDS[3:4]
        read = bar.__getitem__ if isinstance(bar, Mapping) else lambda name: getattr(bar, name)
        return float(self.decider.run({f: np.array([read(f)], np.float64) for f in fields})[0])

    @property
    def features(self) -> dict[str, float]:
        """Features at the last bar."""
        return {name: float(values[-1]) for name, values in self.decider.features.items()}


def _weights(strategy: Strategy, answer: Any, table: Floats, read: set[int]) -> Floats:
    # What `target` returned, NaN where it could not know, refused where it is no weight.
    shape = (table.shape[1],)
    is_array = isinstance(answer, np.ndarray) and answer.dtype.kind in "bif"
    if not is_array or answer.shape != shape:
        was = f"{type(answer).__name__} of shape {np.shape(answer)}"
        raise StrategyError(
            f"{strategy!r}: target must return an array of numbers of shape {shape}, was {was}; "
            "write np.where(condition, a, b) or np.full_like(f[...], weight)"
        )
    weights = np.empty(shape)
    answer = np.require(answer, np.float64, ["C", "W"])
    wrong = _weigh(answer, table, np.array(sorted(read), np.int64), weights)
    if wrong >= 0:
        raise StrategyError(
            f"{strategy!r}: target must lie in [-1, 1], was {answer[wrong]!r}; "
            "scale it, or keep it there with np.clip"
        )
    return weights


@kernel
def _weigh(answer: Floats, table: Floats, read: Ints, weights: Floats) -> int:
    # Fills weights: NaN where a feature that was read is; the first that is no weight, or -1.
    # Loops of one kind of step each: the processor takes four rows at a time.
    for i in range(len(weights)):
        weights[i] = answer[i]
    for row in read:
        feature = table[row]
        for i in range(len(weights)):
            weights[i] = weights[i] if feature[i] == feature[i] else math.nan
    wrong = 0
    for i in range(len(weights)):
        wrong += 1 if abs(weights[i]) > 1.0 else 0
    return -1 if wrong == 0 else int(np.argmax(np.abs(weights) > 1.0))


def _features_of(strategy: Strategy) -> dict[str, Expression]:
    # As the strategy states them, numbers turned into nodes.
    stated = strategy.features(Bar())
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise StrategyError(f"{strategy!r}: features must return a dict of name -> expression")
    if "target" in stated:
        raise StrategyError(f"{strategy!r}: a feature cannot be called 'target'; rename it")
    return {name: as_expression(value) for name, value in stated.items()}


def _check_declared(cls: type, name: str, kind: Any) -> None:
    # A parameter must have a type we can check, a default, and a name the base does not need.
    if hasattr(Strategy, name):
        raise StrategyError(f"{cls.__name__}.{name}: the name is taken by Strategy; rename it")
    if kind not in _KINDS:
        raise StrategyError(f"{cls.__name__}.{name} must be bool, int, float or str, was {kind!r}")
    if name not in vars(cls):
        raise StrategyError(f"{cls.__name__}.{name} needs a default, had none; give it one")


def _checked(cls: type, name: str, kind: type, value: Any) -> Parameter:
    # The value as exactly its declared type.
    is_bool = isinstance(value, bool | np.bool_)
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not is_bool:
        if math.isfinite(value):
            return float(value)
        raise ConfigError(f"{cls.__name__}.{name} must be finite, was {value!r}")
    if kind is str and isinstance(value, str):
        return str(value)
    raise ConfigError(f"{cls.__name__}.{name} must be {kind.__name__}, was {value!r}")


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _rebuilt(cls: type[Strategy], parameters: dict[str, Parameter]) -> Strategy:
    return cls(**parameters)


def _random_bars(walk: np.random.Generator, price: float, count: int, seen: int) -> Columns:
    # Plausible bars that go on from `price`, one a minute.
    close = price * np.exp(np.cumsum(walk.normal(0.0, 0.01, count)))
    before = np.concatenate(([price], close[:-1]))
    spread = 1.0 + np.abs(walk.normal(0.0, 0.005, (2, count)))
    return {
        "open": before,
        "high": np.maximum(before, close) * spread[0],
        "low": np.minimum(before, close) / spread[1],
        "close": close,
        "volume": walk.lognormal(0.0, 1.0, count),
        "ts": (1 + seen + np.arange(count)) * 60 * SECOND,
    }
