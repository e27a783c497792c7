"""Running counts of a session, for people: what came in, what was decided, what was refused."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import msgspec

from sysquant.effects import Effects
from sysquant.risk import RiskChain


@dataclass(slots=True)
class Tally:
    """Counts since the start of the book, kept over restarts.

    Parameters
    ----------
    events : good records processed.
    dead : dead letters.
    signals, approved, refused, fills : as they happened.
    reasons : check -> orders it refused.
    """

    events: int = 0
    dead: int = 0
    signals: int = 0
    approved: int = 0
    refused: int = 0
    fills: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, effects: Effects, events: int, risk: RiskChain) -> None:
        """Count one batch of events and what it caused."""
        orders = effects["orders"]
        approved = int(orders["approved"].sum())
        self.events += events
        self.signals += len(effects["signals"])
        self.approved += approved
        self.refused += len(orders) - approved
        self.fills += len(effects["executions"])
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
        """From the journal; zeros when there is nothing."""
        return msgspec.json.decode(text, type=cls) if text else cls()

    def top_reasons(self, most: int = 3) -> str:
        """`check x count` of the most frequent refusals, or a dash."""
        common = Counter(self.reasons).most_common(most)
        return ", ".join(f"{name} x {count:,}" for name, count in common) or "-"
