"""What a batch of events caused: one array of rows per table, its hash, and its Arrow tables.

Input: the engine's records with strategies and symbols as indexes. Output: the columns that the
store's tables have, with names. Nothing here decides.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from sysquant import records
from sysquant.orders import KINDS, TIFS
from sysquant.risk import VERDICTS, RiskChain

# What numbers in effects stand for, by place.
PURPOSES = (
    "signal", "slice", "follow_up", "stop_loss", "trailing_stop", "take_profit", "max_hold",
    "drawdown", "off",
)  # fmt: skip
END_REASONS = (
    "filled", "cancelled", "expired", "rejected", "ioc", "fok", "post_only", "reduce_only", "oco",
    "replaced", "legs",
)  # fmt: skip
FINANCING_KINDS = ("funding", "borrow", "interest")

# (table, field) -> the column it becomes, and the names of its numbers.
_NAMED = {
    ("orders", "kind"): ("kind", KINDS),
    ("orders", "tif"): ("tif", TIFS),
    ("orders", "purpose"): ("purpose", PURPOSES),
    ("orders", "approved"): ("status", ("refused", "approved")),
    ("risk_receipts", "verdict"): ("verdict", VERDICTS),
    ("executions", "maker"): ("liquidity", ("taker", "maker")),
    ("order_ends", "reason"): ("reason", END_REASONS),
    ("financing", "kind"): ("kind", FINANCING_KINDS),
}
_TIMES = ("ts", "due", "expires")
_NS = pa.timestamp("ns", "UTC")
_ASKED = ("signals", "orders")  # tables that tell which model a strategy asked
_FEW = 64  # rows for which plain Python is faster
Models = Mapping[str, str]
_NO_MODELS: Models = MappingProxyType({})
_COUNTS = {"fill_no": np.uint32, "attempt": np.uint8}  # narrower than order_no and version
# NULL in the store where the engine has NaN or NEVER: there is none.
_ABSENT = (
    "limit_price", "stop_price", "expires", "volatility", "sharpe", "sortino", "value_at_risk",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Effects:
    """Rows per table, in the order they happened.

    Parameters
    ----------
    rows : table name -> (R,) records of `records.effects`.
    """

    rows: Mapping[str, np.ndarray]

    @classmethod
    def empty(cls, checks: int) -> "Effects":
        """No rows, of a chain of `checks`."""
        return cls({name: np.empty(0, dtype) for name, dtype in records.effects(checks).items()})

    @classmethod
    def join(cls, parts: Sequence["Effects"]) -> "Effects":
        """The effects of several batches of one engine as those of one; nothing is copied if one
        batch alone has rows of a table.
        """
        rows = dict((parts[0] if parts else cls.empty(0)).rows)
        for name in rows:
            own = [part[name] for part in parts if len(part[name])]
            if len(own) == 1:
                rows[name] = own[0]
            elif own:  # as words: ten times faster than as records
                words = np.concatenate([part.view(np.uint64) for part in own])
                rows[name] = words.view(own[0].dtype)
        return cls(rows)

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
    """What the indexes in effects stand for.

    Parameters
    ----------
    run : that they are of.
    strategies, symbols, risk : of the engine.
    promotions : strategy -> id of its promotion, of those that were promoted.
    """

    run: str
    strategies: Sequence[str]
    symbols: Sequence[str]
    risk: RiskChain
    promotions: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def tables(
        self, effects: Effects, seq: int, models: Models = _NO_MODELS
    ) -> dict[str, pa.Table]:
        """Arrow tables with the columns of the store; tables without rows are left out."""
        caused = [(name, rows) for name, rows in effects.rows.items() if len(rows)]
        found = [(name, self.table(name, rows, seq, models)) for name, rows in caused]
        return {name: table for name, table in found if table.num_rows}

    def table(self, name: str, rows: np.ndarray, seq: int, models: Models = _NO_MODELS) -> pa.Table:
        """One Arrow table; it may be empty.

        Parameters
        ----------
        name : of a table in `records.EFFECTS`.
        rows : (R,) records of it.
        seq : the input that caused them.
        models : strategy -> the model that it asked.

        Returns
        -------
        R rows; of `risk_receipts` R times as many as the chain has checks, in its order. NULL where
        an order has no such price or never expires, and where a statistic of an account is not
        known; other values as they are, also NaN and infinite ones.
        """
        fields = {field: np.ascontiguousarray(rows[field]) for field in rows.dtype.names or ()}
        if name == "risk_receipts":
            fields = self._by_check(fields)
        count = len(fields["ts"])
        columns: dict[str, pa.Array] = {
            "run": pa.repeat(pa.scalar(self.run, pa.string()), count),
            "seq": pa.repeat(pa.scalar(seq, pa.uint64()), count),
        }
        for field, values in fields.items():
            column, array = self._column(name, field, values)
            columns[column] = array
        if name in _ASKED:
            names = [models.get(strategy, "") for strategy in self.strategies]
            columns["model"] = _named(rows["strategy"], names)
        if "strategy" in fields:
            names = [self.promotions.get(strategy, "") for strategy in (*self.strategies, "")]
            columns["promotion"] = _named(fields["strategy"], names)
        return pa.table(columns)

    def _by_check(self, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # One row per review of an order becomes one per check; verdicts are padded with more.
        checks, reviews = len(self.risk.names), len(fields["ts"])
        rows = {
            field: values[:, :checks].ravel() if values.ndim == 2 else np.repeat(values, checks)
            for field, values in fields.items()
        }
        rows["check"] = np.tile(np.arange(checks), reviews)
        rows["limit"] = np.tile(self.risk.limits, reviews)
        return rows

    def _column(self, table: str, field: str, values: np.ndarray) -> tuple[str, pa.Array]:
        if (table, field) in _NAMED:
            column, names = _NAMED[table, field]
            return column, _named(values, names)
        match field:
            case "strategy":
                return field, _named(values, [*self.strategies, ""])
            case "symbol":
                return field, _named(values, [*self.symbols, ""])
            case "check":
                return field, _named(values, self.risk.names)
            case "refused_by":
                found, places = np.unique(values, return_inverse=True)
                reasons = [",".join(self.risk.refusals(int(bits))) for bits in found]
                return "reason", _named(places, reasons)
            case _:
                return field, _values(field, values)


def _values(field: str, values: np.ndarray) -> pa.Array:
    absent = None
    if field in _ABSENT:
        absent = values == records.NEVER if field in _TIMES else np.isnan(values)
    if field in _TIMES:
        return pa.array(values, mask=absent).view(_NS)  # a third of the time of `M8`
    if values.dtype == np.int64:
        return pa.array(values.astype(_COUNTS.get(field, np.uint64)))
    return pa.array(values, mask=absent)


def _named(indexes: np.ndarray, names: Sequence[str]) -> pa.Array:
    # The last name stands for -1: what belongs to no strategy or no symbol.
    if len(indexes) < _FEW:
        return pa.array([names[index] for index in indexes.tolist()], pa.string())
    places = np.where(indexes < 0, len(names) - 1, indexes)
    return pa.array(names, pa.string()).take(pa.array(places))
