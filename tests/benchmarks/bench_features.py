"""Feature kernels against TA-Lib, pandas and bottleneck, and the price of one bar in a stream.

Prints medians of several runs over the same values; what is not installed is left out. Run it
alone: `python tests/benchmarks/bench_features.py [rows] [rounds]`. Saved is the rate of each
indicator, and that of the fastest peer.
"""

import sys
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
from tests.benchmarks import report

SPAN = 50  # bars
ROWS, ROUNDS = 1_000_000, 5


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
    if report.is_installed("bottleneck"):
        import bottleneck as bn  # pyright: ignore

        calls["rolling_max"]["bottleneck"] = lambda: bn.move_max(close, SPAN)
        calls["sma"]["bottleneck"] = lambda: bn.move_mean(close, SPAN)
        calls["std"]["bottleneck"] = lambda: bn.move_std(close, SPAN, ddof=1)
        calls["zscore"]["bottleneck"] = lambda: (
            (close - bn.move_mean(close, SPAN)) / bn.move_std(close, SPAN)
        )
    return calls


def compare(size, rounds):
    """Prints one line per indicator; their rows."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-4, size)))
    builders = {f.__name__: f for f in (ema, rsi, zscore, rolling_max, sma, std)}
    rows = []
    for name, calls in peers(close).items():
        graph = FeatureGraph({name: builders[name](Bar().close, SPAN)})
        calls = {"ours": lambda graph=graph: graph.run({"close": close})} | calls
        ways = {peer: lambda call=call: call for peer, call in calls.items()}
        seconds = {peer: took for peer, (took, _) in report.in_turns(ways, rounds).items()}
        ours, fastest = seconds.pop("ours"), min(seconds.values())
        listed = "  ".join(f"{p} {took * 1e9 / size:6.1f}" for p, took in seconds.items())
        print(f"{name:12} ours {ours * 1e9 / size:6.1f} ns/bar  {listed}")
        rows.append(report.row(f"features_{name}", size / ours, size / fastest, "bars/s"))
    return rows


def stream(size, rounds):
    """The row of 30 features, one bar at a time."""
    bar = Bar()
    kinds = (ema, rsi, zscore, rolling_max, rolling_min, std)
    features = {f"{f.__name__}{n}": f(bar.close, n) for f in kinds for n in (5, 10, 20, 50, 100)}
    graph = FeatureGraph(features)
    prices = 100 + np.random.default_rng(1).random((size, 1))

    def run():
        for price in prices:
            graph.advance({"close": price})

    seconds, _ = report.in_turns({"ours": lambda: run}, rounds)["ours"]
    return [report.row("features_stream", size / seconds, None, "bars/s of 30 features, singly")]


def main():
    """Measure, and save every row."""
    options = report.arguments(ROWS, ROUNDS, "bars")
    rows = compare(options.size, options.rounds)
    report.save(rows + stream(options.size // 50, options.rounds))


if __name__ == "__main__":
    main()
