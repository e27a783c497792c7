"""The served store through the clients people have: clickhouse-connect, and clickhouse-go."""

import datetime as dt
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    OperationalError,
    StreamFailureError,
)

from tests.conftest import REPOSITORY
from tests.store_fixtures import Store, db, server

__all__ = ["db", "server"]

GO = REPOSITORY / "tests" / "clickhouse_go"


def connected(db: Store, **options: Any) -> Client:
    """The ordinary client, with its own defaults: a session of its own, compression, and so on."""
    parts = urlsplit(db.server.url)
    user = options.setdefault("username", "default")
    return clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port, password=db.server.users[user],
        database=db.database, **options,
    )  # fmt: skip


@pytest.fixture
def client(db: Store) -> Iterator[Client]:
    """One of them."""
    found = connected(db)
    yield found
    found.close()


@pytest.mark.parametrize("compress", [False, True, "lz4", "zstd", "gzip"])
def test_rows_go_in_and_come_back(db: Store, compress: bool | str):
    client = connected(db, compress=compress)
    client.command(
        "CREATE TABLE t (n UInt64, s LowCardinality(String), f Nullable(Float64), "
        "ts DateTime64(9, 'UTC'), a Array(String), m Map(String, Int8)) "
        "ENGINE = MergeTree ORDER BY n"
    )
    moment = dt.datetime(2025, 5, 19, 1, 2, 3, 456789, tzinfo=dt.UTC)
    rows = [
        [n, f"S{n % 3}", n / 7 if n % 2 else None, moment, ["x", str(n)], {"k": n % 100}]
        for n in range(30_000)
    ]
    summary = client.insert("t", rows)
    assert summary.written_rows == 30_000
    found = client.query("SELECT * FROM t ORDER BY n", tz_mode="aware")
    assert [list(row) for row in found.result_rows] == rows
    assert int(found.summary["read_rows"]) == 30_000
    client.close()


def test_frames_arrays_and_arrow_go_in_and_come_back(client: Client):
    client.command("CREATE TABLE t (n UInt64, f Float64, s String) ENGINE = MergeTree ORDER BY n")
    frame = pd.DataFrame({"n": range(200_000), "f": np.sqrt(np.arange(200_000)), "s": "x"})
    client.insert_df("t", frame)
    assert np.array_equal(client.query_np("SELECT f FROM t ORDER BY n").ravel(), frame["f"])
    back = client.query_df("SELECT * FROM t ORDER BY n")
    assert np.array_equal(back["n"], frame["n"])
    table = client.query_arrow("SELECT * FROM t ORDER BY n")
    assert table.num_rows == 200_000
    client.command("TRUNCATE TABLE t")
    client.insert_arrow("t", table)
    with client.query_arrow_stream("SELECT * FROM t ORDER BY n") as batches:
        assert pa.concat_tables(pa.table(batch) for batch in batches)["f"].to_pylist()[9] == 3.0
    with client.query_row_block_stream("SELECT n FROM t") as blocks:
        assert sum(len(block) for block in blocks) == 200_000
    with client.query_df_stream("SELECT n FROM t") as frames:
        assert sum(len(part) for part in frames) == 200_000


def test_text_goes_in_raw_and_comes_out_raw(client: Client):
    client.command("CREATE TABLE t (n UInt64, s String) ENGINE = Memory")
    client.raw_insert("t", ["n", "s"], b'1,"a"\n2,"b"\n', fmt="CSV")
    assert client.raw_query("SELECT * FROM t ORDER BY n", fmt="CSV") == b'1,"a"\n2,"b"\n'
    with client.raw_stream("SELECT number FROM numbers(300000)", fmt="TSV") as stream:
        assert b"".join(stream).count(b"\n") == 300_000


def test_parameters_are_bound_by_the_server(client: Client):
    odd = "a'); DROP TABLE t; -- \\ \t\n 日本"
    moment = dt.datetime(2025, 5, 19, tzinfo=dt.UTC)
    found = client.query(
        "SELECT {a:String}, {b:Array(Int32)}, {c:DateTime64(3, 'UTC')}, {d:Nullable(Float64)}, "
        "toString({a:String}) AS {e:Identifier}",
        {"a": odd, "b": [1, 2], "c": moment, "d": None, "e": "an odd name"},
        tz_mode="aware",
    )
    assert found.result_rows == [(odd, [1, 2], moment, None, odd)]
    assert found.column_names[4] == "an odd name"


def test_columns_of_an_empty_result_are_known(client: Client):
    found = client.query("SELECT 1 AS a, 'x' AS b LIMIT 0")
    assert (found.result_rows, found.column_names) == ([], ("a", "b"))


def test_settings_and_query_id_are_taken(client: Client):
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 3}) == 3
    found = client.query("SELECT 1", settings={"query_id": "mine"})
    assert found.query_id == "mine"
    client.set_client_setting("max_block_size", 99)
    assert client.command("SELECT getSetting('max_block_size')") == 99
    with pytest.raises(DatabaseError, match="UNKNOWN_SETTING"):
        client.query("SELECT 1", settings={"nosuch": 1})


def test_client_has_a_session_with_its_temporary_tables(db: Store, client: Client):
    client.command("CREATE TEMPORARY TABLE mine (n UInt8)")
    client.insert("mine", [[1], [2]], column_names=["n"])
    assert client.command("SELECT sum(n) FROM mine") == 3
    other = connected(db)
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        other.query("SELECT * FROM mine")
    other.close()


def test_failure_has_its_code_and_the_client_goes_on(client: Client):
    with pytest.raises(DatabaseError) as raised:
        client.query("SELECT nosuch")
    assert raised.value.code == 47
    with pytest.raises(DatabaseError) as raised:
        client.insert("nosuch", [[1]], column_names=["a"], column_type_names=["UInt8"])
    assert raised.value.code == 60
    with pytest.raises(DatabaseError) as raised:
        client.command("SELECT sum(throwIf(number = 3000000)) FROM numbers(10000000)")
    assert raised.value.code == 395
    assert client.command("SELECT 1") == 1


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failure_in_mid_stream_is_noticed(db: Store, compress: bool | str):
    client = connected(db, compress=compress)
    seen = 0
    sql = "SELECT throwIf(number = 3000000), cityHash64(number) FROM numbers(10000000)"

    def read() -> None:
        nonlocal seen
        with client.query_row_block_stream(sql) as blocks:
            for block in blocks:
                seen += len(block)

    with pytest.raises((StreamFailureError, OperationalError), match=r"395|Failed to read"):
        read()
    assert 0 < seen < 10_000_000
    assert client.command("SELECT 1") == 1
    client.close()


def test_stream_left_early_lets_the_client_go_on(client: Client):
    with client.query_row_block_stream("SELECT number FROM numbers(3000000)") as blocks:
        next(iter(blocks))
    assert client.command("SELECT 1") == 1


def test_clients_in_threads_work_side_by_side(db: Store):
    first = connected(db)
    first.command("CREATE TABLE t (who UInt8, n UInt64) ENGINE = MergeTree ORDER BY who")
    failed: list[object] = []

    def work(who: int) -> None:
        mine = connected(db)
        for _ in range(5):
            mine.insert("t", [[who, n] for n in range(1000)])
            if mine.query_np(f"SELECT number FROM numbers({who * 1000})").shape != (who * 1000, 1):
                failed.append(who)
        mine.close()

    threads = [threading.Thread(target=work, args=(who,)) for who in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert first.command("SELECT count() FROM t") == 30_000
    first.close()


def test_dashboard_is_an_ordinary_client_that_only_reads(db: Store, client: Client):
    client.command("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
    reader = connected(db, username="dashboard", settings={"max_execution_time": 20})
    assert reader.query("SELECT * FROM t").result_rows == []
    assert reader.query("SELECT 1", settings={"max_execution_time": 5}).first_row == (1,)
    for statement in ("DROP TABLE t", "INSERT INTO t VALUES (1)"):
        with pytest.raises(DatabaseError) as raised:
            reader.command(statement)
        assert raised.value.code == 164
    with pytest.raises(DatabaseError, match="READONLY"):
        reader.insert("t", [[1]])
    reader.close()


def test_retried_insert_is_taken_once(client: Client):
    client.command("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n "
                   "SETTINGS non_replicated_deduplication_window = 100")  # fmt: skip
    for _ in range(3):
        client.insert("t", [[1], [2]], settings={"insert_deduplication_token": "a"})
    assert client.command("SELECT count() FROM t") == 2


def test_ping_answers(client: Client):
    assert client.ping()


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not on this machine: not shown here")
@pytest.mark.timeout(600)  # the driver is compiled once per machine
def test_clickhouse_go_finds_a_clickhouse(db: Store):
    passwords = db.server.users
    told = {
        "SYSQUANT_STORE": db.host,
        "SYSQUANT_DATABASE": db.database,
        "SYSQUANT_PASSWORD": passwords["default"],
        "SYSQUANT_READER": passwords["dashboard"],
    }
    fetched = subprocess.run(["go", "mod", "download"], cwd=GO, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"the Go driver cannot be fetched: not shown here ({fetched.stderr[-200:]})")
    done = subprocess.run(
        ["go", "test", "-count=1", "./..."],
        cwd=GO, env=os.environ | told, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "no tests to run" not in done.stdout
