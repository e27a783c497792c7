"""Bars of several symbols as columns, by (ts, symbol): of a bar end, some symbols have none."""

import itertools

import numpy as np

from sysquant.types import SECOND

MINUTE = 60 * SECOND
NAMES = ("A", "B", "C", "D")
LENGTH = 240  # bar ends


def market(seed, length=LENGTH, names=NAMES, missing=0.3):
    """Random minute bars; a share `missing` of them is not there."""
    random = np.random.default_rng(seed)
    wide = len(names)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, (length, wide)), axis=0))
    columns = {
        "open": close * (1 + random.normal(0, 0.005, close.shape)),
        "high": close * 1.01,
        "low": close * 0.99,
        "close": close,
        "volume": random.integers(1, 5, close.shape).astype(float),
        "ts": np.repeat(MINUTE * (1 + np.arange(length)), wide).reshape(length, wide),
        "symbol": np.tile(np.arange(wide, dtype=np.int32), (length, 1)),
    }
    there = random.random(close.shape) >= missing
    return {name: column[there] for name, column in columns.items()}


def pieces(columns, cuts):
    """Cut after these bar ends, as the engine may."""
    last = columns["ts"][-1] + 1
    at = np.searchsorted(columns["ts"], [0, *(MINUTE * cut + 1 for cut in sorted(cuts)), last])
    return [{k: v[a:b] for k, v in columns.items()} for a, b in itertools.pairwise(at)]


def same(left, right):
    """Whether two mappings of arrays are equal, bit for bit."""
    return {k: v.tobytes() for k, v in left.items()} == {k: v.tobytes() for k, v in right.items()}
