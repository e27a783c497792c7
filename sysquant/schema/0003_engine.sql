-- The engine with order kinds, exits, cuts and financing. Money is in the book's currency, prices
-- in the instrument's quote currency; a book of one currency has no difference between them.
-- Rows from before this keep their meaning by the defaults: market orders, taken, never cut.

ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS tif LowCardinality(String) DEFAULT 'gtc' COMMENT 'gtc | ioc | fok | gtd' AFTER kind,
    ADD COLUMN IF NOT EXISTS purpose LowCardinality(String) DEFAULT 'signal' COMMENT 'signal | slice | follow_up | stop_loss | trailing_stop | take_profit | max_hold | drawdown | off' AFTER tif,
    ADD COLUMN IF NOT EXISTS asked Float64 DEFAULT quantity COMMENT 'units before the risk chain cut it' AFTER quantity,
    ADD COLUMN IF NOT EXISTS limit_price Nullable(Float64) COMMENT 'NULL where the kind has none' AFTER price,
    ADD COLUMN IF NOT EXISTS stop_price Nullable(Float64) COMMENT 'NULL where the kind has none' AFTER limit_price,
    ADD COLUMN IF NOT EXISTS expires Nullable(DateTime64(9, 'UTC')) COMMENT 'NULL for never' AFTER due,
    COMMENT COLUMN kind 'market | limit | stop | stop_limit | trailing_stop';

-- One row per check and attempt; a cut order has two.
ALTER TABLE risk_receipts
    ADD COLUMN IF NOT EXISTS attempt UInt8 DEFAULT 1 COMMENT '2 for the review of the cut order' AFTER symbol,
    ADD COLUMN IF NOT EXISTS room Float64 DEFAULT nan COMMENT 'units of this side that the check would pass, infinite if it does not depend on them; NaN in rows from before it was recorded',
    COMMENT COLUMN value 'in the unit of the check; NaN when it cannot be known, which refuses';

ALTER TABLE executions
    ADD COLUMN IF NOT EXISTS liquidity LowCardinality(String) DEFAULT 'taker' COMMENT 'maker | taker' AFTER symbol,
    COMMENT COLUMN reference 'the market''s price it was filled against, or its limit for a maker',
    COMMENT COLUMN slippage 'book currency, positive when paid',
    COMMENT COLUMN fee 'book currency, positive when paid, negative for a rebate',
    COMMENT COLUMN realised_pnl 'book currency, before fees and financing';

CREATE TABLE order_ends (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'engine time',
    strategy       LowCardinality(String),
    order_no       UInt64,
    symbol         LowCardinality(String),
    reason         LowCardinality(String) COMMENT 'filled | cancelled | expired | rejected | ioc | fok | post_only | reduce_only | oco | replaced',
    filled         Float64 COMMENT 'units, > 0 bought',
    remainder      Float64 COMMENT 'units, > 0 was to buy'
) ENGINE = MergeTree ORDER BY (run, strategy, order_no)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE financing (
    run            String COMMENT 'not decided',
    seq            UInt64 COMMENT 'not decided: the input that caused it',
    ts             DateTime64(9, 'UTC') COMMENT 'when it was due',
    strategy       LowCardinality(String),
    symbol         LowCardinality(String) COMMENT 'empty for interest',
    kind           LowCardinality(String) COMMENT 'funding | borrow | interest',
    base           Float64 COMMENT 'book currency: what the rate is of',
    rate           Float64 COMMENT 'fraction of the base for this time',
    amount         Float64 COMMENT 'book currency, positive when paid'
) ENGINE = MergeTree ORDER BY (run, strategy, symbol, ts)
SETTINGS non_replicated_deduplication_window = 10000;

-- Summed over one moment: cash + value + fees + financing = initial capital + realised_pnl +
-- unrealised_pnl. Statistics are over the account's last risk bars.
ALTER TABLE portfolio_state
    ADD COLUMN IF NOT EXISTS financing Float64 COMMENT 'positive when paid; account rows: interest, symbol rows: funding and borrow fees' AFTER slippage,
    ADD COLUMN IF NOT EXISTS volatility Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS sharpe Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS sortino Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS value_at_risk Nullable(Float64) COMMENT 'account rows only: historical, of one risk bar, fraction of equity; NULL when not known',
    COMMENT COLUMN average_price 'book currency: cost of one unit of the open quantity; 0 when flat';

ALTER TABLE portfolio_history
    ADD COLUMN IF NOT EXISTS financing Float64 COMMENT 'positive when paid; account rows: interest, symbol rows: funding and borrow fees' AFTER slippage,
    ADD COLUMN IF NOT EXISTS volatility Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS sharpe Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS sortino Nullable(Float64) COMMENT 'account rows only: per year; NULL when not known',
    ADD COLUMN IF NOT EXISTS value_at_risk Nullable(Float64) COMMENT 'account rows only: historical, of one risk bar, fraction of equity; NULL when not known',
    COMMENT COLUMN average_price 'book currency: cost of one unit of the open quantity; 0 when flat';

-- The star of a view is read once, when it is made: this reads it again, and no insert is missed.
ALTER TABLE portfolio_state_from_history MODIFY QUERY SELECT * FROM portfolio_history;

-- Funding rates of perpetuals as the exchange set them; a newer row replaces an older one, so
-- importing twice changes nothing. Read with FINAL.
CREATE TABLE funding (
    symbol         LowCardinality(String),
    ts             DateTime64(9, 'UTC') COMMENT 'the funding time',
    rate           Float64 COMMENT 'fraction of the position''s value; > 0 is paid by who is long',
    source         LowCardinality(String) COMMENT 'not decided: what was imported',
    imported_at    DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC') COMMENT 'not decided'
) ENGINE = ReplacingMergeTree(imported_at) ORDER BY (symbol, ts)
SETTINGS non_replicated_deduplication_window = 10000;
