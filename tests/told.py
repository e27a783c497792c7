"""A book whose strategies want what a list says, over events by hand, and what came of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from sysquant.effects import PURPOSES, Effects
from sysquant.engine import Engine
from sysquant.execution import Execution
from sysquant.exits import Exits
from sysquant.orders import Orders
from sysquant.risk import RiskChain
from sysquant.sizing import Sizing, WeightSizing
from sysquant.strategy import Strategy
from sysquant.types import SECOND, Instrument
from tests.oracle_compare import batch_of

START = 1_700_000_000 * SECOND  # 2023-11-14, 22:13:20 UTC
FREE = {"latency_ms": 0.0, "slippage_bps": 0.0, "fee_bps": 0.0}
PLAIN = {"tick_size": 0.01, "lot_size": 1.0, "min_notional": 0.0}
NEVER_REFUSES = (("order_quantity", 1e12),)

NAN = math.nan
STILL = (100, 100, 100, 100, 1e6)  # a bar on which nothing happens

# Bar by bar, or by the second of its close.
Targets = Strategy | Sequence[float] | Mapping[int, float]


def at(seconds: float) -> int:
    """Time of so many seconds from the start, ns."""
    return START + round(seconds * SECOND)


def bars(*rows, symbol=0, first=1):
    """Bars of one second, one after the other: (open, high, low, close, volume)."""
    return [("bar", START + (first + i) * SECOND, symbol, *row) for i, row in enumerate(rows)]


def flat(*closes, volume=1e6, symbol=0, first=1):
    """Bars whose four prices are the same, with volume to spare."""
    return bars(*((c, c, c, c, volume) for c in closes), symbol=symbol, first=first)


def ticks(*rows, volume=1e6):
    """Trades: (seconds from the start, price), and of another symbol its number as well."""
    return [
        ("tick", START + round(row[0] * SECOND), row[2] if len(row) > 2 else 0, row[1], volume)
        for row in rows
    ]


def wants(targets: Targets) -> Strategy:
    """A strategy that wants these weights, then has no opinion."""
    by_second = dict(targets if isinstance(targets, Mapping) else enumerate(targets, 1))

    class Told(Strategy):
        def features(self, bar):
            return {"ts": bar.ts}

        def target(self, f):
            seconds = np.rint((f["ts"] - START) / SECOND).astype(int)
            return np.array([by_second.get(second, math.nan) for second in seconds.tolist()])

    return Told()


@dataclass
class Ran:
    """Rows of every table, and the engine afterwards."""

    rows: dict[str, list[SimpleNamespace]]
    engine: Engine

    def __getattr__(self, table: str) -> list[SimpleNamespace]:
        return self.rows[table]

    def seen(self, table: str, *names: str) -> list[tuple]:
        """Columns of a table, row by row."""
        return [tuple(getattr(row, name) for name in names) for row in self.rows[table]]


def ran(
    events: list[tuple],
    targets: Targets | Mapping[str, Targets],
    *,
    instrument: dict[str, Any] | None = None,
    others: Sequence[dict[str, Any]] = (),
    execution: dict[str, Any] | None = None,
    sizing: Sizing | None = None,
    orders: dict[str, Any] | None = None,
    exits: dict[str, Any] | None = None,
    checks: Sequence[tuple[str, float]] = NEVER_REFUSES,
    risk: dict[str, Any] | None = None,
    calls: Mapping[int, Callable[[Engine], object]] | None = None,
    **book: Any,
) -> Ran:
    """Run a book of free execution over events; `calls` are made before the event of their number.

    Targets are those of one strategy `s0`, or by name of several. Symbol 0 is `A` with the terms
    of `instrument`, then come `others`.
    """
    named = targets if isinstance(targets, Mapping) and "s0" in targets else {"s0": targets}
    universe = [
        Instrument(**(PLAIN | {"symbol": "ABCD"[place]} | terms))
        for place, terms in enumerate([instrument or {}, *others])
    ]
    engine = Engine(
        universe=universe,
        strategies={
            name: one if isinstance(one, Strategy) else wants(one) for name, one in named.items()
        },
        risk=RiskChain(
            checks=[{"check": name, "limit": limit} for name, limit in checks],
            **({"cut": False} | (risk or {})),
        ),
        execution=Execution(**(FREE | (execution or {}))),
        sizing=sizing or WeightSizing(band=1.0, split=False),
        orders=Orders(**(orders or {})),
        exits=Exits(**(exits or {})),
        interval=SECOND,
        **({"capital": 10_000.0 * len(named), "currency": "USD", "snapshot_ns": SECOND} | book),
    )
    rows: dict[str, list[SimpleNamespace]] = {}
    is_bar = [event[0] == "bar" for event in events]
    turns = [place for place in range(1, len(events)) if is_bar[place] != is_bar[place - 1]]
    for first, last in pairwise(sorted({0, len(events), *turns, *(calls or {})})):
        called = calls[first](engine) if calls and first in calls else None
        caused = [called] if isinstance(called, Effects) else []
        caused.append(engine.step(batch_of(events[first:last])))
        for table, found in Effects.join(caused).rows.items():
            names = found.dtype.names or ()
            rows.setdefault(table, []).extend(
                SimpleNamespace(**dict(zip(names, row, strict=True))) for row in found.tolist()
            )
    return Ran(rows, engine)


def made(found: Ran) -> list[tuple[str, float]]:
    """Purpose and quantity of every order, refused ones too."""
    return [(PURPOSES[row.purpose], row.quantity) for row in found.orders]
