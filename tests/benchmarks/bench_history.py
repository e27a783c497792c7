"""Speed of history over many ticks, which ClickHouse generates itself.

    python tests/benchmarks/bench_history.py [ticks] [rounds]

Five symbols, a year, 100 million ticks by default; the minute bars are those that the materialised
view made of them. Saves `history_day`: p50 in ms of a day of minutes of one symbol through
`history`, against the bare query of its rows; `history_year`: seconds of the year of all five,
likewise. The bare query is that of the table `bars_1m`, as Arrow and in no order. The directory is
temporary, about 2 GB at full size.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from clickhouse_connect.driver.client import Client

from sysquant import history, store
from tests.benchmarks import report

SECOND = 1_000_000_000
DAY, YEAR = 86_400 * SECOND, 365 * 86_400 * SECOND
NAMES = ["AAA", "BBB", "CCC", "DDD", "EEE"]
START = 1_747_612_800 * SECOND  # 2025-05-19
LIMIT_MS = 50.0  # a day of minutes of one symbol
ROUNDS_OF_DAY = 5  # for each round of the year

# The same rows in every run: a price that swings, and hashes of the row's number.
_FILL_SQL = """
INSERT INTO ticks
SELECT ['AAA', 'BBB', 'CCC', 'DDD', 'EEE'][number % 5 + 1],
  fromUnixTimestamp64Nano({start:Int64} + toInt64(number) * {spacing:Int64}, 'UTC') AS at,
  round(100 + 20 * sin(number / 1e6) + intHash32(number) % 100 / 100, 2),
  (1 + intHash32(number + 1) % 1000) / 1000, at, 'bench', number % 5, number
FROM numbers({first:UInt64}, {rows:UInt64})
"""
_BARE_SQL = """
SELECT m.symbol AS symbol, m.ts AS ts, argMinMerge(m.open) AS open, max(m.high) AS high,
  min(m.low) AS low, argMaxMerge(m.close) AS close, sum(m.volume) AS volume
FROM bars_1m AS m WHERE m.symbol IN {symbols:Array(String)}
  AND m.ts > fromUnixTimestamp64Nano({start:Int64}, 'UTC')
  AND m.ts <= fromUnixTimestamp64Nano({end:Int64}, 'UTC')
GROUP BY symbol, ts
"""


def fill(client: Client, rows: int) -> None:
    """Ticks of five symbols in turn, evenly over the year."""
    spacing, step = YEAR // rows, max(1, rows // 20)
    settings = {"max_partitions_per_insert_block": 100, "max_memory_usage": 8 << 30}
    for first in range(0, rows, step):
        bound = {
            "start": START,
            "spacing": spacing,
            "first": first,
            "rows": min(step, rows - first),
        }
        client.command(_FILL_SQL, bound, settings=settings)


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after another in every round; the first round is not counted."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, call in ways.items():
            began = time.perf_counter()
            call()
            if turn:
                took[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in took.items()}


def measure(directory: str, rows: int, rounds: int) -> dict[str, float]:
    """Median seconds of a day and a year through `history` and through the bare query."""
    client = store.connect(f"chdb:{directory}")
    try:
        store.migrate(client)
        began = time.perf_counter()
        fill(client, rows)
        print(f"{rows:,} ticks in {time.perf_counter() - began:.0f} s")
        day, found = START + 200 * DAY, dict[str, float]()

        def bare(symbols: list[str], start: int, end: int):
            bound = {"symbols": symbols, "start": start, "end": end}
            return client.query_arrow(_BARE_SQL, bound)

        for name, symbols, start, end, times in (
            ("day", NAMES[2:3], day, day + DAY, rounds * ROUNDS_OF_DAY),
            ("year", NAMES, START, START + YEAR, rounds),
        ):
            bars, table = (
                history(symbols, start, end, client=client).bars,
                bare(symbols, start, end),
            )
            assert len(bars) == table.num_rows > 0, name
            np.testing.assert_allclose(table["close"].to_numpy().sum(), bars.close.sum(), rtol=1e-9)
            ways: dict[str, Callable[[], object]] = {
                name: lambda s=symbols, a=start, b=end: history(s, a, b, client=client),
                f"bare {name}": lambda s=symbols, a=start, b=end: bare(s, a, b),
            }
            found |= in_turns(ways, times)
    finally:
        client.close()
    return found


def compare(rows: int, rounds: int) -> list[report.Row]:
    """Both rows, measured in a fresh process; the day above its limit is told."""
    fresh = multiprocessing.get_context("spawn").Pool(1)
    with tempfile.TemporaryDirectory() as directory, fresh as pool:
        took = pool.apply(measure, (directory, rows, rounds))
    ms = took["day"] * 1e3
    if ms > LIMIT_MS:
        print(f"a day of minutes took {ms:.0f} ms, promised are {LIMIT_MS:.0f}")
    return [
        report.row("history_day", ms, took["bare day"] * 1e3, "ms"),
        report.row("history_year", took["year"], took["bare year"], "s"),
    ]


def main() -> None:
    """Measure, and save every row."""
    options = report.arguments(100_000_000, 5, "ticks")
    report.save(compare(options.size, options.rounds))


if __name__ == "__main__":
    main()
