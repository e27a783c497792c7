"""A case with every default of the configuration filled in, for the oracle."""

import math
from types import SimpleNamespace

from tests.streams import XNYS

INSTRUMENT = {
    "max_position": math.inf, "multiplier": 1.0, "volume_unit": "base", "shortable": True,
    "perpetual": False, "restricted": False, "quality": 1.0, "calendar": "24/7",
    "fee_tier": "default", "conversion": "",
}  # fmt: skip
EXECUTION = {
    "latency_ms": 50.0, "latency_sigma": 0.0, "latency_sample_ms": None, "cancel_latency_ms": None,
    "cancel_latency_sigma": 0.0, "slippage_bps": 1.0, "half_spread_bps": 0.0,
    "spread_model": "constant", "impact": 0.0, "volatility_scale": 0.0, "participation": None,
    "queue_share": 0.0, "reject_probability": 0.0, "fee_bps": 5.0, "maker_fee_bps": None,
    "fee_fixed": 0.0, "fee_minimum": 0.0, "borrow_rate": 0.0, "interest_rate": 0.0,
    "financing_hours": 24.0, "funding_rate": 0.0, "funding_hours": 8.0, "funding": None,
    "statistics_span": 64,
}  # fmt: skip
SIZING = {"kind": "weight", "band": 0.05, "retry_after": 60, "split": True, "most": 1.0}
ORDERS = {
    "kind": "market", "offset_bps": 0.0, "limit_offset_bps": 0.0, "trail_bps": 0.0, "tif": "gtc",
    "timeout_s": None, "then": "none", "post_only": False, "slices": 1, "slice_s": 0.0,
    "carry": True,
}  # fmt: skip
EXITS = {
    "stop_loss": None, "take_profit": None, "trailing_stop": None, "max_hold_s": None,
    "flatten_drawdown": None, "how": "rule", "rearm": "signal", "rearm_bars": 0,
}  # fmt: skip


def complete(case: SimpleNamespace) -> SimpleNamespace:
    """A case with every default filled in, its dicts as namespaces."""

    def filled(defaults: dict, given: dict) -> SimpleNamespace:
        merged = defaults | given
        if merged.get("max_position", 0) is None:
            merged["max_position"] = math.inf
        return SimpleNamespace(**merged)

    def each(defaults: dict, given: dict) -> dict:
        return {name: filled(defaults, some) for name, some in given.items()}

    risk = case.risk | {"checks": [(one["check"], one["limit"]) for one in case.risk["checks"]]}
    if not case.activity:
        risk["risk_bar"] = max(risk["risk_bar"], case.interval)
    return SimpleNamespace(
        **vars(case)
        | {
            "universe": [filled(INSTRUMENT, one) for one in case.universe],
            "execution": filled(EXECUTION, case.execution),
            "sizing": each(SIZING, case.sizing),
            "orders": each(ORDERS, case.orders),
            "exits": each(EXITS, case.exits),
            "risk": SimpleNamespace(**risk),
            "calendars": {"XNYS": XNYS},
        }
    )
