"""The store: one suite for the embedded engine in-process and for the server over it."""

import contextlib
import datetime as dt
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from sysquant import serve, store
from sysquant.errors import ConfigError, StoreError
from sysquant.stop import spawn
from tests.conftest import REPOSITORY
from tests.served import drop, served

__all__ = ["served"]

MINUTE = 60_000_000_000
START = 29_126_880 * MINUTE  # 2025-05-19 00:00 UTC
HOLD = "import chdb, time; c = chdb.connect({!r}); print('held', flush=True); time.sleep(60)"


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The one directory that the engine of this process has; held until the end."""
    path = tmp_path_factory.mktemp("embedded") / "a store"
    first = store.connect(f"chdb:{path}")
    yield path
    first.close()


@pytest.fixture(params=["embedded", "served"])
def dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a fresh database of either engine."""
    name = f"test_{secrets.token_hex(4)}"
    if request.param == "embedded":
        engine = f"chdb:{request.getfixturevalue('directory')}?database="
    else:
        engine = f"{request.getfixturevalue('served')}/"
    yield engine + name
    drop(f"{engine}default", name)


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """A client of a migrated database."""
    found = store.connect(dsn)
    store.migrate(found)
    yield found
    found.close()


def ticks(
    ts: list[int], price: list[float], offset: list[int], *, epoch: str = "e", symbol: str = "A"
) -> pa.Table:
    """Rows of the table `ticks`, one unit each."""
    times = pa.array(ts, pa.timestamp("ns", "UTC"))
    rows = len(ts)
    return pa.table(
        {
            "symbol": [symbol] * rows,
            "ts": times,
            "price": price,
            "volume": [1.0] * rows,
            "received_at": times,
            "epoch": [epoch] * rows,
            "partition": pa.array([0] * rows, pa.int32()),
            "offset": pa.array(offset, pa.int64()),
        }
    )


def minute_bars(close: float) -> pa.Table:
    """One imported bar, of the first minute."""
    return pa.table(
        {
            "symbol": ["A"],
            "ts": pa.array([START + MINUTE], pa.timestamp("ns", "UTC")),
            **{name: [close] for name in ("open", "high", "low", "close", "volume")},
            "source": ["file"],
        }
    )


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    """What a query gives."""
    return [tuple(row) for row in client.query(sql).result_rows]


def bars(client: Client) -> list[tuple[object, ...]]:
    """Open, high, low, close and volume of every finished bar, in order."""
    return rows(client, "SELECT open, high, low, close, volume FROM bars ORDER BY symbol, ts")


def test_migrations_run_once_and_are_recorded(dsn: str):
    client = store.connect(dsn)
    assert store.migrate(client) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert store.migrate(client) == []
    found = rows(client, "SELECT number, name FROM schema_migrations FINAL ORDER BY number")
    names = (
        "0001_market.sql",
        "0002_trading.sql",
        "0003_engine.sql",
        "0004_operation.sql",
        "0005_stream.sql",
        "0006_quality.sql",
        "0007_views.sql",
        "0008_archived.sql",
        "0009_models.sql",
        "0010_challenges.sql",
        "0011_research.sql",
        "0012_twin.sql",
        "0013_promotions.sql",
    )
    assert found == [(int(name[:4]), name) for name in names]
    client.close()


def test_newer_schema_is_refused(client: Client):
    client.command("INSERT INTO schema_migrations (number, name, checksum) VALUES (14, 'x', 'y')")
    with pytest.raises(StoreError, match="has migration 14, this version knows 13 at most: update"):
        store.migrate(client)


def test_changed_migration_is_refused(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(store.SCHEMA, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "0001_market.sql").open("a") as file:
        file.write("-- one more line\n")
    monkeypatch.setattr(store, "SCHEMA", tmp_path)
    with pytest.raises(StoreError, match=r"0001_market\.sql was changed after it was run"):
        store.migrate(client)


def test_interrupted_migration_is_finished(dsn: str):
    client = store.connect(dsn)
    for statement in store.statements((store.SCHEMA / "0001_market.sql").read_text())[:3]:
        client.command(statement)
    assert store.migrate(client) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    client.close()


def test_statements_are_split_outside_quotes_and_comments():
    sql = "-- a; b\nSELECT ';', 'it''s; -- no comment'; -- end;\nSELECT 2 -- last"
    assert store.statements(sql) == ["SELECT ';', 'it''s; -- no comment'", "SELECT 2"]


def test_retried_insert_is_doubled_neither_in_ticks_nor_in_bars(client: Client):
    table = ticks([START, START + 1], [1.0, 2.0], [0, 1])
    for _ in range(3):
        store.insert(client, "ticks", table, "first")
    store.insert(client, "ticks", ticks([START + 2], [3.0], [2]), "second")
    store.insert(client, "ticks", table, "first")
    assert rows(client, "SELECT count() FROM ticks") == [(3,)]
    assert bars(client) == [(1.0, 3.0, 1.0, 3.0, 3.0)]


def test_retried_insert_is_not_doubled_behind_other_views(client: Client):
    ts = pa.array([START], pa.timestamp("ns", "UTC"))
    table = pa.table({"run": ["r"], "ts": ts, "version": [1], "strategy": ["s"], "cash": [5.0]})
    for _ in range(2):
        store.insert(client, "portfolio_history", table, "once")
    assert rows(client, "SELECT sum(cash) FROM portfolio_history") == [(5.0,)]
    assert rows(client, "SELECT sum(cash) FROM portfolio_state") == [(5.0,)]


def test_long_table_is_cut_at_the_same_rows(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "BLOCK_ROWS", 3)
    table = ticks([START + i for i in range(10)], [1.0] * 10, list(range(10)))
    store.insert(client, "ticks", table[:6], "long")  # the first try broke off
    store.insert(client, "ticks", table, "long")
    assert rows(client, "SELECT count(), max(offset) FROM ticks") == [(10, 9)]
    assert bars(client)[0][4] == 10.0


def test_open_and_close_are_right_with_equal_times_and_disorder(client: Client):
    store.insert(client, "ticks", ticks([START + 5, START + 5], [4.0, 5.0], [3, 4]), "late")
    store.insert(client, "ticks", ticks([START + 1, START + 1], [2.0, 3.0], [2, 1]), "early")
    assert bars(client) == [(3.0, 5.0, 2.0, 5.0, 4.0)]
    assert rows(client, "SELECT ts = '2025-05-19 00:01:00' FROM bars") == [(1,)]


def test_tick_at_the_end_of_a_minute_belongs_to_the_next(client: Client):
    table = ticks([START + MINUTE - 1, START + MINUTE], [1.0, 2.0], [0, 1])
    store.insert(client, "ticks", table, "edge")
    assert [bar[3] for bar in bars(client)] == [1.0, 2.0]


def test_unfinished_minute_is_no_bar(client: Client):
    now = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    store.insert(client, "ticks", ticks([int(now.timestamp() * 1e9)], [1.0], [0]), "now")
    assert bars(client) == []
    assert rows(client, "SELECT count() FROM bars_1m") == [(1,)]


def test_imported_bar_hides_the_ticks_and_importing_twice_changes_nothing(client: Client):
    store.insert(client, "ticks", ticks([START], [1.0], [0]), "tick")
    store.insert(client, "bars_imported", minute_bars(7.0), "import")
    store.insert(client, "bars_imported", minute_bars(7.0), "import again")
    assert bars(client) == [(7.0, 7.0, 7.0, 7.0, 7.0)]


def test_tick_is_named_by_epoch_partition_and_offset(client: Client):
    for token, epoch in (("a", "first"), ("b", "first"), ("c", "second")):
        store.insert(client, "ticks", ticks([START], [1.0], [0], epoch=epoch), token)
    assert rows(client, "SELECT count() FROM ticks FINAL") == [(2,)]


def test_dead_letter_is_kept_once(client: Client):
    letter = {"topic": ["t"], "epoch": ["e"], "offset": [5], "reason": ["?"]}
    table = pa.table(letter | {"partition": [0], "payload": pa.array([b"\xff{"], pa.binary())})
    for token in ("a", "b"):
        store.insert(client, "dead_letter", table, token)
    assert rows(client, "SELECT offset, hex(payload) FROM dead_letter FINAL") == [(5, "FF7B")]


def test_nanoseconds_and_odd_floats_survive(client: Client):
    prices = [np.nextafter(1, 2), 5e-324, 1.7976931348623157e308]
    store.insert(client, "ticks", ticks([START + 1, START + 2, START + 3], prices, [0, 1, 2]), "x")
    found = client.query_arrow("SELECT ts, price FROM ticks ORDER BY ts")
    assert found["ts"].cast(pa.int64()).to_pylist() == [START + 1, START + 2, START + 3]
    assert found["price"].to_pylist() == prices


def test_values_travel_as_data(client: Client):
    for odd in ("a'); DROP TABLE ticks; --", "\\", "it's", "line\nand\ttab", "日本 {x:Int8}", ""):
        found = client.query("SELECT {odd:String}, {t:Identifier} FROM (SELECT 1 AS one)",
                             {"odd": odd, "t": "one"})  # fmt: skip
        assert list(found.result_rows) == [(odd, 1)]


def test_refused_rows_are_one_sentence_and_the_client_goes_on(client: Client):
    with pytest.raises(StoreError) as raised:
        store.insert(client, "ticks", pa.table({"symbol": ["A"], "nonsense": [1]}), "bad")
    assert "nonsense" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert rows(client, "SELECT count() FROM ticks") == [(0,)]


def test_read_only_client_cannot_write(client: Client, dsn: str):
    reader = store.connect(dsn, read_only=True)
    assert rows(reader, "SELECT count() FROM ticks") == [(0,)]
    with pytest.raises(StoreError, match="readonly mode"):
        store.insert(reader, "ticks", ticks([START], [1.0], [0]), "x")
    with pytest.raises(StoreError, match="readonly mode"), store.store_errors():
        reader.command("DROP TABLE ticks")
    reader.close()


def test_decided_columns_leave_out_what_tells_of_the_run(client: Client):
    found = store.decided_columns(client, "executions")
    assert found[:3] == ["ts", "strategy", "order_no"]
    assert not {"run", "seq"} & set(found)
    assert "received_at" not in store.decided_columns(client, "ticks")
    with pytest.raises(StoreError, match="no table 'nosuch'"):
        store.decided_columns(client, "nosuch")


def test_missing_database_is_made(dsn: str):
    client = store.connect(dsn)
    assert str(client.command("SELECT currentDatabase()")).startswith("test_")
    client.close()


def test_clients_of_one_process_work_side_by_side(client: Client, dsn: str):
    other = store.connect(dsn)
    store.insert(other, "ticks", ticks([START], [1.0], [0]), "x")
    assert rows(client, "SELECT count() FROM ticks") == [(1,)]
    other.close()


@pytest.mark.parametrize(
    ("dsn", "directory", "url", "database"),
    [
        ("chdb:data/store", "data/store", "", "default"),
        ("chdb:data/a%20b?database=x", "data/a b", "", "x"),
        ("chdb:///var/store", "/var/store", "", "default"),
        ("http://u:p%40ss@ch.example:9000/db", None, "http://ch.example:9000", "db"),
        ("https://u@ch.example", None, "https://ch.example:8443", "default"),
        ("http://[::1]/", None, "http://[::1]:8123", "default"),
    ],
)
def test_dsn_is_taken_apart(home: Path, dsn: str, directory: str | None, url: str, database: str):
    found = store.Dsn.parse(dsn)
    assert found.directory == (None if directory is None else home / directory)
    assert (found.url, found.database) == (url, database)
    if "p%40ss" in dsn:
        assert (found.user, found.password) == ("u", "p@ss")


@pytest.mark.parametrize("dsn", ["", "data/store", "chdb:", "mysql://u:secret@h", "http:///x",
                                 "http://u:secret@h:port/x"])  # fmt: skip
def test_dsn_that_cannot_be_meant_is_one_sentence_without_password(dsn: str):
    with pytest.raises(ConfigError, match=r"store\.dsn must be chdb:") as raised:
        store.connect(dsn)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("dsn", [5, None, ["a"]])
def test_dsn_that_is_no_text_is_one_sentence(dsn: object):
    with pytest.raises(ConfigError, match=r"^store\.dsn must be chdb:<directory> or ") as said:
        store.connect(dsn)  # pyright: ignore[reportArgumentType]
    assert str(said.value).endswith(f", was {dsn!r}")


def test_unreachable_server_is_one_sentence():
    with pytest.raises(StoreError) as raised:
        store.connect("http://u:secret@127.0.0.1:1/x")
    said = str(raised.value)
    assert said.startswith("ClickHouse at http://127.0.0.1:1 does not answer (no connection)")
    assert "secret" not in said
    assert "\n" not in said


def test_wrong_password_is_one_sentence(served: str):
    address = served.rpartition("@")[2]
    with pytest.raises(StoreError, match="refused user 'default': check the dsn's password"):
        store.connect(f"http://default:wrong@{address}/default")


def test_second_directory_in_one_process_is_one_sentence(directory: Path, tmp_path: Path):
    with pytest.raises(StoreError, match="a process can open one directory only"):
        store.connect(f"chdb:{tmp_path}/other")


def test_importing_the_store_does_not_load_the_engine():
    code = "import sys, sysquant.store, sysquant.serve; assert 'chdb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory that another process holds without serving it, and that process."""
    path = tmp_path / "held"
    command = [sys.executable, "-c", HOLD.format(str(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield path, process.pid
        process.kill()


def test_locked_store_names_its_holder_and_the_way_out(holder: tuple[Path, int]):
    path, pid = holder
    sentence = rf"store {path} is held by process {pid}.*python runners/store\.py"
    with pytest.raises(StoreError, match=sentence) as raised:
        store.connect(f"chdb:{path}")
    assert "\n" not in str(raised.value)
    with pytest.raises(StoreError, match=sentence):
        serve.ensure_server(f"chdb:{path}")
    done = run_server(path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: store {path} is held by process {pid}")
    assert len(done.stderr.splitlines()) == 1


def test_a_store_that_another_holds_for_a_while_is_waited_for(
    holder: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
):
    path, pid = holder
    monkeypatch.setattr(store.clickhouse_connect, "get_client", lambda **_: "opened")
    monkeypatch.setattr(store, "_enter", lambda client, *_: client)
    with pytest.raises(StoreError, match=f"held by process {pid}"):
        store.connect(f"chdb:{path}", wait_s=0.3)
    threading.Timer(0.3, os.kill, [pid, signal.SIGKILL]).start()
    assert store.connect(f"chdb:{path}", wait_s=30) == "opened"


def run_server(path: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """A runner that is expected to end by itself."""
    command = [sys.executable, "runners/store.py", "--dsn", f"chdb:{path}", *more]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The embedded DSN of a server of its own, and its process."""
    dsn = f"chdb:{tmp_path}/store"
    _, child = serve.ensure_server(dsn)
    assert child
    yield dsn, child
    child.kill()
    child.wait()


def test_server_runs_in_a_session_of_its_own_and_is_found_again(
    started: tuple[str, "subprocess.Popen[bytes]"],
):
    dsn, child = started
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    again, nobody = serve.ensure_server(f"{dsn}?database=x")
    assert nobody is None
    assert serve.ensure_server(again) == (again, None)
    client = store.connect(again)
    assert client.command("SELECT currentDatabase()") == "x"
    client.close()


def test_connect_finds_the_server_without_being_asked(
    started: tuple[str, "subprocess.Popen[bytes]"],
):
    client = store.connect(started[0])
    assert str(getattr(client, "url", "")).startswith("http://127.0.0.1:")
    client.close()
    reader = store.connect(started[0], read_only=True)
    with pytest.raises(StoreError, match="readonly mode"), store.store_errors():
        reader.command("CREATE TABLE x (a Int8) ENGINE = Memory")
    reader.close()


def test_passwords_are_readable_by_their_owner_alone(
    started: tuple[str, "subprocess.Popen[bytes]"],
):
    path = store.Dsn.parse(started[0]).directory
    assert path
    for name in ("server.json", "credentials.json"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_clean_on_a_signal(
    started: tuple[str, "subprocess.Popen[bytes]"], number: signal.Signals
):
    dsn, child = started
    path = store.Dsn.parse(dsn).directory
    assert path
    idle = store.connect(dsn)  # its open connection must not hold the server up
    child.send_signal(number)
    assert child.wait(5) == 0
    idle.close()
    assert not (path / "server.json").exists()
    assert store.lock_holder(path) is None


def test_server_ends_in_time_under_a_long_statement(
    started: tuple[str, "subprocess.Popen[bytes]"],
):
    dsn, child = started
    client = store.connect(dsn)
    long = threading.Thread(target=_run_into_the_end, args=(client,))
    long.start()
    time.sleep(0.3)
    child.terminate()
    assert child.wait(6) == 0
    long.join()
    client.close()
    _, second = serve.ensure_server(dsn)
    assert second
    second.terminate()
    assert second.wait(6) == 0


def _run_into_the_end(client: Client) -> None:
    with contextlib.suppress(ClickHouseError):
        client.command("SELECT count() FROM numbers(1000000000000) WHERE number % 7 = 8")


def test_killed_server_keeps_its_data_address_and_passwords(
    started: tuple[str, "subprocess.Popen[bytes]"],
):
    dsn, child = started
    before, _ = serve.ensure_server(dsn)
    client = store.connect(before)
    store.migrate(client)
    store.insert(client, "ticks", ticks([START], [1.0], [0]), "x")
    child.kill()
    child.wait()
    with pytest.raises(StoreError):
        store.insert(client, "ticks", ticks([START + 1], [2.0], [1]), "y")
    again, second = serve.ensure_server(dsn)
    assert second
    try:
        assert again == before
        for token, offset in (("x", 0), ("y", 1)):  # what was acknowledged, and what was not
            store.insert(client, "ticks", ticks([START + offset], [1.0 + offset], [offset]), token)
        assert bars(client) == [(1.0, 2.0, 1.0, 2.0, 2.0)]
    finally:
        client.close()
        second.kill()
        second.wait()


# A server that answers for a while before it says who it is.
SLOW_RUNNER = """
import sys, time
sys.path.insert(0, {!r})
from sysquant import serve
write = serve.write_private
def slowly(path, content):
    time.sleep(1 if path.name == "server.json" else 0)
    write(path, content)
serve.write_private = slowly
serve.serve(sys.argv[2])
"""


@pytest.mark.parametrize("its_id", ["is still there", "is another's now"])
def test_killed_server_is_not_taken_for_the_one_that_starts_in_its_place(
    started: tuple[str, "subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    its_id: str,
):
    dsn, child = started
    path = store.Dsn.parse(dsn).directory
    assert path
    child.kill()  # it is not waited for, as in a session that has other things to do
    if its_id == "is another's now":
        told = json.loads((path / "server.json").read_text())
        (path / "server.json").write_text(json.dumps(told | {"pid": os.getpid()}))
    monkeypatch.setattr(serve, "RUNNER", tmp_path / "slow.py")
    serve.RUNNER.write_text(SLOW_RUNNER.format(str(REPOSITORY)))
    children: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], output: BufferedWriter, directory: Path):
        children.append(spawn(command, output, directory))
        return children[-1]

    while not children:  # it holds the directory for as long as it dies
        serve.revive(dsn, start)
    (again,) = children
    try:
        found = store.find_server(path)
        assert found
        assert found.pid == again.pid
    finally:
        again.kill()
        again.wait()


def test_starting_server_that_is_stuck_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serve, "RUNNER", tmp_path / "stuck.py")
    serve.RUNNER.write_text(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    )
    asked = time.monotonic()
    with pytest.raises(StoreError, match="did not start"):
        serve.ensure_server(f"chdb:{tmp_path}/store", wait_s=1)
    assert time.monotonic() - asked < 10


def test_two_that_start_a_server_at_once_share_one(tmp_path: Path):
    code = (
        "import sys; from sysquant.serve import ensure_server; "
        "dsn, child = ensure_server(sys.argv[1]); print(dsn, child.pid if child else 0)"
    )
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", code, f"chdb:{tmp_path}/s"]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=200)[0].split() for process in both]
    pids = [int(words[1]) for words in said]
    try:
        assert said[0][0] == said[1][0]
        assert sorted(pids)[0] == 0 < sorted(pids)[1]
    finally:
        for pid in filter(None, pids):
            psutil.Process(pid).kill()


def test_server_that_cannot_start_is_one_sentence(tmp_path: Path):
    taken = serve.ensure_server(f"chdb:{tmp_path}/first")
    assert taken[1]
    port = taken[0].rpartition(":")[2].partition("/")[0]
    done = run_server(tmp_path / "second", "--port", port)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: port {port} cannot be had (Address already in use): choose another\n"
    )
    done = run_server(tmp_path / "first")
    assert done.returncode == 1
    assert f"process {taken[1].pid}, which serves it at http" in done.stderr
    taken[1].terminate()
    taken[1].wait()


def test_help_says_who_the_users_are():
    done = subprocess.run(
        [sys.executable, "runners/store.py", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "`dashboard` (reads)" in done.stdout
