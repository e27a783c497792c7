"""How often a training publishes where something can be foreseen, and where nothing can:
`bench_publishing.py [planted] [noise] [--signal 0.3]`.

Each training has five days of minutes of its own seed, and goes the way of `runners/retrain.py`:
its order, `retraining.train` as in notebook 10, a candidate that is written, then read, held
against the history, judged, signed and published by the runner's own `judged`. Only the kernel
between them is left out. The recipe is that of `conf/retrain.yaml model=logistic_regression`; five
days are a sixth of its thirty, so that all of its lengths are a sixth of theirs. Costs are those of
a backtest: 5 bp fee, 1 bp slippage, 50 ms.

Noise is a random walk; of every other one volatility comes in clusters, so that how far it will go
can be foreseen, and not which way. Planted is a drift below the first: up or down by `signal` of a
minute's volatility, turning every four hours on average. By default a twelfth of a minute's
variance is drift; what that is in skill is printed. Exit code 1 when a promise is missed.
"""

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
from omegaconf import DictConfig
from scipy.signal import lfilter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners import retrain, training
from runners.command_line import CONF
from sysquant import home, publishing
from sysquant.intervals import around, share
from sysquant.models.judging import Estimate
from sysquant.past import History
from sysquant.retraining import train
from sysquant.types import Bars, Floats, Gaps
from tests.benchmarks import report
from tests.benchmarks.markets import MINUTE, START

PLANTED, NOISE, SIGNAL = 100, 200, 0.3
LEAST_PLANTED, MOST_NOISE = 0.90, 0.08  # shares that are published, promised
DAYS = 5
SIGMA = 8e-4  # of a minute's log return: 58 % a year
TURN = 240  # minutes, on average, until the drift changes its side
CLUSTERS, LASTS = 0.5, 0.995  # of log volatility: its deviation, and what is left after a minute
LEVEL, TICK = 50_000.0, 0.01
NOISE_SEEDS = 1_000_000  # where those of noise begin
WORDS = (
    "model=logistic_regression", f"days={DAYS}", "labels.label_settings.horizon=10m",
    "training.embargo=10m", "training.train=40h", "training.test=8h", "universe=crypto",
    f"universe.instruments=[{{symbol: 'BENCH:WALK', tick_size: {TICK}, lot_size: 1e-6}}]",
    "lineage=ml_direction",
)  # fmt: skip


class Trial(NamedTuple):
    """One training: what came of it, and what it was judged by.

    Parameters
    ----------
    verdict, reasons : of `training.Outcome`.
    skill : nats.
    pnl : return after costs, a fraction.
    took_s : seconds, from the bars to the verdict.
    """

    verdict: str
    reasons: tuple[str, ...]
    skill: Estimate
    pnl: Estimate
    took_s: float

    @property
    def is_found(self) -> bool:
        """Whether skill and P&L lie above 0 by their lower limits."""
        return self.skill.low > 0 and self.pnl.low > 0


@cache
def order() -> training.Order:
    """What the command line asks for."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return retrain.order_of(hydra.compose("retrain", list(WORDS)))


def market(seed: int, signal: float, count: int = DAYS * 1_440) -> History:
    """Minutes of a random walk over a drift, both of a seed; without a signal of the walk alone,
    where the seed is odd with a volatility in clusters.
    """
    draw = np.random.default_rng(seed)
    side = 2.0 * (np.cumsum(draw.random(count) < 1 / TURN) % 2) - 1.0
    steps = SIGMA * (draw.normal(0.0, 1.0, count) + signal * side)
    if not signal and seed % 2:
        fresh = CLUSTERS * np.sqrt(1 - LASTS**2) * draw.normal(0.0, 1.0, count)
        steps *= np.exp(lfilter([1.0], [1.0, -LASTS], fresh))
    close = np.round(LEVEL * np.exp(np.cumsum(steps)) / TICK) * TICK
    open_ = np.concatenate(([LEVEL], close[:-1]))
    beyond = np.abs(draw.normal(0.0, 0.3 * SIGMA, (2, count)))
    ts = START + MINUTE * np.arange(1, count + 1)
    bars = Bars(
        ts=ts, symbol=np.zeros(count, np.int32), open=open_, close=close,
        high=np.maximum(open_, close) * (1 + beyond[0]),
        low=np.minimum(open_, close) * (1 - beyond[1]), volume=draw.exponential(10.0, count),
        partition=np.zeros(count, np.int32), offset=np.arange(count),
    )  # fmt: skip
    universe = tuple(order().universe)
    return History(bars, universe, MINUTE, START, int(ts[-1]), Gaps.empty())


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """A home of its own for the registry and its key; what was compiled is taken from ours."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {"SYSQUANT_CACHE": str(home.cache()), "SYSQUANT_HOME": directory}
        try:
            yield Path(directory)
        finally:
            os.environ.clear()
            os.environ.update(before)


def trial(seed: int, signal: float) -> Trial:
    """Train on one market, and publish if that is the verdict; there is no model before."""
    asked, bars = order(), market(seed, signal)
    began = time.perf_counter()
    trained = train(asked.recipe, asked.strategy, bars)
    run = Path(tempfile.mkdtemp(dir=home.home()))
    publishing.write(trained, run / "candidate")
    newest = max(training.registry().numbers(asked.lineage), default=0)
    made = training.Training(DictConfig({}), asked, run, parent=None, newest=newest)
    outcome = made.judged(bars, finish=lambda: None)
    took_s = time.perf_counter() - began
    earned = next(e for e in trained.result.estimates() if e.name == "total_return")
    pnl = Estimate(trained.pnl, earned.low, earned.high)
    return Trial(outcome.verdict, outcome.reasons, trained.scores["skill"], pnl, took_s)


def trials(planted: int, noise: int, signal: float) -> tuple[list[Trial], list[Trial]]:
    """So many trainings of each kind, every one with a seed of its own."""
    asked = [(seed, signal) for seed in range(planted)]
    asked += [(NOISE_SEEDS + seed, 0.0) for seed in range(noise)]
    with elsewhere(), tqdm(asked, unit=" trainings", disable=None) as told:
        found = [trial(*each) for each in told]
    return found[:planted], found[planted:]


def published(found: Sequence[Trial]) -> int:
    """How many were."""
    return sum(one.verdict == "published" for one in found)


def mean(values: Sequence[float]) -> Estimate:
    """Of trainings, which are independent; with its limits, that are NaN for one."""
    taken: Floats = np.array(values)
    error = taken.std(ddof=1) / np.sqrt(len(taken)) if len(taken) > 1 else np.nan
    return Estimate(float(taken.mean()), *around(float(taken.mean()), float(error))[1:])


def told(name: str, found: Sequence[Trial]) -> Iterator[str]:
    """Lines for a person."""
    count, n = published(found), len(found)
    _, low, high = share(count, n)
    yield f"{name}: {count} of {n} published, {count / n:.1%}, limits {low:.1%} to {high:.1%}"
    for what, places in (("skill", ".4f"), ("pnl", ".2%")):
        scores: list[Estimate] = [getattr(one, what) for one in found]
        values = [one.value for one in scores]
        sure, beaten = (sum(test(one) for one in scores) for test in (_is_above, _is_below))
        value, low, high = mean(values)
        yield (
            f"  {what}: median {np.median(values):{places}}, mean {value:{places}}, limits "
            f"{low:{places}} to {high:{places}}; above 0 in {sum(v > 0 for v in values)}, by the "
            f"lower limit in {sure}, below 0 by the upper one in {beaten}"
        )
    yield f"  skill and P&L above 0 by their lower limits in {sum(one.is_found for one in found)}"
    told = Counter(
        f"{one.verdict}: {_without_figures(reason)}" for one in found for reason in one.reasons
    )
    yield from (f"  {times} {reason}" for reason, times in told.most_common())
    yield f"  {np.median([one.took_s for one in found]):.2f} s a training, median"


def _is_above(score: Estimate) -> bool:
    return score.low > 0


def _is_below(score: Estimate) -> bool:
    return score.high < 0


def _without_figures(reason: str) -> str:
    # What reasons of one kind share.
    return re.sub(r"[-+]?\d[\d.]*%?", "#", reason.partition(":")[0])


def judge(planted: Sequence[Trial], noise: Sequence[Trial]) -> Iterator[str]:
    """What falls short of what is promised."""
    if published(planted) < LEAST_PLANTED * len(planted):
        yield f"{published(planted)} of {len(planted)} planted, promised {LEAST_PLANTED:.0%}"
    for name in ("skill", "pnl"):
        found = mean([getattr(one, name).value for one in planted])
        if not found.low > 0:
            yield f"{name} of the planted is {found.value:.4f}, no more than 0 by its lower limit"
    if published(noise) > MOST_NOISE * len(noise):
        yield f"{published(noise)} of {len(noise)} noise, promised at most {MOST_NOISE:.0%}"
    if broken := [one for one in (*planted, *noise) if one.verdict == "refused"]:
        yield f"{len(broken)} were refused: {broken[0].reasons[0]}"


def compare(planted: Sequence[Trial], noise: Sequence[Trial]) -> list[report.Row]:
    """Shares against those that are promised, in percent, and seconds."""
    rows = list[report.Row]()
    for name, found, limit in (
        ("planted", planted, LEAST_PLANTED), ("noise", noise, MOST_NOISE),
    ):  # fmt: skip
        rate = 100 * published(found) / len(found)
        rows.append(report.row(f"publishing_{name}", rate, 100 * limit, f"% of {len(found)}"))
    took_s = float(np.median([one.took_s for one in (*planted, *noise)]))
    return [*rows, report.row("publishing_training", took_s, None, "s")]


def main() -> None:
    """Train them all, tell, save, and hold against the promise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("planted", nargs="?", type=int, default=PLANTED, help="trainings with it")
    parser.add_argument("noise", nargs="?", type=int, default=NOISE, help="trainings without")
    parser.add_argument("--signal", type=float, default=SIGNAL, help="of a minute's volatility")
    options = parser.parse_args()
    if min(options.planted, options.noise) < 2:
        parser.error("at least 2 trainings of each kind")
    planted, noise = trials(options.planted, options.noise, options.signal)
    print(*told("planted", planted), *told("noise", noise), sep="\n")
    report.save(compare(planted, noise))
    if missed := list(judge(planted, noise)):
        print(*missed, sep="\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
