"""The served store over plain HTTP: what ClickHouse's interface promises, request by request."""

import gzip
import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.serve.engine import Engine
from sysquant.serve.http import StoreServer, start
from sysquant.store import Server
from tests.store_fixtures import Store, arrow_codec, db, server

__all__ = ["db", "server"]

FAILS_LATE = "SELECT throwIf(number = 3000000), number FROM numbers(10000000)"
SLOW = "SELECT sum(sleepEachRow(0.01)) FROM numbers(100)"


def test_statement_comes_in_the_url_the_body_or_both(db: Store):
    assert db.ask(query="SELECT 1").text == "1"
    assert db.ask("SELECT 2").text == "2"
    assert db.ask("+ 3", query="SELECT 2").text == "5"
    assert db.ask(method="GET", query="SELECT 3").text == "3"


def test_get_only_reads(db: Store):
    reply = db.ask(method="GET", query="CREATE TABLE x (a Int8) ENGINE = Memory")
    assert (reply.code, "readonly mode" in reply.text) == (164, True)
    assert db.tell("SHOW TABLES") == ""


def test_parameters_are_bound(db: Store):
    options = {"param_a": "it's; -- {b}", "param_b": "[1,2]", "param_c": "numbers"}
    sql = "SELECT {a:String}, {b:Array(UInt8)}, name FROM system.tables WHERE name = {c:String}"
    assert db.tell(sql, **options) == "it\\'s; -- {b}\t[1,2]\tnumbers"
    db.tell("CREATE TABLE t (a Int8) ENGINE = Memory")
    db.tell("INSERT INTO {t:Identifier} VALUES (7)", param_t="t")
    assert db.tell("SELECT a FROM {t:Identifier}", param_t="t") == "7"


def test_settings_hold_for_their_request_alone(db: Store):
    sql = "SELECT getSetting('max_block_size'), getSetting('log_comment')"
    odd = "it's \\ 'odd"
    assert db.tell(f"{sql} FORMAT TSVRaw", max_block_size=17, log_comment=odd) == f"17\t{odd}"
    assert db.tell(sql).startswith("65")
    assert db.ask("SELECT 1", nosuch=1).code == 115
    two_in_one: dict[str, Any] = {"a = 1, b": 1}
    assert db.ask("SELECT 1", **two_in_one).code == 115


def test_format_is_the_statements_or_the_requests(db: Store):
    cases = [
        ("SELECT 1 AS a", {}, "TabSeparated", "1"),
        ("SELECT 1 AS a", {"default_format": "JSONEachRow"}, "JSONEachRow", '{"a":1}'),
        ("SELECT 1 AS a FORMAT CSVWithNames", {"default_format": "JSON"}, "CSVWithNames", '"a"\n1'),
        ("SELECT 'FORMAT CSV' -- FORMAT JSON", {}, "TabSeparated", "FORMAT CSV"),
        ("SELECT 1 FORMAT Values;", {}, "Values", "(1)"),
        ("SHOW TABLES FORMAT TSV", {}, "TSV", ""),
    ]
    for sql, options, form, text in cases:
        reply = db.ask(sql, **options)
        assert (reply.headers["x-clickhouse-format"], reply.text) == (form, text)
    assert db.ask("SELECT 1", headers={"X-ClickHouse-Format": "CSV"}).text == "1"
    assert json.loads(db.tell("SELECT number FROM numbers(70000) FORMAT JSON"))["rows"] == 70000
    assert "x-clickhouse-format" not in db.ask("CREATE TABLE t (a Int8) ENGINE = Memory").headers


def test_headers_tell_of_the_statement(db: Store):
    reply = db.ask("SELECT number FROM numbers(10)", query_id="my id")
    assert reply.headers["x-clickhouse-query-id"] == "my id"
    assert reply.headers["x-clickhouse-timezone"] == "UTC"
    assert reply.headers["x-clickhouse-server-display-name"] == socket.gethostname()
    summary = json.loads(reply.headers["x-clickhouse-summary"])
    assert (summary["read_rows"], summary["result_rows"]) == ("10", "10")
    assert len(db.ask("SELECT 1").headers["x-clickhouse-query-id"]) == 36
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")
    for sql in ("INSERT INTO t VALUES (1), (2)", "INSERT INTO t SELECT number FROM numbers(2)"):
        assert json.loads(db.ask(sql).headers["x-clickhouse-summary"])["written_rows"] == "2"


@pytest.mark.parametrize(
    ("sql", "code", "status", "name"),
    [
        ("SELEC 1", 62, 400, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 62, 400, "Multi-statements"),
        ("SELECT nosuch", 47, 404, "UNKNOWN_IDENTIFIER"),
        ("SELECT * FROM nosuch", 60, 404, "UNKNOWN_TABLE"),
        ("SELECT nosuch()", 46, 404, "UNKNOWN_FUNCTION"),
        ("SELECT throwIf(1)", 395, 500, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT {a:Int8}", 456, 500, "UNKNOWN_QUERY_PARAMETER"),
        ("INSERT INTO nosuch VALUES (1)", 60, 404, "UNKNOWN_TABLE"),
        ("SELECT 1 FORMAT Nosuch", 73, 404, "UNKNOWN_FORMAT"),
        ("DROP TABLE nosuch", 60, 404, "UNKNOWN_TABLE"),
    ],
)
def test_failure_has_clickhouses_code_and_its_http_status(
    db: Store, sql: str, code: int, status: int, name: str
):
    reply = db.ask(sql)
    assert (reply.code, reply.status) == (code, status)
    assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
    assert name in reply.text


def test_unknown_database_has_its_code(db: Store):
    reply = Store(db.server, "nosuch").ask("SELECT 1")
    assert (reply.code, reply.status) == (81, 404)


def test_statement_that_takes_too_long_is_ended(db: Store):
    start_s = time.monotonic()
    reply = db.ask("SELECT count() FROM system.numbers", max_execution_time=1)
    assert reply.code in (159, 160)
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize("form", ["Values", "CSV", "JSONEachRow", "TabSeparated", "RowBinary"])
def test_rows_follow_the_statement_or_are_the_body(db: Store, form: str):
    db.tell("CREATE TABLE t (a UInt64, b String) ENGINE = Memory")
    data = db.ask(f"SELECT number AS a, 'x' AS b FROM numbers(1000) FORMAT {form}").body
    text = f"INSERT INTO t (a, b) FORMAT {form}"
    assert db.ask(text.encode() + b"\n" + data).status == 200
    assert db.ask(data, query=text).status == 200
    assert db.ask(data, query="INSERT INTO t", default_format=form).status == 200
    assert db.tell("SELECT count(), sum(a), any(b) FROM t") == "3000\t1498500\tx"


def test_bad_rows_insert_nothing(db: Store):
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")
    reply = db.ask("INSERT INTO t FORMAT CSV\n1\n2\nnonsense\n")
    assert (reply.code, reply.status) == (117, 400)
    assert "nonsense" in reply.text
    assert db.ask("INSERT INTO t FORMAT Native\ngarbage").status == 500
    assert db.tell("SELECT count() FROM t") == "0"


def test_chunked_body_is_read(db: Store):
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")

    def body() -> Iterator[bytes]:
        yield b"INSERT INTO "
        yield b"t FORMAT CSV"
        for number in range(20_000):
            yield b"\n%d" % number

    assert db.ask(body()).status == 200
    assert db.tell("SELECT count(), max(a) FROM t") == "20000\t19999"


def test_totals_come_with_the_result(db: Store):
    sql = "SELECT number % 2 AS a, sum(number) FROM numbers(4) GROUP BY a WITH TOTALS ORDER BY a"
    assert db.tell(f"{sql} FORMAT CSV") == "0,2\n1,4\n\n0,6"


def test_long_result_is_streamed_in_bounded_memory(db: Store):
    process = psutil.Process(db.server.pid)
    before, peak, size = process.memory_info().rss, 0, 0
    connection = http.client.HTTPConnection(db.host, timeout=30)
    connection.request("POST", "/", b"SELECT number FROM numbers(50000000) FORMAT RowBinary",
                       db.headers())  # fmt: skip
    reply = connection.getresponse()
    assert reply.headers["transfer-encoding"] == "chunked"
    while chunk := reply.read(1 << 22):
        size += len(chunk)
        peak = max(peak, process.memory_info().rss)
    connection.close()
    assert size == 400_000_000
    assert peak - before < 150_000_000


def test_failure_in_mid_stream_is_told_and_cuts_the_body(db: Store):
    for options, unpack in (({}, bytes), ({"enable_http_compression": 1}, None)):
        connection = http.client.HTTPConnection(db.host, timeout=30)
        url = "/?" + "&".join(f"{name}={value}" for name, value in options.items())
        headers = db.headers() | {"Accept-Encoding": "gzip"}
        connection.request("POST", url, FAILS_LATE.encode(), headers)
        reply = connection.getresponse()
        tag = reply.headers["x-clickhouse-exception-tag"].encode()
        with pytest.raises(http.client.IncompleteRead) as cut:
            reply.read()
        connection.close()
        body = (unpack or gzip.decompress)(cut.value.partial)
        note = body[body.index(b"\r\n__exception__\r\n" + tag) :].split(b"\r\n")
        assert note[3].startswith(b"Code: 395. DB::Exception: ")
        message, length = note[3].rsplit(b"\n", 1)
        assert length == b"%d %s" % (len(message) + 1, tag)
        assert note[4] == b"__exception__"


def test_waiting_for_the_end_gives_the_failure_its_status(db: Store):
    reply = db.ask(FAILS_LATE, wait_end_of_query=1)
    assert (reply.code, reply.status) == (395, 500)
    reply = db.ask("SELECT number FROM numbers(5000000) FORMAT RowBinary", wait_end_of_query=1)
    assert int(reply.headers["content-length"]) == 40_000_000
    assert json.loads(reply.headers["x-clickhouse-summary"])["result_rows"] == "5000000"


def running(db: Store, mark: str) -> int:
    """How many statements with this mark the engine works on."""
    return int(db.tell(f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' "
                       "AND query NOT LIKE '%processes%'"))  # fmt: skip


def test_client_that_goes_away_ends_its_result(db: Store):
    mark = secrets.token_hex(8)
    connection = http.client.HTTPConnection(db.host, timeout=30)
    sql = f"SELECT number, '{mark}' FROM numbers(100000000000)"
    connection.request("POST", "/", sql.encode(), db.headers())
    reply = connection.getresponse()
    assert reply.read(1000)
    assert running(db, mark) == 1
    reply.close()
    connection.close()
    deadline = time.monotonic() + 10
    while running(db, mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(db, mark) == 0


@pytest.mark.parametrize("encoding", ["", "lz4"])
def test_client_that_goes_away_inserts_nothing(db: Store, encoding: str):
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")
    body = b"INSERT INTO t FORMAT CSV\n" + b"1\n" * 100_000
    if encoding:
        body = arrow_codec(encoding, body)
    connection = http.client.HTTPConnection(db.host, timeout=30)
    connection.putrequest("POST", f"/?database={db.database}")
    headers = db.headers() | {"Content-Length": str(len(body) + 1), "Content-Encoding": encoding}
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    connection.close()
    for _ in range(5):
        time.sleep(0.05)
        assert db.tell("SELECT count() FROM t") == "0"


def test_slow_statement_holds_nobody_up(db: Store):
    slow = threading.Thread(target=db.tell, args=(SLOW,))
    slow.start()
    for _ in range(20):
        assert db.tell("SELECT 1") == "1"
    assert slow.is_alive()
    slow.join()


def test_many_clients_at_once_get_each_their_own(db: Store):
    db.tell("CREATE TABLE t (who UInt8, n UInt32) ENGINE = MergeTree ORDER BY who")
    wrong: list[object] = []

    def work(who: int) -> None:
        for n in range(15):
            sql = "SELECT {a:UInt8}, getSetting('max_block_size')"
            found = db.tell(sql, param_a=who, max_block_size=1000 + who)
            if found != f"{who}\t{1000 + who}":
                wrong.append((who, n))
            db.tell(f"INSERT INTO t VALUES ({who}, {n})")

    threads = [threading.Thread(target=work, args=(who,)) for who in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert db.tell("SELECT count(), uniqExact(who, n) FROM t") == "180\t180"


def test_session_keeps_its_temporary_tables_and_settings(db: Store):
    with_it: dict[str, Any] = {"session_id": secrets.token_hex(8)}
    db.tell("CREATE TEMPORARY TABLE mine (a Int8)", **with_it)
    db.tell("INSERT INTO mine VALUES (5)", **with_it)
    db.tell("SET max_block_size = 123", **with_it)
    assert db.tell("SELECT a, getSetting('max_block_size') FROM mine", **with_it) == "5\t123"
    assert db.ask("SELECT * FROM mine").code == 60
    assert db.ask("SELECT * FROM mine", user="dashboard", **with_it).code == 60


def test_request_in_a_session_changes_nothing_but_by_its_statement(db: Store):
    with_it: dict[str, Any] = {"session_id": secrets.token_hex(8)}
    sql = "SELECT getSetting('max_block_size'), getSetting('max_threads'), currentDatabase()"
    db.tell("SET max_threads = 7", **with_it)
    assert db.tell(sql, max_block_size=11, **with_it) == f"11\t7\t{db.database}"
    assert db.tell(sql, max_block_size=12, max_threads=1, **with_it) == f"12\t1\t{db.database}"
    assert db.tell(sql, **with_it | {"database": "default"}).endswith("\t7\tdefault")
    assert db.tell(sql, **with_it).startswith("65")
    db.tell("USE system", **with_it | {"database": ""})
    assert db.tell(sql, **with_it | {"database": ""}).endswith("\tsystem")


def test_session_can_be_asked_for_held_and_forgotten(db: Store):
    name = secrets.token_hex(8)
    reply = db.ask("SELECT 1", session_id=name, session_check=1)
    assert (reply.code, reply.status) == (372, 404)
    slow = threading.Thread(target=lambda: db.tell(SLOW, session_id=name, session_timeout=1))
    slow.start()
    time.sleep(0.3)
    assert db.ask("SELECT 1", session_id=name).code == 373
    slow.join()
    assert db.tell("SELECT 1", session_id=name, session_check=1, session_timeout=1) == "1"
    time.sleep(1.1)
    assert db.ask("SELECT 1", session_id=name, session_check=1).code == 372
    assert db.ask("SELECT 1", session_id=name, session_timeout="soon").code == 72


def test_ping_needs_no_password_and_nothing_else_is_there(db: Store):
    for path in ("/ping", "/", "/replicas_status"):
        reply = db.ask(method="GET", path=path, headers={"Authorization": ""})
        assert (reply.status, reply.text) == (200, "Ok.")
    assert db.ask(method="GET", path="/play").status == 404
    assert db.ask(method="PUT", path="/").status == 405


def test_password_is_asked_for_in_every_form(db: Store):
    word = db.server.users["default"]
    none = {"Authorization": ""}
    keys = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": word}
    assert db.ask("SELECT 1", headers=none | keys).text == "1"
    assert db.ask("SELECT 1", headers=none, user="default", password=word).status == 401
    assert db.ask("SELECT 1", headers=none | {"X-ClickHouse-User": "default"}).code == 516
    for headers in (none, {"Authorization": "Basic ZGVmYXVsdDo="}, {"Authorization": "Basic ?"}):
        assert db.ask("SELECT 1", headers=headers).status in (400, 401, 403)
    unknown = none | keys | {"X-ClickHouse-User": "nobody"}
    assert (db.ask("SELECT 1", headers=unknown).code, db.ask(headers=none).code) == (516, 194)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": "[::1"},
    ],
)  # fmt: skip
def test_web_page_cannot_ask(db: Store, headers: dict[str, str]):
    for path in ("/", "/ping"):
        reply = db.ask("SELECT 1", path=path, headers=headers)
        assert (reply.status, reply.code) == (403, 0)
    assert db.ask("SELECT 1", headers={"Host": "localhost:1"}).text == "1"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x (a Int8) ENGINE = Memory", "INSERT INTO t VALUES (1)", "DROP TABLE t",
        "ALTER TABLE t DELETE WHERE 1", "TRUNCATE TABLE t", "OPTIMIZE TABLE t", "SYSTEM FLUSH LOGS",
        "CREATE TEMPORARY TABLE x (a Int8)", "SET readonly = 0", "KILL QUERY WHERE 1", "USE system",
        "SELECT 1 SETTINGS readonly = 0", "SELECT 1 INTO OUTFILE 'x.tsv'",
        "INSERT INTO FUNCTION file('x.tsv') SELECT 1", "SELECT 1; DROP TABLE t",
        "SELECT file('/etc/hostname')", "SELECT `file`('/etc/hostname')", 'SELECT "FiLe"(\'x\')',
        "SELECT `fi\\x6ce`('x')", "SELECT * APPLY(file) FROM (SELECT '/etc/hostname')",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SHOW COLUMNS FROM t WHERE file('x')", "SELECT * FROM url('http://127.0.0.1:1')",
        "SELECT * FROM s3('http://127.0.0.1:1/x', 'CSV')",
        "SELECT * FROM remote('127.0.0.1', system.one)", "SELECT * FROM python(x)",
        "DESCRIBE TABLE file('/etc/hostname', 'LineAsString')", "EXPLAIN SELECT file('x')",
        "WITH x AS (SELECT file('x')) SELECT * FROM x", "SELECT * FROM {f:Identifier}",
        "SELECT * FROM executable('ls', 'TSV', 'a String')",
        "SELECT * FROM /* */ sqlite('x', 'y')", "BACKUP TABLE t TO File('x')",
    ],
)  # fmt: skip
def test_dashboard_cannot_write_nor_reach_files_and_hosts(db: Store, sql: str):
    db.tell("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
    session: dict[str, Any] = {"session_id": secrets.token_hex(8)}
    one_request: dict[str, Any] = {"readonly": 0}
    for options in (one_request, session, session):
        reply = db.ask(sql, user="dashboard", param_f="file", **options)
        assert reply.code == 164 or (reply.code == 62 and ";" in sql), reply.text
    assert db.tell("SELECT count() FROM t") == "0"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1", "SHOW TABLES", "DESCRIBE TABLE t", "EXPLAIN SELECT * FROM t", "EXISTS TABLE t",
        "SELECT * FROM t SETTINGS max_threads = 1", "SELECT sum(number) FROM numbers(10)",
        "SELECT 'file', 'url(x)' -- file(", "SHOW CREATE TABLE t",
        "SELECT * FROM values('a Int8', 1)",
        "SELECT formatDateTime(toDateTime(0), '%F'), * FROM format(CSV, '1')",
    ],
)  # fmt: skip
def test_dashboard_reads_and_may_set_limits(db: Store, sql: str):
    db.tell("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
    reply = db.ask(sql, user="dashboard", max_execution_time=5, max_result_rows=1000)
    assert reply.status == 200, reply.text


def test_answers_leave_at_once(db: Store):
    listening = StoreServer(cast(Engine, None), {})
    start(listening)
    with socket.create_connection(listening.server_address[:2]) as client:  # pyright: ignore
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        (connection,) = listening.connections
        assert connection.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listening.shutdown()
    listening.server_close()
    assert listening.drain(5)


def test_body_is_asked_for_when_the_client_waits(db: Store):
    head = f"POST / HTTP/1.1\r\nHost: {db.host}\r\nExpect: 100-continue\r\nContent-Length: 8\r\n"
    words = "".join(f"{name}: {value}\r\n" for name, value in db.headers().items())
    host, _, port = db.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall((head + words + "\r\n").encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"SELECT 1")
        assert client.recv(4096).endswith(b"\r\n\r\n1\n")


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST /?query= HTTP/1.1\r\n"]),
)
def test_nonsense_on_the_wire_ends_its_connection_alone(server: Server, data: bytes, begin: bytes):
    db = Store(server, "default")
    host, _, port = db.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(begin + data)
        client.shutdown(socket.SHUT_WR)
        client.recv(4096)


def test_server_is_well_after_nonsense(db: Store):
    assert db.tell("SELECT 1") == "1"
