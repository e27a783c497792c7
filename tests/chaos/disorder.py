"""Ticks in another order than they happened, and records that are no ticks at all."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kafka
import numpy as np

from sysquant.activity import closed_bars
from sysquant.types import SECOND, Instrument, Ticks
from tests.chaos.lab import Lab

SHARE, LATE_NS = 0.05, SECOND // 2
GOOD = {
    "timestamp": "2026-01-01T00:00:30+00:00", "timestamp_ms": 1767225630000, "symbol": "SIM:OAK",
    "price": 100.0, "volume": 1.0, "received_at": "2026-01-01T00:00:30+00:00",
}  # fmt: skip


def shuffled(blocks: Iterator[Ticks], seed: int) -> Iterator[Ticks]:
    """A share of the ticks comes up to half a second later than it happened."""
    draw = np.random.default_rng(seed)
    for ticks in blocks:
        is_moved = draw.random(len(ticks)) < SHARE
        comes = ticks.ts + np.where(is_moved, draw.integers(0, LATE_NS, len(ticks)), 0)
        yield ticks[np.argsort(comes, kind="stable")]


def late(ticks: Ticks) -> np.ndarray:
    """Which are older than one before them."""
    return ticks.ts < np.maximum.accumulate(ticks.ts)


def untimely(ticks: Ticks) -> np.ndarray:
    """Which came when the second that they belong to was over."""
    return ticks.ts // SECOND < np.maximum.accumulate(ticks.ts) // SECOND


def bars_of(ticks: Ticks, universe: Sequence[Instrument], *, in_order: bool = False) -> list[bytes]:
    """Columns of the one-second bars of ticks as they stand, or as they happened.

    Volumes are added up in another order: they are compared to nine digits.
    """
    if in_order:
        ticks = ticks[np.argsort(ticks.ts, kind="stable")]
    bars = closed_bars(ticks, universe, SECOND)
    bars.volume[:] = [float(f"{volume:.9g}") for volume in bars.volume.tolist()]
    return [column.tobytes() for _, column in bars.columns()]


def fuzz(lab: Lab, topic: str, count: int, seed: int) -> int:
    """Send so many records that cannot be meant; how many."""
    draw = random.Random(seed)
    producer = kafka.KafkaProducer(bootstrap_servers=lab.broker.bootstrap, linger_ms=5)
    for _ in range(count):
        producer.send(topic, draw.choice(BAD)(draw), key=b"bad", partition=0)
    producer.flush(120)
    producer.close()
    return count


def _with(**changes: Callable[[random.Random], Any]) -> Callable[[random.Random], bytes]:
    # A good record but for one field.
    def make(draw: random.Random) -> bytes:
        return json.dumps(GOOD | {name: value(draw) for name, value in changes.items()}).encode()

    return make


def _cut(draw: random.Random) -> bytes:
    whole = json.dumps(GOOD).encode()
    return whole[: draw.randrange(len(whole) - 1)]


def _without(draw: random.Random) -> bytes:
    left = dict(GOOD)
    del left[draw.choice(["timestamp_ms", "symbol", "price", "volume", "received_at"])]
    return json.dumps(left).encode()


def _noise(draw: random.Random) -> bytes:
    return b"\xff" + draw.randbytes(draw.randrange(200))


def _deep(draw: random.Random) -> bytes:
    return b"[" * draw.randrange(1, 5000)


def _text(draw: random.Random) -> str:
    return "".join(draw.choices("abc:/ é\n\"'", k=draw.randrange(1, 40)))


BAD: list[Callable[[random.Random], bytes | None]] = [
    _cut, _without, _noise, _deep,
    lambda draw: None, lambda draw: b"",
    lambda draw: json.dumps(draw.choice([[], {}, 7, "text", None, True])).encode(),
    _with(price=lambda draw: draw.choice([float("nan"), float("inf"), -float("inf")])),
    _with(price=lambda draw: -draw.random() if draw.random() < 0.9 else 0.0),
    _with(price=lambda draw: draw.choice(["100.0", None, [], {}, True])),
    lambda draw: json.dumps(GOOD).encode().replace(b"100.0", b"1e%d" % draw.randint(309, 9999)),
    _with(volume=lambda draw: -draw.random() - 1e-9),
    _with(volume=lambda draw: draw.choice(["1", None, float("nan"), {}])),
    _with(symbol=lambda draw: "SIM:" + _text(draw)),
    _with(symbol=lambda draw: draw.choice([None, 7, [], {}])),
    _with(timestamp_ms=lambda draw: draw.choice([-5, 0, 10**18, 10**30, 0.5, "soon", None])),
    _with(received_at=lambda draw: draw.choice([_text(draw), None, 7, "2026-13-01T00:00:00Z"])),
]  # fmt: skip
