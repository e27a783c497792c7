-- Finished bars of more lengths as plain columns, labelled by their close, as `history` gives them
-- for these intervals: of a second from the ticks that the store has (archived months are read by
-- `history` alone), longer ones from the minutes of the view `bars`. Nothing is stored, so a late
-- tick is in its bar as soon as it is in the store.
-- Columns are qualified: the aliases `ts`, `open` ... shadow the columns of those names. The end of a
-- second is written so that a range of `ts` reads the granules of that range alone.

CREATE VIEW bars_1s AS
SELECT
    t.symbol AS symbol,
    toStartOfSecond(t.ts) + INTERVAL 1 SECOND AS ts,
    argMin(t.price, (t.ts, t.offset)) AS open,
    max(t.price) AS high,
    min(t.price) AS low,
    argMax(t.price, (t.ts, t.offset)) AS close,
    sum(t.volume) AS volume
FROM ticks AS t FINAL
GROUP BY symbol, ts
HAVING ts <= now64(9, 'UTC');

CREATE VIEW bars_5m AS
SELECT
    b.symbol AS symbol,
    fromUnixTimestamp64Nano((intDiv(toUnixTimestamp64Nano(b.ts) - 1, 300000000000) + 1) * 300000000000, 'UTC') AS ts,
    argMin(b.open, b.ts) AS open,
    max(b.high) AS high,
    min(b.low) AS low,
    argMax(b.close, b.ts) AS close,
    sum(b.volume) AS volume
FROM bars AS b
GROUP BY symbol, ts
HAVING ts <= now64(9, 'UTC');

CREATE VIEW bars_1h AS
SELECT
    b.symbol AS symbol,
    fromUnixTimestamp64Nano((intDiv(toUnixTimestamp64Nano(b.ts) - 1, 3600000000000) + 1) * 3600000000000, 'UTC') AS ts,
    argMin(b.open, b.ts) AS open,
    max(b.high) AS high,
    min(b.low) AS low,
    argMax(b.close, b.ts) AS close,
    sum(b.volume) AS volume
FROM bars AS b
GROUP BY symbol, ts
HAVING ts <= now64(9, 'UTC');

CREATE VIEW bars_1d AS
SELECT
    b.symbol AS symbol,
    fromUnixTimestamp64Nano((intDiv(toUnixTimestamp64Nano(b.ts) - 1, 86400000000000) + 1) * 86400000000000, 'UTC') AS ts,
    argMin(b.open, b.ts) AS open,
    max(b.high) AS high,
    min(b.low) AS low,
    argMax(b.close, b.ts) AS close,
    sum(b.volume) AS volume
FROM bars AS b
GROUP BY symbol, ts
HAVING ts <= now64(9, 'UTC');
