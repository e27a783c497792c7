-- What a stream from an exchange did, beside what it published; 0 for other feeds.
ALTER TABLE feed_stats
    ADD COLUMN IF NOT EXISTS filled      UInt64 COMMENT 'missed trades that were asked for and came',
    ADD COLUMN IF NOT EXISTS duplicates  UInt64 COMMENT 'trades that came again, and were left out',
    ADD COLUMN IF NOT EXISTS lost        UInt64 COMMENT 'trades that nobody had; each gap is an event',
    ADD COLUMN IF NOT EXISTS dropped     UInt64 COMMENT 'ticks that Kafka was away for too long for',
    ADD COLUMN IF NOT EXISTS connections UInt64 COMMENT 'to the exchange, so far';
