"""The strategy contract: a causal pure function from the history of bars to a target weight.

A strategy states `features` (expressions over the bar) and `target` (numpy over their values).
`frame` evaluates it over a history, `stream` bar by bar, `decider` for the engine; all three run
the same nodes. It sees no broker, no clock and no configuration.
"""

import hashlib
import inspect
import math
import numbers
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NoReturn,
    Protocol,
    Self,
    TypeAlias,
    get_origin,
)  # fmt: skip

import numpy as np
from numpy.typing import NDArray

from sysquant.decider import Decider, Stream, features_of
from sysquant.errors import ConfigError, StrategyError, nearest
from sysquant.features import Bar, Expression
from sysquant.features.panel import is_across, needs_bar_ends, symbols_named
from sysquant.frames import columns_of
from sysquant.past import History
from sysquant.types import SECOND, Bars, Columns, Floats

if TYPE_CHECKING:
    import pandas as pd

Parameter: TypeAlias = "bool | int | float | str | Strategy"

_KINDS = (bool, int, float, str)
_LONGEST_WARMUP = 1 << 20  # bars
_EXAMPLES = 4  # symbols of an example universe


class Model(Protocol):
    """What a strategy asks for probabilities; fitted elsewhere, swapped whole between two bars."""

    def proba(self, f: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Class -> (n,) probability in [0, 1], NaN where it has no opinion."""
        ...


class _NoModel:
    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def proba(self, f: Mapping[str, Floats]) -> Mapping[str, Floats]:
        count = len(next(iter(f.values())))
        return {name: np.full(count, np.nan) for name in self._classes}


class Strategy:
    """Base of all strategies: parameters, features, target.

    Parameters are annotated class attributes with defaults (`fast: int = 20`), of type bool, int,
    float, str or Strategy; the constructor takes them by keyword. Instances are frozen, equal when
    class and parameters are, and their repr can be pasted back. One that names `classes` reads
    `self.model.proba(f)`, which is NaN until `with_model` has given it a model. One that goes on
    with another's research under a new name says so: `lineage = "Momentum"`.

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

    classes: ClassVar[tuple[str, ...]] = ()
    lineage: ClassVar[str] = ""
    _values: Mapping[str, Parameter]
    _model: Model
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
            known = name.startswith("_") or name in (*hints, "classes", "lineage")
            if not (known or _is_code(value)):
                raise StrategyError(
                    f"{cls.__name__}.{name} has no type, was {value!r}; a parameter is written as "
                    "`span: int = 20`, anything else belongs outside the class"
                )
        cls._kinds, cls._defaults = kinds, defaults

    def __init__(self, *values: Parameter, **parameters: Parameter) -> None:
        cls = type(self)
        if values:
            named = zip(self._kinds, values, strict=False)
            wanted = ", ".join(f"{name}={value!r}" for name, value in named)
            raise ConfigError(
                f"{cls.__name__} takes its parameters by name: {cls.__name__}({wanted})"
            )
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
        object.__setattr__(self, "_model", _NoModel(self.classes))
        for name, value in given.items():
            object.__setattr__(self, name, value)
        features_of(self)  # a wrong span is refused here, not at the first bar

    def features(self, bar: Bar) -> Mapping[str, Expression]:
        """What `target` looks at: name -> expression over `bar`."""
        raise StrategyError(f"{type(self).__name__} must define features(self, bar)")

    def target(self, f: Mapping[str, Floats]) -> "NDArray[np.generic] | Mapping[str, Any]":
        """Weight of the strategy's equity, elementwise over arrays of features.

        Each bar is decided on by its own features alone: a history comes as one array, of several
        symbols by (bar end, symbol), and live its bars come one by one. What rests on other bars
        is a feature; a `target` that looks at them is refused.

        Parameters
        ----------
        f : feature name -> (n,) float64, read-only; always arrays, live of length one.

        Returns
        -------
        (n,) in [-1, 1]; negative is short; NaN is no opinion. Where any feature that was read is
        NaN, the result becomes NaN whatever is returned. Of a strategy with legs a dict of them.
        """
        raise StrategyError(f"{type(self).__name__} must define target(self, f)")

    def legs(self) -> Sequence[str]:
        """Symbols that are decided on together, for a strategy that trades a fixed few.

        Then features are of `bar["NAME"]` alone, decisions are taken at the bar ends at which each
        leg has a bar, and `target` returns a dict of leg -> weights.
        """
        return ()

    @property
    def model(self) -> Model:
        """What `with_model` gave; without one all probabilities are NaN."""
        return self._model

    def with_model(self, model: Model) -> Self:
        """The same strategy with this model.

        Raises
        ------
        StrategyError
            If the strategy names no classes.
        """
        if not self.classes:
            raise StrategyError(f"{self!r} names no classes, so it uses no model")
        changed = type(self)(**self._values)
        object.__setattr__(changed, "_model", model)
        return changed

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter and its value."""
        return dict(self._values)

    def decider(self, symbols: Sequence[str] = ("",)) -> Decider:
        """A fresh evaluation for a universe (by default of one symbol), for the engine."""
        return Decider(self, symbols)

    def stream(self, symbols: Sequence[str] = ("",)) -> Stream:
        """A fresh evaluation, one bar end at a time."""
        return Stream(self, symbols)

    def frame(
        self, bars: "pd.DataFrame | Bars | History", symbols: Sequence[str] = ()
    ) -> "pd.DataFrame":
        """Features and target over a history.

        Parameters
        ----------
        bars : what `sysquant.history` returned, `Bars`, or a frame with columns open, high, low,
            close, volume as far as they are used; times (the bars' closes, UTC) in the index or in
            a column `ts`, as timestamps or ns since 1970; of several symbols, by (ts, symbol), with
            their names in a column `symbol`.
        symbols : of `Bars`, what its column counts.

        Returns
        -------
        One row per bar, indexed by `ts`, of several symbols by (`ts`, `symbol`): every feature, and
        `target` (NaN: no opinion). Of a strategy with legs one row per bar end that they share, and
        a target for each.

        Raises
        ------
        DataError
            If a column is missing, or times have no zone, repeat or go back.
        """
        import pandas as pd

        is_alone = not needs_bar_ends(features_of(self), self.legs())
        columns, names = columns_of(bars, symbols, may_repeat=is_alone)
        decider = self.decider(names)
        target = decider.run(columns)
        rows = decider.places
        index = pd.DatetimeIndex(columns["ts"][rows[0]], tz="UTC", name="ts")
        if legs := self.legs():
            targets = {f"target {leg}": target[own] for leg, own in zip(legs, rows, strict=True)}
            return pd.DataFrame({**decider.features, **targets}, index=index)
        frame = pd.DataFrame({**decider.features, "target": target}, index=index)
        if len(names) > 1:
            labels = pd.Categorical.from_codes(columns["symbol"], list(names))
            frame = frame.set_index(pd.Index(labels, name="symbol"), append=True)
        return frame

    def warmup(self) -> int:
        """Bars before the first opinion, measured on a seeded random walk.

        Raises
        ------
        StrategyError
            If there is none within a million bars.
        """
        symbols = example_symbols(self)
        decider, seen = self.decider(symbols), 0
        for columns in random_walk(len(symbols)):
            known = np.flatnonzero(~np.isnan(decider.run(columns)))
            if known.size:
                return seen + int(known[0]) // len(symbols)
            seen += len(columns["ts"]) // len(symbols)
            if seen >= _LONGEST_WARMUP:
                break
        raise StrategyError(f"{self!r} had no opinion on any of {seen} bars")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise StrategyError(
            f"{self!r} is frozen, {name!r} cannot be set; a parameter stands in the class, as "
            "`span: int = 20`, without an __init__; a signal with memory is a step function "
            "(sysquant.features.step); other parameters are another instance"
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


def _check_declared(cls: type, name: str, kind: Any) -> None:
    # A parameter must have a type we can check, a default, and a name the base does not need.
    if hasattr(Strategy, name):
        raise StrategyError(f"{cls.__name__}.{name}: the name is taken by Strategy; rename it")
    if kind not in (*_KINDS, Strategy):
        raise StrategyError(
            f"{cls.__name__}.{name} must be bool, int, float, str or Strategy, was {kind!r}"
        )
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
    if kind is Strategy and isinstance(value, Strategy):
        return value
    raise ConfigError(f"{cls.__name__}.{name} must be {kind.__name__}, was {value!r}")


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _rebuilt(cls: type[Strategy], parameters: dict[str, Parameter]) -> Strategy:
    return cls(**parameters)


def sources_of(strategy: Strategy) -> dict[str, str]:
    """Module -> SHA-256 of the file that says what a strategy is; those of its parts as well.

    What the package itself says for all strategies is not among them.
    """
    found = dict[str, str]()
    for kind in type(strategy).__mro__:
        path = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if issubclass(kind, Strategy) and kind is not Strategy and path:
            found[kind.__module__] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    for part in strategy.parameters.values():
        if isinstance(part, Strategy):
            found |= sources_of(part)
    return dict(sorted(found.items()))


def example_symbols(strategy: Strategy) -> tuple[str, ...]:
    """Names of a universe that the strategy can be tried on: those it names, or some, or one."""
    features = features_of(strategy)
    named = [*strategy.legs(), *symbols_named(features)]
    others = [f"OTHER{i}" for i in range(_EXAMPLES if is_across(features) else not strategy.legs())]
    return tuple(dict.fromkeys([*named, *others]))


def random_walk(symbols: int) -> Iterator[Columns]:
    """Plausible bars of so many symbols, one a minute, always the same; each part twice as long."""
    walk, prices = np.random.default_rng(0), np.full(symbols, 100.0)
    seen, batch = 0, 256
    while True:
        columns, prices = _random_bars(walk, prices, batch, seen)
        yield columns
        seen, batch = seen + batch, 2 * batch


def _random_bars(
    walk: np.random.Generator, prices: Floats, count: int, seen: int
) -> tuple[Columns, Floats]:
    # Plausible bars of every symbol that go on from `prices`, one a minute; and the last prices.
    wide = len(prices)
    close = prices * np.exp(np.cumsum(walk.normal(0.0, 0.01, (count, wide)), axis=0))
    before = np.concatenate((prices[None], close[:-1]))
    spread = 1.0 + np.abs(walk.normal(0.0, 0.005, (2, count, wide)))
    columns = {
        "open": before,
        "high": np.maximum(before, close) * spread[0],
        "low": np.minimum(before, close) / spread[1],
        "close": close,
        "volume": walk.lognormal(0.0, 1.0, (count, wide)),
        "ts": np.repeat((1 + seen + np.arange(count)) * 60 * SECOND, wide),
        "symbol": np.tile(np.arange(wide, dtype=np.int32), count),
    }
    return {name: column.ravel() for name, column in columns.items()}, close[-1]
