"""How many strategies the gate's statistics let pass: `bench_gate.py [strategies] [rounds]`, and
the whole gate, each part of it, for a few: `bench_gate.py --whole [strategies]`.

A thousand without any skill, each the best of 1, 100 and 10,000 trials, and a thousand with a
planted Sharpe ratio of 3 a year, behind as many trials of noise; three years of daily returns. What
is decided is `evidence.judge` with the limits as `conf/promotion` has them and the spread of all
trials, as the ledger has it: all that is asked of returns alone. What needs an engine (costs, a
plateau, capacity, overfitting) can only refuse more.

Sharpe ratios of trials without skill are drawn from their law, Student's t; the returns of the best
are drawn given its ratio, which for normal returns are standardised ones, moved (Basu's theorem).
Two more kinds of noise are simulated return by return, behind 100 trials: with fat tails (t with 4
degrees of freedom), and alike (a correlation of 0.8). Then what the ledger costs: a backtest of
40,000 bars and of a million, and a cell of a sweep. Exit code 1 when a promise is missed.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hydra
import numpy as np

from runners import compose
from runners.command_line import CONF
from sysquant import recording, research
from sysquant.backtesting import backtest
from sysquant.evidence import Limits, judge
from sysquant.intervals import share
from sysquant.recording import Extent, Recorder
from sysquant.research import spread
from sysquant.strategies.momentum import Momentum
from sysquant.types import Floats, Instrument
from tests.benchmarks import report, whole_gate
from tests.benchmarks.markets import LOT_SIZE, TICK_SIZE, Walk

COUNT, ROUNDS = 1_000, 5
WHOLE = 10  # strategies that are led through the whole gate
YEARS = 3
DAYS = round(YEARS * 365.25)
PLANTED = 3.0  # Sharpe ratio a year
TRIALS = (1, 100, 10_000)
MOST_NOISE = 0.065  # that pass, promised
LEAST_PLANTED = {1: 0.80, 100: 0.60, 10_000: 0.25}
SIGMA = 0.01  # of a day
ALIKE, TAILS = 0.8, 4.0
SOME = 100  # trials of the other kinds of noise
SEED = 20
BARS = {"short": 40_000, "long": 1_000_000}
MOST_SHARE = 1.0  # percent of a backtest of the long one, that the ledger takes
CELLS = 10_000


class Passed(NamedTuple):
    """How many of a kind pass."""

    kind: str
    trials: int
    passes: int
    count: int


def limits() -> Limits:
    """As they stand in `conf/promotion/default.yaml`."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return compose.build(hydra.compose("config").promotion.statistics)


def luckiest(count: int, trials: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Returns (T, count) of the best of `trials` without skill, and the spread of their scores."""
    best, apart = np.empty(count), np.empty(count)
    for at in range(count):
        scores = rng.standard_t(DAYS - 1, trials)
        best[at], apart[at] = scores.max(), spread(scores)
    drawn = rng.normal(0.0, 1.0, (DAYS, count))
    drawn = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0, ddof=1)
    return SIGMA * (drawn + best / np.sqrt(DAYS)), apart


def planted(count: int, trials: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Returns (T, count) with the planted edge, and the spread with those of trials of noise."""
    returns = SIGMA * rng.normal(PLANTED / np.sqrt(365.25), 1.0, (DAYS, count))
    own = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * np.sqrt(DAYS)
    apart = [spread(np.append(rng.standard_t(DAYS - 1, trials - 1), each)) for each in own]
    return returns, np.array(apart)


def simulated(
    kind: str, count: int, trials: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The same as `luckiest`, of returns with fat tails or of trials that are alike."""
    best, apart = np.empty((DAYS, count)), np.empty(count)
    for at in range(count):
        if kind == "tails":
            returns = rng.standard_t(TAILS, (DAYS, trials))
        else:
            common = rng.normal(0.0, ALIKE**0.5, (DAYS, 1))
            returns = common + rng.normal(0.0, (1.0 - ALIKE) ** 0.5, (DAYS, trials))
        scores = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * np.sqrt(DAYS)
        best[:, at], apart[at] = SIGMA * returns[:, scores.argmax()], spread(scores)
    return best, apart


def decided(count: int, seed: int = SEED) -> list[Passed]:
    """Every kind behind every number of trials, judged."""
    asked, found = limits(), list[Passed]()
    kinds = [("noise", luckiest, n) for n in TRIALS] + [("planted", planted, n) for n in TRIALS]
    kinds += [(kind, partial(simulated, kind), SOME) for kind in ("tails", "alike")]
    for number, (kind, made, trials) in enumerate(kinds):
        returns, apart = made(count, trials, np.random.default_rng([seed, number]))
        judged = judge(returns, trials, apart / np.sqrt(DAYS), asked, DAYS / YEARS)
        found.append(Passed(kind, trials, int(judged.passes.sum()), count))
    return found


def told(found: Sequence[Passed]) -> Iterator[str]:
    """Lines for a person: shares with their binomial limits at 95 %."""
    for one in found:
        _, low, high = share(one.passes, one.count)
        yield (
            f"{one.kind} after {one.trials:,} trials: {one.passes} of {one.count} pass, "
            f"{one.passes / one.count:.1%}, limits {low:.1%} to {high:.1%}"
        )


def _promised(one: Passed) -> float:
    return LEAST_PLANTED[one.trials] if one.kind == "planted" else MOST_NOISE


def missed(found: Sequence[Passed]) -> Iterator[str]:
    """What falls short of what is promised."""
    for one in found:
        rate, limit = one.passes / one.count, _promised(one)
        if rate < limit if one.kind == "planted" else rate > limit:
            word = "at least" if one.kind == "planted" else "at most"
            yield (
                f"{one.kind} after {one.trials:,} trials: {rate:.1%} pass, promised {word} "
                f"{limit:.1%}"
            )


def compared(found: Sequence[Passed]) -> list[report.Row]:
    """Shares against those that are promised, in percent."""
    return [
        report.row(
            f"gate_{one.kind}_{one.trials}", 100 * one.passes / one.count, 100 * _promised(one),
            f"% of {one.count} pass",
        )
        for one in found
    ]  # fmt: skip


def speed(count: int, rounds: int) -> list[report.Row]:
    """Seconds that judging so many strategies at once takes."""
    returns, apart = luckiest(count, 100, np.random.default_rng(SEED))
    asked = limits()

    def prepared() -> partial[object]:
        return partial(judge, returns, 100, apart / np.sqrt(DAYS), asked)

    timed = report.in_turns({"ours": prepared}, rounds)
    return [report.row("gate_judge", timed["ours"][0], None, f"s for {count} strategies")]


def ledger(rounds: int, bars: dict[str, int] = BARS, cells: int = CELLS) -> list[report.Row]:
    """What the ledger takes of a backtest, in percent, and of a cell, in microseconds.

    Both by the processor's time: what other processes take meanwhile is in neither.
    """
    rows = list[report.Row]()
    universe = [Instrument("SIM:S0", TICK_SIZE, LOT_SIZE)]
    for name, size in bars.items():
        market = Walk(SEED).bars(size)
        took, wrote = list[float](), list[float]()
        for _ in range(rounds + 1):
            with recording.aside():
                began = time.process_time()
                result = backtest(Momentum(), market, universe)
                took.append(time.process_time() - began)
            began = time.process_time()
            recording.record(result, Extent(market))
            wrote.append(time.process_time() - began)
        part = 100 * float(np.median(wrote[1:]) / np.median(took[1:]))
        most = MOST_SHARE if name == "long" else None  # a row of a file takes what it takes
        rows.append(report.row(f"ledger_{name}", part, most, f"% of {size:,} bars"))
    terms, extent = result.engine.fingerprint(), Extent(market)
    before = research.tried(Momentum(), extent.first, extent.last)
    began = time.process_time()
    with Recorder(Momentum(), terms, extent, "cell") as recorder:
        for number in range(cells):
            recorder.add({"fast": number, "slow": cells}, 0.01, DAYS)
    took_us = 1e6 * (time.process_time() - began) / cells
    began = time.process_time()
    after = research.tried(Momentum(), extent.first, extent.last)
    read = time.process_time() - began
    assert after.runs - before.runs == cells and after.trials() - before.trials() == cells
    rows.append(report.row("ledger_cell", took_us, None, "us a cell of a sweep"))
    return [*rows, report.row("ledger_read", read, None, f"s for {after.runs:,} runs")]


def main() -> None:
    """Judge them all, tell, save, and hold against the promise."""
    if sys.argv[1:2] == ["--whole"]:
        whole_gate.main(int(sys.argv[2]) if sys.argv[2:] else WHOLE)
        return
    options = report.arguments(COUNT, ROUNDS, "strategies of each kind")
    found = decided(options.size)
    print(*told(found), sep="\n")
    report.save([*compared(found), *speed(options.size, options.rounds), *ledger(options.rounds)])
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if short := list(missed(found)):
        print(*short, sep="\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
