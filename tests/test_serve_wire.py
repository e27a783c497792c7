"""What goes over the wire to the served store and back: encodings, frames, blocks, statements."""

import gzip
import re
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysquant.serve import lexer, wire
from sysquant.serve.city import city128
from tests.store_fixtures import Store, arrow_codec, db, server

__all__ = ["db", "server"]

# CityHash128 1.0.2 of the bytes 0, 1, ..., n - 1, as clickhouse-go computes it.
CITY = {
    0: (0x3DF09DFC64C09A2B, 0x3CB540C392E51E29),
    3: (0x10DC1926B0850AC2, 0x80C20DAD5CDD0E6F),
    8: (0xD0BFE8984E1E8682, 0x565141A0CF7FC611),
    16: (0x17CEADE677C2F945, 0x579ED60675C8FEDC),
    17: (0x8112E830FB310FF1, 0xC972AD09C64FD737),
    48: (0xE4277AC5237DB671, 0x1277E8AF50A8E832),
    143: (0x2D63DBF4C2290D5B, 0x5C12CC8417CEB584),
    144: (0xA6BDECEEC903D0FC, 0xC56B79626912C1BC),
    1000: (0xE3942D1E552D8FD9, 0x866B4A22F6990200),
}


def arrow_plain(name: str, data: bytes) -> bytes:
    """The reverse."""
    return pa.CompressedInputStream(pa.BufferReader(data), name).read()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress), ("deflate", zlib.compress),
        ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        *[(name, lambda data, codec=codec: arrow_codec(codec, data))
          for name, codec in (("lz4", "lz4"), ("zstd", "zstd"), ("br", "brotli"))],
    ],
)  # fmt: skip
def test_compressed_body_is_read(db: Store, encoding: str, packed: Callable[[bytes], bytes]):
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")
    body = packed(b"INSERT INTO t FORMAT CSV\n" + b"\n".join(b"%d" % n for n in range(200_000)))
    assert db.ask(body, headers={"Content-Encoding": encoding}).status == 200
    assert db.tell("SELECT count() FROM t") == "200000"
    reply = db.ask(b"not " + body, headers={"Content-Encoding": encoding})
    assert (reply.code, reply.status) == (117, 400)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("br", "br"), ("zstd", "zstd"), ("lz4", "lz4"),
        ("gzip;q=0.5, zstd", "zstd"), ("lz4;q=0, gzip", "gzip"), ("identity", ""), ("nosuch", ""),
    ],
)  # fmt: skip
def test_result_is_compressed_as_the_client_asks(db: Store, accepted: str, chosen: str):
    sql = "SELECT number, toString(number) FROM numbers(300000)"
    plain = db.ask(sql).body
    reply = db.ask(sql, headers={"Accept-Encoding": accepted}, enable_http_compression=1)
    assert reply.headers.get("content-encoding", "") == chosen
    unpack = {"": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}
    codec = {"br": "brotli"}.get(chosen, chosen)
    assert (unpack.get(chosen) or (lambda data: arrow_plain(codec, data)))(reply.body) == plain
    assert chosen == "" or len(reply.body) < len(plain)
    asked = {"Accept-Encoding": accepted}
    assert "content-encoding" not in db.ask(sql, headers=asked).headers  # not without the setting


@pytest.mark.parametrize("method", ["LZ4", "ZSTD", "NONE"])
def test_clickhouses_own_frames_go_both_ways(db: Store, method: str):
    db.tell("CREATE TABLE t (a UInt64) ENGINE = Memory")
    rows = b"\n".join(b"%d" % number for number in range(300_000))
    frames = wire.Frames(method)
    framed = frames.compress(rows) + frames.flush()
    assert db.ask(framed, query="INSERT INTO t FORMAT CSV", decompress=1).status == 200
    reply = db.ask("SELECT a FROM t ORDER BY a", compress=1, network_compression_method=method)
    assert b"".join(wire.unframe([reply.body])) == rows + b"\n"
    broken = framed[:100] + bytes([framed[100] ^ 1]) + framed[101:]
    for body, why in ((broken, "wrong checksum"), (framed[:-1], "ends inside"), (rows, "frame")):
        reply = db.ask(body, query="INSERT INTO t FORMAT CSV", decompress=1)
        assert (reply.code, why in reply.text) == (117, True)


def test_checksum_is_clickhouses():
    for size, halves in CITY.items():
        assert city128(bytes(i & 255 for i in range(size))) == halves


@given(st.lists(st.binary(max_size=200)), st.sampled_from(["LZ4", "ZSTD", "NONE"]), st.data())
def test_frames_are_read_however_they_are_cut(parts: list[bytes], method: str, data: st.DataObject):
    frames = wire.Frames(method)
    framed = b"".join(frames.compress(part) for part in parts)
    cut = data.draw(st.integers(0, len(framed)))
    assert b"".join(wire.unframe([framed[:cut], framed[cut:]])) == b"".join(parts)


NATIVE = [
    "number", "toInt8(number)", "toFloat64(number)", "toDate(0)", "toDate32(0)", "toDateTime(0)",
    "toDateTime64(0, 9, 'UTC')", "toDecimal32(1, 2)", "toDecimal64(1, 2)", "toDecimal128(1, 2)",
    "toDecimal256(1, 2)", "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", "toIPv4('1.2.3.4')",
    "toIPv6('::1')", "toFixedString('abc', 5)", "toInt128(1)", "toUInt256(1)", "true", "NULL",
    "CAST('a', 'Enum8(\\'a\\' = 1)')", "CAST('a', 'Enum16(\\'a\\' = 1000)')",
    "repeat('x', toUInt16(number * 60))", "toNullable(number)", "toNullable(toString(number))",
    "range(number)", "arrayMap(x -> range(x), range(number))", "emptyArrayString()",
    "[[], [NULL, 1]]",
    "toLowCardinality(toString(number % 3))", "toLowCardinality(toNullable(toString(number)))",
    "[toLowCardinality('x')]", "CAST([], 'Array(LowCardinality(String))')", "tuple()",
    "(number, 'y', toLowCardinality('z'))", "map('a', number, 'b', 2)",
    "map('k', [toNullable('v')])",
    "map(toLowCardinality('k'), toLowCardinality('v'))", "[(1, 'x')]",
    "CAST(number, 'SimpleAggregateFunction(sum, UInt64)')",
]  # fmt: skip


@pytest.mark.parametrize("column", NATIVE)
def test_native_column_is_framed_for_a_newer_protocol(db: Store, column: str):
    sql = f"SELECT {column} AS c, 'x' AS e, 7 AS f FROM numbers(30) SETTINGS max_block_size = 7"
    plain = db.ask(f"{sql} FORMAT Native").body
    begin = re.search(rb"\x03[\x07\x02]\x01c(.)", plain, re.S)  # three columns, so many rows
    assert begin
    kind = plain[begin.end() : begin.end() + begin[1][0]]
    info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    first = re.compile(rb"\x03[\x07\x02]\x01c" + re.escape(begin[1] + kind))
    expected = first.sub(lambda block: info + block[0] + b"\x00", plain)
    for head in (b"\x01e\x06String", b"\x01f\x05UInt8"):
        expected = expected.replace(head, head + b"\x00")
    assert db.ask(f"{sql} FORMAT Native", client_protocol_version=54460).body == expected
    assert db.ask(sql, default_format="Native", client_protocol_version=54405).body == plain


def test_native_column_of_unknown_layout_is_refused(db: Store):
    reply = db.ask("SELECT sumState(1) FORMAT Native", client_protocol_version=54460)
    assert (reply.code, reply.status) == (48, 501)


@pytest.mark.parametrize("form", ["Arrow", "ArrowStream"])
@pytest.mark.parametrize("rows", [0, 1, 300_000])
def test_arrow_result_is_one_document(db: Store, form: str, rows: int):
    body = db.ask(f"SELECT number AS a, 'x' AS b FROM numbers({rows}) FORMAT {form}").body
    table = (pa.ipc.open_file if form == "Arrow" else pa.ipc.open_stream)(body).read_all()
    assert table["a"].to_pylist() == list(range(rows))
    assert table.column_names == ["a", "b"]


@pytest.mark.parametrize(
    ("sql", "statement", "form", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1", b"INSERT INTO t ", "CSV", b"1"),
        (b"insert into t (format) format Native \r\n\x00", b"insert into t (format) ",
         "Native", b"\x00"),
        (b"/* FORMAT */ INSERT INTO `FORMAT x` VALUES (1)", b"/* FORMAT */ INSERT INTO `FORMAT x` ",
         "Values", b" (1)"),
        (b"INSERT INTO t SETTINGS a = 'FORMAT' FORMAT CSV\n",
         b"INSERT INTO t SETTINGS a = 'FORMAT' ", "CSV", b""),
        (b"INSERT INTO t", b"INSERT INTO t", "", b""),
    ],
)  # fmt: skip
def test_insert_is_split_from_its_rows(sql: bytes, statement: bytes, form: str, data: bytes):
    found = lexer.split_insert(sql)
    assert found
    assert (found.statement, found.format, sql[found.data_start :]) == (statement, form, data)


def test_insert_that_selects_has_no_rows():
    for sql in (b"INSERT INTO t SELECT 1 FORMAT CSV", b"INSERT INTO t (a) WITH 1 AS x SELECT x",
                b"INSERT INTO t FROM INFILE 'x' FORMAT CSV"):  # fmt: skip
        assert lexer.split_insert(sql) is None
