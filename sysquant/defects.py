"""What is right and wrong of the store's data of one symbol on one day: ClickHouse counts.

Input: a client, a symbol, a range inside a day, and what is still in order. Output: the counts of
each kind of fault with its worst case. Nothing is judged here, and nothing is written.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sysquant.archive import MINUTE, MINUTES_SQL
from sysquant.blocks import ask, column
from sysquant.times import DAY
from sysquant.types import Floats, Ints

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_INSIDE = """t.symbol = {symbol:String}
  AND t.ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC')
  AND t.ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"""
# Bars that were imported as they are; those that were made anew from ticks tell nothing new.
_IMPORTED = """FROM bars_imported AS b FINAL
WHERE b.symbol = {symbol:String} AND b.source != 'ticks'
  AND b.ts > fromUnixTimestamp64Nano({start:Int64}, 'UTC')
  AND b.ts <= fromUnixTimestamp64Nano({end:Int64}, 'UTC')"""
_MINUTE_OF = "toUnixTimestamp64Nano(b.ts) - {minute:Int64}"

_TICKS_SQL = f"""
SELECT count() AS rows, uniqExact(t.epoch, t.partition, t.offset) AS ticks,
  quantilesExactInclusive(0.01, 0.5, 0.99)(
    (toUnixTimestamp64Nano(t.received_at) - toUnixTimestamp64Nano(t.ts)) / 1e6) AS skew_ms
FROM ticks AS t FINAL WHERE {_INSIDE}
"""

_DUPLICATES_SQL = f"""
SELECT sum(times - 1) AS duplicates, max(times) AS most, argMax(at, times) AS most_at
FROM (
  SELECT toUnixTimestamp64Nano(t.ts) AS at, count() AS times
  FROM ticks AS t FINAL WHERE {_INSIDE} GROUP BY at, t.price, t.volume HAVING times > 1
)
"""

# The running maximum is that of all symbols in a partition, as replay orders them. What comes up to
# a day later is looked at, too: only that can make a tick of this day late.
_DISORDER_SQL = f"""
SELECT count() AS disordered, max(late) AS worst, argMax(at, late) AS worst_at
FROM (
  SELECT t.symbol AS symbol, toUnixTimestamp64Nano(t.ts) AS at,
    max(toUnixTimestamp64Nano(t.ts)) OVER (
      PARTITION BY t.epoch, t.partition ORDER BY t.offset
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - at AS late
  FROM ticks AS t FINAL
  WHERE t.ts >= fromUnixTimestamp64Nano({{start:Int64}}, 'UTC')
    AND t.ts < fromUnixTimestamp64Nano({{later:Int64}}, 'UTC')
    AND (t.epoch, t.partition) IN (
      SELECT DISTINCT t.epoch, t.partition FROM ticks AS t WHERE {_INSIDE})
) WHERE symbol = {{symbol:String}} AND at < {{end:Int64}} AND late > 0
"""

# From the end of what was seen before to what comes next, counting the time that is open.
_GAPS_SQL = f"""
SELECT countIf(open_ns > {{gap:Int64}}) AS gaps, max(open_ns) AS longest,
  argMax(since, open_ns) AS longest_at, sumIf(open_ns, open_ns > {{gap:Int64}}) AS total
FROM (
  SELECT since, arraySum((a, b) -> greatest(toInt64(0), least(b, at) - greatest(a, since)),
    {{opens:Array(Int64)}}, {{closes:Array(Int64)}}) AS open_ns
  FROM (
    SELECT at, max(last) OVER (
      ORDER BY at, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS since
    FROM (
      SELECT toUnixTimestamp64Nano(t.ts) AS at, at AS last FROM ticks AS t FINAL WHERE {_INSIDE}
      UNION ALL SELECT {_MINUTE_OF} AS at, toUnixTimestamp64Nano(b.ts) AS last {_IMPORTED}
      UNION ALL SELECT {{start:Int64}} AS at, {{start:Int64}} AS last
      UNION ALL SELECT {{end:Int64}} AS at, {{end:Int64}} AS last
    )
  ) WHERE since >= {{start:Int64}}
)
"""

# A run: minutes with trades, one after the other, that have no other price than the first of them.
_MINUTES_SQL_OF_A_DAY = f"""
SELECT count() AS minutes, countIf(is_open) AS bars FROM (
  SELECT arrayExists((a, b) -> began >= a AND began < b,
    {{opens:Array(Int64)}}, {{closes:Array(Int64)}}) AS is_open
  FROM (SELECT {_MINUTE_OF} AS began FROM ({MINUTES_SQL}) AS b)
)
"""
_STUCK_SQL = f"""
SELECT max(length) AS longest, argMax(began, length) AS longest_at, argMax(price, length) AS price,
  sumIf(length, length > {{stuck:Int64}}) AS stuck
FROM (
  SELECT count() AS length, min(began) AS began, any(price) AS price
  FROM (
    SELECT began, price, is_still, sum(is_new) OVER (
      ORDER BY began ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS run
    FROM (
      SELECT {_MINUTE_OF} AS began, b.close AS price, b.high = b.low AS is_still,
        NOT (is_still AND lagInFrame(is_still) OVER one AND lagInFrame(price) OVER one = price)
          AS is_new
      FROM ({MINUTES_SQL}) AS b WHERE b.volume > 0
      WINDOW one AS (ORDER BY b.ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    )
  ) WHERE is_still GROUP BY run
)
"""

# What `Inspection` calls an absurd price: of a trade, or the close of an imported bar, that is so
# far from both neighbours on one side of them; or an extreme of such a bar from its open and close.
_EACH_SPIKE_SQL = f"""
SELECT at, price, beside, size FROM (
  SELECT at, price, before AS beside,
    if((log(price) - log(before)) * (log(price) - log(after)) > 0,
      least(abs(log(price) - log(before)), abs(log(price) - log(after))), 0) AS size
  FROM (
    SELECT at, price, lagInFrame(price) OVER beside AS before,
      leadInFrame(price) OVER beside AS after
    FROM (
      SELECT 0 AS kind, toUnixTimestamp64Nano(t.ts) AS at, t.price AS price,
        cityHash64(t.epoch) AS life, t.partition AS place, t.offset AS row
      FROM ticks AS t FINAL WHERE {_INSIDE}
      UNION ALL SELECT 1, {_MINUTE_OF}, b.close, 0, 0, 0 {_IMPORTED}
    )
    WINDOW beside AS (PARTITION BY kind ORDER BY at, life, place, row
      ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)
  ) WHERE before > 0 AND after > 0
  UNION ALL
  SELECT {_MINUTE_OF} AS at, if(above > below, b.high, b.low) AS price, b.close AS beside,
    greatest(log(b.high / greatest(b.open, b.close)) AS above,
      log(least(b.open, b.close) / b.low) AS below) AS size
  {_IMPORTED}
) WHERE size > {{step:Float64}}
"""
_SPIKES_SQL = f"""
SELECT count() AS spikes, uniqExact(intDiv(at, {{minute:Int64}})) AS minutes,
  argMax(at, size) AS worst_at, argMax(price, size) AS worst, argMax(beside, size) AS beside
FROM ({_EACH_SPIKE_SQL})
"""

# Of a minute that was made anew from ticks, that bar counts and the states behind it do not.
# Volumes are sums, whose last bits depend on the order.
_AGREEMENT_SQL = f"""
SELECT count() AS compared, countIf(differs) AS differing, minIf(close_at, differs) AS first
FROM (
  SELECT if(made.close_at > 0, made.close_at, there.close_at) AS close_at,
    (there.rows >= 0 AND there.rows != made.rows)
      OR (there.open, there.high, there.low, there.close)
        != (made.open, made.high, made.low, made.close)
      OR NOT abs(there.volume - made.volume) <= 1e-9 * abs(made.volume) AS differs
  FROM (
    SELECT (intDiv(toUnixTimestamp64Nano(t.ts), {{minute:Int64}}) + 1) * {{minute:Int64}}
        AS close_at,
      argMin(t.price, (t.ts, t.offset)) AS open, max(t.price) AS high, min(t.price) AS low,
      argMax(t.price, (t.ts, t.offset)) AS close, sum(t.volume) AS volume, toInt64(count()) AS rows
    FROM ticks AS t FINAL WHERE {_INSIDE} GROUP BY close_at
  ) AS made
  FULL OUTER JOIN (
    SELECT close_at, argMax(bar.open, rank) AS open, argMax(bar.high, rank) AS high,
      argMax(bar.low, rank) AS low, argMax(bar.close, rank) AS close,
      argMax(bar.volume, rank) AS volume, argMax(bar.rows, rank) AS rows
    FROM (
      SELECT toUnixTimestamp64Nano(m.ts) AS close_at, argMinMerge(m.open) AS open,
        max(m.high) AS high, min(m.low) AS low, argMaxMerge(m.close) AS close,
        sum(m.volume) AS volume, toInt64(sum(m.ticks)) AS rows, 0 AS rank
      FROM bars_1m AS m WHERE m.symbol = {{symbol:String}}
        AND m.ts > fromUnixTimestamp64Nano({{start:Int64}}, 'UTC')
        AND m.ts <= fromUnixTimestamp64Nano({{end:Int64}}, 'UTC')
      GROUP BY close_at
      UNION ALL
      SELECT toUnixTimestamp64Nano(b.ts), b.open, b.high, b.low, b.close, b.volume,
        toInt64(-1), 1 {_IMPORTED.replace("!= 'ticks'", "= 'ticks'")}
    ) AS bar GROUP BY close_at
  ) AS there ON made.close_at = there.close_at
) SETTINGS join_use_nulls = 0
"""

_QUESTIONS = {
    "minutes": _MINUTES_SQL_OF_A_DAY, "ticks": _TICKS_SQL, "duplicates": _DUPLICATES_SQL,
    "disorder": _DISORDER_SQL, "gaps": _GAPS_SQL, "stuck": _STUCK_SQL, "spikes": _SPIKES_SQL,
    "agreement": _AGREEMENT_SQL,
}  # fmt: skip


def count_defects(
    client: "Client", symbol: str, start: int, end: int, **limits: object
) -> Mapping[str, Mapping[str, Any]]:
    """Kind of fault -> what was counted of it.

    Parameters
    ----------
    client : of a migrated store.
    symbol : whose data.
    start, end : [start, end) ns UTC, whole minutes.
    **limits : `opens` and `closes`, what the calendar has open of the range, ns; `gap`, ns;
        `stuck`, minutes; `step`, of the logarithm of the price.

    Returns
    -------
    minutes (minutes, bars), ticks (rows, ticks, skew_ms at 1, 50 and 99 %), duplicates (duplicates,
    most, most_at), disorder (disordered, worst, worst_at), gaps (gaps, longest, longest_at, total),
    stuck (longest, longest_at, price, stuck), spikes (spikes, minutes, worst, worst_at, beside),
    agreement (compared, differing, first); times and lengths of time in ns.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    bound = {
        "symbol": symbol, "symbols": [symbol], "start": start, "end": end, "later": end + DAY,
        "minute": MINUTE, **limits,
    }  # fmt: skip
    return {kind: ask(client, sql, bound).to_pylist()[0] for kind, sql in _QUESTIONS.items()}


def spikes(
    client: "Client", symbol: str, start: int, end: int, absurd: float = 0.2
) -> tuple[Ints, Floats]:
    """Time (ns UTC) and price of each price that is absurd, rising in time.

    Parameters
    ----------
    client : of a migrated store.
    symbol : whose prices.
    start, end : [start, end) ns UTC; the first and the last price have one neighbour only.
    absurd : fraction by which a price may differ from both neighbours.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    bound: dict[str, object] = {"symbol": symbol, "start": start, "end": end, "minute": MINUTE}
    found = ask(client, f"{_EACH_SPIKE_SQL} ORDER BY at", bound | {"step": step_of(absurd)})
    return np.array(column(found, "at")), np.array(column(found, "price"))


def step_of(absurd: float) -> float:
    """The step of a price's logarithm, up or down, that a fraction comes to."""
    return float(np.log1p(absurd))
