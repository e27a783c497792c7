-- Months of a table that were moved to Parquet files, by `runners/retain.py`. The newest version of
-- a symbol's month holds; rows that came to the store since belong to it, too. Read with FINAL.
CREATE TABLE archived (
    `table`        LowCardinality(String) COMMENT 'ticks',
    symbol         LowCardinality(String),
    month          UInt32 COMMENT 'YYYYMM',
    path           String COMMENT 'of the file: a URL, absolute, or below the home of whoever reads it',
    rows           UInt64,
    first          DateTime64(9, 'UTC') COMMENT 'ts of the first row',
    last           DateTime64(9, 'UTC') COMMENT 'ts of the last row',
    hash           String COMMENT 'hex SHA-256 of the file',
    version        UInt32 COMMENT 'counts the files of this symbol and month from 1',
    archived_at    DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided'
) ENGINE = ReplacingMergeTree(version)
ORDER BY (`table`, symbol, month)
SETTINGS non_replicated_deduplication_window = 10000;
