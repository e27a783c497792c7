"""What the book may lose: returns per risk bar, their covariance, the worst of them.

Input: the last prices at each risk bar; P&L of the book by scenario (a past risk bar each). Output:
a ring of returns, a covariance matrix, losses (> 0 is lost). Nothing is allocated here.
"""

import math

from sysquant.compiled import inlined, kernel, part
from sysquant.records import Row, Rows
from sysquant.types import Floats

_NOISE = 1e-12  # of a sum of P&L, beyond what rounding leaves


@kernel
def worst_count(confidence: float, n: int) -> int:
    """How many of n returns are its tail: k = max(1, ceil((1 - confidence) n))."""
    return max(1, math.ceil((1.0 - confidence) * n - 1e-9))  # 0.025 x 40 is over 1 in binary


@inlined
def _key(value: float) -> float:
    # What stands for a return among sorted ones: NaN cannot be sorted.
    return value if math.isfinite(value) else math.inf


@inlined
def _put(rising: Floats, last: int, value: float) -> None:
    # A value among those before place `last`, which rise and move on to it.
    while last > 0 and rising[last - 1] > value:
        rising[last] = rising[last - 1]
        last -= 1
    rising[last] = value


@inlined
def keep_lowest(
    lowest: Floats, ring: Floats, place: int, sign: float, taken: int, oldest: float,
    confidence: float,
) -> None:  # fmt: skip
    """Keep the tail of what a ring holds, rising, when one more value was written to it.

    Only when one of them leaves, or the tail grows, is the ring read again.

    Parameters
    ----------
    lowest : the k lowest of sign x value (`worst_count`); what is not finite counts as infinite.
    ring : (W,) the last W of all values taken.
    place : in the ring, of the newest value.
    sign : 1.0, or -1.0 for the highest.
    taken : values before the newest.
    oldest : what it was written over; nothing while `taken` is below W.
    """
    window = len(ring)
    n = min(taken + 1, window)
    k = worst_count(confidence, n)
    value = _key(sign * ring[place])
    if taken >= window:
        left = _key(sign * oldest)
        if left == value:
            return
        stays = left > lowest[k - 1]
    else:
        stays = taken > 0 and k == worst_count(confidence, taken)
    if stays:
        if value < lowest[k - 1]:
            _put(lowest, k - 1, value)
        return
    for found in range(n):
        value = _key(sign * ring[place])
        if found < k or value < lowest[k - 1]:
            _put(lowest, min(found, k - 1), value)
        place = place - 1 if place > 0 else window - 1


@inlined
def append(
    returns: Floats, tails: Floats, covariance: Floats, clock: Row, markets: Rows, terms: Row
) -> None:
    """Close a risk bar: a row of the symbols' simple returns since the last one.

    A symbol without a price at both ends has return 0, and does not count the row as known. While
    no symbol has both, prices are remembered and no row is written.

    Parameters
    ----------
    returns : (W, Y) ring; row `clock.returns % W` is written, then `clock.returns` counts it.
    tails : (Y, 2, K) what is known of each symbol in the window: `keep_lowest`, and of its
        negative.
    covariance : (Y, Y) C, becomes decay x C + (1 - decay) x r r'; divided by
        `clock.covariance_weight`, 1 - decay ** clock.returns, it is unbiased.
    clock, markets, terms : `records.CLOCK`, (Y,) `MARKET` and `TERMS`.

    References
    ----------
    J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed., 1996, ch. 5.
    """
    place = clock.returns % terms.window
    row = returns[place]
    known = 0
    for symbol in range(len(markets)):
        market = markets[symbol]
        oldest = row[symbol]
        row[symbol] = 0.0
        if market.price > 0.0:
            if market.risk_price > 0.0:
                row[symbol] = market.price / market.risk_price - 1.0
                for side in range(2):
                    keep_lowest(
                        tails[symbol, side], returns[:, symbol], place, 1.0 - 2.0 * side,
                        market.returns, oldest, terms.confidence,
                    )  # fmt: skip
                market.returns += 1
                known += 1
            market.risk_price = market.price
    if known == 0:
        return
    for one in range(len(markets)):
        for other in range(len(markets)):
            covariance[one, other] = terms.decay * covariance[one, other] + (1.0 - terms.decay) * (
                row[one] * row[other]
            )
    clock.returns += 1
    clock.covariance_weight = terms.decay * clock.covariance_weight + (1.0 - terms.decay)


@inlined
def _sift(base: Floats, moves: Floats, place: int, quantity: float) -> None:
    # Moves one scenario to its place among the sorted ones before it.
    moved, by_unit = base[place], moves[place]
    value = moved + quantity * by_unit
    while place > 0 and value < base[place - 1] + quantity * moves[place - 1]:
        base[place] = base[place - 1]
        moves[place] = moves[place - 1]
        place -= 1
    base[place] = moved
    moves[place] = by_unit


@inlined
def worst_first(base: Floats, moves: Floats, n: int, k: int, quantity: float) -> None:
    """Reorder scenarios so that the k worst P&L stand first, the worst of them in front.

    The order of the others is lost. One pass: a scenario that is better than the k-th worst so far
    costs a comparison. A NaN is put at place k - 1, where every reader of the tail meets it.

    Parameters
    ----------
    base, moves : (>= n,) P&L by scenario is base + quantity x moves; both are reordered alike.
    k : in 1..n.
    """
    last = k - 1
    bound = math.inf
    for place in range(n):
        if place > last and base[place] + quantity * moves[place] >= bound:
            continue
        end = min(place, last)
        if place > last or math.isnan(base[place] + quantity * moves[place]):
            base[place], base[last] = base[last], base[place]
            moves[place], moves[last] = moves[last], moves[place]
            if math.isnan(base[last] + quantity * moves[last]):
                return
        _sift(base, moves, end, quantity)
        if place >= last:
            bound = base[last] + quantity * moves[last]


@inlined
def mean_loss(base: Floats, moves: Floats, first: int, k: int, quantity: float) -> float:
    """Mean loss of the scenarios from place `first` to the k-th worst, at least 0.

    They stand sorted (`worst_first`). From 0 it is the expected shortfall, from k - 1 the value at
    risk.

    References
    ----------
    Jorion, Value at Risk, 3rd ed., 2007, ch. 10; Acerbi, Tasche, On the coherence of expected
    shortfall, 2002.
    """
    total = 0.0
    for place in range(first, k):
        total += base[place] + quantity * moves[place]
    loss = -total / (k - first)
    return 0.0 if loss <= 0.0 else loss


@part
def largest_quantity(a: float, b: float, c: float, most: float) -> float:
    """The largest size x at which a variance a + 2 b x + c x^2 is at most `most`.

    Returns
    -------
    0 or less if there is none above 0, and if a number is NaN; infinite if size does not matter.
    """
    root = b * b - c * (a - most)
    if not root >= 0.0:
        return 0.0
    root = math.sqrt(root)
    if b > 0.0:
        return (most - a) / (b + root)  # the same, without a difference of like numbers
    if c == 0.0:
        return math.inf if a <= most else 0.0
    return (root - b) / c


@part
def correlation(own: Floats, rest: Floats, n: int) -> float:
    """Pearson's correlation of the first n of two series, 0 where one of them does not vary.

    What varies by less than a millionth of a millionth of both is a rounding error. NaN if a number
    is not finite.
    """
    own_mean, rest_mean, size = 0.0, 0.0, 0.0
    for place in range(n):
        own_mean += own[place] / n
        rest_mean += rest[place] / n
        size += own[place] * own[place] + rest[place] * rest[place]
    if not math.isfinite(size):
        return math.nan
    both, own_square, rest_square = 0.0, 0.0, 0.0
    for place in range(n):
        one, other = own[place] - own_mean, rest[place] - rest_mean
        both += one * other
        own_square += one * one
        rest_square += other * other
    least = _NOISE * _NOISE * size
    if own_square <= least or rest_square <= least:
        return 0.0
    return max(-1.0, min(1.0, both / (math.sqrt(own_square) * math.sqrt(rest_square))))
