"""What the source of a strategy may not say, and what it may."""

import pytest

from sysquant.purity import remarks


def kinds(source):
    return {one.kind for one in remarks(source, most_numbers=20)}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("import os", "import"), ("import requests", "import"), ("from . import other", "import"),
        ("from sysquant import history", "import"), ("import sysquant.store", "import"),
        ("from sysquant.archive import bars", "import"), ("import numpy, socket", "import"),
        ("from functools import lru_cache", "memory"), ("import functools as f\n@f.cache\n"
        "def x():\n    return 1", "memory"),
        ("from numpy.random import default_rng", "chance"), ("np.random.rand()", "chance"),
        ("id(x)", "chance"), ("hash('a')", "chance"), ("map(hash, x)", "chance"),
        ("np.datetime64('now')", "clock"), ("x.astype('M8[s]')\ny = 'today'", "clock"),
        ("pd.Timestamp.now()", "clock"), ("pd.Timestamp.utcnow", "clock"),
        ("pd.read_csv('x')", "file"), ("np.load('x')", "file"), ("open('x')", "file"),
        ("np.memmap('x')", "file"), ("frame.to_parquet('x')", "file"),
        ("from numpy import genfromtxt", "file"), ("from pandas import read_csv", "file"),
        ("from scipy.io import wavfile", "file"),
        ("eval('1')", "hidden"), ("exec(x)", "hidden"), ("__import__('os')", "hidden"),
        ("getattr(x, 'y')", "hidden"), ("globals()['x']", "hidden"), ("x.__dict__", "hidden"),
        ("object.__setattr__(x, 'y', 1)", "hidden"), ("setattr(x, 'y', 1)", "hidden"),
        ("from numba import objmode", "hidden"), ("().__class__.__bases__", "hidden"),
        ("def f():\n    global x\n    x = 1", "memory"),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2", "memory"),
        ("def f():\n    SEEN.append(1)", "memory"), ("def f():\n    SEEN['x'] = 1", "memory"),
        ("def f():\n    del SEEN['x']", "memory"), ("def f():\n    SEEN[0] += 1", "memory"),
        ("def f(x):\n    np.copyto(SEEN, x)", "memory"), ("def f(x):\n    f.count = 1", "memory"),
        ("def f(x):\n    np.add(x, 1, out=SEEN)", "memory"),
        ("def f():\n    x = []\n    def g():\n        x.append(1)\n    return g", "memory"),
        ("f = lambda x: SEEN.append(x)", "memory"), ("class A:\n    def f(self):\n"
        "        A.n += 1", "memory"), ("class A:\n    def f(self):\n        self.n = 1", "memory"),
        ("X = []", "state"), ("X: dict = {}", "state"), ("X = np.zeros(3)", "state"),
        ("X = ([],)", "state"), ("X = [i for i in y]", "state"), ("X = defaultdict(int)", "state"),
        ("class A:\n    x = set()", "state"), ("def f(x=[]):\n    pass", "state"),
        ("def f(*, x={}):\n    pass", "state"), ("def f(x=list()):\n    pass", "state"),
        (f"X = ({', '.join(['1.5'] * 30)})", "table"),
        (f"def f(x):\n    return np.take([{', '.join(['1.5'] * 30)}], x)", "table"),
    ],
)  # fmt: skip
def test_what_lets_something_in_is_told(line, kind):
    assert kind in kinds(f"import numpy as np\nimport pandas as pd\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "from __future__ import annotations", "from typing import ClassVar",
        "from dataclasses import dataclass", "import scipy.stats as st", "import math",
        "from sysquant import Strategy", "from sysquant.features import lag, ema",
        "from sysquant.strategies.momentum import Momentum", "from sysquant.compiled import kernel",
        "YEAR = 365.25 * 86_400", "NAMES = ('a', 'b')", "X = tuple(i for i in range(3))",
        "X = frozenset({1, 2})", "class A:\n    x: int = 3", "class A:\n    of: B = B()",
        "def f(state, x):\n    state[0] = x\n    return state[0]",
        "def f(x):\n    found = []\n    found.append(x)\n    found[0] += 1\n    return found",
        "def f(bar):\n    return getattr(bar, 'close')", "def f(x):\n    return np.sort(x)",
        "def f(x):\n    return np.add(x, 1) + np.put_along_axis", "def f(x, y=(1, 2)):\n    pass",
        "def f(x):\n    out = np.zeros(3)\n    np.add(x, 1, out=out)\n    return out",
        "def f(x):\n    'It is now.'\n    return {'a': x, **x}", "type(x).__name__",
    ],
)  # fmt: skip
def test_what_a_strategy_is_made_of_is_let_be(line):
    assert not remarks(f"import numpy as np\n{line}\n")


def test_a_remark_tells_its_line_and_the_way_out():
    (one,) = remarks("import math\n\n\ndef f(x):\n    return hash(x)\n")
    assert (one.line, one.kind) == (5, "chance")
    assert one.text.startswith("hash(...) draws at random: the same bars must always give")
