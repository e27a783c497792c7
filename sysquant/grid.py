"""The grid of a sweep: every combination of the values of some parameters, and who is beside whom.

Input: a strategy class and values by parameter. Output: instances, and medians over neighbours
in the grid. Nothing here runs a strategy.
"""

import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Real
from typing import TypeAlias

import numpy as np

from sysquant.errors import ConfigError, StrategyError, nearest
from sysquant.strategy import Parameter, Strategy
from sysquant.types import Floats, Ints

Values: TypeAlias = "Iterable[Parameter] | Parameter"


class Grid:
    """Combinations of parameters, in the order of nested loops: the last one moves fastest.

    Parameters
    ----------
    strategy : class whose parameters are swept; those not named keep their defaults.
    values : parameter -> values to try, or the one it shall have.
    where : takes parameters by their names, as many of the swept ones as it likes; combinations for
        which it is false are left out.
    taken : names that no parameter may have: those of the result's columns.

    Attributes
    ----------
    names : of the parameters that were named.
    strategies : (N,) one instance per combination.
    left_out : combinations that `where` left out.

    Raises
    ------
    ConfigError
        If a parameter is unknown or has no values or one twice, nothing is left, `where` wants a
        parameter that was not named, or the strategy refuses a combination (as its own error).
    """

    def __init__(
        self,
        strategy: type[Strategy],
        values: Mapping[str, Values],
        where: Callable[..., bool] | None = None,
        *,
        taken: Collection[str] = (),
    ) -> None:
        if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
            raise ConfigError(f"strategy must be a class, like Momentum, was {strategy!r}")
        known = strategy().parameters
        if not values:
            raise ConfigError(f"nothing to sweep: name parameters, like {_example(known)}")
        for name in values:
            if name not in known:
                hint = nearest(name, known)
                raise ConfigError(f"{strategy.__name__} has no parameter {name!r}{hint}")
            if name in taken:
                raise ConfigError(f"{name!r} is a column of the result; rename the parameter")
        self.names = tuple(values)
        axes = [_axis(name, choice) for name, choice in values.items()]
        if where is not None and not callable(where):
            raise ConfigError(f"where must be like lambda fast, slow: fast < slow, was {where!r}")
        asked = _asked(where, self.names)
        self.strategies: list[Strategy] = []
        self.left_out = 0
        places = list[tuple[int, ...]]()
        for place in itertools.product(*(range(len(axis)) for axis in axes)):
            chosen = {n: axis[at] for n, axis, at in zip(self.names, axes, place, strict=True)}
            if where is not None and not where(**{name: chosen[name] for name in asked}):
                self.left_out += 1
                continue
            self.strategies.append(_instance(strategy, chosen, where is None))
            places.append(place)
        if not places:
            raise ConfigError(f"where leaves none of {self.left_out} combinations; widen it")
        self._lengths = tuple(map(len, axes))
        self._ordered = [_is_ordered(axis) for axis in axes]
        # By size, however the values were written: neighbours are the next smaller and larger.
        ranks = [
            np.argsort(np.argsort(np.array(axis))) if is_ordered else np.arange(len(axis))
            for axis, is_ordered in zip(axes, self._ordered, strict=True)
        ]
        self._places = np.array(
            [[rank[at] for rank, at in zip(ranks, place, strict=True)] for place in places]
        )

    def __len__(self) -> int:
        return len(self.strategies)

    def parameters(self, at: int) -> dict[str, Parameter]:
        """Named parameters of a combination, as the strategy holds them."""
        own = self.strategies[at].parameters
        return {name: own[name] for name in self.names}

    def smooth(self, values: Floats) -> tuple[Floats, Ints]:
        """Medians over each combination and its neighbours.

        Neighbours differ by at most one step in every parameter that is a number with several
        values, and in nothing else: up to 3^d - 1 of them, fewer at the edges.

        Parameters
        ----------
        values : (N,) of every combination; NaN counts as not there.

        Returns
        -------
        (N,) medians, NaN where nothing is there, and (N,) how many values are in each.
        """
        cube = np.full([length + 2 for length in self._lengths], np.nan)  # with an edge of nothing
        cube[tuple(self._places.T + 1)] = values
        steps = [(-1, 0, 1) if is_ordered else (0,) for is_ordered in self._ordered]
        near = np.array(
            [cube[tuple(self._places.T + 1 + np.array([s]).T)] for s in itertools.product(*steps)]
        )
        counts = (~np.isnan(near)).sum(axis=0)
        near[:, counts == 0] = 0.0
        return np.where(counts > 0, np.nanmedian(near, axis=0), np.nan), counts

    @property
    def most_neighbours(self) -> int:
        """Values that a median away from all edges has in it."""
        pairs = zip(self._lengths, self._ordered, strict=True)
        return int(np.prod([min(3, length) if is_ordered else 1 for length, is_ordered in pairs]))


def described(parameters: Mapping[str, Parameter]) -> str:
    """`fast=5, slow=20`, for people."""
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items())


def _example(known: Mapping[str, Parameter]) -> str:
    return ", ".join(f"{name}=[{value!r}, ...]" for name, value in known.items()) or "span=[5, 10]"


def _axis(name: str, values: Values) -> list[Parameter]:
    # Values of one parameter; a single one is an axis of length one.
    axis = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if not axis:
        raise ConfigError(f"{name} has no values to sweep over; give at least one")
    twice = [value for place, value in enumerate(axis) if value in axis[:place]]
    if twice:
        raise ConfigError(f"{name} has the value {twice[0]!r} twice; give each once")
    return axis


def _is_ordered(axis: list[Parameter]) -> bool:
    # Whether "one step" means something: words and flags have no order.
    return all(isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in axis)


def _asked(where: Callable[..., bool] | None, names: tuple[str, ...]) -> list[str]:
    # Parameters that the predicate takes.
    if where is None:
        return []
    taken = inspect.signature(where).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
        return list(names)
    for one in taken:
        if one.name not in names:
            raise ConfigError(f"where asks for {one.name!r}{nearest(one.name, names)}")
    return [one.name for one in taken]


def _instance(cls: type[Strategy], chosen: Mapping[str, Parameter], is_whole: bool) -> Strategy:
    # Of the combination; what the strategy says against it names the combination.
    try:
        return cls(**chosen)
    except (ConfigError, StrategyError) as error:
        hint = "; leave such combinations out with where=lambda ...: ..." if is_whole else ""
        said = f"{cls.__name__} refuses {described(chosen)}: {error}{hint}"
        raise type(error)(said) from error
