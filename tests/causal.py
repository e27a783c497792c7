"""Strategies that decide by their bars alone, in all the ways that the features allow: sources."""

from tests.leaks import HEAD

_IMPORTS = """
import math

import numpy as np
from numba import njit
from sysquant import Strategy
from sysquant import features as ft
from sysquant.features import indicator, step
from sysquant.features.expression import Expression, Operation, as_expression
from sysquant.models.labels import CLASSES

YEAR = 365.25 * 86_400.0  # seconds
WEIGHTS = (0.5, 0.3, 0.2)
"""


def _of(features: str, target: str = "np.sign(f['x'])", before: str = "", own: str = "") -> str:
    lines = f"class Own(Strategy):\n{own}    def features(self, bar):\n        return {features}\n"
    return f"{_IMPORTS}\n{before}\n\n{lines}\n    def target(self, f):\n        return {target}\n"


_HELD = """
@step(state=2)
def peak(state, x, keep: float):
    state[0] = max(x, keep * state[0])
    state[1] += 1.0
    return state[0] if state[1] > 5 else math.nan
"""
_TABLE = """
@step(state=3)
def weighed(state, x):
    state[2], state[1], state[0] = state[1], state[0], x
    return WEIGHTS[0] * state[0] + WEIGHTS[1] * state[1] + WEIGHTS[2] * state[2]
"""
_KERNEL = """
@njit(nogil=True, error_model="numpy")
def kernel(state, inputs, params, out):
    for i in range(out.shape[0]):
        out[i] = inputs[0, i] - state[0]
        state[0] = inputs[0, i]


@indicator(kernel, first_state=lambda: (math.nan,))
def change(x):
    return [x], ()
"""
_ACROSS = """
def widest(values, starts, out):
    for first, last in zip(starts[:-1], starts[1:]):
        mark = values[first:last]
        out[first:last] = mark - mark[0]


WIDEST = Operation("widest", across=widest)
"""

CLEAN = {
    "step_with_memory": _of("{'x': bar.close - peak(bar.close, 0.99)}", before=_HELD),
    "step_with_a_few_weights": _of("{'x': bar.close - weighed(bar.close)}", before=_TABLE),
    "kernel_of_ones_own": _of("{'x': change(bar.close)}", before=_KERNEL),
    "across_of_ones_own": _of("{'x': Expression(WIDEST, [bar.close])}", before=_ACROSS),
    "ranked": _of("{'x': ft.rank(ft.returns(bar.close, 5)) - 0.5}"),
    "dispersion": _of("{'x': ft.demean(ft.returns(bar.close)), 'n': ft.count_valid(bar.close)}",
                      "np.where(f['n'] > 1, np.sign(f['x']), np.nan)"),
    "shares_of_all": _of("{'x': ft.diff(bar.close) / ft.total(abs(ft.diff(bar.close)))}",
                         "np.clip(np.nan_to_num(f['x']), -1, 1)"),
    "longer_bars": _of("{'x': ft.diff(bar.every('5m').close), 'v': bar.every('15m').high}"),
    "longer_and_shorter": _of("{'x': bar.close - ft.sma(bar.every('10m').close, 3)}"),
    "another_symbol": _of("{'x': ft.returns(bar['B'].close, 3) - ft.returns(bar.close, 3)}"),
    "calendar": _of("{'x': ft.time_of_day(bar) - 12.0, 'd': ft.day_of_week(bar)}",
                    "np.where(f['d'] < 5, np.sign(f['x']), 0.0)"),
    "of_a_session": _of("{'x': bar.close / ft.vwap(bar) - 1.0}"),
    "windows": _of("{'x': ft.zscore(bar.close, 20), 'r': ft.rolling_rank(bar.close, 30)}",
                   "np.where(f['r'] > 0.9, -np.sign(f['x']), np.nan)"),
    "oscillators": _of("{'x': ft.rsi(bar.close, 14) - 50.0, 'm': ft.macd(bar.close).histogram}"),
    "volatility": _of("{'x': ft.atr(bar, 14) / ft.ewm_volatility(ft.returns(bar.close), 20)}"),
    "held_for_a_while": _of("{'x': ft.hold(ft.zscore(bar.close, 20) > 1.5, 10)}", "f['x']"),
    "latched": _of("{'x': ft.hysteresis(ft.zscore(bar.close, 15), 1.0, 0.0)}", "f['x']"),
    "regressed": _of("{'x': ft.rolling_beta(ft.returns(bar.close), "
                     "ft.returns(bar['A'].close), 30)}", "np.clip(f['x'], -1, 1)"),
    "field_by_parameter": _of("{'x': ft.diff(getattr(bar, self.field))}",
                              own="    field: str = 'high'\n\n"),
    "of_another_strategy": _of(
        "{**self.of.features(bar), 'x': ft.diff(bar.close)}", "np.abs(self.of.target(f)) * 0.5",
        before="from sysquant.strategies.mean_reversion import MeanReversion\n",
        own="    of: Strategy = MeanReversion(span=20, enter=1.0)\n\n",
    ),
    "with_a_model": _of(
        "{'x': ft.diff(bar.close), 'r': ft.rsi(bar.close, 5)}",
        "self.model.proba(f)['up'] - self.model.proba(f)['down']", own="    classes = CLASSES\n\n",
    ),
    "own_classes": _of(
        "{'x': ft.returns(bar.close, 2)}", "np.where(self.model.proba(f)['buy'] > 0.5, 1.0, 0.0)",
        own="    classes = ('buy', 'not')\n\n",
    ),
    "legs": _of(
        "{'x': ft.zscore(ft.log(bar['A'].close) - ft.log(bar['B'].close), 20)}",
        "{'A': -np.sign(f['x']) / 2, 'B': np.sign(f['x']) / 2}",
        own="    def legs(self):\n        return ('A', 'B')\n\n",
    ),
    "constants": _of("{'x': bar.close * 0 + 1.0}", "np.full_like(f['x'], 0.25)"),
    "plain_base": HEAD + "\n\nclass Own(Base):\n    def features(self, bar):\n"
                  "        return {'x': ema(bar.close, 5), 'y': lag(bar.close, 3)}\n",
}  # fmt: skip
