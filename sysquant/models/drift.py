"""How far a model's world has moved: what it is asked, and says, against its training rows.

Input: the training rows once, then the rows it is asked. Output: the population stability index
(PSI) of each feature, and of the probability of each class, over the newest rows. It is beside what
is decided: it changes nothing, and begins anew with a session.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from sysquant.types import Floats

TENTHS = 10
WINDOW = 1_000  # newest rows that are compared
LEAST = 200  # rows below which nothing is said: the index of few is large by chance
_LEAST_SHARE = 1e-4  # of a tenth without a row


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a column was distributed in training: inner edges of its tenths, and their shares.

    Values that repeat make fewer, unequal parts.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, column: Floats) -> "Reference":
        """Of (n,) finite values."""
        edges = np.unique(np.quantile(column, np.linspace(0, 1, TENTHS + 1)[1:-1]))
        counts = np.bincount(np.searchsorted(edges, column, side="right"), minlength=len(edges) + 1)
        return cls(tuple(edges.tolist()), tuple((counts / len(column)).tolist()))

    def psi(self, column: Floats) -> float:
        """Population stability index of (m,) finite values; 0 where nothing has moved.

        References
        ----------
        N. Siddiqi, Credit Risk Scorecards, 2006, ch. 9.
        """
        places = np.searchsorted(self.edges, column, side="right")
        counts = np.bincount(places, minlength=len(self.shares))
        now = np.maximum(counts / len(column), _LEAST_SHARE)
        then = np.maximum(self.shares, _LEAST_SHARE)
        return float(((now - then) * np.log(now / then)).sum())


class Moved(NamedTuple):
    """One column's drift."""

    kind: str
    name: str
    psi: float
    rows: int


class Drift:
    """Of one model, over the newest rows that it was asked.

    Parameters
    ----------
    features, classes : names of the columns that it is asked, and says.
    references : of features, then classes.
    """

    def __init__(
        self, features: Sequence[str], classes: Sequence[str], references: Sequence[Reference]
    ) -> None:
        named = [("feature", name) for name in features] + [("prediction", n) for n in classes]
        self._columns = list(zip(named, references, strict=True))
        self._blocks, self._rows = deque[Floats](), 0
        self.asked = 0

    def see(self, rows: Floats, chances: Floats) -> None:
        """Take (n, features) finite rows and the (n, classes) probabilities that were said."""
        if not len(rows):
            return
        self._blocks.append(np.hstack([rows, chances]))
        self._rows += len(rows)
        self.asked += len(rows)
        while self._rows - len(self._blocks[0]) >= WINDOW:
            self._rows -= len(self._blocks.popleft())

    def measure(self) -> list[Moved]:
        """Every column; nothing as long as there are few rows."""
        if self._rows < LEAST:
            return []
        seen = np.concatenate(self._blocks)[-WINDOW:]
        return [
            Moved(kind, name, reference.psi(seen[:, at]), len(seen))
            for at, ((kind, name), reference) in enumerate(self._columns)
        ]


def references_of(rows: Floats, chances: Floats) -> tuple[Reference, ...]:
    """Of (n, features) training rows, and the (n, classes) probabilities that are said of them."""
    return tuple(Reference.of(column) for column in np.hstack([rows, chances]).T)
