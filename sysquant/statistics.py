"""Statistics of a symbol, from its closed bars: volatility, volume and what a spread may be.

Input: the symbol's record and a bar that closed. Output: the record, moved on. Each is an average
with the weight of the newest bar fixed: the first value as it is, then `x + weight (new - x)`.
What needs more bars than there were is NaN.
"""

import math

from sysquant.compiled import inlined, kernel
from sysquant.records import Row

_K = 3.0 - 2.0 * math.sqrt(2.0)


VOLATILITY, ROLL, CORWIN_SCHULTZ = 1, 2, 4  # what is computed only where it is used


@inlined
def average(value: float, new: float, weight: float) -> float:
    """An exponential average, moved on by a new value of this weight."""
    return value + weight * (new - value)


@inlined
def _average(value: float, new: float, weight: float, first: bool) -> float:
    return new if first else average(value, new, weight)


@kernel
def corwin_schultz(high: float, low: float, high_before: float, low_before: float) -> float:
    """Spread that the ranges of two bars in a row show, a fraction of the price, >= 0.

    The range of one bar holds its volatility and the spread, that of both together twice the
    volatility and the spread once.

    References
    ----------
    Corwin, Schultz, A simple way to estimate bid-ask spreads from daily high and low prices,
    Journal of Finance 67, 2012, equations 14 and 18.
    """
    b = math.log(high / low) ** 2 + math.log(high_before / low_before) ** 2
    g = math.log(max(high, high_before) / min(low, low_before)) ** 2
    alpha = (math.sqrt(2.0 * b) - math.sqrt(b)) / _K - math.sqrt(g / _K)
    if alpha <= 0.0:
        return 0.0
    return 2.0 * (math.exp(alpha) - 1.0) / (1.0 + math.exp(alpha))


@inlined
def update(
    market: Row, high: float, low: float, close: float, volume: float, weight: float, uses: int
) -> None:
    """Take a symbol's closed bar into its statistics, and count it.

    Parameters
    ----------
    market : `records.MARKET`; written are `bars`, `close`, `high`, `low` (of this bar),
        `reference` (average close, from bar 1 on), `volume` (units per bar, 1), `change` (2),
        `variance` (of the logarithm of close by close, about 0; 2), `spread` (Corwin and Schultz,
        a fraction; 2), `roll_covariance` (3) and `roll` (its spread, a fraction; 3).
    high, low, close, volume : of the bar, volume in units.
    weight : of the newest bar, 2 / (span + 1).
    uses : which of the dear ones are wanted: `VOLATILITY`, `ROLL`, `CORWIN_SCHULTZ`; the others
        stay as they are.

    References
    ----------
    Roll, A simple implicit measure of the effective bid-ask spread in an efficient market,
    Journal of Finance 39, 1984: spread = 2 sqrt(-covariance of changes that follow each other).
    """
    before = market.bars
    market.reference = _average(market.reference, close, weight, before == 0)
    market.volume = _average(market.volume, volume, weight, before == 0)
    if before == 0:
        market.change = math.nan
        market.variance = math.nan
        market.spread = math.nan
        market.roll_covariance = math.nan
        market.roll = math.nan
    else:
        if uses & VOLATILITY:
            moved = math.log(close / market.close)
            market.variance = _average(market.variance, moved * moved, weight, before == 1)
        if uses & CORWIN_SCHULTZ:
            spread = corwin_schultz(high, low, market.high, market.low)
            market.spread = _average(market.spread, spread, weight, before == 1)
        change = close - market.close
        if uses & ROLL and before >= 2:
            market.roll_covariance = _average(
                market.roll_covariance, change * market.change, weight, before == 2
            )
            market.roll = 2.0 * math.sqrt(max(0.0, -market.roll_covariance)) / close
        market.change = change
    market.close = close
    market.high = high
    market.low = low
    market.bars = before + 1


@inlined
def take_bar(
    market: Row, instrument: Row, terms: Row, high: float, low: float, close: float, volume: float
) -> None:
    """`update` by a bar as the feed gives it, whose volume may be in the quote currency."""
    if instrument.quote_volume == 1:
        volume /= close
    update(market, high, low, close, volume, terms.statistics_weight, terms.statistics)
