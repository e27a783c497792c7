"""Speed of the served store against the embedded engine in-process, and of history, medians.

    python tests/benchmarks/bench_store.py [rows] [repeats]

Saves `SELECT 1` p50 in ms, inserts and reads in million rows/s: served is ours, in-process the
reference. Both use the ordinary clickhouse-connect client; directories are temporary. Then seconds
for a year of minutes of five symbols through `history`, against clickhouse-connect's own Arrow
query of the same columns: of the table that holds them, unordered, and of the view `bars`.
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
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from sysquant import history, serve, store
from tests.benchmarks import report

ROUNDS = 3
YEAR = 525_600  # minutes
MINUTE_NS = 60_000_000_000
NAMES = ["AAA", "BBB", "CCC", "DDD", "EEE"]
START = 1_747_612_800_000_000_000  # 2025-05-19, ns


def ticks(rows: int) -> pa.Table:
    """Seeded ticks of five symbols, a millisecond apart."""
    random = np.random.default_rng(1)
    ts = pa.array(START + np.arange(rows) * 1_000_000, pa.timestamp("ns", "UTC"))
    symbols = pa.array(np.array(NAMES)[np.arange(rows) % 5])
    return pa.table(
        {
            "symbol": symbols,
            "ts": ts,
            "price": 100 + random.standard_normal(rows).cumsum() * 0.01,
            "volume": random.exponential(1, rows),
            "received_at": ts,
            "epoch": pa.array(["bench"] * rows),
            "partition": pa.array(np.zeros(rows, np.int32)),
            "offset": pa.array(np.arange(rows)),
        }
    )


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median duration of one call."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def measure(client: Client, rows: int, repeats: int) -> dict[str, float]:
    """Every figure through one client: ms for `select 1`, else million rows/s."""
    store.migrate(client)
    table = ticks(rows)
    columns = "symbol, ts, price, volume, received_at, epoch, partition, offset"
    frame = table.select(["ts", "price", "volume", "offset"]).to_pandas()
    client.command("CREATE TABLE plain AS ticks ENGINE = MergeTree ORDER BY (symbol, ts)")
    client.command("CREATE TABLE numbers_only (ts DateTime64(9, 'UTC'), price Float64, "
                   "volume Float64, offset Int64) ENGINE = MergeTree ORDER BY ts")  # fmt: skip
    tokens = iter(range(1_000_000))
    figures = {"select 1, ms": seconds(lambda: client.query("SELECT 1"), 200) * 1e3}
    work: dict[str, Callable[[], object]] = {
        "insert arrow, with view": lambda: store.insert(client, "ticks", table, str(next(tokens))),
        "insert arrow": lambda: store.insert(client, "plain", table, str(next(tokens))),
        "insert frame": lambda: client.insert_df("numbers_only", frame),
    }
    for name, call in work.items():
        figures[name] = rows / seconds(call, repeats) / 1e6
    client.command("TRUNCATE TABLE plain")
    store.insert(client, "plain", table, "once")
    query = f"SELECT {columns} FROM plain"
    reads: dict[str, Callable[[], object]] = {
        "read arrow": lambda: client.query_arrow(query),
        "read arrow stream": lambda: _drain(client, query),
        "read frame": lambda: client.query_df("SELECT ts, price, volume, offset FROM plain"),
        "read rows": lambda: client.query("SELECT symbol, price FROM plain").result_columns,
    }
    for name, call in reads.items():
        figures[name] = rows / seconds(call, repeats) / 1e6
    return figures


def _drain(client: Client, query: str) -> None:
    with client.query_arrow_stream(query) as batches:
        for _ in batches:
            pass


def in_process(directory: str, rows: int, repeats: int) -> dict[str, float]:
    """Figures of the engine in this process."""
    client = store.connect(f"chdb:{directory}")
    try:
        return measure(client, rows, repeats)
    finally:
        client.close()


def served(directory: str, rows: int, repeats: int) -> dict[str, float]:
    """Figures through `runners/store.py`."""
    dsn, child = serve.ensure_server(f"chdb:{directory}")
    client = store.connect(dsn)
    try:
        return measure(client, rows, repeats)
    finally:
        client.close()
        if child:
            child.terminate()
            child.wait()


def compare(rows: int, repeats: int, rounds: int = ROUNDS) -> list[report.Row]:
    """Measure both in turns, each time in a fresh process; other work on the machine hits both."""
    results: dict[str, list[dict[str, float]]] = {"served": [], "in_process": []}
    for _ in range(rounds):
        for run in (in_process, served):
            fresh = multiprocessing.get_context("spawn").Pool(1)
            with tempfile.TemporaryDirectory() as directory, fresh as pool:
                figures = pool.apply(run, (directory, rows, repeats))
            results[run.__name__].append(figures)
    found = []
    for figure in results["served"][0]:
        ours, alone = (statistics.median(f[figure] for f in each) for each in results.values())
        name, is_time, _ = figure.partition(", ms")
        unit = "ms" if is_time else "million rows/s"
        found.append(report.row("store_" + name.replace(" ", "_"), ours, alone, unit))
    return found


def minutes(count: int) -> pa.Table:
    """Seeded minute bars of five symbols, none missing."""
    random = np.random.default_rng(2)
    rows = count * len(NAMES)
    close = np.round(100 + random.standard_normal(rows).cumsum() * 0.01, 2)
    ts = START + (1 + np.arange(rows) // len(NAMES)) * MINUTE_NS
    return pa.table(
        {
            "symbol": pa.array(np.array(NAMES)[np.arange(rows) % len(NAMES)]),
            "ts": pa.array(ts, pa.timestamp("ns", "UTC")),
            "open": close,
            "high": close + 0.01,
            "low": close - 0.01,
            "close": close,
            "volume": np.round(random.exponential(1, rows), 3),
            "source": pa.array(["bench"] * rows),
        }
    )


def read_history(directory: str, count: int, rounds: int) -> dict[str, float]:
    """Median seconds of `history` and of both raw queries; all must bring the same."""
    client = store.connect(f"chdb:{directory}")
    try:
        store.migrate(client)
        store.insert(client, "bars_imported", minutes(count), "once")
        client.command("OPTIMIZE TABLE bars_imported FINAL")  # or it would merge meanwhile
        start, end = START, START + count * MINUTE_NS
        raw = (
            "SELECT symbol, ts, open, high, low, close, volume FROM {} "
            "WHERE symbol IN ('AAA', 'BBB', 'CCC', 'DDD', 'EEE') "
            f"AND ts > fromUnixTimestamp64Nano({start}) AND ts <= fromUnixTimestamp64Nano({end})"
        )
        ways: report.Ways = {
            "history": lambda: lambda: history(NAMES, start, end, client=client),
            "arrow": lambda: lambda: client.query_arrow(raw.format("bars_imported FINAL")),
        }
        view = raw.format("bars") + " ORDER BY ts, symbol"
        timed = report.in_turns(ways, rounds)
        timed |= report.in_turns({"view": lambda: lambda: client.query_arrow(view)}, rounds)
    finally:
        client.close()
    bars = timed["history"][1].bars
    for name in ("arrow", "view"):
        table = timed[name][1]
        assert table.num_rows == len(bars) == count * len(NAMES), name
        np.testing.assert_allclose(table["close"].to_numpy().sum(), bars.close.sum(), rtol=1e-9)
    return {name: seconds for name, (seconds, _) in timed.items()}


def history_vs_arrow(count: int, rounds: int) -> list[report.Row]:
    """The rows of `history`, measured in a fresh process."""
    fresh = multiprocessing.get_context("spawn").Pool(1)
    with tempfile.TemporaryDirectory() as directory, fresh as pool:
        took = pool.apply(read_history, (directory, count, rounds))
    return [
        report.row("history_vs_arrow", took["history"], took["arrow"], "s"),
        report.row("history_vs_view", took["history"], took["view"], "s"),
    ]


def main() -> None:
    """Measure, and save every row."""
    options = report.arguments(1_000_000, 5, "rows")
    rows = history_vs_arrow(min(options.size, YEAR), options.rounds)
    report.save(rows + compare(options.size, options.rounds))


if __name__ == "__main__":
    main()
