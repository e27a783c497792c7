"""The whole gate, for strategies with a planted edge and for noise, as a person promotes them.

Input: how many. Output: what `runners/promote.py`, a process each, said of every one: the parts
that passed, what was refused, seconds. Each planted strategy has three symbols of its own, hours of
three years, in which the side of a look back foretells a part of the next return; those of noise
trade the same market by the date alone. The store gets its trades by `runners/backfill.py`; the
package's copy, home, store and broker are made for this and removed again.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from runners import kafka
from sysquant.home import cache, home
from sysquant.types import Floats

REPOSITORY = Path(__file__).resolve().parents[2]
HOUR_S, START_S = 3600, 1_672_531_200  # 2023-01-01
HOURS = 3 * 8766
SECONDS = np.array([1, 1_200, 2_400, 3_599])  # of an hour, at which is traded
SYMBOLS = 3  # of each strategy
SIGMA = 0.005  # of an hour
EDGE = 0.027  # of it, that the signal foretells: a Sharpe ratio of about 3 a year after costs
VOLUME = 1e9  # of an hour, quote currency
WEIGHT = 0.9  # of the equity, so that the next trade finds cash
PARTS = ("causality", "warmup", "statistics", "risk", "parity")
TICKS = 900  # told to the live runner
LEAST = 0.8  # of those with an edge, that must be promoted
TIMEOUT_S = 900.0  # of one promotion
_CONF = "_target_: sysquant.strategies.{name}.{kind}\n"
_PLANTED = '''"""A planted edge: the side of a look back."""

import numpy as np

from sysquant.features import lag
from sysquant.strategy import Strategy


class {kind}(Strategy):
    """Long above the close of so many bars ago, short below."""

    back: int = {back}  # bars
    weight: float = {weight}

    def features(self, bar):
        return {{"now_{number}": bar.close, "then_{number}": lag(bar.close, self.back)}}

    def target(self, f):
        return self.weight * np.sign(f["now_{number}"] - f["then_{number}"])
'''
_NOISE = '''"""No edge: a side a day, of its date."""

import numpy as np

from sysquant.strategy import Strategy

DAY = 86_400e9  # ns


class {kind}(Strategy):
    """Long or short by digits of the day's number."""

    factor: float = {factor}
    weight: float = {weight}

    def features(self, bar):
        return {{"day_{number}": bar.ts / DAY}}

    def target(self, f):
        digits = np.sin(np.floor(f["day_{number}"]) * self.factor) * 43_758.5453
        return np.where(digits - np.floor(digits) < 0.5, -self.weight, self.weight)
'''


class Strategy(NamedTuple):
    """One that stands for promotion.

    Parameters
    ----------
    name : of its module and configuration.
    source : of the module.
    planted : whether it has an edge.
    market : number of the symbols that it trades.
    """

    name: str
    source: str
    planted: bool
    market: int


class Promoted(NamedTuple):
    """What became of it.

    Parameters
    ----------
    parts : part -> whether it passed; those that were not reached are missing.
    refused : every failure, as it was said.
    sharpe : a year, of its backtest; None where it was not measured.
    took_s : of the process.
    """

    name: str
    planted: bool
    passes: bool
    parts: Mapping[str, bool]
    refused: tuple[str, ...]
    sharpe: float | None
    took_s: float


def back_of(number: int) -> int:
    """Bars that a planted strategy looks back."""
    return 120 + 12 * number


def strategies(count: int) -> list[Strategy]:
    """So many with an edge, and half as many without."""
    found = list[Strategy]()
    for number in range(count):
        source = _PLANTED.format(
            kind=f"Planted{number}", number=number, back=back_of(number), weight=WEIGHT
        )
        found.append(Strategy(f"planted{number}", source, True, number))
    for number in range(-(-count // 2)):
        source = _NOISE.format(
            kind=f"Noise{number}", number=number, factor=12.9898 + number, weight=WEIGHT
        )
        found.append(Strategy(f"noise{number}", source, False, number))
    return found


def closes(back: int, rng: np.random.Generator, hours: int = HOURS) -> Floats:
    """(hours,) closes in which the side of `back` bars ago foretells a part of the next return."""
    logs, moves = np.zeros(hours), rng.normal(0.0, 1.0, hours)
    for at in range(1, hours):
        side = np.sign(logs[at - 1] - logs[at - 1 - back]) if at > back else 0.0
        logs[at] = logs[at - 1] + SIGMA * (EDGE * side + moves[at])
    return 1_000.0 * np.exp(logs)


def market(number: int, hours: int = HOURS) -> pd.DataFrame:
    """Trades of the symbols of one number, four an hour, as a file of a vendor has them."""
    tables = list[pd.DataFrame]()
    begins = START_S + HOUR_S * np.arange(hours)
    for place in range(SYMBOLS):
        rng = np.random.default_rng([20, number, place])
        close = np.round(closes(back_of(number), rng, hours), 4)
        open_ = np.concatenate(([1_000.0], close[:-1]))
        beyond = 1.0 + 0.2 * SIGMA * rng.random((2, hours))
        high, low = np.maximum(open_, close) * beyond[0], np.minimum(open_, close) / beyond[1]
        price = np.round(np.column_stack([open_, high, low, close]), 4).ravel()
        tables.append(pd.DataFrame({
            "timestamp_ms": (begins[:, None] + SECONDS).ravel() * 1_000,
            "symbol": symbol(number, place), "price": price,
            "volume": VOLUME / len(SECONDS) * (0.5 + rng.random(len(price))) / price,
        }))  # fmt: skip
    return pd.concat(tables).sort_values("timestamp_ms", kind="stable")


def symbol(number: int, place: int) -> str:
    """Name of a symbol."""
    return f"SIM:M{number}S{place}"


def _universe(numbers: Sequence[int]) -> list[str]:
    listed = ", ".join(
        f"{{symbol: '{symbol(n, place)}', tick_size: 1e-4, lot_size: 1e-4}}"
        for n in numbers for place in range(SYMBOLS)
    )  # fmt: skip
    return ["universe=crypto", f"universe.instruments=[{listed}]"]


class Desk:
    """A copy of the package with the strategies in it, a home with their market, and a broker."""

    def __init__(self, root: Path, bootstrap: str) -> None:
        self.code, self.home, self.bootstrap = root / "code", root / "home", bootstrap
        for name in ("sysquant", "runners", "conf", "hydra_plugins"):
            shutil.copytree(
                REPOSITORY / name, self.code / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(REPOSITORY / "pyproject.toml", self.code)
        self.home.mkdir()

    def furnish(self, some: Sequence[Strategy], hours: int = HOURS) -> None:
        """Write strategies, and import their market."""
        for one in some:
            module = self.code / "sysquant" / "strategies" / f"{one.name}.py"
            module.write_text(one.source)
            conf = self.code / "conf" / "strategy" / f"{one.name}.yaml"
            conf.write_text(_CONF.format(name=one.name, kind=one.name.capitalize()))
        numbers = sorted({one.market for one in some})
        path = self.home / "ticks.parquet"
        pd.concat([market(number, hours) for number in numbers]).to_parquet(path, index=False)
        done = self._run(
            "backfill", "source=file", f"path={path}", f"gap_s={HOUR_S}", *_universe(numbers),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the market was not imported: {done.stdout}{done.stderr}")

    def promote(self, one: Strategy, *words: str) -> Promoted:
        """What the gate says of a strategy."""
        began = time.monotonic()
        done = self._run(
            "promote", f"strategy={one.name}", "bars=1h", *_universe([one.market]),
            f"promotion.parity.bootstrap={self.bootstrap}", f"promotion.parity.ticks={TICKS}",
            *words,
        )  # fmt: skip
        took_s, said = time.monotonic() - began, done.stdout.splitlines()
        found = [re.match(rf"({'|'.join(PARTS)}) (passes|fails) \(", line) for line in said]
        refused = [line.removeprefix("failed: ") for line in said if line.startswith("failed: ")]
        refused = refused[len(refused) // 2 :]  # they are said by the part, and in the end
        if done.returncode not in (0, 1) or (done.returncode and not refused):
            refused.append((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        sharpe = re.search(r"Sharpe ratio (-?[\d.]+) a year", done.stdout)
        return Promoted(
            one.name, one.planted, done.returncode == 0,
            {part[1]: part[2] == "passes" for part in found if part}, tuple(refused),
            float(sharpe[1]) if sharpe else None, took_s,
        )  # fmt: skip

    def _run(self, runner: str, *words: str) -> "subprocess.CompletedProcess[str]":
        own = {
            "PYTHONPATH": str(self.code), "SYSQUANT_HOME": str(self.home),
            "SYSQUANT_CACHE": str(cache()), "SYSQUANT_RESEARCH": str(self.home / "research"),
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, str(self.code / "runners" / f"{runner}.py"), *words],
            cwd=self.home, env=os.environ | own, capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip


@contextmanager
def desk(bootstrap: str | None = None) -> Iterator[Desk]:
    """One, with a broker of its own where none is named."""
    with tempfile.TemporaryDirectory(prefix="sysquant-gate-") as scratch:
        root = Path(scratch)
        broker = None if bootstrap else kafka.start(0, root / "kafka")
        try:
            yield Desk(root, bootstrap or (broker.bootstrap if broker else ""))
        finally:
            if broker is not None:
                broker.stop()


def judged(count: int, *words: str, bootstrap: str | None = None) -> Iterator[Promoted]:
    """Promote so many planted strategies, and half as many of noise, one after another."""
    some = strategies(count)
    with desk(bootstrap) as place:
        place.furnish(some)
        for one in some:
            yield place.promote(one, *words)


def line(one: Promoted) -> str:
    """What became of a strategy, in a line, and a line for each reason."""
    told = {name: "x+"[passes] for name, passes in one.parts.items()}
    parts = " ".join(f"{name}={told.get(name, '?')}" for name in PARTS)
    verdict = "promoted" if one.passes else "refused"
    sharpe = "-" if one.sharpe is None else f"{one.sharpe:.2f}"
    said = f"{one.name:10} {verdict:9} {parts} Sharpe {sharpe} {one.took_s:.0f} s"
    return "\n".join([said, *(f"    {why}" for why in one.refused)])


def main(count: int) -> None:
    """Tell each, and how many passed; exit code 1 where noise passes, or too few of the others."""
    found = list[Promoted]()
    for one in judged(count):
        found.append(one)
        print(line(one), flush=True)
    good = [one.passes for one in found if one.planted]
    noise = [one.passes for one in found if not one.planted]
    print(
        f"{sum(good)} of {len(good)} with an edge are promoted, "
        f"{sum(noise)} of {len(noise)} without"
    )
    path = home() / "runs" / "gate_whole.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([one._asdict() for one in found], indent=1) + "\n")
    if any(noise) or sum(good) < LEAST * len(good):
        raise SystemExit(1)
