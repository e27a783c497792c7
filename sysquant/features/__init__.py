"""Features: expressions over a bar, their indicators, and their evaluation.

A feature is written once and evaluated by one compiled function, over a history or bar by bar.
"""

from sysquant.features.cross import count_valid, demean, rank, total
from sysquant.features.definition import indicator, step
from sysquant.features.expression import Bar, Expression
from sysquant.features.functions import (
    clip,
    exp,
    isnan,
    log,
    maximum,
    minimum,
    sign,
    sqrt,
    tanh,
    where,
)
from sysquant.features.graph import FeatureGraph
from sysquant.features.indicators import (
    atr,
    ema,
    lag,
    returns,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    std,
    zscore,
)

__all__ = [
    "Bar",
    "Expression",
    "FeatureGraph",
    "atr",
    "clip",
    "count_valid",
    "demean",
    "ema",
    "exp",
    "indicator",
    "isnan",
    "lag",
    "log",
    "maximum",
    "minimum",
    "rank",
    "returns",
    "rolling_max",
    "rolling_min",
    "rsi",
    "sign",
    "sma",
    "sqrt",
    "std",
    "step",
    "tanh",
    "total",
    "where",
    "zscore",
]
