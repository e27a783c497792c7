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

from sysquant import features
from sysquant.features import Bar, FeatureGraph, ema, rolling_max, rolling_min, rsi, std, zscore
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
        "rolling_sum": {"talib": lambda: talib.SUM(close, SPAN), "pandas": window.sum},
        "wma": {"talib": lambda: talib.WMA(close, SPAN)},
        "kama": {"talib": lambda: talib.KAMA(close, SPAN)},
        "rolling_median": {"pandas": window.median},
        "rolling_rank": {"pandas": lambda: window.rank(pct=True)},
    }
    if report.is_installed("bottleneck"):
        import bottleneck as bn  # pyright: ignore

        calls["rolling_max"]["bottleneck"] = lambda: bn.move_max(close, SPAN)
        calls["sma"]["bottleneck"] = lambda: bn.move_mean(close, SPAN)
        calls["std"]["bottleneck"] = lambda: bn.move_std(close, SPAN, ddof=1)
        calls["rolling_sum"]["bottleneck"] = lambda: bn.move_sum(close, SPAN)
        calls["rolling_median"]["bottleneck"] = lambda: bn.move_median(close, SPAN)
        calls["rolling_rank"]["bottleneck"] = lambda: bn.move_rank(close, SPAN)
        calls["zscore"]["bottleneck"] = lambda: (
            (close - bn.move_mean(close, SPAN)) / bn.move_std(close, SPAN)
        )
    return calls


def compare(size, rounds):
    """Prints one line per indicator; their rows."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-4, size)))
    rows = []
    for name, calls in peers(close).items():
        graph = FeatureGraph({name: getattr(features, name)(Bar().close, SPAN)})
        calls = {"ours": lambda graph=graph: graph.run({"close": close})} | calls
        ways = {peer: lambda call=call: call for peer, call in calls.items()}
        seconds = {peer: took for peer, (took, _) in report.in_turns(ways, rounds).items()}
        ours, fastest = seconds.pop("ours"), min(seconds.values())
        listed = "  ".join(f"{p} {took * 1e9 / size:6.1f}" for p, took in seconds.items())
        print(f"{name:14} ours {ours * 1e9 / size:6.1f} ns/bar  {listed}")
        rows.append(report.row(f"features_{name}", size / ours, size / fastest, "bars/s"))
    return rows


def stream(size, rounds):
    """The rows of 30 features, one bar at a time: the same few, and thirty that all differ."""
    bar = Bar()
    kinds = (ema, rsi, zscore, rolling_max, rolling_min, std)
    alike = {f"{f.__name__}{n}": f(bar.close, n) for f in kinds for n in (5, 10, 20, 50, 100)}
    draw = np.random.default_rng(1)
    prices = 100 + draw.random((size, 1))
    columns = [
        {"open": p, "high": p + 1, "low": p - 1, "close": p, "volume": p, "ts": p * 1e16}
        for p in prices
    ]
    rows = []
    for name, wanted in (("stream", alike), ("stream_mixed", mixed(bar))):
        graph = FeatureGraph(wanted)

        def run(graph=graph):
            for each in columns:
                graph.advance(each)

        seconds, _ = report.in_turns({"ours": lambda run=run: run}, rounds)["ours"]
        print(f"{name:14} ours {seconds * 1e6 / size:6.2f} us/bar, {len(graph.nodes)} nodes")
        unit = f"bars/s of {len(wanted)} features, singly"
        rows.append(report.row(f"features_{name}", size / seconds, None, unit))
    return rows


def mixed(bar):
    """Thirty features of every kind."""
    close, f = bar.close, features
    score = f.zscore(close, 100)
    listed = [
        f.ema(close, 20), f.sma(close, 50), f.wma(close, 20), f.kama(close), f.rsi(close),
        f.ewm_volatility(f.returns(close)), f.rolling_median(close, 50), score,
        f.rolling_rank(close, 50), f.rolling_correlation(close, bar.volume, 50),
        f.half_life(close, 100), f.hurst(f.log(close), 256), f.vwap(bar), f.obv(bar),
        f.volume_imbalance(bar, 20), f.parkinson(bar, 20), f.garman_klass(bar, 20),
        f.drawdown(close), f.atr(bar), f.adx(bar).adx, f.stochastic(bar).d,
        f.hysteresis(score, 2, 0.5, two_sided=True), f.hold(close > bar.open, 5),
        f.every("1h"), f.time_of_day(bar), f.realised_volatility(close, 50),
        *f.macd(close), f.bollinger(close).percent_b,
    ]  # fmt: skip
    return {str(number): expression for number, expression in enumerate(listed)}


def main():
    """Measure, and save every row."""
    options = report.arguments(ROWS, ROUNDS, "bars")
    rows = compare(options.size, options.rounds)
    report.save(rows + stream(options.size // 50, options.rounds))


if __name__ == "__main__":
    main()
