"""Feature kernels against TA-Lib, pandas and bottleneck, and the price of one bar in a stream.

Prints medians of several runs over the same values; what is not installed is left out. Run it
alone: `python tests/benchmarks/bench_features.py [rows]`.
"""

import importlib.util
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
import talib

from sysquant.features import (
    Bar,
    FeatureGraph,
    ema,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    std,
    zscore,
)

SPAN = 50  # bars
RUNS = 5


def median_s(call):
    """Median seconds of a call, after one that compiles."""
    call()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peers(close):
    """Indicator -> peer -> call over the same values."""
    series = pd.Series(close)
    window = series.rolling(SPAN)
    change = series.diff()
    calls = {
        "ema": {
            "talib": lambda: talib.EMA(close, SPAN),
            "pandas": lambda: series.ewm(span=SPAN, adjust=False).mean(),
        },
        "rsi": {
            "talib": lambda: talib.RSI(close, SPAN),
            "pandas": lambda: [
                x.ewm(alpha=1 / SPAN, adjust=False).mean()
                for x in (change.clip(lower=0), change.clip(upper=0))
            ],
        },
        "zscore": {
            "talib": lambda: (close - talib.SMA(close, SPAN)) / talib.STDDEV(close, SPAN),
            "pandas": lambda: (series - window.mean()) / window.std(),
        },
        "rolling_max": {"talib": lambda: talib.MAX(close, SPAN), "pandas": window.max},
        "sma": {"talib": lambda: talib.SMA(close, SPAN), "pandas": window.mean},
        "std": {"talib": lambda: talib.STDDEV(close, SPAN), "pandas": window.std},
    }
    if importlib.util.find_spec("bottleneck"):
        import bottleneck as bn  # pyright: ignore

        calls["rolling_max"]["bottleneck"] = lambda: bn.move_max(close, SPAN)
        calls["sma"]["bottleneck"] = lambda: bn.move_mean(close, SPAN)
        calls["std"]["bottleneck"] = lambda: bn.move_std(close, SPAN, ddof=1)
        calls["zscore"]["bottleneck"] = lambda: (
            (close - bn.move_mean(close, SPAN)) / bn.move_std(close, SPAN)
        )
    return calls


def compare(rows):
    """Prints one line per indicator."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-4, rows)))
    builders = {f.__name__: f for f in (ema, rsi, zscore, rolling_max, sma, std)}
    for name, calls in peers(close).items():
        graph = FeatureGraph({name: builders[name](Bar().close, SPAN)})
        ours = median_s(lambda graph=graph: graph.run({"close": close}))
        theirs = {peer: median_s(call) for peer, call in calls.items()}
        listed = "  ".join(f"{p} {s * 1e9 / rows:6.1f}" for p, s in theirs.items())
        ratio = ours / min(theirs.values())
        print(f"{name:12} ours {ours * 1e9 / rows:6.1f} ns/bar  {listed}  ratio {ratio:.2f}")


def stream(bars=20_000):
    """Prints microseconds per bar of 30 features, one bar at a time."""
    bar = Bar()
    kinds = (ema, rsi, zscore, rolling_max, rolling_min, std)
    features = {f"{f.__name__}{n}": f(bar.close, n) for f in kinds for n in (5, 10, 20, 50, 100)}
    graph = FeatureGraph(features)
    prices = 100 + np.random.default_rng(1).random((bars, 1))
    seconds = median_s(lambda: [graph.advance({"close": price}) for price in prices])
    print(
        f"stream of {len(features)} features, one bar at a time: {seconds / bars * 1e6:.2f} us/bar"
    )


if __name__ == "__main__":
    compare(int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000)
    stream()
