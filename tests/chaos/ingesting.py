"""`runners/ingest.py` as a session that scenarios disturb, and what it left in the store."""

import contextlib

from sysquant.failpoints import Point
from sysquant.ingest import ingest_journal
from tests.chaos.lab import Lab
from tests.chaos.session import Session

POINTS = (
    Point.BEFORE_BEGIN, Point.BEGUN, Point.BEFORE_COMMIT, Point.AFTER_COMMIT, Point.BATCH,
    Point.BEFORE_INSERT, Point.INSERTED, Point.CHECKPOINTED,
)  # fmt: skip
# Every minute bar, as it stands and as the distinct ticks make it: only in one, or not equal. Sums
# in another order differ in their last digits.
_OTHER_BARS = """
    SELECT symbol, ts FROM (
        SELECT symbol, ts, argMinMerge(open) AS open, max(high) AS high, min(low) AS low,
            argMaxMerge(close) AS close, sum(volume) AS volume, sum(ticks) AS ticks
        FROM bars_1m GROUP BY symbol, ts
        UNION ALL
        SELECT t.symbol, toDateTime64(toStartOfMinute(t.ts) + INTERVAL 1 MINUTE, 9, 'UTC') AS at,
            argMin(t.price, (t.ts, t.offset)), max(t.price), min(t.price),
            argMax(t.price, (t.ts, t.offset)), sum(t.volume), count()
        FROM (SELECT DISTINCT symbol, ts, price, volume, partition, offset FROM ticks) AS t
        GROUP BY t.symbol, at
    ) AS bar
    GROUP BY symbol, ts
    HAVING count() != 2 OR min((bar.open, bar.high, bar.low, bar.close, bar.ticks))
        != max((bar.open, bar.high, bar.low, bar.close, bar.ticks))
        OR max(bar.volume) - min(bar.volume) > 1e-12 * max(bar.volume)
"""


class Ingesting(Session):
    """The ingest of one topic into a database of its own."""

    runner = "ingest"

    def __init__(self, lab: Lab, topic: str) -> None:
        super().__init__(lab, topic)
        self.words = [
            "universe=sample", "store=clickhouse", f"feed.bootstrap={lab.broker.bootstrap}",
            f"feed.topic={topic}", "feed.max_records=200",
        ]  # fmt: skip
        self.directory = ingest_journal(topic, self.environment["CLICKHOUSE_DSN"])

    def inputs(self) -> int:
        """Records that were taken."""
        return sum(self.positions().values())

    def stored(self) -> dict[str, float]:
        """Ticks in the store, those `lost` and `doubled`, and minute bars that are not theirs."""
        there = sum(self.lab.end_offsets(self.topic).values())
        with contextlib.closing(self.lab.client(self.name)) as client:
            sql = "SELECT count(), uniqExact(partition, offset) FROM ticks"
            count, distinct = client.query(sql).result_rows[0]
            sql = "SELECT uniqExact(symbol, ts) FROM bars_1m"
            bars = client.query(sql).result_rows[0][0]
            other_bars = client.query(_OTHER_BARS).result_rows
        return {
            "ticks": count, "lost": there - distinct, "doubled": count - distinct, "bars": bars,
            "other_bars": len(other_bars),
        }  # fmt: skip
