"""The part `statistics` of the promotion gate: what a strategy's backtests prove after all trials.

Input: a `Candidate`, what is asked of it (`evidence.Limits`), the research ledger. Output: a
`Proof`: each figure by its name, and each failure with its value, its limit and its way out.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sysquant import evidence, intervals, performance, recording, research
from sysquant.activity import Activity
from sysquant.backtesting import Result
from sysquant.candidate import MOST_DELAY_MS, Candidate
from sysquant.errors import ConfigError, DataError
from sysquant.evidence import Limits
from sysquant.overfitting import overfitting
from sysquant.performance import Returns
from sysquant.proof import Figure, Proof
from sysquant.recording import Extent
from sysquant.research import Tried
from sysquant.strategy import Strategy
from sysquant.times import interval_ns, moment_ns
from sysquant.types import Floats

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

COSTS = (1.0, 2.0, 3.0)  # multiples of all costs
DELAYS = (1, 3)  # bars
_MINUTE_MS = 60_000.0  # a bar's length, where it is made of activity
_BLOCKS, _FEW_BLOCKS = 16, 8  # of history, for the probability of overfitting
_KEY = "promotion.statistics."


@dataclass
class _Findings:
    # What a proof is made of, as it is found.
    limits: Limits
    figures: dict[str, Figure] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, **figures: Any) -> None:
        for name, value in figures.items():
            if isinstance(value, float | np.floating):
                value = float(value) if math.isfinite(value) else None
            self.figures[name] = value

    def ask(self, good: bool, said: str) -> None:
        if not good:
            self.failures.append(said)


def prove(candidate: Candidate, limits: Limits, client: "Client | None" = None) -> Proof:
    """Judge a strategy's statistics: the part `statistics` of the promotion gate.

    Its own backtest is counted in the ledger (kind `gate`): whoever tries parameters at the gate
    tries them. Those under other costs, delays and parameters are not, for none of them is chosen.

    Parameters
    ----------
    candidate : a strategy, and its past.
    limits : what is asked.
    client : of the store; the ledger is carried there, and that of others counts.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    began = time.perf_counter()
    found, result = _Findings(limits), candidate.result
    own = result.ledger.returns
    if not result.tally.fills:
        found.ask(False, (
            f"it never traded, so nothing can be said of it: {_more(candidate)}"
        ))  # fmt: skip
    tried = _counted(candidate, found, client)
    if tried is not None:
        _deflated(candidate, tried, found)
        _holdout(candidate, tried, own, found, client)
    _sensitivity(candidate, found)
    _choices(candidate, tried, found)
    _capacity(candidate, found)
    found.notes.insert(0, _told(found.figures))
    took = time.perf_counter() - began
    return Proof(
        name="statistics", failures=tuple(found.failures), notes=tuple(found.notes),
        figures=found.figures, took_s=took,
    )  # fmt: skip


def _more(candidate: Candidate, *, earns: bool = True) -> str:
    # The way to more returns; they show nothing of what loses.
    if not earns:
        return "it loses after costs: look for another signal, or trade less often"
    if not candidate.asks:
        return "take a longer past (feed.start)"
    ways = (
        "train one that ends earlier (runners/retrain.py end=...), let runners/schedule.py go on "
        "making them, or have it trained as time went by (walk_forward(..., retrain='4h'))"
    )
    if candidate.known is None:
        return f"it asks a model, and none is known that was not trained on these bars: {ways}"
    begin = np.datetime64(candidate.known, "ns").astype("M8[s]")
    return f"it asks models, which are known since {begin}Z alone: {ways}"


def _told(figures: Mapping[str, Figure]) -> str:
    # The main figures, for people; a dash for what is not known.
    def say(name: str, form: str = ".2f") -> str:
        value = figures.get(name)
        return "-" if value is None else format(value, form)

    return (
        f"{say('returns', ',')} returns of {figures.get('period', '-')}: Sharpe ratio "
        f"{say('sharpe')} a year ({say('sharpe_low')} to {say('sharpe_high')}), deflated for "
        f"{say('trials', ',')} trials {say('deflated_sharpe', '.3f')}; out of sample "
        f"{say('walk_sharpe')} ({say('walk_sharpe_low')} to {say('walk_sharpe_high')}); at twice "
        f"the costs {say('costs_2x_sharpe')}, a bar later {say('delay_1_bars_sharpe')}; neighbours "
        f"{say('neighbours_sharpe')}; overfitted {say('overfitting', '.0%')}; capacity "
        f"{say('capacity', ',.0f')}"
    )


def _counted(candidate: Candidate, found: _Findings, client: "Client | None") -> Tried | None:
    # The trials of its lineage on this past, itself among them; None where they are not known.
    extent = Extent(candidate.market)
    try:
        for recorder in recording.record(candidate.result, extent, "gate"):
            if recorder.error is not None:
                raise DataError(
                    f"the research ledger cannot be written: {recorder.error}; make room, and ask "
                    "again"
                )
        if client is not None:
            research.carry(client)
        tried = research.tried(candidate.strategy, extent.first, extent.last, client)
    except DataError as error:
        found.put(trials=None)
        found.ask(False, f"how often it was tried is not known: {error}")
        return None
    found.put(
        trials=tried.trials(), runs=tried.runs, lost_runs=tried.lost,
        lineages=", ".join(tried.lineages),
    )  # fmt: skip
    others = tried.lineages[1:]
    if others:
        found.notes.append(
            f"trials of {', '.join(others)} count: each has the name, the code or the features of "
            f"{tried.lineages[0]}, or of one that does"
        )
    if tried.lost:
        found.notes.append(
            f"{tried.lost:,} runs could not be written into the ledger; each counts as a trial"
        )
    return tried


def _deflated(candidate: Candidate, tried: Tried, found: _Findings) -> None:
    own, limits = candidate.result.ledger.returns, found.limits
    count, trials = len(own.values), tried.trials()
    deviation = tried.deviation(count) if count else math.nan
    ratio = evidence.deflated_sharpe(own.values[:, None], trials, deviation)
    deflated, year = float(ratio[0]), math.sqrt(own.per_year) if count else math.nan
    luck = intervals.highest_sharpe(trials, deviation) * year
    sharpe, low, high = evidence.sharpe_limits(own.values, own.per_year)
    found.put(
        returns=count, period=own.period, days=own.days, sharpe=sharpe, sharpe_low=low,
        sharpe_high=high, total_return=performance.growth(own.values) - 1.0,
        deviation_of_trials=deviation * year, sharpe_by_luck=luck, deflated_sharpe=deflated,
    )  # fmt: skip
    found.ask(count >= limits.periods, (
        f"there are {count:,} returns of {own.period}, at least {limits.periods:,} are asked for: "
        f"{_more(candidate)}, or set {_KEY}periods"
    ))  # fmt: skip
    found.ask(deflated >= limits.deflated, (
        f"the deflated Sharpe ratio is {deflated:.3f}, at least {limits.deflated:g} is asked for: "
        f"it shows {sharpe:.2f} a year, and the best of {trials:,} without skill {luck:.2f}; "
        f"{_more(candidate, earns=sharpe > 0.0)}, or set {_KEY}deflated"
    ))  # fmt: skip


def _holdout(
    candidate: Candidate, tried: Tried, own: Returns, found: _Findings, client: "Client | None"
) -> None:
    span = _span(found.limits.holdout, int(candidate.market.ts.max()))
    if span is None:
        found.put(holdout_reads=None)
        found.notes.append(
            "no holdout is declared: any bar may have been looked at; research.hold_out('<date>') "
            f"before the research, or {_KEY}holdout"
        )
        return
    origin = recording.origin_of(candidate.strategy)
    mine = (origin.code, recording.said(candidate.strategy.parameters))
    read = research.tried(candidate.strategy, *span, client)
    reads = len(read.configurations - {mine})
    inside = own.values[(own.ts > span[0]) & (own.ts <= span[1])]
    sharpe, low, high = evidence.sharpe_limits(inside, own.per_year)
    begin = str(np.datetime64(span[0], "ns").astype("M8[s]"))
    found.put(
        holdout=begin, holdout_reads=reads, holdout_runs=read.runs, holdout_returns=len(inside),
        holdout_return=performance.growth(inside) - 1.0, holdout_sharpe=sharpe,
        holdout_sharpe_low=low, holdout_sharpe_high=high,
    )  # fmt: skip
    most = found.limits.holdout_reads
    found.ask(most is None or reads <= most, (
        f"{reads:,} other configurations of {', '.join(read.lineages)} were run on the holdout "
        f"from {begin} on, at most {most} are allowed: it shows nothing any more; wait for new "
        f"data, and move {_KEY}holdout behind what was read"
    ))  # fmt: skip


def _span(said: str | None, last: int) -> tuple[int, int] | None:
    # Of the holdout, ns UTC.
    if said is None:
        return research.holdout()
    try:
        return last - interval_ns(said), last + 1
    except ConfigError:
        pass
    try:
        return moment_ns(said, 0, last), last + 1
    except ConfigError:
        raise ConfigError(f"{_KEY}holdout must be like 30d or 2026-01-31, was {said!r}") from None


def _sensitivity(candidate: Candidate, found: _Findings) -> None:
    # The edge under dearer costs and later orders.
    asked, size = found.limits.costs, candidate.result.engine.interval
    bar_ms = _MINUTE_MS if isinstance(size, Activity) else size / 1e6
    earned = dict[float, float]()
    for costs in sorted({*COSTS, *(() if asked is None else (asked,))}):
        result = candidate.result if costs == 1.0 else candidate.backtest(costs)
        name = f"costs_{costs:g}x"
        earned[costs] = _edge(result, name, found)
    for bars in DELAYS:
        if bars * bar_ms <= MOST_DELAY_MS:
            _edge(candidate.backtest(1.0, bars * bar_ms), f"delay_{bars}_bars", found)
    if asked is not None:
        found.ask(earned[asked] > 0.0, (
            f"at {asked:g} times its costs it returns {earned[asked]:+.2%}, more than 0 is asked "
            f"for: trade less often, or set {_KEY}costs"
        ))  # fmt: skip


def _edge(result: Result, name: str, found: _Findings) -> float:
    own = result.ledger.returns
    earned = float(performance.growth(own.values) - 1.0)
    sharpe, _, _ = evidence.sharpe_limits(own.values, own.per_year)
    found.put(**{f"{name}_return": earned, f"{name}_sharpe": sharpe})
    return earned


def _choices(candidate: Candidate, tried: Tried | None, found: _Findings) -> None:
    # What neighbours do, what a choice among all earns later, and how often it is a poor one.
    limits = found.limits
    if candidate.asks:
        _walk_of_models(candidate, found)
        return
    near = candidate.neighbours
    again = [] if tried is None else candidate.again(tried, limits.rerun)
    known = dict.fromkeys([candidate.strategy, *near, *again])
    ts, table, ran = candidate.returns(list(known))
    places = {strategy: place for place, strategy in enumerate(ran)}
    if candidate.strategy not in places or len(ts) < 2:
        found.ask(False, (
            f"there are {len(ts)} returns of what it could have been, at least 2 are needed: take "
            "a longer past (feed.start)"
        ))  # fmt: skip
        return
    elapsed = int(ts[-1] - ts[0])
    per_year = (len(ts) - 1) * performance.YEAR / elapsed
    _walk(candidate, table, per_year, found)
    sharpe = {
        each: evidence.sharpe_limits(table[:, at], per_year)[0] for each, at in places.items()
    }
    _plateau(sharpe, candidate.strategy, near, found)
    _overfitted(table[:, [places[s] for s in (candidate.strategy, *again) if s in places]], found)


def _walk_of_models(candidate: Candidate, found: _Findings) -> None:
    # Each model was fitted to its own strategy: others of its class have none to ask.
    own = candidate.result.ledger.returns
    found.put(neighbours=0, neighbours_sharpe=None, plateau=None)
    found.put(overfitting=None, overfitting_trials=1)
    found.notes.append(
        "a plateau and the probability of overfitting are those of its training, which "
        "runners/retrain.py walks forward and judges: they are not asked for here"
    )
    if len(own.values) > 1:
        _walk(candidate, own.values[:, None], own.per_year, found)


def _walk(candidate: Candidate, table: Floats, per_year: float, found: _Findings) -> None:
    later, limit = evidence.walked(table), found.limits.walk_sharpe
    sharpe, low, high = evidence.sharpe_limits(later, per_year)
    found.put(
        walk_candidates=table.shape[1], walk_returns=len(later), walk_sharpe=sharpe,
        walk_sharpe_low=low, walk_sharpe_high=high, walk_return=performance.growth(later) - 1.0,
    )  # fmt: skip
    if limit is not None:
        found.ask(sharpe > limit, (
            f"out of sample, the best so far of {table.shape[1]:,} choices, it has a Sharpe ratio "
            f"of {sharpe:.2f} a year ({low:.2f} to {high:.2f}), more than {limit:g} is asked for: "
            f"{_more(candidate, earns=sharpe > 0.0)}, or set {_KEY}walk_sharpe"
        ))  # fmt: skip


def _plateau(
    sharpe: Mapping[Strategy, float], own: Strategy, near: Sequence[Strategy], found: _Findings
) -> None:
    around = [sharpe[each] for each in near if each in sharpe and math.isfinite(sharpe[each])]
    limit, median = found.limits.plateau, float(np.median(around)) if around else math.nan
    found.put(neighbours=len(around), neighbours_sharpe=median, plateau=_share(median, sharpe[own]))
    if not near:
        found.notes.append("it has no parameter with neighbours: a plateau is not asked for")
    elif limit is not None and sharpe[own] > 0.0:
        found.ask(median >= limit * sharpe[own], (
            f"its {len(around)} neighbours have a median Sharpe ratio of {median:.2f} a year, it "
            f"has {sharpe[own]:.2f}: at least {limit:g} of that is asked for; take the middle of a "
            f"plateau (Sweep.plateau), or set {_KEY}plateau"
        ))  # fmt: skip


def _share(median: float, own: float) -> float:
    return median / own if own > 0.0 else math.nan


def _overfitted(table: Floats, found: _Findings) -> None:
    # Of the trials that could be run again; the first column is its own.
    blocks = next((n for n in (_BLOCKS, _FEW_BLOCKS) if len(table) >= 4 * n), 0)
    if table.shape[1] < 2 or not blocks:
        found.put(overfitting=None, overfitting_trials=table.shape[1])
        found.notes.append(
            "the probability of overfitting is not known: it needs the returns of two trials of "
            f"this code at least, and {4 * _FEW_BLOCKS} of each"
        )
        return
    chance, limit = overfitting(table, blocks).probability, found.limits.overfitting
    found.put(overfitting=chance, overfitting_trials=table.shape[1])
    if limit is not None:
        found.ask(chance <= limit, (
            f"the choice among {table.shape[1]:,} of its trials was overfitted with a probability "
            f"of {chance:.0%}, at most {limit:.0%} is allowed: choose from fewer, or by a longer "
            f"past, or set {_KEY}overfitting"
        ))  # fmt: skip


def _capacity(candidate: Candidate, found: _Findings) -> None:
    known = {each.name: each.value for each in candidate.result.estimates(sure=False)}
    room, limit = known.get("capacity", math.nan), found.limits.capacity
    found.put(
        capacity=room, turnover=known.get("turnover", math.nan),
        cost_per_trade_bps=known.get("cost_per_trade", math.nan),
        max_drawdown=known.get("max_drawdown", math.nan),
    )  # fmt: skip
    if limit is None or not candidate.result.tally.fills:
        return
    if not math.isfinite(room):
        found.notes.append("its capacity is not known: the bars have no volume")
        return
    found.ask(room >= limit * candidate.capital, (
        f"its fills carry a capital of {room:,.0f}, {limit:g} times the book's "
        f"{candidate.capital:,.0f} is asked for: give it less (book.capital), or set {_KEY}capacity"
    ))  # fmt: skip
