"""Speed of the served store against the embedded engine in-process, medians.

    python tests/benchmarks/bench_store.py [rows] [repeats]

Saves `SELECT 1` p50 in ms, inserts and reads in million rows/s: served is ours, in-process the
reference. Both use the ordinary clickhouse-connect client; directories are temporary.
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

from sysquant import serve, store
from tests.benchmarks import report

ROUNDS = 3
START = 1_747_612_800_000_000_000  # 2025-05-19, ns


def ticks(rows: int) -> pa.Table:
    """Seeded ticks of five symbols, a millisecond apart."""
    random = np.random.default_rng(1)
    ts = pa.array(START + np.arange(rows) * 1_000_000, pa.timestamp("ns", "UTC"))
    symbols = pa.array(np.array(["AAA", "BBB", "CCC", "DDD", "EEE"])[np.arange(rows) % 5])
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


def main() -> None:
    """Measure, and save every row."""
    options = report.arguments(1_000_000, 5, "rows")
    report.save(compare(options.size, options.rounds))


if __name__ == "__main__":
    main()
