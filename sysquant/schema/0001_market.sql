-- The market: what was traded, and the minute bars made of it.
-- Every insert carries a deduplication token and deduplicate_blocks_in_dependent_materialized_views.

-- One row per trade. (epoch, partition, offset) names a record of a topic for ever: a topic made
-- anew counts its offsets from 0 again, and has another epoch. They fix symbol and ts, so the key
-- is unique by them although it begins with what queries ask for. Read with FINAL.
CREATE TABLE ticks (
    symbol         LowCardinality(String),
    ts             DateTime64(9, 'UTC') COMMENT 'when it happened (timestamp_ms of the topic)',
    price          Float64 COMMENT 'quote currency',
    volume         Float64 COMMENT 'units',
    received_at    DateTime64(9, 'UTC') COMMENT 'not decided: when the upstream stream saw it, by its own clock',
    epoch          LowCardinality(String) COMMENT 'not decided: which life of the topic, or which imported file',
    partition      Int32,
    offset         Int64
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (symbol, ts, epoch, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000;

-- Minute bars from ticks, as states to be merged: read them through the view `bars`.
CREATE TABLE bars_1m (
    symbol         LowCardinality(String),
    ts             DateTime64(9, 'UTC') COMMENT 'the close of the bar: it covers [ts - 1 minute, ts)',
    open           AggregateFunction(argMin, Float64, Tuple(DateTime64(9, 'UTC'), Int64)),
    high           SimpleAggregateFunction(max, Float64),
    low            SimpleAggregateFunction(min, Float64),
    close          AggregateFunction(argMax, Float64, Tuple(DateTime64(9, 'UTC'), Int64)),
    volume         SimpleAggregateFunction(sum, Float64) COMMENT 'units',
    ticks          SimpleAggregateFunction(sum, UInt64) COMMENT 'how many trades'
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (symbol, ts)
SETTINGS non_replicated_deduplication_window = 10000;

-- Columns inside the aggregates are qualified: the alias `ts` shadows the column of that name, and
-- argMin by the alias (one value for the whole minute) would give any trade as the open.
CREATE MATERIALIZED VIEW bars_1m_from_ticks TO bars_1m AS
SELECT
    ticks.symbol AS symbol,
    toDateTime64(toStartOfMinute(ticks.ts) + INTERVAL 1 MINUTE, 9, 'UTC') AS ts,
    argMinState(ticks.price, (ticks.ts, ticks.offset)) AS open,
    max(ticks.price) AS high,
    min(ticks.price) AS low,
    argMaxState(ticks.price, (ticks.ts, ticks.offset)) AS close,
    sum(ticks.volume) AS volume,
    count() AS ticks
FROM ticks
GROUP BY symbol, ts;

-- Minute bars that stand as they are: imported without ticks, or rebuilt from ticks after an
-- insert that could not be repeated identically. Such a row hides the states of its minute, and a
-- newer one replaces an older one, so importing twice changes nothing.
CREATE TABLE bars_imported (
    symbol         LowCardinality(String),
    ts             DateTime64(9, 'UTC') COMMENT 'the close of the bar: it covers [ts - 1 minute, ts)',
    open           Float64,
    high           Float64,
    low            Float64,
    close          Float64,
    volume         Float64 COMMENT 'units',
    source         LowCardinality(String) COMMENT 'not decided: what was imported, or "ticks"',
    imported_at    DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided'
) ENGINE = ReplacingMergeTree(imported_at)
PARTITION BY toYYYYMM(ts)
ORDER BY (symbol, ts)
SETTINGS non_replicated_deduplication_window = 10000;

-- Finished minute bars as plain columns.
CREATE VIEW bars AS
SELECT
    symbol,
    ts,
    argMax(bar.open, bar.rank) AS open,
    argMax(bar.high, bar.rank) AS high,
    argMax(bar.low, bar.rank) AS low,
    argMax(bar.close, bar.rank) AS close,
    argMax(bar.volume, bar.rank) AS volume
FROM (
    SELECT
        bars_1m.symbol AS symbol,
        bars_1m.ts AS ts,
        argMinMerge(bars_1m.open) AS open,
        max(bars_1m.high) AS high,
        min(bars_1m.low) AS low,
        argMaxMerge(bars_1m.close) AS close,
        sum(bars_1m.volume) AS volume,
        0 AS rank
    FROM bars_1m
    GROUP BY symbol, ts
    UNION ALL
    SELECT symbol, ts, open, high, low, close, volume, 1 AS rank
    FROM bars_imported FINAL
) AS bar
WHERE ts <= now64(9, 'UTC')
GROUP BY symbol, ts;

-- Records of a topic that could not be used, each once. Read with FINAL.
CREATE TABLE dead_letter (
    topic          LowCardinality(String),
    epoch          LowCardinality(String) COMMENT 'not decided: which life of the topic',
    partition      Int32,
    offset         Int64,
    reason         String,
    payload        String COMMENT 'the record as it came',
    ts             DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided: when it was refused'
) ENGINE = ReplacingMergeTree
ORDER BY (topic, epoch, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000;
