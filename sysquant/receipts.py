"""What the chain said of each order: who refused it, who cut it, and the values that it saw.

Input: rows of `orders` and `risk_receipts`, as the engine writes them, and their chain. Output:
`Reviews`, a row an order. Nothing is judged here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sysquant.checks.chain import REFUSE
from sysquant.effects import Effects
from sysquant.risk import RiskChain
from sysquant.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class Reviews:
    """Orders with what the chain said of them.

    Parameters
    ----------
    risk : the chain.
    orders : (N,) rows of `orders`, in order.
    first : (N,) rows of `risk_receipts`: the review of what was asked for.
    last : (N,) likewise: of what it was cut to, or the same.
    """

    risk: RiskChain
    orders: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, effects: Effects, risk: RiskChain) -> "Reviews":
        """Those of all orders of a run."""
        receipts = effects["risk_receipts"]
        first = np.flatnonzero(receipts["attempt"] == 1)
        last = np.append(first[1:], len(receipts))[: len(first)] - 1
        return cls(risk, effects["orders"], receipts[first], receipts[last])

    def __len__(self) -> int:
        return len(self.orders)

    @property
    def is_refused(self) -> NDArray[np.bool_]:
        """(N,) whether it was."""
        return self.orders["approved"] == 0

    @property
    def is_cut(self) -> NDArray[np.bool_]:
        """(N,) whether it was approved at a smaller size than was asked for."""
        return ~self.is_refused & (self.orders["quantity"] != self.orders["asked"])

    @property
    def refusals(self) -> NDArray[np.bool_]:
        """(N, C) whether each check refused an order in the end."""
        places = np.arange(len(self.risk.names))
        bits = self.orders["refused_by"][:, None] >> places & 1
        return bits.astype(bool) & self.is_refused[:, None]

    @property
    def cutter(self) -> Ints:
        """(N,) place of the check that left an order that was cut least room; -1 for the others."""
        count = len(self.risk.names)
        refuses = self.first["verdict"][:, :count] == REFUSE
        rooms: Floats = np.where(refuses, self.first["room"], np.inf)
        return np.where(self.is_cut, rooms.argmin(axis=1), -1)
