-- A topic into `ticks` by ClickHouse alone, on a server that reaches Kafka: in place of
-- `runners/ingest.py`, never beside it, and no migration. Put broker and topic below, name the
-- symbols, and run it after the migrations, in the same database:
--     clickhouse-client --database sysquant --multiquery < kafka_engine.sql
--     INSERT INTO price_ticks_symbols VALUES ('BINANCE:BTCUSDT'), ('BINANCE:ETHUSDT')
-- and start sessions with `ingest=none`. `DETACH TABLE price_ticks_queue` pauses it.
--
-- What differs from `runners/ingest.py`:
--   - At least once. A block that was written, and whose offsets were not committed when the server
--     ended, is read again. `ticks` and `dead_letter` name a record by (epoch, partition, offset)
--     and, read with FINAL, count it once; `bars_1m` sums its volume twice. The ingest sends fixed
--     ranges of offsets with tokens, and does not.
--   - Kafka's committed offsets of this group say what was read, and the epoch is the topic's name
--     alone. A store that holds ticks of the ingest gets those of the topic once more, under another
--     epoch: begin with a store that has none of it, or commit the group's offsets first
--     (kafka-consumer-groups --reset-offsets). A topic made anew needs another epoch below.
--   - JSON is read by ClickHouse: a number in quotes is a number to it, `received_at` may have any
--     form that parseDateTime64BestEffort takes, and reasons of dead letters are worded otherwise.
--   - The payload of a dead letter is the record as it came where it is no JSON of this form;
--     otherwise it is made of the fields below.
--   - A tick is in the store after kafka_flush_interval_ms, and nobody refuses to go on at a gap.

CREATE TABLE price_ticks_symbols (
    symbol         String COMMENT 'that may come; others are dead letters'
) ENGINE = MergeTree ORDER BY symbol;

-- Fields that are missing are NULL, those not named here are skipped.
CREATE TABLE price_ticks_queue (
    timestamp_ms   Nullable(Int64),
    symbol         Nullable(String),
    price          Nullable(Float64),
    volume         Nullable(Float64),
    received_at    Nullable(String)
) ENGINE = Kafka
SETTINGS
    kafka_broker_list = '127.0.0.1:9092',
    kafka_topic_list = 'price_ticks',
    kafka_group_name = 'sysquant-clickhouse',
    kafka_format = 'JSONEachRow',
    kafka_num_consumers = 1,
    kafka_flush_interval_ms = 500,
    kafka_handle_error_mode = 'stream',
    input_format_skip_unknown_fields = 1,
    precise_float_parsing = 1;

-- What became of each record; it keeps no row, the two views behind it do.
CREATE TABLE price_ticks_read (
    symbol         String,
    ts             DateTime64(9, 'UTC'),
    price          Float64,
    volume         Float64,
    received_at    DateTime64(9, 'UTC'),
    topic          String,
    partition      Int32,
    offset         Int64,
    reason         String COMMENT 'why it is no tick; empty for one',
    payload        String
) ENGINE = Null;

CREATE MATERIALIZED VIEW ticks_from_kafka TO ticks AS
SELECT r.symbol AS symbol, r.ts AS ts, r.price AS price, r.volume AS volume,
    r.received_at AS received_at, r.topic AS epoch, r.partition AS partition, r.offset AS offset
FROM price_ticks_read AS r
WHERE r.reason = '';

CREATE MATERIALIZED VIEW dead_letter_from_kafka TO dead_letter AS
SELECT r.topic AS topic, '' AS epoch, r.partition AS partition, r.offset AS offset,
    r.reason AS reason, r.payload AS payload
FROM price_ticks_read AS r
WHERE r.reason != '';

-- Last, since reading begins with it.
CREATE MATERIALIZED VIEW price_ticks_from_kafka TO price_ticks_read AS
SELECT
    ifNull(q.symbol, '') AS symbol,
    fromUnixTimestamp64Milli(if(ifNull(q.timestamp_ms, 0) BETWEEN 1 AND 7258118400000, ifNull(q.timestamp_ms, 0), 0), 'UTC') AS ts,
    ifNull(q.price, 0) AS price,
    ifNull(q.volume, 0) AS volume,
    ifNull(parseDateTime64BestEffortOrNull(ifNull(q.received_at, ''), 9, 'UTC'), toDateTime64(0, 9, 'UTC')) AS received_at,
    q._topic AS topic,
    toInt32(q._partition) AS partition,
    toInt64(q._offset) AS offset,
    multiIf(
        q._error != '', q._error,
        isNull(q.timestamp_ms) OR q.timestamp_ms NOT BETWEEN 1 AND 7258118400000, 'timestamp_ms must be from 1 to 7258118400000',
        isNull(q.price) OR NOT isFinite(q.price) OR q.price <= 0, 'price must be positive and finite',
        isNull(q.volume) OR NOT isFinite(q.volume) OR q.volume < 0, 'volume must be >= 0 and finite',
        ifNull(q.symbol, '') NOT IN (SELECT symbol FROM price_ticks_symbols), 'unknown symbol',
        isNull(parseDateTime64BestEffortOrNull(ifNull(q.received_at, ''), 9, 'UTC')), 'received_at is no time',
        ''
    ) AS reason,
    if(q._error != '', q._raw_message, toJSONString(map(
        'timestamp_ms', toString(q.timestamp_ms), 'symbol', q.symbol, 'price', toString(q.price),
        'volume', toString(q.volume), 'received_at', q.received_at
    ))) AS payload
FROM price_ticks_queue AS q;
