-- The research ledger: every backtest, every cell of a sweep, every fold of a walk, one row each.
-- Runs are written to a file first (`sysquant.research_file`), and carried here from there.
CREATE TABLE research_runs (
    ledger         LowCardinality(String) COMMENT 'id of the file that it was first written to',
    number         UInt64 COMMENT 'in that file, from 1 without a gap',
    made           DateTime64(9, 'UTC') COMMENT 'when it was run, or the sweep began',
    kind           LowCardinality(String) COMMENT 'backtest | cell | screened | gate',
    source         LowCardinality(String) COMMENT 'notebook or script, as far as it is known',
    lineage        LowCardinality(String) COMMENT 'what the class says, or else its name',
    names          Array(String) COMMENT 'of the class, and of the strategies that it derives from',
    graph          LowCardinality(String) COMMENT 'hash of its features, without numbers; empty where nothing is computed',
    code           LowCardinality(String) COMMENT 'hash of its compiled code, without name and defaults',
    parameters     String COMMENT 'JSON',
    first          DateTime64(9, 'UTC') COMMENT 'first event that was decided on',
    last           DateTime64(9, 'UTC') COMMENT 'last one',
    symbols        String,
    interval       LowCardinality(String) COMMENT 'of the bars',
    bars           LowCardinality(String) COMMENT 'hash of the events: how many, the first and the last',
    terms          LowCardinality(String) COMMENT 'hash of costs, risk limits, sizing, orders, exits, capital, seed, instruments',
    trial          String COMMENT 'hex: equal for equal configurations on equal data, of which only one is a trial',
    sharpe         Float64 COMMENT 'per period, not annualised; NaN where there is none',
    periods        UInt64 COMMENT 'that it rests on'
) ENGINE = MergeTree ORDER BY (lineage, ledger, number)
SETTINGS non_replicated_deduplication_window = 10000;
