"""Features: expressions over a bar, their indicators, and their evaluation.

A feature is written once and evaluated by one compiled function, over a history or bar by bar.
"""

from sysquant.features.averages import (
    ema,
    kama,
    sma,
    wilder,
    wma,
)
from sysquant.features.bands import (
    bollinger,
    donchian,
    keltner,
)
from sysquant.features.calendar import (
    day_of_week,
    every,
    time_of_day,
)
from sysquant.features.changes import (
    diff,
    drawdown,
    lag,
    log_returns,
    returns,
)
from sysquant.features.cross import (
    count_valid,
    demean,
    rank,
    total,
)
from sysquant.features.definition import (
    indicator,
    step,
)
from sysquant.features.expression import (
    Bar,
    Expression,
)
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
from sysquant.features.graph import (
    FeatureGraph,
)
from sysquant.features.oscillators import (
    adx,
    macd,
    rsi,
    stochastic,
)
from sysquant.features.pairs import (
    rolling_beta,
    rolling_correlation,
    rolling_covariance,
)
from sysquant.features.persistence import (
    half_life,
    hurst,
)
from sysquant.features.ranks import (
    rolling_median,
    rolling_quantile,
    rolling_rank,
)
from sysquant.features.signals import (
    bars_since,
    cooldown,
    hold,
    hysteresis,
    latch,
)
from sysquant.features.volatility import (
    atr,
    ewm_volatility,
    garman_klass,
    parkinson,
    realised_volatility,
)
from sysquant.features.volume import (
    obv,
    rolling_vwap,
    volume_imbalance,
    vwap,
)
from sysquant.features.windows import (
    rolling_max,
    rolling_min,
    rolling_sum,
    std,
    zscore,
)

__all__ = [
    "Bar",
    "Expression",
    "FeatureGraph",
    "adx",
    "atr",
    "bars_since",
    "bollinger",
    "clip",
    "cooldown",
    "count_valid",
    "day_of_week",
    "demean",
    "diff",
    "donchian",
    "drawdown",
    "ema",
    "every",
    "ewm_volatility",
    "exp",
    "garman_klass",
    "half_life",
    "hold",
    "hurst",
    "hysteresis",
    "indicator",
    "isnan",
    "kama",
    "keltner",
    "lag",
    "latch",
    "log",
    "log_returns",
    "macd",
    "maximum",
    "minimum",
    "obv",
    "parkinson",
    "rank",
    "realised_volatility",
    "returns",
    "rolling_beta",
    "rolling_correlation",
    "rolling_covariance",
    "rolling_max",
    "rolling_median",
    "rolling_min",
    "rolling_quantile",
    "rolling_rank",
    "rolling_sum",
    "rolling_vwap",
    "rsi",
    "sign",
    "sma",
    "sqrt",
    "std",
    "step",
    "stochastic",
    "tanh",
    "time_of_day",
    "total",
    "volume_imbalance",
    "vwap",
    "where",
    "wilder",
    "wma",
    "zscore",
]
