"""What is odd about history that could still be meant: gaps, duplicates, disorder, absurd values.

Input: ticks, bars or funding rates, block after block. Output: counts with the worst example of
each, by symbol. Nothing is changed or left out.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from sysquant.archive import MINUTE
from sysquant.types import SECOND, Bars, Floats, Ints, Rates, Ticks

_MOST_RATE = 0.005  # of a funding rate; a file in percent is beyond it throughout


def iso(ns: int) -> str:
    """ISO 8601 text, UTC, to the millisecond."""
    text = datetime.fromtimestamp(ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    ms = ns % SECOND // 1_000_000
    return f"{text}.{ms:03d}Z" if ms else f"{text}Z"


@dataclass(slots=True)
class Finding:
    """One kind of oddity of one symbol: how often, and its worst or first case."""

    symbol: str
    kind: str
    count: int = 0
    example: str = ""
    worst: float = -np.inf

    def add(self, count: int, worst: float, example: str) -> None:
        """Count some more; the example of the worst stays."""
        self.count += count
        if count and worst > self.worst:
            self.worst, self.example = worst, example


@dataclass(slots=True)
class _Seen:
    # Of one symbol: the last rows, which the next block is compared with.
    rows: int = 0
    running: int = -(2**63)
    ts: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    key: Floats = field(default_factory=lambda: np.empty((0, 3)))
    price: Floats = field(default_factory=lambda: np.empty(0))


class Inspection:
    """Looks at history block by block.

    Parameters
    ----------
    symbols : names of the universe.
    gap_ns : the longest time between two ticks of a symbol that is no gap; a missing bar always is,
        and so is what is longer than the usual time between two funding rates.
    absurd : fraction by which a price must differ from both neighbours, or an extreme of a bar
        from its open and close, to be called absurd.
    """

    def __init__(self, symbols: list[str], *, gap_ns: int = MINUTE, absurd: float = 0.2) -> None:
        self._symbols, self._gap_ns, self._step = symbols, gap_ns, np.log1p(absurd)
        self._seen = [_Seen() for _ in symbols]
        self._findings: dict[tuple[str, str], Finding] = {}
        self.first, self.last, self.rows = 2**63 - 1, -(2**63), 0

    @property
    def findings(self) -> list[Finding]:
        """What was found, by symbol and kind."""
        return [f for _, f in sorted(self._findings.items()) if f.count]

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each symbol that has some."""
        pairs = zip(self._symbols, self._seen, strict=True)
        return {name: seen.rows for name, seen in pairs if seen.rows}

    def take(self, block: Ticks | Bars | Rates) -> None:
        """Look at the next block; one without rows has nothing to look at."""
        if not len(block):
            return
        self.rows += len(block)
        self.first = min(self.first, int(block.ts.min()))
        self.last = max(self.last, int(block.ts.max()))
        for index in np.unique(block.symbol).tolist():
            self._look(index, block[block.symbol == index])

    def _look(self, index: int, block: Ticks | Bars | Rates) -> None:
        seen, name = self._seen[index], self._symbols[index]
        self._order(name, seen, block)
        self._duplicates(name, seen, block)
        if isinstance(block, Rates):
            self._rates(name, block)
        else:
            price = block.price if isinstance(block, Ticks) else block.close
            self._spikes(name, seen, block.ts, price)
        if isinstance(block, Bars):
            self._extremes(name, block)
        seen.rows += len(block)

    def _found(self, name: str, kind: str, count: int, worst: float, example: str) -> None:
        found = self._findings.setdefault((name, kind), Finding(name, kind))
        found.add(count, worst, example)

    def _longest(self, block: Ticks | Bars | Rates, steps: Ints) -> int:
        if isinstance(block, Rates):
            return int(np.median(steps))
        return self._gap_ns if isinstance(block, Ticks) else MINUTE

    def _order(self, name: str, seen: _Seen, block: Ticks | Bars | Rates) -> None:
        running = np.maximum.accumulate(np.append(seen.running, block.ts))
        late = running[:-1] - block.ts
        if seen.rows == 0:
            late[0] = 0
        worst = int(late.argmax())
        self._found(
            name, "disorder", int(np.sum(late > 0)), float(late[worst]),
            f"{iso(int(block.ts[worst]))} comes {late[worst] / SECOND:g} s too late",
        )  # fmt: skip
        known = running if seen.rows else running[1:]
        steps = np.diff(known)
        if len(steps):
            longest = self._longest(block, steps)
            worst = int(steps.argmax())
            self._found(
                name, "gap", int(np.sum(steps > longest)), float(steps[worst]),
                f"{steps[worst] / SECOND:g} s after {iso(int(known[worst]))}",
            )  # fmt: skip
        seen.running = int(running[-1])

    def _duplicates(self, name: str, seen: _Seen, block: Ticks | Bars | Rates) -> None:
        # Ticks: the same time, price and volume. Bars and rates: the same time.
        values = np.zeros((len(block), 3))
        values[:, 0] = block.ts // 1_000_000
        if isinstance(block, Ticks):
            values[:, 1], values[:, 2] = block.price, block.volume
        every = np.concatenate([seen.key, values])
        count, example = _repeated(every)
        count -= _repeated(seen.key)[0]
        if count:
            at = iso(int(every[example, 0]) * 1_000_000)
            self._found(name, "duplicate", count, 0.0, at)
        seen.key = values[block.ts == block.ts[-1]]

    def _spikes(self, name: str, seen: _Seen, ts: Ints, price: Floats) -> None:
        ts, price = np.concatenate([seen.ts, ts]), np.concatenate([seen.price, price])
        log = np.log(price)
        before, after = np.diff(log)[:-1], -np.diff(log)[1:]
        size = np.minimum(np.abs(before), np.abs(after)) * (before * after > 0)
        if len(size):
            worst = int(size.argmax())
            self._found(
                name, "absurd price", int(np.sum(size > self._step)), float(size[worst]),
                f"{price[worst + 1]:g} at {iso(int(ts[worst + 1]))} after {price[worst]:g}",
            )  # fmt: skip
        seen.ts, seen.price = ts[-2:], price[-2:]

    def _rates(self, name: str, rates: Rates) -> None:
        size = np.abs(rates.rate)
        worst = int(size.argmax())
        self._found(
            name, "absurd rate", int(np.sum(size > _MOST_RATE)), float(size[worst]),
            f"{rates.rate[worst]:g} at {iso(int(rates.ts[worst]))}",
        )  # fmt: skip

    def _extremes(self, name: str, bars: Bars) -> None:
        above = np.log(bars.high / np.maximum(bars.open, bars.close))
        below = np.log(np.minimum(bars.open, bars.close) / bars.low)
        size = np.maximum(above, below)
        worst = int(size.argmax())
        self._found(
            name, "absurd price", int(np.sum(size > self._step)), float(size[worst]),
            f"high {bars.high[worst]:g}, low {bars.low[worst]:g} at {iso(int(bars.ts[worst]))}",
        )  # fmt: skip


def _repeated(rows: Floats) -> tuple[int, int]:
    # How many rows equal an earlier one, and one of them.
    if len(rows) < 2:
        return 0, 0
    order = np.lexsort(rows.T[::-1])
    same = np.flatnonzero((rows[order][1:] == rows[order][:-1]).all(axis=1))
    return len(same), int(order[same[0] + 1]) if len(same) else 0
