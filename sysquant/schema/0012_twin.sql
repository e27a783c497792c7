-- The live twin: live minus backtest P&L of a session by cause, at one of its snapshots. Of a strategy
-- and moment: the sum of pnl over all causes, and unexplained once, is live - backtest. A newer row
-- replaces an older one of the same place. Read with FINAL.
CREATE TABLE twin (
    run            String COMMENT 'not decided: of the session',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time: the session''s snapshot that was compared',
    strategy       LowCardinality(String),
    cause          LowCardinality(String) COMMENT 'data | timing | model version | capital | decision | fees | fill price | risk',
    pnl            Float64 COMMENT 'book currency: live minus backtest P&L that this cause brought',
    differing      UInt64 COMMENT 'ticks, marks, swaps, operations, weights, fills or orders that are others; of data and timing for the whole book',
    first          String COMMENT 'the first of them',
    live           Float64 COMMENT 'book currency: P&L that the session recorded, after all costs',
    backtest       Float64 COMMENT 'book currency: P&L of the backtest, after all costs',
    unexplained    Float64 COMMENT 'book currency: what no cause brought; to be 0',
    wall_bars      UInt64 COMMENT 'bars of the book that were decided on at a mark of the wall''s clock',
    made_at        DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided'
) ENGINE = ReplacingMergeTree(made_at) ORDER BY (run, ts, strategy, cause)
SETTINGS non_replicated_deduplication_window = 10000;
