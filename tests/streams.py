"""Random cases for the engine and its oracle: a market, a book, and strategies that are scripted.

`Switches` say which parts of the engine a case uses; `case_of` draws the numbers from their seed.
A case is plain dicts and numbers, spelt as in YAML. Strategies have no table of targets: what they
want at a bar's close is arithmetic of its time and price (`weight_of`), which both sides compute.
"""

import math
import random
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from tests.stream_events import STARTS, events_of

SECOND = 1_000_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
NAN = math.nan
WEIGHTS = (
    (1.0, 0.5, 0.0, -0.5, -1.0, 0.25, 0.9),
    (1.0, 0.0, 0.6, 0.3, 1.0, NAN, 0.0),
    (1.0, -1.0, 0.7, -0.4, NAN, 0.1, 0.0),
)
# Sessions of New York in November 2023: 14:30 to 21:00 UTC, on the 24th until 18:00
_OPENS = [1_699_885_800 + 86_400 * day for day in (0, 1, 2, 3, 4, 7, 8, 9, 11, 14, 15, 16, 17)]
XNYS = tuple(
    (opens * SECOND, (opens + (12_600 if day == 8 else 23_400)) * SECOND)
    for day, opens in enumerate(_OPENS)
)


def code_of(ts, close, salt: int, hold_s: float):
    """A number from a bar's close: the same for `hold_s` at a time; of floats or of arrays."""
    block = (ts / 1e9) // hold_s % 10_007
    return (block * 7919 + (close > 30) * 104_729 + (close > 300) * 1_299_709 + salt) % 1009


def weight_of(script: dict, ts: int, close: float) -> float:
    """Target weight of a scripted strategy at a bar's close; NaN for no opinion."""
    weights = WEIGHTS[script["style"]]
    return weights[int(code_of(float(ts), close, script["salt"], script["hold_s"])) % len(weights)]


@dataclass(frozen=True)
class Switches:
    """Which parts of the engine a case uses; everything else is drawn from `seed`."""

    seed: int = 0
    events: int = 60
    symbols: int = 1
    strategies: int = 1
    source: str = "ticks"  # ticks, bars
    kind: str = "market"
    tif: str = "gtc"
    sizing: str = "weight"
    exits: str = "none"  # none, rule, bracket
    slices: bool = False
    checks: tuple[str, ...] = ()
    cut: bool = False
    latency: str = "none"  # none, fixed, random, sample
    slippage: str = "none"  # none, fixed, roll, corwin_schultz, impact
    participation: bool = False
    fees: bool = False
    rejects: bool = False
    financing: bool = False
    instruments: bool = False  # varied ones
    conversion: bool = False
    late: bool = False
    clock: bool = False
    halts: bool = False
    calls: bool = False
    legs: bool = False  # of the first two symbols
    bars: str = "time"  # or ticks, volume, value: of ticks, without what needs common bar ends


ORDER_KINDS = ("market", "limit", "stop", "stop_limit", "trailing_stop")
TIFS = ("gtc", "ioc", "fok", "gtd")
SIZINGS = ("weight", "volatility_target", "fixed_notional", "risk_per_trade")
CHOICES = {
    "source": ("ticks", "bars"), "kind": ORDER_KINDS, "tif": TIFS, "sizing": SIZINGS,
    "exits": ("none", "rule", "bracket"), "latency": ("none", "fixed", "random", "sample"),
    "slippage": ("none", "fixed", "roll", "corwin_schultz", "impact"),
    "bars": ("time", "time", "time", "ticks", "volume", "value"),
}  # fmt: skip
FLAGS = (
    "slices", "cut", "participation", "fees", "rejects", "financing", "instruments", "conversion",
    "late", "clock", "halts", "calls", "legs",
)  # fmt: skip


def random_switches(seed: int) -> Switches:
    """Switches drawn from a seed alone, for runs without Hypothesis."""
    rng = random.Random(seed)
    names = list(LIMITS)
    checks = rng.sample(names, rng.choice((1, 1, 2, 3, 5, 8, len(names))))
    return Switches(
        seed=seed,
        events=rng.randint(20, 120),
        symbols=rng.randint(1, 3),
        strategies=rng.randint(1, 3),
        checks=tuple(checks),
        **{name: rng.choice(choices) for name, choices in CHOICES.items()},
        **{name: rng.random() < 0.35 for name in FLAGS},
    )


# -- the parts of a case
def round_to(x: float, digits: int = 3) -> float:
    """A number with so many digits: what a person would write."""
    return float(f"{x:.{digits}g}")


def _instruments(s: Switches, rng: random.Random) -> list[dict]:
    universe = []
    for y in range(s.symbols):
        tick = rng.choice((0.01, 0.05, 0.1)) if y < 2 else rng.choice((0.01, 0.25, 1.0))
        lot = rng.choice((1e-6, 0.001, 0.1, 1.0))
        one = {"symbol": "ABC"[y], "tick_size": tick, "lot_size": lot, "min_notional": 10.0}
        if s.instruments:
            one |= {
                "min_notional": rng.choice((0.0, 1.0, 1000.0)),
                "max_position": rng.choice((None, round_to(math.exp(rng.uniform(1, 8))))),
                "multiplier": rng.choice((1.0, 0.1, 5.0)),
                "volume_unit": rng.choice(("base", "quote")),
                "shortable": rng.random() < 0.7,
                "restricted": rng.random() < 0.1,
                "quality": (*(1.0,) * 5, 0.95, 0.5, math.nan)[(s.seed + y) % 8],
                "calendar": rng.choice(("24/7", "24/7", "XNYS")),
                "fee_tier": rng.choice(("default", "pro")),
            }
        if s.financing:
            one["perpetual"] = rng.random() < 0.6
        if s.conversion and y == 1:
            one |= {"currency": "EUR", "conversion": "A"}
        universe.append(one)
    return universe


def _execution(s: Switches, rng: random.Random, interval: int) -> dict:
    ms = interval / 1e6
    some = {"latency_ms": 0.0, "slippage_bps": 0.0, "fee_bps": 0.0, "statistics_span": 8}
    if s.latency == "fixed":
        some["latency_ms"] = round_to(ms * rng.choice((0.01, 0.4, 2.5)))
        some["cancel_latency_ms"] = rng.choice((None, 0.0, round_to(0.7 * ms)))
    if s.latency == "random":
        some |= {"latency_ms": round_to(ms * 0.5), "latency_sigma": rng.choice((0.3, 1.5))}
        some["cancel_latency_sigma"] = rng.choice((0.0, 1.0))
    if s.latency == "sample":
        some["latency_sample_ms"] = [round_to(ms * x) for x in (0.01, 0.2, 0.7, 1.3)]
    if s.slippage != "none":
        some["slippage_bps"] = rng.choice((0.0, 1.0, 12.5))
    if s.slippage == "fixed":
        some["half_spread_bps"] = rng.choice((0.0, 3.0))
    if s.slippage in ("roll", "corwin_schultz"):
        some["spread_model"] = s.slippage
    if s.slippage == "impact":
        some |= {"impact": rng.choice((0.2, 1.0)), "volatility_scale": rng.choice((0.0, 0.5))}
    return some | _fills(s, rng)


def _fills(s: Switches, rng: random.Random) -> dict:
    some: dict = {"tiers": {"pro": {"fee_bps": 4.0, "maker_fee_bps": rng.choice((None, 1.0))}}}
    if s.participation:
        some["participation"] = rng.choice((0.01, 0.1, 0.5))
    if s.kind in ("limit", "stop_limit") or s.exits == "bracket":
        some["queue_share"] = rng.choice((0.0, 0.2, 1.0))
    if s.rejects:
        some["reject_probability"] = rng.choice((0.1, 0.5))
    if s.fees:
        some |= {
            "fee_bps": 7.5, "maker_fee_bps": rng.choice((None, 0.0, 2.0)),
            "fee_fixed": rng.choice((0.0, 0.35)), "fee_minimum": rng.choice((0.0, 1.0)),
        }  # fmt: skip
    if s.financing:
        some |= _financing(rng)
    return some


def _financing(rng: random.Random) -> dict:
    start = STARTS[0] * SECOND
    times = sorted(start + hour * HOUR for hour in rng.sample(range(-5, 60), 4))
    rates = [round_to(rng.uniform(-0.01, 0.01)) for _ in times]
    return {
        "borrow_rate": rng.choice((0.0, 0.08)), "interest_rate": rng.choice((0.0, 0.05)),
        "financing_hours": rng.choice((1.0, 24.0, 0.25)), "funding_hours": rng.choice((1.0, 8.0)),
        "funding_rate": rng.choice((0.0, 1e-4)),
        "funding": rng.choice((None, {"A": (times, rates)})),
    }  # fmt: skip


def _sizing(s: Switches, rng: random.Random, money: float) -> dict:
    some = {
        "kind": s.sizing, "band": rng.choice((0.0, 0.05, 0.3)),
        "retry_after": rng.choice((1, 3, 60)),
    }  # fmt: skip
    if s.sizing in ("weight", "volatility_target"):
        some["split"] = rng.random() < 0.5
    if s.sizing == "volatility_target":
        some |= {"volatility": rng.choice((0.2, 2.0, 20.0)), "most": rng.choice((0.5, 1.0))}
    if s.sizing == "fixed_notional":
        some["notional"] = round_to(money * rng.uniform(0.05, 1.2))
    if s.sizing == "risk_per_trade":
        some |= {"risk": 0.01, "stop": rng.choice((0.01, 0.05))}
    return some


def _orders(s: Switches, rng: random.Random, interval: int) -> dict:
    some: dict = {"kind": s.kind, "carry": rng.random() < 0.8}
    if s.kind in ("limit", "stop", "stop_limit"):
        some["offset_bps"] = rng.choice((0.0, 2.0, 20.0, 60.0))
    if s.kind == "stop_limit":
        some["limit_offset_bps"] = rng.choice((0.0, 5.0))
    if s.kind == "trailing_stop":
        some["trail_bps"] = rng.choice((5.0, 50.0))
    can_end = s.kind in ("market", "limit")
    some["tif"] = s.tif if s.tif in ("gtc", "gtd") or can_end else "gtd"
    if some["tif"] == "gtd":
        some["timeout_s"] = round_to(interval / 1e9 * rng.choice((0.3, 1.2, 4.0)))
        some["then"] = "none" if s.slices else rng.choice(("none", "market"))
    if s.kind == "limit":
        if some["tif"] in ("gtc", "gtd"):
            some["post_only"] = rng.random() < 0.3
        if not some.get("post_only") and rng.random() < 0.3:
            some["offset_bps"] *= -1
    if s.slices:
        some |= {"slices": rng.randint(2, 5), "slice_s": round_to(interval / 1e9 * 0.7)}
    return some


def _exits(s: Switches, rng: random.Random, interval: int) -> dict:
    if s.exits == "none":
        return {}

    def perhaps(*values: float) -> float | None:
        return rng.choice((None, *values))

    some: dict = {
        "stop_loss": perhaps(0.003, 0.02), "take_profit": perhaps(0.004, 0.03),
        "trailing_stop": perhaps(0.004, 0.02), "how": s.exits,
        "max_hold_s": perhaps(interval / 1e9 * 3.3), "flatten_drawdown": perhaps(0.005, 0.05),
    }  # fmt: skip
    if s.exits == "bracket" and some["stop_loss"]:
        some["trailing_stop"] = None
    if s.exits == "bracket" and not (some["trailing_stop"] or some["take_profit"]):
        some["stop_loss"] = 0.01
    if rng.random() < 0.5:
        some |= {"rearm": "bars", "rearm_bars": rng.randint(1, 4)}
    return some


def _limits() -> dict:
    # Check -> a limit from (rng, money of a strategy): one that now and then refuses.
    def up_to(*values: float):
        return lambda rng, money: rng.choice(values)

    def units(rng, money):
        return round_to(math.exp(rng.uniform(0, 7)))

    def worth(rng, money):
        return round_to(money * math.exp(rng.uniform(-3, 1)))

    limits = dict.fromkeys(("order_quantity", "position_quantity"), units)
    money = ("order_notional", "position_notional", "gross_exposure", "net_exposure")
    limits |= dict.fromkeys((*money, "book_gross_exposure", "book_net_exposure"), worth)
    shares = ("order_size", "position_weight", "short_limit", "leverage", "book_leverage")
    limits |= dict.fromkeys(shares, up_to(0.1, 0.5, 0.8, 1.5))
    limits |= dict.fromkeys(("concentration", "book_concentration"), up_to(0.4, 0.7, 1.0))
    limits |= dict.fromkeys(("long_only", "shortable"), up_to(0.0))
    counts = ("open_positions", "open_orders", "book_open_positions", "book_open_orders")
    limits |= dict.fromkeys(counts, up_to(1, 2, 3))
    losses = ("drawdown", "book_drawdown", "daily_loss", "book_daily_loss")
    limits |= dict.fromkeys(losses, up_to(0.001, 0.01, 0.1))
    risks = ("value_at_risk", "expected_shortfall")
    limits |= dict.fromkeys(risks, up_to(0.0005, 0.003, 0.02))
    risks = ("covariance_value_at_risk", "covariance_expected_shortfall")
    limits |= dict.fromkeys(risks, up_to(0.0005, 0.003, 0.02))
    return limits | {
        "min_notional": up_to(0.0, 100.0),
        "price_collar": up_to(0.0005, 0.003, 0.01),
        "reference_collar": up_to(0.002, 0.01),
        "stale_price": up_to(0.0, 0.5, 20.0, 2000.0),
        "feed_lag": up_to(0.0, 5.0),
        "tick_jump": up_to(0.001, 0.005, 0.03),
        "cash": lambda rng, money: rng.choice((0.0, round_to(0.5 * money), -money)),
        "consecutive_losses": up_to(0, 2),
        "cooldown": up_to(1.0, 300.0, 7200.0),
        "give_back": up_to(0.3, 1.0, 3.0),
        "volatility": up_to(0.05, 0.5, 5.0),
        "correlation": up_to(-0.5, 0.0, 0.6),
        "order_rate_second": up_to(1, 2),
        "order_rate_minute": up_to(1, 3),
        "repeated_order": up_to(1, 2, 4),
        "duplicate_order": up_to(1.0, 600.0),
        "self_match": up_to(0, 1),
        "warm_up": up_to(2, 6),
        "not_promoted": up_to(0.0, 0.3),
        "trading_window": up_to(0.0, 600.0),
        "restricted": up_to(0),
        "data_quality": up_to(0.9, 0.95),
        "state": up_to(0, 1),
    }


LIMITS = _limits()


SIZES = {"ticks": (1, 2, 5), "volume": (20.0, 300.0), "value": (3e3, 5e4)}  # of a bar


def _operation(rng: random.Random, names: list[str], symbols: list[str]) -> dict[str, Any]:
    """What an operator does, as it is written down."""
    what = rng.choice(("switch", "switch", "switch", "weigh", "hold", "hold", "rearm"))
    one = rng.choice(names)
    if what == "weigh":
        return {"type": what, "strategy": one, "weight": rng.choice((0.0, 0.3, 1.0))}
    if what == "hold":
        reason = rng.choice(("halt", "halt", "stop", "gap"))
        return {"type": what, "reason": reason, "on": rng.random() < 0.6}
    if what == "rearm":
        return {"type": what, "strategy": one}
    return {
        "type": what,
        "state": rng.choice(("reducing", "off", "paused", "active")),
        "strategy": rng.choice((one, one, None)),
        "symbol": rng.choice((None, None, rng.choice(symbols))),
    }


def case_of(s: Switches) -> SimpleNamespace:
    """The case of these switches: what engine and oracle are given."""
    activity = None
    if s.bars != "time" and s.source == "ticks":
        activity = (s.bars, random.Random(f"bars {s.seed}").choice(SIZES[s.bars]))
        sizing = "weight" if s.sizing == "volatility_target" else s.sizing
        s = replace(s, legs=False, sizing=sizing)
    rng = random.Random(f"case {s.seed}")
    interval = rng.choice((SECOND, MINUTE, 15 * MINUTE, HOUR))
    capital = rng.choice((20_000.0, 100_000.0, 1e6))
    names = [f"s{k}" for k in range(s.strategies)]
    money = capital / s.strategies * 0.9
    universe = _instruments(s, rng)
    risk_bar = rng.choice((interval // 2, interval, 2 * interval))
    events = events_of(s, rng, universe, interval)
    calls = []
    if s.calls:
        symbols, places = [one["symbol"] for one in universe], rng.sample(range(1, s.events), 3)
        calls = [(at, _operation(rng, names, symbols)) for at in sorted(places)]
    return SimpleNamespace(
        seed=rng.randrange(1_000_000),
        interval=interval,
        activity=activity,
        snapshot_ns=interval,
        capital=capital,
        fractions={name: rng.choice((0.9, 0.5)) / s.strategies for name in names},
        promoted=[name for name in names if rng.random() < 0.5],
        universe=universe,
        execution=_execution(s, rng, interval),
        sizing={name: _sizing(s, rng, money) for name in names},
        orders={name: _orders(s, rng, interval) for name in names},
        exits={name: _exits(s, rng, interval) for name in names},
        scripts={
            name: {
                "salt": rng.randrange(1000),
                "hold_s": interval / 1e9 * rng.choice((1, 3, 8)),
                "style": rng.randrange(len(WEIGHTS)),
                "fails_at": float(rng.choice(events)[1]) if s.calls and rng.random() < 0.3 else 0.0,
            }
            for name in names
        },
        risk={
            "checks": [
                {"check": c, "limit": LIMITS[c](rng, money)} for c in s.checks or ("state",)
            ],
            "cut": s.cut,
            "risk_bar": risk_bar,
            "window": rng.choice((10, 30)),
            "confidence": rng.choice((0.8, 0.95, 0.975)),
            "decay": rng.choice((0.9, 0.97)),
            "min_history": rng.choice(("refuse", "allow")),
            "least_history": rng.choice((4, 8)),
        },
        legs=[0, 1] if s.legs and s.symbols > 1 else [],
        events=events,
        calls=calls,
        cuts=sorted(rng.randrange(s.events) for _ in range(rng.choice((0, 0, 1, 3)))),
    )
