-- How a session did, period by period: the rate, lags and latencies, and what its process used.
CREATE TABLE runtime_metrics (
    run              String COMMENT 'not decided',
    ts               DateTime64(9, 'UTC') COMMENT 'not decided: wall clock at the end of the period',
    period_s         Float64 COMMENT 'since the row before',
    batches          UInt64 COMMENT 'inputs journaled in the period',
    ticks_per_s      Float64 COMMENT 'good records journaled',
    lag_records      UInt64 COMMENT 'known to wait in the feed at the last poll',
    lag_ms           Float64 COMMENT 'wall clock minus engine time; NaN for a feed of the past',
    decision_ms_p50  Float64 COMMENT 'of batches: from the return of the poll to the commit of the journal; NaN without a batch',
    decision_ms_p99  Float64 COMMENT 'likewise',
    decision_ms_p999 Float64 COMMENT 'likewise',
    exchange_ms_p50  Float64 COMMENT 'of records: from the exchange''s time to the commit of the journal, less clock_skew_ms; NaN for a feed of the past',
    exchange_ms_p99  Float64 COMMENT 'likewise',
    exchange_ms_p999 Float64 COMMENT 'likewise',
    clock_skew_ms    Float64 COMMENT 'our clock ahead of the exchange''s, at most: the least arrival minus time of event in ten minutes; NaN for a feed of the past',
    outbox_rows      UInt64 COMMENT 'that the store has not confirmed',
    outbox_age_s     Float64 COMMENT 'since the oldest unconfirmed batch was sealed; 0 for none',
    memory_bytes     UInt64 COMMENT 'resident',
    open_files       UInt64 COMMENT 'file descriptors',
    gc_collections   UInt64 COMMENT 'collections of garbage in the period',
    gc_pause_ms      Float64 COMMENT 'all of them together',
    gc_longest_ms    Float64 COMMENT 'the longest of them',
    snapshot_age_s   Float64 COMMENT 'since the last snapshot, or the start'
) ENGINE = MergeTree ORDER BY (run, ts)
SETTINGS non_replicated_deduplication_window = 10000;
