"""One strategy on a universe: features of new bars, then weights, batch by batch or bar by bar.

Input: columns of closed bars. Output: a weight for each, NaN where there is no opinion. However a
history is cut between two bar ends, the weights are the same bits.
"""

import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel
from sysquant.errors import StrategyError, nearest
from sysquant.features.expression import Bar, Expression, as_expression
from sysquant.features.legs import Legs
from sysquant.features.panel import Panel
from sysquant.types import Columns, Floats, Ints

_FEW, _MANY, _ALONE = 8, 256, 16  # bars that are enough to ask again; how many, and how many alone
_STRIDE = 2_654_435_761  # between two of those, a prime: they come from everywhere, in no order


class Decides(Protocol):
    """What there is of a strategy for one who evaluates it."""

    def features(self, bar: Bar) -> Mapping[str, Expression]:
        """Expressions over a bar, by name."""
        ...

    def target(self, f: Mapping[str, Floats]) -> "NDArray[np.generic] | Mapping[str, Any]":
        """Weights, from the features' values."""
        ...

    def legs(self) -> Sequence[str]:
        """Symbols that are decided on together; none: each by itself."""
        ...


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

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f'features are taken by f["name"], was f.{name}')

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


class Decider:
    """One strategy on a universe: new bars in, target weights out; not thread-safe.

    Parameters
    ----------
    strategy : what decides.
    symbols : of the universe, as the column `symbol` counts them; that of one symbol may be absent.

    Attributes
    ----------
    strategy : as given.
    fields : columns of bars that it needs.
    names : of its features.

    Raises
    ------
    ConfigError
        If the strategy names a symbol that is not in the universe.
    """

    def __init__(self, strategy: Decides, symbols: Sequence[str] = ("",)) -> None:
        self.strategy = strategy
        features, legs = features_of(strategy), tuple(strategy.legs())
        self._legs = Legs(features, symbols, legs) if legs else None
        self._panel = self._legs or Panel(features, symbols)
        self.fields = self._panel.fields
        self.names = self._panel.names
        self._table, self._rows = np.empty((0, 0)), np.empty(0, np.int64)
        self._unprobed = _MANY  # rows that are still looked at

    def run(self, columns: Columns) -> Floats:
        """Take n newly closed bars, by (ts, symbol), no bar end cut in two, and decide on each.

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
            As of `weigh`.
        """
        self._table, self._rows = self._panel.advance(columns)
        probe, count = self._unprobed > 0, self._table.shape[1]
        asked = self.strategy, self.names, self._table, self._rows
        if self._legs is None:
            weights = weigh(*asked, probe=probe)
        else:
            weights = np.full(len(columns["ts"]), np.nan)
            if count:
                each = _weighed(*asked, self._legs.symbols, probe)
                each[:, np.isnan(each).any(axis=0)] = np.nan  # all legs have a weight, or none
                weights[self._legs.rows] = each
        if probe and count >= _FEW and not np.isnan(weights).all():
            self._unprobed -= count
        return weights

    def run_until_fault(self, columns: Columns) -> tuple[Floats, StrategyError | None]:
        """As `run`; where `target` raises, what it decided on the bars before, and why it raised.

        Returns
        -------
        Weights, NaN after the bar that it raised on, and infinite there.
        """
        try:
            return self.run(columns), None
        except StrategyError as error:
            return self._before(len(columns["ts"]), error)

    def follow(self, columns: Columns) -> Floats:
        """Take bars as `run` does, without a decision: NaN for each."""
        self._table, self._rows = self._panel.advance(columns)
        return np.full(len(columns["ts"]), np.nan)

    def _before(self, count: int, error: StrategyError) -> tuple[Floats, StrategyError]:
        # The first row that `target` raises on, asked for ever shorter beginnings of them; the
        # first of all if it raises on none by itself, but looks at others.
        weights, good, bad = np.full(count, np.nan), 0, self._table.shape[1]
        symbols = () if self._legs is None else self._legs.symbols
        found, middle = np.empty((max(1, len(symbols)), 0)), bad
        while bad - good > 1:
            some = self._table[self._rows, :middle], np.arange(len(self._rows))
            try:
                answer = _asked(self.strategy, self.names, *some, symbols)
            except StrategyError as shorter:
                bad, error = middle, shorter
            else:
                if middle == self._table.shape[1]:
                    bad = 1
                    break
                found, good = answer, middle
            middle = (good + bad) // 2
        found[:, np.isnan(found).any(axis=0)] = np.nan  # of legs all, or none
        weights[self.places[:, :good]] = found
        weights[self.places[:, good].min()] = np.inf
        return weights, error

    @property
    def places(self) -> Ints:
        """(legs, marks) rows of the last run that its legs' bars lie in; of others, every row."""
        return np.arange(self._table.shape[1])[None] if self._legs is None else self._legs.rows

    @property
    def features(self) -> dict[str, Floats]:
        """Features of the last run: name -> a value per row, or per bar end of legs."""
        return {name: self._table[row] for name, row in zip(self.names, self._rows, strict=True)}

    def state(self) -> dict[str, Floats]:
        """Memory of its nodes by symbol and name; copies."""
        return self._panel.state()

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Put back what `state` returned.

        Raises
        ------
        DataError
            If it is the state of other features.
        """
        self._panel.restore(state)


class Stream:
    """One strategy, bar end by bar end; the same nodes as in an array."""

    def __init__(self, strategy: Decides, symbols: Sequence[str] = ("",)) -> None:
        self.decider = Decider(strategy, symbols)
        self._symbols = tuple(symbols)

    def update(self, bar: Any) -> float:
        """Take the next closed bar of the one symbol.

        Parameters
        ----------
        bar : mapping or object with the fields that are needed, e.g. `{"close": 101.5}`.

        Returns
        -------
        Weight in [-1, 1], or NaN: no opinion.
        """
        return self.update_all({self._symbols[0]: bar})[self._symbols[0]]

    def update_all(self, bars: Mapping[str, Any]) -> dict[str, float]:
        """Take the bars that closed at the next bar end, by symbol; the weight of each."""
        fields = [name for name in self.decider.fields if name != "symbol"] or ["close"]
        named = sorted(bars, key=self._symbols.index)
        columns: dict[str, Any] = {
            field: np.array([_field(bars[name], field) for name in named], _KINDS.get(field))
            for field in fields
        }
        columns["symbol"] = np.array([self._symbols.index(name) for name in named], np.int32)
        weights = self.decider.run(columns)
        return dict(zip(named, weights.tolist(), strict=True))

    @property
    def features(self) -> dict[str, float]:
        """Features at the last bar."""
        return {name: float(values[-1]) for name, values in self.decider.features.items()}


_KINDS = {"ts": np.int64}


def _field(bar: Any, name: str) -> Any:
    return bar[name] if isinstance(bar, Mapping) else getattr(bar, name)


def features_of(strategy: Decides) -> dict[str, Expression]:
    """Features as a strategy states them, numbers turned into nodes.

    Raises
    ------
    StrategyError
        If they are no mapping of names to expressions.
    """
    stated = strategy.features(Bar())
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise StrategyError(f"{strategy!r}: features must return a dict of name -> expression")
    if "target" in stated:
        raise StrategyError(f"{strategy!r}: a feature cannot be called 'target'; rename it")
    return {name: as_expression(value) for name, value in stated.items()}


def weigh(
    strategy: Decides, names: Sequence[str], table: Floats, rows: Ints, *, probe: bool = True
) -> Floats:
    """Weights of a strategy on n bars, from features that were computed before.

    Parameters
    ----------
    names : of its features.
    table : (R, n) values; it may hold features of others, too.
    rows : of each feature in the table.
    probe : whether to see if `target` looks at other bars, where there are enough.

    Returns
    -------
    (n,) weights in [-1, 1]; NaN where there is no opinion, or a feature that was read is NaN.

    Raises
    ------
    StrategyError
        If `target` raises, returns what is no weight, or looks at other bars, later ones even.
    """
    if table.shape[1] == 0:
        return np.empty(0)
    return _weighed(strategy, names, table, rows, (), probe)[0]


def _weighed(
    strategy: Decides, names: Sequence[str], table: Floats, rows: Ints, legs: Sequence[str],
    probe: bool,
) -> Floats:  # fmt: skip
    # Weights of every leg, or of the one there is; some are asked for again in other company: live
    # is asked bar by bar, and what then differs had looked at other bars.
    weights, count = _asked(strategy, names, table, rows, legs), table.shape[1]
    if not probe or count < _FEW:
        return weights
    spread = np.arange(min(count, _MANY)) * _STRIDE % count
    neighbours = count // 2 + np.arange(_MANY // 4) * _STRIDE % (count // 4)
    for some in spread, neighbours, *spread[:_ALONE, None]:
        again = _asked(strategy, names, table[rows[:, None], some], np.arange(len(rows)), legs)
        own = weights[:, some]
        if again.tobytes() == own.tobytes():
            continue
        alike = np.isclose(again, own, rtol=0.0, atol=1e-9, equal_nan=True)
        if not alike.all():
            leg, at = np.argwhere(~alike)[0]
            company = f"among {len(some) - 1} others" if len(some) > 1 else "alone"
            raise StrategyError(
                f"{strategy!r}: target must look at every bar by itself, as it does live: bar "
                f"{some[at] + 1} of {count:,} has the weight {own[leg, at]:g}, and "
                f"{again[leg, at]:g} {company}; what rests on other bars is a feature: "
                "lag(bar.close, 1), rolling_max(bar.high, 20); with memory hysteresis, hold, step"
            )
    return weights


def _asked(
    strategy: Decides, names: Sequence[str], table: Floats, rows: Ints, legs: Sequence[str]
) -> Floats:
    # What `target` returns, checked: (legs, n).
    values = FeatureValues(names, table, rows)
    try:
        with np.errstate(all="ignore"):
            answer = strategy.target(values)
    except StrategyError:
        raise
    except (Exception, SystemExit) as error:  # whatever foreign code raises
        raise StrategyError(_told(strategy, error)) from error
    if not legs:
        return _weights(strategy, answer, table, values.read)[None]
    if not isinstance(answer, Mapping) or set(answer) != set(legs):
        was = sorted(answer) if isinstance(answer, Mapping) else type(answer).__name__
        raise StrategyError(
            f"{strategy!r}: target must return a dict of weights of its legs {', '.join(legs)}, "
            f"was {was}"
        )
    return np.array([_weights(strategy, answer[leg], table, values.read) for leg in legs])


def _told(strategy: Decides, error: BaseException) -> str:
    # What went wrong in a `target`, and where.
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "target"]
    where = f" in line {lines[-1].lineno}" if lines else ""
    said = f"{strategy!r}: target raised {type(error).__name__}{where}: {error}"
    if "truth value of an array" in said:
        said += (
            "; every f[...] is an array, a value for each bar: write np.where(condition, a, b) in "
            "place of if, and & | ~ in place of and, or, not"
        )
    return said


def _weights(strategy: Decides, answer: Any, table: Floats, read: set[int]) -> Floats:
    # What `target` returned, NaN where it could not know, refused where it is no weight.
    shape = (table.shape[1],)
    is_array = isinstance(answer, np.ndarray) and answer.dtype.kind in "bif"
    if not is_array or answer.shape != shape:
        kind = f" of {answer.dtype}" if isinstance(answer, np.ndarray) else ""
        was = f"{type(answer).__name__}{kind} of shape {np.shape(answer)}"
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
