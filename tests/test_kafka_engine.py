"""ClickHouse's own Kafka engine in place of the ingest: the same records give the same rows."""

import json
from pathlib import Path

import kafka
import pandas as pd
import pytest
from clickhouse_connect.driver.client import Client

from sysquant import store
from tests import forked

pytest_plugins = ["tests.served"]

FILE = store.SCHEMA / "server" / "kafka_engine.sql"
UNKNOWN_SETTING, SHUTDOWN = 115, 49
STATEMENTS = store.statements(FILE.read_text())
SYMBOL = "BINANCE:ETHUSDT"
# Of the engine, beside the fields of a record.
VIRTUAL = "_topic String, _partition UInt64, _offset UInt64, _error String, _raw_message String"
TICKS = (
    "SELECT symbol, toUnixTimestamp64Nano(ts), price, volume, "
    "toUnixTimestamp64Nano(received_at), epoch, partition, offset FROM ticks FINAL ORDER BY ALL"
)
DEAD = "SELECT topic, epoch, partition, offset FROM dead_letter FINAL ORDER BY ALL"


def records(shared_data: Path) -> list[bytes]:
    """The recording as the upstream producer writes it, with records that are no ticks among it."""
    frame = pd.read_parquet(shared_data / "ticks_ethusdt_2025-05-19.parquet")
    for name in ("timestamp", "received_at"):
        frame[name] = [each.isoformat() for each in frame[name]]
    found = [json.dumps(row).encode() for row in frame.to_dict("records")]
    good = json.loads(found[0])
    changes = [
        {"price": -1.0}, {"price": 0}, {"price": None}, {"volume": -0.5}, {"volume": None},
        {"symbol": "NASDAQ:NONE"}, {"symbol": None}, {"timestamp_ms": "soon"},
        {"timestamp_ms": -5}, {"timestamp_ms": 10**18}, {"received_at": "yesterday"},
        {"price": 1e400},
    ]  # fmt: skip
    bad = [json.dumps(good | change).replace("Infinity", "1e400").encode() for change in changes]
    bad += [json.dumps({k: v for k, v in good.items() if k != gone}).encode() for gone in good]
    return [b"no json", *found[:5000], *bad, *found[5000:]]


def test_every_statement_is_understood(client: Client) -> None:
    assert len(STATEMENTS) == 6
    for statement in STATEMENTS:
        assert client.query(f"EXPLAIN AST {statement}").result_rows
    with pytest.raises(store.ClickHouseError):
        client.query(f"EXPLAIN AST {STATEMENTS[0].replace('ENGINE', 'ENGIN')}")


@pytest.fixture
def ingested(client, dsn, home, broker, topic, shared_data, monkeypatch):
    """Ticks and dead letters that `runners/ingest.py` makes of the records, and those."""
    monkeypatch.setenv("CLICKHOUSE_DSN", dsn)
    sent = records(shared_data)
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, **broker.client)
    for record in sent:
        producer.send(topic, record, key=SYMBOL.encode())
    producer.flush(30)
    producer.close()
    words = [f"feed.bootstrap={broker.bootstrap}", f"feed.topic={topic}", "stop_after_idle_s=1"]
    words += [f"epoch={topic}"]  # as the engine names it
    words += ["feed.api_version=[2,3]"] if broker.kind == "mock" else []
    said = forked.run("ingest", "universe=crypto", "store=clickhouse", *words, cwd=home)
    assert said.returncode == 0, said.stderr
    rows = client.query(TICKS).result_rows, client.query(DEAD).result_rows
    assert len(rows[0]) == 11_328 + 1  # `timestamp` may be missing
    for table in ("ticks", "bars_1m", "dead_letter"):
        client.command(f"TRUNCATE TABLE {table}")
    return rows, sent


def test_view_over_the_engines_columns_gives_the_rows_of_the_ingest(
    client: Client, topic: str, ingested
) -> None:
    (ticks, dead), sent = ingested
    for statement in STATEMENTS:
        if "ENGINE = Kafka" in statement:
            fields = statement.partition(") ENGINE")[0]
            statement = f"{fields}, {VIRTUAL}) ENGINE = Memory"
        client.command(statement)
    client.insert("price_ticks_symbols", [[SYMBOL]])
    partition, first = ticks[0][6], min(ticks[0][7], *(row[3] for row in dead))
    for at, record in enumerate(sent):
        try:
            row = json.loads(record)
            is_read = not isinstance(row.get("timestamp_ms"), str)
        except ValueError:
            is_read, row = False, {}
        more = {"_topic": topic, "_partition": partition, "_offset": first + at}
        more |= {"_error": "", "_raw_message": ""}
        if not is_read:  # as the engine does with kafka_handle_error_mode = 'stream'
            row, more = {}, more | {"_error": "cannot parse", "_raw_message": record.decode()}
        line = json.dumps(row | more).replace("Infinity", "1e400")
        sent[at] = line.encode()
    client.raw_insert("price_ticks_queue", insert_block=b"\n".join(sent), fmt="JSONEachRow")
    assert client.query(TICKS).result_rows == ticks
    assert client.query(DEAD).result_rows == dead
    said = client.query("SELECT reason, payload FROM dead_letter FINAL WHERE offset = 0")
    assert said.result_rows == [("cannot parse", "no json")]


def test_settings_of_the_engine_are_known(client: Client) -> None:
    (queue,) = (statement for statement in STATEMENTS if "ENGINE = Kafka" in statement)

    def code_of(statement: str) -> int:
        try:
            client.command(statement)
        except store.ClickHouseError as error:
            return int(getattr(error, "code", 0))
        return 0

    # The embedded engine knows the table's engine, but reads no topic in the background.
    for name in ("kafka_handle_error_mode", "precise_float_parsing", "kafka_flush_interval_ms"):
        assert code_of(queue.replace(name, f"{name}_")) == UNKNOWN_SETTING
    assert code_of(queue.replace("'stream'", "'streem'")) not in (0, SHUTDOWN)
    assert code_of(queue) in (0, SHUTDOWN)
