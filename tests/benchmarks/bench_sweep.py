"""How fast a sweep is, every combination in the full engine: `bench_sweep.py [bars] [rounds]`.

A thousand pairs of the EMA crossover over 100,000 bars, with the desk's checks on every order,
fees, slippage and latency; receipts are counted, not kept; verification is inside the clock. The
peer is vectorbt's `MA` and `Portfolio.from_signals` on the same pairs and bars, in the chunk size
that is its best here: once up to return, Sharpe ratio and drawdown of every pair, which a sweep is
for and a row of ours has, and once (`_fills`) up to its fills alone. A row is void unless both fill
alike, nothing was refused, fifty pairs are single backtests byte for byte, and a process of its own
stays below a GiB.
"""

import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from sysquant.execution import Execution
from sysquant.strategies.momentum import Momentum
from sysquant.sweeping import sweep
from sysquant.trials import Sweep
from sysquant.types import Bars, Instrument
from tests.benchmarks import peers, report
from tests.benchmarks.markets import LOT_SIZE, TICK_SIZE, Walk

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE, ROUNDS = 100_000, 5  # bars
FAST, SLOW = range(5, 105, 4), range(110, 310, 5)  # 25 x 40 pairs, all of them sensible
CAPITAL = 1_000_000.0
SEED = 5  # as of `bench_engine`
APART = 0.05  # fills of the peer and ours in a pair, a fraction
SAMPLED = 50  # pairs that are run again as single backtests
CHUNKS, TRIED = (5, 10, 20, 40), 80  # pairs at a time for vectorbt, and in a trial of each
MOST_MB = 1024.0
PROMISED, AIM = 12.0, 20.0  # times the rate of vectorbt, on two cores with no other work
PEAK = """
import sys
from tests.benchmarks.bench_sweep import SEED, peak_mb, swept
from tests.benchmarks.markets import Walk
swept(Walk(SEED).bars(int(sys.argv[1])))
print(peak_mb())
"""


def swept(bars: Bars, fast: Sequence[int] = FAST, slow: Sequence[int] = SLOW, **more: Any) -> Sweep:
    """The sweep of ours, with fee, slippage and latency."""
    bps = 1e4 * peers.COST
    return sweep(
        Momentum, bars, [Instrument("SIM:S0", TICK_SIZE, LOT_SIZE)], fast=fast, slow=slow,
        execution=Execution(latency_ms=50, slippage_bps=bps, fee_bps=bps), capital=CAPITAL,
        progress=False, **more,
    )  # fmt: skip


def swept_by_vectorbt(
    close: Any, pairs: Sequence[tuple[int, int]], chunk: int, *, with_figures: bool = True
) -> list[int]:
    """Fills of every pair by vectorbt: averages, crossings a bar later, a portfolio.

    `with_figures` also asks for return, Sharpe ratio and drawdown of each.
    """
    import vectorbt as vbt

    fills = list[int]()
    for at in range(0, len(pairs), chunk):
        spans = zip(*pairs[at : at + chunk], strict=True)
        fast, slow = (vbt.MA.run(close, list(span), ewm=True) for span in spans)
        entries, exits = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
        portfolio = vbt.Portfolio.from_signals(
            close, entries.vbt.signals.fshift(1), exits.vbt.signals.fshift(1),
            fees=peers.COST, slippage=peers.COST, init_cash=CAPITAL, freq="1min",
        )  # fmt: skip
        if with_figures:
            portfolio.total_return(), portfolio.sharpe_ratio(), portfolio.max_drawdown()
        fills += np.asarray(portfolio.orders.count()).reshape(-1).tolist()
    return fills


# What the name of its row ends in -> the way.
VECTORBT: dict[str, Callable[..., list[int]]] = {
    "": swept_by_vectorbt,
    "_fills": partial(swept_by_vectorbt, with_figures=False),
}


def best_chunk(peer: Callable[..., Any], close: Any, pairs: Sequence[tuple[int, int]]) -> int:
    """Chunk size in which vectorbt is fastest here, over some of the pairs."""
    tried, seconds = pairs[:: max(1, len(pairs) // TRIED)][:TRIED], dict[int, float]()
    for chunk in (CHUNKS[0], *CHUNKS):  # the first one compiles
        began = time.perf_counter()
        peer(close, tried, chunk)
        seconds[chunk] = time.perf_counter() - began
    told = ", ".join(f"{chunk}: {took:.2f} s" for chunk, took in seconds.items())
    print(f"vectorbt, {len(tried)} pairs by chunk size: {told}")
    return min(seconds, key=lambda chunk: seconds[chunk])


def check(found: Sweep, peer_fills: Sequence[int] | None = None) -> None:
    """Refuse a figure whose sweep did not do the work.

    Raises
    ------
    AssertionError
        If an order was refused, a backtest differed, an account died, or the peer traded otherwise.
    """
    frame = found.frame
    assert found.agrees, repr(found)
    assert frame["refused"].sum() == 0, f"{frame['refused'].sum()} orders were refused"
    assert (frame["approved"] - frame["fills"]).isin([0, 1]).all(), "orders were not filled"
    assert frame["equity"].min() > 0.1 * CAPITAL, f"equity fell to {frame['equity'].min():,.0f}"
    if peer_fills is not None:
        theirs = np.array(peer_fills)
        apart = np.abs(frame["fills"].to_numpy() - theirs)
        wrong = int((apart > np.maximum(2, APART * theirs)).sum())
        assert not wrong, f"in {wrong} of {len(frame)} pairs the peer's fills are others"


def against_vectorbt(
    size: int, rounds: int, fast: Sequence[int] = FAST, slow: Sequence[int] = SLOW
) -> list[report.Row]:
    """Combinations x bars per second, ours and vectorbt's."""
    bars = Walk(SEED).bars(size)
    pairs = list(itertools.product(fast, slow))
    ways: dict[str, Any] = {"ours": lambda: partial(swept, bars, fast, slow)}
    if report.is_installed("vectorbt"):
        import pandas as pd

        close = pd.Series(bars.close)
        for suffix, peer in VECTORBT.items():
            chunk = best_chunk(peer, close, pairs)
            ways[suffix] = lambda peer=peer, chunk=chunk: partial(peer, close, pairs, chunk)
    timed = report.in_turns(ways, rounds)
    found = timed["ours"][1]
    for suffix in VECTORBT:
        check(found, timed[suffix][1] if suffix in timed else None)
    again = swept(bars, fast, slow, verify_best=0, verify_sample=SAMPLED)
    check(again)
    print(
        f"{len(pairs):,} pairs, {found.frame['fills'].sum():,} fills, on {_cores()} cores; "
        f"{again.verified!r}"
    )
    return [
        report.rates(
            f"sweep_vs_vectorbt{suffix}",
            len(pairs) * size,
            {name: timed[name] for name in ("ours", suffix) if name in timed},
            "combos x bars/s",
        )
        for suffix in VECTORBT
    ]


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what the system counts for a child begins with its parent's peak
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on a Mac


def memory(size: int) -> list[report.Row]:
    """Peak memory of a process that sweeps once, against the most allowed."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    peak = float(subprocess.check_output([sys.executable, "-c", PEAK, str(size)], env=environment))
    assert peak < MOST_MB, f"{peak:.0f} MB"
    return [report.row("sweep_memory", peak, MOST_MB, "MB, against the most allowed")]


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def judge(rows: Sequence[report.Row]) -> Iterator[str]:
    """What falls short of what is promised."""
    for row in rows:
        if row["name"].startswith("sweep_vs_vectorbt") and row["ratio"] and row["ratio"] < AIM:
            word = "promised" if row["ratio"] < PROMISED else "aimed at"
            least = PROMISED if row["ratio"] < PROMISED else AIM
            yield f"{row['name']}: {row['ratio']:.3g} times vectorbt, {word} are {least:g}"


def main() -> None:
    """Measure, and save."""
    options = report.arguments(SIZE, ROUNDS, "bars of the market")
    rows = [*against_vectorbt(options.size, options.rounds), *memory(options.size)]
    report.save(rows)
    print(*judge(rows), f"load of the machine: {os.getloadavg()[0]:.1f}", sep="\n")


if __name__ == "__main__":
    main()
