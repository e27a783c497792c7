-- What a run decided. A column whose comment starts with "not decided" tells about the run, not
-- about the decision: two runs over the same inputs agree in every other column, byte for byte.
-- Every table is appended to in batches that carry a deduplication token.

CREATE TABLE runs (
    run            String COMMENT 'not decided: journal id of a live book, fresh id of a backtest',
    mode           LowCardinality(String) COMMENT 'live | backtest',
    book           LowCardinality(String),
    build          String COMMENT 'hash of source, configuration, versions and CPU',
    started_at     DateTime64(9, 'UTC'),
    config         String COMMENT 'JSON, secrets unresolved'
) ENGINE = MergeTree ORDER BY (started_at, run)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE inputs (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'position in the journal',
    kind           LowCardinality(String) COMMENT 'ticks | bars | history | mark | command',
    rows           UInt32,
    offsets        String COMMENT 'JSON: partition -> [first, last]',
    effects_hash   String COMMENT 'hex SHA-256 of what it caused',
    payload        String COMMENT 'packed columns'
) ENGINE = MergeTree ORDER BY (run, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE signals (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time, a bar close',
    strategy       LowCardinality(String),
    symbol         LowCardinality(String),
    target         Float64 COMMENT 'weight of the strategy''s equity',
    price          Float64 COMMENT 'last trade before the decision'
) ENGINE = MergeTree ORDER BY (run, strategy, symbol, ts)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE orders (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time of the decision',
    strategy       LowCardinality(String),
    order_no       UInt64 COMMENT 'counts the orders of one strategy from 1',
    symbol         LowCardinality(String),
    kind           LowCardinality(String) COMMENT 'market',
    quantity       Float64 COMMENT 'units, > 0 buys',
    target         Float64 COMMENT 'weight asked for',
    price          Float64 COMMENT 'last trade before the decision',
    status         LowCardinality(String) COMMENT 'approved | refused',
    reason         String COMMENT 'the checks that refused, comma separated',
    due            DateTime64(9, 'UTC') COMMENT 'when an approved order reaches the broker'
) ENGINE = MergeTree ORDER BY (run, strategy, order_no)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE risk_receipts (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC'),
    strategy       LowCardinality(String),
    order_no       UInt64,
    symbol         LowCardinality(String),
    check          LowCardinality(String),
    value          Float64 COMMENT 'in the unit of the check',
    limit          Float64 COMMENT 'in the unit of the check',
    verdict        LowCardinality(String) COMMENT 'pass | refuse | exempt'
) ENGINE = MergeTree ORDER BY (run, strategy, order_no, check)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE executions (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time of the fill',
    strategy       LowCardinality(String),
    order_no       UInt64,
    fill_no        UInt32 COMMENT 'counts the fills of one order from 1',
    symbol         LowCardinality(String),
    quantity       Float64 COMMENT 'units, > 0 bought',
    price          Float64 COMMENT 'after slippage, cut to the tick',
    reference      Float64 COMMENT 'the market''s price it was filled against',
    slippage       Float64 COMMENT 'quote currency, positive when paid',
    fee            Float64 COMMENT 'quote currency, positive when paid',
    realised_pnl   Float64 COMMENT 'quote currency, before fees'
) ENGINE = MergeTree ORDER BY (run, strategy, order_no, fill_no)
SETTINGS non_replicated_deduplication_window = 10000;

-- One account row (symbol = '') per strategy with its cash, one row per held or once held symbol
-- with its position, and one row of the cash pool (strategy = '', symbol = ''). Summed over one
-- moment: cash + value = initial capital + realised_pnl + unrealised_pnl - fees.
CREATE TABLE portfolio_history (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time',
    version        UInt64 COMMENT 'counts the rows of one run from 1',
    strategy       LowCardinality(String),
    symbol         LowCardinality(String),
    quantity       Float64,
    average_price  Float64 COMMENT 'of the open quantity; 0 when flat',
    price          Float64 COMMENT 'last trade',
    value          Float64 COMMENT 'quantity at last trade; 0 on account rows',
    cash           Float64 COMMENT 'account rows only',
    realised_pnl   Float64 COMMENT 'symbol rows only, before fees',
    unrealised_pnl Float64 COMMENT 'symbol rows only',
    fees           Float64 COMMENT 'symbol rows only, positive when paid',
    slippage       Float64 COMMENT 'symbol rows only, positive when paid',
    equity         Float64 COMMENT 'account rows only',
    peak           Float64 COMMENT 'account rows only: highest equity so far',
    drawdown       Float64 COMMENT 'account rows only: equity / peak - 1'
) ENGINE = MergeTree ORDER BY (run, strategy, symbol, ts, version)
SETTINGS non_replicated_deduplication_window = 10000;

-- The current row per strategy and symbol: read it with FINAL.
CREATE TABLE portfolio_state AS portfolio_history
ENGINE = ReplacingMergeTree(version) ORDER BY (run, strategy, symbol)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW portfolio_state_from_history TO portfolio_state AS
SELECT * FROM portfolio_history;

CREATE TABLE events (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it, 0 for none',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time, or the wall''s before the first input',
    kind           LowCardinality(String) COMMENT 'start | stop | gap | halt | alert',
    strategy       LowCardinality(String),
    detail         String
) ENGINE = MergeTree ORDER BY (run, ts)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE feed_stats (
    run            String COMMENT 'not decided',
    ts             DateTime64(9, 'UTC') COMMENT 'not decided: wall clock',
    feed           LowCardinality(String),
    ticks          UInt64 COMMENT 'good records so far',
    dead           UInt64 COMMENT 'dead letters so far',
    late           UInt64 COMMENT 'ticks older than engine time so far',
    engine_ts      DateTime64(9, 'UTC'),
    lag_ms         Float64 COMMENT 'wall clock minus engine time; NaN for a feed of the past',
    outbox_rows    UInt64
) ENGINE = MergeTree ORDER BY (run, ts)
SETTINGS non_replicated_deduplication_window = 10000;
