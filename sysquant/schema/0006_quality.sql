-- How good the data of a symbol is, day by day: what `runners/check.py data` counted, the parts that
-- it makes of it, and the score, which is the least of them. A newer row replaces an older one of the
-- same day. Read with FINAL.
CREATE TABLE quality (
    symbol              LowCardinality(String),
    day                 Date COMMENT 'UTC',
    until               DateTime64(9, 'UTC') COMMENT 'measured from midnight up to here: the next midnight, or where the day had come to',
    score               Float64 COMMENT '0 to 1: the least of the parts',
    part_coverage       Float64 COMMENT 'bars / open_minutes; 1 where the calendar has none open',
    part_continuity     Float64 COMMENT '1 - gap_total_s / open time',
    part_order          Float64 COMMENT '1 - disordered / ticks',
    part_movement       Float64 COMMENT '1 - stuck_minutes / bars',
    part_plausibility   Float64 COMMENT '1 - spike_minutes / bars',
    part_steadiness     Float64 COMMENT 'jitter allowed / jitter_ms, at most 1',
    part_agreement      Float64 COMMENT '1 - differing / compared',
    part_uniqueness     Float64 COMMENT '1 - doubled / ticks',
    open_minutes        UInt64 COMMENT 'that the calendar of the instrument has open',
    bars                UInt64 COMMENT 'of these, minutes that have a bar',
    ticks               UInt64 COMMENT 'distinct trades',
    gaps                UInt64 COMMENT 'stretches of open time without a trade or an imported bar that are longer than allowed',
    gap_longest_s       Float64 COMMENT 'the longest of all stretches, open time alone',
    gap_total_s         Float64 COMMENT 'open time in the gaps',
    duplicates          UInt64 COMMENT 'trades that equal an earlier one in ts, price and volume; these can be real, and cost nothing',
    disordered          UInt64 COMMENT 'trades whose ts lies below the running maximum by offset in their partition',
    disorder_worst_ms   Float64 COMMENT 'how far below, at most',
    stuck_longest       UInt64 COMMENT 'minutes with trades in a row at one unchanged price, the longest run',
    stuck_minutes       UInt64 COMMENT 'minutes in runs that are longer than allowed',
    spikes              UInt64 COMMENT 'prices that are farther than allowed from both neighbours',
    spike_minutes       UInt64 COMMENT 'minutes that have one',
    skew_median_ms      Float64 COMMENT 'received_at - ts: what is constant of it; NaN without ticks',
    skew_p99_ms         Float64 COMMENT 'received_at - ts, 99th percentile; NaN without ticks',
    jitter_ms           Float64 COMMENT 'from the median of received_at - ts to its 1st or 99th percentile, the farther; NaN without ticks',
    compared            UInt64 COMMENT 'minutes that bars_1m or ticks have',
    differing           UInt64 COMMENT 'of these, minutes whose bar is not that of the distinct ticks',
    doubled             UInt64 COMMENT 'ticks whose epoch, partition and offset another one has',
    measured_at         DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided'
) ENGINE = ReplacingMergeTree(measured_at) ORDER BY (symbol, day)
SETTINGS non_replicated_deduplication_window = 10000;
