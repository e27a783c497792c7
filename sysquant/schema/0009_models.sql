-- Trainings and what came of them, by `runners/retrain.py`; the index of the models that are
-- published in files. One row each, also of those that failed.
CREATE TABLE model_runs (
    lineage        LowCardinality(String) COMMENT 'whose models they are: a strategy of a book',
    model          String COMMENT 'number-id, the directory of a published model; empty for one that was not published',
    id             String COMMENT 'hex SHA-256 of what the model is: parameters, features, thresholds, predictions; empty where there is none',
    verdict        LowCardinality(String) COMMENT 'published | kept | refused | failed',
    reasons        Array(String) COMMENT 'why it was not published',
    strategy       String COMMENT 'class and parameters whose features it takes',
    family         LowCardinality(String),
    recipe         String COMMENT 'how it was trained, JSON',
    features       Array(String) COMMENT 'in the order of the model',
    first          DateTime64(9, 'UTC') COMMENT 'ts of the earliest training row',
    last           DateTime64(9, 'UTC') COMMENT 'ts of the newest training row',
    known          DateTime64(9, 'UTC') COMMENT 'when the newest outcome was known: before the first use',
    rows           UInt64 COMMENT 'of the training set',
    data_hash      String COMMENT 'hex SHA-256 of the training set',
    scores         Map(String, Float64) COMMENT 'out of sample',
    parent         String COMMENT 'number-id of the model that it was compared with; empty for none',
    build          String COMMENT 'hash of the code that trained it',
    versions       Map(String, String) COMMENT 'of the packages',
    notebook       String COMMENT 'the executed notebook, below the home of whoever trained',
    expires        DateTime64(9, 'UTC') COMMENT 'from then on it gives no opinion',
    took_s         Float64 COMMENT 'of the training, from its start to the verdict',
    made           DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC')
) ENGINE = MergeTree ORDER BY (lineage, made)
SETTINGS non_replicated_deduplication_window = 10000;

-- Which model served when: from a row's ts to the next of its run and strategy.
CREATE TABLE models_served (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input by which it was swapped',
    ts             DateTime64(9, 'UTC') COMMENT 'not decided: engine time of the swap, or the wall clock''s before the first event',
    strategy       LowCardinality(String),
    model          String COMMENT 'number-id; empty for none',
    why            String COMMENT 'not decided'
) ENGINE = MergeTree ORDER BY (run, strategy, seq)
SETTINGS non_replicated_deduplication_window = 10000;

ALTER TABLE signals
    ADD COLUMN IF NOT EXISTS model LowCardinality(String) COMMENT 'number-id of the model that the strategy asked; empty for none';

ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS model LowCardinality(String) COMMENT 'number-id of the model that the strategy asked; empty for none';

-- How far what a model is asked, and what it says, has moved from its training rows.
CREATE TABLE drift (
    run            String,
    ts             DateTime64(9, 'UTC') COMMENT 'engine time',
    strategy       LowCardinality(String),
    model          String COMMENT 'number-id',
    kind           LowCardinality(String) COMMENT 'feature | prediction',
    name           LowCardinality(String) COMMENT 'of the feature, or of the class',
    psi            Float64 COMMENT 'population stability index over tenths of the training rows; 0.25 and more is much',
    rows           UInt64 COMMENT 'the newest that it was asked, which are compared'
) ENGINE = MergeTree ORDER BY (run, strategy, kind, name, ts)
SETTINGS non_replicated_deduplication_window = 10000;
