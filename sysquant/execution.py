"""The terms of the simulated broker: when an order arrives, what a fill costs, what holding costs.

Input: the keys of `conf/execution/`. Output: one record of terms, and the compiled functions that
price with it. Every random draw is a function of run seed, strategy and order number alone: a
replay repeats it, and another strategy in the book does not change it. Orders are not met here.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sysquant.compiled import inlined, inlined_kernel, kernel
from sysquant.errors import ConfigError, nearest
from sysquant.keys import Spelled, check_choice, check_kind, check_number
from sysquant.records import Row
from sysquant.steps import tick_beyond
from sysquant.types import Floats, Instrument, Ints

SPREAD_MODELS = ("constant", "roll", "corwin_schultz")
_CONSTANT, _ROLL, _CORWIN_SCHULTZ = range(3)
_SUBMIT_DRAW, _CANCEL_DRAW = 0, 3  # of two draws each; 2 is that of a reject
_MOST_SIGMA = 3.0
_MOST_LATENCY_MS = 86_400_000.0
_LEAST_HOURS = 1 / 3_600_000  # a millisecond
_MOST_HOURS = 87_600.0
_DEFAULT_TIER = "default"
_TIER_KEYS = ("fee_bps", "maker_fee_bps")
_BPS = 1e-4
_YEAR_NS = 365 * 86_400 * 10**9
_HOUR_NS = 3_600 * 10**9
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Tiers = Mapping[str, Mapping[str, float | None]]
Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]


# -- random draws


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def uniform(seed: int, key: int, order_no: int, draw: int) -> float:
    """Draw number `draw` of one order, in (0, 1), from a counter and no state.

    References
    ----------
    Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64).
    """
    x = _mix(np.uint64(seed) + _GOLDEN)
    x = _mix((x ^ np.uint64(key)) + _GOLDEN)
    x = _mix((x ^ np.uint64(order_no)) + _GOLDEN)
    x = _mix((x ^ np.uint64(draw)) + _GOLDEN)
    return (np.float64(x >> np.uint64(11)) + 0.5) * 2.0**-53


def order_key(strategy: str) -> int:
    """The key of a strategy's random draws: a hash of its name, non-negative int64."""
    return int.from_bytes(hashlib.sha256(strategy.encode()).digest()[:8], "big") >> 1


# -- latency


@inlined
def _delay(
    median: int, sigma: float, seed: int, samples: Ints, key: int, order_no: int, draw: int
) -> int:
    # A recorded delay, a lognormal one about the median, or the median itself.
    if len(samples) > 0:
        return int(samples[int(uniform(seed, key, order_no, draw) * len(samples))])
    if sigma == 0.0:
        return int(median)
    radius = math.sqrt(-2.0 * math.log(uniform(seed, key, order_no, draw)))
    z = radius * math.cos(2.0 * math.pi * uniform(seed, key, order_no, draw + 1))
    return int(min(median * math.exp(sigma * z), _MOST_LATENCY_MS * 1e6))


@inlined_kernel
def latency(terms: Row, samples: Ints, key: int, order_no: int) -> int:
    """Nanoseconds from decision to broker: replayed, lognormal about the median, or fixed.

    Parameters
    ----------
    terms : `records.TERMS`.
    samples : (n,) recorded delays, ns; empty where none are replayed.
    key, order_no : of the strategy and its order: the same ones give the same delay.
    """
    return _delay(
        terms.latency_ns, terms.latency_sigma, terms.seed, samples, key, order_no, _SUBMIT_DRAW
    )


@inlined_kernel
def cancel_latency(terms: Row, samples: Ints, key: int, order_no: int) -> int:
    """Nanoseconds from the wish to cancel to the broker; as `latency`, with draws of its own."""
    return _delay(
        terms.cancel_latency_ns, terms.cancel_latency_sigma, terms.seed, samples, key, order_no,
        _CANCEL_DRAW,
    )  # fmt: skip


# -- price and cost of a fill


@kernel
def slippage(terms: Row, market: Row, quantity: float) -> float:
    """Slippage of a fill of `quantity` units against its reference, a fraction >= 0.

    Fixed part, half of the spread, impact `coefficient x sigma x sqrt(|quantity| / volume)` and
    `scale x sigma`; a part whose statistic is not known yet (NaN, or no volume) is 0.

    References
    ----------
    Torre, BARRA Market Impact Model Handbook, 1997; Almgren, Thum, Hauptmann, Li, Direct
    estimation of equity market impact, Risk 18, 2005 (the square root of the share of volume).
    """
    slip = terms.fixed_slippage
    if terms.spread_model == _CONSTANT:
        slip += terms.half_spread
    else:
        spread = market.roll if terms.spread_model == _ROLL else market.spread
        if spread > 0.0:
            slip += 0.5 * spread
    if (terms.impact > 0.0 or terms.volatility_scale > 0.0) and market.variance > 0.0:
        sigma = math.sqrt(market.variance)
        if terms.impact > 0.0 and market.volume > 0.0:
            slip += terms.impact * sigma * math.sqrt(abs(quantity) / market.volume)
        slip += terms.volatility_scale * sigma
    return slip


@kernel
def taker_price(reference: float, side: float, slip: float, instrument: Row) -> float:
    """Price of a fill against the market: `slip` (a fraction) against the order, then a tick.

    Buys (`side` 1) are rounded up, sales (-1) down, never below one tick.
    """
    return tick_beyond(reference * (1.0 + side * slip), side, instrument)


@kernel
def fee_total(terms: Row, rate_value: float, traded: float) -> float:
    """Fees of an order so far, the book's currency.

    Parameters
    ----------
    terms : `records.TERMS`.
    rate_value : sum over its fills of traded value x fee rate.
    traded : traded value; without any, nothing is paid.
    """
    if traded == 0.0:
        return 0.0
    return max(terms.fee_minimum, terms.fee_fixed + rate_value)


# -- configuration

_NOT_NEGATIVE = (
    "slippage_bps", "half_spread_bps", "impact", "volatility_scale", "fee_bps", "fee_fixed",
    "fee_minimum", "borrow_rate", "interest_rate",
)  # fmt: skip
_OPTIONAL = ("cancel_latency_ms", "participation", "maker_fee_bps")  # null: not given
_RANGES: dict[str, dict[str, Any]] = {
    **{key: {"least": 0} for key in _NOT_NEGATIVE},
    "latency_ms": {"least": 0, "most": _MOST_LATENCY_MS},
    "latency_sigma": {"least": 0, "most": _MOST_SIGMA},
    "cancel_latency_ms": {"least": 0, "most": _MOST_LATENCY_MS},
    "cancel_latency_sigma": {"least": 0, "most": _MOST_SIGMA},
    "participation": {"above": 0, "most": 1},
    "queue_share": {"least": 0, "most": 1},
    "reject_probability": {"least": 0, "most": 1},
    "maker_fee_bps": {"least": 0},
    "financing_hours": {"least": _LEAST_HOURS, "most": _MOST_HOURS},
    "funding_rate": {"above": -1, "below": 1},
    "funding_hours": {"least": _LEAST_HOURS, "most": _MOST_HOURS},
    "statistics_span": {"least": 1, "most": 1_000_000, "whole": True},
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Execution(Spelled):
    """Terms of the simulated broker: latency, slippage, what a fill may take, fees, financing.

    Parameters
    ----------
    latency_ms : from decision to broker, ms, median.
    latency_sigma : standard deviation of its logarithm; 0 makes it fixed.
    latency_sample_ms : recorded delays, ms, of which orders and cancels draw theirs; `latency_ms`
        is not used then.
    cancel_latency_ms, cancel_latency_sigma : of a cancel; its median None is `latency_ms`.
    slippage_bps : paid against the reference in every fill of a taker, basis points.
    half_spread_bps : half of a constant spread, basis points.
    spread_model : `constant`, or half of a spread estimated from bars: `roll`, `corwin_schultz`.
    impact : coefficient of sigma x sqrt(quantity / volume per bar); 0 for none, about 1 is usual.
    volatility_scale : coefficient of sigma, the volatility per bar.
    participation : most of an event's volume that an order takes, a fraction; None for no cap.
    queue_share : of an event's volume that fills a limit which the price only touches, a fraction.
    reject_probability : of an order at its arrival.
    fee_bps, maker_fee_bps : of the traded value, taker and maker; maker None as taker.
    fee_fixed, fee_minimum : of an order that fills at all, the book's currency.
    tiers : name -> its `fee_bps` and `maker_fee_bps`, for instruments that name it as `fee_tier`.
    borrow_rate, interest_rate : of short value and of negative cash, fractions per year.
    financing_hours : between two charges of them.
    funding_rate : of a perpetual without a series, a fraction of value at each funding time.
    funding_hours : between two of these.
    funding : symbol -> (times, ns UTC and rising; rates from then on, fractions).
    statistics_span : span of the statistics that slippage and sizing read, bars.

    Raises
    ------
    ConfigError
        If a value lies outside its range, or two of them contradict each other.
    """

    latency_ms: float = 50.0
    latency_sigma: float = 0.0
    latency_sample_ms: Sequence[float] | None = None
    cancel_latency_ms: float | None = None
    cancel_latency_sigma: float = 0.0
    slippage_bps: float = 1.0
    half_spread_bps: float = 0.0
    spread_model: str = "constant"
    impact: float = 0.0
    volatility_scale: float = 0.0
    participation: float | None = None
    queue_share: float = 0.0
    reject_probability: float = 0.0
    fee_bps: float = 5.0
    maker_fee_bps: float | None = None
    fee_fixed: float = 0.0
    fee_minimum: float = 0.0
    tiers: Tiers = field(default_factory=dict[str, Mapping[str, float | None]])
    borrow_rate: float = 0.0
    interest_rate: float = 0.0
    financing_hours: float = 24.0
    funding_rate: float = 0.0
    funding_hours: float = 8.0
    funding: Series | None = None
    statistics_span: int = 64

    def __post_init__(self) -> None:
        """Refuse terms that cannot be meant."""
        for key, range_ in _RANGES.items():
            value = getattr(self, key)
            if not (value is None and key in _OPTIONAL):
                check_number(f"execution.{key}", value, **range_)
        check_choice("execution.spread_model", self.spread_model, SPREAD_MODELS)
        if self.spread_model != "constant" and self.half_spread_bps:
            raise ConfigError(
                f"execution.half_spread_bps was {self.half_spread_bps}, but spread_model "
                f"{self.spread_model!r} estimates the spread: set one of them"
            )
        self._check_sample()
        check_kind("execution.tiers", self.tiers, Mapping, "name -> its fees")
        for name, tier in self.tiers.items():
            _check_tier(name, tier)
        if self.funding is not None:
            check_kind(
                "execution.funding", self.funding, Mapping, "symbol -> (times, rates), or None"
            )
        for symbol in self.funding or ():
            self.series(symbol)

    def _check_sample(self) -> None:
        if self.latency_sample_ms is None:
            return
        check_kind(
            "execution.latency_sample_ms",
            self.latency_sample_ms,
            Collection,
            "recorded ms, or None",
        )
        if not len(self.latency_sample_ms):
            raise ConfigError("execution.latency_sample_ms is empty; give recorded ms, or null")
        for place, value in enumerate(self.latency_sample_ms):
            check_number(
                f"execution.latency_sample_ms[{place}]", value, least=0, most=_MOST_LATENCY_MS
            )
        for key in ("latency_sigma", "cancel_latency_ms", "cancel_latency_sigma"):
            if getattr(self, key):
                raise ConfigError(
                    f"execution.{key} was {getattr(self, key)}, but latency_sample_ms gives every "
                    f"order and cancel its delay: set one of them"
                )

    def terms(self, interval: int) -> dict[str, float]:
        """Fields of `records.TERMS` that the broker decides; `interval` ns, 0: bars not of time."""
        cancel_ms = self.latency_ms if self.cancel_latency_ms is None else self.cancel_latency_ms
        return {
            "latency_ns": round(self.latency_ms * 1e6),
            "latency_sigma": self.latency_sigma,
            "cancel_latency_ns": round(cancel_ms * 1e6),
            "cancel_latency_sigma": self.cancel_latency_sigma,
            "latency_samples": len(self.samples),
            "fixed_slippage": self.slippage_bps * _BPS,
            "half_spread": self.half_spread_bps * _BPS,
            "spread_model": SPREAD_MODELS.index(self.spread_model),
            "impact": self.impact,
            "volatility_scale": self.volatility_scale,
            "participation": math.inf if self.participation is None else self.participation,
            "queue_share": self.queue_share,
            "reject_probability": self.reject_probability,
            "fee_fixed": self.fee_fixed,
            "fee_minimum": self.fee_minimum,
            "borrow_rate": self.borrow_rate,
            "interest_rate": self.interest_rate,
            "financing_ns": round(self.financing_hours * _HOUR_NS),
            "funding_rate": self.funding_rate,
            "funding_ns": round(self.funding_hours * _HOUR_NS),
            "statistics_weight": 2.0 / (self.statistics_span + 1.0),
            "bars_per_year": _YEAR_NS / interval if interval else math.nan,
        }

    @property
    def samples(self) -> Ints:
        """(n,) recorded delays, ns; empty where none are replayed."""
        return np.array([round(ms * 1e6) for ms in self.latency_sample_ms or ()], np.int64)

    def rates(self, instrument: Instrument) -> tuple[float, float]:
        """Fee rates of an instrument's tier, (maker, taker), fractions of traded value.

        Raises
        ------
        ConfigError
            If the tier is not known.
        """
        tiers = {_DEFAULT_TIER: (self.fee_bps, self.maker_fee_bps)}
        for name, tier in self.tiers.items():
            tiers[name] = (tier["fee_bps"] or 0.0, tier.get("maker_fee_bps"))
        check_choice(f"fee_tier of {instrument.symbol}", instrument.fee_tier, tiers)
        taker, maker = tiers[instrument.fee_tier]
        return (taker if maker is None else maker) * _BPS, taker * _BPS

    def series(self, symbol: str) -> tuple[Ints, Floats]:
        """Funding of a symbol: (n,) times, ns UTC, and (n,) rates; empty where none is given.

        Raises
        ------
        ConfigError
            If times do not rise, or a rate is not finite.
        """
        times, rates = (self.funding or {}).get(symbol, ((), ()))
        key = f"execution.funding[{symbol}]"
        if len(times) != len(rates):
            raise ConfigError(f"{key} needs a rate per time, was {len(times)} and {len(rates)}")
        for place, (ts, rate) in enumerate(zip(times, rates, strict=True)):
            check_number(f"{key} time {place}", ts, least=0, whole=True)
            check_number(f"{key} rate {place}", rate, above=-1, below=1)
        ts = np.array(times, np.int64)
        if np.any(np.diff(ts) <= 0):
            raise ConfigError(f"{key}: times must rise; sort them and drop repeats")
        return ts, np.array(rates, np.float64)


def _check_tier(name: str, tier: Mapping[str, float | None]) -> None:
    key = f"execution.tiers.{name}"
    if name == _DEFAULT_TIER:
        raise ConfigError(f"{key} is execution.fee_bps and maker_fee_bps: set those")
    for given in set(tier) - set(_TIER_KEYS):
        raise ConfigError(
            f"{key} has no key {given!r}{nearest(given, ('fee_bps', 'maker_fee_bps'))}"
        )
    check_number(f"{key}.fee_bps", tier.get("fee_bps"), least=0)
    if tier.get("maker_fee_bps") is not None:
        check_number(f"{key}.maker_fee_bps", tier["maker_fee_bps"], least=0)


def refuse_costs(where: str, given: Collection[str]) -> None:
    """Say where costs go that are given to the wrong one.

    Raises
    ------
    ConfigError
        If one of the words is an argument of `Execution`.
    """
    for name in (each.name for each in fields(Execution)):
        if name in given:
            raise ConfigError(f"{where} has no {name!r}: it is execution=Execution({name}=...)")
