"""A notebook's class becomes a module that means the same, or the reason is said."""

import linecache
import math

import numpy as np
import pandas as pd
import pytest

from sysquant.capture import module_text
from sysquant.errors import StrategyError
from sysquant.strategies.momentum import Momentum

NUMBER = iter(range(1_000))
HEAD = """
import math
import numpy as np
import pandas as pd
import numpy.random as luck
from numpy import where
from sysquant import Strategy
from sysquant.features import ema, lag, step
"""
TREND = '''
class Trend(Strategy):
    """Long above the average.

    More of it.
    """

    span: int = 20  # bars

    def features(self, bar):
        return {"close": bar.close, "average": ema(bar.close, self.span)}

    def target(self, f):
        return np.where(f["close"] > f["average"], 1.0, 0.0)
'''


def cell(*sources):
    """Run sources as cells of one notebook: each in a file of its own that only memory has."""
    scope = {"__name__": "__main__"}
    for source in (HEAD, *sources):
        name = f"<cell {next(NUMBER)}>"
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        exec(compile(source, name, "exec"), scope)
    return scope


def loaded(text):
    scope = {"__name__": "sysquant.strategies.captured"}
    exec(compile(text, "captured", "exec"), scope)
    return scope


def test_a_class_of_a_cell_keeps_its_text_and_its_imports():
    text = module_text(cell(TREND)["Trend"])
    assert text.startswith('"""Trend: Long above the average."""\n\nimport numpy as np\n')
    assert "from sysquant import Strategy\nfrom sysquant.features import ema\n" in text
    assert TREND.strip() in text
    assert "pandas" not in text and "where\n" not in text
    walk = pd.DataFrame({"close": np.cumsum(np.ones(50)), "ts": (1 + np.arange(50)) * 3600 * 10**9})
    own, there = cell(TREND)["Trend"](span=7), loaded(text)["Trend"](span=7)
    pd.testing.assert_frame_equal(own.frame(walk), there.frame(walk))


def test_what_it_uses_of_other_cells_comes_with_it_in_order():
    text = module_text(cell(
        "EDGE = 0.5\nSIDES = (-1.0, (1.0,), math.inf)\nUNUSED = 3\n",
        "def above(x):\n    return x > EDGE\n",
        "@step(state=1)\ndef peak(state, x, keep: float):\n"
        "    state[0] = max(x, keep * state[0])\n    return state[0]\n",
        "class Base(Strategy):\n    keep: float = 0.9\n\n    def features(self, bar):\n"
        "        return {'peak': peak(bar.close, keep=self.keep)}\n",
        "class Own(Base):\n    def target(self, f):\n"
        "        return where(above(f['peak']), SIDES[0], 0.0)\n",
    )["Own"])  # fmt: skip
    assert "EDGE = 0.5\n" in text and 'SIDES = (-1.0, (1.0,), float("inf"))\n' in text
    assert "UNUSED" not in text
    places = [text.index(word) for word in ("EDGE =", "def above", "class Base", "class Own")]
    assert places[0] < min(places[1:]) and places[2] < places[3]
    assert text.index("@step") < text.index("class Base")
    own = loaded(text)["Own"](keep=0.5)
    assert own.parameters == {"keep": 0.5} and loaded(text)["SIDES"] == (-1.0, (1.0,), math.inf)


def test_names_that_were_imported_under_another_are_kept():
    source = TREND.replace("np.where", "pick")
    text = module_text(cell("from numpy import where as pick\n", source)["Trend"])
    assert "from numpy import where as pick\n" in text


def test_a_strategy_of_the_package_is_captured_from_its_file():
    assert "class Momentum(Strategy):" in module_text(Momentum)


def used(word):
    return TREND.replace("1.0, 0.0)", f"1.0, {word})")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["DATA = [1.0]\n", used("DATA[0]")], "'DATA', a list, which no module holds"),
        (["DATA = np.ones(3)\n", used("DATA[0]")], "'DATA', a ndarray, which no module holds"),
        (["import os\n", used("os.getpid()")], "'os' of the package 'os'"),
        (["from time import time\n", used("time()")], "'time' of the package 'time'"),
        (["nosuch = 1\n", used("nosuch"), "del nosuch\n"], "'nosuch', which is nowhere"),
        (["def g():\n    global N\n    N = 1\n    return 0.0\n", used("g()")], "sets the global"),
        (["def h():\n    return 0.0\ng = h\n", used("g()")], "calls 'h' 'g': use one"),
        (
            ["def make():\n" + "\n".join("    " + line for line in TREND.splitlines())
             + "\n    return Trend\nTrend = make()\n"],
            "not defined at the top level",
        ),
        (
            [TREND, "Trend.target = lambda self, f: np.ones(len(f['close']))\n"],
            "is not what its source says",
        ),
        (
            ["def maker(x):\n    def g():\n        return x\n    return g\ng = maker(2.0)\n",
             used("g()")],
            "not defined at the top level",
        ),
    ],
)  # fmt: skip
def test_what_a_module_cannot_say_is_refused(sources, said):
    with pytest.raises(StrategyError) as error:
        module_text(cell(*sources)["Trend"])
    assert said in str(error.value)


def test_a_class_whose_cell_is_gone_is_refused():
    scope = {"__name__": "__main__"}
    exec(compile(HEAD + TREND, "<nowhere>", "exec"), scope)
    with pytest.raises(StrategyError, match="is not to be found"):
        module_text(scope["Trend"])


def test_a_cell_that_was_edited_and_not_run_again_is_refused():
    kind = cell(TREND)["Trend"]
    name = kind.target.__code__.co_filename
    lines = linecache.cache[name][2]
    edited = [line.replace("1.0, 0.0", "0.5, 0.0") for line in lines]
    linecache.cache[name] = len("".join(edited)), None, edited, name
    with pytest.raises(StrategyError, match="run its cell again"):
        module_text(kind)
