"""Running counts of a session, for people: what came in, what was decided, what was refused."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import msgspec
import numpy as np

from sysquant.effects import END_REASONS, PURPOSES, Effects
from sysquant.orders import KINDS
from sysquant.risk import RiskChain

_FIRST_EXIT = PURPOSES.index("stop_loss")


@dataclass(slots=True)
class Tally:
    """Counts since the start of the book, kept over restarts.

    Parameters
    ----------
    events : good records processed.
    dead : dead letters.
    signals, approved, refused, fills : as they happened.
    reasons : check -> orders it refused.
    cut : orders approved at a smaller size than was asked for.
    exits : rule (or `off`) -> market orders approved to leave a position; the legs of brackets,
        which wait at the broker, are not among them.
    ends : reason -> orders that ended so.
    """

    events: int = 0
    dead: int = 0
    signals: int = 0
    approved: int = 0
    refused: int = 0
    fills: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    exits: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def add(self, effects: Effects, events: int, risk: RiskChain) -> None:
        """Count one batch of events and what it caused."""
        self.events += events
        if not any(map(len, effects.rows.values())):
            return
        orders = effects["orders"]
        approved = orders[orders["approved"] == 1]
        self.signals += len(effects["signals"])
        self.approved += len(approved)
        self.refused += len(orders) - len(approved)
        self.fills += len(effects["executions"])
        self.cut += int((approved["quantity"] != approved["asked"]).sum())
        at_market = approved[approved["kind"] == KINDS.index("market")]
        left = at_market["purpose"][at_market["purpose"] >= _FIRST_EXIT]
        self.exits = _added(self.exits, left, PURPOSES)
        self.ends = _added(self.ends, effects["order_ends"]["reason"], END_REASONS)
        reasons = Counter(self.reasons)
        for refused_by, count in Counter(orders["refused_by"].tolist()).items():
            for name in risk.refusals(refused_by):
                reasons[name] += count
        self.reasons = dict(reasons)

    def to_json(self) -> str:
        """For the journal."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """From the journal, also of a version with fewer counts; zeros for what is not there."""
        return msgspec.json.decode(text, type=cls) if text else cls()

    def top_reasons(self, most: int = 3) -> str:
        """`check x count` of the most frequent refusals, or a dash."""
        common = Counter(self.reasons).most_common(most)
        return ", ".join(f"{name} x {count:,}" for name, count in common) or "-"


def _added(counts: dict[str, int], indexes: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    added = Counter(counts)
    for index, count in Counter(indexes.tolist()).items():
        added[names[index]] += count
    return dict(added)
