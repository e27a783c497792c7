"""What every import of history shares: its report, what it refuses, and minutes made right.

Input: a client of the store, and the span of what is imported. Output: counts, refusals, a
`Report`. Nothing is read from files here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sysquant.archive import MINUTE
from sysquant.errors import DataError
from sysquant.inspection import Finding, iso
from sysquant.store import store_errors
from sysquant.types import SECOND, Bars, Rates

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

INSIDE = """symbol IN {symbols:Array(String)}
  AND ts >= fromUnixTimestamp64Nano({first:Int64}, 'UTC')
  AND ts <= fromUnixTimestamp64Nano({last:Int64}, 'UTC')"""

# Minutes whose states do not count each tick once: an insert was repeated after the store forgot
# its token. They are made anew from the ticks, unless a bar of another source stands there.
_REPAIR = f"""
INSERT INTO bars_imported (symbol, ts, open, high, low, close, volume, source)
SELECT made.symbol, made.close_at, made.open, made.high, made.low, made.close, made.volume, 'ticks'
FROM (
  SELECT t.symbol AS symbol,
    toDateTime64(toStartOfMinute(t.ts) + INTERVAL 1 MINUTE, 9, 'UTC') AS close_at,
    argMin(t.price, (t.ts, t.offset)) AS open, max(t.price) AS high, min(t.price) AS low,
    argMax(t.price, (t.ts, t.offset)) AS close, sum(t.volume) AS volume, count() AS rows
  FROM ticks AS t FINAL
  WHERE {INSIDE} GROUP BY symbol, close_at
) AS made
LEFT JOIN (
  SELECT b.symbol AS symbol, b.ts AS close_at, sum(b.ticks) AS rows
  FROM bars_1m AS b WHERE symbol IN {{symbols:Array(String)}}
    AND b.ts > fromUnixTimestamp64Nano({{first:Int64}}, 'UTC')
    AND b.ts <= fromUnixTimestamp64Nano({{last:Int64}} + 1, 'UTC') GROUP BY symbol, close_at
) AS there ON made.symbol = there.symbol AND made.close_at = there.close_at
WHERE made.rows != there.rows AND (made.symbol, made.close_at) NOT IN (
  SELECT symbol, ts FROM bars_imported FINAL WHERE source != 'ticks'
)
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did.

    Parameters
    ----------
    source : epoch of the ticks, source of the bars or rates.
    kind : ticks | bars | funding.
    rows : in the source.
    added : that the store did not have.
    first, last : times of the earliest and the latest row, ns UTC.
    counts : rows of each symbol.
    findings : what is odd about them.
    notes : what was decided on the way.
    missing : what the source does not have.
    bad : what it has, and was left out, and why.
    """

    source: str
    kind: str
    rows: int
    added: int
    first: int
    last: int
    counts: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    @property
    def span(self) -> str:
        """Its first and last time, as text."""
        return f"{iso(self.first)} to {iso(self.last)}" if self.rows else "nothing"

    @property
    def remarks(self) -> list[str]:
        """Lines of what was decided, is missing, and was left out."""
        return [
            *self.notes,
            *(f"missing: {one}" for one in self.missing),
            *(f"left out: {one}" for one in self.bad),
        ]

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.rows} {self.kind}, {self.added} added, {self.span}"]
        lines += [f"  {name}: {rows} {self.kind}" for name, rows in self.counts.items()]
        lines += [f"  {f.symbol}: {f.count} x {f.kind}, {f.example}" for f in self.findings]
        return "\n".join(lines + [f"  {remark}" for remark in self.remarks])


def count_rows(client: "Client", where: str, bound: dict[str, object]) -> int:
    """Rows of a table with its condition, `ticks WHERE ...`.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    with store_errors():
        return int(client.query(f"SELECT count() FROM {where}", bound).result_rows[0][0])


def repair(client: "Client", symbols: Sequence[str], first: int, last: int) -> None:
    """Make right the bars of minutes whose states do not count each tick once.

    Parameters
    ----------
    client : of the store.
    symbols : of the ticks.
    first, last : ns UTC; the whole minutes of both are looked at.

    Raises
    ------
    StoreError
        If the store does not answer; repeat it.
    """
    whole = {"first": first // MINUTE * MINUTE, "last": (last // MINUTE + 1) * MINUTE - 1}
    with store_errors():
        client.command(_REPAIR, {"symbols": list(symbols)} | whole)


def refuse_overlap(
    client: "Client", symbols: Sequence[str], first: int, last: int, source: str
) -> None:
    """Refuse ticks where another source has some in the same span.

    Raises
    ------
    DataError
        If it has.
    StoreError
        If the store does not answer.
    """
    bound = {"symbols": list(symbols), "first": first, "last": last, "source": source}
    others = count_rows(client, f"ticks FINAL WHERE {INSIDE} AND epoch != {{source:String}}", bound)
    if others:
        raise DataError(
            f"the store has {others} ticks of {', '.join(symbols)} from another"
            f" source between {iso(first)} and {iso(last)}:"
            " trades would count twice; overlap=true adds them all the same"
        )


def refuse_contradictions(batch: Bars | Rates, name: str, what: str, fields: Sequence[str]) -> None:
    """Refuse the same bar or funding time twice with other values: either could be meant.

    Raises
    ------
    DataError
        If there is one in the file of that name.
    """
    order = np.lexsort((batch.ts, batch.symbol))
    same = (np.diff(batch.ts[order]) == 0) & (np.diff(batch.symbol[order]) == 0)
    for column in fields:
        rows = np.flatnonzero(same & (np.diff(getattr(batch, column)[order]) != 0))
        if len(rows):
            first, second = np.sort(order[rows[0] : rows[0] + 2]).tolist()
            raise DataError(
                f"{name} rows {first} and {second} are the same {what} with another"
                f" {column}: leave one of them out"
            )


def refuse_bars(bars: Bars, name: str) -> None:
    """Refuse bars of a file that contradict each other, or are longer than a minute.

    Raises
    ------
    DataError
        If they do or are.
    """
    refuse_contradictions(bars, name, "bar", ("open", "high", "low", "close", "volume"))
    spacing = int(np.gcd.reduce(np.diff(np.unique(bars.ts))))  # 0 for a single bar
    if spacing > MINUTE:
        raise DataError(
            f"{name} must hold bars of one minute, were {spacing // SECOND} s apart:"
            " import minutes, longer bars are made of them"
        )
