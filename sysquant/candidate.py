"""A strategy that stands for promotion: what it earns under dearer costs, delays, other parameters.

Input: a strategy, the past it is judged on, and what makes engines for it. Output: backtests, and
returns of its neighbours and of the trials that the ledger knows, each from the engine that trades
live. What to think of them is for `judgement`.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from sysquant import performance, recording
from sysquant.activity import BarSize
from sysquant.backtesting import Result, fresh_engine, market_of, run, served, span_of
from sysquant.engine import Engine
from sysquant.errors import DataError, StrategyError, SysquantError
from sysquant.execution import Execution
from sysquant.operation import Serve
from sysquant.past import History
from sysquant.replays import Replays
from sysquant.research import Tried
from sysquant.strategy import Model, Parameter, Strategy
from sysquant.types import SECOND, Bars, Floats, Instrument, Ints, Ticks

MOST_DELAY_MS = 86_400_000.0  # that an order may be on its way
COSTS = (
    "slippage_bps", "half_spread_bps", "impact", "volatility_scale", "fee_bps", "maker_fee_bps",
    "fee_fixed", "fee_minimum", "borrow_rate", "interest_rate",
)  # fmt: skip
"""Terms of an execution that are paid; None where they are not given."""
_STEP = 0.1  # of a parameter, to its neighbours
_SEED = "seed"  # a parameter of this name has no neighbours


@dataclass(frozen=True, eq=False)
class Candidate:
    """A strategy, and the past it is judged on.

    Parameters
    ----------
    strategy : with its parameters.
    market : all events, in order.
    make : a fresh engine of a strategy, a multiple of all costs, and a delay of its orders in ms.
    capital, snapshot_ns : of these engines.
    history : bars before the market, to warm up on.
    workers : threads.
    wishes : ns UTC, and the model that serves from then on; of a strategy that asks one.

    Raises
    ------
    DataError
        If the market is empty.
    """

    strategy: Strategy
    market: Bars | Ticks
    make: Callable[[Strategy, float, float], Engine]
    capital: float
    snapshot_ns: int
    history: Bars | None = None
    workers: int = 1
    wishes: Sequence[tuple[int, Serve]] = ()

    def __post_init__(self) -> None:
        """Refuse to judge on nothing."""
        if not len(self.market):
            raise DataError("the market holds no event; is the range of the feed right?")

    def backtest(self, costs: float = 1.0, delay_ms: float = 0.0) -> Result:
        """What it does, at a multiple of all costs and with later orders."""
        history = None if self.history is None else lambda *_: self.history
        engine = self.make(self.strategy, costs, delay_ms)
        batches = served(engine, [self.market], self.wishes)
        return run(engine, batches, name="gate", history=history)  # pyright: ignore[reportArgumentType]

    @property
    def asks(self) -> bool:
        """Whether it asks a model: then its neighbours and trials cannot be run, they have none."""
        return bool(self.strategy.classes)

    @property
    def known(self) -> int | None:
        """When the first of its models was known, ns UTC; None for none up to the last event."""
        last = int(self.market.ts.max())
        return next((at for at, wish in self.wishes if wish.model and at < last), None)

    @cached_property
    def result(self) -> Result:
        """What it does as it would trade."""
        return self.backtest()

    @property
    def neighbours(self) -> list[Strategy]:
        """Instances that differ by one step in one parameter: a tenth, whole numbers at least 1.

        Those that the strategy refuses are left out; so are flags, words, and a `seed`.
        """
        found = list[Strategy]()
        for name, value in self.strategy.parameters.items():
            if isinstance(value, bool | str | Strategy) or name == _SEED or value == 0.0:
                continue
            step = _STEP * abs(value)
            if isinstance(value, int):
                step = max(1, round(step))
            found += self._others([{name: value - step}, {name: value + step}])
        return found

    def _others(self, changes: Iterable[Mapping[str, Parameter]]) -> list[Strategy]:
        found = list[Strategy]()
        for changed in changes:
            try:
                found.append(type(self.strategy)(**{**self.strategy.parameters, **changed}))
            except SysquantError:
                continue
        return found

    def again(self, tried: Tried, most: int) -> list[Strategy]:
        """Trials of the ledger that this very code can repeat, itself left out; at most so many."""
        code = recording.origin_of(self.strategy).code
        known = sorted(said for own, said in tried.configurations if own == code)
        listed = [json.loads(said) for said in known]
        mine = self.strategy.parameters
        others = [each for each in listed if each.keys() == mine.keys() and each != dict(mine)]
        if len(others) > most:
            others = random.Random(1).sample(others, most)
        return self._others(others)

    def returns(self, strategies: Sequence[Strategy]) -> tuple[Ints, Floats, list[Strategy]]:
        """Returns of strategies of the class over this past, as the backtest of each has them.

        Returns
        -------
        (T,) ends of the periods (ns UTC), (T, N) simple returns, 0 after ruin, and the N strategies
        that ran: one that breaks its contract on these bars is left out.
        """
        try:
            ran = {place: strategies[place] for place in range(len(strategies))}
            equity = self._equity(strategies)
        except StrategyError:
            ran, equity = {}, {}
            for place, strategy in enumerate(strategies):
                try:
                    equity[place] = self._equity([strategy])[0]
                    ran[place] = strategy
                except StrategyError:
                    continue
        if not ran:
            return np.empty(0, np.int64), np.empty((0, 0)), []
        every = performance.period(next(iter(equity.values()))[0])
        sampled = [performance.sample(*equity[place], every) for place in ran]
        ts = max((each.ts for each in sampled), key=len)
        table = np.zeros((len(ts), len(sampled)))
        for column, each in enumerate(sampled):
            table[: len(each.values), column] = each.values
        return ts, table, list(ran.values())

    def _equity(self, strategies: Sequence[Strategy]) -> dict[int, tuple[Ints, Floats]]:
        replays = Replays(
            lambda strategy: self.make(strategy, 1.0, 0.0), self.market, strategies,
            capital=self.capital, snapshot_ns=self.snapshot_ns,
            workers=min(self.workers, len(strategies)), history=self.history, keep=True,
        )  # fmt: skip
        for _ in replays.run(range(len(strategies))):
            pass
        return replays.equity


def judged_from(
    since: int | None, market: Bars | Ticks, history: Bars | None,
    universe: Sequence[Instrument], size: BarSize,
) -> tuple[Bars | Ticks, Bars | None]:  # fmt: skip
    """What comes after a moment, to be judged on, and all bars before it, to warm up on.

    Parameters
    ----------
    since : ns UTC, from which on the first model serves; None, or before the market: all of it.
    market, history, universe : of a candidate.
    size : of its bars.
    """
    if since is None or since < market.ts.min():
        return market, history
    before, after = span_of(market, universe, size, since, None)
    known = [each for each in (history, before) if each is not None and len(each)]
    return after, Bars.join(known) if known else None


def dearer(terms: Mapping[str, Any], costs: float, delay_ms: float) -> dict[str, Any]:
    """Terms of an execution whose fees, slippage and interest are multiplied, and orders later.

    A spread that is estimated from bars, and funding, are what the market makes them: they stay.

    Parameters
    ----------
    terms : arguments of `Execution`, by name, or keys of `conf/execution`.
    costs : multiple.
    delay_ms : added to what an order takes to the broker, which is the same for all of them then; a
        day at most in all.

    Returns
    -------
    Those that differ.
    """
    changed: dict[str, Any] = {
        name: float(terms[name]) * costs for name in COSTS if terms.get(name) and costs != 1.0
    }
    if terms.get("tiers") and costs != 1.0:
        changed["tiers"] = {
            name: {key: None if fee is None else float(fee) * costs for key, fee in tier.items()}
            for name, tier in terms["tiers"].items()
        }
    if delay_ms:
        samples = terms.get("latency_sample_ms")
        if samples is not None:
            later = [min(float(each) + delay_ms, MOST_DELAY_MS) for each in samples]
            return changed | {"latency_sample_ms": later}
        latency = min(float(terms["latency_ms"]) + delay_ms, MOST_DELAY_MS)
        changed |= {"latency_ms": latency, "latency_sigma": 0.0}
    return changed


def candidate_of(
    strategy: Strategy,
    bars: Bars | Ticks | History,
    universe: Sequence[Instrument] | None = None,
    *,
    execution: Execution | None = None,
    interval: int | str | None = None,
    capital: float = 1_000_000.0,
    snapshot_ns: int = 3600 * SECOND,
    models: Sequence[tuple[int, Model]] = (),
    **options: Any,
) -> Candidate:
    """A strategy on bars or ticks in memory, as `backtest` takes them: the gate in a notebook.

    Parameters
    ----------
    strategy, bars, universe, execution, interval, capital, snapshot_ns, models : as of `backtest`.
        With models it is judged on what comes after the first of their moments.
    **options : risk, sizing, orders, exits, seed, likewise.

    Raises
    ------
    ConfigError, DataError
        As of `backtest`.

    Examples
    --------
    >>> print(prove(candidate_of(Momentum(fast=12), bars), Limits(holdout="30d")))
    """
    market, universe, size = market_of(bars, universe, interval)
    own = execution or Execution()
    terms = {each.name: getattr(own, each.name) for each in fields(own)}

    def make(each: Strategy, costs: float, delay_ms: float) -> Engine:
        return fresh_engine(
            each, universe, interval=size, capital=capital, snapshot_ns=snapshot_ns,
            execution=replace(own, **dearer(terms, costs, delay_ms)),
            models=lambda _, number: models[int(number)][1], **options,
        )  # fmt: skip

    name = next(iter(make(strategy, 1.0, 0.0).strategies))
    wishes = [(at, Serve(name, str(number))) for number, (at, _) in enumerate(models)]
    since = min((at for at, _ in models), default=None)
    market, history = judged_from(since, market, None, universe, size)
    return Candidate(
        strategy, market, make, capital=capital, snapshot_ns=snapshot_ns, history=history,
        wishes=wishes,
    )  # fmt: skip
