"""History from the store, in the one order that replay, backtest and notebooks share.

Input: a client, a universe and a range. Output: `Ticks` or `Bars`, whole or in blocks, so that a
range of any length can be read in bounded memory; and funding rates. Every row once; a gap stays a
gap. Ticks come by (running maximum of ts in their partition, partition, offset), bars by (close,
symbol). Nothing is written here, and no engine is opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from sysquant.answers import INSIDE, ask, asking, column, gathered, room
from sysquant.blocks import read_ticks, tick_bars, tick_windows
from sysquant.errors import ConfigError, DataError
from sysquant.months import earliest_of, edges_of
from sysquant.times import Moment, instant, interval_ns, moment_ns
from sysquant.types import SECOND, Bars, Floats, Instrument, Ints, Ticks

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

Kind = Literal["ticks", "bars"]

MINUTE = 60 * SECOND
BLOCK_ROWS = 262_144
_WHOLE_ROWS = 1 << 22  # of a block, where everything is asked for

# A minute bar belongs to the instant before its close. Imported bars go before those of ticks, as
# in the view `bars`, which would group every row to find that out: here only minutes that have both
# are looked for. FINAL merges the states of a minute in the order of the key, without a hash table
# of all minutes, which takes half as long again over a year.
_MINUTE_INSIDE = INSIDE.replace(">=", ">").replace("ts <", "ts <=")
MINUTES_SQL = f"""
SELECT symbol, ts, open, high, low, close, volume
FROM bars_imported FINAL WHERE {_MINUTE_INSIDE} AND ts <= now64(9, 'UTC')
UNION ALL
SELECT m.symbol AS symbol, m.ts AS ts, finalizeAggregation(m.open) AS open, m.high AS high,
  m.low AS low, finalizeAggregation(m.close) AS close, m.volume AS volume
FROM bars_1m AS m FINAL
WHERE {_MINUTE_INSIDE} AND ts <= now64(9, 'UTC') AND (symbol, ts) NOT IN (
  SELECT symbol, ts FROM bars_imported WHERE {_MINUTE_INSIDE} AND (symbol, ts) IN (
    SELECT symbol, ts FROM bars_1m WHERE {_MINUTE_INSIDE}))
"""
_BARS_OF_ONE_MINUTE_SQL = f"""
SELECT toUnixTimestamp64Nano(b.ts) AS close_at,
  toInt32(indexOf({{symbols:Array(String)}}, b.symbol) - 1) AS number,
  b.open AS open, b.high AS high, b.low AS low, b.close AS close, b.volume AS volume
FROM ({MINUTES_SQL}) AS b
"""
_BARS_OF_MINUTES_SQL = f"""
SELECT (intDiv(toUnixTimestamp64Nano(b.ts) - 1, {{interval:Int64}}) + 1) * {{interval:Int64}}
    AS close_at,
  toInt32(indexOf({{symbols:Array(String)}}, b.symbol) - 1) AS number,
  argMin(b.open, b.ts) AS open, max(b.high) AS high, min(b.low) AS low,
  argMax(b.close, b.ts) AS close, sum(b.volume) AS volume
FROM ({MINUTES_SQL}) AS b
GROUP BY close_at, number
"""

_TICK_EDGES_SQL = """
SELECT min(toUnixTimestamp64Nano(ts)), max(toUnixTimestamp64Nano(ts)) + 1, count()
FROM ticks WHERE symbol IN {symbols:Array(String)} AND startsWith(epoch, {source:String})
"""
_BAR_EDGES_SQL = """
SELECT min(first) - {minute:Int64}, max(last), sum(rows) FROM (
  SELECT min(toUnixTimestamp64Nano(ts)) AS first, max(toUnixTimestamp64Nano(ts)) AS last,
    count() AS rows
  FROM bars_1m WHERE symbol IN {symbols:Array(String)} AND ts <= now64(9, 'UTC')
  UNION ALL
  SELECT min(toUnixTimestamp64Nano(ts)), max(toUnixTimestamp64Nano(ts)), count()
  FROM bars_imported WHERE symbol IN {symbols:Array(String)} AND ts <= now64(9, 'UTC')
) WHERE rows > 0
"""

_COUNT_SQL = {
    kind: " UNION ALL ".join(f"SELECT count() FROM {name} WHERE {INSIDE}" for name in names)
    for kind, names in {"ticks": ("ticks",), "bars": ("bars_1m", "bars_imported")}.items()
}

# The rates of a range, and before them the one that holds when it starts.
_FUNDING_SQL = """
SELECT symbol, toUnixTimestamp64Nano(ts) AS at, rate FROM funding FINAL
WHERE symbol IN {symbols:Array(String)}
  AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')
  AND (ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC') OR (symbol, ts) IN (
    SELECT symbol, max(ts) FROM funding
    WHERE ts < fromUnixTimestamp64Nano({start:Int64}, 'UTC') GROUP BY symbol))
ORDER BY symbol, at
"""


def span(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    kind: Kind = "ticks",
    source: str = "",
) -> tuple[int, int]:
    """The range that is meant, in ns: [start, end).

    Parameters
    ----------
    client : of the store.
    universe : whose history.
    start, end : ns, ISO 8601 (UTC), `-6h` before the last row in the store (units s m h d), or
        None for the first row and past the last.
    kind : of the rows that None and `-6h` refer to.
    source : ticks of epochs that begin with it; all by default.

    Raises
    ------
    ConfigError
        If a time cannot be meant, or the end is not after the start.
    DataError
        If the store's rows are asked for and it has none.
    StoreError
        If the store does not answer.
    """
    first, last = 0, 0
    if any(m is None or (isinstance(m, str) and m.startswith("-")) for m in (start, end)):
        first, last = _edges(client, universe, kind, source)
    moments = moment_ns(start, first, last), moment_ns(end, last, last)
    if moments[0] >= moments[1]:
        raise ConfigError(f"history must end after its start, was start={start} end={end}")
    return moments


def _edges(
    client: "Client", universe: Sequence[Instrument], kind: Kind, source: str
) -> tuple[int, int]:
    sql = _TICK_EDGES_SQL if kind == "ticks" else _BAR_EDGES_SQL
    names = [instrument.symbol for instrument in universe]
    bound = {"symbols": names, "source": source, "minute": MINUTE}
    with asking():
        row = client.query(sql, parameters=bound).result_rows[0]
    edges = [(int(row[0]), int(row[1]))] if row[2] else []
    if kind == "ticks":  # after the store: a month leaves it when it stands in the index
        edges += [(since, until + 1) for since, until in edges_of(client, names, source)]
    if not edges:
        raise DataError(
            f"the store has no {kind} of {', '.join(names)}: import some with"
            " `python runners/backfill.py`, or choose another universe"
        )
    return min(since for since, _ in edges), max(until for _, until in edges)


def count(
    client: "Client", universe: Sequence[Instrument], start: int, end: int, *, kind: Kind
) -> int:
    """About how many rows a range has: ticks, or minutes; those of archived months are left out.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    bound = {"symbols": [one.symbol for one in universe], "start": start, "end": end}
    with asking():
        rows = client.query(_COUNT_SQL[kind], parameters=bound).result_rows
    return sum(int(row[0]) for row in rows)


def ticks(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    source: str = "",
) -> Ticks:
    """Ticks of a range, as one batch.

    Parameters
    ----------
    client, universe, start, end, source : as for `span`.

    Returns
    -------
    (T,) ticks with `start <= ts < end`, ordered by (running maximum of ts in their partition,
    partition, offset); `partition` 0 and `offset` the row number in that order.

    Raises
    ------
    As `span`.
    """
    return Ticks.join([Ticks.empty(), *iter_ticks(client, universe, start, end, source=source)])


def iter_ticks(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    *,
    source: str = "",
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> Iterator[Ticks]:
    """The same ticks from row `first_row` on, in blocks of about `block_rows`.

    A block is larger where ticks are out of order over longer stretches: nothing is cut there.
    """
    begin, until = span(client, universe, start, end, source=source)
    bound = {"symbols": [i.symbol for i in universe], "source": source}
    row = 0
    for window in tick_windows(client, bound, begin, until, block_rows):
        if row + window.rows > first_row:
            block = read_ticks(client, bound, window, row)
            yield block[max(0, first_row - row) :]
        row += window.rows


def bars(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    interval: int | str = "1m",
) -> Bars:
    """Bars of a range, as one batch.

    Whole minutes come from the minute bars (imported ones before those of ticks), other intervals
    from ticks.

    Parameters
    ----------
    client, universe, start, end : as for `span`.
    interval : of the bars, ns or `1s`, `5m`, `1h`, `1d`; they begin at its multiples since 1970.

    Returns
    -------
    (T,) bars that lie wholly in [start, end), by (close, symbol); no trade, no bar. `partition` 0
    and `offset` the row number.

    Raises
    ------
    As `span`.
    """
    blocks = iter_bars(client, universe, start, end, interval, block_rows=_WHOLE_ROWS)
    return Bars.join(list(blocks) or [Bars.empty()])


def iter_bars(
    client: "Client",
    universe: Sequence[Instrument],
    start: Moment = None,
    end: Moment = None,
    interval: int | str = "1m",
    *,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> Iterator[Bars]:
    """The same bars from row `first_row` on, in blocks of at most `block_rows`."""
    step = interval_ns(interval)
    kind: Kind = "ticks" if step % MINUTE else "bars"
    begin, until = span(client, universe, start, end, kind=kind)
    first, last = -(-begin // step) * step, until // step * step
    width = max(1, block_rows // len(universe)) * step
    bound: dict[str, object] = {"symbols": [i.symbol for i in universe], "interval": step}
    sql = _BARS_OF_ONE_MINUTE_SQL if step == MINUTE else _BARS_OF_MINUTES_SQL
    row = 0
    for at in range(first, last, width):
        until = min(at + width, last)
        if step % MINUTE:
            table = tick_bars(client, bound | {"source": ""}, at, until)
        else:
            table = ask(client, sql, bound | {"start": at, "end": until})
        if row + table.num_rows > first_row:
            block = _bars_of(table, step, len(universe), row)
            yield block[max(0, first_row - row) :]
        row += table.num_rows


def _bars_of(table: "pa.Table", step: int, symbols: int, first_row: int) -> Bars:
    # Put in order here, which takes a third of the time that the store takes for it. Taking the
    # rows in order also makes the only copy that stays: Arrow's own columns cannot be written to.
    count = table.num_rows
    ts, number = gathered(table, "close_at", np.int64), gathered(table, "number", np.int32)
    key = np.floor_divide(ts, step, out=room(count, np.int64))
    key *= symbols
    key += number
    order = np.argsort(key, kind="stable")
    prices = {
        name: _in_order(gathered(table, name, np.float64), order)
        for name in ("open", "high", "low", "close", "volume")
    }
    return Bars(
        ts=_in_order(ts, order),
        symbol=_in_order(number, order),
        **prices,
        partition=np.zeros(count, np.int32),
        offset=np.arange(first_row, first_row + count),
    )


def _in_order(values: np.ndarray, order: Ints) -> np.ndarray:
    return np.take(values, order, out=room(len(order), values.dtype), mode="clip")


def funding(
    client: "Client", symbols: Sequence[str], start: int | str, end: int | str
) -> dict[str, tuple[Ints, Floats]]:
    """Funding rates of perpetuals, as `Execution(funding=...)` takes them.

    Parameters
    ----------
    client : of the store.
    symbols : whose rates.
    start, end : ns or ISO 8601 (UTC), as in [start, end).

    Returns
    -------
    symbol -> (T,) funding times, ns UTC, rising, and (T,) rates, fractions, > 0 paid by who is
    long. The first may lie before `start`: it is the one that holds there. Symbols without rates
    are left out.

    Raises
    ------
    ConfigError
        If a time cannot be meant.
    StoreError
        If the store does not answer.
    """
    bound = {"symbols": list(symbols), "start": instant(start), "end": instant(end)}
    table = ask(client, _FUNDING_SQL, bound)
    names, first = np.unique(np.array(table["symbol"].to_pylist(), str), return_index=True)
    edges = [*first.tolist(), table.num_rows]
    times, rates = np.array(column(table, "at")), np.array(column(table, "rate"))
    return {
        str(name): (times[a:b], rates[a:b])
        for name, a, b in zip(names, edges, edges[1:], strict=False)
    }


def check_funding(
    series: Mapping[str, tuple[Ints, Floats]],
    symbols: Sequence[str],
    start: int,
    end: int,
    step: int,
) -> None:
    """Refuse rates that are not those of the funding times of a run, each and no others.

    Parameters
    ----------
    series : as `funding` returns it.
    symbols : that need rates.
    start, end : of the run, ns: rates at and before the start do not count.
    step : between two funding times, ns; they are its multiples since 1970.

    Raises
    ------
    DataError
        If a time has no rate, or a rate lies between the times.
    """
    due = np.arange((start // step + 1) * step, end, step, dtype=np.int64)
    for symbol in symbols:
        times = series[symbol][0] if symbol in series else due[:0]
        times = times[(times > start) & (times < end)]
        for wrong, said in (
            (np.setdiff1d(times, due), "has a rate between the funding times"),
            (np.setdiff1d(due, times), "has no rate"),
        ):
            if len(wrong):
                more = f" and {len(wrong) - 1} more times" if len(wrong) > 1 else ""
                raise DataError(
                    f"{symbol} {said} at {np.datetime64(int(wrong[0]), 'ns').astype('M8[s]')}Z"
                    f"{more}, with execution.funding_hours={step / (60 * MINUTE):g}: set that to "
                    "the exchange's, import what is missing with `python runners/backfill.py "
                    "mapping=funding`, or set execution.funding=null"
                )


def earliest(
    client: "Client", universe: Sequence[Instrument], lives: Sequence[str], first: Mapping[int, int]
) -> int | None:
    """Time of the earliest stored tick of a topic that lies at or behind given offsets.

    Parameters
    ----------
    client : of the store.
    universe : whose symbols are looked at.
    lives : epochs under which the topic is written.
    first : partition -> offset; partitions not named are left out.

    Returns
    -------
    ns UTC; None when there is no such tick.
    """
    if not first:
        return None
    names = [instrument.symbol for instrument in universe]
    found = client.query(
        "SELECT min(toUnixTimestamp64Nano(ts)), count() FROM ticks "
        "WHERE has({lives:Array(String)}, epoch) "
        "AND symbol IN {symbols:Array(String)} AND offset >= "
        "transform(partition, {partitions:Array(Int32)}, {offsets:Array(Int64)}, {none:Int64})",
        {
            "lives": list(lives),
            "symbols": names,
            "partitions": list(first),
            "offsets": list(first.values()),
            "none": np.iinfo(np.int64).max,
        },
    ).result_rows
    there = [int(found[0][0])] if found[0][1] else []
    filed = earliest_of(client, names, lives, first)
    return min(there + ([] if filed is None else [filed]), default=None)
