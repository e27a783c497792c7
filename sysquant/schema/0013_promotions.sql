-- Promotions, and what came of their gate; a refused one is a row as well. The record itself is a
-- file; `record` is what it holds.
CREATE TABLE promotions (
    id             String COMMENT 'of the record, which rows of what it trades name; empty for one that was refused',
    name           LowCardinality(String) COMMENT 'of the strategy in its book',
    verdict        LowCardinality(String) COMMENT 'promoted | refused',
    failures       Array(String) COMMENT 'why it was refused, by the part of the gate',
    strategy       String COMMENT 'class and parameters',
    model          String COMMENT 'number-id of the model that served in the gate; empty for none',
    allocation     Float64 COMMENT 'book currency, most that it may trade',
    start          DateTime64(9, 'UTC') COMMENT 'of the history that it was judged on',
    end            DateTime64(9, 'UTC'),
    figures        Map(String, Float64) COMMENT 'part.figure -> value, of those that are numbers',
    build          String COMMENT 'engine and machine under which parity was shown, JSON',
    record         String COMMENT 'JSON',
    made           DateTime64(9, 'UTC')
) ENGINE = MergeTree ORDER BY (name, made)
SETTINGS non_replicated_deduplication_window = 10000;

-- What was promoted says so in every row; what was not has nothing there.
ALTER TABLE signals
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE risk_receipts
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE executions
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE order_ends
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE financing
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE portfolio_state
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

ALTER TABLE portfolio_history
    ADD COLUMN IF NOT EXISTS promotion LowCardinality(String) COMMENT 'not decided: id of the promotion; empty: unpromoted';

-- The star of a view is read once, when it is made: this reads it again, and no insert is missed.
ALTER TABLE portfolio_state_from_history MODIFY QUERY SELECT * FROM portfolio_history;
