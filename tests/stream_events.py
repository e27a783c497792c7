"""Random markets for the engine and its oracle: ticks or bars, with gaps, jumps, late ones."""

import math
import random

SECOND = 1_000_000_000
BASE = (100.0, 10.0, 1000.0)  # price of the first, second and third symbol
STARTS = (1_700_000_000, 1_700_005_800, 1_700_068_000, 1_700_058_500, 1_700_092_780)  # s


def _volume(rng: random.Random, price: float, quote: bool) -> float:
    volume = rng.choice((0.0, 1e-9, *[math.exp(rng.gauss(4, 2)) for _ in range(14)]))
    return volume * price if quote else volume


def events_of(s, rng: random.Random, universe: list[dict], interval: int) -> list[tuple]:
    # Rows (what, ts, symbol, prices .., volume); prices lie on the tick.
    start = rng.choice(STARTS) * SECOND
    start -= start % interval
    prices = list(BASE[: s.symbols])
    sigma = rng.choice((0.0005, 0.002, 0.008))

    def move(y: int) -> float:
        jump = rng.choice((-0.06, 0.05)) if rng.random() < 0.01 else 0.0
        tick = universe[y]["tick_size"]
        price = prices[y] * math.exp(rng.gauss(0, sigma) + jump)
        prices[y] = max(tick, round(round(price / tick) * tick, 10))
        return prices[y]

    make = _bars if s.source == "bars" else _ticks
    rows = make(s, rng, universe, interval, start, move)
    if s.clock:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(rows) + 1)
            ts = rows[at - 1][1] if at else start
            rows.insert(at, ("clock", ts + rng.choice((0, interval, -interval // 3)), -1))
    if s.halts:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(rows) + 1)
            ts = rows[at - 1][1] if at else start
            what = rng.choice(("halt", "halt", "resume"))
            rows.insert(at, (what, ts, rng.randrange(s.symbols)))
    return rows


def _ticks(s, rng: random.Random, universe, interval: int, ts: int, move) -> list[tuple]:
    rows = []
    for _ in range(s.events):
        if rng.random() < 0.75:
            ts += rng.randint(0, 2 * interval // 3)
        ts += rng.choice((0,) * 30 + (7 * interval,))
        y = rng.randrange(s.symbols)
        price = move(y)
        volume = _volume(rng, price, universe[y].get("volume_unit") == "quote")
        late = rng.randint(0, 2 * interval) if s.late and rng.random() < 0.1 else 0
        rows.append(("tick", ts - late, y, price, volume))
    return rows


def _bars(s, rng: random.Random, universe, interval: int, ts: int, move) -> list[tuple]:
    rows = []
    while len(rows) < s.events:
        ts += interval * rng.choice((1,) * 15 + (6,))
        for y in range(s.symbols):
            if rng.random() < 0.85:
                path = [move(y) for _ in range(rng.choice((1, 3, 5)))]
                volume = _volume(rng, path[-1], universe[y].get("volume_unit") == "quote")
                late = 2 * interval if s.late and rng.random() < 0.05 else 0
                rows.append(("bar", ts - late, y, path[0], max(path), min(path), path[-1], volume))
    return rows[: s.events]
