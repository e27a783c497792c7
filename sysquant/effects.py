"""What a batch of events caused: one array of rows per table, its hash, and its Arrow tables.

Input: the engine's records with strategies and symbols as indexes. Output: the columns that the
store's tables have, with names. Nothing here decides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sysquant import records
from sysquant.risk import VERDICTS, RiskChain


@dataclass(frozen=True, slots=True)
class Effects:
    """Rows per table, in the order they happened.

    Parameters
    ----------
    rows : table name -> (R,) records of `records.EFFECTS`.
    """

    rows: Mapping[str, np.ndarray]

    @classmethod
    def join(cls, parts: Sequence["Effects"]) -> "Effects":
        """The effects of several batches as those of one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            {
                name: np.concatenate([part.rows[name] for part in parts] or [np.empty(0, dtype)])
                for name, dtype in records.EFFECTS.items()
            }
        )

    def __getitem__(self, table: str) -> np.ndarray:
        return self.rows[table]

    def hash(self) -> bytes:
        """SHA-256 over every byte of every row, table by table."""
        digest = hashlib.sha256()
        for name, rows in self.rows.items():
            digest.update(f"{name}:{len(rows)}\n".encode())
            digest.update(rows.tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Labels:
    """What the indexes in effects stand for."""

    run: str
    strategies: Sequence[str]
    symbols: Sequence[str]
    risk: RiskChain

    def tables(self, effects: Effects, seq: int | np.ndarray) -> dict[str, pa.Table]:
        """Arrow tables with the columns of the store; tables without rows are left out."""
        return {
            name: self.table(name, rows, seq) for name, rows in effects.rows.items() if len(rows)
        }

    def table(self, name: str, rows: np.ndarray, seq: int | np.ndarray) -> pa.Table:
        """One Arrow table; it may be empty."""
        columns: dict[str, pa.Array] = {
            "run": pa.array([self.run] * len(rows)),
            "seq": pa.array(np.broadcast_to(np.uint64(seq), len(rows))),
        }
        for field in rows.dtype.names or ():
            columns |= self._column(field, np.ascontiguousarray(rows[field]))
        if name == "orders":
            columns["kind"] = pa.array(["market"] * len(rows))
        return pa.table(columns)

    def _column(self, field: str, values: np.ndarray) -> dict[str, pa.Array]:
        if field in ("ts", "due"):
            return {field: pa.array(values.view("M8[ns]"), pa.timestamp("ns", "UTC"))}
        if field == "strategy":
            return {field: _named(values, [*self.strategies, ""])}
        if field == "symbol":
            return {field: _named(values, [*self.symbols, ""])}
        if field == "check":
            return {field: _named(values, self.risk.names)}
        if field == "verdict":
            return {field: _named(values, VERDICTS)}
        if field == "approved":
            return {"status": _named(values, ("refused", "approved"))}
        if field == "refused_by":
            return {"reason": pa.array([",".join(self.risk.refusals(int(v))) for v in values])}
        if values.dtype == np.int64:
            kind = np.uint32 if field == "fill_no" else np.uint64
            return {field: pa.array(values.astype(kind))}
        return {field: pa.array(values)}


def _named(indexes: np.ndarray, names: Sequence[str]) -> pa.Array:
    # The last name stands for -1: what belongs to no strategy or no symbol.
    return pa.array(np.array(names, dtype=object)[indexes], pa.string())
