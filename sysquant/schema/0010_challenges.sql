-- Champion against challenger: two models over the same ticks, in a book each. One row a look, by
-- `runners/challenge.py`; of two models the last counts.
CREATE TABLE challenges (
    lineage        LowCardinality(String),
    ts             DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC'),
    champion       LowCardinality(String) COMMENT 'number-id of its model',
    challenger     LowCardinality(String) COMMENT 'number-id of its model',
    champion_run   String,
    challenger_run String,
    since          DateTime64(9, 'UTC') COMMENT 'first snapshot of both',
    until          DateTime64(9, 'UTC') COMMENT 'last snapshot of both',
    snapshots      UInt64 COMMENT 'after the first',
    champion_return Float64 COMMENT 'since then, of its equity',
    challenger_return Float64 COMMENT 'since then, of its equity',
    champion_drawdown Float64 COMMENT 'since then, <= 0',
    challenger_drawdown Float64 COMMENT 'since then, <= 0',
    edge           Float64 COMMENT 'mean return per snapshot by which the challenger is better; NaN when not known',
    edge_low       Float64 COMMENT 'lower limit of 95 %; NaN below 10 snapshots',
    edge_high      Float64 COMMENT 'upper limit of 95 %; NaN below 10 snapshots',
    verdict        LowCardinality(String) COMMENT 'early | kept | better | promoted | refused',
    why            String
) ENGINE = MergeTree ORDER BY (lineage, champion, challenger, ts)
SETTINGS non_replicated_deduplication_window = 10000;
