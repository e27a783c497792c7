"""Strategies that know what they cannot: each the source of a module, and the reason to catch it.

A `Leak` is written as a person would move it from a notebook into `sysquant/strategies`. Its reason
is a part of the sentence of the check that must see it, whatever else is said of it; many leaks are
seen by several.
"""

from typing import NamedTuple

HEAD = '''
import numpy as np
import pandas as pd
from numba import njit
from sysquant import Strategy
from sysquant.features import ema, indicator, lag, returns, sma, step
from sysquant.features.expression import Expression, Operation, as_expression


def whole(name, function):
    """A feature made of a whole column at once, symbol by symbol: what no stream has."""

    def across(values, starts, out):
        wide = int(np.max(np.diff(starts)))
        for number in range(wide):
            out[number::wide] = function(values[number::wide])

    operation = Operation(name, across=across)
    return lambda x: Expression(operation, [as_expression(x)])


class Base(Strategy):
    def target(self, f):
        return np.sign(f["x"] - f["y"])
'''


class Leak(NamedTuple):
    """A strategy, and by which sentence it is caught.

    Parameters
    ----------
    name : of it.
    source : of its module, after `HEAD`; the class is called `Own`.
    reason : a regular expression that one of the failures must hold.
    """

    name: str
    source: str
    reason: str


_ARRAY = r"feature 'x' .* in the array form and .* the stream form"


def _whole(name: str, body: str, reason: str = _ARRAY) -> Leak:
    # A column at once: `body` is of `v`, (n,) closes.
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    source = (
        f"def function(v):\n{lines}\n\n\nFEATURE = whole({name!r}, function)\n\n\n"
        "class Own(Base):\n    def features(self, bar):\n"
        "        return {'x': FEATURE(bar.close), 'y': bar.close}\n"
    )
    return Leak(name, source, reason)


_REFUSED = r"target must look at every bar by itself"


def _target(name: str, line: str, reason: str = _REFUSED) -> Leak:
    source = (
        "class Own(Base):\n    def features(self, bar):\n"
        "        return {'x': bar.close, 'y': sma(bar.close, 5), 'ts': bar.ts}\n\n"
        f"    def target(self, f):\n        x, y, ts = f['x'], f['y'], f['ts']\n        {line}\n"
    )
    return Leak(name, source, reason)


COLUMNS = [
    _whole("shift_minus_one", "return pd.Series(v).shift(-1).to_numpy()"),
    _whole("roll_minus_one", "return np.roll(v, -1)"),
    _whole("centred_window", "return pd.Series(v).rolling(9, center=True).mean().to_numpy()"),
    _whole("global_min", "return np.full(len(v), v.min() * 1.001)"),
    _whole("global_max", "return np.full(len(v), v.max() * 0.999)"),
    _whole("global_mean", "return np.full(len(v), v.mean())"),
    _whole("global_std", "return v[0] + np.full(len(v), v.std())"),
    _whole("scaler_fitted_on_all", "return 100 + (v - v.mean()) / (v.std() + 1e-9)"),
    _whole("gradient", "return v + (np.gradient(v) if len(v) > 1 else 0 * v)"),
    _whole("backfilled", "s = pd.Series(v)\nreturn s.where(s % 0.5 < 0.1).bfill().to_numpy()"),
    _whole(
        "interpolated",
        "s = pd.Series(v)\nreturn s.where(np.arange(len(v)) % 7 == 0).interpolate().to_numpy()",
    ),
    _whole("whole_rank", "return 100 + pd.Series(v).rank(pct=True).to_numpy()"),
    _whole("whole_quantile", "return np.full(len(v), np.quantile(v, 0.6))"),
    _whole("argsort", "return 100 + np.argsort(np.argsort(v)) / len(v)"),
    _whole("convolved_same", "return np.convolve(v, np.ones(5) / 5, mode='same')[: len(v)]"),
    _whole(
        "filtered_both_ways",
        "from scipy.signal import butter, filtfilt\n"
        "b, a = butter(2, 0.1)\n"
        "return filtfilt(b, a, v) if len(v) > 12 else v",
    ),
    _whole(
        "fourier_smoothed",
        "w = np.fft.rfft(v)\nw[max(2, len(w) // 8) :] = 0\nreturn np.fft.irfft(w, len(v))",
    ),
    _whole("sum_from_the_end", "return np.cumsum(v[::-1])[::-1] / 100"),
    _whole(
        "resampled_left",
        "s = pd.Series(v, pd.date_range('2024-01-01', periods=len(v), freq='min'))\n"
        "return s.resample('15min', label='left').last().reindex(s.index, method='ffill')",
    ),
    _whole(
        "longer_close_early",
        "n = len(v)\nreturn v[np.minimum(n - 1, np.arange(n) // 5 * 5 + 4)]",
    ),
    _whole(
        "span_chosen_on_all",
        "n = 2 + int(v.std() * 1000) % 7\nreturn pd.Series(v).rolling(n, 1).mean().to_numpy()",
    ),
    _whole("length_of_the_array", "return v + len(v) % 3 - 1"),
    _whole("place_from_the_end", "return v - (len(v) - np.arange(len(v))) / 1e3"),
    _whole("only_when_it_is_long", "return np.roll(v, -1) if len(v) > 200 else v"),
    _whole("one_bar_of_all", "x = v.copy()\nif len(v) > 151:\n    x[150] = v[151]\nreturn x"),
    _whole(
        "only_at_one_price",
        "x = v.copy()\nat = np.flatnonzero(v[:-1] == v.max())\n"
        "x[at] = v[at + 1]\nreturn x",
        r"feature 'x' of A .* rests on what came after",
    ),
    _whole(
        "outliers_of_all_clipped",
        "low, high = np.quantile(v, [0.01, 0.9])\nreturn np.clip(v, low, high)",
    ),
    _whole(
        "detrended",
        "n = np.arange(len(v))\n"
        "return v if len(v) < 3 else v + np.polyval(np.polyfit(n, v, 1), n) / 100",
    ),
    _whole(
        "turning_points",
        "x = v.copy()\nx[1:-1] += (v[1:-1] < v[:-2]) & (v[1:-1] < v[2:])\nreturn x",
    ),
    _whole(
        "smoothed_both_ways",
        "s = pd.Series(v)\nback = s[::-1].ewm(span=9).mean()[::-1]\n"
        "return ((s.ewm(span=9).mean() + back) / 2).to_numpy()",
    ),
]  # fmt: skip

TARGETS = [
    _target("target_of_the_next_bar", "return np.sign(np.roll(x, -1) - x)"),
    _target("target_against_the_mean", "return np.where(x > x.mean(), 1.0, -1.0)"),
    _target("target_ranked", "return 2.0 * np.argsort(np.argsort(x)) / len(x) - 1.0"),
    _target("target_scaled_by_all", "return np.clip((x - y) / np.abs(x - y).max(), -1, 1)"),
    _target("target_at_random", "return np.random.default_rng().uniform(-1, 1, len(x))"),
    _target("target_by_global_seed", "return np.full(len(x), np.random.rand())",
            r"np.random`? draws at random"),
    _target(
        "target_reads_a_file",
        "known = pd.read_csv(DATA)\n        at = np.searchsorted(known['ts'], ts, side='right')\n"
        "        return np.sign(known['close'].to_numpy()[np.minimum(at, len(known) - 1)] - x)",
        r"reads or writes the file .*later.csv",
    ),
]  # fmt: skip
_target_clock = [
    ("time_time", "import time", "time.time() % 2", r"reads a clock, time.time"),
    ("monotonic", "import time", "time.monotonic() % 2", r"reads a clock, time.monotonic"),
    ("time_ns", "from time import time_ns", "time_ns() % 2", r"reads a clock, time.time_ns"),
    ("datetime_now", "from datetime import datetime", "datetime.now().second % 2",
     r"reads a clock, datetime.now"),
    ("timestamp_now", "", "pd.Timestamp.now().second % 2", r"reads a clock, pandas.Timestamp.now"),
    ("datetime64_now", "", "np.datetime64('now').astype(int) % 2", r"'now' reads a clock"),
]  # fmt: skip
CLOCKS = [
    Leak(
        f"clock_{name}",
        f"{line}\n\n\nclass Own(Base):\n    def features(self, bar):\n"
        "        return {'x': bar.close, 'y': sma(bar.close, 5)}\n\n    def target(self, f):\n"
        f"        return np.sign(f['x'] - f['y']) * (1.0 if {said} >= 1 else 0.5)\n",
        reason,
    )
    for name, line, said, reason in _target_clock
]

_REMEMBERS = r"in the same instance, asked again|after it was shown other bars|keeps what it saw"
_CACHED = "        return {'x': FEATURE(bar.close), 'y': bar.close}\n"


def _cached(name: str, before: str, function: str, reason: str = _REMEMBERS) -> Leak:
    lines = "\n".join(f"    {line}" for line in function.strip().splitlines())
    source = (
        f"{before}\n\n\ndef function(v{', seen=[]' if 'seen' in function else ''}):\n{lines}\n\n\n"
        f"FEATURE = whole({name!r}, lambda v: function(v))\n\n\n"
        f"class Own(Base):\n    def features(self, bar):\n{_CACHED}"
    )
    return Leak(name, source, reason)


MEMORIES = [
    _cached("module_list", "SEEN = []", "SEEN.append(v[-1])\nreturn v - len(SEEN) / 10",
            r"asked again, .*it remembers"),
    _cached("module_dict_of_the_future", "LAST = {}",
            "x = v + LAST.get('mean', 0.0)\nLAST['mean'] = v.mean() / 1e4\nreturn x",
            r"asked again, .*it remembers"),
    _cached("mutable_default", "", "seen.append(v.mean())\nreturn v - len(seen) / 10",
            r"asked again, .*it remembers"),
    _cached("function_attribute", "",
            "function.count = getattr(function, 'count', 0) + 1\nreturn v - function.count / 10",
            r"asked again, .*it remembers"),
    _cached("global_statement", "COUNT = 0",
            "global COUNT\nCOUNT += 1\nreturn v - COUNT / 10", r"`global COUNT` keeps what it saw"),
    _cached("environment_variable", "import os",
            "n = int(os.environ.get('SEEN_BARS', '0'))\nos.environ['SEEN_BARS'] = str(len(v))\n"
            "return v - n / 1e4", r"asks the environment for SEEN_BARS"),
    _cached("file_as_memory", "from pathlib import Path",
            "p = Path(DATA).with_suffix('.seen')\nn = len(p.read_text()) if p.exists() else 0\n"
            "p.write_text('x' * (n + 1))\nreturn v - n / 1e4",
            r"reads or writes the file .*later.seen"),
    _cached("lru_cache", "from functools import lru_cache\n\n\n@lru_cache\ndef level(n):\n"
            "    return KEPT[-1]\n\n\nKEPT = []",
            "KEPT.append(float(v.mean()))\nreturn v - level(1) / 1e3",
            r"lru_cache keeps what it saw"),
    Leak("class_attribute", '''
class Own(Base):
    classes_seen: int = 0

    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def target(self, f):
        Own.classes_seen += 1
        return np.sign(f["x"] - f["y"]) * (1.0 if Own.classes_seen < 2 else 0.5)
''', r"setting `Own.classes_seen` keeps what it saw"),
    Leak("closure_list", '''
def made():
    seen = []

    def function(v):
        seen.append(v[-1])
        return v - len(seen) / 10

    return function


FEATURE = whole("closure", made())


class Own(Base):
    def features(self, bar):
        return {"x": FEATURE(bar.close), "y": bar.close}
''', r"asked again, .*it remembers"),
    Leak("attribute_forced", '''
class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def target(self, f):
        n = self.__dict__.get("n", 0)
        object.__setattr__(self, "n", n + 1)
        return np.sign(f["x"] - f["y"]) / (1.0 + n)
''', r"object.__setattr__` hides|at every bar by itself"),
]  # fmt: skip

OUTSIDE = [
    Leak("step_of_a_global_array", '''
FUTURE = np.array(pd.read_csv(DATA)["close"])


@step(state=1)
def later(state, x):
    state[0] += 1
    return FUTURE[min(int(state[0]) + 1, len(FUTURE) - 1)]


class Own(Base):
    def features(self, bar):
        return {"x": later(bar.close), "y": bar.close}
''', r"holds FUTURE, a table of [\d,]+ values"),
    Leak("table_in_the_source", '''
FUTURE = (''' + ", ".join(f"{100 + i % 7}.25" for i in range(400)) + ''')


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5), "ts": bar.ts}

    def target(self, f):
        return np.sign(np.take(FUTURE, f["ts"].astype(int) // 60_000_000_000 % 400) - f["x"])
''', r"a literal of 400 values carries a table|holds FUTURE"),
    Leak("joined_later_close_of_another", '''
OTHER = pd.read_csv(DATA)


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5), "ts": bar.ts}

    def target(self, f):
        at = np.searchsorted(OTHER["ts"], f["ts"] + 300_000_000_000)
        return np.sign(OTHER["close"].to_numpy()[np.minimum(at, len(OTHER) - 1)] - f["x"])
''', r"reads or writes the file .*later.csv"),
    Leak("other_symbol_a_bar_ahead", '''
def ahead(values, starts, out):
    out[:-2] = values[2:]
    out[-2:] = values[-2:]


AHEAD = Operation("ahead", across=ahead)


class Own(Base):
    def features(self, bar):
        return {"x": Expression(AHEAD, [bar["B"].close]), "y": bar.close}
''', _ARRAY),
    Leak("parameter_of_the_whole_history", '''
LEVEL = float(np.loadtxt(DATA, delimiter=",", skiprows=1)[:, 1].mean())


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": 0 * bar.close + LEVEL}
''', r"reads or writes the file .*later.csv"),
    Leak("only_on_one_date", '''
@njit
def kernel(state, inputs, params, out):
    for i in range(len(out)):
        is_day = inputs[1, i] // 3600e9 == params[0]
        out[i] = inputs[0, min(i + 1, len(out) - 1)] if is_day else inputs[0, i]


@indicator(kernel, first_state=lambda hour: ())
def dated(x, ts, hour):
    return [x, ts], [hour]


class Own(Base):
    def features(self, bar):
        return {"x": dated(bar.close, bar.ts, 472_224), "y": bar.close}
''', _ARRAY),
    Leak("peeking_callback", '''
from sysquant.features.panel import Panel

BEFORE = Panel.advance
LATER = []


def advance(self, columns):
    LATER.append(float(columns["close"][-1]))
    return BEFORE(self, columns)


Panel.advance = advance


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def target(self, f):
        return np.sign(LATER[-1] - f["x"])
''', r"setting `Panel.advance`"),
    Leak("compiled_kernel_of_the_next_bar", '''
@njit
def kernel(state, inputs, params, out):
    for i in range(len(out)):
        out[i] = inputs[0, min(i + 1, len(out) - 1)]


@indicator(kernel, first_state=lambda: ())
def following(x):
    return [x], ()


class Own(Base):
    def features(self, bar):
        return {"x": following(bar.close), "y": bar.close}
''', _ARRAY),
    Leak("python_inside_a_kernel", '''
from numba import objmode


@njit
def kernel(state, inputs, params, out):
    with objmode():
        known = np.loadtxt(DATA, delimiter=",", skiprows=1)
        out[:] = known[-1, 1]


@indicator(kernel, first_state=lambda: ())
def told(x):
    return [x], ()


class Own(Base):
    def features(self, bar):
        return {"x": told(bar.close), "y": bar.close}
''', r"objmode hides"),
    Leak("frame_of_its_own", '''
class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def frame(self, bars, symbols=()):
        frame = super().frame(bars, symbols)
        frame["target"] = np.sign(frame["x"].shift(-2) - frame["x"]).fillna(0.0)
        return frame
''', r"in the array form and .* in Strategy.frame"),
    Leak("reads_the_store", '''
from sysquant import history


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}
''', r"imports sysquant.history"),
    Leak("asks_a_server", '''
import socket


class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def target(self, f):
        with socket.socket() as server:
            return np.sign(f["x"] - f["y"]) * server.connect_ex(("127.0.0.1", 9)) / 1e3
''', r"opens a connection"),
    Leak("code_of_a_text", '''
class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": eval("sma(bar.close, 5)")}
''', r"eval\(\.\.\.\) hides"),
    Leak("identity_of_an_object", '''
class Own(Base):
    def features(self, bar):
        return {"x": bar.close, "y": sma(bar.close, 5)}

    def target(self, f):
        return np.sign(f["x"] - f["y"]) * (0.5 + id(f) % 2 / 2)
''', r"id\(\.\.\.\) draws at random"),
]  # fmt: skip

LEAKS = [*COLUMNS, *TARGETS, *CLOCKS, *MEMORIES, *OUTSIDE]
